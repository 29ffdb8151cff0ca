//! The command line: arguments, subcommands, output. Sees only the public API and a NATS client.
//!
//! One file or folder a subcommand: a clap `Args` struct and its `run`. Data goes to stdout, talk to
//! stderr; only [`run`] turns a [`Failure`] into text and an exit code.

mod api;
mod bench;
mod completions;
mod context;
mod failure;
mod message;
mod output;
mod publish;
mod reply;
mod request;
mod rtt;
mod serve;
mod subscribe;
mod switches;
mod template;
mod units;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

pub use context::Context;
pub use failure::Failure;

/// A NATS-compatible message server, durable by default, and the mesh on top of it.
#[derive(Parser)]
#[command(name = "mesh", version)]
struct Cli {
    #[command(flatten)]
    context: Context,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Bench(bench::Bench),
    Completions(completions::Completions),
    Man(completions::Man),
    #[command(name = "pub", alias = "publish")]
    Publish(publish::Publish),
    Reply(reply::Reply),
    #[command(visible_alias = "req")]
    Request(request::Request),
    Rtt(rtt::Rtt),
    Serve(serve::Serve),
    #[command(name = "sub", alias = "subscribe")]
    Subscribe(subscribe::Subscribe),
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
        Command::Bench(command) => command.run(context),
        Command::Completions(command) => command.run(),
        Command::Man(command) => command.run(),
        Command::Publish(command) => block_on(command.run(context)),
        Command::Reply(command) => block_on(command.run(context)),
        Command::Request(command) => block_on(command.run(context)),
        Command::Rtt(command) => block_on(command.run(context)),
        Command::Serve(command) => command.run(),
        Command::Subscribe(command) => block_on(command.run(context)),
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

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        super::Cli::command().debug_assert();
    }
}
