//! What a role runs on: time, tasks, drain, signals, backoff.

pub(crate) mod backoff;
pub(crate) mod clock;
pub(crate) mod drain;
pub(crate) mod limits;
pub(crate) mod parent;
pub(crate) mod signal;
pub(crate) mod workers;
