//! One request over a private Unix socket: the controller's and the proxies'.

use std::{io, path::Path, time::Duration};

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::{net::UnixStream, time::timeout};

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot connect to its private socket")]
    Connect(#[source] io::Error),
    #[error("its private socket broke off")]
    Http(#[source] hyper::Error),
    #[error("its answer is not what was asked for")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("no answer within {}s", DEADLINE.as_secs())]
    Deadline,
    #[error("it answered {status}: {text}")]
    Status { status: StatusCode, text: String },
}

pub(super) async fn get(socket: &Path, path: &str) -> Result<Bytes, Error> {
    call(socket, Method::GET, path, Bytes::new()).await
}

pub(super) async fn post(socket: &Path, path: &str, body: Bytes) -> Result<Bytes, Error> {
    call(socket, Method::POST, path, body).await
}

async fn call(socket: &Path, method: Method, path: &str, body: Bytes) -> Result<Bytes, Error> {
    let (status, body) =
        timeout(DEADLINE, exchange(socket, method, path, body)).await.map_err(|_| Error::Deadline)??;
    if status != StatusCode::OK {
        let text = String::from_utf8_lossy(&body).trim().chars().take(200).collect();
        return Err(Error::Status { status, text });
    }
    Ok(body)
}

async fn exchange(socket: &Path, method: Method, path: &str, body: Bytes) -> Result<(StatusCode, Bytes), Error> {
    let stream = UnixStream::connect(socket).await.map_err(Error::Connect)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(Error::Http)?;
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "localhost")
        .header("mesh-admin", "1")
        .header("content-type", "application/json")
        .body(Full::new(body))
        .map_err(|error| Error::Body(error.into()))?;
    // The sender goes with the exchange, and with it the connection.
    let exchange = async move {
        let response = sender.send_request(request).await.map_err(Error::Http)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_BODY).collect().await.map_err(Error::Body)?;
        Ok((status, body.to_bytes()))
    };
    let (answer, _) = tokio::join!(exchange, connection);
    answer
}

const DEADLINE: Duration = Duration::from_secs(5);
const MAX_BODY: usize = 1 << 20;
