//! HTTP/2 connections to one address, shared by all its requests: the links between proxies, and applications that
//! speak HTTP/2.
//!
//! One connection is the rule: requests of a turn then leave in one TLS record and one write (DESIGN 8). Others are opened
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
    body::Body,
    expect::Asked,
    headers,
    http1_client::Unanswered,
    http2_server::{CONNECTION_WINDOW, HEADER_TABLE, STREAM_WINDOW},
    pump, replay,
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
/// Streams before the peer's SETTINGS are there.
const INITIAL_STREAMS: usize = 100;
/// Times that a request is sent which the peer does not process.
const MAX_ATTEMPTS: usize = 8;
/// Streams on a connection before another is opened, if the peer does not want fewer.
const CROWDED: usize = 1024;
/// A peer that does not answer a ping this long while requests wait for it is gone (linkerd 2.x: 10 s and 3 s).
const PING_INTERVAL: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
pub(crate) struct Connections {
    open: RefCell<Vec<Rc<Connection>>>,
    /// Held while dialling: everybody else waits for the same connection instead of opening their own.
    dialling: Mutex<()>,
    /// How many dials failed: who waited for one that did takes its failure for an answer.
    failures: Cell<u64>,
}

#[derive(Debug)]
struct Connection {
    send: SendRequest<Bytes>,
    streams: Cell<usize>,
    /// Bodies that wait for the peer's window.
    stalled: Cell<usize>,
    closed: Cell<bool>,
}

/// A stream in use.
#[derive(Debug)]
pub(crate) struct Stream(Rc<Connection>);

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.streams.set(self.0.streams.get() - 1);
    }
}

impl Connections {
    /// Sends `request` on a connection that has room. If the peer says that it did not process it (it refused the stream, or
    /// is closing the connection), the request goes out once more; then it comes back.
    pub(crate) async fn send(
        self: &Rc<Self>,
        mut request: Request,
        remote: &Remote,
        cx: &Rc<Context>,
    ) -> Result<(http::Response<Body>, Stream), Unanswered> {
        headers::strip_hop_by_hop(request.headers_mut());
        for _ in 1..MAX_ATTEMPTS {
            match self.attempt(request, remote, cx).await {
                Err(Unanswered { error, request: Some(back) }) if error.kind == Kind::Unprocessed => request = back,
                answered => return answered,
            }
        }
        self.attempt(request, remote, cx).await
    }

    async fn attempt(
        self: &Rc<Self>,
        mut request: Request,
        remote: &Remote,
        cx: &Rc<Context>,
    ) -> Result<(http::Response<Body>, Stream), Unanswered> {
        let connection = match self.acquire(remote, cx).await {
            Ok(connection) => connection,
            Err(error) => return Err(Unanswered::unsent(error, request)),
        };
        connection.streams.set(connection.streams.get() + 1);
        let stream = Stream(connection);
        let asked = request.extensions_mut().remove::<Asked>();
        let (parts, body) = request.into_parts();
        let mut spare = parts.clone();
        let (body, reserve) = if body.is_empty() { (body, None) } else { both(replay::keep(body)) };
        match exchange(http::Request::from_parts(parts, ()), body, asked.as_ref(), &stream).await {
            Ok(response) => Ok((response, stream)),
            Err(error) if is_unprocessed(&error) => {
                // What is being closed takes nothing more.
                stream.0.closed.set(stream.0.closed.get() || error.is_go_away());
                if let Some(asked) = asked {
                    spare.extensions.insert(asked);
                }
                let body = match &reserve {
                    None => Some(Body::empty()),
                    Some(reserve) => reserve.again(),
                };
                // A proxy refuses what its application was not there for: no use to ask it again.
                let again = error.is_go_away() || remote.identity.is_none();
                let error = Error::caused(if again { Kind::Unprocessed } else { Kind::Connect }, error);
                Err(match body {
                    Some(body) => Unanswered::unsent(error, Request::from_parts(spare, body)),
                    None => Unanswered { error, request: None },
                })
            }
            Err(error) => Err(Unanswered { error: classify(error), request: None }),
        }
    }

    async fn acquire(self: &Rc<Self>, remote: &Remote, cx: &Rc<Context>) -> Result<Rc<Connection>, Error> {
        if let Some(connection) = self.roomy() {
            return Ok(connection);
        }
        let failures = self.failures.get();
        let _dialling = self.dialling.lock().await;
        if let Some(connection) = self.roomy() {
            return Ok(connection);
        }
        if self.failures.get() != failures {
            return Err(Error::new(Kind::Connect));
        }
        match self.dial(remote, cx).await {
            Ok(connection) => Ok(connection),
            Err(error) => {
                self.failures.set(failures + 1);
                Err(error)
            }
        }
    }

    /// The open connection with the fewest streams; none if all would block and another may be opened.
    fn roomy(&self) -> Option<Rc<Connection>> {
        let open = self.open.borrow();
        let best = open.iter().filter(|c| !c.closed.get()).min_by_key(|c| (c.stalled.get(), c.streams.get()))?;
        let crowded = CROWDED.min(best.send.current_max_send_streams());
        let blocked = best.stalled.get() > 0 || best.streams.get() >= crowded;
        (!blocked || open.len() >= MAX_CONNECTIONS).then(|| Rc::clone(best))
    }

    /// Opens a connection without a request for it, as a probe of health does.
    pub(crate) async fn probe(self: &Rc<Self>, remote: &Remote, cx: &Rc<Context>) -> Result<(), Error> {
        self.dial(remote, cx).await.map(drop)
    }

    async fn dial(self: &Rc<Self>, remote: &Remote, cx: &Rc<Context>) -> Result<Rc<Connection>, Error> {
        let io = remote.connect(cx, Alpn::Http2).await?;
        let handshake = handshake(io, cx);
        let (send, mut driver) = tokio::time::timeout(cx.config.connect_timeout, handshake)
            .await
            .map_err(|_| Error::new(Kind::ConnectTimeout))??;
        let ping_pong = driver.ping_pong();
        let connection =
            Rc::new(Connection { send, streams: Cell::new(0), stalled: Cell::new(0), closed: Cell::new(false) });
        let (pool, this) = (Rc::downgrade(self), Rc::clone(&connection));
        // Holds no drain watch: it serves requests that hold one, and is idle otherwise.
        let counted = remote.count(Protocol::Http2);
        tokio::task::spawn_local(async move {
            tokio::select! {
                // Whoever has a stream hears of the error there.
                _ = driver => {}
                () = alive(ping_pong, &this) => tracing::debug!("peer does not answer pings"),
            }
            this.closed.set(true);
            if let Some(pool) = pool.upgrade() {
                pool.open.borrow_mut().retain(|c| !Rc::ptr_eq(c, &this));
            }
            drop(counted);
        });
        self.open.borrow_mut().push(Rc::clone(&connection));
        Ok(connection)
    }
}

fn both<B, R>((body, reserve): (B, R)) -> (B, Option<R>) {
    (body, Some(reserve))
}

async fn handshake(io: Io, cx: &Context) -> Result<(SendRequest<Bytes>, client::Connection<Io, Bytes>), Error> {
    client::Builder::new()
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        // Until the peer has said: the least that RFC 9113 section 6.5.2 recommends. More would be refused by many.
        .initial_max_send_streams(INITIAL_STREAMS)
        .max_header_list_size(u32::try_from(cx.config.http.max_header_bytes).unwrap_or(u32::MAX))
        .header_table_size(HEADER_TABLE)
        .enable_push(false)
        .handshake(io)
        .await
        .map_err(classify)
}

/// Resolves when the peer no longer answers though streams are open.
async fn alive(ping_pong: Option<h2::PingPong>, connection: &Connection) {
    let Some(mut ping_pong) = ping_pong else { return std::future::pending().await };
    loop {
        tokio::time::sleep(PING_INTERVAL).await;
        if connection.streams.get() == 0 {
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

/// One request and the head of its response. A request body goes on in a task of its own: it may outlast the head.
async fn exchange(
    head: http::Request<()>,
    body: Body,
    asked: Option<&Asked>,
    stream: &Stream,
) -> Result<http::Response<Body>, h2::Error> {
    let end = body.is_empty();
    let (mut response, mut sender) = stream.0.send.clone().send_request(head, end)?;
    if !end {
        let connection = Rc::clone(&stream.0);
        tokio::task::spawn_local(async move {
            let stalls = |waits: bool| {
                let stalled = connection.stalled.get();
                connection.stalled.set(if waits { stalled + 1 } else { stalled - 1 });
            };
            let _ = pump::pump_watched(body, &mut sender, stalls).await;
        });
    }
    let response = match asked {
        None => response.await?,
        Some(asked) => interim(&mut response, asked).await?.await?,
    };
    Ok(response.map(Body::http2))
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

/// Did the peer say that it did nothing with the request (RFC 9113 section 8.7)?
fn is_unprocessed(error: &h2::Error) -> bool {
    error.reason() == Some(Reason::REFUSED_STREAM)
        || (error.is_go_away() && error.is_remote() && error.reason() == Some(Reason::NO_ERROR))
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
