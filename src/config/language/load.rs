//! Files and their includes, and values for variables.
//!
//! Bounded in every direction: bytes of a file, files, values. An include that comes back to a file which is being read,
//! and a variable of the environment that names itself, are errors that show the way round.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::grammar::{self, Fault, Raw, RawEntry, RawNode};
use super::value::{Entry, Map, Node, Problem, Spot, Value};

/// Bytes of one file.
const FILE_BYTES_MAX: u64 = 8 << 20;
/// Files read in all: includes of includes could be many.
const FILES_MAX: usize = 1000;
/// Values in all: variables of variables could be many.
const VALUES_MAX: usize = 1 << 20;

/// Maps and lists inside each other, those that variables bring counted.
const DEPTH_MAX: usize = 200;
/// Variables of the environment that name each other.
const VARIABLES_MAX: usize = 50;

/// Looks up a variable of the environment.
pub type Environment<'e> = &'e dyn Fn(&str) -> Option<String>;

/// What was read.
#[derive(Debug)]
pub struct Loaded {
    /// What it says.
    pub map: Map,
    /// What is odd but harmless.
    pub warnings: Vec<Problem>,
    /// SHA-256 of all that was read, in hexadecimal.
    pub digest: String,
}

/// Reads a file and what it includes.
pub fn load_file(path: &Path, environment: Environment<'_>) -> Result<Loaded, Problem> {
    let mut loader = Loader::new(environment);
    let shown = path.display().to_string();
    let map = loader.file(path, &shown, None)?;
    Ok(loader.done(map))
}

/// Reads text that is called `name` in messages; includes are looked for beside the current directory.
pub fn load_text(name: &str, text: &str, environment: Environment<'_>) -> Result<Loaded, Problem> {
    let mut loader = Loader::new(environment);
    let map = loader.text(name, text)?;
    Ok(loader.done(map))
}

/// A text with its lines, to tell places.
struct Source<'a> {
    name: Arc<str>,
    text: &'a str,
    lines: Vec<usize>,
    /// The last place that was told, and its column.
    last: Cell<(usize, usize)>,
}

impl<'a> Source<'a> {
    fn new(name: &str, text: &'a str) -> Self {
        let starts = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        Self {
            name: name.into(),
            text,
            lines: std::iter::once(0).chain(starts.map(|(at, _)| at + 1)).collect(),
            last: Cell::new((0, 1)),
        }
    }

    fn spot(&self, at: usize) -> Spot {
        let line = self.lines.partition_point(|start| *start <= at);
        let start = self.lines[line - 1];
        // Places are asked for in order, mostly: a long line is counted once, not for each.
        let (from, before) = match self.last.get() {
            (last, column) if last >= start && last <= at => (last, column),
            _ => (start, 1),
        };
        let column = before + self.text[from..at].chars().count();
        self.last.set((at, column));
        Spot {
            file: self.name.clone(),
            line,
            column,
        }
    }

    fn problem(&self, fault: &Fault) -> Problem {
        Problem::at(&self.spot(fault.at), fault.what.as_str())
    }
}

struct Loader<'e> {
    environment: Environment<'e>,
    /// Files that are being read, outermost first.
    open: Vec<PathBuf>,
    files: usize,
    values: usize,
    depth: usize,
    /// Variables of the environment that are being read.
    variables: Vec<String>,
    warnings: Vec<Problem>,
    digest: Sha256,
}

impl<'e> Loader<'e> {
    fn new(environment: Environment<'e>) -> Self {
        Self {
            environment,
            open: Vec::new(),
            files: 0,
            values: 0,
            depth: 0,
            variables: Vec::new(),
            warnings: Vec::new(),
            digest: Sha256::new(),
        }
    }

    fn done(self, map: Map) -> Loaded {
        let digest = self.digest.finalize();
        Loaded {
            map,
            warnings: self.warnings,
            digest: digest.iter().map(|byte| format!("{byte:02x}")).collect(),
        }
    }

    /// Reads one file; `from` is where it is included.
    fn file(&mut self, path: &Path, shown: &str, from: Option<&Spot>) -> Result<Map, Problem> {
        let problem = |text: String| Problem {
            spot: from.cloned(),
            text,
        };
        let unreadable = |error: std::io::Error| problem(format!("cannot read {shown}: {error}"));
        let real = path.canonicalize().map_err(unreadable)?;
        if let Some(first) = self.open.iter().position(|open| *open == real) {
            let names = self.open[first..].iter().map(|open| open.display().to_string());
            let way: Vec<_> = names.chain([real.display().to_string()]).collect();
            return Err(problem(format!(
                "this include goes round in a circle: {}",
                way.join(" -> ")
            )));
        }
        self.files += 1;
        if self.files > FILES_MAX {
            return Err(problem(format!("more than {FILES_MAX} files are included")));
        }
        let size = std::fs::metadata(&real).map_err(unreadable)?.len();
        if size > FILE_BYTES_MAX {
            return Err(problem(format!(
                "{shown} has {size} bytes, at most {FILE_BYTES_MAX} are read"
            )));
        }
        let bytes = std::fs::read(&real).map_err(unreadable)?;
        let text = String::from_utf8(bytes).map_err(|_| problem(format!("{shown} is not UTF-8 text")))?;
        self.open.push(real);
        let map = self.text(shown, &text);
        self.open.pop();
        map
    }

    fn text(&mut self, name: &str, text: &str) -> Result<Map, Problem> {
        self.digest.update(text.as_bytes());
        let source = Source::new(name, text);
        let document = grammar::document(text).map_err(|fault| source.problem(&fault))?;
        for at in document.stray {
            let spot = source.spot(at);
            self.warnings.push(Problem::at(&spot, "this `}` closes nothing"));
        }
        let mut scopes = vec![Map::default()];
        self.entries(document.entries, &source, &mut scopes)?;
        Ok(scopes.pop().unwrap_or_default())
    }

    /// Adds entries to the innermost map of `scopes`.
    fn entries(
        &mut self,
        entries: Vec<RawEntry>,
        source: &Source<'_>,
        scopes: &mut Vec<Map>,
    ) -> Result<(), Problem> {
        for entry in entries {
            match entry {
                RawEntry::Pair { key, at, node } => {
                    let entry = Entry {
                        key,
                        spot: source.spot(at),
                        node: self.node(node, source, scopes)?,
                        is_variable: false,
                    };
                    self.set(entry, scopes);
                }
                RawEntry::Include { path, at } => {
                    let spot = source.spot(at);
                    let beside = Path::new(&*source.name).parent().unwrap_or(Path::new(""));
                    let whole = beside.join(&path);
                    // An included file stands for itself: it sees no variables of the one that includes it.
                    let included = self.file(&whole, &whole.display().to_string(), Some(&spot))?;
                    for entry in included.into_entries() {
                        self.set(entry, scopes);
                    }
                }
            }
        }
        Ok(())
    }

    fn set(&mut self, entry: Entry, scopes: &mut [Map]) {
        let (spot, key) = (entry.spot.clone(), entry.key.clone());
        let scope = scopes.last_mut().expect("a document has a map");
        if let Some(earlier) = scope.set(entry) {
            let text = format!(
                "\"{key}\" was set at {} already: the later one counts",
                earlier.spot
            );
            self.warnings.push(Problem::at(&spot, text));
        }
    }

    fn node(&mut self, node: RawNode, source: &Source<'_>, scopes: &mut Vec<Map>) -> Result<Node, Problem> {
        let spot = source.spot(node.at);
        self.count(1, &spot)?;
        let value = match node.value {
            Raw::Text(text) => Value::Text(text),
            Raw::Integer(number) => Value::Integer(number),
            Raw::Float(number) => Value::Float(number),
            Raw::Flag(flag) => Value::Flag(flag),
            Raw::Time(time) => Value::Time(time),
            Raw::Variable(name) => self.variable(&name, &spot, scopes)?,
            Raw::Array(nodes) => {
                self.depth += 1;
                let resolved = nodes.into_iter().map(|node| self.node(node, source, scopes));
                let nodes = resolved.collect::<Result<_, _>>();
                self.depth -= 1;
                Value::Array(nodes?)
            }
            Raw::Map(entries) => {
                scopes.push(Map::default());
                self.depth += 1;
                let outcome = self.entries(entries, source, scopes);
                self.depth -= 1;
                let map = scopes.pop().unwrap_or_default();
                outcome?;
                Value::Map(map)
            }
        };
        Ok(Node { spot, value })
    }

    fn count(&mut self, values: usize, spot: &Spot) -> Result<(), Problem> {
        self.values += values;
        if self.values > VALUES_MAX {
            return Err(Problem::at(
                spot,
                format!("more than {VALUES_MAX} values, variables counted each time"),
            ));
        }
        Ok(())
    }

    /// The value of a variable: a key before it, in the enclosing maps from the innermost outward, else of the environment.
    fn variable(&mut self, name: &str, spot: &Spot, scopes: &mut [Map]) -> Result<Value, Problem> {
        if let Some(node) = scopes.iter_mut().rev().find_map(|scope| scope.variable(name)) {
            let (weight, depth) = node.measure();
            self.count(weight, spot)?;
            if self.depth + depth > DEPTH_MAX {
                let text =
                    format!("more than {DEPTH_MAX} maps and lists inside each other, by way of variables");
                return Err(Problem::at(spot, text));
            }
            return Ok(node.value.clone());
        }
        let Some(text) = (self.environment)(name) else {
            let text = format!("variable ${name} is set neither above nor in the environment");
            return Err(Problem::at(spot, text));
        };
        if self.variables.iter().any(|open| open == name) || self.variables.len() > VARIABLES_MAX {
            let way = format!("{} -> {name}", self.variables.join(" -> "));
            let text = format!("variables of the environment go round in a circle: {way}");
            return Err(Problem::at(spot, text));
        }
        // Neither the text nor a place in it is told: it may be a secret.
        let fault = |fault: Fault| Problem::at(spot, format!("${name} of the environment: {}", fault.what));
        let raw = grammar::lone_value(&text).map_err(fault)?;
        let source = Source::new(&spot.file, &text);
        self.variables.push(name.to_owned());
        let node = self.node(raw, &source, &mut vec![Map::default()]);
        self.variables.pop();
        node.map(|node| node.value)
            .map_err(|problem| Problem::at(spot, problem.text))
    }
}
