//! `mesh consumer`: consumers of streams, over the JetStream API.

mod config;
mod deliver;
mod info;
mod manage;

use clap::{Args, Subcommand};

use super::{Context, Failure};

/// Manages consumers of streams
#[derive(Args, Debug)]
pub struct Consumer {
    #[command(subcommand)]
    command: ConsumerCommand,
}

#[derive(Debug, Subcommand)]
enum ConsumerCommand {
    #[command(alias = "create", alias = "new")]
    Add(Box<manage::Add>),
    #[command(alias = "update")]
    Edit(Box<manage::Edit>),
    #[command(alias = "nfo", alias = "state")]
    Info(manage::Info),
    #[command(alias = "list")]
    Ls(manage::List),
    Next(deliver::Next),
    Pause(manage::Pause),
    Report(manage::Report),
    Reset(manage::Reset),
    Resume(manage::Resume),
    #[command(alias = "delete", alias = "del")]
    Rm(manage::Remove),
    Sub(deliver::Subscribe),
}

impl Consumer {
    /// Runs the subcommand.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        match self.command {
            ConsumerCommand::Add(command) => command.run(context).await,
            ConsumerCommand::Edit(command) => command.run(context).await,
            ConsumerCommand::Info(command) => command.run(context).await,
            ConsumerCommand::Ls(command) => command.run(context).await,
            ConsumerCommand::Next(command) => command.run(context).await,
            ConsumerCommand::Pause(command) => command.run(context).await,
            ConsumerCommand::Report(command) => command.run(context).await,
            ConsumerCommand::Reset(command) => command.run(context).await,
            ConsumerCommand::Resume(command) => command.run(context).await,
            ConsumerCommand::Rm(command) => command.run(context).await,
            ConsumerCommand::Sub(command) => command.run(context).await,
        }
    }
}
