//! The counters as plain values: what a worker sends to the control thread, and the sum over workers.

use std::{collections::BTreeMap, time::Duration};

use super::{Direction, EdgeKey, Protocol, Record, Tls, edge::Volume};
use crate::{
    model::class::Class,
    telemetry::{
        histogram::{Ordinary, Sparse},
        window::Merge,
    },
};

/// Everything counted, by one worker or by all.
#[derive(Clone, Debug, Default)]
pub(crate) struct Snapshot {
    /// How much time the window covers; `None` when no window was asked for.
    pub(crate) covered: Option<Duration>,
    pub(super) edges: BTreeMap<Key, EdgeStats>,
    pub(super) detected: BTreeMap<(&'static str, &'static str), u64>,
    /// Workers that did not answer in time. Sums would go backwards without them, so they are not for exporting.
    pub(crate) missing_workers: usize,
}

/// An [`EdgeKey`] that can leave its thread.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) direction: Direction,
    pub(super) target: Box<str>,
    pub(super) peer: Option<Box<str>>,
    pub(super) peer_id: Option<Box<str>>,
    pub(super) tls: Tls,
}

#[derive(Clone, Debug, Default)]
pub(super) struct EdgeStats {
    pub(super) in_flight: i64,
    pub(super) requests: BTreeMap<Series, Requests>,
    pub(super) latency: BTreeMap<Class, Latency>,
    pub(super) tcp: BTreeMap<Protocol, Tcp>,
    pub(super) failed: BTreeMap<&'static str, u64>,
}

/// What tells the requests of an edge apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Series {
    pub(super) protocol: Protocol,
    pub(super) class: Class,
    pub(super) status: Option<u16>,
    pub(super) grpc_status: Option<u16>,
    pub(super) error: Option<&'static str>,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Requests {
    pub(super) total: u64,
    pub(super) windowed: u64,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Latency {
    pub(super) total: Ordinary,
    pub(super) windowed: Sparse,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tcp {
    pub(super) open: i64,
    pub(super) total: Volume,
    pub(super) windowed: Volume,
}

impl Series {
    /// No HTTP status is this number.
    pub(super) const OVERFLOW_STATUS: u16 = u16::MAX;

    pub(super) fn of(record: &Record) -> Self {
        Self {
            protocol: record.protocol,
            class: record.class(),
            status: record.status,
            grpc_status: record.grpc_status,
            error: record.error,
        }
    }

    pub(super) fn overflowed(self) -> Self {
        Self { status: Some(Self::OVERFLOW_STATUS), grpc_status: None, error: None, ..self }
    }
}

impl From<&EdgeKey> for Key {
    fn from(key: &EdgeKey) -> Self {
        Self {
            direction: key.direction,
            target: (*key.target).into(),
            peer: key.peer.as_deref().map(Into::into),
            peer_id: key.peer_id.as_deref().map(Into::into),
            tls: key.tls,
        }
    }
}

impl Snapshot {
    pub(super) fn merge(&mut self, other: Self) {
        // Workers start one after the other: the oldest has seen most.
        self.covered = self.covered.max(other.covered);
        self.missing_workers += other.missing_workers;
        for (verdict, count) in other.detected {
            *self.detected.entry(verdict).or_default() += count;
        }
        for (key, stats) in other.edges {
            self.edges.entry(key).or_default().merge(&stats);
        }
    }
}

impl EdgeStats {
    pub(super) fn merge(&mut self, other: &Self) {
        self.in_flight += other.in_flight;
        for (series, requests) in &other.requests {
            let mine = self.requests.entry(*series).or_default();
            mine.total += requests.total;
            mine.windowed += requests.windowed;
        }
        for (class, latency) in &other.latency {
            let mine = self.latency.entry(*class).or_default();
            mine.total.merge(&latency.total);
            mine.windowed.merge(&latency.windowed);
        }
        for (protocol, tcp) in &other.tcp {
            let mine = self.tcp.entry(*protocol).or_default();
            mine.open += tcp.open;
            mine.total.merge(&tcp.total);
            mine.windowed.merge(&tcp.windowed);
        }
        for (reason, count) in &other.failed {
            *self.failed.entry(reason).or_default() += count;
        }
    }
}
