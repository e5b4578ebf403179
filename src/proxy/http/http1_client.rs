//! HTTP/1 connections to one address, kept alive between requests: to the application, and to endpoints without a proxy.

use std::{
    cell::RefCell,
    rc::{Rc, Weak},
    time::{Duration, Instant},
};

use http::Version;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;

use super::{Request, body::Body, expect::Asked, headers};
use crate::{
    proxy::{
        connect::Remote,
        context::Context,
        error::{Error, Kind},
        io::Io,
        observe::Protocol,
    },
    rt::clock,
    tls::Alpn,
};

/// Shorter than what servers keep a connection for (the shortest common default is Node's 5 s), so that a request is not
/// sent into a connection that is being closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(4);

/// Idle connections that are kept, a worker and address.
const MAX_IDLE: usize = 512;

#[derive(Debug, Default)]
pub(crate) struct Pool {
    /// The most recently used last: it is taken first, so that a burst's surplus ages out.
    idle: RefCell<Vec<Idle>>,
}

#[derive(Debug)]
struct Idle {
    send: SendRequest<Body>,
    since: Instant,
}

/// A connection in use; goes back to its pool when dropped, if it can take another request.
#[derive(Debug)]
pub(crate) struct Returning {
    pool: Weak<Pool>,
    send: Option<SendRequest<Body>>,
}

/// A request that was not answered, and the request itself if it never left.
pub(crate) struct Unanswered {
    pub(crate) error: Error,
    pub(crate) request: Option<Request>,
}

impl Unanswered {
    pub(crate) fn unsent(error: Error, request: Request) -> Self {
        Self { error: error.unsent(), request: Some(request) }
    }
}

impl Pool {
    /// Sends `request` on an idle connection or a new one. A connection that turns out to be closed before anything was
    /// written is replaced.
    pub(crate) async fn send(
        self: &Rc<Self>,
        mut request: Request,
        remote: &Remote,
        cx: &Rc<Context>,
    ) -> Result<(http::Response<Body>, Returning), Unanswered> {
        prepare(&mut request);
        while let Some(send) = self.take(clock::now()) {
            match self.exchange(send, request).await {
                Err(Unanswered { request: Some(back), .. }) => request = back,
                answered => return answered,
            }
        }
        // Boxed, because it is rare: the future of a request on an idle connection stays small.
        match Box::pin(connect(remote, cx)).await {
            Ok(send) => self.exchange(send, request).await,
            Err(error) => Err(Unanswered::unsent(error, request)),
        }
    }

    fn take(&self, now: Instant) -> Option<SendRequest<Body>> {
        let mut idle = self.idle.borrow_mut();
        while let Some(Idle { send, since }) = idle.pop() {
            if now.saturating_duration_since(since) > IDLE_TIMEOUT {
                // All below are older.
                idle.clear();
                return None;
            }
            if send.is_ready() {
                return Some(send);
            }
        }
        None
    }

    async fn exchange(
        self: &Rc<Self>,
        mut send: SendRequest<Body>,
        request: Request,
    ) -> Result<(http::Response<Body>, Returning), Unanswered> {
        match send.try_send_request(request).await {
            Ok(response) => {
                let returning = Returning { pool: Rc::downgrade(self), send: Some(send) };
                let mut response = response.map(Body::http1);
                headers::strip_hop_by_hop(response.headers_mut());
                Ok((response, returning))
            }
            Err(mut failed) => {
                let request = failed.take_message();
                let error = failed.into_error();
                let kind = kind_of(&error);
                let error = Error::caused(kind, error);
                Err(match request {
                    Some(request) => Unanswered::unsent(error, request),
                    None => Unanswered { error, request: None },
                })
            }
        }
    }

    /// Drops connections that were idle for too long. Called now and then by the worker.
    pub(crate) fn sweep(&self, now: Instant) {
        self.idle.borrow_mut().retain(|idle| now.saturating_duration_since(idle.since) <= IDLE_TIMEOUT);
    }
}

impl Drop for Returning {
    fn drop(&mut self) {
        if let (Some(pool), Some(send)) = (self.pool.upgrade(), self.send.take())
            && send.is_ready()
        {
            let mut idle = pool.idle.borrow_mut();
            if idle.len() < MAX_IDLE {
                idle.push(Idle { send, since: clock::now() });
            }
        }
    }
}

async fn connect(remote: &Remote, cx: &Rc<Context>) -> Result<SendRequest<Body>, Error> {
    let io = remote.connect(cx, Alpn::Http1).await?;
    handshake(io, remote, cx).await
}

/// A hyper client on `io`; its connection is driven by a task of its own.
async fn handshake(io: Io, remote: &Remote, cx: &Context) -> Result<SendRequest<Body>, Error> {
    let mut builder = http1::Builder::new();
    if let Some(max) = cx.config.http.told_headers() {
        builder.max_headers(max);
    }
    let (send, connection) =
        builder.handshake(TokioIo::new(io)).await.map_err(|error| Error::caused(Kind::Connect, error))?;
    // Holds no drain watch: it serves requests that hold one, and is idle otherwise.
    let counted = remote.count(Protocol::Http1);
    tokio::task::spawn_local(async move {
        // Whoever waits for a response hears of the error there.
        let _ = connection.await;
        drop(counted);
    });
    Ok(send)
}

/// What hyper's client needs beyond the request itself.
fn prepare(request: &mut Request) {
    *request.version_mut() = Version::HTTP_11;
    headers::strip_hop_by_hop(request.headers_mut());
    if let Some(asked) = request.extensions_mut().remove::<Asked>() {
        hyper::ext::on_informational(request, move |interim| {
            if interim.status() == http::StatusCode::CONTINUE {
                asked.open();
            }
        });
    }
}

pub(crate) fn kind_of(error: &hyper::Error) -> Kind {
    if error.is_parse() {
        return Kind::BadResponse;
    }
    // A request body that failed is the client's doing: its own kind is somewhere in the chain.
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        if let Some(ours) = inner.downcast_ref::<Error>() {
            return ours.kind;
        }
        cause = inner.source();
    }
    Kind::Reset
}
