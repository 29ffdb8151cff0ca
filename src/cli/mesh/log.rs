//! `mesh log`: what was said lately.

use clap::Args;

use super::{line, stop_signal};
use crate::cli::{Context, Failure, output};
use crate::mesh::{Selection, Start, catalog};

/// Prints the last events of the mesh
#[derive(Args, Debug)]
pub struct Log {
    /// Go on with events as they come
    #[arg(long, short)]
    follow: bool,
    /// How many events to begin with
    #[arg(long, short = 'n', default_value = "50")]
    lines: u64,
}

impl Log {
    /// Runs to the end of the stream, or until it is told to stop.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let mesh = super::open(context).await?;
        let last = mesh.last_sequence().await?;
        let start = Start::After(last.saturating_sub(self.lines));
        let selection = Selection::of(vec![catalog::ALL.to_owned()], start);
        let mut events = mesh
            .read(Selection {
                follow: self.follow,
                ..selection
            })
            .await?;
        let stop = stop_signal();
        loop {
            let event = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                event = events.next() => event?,
            };
            let Some(event) = event else { return Ok(()) };
            output::print(line(&event, context.json))?;
        }
    }
}
