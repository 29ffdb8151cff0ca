//! Who wants to know when somebody comes to or leaves a subject: push consumers, whose deliver subject may be listened
//! to long after they were made.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::protocol::subject;

/// Told that the subscriptions that match its subject have changed; it takes note and returns.
pub trait Watcher: Send + Sync {
    /// Somebody came or went.
    fn interest_changed(&self);
}

type BySubject = HashMap<Box<[u8]>, Vec<Arc<dyn Watcher>>>;

/// See the module documentation.
#[derive(Default)]
pub(super) struct Watches {
    /// Without a watcher a change costs one look at this.
    count: AtomicUsize,
    by_subject: Mutex<BySubject>,
}

impl Watches {
    fn lock(&self) -> MutexGuard<'_, BySubject> {
        self.by_subject.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn add(&self, subject: &[u8], watcher: Arc<dyn Watcher>) {
        self.count.fetch_add(1, Ordering::SeqCst);
        self.lock().entry(subject.into()).or_default().push(watcher);
    }

    pub fn remove(&self, subject: &[u8], watcher: &Arc<dyn Watcher>) {
        let mut by_subject = self.lock();
        let Some(watchers) = by_subject.get_mut(subject) else {
            return;
        };
        let before = watchers.len();
        watchers.retain(|known| !Arc::ptr_eq(known, watcher));
        self.count.fetch_sub(before - watchers.len(), Ordering::SeqCst);
        if watchers.is_empty() {
            by_subject.remove(subject);
        }
    }

    /// The subscriptions on `pattern` have changed. Called without a lock.
    #[inline]
    pub fn changed(&self, pattern: &[u8]) {
        if self.count.load(Ordering::SeqCst) > 0 {
            self.tell(pattern);
        }
    }

    #[cold]
    fn tell(&self, pattern: &[u8]) {
        let mut concerned = Vec::new();
        {
            let by_subject = self.lock();
            if subject::has_wildcard(pattern) {
                for (watched, watchers) in by_subject.iter() {
                    if subject::matches(pattern, watched) {
                        concerned.extend_from_slice(watchers);
                    }
                }
            } else if let Some(watchers) = by_subject.get(pattern) {
                concerned.extend_from_slice(watchers);
            }
        }
        for watcher in concerned {
            watcher.interest_changed();
        }
    }
}
