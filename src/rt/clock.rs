//! The one place where time enters: everything else takes `now` as an argument.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Monotonic time; in a test with a paused tokio clock, that clock's.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Seconds since the Unix epoch; 0 on a machine whose clock stands before it.
pub(crate) fn unix_seconds() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
