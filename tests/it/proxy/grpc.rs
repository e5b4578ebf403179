//! The little of gRPC that detection and metrics need: a unary call and its status in the trailers.

use bytes::Bytes;
use http::HeaderMap;
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::{Request, Response, body::Frame, body::Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::convert::Infallible;
use tokio::{net::TcpStream, task::JoinSet};

/// Answers with the message it got, and `grpc-status: 0`.
pub(super) async fn echo(request: Request<Incoming>) -> Response<BoxBody<Bytes, Infallible>> {
    let body = request.into_body().collect().await.expect("a whole message").to_bytes();
    let trailers = HeaderMap::from_iter([("grpc-status".parse().expect("a name"), "0".parse().expect("a value"))]);
    // No empty frame of data for an empty message: the h2 crate ends a connection that brings more than 100 of them.
    let data = Some(body).filter(|body| !body.is_empty()).map(Frame::data);
    let frames = data.into_iter().chain([Frame::trailers(trailers)]).map(Ok);
    let response = Response::builder().header("content-type", "application/grpc");
    response.body(BoxBody::new(StreamBody::new(futures_util::stream::iter(frames)))).expect("a response")
}

/// One call of [`echo`] on a connection that nothing was sent on yet.
pub(super) async fn call_over(stream: TcpStream, text: &str) {
    let mut tasks = JoinSet::new();
    let (mut client, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("HTTP/2");
    tasks.spawn(async move {
        let _ = connection.await;
    });
    let length = u32::try_from(text.len()).expect("a short text").to_be_bytes();
    let message = [[0].as_slice(), &length, text.as_bytes()].concat();
    let request = Request::post("http://app/test.Peer/Unary").header("content-type", "application/grpc");
    let request = request.header("te", "trailers").body(Full::new(Bytes::from(message.clone()))).expect("a request");
    let response = client.send_request(request).await.expect("a response");
    assert_eq!(response.status(), 200);
    let body = response.into_body().collect().await.expect("a whole message");
    assert_eq!(body.trailers().and_then(|t| t.get("grpc-status")).map(|v| v.as_bytes()), Some(b"0".as_slice()));
    assert_eq!(body.to_bytes(), message);
}
