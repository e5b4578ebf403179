//! The proxy's own HTTP servers, on the control runtime: a public one for the kubelet and Prometheus, a private one for
//! `mesh stat` and its kin.
//!
//! | server | request | answer |
//! |---|---|---|
//! | public | `GET /metrics` | everything since the start, for Prometheus |
//! | public | `GET /live` | 200 while the process turns |
//! | both | `GET /ready` | 200, or 503 while it cannot serve yet or is draining |
//! | private | `GET /stats?window=60s` | what happened within the window (10 min at most) |
//! | private | `GET /config` | what this proxy listens on and for whom, JSON |
//! | private | `PUT /log-level` | a log filter in the body; only when enabled |
//! | private | `POST /shutdown` | begins the drain; only when enabled |
//!
//! The private one listens on a Unix socket that only its user can open, or on loopback. Loopback in a pod is shared with the
//! application and reachable by a browser's scripts, so there a request needs the header `mesh-admin: 1`, which a
//! cross-site request cannot carry unasked, and a `Host` that is loopback, which a rebound DNS name is not.

use std::{convert::Infallible, pin::pin, rc::Rc, time::Duration};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::Value;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::{sleep, timeout},
};
use tracing::{debug, warn};

use super::observe::{Collector, Gauges, Snapshot, exposition, window_exposition};
use crate::{
    telemetry::{log, process::Process, window::MAX_WINDOW},
    units::duration,
};

mod listener;

pub(crate) use listener::{Address, Listener};

/// Connections served at once; more wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 32;
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection that lives longer ends with the exchange it is in, and is cut if that takes long: all here are short.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(60);
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// After a failed accept (no descriptors left): give others time to close theirs.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const DEFAULT_WINDOW: Duration = Duration::from_secs(60);
/// The longest body read: a log filter.
const MAX_BODY: usize = 4 << 10;
/// What a request to the private server over TCP must carry.
const ADMIN_HEADER: &str = "mesh-admin";

/// What the servers tell and do.
pub(crate) struct State {
    pub(crate) collector: Collector,
    pub(crate) ready: watch::Receiver<bool>,
    /// Read at each `/metrics` and `/stats`.
    pub(crate) gauges: Box<dyn Fn() -> Gauges>,
    /// Read at each `/config`.
    pub(crate) config: Box<dyn Fn() -> Value>,
    /// `None`: the verbs that change something are off.
    pub(crate) verbs: Option<Verbs>,
}

/// The verbs that change something.
#[derive(Clone, Debug)]
pub(crate) struct Verbs {
    pub(crate) log: log::Handle,
    /// A message begins the drain.
    pub(crate) shutdown: mpsc::Sender<()>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Server {
    Public,
    Private,
}

type Answer = Response<Full<Bytes>>;

/// Serves until dropped, which also ends the connections. Needs a `LocalSet`.
pub(crate) async fn serve(server: Server, listener: Listener, state: Rc<State>) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => accepted,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
        };
        match accepted {
            Ok(stream) => {
                let door = Door { server, is_tcp: listener.is_tcp() };
                connections.spawn_local(connection(door, stream, Rc::clone(&state)));
            }
            Err(error) => {
                warn!(%error, "admin accept failed");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(door: Door, stream: listener::Stream, state: Rc<State>) {
    let service = service_fn(|request| {
        let state = Rc::clone(&state);
        async move { Ok::<_, Infallible>(door.answer(request, &state).await) }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT).half_close(true);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = connection.as_mut() => Ok(ended),
        () = sleep(CONNECTION_TIMEOUT) => {
            connection.as_mut().graceful_shutdown();
            timeout(CLOSE_TIMEOUT, connection).await
        }
    };
    match ended {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%error, "admin connection broke"),
        Err(_) => debug!("admin connection lasted too long"),
    }
}

/// Where a request came in.
#[derive(Clone, Copy, Debug)]
struct Door {
    server: Server,
    is_tcp: bool,
}

impl Door {
    async fn answer(self, request: Request<Incoming>, state: &State) -> Answer {
        if let Err(why) = self.admit(request.headers()) {
            return text(StatusCode::FORBIDDEN, why);
        }
        let path = request.uri().path().to_owned();
        let method = match request.method() {
            &Method::HEAD => Method::GET,
            method => method.clone(),
        };
        match (self.server, method.as_str(), path.as_str()) {
            (Server::Public, "GET", "/metrics") => metrics(state).await,
            (Server::Public, "GET", "/live") => text(StatusCode::OK, "live\n"),
            (_, "GET", "/ready") if *state.ready.borrow() => text(StatusCode::OK, "ready\n"),
            (_, "GET", "/ready") => text(StatusCode::SERVICE_UNAVAILABLE, "not ready\n"),
            (Server::Private, "GET", "/stats") => stats(state, request.uri().query()).await,
            (Server::Private, "GET", "/config") => json(&(state.config)()),
            (Server::Private, "PUT", "/log-level") => match &state.verbs {
                Some(verbs) => set_log_level(verbs, request.into_body()).await,
                None => disabled(),
            },
            (Server::Private, "POST", "/shutdown") => match &state.verbs {
                Some(verbs) => shutdown(verbs),
                None => disabled(),
            },
            (_, _, path) => match allowed(self.server, path) {
                Some(method) => not_allowed(method),
                None => text(StatusCode::NOT_FOUND, "not found\n"),
            },
        }
    }

    fn admit(self, headers: &http::HeaderMap) -> Result<(), &'static str> {
        if self.server == Server::Public || !self.is_tcp {
            return Ok(());
        }
        if headers.get(ADMIN_HEADER).is_none_or(|value| value != "1") {
            return Err("the header `mesh-admin: 1` is missing\n");
        }
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        if is_loopback(host) { Ok(()) } else { Err("the host is not loopback\n") }
    }
}

/// The method that a path takes, for a 405's `Allow`.
fn allowed(server: Server, path: &str) -> Option<&'static str> {
    match (server, path) {
        (Server::Public, "/metrics" | "/live" | "/ready") | (Server::Private, "/ready" | "/stats" | "/config") => {
            Some("GET")
        }
        (Server::Private, "/log-level") => Some("PUT"),
        (Server::Private, "/shutdown") => Some("POST"),
        _ => None,
    }
}

fn is_loopback(host: &str) -> bool {
    let Ok(authority) = host.parse::<http::uri::Authority>() else { return false };
    let name = authority.host().trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || name.parse::<std::net::IpAddr>().is_ok_and(|addr| addr.is_loopback())
}

async fn metrics(state: &State) -> Answer {
    let snapshot = state.collector.snapshot(None).await;
    complete(&snapshot).unwrap_or_else(|| expose(exposition(&snapshot, &(state.gauges)(), &Process::read())))
}

async fn stats(state: &State, query: Option<&str>) -> Answer {
    let window = match window_of(query.unwrap_or_default()) {
        Ok(window) => window,
        Err(why) => return text(StatusCode::BAD_REQUEST, why),
    };
    let snapshot = state.collector.snapshot(Some(window)).await;
    complete(&snapshot).unwrap_or_else(|| expose(window_exposition(&snapshot, &(state.gauges)())))
}

fn window_of(query: &str) -> Result<Duration, String> {
    let Some(value) = query.split('&').find_map(|pair| pair.strip_prefix("window=")) else {
        return Ok(DEFAULT_WINDOW);
    };
    match duration::parse(value) {
        Ok(window) if window.is_zero() || window > MAX_WINDOW => {
            Err(format!("the window is beyond 1s to {}\n", duration::format(MAX_WINDOW)))
        }
        Ok(window) => Ok(window),
        Err(error) => Err(format!("{error}\n")),
    }
}

/// An incomplete sum would look as if counters had gone back, which Prometheus takes for a restart: better no scrape.
fn complete(snapshot: &Snapshot) -> Option<Answer> {
    (snapshot.missing_workers > 0).then(|| {
        let why = format!("{} worker(s) did not answer\n", snapshot.missing_workers);
        text(StatusCode::SERVICE_UNAVAILABLE, why)
    })
}

async fn set_log_level(verbs: &Verbs, body: Incoming) -> Answer {
    let Ok(Ok(body)) = timeout(HEADER_TIMEOUT, Limited::new(body, MAX_BODY).collect()).await else {
        return text(StatusCode::BAD_REQUEST, "a log filter is expected in the body\n");
    };
    match verbs.log.set(String::from_utf8_lossy(&body.to_bytes()).trim()) {
        Ok(()) => text(StatusCode::OK, "changed\n"),
        Err(error) => text(StatusCode::BAD_REQUEST, format!("{error}\n")),
    }
}

fn shutdown(verbs: &Verbs) -> Answer {
    // A full or closed channel: the drain has begun already.
    let _ = verbs.shutdown.try_send(());
    text(StatusCode::ACCEPTED, "draining\n")
}

fn disabled() -> Answer {
    text(StatusCode::FORBIDDEN, "requests that change something are not enabled\n")
}

fn not_allowed(method: &'static str) -> Answer {
    let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "method not allowed\n");
    answer.headers_mut().insert(header::ALLOW, http::HeaderValue::from_static(method));
    answer
}

fn expose(exposition: String) -> Answer {
    respond(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", exposition)
}

fn json(value: &Value) -> Answer {
    respond(StatusCode::OK, "application/json", format!("{value}\n"))
}

fn text(status: StatusCode, text: impl Into<String>) -> Answer {
    respond(status, "text/plain; charset=utf-8", text.into())
}

fn respond(status: StatusCode, content_type: &'static str, body: String) -> Answer {
    let mut answer = Response::new(Full::from(body));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, http::HeaderValue::from_static(content_type));
    answer
}

#[cfg(test)]
mod tests;
