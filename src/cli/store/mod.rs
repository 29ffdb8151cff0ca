//! `mesh store`: the files of a server, checked and measured.

mod check;
mod info;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use super::{Context, Failure};
use crate::config;
use crate::store::Error;

/// Looks after a store: what is in its files, and whether it is whole
#[derive(Args, Debug)]
pub struct Store {
    #[command(subcommand)]
    command: StoreCommand,
}

#[derive(Debug, Subcommand)]
enum StoreCommand {
    Check(check::Check),
    #[command(alias = "i")]
    Info(info::Info),
}

impl Store {
    /// Runs the subcommand.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        match self.command {
            StoreCommand::Check(command) => command.run(context),
            StoreCommand::Info(command) => command.run(context).await,
        }
    }
}

/// Which store is meant.
#[derive(Args, Debug)]
struct Where {
    /// Directory of the store [default: that of `mesh serve`]
    #[arg(env = "MESH_STORE_DIR", value_name = "DIR")]
    dir: Option<PathBuf>,
    /// The same, as `mesh serve` takes it
    #[arg(long, value_name = "DIR", hide = true)]
    store_dir: Option<PathBuf>,
}

impl Where {
    fn dir(&self) -> PathBuf {
        let named = self.store_dir.as_ref().or(self.dir.as_ref());
        named.cloned().unwrap_or_else(config::default_store_dir)
    }
}

/// Refuses a directory that holds no store, rather than making one there.
fn expect_store(dir: &Path) -> Result<(), Failure> {
    if dir.join("mesh.redb").is_file() {
        return Ok(());
    }
    Err(Failure::not_found(format!("no store in {}", dir.display()))
        .hint("name the directory that `mesh serve` prints at its start, or set MESH_STORE_DIR"))
}

/// An error of a store that was to be opened for a command.
fn refused(error: &Error) -> Failure {
    match error {
        Error::InUse { pid, .. } => Failure::conflict(error).hint(format!(
            "stop that server first (kill -TERM {pid}); figures of a running one: mesh store info"
        )),
        Error::Damaged(_) => Failure::unhealthy(error).hint(
            "nothing was changed; copy the directory, then `mesh store check --repair` makes it anew from what can be read",
        ),
        Error::Open(_) => Failure::unhealthy(error).hint(
            "nothing was changed; copy the directory before you try anything, and see the log of the server",
        ),
        _ => Failure::failed(error),
    }
}
