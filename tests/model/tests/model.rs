//! Explores the models: no property may break under all rules, and one must without any of them.
//!
//! ```text
//! cargo test -p pgdock-model                                    all worlds and all mutations, in minutes
//! cargo test -p pgdock-model -- --world sets                    one world
//! cargo test -p pgdock-model -- --world sets --drop Barrier     one mutation, and how it breaks
//! cargo test --release -p pgdock-model -- --deep                wider bounds
//! ```

use std::collections::VecDeque;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use pgdock_model::check::{Check, checks};

/// How many threads share the work.
const THREADS: usize = 2;

/// What the command line asks for.
#[derive(Default)]
struct Args {
    deep: bool,
    world: Option<String>,
    drop: Option<String>,
}

impl Args {
    fn parse() -> Result<Self, String> {
        let mut args = Self::default();
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let mut text = || words.next().ok_or(format!("{word} needs a name"));
            match word.as_str() {
                "--deep" => args.deep = true,
                "--world" => args.world = Some(text()?),
                "--drop" => args.drop = Some(text()?),
                // What test runners pass to every test.
                _ => {}
            }
        }
        Ok(args)
    }

    fn asks_for(&self, check: &Check) -> bool {
        self.world.as_ref().is_none_or(|w| w == check.world)
            && self.drop.as_ref().is_none_or(|d| check.dropped.as_ref().map_or(d == "none", |c| c == d))
    }
}

fn main() -> ExitCode {
    if std::env::args().any(|word| word == "--list") {
        // A runner that wants to know what is here.
        if !std::env::args().any(|word| word == "--ignored") {
            println!("model: test");
        }
        return ExitCode::SUCCESS;
    }
    let args = match Args::parse() {
        Ok(args) => args,
        Err(fault) => {
            eprintln!("{fault}");
            return ExitCode::FAILURE;
        }
    };
    let began = Instant::now();
    let (whole, mutations): (Vec<_>, Vec<_>) =
        checks(args.deep).into_iter().filter(|c| args.asks_for(c)).partition(|c| c.dropped.is_none());
    if whole.is_empty() && mutations.is_empty() {
        eprintln!("there is no such world, or no such rule in it");
        return ExitCode::FAILURE;
    }
    let count = whole.len() + mutations.len();
    // Under all rules a space is explored to its end, by all threads; without a rule one of them finds the
    // shortest way to break it.
    let mut passed = whole.iter().map(|check| tell(check, THREADS)).fold(true, |all, one| all & one);
    let queue = Mutex::new(VecDeque::from(mutations));
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let work = || {
        let mut passed = true;
        while let Some(check) = next() {
            passed &= tell(&check, 1);
        }
        passed
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            passed &= worker.join().unwrap_or(false);
        }
    });
    println!("{count} explorations in {:.0} s", began.elapsed().as_secs_f64());
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Makes a check, and says in one piece how it went.
fn tell(check: &Check, threads: usize) -> bool {
    let outcome = check.run(threads);
    let count = format!(
        "{} states, {} steps between them, {} deep, {:.1} s",
        outcome.states,
        outcome.steps,
        outcome.depth,
        outcome.took.as_secs_f64()
    );
    let head = match &check.dropped {
        None => format!("{}: {count}", check.world),
        Some(rule) => format!("{} without {rule}: {count}", check.world),
    };
    let (passed, text) = match (&outcome.found, &check.dropped) {
        (None, None) => (true, format!("{head}\n  every property holds")),
        (Some(found), Some(_)) if check.breaks.contains(&found.property) => (true, format!("{head}\n{found}")),
        (Some(found), _) => (false, format!("FAILED {head}\n{found}\n  expected to break: {:?}", check.breaks)),
        (None, Some(_)) => (false, format!("FAILED {head}\n  nothing notices that the rule is gone")),
    };
    println!("{text}");
    passed
}
