//! The server's log on stderr: lines of the shape NATS users know, or JSON.

use std::fmt;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::LogFormat;

/// Starts logging for this process; later calls do nothing.
pub(super) fn start(format: LogFormat, debug: bool, trace: bool) {
    let level = match (debug, trace) {
        (_, true) => Level::TRACE,
        (true, false) => Level::DEBUG,
        (false, false) => Level::INFO,
    };
    let filter = tracing_subscriber::EnvFilter::new(format!("warn,sovereign_mesh={level}"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    // A second start in one process (tests) keeps the first log.
    match format {
        LogFormat::Text => builder.event_format(Lines).try_init().ok(),
        LogFormat::Json => builder.json().with_target(false).try_init().ok(),
    };
}

/// `[pid] 2026/11/23 05:20:01.000000 [INF] text`, in local time.
struct Lines;

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
            Level::ERROR => "ERR",
            Level::WARN => "WRN",
            Level::INFO => "INF",
            Level::DEBUG => "DBG",
            Level::TRACE => "TRC",
        };
        let now = jiff::Zoned::now();
        let time = now.strftime("%Y/%m/%d %H:%M:%S%.6f");
        write!(writer, "[{}] {time} [{level}] ", std::process::id())?;
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
