//! Comparisons with bcrypt hashes: off the runtime's threads, a few at a time.
//!
//! One comparison is a tenth of a second of a processor. So that wrong credentials, however many, leave processors to
//! those who are in, fewer comparisons run at a time than there are processors; others wait, within the time a client has
//! to show its credentials. What was found right is remembered, as a keyed hash, so that honest clients which come back
//! do not wait behind those who guess.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

use crate::account::{Verdict, Verification};

/// Remembered successes, before they are forgotten all together.
const KNOWN_MAX: usize = 10_000;

type Mark = [u8; 32];

/// See the module documentation.
pub(crate) struct Verifier {
    permits: Arc<Semaphore>,
    /// Known to this process alone: what is remembered tells nothing without it.
    key: [u8; 32],
    known: Mutex<HashSet<Mark>>,
}

impl Verifier {
    pub fn new() -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let mut key = [0; 32];
        getrandom::fill(&mut key).expect("the system has randomness");
        Self {
            permits: Arc::new(Semaphore::new(processors.saturating_sub(1).max(1))),
            key,
            known: Mutex::default(),
        }
    }

    fn known(&self) -> MutexGuard<'_, HashSet<Mark>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn mark(&self, verification: &Verification) -> Mark {
        let inner = Sha256::new()
            .chain_update(self.key)
            .chain_update(verification.key())
            .finalize();
        Sha256::new()
            .chain_update(self.key)
            .chain_update(inner)
            .finalize()
            .into()
    }

    /// Compares when it is its turn.
    pub async fn verify(&self, verification: Verification) -> Verdict {
        let mark = self.mark(&verification);
        if self.known().contains(&mark) {
            return verification.known_good();
        }
        let Ok(turn) = self.permits.clone().acquire_owned().await else {
            return Verdict::Refused("the server stops".to_owned());
        };
        // The turn ends with the comparison, even when nobody waits for it any more.
        let compared = tokio::task::spawn_blocking(move || {
            let verdict = verification.run();
            drop(turn);
            verdict
        })
        .await;
        let verdict = compared.unwrap_or_else(|_| Verdict::Refused("the comparison failed".to_owned()));
        if matches!(verdict, Verdict::Admitted(_)) {
            let mut known = self.known();
            if known.len() >= KNOWN_MAX {
                known.clear();
            }
            known.insert(mark);
        }
        verdict
    }
}
