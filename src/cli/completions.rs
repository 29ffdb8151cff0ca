//! `mesh completions` and `mesh man`: both from the one definition of the command line.

use std::path::{Path, PathBuf};

use clap::{Args, Command, CommandFactory};
use clap_complete::Shell;

use super::{Cli, Failure, output};

/// Prints a completion script for a shell
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  mesh completions bash > ~/.local/share/bash-completion/completions/mesh")]
pub struct Completions {
    /// The shell to complete in
    shell: Shell,
}

impl Completions {
    /// Prints the script.
    pub fn run(self) -> Result<(), Failure> {
        // Collected first: the generator panics on a closed pipe.
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "mesh", &mut script);
        output::write(&script)
    }
}

/// Prints the manual page of `mesh`, or of one of its commands
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  mesh man stream add | man -l -\n  mesh man --dir ~/.local/share/man/man1"
)]
pub struct Man {
    /// The command to describe, `stream add` say
    command: Vec<String>,
    /// Write the pages of all commands into this directory instead, as packages have them
    #[arg(long, value_name = "DIR", conflicts_with = "command")]
    dir: Option<PathBuf>,
}

impl Man {
    /// Prints the page in roff, or writes all of them.
    pub fn run(self) -> Result<(), Failure> {
        let mut command = Cli::command().disable_help_subcommand(true);
        command.build();
        if let Some(directory) = &self.dir {
            let cannot = |error| Failure::failed(format!("cannot write to {}: {error}", directory.display()));
            std::fs::create_dir_all(directory).map_err(cannot)?;
            return write_all(&command, directory).map_err(cannot);
        }
        for name in &self.command {
            command = command
                .find_subcommand(name)
                .cloned()
                .ok_or_else(|| Failure::usage(format!("no command {:?}", self.command.join(" "))))?;
        }
        let mut bytes = Vec::new();
        page(command).render(&mut bytes)?;
        output::write(&bytes)
    }
}

fn page(command: Command) -> clap_mangen::Man {
    clap_mangen::Man::new(command).source(concat!("mesh ", env!("CARGO_PKG_VERSION")))
}

/// A file for the command, and one for each below it.
fn write_all(command: &Command, directory: &Path) -> std::io::Result<()> {
    let own = page(command.clone());
    let mut bytes = Vec::new();
    own.render(&mut bytes)?;
    std::fs::write(directory.join(own.get_filename()), bytes)?;
    let shown = command.get_subcommands().filter(|command| !command.is_hide_set());
    shown
        .into_iter()
        .try_for_each(|command| write_all(command, directory))
}
