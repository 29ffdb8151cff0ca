//! `mesh object`: object stores, files of any size in buckets.

mod files;

use clap::{Args, Subcommand};
use serde_json::{Map, json};

use super::bucket::{self, Kind};
use super::{Context, Failure, Work, output};

/// Reads and writes object stores
#[derive(Args, Debug)]
pub struct Object {
    #[command(subcommand)]
    command: ObjectCommand,
}

#[derive(Debug, Subcommand)]
enum ObjectCommand {
    #[command(alias = "new")]
    Add(Add),
    #[command(alias = "rm")]
    Del(files::Delete),
    Get(files::Get),
    #[command(alias = "show", alias = "i", alias = "status")]
    Info(files::Info),
    #[command(alias = "list")]
    Ls(files::List),
    Put(files::Put),
    Seal(Seal),
    Watch(files::Watch),
}

impl Object {
    /// Runs the subcommand.
    pub fn run(self, context: &Context) -> Work<'_> {
        match self.command {
            ObjectCommand::Add(command) => Box::pin(command.run(context)),
            ObjectCommand::Del(command) => Box::pin(command.run(context)),
            ObjectCommand::Get(command) => Box::pin(command.run(context)),
            ObjectCommand::Info(command) => Box::pin(command.run(context)),
            ObjectCommand::Ls(command) => Box::pin(command.run(context)),
            ObjectCommand::Put(command) => Box::pin(command.run(context)),
            ObjectCommand::Seal(command) => Box::pin(command.run(context)),
            ObjectCommand::Watch(command) => Box::pin(command.run(context)),
        }
    }
}

/// Makes a bucket
#[derive(Args, Debug)]
struct Add {
    /// Name of the bucket
    bucket: String,
    #[command(flatten)]
    flags: bucket::Flags,
}

impl Add {
    async fn run(self, context: &Context) -> Result<(), Failure> {
        let mut config = Map::new();
        config.insert("name".to_owned(), Kind::Object.stream(&self.bucket)?.into());
        let subjects = ["C", "M"].map(|part| format!("$O.{}.{part}.>", self.bucket));
        config.insert("subjects".to_owned(), json!(subjects));
        config.insert("discard".to_owned(), "new".into());
        config.insert("num_replicas".to_owned(), 1.into());
        config.insert("storage".to_owned(), "file".into());
        for field in ["allow_rollup_hdrs", "allow_direct"] {
            config.insert(field.to_owned(), true.into());
        }
        for field in ["max_msgs", "max_bytes", "max_consumers", "max_msg_size"] {
            config.insert(field.to_owned(), (-1).into());
        }
        self.flags.apply(&mut config);
        bucket::create(Kind::Object, &config.into(), context).await
    }
}

/// Seals a bucket: nothing in it can change any more, ever
#[derive(Args, Debug)]
struct Seal {
    /// Bucket to seal
    bucket: String,
    /// Does not ask
    #[arg(long, short)]
    force: bool,
}

impl Seal {
    async fn run(self, context: &Context) -> Result<(), Failure> {
        let question = format!("Really seal bucket {}? It cannot be unsealed.", self.bucket);
        output::confirm(&question, self.force)?;
        let mut store = files::open(&self.bucket, context).await?;
        store.seal().await.map_err(Failure::failed)?;
        output::note(format!("{} has been sealed", self.bucket));
        Ok(())
    }
}
