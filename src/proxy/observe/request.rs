//! The record of one request: filled in along the way, published exactly once.

use std::{mem, rc::Rc, time::Instant};

use super::{Edge, Protocol};
use crate::{
    model::class::{CANCELLED, Class, Outcome},
    rt::clock,
};

/// What is known of a request in the end. Counters are fed from it; whatever else observes requests belongs here too.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) edge: Rc<Edge>,
    pub(crate) protocol: Protocol,
    pub(crate) begun: Instant,
    /// The HTTP status, once the response's head was seen.
    pub(crate) status: Option<u16>,
    pub(crate) grpc_status: Option<u16>,
    /// The kind of an error that the proxy made itself.
    pub(crate) error: Option<&'static str>,
}

impl Record {
    pub(crate) fn class(&self) -> Class {
        Class::of(Outcome {
            is_grpc: self.protocol == Protocol::Grpc,
            status: self.status,
            grpc_status: self.grpc_status,
            error: self.error,
        })
    }
}

/// A request in flight. Dropped without [`Request::finish`] it ends now: before a response, or amid a gRPC
/// answer, that is a client which went away; after one, a body that nobody had to read (HEAD, 204, 304).
#[derive(Debug)]
pub(crate) struct Request {
    record: Record,
    is_published: bool,
}

impl Request {
    pub(super) fn new(edge: &Rc<Edge>, protocol: Protocol, begun: Instant) -> Self {
        edge.add_in_flight(1);
        let record = Record { edge: Rc::clone(edge), protocol, begun, status: None, grpc_status: None, error: None };
        Self { record, is_published: false }
    }

    /// The response's head was seen.
    pub(crate) fn response(&mut self, status: u16, grpc_status: Option<u16>) {
        self.record.status = Some(status);
        self.record.grpc_status = grpc_status.or(self.record.grpc_status);
    }

    /// The trailers were seen.
    pub(crate) fn grpc_status(&mut self, code: u16) {
        self.record.grpc_status = Some(code);
    }

    /// The proxy made an error itself; the first one is kept, later ones follow from it.
    pub(crate) fn error(&mut self, kind: &'static str) {
        self.record.error.get_or_insert(kind);
    }

    /// The endpoint was chosen after the request had begun.
    pub(crate) fn move_to(&mut self, edge: &Rc<Edge>) {
        if !Rc::ptr_eq(&self.record.edge, edge) {
            edge.add_in_flight(1);
            mem::replace(&mut self.record.edge, Rc::clone(edge)).add_in_flight(-1);
        }
    }

    pub(crate) fn finish(mut self, now: Instant) {
        self.publish(now);
    }

    fn publish(&mut self, now: Instant) {
        if !mem::replace(&mut self.is_published, true) {
            self.record.edge.add_in_flight(-1);
            self.record.edge.publish(&self.record, now);
        }
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        if self.is_published {
            return;
        }
        let answered = self.record.status.is_some() && self.record.protocol != Protocol::Grpc;
        if !answered && self.record.grpc_status.is_none() {
            self.error(CANCELLED);
        }
        self.publish(clock::now());
    }
}
