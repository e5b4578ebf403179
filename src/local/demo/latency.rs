//! How long the shop's services take: a typical time, a quarter more or less.

use std::time::Duration;

use rand::{Rng, RngExt};

/// A service's own working time, calls to others not counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Latency {
    typical: Duration,
}

impl Latency {
    pub(super) fn new(typical: Duration) -> Self {
        Self { typical }
    }

    pub(super) fn sample(self, rng: &mut impl Rng) -> Duration {
        self.typical.mul_f64(rng.random_range(0.75..=1.25))
    }

    /// Works for a while.
    pub(super) async fn pass(self) {
        let delay = self.sample(&mut rand::rng());
        tokio::time::sleep(delay).await;
    }
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng, rngs::StdRng};

    use super::*;

    #[test]
    fn samples_stay_within_a_quarter_of_what_is_typical() {
        let (latency, mut rng) = (Latency::new(Duration::from_millis(40)), StdRng::seed_from_u64(1));
        let samples: Vec<_> = (0..1000).map(|_| latency.sample(&mut rng)).collect();
        assert!(samples.iter().all(|s| (30..=50).contains(&s.as_millis())));
    }
}
