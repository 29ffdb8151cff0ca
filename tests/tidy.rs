//! The house rules of the source, held by a test: edges between rooms, crates that belong to one room, sizes, and
//! what has no place outside tests.

use std::path::{Path, PathBuf};

/// Lines of a file, and of a function.
const FILE_LINES_MAX: usize = 600;
/// The aim is 70; rustfmt's narrow calls may stretch a table of checks a little beyond.
const FUNCTION_LINES_MAX: usize = 80;

/// The rooms by row; a room uses only rooms of rows below its own. As in the documentation of `src/lib.rs`.
const ROWS: [&[&str]; 9] = [
    &["protocol"],
    &["router", "store"],
    &["account"],
    &["jetstream"],
    &["connection", "leaf"],
    &["monitor"],
    &["config", "server", "local"],
    &["mesh"],
    &["cli", "main"],
];

/// Edges within one row that the rows do not say: the assembly is two files.
const WITHIN_A_ROW: [(&str, &str); 2] = [("server", "config"), ("server", "local")];

/// Crates that some rooms alone may name. `nom` is for grammars: that of the wire, and that of configuration files.
const OWNED_CRATES: [(&str, &[&str]); 5] = [
    ("redb", &["store"]),
    ("nom", &["protocol", "config"]),
    ("clap", &["cli"]),
    ("clap_complete", &["cli"]),
    ("clap_mangen", &["cli"]),
];

struct Source {
    /// Relative to `src`.
    path: PathBuf,
    text: String,
}

impl Source {
    fn room(&self) -> String {
        let first = self.path.iter().next().expect("a file name").to_string_lossy();
        first.trim_end_matches(".rs").to_owned()
    }

    fn is_test(&self) -> bool {
        let name = self.path.file_stem().expect("a file name").to_string_lossy();
        name == "tests"
            || name.ends_with("_tests")
            || self.path.iter().any(|part| part == "tests" || part == "model")
    }

    /// Lines up to the test module, numbered from one, without what stands in comments.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let is_test = self.is_test();
        let lines = self.text.lines().zip(1..);
        lines
            .take_while(move |(line, _)| !is_test && *line != "#[cfg(test)]" || is_external(&self.text, line))
            .map(|(line, number)| (number, without_comment(line)))
    }

    fn say(&self, number: usize, what: &str) -> String {
        format!("src/{}:{number}: {what}", self.path.display())
    }
}

/// Whether a `#[cfg(test)]` line stands before `mod tests;`, a sibling file, and code may follow.
fn is_external(text: &str, line: &str) -> bool {
    line == "#[cfg(test)]" && !text.contains("#[cfg(test)]\nmod tests {")
}

fn without_comment(line: &str) -> &str {
    let trimmed = line.trim_start();
    if trimmed.starts_with("//") {
        return "";
    }
    line.find(" // ").map_or(line, |at| &line[..at])
}

fn sources() -> Vec<Source> {
    fn gather(directory: &Path, base: &Path, into: &mut Vec<Source>) {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                gather(&path, base, into);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                let path = path.strip_prefix(base).unwrap().to_owned();
                into.push(Source { path, text });
            }
        }
    }
    let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    gather(&base, &base, &mut found);
    assert!(found.len() > 20, "found only {} files", found.len());
    found
}

fn row(room: &str) -> Option<usize> {
    ROWS.iter().position(|rooms| rooms.contains(&room))
}

/// Fails with every finding of `check`.
fn hold(check: impl Fn(&Source, &mut Vec<String>)) {
    let mut findings = Vec::new();
    for source in sources() {
        check(&source, &mut findings);
    }
    assert!(findings.is_empty(), "\n{}", findings.join("\n"));
}

/// The rooms named in a line: `crate::room`, and each of `crate::{room, room::x}`.
fn rooms_named(line: &str) -> Vec<&str> {
    let mut named = Vec::new();
    for (at, found) in line.match_indices("crate::") {
        if line[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$') {
            continue;
        }
        let rest = &line[at + found.len()..];
        match rest.strip_prefix('{') {
            Some(list) => {
                let mut depth = 0;
                for part in list.split_inclusive([',', '{', '}']) {
                    if depth == 0 {
                        named.push(identifier(part.trim_start()));
                    }
                    depth += i32::from(part.ends_with('{')) - i32::from(part.ends_with('}'));
                    if depth < 0 {
                        break;
                    }
                }
            }
            None => named.push(identifier(rest)),
        }
    }
    named.retain(|name| !name.is_empty());
    named
}

fn identifier(text: &str) -> &str {
    let end = text
        .find(|c: char| !(c.is_alphanumeric() || c == '_'))
        .unwrap_or(text.len());
    &text[..end]
}

/// What the library exports at its top, as the room that owns it.
fn owner(name: &str) -> &str {
    match name {
        "Config" => "config",
        "Server" | "ServerError" | "TestServer" => "server",
        _ => name,
    }
}

#[test]
fn rooms_use_only_rooms_below() {
    hold(|source, findings| {
        let room = source.room();
        if room == "lib" {
            return;
        }
        let Some(own) = row(&room) else {
            return findings.push(source.say(1, &format!("{room} is no room of the table")));
        };
        // A `use crate::{...}` may span lines.
        let code: Vec<_> = source.code().collect();
        for (at, (number, line)) in code.iter().enumerate() {
            let mut statement = (*line).to_owned();
            let mut next = at + 1;
            while statement.contains("crate::{") && !statement.contains(';') && next < code.len() {
                statement.push_str(code[next].1);
                next += 1;
            }
            for name in rooms_named(&statement) {
                let name = owner(name);
                let Some(other) = row(name) else {
                    findings.push(source.say(*number, &format!("crate::{name} is no room")));
                    continue;
                };
                let allowed = name == room || other < own || WITHIN_A_ROW.contains(&(&room, name));
                if !allowed {
                    findings.push(source.say(*number, &format!("{room} may not use {name}")));
                }
            }
        }
    });
}

#[test]
fn crates_stay_in_their_room() {
    hold(|source, findings| {
        let room = source.room();
        for (number, line) in source.code() {
            for (name, owners) in OWNED_CRATES {
                let names = line.match_indices(name).any(|(at, _)| {
                    let before = line[..at].chars().next_back();
                    let after = &line[at + name.len()..];
                    before.is_none_or(|c| !(c.is_alphanumeric() || c == '_' || c == ':'))
                        && (after.starts_with("::") || line.trim() == format!("use {name};"))
                });
                if names && !owners.contains(&room.as_str()) {
                    findings.push(source.say(number, &format!("{name} belongs to {}", owners.join(" and "))));
                }
            }
        }
    });
}

#[test]
fn files_and_functions_are_short() {
    hold(|source, findings| {
        let lines = source.text.lines().count();
        if lines > FILE_LINES_MAX {
            findings.push(source.say(
                lines,
                &format!("a file of {lines} lines, at most {FILE_LINES_MAX}"),
            ));
        }
        let mut open: Option<(usize, String)> = None;
        for (number, line) in source.code() {
            let indent = line.len() - line.trim_start().len();
            let end = format!("{}}}", " ".repeat(indent));
            if let Some((start, closing)) = &open {
                if line.trim_end() == closing {
                    let length = number - start + 1;
                    if length > FUNCTION_LINES_MAX {
                        let what = format!("a function of {length} lines, at most {FUNCTION_LINES_MAX}");
                        findings.push(source.say(*start, &what));
                    }
                    open = None;
                }
            } else if is_function(line) && !line.trim_end().ends_with([';', '}']) {
                open = Some((number, end));
            }
        }
    });
}

fn is_function(line: &str) -> bool {
    let mut words = line.split_whitespace();
    loop {
        match words.next() {
            Some("pub" | "async" | "const" | "pub(crate)" | "pub(super)" | "pub(in") => {}
            Some("fn") => return true,
            _ => return false,
        }
    }
}

#[test]
fn no_shortcuts_outside_tests() {
    const BANNED: [&str; 9] = [
        ".unwrap()",
        "todo!",
        "unimplemented!",
        "dbg!",
        "unbounded_channel",
        "unbounded()",
        "mpsc::channel()",
        "unsafe {",
        "#![allow",
    ];
    hold(|source, findings| {
        for (number, line) in source.code() {
            for word in BANNED.iter().filter(|word| line.contains(**word)) {
                findings.push(source.say(number, &format!("{word} has no place here")));
            }
        }
    });
}

#[test]
fn no_code_in_comments() {
    hold(|source, findings| {
        for (line, number) in source.text.lines().zip(1..) {
            let Some(comment) = line.trim_start().strip_prefix("// ") else {
                continue;
            };
            let comment = comment.trim();
            let is_code = comment.ends_with(';')
                || comment.ends_with(") {")
                || comment.starts_with("let ") && comment.contains('=')
                || comment.starts_with("use ") && comment.contains("::")
                || comment.starts_with("#[");
            if is_code {
                findings.push(source.say(number, "code in a comment"));
            }
        }
    });
}

#[test]
fn modules_say_what_they_are_for() {
    hold(|source, findings| {
        if !source.text.starts_with("//!") && !source.is_test() {
            findings.push(source.say(1, "no module documentation"));
        }
    });
}

/// The rules themselves, held against lines that break them.
#[test]
fn the_rules_see() {
    assert_eq!(rooms_named("use crate::router::{A, B};"), ["router"]);
    assert_eq!(
        rooms_named("use crate::{Server, config::Config, connection};"),
        ["Server", "config", "connection"]
    );
    assert_eq!(rooms_named("x(crate::a::b(), crate::c)"), ["a", "c"]);
    assert!(rooms_named("$crate::router").is_empty());
    assert!(is_function("    pub(super) async fn x("));
    assert!(!is_function("    let fn_x = 1;"));
    assert_eq!(without_comment("let x; // unwrap()"), "let x;");
}
