//! A connection of an edge, counted while it lives.

use std::{cell::Cell, rc::Rc, time::Instant};

use super::{Edge, Protocol, edge::Volume};
use crate::rt::clock;

/// An open connection; it closes when this is dropped.
#[derive(Debug)]
pub(crate) struct Connection {
    edge: Rc<Edge>,
    protocol: Protocol,
    opened: Instant,
    is_counted: Cell<bool>,
}

impl Connection {
    pub(super) fn new(edge: &Rc<Edge>, protocol: Protocol, now: Instant) -> Self {
        edge.add_open(protocol, 1);
        let connection = Self { edge: Rc::clone(edge), protocol, opened: now, is_counted: Cell::new(false) };
        if protocol != Protocol::Unknown {
            connection.count();
        }
        connection
    }

    /// Bytes read from the edge's peer.
    pub(crate) fn add_read(&self, n: u64) {
        self.edge.add_volume(self.protocol, Volume { read: n, ..Volume::default() }, clock::now());
    }

    /// Bytes written to the edge's peer.
    pub(crate) fn add_written(&self, n: u64) {
        self.edge.add_volume(self.protocol, Volume { written: n, ..Volume::default() }, clock::now());
    }

    /// The connection broke.
    pub(crate) fn failed(&self, reason: &'static str) {
        self.edge.failed(reason);
    }

    /// Counts it as opened, once.
    fn count(&self) {
        if !self.is_counted.replace(true) {
            self.edge.add_volume(self.protocol, Volume { opened: 1, ..Volume::default() }, self.opened);
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.count();
        self.edge.add_open(self.protocol, -1);
    }
}
