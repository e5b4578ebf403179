//! One version of a value, with its lines: each is encoded once, however many streams send it.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use serde::Serialize;

use crate::{
    api::{inbound, inbound::Inbound, line, outbound},
    model::service::Target,
};

#[derive(Debug)]
pub(crate) struct Published<T> {
    pub(crate) value: T,
    pub(crate) version: u64,
    snapshot: OnceLock<Bytes>,
    /// From the version before; absent where only a snapshot will do.
    delta: Option<Bytes>,
}

/// A value that can be sent whole.
pub(crate) trait Snapshot: PartialEq {
    fn event(&self) -> impl Serialize;
}

impl Snapshot for Target {
    fn event(&self) -> impl Serialize {
        outbound::Event::Snapshot(self.clone())
    }
}

impl Snapshot for Inbound {
    fn event(&self) -> impl Serialize {
        inbound::Event::Snapshot(self.clone())
    }
}

impl<T: Snapshot> Published<T> {
    pub(super) fn first(value: T) -> Self {
        Self { value, version: 1, snapshot: OnceLock::new(), delta: None }
    }

    /// What to send to a stream that was last at version `sent`: the delta if it is exactly one behind, else all.
    pub(crate) fn line_after(&self, sent: u64) -> Bytes {
        match &self.delta {
            Some(delta) if sent + 1 == self.version => delta.clone(),
            _ => self.snapshot.get_or_init(|| encode(&self.value.event())).clone(),
        }
    }
}

/// Moves on to `value`; `false` if it is what it was.
pub(super) fn advance<T: Snapshot>(
    published: &mut Arc<Published<T>>,
    value: T,
    difference: impl Fn(&T, &T) -> Option<outbound::Event>,
) -> bool {
    if published.value == value {
        return false;
    }
    let delta = difference(&published.value, &value).map(|delta| encode(&delta));
    *published = Arc::new(Published { value, version: published.version + 1, snapshot: OnceLock::new(), delta });
    true
}

fn encode(event: &impl Serialize) -> Bytes {
    line::encode(event).expect("our messages have string keys and no failing parts")
}
