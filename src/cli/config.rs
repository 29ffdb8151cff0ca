//! `mesh config`: look at a configuration file without serving, and a file to begin with.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;

use crate::config;

use super::serve::{self, run::Settings};
use super::{Context, Failure, output};

/// Check a configuration file, or get one to begin with
#[derive(Args, Debug)]
pub struct ConfigCommand {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    Check(Check),
    Init(Init),
}

/// Read a file and print the settings it leads to, and whether a reload could change each
///
/// Exit code 0: usable (warnings go to stderr). 1: it is not, and stderr says where and why.
#[derive(Args, Debug)]
struct Check {
    /// The file
    file: PathBuf,
}

/// Print an annotated file with every setting and its default
#[derive(Args, Debug)]
struct Init {
    /// Write it here instead; a file that is there is left alone
    file: Option<PathBuf>,
}

impl ConfigCommand {
    /// Runs the subcommand.
    pub fn run(self, context: &Context) -> Result<(), Failure> {
        match self.command {
            Command::Check(check) => check.run(context.json),
            Command::Init(init) => init.run(),
        }
    }
}

impl Check {
    fn run(self, json: bool) -> Result<(), Failure> {
        let usable = self.usable();
        if json {
            let said = match &usable {
                Ok(settings) => {
                    let lines = config::effective_lines(&settings.config, &settings.process);
                    let lines = lines
                        .iter()
                        .map(|(line, reloads)| json!({"setting": line, "reloads": reloads}));
                    json!({
                        "usable": true,
                        "warnings": settings.warnings.iter().map(ToString::to_string).collect::<Vec<_>>(),
                        "settings": lines.collect::<Vec<_>>(),
                    })
                }
                Err(failure) => {
                    let problem: Vec<_> = failure.lines().collect();
                    json!({"usable": false, "problem": problem.join("\n")})
                }
            };
            output::print_json(&said)?;
            return usable.map(drop);
        }
        let settings = usable?;
        for warning in &settings.warnings {
            writeln!(anstream::stderr(), "warning: {warning}").ok();
        }
        let mut out = anstream::stdout().lock();
        write!(out, "{}", config::effective(&settings.config, &settings.process))?;
        Ok(())
    }

    /// What the file says, if a server could start with it.
    fn usable(&self) -> Result<Settings, Failure> {
        let settings = serve::with_file(&self.file)?;
        match settings.config.connections.problem() {
            Some(problem) => Err(Failure::failed(format!("{}: {problem}", self.file.display()))),
            None => Ok(settings),
        }
    }
}

impl Init {
    fn run(self) -> Result<(), Failure> {
        let Some(path) = self.file else {
            write!(anstream::stdout().lock(), "{}", config::sample())?;
            return Ok(());
        };
        let opened = OpenOptions::new().write(true).create_new(true).open(&path);
        let mut file = opened.map_err(|error| match error.kind() {
            std::io::ErrorKind::AlreadyExists => {
                Failure::conflict(format!("{} is there already", path.display()))
            }
            _ => Failure::failed(format!("cannot write {}: {error}", path.display())),
        })?;
        file.write_all(config::sample().as_bytes())?;
        Ok(())
    }
}
