//! `mesh reply`: a service of one line, answering with a text, an echo or what a command prints. `mesh answer` does the
//! same for itself alone and says who it is.

use std::process::Stdio;
use std::time::Duration;

use async_nats::{Client, HeaderMap, HeaderName, HeaderValue, Message};
use bytes::Bytes;
use clap::Args;
use futures_util::StreamExt;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::{Context, Failure, message, output, template, units};

/// Answers requests
#[derive(Args, Debug)]
#[command(
    after_help = "The command runs under `sh -c` with the request on stdin, and in its environment MESH_SUBJECT, \
                        MESH_REPLY and MESH_HEADERS (JSON).\nIf it fails, the reply carries Nats-Service-Error.\n\n\
                        Examples:\n  mesh reply time.now --command date\n  mesh reply greet 'hello {{Request}}'\n  \
                        mesh reply ping --echo"
)]
pub struct Reply {
    #[command(flatten)]
    service: Service,
    /// Queue group; members share the requests
    #[arg(long, short = 'q', default_value = "NATS-RPLY-22", value_name = "GROUP")]
    queue: String,
}

/// What is answered, and how often.
#[derive(Args, Debug)]
pub struct Service {
    /// Subject to answer on
    subject: String,
    /// Body of every reply; {{Request}} and {{Count}} are filled in
    #[arg(conflicts_with_all = ["echo", "command"])]
    body: Option<String>,
    /// Sends back what was received (the default without body and command)
    #[arg(long)]
    echo: bool,
    /// Sends back what a command prints
    #[arg(long, value_name = "CMD", conflicts_with = "echo")]
    command: Option<String>,
    /// Sleeps before each reply
    #[arg(long, value_name = "DURATION", value_parser = units::duration)]
    sleep: Option<Duration>,
    /// Adds a header to the replies, as often as needed
    #[arg(long, short = 'H', value_name = "K:V", value_parser = message::header)]
    header: Vec<(HeaderName, HeaderValue)>,
    /// Ends after this many requests
    #[arg(long)]
    count: Option<u64>,
}

impl Reply {
    /// Answers until told to stop.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let Self { service, queue } = self;
        service.serve(context, Some(queue), &HeaderMap::new()).await
    }
}

impl Service {
    /// Answers what the members of a group share, or, without one, all there is; with `signature` in each answer.
    pub async fn serve(
        &self,
        context: &Context,
        group: Option<String>,
        signature: &HeaderMap,
    ) -> Result<(), Failure> {
        let connection = context.open().await?;
        let client = &connection.client;
        let place = match &group {
            Some(group) => format!("{:?} in group {group:?}", self.subject),
            None => format!("{:?}", self.subject),
        };
        let subscribed = match group {
            Some(group) => client.queue_subscribe(self.subject.clone(), group).await,
            None => client.subscribe(self.subject.clone()).await,
        };
        let mut requests = subscribed
            .map_err(|error| Failure::usage(format!("cannot subscribe to {:?}: {error}", self.subject)))?;
        if let Some(count) = self.count {
            // The requests beyond ours belong to the other members of the group.
            requests.unsubscribe_after(count).await.map_err(Failure::failed)?;
        }
        connection.settle().await?;
        let mut ending = std::pin::pin!(output::interrupted());
        output::note(format!("Listening on {place}"));
        let mut count = 0;
        while self.count.is_none_or(|limit| count < limit) {
            let request = tokio::select! {
                request = requests.next() => request,
                () = &mut ending => None,
            };
            let Some(request) = request else { break };
            count += 1;
            output::note(format!(
                "[#{count}] Received on subject {:?}:",
                request.subject.as_str()
            ));
            for line in request.headers.iter().flat_map(message::header_lines) {
                output::note(line);
            }
            if !context.json {
                message::print_message(&request, Some(""))?;
            } else {
                output::print_json_line(&message::message_json(&request))?;
            }
            tokio::select! {
                answered = self.answer(client, request, count, signature) => answered?,
                () = &mut ending => break,
            }
        }
        connection.settle().await?;
        output::note(format!("Answered {count} requests"));
        Ok(())
    }

    async fn answer(
        &self,
        client: &Client,
        request: Message,
        count: u64,
        signature: &HeaderMap,
    ) -> Result<(), Failure> {
        let Some(reply) = request.reply.clone() else {
            output::note("No reply subject: this was published, not asked");
            return Ok(());
        };
        if let Some(pause) = self.sleep {
            tokio::time::sleep(pause).await;
        }
        let mut headers = message::headers(&self.header);
        let body = match (&self.command, &self.body) {
            (Some(command), _) => match execute(command, &request).await {
                Ok(output) => output,
                Err(error) => {
                    output::note(format!("The command failed: {error}"));
                    refuse(&mut headers, &error);
                    Bytes::new()
                }
            },
            (None, Some(body)) => {
                let request = String::from_utf8_lossy(&request.payload);
                let values = template::Values {
                    count,
                    request: Some(&request),
                };
                template::fill(body, values).into()
            }
            (None, None) => {
                for (name, values) in request.headers.iter().flat_map(HeaderMap::iter) {
                    values
                        .iter()
                        .for_each(|value| headers.append(name.clone(), value.clone()));
                }
                request.payload
            }
        };
        // In place of the asker's own, which an echo brings along.
        for (name, values) in signature.iter() {
            values
                .iter()
                .for_each(|value| headers.insert(name.clone(), value.clone()));
        }
        let sent = match headers.is_empty() {
            true => client.publish(reply, body).await,
            false => client.publish_with_headers(reply, headers, body).await,
        };
        if let Err(error) = sent {
            output::note(format!("Could not reply: {error}"));
        }
        client.flush().await.map_err(Failure::failed)
    }
}

/// Says in the reply's headers that the service failed, as NATS services do.
fn refuse(headers: &mut HeaderMap, error: &str) {
    let line = error.replace(['\r', '\n'], " ");
    if let Ok(value) = line.parse::<HeaderValue>() {
        headers.insert("Nats-Service-Error", value);
    }
    headers.insert("Nats-Service-Error-Code", "500");
}

async fn execute(command: &str, request: &Message) -> Result<Bytes, String> {
    let headers = request
        .headers
        .as_ref()
        .map(message::header_json)
        .unwrap_or_default();
    let mut child = Command::new("sh")
        .args(["-c", command])
        .env("MESH_SUBJECT", request.subject.as_str())
        .env("MESH_REPLY", request.reply.as_deref().unwrap_or_default())
        .env("MESH_HEADERS", headers.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| error.to_string())?;
    let stdin = child.stdin.take();
    let body = request.payload.clone();
    // Fed while its output is read: a command that echoes more than a pipe holds would wait for ever.
    let feed = async move {
        if let Some(mut stdin) = stdin {
            // A command may not care for its input.
            stdin.write_all(&body).await.ok();
        }
    };
    let (output, ()) = tokio::join!(child.wait_with_output(), feed);
    let output = output.map_err(|error| error.to_string())?;
    match output.status.success() {
        true => Ok(output.stdout.into()),
        false => Err(output.status.to_string()),
    }
}
