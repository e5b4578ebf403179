//! The serving side of HTTP/2 watch streams: whole answers, streaming bodies, bounded request bodies.

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use http::{Response, StatusCode, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited, StreamBody, combinators::BoxBody};
use hyper::body::{Body, Frame};
use serde::{Serialize, de::DeserializeOwned};

use super::{Error, line};

/// Answers are whole or a stream; a stream is not `Send` and lives on its connection's thread.
pub(crate) type Answer = Response<AnswerBody>;
pub(crate) type AnswerBody = http_body_util::Either<BoxBody<Bytes, Infallible>, LocalStream>;
pub(crate) type LocalStream = StreamBody<std::pin::Pin<Box<dyn Stream<Item = Result<Frame<Bytes>, Infallible>>>>>;

/// How long a request's body may take.
const BODY_DEADLINE: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    #[error("the request body is longer than {limit} bytes")]
    TooLong { limit: usize },
    #[error("the request body did not arrive in time")]
    Late,
    #[error("the request body broke off")]
    Broken,
    #[error("the request body is not what was expected: {0}")]
    Json(#[from] serde_json::Error),
}

impl BodyError {
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::TooLong { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Late => StatusCode::REQUEST_TIMEOUT,
            Self::Broken | Self::Json(_) => StatusCode::BAD_REQUEST,
        }
    }
}

/// Reads a request body of at most `limit` bytes.
pub(crate) async fn read<T: DeserializeOwned>(body: impl Body<Data = Bytes>, limit: usize) -> Result<T, BodyError> {
    let collected = tokio::time::timeout(BODY_DEADLINE, BodyExt::collect(Limited::new(body_errors(body), limit)));
    let bytes = match collected.await {
        Err(_) => return Err(BodyError::Late),
        Ok(Err(error)) if error.is::<LengthLimitError>() => return Err(BodyError::TooLong { limit }),
        Ok(Err(_)) => return Err(BodyError::Broken),
        Ok(Ok(collected)) => collected.to_bytes(),
    };
    Ok(serde_json::from_slice(&bytes)?)
}

#[derive(Debug, thiserror::Error)]
#[error("the body broke off")]
struct Broken;

fn body_errors<B: Body<Data = Bytes>>(body: B) -> impl Body<Data = Bytes, Error = Broken> {
    body.map_err(|_| Broken)
}

pub(crate) fn json(status: StatusCode, message: &impl Serialize) -> Answer {
    let (status, bytes) = match line::encode(message) {
        Ok(bytes) => (status, bytes),
        Err(_) => (StatusCode::INTERNAL_SERVER_ERROR, Bytes::new()),
    };
    answer(status, http_body_util::Either::Left(Full::new(bytes).boxed()))
}

pub(crate) fn refuse(status: StatusCode, error: impl ToString) -> Answer {
    json(status, &Error { error: error.to_string() })
}

/// Streams lines as the peer takes them: the next item is asked for only when HTTP/2's window has room, so a slow peer
/// holds back its own stream and nothing else.
pub(crate) fn stream(lines: impl Stream<Item = Bytes> + 'static) -> Answer {
    let frames = lines.map(|line| Ok(Frame::data(line)));
    answer(StatusCode::OK, http_body_util::Either::Right(StreamBody::new(Box::pin(frames))))
}

fn answer(status: StatusCode, body: AnswerBody) -> Answer {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}
