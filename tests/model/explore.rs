//! Runs a model to its end, and tells what was found.

use std::hash::Hash;
use std::time::{Duration, Instant};

use stateright::{Checker, HasDiscoveries, Model};

/// What a model's step is called, one line of a counterexample.
pub trait Told {
    /// The line.
    fn told(&self) -> String;
}

/// A model that can say what a state is like.
pub trait Tells: Model {
    /// In a few lines.
    fn tells(&self, state: &Self::State) -> String;
}

/// A step of a model and where it leads. The step is only told; the state is what counts.
#[derive(Clone, Debug)]
pub struct Move<Step, State> {
    /// What happens.
    pub step: Step,
    /// The state after it.
    pub to: State,
}

impl<Step: PartialEq, State: PartialEq> PartialEq for Move<Step, State> {
    fn eq(&self, other: &Self) -> bool {
        self.step == other.step && self.to == other.to
    }
}

impl<Step: Told, State> Told for Move<Step, State> {
    fn told(&self) -> String {
        self.step.told()
    }
}

/// How an exploration ended.
#[derive(Debug)]
pub struct Outcome {
    /// Distinct states.
    pub states: usize,
    /// Steps tried between them.
    pub steps: usize,
    /// How many steps the furthest state is away from the beginning.
    pub depth: usize,
    /// How long it took.
    pub took: Duration,
    /// The first violation, if there was one.
    pub found: Option<Counterexample>,
}

/// How a property breaks.
#[derive(Debug)]
pub struct Counterexample {
    /// Which property.
    pub property: &'static str,
    /// The steps that lead there, none of which can be left out where one thread searched.
    pub steps: Vec<String>,
    /// The state that they lead to.
    pub end: String,
}

impl std::fmt::Display for Counterexample {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "  \"{}\" breaks after {} steps:", self.property, self.steps.len())?;
        for (i, step) in self.steps.iter().enumerate() {
            writeln!(f, "  {:>4}  {step}", i + 1)?;
        }
        write!(f, "        {}", self.end)
    }
}

/// Explores all states, breadth first, until a property breaks. One thread finds the shortest way to a
/// violation; more of them explore a space without one sooner.
pub fn explore<M>(model: M, threads: usize) -> Outcome
where
    M: Tells + Send + Sync + 'static,
    M::State: Clone + Hash + PartialEq + Send + Sync + 'static,
    M::Action: Clone + PartialEq + Told,
{
    let began = Instant::now();
    let checker = model.checker().threads(threads).finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let found = checker.discoveries().into_iter().min_by_key(|(name, _)| *name).map(|(property, path)| {
        let end = checker.model().tells(path.last_state());
        let steps = path.into_actions().iter().map(Told::told).collect();
        Counterexample { property, steps, end }
    });
    Outcome {
        states: checker.unique_state_count(),
        steps: checker.state_count(),
        depth: checker.max_depth(),
        took: began.elapsed(),
        found,
    }
}
