//! The counters of one edge, by what its requests and connections turned out to be.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Instant,
};

use super::{
    Connection, EdgeKey, Protocol, Record, Request,
    snapshot::{self, EdgeStats, Latency, Requests, Snapshot, Tcp},
};
use crate::{
    model::class::Class,
    telemetry::{
        histogram::{Ordinary, Sparse},
        window::{Merge, Ring, Span, Tick, Ticks},
    },
};

/// Statuses and error kinds an edge tells apart; what comes after counts under the overflow value.
const MAX_SERIES: usize = 64;
/// Failure reasons are constants of the code: this many are never reached.
const MAX_REASONS: usize = 64;

#[derive(Debug)]
pub(crate) struct Edge {
    key: EdgeKey,
    ticks: Ticks,
    in_flight: Cell<i64>,
    counters: RefCell<Counters>,
}

#[derive(Debug, Default)]
struct Counters {
    /// Few, so a linear search beats a hash.
    requests: Vec<(snapshot::Series, Count)>,
    latency: [(Ordinary, Ring<Sparse>); 2],
    tcp: Vec<(Protocol, TcpCounters)>,
    failed: Vec<(&'static str, u64)>,
}

#[derive(Debug, Default)]
struct Count {
    total: u64,
    window: Ring<u64>,
}

#[derive(Debug, Default)]
struct TcpCounters {
    open: i64,
    total: Volume,
    window: Ring<Volume>,
}

/// What TCP connections amount to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Volume {
    pub(super) opened: u64,
    pub(super) read: u64,
    pub(super) written: u64,
}

impl Merge for Volume {
    fn merge(&mut self, other: &Self) {
        self.opened += other.opened;
        self.read += other.read;
        self.written += other.written;
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

impl Edge {
    pub(super) fn new(key: EdgeKey, ticks: Ticks) -> Self {
        Self { key, ticks, in_flight: Cell::new(0), counters: RefCell::default() }
    }

    /// A request begins; it is in flight until the returned value is finished or dropped.
    pub(crate) fn request(self: &Rc<Self>, protocol: Protocol, now: Instant) -> Request {
        Request::new(self, protocol, now)
    }

    /// A connection was accepted or dialled; it is open until the returned value is dropped. One whose protocol is not
    /// known yet is counted as opened once it is ([`Connection::protocol`]), or when it closes.
    pub(crate) fn connection(self: &Rc<Self>, protocol: Protocol, now: Instant) -> Connection {
        Connection::new(self, protocol, now)
    }

    /// A connection of this edge was refused or broke.
    pub(crate) fn failed(&self, reason: &'static str) {
        let failed = &mut self.counters.borrow_mut().failed;
        if let Some((_, count)) = failed.iter_mut().find(|(known, _)| *known == reason) {
            *count += 1;
        } else if failed.len() < MAX_REASONS {
            failed.push((reason, 1));
        }
    }

    pub(super) fn add_in_flight(&self, change: i64) {
        self.in_flight.set(self.in_flight.get() + change);
    }

    /// The publish point of a request's record.
    pub(super) fn publish(&self, record: &Record, ended: Instant) {
        let tick = self.ticks.at(ended);
        let nanos = u64::try_from(ended.saturating_duration_since(record.begun).as_nanos()).unwrap_or(u64::MAX);
        let series = snapshot::Series::of(record);
        let counters = &mut *self.counters.borrow_mut();
        let count = find_series(&mut counters.requests, series);
        count.total += 1;
        *count.window.slot(tick) += 1;
        let (ordinary, window) = &mut counters.latency[series.class as usize];
        ordinary.record(nanos);
        window.slot(tick).record(nanos);
    }

    pub(super) fn add_open(&self, protocol: Protocol, change: i64) {
        self.with_tcp(protocol, |tcp| tcp.open += change);
    }

    pub(super) fn add_volume(&self, protocol: Protocol, volume: Volume, now: Instant) {
        let tick = self.ticks.at(now);
        self.with_tcp(protocol, |tcp| {
            tcp.total.merge(&volume);
            tcp.window.slot(tick).merge(&volume);
        });
    }

    fn with_tcp(&self, protocol: Protocol, change: impl FnOnce(&mut TcpCounters)) {
        let tcp = &mut self.counters.borrow_mut().tcp;
        let at = tcp.iter().position(|(known, _)| *known == protocol).unwrap_or_else(|| {
            tcp.push((protocol, TcpCounters::default()));
            tcp.len() - 1
        });
        change(&mut tcp[at].1);
    }

    pub(super) fn prune(&self, now: Tick) {
        let counters = &mut *self.counters.borrow_mut();
        counters.requests.iter_mut().for_each(|(_, count)| count.window.prune(now));
        counters.latency.iter_mut().for_each(|(_, window)| window.prune(now));
        counters.tcp.iter_mut().for_each(|(_, tcp)| tcp.window.prune(now));
    }

    /// Adds this edge to a snapshot; without a span, only what counts since the start.
    pub(super) fn add_to(&self, snapshot: &mut Snapshot, span: Option<&Span>) {
        let counters = self.counters.borrow();
        let mut stats = EdgeStats { in_flight: self.in_flight.get(), ..EdgeStats::default() };
        for (series, count) in &counters.requests {
            let windowed = span.map_or(0, |span| count.window.sum(span));
            stats.requests.insert(*series, Requests { total: count.total, windowed });
        }
        for (class, (ordinary, window)) in [Class::Success, Class::Failure].into_iter().zip(&counters.latency) {
            if ordinary.count() > 0 {
                let windowed = span.map_or_else(Sparse::default, |span| window.sum(span));
                stats.latency.insert(class, Latency { total: ordinary.clone(), windowed });
            }
        }
        for (protocol, tcp) in &counters.tcp {
            let windowed = span.map_or_else(Volume::default, |span| tcp.window.sum(span));
            stats.tcp.insert(*protocol, Tcp { open: tcp.open, total: tcp.total, windowed });
        }
        stats.failed.extend(counters.failed.iter().copied());
        snapshot.edges.entry((&self.key).into()).or_default().merge(&stats);
    }
}

fn find_series(requests: &mut Vec<(snapshot::Series, Count)>, series: snapshot::Series) -> &mut Count {
    let position = |series: &snapshot::Series| requests.iter().position(|(known, _)| known == series);
    let found =
        position(&series).or_else(|| if requests.len() < MAX_SERIES { None } else { position(&series.overflowed()) });
    let at = found.unwrap_or_else(|| {
        // Overflow series differ only in small enums, so the list ends a few entries above its bound.
        let series = if requests.len() < MAX_SERIES { series } else { series.overflowed() };
        requests.push((series, Count::default()));
        requests.len() - 1
    });
    &mut requests[at].1
}

impl Drop for Edge {
    fn drop(&mut self) {
        debug_assert!(self.in_flight.get() >= 0, "a request ended twice");
    }
}
