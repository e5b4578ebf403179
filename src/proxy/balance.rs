//! Which endpoint takes a request: power of two choices over peak-EWMA latency, among those that are not known to be down.
//!
//! Everything here belongs to one worker: workers learn independently, so nothing is shared on the request path.

pub(crate) mod ewma;
pub(crate) mod health;
pub(crate) mod pool;
