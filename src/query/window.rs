//! The asked window, and rates over it.
//!
//! A proxy answers with how much of the window it covers: a little more than was asked (slots are whole seconds), or less
//! soon after its start. The rate of a set of pods is the sum of their counts over the *longest* of their covered times:
//! one pod started ten seconds ago among old ones has done its part of the set's minute, while a set that is ten
//! seconds old as a whole has a rate over those ten seconds and not over a minute of which it was not there for most.

use std::time::Duration;

use crate::{telemetry::window::MAX_WINDOW, units::duration};

pub(crate) const DEFAULT: &str = "1m";

/// Reads `-t`: 1 s to 10 min.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let window = duration::parse(text).map_err(|error| error.to_string())?;
    if (Duration::from_secs(1)..=MAX_WINDOW).contains(&window) {
        Ok(window)
    } else {
        Err(format!("proxies remember from 1s to {}", duration::format(MAX_WINDOW)))
    }
}

/// The time that counts of several proxies are divided by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Covered(Duration);

impl Covered {
    pub(crate) fn include(&mut self, covered: Duration) {
        self.0 = self.0.max(covered);
    }

    pub(crate) fn seconds(self) -> f64 {
        self.0.as_secs_f64()
    }

    /// Events a second; 0 where nothing was covered.
    pub(crate) fn rate(self, count: u64) -> f64 {
        if self.0.is_zero() { 0.0 } else { count as f64 / self.seconds() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_over_the_longest_covered_time() {
        let mut covered = Covered::default();
        assert!(covered.rate(5).abs() < f64::EPSILON);
        covered.include(Duration::from_secs(10));
        covered.include(Duration::from_secs(60));
        assert!((covered.rate(120) - 2.0).abs() < 1e-9);
    }

    #[test]
    fn a_window_stays_within_what_proxies_remember() {
        assert_eq!(parse(DEFAULT), Ok(Duration::from_secs(60)));
        assert!(parse("11m").is_err() && parse("0s").is_err() && parse("x").is_err());
    }
}
