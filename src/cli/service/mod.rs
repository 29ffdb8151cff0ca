//! `mesh service`: the server started by the system for one user, as a systemd user unit or a launchd agent.
//!
//! Deliberately absent: services of the whole machine. They need root and an account of their own; `deploy/` has the
//! units for them.

mod agent;
mod manager;
mod unit;

use std::path::{Path, PathBuf};

use clap::{Args, CommandFactory, FromArgMatches, Subcommand, ValueEnum};
use serde_json::json;

use super::monitoring::MonitoringArgs;
use super::{Cli, Context, Failure, output};
use manager::State;

/// What only our files contain: without it a file is somebody else's.
const MARK: &str = "Written by `mesh service install`";
/// What the flag `--user` is read as; see [`UserArgs`].
const GIVEN: &str = "true";

/// Has the system start the server for you, at login and after a crash
#[derive(Args, Debug)]
pub struct Service {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// Write the unit and start the server; again, to change its settings or after an update
    ///
    /// Settings stand after --, as `mesh serve` takes them, or as MESH_... variables in mesh/mesh.env in the
    /// configuration directory (systemd).
    #[command(after_help = "Example:\n  mesh service install --user -- --port 4222")]
    Install(Install),
    /// Stop the server and remove the unit; what is stored stays
    Uninstall(Uninstall),
    /// Show whether it is installed, running and well
    ///
    /// Exits with 3 if it does not run or is not well, with 4 if it is not installed.
    Status(Status),
}

/// Whose service, and run by what.
#[derive(Args, Debug)]
struct UserArgs {
    /// For this user: there is no other kind
    // Named as the global --user NAME, and so of its type, to take its place: clap knows no other way.
    #[arg(long, id = "user", action = clap::ArgAction::SetTrue, value_parser = clap::builder::NonEmptyStringValueParser::new())]
    user: Option<String>,
    /// What runs services here
    #[arg(long, value_enum, default_value_t = Manager::of_this_system())]
    manager: Manager,
}

#[derive(Args, Debug)]
struct Install {
    #[command(flatten)]
    whose: UserArgs,
    /// Only show what would be written, and where
    #[arg(long)]
    print: bool,
    /// Only write the file: neither start anything nor ask whether anything could
    #[arg(long)]
    no_start: bool,
    /// Replace a file that we did not write
    #[arg(long)]
    force: bool,
    /// Settings of the server, as `mesh serve` takes them
    #[arg(last = true, value_name = "SETTINGS")]
    settings: Vec<String>,
}

#[derive(Args, Debug)]
struct Uninstall {
    #[command(flatten)]
    whose: UserArgs,
    /// Only remove the file: stop nothing
    #[arg(long)]
    no_stop: bool,
    /// Remove a file that we did not write
    #[arg(long)]
    force: bool,
}

#[derive(Args, Debug)]
struct Status {
    #[command(flatten)]
    whose: UserArgs,
    #[command(flatten)]
    monitoring: MonitoringArgs,
}

/// What runs services.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Manager {
    /// systemd, on Linux
    Systemd,
    /// launchd, on macOS
    Launchd,
}

impl Manager {
    fn of_this_system() -> Self {
        match cfg!(target_os = "macos") {
            true => Self::Launchd,
            false => Self::Systemd,
        }
    }

    /// The file that describes our service to it.
    fn file(self) -> Result<PathBuf, Failure> {
        let directory = |name: &str| {
            std::env::var_os(name)
                .map(PathBuf::from)
                .filter(|path| path.is_absolute())
        };
        let home = || {
            directory("HOME").ok_or_else(|| {
                Failure::failed("HOME names no directory, so there is no place for a service of this user")
            })
        };
        Ok(match self {
            Self::Systemd => match directory("XDG_CONFIG_HOME") {
                Some(config) => config,
                None => home()?.join(".config"),
            }
            .join("systemd/user")
            .join(unit::NAME),
            Self::Launchd => home()?
                .join("Library/LaunchAgents")
                .join(format!("{}.plist", agent::LABEL)),
        })
    }

    /// What the file says for this program with these settings.
    fn text(self, program: &Path, settings: &[String]) -> Result<String, Failure> {
        let program = program.to_str().ok_or_else(|| {
            Failure::failed(format!(
                "the path of this program is no text: {}",
                program.display()
            ))
        })?;
        let mut command = vec![program.to_owned(), "serve".to_owned()];
        command.extend_from_slice(settings);
        Ok(match self {
            Self::Systemd => unit::text(&command),
            Self::Launchd => {
                let home = std::env::var("HOME").unwrap_or_default();
                agent::text(&command, &format!("{home}/Library/Logs/mesh.log"))
            }
        })
    }
}

impl UserArgs {
    fn check(&self) -> Result<(), Failure> {
        match self.user.as_deref() {
            Some(GIVEN) => Ok(()),
            _ => Err(
                Failure::usage("say --user: only a service of this user can be installed here")
                    .hint("a service of the whole machine is installed as root from deploy/mesh.service"),
            ),
        }
    }
}

impl Service {
    /// Does what was asked.
    pub async fn run(self, context: &Context) -> Result<(), Failure> {
        match self.action {
            Action::Install(install) => install.run().await,
            Action::Uninstall(uninstall) => uninstall.run().await,
            Action::Status(status) => status.run(context).await,
        }
    }
}

impl Install {
    async fn run(self) -> Result<(), Failure> {
        self.whose.check()?;
        check(&self.settings)?;
        let (manager, file) = (self.whose.manager, self.whose.manager.file()?);
        let program = std::env::current_exe()
            .map_err(|error| Failure::failed(format!("cannot tell where this program is: {error}")))?;
        let text = manager.text(&program, &self.settings)?;
        if self.print {
            output::talk(file.display());
            return output::print(text.trim_end());
        }
        let found = read(&file)?;
        if let Some(found) = &found {
            refuse_foreign(&file, found, self.force)?;
        }
        if !self.no_start {
            manager.reachable().await?;
        }
        let changed = found.as_ref() != Some(&text);
        if changed {
            write(&file, &text)?;
        }
        let done = match (changed, found.is_some()) {
            (false, _) => "is as it should be",
            (true, true) => "changed",
            (true, false) => "written",
        };
        output::talk(format!("{} {done}", file.display()));
        if self.no_start {
            return Ok(());
        }
        manager.start(&file, changed).await?;
        output::talk(manager.advice());
        Ok(())
    }
}

impl Uninstall {
    async fn run(self) -> Result<(), Failure> {
        self.whose.check()?;
        let (manager, file) = (self.whose.manager, self.whose.manager.file()?);
        let Some(found) = read(&file)? else {
            output::talk(format!("not installed: there is no {}", file.display()));
            return Ok(());
        };
        refuse_foreign(&file, &found, self.force)?;
        if !self.no_stop {
            manager.reachable().await?;
            manager.stop().await?;
        }
        std::fs::remove_file(&file)
            .map_err(|error| Failure::failed(format!("cannot remove {}: {error}", file.display())))?;
        if !self.no_stop {
            manager.forget().await?;
        }
        output::talk(format!("{} removed; what is stored stays", file.display()));
        Ok(())
    }
}

impl Status {
    async fn run(self, context: &Context) -> Result<(), Failure> {
        self.whose.check()?;
        // Our --user is in the place of the global one, and health is asked without credentials anyway.
        let (user, pass) = (None, None);
        let context = &Context {
            user,
            pass,
            ..context.clone()
        };
        let (manager, file) = (self.whose.manager, self.whose.manager.file()?);
        let installed = read(&file)?.is_some();
        let state = match installed {
            true => manager.state().await?,
            false => State::absent(),
        };
        let health = match state.running {
            true => Some(self.monitoring.open(context)?.get("/healthz").await),
            false => None,
        };
        let health = health.map(|asked| match asked {
            Ok(answer) if answer.status == 200 => Ok(()),
            Ok(answer) => Err(answer.body.trim().to_owned()),
            Err(failure) => Err(failure.to_string()),
        });
        if context.json {
            output::print_json(&json!({
                "file": file.display().to_string(),
                "installed": installed,
                "running": state.running,
                "state": state.word,
                "healthy": health.as_ref().map(Result::is_ok),
            }))?;
        } else {
            let mut page = output::Columns::new();
            page.row("File", file.display());
            page.row("Installed", if installed { "yes" } else { "no" });
            page.row("State", &state.word);
            page.some(
                "Health",
                health.as_ref().map(|health| match health {
                    Ok(()) => "ok".to_owned(),
                    Err(why) => why.clone(),
                }),
            );
            page.print("Service mesh of this user")?;
        }
        match (installed, health) {
            (false, _) => {
                Err(Failure::not_found("the service is not installed").hint("mesh service install --user"))
            }
            (true, None) => Err(
                Failure::unhealthy(format!("the service does not run: {}", state.word))
                    .hint(manager.advice()),
            ),
            (true, Some(Err(why))) => Err(Failure::unhealthy(format!(
                "the service runs but is not well: {why}"
            ))),
            (true, Some(Ok(()))) => Ok(()),
        }
    }
}

/// Refuses settings that `mesh serve` would refuse, so that no service is installed that cannot start.
fn check(settings: &[String]) -> Result<(), Failure> {
    let words = ["mesh", "serve"]
        .into_iter()
        .chain(settings.iter().map(String::as_str));
    let matches = Cli::command().try_get_matches_from(words);
    let refused = |error: clap::Error| {
        let text = error.to_string();
        let first = text
            .lines()
            .next()
            .unwrap_or_default()
            .trim_start_matches("error: ")
            .to_owned();
        Failure::usage(format!("`mesh serve` would refuse these settings: {first}"))
            .hint("`mesh serve --help` lists them")
    };
    let cli = matches
        .and_then(|matches| Cli::from_arg_matches(&matches))
        .map_err(refused)?;
    match cli.command {
        super::Command::Serve(_) => Ok(()),
        _ => Err(Failure::usage("settings of `mesh serve` stand after --")),
    }
}

fn refuse_foreign(file: &Path, text: &str, force: bool) -> Result<(), Failure> {
    match force || text.contains(MARK) {
        true => Ok(()),
        false => Err(Failure::conflict(format!(
            "{} is there already, and not written by `mesh service install`",
            file.display()
        ))
        .hint("look at it; --force goes on all the same")),
    }
}

fn read(file: &Path) -> Result<Option<String>, Failure> {
    match std::fs::read(file) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Failure::failed(format!(
            "cannot read {}: {error}",
            file.display()
        ))),
    }
}

/// Writes the whole file or none of it, readable by its owner only: settings may hold a secret.
fn write(file: &Path, text: &str) -> Result<(), Failure> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let directory = file.parent().expect("the file is in a directory");
    let beside = file.with_extension(format!("{}.new", std::process::id()));
    let written = std::fs::create_dir_all(directory)
        .and_then(|()| {
            let mut options = std::fs::OpenOptions::new();
            options
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&beside)
        })
        .and_then(|mut out| out.write_all(text.as_bytes()))
        .and_then(|()| std::fs::rename(&beside, file));
    written.map_err(|error| {
        std::fs::remove_file(&beside).ok();
        Failure::failed(format!("cannot write {}: {error}", file.display()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_those_of_the_server() {
        let words = |text: &str| text.split_whitespace().map(ToOwned::to_owned).collect::<Vec<_>>();
        check(&words("-p 4222 --sync 2s")).unwrap();
        check(&[]).unwrap();
        for bad in ["--prot 4222", "-p x", "--help", "more words"] {
            assert_eq!(check(&words(bad)).unwrap_err().code(), Failure::USAGE, "{bad}");
        }
    }
}
