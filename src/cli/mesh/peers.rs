//! `mesh peers`: who is here.

use clap::Args;
use jiff::Timestamp;

use super::{ago, table};
use crate::cli::{Context, Failure, output};

/// Lists who is present
#[derive(Args, Debug)]
pub struct Peers {}

impl Peers {
    /// Prints and ends.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let mesh = super::open(context).await?;
        let (peers, mut damaged) = mesh.peers().await?;
        // What can be read is shown.
        let outcome = damaged.pop().map_or(Ok(()), |error| Err(error.into()));
        if context.json {
            for peer in &peers {
                output::print(serde_json::to_string(peer).expect("strings and numbers are always JSON"))?;
            }
            return outcome;
        }
        if peers.is_empty() {
            anstream::eprintln!("nobody is here; `mesh join` makes this instance a peer");
            return outcome;
        }
        let now = Timestamp::now();
        let age = |time: &str| {
            time.parse()
                .map_or_else(|_| time.to_owned(), |time| ago(time, now))
        };
        let mut table = table(&["INSTANCE", "SESSION", "HOST", "SINCE", "LAST EVENT"]);
        for present in &peers {
            let peer = &present.peer;
            let last = match (&present.last_event, &present.last_event_at) {
                (Some(event), Some(at)) => format!("{event}, {}", age(at)),
                _ => "-".to_owned(),
            };
            let session = peer.session.as_deref().unwrap_or("-");
            table.add_row([&peer.instance, session, &peer.host, &age(&peer.since), &last]);
        }
        output::print(table.to_string())?;
        outcome
    }
}
