//! The S3 server as a program of its own, for tests that put it into another network namespace.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Parser;
use pgdock_testkit::{Keys, S3Server, control};

/// An S3 server for tests. It prints its endpoint, then serves until it is told to stop.
#[derive(Debug, Parser)]
#[command(name = "s3-test-server")]
struct Args {
    /// Where to listen; port 0 is a free one.
    #[arg(long, value_name = "ADDR:PORT")]
    listen: SocketAddr,
    /// The folder of the objects.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Makes these buckets.
    #[arg(long, value_name = "NAME")]
    bucket: Vec<String>,
    /// A Unix socket that faults are set through: a line of JSON, such as {"outage": "cut"}.
    #[arg(long, value_name = "PATH")]
    control: Option<PathBuf>,
    /// What requests are signed with.
    #[arg(long, default_value_t = Keys::default().access)]
    access_key: String,
    /// Its secret half; it guards nothing.
    #[arg(long, default_value_t = Keys::default().secret)]
    secret_key: String,
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let args = Args::parse();
    let keys = Keys { access: args.access_key, secret: args.secret_key };
    let server = S3Server::start(args.listen, &args.dir, keys).await?;
    for bucket in &args.bucket {
        server.make_bucket(bucket)?;
    }
    let switch = Arc::clone(server.faults());
    let controlled = async {
        match &args.control {
            Some(path) => control::serve(path, switch).await,
            None => std::future::pending().await,
        }
    };
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    // Whoever started it waits for this line.
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{}", server.endpoint())?;
    stdout.flush()?;
    tokio::select! {
        ended = controlled => ended,
        _ = terminate.recv() => Ok(()),
        done = tokio::signal::ctrl_c() => done,
    }
}
