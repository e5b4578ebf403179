//! Observation of the data path: one record per request, published once, and the counters that it feeds.
//!
//! Each worker has one [`Observer`]; nothing in it is shared. An [`Edge`] is interned when a connection or an endpoint comes
//! up and then holds its counters directly, so that a request hashes nothing, formats nothing and allocates nothing
//! (but when it is the first of its kind). The control thread asks the workers for their [`Snapshot`] through `collect` and
//! merges them; `metrics` turns the sum into text.

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap},
    rc::Rc,
    time::{Duration, Instant},
};

use crate::{
    model::metric::{OVERFLOW, label},
    telemetry::window::Ticks,
};

mod collect;
mod connection;
mod edge;
mod metrics;
mod request;
mod snapshot;

pub(crate) use collect::{Collector, Feed, channel};
pub(crate) use connection::Connection;
pub(crate) use edge::Edge;
pub(crate) use metrics::{Gauges, exposition, window_exposition};
pub(crate) use request::{Record, Request};
pub(crate) use snapshot::Snapshot;

/// Edges a worker keeps before targets and peers collapse into the overflow value.
const MAX_EDGES: usize = 1024;
/// Detection verdicts a worker keeps. They are constants of the code, so this is never reached.
const MAX_VERDICTS: usize = 64;

/// A worker's counters. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Observer(Rc<Shared>);

#[derive(Debug)]
struct Shared {
    ticks: Ticks,
    edges: RefCell<HashMap<EdgeKey, Rc<Edge>>>,
    detected: RefCell<BTreeMap<(&'static str, &'static str), u64>>,
}

/// What an edge is: every request and connection belongs to one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct EdgeKey {
    pub(crate) direction: Direction,
    /// `NS/SERVICE:PORT`, or an address where it is not a Service's; inbound: the application's port.
    pub(crate) target: Rc<str>,
    /// The workload at the other side, `NS/KIND/NAME`.
    pub(crate) peer: Option<Rc<str>>,
    /// Its verified identity.
    pub(crate) peer_id: Option<Rc<str>>,
    pub(crate) tls: Tls,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Direction {
    Inbound,
    Outbound,
}

/// Whether an edge is secured, and if not, why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Tls {
    Mutual,
    /// The peer has no proxy.
    NotMeshed,
    /// It stays within the pod.
    Loopback,
    /// The application's own TLS.
    Passthrough,
    Unknown,
}

/// What an edge's bytes were found to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Protocol {
    Http1,
    Http2,
    Grpc,
    Tls,
    Opaque,
    Unknown,
}

impl Direction {
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
        }
    }
}

impl Tls {
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Mutual => label::MUTUAL,
            Self::NotMeshed => "not_meshed",
            Self::Loopback => "loopback",
            Self::Passthrough => "passthrough",
            Self::Unknown => "unknown",
        }
    }
}

impl Protocol {
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Http1 => "http1",
            Self::Http2 => "http2",
            Self::Grpc => "grpc",
            Self::Tls => "tls",
            Self::Opaque => "opaque",
            Self::Unknown => "unknown",
        }
    }
}

impl Observer {
    pub(crate) fn new(started: Instant) -> Self {
        Self(Rc::new(Shared { ticks: Ticks::since(started), edges: RefCell::default(), detected: RefCell::default() }))
    }

    /// The edge of this key: the same one each time. Hold on to it rather than asking again.
    pub(crate) fn edge(&self, key: EdgeKey) -> Rc<Edge> {
        let mut edges = self.0.edges.borrow_mut();
        if let Some(edge) = edges.get(&key) {
            return Rc::clone(edge);
        }
        // Overflow keys differ only in small enums, so the map ends a few entries above its bound.
        let key = if edges.len() < MAX_EDGES { key } else { key.overflowed() };
        let edge = || Rc::new(Edge::new(key.clone(), self.0.ticks));
        Rc::clone(edges.entry(key.clone()).or_insert_with(edge))
    }

    /// A port's protocol was decided: `verdict` is a protocol's label, `first` who spoke (`client`, `server`) or what was
    /// known (`hint`, `learned`).
    pub(crate) fn detected(&self, verdict: &'static str, first: &'static str) {
        let mut detected = self.0.detected.borrow_mut();
        if detected.len() < MAX_VERDICTS || detected.contains_key(&(verdict, first)) {
            *detected.entry((verdict, first)).or_default() += 1;
        }
    }

    /// A connection refused before it had an edge: counted on one that has no target.
    pub(crate) fn refused(&self, direction: Direction, reason: &'static str) {
        self.edge(EdgeKey { direction, target: Rc::default(), peer: None, peer_id: None, tls: Tls::Unknown })
            .failed(reason);
    }

    pub(crate) fn snapshot(&self, window: Option<Duration>, now: Instant) -> Snapshot {
        let span = window.map(|window| self.0.ticks.span(window, now));
        let mut snapshot = Snapshot { covered: span.map(|span| span.covered()), ..Snapshot::default() };
        for edge in self.0.edges.borrow().values() {
            edge.add_to(&mut snapshot, span.as_ref());
        }
        snapshot.detected = self.0.detected.borrow().clone();
        snapshot
    }

    /// Gives back the memory of series that have gone idle; their counters stay.
    fn prune(&self, now: Instant) {
        let now = self.0.ticks.at(now);
        self.0.edges.borrow().values().for_each(|edge| edge.prune(now));
    }
}

impl EdgeKey {
    fn overflowed(self) -> Self {
        let overflow: Rc<str> = OVERFLOW.into();
        let peer_id = self.peer_id.map(|_| Rc::clone(&overflow));
        Self { target: Rc::clone(&overflow), peer: Some(overflow), peer_id, ..self }
    }
}

#[cfg(test)]
mod tests;
