//! [`Progress`]: tells of what takes more than two seconds: a spinner on a terminal, plain lines elsewhere.

use std::io::IsTerminal as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::note;

/// What ends sooner is not worth a word.
const SHORT: Duration = Duration::from_secs(2);
const TICK: Duration = Duration::from_millis(100);

/// What goes on at present, in words that may change.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    text: Mutex<String>,
}

impl Progress {
    /// Says what goes on.
    pub(crate) fn say(&self, text: impl Into<String>) {
        *self.text() = text.into();
    }

    fn text(&self) -> MutexGuard<'_, String> {
        self.text.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs what may take long. It gets the means to say what goes on; that is shown after two seconds.
pub(crate) async fn during<T>(text: &str, work: impl AsyncFnOnce(&Progress) -> T) -> T {
    let progress = Progress { text: Mutex::new(text.to_owned()) };
    let terminal = std::io::stderr().is_terminal();
    // Cut off at the edge of the terminal, so that it stays on one line.
    let style =
        ProgressStyle::with_template("{spinner} {wide_msg}").unwrap_or_else(|_| ProgressStyle::default_spinner());
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden()).with_style(style);
    let work = work(&progress);
    tokio::pin!(work);
    let mut shown = String::new();
    let mut ticks = tokio::time::interval(TICK);
    let mut waited = Duration::ZERO;
    loop {
        tokio::select! {
            done = &mut work => {
                bar.finish_and_clear();
                return done;
            }
            _ = ticks.tick() => {}
        }
        waited += TICK;
        if waited < SHORT {
            continue;
        }
        let text = progress.text().clone();
        if terminal {
            if bar.is_hidden() {
                bar.set_draw_target(ProgressDrawTarget::stderr());
            }
            bar.set_message(text);
            bar.tick();
        } else if text != shown {
            note(&format!("{text} …"));
            shown = text;
        }
    }
}
