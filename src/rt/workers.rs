//! How many worker threads: as many as the CPUs that this process may use.

use std::{fs, num::NonZeroUsize, thread};

/// The CPU limit, rounded up, and never more than the CPUs there are.
pub(crate) fn default_count() -> usize {
    // Knows affinity and the limits of cgroup v1 and v2, but rounds them down: half a CPU more is worth a thread.
    let usable = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let limit = fs::read_to_string("/sys/fs/cgroup/cpu.max").ok().and_then(|text| parse_cpu_max(&text));
    limit.map_or(usable, |limit| limit.min(affinity(usable)))
}

fn affinity(usable: usize) -> usize {
    rustix::thread::sched_getaffinity(None).map_or(usable, |set| (set.count() as usize).max(1))
}

/// `QUOTA PERIOD` in microseconds, or `max PERIOD`.
fn parse_cpu_max(text: &str) -> Option<usize> {
    let (quota, period) = text.trim().split_once(' ')?;
    let (quota, period): (usize, usize) = (quota.parse().ok()?, period.parse().ok()?);
    (period > 0).then(|| quota.div_ceil(period).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fraction_of_a_cpu_is_a_thread() {
        assert_eq!(parse_cpu_max("150000 100000\n"), Some(2));
        assert_eq!(parse_cpu_max("10000 100000"), Some(1));
        assert_eq!(parse_cpu_max("max 100000"), None);
    }
}
