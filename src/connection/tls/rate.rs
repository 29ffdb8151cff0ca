//! How many handshakes begin in a second: each costs a tenth of a millisecond of a processor or more.

use std::time::{Duration, Instant};

const WINDOW: Duration = Duration::from_secs(1);

/// See the module documentation.
#[derive(Debug)]
pub(super) struct Rate {
    max: usize,
    /// When the window ends.
    end: Option<Instant>,
    count: usize,
}

impl Rate {
    /// At most `max` in a second; zero is no limit.
    pub fn new(max: usize) -> Self {
        Self {
            max,
            end: None,
            count: 0,
        }
    }

    /// Whether one more may begin.
    pub fn allow(&mut self, now: Instant) -> bool {
        if self.max == 0 {
            return true;
        }
        if self.end.is_none_or(|end| now > end) {
            self.end = Some(now + WINDOW);
            self.count = 0;
        }
        self.count = self.count.saturating_add(1);
        self.count <= self.max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_in_a_second() {
        let now = Instant::now();
        let mut rate = Rate::new(2);
        assert_eq!([(); 4].map(|()| rate.allow(now)), [true, true, false, false]);
        assert!(!rate.allow(now + WINDOW));
        assert!(rate.allow(now + WINDOW + Duration::from_millis(1)));
        let mut free = Rate::new(0);
        assert!((0..100).all(|_| free.allow(now)));
    }
}
