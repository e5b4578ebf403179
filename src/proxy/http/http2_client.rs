//! HTTP/2 connections to one address, shared by all its requests: the links between proxies, and applications that
//! speak HTTP/2.
//!
//! One connection is the rule: requests of a turn then leave in one TLS record and one write. Others are opened
//! where one would block: all its streams taken, or its window used up by large bodies.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    rc::Rc,
    time::Duration,
};

use bytes::Bytes;
use h2::{
    Ping, Reason,
    client::{self, ResponseFuture, SendRequest},
};
use http::StatusCode;
use tokio::sync::Mutex;

use super::{
    Request,
    body::{Body, Of},
    expect::Asked,
    headers,
    http1_client::Unanswered,
    http2_server::{CONNECTION_WINDOW, HEADER_TABLE, STREAM_WINDOW},
    pump,
    replay::{self, Reserve},
};
use crate::{
    proxy::{
        connect::Remote,
        context::Context,
        error::{Error, Kind},
        io::Io,
        observe::Protocol,
    },
    tls::{self, Alpn},
};

/// Connections to one address, a worker.
const MAX_CONNECTIONS: usize = 4;
/// As many as that where a peer allows few streams and all are taken: they may be long-lived ones, behind which a request
/// would wait for ever.
const MAX_FULL_CONNECTIONS: usize = 64;
/// Streams that are opened before the peer has said how many it allows: what RFC 9113 section 6.5.2 advises it to.
const INITIAL_STREAMS: usize = 100;
/// Times that a request is sent again here which its peer did not process.
const MAX_REPEATS: usize = 8;
/// Streams on a connection before another is opened.
const CROWDED: usize = 1024;
/// A peer that does not answer a ping this long while requests wait for it is gone (linkerd 2.x: 10 s and 3 s).
const PING_INTERVAL: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
pub(crate) struct Connections {
    /// In the order of their age: the first with room is taken, so that those a burst has made go idle again.
    open: RefCell<Vec<Connection>>,
    /// Held while dialling: everybody else waits for the same connection instead of opening their own.
    dialling: Mutex<()>,
    /// How many dials failed: who waited for one that did takes its failure for an answer.
    failures: Cell<u64>,
}

/// The connection's own task holds only what is in use: h2 closes a connection once nobody can send on it any more, and so it
/// ends with its endpoint.
#[derive(Debug)]
struct Connection {
    send: SendRequest<Bytes>,
    in_use: Rc<InUse>,
}

#[derive(Debug, Default)]
struct InUse {
    streams: Cell<usize>,
    /// Bodies that wait for the peer's window.
    stalled: Cell<usize>,
}

impl Connection {
    fn is_full(&self) -> bool {
        self.in_use.streams.get() >= self.send.current_max_send_streams()
    }

    fn has_room(&self) -> bool {
        self.in_use.stalled.get() == 0 && self.in_use.streams.get() < CROWDED && !self.is_full()
    }

    fn open_stream(&self) -> (SendRequest<Bytes>, Stream) {
        self.in_use.streams.set(self.in_use.streams.get() + 1);
        (self.send.clone(), Stream(Rc::clone(&self.in_use)))
    }
}

/// A stream in use.
#[derive(Debug)]
pub(crate) struct Stream(Rc<InUse>);

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.streams.set(self.0.streams.get() - 1);
    }
}

impl Connections {
    /// Sends `request` on a connection that has room. A connection that turns out to be ending is replaced; if the peer
    /// says that it did not process the request, it comes back.
    pub(crate) async fn send(
        self: &Rc<Self>,
        mut request: Request,
        remote: &Remote,
        cx: &Rc<Context>,
    ) -> Result<(http::Response<Body>, Stream), Unanswered> {
        headers::strip_hop_by_hop(request.headers_mut());
        let (parts, body) = request.into_parts();
        let (mut body, mut reserve) = (body, None);
        let mut repeated = 0;
        loop {
            let (send, stream) = match self.acquire(remote, cx).await {
                Ok(acquired) => acquired,
                Err(error) => return Err(Unanswered::unsent(error, Request::from_parts(parts, body))),
            };
            if reserve.is_none() && !body.is_empty() {
                (body, reserve) = both(replay::keep(body));
            }
            let head = http::Request::from_parts(parts.clone(), ());
            let failed = match exchange(send, head, body, parts.extensions.get().cloned(), &stream).await {
                Ok(response) => return Ok((response, stream)),
                Err(failed) => failed,
            };
            if !failed.is_unprocessed() {
                return Err(Unanswered { error: classify(failed.error), request: None });
            }
            let again = reserve.as_ref().map_or_else(|| Some(Body::empty()), Reserve::again);
            let Some(again) = again else {
                return Err(Unanswered { error: Error::caused(Kind::Connect, failed.error), request: None });
            };
            body = again;
            // A proxy refuses what its application was not there for: no use to ask it again. An application refuses what is
            // more than it allows at a time.
            let may_repeat = failed.is_ending() || remote.identity.is_none();
            if !may_repeat || repeated == MAX_REPEATS {
                let kind = if may_repeat { Kind::Unprocessed } else { Kind::Connect };
                let error = Error::caused(kind, failed.error);
                return Err(Unanswered::unsent(error, Request::from_parts(parts, body)));
            }
            repeated += 1;
            if failed.is_ending() {
                // The streams that it has may go on for long: nothing new goes there meanwhile.
                self.retire(&stream.0);
            }
        }
    }

    async fn acquire(
        self: &Rc<Self>,
        remote: &Remote,
        cx: &Rc<Context>,
    ) -> Result<(SendRequest<Bytes>, Stream), Error> {
        if let Some(stream) = self.open_stream() {
            return Ok(stream);
        }
        let failures = self.failures.get();
        let _dialling = self.dialling.lock().await;
        if let Some(stream) = self.open_stream() {
            return Ok(stream);
        }
        if self.failures.get() != failures {
            return Err(Error::new(Kind::Connect));
        }
        match self.dial(remote, cx).await {
            Ok(connection) => {
                let stream = connection.open_stream();
                self.open.borrow_mut().push(connection);
                Ok(stream)
            }
            Err(error) => {
                self.failures.set(failures + 1);
                Err(error)
            }
        }
    }

    /// On the oldest open connection that has room; `None` if all would block and another may be opened.
    fn open_stream(&self) -> Option<(SendRequest<Bytes>, Stream)> {
        let open = self.open.borrow();
        if let Some(roomy) = open.iter().find(|connection| connection.has_room()) {
            return Some(roomy.open_stream());
        }
        let most = if open.iter().all(Connection::is_full) { MAX_FULL_CONNECTIONS } else { MAX_CONNECTIONS };
        if open.len() < most {
            return None;
        }
        let least =
            open.iter().min_by_key(|connection| (connection.in_use.stalled.get(), connection.in_use.streams.get()));
        least.map(Connection::open_stream)
    }

    /// Opens a connection without a request for it, as a probe of health does.
    pub(crate) async fn probe(self: &Rc<Self>, remote: &Remote, cx: &Rc<Context>) -> Result<(), Error> {
        let connection = self.dial(remote, cx).await?;
        let mut open = self.open.borrow_mut();
        // A peer may be ejected though its connection is fine, because of the application behind it: one is enough.
        if open.is_empty() {
            open.push(connection);
        }
        Ok(())
    }

    fn retire(&self, in_use: &Rc<InUse>) {
        self.open.borrow_mut().retain(|connection| !Rc::ptr_eq(&connection.in_use, in_use));
    }

    async fn dial(self: &Rc<Self>, remote: &Remote, cx: &Rc<Context>) -> Result<Connection, Error> {
        let io = remote.connect(cx, Alpn::Http2).await?;
        let handshake = handshake(io, cx);
        let (send, mut driver) = tokio::time::timeout(cx.config.connect_timeout, handshake)
            .await
            .map_err(|_| Error::new(Kind::ConnectTimeout))??;
        // Only proxies are asked whether they live: gRPC servers take pings for an attack, and end the connection.
        let ping_pong = remote.identity.as_ref().and_then(|_| driver.ping_pong());
        let in_use = Rc::<InUse>::default();
        let (pool, used) = (Rc::downgrade(self), Rc::clone(&in_use));
        // Holds no drain watch: it serves requests that hold one, and is idle otherwise.
        let counted = remote.count(Protocol::Http2);
        tokio::task::spawn_local(async move {
            tokio::select! {
                // Whoever has a stream hears of the error there.
                _ = driver => {}
                () = alive(ping_pong, &used) => tracing::debug!("peer does not answer pings"),
            }
            if let Some(pool) = pool.upgrade() {
                pool.retire(&used);
            }
            drop(counted);
        });
        Ok(Connection { send, in_use })
    }
}

fn both<B, R>((body, reserve): (B, R)) -> (B, Option<R>) {
    (body, Some(reserve))
}

async fn handshake(io: Io, cx: &Context) -> Result<(SendRequest<Bytes>, client::Connection<Io, Bytes>), Error> {
    client::Builder::new()
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .initial_max_send_streams(INITIAL_STREAMS)
        .max_header_list_size(u32::try_from(cx.config.http.max_header_bytes).unwrap_or(u32::MAX))
        .header_table_size(HEADER_TABLE)
        .enable_push(false)
        // An answer that crosses its request's reset counts as the peer's error, over the connection's whole life: those
        // who give up must not cost the others their connection.
        .max_local_error_reset_streams(None)
        .handshake(io)
        .await
        .map_err(classify)
}

/// Resolves when the peer no longer answers though streams are open.
async fn alive(ping_pong: Option<h2::PingPong>, in_use: &InUse) {
    let Some(mut ping_pong) = ping_pong else { return std::future::pending().await };
    loop {
        tokio::time::sleep(PING_INTERVAL).await;
        if in_use.streams.get() == 0 {
            continue;
        }
        match tokio::time::timeout(PING_TIMEOUT, ping_pong.ping(Ping::opaque())).await {
            Ok(Ok(_)) => {}
            // The driver says why.
            Ok(Err(_)) => return std::future::pending().await,
            Err(_) => return,
        }
    }
}

/// Why there is no response.
struct Failed {
    error: h2::Error,
    /// Whether the request was given to the connection at all.
    sent: bool,
}

impl Failed {
    /// Did the connection end before the request could be sent, or did the peer say that it did nothing with it (RFC 9113
    /// section 8.7)?
    fn is_unprocessed(&self) -> bool {
        let error = &self.error;
        error.reason() == Some(Reason::REFUSED_STREAM)
            || (error.is_go_away() && error.is_remote() && error.reason() == Some(Reason::NO_ERROR))
            || (!self.sent && self.is_ending())
    }

    /// Is it all of the connection that takes no more requests?
    fn is_ending(&self) -> bool {
        self.error.is_go_away() || self.error.is_io()
    }
}

/// One request and the head of its response. A request body goes on in a task of its own: it may outlast the head.
async fn exchange(
    mut send: SendRequest<Bytes>,
    head: http::Request<()>,
    body: Body,
    asked: Option<Asked>,
    stream: &Stream,
) -> Result<http::Response<Body>, Failed> {
    let end = body.is_empty();
    let (mut response, mut sender) = send.send_request(head, end).map_err(|error| Failed { error, sent: false })?;
    // Whoever waits for the end of a connection must not keep it open.
    drop(send);
    if !end {
        let in_use = Rc::clone(&stream.0);
        tokio::task::spawn_local(async move {
            let stalls = |waits: bool| {
                let stalled = in_use.stalled.get();
                in_use.stalled.set(if waits { stalled + 1 } else { stalled - 1 });
            };
            let _ = pump::pump_watched(body, &mut sender, stalls).await;
        });
    }
    let failed = |error| Failed { error, sent: true };
    let response = match asked {
        None => response.await.map_err(failed)?,
        Some(asked) => interim(&mut response, &asked).await.map_err(failed)?.await.map_err(failed)?,
    };
    Ok(response.map(|stream| Body::http2(stream, Of::Response)))
}

/// Passes `100 Continue` on while the response is awaited.
async fn interim<'a>(response: &'a mut ResponseFuture, asked: &Asked) -> Result<&'a mut ResponseFuture, h2::Error> {
    while let Some(interim) = poll_fn(|cx| response.poll_informational(cx)).await {
        if interim?.status() == StatusCode::CONTINUE {
            asked.open();
        }
    }
    Ok(response)
}

fn classify(error: h2::Error) -> Error {
    let kind = match error.reason() {
        // Our own pump broke the stream off: it says why by the reason, see `pump`.
        Some(Reason::CANCEL) if !error.is_remote() => Kind::SlowClient,
        Some(Reason::INTERNAL_ERROR) if !error.is_remote() => Kind::Cancelled,
        _ if tls::reason::within(&error).starts_with("refused_") => Kind::PeerIdentity,
        _ => Kind::Reset,
    };
    Error::caused(kind, error)
}
