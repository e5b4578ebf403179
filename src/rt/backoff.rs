//! Exponential backoff with full jitter, so that many clients of one server that restarts come back spread out.

use std::time::Duration;

use rand::{Rng, RngExt};

#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    min: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    pub(crate) fn new(min: Duration, max: Duration) -> Self {
        Self { min, max, next: min }
    }

    /// The next delay: between half and all of a bound that doubles up to `max`.
    pub(crate) fn next(&mut self, rng: &mut impl Rng) -> Duration {
        let bound = self.next;
        self.next = (bound * 2).min(self.max);
        bound.mul_f64(rng.random_range(0.5..=1.0))
    }

    /// After a success.
    pub(crate) fn reset(&mut self) {
        self.next = self.min;
    }
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng, rngs::StdRng};

    use super::*;

    #[test]
    fn grows_to_its_maximum_and_starts_over_after_a_success() {
        let (mut backoff, mut rng) =
            (Backoff::new(Duration::from_millis(100), Duration::from_secs(1)), StdRng::seed_from_u64(1));
        let delays: Vec<_> = (0..8).map(|_| backoff.next(&mut rng)).collect();
        assert!(delays[0] <= Duration::from_millis(100) && delays[0] >= Duration::from_millis(50));
        assert!(delays[7] >= Duration::from_millis(500) && delays[7] <= Duration::from_secs(1));
        backoff.reset();
        assert!(backoff.next(&mut rng) <= Duration::from_millis(100));
    }
}
