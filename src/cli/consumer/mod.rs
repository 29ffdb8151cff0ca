//! `mesh consumer`: consumers of streams, over the JetStream API.

mod config;
mod deliver;
mod info;
mod manage;

use clap::{Args, Subcommand};

use super::{Context, Work};

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
    pub fn run(self, context: &Context) -> Work<'_> {
        match self.command {
            ConsumerCommand::Add(command) => Box::pin(command.run(context)),
            ConsumerCommand::Edit(command) => Box::pin(command.run(context)),
            ConsumerCommand::Info(command) => Box::pin(command.run(context)),
            ConsumerCommand::Ls(command) => Box::pin(command.run(context)),
            ConsumerCommand::Next(command) => Box::pin(command.run(context)),
            ConsumerCommand::Pause(command) => Box::pin(command.run(context)),
            ConsumerCommand::Report(command) => Box::pin(command.run(context)),
            ConsumerCommand::Reset(command) => Box::pin(command.run(context)),
            ConsumerCommand::Resume(command) => Box::pin(command.run(context)),
            ConsumerCommand::Rm(command) => Box::pin(command.run(context)),
            ConsumerCommand::Sub(command) => Box::pin(command.run(context)),
        }
    }
}
