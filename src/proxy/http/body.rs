//! A message body on its way through the proxy: the bytes where they come from, and what hangs on their end.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use h2::{Reason, RecvStream};
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

use super::{expect::Gate, headers, phase::Busy, replay::Replay};
use crate::proxy::{
    error::{Error, Kind},
    http::{http1_client::Returning, http2_client::Stream},
    observe,
    outbound::endpoint::Lease,
};
use crate::rt::clock;

#[derive(Debug)]
pub(crate) struct Body {
    source: Source,
    /// A client that stops sending for this long is told so (HTTP/1 request bodies only: a gRPC stream may be silent).
    patience: Option<Patience>,
    tail: Option<Box<Tail>>,
    busy: Option<Busy>,
}

#[derive(Debug)]
enum Source {
    Empty,
    Once(Bytes),
    Http1(Incoming),
    Http2(RecvStream, Of),
    /// Waits for `100 Continue` before the client is asked for the body.
    Gated(Box<(Gate, Incoming)>),
    /// Sent once already in part, and again from what was kept.
    Replay(Box<Replay>),
}

/// Which message an HTTP/2 body is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Of {
    Request,
    Response,
}

/// What is done when a response body ends: the request's record is published, the endpoint's place is given back.
#[derive(Debug)]
pub(crate) struct Tail {
    pub(crate) record: observe::Request,
    #[expect(dead_code, reason = "held until the end: dropping it gives the place back")]
    pub(crate) lease: Option<Lease>,
    #[expect(dead_code, reason = "held until the end")]
    pub(crate) holds: Holds,
}

/// What a response body keeps in use on the endpoint's side until it ends.
#[derive(Debug)]
#[expect(dead_code, reason = "held, never read")]
pub(crate) enum Holds {
    Nothing,
    /// An HTTP/1 connection, which goes back to its pool.
    Connection(Returning),
    /// A stream of a shared HTTP/2 connection.
    Stream(Stream),
}

#[derive(Debug)]
struct Patience {
    limit: Duration,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Body {
    pub(crate) fn empty() -> Self {
        Self::from_source(Source::Empty)
    }

    pub(crate) fn once(bytes: Bytes) -> Self {
        Self::from_source(if bytes.is_empty() { Source::Empty } else { Source::Once(bytes) })
    }

    pub(crate) fn http1(incoming: Incoming) -> Self {
        Self::from_source(if incoming.is_end_stream() { Source::Empty } else { Source::Http1(incoming) })
    }

    pub(crate) fn http2(stream: RecvStream, of: Of) -> Self {
        Self::from_source(if stream.is_end_stream() { Source::Empty } else { Source::Http2(stream, of) })
    }

    pub(crate) fn gated(gate: Gate, incoming: Incoming) -> Self {
        Self::from_source(Source::Gated(Box::new((gate, incoming))))
    }

    pub(crate) fn replay(replay: Replay) -> Self {
        Self::from_source(Source::Replay(Box::new(replay)))
    }

    fn from_source(source: Source) -> Self {
        Self { source, patience: None, tail: None, busy: None }
    }

    /// Fails with [`Kind::SlowClient`] when the next piece takes longer than `limit`.
    pub(crate) fn with_patience(mut self, limit: Duration) -> Self {
        if !matches!(self.source, Source::Empty) {
            self.patience = Some(Patience { limit, timer: None });
        }
        self
    }

    pub(crate) fn with_tail(mut self, tail: Tail) -> Self {
        self.tail = Some(Box::new(tail));
        self
    }

    /// Keeps its connection at work until it has ended.
    pub(crate) fn keep(mut self, busy: Busy) -> Self {
        self.busy = Some(busy);
        self
    }

    /// Whether there is nothing to send at all.
    pub(crate) fn is_empty(&self) -> bool {
        matches!(self.source, Source::Empty)
    }

    /// The body went to its end.
    fn complete(&mut self) {
        if let Some(tail) = self.tail.take() {
            tail.record.finish(clock::now());
        }
        self.release();
    }

    /// Nothing more comes: what hangs on the body is let go.
    fn release(&mut self) {
        self.tail = None;
        self.busy = None;
        self.patience = None;
        self.source = Source::Empty;
    }

    fn poll_source(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match &mut self.source {
            Source::Empty => Poll::Ready(None),
            Source::Once(bytes) => {
                let bytes = std::mem::take(bytes);
                self.source = Source::Empty;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Source::Http1(incoming) => poll_http1(incoming, cx),
            Source::Http2(stream, of) => poll_http2(stream, *of, cx),
            Source::Gated(gated) => {
                let (gate, incoming) = gated.as_mut();
                ready!(gate.poll_open(cx));
                poll_http1(incoming, cx)
            }
            Source::Replay(replay) => replay.poll_frame(cx),
        }
    }
}

fn poll_http1(incoming: &mut Incoming, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
    Pin::new(incoming).poll_frame(cx).map_err(|error| Error::caused(Kind::Reset, error))
}

fn poll_http2(stream: &mut RecvStream, of: Of, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
    if let Some(data) = ready!(stream.poll_data(cx)) {
        let data = match data {
            Ok(data) => data,
            // A whole response, whose server wants no more of the request (RFC 9113 section 8.1): h2 says so though what
            // came before is well.
            Err(error) if of == Of::Response && error.reason() == Some(Reason::NO_ERROR) && error.is_reset() => {
                return Poll::Ready(None);
            }
            Err(error) => return Poll::Ready(Some(Err(Error::caused(Kind::Reset, error)))),
        };
        // The window opens again as soon as the piece is taken: who takes it asks for the next only when it is sent on.
        let _ = stream.flow_control().release_capacity(data.len());
        return Poll::Ready(Some(Ok(Frame::data(data))));
    }
    match ready!(stream.poll_trailers(cx)) {
        Ok(Some(trailers)) => Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
        Ok(None) => Poll::Ready(None),
        Err(error) => Poll::Ready(Some(Err(Error::caused(Kind::Reset, error)))),
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = &mut *self;
        let polled = this.poll_source(cx);
        if let Some(patience) = &mut this.patience
            && patience.is_over(polled.is_pending(), cx)
        {
            return Poll::Ready(Some(Err(Error::new(Kind::SlowClient))));
        }
        let frame = ready!(polled);
        if let Some(tail) = &mut this.tail {
            match &frame {
                Some(Ok(frame)) => {
                    if let Some(trailers) = frame.trailers_ref() {
                        tail.trailers(trailers);
                    }
                }
                Some(Err(error)) => tail.record.error(error.kind.label()),
                None => {}
            }
        }
        match &frame {
            Some(Ok(frame)) if frame.is_trailers() => this.complete(),
            Some(Ok(_)) if this.is_end_stream() => this.complete(),
            Some(Ok(_)) => {}
            None => this.complete(),
            Some(Err(_)) => this.release(),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Empty => true,
            Source::Once(_) => false,
            Source::Http1(incoming) => incoming.is_end_stream(),
            Source::Http2(stream, _) => stream.is_end_stream(),
            Source::Gated(gated) => gated.1.is_end_stream(),
            Source::Replay(replay) => replay.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Empty => SizeHint::with_exact(0),
            Source::Once(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Source::Http1(incoming) => incoming.size_hint(),
            Source::Gated(gated) => gated.1.size_hint(),
            Source::Http2(..) | Source::Replay(_) => SizeHint::default(),
        }
    }
}

/// A body that is dropped before its end was given up by its reader: its record says so by not being finished.
impl Drop for Body {
    fn drop(&mut self) {
        if self.is_end_stream() {
            self.complete();
        } else if let Some(busy) = &self.busy {
            busy.cut();
        }
    }
}

impl Tail {
    fn trailers(&mut self, trailers: &HeaderMap) {
        if let Some(code) = headers::grpc_status(trailers) {
            self.record.grpc_status(code);
        }
    }
}

impl Patience {
    fn is_over(&mut self, pending: bool, cx: &mut Context<'_>) -> bool {
        if !pending {
            self.timer = None;
            return false;
        }
        let limit = self.limit;
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(Instant::now() + limit)));
        timer.as_mut().poll(cx).is_ready()
    }
}
