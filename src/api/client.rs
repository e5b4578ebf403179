//! The asking side: one HTTP/2 connection, many watch streams on it.

use std::{marker::PhantomData, time::Duration};

use bytes::Bytes;
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};

use super::{PING_INTERVAL, executor::LocalExecutor, line};

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the controller did not answer within {0:?}")]
    Late(Duration),
    #[error("the connection to the controller failed")]
    Connection(#[from] hyper::Error),
    #[error("the controller answered {status}: {message}")]
    Refused { status: StatusCode, message: String },
    #[error("the controller ended the stream")]
    Ended,
    #[error("nothing came from the controller for {0:?}")]
    Silent(Duration),
    #[error("the controller sent a line that is too long")]
    TooLong(#[from] line::TooLong),
    #[error("the controller sent what is not understood")]
    Message(#[from] serde_json::Error),
    #[error("the request cannot be made")]
    Request(#[from] http::Error),
    #[error("the answer is too long or broke off")]
    Body,
}

const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(5);
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);
/// Three pings lost.
const SILENCE: Duration = PING_INTERVAL.saturating_mul(3);
const KEEPALIVE: Duration = Duration::from_secs(10);
const KEEPALIVE_DEADLINE: Duration = Duration::from_secs(5);
const MAX_ANSWER: usize = 1 << 20;

/// A handle to the connection: cheap to clone, gone for good once the connection is.
#[derive(Clone)]
pub(crate) struct Connection {
    requests: http2::SendRequest<Full<Bytes>>,
}

/// Makes the connection on a stream that is ready for HTTP/2. The second value drives it and must be polled until it
/// ends, which says that the connection is gone; with an error when it was lost rather than closed.
pub(crate) async fn connect<I>(io: I) -> Result<(Connection, impl Future<Output = Result<(), hyper::Error>>), Error>
where
    I: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let mut builder = http2::Builder::new(LocalExecutor);
    builder
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE_DEADLINE)
        .keep_alive_while_idle(true);
    let handshake = timeout(HANDSHAKE_DEADLINE, builder.handshake(TokioIo::new(io)));
    let (requests, driver) = handshake.await.map_err(|_| Error::Late(HANDSHAKE_DEADLINE))??;
    Ok((Connection { requests }, driver))
}

impl Connection {
    /// Sends a message and takes the whole answer.
    pub(crate) async fn call<T: DeserializeOwned>(&self, path: &str, message: &impl Serialize) -> Result<T, Error> {
        let body = Bytes::from(serde_json::to_vec(message)?);
        timeout(ANSWER_DEADLINE, async {
            let answer = self.send(Method::POST, path, body).await?;
            let bytes = Limited::new(answer, MAX_ANSWER).collect().await.map_err(|_| Error::Body)?.to_bytes();
            Ok(serde_json::from_slice(&bytes)?)
        })
        .await
        .map_err(|_| Error::Late(ANSWER_DEADLINE))?
    }

    /// Opens a stream of messages.
    pub(crate) async fn watch<T: DeserializeOwned>(&self, path_and_query: &str) -> Result<Watch<T>, Error> {
        let body = timeout(ANSWER_DEADLINE, self.send(Method::GET, path_and_query, Bytes::new()))
            .await
            .map_err(|_| Error::Late(ANSWER_DEADLINE))??;
        Ok(Watch { body, lines: line::Lines::default(), messages: PhantomData })
    }

    async fn send(&self, method: Method, path_and_query: &str, body: Bytes) -> Result<Incoming, Error> {
        let uri = Uri::builder().scheme("https").authority("mesh-controller").path_and_query(path_and_query).build()?;
        let request = Request::builder().method(method).uri(uri).body(Full::new(body))?;
        let mut requests = self.requests.clone();
        requests.ready().await?;
        let response = requests.send_request(request).await?;
        let (head, body) = response.into_parts();
        if head.status.is_success() {
            return Ok(body);
        }
        let bytes = Limited::new(body, MAX_ANSWER).collect().await.map_err(|_| Error::Body)?.to_bytes();
        let message = serde_json::from_slice::<super::Error>(&bytes).map(|e| e.error).unwrap_or_default();
        Err(Error::Refused { status: head.status, message })
    }
}

/// A stream of messages.
pub(crate) struct Watch<T> {
    body: Incoming,
    lines: line::Lines,
    messages: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Watch<T> {
    /// The next message; an error ends the stream. Pings come through: they are messages.
    ///
    /// # Cancel safety
    /// Cancel safe: bytes read so far stay in the stream's buffer.
    pub(crate) async fn next(&mut self) -> Result<T, Error> {
        loop {
            if let Some(line) = self.lines.next()? {
                return Ok(serde_json::from_slice(&line)?);
            }
            match timeout(SILENCE, self.body.frame()).await {
                Err(_) => return Err(Error::Silent(SILENCE)),
                Ok(None) => return Err(Error::Ended),
                Ok(Some(Err(lost))) => return Err(lost.into()),
                Ok(Some(Ok(frame))) => {
                    if let Some(data) = frame.data_ref() {
                        self.lines.push(data);
                    }
                }
            }
        }
    }
}
