//! HTTP/2 with prior knowledge, and gRPC, through two proxies.

use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, body::Bytes, body::Incoming, client::conn::http2::SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{net::TcpStream, task::JoinSet};

use super::Pair;
use crate::support::server::Server;

/// A client's connection; its task ends with the set.
async fn connect(addr: std::net::SocketAddr, tasks: &mut JoinSet<()>) -> SendRequest<Full<Bytes>> {
    let stream = TcpStream::connect(addr).await.expect("the proxy listens");
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("HTTP/2");
    tasks.spawn(async move {
        let _ = connection.await;
    });
    sender
}

async fn echo(request: Request<Incoming>) -> Response<Full<Bytes>> {
    let body = request.into_body().collect().await.expect("a whole body").to_bytes();
    Response::new(Full::new(body))
}

#[tokio::test]
async fn streams_of_one_connection_are_answered_side_by_side() {
    let server = Server::http2(echo).await;
    for protocol in ["kubernetes.io/h2c", ""] {
        let pair = Pair::around(&server, protocol).await;
        let mut tasks = JoinSet::new();
        let client = connect(pair.addr(), &mut tasks).await;
        let mut requests = JoinSet::new();
        for n in 0..100 {
            let mut client = client.clone();
            requests.spawn(async move {
                let body = Bytes::from(format!("{n} {}", "x".repeat(n * 300)));
                let request = Request::post("http://app/echo").body(Full::new(body.clone())).expect("a request");
                let response = client.send_request(request).await.expect("a response");
                assert_eq!(response.status(), 200);
                let echoed = response.into_body().collect().await.expect("a whole body").to_bytes();
                assert!(echoed == body, "stream {n}: the body changed on its way");
            });
        }
        while let Some(done) = requests.join_next().await {
            done.expect("a request that passes");
        }
        let samples = pair.app.samples("mesh_").await;
        assert!(samples.keys().any(|labels| labels.contains("tls=\"mtls\"")), "{samples:#?}");
    }
}

/// An application that takes few streams at a time, and closes each connection (GOAWAY) after a few.
async fn reluctant() -> Server {
    Server::streams(|stream| async move {
        let mut builder = h2::server::Builder::new();
        let mut connection =
            builder.max_concurrent_streams(4).handshake::<_, Bytes>(stream).await.expect("a proxy that speaks HTTP/2");
        let mut served = 0;
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            served += 1;
            if served == 30 {
                connection.graceful_shutdown();
            }
            let mut body = respond.send_response(Response::new(()), false).expect("an open stream");
            body.send_data(Bytes::from_static(b"done"), true).expect("an open stream");
        }
    })
    .await
}

#[tokio::test]
async fn requests_that_the_application_refuses_unprocessed_are_sent_again() {
    let server = reluctant().await;
    let pair = Pair::around(&server, "").await;
    let mut tasks = JoinSet::new();
    let client = connect(pair.addr(), &mut tasks).await;
    for _ in 0..3 {
        let mut requests = JoinSet::new();
        for n in 0..64 {
            let mut client = client.clone();
            requests.spawn(async move {
                let request = Request::post("http://app/").body(Full::new(Bytes::from(format!("{n}"))));
                let response = client.send_request(request.expect("a request")).await.expect("a response");
                let reason = response.headers().get("mesh-proxy-error").cloned();
                assert_eq!((response.status().as_u16(), reason), (200, None), "request {n}");
            });
        }
        while let Some(done) = requests.join_next().await {
            done.expect("a request that passes");
        }
    }
    assert!(server.accepted() > 3, "the application closed connections: {}", server.accepted());
}
