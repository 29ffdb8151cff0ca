//! What an account's streams may be configured to take.

use crate::account::StreamLimits;

use super::JetStream;
use super::api::error::{self, ApiError};
use super::stream::config::{Storage, StreamConfig};

/// Bytes that streams may be limited to together where nothing else is set: there is no disk of that size, and sums
/// over accounts do not overflow.
const RESERVE_MAX: i64 = 1 << 56;

impl StreamLimits {
    /// Holds a stream's configuration to what the account may ask for.
    pub(super) fn cap(&self, config: &mut StreamConfig) -> Result<(), ApiError> {
        if self.bytes_required && config.max_bytes <= 0 {
            return Err(error::MAX_BYTES_REQUIRED);
        }
        if config.max_consumers > 0 && self.consumers > 0 && config.max_consumers > self.consumers {
            return Err(error::MAXIMUM_CONSUMERS);
        }
        let max = match config.storage {
            Storage::Memory => self.memory_stream,
            Storage::File => self.storage_stream,
        };
        if max <= 0 {
            return Ok(());
        }
        if config.max_bytes > max {
            return Err(error::MAX_STREAM_BYTES_EXCEEDED);
        }
        if config.max_bytes <= 0 {
            config.max_bytes = max;
        }
        Ok(())
    }
}

impl JetStream {
    /// Whether what streams may grow to, where limited, leaves room for this one.
    pub(super) fn check_reserve(&self, config: &StreamConfig) -> Result<(), ApiError> {
        let others = self.streams();
        let others = others.iter().map(|stream| stream.config());
        let others = others.filter(|other| other.storage == config.storage && other.name != config.name);
        let reserved = others.map(|other| other.max_bytes.max(0));
        let reserved = reserved.fold(0, i64::saturating_add);
        let wanted = reserved.saturating_add(config.max_bytes.max(1));
        let quota = &self.options.quota;
        let over = |wanted: i64, max: i64| wanted > if max < 0 { RESERVE_MAX } else { max };
        let above = quota.above().map_or(-1, |above| above.max(config.storage));
        let elsewhere = match self.options.peers.upgrade().filter(|_| above >= 0) {
            Some(peers) => {
                let (memory, storage) = peers.reserved_but(&self.options.account);
                let reserved = match config.storage {
                    Storage::Memory => memory,
                    Storage::File => storage,
                };
                i64::try_from(reserved).unwrap_or(i64::MAX)
            }
            None => 0,
        };
        if !over(wanted, quota.max(config.storage)) && !over(wanted.saturating_add(elsewhere), above) {
            return Ok(());
        }
        Err(match config.storage {
            Storage::Memory => error::MEMORY_RESOURCES_EXCEEDED,
            Storage::File => error::STORAGE_RESOURCES_EXCEEDED,
        })
    }
}
