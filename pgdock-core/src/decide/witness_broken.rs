//! A store that was seen to break its word: it is said, and nobody takes the lead by it without being told to
//! (`campaign`, `pledge`, `patience`, `leader_stopped`), since two nodes could.

use super::action::Decision;
use crate::view::{Trust, View};

pub(super) fn check(view: &View, d: &mut Decision) {
    match &view.trust {
        Trust::Broken(how) => d.problem(format!("{how}; no node takes over by itself until that is mended")),
        Trust::Unknown { why, .. } if view.witness.failures < 3 => d.problem(why.clone()),
        _ => {}
    }
}
