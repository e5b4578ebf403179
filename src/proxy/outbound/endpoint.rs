//! How an endpoint is reached: its connections, and whom its requests are counted under.

use std::{
    rc::{Rc, Weak},
    time::{Duration, Instant},
};

use http::Version;
use rand::rng;

use crate::{
    model::endpoint::Endpoint,
    proxy::{
        balance::{
            health::{self, Verdict},
            pool,
        },
        connect::Remote,
        context::Context,
        error::{Error, Kind},
        http::{
            Request, Response,
            body::Holds,
            http1_client::{self, Unanswered},
            http2_client, upgrade,
        },
        observe::{Direction, Edge, EdgeKey, Observer, Tls},
    },
    rt::backoff::Backoff,
};

pub(crate) type Member = pool::Member<Reach>;
pub(crate) type Lease = pool::Lease<Reach>;

pub(crate) struct Reach {
    pub(crate) remote: Remote,
    pub(crate) edge: Rc<Edge>,
    pub(crate) http1: Rc<http1_client::Pool>,
    http2: Rc<http2_client::Connections>,
}

impl Reach {
    /// `plain`: why it would be reached in plaintext, should it not be meshed.
    pub(crate) fn new(endpoint: &Endpoint, target: &Rc<str>, plain: Tls, observer: &Observer) -> Self {
        let peer_id = endpoint.identity.as_ref().map(|id| Rc::from(id.to_string()));
        let tls = if endpoint.is_meshed() { Tls::Mutual } else { plain };
        let edge = observer.edge(edge_key(endpoint, target, peer_id, tls));
        Self { remote: Remote::of(endpoint, Rc::clone(&edge)), edge, http1: Rc::default(), http2: Rc::default() }
    }

    /// Sends a request there: over the link when the peer is meshed, else as what it came in as. What asks for an upgrade
    /// gets a connection of its own.
    pub(crate) async fn send(&self, request: Request, cx: &Rc<Context>) -> Result<(Response, Holds), Unanswered> {
        if upgrade::is_asked_for(&request) {
            // Boxed, as all that is rare here: a request's future is moved into place for every request.
            let forwarded = Box::pin(upgrade::forward(request, &self.remote, cx)).await;
            return forwarded.map(|response| (response, Holds::Nothing));
        }
        let http1 = request.version() != Version::HTTP_2;
        if http1 && self.remote.identity.is_none() {
            let (response, returning) = self.http1.send(request, &self.remote, cx).await?;
            return Ok((response, Holds::Connection(returning)));
        }
        let (mut response, stream) = self.http2.send(request, &self.remote, cx).await?;
        if http1 {
            *response.version_mut() = Version::HTTP_11;
        }
        Ok((response, Holds::Stream(stream)))
    }
}

pub(crate) fn edge_key(endpoint: &Endpoint, target: &Rc<str>, peer_id: Option<Rc<str>>, tls: Tls) -> EdgeKey {
    EdgeKey {
        direction: Direction::Outbound,
        target: Rc::clone(target),
        peer: endpoint.workload.as_ref().map(|workload| Rc::from(workload.to_string())),
        peer_id,
        tls,
    }
}

/// Takes note of how a request to `lease`'s endpoint went: when it was sent and answered, or why it was not.
pub(crate) fn note(lease: &Lease, outcome: Result<(Instant, Instant), &Error>, cx: &Rc<Context>) {
    let member = lease.member();
    let verdict = match outcome {
        Ok((sent, now)) => {
            lease.answered(sent, now);
            return;
        }
        Err(error) => match error.kind {
            Kind::Connect | Kind::ConnectTimeout | Kind::PeerIdentity | Kind::Unprocessed => member.connect_failed(),
            Kind::Reset | Kind::BadResponse => member.reset(),
            _ => return,
        },
    };
    if verdict == Verdict::Eject {
        tracing::debug!(addr = %member.endpoint.addr, "endpoint ejected");
        tokio::task::spawn_local(probe(Rc::downgrade(member), member.probe_wait(), Rc::clone(cx)));
    }
}

/// Tries an ejected endpoint until it can be connected to, or is gone from the target, so that no request has to.
async fn probe(member: Weak<Member>, wait: Duration, cx: Rc<Context>) {
    let mut backoff = Backoff::new(wait, health::MAX_WAIT);
    loop {
        tokio::time::sleep(backoff.next(&mut rng())).await;
        let Some(member) = member.upgrade() else { return };
        if !member.is_ejected() {
            return;
        }
        let reached = if member.endpoint.is_meshed() {
            member.reach.http2.probe(&member.reach.remote, &cx).await
        } else {
            member.reach.remote.connect(&cx, crate::tls::Alpn::Opaque).await.map(drop)
        };
        match reached {
            Ok(()) => {
                tracing::debug!(addr = %member.endpoint.addr, "endpoint is back");
                member.probed();
                return;
            }
            Err(error) => tracing::trace!(addr = %member.endpoint.addr, %error, "endpoint still down"),
        }
    }
}
