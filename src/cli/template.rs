//! Bodies with blanks to fill in: `{{Count}}`, `{{.Count}}`, `{{Time}}`, `{{ID}}`, `{{Random 10 100}}` and so on.
//!
//! A blank of no known name stays as written, so that a body of someone else's templates passes through.

use jiff::{Timestamp, Zoned};

/// What can be filled in besides time and chance.
#[derive(Clone, Copy, Debug, Default)]
pub struct Values<'a> {
    /// The number of this message, from 1.
    pub count: u64,
    /// The body of the request that is being answered.
    pub request: Option<&'a str>,
}

/// Fills in the blanks of a body or subject.
pub fn fill(template: &str, values: Values<'_>) -> String {
    let mut filled = String::with_capacity(template.len());
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        filled.push_str(before);
        match after.split_once("}}") {
            Some((blank, tail)) => {
                match value(blank, values) {
                    Some(value) => filled.push_str(&value),
                    None => filled.extend(["{{", blank, "}}"]),
                }
                rest = tail;
            }
            None => {
                filled.push_str("{{");
                rest = after;
            }
        }
    }
    filled + rest
}

/// Whether there is anything to fill in.
pub fn has_blanks(text: &str) -> bool {
    text.contains("{{")
}

fn value(blank: &str, values: Values<'_>) -> Option<String> {
    let mut words = blank.split_whitespace();
    let name = words.next()?;
    let arguments: Vec<u64> = words.map_while(|word| word.parse().ok()).collect();
    Some(match (name.trim_start_matches('.'), arguments.as_slice()) {
        ("Count" | "Cnt", []) => values.count.to_string(),
        ("ID", []) => nuid::next().to_string(),
        ("Time", []) => Zoned::now().strftime("%-I:%M%p").to_string(),
        ("TimeStamp", []) => Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        ("Unix", []) => Timestamp::now().as_second().to_string(),
        ("UnixNano", []) => Timestamp::now().as_nanosecond().to_string(),
        ("Request", []) => values.request?.to_owned(),
        ("Random", [length]) => random_text(*length, *length),
        ("Random", [least, most]) if least <= most => random_text(*least, *most),
        _ => return None,
    })
}

/// The longest body `{{Random}}` makes: more than a server takes by default.
const RANDOM_BYTES_MAX: u64 = 8 * 1024 * 1024;

fn random_text(least: u64, most: u64) -> String {
    const LETTERS: &[u8; 64] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_";
    let (least, most) = (least.min(RANDOM_BYTES_MAX), most.min(RANDOM_BYTES_MAX));
    let length = least + getrandom::u64().unwrap_or(0) % (most - least + 1);
    let mut bytes = vec![0; length as usize];
    // Without a source of chance the text is dull, not wrong.
    getrandom::fill(&mut bytes).ok();
    bytes
        .iter()
        .map(|byte| char::from(LETTERS[usize::from(byte % 64)]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blanks_are_filled() {
        let values = Values {
            count: 7,
            request: Some("ping"),
        };
        for (template, expected) in [
            ("plain", "plain"),
            ("n {{Count}} {{.Count}} {{ Cnt }}", "n 7 7 7"),
            ("re: {{Request}}", "re: ping"),
            ("{{Nobody}} {{Count", "{{Nobody}} {{Count"),
            ("{{}} {{ }}", "{{}} {{ }}"),
            (r#"{"a":{"b":{{Count}}}}"#, r#"{"a":{"b":7}}"#),
        ] {
            assert_eq!(fill(template, values), expected);
        }
    }

    #[test]
    fn chance_keeps_to_its_bounds() {
        for _ in 0..50 {
            let length = fill("{{Random 3 9}}", Values::default()).len();
            assert!((3..=9).contains(&length), "{length}");
        }
        assert_eq!(fill("{{Random 5}}", Values::default()).len(), 5);
        assert_eq!(fill("{{Random 9 3}}", Values::default()), "{{Random 9 3}}");
        assert_ne!(
            fill("{{ID}}", Values::default()),
            fill("{{ID}}", Values::default())
        );
    }
}
