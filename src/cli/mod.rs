//! The command line: arguments, subcommands, output. Sees only the public API and a NATS client.
//!
//! One file or folder a subcommand: a clap `Args` struct and its `run`. Data goes to stdout, talk to
//! stderr; only [`run`] turns a [`Failure`] into text and an exit code.

mod context;
mod failure;
mod mesh;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub use context::Context;
pub use failure::Failure;

/// A NATS-compatible message server, durable by default, and the mesh on top of it.
#[derive(Parser)]
#[command(name = "mesh", version, propagate_version = true)]
struct Cli {
    #[command(flatten)]
    context: Context,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Check(mesh::check::Check),
    Emit(mesh::emit::Emit),
    Events(mesh::events::Events),
    Hammer(mesh::hammer::Hammer),
    Join(mesh::join::Join),
    Lineage(mesh::lineage::Lineage),
    Log(mesh::log::Log),
    Peers(mesh::peers::Peers),
    Phoenix(mesh::phoenix::Phoenix),
    Setup(mesh::setup::Setup),
    Watch(mesh::watch::Watch),
}

/// Runs the command line of this process.
pub fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let code = if error.use_stderr() { Failure::USAGE } else { 0 };
            error.print().ok();
            return ExitCode::from(code);
        }
    };
    match dispatch(cli.command, &cli.context) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.report();
            ExitCode::from(failure.code())
        }
    }
}

fn dispatch(command: Command, context: &Context) -> Result<(), Failure> {
    match command {
        Command::Check(check) => block_on(check.run(context)),
        Command::Emit(emit) => block_on(emit.run(context)),
        Command::Events(events) => events.run(context),
        Command::Hammer(hammer) => hammer.run(context),
        Command::Join(join) => block_on(join.run(context)),
        Command::Lineage(lineage) => block_on(lineage.run(context)),
        Command::Log(log) => block_on(log.run(context)),
        Command::Peers(peers) => block_on(peers.run(context)),
        Command::Phoenix(phoenix) => block_on(phoenix.run(context)),
        Command::Setup(setup) => block_on(setup.run(context)),
        Command::Watch(watch) => block_on(watch.run(context)),
    }
}

/// Runs a client command on a runtime of one thread: it starts in a millisecond.
fn block_on<F: Future<Output = Result<(), Failure>>>(work: F) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("cannot start the async runtime: {error}")))?;
    runtime.block_on(work)
}
