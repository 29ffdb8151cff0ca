//! What the streams of an account add up to.

use super::JetStream;
use super::stream::config::Storage;

/// Sums over all streams, for monitoring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Streams.
    pub streams: u64,
    /// Consumers.
    pub consumers: u64,
    /// Messages of all streams.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes of memory streams.
    pub memory: u64,
    /// Bytes of file streams.
    pub storage: u64,
    /// Bytes memory streams may grow to, where limited.
    pub reserved_memory: u64,
    /// Bytes file streams may grow to, where limited.
    pub reserved_storage: u64,
    /// API requests answered.
    pub api_total: u64,
    /// Of them, with an error.
    pub api_errors: u64,
}

impl std::ops::Add for Snapshot {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            streams: self.streams + other.streams,
            consumers: self.consumers + other.consumers,
            messages: self.messages + other.messages,
            bytes: self.bytes + other.bytes,
            memory: self.memory + other.memory,
            storage: self.storage + other.storage,
            reserved_memory: self.reserved_memory + other.reserved_memory,
            reserved_storage: self.reserved_storage + other.reserved_storage,
            api_total: self.api_total + other.api_total,
            api_errors: self.api_errors + other.api_errors,
        }
    }
}

impl JetStream {
    /// Sums for monitoring and account answers.
    pub fn snapshot(&self) -> Snapshot {
        let (api_total, api_errors) = self.api_counters.get();
        let mut sums = Snapshot {
            api_total,
            api_errors,
            ..Snapshot::default()
        };
        for stream in self.streams() {
            let (config, state) = (stream.config(), stream.state());
            let reserved = u64::try_from(config.max_bytes).unwrap_or(0);
            let (used, reserved_sum) = match config.storage {
                Storage::Memory => (&mut sums.memory, &mut sums.reserved_memory),
                Storage::File => (&mut sums.storage, &mut sums.reserved_storage),
            };
            *used += state.bytes;
            *reserved_sum += reserved;
            sums.streams += 1;
            sums.consumers += state.consumers;
            sums.messages += state.messages;
            sums.bytes += state.bytes;
        }
        sums
    }
}
