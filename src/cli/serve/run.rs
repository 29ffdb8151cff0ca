//! A server process from start to end: log, files, signals, reload. `mesh serve` and the stand-in for nats-server share it.
//!
//! Signals as in nats-server: INT and TERM stop, HUP reads the configuration again, USR1 opens the log file anew, USR2 is lame
//! duck.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::Server;
use crate::config::{Config, Process};

use super::super::Failure;
use super::files::Files;
use super::log::Log;
use super::notify::Manager;
use super::sink::Target;
use super::vitals::Vitals;

/// Who is in front of the server: how settings come about, what is said at the start, how a failed start reads.
pub(crate) trait Face {
    /// The settings as they are now, warnings in a list; asked again at each reload.
    fn settings(&self) -> Result<Settings, Failure>;
    /// Whether a reload has anything to read.
    fn has_file(&self) -> bool;
    /// Says something before the server is started.
    fn before(&self, _: &Config) {}
    /// Says where it serves.
    fn banner(&self, server: &Server, began: Instant);
    /// A start that failed, in words.
    fn refusal(&self, error: crate::ServerError) -> Failure;
    /// The name of the program in the name of the ports file.
    fn program(&self) -> String;
}

/// What a server process runs with.
pub(crate) struct Settings {
    pub config: Config,
    pub process: Process,
    pub warnings: Vec<String>,
}

/// Serves until told to stop.
pub(crate) fn run(face: &dyn Face) -> Result<(), Failure> {
    let began = Instant::now();
    let settings = face.settings()?;
    let log = Log::start(&settings.process, settings.config.connections.trace)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("cannot start the async runtime: {error}")))?;
    let ended = runtime.block_on(serve(face, settings, &log, began));
    // Tasks that a second signal cut short are not waited for.
    runtime.shutdown_timeout(Duration::from_millis(100));
    ended
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
    user1: Signal,
    user2: Signal,
}

impl Signals {
    fn watch() -> Result<Self, Failure> {
        let watch = |kind| {
            signal(kind).map_err(|error| Failure::failed(format!("cannot watch for signals: {error}")))
        };
        Ok(Self {
            interrupt: watch(SignalKind::interrupt())?,
            terminate: watch(SignalKind::terminate())?,
            hangup: watch(SignalKind::hangup())?,
            user1: watch(SignalKind::user_defined1())?,
            user2: watch(SignalKind::user_defined2())?,
        })
    }

    /// Completes when the server is to end: with whether as a lame duck.
    async fn ending(&mut self) -> bool {
        tokio::select! {
            _ = self.interrupt.recv() => false,
            _ = self.terminate.recv() => false,
            _ = self.user2.recv() => true,
        }
    }
}

async fn serve(face: &dyn Face, settings: Settings, log: &Log, began: Instant) -> Result<(), Failure> {
    let mut signals = Signals::watch()?;
    let Settings {
        config,
        mut process,
        warnings,
    } = settings;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    face.before(&config);
    let mut files = Files::default();
    files.write_pid(&process)?;
    let server = Server::start(config).await.map_err(|error| face.refusal(error))?;
    if !process.no_mesh {
        super::mesh::make(&server).await;
    }
    if let Some(jetstream) = server.jetstream() {
        server.show(Arc::new(Vitals::new(jetstream.clone())));
    }
    face.banner(&server, began);
    files.write_ports(&process, &face.program(), &server);

    let manager = Manager::from_env();
    manager.ready(&server);
    let mut requests = server.reload_requests();

    let lame_duck = {
        let mut watching = std::pin::pin!(manager.watch(&server, true));
        loop {
            tokio::select! {
                () = &mut watching => {}
                _ = signals.interrupt.recv() => break false,
                _ = signals.terminate.recv() => break false,
                _ = signals.user2.recv() => break true,
                _ = signals.user1.recv() => match log.reopen() {
                    Ok(()) => tracing::info!("File log re-opened"),
                    Err(failure) => tracing::error!("{failure}"),
                },
                _ = signals.hangup.recv() => {
                    let reload = reload(face, &server, log, &mut files);
                    match unless_ended(reload, &mut watching, signals.ending()).await {
                        Ok(Ok(new)) => process = new,
                        Ok(Err(failure)) => tracing::error!("Reload refused, nothing has changed: {failure}"),
                        Err(lame_duck) => break lame_duck,
                    }
                }
                Some(request) = requests.recv() => {
                    let reload = reload(face, &server, log, &mut files);
                    match unless_ended(reload, &mut watching, signals.ending()).await {
                        Ok(Ok(new)) => {
                            process = new;
                            request.answer(Ok(()));
                        }
                        Ok(Err(failure)) => {
                            tracing::error!("Reload refused, nothing has changed: {failure}");
                            request.answer(Err(failure.to_string()));
                        }
                        Err(lame_duck) => {
                            request.answer(Err("the server ends".to_owned()));
                            break lame_duck;
                        }
                    }
                }
            }
        }
    };
    end(
        server,
        &manager,
        signals,
        lame_duck.then_some(process.lame_duck_duration),
    )
    .await;
    drop(files);
    Ok(())
}

/// Does what may take its time: a reload compares as many hashed passwords as there are new ones. Meanwhile the service
/// manager is told that all is well, and who ends the server, as a lame duck or not, does not wait: that is the error.
async fn unless_ended<T>(
    work: impl Future<Output = T>,
    watching: impl Future<Output = ()>,
    ending: impl Future<Output = bool>,
) -> Result<T, bool> {
    let watching = async {
        watching.await;
        std::future::pending().await
    };
    tokio::select! {
        done = work => Ok(done),
        lame_duck = ending => Err(lame_duck),
        never = watching => never,
    }
}

/// Reads the settings again and takes on what can change; either all of it or nothing.
async fn reload(face: &dyn Face, server: &Server, log: &Log, files: &mut Files) -> Result<Process, Failure> {
    if !face.has_file() {
        return Err(Failure::failed("there is no configuration file to read again"));
    }
    let settings = face.settings()?;
    let trace = settings.config.connections.trace;
    // Before anything changes: a log that cannot be written refuses the reload, too.
    let target = Target::open(&settings.process)?;
    let changed = server.reload(settings.config).await.map_err(Failure::failed)?;
    log.reload(&settings.process, trace, target);
    for warning in settings.warnings {
        tracing::warn!("{warning}");
    }
    if let Err(failure) = files.write_pid(&settings.process) {
        tracing::error!("{failure}");
    }
    files.write_ports(&settings.process, &face.program(), server);
    let what = if changed.is_empty() {
        "no setting of the server".to_owned()
    } else {
        changed.join(", ")
    };
    tracing::info!("Reloaded server configuration: changed {what}");
    Ok(settings.process)
}

async fn end(server: Server, manager: &Manager, mut signals: Signals, lame_duck: Option<Duration>) {
    let end = async {
        if let Some(patience) = lame_duck {
            tracing::info!("Entering lame duck mode, stop accepting new clients");
            manager.leaving();
            tokio::select! {
                () = server.lame_duck(patience) => {}
                _ = signals.terminate.recv() => {}
                () = manager.watch(&server, false) => {}
            }
        }
        manager.stopping();
        tracing::info!("Stopping: clients get what they are owed. A second interrupt stops at once");
        server.shutdown().await;
    };
    tokio::select! {
        () = end => tracing::info!("Stopped"),
        _ = signals.interrupt.recv() => tracing::warn!("Stopped at once"),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::{pending, poll_fn, ready};
    use std::task::Poll;

    use super::*;

    #[tokio::test]
    async fn a_reload_that_takes_its_time_holds_up_nobody() {
        let watched = Cell::new(0);
        let watching = || {
            poll_fn(|_| {
                watched.set(watched.get() + 1);
                Poll::<()>::Pending
            })
        };
        let mut rounds = 0;
        let work = poll_fn(|context| {
            rounds += 1;
            context.waker().wake_by_ref();
            if rounds < 100 {
                Poll::Pending
            } else {
                Poll::Ready("done")
            }
        });
        assert_eq!(unless_ended(work, watching(), pending()).await, Ok("done"));
        assert!(watched.get() > 0);
        for lame_duck in [true, false] {
            let ended = unless_ended(pending::<()>(), watching(), ready(lame_duck)).await;
            assert_eq!(ended, Err(lame_duck));
        }
    }
}
