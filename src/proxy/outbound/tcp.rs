//! The outbound pipeline for bytes: opaque protocols, and the application's own TLS, which passes through.

use std::{net::SocketAddr, rc::Rc};

use bytes::Bytes;
use tokio::io::{AsyncRead, ReadBuf};

use super::{
    endpoint::{self, Lease},
    target::Target,
};
use crate::{
    net::splice::Side,
    proxy::{
        carry::carry,
        context::Context,
        error::{Error, Kind},
        io::Io,
        observe::{Edge, Protocol, Tls},
    },
    rt::clock,
    tls::Alpn,
};

/// Endpoints that one connection may be offered to.
const MAX_TRIES: usize = 5;

/// What the bytes are, as far as anybody needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum What {
    Opaque,
    Tls { sni: Option<String> },
}

impl What {
    pub(crate) fn label(&self) -> &'static str {
        self.protocol().label()
    }

    fn protocol(&self) -> Protocol {
        match self {
            Self::Opaque => Protocol::Opaque,
            Self::Tls { .. } => Protocol::Tls,
        }
    }
}

/// A connection to an endpoint, and the place it takes there.
pub(crate) struct Upstream {
    pub(crate) io: Io,
    lease: Lease,
}

impl AsyncRead for Upstream {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

/// Opens a connection before it is known what it will carry.
pub(crate) async fn speculate(target: &Target, cx: &Rc<Context>) -> Result<Upstream, Error> {
    connect(target, Alpn::Undetermined, cx).await
}

/// The endpoint that costs least; another one while none was reached.
async fn connect(target: &Target, alpn: Alpn, cx: &Rc<Context>) -> Result<Upstream, Error> {
    let mut tried: Vec<SocketAddr> = Vec::new();
    let mut last_error = Error::new(Kind::NoEndpoints);
    while tried.len() < MAX_TRIES {
        let now = clock::now();
        let Some(lease) = target.pick(now, &tried) else { break };
        match lease.member().reach.remote.connect(cx, alpn).await {
            Ok(io) => {
                // For connections the time to connect is the latency.
                lease.answered(now, clock::now());
                return Ok(Upstream { io, lease });
            }
            Err(error) => {
                endpoint::note(&lease, Err(&error), cx);
                lease.member().reach.edge.failed(error.kind.label());
                tried.push(lease.member().endpoint.addr);
                last_error = error;
            }
        }
    }
    Err(last_error)
}

/// Carries `client`'s bytes to an endpoint and back until both have closed.
///
/// # Errors
/// When no endpoint was reached, or one side broke off.
pub(crate) async fn forward(
    client: Io,
    target: &Target,
    what: What,
    speculative: Option<(Upstream, Bytes)>,
    cx: &Rc<Context>,
) -> Result<(), Error> {
    let (upstream, greeting) = match speculative {
        Some(open) => open,
        None => match connect(target, Alpn::Opaque, cx).await {
            Ok(upstream) => (upstream, Bytes::new()),
            Err(error) => {
                if error.kind == Kind::NoEndpoints {
                    target.edge().failed(error.kind.label());
                }
                return Err(error);
            }
        },
    };
    if let What::Tls { sni } = &what {
        tracing::debug!(target = %target.name(), sni = sni.as_deref().unwrap_or_default(), "TLS passed through");
    }
    let connection = edge_of(&upstream, target, &what).connection(what.protocol(), clock::now());
    // The place at the endpoint is held until the end.
    let Upstream { io, lease: _lease } = upstream;
    carry(client, io.with_prefix(greeting), Side::Right, &connection, cx.config.tcp_idle_timeout).await
}

/// Plain towards the endpoint, but the application encrypts by itself: that is its own reason.
fn edge_of(upstream: &Upstream, target: &Target, what: &What) -> Rc<Edge> {
    let member = upstream.lease.member();
    match what {
        What::Tls { sni } if !member.endpoint.is_meshed() => {
            let name = target.name_with(sni.as_deref(), member.endpoint.addr.port());
            let key = endpoint::edge_key(&member.endpoint, &name, None, Tls::Passthrough);
            target.observer().edge(key)
        }
        _ => Rc::clone(&member.reach.edge),
    }
}
