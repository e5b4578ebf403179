//! HTTP/1.1 as the shop speaks it: a server around one function, and a client that keeps its connections.

use std::{cell::RefCell, convert::Infallible, future::Future, io, time::Duration};

use bytes::Bytes;
use http::{Method, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    body::Incoming,
    client::conn::http1::{self, SendRequest},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::timeout,
};

pub(super) type Request = http::Request<Incoming>;
pub(super) type Response = http::Response<Full<Bytes>>;

#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("cannot connect to {service}")]
    Connect { service: &'static str, source: io::Error },
    #[error("the connection to {service} broke off")]
    Http { service: &'static str, source: hyper::Error },
    #[error("the answer of {service} broke off")]
    Body { service: &'static str },
    #[error("{service} did not answer within {}s", DEADLINE.as_secs())]
    Deadline { service: &'static str },
}

/// Serves every connection with `answer` until the listener fails.
pub(super) async fn serve<F, A>(listener: TcpListener, answer: F) -> io::Result<Infallible>
where
    F: Fn(Request) -> A + Clone + 'static,
    A: Future<Output = Response> + 'static,
{
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        while connections.try_join_next().is_some() {}
        let answer = answer.clone();
        connections.spawn_local(async move {
            let service = service_fn(move |request| {
                let answer = answer(request);
                async move { Ok::<_, Infallible>(answer.await) }
            });
            let mut builder = hyper::server::conn::http1::Builder::new();
            let connection = builder.timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
            // A client that goes away is its own affair.
            let _ = connection.await;
        });
    }
}

/// An answer of the shop: JSON, with a line's end for people.
pub(super) fn json(status: StatusCode, value: &serde_json::Value) -> Response {
    let mut response = http::Response::new(Full::new(Bytes::from(format!("{value}\n"))));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}

/// An answer that says what went wrong.
pub(super) fn failure(status: StatusCode, why: &str) -> Response {
    json(status, &serde_json::json!({ "error": why }))
}

/// Calls one service; connections are kept and used again.
#[derive(Debug)]
pub(super) struct Client {
    service: &'static str,
    addr: String,
    idle: RefCell<Vec<SendRequest<Full<Bytes>>>>,
    connections: RefCell<JoinSet<()>>,
}

impl Client {
    pub(super) fn new(service: &'static str, addr: String) -> Self {
        Self { service, addr, idle: RefCell::default(), connections: RefCell::default() }
    }

    pub(super) async fn call(&self, method: Method, path: &str) -> Result<(StatusCode, Bytes), Error> {
        let service = self.service;
        timeout(DEADLINE, self.exchange(method, path)).await.map_err(|_| Error::Deadline { service })?
    }

    async fn exchange(&self, method: Method, path: &str) -> Result<(StatusCode, Bytes), Error> {
        let service = self.service;
        loop {
            let idle = self.idle.borrow_mut().pop();
            let is_reused = idle.is_some();
            let mut sender = match idle {
                Some(sender) => sender,
                None => self.connect().await?,
            };
            let mut request = http::Request::new(Full::default());
            *request.method_mut() = method.clone();
            *request.uri_mut() = path.parse().unwrap_or_default();
            request.headers_mut().insert(header::HOST, header::HeaderValue::from_static(service));
            let response = match sender.send_request(request).await {
                Ok(response) => response,
                // Closed while it lay idle: the request never left, so another connection may take it.
                Err(error) if is_reused && error.is_canceled() => continue,
                Err(source) => return Err(Error::Http { service, source }),
            };
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_BODY).collect().await;
            let body = body.map_err(|_| Error::Body { service })?.to_bytes();
            if sender.ready().await.is_ok() {
                self.idle.borrow_mut().push(sender);
            }
            return Ok((status, body));
        }
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, Error> {
        let service = self.service;
        let open = async {
            let stream = TcpStream::connect(&self.addr).await?;
            stream.set_nodelay(true)?;
            Ok(stream)
        };
        let stream = open.await.map_err(|source| Error::Connect { service, source })?;
        let handshake = http1::handshake(TokioIo::new(stream)).await;
        let (sender, connection) = handshake.map_err(|source| Error::Http { service, source })?;
        let mut connections = self.connections.borrow_mut();
        while connections.try_join_next().is_some() {}
        connections.spawn_local(async move {
            let _ = connection.await;
        });
        Ok(sender)
    }
}

const DEADLINE: Duration = Duration::from_secs(5);
const MAX_BODY: usize = 1 << 20;
