//! The systemd user unit.

use super::MARK;

/// The unit's name.
pub(super) const NAME: &str = "mesh.service";

/// The unit that runs `command`. The unit of the whole machine, `deploy/mesh.service`, locks up more: what a user's
/// manager may not do is left out here.
pub(super) fn text(command: &[String]) -> String {
    let command: Vec<String> = command.iter().map(|word| quoted(word)).collect();
    let command = command.join(" ");
    format!(
        "# {MARK}, which replaces it when run again: mesh service install --user -- SETTINGS
# Settings may also stand in the file below as MESH_... variables, a line each (`mesh serve --help` names them).
[Unit]
Description=Sovereign Mesh message server
StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=main
ExecStart={command}
EnvironmentFile=-%E/mesh/mesh.env
# Streams are recovered before it is ready, which takes as long as there is much to recover.
TimeoutStartSec=infinity
TimeoutStopSec=30
WatchdogSec=30
Restart=on-failure
RestartSec=1
# Settings that it refuses do not get better by trying again.
RestartPreventExitStatus=2
LimitNOFILE=65536
UMask=0077
NoNewPrivileges=yes

[Install]
WantedBy=default.target
"
    )
}

/// A word of ExecStart= as it stands: neither split, nor expanded, nor cut by a line break.
fn quoted(word: &str) -> String {
    let mut text = String::with_capacity(word.len() + 2);
    for letter in word.chars() {
        match letter {
            '%' => text.push_str("%%"),
            '$' => text.push_str("$$"),
            '\\' | '"' => text.extend(['\\', letter]),
            '\n' => text.push_str("\\n"),
            '\t' => text.push_str("\\t"),
            letter if letter.is_control() => text.push_str(&format!("\\u{:04x}", u32::from(letter))),
            letter => text.push(letter),
        }
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-=:,%+@$".contains(c);
    match !text.is_empty() && text.chars().all(plain) {
        true => text,
        false => format!("\"{text}\""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_stay_words() {
        for (word, expected) in [
            ("/usr/bin/mesh", "/usr/bin/mesh"),
            ("", "\"\""),
            ("/my apps/mesh", "\"/my apps/mesh\""),
            ("100%", "100%%"),
            ("$HOME", "$$HOME"),
            ("a\"b\\c", "\"a\\\"b\\\\c\""),
            ("two\nlines", "\"two\\nlines\""),
            (";", "\";\""),
        ] {
            assert_eq!(quoted(word), expected, "{word:?}");
        }
    }
}
