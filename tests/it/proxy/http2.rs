//! HTTP/2 with prior knowledge, and gRPC, through two proxies.

use std::{
    convert::Infallible,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use http_body_util::{BodyExt, Full};
use hyper::{
    Request, Response,
    body::{Bytes, Incoming},
    client::conn::http2::SendRequest,
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    net::TcpStream,
    sync::{Barrier, Notify},
    task::JoinSet,
};

use super::Pair;
use crate::support::{condition::within, mesh::Mesh, server::Server};

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

fn get(path: &str) -> Request<Full<Bytes>> {
    Request::get(format!("http://app{path}")).body(Full::default()).expect("a request")
}

#[tokio::test]
async fn a_connection_that_the_application_winds_down_gets_no_new_request() {
    // As gRPC servers do at a connection's maximum age: GOAWAY, and what runs may finish.
    let (ending, go_on, first) = (Arc::new(Notify::new()), Arc::new(Notify::new()), Arc::new(AtomicBool::new(true)));
    let (end, finish) = (ending.clone(), go_on.clone());
    let server = Server::streams(move |stream| {
        let (ending, go_on, winds_down) = (end.clone(), finish.clone(), first.swap(false, Ordering::Relaxed));
        async move {
            let service = service_fn(|request: Request<Incoming>| {
                let go_on = go_on.clone();
                async move {
                    if request.uri().path() == "/long" {
                        go_on.notified().await;
                    }
                    Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
                }
            });
            let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            let mut connection = pin!(connection.serve_connection(TokioIo::new(stream), service));
            if winds_down {
                tokio::select! {
                    _ = connection.as_mut() => return,
                    () = ending.notified() => connection.as_mut().graceful_shutdown(),
                }
            }
            let _ = connection.await;
        }
    })
    .await;
    let pair = Pair::around(&server, "kubernetes.io/h2c").await;
    let mut tasks = JoinSet::new();
    let mut client = connect(pair.addr(), &mut tasks).await;
    let mut long = JoinSet::new();
    long.spawn(client.clone().send_request(get("/long")));
    assert_eq!(client.send_request(get("/")).await.expect("a response").status(), 200);
    ending.notify_one();
    tokio::time::sleep(Duration::from_millis(100)).await;
    for n in 0..10 {
        let response = client.send_request(get("/")).await.expect("a response");
        assert_eq!(response.status(), 200, "request {n}: {response:?}");
    }
    go_on.notify_one();
    let response = within("the long one", Duration::from_secs(5), long.join_all()).await.remove(0);
    assert_eq!(response.expect("a response").status(), 200);
    assert_eq!(server.accepted(), 2);
}

#[tokio::test]
async fn more_long_streams_than_the_application_allows_on_one_connection_all_run() {
    const STREAMS: usize = 35;
    let all = Arc::new(Barrier::new(STREAMS));
    let server = Server::streams(move |stream| {
        let all = all.clone();
        async move {
            let service = service_fn(|_: Request<Incoming>| {
                let all = all.clone();
                async move {
                    // Answered only when all are there.
                    all.wait().await;
                    Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
                }
            });
            let mut connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            let connection = connection.max_concurrent_streams(5);
            let _ = connection.serve_connection(TokioIo::new(stream), service).await;
        }
    })
    .await;
    let pair = Pair::around(&server, "kubernetes.io/h2c").await;
    let mut tasks = JoinSet::new();
    let client = connect(pair.addr(), &mut tasks).await;
    let mut requests = JoinSet::new();
    for _ in 0..STREAMS {
        let mut client = client.clone();
        requests.spawn(async move { client.send_request(get("/")).await.expect("a response").status() });
        // One after the other, so that the application's SETTINGS are known to all but the first.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for status in within("all responses", Duration::from_secs(10), requests.join_all()).await {
        assert_eq!(status, 200);
    }
}

#[tokio::test]
async fn an_error_of_the_proxys_own_has_no_body_when_only_the_head_was_asked_for() {
    let mesh = Mesh::local().await;
    let web = mesh.proxy("web").upstream("app").start().await;
    let mut tasks = JoinSet::new();
    let mut client = connect(web.outbound("app"), &mut tasks).await;
    let request = Request::head("http://app/").body(Full::default()).expect("a request");
    let response = client.send_request(request).await.expect("a response");
    assert_eq!(response.status(), 503);
    assert!(response.into_body().collect().await.expect("an end of the stream").to_bytes().is_empty());
}

#[tokio::test]
async fn an_endpoint_that_is_gone_is_not_held_on_to() {
    let closed = Arc::new(Notify::new());
    let notify = closed.clone();
    let server = Server::streams(move |stream| {
        let closed = notify.clone();
        async move {
            let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            let _ = connection
                .serve_connection(TokioIo::new(stream), service_fn(async |r| infallible(echo(r).await)))
                .await;
            closed.notify_one();
        }
    })
    .await;
    let mesh = Mesh::local().await;
    mesh.announce_plain("app", "app-0", server.addr).await;
    let web = mesh.proxy("web").upstream("app").start().await;
    let mut tasks = JoinSet::new();
    let mut client = connect(web.outbound("app"), &mut tasks).await;
    assert_eq!(client.send_request(get("/")).await.expect("a response").status(), 200);
    std::fs::remove_file(mesh.path().join("endpoints/app-0.yaml")).expect("it was announced");
    within("the end of the connection to it", Duration::from_secs(10), closed.notified()).await;
}

fn infallible<T>(value: T) -> Result<T, Infallible> {
    Ok(value)
}

#[tokio::test]
async fn clients_that_give_up_by_the_hundred_cost_others_nothing() {
    let go_on = Arc::new(Notify::new());
    let finish = go_on.clone();
    let server = Server::streams(move |stream| {
        let go_on = finish.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let go_on = go_on.clone();
            async move {
                if request.uri().path() == "/long" {
                    go_on.notified().await;
                }
                infallible(Response::new(Full::new(Bytes::from(vec![b'x'; 2000]))))
            }
        });
        async move {
            // Most servers have no such limits.
            let mut connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            connection.max_pending_accept_reset_streams(100_000).max_local_error_reset_streams(None);
            let _ = connection.serve_connection(TokioIo::new(stream), service).await;
        }
    })
    .await;
    let pair = Pair::around(&server, "kubernetes.io/h2c").await;
    let mut tasks = JoinSet::new();
    let mut patient = connect(pair.addr(), &mut tasks).await;
    let mut long = JoinSet::new();
    long.spawn(patient.send_request(get("/long")));
    for round in 0..30 {
        let mut connection = JoinSet::new();
        let client = connect(pair.addr(), &mut connection).await;
        let mut requests = JoinSet::new();
        for _ in 0..200 {
            requests.spawn(client.clone().send_request(get("/")));
        }
        // At one time or another just when the answers are on their way.
        tokio::time::sleep(Duration::from_millis(round % 15)).await;
        connection.shutdown().await;
        requests.shutdown().await;
    }
    go_on.notify_one();
    let response = within("the long one", Duration::from_secs(5), long.join_all()).await.remove(0);
    assert_eq!(response.expect("a response").status(), 200);
}
