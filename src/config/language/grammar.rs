//! The grammar: text to entries, without files, environment or meaning.
//!
//! ```text
//! document = [ "{" ] { entry } [ "}" ]            entries end at a newline, "," or ";"
//! entry    = include | key [ "=" | ":" ] value
//! include  = "include" blank path
//! key      = '"' ... '"' | "'" ... "'" | bare
//! value    = array | map | quoted | raw | block | word
//! array    = "[" { value } "]"                    values end at a newline or ","
//! map      = "{" { entry } "}"
//! quoted   = '"' { any | escape } '"'             raw = "'" { any } "'"
//! block    = "(" lines, up to one that holds ")" alone
//! word     = bool | "$" variable | number | date | bare string
//! comment  = ( "#" | "//" ) to the end of the line
//! ```

use nom::branch::alt;
use nom::bytes::complete::{tag, take_till, take_while_m_n, take_while1};
use nom::character::complete::{char, digit1, one_of};
use nom::combinator::{all_consuming, map, map_opt, map_res, opt, recognize, value as constant};
use nom::error::{ErrorKind, ParseError};
use nom::multi::{count, fold_many0, many0_count};
use nom::sequence::{delimited, preceded};
use nom::{IResult, Parser};

/// Maps and arrays inside each other.
const DEPTH_MAX: usize = 100;

/// A value before variables are replaced.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Raw {
    Text(String),
    Integer(i64),
    Float(f64),
    Flag(bool),
    Time(String),
    Variable(String),
    Array(Vec<RawNode>),
    Map(Vec<RawEntry>),
}

/// A value and the byte it begins at.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct RawNode {
    pub at: usize,
    pub value: Raw,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum RawEntry {
    Pair { key: String, at: usize, node: RawNode },
    Include { path: String, at: usize },
}

/// A document, and the bytes of closing braces that close nothing: nats-server passes over them.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Document {
    pub entries: Vec<RawEntry>,
    pub stray: Vec<usize>,
}

/// What is wrong, and at which byte.
#[derive(Debug, PartialEq)]
pub(super) struct Fault {
    pub at: usize,
    pub what: String,
}

/// Reads a whole file.
pub(super) fn document(text: &str) -> Result<Document, Fault> {
    let text_of = Text { whole: text };
    text_of.document().map_err(|trouble| text_of.fault(trouble))
}

/// Reads one value and nothing else: the text of an environment variable.
pub(super) fn lone_value(text: &str) -> Result<RawNode, Fault> {
    let text_of = Text { whole: text };
    let read = |input| {
        let (rest, _) = gap(input)?;
        let (rest, node) = text_of.value(rest, 0)?;
        let (rest, _) = gap(rest)?;
        if rest.is_empty() {
            Ok(node)
        } else {
            fail(rest, "one value was expected, and more stands behind it")
        }
    };
    read(text).map_err(|trouble| text_of.fault(trouble))
}

/// Whether a bare word that begins with `$` is a bcrypt hash, not a variable.
fn is_bcrypt(word: &str) -> bool {
    ["$2a$", "$2b$", "$2x$", "$2y$"]
        .iter()
        .any(|prefix| word.starts_with(prefix))
}

/// An error inside the parsers: the bytes that were left when it was found.
#[derive(Debug)]
struct Trouble {
    left: usize,
    what: String,
}

impl ParseError<&str> for Trouble {
    fn from_error_kind(input: &str, _: ErrorKind) -> Self {
        Self {
            left: input.len(),
            what: String::new(),
        }
    }

    fn append(_: &str, _: ErrorKind, other: Self) -> Self {
        other
    }
}

impl<E> nom::error::FromExternalError<&str, E> for Trouble {
    fn from_external_error(input: &str, kind: ErrorKind, _: E) -> Self {
        Self::from_error_kind(input, kind)
    }
}

type Parsed<'a, T> = IResult<&'a str, T, Trouble>;

/// Gives up here: no other rule could do better.
fn fail<T>(input: &str, what: impl Into<String>) -> Result<T, nom::Err<Trouble>> {
    Err(nom::Err::Failure(Trouble {
        left: input.len(),
        what: what.into(),
    }))
}

/// The next character for a message.
fn next(input: &str) -> String {
    match input.chars().next() {
        None => "the end of the file".to_owned(),
        Some('\n' | '\r') => "the end of the line".to_owned(),
        Some(c) => format!("`{c}`"),
    }
}

fn comment(input: &str) -> Parsed<'_, ()> {
    let start = alt((tag("#"), tag("//")));
    constant((), (start, take_till(|c| c == '\n'))).parse(input)
}

/// White space and comments; whether there was a newline among them.
fn gap(input: &str) -> Parsed<'_, bool> {
    let space = constant((), take_while1(char::is_whitespace));
    let (rest, _) = recognize(many0_count(alt((space, comment)))).parse(input)?;
    Ok((rest, input[..input.len() - rest.len()].contains('\n')))
}

/// The end of a value: a newline, a comma or, in maps, a semicolon; whether there was one.
fn separator(semicolon: bool) -> impl Fn(&str) -> Parsed<'_, bool> {
    move |input| {
        let (rest, newline) = gap(input)?;
        let signs = if semicolon { ",;" } else { "," };
        let (rest, sign) = opt(one_of(signs)).parse(rest)?;
        let (rest, _) = gap(rest)?;
        Ok((rest, newline || sign.is_some()))
    }
}

/// A key, and whether it was quoted.
fn key(input: &str) -> Parsed<'_, (&str, bool)> {
    if let Some(quote @ ('"' | '\'')) = input.chars().next() {
        let (rest, key) = preceded(char(quote), take_till(|c| c == quote)).parse(input)?;
        let Some(rest) = rest.strip_prefix(quote) else {
            return fail(input, "this quoted key has no end");
        };
        return Ok((rest, (key, true)));
    }
    let is_bare = |c: char| !c.is_whitespace() && !"=:{}[],;\"'".contains(c);
    match take_while1::<_, _, Trouble>(is_bare).parse(input) {
        Ok((rest, key)) => Ok((rest, (key, false))),
        Err(_) => fail(input, format!("expected a key, got {}", next(input))),
    }
}

/// `\t \n \r \" \\ \xHH`, and what JSON has besides.
fn escape(input: &str) -> Parsed<'_, Vec<u8>> {
    let byte = |c, byte| constant(vec![byte], char(c));
    let hex = |digits| take_while_m_n(digits, digits, |c: char| c.is_ascii_hexdigit());
    let letter = alt((
        byte('t', b'\t'),
        byte('n', b'\n'),
        byte('r', b'\r'),
        byte('"', b'"'),
        byte('\\', b'\\'),
        byte('/', b'/'),
        byte('b', 8),
        byte('f', 12),
    ));
    let code = preceded(
        char('x'),
        map_res(hex(2), |digits| u8::from_str_radix(digits, 16)),
    );
    let unit = || {
        preceded(
            char('u'),
            map_res(hex(4), |digits| u16::from_str_radix(digits, 16)),
        )
    };
    // Characters beyond the first 65,536 are two units in JSON.
    let pair = map_opt((unit(), char('\\'), unit()), |(high, _, low)| {
        (0xd800..0xdc00).contains(&high).then(|| decoded(&[high, low]))?
    });
    let unicode = alt((pair, map_opt(unit(), |unit| decoded(&[unit]))));
    let escaped = preceded(char('\\'), alt((letter, map(code, |byte| vec![byte]), unicode))).parse(input);
    match escaped {
        Ok(done) => Ok(done),
        Err(_) if input.starts_with('\\') => fail(
            input,
            "no such escape: there are \\t \\n \\r \\\" \\\\ \\/ \\b \\f, \\xHH and \\uHHHH",
        ),
        Err(error) => Err(error),
    }
}

/// UTF-16 to UTF-8.
fn decoded(units: &[u16]) -> Option<Vec<u8>> {
    String::from_utf16(units).ok().map(String::into_bytes)
}

/// Text up to one of `ends`, escapes replaced.
fn escaped_text<'a>(input: &'a str, is_end: impl Fn(char) -> bool) -> Parsed<'a, String> {
    let plain = map(take_while1(|c: char| c != '\\' && !is_end(c)), |text: &str| {
        text.as_bytes().to_vec()
    });
    let (rest, bytes) = fold_many0(alt((plain, escape)), Vec::new, |mut all, piece| {
        all.extend(piece);
        all
    })
    .parse(input)?;
    match String::from_utf8(bytes) {
        Ok(text) => Ok((rest, text)),
        Err(_) => fail(input, "the escapes of this string do not make UTF-8"),
    }
}

fn quoted(input: &str) -> Parsed<'_, String> {
    let (rest, text) = preceded(char('"'), |rest| escaped_text(rest, |c| c == '"')).parse(input)?;
    match rest.strip_prefix('"') {
        Some(rest) => Ok((rest, text)),
        None => fail(input, "this string has no end: a `\"` is missing"),
    }
}

fn raw(input: &str) -> Parsed<'_, String> {
    let text: Parsed<'_, &str> = delimited(char('\''), take_till(|c| c == '\''), char('\'')).parse(input);
    match text {
        Ok((rest, text)) => Ok((rest, text.to_owned())),
        Err(_) => fail(input, "this string has no end: a `'` is missing"),
    }
}

/// `( ... )`, the closing parenthesis alone on its line.
fn block(input: &str) -> Parsed<'_, String> {
    let (body, _) = char('(').parse(input)?;
    let mut end = 0;
    for line in body.split_inclusive('\n') {
        if end > 0 && line.trim() == ")" {
            let close = end + line.find(')').unwrap_or_default();
            return Ok((&body[close + 1..], body[..end].to_owned()));
        }
        end += line.len();
    }
    fail(input, "this block has no end: a line with `)` alone is missing")
}

/// A bare word: what it looks like decides what it is.
fn word(input: &str) -> Parsed<'_, Raw> {
    let is_end = |c: char| c.is_whitespace() || ",;]}".contains(c);
    let (rest, text) = take_till(is_end).parse(input)?;
    if text.is_empty() {
        return fail(input, format!("expected a value, got {}", next(input)));
    }
    if text.contains('\\') {
        let (_, text) = escaped_text(text, |_| false).map_err(|error| {
            error.map(|trouble| Trouble {
                left: trouble.left + rest.len(),
                ..trouble
            })
        })?;
        return Ok((rest, Raw::Text(text)));
    }
    Ok((rest, classified(input, text)?))
}

fn classified(input: &str, text: &str) -> Result<Raw, nom::Err<Trouble>> {
    if let Some(flag) = flag(text) {
        return Ok(Raw::Flag(flag));
    }
    if let Some(name) = text.strip_prefix('$')
        && !name.is_empty()
        && !is_bcrypt(text)
    {
        return Ok(Raw::Variable(name.to_owned()));
    }
    if let Ok((_, (number, unit))) = all_consuming(integer).parse(text) {
        let product = number
            .parse::<i64>()
            .ok()
            .and_then(|number| number.checked_mul(unit));
        return match product {
            Some(number) => Ok(Raw::Integer(number)),
            None => fail(input, format!("{text} is out of range")),
        };
    }
    if all_consuming(float).parse(text).is_ok()
        && let Ok(number) = text.parse()
    {
        return Ok(Raw::Float(number));
    }
    if all_consuming(time).parse(text).is_ok() {
        return Ok(Raw::Time(text.to_owned()));
    }
    Ok(Raw::Text(text.to_owned()))
}

fn flag(text: &str) -> Option<bool> {
    let is = |words: [&str; 3]| words.iter().any(|word| text.eq_ignore_ascii_case(word));
    if is(["true", "yes", "on"]) {
        Some(true)
    } else {
        is(["false", "no", "off"]).then_some(false)
    }
}

/// Digits and what their suffix stands for: `k` is 1000, `kb`, `ki` and `kib` are 1024.
fn integer(input: &str) -> Parsed<'_, (&str, i64)> {
    let (rest, digits) = recognize((opt(char('-')), digit1)).parse(input)?;
    let (rest, letter) = opt(one_of("kKmMgGtTpPeE")).parse(rest)?;
    let Some(letter) = letter else {
        return Ok((rest, (digits, 1)));
    };
    let (rest, binary) = opt(alt((
        recognize((one_of("iI"), opt(one_of("bB")))),
        recognize(one_of("bB")),
    )))
    .parse(rest)?;
    let power = "kmgtpe".find(letter.to_ascii_lowercase()).unwrap_or_default() as u32 + 1;
    let base: i64 = if binary.is_some() { 1024 } else { 1000 };
    Ok((rest, (digits, base.pow(power))))
}

fn float(input: &str) -> Parsed<'_, &str> {
    recognize((opt(char('-')), digit1, char('.'), digit1)).parse(input)
}

/// `2006-01-02T15:04:05Z`
fn time(input: &str) -> Parsed<'_, &str> {
    let digits = |number| recognize(count(one_of("0123456789"), number));
    let date = (digits(4), char('-'), digits(2), char('-'), digits(2));
    let clock = (digits(2), char(':'), digits(2), char(':'), digits(2));
    recognize((date, char('T'), clock, char('Z'))).parse(input)
}

/// The path of an include: quoted, or bare up to a blank.
fn include_path(input: &str) -> Parsed<'_, &str> {
    let quoted = |quote| {
        delimited(
            char(quote),
            take_till(move |c| c == quote || c == '\n'),
            char(quote),
        )
    };
    let bare = take_while1(|c: char| !c.is_whitespace() && !";}'\"[{(".contains(c));
    let path: Parsed<'_, &str> = alt((quoted('\''), quoted('"'), bare)).parse(input);
    match path {
        Ok((rest, path)) if !path.is_empty() => Ok((rest, path)),
        Ok(_) | Err(_) => fail(
            input,
            format!("expected the path of a file to include, got {}", next(input)),
        ),
    }
}

/// The text that is read: places are counted from its front.
struct Text<'a> {
    whole: &'a str,
}

impl<'a> Text<'a> {
    fn at(&self, rest: &str) -> usize {
        self.whole.len() - rest.len()
    }

    fn fault(&self, error: nom::Err<Trouble>) -> Fault {
        let (left, what) = match error {
            nom::Err::Error(trouble) | nom::Err::Failure(trouble) => (trouble.left, trouble.what),
            nom::Err::Incomplete(_) => (0, String::new()),
        };
        let at = self.whole.len() - left;
        let what = if what.is_empty() {
            format!("did not expect {}", next(&self.whole[at..]))
        } else {
            what
        };
        Fault { at, what }
    }

    fn document(&self) -> Result<Document, nom::Err<Trouble>> {
        let mut document = Document::default();
        let start = self.whole.strip_prefix('\u{feff}').unwrap_or(self.whole);
        let (rest, _) = gap(start)?;
        let braces = rest.starts_with('{');
        let open = rest;
        let (mut rest, _) = if braces { gap(&rest[1..])? } else { (rest, false) };
        loop {
            if rest.is_empty() {
                return if braces {
                    fail(open, "this `{` has no `}`")
                } else {
                    Ok(document)
                };
            }
            if let Some(behind) = rest.strip_prefix('}') {
                if braces {
                    return match gap(behind)? {
                        ("", _) => Ok(document),
                        (more, _) => fail(more, format!("{} stands behind the closing `}}`", next(more))),
                    };
                }
                document.stray.push(self.at(rest));
                (rest, _) = separator(true)(behind)?;
                continue;
            }
            let (behind, entry) = self.entry(rest, braces, usize::from(braces))?;
            document.entries.push(entry);
            let (after, ended) = separator(true)(behind)?;
            if !ended && !after.is_empty() && !after.starts_with('}') {
                let what = format!(
                    "expected the end of the line, `,` or `;` behind the value, got {}",
                    next(after)
                );
                return fail(after, what);
            }
            rest = after;
        }
    }

    /// One key with its value, or an include. In a map the value may stand on the next line.
    fn entry(&self, input: &'a str, nested: bool, depth: usize) -> Parsed<'a, RawEntry> {
        let at = self.at(input);
        let (rest, (key, is_quoted)) = key(input)?;
        if !is_quoted && key.eq_ignore_ascii_case("include") && rest.starts_with([' ', '\t']) {
            let path = rest.trim_start_matches([' ', '\t']);
            if !path.starts_with(['=', ':']) {
                let (rest, path) = include_path(path)?;
                let path = path.to_owned();
                return Ok((rest, RawEntry::Include { path, at }));
            }
        }
        let rest = rest.trim_start();
        let (rest, sign) = opt(one_of("=:")).parse(rest)?;
        let rest = rest.trim_start_matches(|c: char| c == ' ' || c == '\t' || nested && c.is_whitespace());
        if rest.is_empty() || sign.is_some() && rest.starts_with(['\n', '\r']) {
            return fail(
                rest,
                format!("expected a value for \"{key}\", got {}", next(rest)),
            );
        }
        let (rest, node) = self.value(rest, depth)?;
        let key = key.to_owned();
        Ok((rest, RawEntry::Pair { key, at, node }))
    }

    fn value(&self, input: &'a str, depth: usize) -> Parsed<'a, RawNode> {
        if depth > DEPTH_MAX {
            return fail(
                input,
                format!("more than {DEPTH_MAX} maps and lists inside each other"),
            );
        }
        let (rest, value) = match input.chars().next() {
            Some('[') => map(|input| self.array(input, depth + 1), Raw::Array).parse(input)?,
            Some('{') => map(|input| self.map(input, depth + 1), Raw::Map).parse(input)?,
            Some('"') => map(quoted, Raw::Text).parse(input)?,
            Some('\'') => map(raw, Raw::Text).parse(input)?,
            Some('(') => map(block, Raw::Text).parse(input)?,
            _ => word(input)?,
        };
        let at = self.at(input);
        Ok((rest, RawNode { at, value }))
    }

    fn array(&self, input: &'a str, depth: usize) -> Parsed<'a, Vec<RawNode>> {
        let (rest, _) = char('[').parse(input)?;
        let (mut rest, _) = gap(rest)?;
        let mut nodes = Vec::new();
        loop {
            if let Some(rest) = rest.strip_prefix(']') {
                return Ok((rest, nodes));
            }
            if rest.is_empty() {
                return fail(input, "this `[` has no `]`");
            }
            let (behind, node) = self.value(rest, depth)?;
            nodes.push(node);
            let (after, ended) = separator(false)(behind)?;
            if !ended && !after.is_empty() && !after.starts_with(']') {
                return fail(after, format!("expected `,` or `]`, got {}", next(after)));
            }
            rest = after;
        }
    }

    fn map(&self, input: &'a str, depth: usize) -> Parsed<'a, Vec<RawEntry>> {
        let (rest, _) = char('{').parse(input)?;
        let (mut rest, _) = gap(rest)?;
        let mut entries = Vec::new();
        loop {
            if let Some(rest) = rest.strip_prefix('}') {
                return Ok((rest, entries));
            }
            if rest.is_empty() {
                return fail(input, "this `{` has no `}`");
            }
            let (behind, entry) = self.entry(rest, true, depth)?;
            entries.push(entry);
            let (after, ended) = separator(true)(behind)?;
            if !ended && !after.is_empty() && !after.starts_with('}') {
                return fail(
                    after,
                    format!("expected `,`, a new line or `}}`, got {}", next(after)),
                );
            }
            rest = after;
        }
    }
}
