//! `mesh ask`: ask everybody, and know when enough have answered.

use clap::Args;
use serde_json::{Map, Value, json};

use super::shown;
use crate::cli::{Context, Failure, message, output, units};
use crate::mesh::Error;
use crate::mesh::ask::{Answer, Asked, End, Question};
use crate::mesh::quorum::{Heard, Outcome, Quorum, Rule};

/// Asks everybody who listens, and counts one answer of each instance
#[derive(Args, Debug)]
#[command(
    after_help = "Without --quorum it takes what comes until --timeout.\nThe first answer of an instance counts. One \
                        that does not say who gives it (no Mesh-Instance header, as `mesh answer` sets it) never \
                        does.\nWith --agree, two answers are the same if they are the same JSON value, or else byte by \
                        byte, but for a line end at the end.\n\nExit codes: 0 reached, 1 not in time or too many could not \
                        answer, 4 nobody listens or no peer is present, 5 they disagree.\n\n\
                        Examples:\n  mesh ask deploy.ready 'v1.4?' --quorum 2/3\n  \
                        mesh ask deploy.ready --quorum majority --agree --timeout 2s"
)]
pub struct Ask {
    /// Subject to ask on
    subject: String,
    /// The question; `-`, or nothing with stdin redirected, reads stdin
    text: Option<String>,
    /// How many must answer: 2/3, majority/5, all/3; `majority` or `all` of the peers present
    #[arg(long, short = 'q', value_name = "N/X", value_parser = rule, allow_hyphen_values = true)]
    quorum: Option<Rule>,
    /// They must give the same answer
    #[arg(long, short = 'a', requires = "quorum")]
    agree: bool,
    /// Prints bodies only; with --agree only the one that was agreed on
    #[arg(long, short = 'r')]
    raw: bool,
}

fn rule(text: &str) -> Result<Rule, String> {
    text.parse()
}

impl Ask {
    /// Asks, prints each answer as it comes and what came of it.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        let body = message::body(self.text.as_deref())?;
        let mesh = super::open(context).await?;
        let most = mesh.client.server_info().max_payload;
        if most > 0 && body.len() > most {
            let size = body.len();
            return Err(Failure::usage(format!(
                "a question of {size} bytes: this server takes {most} at most"
            )));
        }
        let question = Question {
            subject: self.subject.clone(),
            body,
            quorum: self.quorum,
            agree: self.agree,
        };
        let mut asked = mesh.ask(question).await.map_err(|error| match error {
            Error::NotFound(_) => Failure::from(error)
                .hint("`mesh join` makes an instance a peer; or say of how many, as in majority/3"),
            error => error.into(),
        })?;
        let mut seen = Seen::default();
        let end = loop {
            match asked.next().await? {
                Ok(answer) => self.take(&answer, &mut seen, context.json)?,
                Err(end) => break end,
            }
        };
        if end == End::Nobody {
            let subject = &self.subject;
            if context.json {
                output::print_json_line(&json!({"outcome": "nobody"}))?;
            }
            return Err(Failure::not_found(format!("nobody listens on {subject:?}"))
                .hint(format!("answer there with `mesh answer {subject} TEXT`")));
        }
        match asked.tally.quorum() {
            Some(quorum) => self.conclude(&asked, end, quorum, &seen, context),
            None => self.close(&asked, &seen, context),
        }
    }

    /// Shows an answer: those that count, or all if there is nothing to count towards.
    fn take(&self, answer: &Answer, seen: &mut Seen, json: bool) -> Result<(), Failure> {
        let voice = &answer.voice;
        let instance = voice.instance.as_deref().unwrap_or("-");
        seen.note(answer.heard, instance);
        if json {
            return output::print_json_line(&line(answer));
        }
        let who = match &answer.session {
            Some(session) => shown(format!("{instance}/{session}").as_bytes()),
            None => shown(instance.as_bytes()),
        };
        if let Some(error) = &answer.error {
            output::note(format!("{who} could not answer: {error}"));
            return Ok(());
        }
        let body = message::printable(&voice.body);
        let body = body.strip_suffix('\n').unwrap_or(&body);
        match answer.heard {
            Heard::Counted if self.raw && self.agree => {
                seen.last = body.to_owned();
                Ok(())
            }
            heard if heard == Heard::Counted || self.quorum.is_none() => match self.raw {
                true => output::print(body),
                false => output::print(format!("{who}: {body}")),
            },
            heard => {
                output::note(format!("{who}: {body} ({}: not counted)", word(heard)));
                Ok(())
            }
        }
    }

    /// What came of a question to whom it may concern.
    fn close(&self, asked: &Asked, seen: &Seen, context: &Context) -> Result<(), Failure> {
        let answered = asked.tally.answered();
        let heard = answered + seen.unsigned;
        if context.json {
            let outcome = if heard == 0 { "timed_out" } else { "answered" };
            let unsigned = seen.unsigned;
            output::print_json_line(
                &json!({"outcome": outcome, "answered": answered, "unsigned": unsigned}),
            )?;
        }
        match heard {
            0 if !seen.failed.is_empty() => Err(Failure::failed(format!(
                "could not answer: {}",
                list(&seen.failed)
            ))),
            0 => Err(Failure::failed(format!(
                "no answer on {:?} within {}",
                self.subject,
                units::show_duration(context.timeout)
            ))
            .hint("someone listens, but did not answer in time; wait longer with --timeout")),
            _ if context.json => Ok(()),
            _ => {
                output::note(format!("{answered} instances answered"));
                Ok(())
            }
        }
    }

    /// What came of a quorum.
    fn conclude(
        &self,
        asked: &Asked,
        end: End,
        quorum: Quorum,
        seen: &Seen,
        context: &Context,
    ) -> Result<(), Failure> {
        if context.json {
            output::print_json_line(&summary(asked, end, quorum, seen))?;
        }
        let tally = &asked.tally;
        let (answered, best, of, needed) = (tally.answered(), tally.best(), quorum.of(), quorum.needed());
        let failure = match end {
            End::Decided(Outcome::Reached) if context.json => return Ok(()),
            End::Decided(Outcome::Reached) => {
                return match (self.raw, self.agree) {
                    (true, true) => output::print(&seen.last),
                    (true, false) => Ok(()),
                    (false, true) => output::print(format!("quorum: {best} of {of} agree")),
                    (false, false) => output::print(format!("quorum: {best} of {of} answered")),
                };
            }
            End::Decided(Outcome::Disagreed) => Failure::conflict(format!(
                "they disagree: {needed} of {of} cannot give the same answer any more"
            )),
            End::Decided(Outcome::Failed) => Failure::failed(format!(
                "{} of {of} could not answer: {needed} cannot be had any more",
                tally.failed()
            )),
            End::TimedOut | End::Nobody => {
                let agree = if self.agree {
                    format!(", {best} of them the same")
                } else {
                    String::new()
                };
                let within = units::show_duration(context.timeout);
                Failure::failed(format!(
                    "{answered} of {of} answered within {within}{agree}; the quorum is {quorum}"
                ))
            }
        };
        Err(failure.hint(self.hints(asked, end, seen).join("\n")))
    }

    fn hints(&self, asked: &Asked, end: End, seen: &Seen) -> Vec<String> {
        let mut hints = Vec::new();
        if self.agree {
            let camps = asked.tally.camps().into_iter();
            hints.extend(camps.map(|camp| format!("{}: {}", list(&camp.instances), shown(&camp.body))));
        }
        if !seen.failed.is_empty() {
            hints.push(format!("could not answer: {}", list(&seen.failed)));
        }
        match asked.tally.missing() {
            Some(missing) if !missing.is_empty() => hints.push(format!("no answer from {}", list(&missing))),
            _ => {}
        }
        if !seen.strangers.is_empty() {
            let strangers = list(&seen.strangers);
            hints.push(format!(
                "not counted, as no peers are present of that name: {strangers}"
            ));
        }
        if seen.unsigned > 0 {
            hints.push(format!(
                "{} not counted, for want of a Mesh-Instance header: `mesh answer {}` sets it",
                seen.unsigned, self.subject
            ));
        }
        if end == End::TimedOut {
            hints.push("wait longer with --timeout".to_owned());
        }
        hints
    }
}

/// Most names that are kept of those whose answers do not count.
const NAMES_MAX: usize = 20;

/// What is worth telling besides the count.
#[derive(Default)]
struct Seen {
    unsigned: usize,
    failed: Vec<String>,
    strangers: Vec<String>,
    /// The last body that counted.
    last: String,
}

impl Seen {
    fn note(&mut self, heard: Heard, instance: &str) {
        let names = match heard {
            Heard::Unsigned => {
                self.unsigned += 1;
                return;
            }
            Heard::Failed => &mut self.failed,
            Heard::Stranger => &mut self.strangers,
            Heard::Counted | Heard::Again | Heard::Late => return,
        };
        if names.len() < NAMES_MAX && !names.iter().any(|name| name == instance) {
            names.push(instance.to_owned());
        }
    }
}

/// Names with commas between, fit for one line.
fn list(names: &[impl AsRef<str>]) -> String {
    let names: Vec<_> = names.iter().map(AsRef::as_ref).collect();
    shown(names.join(", ").as_bytes())
}

/// Why an answer does or does not count.
fn word(heard: Heard) -> &'static str {
    match heard {
        Heard::Counted => "counted",
        Heard::Failed => "failed",
        Heard::Again => "again",
        Heard::Unsigned => "unsigned",
        Heard::Stranger => "no peer",
        Heard::Late => "late",
    }
}

/// An answer for programs.
fn line(answer: &Answer) -> Value {
    let mut object = Map::new();
    object.insert("instance".to_owned(), json!(answer.voice.instance));
    if let Some(session) = &answer.session {
        object.insert("session".to_owned(), session.as_str().into());
    }
    object.insert("heard".to_owned(), word(answer.heard).into());
    match &answer.error {
        Some(error) => {
            object.insert("error".to_owned(), error.as_str().into());
        }
        None => message::insert_body(&mut object, "text", &answer.voice.body),
    }
    object.insert("rtt_ns".to_owned(), units::nanos(answer.took).into());
    object.into()
}

/// What came of a quorum, for programs.
fn summary(asked: &Asked, end: End, quorum: Quorum, seen: &Seen) -> Value {
    let tally = &asked.tally;
    let outcome = match end {
        End::Decided(Outcome::Reached) => "reached",
        End::Decided(Outcome::Disagreed) => "disagreed",
        End::Decided(Outcome::Failed) => "failed",
        End::TimedOut => "timed_out",
        End::Nobody => "nobody",
    };
    let camps = tally.camps().into_iter().map(|camp| {
        let mut object = Map::new();
        object.insert("instances".to_owned(), json!(camp.instances));
        message::insert_body(&mut object, "text", &camp.body);
        Value::from(object)
    });
    let mut object = json!({
        "outcome": outcome,
        "needed": quorum.needed(),
        "of": quorum.of(),
        "best": tally.best(),
        "answered": tally.answered(),
        "failed": tally.failed(),
        "unsigned": seen.unsigned,
        "answers": camps.collect::<Vec<_>>(),
    });
    if let Some(missing) = tally.missing() {
        object["missing"] = json!(missing);
    }
    object
}
