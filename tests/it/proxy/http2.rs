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
