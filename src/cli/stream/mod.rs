//! `mesh stream`: streams and what they hold, over the JetStream API.

mod config;
mod info;
mod manage;
mod messages;

pub use config::{Storage, word};
pub use info::{capital, limit, print_differences};

use clap::{Args, Subcommand};

use super::{Context, Failure};

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
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        match self.command {
            StreamCommand::Add(command) => command.run(context).await,
            StreamCommand::Copy(command) => command.run(context).await,
            StreamCommand::Edit(command) => command.run(context).await,
            StreamCommand::Gaps(command) => command.run(context).await,
            StreamCommand::Get(command) => command.run(context).await,
            StreamCommand::Info(command) => command.run(context).await,
            StreamCommand::Ls(command) => command.run(context).await,
            StreamCommand::Purge(command) => command.run(context).await,
            StreamCommand::Report(command) => command.run(context).await,
            StreamCommand::Rm(command) => command.run(context).await,
            StreamCommand::Rmm(command) => command.run(context).await,
            StreamCommand::Seal(command) => command.run(context).await,
            StreamCommand::State(command) => command.run(context).await,
            StreamCommand::Subjects(command) => command.run(context).await,
            StreamCommand::View(command) => command.run(context).await,
        }
    }
}
