//! The server's log, on stderr or in a file: lines of the shape NATS users know, or JSON.

use std::fmt;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, reload};

use crate::config::{LogFormat, Process};

use super::super::Failure;
use super::sink::{Sink, Target};

/// The log of this process: what a reload and a signal change of it.
pub(crate) struct Log {
    sink: Sink,
    level: reload::Handle<Targets, Registry>,
}

impl Log {
    /// Starts logging; a second start in one process (tests) keeps the first log.
    pub fn start(process: &Process, trace: bool) -> Result<Self, Failure> {
        let sink = Sink::default();
        sink.set(Target::open(process)?);
        let (level, handle) = reload::Layer::new(filter(process.debug, trace));
        let registry = tracing_subscriber::registry().with(level);
        match process.log_format {
            LogFormat::Text => {
                let lines = Lines {
                    time: process.log_time,
                    utc: process.log_utc,
                };
                let layer = tracing_subscriber::fmt::layer().event_format(lines);
                registry.with(layer.with_writer(sink.clone())).try_init().ok();
            }
            LogFormat::Json => {
                let layer = tracing_subscriber::fmt::layer().json().with_target(false);
                registry.with(layer.with_writer(sink.clone())).try_init().ok();
            }
        }
        Ok(Self { sink, level: handle })
    }

    /// Takes on another level, and a place that was opened before.
    pub(super) fn reload(&self, process: &Process, trace: bool, target: Target) {
        self.sink.set(target);
        self.level.reload(filter(process.debug, trace)).ok();
    }

    /// Opens the file anew, for it may have been moved away.
    pub fn reopen(&self) -> Result<(), Failure> {
        self.sink.reopen()
    }
}

fn filter(debug: bool, trace: bool) -> Targets {
    let level = match (debug, trace) {
        (_, true) => Level::TRACE,
        (true, false) => Level::DEBUG,
        (false, false) => Level::INFO,
    };
    Targets::new()
        .with_default(Level::WARN)
        .with_target("sovereign_mesh", level)
}

/// `[pid] 2026/11/23 05:20:01.000000 [INF] text`, in local time unless it is to be UTC.
struct Lines {
    time: bool,
    utc: bool,
}

/// The target of a last word: shown as NATS shows it, `[FTL]`.
pub(crate) const FATAL: &str = "sovereign_mesh::fatal";

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let level = match *event.metadata().level() {
            Level::ERROR if event.metadata().target() == FATAL => "FTL",
            Level::ERROR => "ERR",
            Level::WARN => "WRN",
            Level::INFO => "INF",
            Level::DEBUG => "DBG",
            Level::TRACE => "TRC",
        };
        write!(writer, "[{}] ", std::process::id())?;
        if self.time {
            let now = if self.utc {
                jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC)
            } else {
                jiff::Zoned::now()
            };
            write!(writer, "{} ", now.strftime("%Y/%m/%d %H:%M:%S%.6f"))?;
        }
        write!(writer, "[{level}] ")?;
        let mut text = Text {
            writer: &mut writer,
            outcome: Ok(()),
        };
        event.record(&mut text);
        text.outcome?;
        writeln!(writer)
    }
}

/// Fields that are for JSON alone: the text says the same already.
const SAID: [&str; 4] = ["cid", "client", "reason", "cause"];

/// Writes the message first-hand and other fields as `name=value`.
struct Text<'a, 'w> {
    writer: &'a mut Writer<'w>,
    outcome: fmt::Result,
}

impl Visit for Text<'_, '_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if self.outcome.is_ok() && !SAID.contains(&field.name()) {
            self.outcome = if field.name() == "message" {
                write!(self.writer, "{value:?}")
            } else {
                write!(self.writer, " {}={value:?}", field.name())
            };
        }
    }
}
