//! Connections to the workload: mutual TLS from another proxy, the application's own TLS, or plaintext from whoever is
//! not meshed.

use std::{
    cell::RefCell,
    collections::HashMap,
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::{
    connect::Remote,
    context::Context,
    detect::Client,
    error::{Error, Kind},
    http::{self, http1_server, http2_server},
    io::{Io, Raw},
    observe::{Direction, Edge, EdgeKey, Protocol, Tls},
    outbound::request::complete_authority,
    race::{self, Outcome, Patience},
};
use crate::{
    model::service::ProtocolHint,
    rt::{clock, drain},
    tls::{self, Alpn},
};

pub(crate) mod app;
pub(crate) mod request;
pub(crate) mod tcp;

use app::App;

/// The applications behind this proxy, one for each port: a worker's view.
#[derive(Default)]
pub(crate) struct Apps {
    known: RefCell<HashMap<SocketAddr, Rc<App>>>,
}

impl Apps {
    pub(crate) fn at(&self, addr: SocketAddr) -> Rc<App> {
        Rc::clone(self.known.borrow_mut().entry(addr).or_insert_with(|| Rc::new(App::new(addr))))
    }

    pub(crate) fn sweep(&self, now: Instant) {
        for app in self.known.borrow().values() {
            app.http1.sweep(now);
        }
    }
}

/// Serves one connection for `app`.
///
/// # Errors
/// For the log and the counters: whoever is at the other end has been told.
pub(crate) async fn serve(
    mut client: TcpStream,
    app: Rc<App>,
    hint: ProtocolHint,
    cx: Rc<Context>,
    mut drain: drain::Watch,
) -> Result<(), Error> {
    let patience = Patience {
        silence: cx.config.detect_wait.max(HELLO),
        opening: cx.config.http.header_timeout,
        idle: cx.config.http.idle_timeout,
    };
    // Even a port with a hint is looked at: its callers may be meshed or not. But the application is not asked first.
    let patience = match hint {
        ProtocolHint::Http1 | ProtocolHint::Http2 | ProtocolHint::Grpc => {
            Patience { silence: cx.config.http.idle_timeout, ..patience }
        }
        _ => patience,
    };
    let outcome = tokio::select! {
        biased;
        outcome = race::race(&mut client, patience, || app.remote.connect(&cx, Alpn::Opaque)) => outcome,
        // Opened ahead of need, as pools do: it has not asked for anything yet.
        () = drain.signalled() => return Ok(()),
    };
    match outcome.map_err(|error| Error::caused(Kind::Cancelled, error))? {
        Outcome::Client { verdict: Client::Tls { alpn, .. }, bytes, .. }
            if alpn.iter().any(|id| Alpn::from_id(id).is_some()) =>
        {
            meshed(client, bytes, app, cx, drain).await
        }
        Outcome::Client { verdict, bytes, speculative } => {
            let io = Io::tcp(client).with_prefix(bytes);
            let (protocol, tls) = match (&verdict, hint) {
                (_, ProtocolHint::Opaque) => (Client::Opaque, Tls::NotMeshed),
                (Client::Tls { .. }, _) => (verdict, Tls::Passthrough),
                _ => (verdict, Tls::NotMeshed),
            };
            let edge = cx.observer.edge(edge_key(&app, None, tls));
            match protocol {
                Client::Http1 => http1(io, app, edge, cx, drain).await,
                Client::Http2 => http2(io, app, edge, cx, drain).await,
                protocol => tcp::forward(io, &app, &protocol, speculative, &edge, &cx).await,
            }
        }
        Outcome::Server { connection, bytes } => {
            let edge = cx.observer.edge(edge_key(&app, None, Tls::NotMeshed));
            tcp::forward(Io::tcp(client), &app, &Client::Opaque, Some((connection, bytes)), &edge, &cx).await
        }
    }
}

/// A peer's proxy: its ALPN says what the connection carries.
async fn meshed(
    client: TcpStream,
    hello: Bytes,
    app: Rc<App>,
    cx: Rc<Context>,
    drain: drain::Watch,
) -> Result<(), Error> {
    let own = cx.identity().filter(|own| !own.is_expired(clock::unix_seconds()));
    let own = own.ok_or_else(|| Error::new(Kind::NoIdentity))?;
    let handshake = TlsAcceptor::from(std::sync::Arc::clone(&own.server)).accept(Io::raw(client, hello));
    let stream = tokio::time::timeout(cx.config.http.header_timeout, handshake)
        .await
        .map_err(|_| Error::new(Kind::SlowClient))?
        .map_err(|error| {
            // The reason is a label of its own: an operator has to tell a foreign certificate from an expired one.
            cx.observer.refused(Direction::Inbound, tls::reason(&error));
            Error::caused(Kind::PeerIdentity, error)
        })?;
    let (peer, alpn) = peer_of(&stream)?;
    let edge = cx.observer.edge(edge_key(&app, Some(peer.into()), Tls::Mutual));
    let io = Io::TlsServer(Box::new(stream));
    match alpn {
        Alpn::Http2 => link(io, app, edge, cx, drain).await,
        Alpn::Http1 => http1(io, app, edge, cx, drain).await,
        Alpn::Opaque | Alpn::Undetermined => tcp::forward(io, &app, &Client::Opaque, None, &edge, &cx).await,
    }
}

fn peer_of(stream: &TlsStream<Raw>) -> Result<(String, Alpn), Error> {
    let session = stream.get_ref().1;
    let peer = tls::peer_id(session.peer_certificates()).ok_or_else(|| Error::new(Kind::PeerIdentity))?;
    let alpn = session.alpn_protocol().and_then(Alpn::from_id).ok_or_else(|| Error::new(Kind::PeerIdentity))?;
    Ok((peer.to_string(), alpn))
}

async fn http1(io: Io, app: Rc<App>, edge: Rc<Edge>, cx: Rc<Context>, drain: drain::Watch) -> Result<(), Error> {
    let _counted = edge.connection(Protocol::Http1, clock::now());
    let limits = cx.config.http;
    let handler = move |mut request: http::Request| {
        let (app, edge, cx) = (Rc::clone(&app), Rc::clone(&edge), Rc::clone(&cx));
        async move {
            let refused = http::headers::normalize_http1(&mut request).err();
            let refused = refused.map(|why| Error::caused(Kind::BadRequest, why));
            request::answer(request, refused, &app, &edge, &cx).await
        }
    };
    http1_server::serve(io, &limits, drain, handler).await
}

async fn http2(io: Io, app: Rc<App>, edge: Rc<Edge>, cx: Rc<Context>, drain: drain::Watch) -> Result<(), Error> {
    let _counted = edge.connection(Protocol::Http2, clock::now());
    let limits = cx.config.http;
    let handler = move |mut request: http::Request| {
        let (app, edge, cx) = (Rc::clone(&app), Rc::clone(&edge), Rc::clone(&cx));
        complete_authority(&mut request, "");
        async move { http2_server::Answer::Response(request::answer(request, None, &app, &edge, &cx).await) }
    };
    http2_server::serve(io, &limits, drain, handler).await
}

/// A link from another proxy: what came in there as HTTP/1 leaves here as HTTP/1, and what reached nobody goes back.
async fn link(io: Io, app: Rc<App>, edge: Rc<Edge>, cx: Rc<Context>, drain: drain::Watch) -> Result<(), Error> {
    let _counted = edge.connection(Protocol::Http2, clock::now());
    let limits = cx.config.http;
    let handler = move |mut request: http::Request| {
        let (app, edge, cx) = (Rc::clone(&app), Rc::clone(&edge), Rc::clone(&cx));
        if request.uri().authority().is_none() {
            *request.version_mut() = ::http::Version::HTTP_11;
        }
        async move { request::relay(request, &app, &edge, &cx).await }
    };
    http2_server::serve(io, &limits, drain, handler).await
}

fn edge_key(app: &App, peer_id: Option<Rc<str>>, tls: Tls) -> EdgeKey {
    EdgeKey { direction: Direction::Inbound, target: Rc::clone(&app.port), peer: None, peer_id, tls }
}

impl App {
    fn new(addr: SocketAddr) -> Self {
        Self {
            port: addr.port().to_string().into(),
            remote: Remote::plain(addr),
            http1: Rc::default(),
            http2: Rc::default(),
        }
    }
}

/// For a peer's ClientHello, before its silence means that it waits for the application to speak. Longer than for the
/// workload's own connections: a peer sends it at once, and a greeting in its place would break the handshake. Only
/// clients that are not meshed wait this long, and only where the server speaks first.
const HELLO: Duration = Duration::from_millis(100);
