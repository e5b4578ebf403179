//! Requests that ask for another protocol on their connection (RFC 9110 section 7.8), WebSocket above all, and CONNECT:
//! each gets a connection of its own to the endpoint, and after `101` bytes go both ways.

use std::rc::Rc;

use http::{HeaderMap, HeaderValue, Method, StatusCode, Version, header};
use hyper::{client::conn::http1, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;

use tokio::sync::mpsc;

use super::{Request, Response, body::Body, headers, http1_client::Unanswered};
use crate::{
    net::splice,
    proxy::{
        connect::Remote,
        context::Context,
        error::Error,
        http::http1_client,
        io::Io,
        observe::{self, Protocol},
    },
    tls::Alpn,
};

pub(crate) fn is_asked_for(request: &Request) -> bool {
    request.version() != Version::HTTP_2
        && (request.method() == Method::CONNECT || headers::is_upgrade(request.headers()))
}

/// Held while the client's connection is joined with the endpoint's, so that it counts, and is drained, as open.
#[derive(Clone, Debug)]
pub(crate) struct Joined {
    pub(crate) _held: mpsc::Sender<()>,
}

/// Sends the request on a new connection; if the answer grants the upgrade, both sides are joined behind it.
pub(crate) async fn forward(mut request: Request, remote: &Remote, cx: &Rc<Context>) -> Result<Response, Unanswered> {
    let io = match remote.connect(cx, Alpn::Http1).await {
        Ok(io) => io,
        Err(error) => return Err(Unanswered::unsent(error, request)),
    };
    let client = request.extensions_mut().remove::<OnUpgrade>();
    let joined = request.extensions_mut().remove::<Joined>();
    let counted = Rc::new(remote.count(Protocol::Http1));
    keep_upgrade(request.headers_mut());
    *request.version_mut() = Version::HTTP_11;
    let lost =
        |error: hyper::Error| Unanswered { error: Error::caused(http1_client::kind_of(&error), error), request: None };
    let mut response = exchange(io, request, Rc::clone(&counted)).await.map_err(lost)?;
    let granted =
        response.status() == StatusCode::SWITCHING_PROTOCOLS || response.extensions().get::<OnUpgrade>().is_some();
    if granted && let (Some(client), Some(server)) = (client, response.extensions_mut().remove::<OnUpgrade>()) {
        let idle = cx.config.tcp_idle_timeout;
        tokio::task::spawn_local(async move {
            join(client, server, idle).await;
            drop((joined, counted));
        });
        keep_upgrade(response.headers_mut());
    } else {
        headers::strip_hop_by_hop(response.headers_mut());
    }
    Ok(response)
}

async fn exchange(
    io: Io,
    request: Request,
    counted: Rc<Option<observe::Connection>>,
) -> hyper::Result<http::Response<Body>> {
    let (mut send, connection) = http1::handshake(TokioIo::new(io)).await?;
    // Ends with the exchange, or with the handing over of its I/O.
    tokio::task::spawn_local(async move {
        let _ = connection.with_upgrades().await;
        drop(counted);
    });
    let response = send.send_request(request).await?;
    Ok(response.map(Body::http1))
}

async fn join(client: OnUpgrade, server: OnUpgrade, idle: std::time::Duration) {
    let (client, server) = match tokio::try_join!(client, server) {
        Ok(upgraded) => upgraded,
        Err(error) => return tracing::debug!(%error, "upgrade not completed"),
    };
    let (mut client, mut server) = (TokioIo::new(client), TokioIo::new(server));
    if let Err(error) = splice::splice(&mut client, &mut server, idle, |_, _| {}).await {
        tracing::debug!(%error, "upgraded connection ended");
    }
}

/// Drops what belongs to this connection only, but for the upgrade itself.
fn keep_upgrade(headers: &mut HeaderMap) {
    let upgrade = headers.get(header::UPGRADE).cloned();
    headers::strip_hop_by_hop(headers);
    if let Some(upgrade) = upgrade {
        headers.insert(header::UPGRADE, upgrade);
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    }
}
