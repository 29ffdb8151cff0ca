//! What a server process does beside serving: its log, the files that tell of it, how it leaves.

use std::path::PathBuf;
use std::time::Duration;

/// Shape of the log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// `[pid] date time [INF] text`
    #[default]
    Text,
    /// One JSON object a line
    Json,
}

/// See the module documentation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Where the log goes; stderr when absent.
    pub log_file: Option<PathBuf>,
    /// Bytes of the log file before a new one is begun; zero is no limit.
    pub log_size_limit: u64,
    /// Log files kept, the one in use counted; zero is all.
    pub log_files_max: usize,
    /// Shape of the log lines.
    pub log_format: LogFormat,
    /// Whether lines show the time.
    pub log_time: bool,
    /// In UTC instead of local time.
    pub log_utc: bool,
    /// Log connections coming and going.
    pub debug: bool,
    /// Where the process id is written.
    pub pid_file: Option<PathBuf>,
    /// The directory in which a file tells the ports.
    pub ports_file_dir: Option<PathBuf>,
    /// Leave out the mesh's own stream and buckets, which are made at the first start otherwise.
    pub no_mesh: bool,
    /// How long clients are given to move on in lame duck mode.
    pub lame_duck_duration: Duration,
}

impl Default for Process {
    fn default() -> Self {
        Self {
            log_file: None,
            log_size_limit: 0,
            log_files_max: 0,
            log_format: LogFormat::Text,
            log_time: true,
            log_utc: false,
            debug: false,
            pid_file: None,
            ports_file_dir: None,
            no_mesh: false,
            lame_duck_duration: Duration::from_secs(120),
        }
    }
}
