//! The API that proxies use: HTTP/2 over TLS. A client certificate is optional at the handshake, since certify comes
//! before there is one, and demanded by every other path.

use std::{cell::RefCell, convert::Infallible, rc::Rc, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{Stream, stream};
use http::{Method, Request, StatusCode};
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, warn};

use super::{
    identity::Authority,
    index::{Asked, Index, Published, published::Snapshot},
};
use crate::{
    api::{
        PING_INTERVAL,
        executor::LocalExecutor,
        server::{self, Answer},
    },
    model::identity::SpiffeId,
    rt::{clock, drain},
    tls,
};

/// What requests are answered from.
pub(crate) struct Api {
    pub(crate) authority: Rc<Authority>,
    pub(crate) index: Rc<RefCell<Index>>,
    /// Its strong count, less this one, is the number of open streams.
    pub(crate) streams: Rc<()>,
}

const MAX_CONNECTIONS: usize = 8192;
/// A proxy has one for each target it talks to.
const MAX_STREAMS: u32 = 4096;
const MAX_HEADER_BYTES: u32 = 16 << 10;
const MAX_CERTIFY_BYTES: usize = 64 << 10;
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(5);
/// A peer without a certificate is here to certify and leave.
const ANONYMOUS_DEADLINE: Duration = Duration::from_secs(30);
const KEEPALIVE: Duration = Duration::from_secs(20);
const KEEPALIVE_DEADLINE: Duration = Duration::from_secs(10);
/// Out of file descriptors: accepting again at once would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

impl Api {
    /// Accepts until the drain, then sends GOAWAY to everyone and waits for the last to leave.
    pub(crate) async fn serve(
        self: Rc<Self>,
        listener: TcpListener,
        tls: watch::Receiver<Arc<ServerConfig>>,
        mut drain: drain::Watch,
    ) {
        let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut connections = JoinSet::new();
        loop {
            let accept = async {
                let permit = Arc::clone(&permits).acquire_owned().await;
                (listener.accept().await, permit)
            };
            let (accepted, permit) = tokio::select! {
                accepted = accept => accepted,
                Some(_) = connections.join_next() => continue,
                () = drain.signalled() => break,
            };
            match accepted {
                Ok((tcp, _)) => {
                    let acceptor = TlsAcceptor::from(Arc::clone(&tls.borrow()));
                    let connection = Rc::clone(&self).connection(tcp, acceptor, drain.clone());
                    connections.spawn_local(async move {
                        connection.await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    warn!(%error, "accepting a connection failed");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(listener);
        while connections.join_next().await.is_some() {}
    }

    async fn connection(self: Rc<Self>, tcp: TcpStream, acceptor: TlsAcceptor, mut drain: drain::Watch) {
        // Small lines that somebody waits for; failing to set it costs only time.
        let _ = tcp.set_nodelay(true);
        let stream = match timeout(HANDSHAKE_DEADLINE, acceptor.accept(tcp)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return debug!(reason = tls::reason(&error), %error, "handshake failed"),
            Err(_) => return debug!("handshake took too long"),
        };
        let peer = tls::peer_id(stream.get_ref().1.peer_certificates()).map(Arc::new);
        let anonymous = peer.is_none();
        let (api, draining) = (self, drain.clone());
        let service = service_fn(move |request| {
            let (api, peer, drain) = (Rc::clone(&api), peer.clone(), draining.clone());
            async move { Ok::<_, Infallible>(api.answer(request, peer, drain).await) }
        });
        let mut builder = http2::Builder::new(LocalExecutor);
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .max_header_list_size(MAX_HEADER_BYTES)
            .keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE_DEADLINE);
        let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = sleep(ANONYMOUS_DEADLINE), if anonymous => return,
            () = drain.signalled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            debug!(reason = tls::reason::within(&error), %error, "connection ended");
        }
    }

    async fn answer(&self, request: Request<Incoming>, peer: Option<Arc<SpiffeId>>, drain: drain::Watch) -> Answer {
        let (head, body) = request.into_parts();
        let known = matches!(head.uri.path(), "/v1/certify" | "/v1/outbound" | "/v1/inbound");
        match (&head.method, head.uri.path(), peer) {
            (&Method::POST, "/v1/certify", peer) => self.certify(body, peer).await,
            (&Method::GET, "/v1/outbound", Some(_)) => self.outbound(head.uri.query(), drain),
            (&Method::GET, "/v1/inbound", Some(peer)) => {
                let watch = self.index.borrow_mut().watch_inbound(&peer);
                server::stream(lines(watch, drain, Rc::clone(&self.streams)))
            }
            (&Method::GET, "/v1/outbound" | "/v1/inbound", None) => {
                server::refuse(StatusCode::UNAUTHORIZED, "a client certificate of this mesh is needed")
            }
            _ if known => server::refuse(StatusCode::METHOD_NOT_ALLOWED, "this method is not answered here"),
            _ => server::refuse(StatusCode::NOT_FOUND, "there is nothing here"),
        }
    }

    async fn certify(&self, body: Incoming, peer: Option<Arc<SpiffeId>>) -> Answer {
        let request = match server::read(body, MAX_CERTIFY_BYTES).await {
            Ok(request) => request,
            Err(error) => return server::refuse(error.status(), error),
        };
        match self.authority.certify(&request, peer.as_ref(), clock::unix_seconds()) {
            Ok(certificate) => server::json(StatusCode::OK, &certificate),
            Err(refusal) => {
                warn!(error = %refusal, "certificate refused");
                server::refuse(refusal.status(), refusal)
            }
        }
    }

    fn outbound(&self, query: Option<&str>, drain: drain::Watch) -> Answer {
        let target = query.unwrap_or_default().split('&').find_map(|pair| pair.strip_prefix("target="));
        let Some(asked) = target.and_then(Asked::parse) else {
            return server::refuse(StatusCode::BAD_REQUEST, "`target` must be NS/SERVICE:PORT or IP:PORT");
        };
        let watch = self.index.borrow_mut().watch(asked);
        server::stream(lines(watch, drain, Rc::clone(&self.streams)))
    }
}

/// A value's versions as lines, pings in between. Polled only when the peer has room: what happened meanwhile is
/// skipped, and the newest snapshot sent.
fn lines<T: Snapshot + 'static>(
    watch: watch::Receiver<Arc<Published<T>>>,
    drain: drain::Watch,
    open: Rc<()>,
) -> impl Stream<Item = Bytes> {
    stream::unfold((watch, drain, open, 0), |(mut watch, mut drain, open, mut sent)| async move {
        loop {
            let current = Arc::clone(&watch.borrow_and_update());
            if current.version != sent {
                let line = current.line_after(sent);
                sent = current.version;
                return Some((line, (watch, drain, open, sent)));
            }
            tokio::select! {
                changed = watch.changed() => changed.ok()?,
                () = drain.signalled() => return None,
                () = sleep(PING_INTERVAL / 2) => return Some((PING, (watch, drain, open, sent))),
            }
        }
    })
}

const PING: Bytes = Bytes::from_static(b"{\"ping\":{}}\n");
