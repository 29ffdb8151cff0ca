//! `mesh stream`: streams and what they hold, over the JetStream API.

mod config;
mod info;
mod manage;
mod messages;

pub use config::{Storage, word};
pub use info::{capital, limit, print_differences};

use clap::{Args, Subcommand};

use super::{Context, Work};

/// Manages streams
#[derive(Args, Debug)]
pub struct Stream {
    #[command(subcommand)]
    command: StreamCommand,
}

#[derive(Debug, Subcommand)]
enum StreamCommand {
    #[command(alias = "create", alias = "new")]
    Add(Box<manage::Add>),
    #[command(alias = "cp")]
    Copy(Box<manage::Copy>),
    #[command(alias = "update")]
    Edit(Box<manage::Edit>),
    Gaps(manage::Gaps),
    Get(messages::Get),
    #[command(alias = "i", alias = "nfo")]
    Info(manage::Info),
    #[command(alias = "list", alias = "l")]
    Ls(manage::List),
    Purge(manage::Purge),
    Report(manage::Report),
    #[command(alias = "delete", alias = "del")]
    Rm(manage::Remove),
    Rmm(messages::RemoveMessage),
    Seal(manage::Seal),
    State(manage::State),
    #[command(alias = "subj")]
    Subjects(manage::Subjects),
    View(messages::View),
}

impl Stream {
    /// Runs the subcommand.
    pub fn run(self, context: &Context) -> Work<'_> {
        match self.command {
            StreamCommand::Add(command) => Box::pin(command.run(context)),
            StreamCommand::Copy(command) => Box::pin(command.run(context)),
            StreamCommand::Edit(command) => Box::pin(command.run(context)),
            StreamCommand::Gaps(command) => Box::pin(command.run(context)),
            StreamCommand::Get(command) => Box::pin(command.run(context)),
            StreamCommand::Info(command) => Box::pin(command.run(context)),
            StreamCommand::Ls(command) => Box::pin(command.run(context)),
            StreamCommand::Purge(command) => Box::pin(command.run(context)),
            StreamCommand::Report(command) => Box::pin(command.run(context)),
            StreamCommand::Rm(command) => Box::pin(command.run(context)),
            StreamCommand::Rmm(command) => Box::pin(command.run(context)),
            StreamCommand::Seal(command) => Box::pin(command.run(context)),
            StreamCommand::State(command) => Box::pin(command.run(context)),
            StreamCommand::Subjects(command) => Box::pin(command.run(context)),
            StreamCommand::View(command) => Box::pin(command.run(context)),
        }
    }
}
