//! What makes a node of a machine or of an engine: its container or service, its image, its secrets.
//!
//! [`NodeContainer`] is what a node's container is, as data. The engine is told by it what to make, and `pgdock compose`
//! prints it: there is no third description.

mod container;
mod image;
mod machine;
mod prepare;
mod secrets;
mod tar;

pub use container::{Network, NodeContainer};
pub use image::{ImageRecipe, libc_of};
pub use machine::{Machine, Standing};
pub use prepare::{Check, Verdict};
pub use secrets::{SecretFile, deliver, own, secrets_of};

use crate::executor::{Command, Executor, ExecutorExt as _, Output};
use crate::{Error, Result};

/// The user and group of everything that a node keeps, on every machine the same.
pub const UID: u32 = 5432;

/// Runs a script of ours on a node. Where it fails, the error says what was to be done, instead of repeating the script.
async fn run(executor: &dyn Executor, what: &str, script: &Command) -> Result<Output> {
    let output = executor.output(script).await?;
    if output.exit.success() {
        return Ok(output);
    }
    Err(Error::internal(format!("{what}. node={executor}, exit={}", output.exit)).because(output.tail()))
}
