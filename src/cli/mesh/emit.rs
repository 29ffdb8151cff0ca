//! `mesh emit`: say something on the mesh.

use std::io::Read;
use std::path::PathBuf;

use bytes::Bytes;
use clap::Args;

use crate::cli::{Context, Failure, output};
use crate::mesh::spool::{self, Offline, Repository};
use crate::mesh::{Catalog, Draft, Error, Identity, Receipt, identity};

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
    /// Keep the event in this git repository while the mesh is down (also MESH_GIT, or `git` in the file of events)
    #[arg(long, value_name = "REPO")]
    git: Option<PathBuf>,
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
        let git = spool::configured(self.git.as_deref())?;
        let identity = Identity::from_env()?;
        match (send(context, &draft).await, git) {
            (Ok(receipt), _) => tell(context, &identity.instance, receipt),
            (Err(failure), Some(git)) if failure.code() == Failure::UNHEALTHY => {
                keep(context, identity, git, &draft, &failure).await
            }
            (Err(failure), _) => Err(failure),
        }
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

async fn send(context: &Context, draft: &Draft) -> Result<Receipt, Failure> {
    let mesh = super::open(context).await?;
    Ok(mesh.emit(draft).await?)
}

fn tell(context: &Context, instance: &str, receipt: Receipt) -> Result<(), Failure> {
    output::print(match receipt.seq {
        _ if context.json => serde_json::json!({
            "stream": crate::mesh::setup::STREAM,
            "stream_seq": receipt.stream_seq,
            "instance": instance,
            "seq": receipt.seq,
        })
        .to_string(),
        Some(seq) => format!("{} {instance} {seq}", receipt.stream_seq),
        None => format!("{} was there already", receipt.stream_seq),
    })
}

/// Keeps the event in git, because the mesh cannot take it now.
async fn keep(
    context: &Context,
    identity: Identity,
    repository: Repository,
    draft: &Draft,
    failure: &Failure,
) -> Result<(), Failure> {
    let place = repository.path().display().to_string();
    let offline = Offline {
        identity,
        state_dir: identity::state_dir(),
        timeout: context.timeout,
        repository,
    };
    let kept = offline.emit(draft).await.map_err(|error| {
        // Both matter to whoever has to see to it.
        let Some(cause) = failure.lines().next() else {
            return error.into();
        };
        output::note(format!("The mesh is down ({cause})"));
        Failure::from(error)
    })?;
    let cause = failure.lines().next().unwrap_or_default();
    output::note(format!(
        "The mesh is down ({cause}): kept in {} of {place}",
        kept.reference
    ));
    let pushed = offline.push().await;
    if let Some(wrong) = pushed.unwrap_or_else(|error| Some(error.to_string())) {
        output::note(format!(
            "{wrong}; tried again at the next `mesh emit` or `mesh sync`"
        ));
    }
    let instance = &offline.identity.instance;
    output::print(match context.json {
        true => serde_json::json!({
            "stream": null,
            "stream_seq": null,
            "instance": instance,
            "seq": kept.seq,
            "kept": {"repository": place, "ref": kept.reference, "commit": kept.commit},
        })
        .to_string(),
        false => format!("kept {instance} {}", kept.seq),
    })
}
