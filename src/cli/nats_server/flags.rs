//! nats-server's flags, as its own parser takes them: one dash or two, `-x value` or `-x=value`, the last of two wins.
//!
//! By hand because clap knows no long flags with one dash, and `-js` is not `-j -s`.

/// What a flag takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Nothing, or `=true` and `=false`.
    Switch,
    Text,
    Number,
}

use Kind::{Number, Switch, Text};

/// Spellings, the one to ask by first.
const FLAGS: [(&[&str], Kind); 41] = [
    (&["help", "h"], Switch),
    (&["version", "v"], Switch),
    (&["addr", "a", "net"], Text),
    (&["port", "p"], Number),
    (&["name", "n", "server_name"], Text),
    (&["client_advertise"], Text),
    (&["pid", "P"], Text),
    (&["ports_file_dir"], Text),
    (&["http_port", "m"], Number),
    (&["https_port", "ms"], Number),
    (&["config", "c"], Text),
    (&["t"], Switch),
    (&["signal", "sl"], Text),
    (&["log", "l"], Text),
    (&["logtime", "T"], Switch),
    (&["logtime_utc"], Switch),
    (&["syslog", "s"], Switch),
    (&["remote_syslog", "r"], Text),
    (&["log_size_limit"], Number),
    (&["max_traced_msg_len"], Number),
    (&["debug", "D"], Switch),
    (&["trace", "V", "VV"], Switch),
    (&["DV", "DVV"], Switch),
    (&["jetstream", "js"], Switch),
    (&["store_dir", "sd"], Text),
    (&["user"], Text),
    (&["pass"], Text),
    (&["auth"], Text),
    (&["tls"], Switch),
    (&["tlsverify"], Switch),
    (&["tlscert"], Text),
    (&["tlskey"], Text),
    (&["tlscacert"], Text),
    (&["help_tls"], Switch),
    (&["profile"], Number),
    (&["routes"], Text),
    (&["cluster", "cluster_listen"], Text),
    (&["cluster_name"], Text),
    (&["cluster_advertise"], Text),
    (&["no_advertise"], Switch),
    (&["connect_retries"], Number),
];

/// The flags of one call.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Flags {
    given: Vec<(&'static str, String)>,
    /// What is no flag.
    pub rest: Vec<String>,
}

impl Flags {
    /// Reads arguments without the program's name.
    pub fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let mut flags = Self::default();
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let Some(flag) = argument.strip_prefix('-').filter(|flag| !flag.is_empty()) else {
                flags.rest.push(argument);
                flags.rest.extend(arguments);
                break;
            };
            let flag = flag.strip_prefix('-').unwrap_or(flag);
            if flag.is_empty() {
                flags.rest.extend(arguments);
                break;
            }
            let (name, value) = match flag.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (flag, None),
            };
            let known = FLAGS.iter().find(|(names, _)| names.contains(&name));
            let Some((names, kind)) = known else {
                return Err(format!("flag provided but not defined: -{name}"));
            };
            let value = match (kind, value) {
                (Switch, None) => "true".to_owned(),
                (_, Some(value)) => value,
                (_, None) => arguments
                    .next()
                    .ok_or_else(|| format!("flag needs an argument: -{name}"))?,
            };
            let value = checked(*kind, name, value)?;
            flags.given.push((names[0], value));
        }
        Ok(flags)
    }

    /// The value of a flag, by its first spelling.
    pub fn text(&self, name: &str) -> Option<&str> {
        let given = self.given.iter().rev().find(|(given, _)| *given == name);
        given
            .map(|(_, value)| value.as_str())
            .filter(|value| !value.is_empty())
    }

    /// The value of a switch that is given.
    pub fn switch(&self, name: &str) -> Option<bool> {
        self.text(name).map(|value| value == "true")
    }

    /// Whether a switch is on.
    pub fn is_on(&self, name: &str) -> bool {
        self.switch(name) == Some(true)
    }

    /// The value of a flag with a number; zero is as good as none.
    pub fn number(&self, name: &str) -> Option<i64> {
        self.text(name)
            .and_then(|value| value.parse().ok())
            .filter(|number| *number != 0)
    }
}

fn checked(kind: Kind, name: &str, value: String) -> Result<String, String> {
    match kind {
        Text => Ok(value),
        Number => match value.parse::<i64>() {
            Ok(_) => Ok(value),
            Err(_) => Err(format!("invalid value \"{value}\" for flag -{name}: parse error")),
        },
        Switch => match value.as_str() {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok("true".to_owned()),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok("false".to_owned()),
            _ => Err(format!(
                "invalid boolean value \"{value}\" for -{name}: parse error"
            )),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Flags, String> {
        Flags::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn spellings() {
        for line in ["-p -1", "--port -1", "-p=-1", "--port=-1", "-p 1 -port=-1"] {
            assert_eq!(parse(line).unwrap().number("port"), Some(-1), "{line}");
        }
        for line in ["-js", "--js", "-jetstream", "--jetstream=true", "-js=false -js"] {
            assert!(parse(line).unwrap().is_on("jetstream"), "{line}");
        }
        assert_eq!(parse("-js=false").unwrap().switch("jetstream"), Some(false));
        let flags = parse("-a 127.0.0.1 -DV -sd=/tmp/x -c f.conf -sl ldm=12 -user u --pass p").unwrap();
        assert!(flags.is_on("DV"));
        let texts = ["addr", "store_dir", "config", "signal", "user", "pass", "auth"];
        assert_eq!(
            texts.map(|name| flags.text(name)),
            [
                Some("127.0.0.1"),
                Some("/tmp/x"),
                Some("f.conf"),
                Some("ldm=12"),
                Some("u"),
                Some("p"),
                None
            ]
        );
        assert_eq!(parse("-D foo -p 1").unwrap().rest, ["foo", "-p", "1"]);
        assert_eq!(parse("-- -p").unwrap().rest, ["-p"]);
    }

    #[test]
    fn mistakes_read_as_in_nats_server() {
        for (line, says) in [
            ("--foo", "flag provided but not defined: -foo"),
            ("-p", "flag needs an argument: -p"),
            ("-p abc", "invalid value \"abc\" for flag -p: parse error"),
            (
                "-js=maybe",
                "invalid boolean value \"maybe\" for -js: parse error",
            ),
        ] {
            assert_eq!(parse(line).unwrap_err(), says, "{line}");
        }
    }
}
