//! Quantiles from log-linear buckets: the middle of the bucket that holds the sample of that rank, so within 1.6 %
//! of the exact sample (see `telemetry::histogram`).

use std::{collections::BTreeMap, time::Duration};

use crate::telemetry::histogram;

/// Counts by bucket index.
pub(crate) type Buckets = BTreeMap<u16, u64>;

/// The quantile `q` in 0..=1 by nearest rank: the smallest sample that at least a share `q` of all do not exceed.
/// `None` without samples.
pub(crate) fn quantile(buckets: &Buckets, q: f64) -> Option<Duration> {
    let total: u64 = buckets.values().sum();
    let rank = ((q * total as f64).ceil() as u64).clamp(1, total.max(1));
    let mut seen = 0;
    let (index, _) = buckets.iter().find(|(_, count)| {
        seen += **count;
        seen >= rank && **count > 0
    })?;
    Some(Duration::from_nanos(histogram::midpoint(*index)? as u64))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn exact(samples: &mut [u64], q: f64) -> u64 {
        samples.sort_unstable();
        samples[((q * samples.len() as f64).ceil() as usize).clamp(1, samples.len()) - 1]
    }

    proptest! {
        #[test]
        fn quantiles_are_within_two_percent_of_the_exact_ones_of_the_same_samples(
            mut samples in prop::collection::vec(prop_oneof![1_000_u64..1_000_000, 1_000_000_u64..60_000_000_000], 1..400),
            q in prop_oneof![Just(0.5), Just(0.95), Just(0.99), 0.0..=1.0],
        ) {
            let mut buckets = Buckets::new();
            samples.iter().for_each(|sample| *buckets.entry(histogram::index(*sample)).or_default() += 1);
            let (exact, found) = (exact(&mut samples, q) as f64, quantile(&buckets, q).expect("there are samples"));
            prop_assert!((found.as_nanos() as f64 - exact).abs() <= 0.02 * exact, "{found:?} {exact}");
        }
    }

    #[test]
    fn no_samples_have_no_quantile() {
        assert_eq!(quantile(&Buckets::new(), 0.5), None);
        assert_eq!(quantile(&Buckets::from([(u16::MAX, 1)]), 0.5), None);
    }
}
