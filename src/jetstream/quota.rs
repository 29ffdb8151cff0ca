//! Bytes that streams may hold together: those of an account, and those of the whole server above them.
//!
//! Each stream tells its [`Share`] how much it holds, whenever it asks for more and with every commit; sums are kept in
//! counters, so that asking costs a few loads.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use super::api::error::{self, ApiError};
use super::stream::config::Storage;

/// Bytes of one kind of storage: used, and allowed if not negative.
struct Pool {
    used: AtomicU64,
    max: AtomicI64,
}

impl Pool {
    fn new(max: i64) -> Self {
        Self {
            used: AtomicU64::new(0),
            max: AtomicI64::new(max),
        }
    }

    fn has_room(&self, more: u64) -> bool {
        let max = self.max.load(Ordering::Relaxed);
        max < 0 || self.used.load(Ordering::Relaxed).saturating_add(more) <= max as u64
    }
}

/// See the module documentation.
pub struct Quota {
    memory: Pool,
    storage: Pool,
    above: Option<Arc<Quota>>,
}

impl Quota {
    /// A limit on the bytes of memory and file streams, negative for none.
    pub fn new(memory: i64, storage: i64, above: Option<Arc<Quota>>) -> Arc<Self> {
        Arc::new(Self {
            memory: Pool::new(memory),
            storage: Pool::new(storage),
            above,
        })
    }

    /// Replaces the limits. What is over a new one stays; nothing comes to it.
    pub fn set(&self, memory: i64, storage: i64) {
        self.memory.max.store(memory, Ordering::Relaxed);
        self.storage.max.store(storage, Ordering::Relaxed);
    }

    /// The limit on one kind of storage, negative for none.
    pub fn max(&self, kind: Storage) -> i64 {
        self.pool(kind).max.load(Ordering::Relaxed)
    }

    /// The quota of the whole server.
    pub fn above(&self) -> Option<&Arc<Quota>> {
        self.above.as_ref()
    }

    fn pool(&self, kind: Storage) -> &Pool {
        match kind {
            Storage::Memory => &self.memory,
            Storage::File => &self.storage,
        }
    }

    fn add(&self, kind: Storage, bytes: u64) {
        self.pool(kind).used.fetch_add(bytes, Ordering::Relaxed);
        if let Some(above) = &self.above {
            above.add(kind, bytes);
        }
    }

    fn take(&self, kind: Storage, bytes: u64) {
        self.pool(kind).used.fetch_sub(bytes, Ordering::Relaxed);
        if let Some(above) = &self.above {
            above.take(kind, bytes);
        }
    }
}

/// What one stream holds of a quota; nothing, and without limit, by default.
#[derive(Default)]
pub(super) struct Share {
    of: Option<(Arc<Quota>, Storage)>,
    told: u64,
}

impl Share {
    pub fn new(quota: Arc<Quota>, kind: Storage) -> Self {
        Self {
            of: Some((quota, kind)),
            told: 0,
        }
    }

    /// Says how much the stream holds now.
    pub fn tell(&mut self, bytes: u64) {
        let Some((quota, kind)) = &self.of else { return };
        if bytes >= self.told {
            quota.add(*kind, bytes - self.told);
        } else {
            quota.take(*kind, self.told - bytes);
        }
        self.told = bytes;
    }

    /// Whether the stream, which holds `bytes`, may hold some more.
    pub fn ask(&mut self, bytes: u64, more: u64) -> Result<(), ApiError> {
        let unlimited = |quota: &Arc<Quota>, kind| {
            let above = quota.above.as_ref();
            quota.max(kind) < 0 && above.is_none_or(|above| above.max(kind) < 0)
        };
        let (quota, kind) = match &self.of {
            Some((quota, kind)) if !unlimited(quota, *kind) => (quota.clone(), *kind),
            _ => return Ok(()),
        };
        self.tell(bytes);
        let above = quota.above.as_ref();
        if !quota.pool(kind).has_room(more) {
            return Err(error::ACCOUNT_RESOURCES_EXCEEDED);
        }
        if above.is_some_and(|above| !above.pool(kind).has_room(more)) {
            return Err(match kind {
                Storage::Memory => error::MEMORY_RESOURCES_EXCEEDED,
                Storage::File => error::STORAGE_RESOURCES_EXCEEDED,
            });
        }
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.tell(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_to_what_is_allowed() {
        let server = Quota::new(-1, 100, None);
        let account = Quota::new(10, 80, Some(server.clone()));
        let other = Quota::new(-1, -1, Some(server.clone()));
        let mut first = Share::new(account.clone(), Storage::File);
        let mut second = Share::new(account.clone(), Storage::File);
        let mut third = Share::new(other, Storage::File);
        first.tell(50);
        assert_eq!(second.ask(0, 30), Ok(()));
        assert_eq!(second.ask(0, 31), Err(error::ACCOUNT_RESOURCES_EXCEEDED));
        assert_eq!(third.ask(0, 51), Err(error::STORAGE_RESOURCES_EXCEEDED));
        drop(first);
        assert_eq!(
            (second.ask(40, 40), third.ask(60, 1)),
            (Ok(()), Err(error::STORAGE_RESOURCES_EXCEEDED))
        );
        account.set(10, -1);
        server.set(-1, -1);
        assert_eq!(second.ask(40, 1 << 40), Ok(()));
        assert_eq!(
            Share::new(account, Storage::Memory).ask(0, 11),
            Err(error::ACCOUNT_RESOURCES_EXCEEDED)
        );
        assert_eq!(Share::default().ask(0, u64::MAX), Ok(()));
    }
}
