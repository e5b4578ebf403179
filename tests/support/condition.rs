//! Waiting for what must come, with a deadline; never for time to pass.

use std::{future::Future, time::Duration};

/// Long enough for a busy machine, short enough that a broken test ends.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// Fails when `future` takes longer than the deadline.
pub(crate) async fn within<T>(what: &str, deadline: Duration, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(deadline, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: not within {deadline:?}"),
    }
}

/// Asks again and again until there is an answer; fails at the deadline.
pub(crate) async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let answer = async {
        loop {
            if let Some(value) = ask().await {
                return value;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    within(what, DEADLINE, answer).await
}
