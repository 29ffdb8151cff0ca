//! `mesh config`: look at a configuration file without serving, and a file to begin with.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;

use crate::config;

use super::mesh::conflicts;
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
/// A file with your own events, or with rules for conflicts, is checked as such, and the rules that hold are printed.
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
        if !json {
            return self.print();
        }
        match self.said() {
            Ok(said) => output::print_json(&said),
            Err(failure) => {
                let problem: Vec<_> = failure.lines().collect();
                output::print_json(&json!({"usable": false, "problem": problem.join("\n")}))?;
                Err(failure)
            }
        }
    }

    fn print(&self) -> Result<(), Failure> {
        if conflicts::is_of_the_mesh(&self.file) {
            return output::print(conflicts::shown(&conflicts::rules_of(&self.file, 1)?));
        }
        let settings = self.usable()?;
        for warning in &settings.warnings {
            writeln!(anstream::stderr(), "warning: {warning}").ok();
        }
        let mut out = anstream::stdout().lock();
        write!(out, "{}", config::effective(&settings.config, &settings.process))?;
        Ok(())
    }

    fn said(&self) -> Result<serde_json::Value, Failure> {
        if conflicts::is_of_the_mesh(&self.file) {
            let rules = conflicts::rules_of(&self.file, 1)?;
            return Ok(json!({"usable": true, "warnings": [], "rules": rules.lines()}));
        }
        let settings = self.usable()?;
        let lines = config::effective_lines(&settings.config, &settings.process);
        let lines = lines
            .iter()
            .map(|(line, reloads)| json!({"setting": line, "reloads": reloads}));
        Ok(json!({
            "usable": true,
            "warnings": settings.warnings.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "settings": lines.collect::<Vec<_>>(),
        }))
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
