//! The bucket that the witness is in, on a host of its own: `Store`.
//!
//! It is this program once more, as the S3 server of [`pgdock_testkit`]: a process in the namespace of the
//! witness, which nodes reach over the bridge. Its objects are in the lab's folder, and what it does wrong is
//! said through a Unix socket, which no cut of the network touches.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;

use pgdock_core::scaffold::ScaffoldWitness;
use pgdock_core::{Error, Result};
use pgdock_testkit::{Control, Faults, Keys, S3Server, control};

use super::enclosure::{STAGE, STORE};
use super::lab::{Lab, WITNESS, cannot};
use crate::real::until;

/// What the process is told: where it listens, and the folder that it serves.
const ADDRESS: &str = "PGDOCK_FAULTS_STORE_ADDRESS";
const FOLDER: &str = "PGDOCK_FAULTS_STORE_FOLDER";

const PORT: u16 = 9000;
const BUCKET: &str = "witness";
/// How long it may take to start.
const STARTS_WITHIN: Duration = Duration::from_secs(20);

/// A bucket on the host of the witness. Dropped, its process ends.
#[derive(Debug)]
pub(super) struct Store {
    process: Child,
    control: Control,
    address: SocketAddr,
}

impl Store {
    /// Starts it, and waits until it serves.
    ///
    /// # Errors
    /// Where it does not start.
    pub(super) async fn start(lab: &Lab) -> Result<Self> {
        let host: IpAddr = lab.address(WITNESS).parse().map_err(|e| Error::internal("not an address").because(e))?;
        let (address, folder) = (SocketAddr::new(host, PORT), lab.dir().join("store"));
        std::fs::create_dir_all(folder.join(BUCKET)).map_err(|e| cannot("make a bucket", e))?;
        let program = std::env::current_exe().map_err(|e| cannot("tell where this program lies", e))?;
        let process = lab
            .command(WITNESS, &program)
            .env(STAGE, STORE)
            .env(ADDRESS, address.to_string())
            .env(FOLDER, &folder)
            .stdin(Stdio::null())
            .spawn()
            .map_err(|e| cannot("start the store", e))?;
        let control = Control::new(socket(&folder));
        let this = Self { process, control, address };
        until("the store serves", STARTS_WITHIN, async || this.control.state().is_ok()).await?;
        Ok(this)
    }

    /// What `pgdock init` is told of it, with the text of `secrets/witness.env`.
    pub(super) fn witness(&self) -> (ScaffoldWitness, String) {
        let witness = ScaffoldWitness {
            url: format!("s3://{BUCKET}/prod"),
            endpoint: Some(format!("http://{}", self.address)),
            ..ScaffoldWitness::default()
        };
        let keys = Keys::default();
        (witness, format!("AWS_ACCESS_KEY_ID={}\nAWS_SECRET_ACCESS_KEY={}\n", keys.access, keys.secret))
    }

    /// Sets what it does wrong.
    ///
    /// # Errors
    /// Where it does not listen.
    pub(super) fn set(&self, faults: &Faults) -> Result<()> {
        self.control.set(faults).map(drop).map_err(|e| cannot("have the store fail", e))
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Beside the folder: what lies in it are buckets.
fn socket(folder: &Path) -> PathBuf {
    folder.with_extension("sock")
}

/// The process of the store: serves until it is killed.
#[must_use]
pub fn serve() -> ExitCode {
    let served = async {
        let set = |name: &str| std::env::var(name).map_err(|e| std::io::Error::other(format!("{name}: {e}")));
        let address = set(ADDRESS)?.parse().map_err(std::io::Error::other)?;
        let folder = PathBuf::from(set(FOLDER)?);
        let server = S3Server::start(address, &folder, Keys::default()).await?;
        control::serve(&socket(&folder), Arc::clone(server.faults())).await
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    match runtime.block_on(served) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("the store cannot serve: {error}");
            ExitCode::FAILURE
        }
    }
}
