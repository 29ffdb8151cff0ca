//! Where text goes: data to stdout, talk to stderr. A reader that has gone ends the command silently.

use std::fmt::Display;
use std::io::{self, BufRead, IsTerminal, Write};

use comfy_table::{CellAlignment, Table, presets};
use jiff::Zoned;
use serde::Serialize;

use super::Failure;

/// Writes one line of data.
pub fn print(line: impl Display) -> Result<(), Failure> {
    let mut out = anstream::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

/// Writes bytes as they are: a payload may be anything.
pub fn write(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    Ok(out.flush()?)
}

/// Writes a JSON document over several lines: for answers.
pub fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    print(serde_json::to_string_pretty(value).map_err(Failure::failed)?)
}

/// Writes a JSON document on one line: for streams of them.
pub fn print_json_line(value: &impl Serialize) -> Result<(), Failure> {
    print(serde_json::to_string(value).map_err(Failure::failed)?)
}

/// Says something about what goes on; a closed stderr is nobody's problem.
pub fn note(line: impl Display) {
    let now = Zoned::now().strftime("%H:%M:%S").to_string();
    writeln!(anstream::stderr(), "{now} {line}").ok();
}

/// Says something without the time before it, a line of many.
pub fn talk(line: impl Display) {
    writeln!(anstream::stderr(), "{line}").ok();
}

/// Whether a person sits at stdin and can be asked.
pub fn can_ask() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks for a line; only when [`can_ask`].
pub fn ask(question: &str) -> Result<String, Failure> {
    let mut err = anstream::stderr();
    write!(err, "{question} ").ok();
    err.flush().ok();
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    Ok(line.trim().to_owned())
}

/// Goes on with something destructive only when told to, by `--force` or by a yes at the terminal.
pub fn confirm(question: &str, force: bool) -> Result<(), Failure> {
    if force {
        return Ok(());
    }
    if !can_ask() {
        return Err(Failure::usage(format!("will not go on unasked: {question}"))
            .hint("stdin is not a terminal; say --force to go on"));
    }
    match ask(&format!("{question} (y/N)"))?.to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(Failure::failed("left as it was")),
    }
}

/// A boxed table under a title.
pub struct Boxed {
    title: String,
    table: Table,
}

impl Boxed {
    /// A table with these column headers.
    pub fn new(title: impl Display, headers: &[&str]) -> Self {
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED);
        table.set_header(headers.iter().copied());
        Self {
            title: title.to_string(),
            table,
        }
    }

    /// Adds a row; cells that are numbers, sizes or durations read best on the right.
    pub fn row<I: IntoIterator<Item = String>>(&mut self, cells: I) {
        self.table.add_row(cells.into_iter().map(|text| {
            let numeric = text.starts_with(|c: char| c.is_ascii_digit()) && !text.contains(['-', ':']);
            let cell = comfy_table::Cell::new(text);
            match numeric {
                true => cell.set_alignment(CellAlignment::Right),
                false => cell,
            }
        }));
    }

    /// Writes it to stdout.
    pub fn print(&self) -> Result<(), Failure> {
        print(format!("{}\n{}", self.title, self.table))
    }
}

/// Aligned `label: value` lines in sections, as on every info page.
#[derive(Default)]
pub struct Columns {
    lines: Vec<Line>,
}

enum Line {
    Title(String),
    Pair(String, String),
}

impl Columns {
    /// A page without lines.
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts a section.
    pub fn section(&mut self, title: &str) {
        self.lines.push(Line::Title(title.to_owned()));
    }

    /// Adds a line.
    pub fn row(&mut self, label: &str, value: impl Display) {
        self.lines.push(Line::Pair(label.to_owned(), value.to_string()));
    }

    /// Adds a line if there is something to say.
    pub fn some(&mut self, label: &str, value: Option<impl Display>) {
        if let Some(value) = value {
            self.row(label, value);
        }
    }

    /// Writes it to stdout under a heading.
    pub fn print(&self, heading: &str) -> Result<(), Failure> {
        let width = |line: &Line| match line {
            Line::Title(_) => 0,
            Line::Pair(label, _) => label.chars().count() + 2,
        };
        let width = self.lines.iter().map(width).max().unwrap_or(0).max(24);
        let mut text = format!("{heading}\n");
        if matches!(self.lines.first(), Some(Line::Pair(..))) {
            text.push('\n');
        }
        let mut lines = self.lines.iter().peekable();
        while let Some(line) = lines.next() {
            match line {
                // A section nothing was said in is left out with its title.
                Line::Title(_) if matches!(lines.peek(), None | Some(Line::Title(_))) => {}
                Line::Title(title) => text += &format!("\n{title}:\n\n"),
                Line::Pair(label, value) => text += &format!("{label:>width$}: {value}\n"),
            }
        }
        print(text.trim_end())
    }
}

/// Resolves when the person at the keyboard, or the system, asks us to end.
///
/// Listens from the call on, not from the first poll: who has been told that a command runs may end it at once.
pub fn interrupted() -> impl Future<Output = ()> {
    use tokio::signal::unix::{SignalKind, signal};
    let signals = [SignalKind::interrupt(), SignalKind::terminate()].map(signal);
    async move {
        // Without a handler the signal ends the process by itself.
        let [Ok(mut interrupt), Ok(mut terminate)] = signals else {
            return std::future::pending().await;
        };
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    }
}
