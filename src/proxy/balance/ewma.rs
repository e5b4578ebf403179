//! Peak EWMA: a moving average of latency that jumps up at once and comes down slowly (Finagle's load metric).

use std::time::{Duration, Instant};

/// How fast old latencies are forgotten: after this long without a sample a value has fallen to 37 %. Finagle and linkerd
/// have 10 s; then an endpoint whose first request was slow (a cold cache) is left alone for half a minute. An endpoint that
/// really is ten times slower is tried about every 7 s with this.
pub(crate) const DECAY: Duration = Duration::from_secs(3);

/// What an endpoint that has work but has never answered is taken to cost: enough that others go first.
const UNKNOWN_COST: f64 = 1.0;

/// An endpoint's latency, and what one more request there would cost.
#[derive(Clone, Debug)]
pub(crate) struct PeakEwma {
    /// Seconds; `None` before the first answer.
    cost: Option<f64>,
    updated: Instant,
}

impl PeakEwma {
    pub(crate) fn new(now: Instant) -> Self {
        Self { cost: None, updated: now }
    }

    /// A request took `latency`.
    pub(crate) fn observe(&mut self, latency: Duration, now: Instant) {
        let sample = latency.as_secs_f64();
        self.cost = Some(match self.cost {
            Some(cost) if sample < cost => {
                let weight = self.weight(now);
                cost * weight + sample * (1.0 - weight)
            }
            _ => sample,
        });
        self.updated = now;
    }

    /// The cost of one more request beside `pending` others.
    pub(crate) fn load(&self, pending: usize, now: Instant) -> f64 {
        #[allow(clippy::cast_precision_loss)]
        let queue = pending as f64;
        match self.cost {
            Some(cost) => cost * self.weight(now) * (queue + 1.0),
            // One request at a time finds out how fast a new endpoint is.
            None if pending == 0 => 0.0,
            None => UNKNOWN_COST * queue,
        }
    }

    fn weight(&self, now: Instant) -> f64 {
        (-now.saturating_duration_since(self.updated).as_secs_f64() / DECAY.as_secs_f64()).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rt::clock;

    #[test]
    fn rises_at_once_and_falls_slowly() {
        let start = clock::now();
        let mut ewma = PeakEwma::new(start);
        ewma.observe(Duration::from_millis(10), start);
        ewma.observe(Duration::from_millis(100), start);
        assert!((ewma.load(0, start) - 0.1).abs() < 1e-9);
        ewma.observe(Duration::from_millis(10), start + Duration::from_secs(1));
        let load = ewma.load(0, start + Duration::from_secs(1));
        assert!(load > 0.07 && load < 0.1, "{load}");
    }

    #[test]
    fn an_endpoint_without_news_is_tried_again_in_time() {
        let start = clock::now();
        let mut ewma = PeakEwma::new(start);
        ewma.observe(Duration::from_millis(500), start);
        assert!(ewma.load(0, start + Duration::from_secs(60)) < 0.005);
    }

    #[test]
    fn a_new_endpoint_gets_one_request_first() {
        let now = clock::now();
        let ewma = PeakEwma::new(now);
        assert!(ewma.load(0, now) < f64::EPSILON && ewma.load(1, now) >= UNKNOWN_COST);
    }
}
