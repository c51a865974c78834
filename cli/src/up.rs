//! Everything in one process: control plane, worker and store.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::error::{Error, Kind};

/// `up`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  postroom up\n  postroom up --data /var/lib/postroom -f model.yaml")]
pub struct Args {
    /// Address to serve on.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7430")]
    pub listen: SocketAddr,
    /// Model file to apply at start.
    #[arg(short = 'f', long = "file", value_name = "MODEL")]
    pub model: Option<PathBuf>,
}

/// What `up` is asked to do.
#[derive(Debug)]
pub struct Options {
    /// Where everything is kept. May not exist yet.
    pub data: PathBuf,
    /// Address to serve on.
    pub listen: SocketAddr,
    /// Model file to apply at start.
    pub model: Option<PathBuf>,
    /// Plaintext beyond this machine is allowed.
    pub insecure: bool,
}

/// Runs until it is told to stop.
pub async fn run(_options: Options) -> Result<(), Error> {
    Err(Error::new(Kind::Internal, "not built yet"))
}
