//! Runs a model to its end, and tells what was found.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasherDefault, Hash};
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use stateright::{Expectation, Model, Property};

use crate::fast_hash::{FastHasher, fingerprint};

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
    /// How many levels there are: a state is on the level that the fewest steps from the beginning lead to.
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
    /// The steps that lead there: no way is shorter.
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

/// How many states a thread takes at a time.
const CHUNK: usize = 64;

/// Explores all states, breadth first, level by level, until a property breaks: on a shortest way then, since all
/// that is nearer was looked at before.
///
/// States are told apart by a fingerprint of 64 bits, which is kept with that of the state before; of the states
/// themselves no more than two levels.
pub fn explore<M>(model: M, threads: usize) -> Outcome
where
    M: Tells + Sync,
    M::State: Hash + Send + Sync,
    M::Action: Told,
{
    let began = Instant::now();
    let search = Search::new(&model);
    let mut level: Vec<_> = model.init_states().into_iter().map(|state| (fingerprint(&state), state)).collect();
    level.retain(|(id, _)| search.seen.insert(*id, *id));
    search.steps.store(level.len(), Ordering::Relaxed);
    let mut depth = 0;
    while !level.is_empty() && search.found().is_none() {
        level = search.beyond(&level, threads);
        depth += 1;
    }
    let (states, steps) = (search.seen.len(), search.steps.load(Ordering::Relaxed));
    let found = search.found().map(|(property, id)| search.counterexample(property, id));
    Outcome { states, steps, depth, took: began.elapsed(), found }
}

/// A search that is under way.
struct Search<'a, M: Model> {
    model: &'a M,
    properties: Vec<Property<M>>,
    seen: Seen,
    steps: AtomicUsize,
    found: Mutex<Option<(&'static str, u64)>>,
}

impl<'a, M> Search<'a, M>
where
    M: Tells + Sync,
    M::State: Hash + Send + Sync,
    M::Action: Told,
{
    fn new(model: &'a M) -> Self {
        let properties = model.properties();
        assert!(
            properties.iter().all(|p| matches!(p.expectation, Expectation::Always)),
            "only what always holds is looked after"
        );
        Self { model, properties, seen: Seen::default(), steps: AtomicUsize::new(0), found: Mutex::default() }
    }

    fn found(&self) -> Option<(&'static str, u64)> {
        *self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The states one step beyond those of a level that are not known yet.
    fn beyond(&self, level: &[(u64, M::State)], threads: usize) -> Vec<(u64, M::State)> {
        let taken = AtomicUsize::new(0);
        let work = || {
            let mut next = Vec::new();
            while let Some(chunk) = level.get(taken.fetch_add(CHUNK, Ordering::Relaxed)..) {
                for (id, state) in chunk.iter().take(CHUNK) {
                    if self.found().is_some() {
                        return next;
                    }
                    self.visit(*id, state, &mut next);
                }
            }
            next
        };
        if threads == 1 || level.len() <= CHUNK {
            return work();
        }
        thread::scope(|scope| {
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            workers.into_iter().flat_map(|w| w.join().unwrap_or_else(|panic| resume_unwind(panic))).collect()
        })
    }

    fn visit(&self, id: u64, state: &M::State, next: &mut Vec<(u64, M::State)>) {
        if let Some(broken) = self.properties.iter().find(|p| !(p.condition)(self.model, state)) {
            *self.found.lock().unwrap_or_else(PoisonError::into_inner) = Some((broken.name, id));
            return;
        }
        let (mut actions, mut steps) = (Vec::new(), 0);
        self.model.actions(state, &mut actions);
        for action in actions {
            let Some(to) = self.model.next_state(state, action).filter(|to| self.model.within_boundary(to)) else {
                continue;
            };
            steps += 1;
            let there = fingerprint(&to);
            if self.seen.insert(there, id) {
                next.push((there, to));
            }
        }
        self.steps.fetch_add(steps, Ordering::Relaxed);
    }

    /// The way to a state, gone again from the beginning.
    fn counterexample(&self, property: &'static str, id: u64) -> Counterexample {
        let mut way = self.seen.way_to(id).into_iter();
        let first = way.next();
        let begins = self.model.init_states().into_iter().find(|state| Some(fingerprint(state)) == first);
        let mut state = begins.expect("a way begins where the model begins");
        let mut steps = Vec::new();
        for there in way {
            let mut actions = Vec::new();
            self.model.actions(&state, &mut actions);
            let mut goes_there = actions.into_iter().filter_map(|action| {
                let told = action.told();
                let to = self.model.next_state(&state, action)?;
                (fingerprint(&to) == there).then_some((told, to))
            });
            let (told, to) = goes_there.next().expect("what was done can be done again");
            drop(goes_there);
            steps.push(told);
            state = to;
        }
        Counterexample { property, steps, end: self.model.tells(&state) }
    }
}

/// The fingerprints of the states that are known, each with that of the state before it; in parts, so that threads
/// seldom wait for each other.
#[derive(Debug)]
struct Seen(Vec<Mutex<HashMap<u64, u64, BuildHasherDefault<FastHasher>>>>);

impl Default for Seen {
    fn default() -> Self {
        Self((0..64).map(|_| Mutex::default()).collect())
    }
}

impl Seen {
    fn part(&self, id: u64) -> MutexGuard<'_, HashMap<u64, u64, BuildHasherDefault<FastHasher>>> {
        self.0[usize::try_from(id % 64).unwrap_or(0)].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it is a new one.
    fn insert(&self, id: u64, before: u64) -> bool {
        match self.part(id).entry(id) {
            Entry::Occupied(_) => false,
            Entry::Vacant(entry) => {
                entry.insert(before);
                true
            }
        }
    }

    fn len(&self) -> usize {
        self.0.iter().map(|part| part.lock().unwrap_or_else(PoisonError::into_inner).len()).sum()
    }

    /// The states from the first one to this one. The first is its own predecessor.
    fn way_to(&self, id: u64) -> Vec<u64> {
        let before = |id: &u64| self.part(*id).get(id).copied().filter(|before| before != id);
        let mut way: Vec<_> = std::iter::successors(Some(id), before).collect();
        way.reverse();
        way
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts from nothing, by one or by three, up to a bound.
    struct Counting {
        /// What must not be reached.
        never: u8,
    }

    impl Told for u8 {
        fn told(&self) -> String {
            format!("add {self}")
        }
    }

    impl Model for Counting {
        type State = u8;
        type Action = u8;

        fn init_states(&self) -> Vec<u8> {
            vec![0]
        }

        fn actions(&self, _: &u8, actions: &mut Vec<u8>) {
            actions.extend([1, 3]);
        }

        fn next_state(&self, state: &u8, add: u8) -> Option<u8> {
            state.checked_add(add)
        }

        fn within_boundary(&self, state: &u8) -> bool {
            *state <= 200
        }

        fn properties(&self) -> Vec<Property<Self>> {
            vec![Property::always("is not reached", |model, state| *state != model.never)]
        }
    }

    impl Tells for Counting {
        fn tells(&self, state: &u8) -> String {
            state.to_string()
        }
    }

    #[test]
    fn all_is_visited_by_however_many() {
        for threads in [1, 3] {
            let outcome = explore(Counting { never: 201 }, threads);
            assert!(outcome.found.is_none());
            // To the beginning, then by one to all from 1 on, by three to all from 3 on; 200 is 66 threes and 2 ones away.
            assert_eq!((outcome.states, outcome.steps, outcome.depth), (201, 1 + 200 + 198, 69), "{threads}");
        }
    }

    #[test]
    fn the_way_to_a_violation_is_a_shortest_one() {
        for threads in [1, 3] {
            let found = explore(Counting { never: 8 }, threads).found.unwrap();
            assert_eq!((found.property, found.end.as_str(), found.steps.len()), ("is not reached", "8", 4));
            let sum: u8 = found.steps.iter().map(|s| s.trim_start_matches("add ").parse::<u8>().unwrap()).sum();
            assert_eq!(sum, 8);
        }
    }
}
