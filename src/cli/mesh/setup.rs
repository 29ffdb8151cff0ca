//! `mesh setup`: the mesh's streams and buckets on a server.

use std::time::Duration;

use clap::Args;

use crate::cli::{Context, Failure, output, units};
use crate::mesh::setup::{Options, setup};

/// Makes the mesh's stream and buckets on a server, or changes their limits
#[derive(Args, Debug)]
pub struct Setup {
    /// How long events are kept (30d)
    #[arg(long, value_name = "DURATION", value_parser = units::duration)]
    max_age: Option<Duration>,
    /// How many MiB of events are kept (1024)
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u32).range(1..))]
    max_mib: Option<u32>,
    /// Copies in a cluster (1)
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=5))]
    replicas: Option<u8>,
}

impl Setup {
    /// Changes nothing that is not asked for.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let mesh = super::open(context).await?;
        let adjust = self.max_age.is_some() || self.max_mib.is_some() || self.replicas.is_some();
        let usual = Options::default();
        let options = Options {
            age_max: self.max_age.unwrap_or(usual.age_max),
            bytes_max: self.max_mib.map_or(usual.bytes_max, |mib| i64::from(mib) << 20),
            replicas: self.replicas.map_or(usual.replicas, usize::from),
        };
        setup(&mesh.jetstream, &options, adjust).await?;
        output::print(if context.json {
            r#"{"set_up":true}"#
        } else {
            "the mesh is set up"
        })
    }
}
