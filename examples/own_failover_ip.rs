//! An agent with a failover IP of one's own: here, a file that names the primary's address.
//!
//! `cargo run -p pgdock-examples --example own_failover_ip -- CLUSTER_DIR NODE FILE`

use std::path::PathBuf;
use std::process::ExitCode;

use async_trait::async_trait;
use pgdock_core::agent::{Agent, deadman};
use pgdock_core::failover_ip::{FailoverIp, Holder, Target};
use pgdock_core::{Error, Result, Settings};
use tokio_util::sync::CancellationToken;

#[derive(Debug)]
struct FileIp(PathBuf);

impl std::fmt::Display for FileIp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "file {}", self.0.display())
    }
}

#[async_trait]
impl FailoverIp for FileIp {
    async fn current(&self) -> Result<Option<Holder>> {
        Ok(std::fs::read_to_string(&self.0).ok().map(Holder::Address))
    }

    async fn assign(&self, target: &Target) -> Result<()> {
        std::fs::write(&self.0, &target.address).map_err(|e| Error::unavailable("cannot write the address").because(e))
    }
}

fn main() -> ExitCode {
    // The agent runs this very program as its deadman.
    if let Some(code) = deadman::intercept(std::env::args_os()) {
        return code;
    }
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [dir, node, file] = args.as_slice() else {
        eprintln!("usage: own_failover_ip CLUSTER_DIR NODE FILE");
        return ExitCode::from(2);
    };
    match tokio::runtime::Runtime::new().expect("a runtime").block_on(run(dir, node, file)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", error.chain());
            ExitCode::FAILURE
        }
    }
}

async fn run(dir: &str, node: &str, file: &str) -> Result<()> {
    let stop = CancellationToken::new();
    let stops = stop.clone();
    tokio::spawn(async move { tokio::signal::ctrl_c().await.map(|()| stops.cancel()) });
    Agent::builder(Settings::from_path(dir)?).node(node).failover_ip(FileIp(file.into())).build()?.run(stop).await
}
