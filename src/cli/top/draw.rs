//! A picture as text: the head, and tables whose columns are as wide as they must be.

use super::sample::{ConnectionRow, ConsumerRow, Frame, Rates, StreamRow};
use super::{Sort, View};
use crate::cli::units::{show_bytes, show_count};

/// Letters of a name that are shown.
const NAME_LETTERS_MAX: usize = 32;

/// What everything is measured in, over and under a list.
pub(super) fn head(frame: &Frame, address: Option<&str>) -> Vec<String> {
    let server = &frame.server;
    let what = match &server.mesh {
        Some(mesh) => format!("mesh {mesh}"),
        None => format!("nats-server {}", server.version),
    };
    let at = address.map_or_else(String::new, |address| format!("   {address}"));
    let flow = |name: &str, rates: Option<(f64, f64)>, msgs: u64, bytes: u64| {
        let (rate, byte_rate) = rates.map_or_else(
            || ("-".to_owned(), "-".to_owned()),
            |(msgs, bytes)| (show_rate(msgs), show_bytes(bytes as u64)),
        );
        let (msgs, bytes) = (show_count(msgs), show_bytes(bytes));
        format!("{name:<9}{rate:>12} msgs/s {byte_rate:>10}/s    {msgs} msgs, {bytes} in all")
    };
    let (into, out) = (
        frame.rates.map(|rates| (rates.in_msgs, rates.in_bytes)),
        frame.rates.map(|rates| (rates.out_msgs, rates.out_bytes)),
    );
    let jetstream = match &frame.jetstream {
        None => "Streams   not shown by this server".to_owned(),
        Some(jetstream) => format!(
            "Streams   {}, consumers {}, messages {}, {}",
            show_count(jetstream.streams),
            show_count(jetstream.consumers),
            show_count(jetstream.messages),
            show_bytes(jetstream.bytes)
        ),
    };
    vec![
        format!(
            "{}   {what}   up {}{at}",
            clean(&server.name, NAME_LETTERS_MAX),
            server.uptime
        ),
        format!(
            "Load      CPU {:.1}%, memory {}",
            frame.cpu_percent,
            show_bytes(frame.mem_bytes)
        ),
        format!(
            "Clients   {} connections, {} ever, {} subscriptions, {} slow consumers",
            show_count(frame.connections_now),
            show_count(frame.connections_total),
            show_count(frame.subscriptions),
            show_count(frame.slow_consumers)
        ),
        flow("In", into, frame.in_msgs, frame.in_bytes),
        flow("Out", out, frame.out_msgs, frame.out_bytes),
        jetstream,
    ]
}

/// A picture for a pipe: the head, then the lists, or the one that was asked for.
pub(super) fn page(frame: &Frame, view: Option<View>, sort: Sort) -> String {
    let mut lines = head(frame, None);
    for listed in View::ALL
        .into_iter()
        .filter(|&listed| view.is_none_or(|view| view == listed))
    {
        let rows = list(frame, listed);
        // What is empty is only worth a line when it was asked for.
        if rows.len() > 1 || view.is_some() {
            lines.push(String::new());
            if listed == View::Connections {
                lines.push(format!("Connections by {}", sort.name()));
            }
            lines.extend(rows);
        }
    }
    lines.push(String::new());
    lines.join("\n")
}

/// One of the lists: its head, then a line a row.
pub(super) fn list(frame: &Frame, view: View) -> Vec<String> {
    match view {
        View::Connections => aligned(
            &[
                "<CID",
                "<NAME",
                "<ADDRESS",
                ">TO/s",
                ">FROM/s",
                ">B TO/s",
                ">B FROM/s",
                ">MSGS_TO",
                ">MSGS_FROM",
                ">PENDING",
                ">SUBS",
                ">RTT",
                ">IDLE",
                ">UPTIME",
                "<CLIENT",
            ],
            frame.connections.iter().map(connection),
        ),
        View::Streams => aligned(
            &[
                "<STREAM",
                ">STORED/s",
                ">MESSAGES",
                ">BYTES",
                ">FIRST",
                ">LAST",
                ">CONSUMERS",
            ],
            frame.streams.iter().map(stream),
        ),
        View::Consumers => aligned(
            &[
                "<STREAM",
                "<CONSUMER",
                ">PENDING",
                ">UNACKED",
                ">REDELIVERED",
                ">WAITING",
                ">DELIVERED/s",
                ">ACKED/s",
            ],
            frame.consumers.iter().map(consumer),
        ),
    }
}

fn connection(row: &ConnectionRow) -> Vec<String> {
    let rate = |of: fn(&Rates) -> f64| row.rates.as_ref().map_or_else(dash, |rates| show_rate(of(rates)));
    let bytes = |of: fn(&Rates) -> f64| {
        row.rates
            .as_ref()
            .map_or_else(dash, |rates| show_bytes(of(rates) as u64))
    };
    let or_dash = |text: &str| {
        if text.is_empty() {
            dash()
        } else {
            clean(text, NAME_LETTERS_MAX)
        }
    };
    vec![
        row.cid.to_string(),
        or_dash(&row.name),
        or_dash(&row.address),
        rate(|rates| rates.out_msgs),
        rate(|rates| rates.in_msgs),
        bytes(|rates| rates.out_bytes),
        bytes(|rates| rates.in_bytes),
        show_count(row.out_msgs),
        show_count(row.in_msgs),
        show_bytes(row.pending_bytes),
        show_count(row.subscriptions),
        or_dash(&row.rtt),
        row.idle.clone(),
        row.uptime.clone(),
        or_dash(format!("{} {}", row.lang, row.version).trim()),
    ]
}

fn stream(row: &StreamRow) -> Vec<String> {
    vec![
        clean(&row.name, NAME_LETTERS_MAX),
        row.stored_rate.map_or_else(dash, show_rate),
        show_count(row.messages),
        show_bytes(row.bytes),
        show_count(row.first_seq),
        show_count(row.last_seq),
        row.consumers.to_string(),
    ]
}

fn consumer(row: &ConsumerRow) -> Vec<String> {
    vec![
        clean(&row.stream, NAME_LETTERS_MAX),
        clean(&row.name, NAME_LETTERS_MAX),
        show_count(row.pending),
        show_count(row.ack_pending),
        show_count(row.redelivered),
        show_count(row.waiting),
        row.delivered_rate.map_or_else(dash, show_rate),
        row.acked_rate.map_or_else(dash, show_rate),
    ]
}

fn dash() -> String {
    "-".to_owned()
}

/// Whole numbers from ten on, one decimal below.
fn show_rate(rate: f64) -> String {
    match rate {
        0.0 => "0".to_owned(),
        rate if rate < 10.0 => format!("{rate:.1}"),
        rate => show_count(rate.round() as u64),
    }
}

/// What a client says of itself, without what could drive the terminal.
fn clean(text: &str, letters_max: usize) -> String {
    let shown = |letter: char| if letter.is_control() { '?' } else { letter };
    match text.chars().count() > letters_max {
        false => text.chars().map(shown).collect(),
        true => {
            let kept: String = text.chars().map(shown).take(letters_max - 1).collect();
            kept + "…"
        }
    }
}

/// A table without a frame; a head begins with `<` or `>`, where its column is aligned to.
fn aligned(heads: &[&str], rows: impl Iterator<Item = Vec<String>>) -> Vec<String> {
    let names = heads.iter().map(|head| head[1..].to_owned()).collect();
    let table: Vec<Vec<String>> = std::iter::once(names).chain(rows).collect();
    let width = |column: usize| {
        let cells = table.iter().map(|row| row[column].chars().count());
        cells.max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..heads.len()).map(width).collect();
    let line =
        |row: &Vec<String>| {
            let cells = row.iter().zip(heads).zip(&widths).map(|((cell, head), &width)| {
                match head.starts_with('>') {
                    true => format!("{cell:>width$}"),
                    false => format!("{cell:<width$}"),
                }
            });
            cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        };
    table.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_they_must_be() {
        let rows = [
            vec!["a".to_owned(), "1".to_owned()],
            vec!["bcd".to_owned(), "1,000".to_owned()],
        ];
        assert_eq!(
            aligned(&["<NAME", ">N"], rows.into_iter()),
            ["NAME      N", "a         1", "bcd   1,000"]
        );
    }

    #[test]
    fn names_cannot_drive_the_terminal() {
        assert_eq!(clean("evil\u{1b}[2J\r\nname", 32), "evil?[2J??name");
        assert_eq!(clean("abcdef", 4), "abc…");
    }

    #[test]
    fn rates() {
        for (rate, text) in [
            (0.0, "0"),
            (0.4, "0.4"),
            (9.96, "10.0"),
            (12.5, "13"),
            (1234.0, "1,234"),
        ] {
            assert_eq!(show_rate(rate), text);
        }
    }
}
