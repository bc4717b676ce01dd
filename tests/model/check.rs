//! [`checks`]: what is explored, within which bounds.

use crate::explore::{Outcome, explore};
use crate::sets;

/// One exploration.
#[expect(missing_debug_implementations, reason = "it holds the way to run it")]
pub struct Check {
    /// The world.
    pub world: &'static str,
    /// The rule that does not hold in it.
    pub dropped: Option<&'static str>,
    /// The properties that break then.
    pub breaks: &'static [&'static str],
    run: Box<dyn Fn(usize) -> Outcome + Send + Sync>,
}

impl Check {
    /// Explores with so many threads.
    #[must_use]
    pub fn run(&self, threads: usize) -> Outcome {
        (self.run)(threads)
    }
}

/// All of them: each world under all rules, and without each of its rules. `deep`: within wider bounds.
#[must_use]
pub fn checks(deep: bool) -> Vec<Check> {
    sets_checks(deep)
}

fn sets_checks(deep: bool) -> Vec<Check> {
    let usual = sets::Bounds { standbys: 2, commits: 2, versions: 3 };
    let whole = if deep { sets::Bounds { versions: 4, ..usual } } else { usual };
    let run = |bounds, dropped| -> Box<dyn Fn(usize) -> Outcome + Send + Sync> {
        Box::new(move |threads| explore(sets::Sets::new(bounds, dropped), threads))
    };
    let mut all = vec![Check { world: "sets", dropped: None, breaks: &[], run: run(whole, None) }];
    all.extend(sets::MUTATIONS.map(|(rule, name)| Check {
        world: "sets",
        dropped: Some(name),
        breaks: &[sets::ACKNOWLEDGED],
        run: run(usual, Some(rule)),
    }));
    all
}
