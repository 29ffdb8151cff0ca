//! `mesh emit`: say something on the mesh.

use std::io::Read;

use bytes::Bytes;
use clap::Args;

use crate::cli::{Context, Failure, output};
use crate::mesh::{Catalog, Draft, Error, identity};

/// Largest body that is read from stdin; servers take 1 MiB unless told otherwise.
const STDIN_BYTES_MAX: u64 = 64 << 20;

/// Emits an event: checked, numbered, stored once
#[derive(Args, Debug)]
pub struct Emit {
    /// The event, as `mesh events` lists them
    event: String,
    /// Its body, or - to read it from stdin
    #[arg(default_value = "{}", allow_hyphen_values = true)]
    body: String,
    /// Send a body that does not fit the event's fields
    #[arg(long)]
    force: bool,
    /// An id of your own: whatever is emitted under it is stored once
    #[arg(long)]
    id: Option<String>,
}

impl Emit {
    /// Checks what needs no server first, then emits.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let catalog = Catalog::load(&identity::events_file())?;
        let event = catalog.get(&self.event)?;
        let body = self.body()?;
        if let Err(error) = event.check(&body)
            && !self.force
        {
            return Err(error.into());
        }
        let id = self.id;
        if let Some(id) = id
            .as_ref()
            .filter(|id| id.is_empty() || id.len() > 200 || id.contains(char::is_control))
        {
            return Err(Error::BadName {
                what: "id",
                value: id.clone(),
                problem: "must be 1 to 200 plain letters",
            }
            .into());
        }
        let draft = Draft {
            event: event.name.clone(),
            subject: event.subject.clone(),
            body,
            id,
        };
        let mesh = super::open(context).await?;
        let receipt = mesh.emit(&draft).await?;
        let line = match receipt.seq {
            _ if context.json => serde_json::json!({
                "stream": crate::mesh::setup::STREAM,
                "stream_seq": receipt.stream_seq,
                "instance": mesh.identity.instance,
                "seq": receipt.seq,
            })
            .to_string(),
            Some(seq) => format!("{} {} {seq}", receipt.stream_seq, mesh.identity.instance),
            None => format!("{} was there already", receipt.stream_seq),
        };
        output::print(line)
    }

    fn body(&self) -> Result<Bytes, Failure> {
        if self.body != "-" {
            return Ok(Bytes::copy_from_slice(self.body.as_bytes()));
        }
        let mut body = Vec::new();
        let mut stdin = std::io::stdin().lock().take(STDIN_BYTES_MAX + 1);
        stdin.read_to_end(&mut body).map_err(Error::from)?;
        if body.len() as u64 > STDIN_BYTES_MAX {
            return Err(Failure::usage(format!(
                "more than {STDIN_BYTES_MAX} bytes on stdin"
            )));
        }
        Ok(body.into())
    }
}
