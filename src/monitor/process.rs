//! What the operating system says of this process. Read from `/proc`; elsewhere than on Linux nothing is known, and
//! nothing is shown.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Between two measurements of the share of CPU time.
const CPU_SPAN_MIN: Duration = Duration::from_secs(1);

/// Resident memory in bytes.
pub(super) fn resident_bytes() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * page_size())
}

#[cfg(unix)]
fn page_size() -> u64 {
    rustix::param::page_size() as u64
}

#[cfg(not(unix))]
fn page_size() -> u64 {
    4096
}

/// CPU time used so far, user and system.
pub(super) fn cpu_time() -> Option<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    ticks(&stat).map(|ticks| Duration::from_secs_f64(ticks as f64 / ticks_per_second()))
}

/// User and system time of a line of `/proc/<pid>/stat`, whose second field may hold blanks and parentheses.
fn ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

#[cfg(unix)]
fn ticks_per_second() -> f64 {
    rustix::param::clock_ticks_per_second() as f64
}

#[cfg(not(unix))]
fn ticks_per_second() -> f64 {
    100.0
}

/// Open file descriptors.
pub(super) fn open_files() -> Option<u64> {
    // The listing holds one of its own.
    let count = std::fs::read_dir("/proc/self/fd").ok()?.count() as u64;
    Some(count.saturating_sub(1))
}

/// How many file descriptors there may be.
pub(super) fn open_files_max() -> Option<u64> {
    #[cfg(unix)]
    return rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    #[cfg(not(unix))]
    None
}

/// Processors this process may use.
pub(super) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The share of CPU time since it was last asked for, in percent of one processor.
#[derive(Debug)]
pub(super) struct CpuMeter(Mutex<(Instant, Duration, f64)>);

impl Default for CpuMeter {
    fn default() -> Self {
        Self(Mutex::new((Instant::now(), cpu_time().unwrap_or_default(), 0.0)))
    }
}

impl CpuMeter {
    /// Percent, with one decimal; the last figure again when it is younger than a second.
    pub fn percent(&self) -> f64 {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, used, percent) = *last;
        let elapsed = at.elapsed();
        if elapsed < CPU_SPAN_MIN {
            return percent;
        }
        let now = cpu_time().unwrap_or_default();
        let share = now.saturating_sub(used).as_secs_f64() / elapsed.as_secs_f64();
        *last = (Instant::now(), now, (share * 1000.0).round() / 10.0);
        last.2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_stat_line() {
        let line = "42 (a (b) c) S 1 42 42 0 -1 4194304 100 0 0 0 17 25 0 0 20 0 4 0 100 1 1";
        assert_eq!(ticks(line), Some(42));
        assert_eq!(ticks("42 (x) S 1"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn knows_itself() {
        assert!(resident_bytes().unwrap() > 1 << 20);
        assert!(open_files().unwrap() >= 3 && open_files_max().is_none_or(|max| max >= 3));
        assert!(cpu_time().is_some() && cores() > 0);
    }
}
