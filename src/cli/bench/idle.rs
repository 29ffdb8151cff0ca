//! What connections that do nothing cost a server in memory.

use std::io;
use std::thread;
use std::time::Duration;

use super::process::{raise_file_limit, resident_bytes};
use super::wire::{Conn, Target};

/// Long enough for a server to give back what it took for the handshake.
const SETTLE: Duration = Duration::from_secs(5);
/// Files this process needs besides its connections.
const OTHER_FILES: u64 = 64;

/// Resident memory of a server process.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// With all connections open, bytes.
    pub resident: u64,
    /// Bytes more than before, by connection.
    pub per_connection: f64,
}

/// Opens `count` logged-in connections, lets the server of process `pid` settle and reads its memory.
pub fn run(target: &Target, pid: u32, count: u64) -> io::Result<Memory> {
    let files = raise_file_limit();
    if files < count + OTHER_FILES {
        return Err(io::Error::other(format!(
            "{count} connections need more open files than the {files} allowed (ulimit -n)"
        )));
    }
    let resident = || resident_bytes(pid).ok_or_else(|| io::Error::other("the server process has gone"));
    let before = resident()?;
    // Sockets alone: what a reader would buffer is of no use here.
    let sockets = (0..count)
        .map(|_| Conn::open(target, 0).map(Conn::into_socket))
        .collect::<io::Result<Vec<_>>>()?;
    thread::sleep(SETTLE);
    let resident = resident()?;
    drop(sockets);
    Ok(Memory {
        resident,
        per_connection: resident.saturating_sub(before) as f64 / count as f64,
    })
}
