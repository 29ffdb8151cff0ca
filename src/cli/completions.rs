//! `mesh completions` and `mesh man`: both from the one definition of the command line.

use clap::{Args, CommandFactory};
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
#[command(after_help = "Example:\n  mesh man stream add | man -l -")]
pub struct Man {
    /// The command to describe, `stream add` say
    command: Vec<String>,
}

impl Man {
    /// Prints the page in roff.
    pub fn run(self) -> Result<(), Failure> {
        let mut command = Cli::command();
        command.build();
        for name in &self.command {
            command = command
                .find_subcommand(name)
                .cloned()
                .ok_or_else(|| Failure::usage(format!("no command {:?}", self.command.join(" "))))?;
        }
        let mut page = Vec::new();
        clap_mangen::Man::new(command).render(&mut page)?;
        output::write(&page)
    }
}
