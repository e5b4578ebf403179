//! Latency histograms: sparse log-linear buckets for what `stat` asks, and Prometheus' ordinary buckets for `/metrics`.
//!
//! Log-linear: each octave of nanoseconds is cut into 32 equal buckets (idea: HdrHistogram), so a value and the
//! middle of its bucket differ by at most 1/64 = 1.6 %. A bucket is its index, and the index is the same in every
//! process: histograms merge by adding.

use super::window::Merge;

/// log2 of the buckets in an octave.
const PRECISION: u32 = 5;

/// The bucket of a value: exact below 64, then 32 an octave.
pub(crate) fn index(value: u64) -> u16 {
    let octave = (u64::BITS - value.leading_zeros()).saturating_sub(PRECISION + 1);
    // At most 58 * 32 + 63, so it fits.
    u16::try_from(u64::from(octave << PRECISION) + (value >> octave)).unwrap_or(u16::MAX)
}

/// The middle of a bucket, the value that stands for all in it. `None`: no value has this index.
pub(crate) fn midpoint(index: u16) -> Option<f64> {
    let index = u64::from(index);
    let octave = (index >> PRECISION).saturating_sub(1);
    if octave > u64::from(u64::BITS - PRECISION - 1) {
        return None;
    }
    let low = (index - (octave << PRECISION)) << octave;
    let last = ((1_u64 << octave) - 1) as f64;
    Some(low as f64 + last / 2.0)
}

/// Counts by bucket, only the buckets in use, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sparse {
    buckets: Vec<(u16, u32)>,
}

impl Sparse {
    pub(crate) fn record(&mut self, value: u64) {
        self.add(index(value), 1);
    }

    /// The buckets in use, lowest first.
    pub(crate) fn buckets(&self) -> impl Iterator<Item = (u16, u32)> + '_ {
        self.buckets.iter().copied()
    }

    fn add(&mut self, index: u16, count: u32) {
        match self.buckets.binary_search_by_key(&index, |(i, _)| *i) {
            Ok(at) => self.buckets[at].1 = self.buckets[at].1.saturating_add(count),
            Err(at) => self.buckets.insert(at, (index, count)),
        }
    }
}

impl Merge for Sparse {
    fn merge(&mut self, other: &Self) {
        for (index, count) in other.buckets() {
            self.add(index, count);
        }
    }

    fn clear(&mut self) {
        self.buckets.clear();
    }
}

/// Upper bounds of the ordinary buckets, as `le` says them and in nanoseconds: 1–2.5–5 steps from half a millisecond.
pub(crate) const BOUNDS: [(&str, u64); 15] = [
    ("0.0005", 500_000),
    ("0.001", 1_000_000),
    ("0.0025", 2_500_000),
    ("0.005", 5_000_000),
    ("0.01", 10_000_000),
    ("0.025", 25_000_000),
    ("0.05", 50_000_000),
    ("0.1", 100_000_000),
    ("0.25", 250_000_000),
    ("0.5", 500_000_000),
    ("1", 1_000_000_000),
    ("2.5", 2_500_000_000),
    ("5", 5_000_000_000),
    ("10", 10_000_000_000),
    ("30", 30_000_000_000),
];

/// Counts since the start, by ordinary bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ordinary {
    /// Not cumulative; the last is what lies above all bounds.
    counts: [u64; BOUNDS.len() + 1],
    sum_nanos: u64,
}

impl Ordinary {
    pub(crate) fn record(&mut self, nanos: u64) {
        self.counts[BOUNDS.partition_point(|(_, bound)| *bound < nanos)] += 1;
        self.sum_nanos = self.sum_nanos.saturating_add(nanos);
    }

    /// Cumulative counts with their `le`, `+Inf` last.
    pub(crate) fn cumulative(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        let bounds = BOUNDS.iter().map(|(le, _)| *le).chain(["+Inf"]);
        bounds.zip(self.counts.iter().scan(0, |sum, count| {
            *sum += count;
            Some(*sum)
        }))
    }

    pub(crate) fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    pub(crate) fn sum_seconds(&self) -> f64 {
        self.sum_nanos as f64 / 1e9
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        self.sum_nanos = self.sum_nanos.saturating_add(other.sum_nanos);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_value_and_the_middle_of_its_bucket_differ_by_at_most_two_percent(bits in 0_u32..64, noise: u64) {
            let value = (1_u64 << bits) | (noise & ((1 << bits) - 1));
            let middle = midpoint(index(value)).expect("every value has a bucket");
            prop_assert!((middle - value as f64).abs() <= 0.02 * value as f64, "{value} {middle}");
        }

        #[test]
        fn indexes_are_in_the_order_of_values(a: u64, b: u64) {
            prop_assert_eq!(index(a.min(b)).max(index(a.max(b))), index(a.max(b)));
        }

        #[test]
        fn merging_is_recording_all(a in prop::collection::vec(0_u64..1 << 40, 0..50), b in prop::collection::vec(0_u64..1 << 40, 0..50)) {
            let of = |values: &[u64]| { let mut s = Sparse::default(); values.iter().for_each(|v| s.record(*v)); s };
            let mut merged = of(&a);
            merged.merge(&of(&b));
            prop_assert_eq!(merged, of(&[a, b].concat()));
        }
    }

    #[test]
    fn every_index_is_known_up_to_the_largest_value() {
        assert_eq!(index(u64::MAX), 58 * 32 + 63);
        assert!(midpoint(58 * 32 + 63).is_some() && midpoint(u16::MAX).is_none());
        assert!((0..64).all(|v| index(v) == v as u16 && midpoint(v as u16) == Some(v as f64)));
    }

    #[test]
    fn ordinary_buckets_are_cumulative_and_their_bounds_inclusive() {
        let mut ordinary = Ordinary::default();
        [500_000, 500_001, 40_000_000_000].into_iter().for_each(|v| ordinary.record(v));
        let cumulative: Vec<_> = ordinary.cumulative().collect();
        assert_eq!((cumulative[0], cumulative[1]), (("0.0005", 1), ("0.001", 2)));
        assert_eq!((cumulative[14], cumulative[15]), (("30", 2), ("+Inf", 3)));
    }
}
