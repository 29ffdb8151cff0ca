//! The command line: arguments, subcommands, output. Sees only the public API and a NATS client.
//!
//! One file or folder a subcommand: a clap `Args` struct and its `run`. Data goes to stdout, talk to
//! stderr; only [`run`] turns a [`Failure`] into text and an exit code.

mod api;
mod bench;
mod bucket;
mod completions;
mod config;
mod consumer;
mod context;
mod ctl;
mod failure;
mod health;
mod kv;
mod mesh;
mod message;
mod monitoring;
mod nats_server;
mod object;
mod output;
mod pipeline;
mod publish;
mod reply;
mod request;
mod rtt;
mod serve;
mod service;
mod store;
mod stream;
mod subscribe;
mod switches;
mod template;
mod top;
mod units;

use std::pin::Pin;
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
    Answer(mesh::answer::Answer),
    Ask(mesh::ask::Ask),
    Bench(bench::Bench),
    Check(mesh::check::Check),
    Completions(completions::Completions),
    Config(config::ConfigCommand),
    Conflicts(mesh::conflicts::Conflicts),
    #[command(visible_alias = "con", alias = "c")]
    Consumer(consumer::Consumer),
    Ctl(ctl::Ctl),
    Emit(mesh::emit::Emit),
    Events(mesh::events::Events),
    Hammer(mesh::hammer::Hammer),
    Health(health::Health),
    Join(mesh::join::Join),
    #[command(name = "kv")]
    KeyValue(kv::KeyValue),
    Lineage(mesh::lineage::Lineage),
    Log(mesh::log::Log),
    Man(completions::Man),
    MissionControl(mesh::mission::MissionControl),
    /// Stand in for nats-server, with its flags and files; so does this binary under that name
    #[command(name = "nats-server", disable_help_flag = true)]
    NatsServer {
        /// nats-server's own; `--help` lists them
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    #[command(alias = "obj")]
    Object(object::Object),
    Peers(mesh::peers::Peers),
    Phoenix(mesh::phoenix::Phoenix),
    #[command(name = "pub", alias = "publish")]
    Publish(publish::Publish),
    Reply(reply::Reply),
    #[command(visible_alias = "req")]
    Request(request::Request),
    Rtt(rtt::Rtt),
    Serve(Box<serve::Serve>),
    Service(service::Service),
    Setup(mesh::setup::Setup),
    Store(store::Store),
    #[command(visible_alias = "str", alias = "st", alias = "s")]
    Stream(stream::Stream),
    #[command(name = "sub", alias = "subscribe")]
    Subscribe(subscribe::Subscribe),
    Sync(mesh::sync::Sync),
    Top(top::Top),
    Watch(mesh::watch::Watch),
}

/// Runs the command line of this process.
pub fn run() -> ExitCode {
    let mut arguments = std::env::args();
    let called_so = nats_server::is_called_so(arguments.next().as_deref());
    // Its flags are its own: ours that read the same must not take them.
    if called_so || std::env::args().nth(1).as_deref() == Some("nats-server") {
        return nats_server::main(arguments.skip(usize::from(!called_so)));
    }
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
        Command::Answer(answer) => block_on(Box::pin(answer.run(context))),
        Command::Ask(ask) => block_on(Box::pin(ask.run(context))),
        Command::Bench(command) => command.run(context),
        Command::Check(check) => block_on(Box::pin(check.run(context))),
        Command::Completions(command) => command.run(),
        Command::Config(command) => command.run(context),
        Command::Conflicts(conflicts) => block_on(Box::pin(conflicts.run(context))),
        Command::Consumer(command) => block_on(command.run(context)),
        Command::Ctl(command) => command.run(),
        Command::Emit(emit) => block_on(Box::pin(emit.run(context))),
        Command::Events(events) => events.run(context),
        Command::Hammer(hammer) => hammer.run(context),
        Command::Health(health) => block_on(Box::pin(health.run(context))),
        Command::Join(join) => block_on(Box::pin(join.run(context))),
        Command::KeyValue(command) => block_on(command.run(context)),
        Command::Lineage(lineage) => block_on(Box::pin(lineage.run(context))),
        Command::Log(log) => block_on(Box::pin(log.run(context))),
        Command::Man(command) => command.run(),
        Command::MissionControl(control) => block_on(Box::pin(control.run(context))),
        Command::NatsServer { .. } => Err(Failure::usage("nats-server comes first: mesh nats-server ...")),
        Command::Object(command) => block_on(command.run(context)),
        Command::Peers(peers) => block_on(Box::pin(peers.run(context))),
        Command::Phoenix(phoenix) => block_on(Box::pin(phoenix.run(context))),
        Command::Publish(command) => block_on(Box::pin(command.run(context))),
        Command::Reply(command) => block_on(Box::pin(command.run(context))),
        Command::Request(command) => block_on(Box::pin(command.run(context))),
        Command::Rtt(command) => block_on(Box::pin(command.run(context))),
        Command::Serve(command) => command.run(),
        Command::Service(command) => block_on(Box::pin(command.run(context))),
        Command::Setup(setup) => block_on(Box::pin(setup.run(context))),
        Command::Store(command) => block_on(Box::pin(command.run(context))),
        Command::Stream(command) => block_on(command.run(context)),
        Command::Subscribe(command) => block_on(Box::pin(command.run(context))),
        Command::Sync(sync) => block_on(Box::pin(sync.run(context))),
        Command::Top(top) => block_on(Box::pin(top.run(context))),
        Command::Watch(watch) => block_on(Box::pin(watch.run(context))),
    }
}

/// A client command at work, boxed: as types of their own, the runtime would be compiled several times for each of them,
/// and with it all that they await.
type Work<'a> = Pin<Box<dyn Future<Output = Result<(), Failure>> + 'a>>;

/// Runs a client command on a runtime of one thread: it starts in a millisecond.
fn block_on(work: Work<'_>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("cannot start the async runtime: {error}")))?;
    let outcome = runtime.block_on(work);
    // A read of stdin cannot be called off, and must not keep us.
    runtime.shutdown_background();
    outcome
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
