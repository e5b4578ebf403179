//! Certificates that last for seconds: renewed under connections of every kind, and what happens when they are not.

use std::{
    convert::Infallible,
    net::SocketAddr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt, StreamBody, combinators::BoxBody};
use hyper::{Request, Response, body::Frame, body::Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{net::TcpStream, sync::mpsc, task::JoinSet};

use crate::support::{
    condition::{DEADLINE, eventually, within},
    mesh::{Mesh, Proxy},
    server::{Server, ok},
    wire::{Message, Wire},
};

/// Long enough that a busy machine renews in time: it is done at two thirds.
const LIFETIME: &str = "6s";
const GET: &str = "GET / HTTP/1.1\r\nhost: app\r\n\r\n";

/// Answers HTTP/1.1; after an upgrade, and on a connection that does not begin with HTTP, every line comes back.
async fn lines(mut wire: Wire) {
    while let Some(line) = wire.until(b"\n").await {
        if !wire.try_send(line).await {
            return;
        }
    }
}

async fn http1_or_upgraded(mut wire: Wire) {
    while let Some(request) = wire.request().await {
        if request.header("upgrade").is_some() {
            wire.send("HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n").await;
            return lines(wire).await;
        }
        if !wire.try_send(ok(request.first)).await {
            return;
        }
    }
}

/// Sends back what it gets, as it comes.
async fn mirror(request: Request<Incoming>) -> Response<BoxBody<Bytes, Infallible>> {
    let broken = |error| -> Infallible { panic!("the request's body broke: {error}") };
    Response::new(request.into_body().map_err(broken).boxed())
}

/// A stream of an HTTP/2 connection on which both sides go on sending.
struct Stream {
    send: mpsc::Sender<Bytes>,
    response: Incoming,
    _tasks: JoinSet<()>,
}

impl Stream {
    async fn open(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).await.expect("the proxy listens");
        let (mut client, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("HTTP/2");
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { connection.await.expect("a connection that stays") });
        let (send, receive) = mpsc::channel::<Bytes>(1);
        let body = StreamBody::new(stream::unfold(receive, async |mut receive| {
            let data = receive.recv().await?;
            Some((Ok::<_, Infallible>(Frame::data(data)), receive))
        }));
        let request = Request::post("http://app/mirror").body(BoxBody::new(Box::pin(body))).expect("a request");
        let response = client.send_request(request).await.expect("a response");
        assert_eq!(response.status(), 200);
        Self { send, response: response.into_body(), _tasks: tasks }
    }

    async fn exchange(&mut self, text: &str) {
        self.send.send(Bytes::from(text.to_owned())).await.expect("an open stream");
        let mut read = Vec::new();
        while read.len() < text.len() {
            let frame = within("a frame", DEADLINE, self.response.frame()).await.expect("an open stream");
            read.extend(frame.expect("an unbroken stream").into_data().expect("data"));
        }
        assert_eq!(read, text.as_bytes());
    }
}

async fn line(wire: &mut Wire, text: &str) {
    wire.send(text).await;
    let read = wire.until(b"\n").await;
    assert_eq!(read.as_deref(), Some(text.as_bytes()));
}

async fn renewals(proxy: &Proxy) -> f64 {
    let samples = proxy.samples("mesh_certificate_renewals_total").await;
    samples.iter().filter(|(labels, _)| labels.contains("success")).map(|(_, count)| count).sum()
}

async fn expires_at(proxy: &Proxy) -> f64 {
    let samples = proxy.samples("mesh_certificate_expiry_timestamp_seconds").await;
    samples.values().next().copied().expect("a certificate")
}

fn unix_seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

#[tokio::test]
async fn renewals_cost_no_connection_and_new_ones_use_the_new_certificate() {
    let http1 = Server::tcp(http1_or_upgraded).await;
    let (http2, tcp) = (Server::http2(mirror).await, Server::tcp(lines).await);
    let mesh = Mesh::with_leaf_lifetime(LIFETIME).await;
    let app =
        mesh.proxy("app").numbered_port(80, http1.addr, "http").numbered_port(81, http2.addr, "kubernetes.io/h2c");
    let app = app.numbered_port(82, tcp.addr, "tcp").start().await;
    let web = mesh.proxy("web").upstream("app:80").upstream("app:81").upstream("app:82").start().await;

    let mut keep_alive = Wire::connect(web.outbound("app:80")).await;
    let mut upgraded = Wire::connect(web.outbound("app:80")).await;
    upgraded.send("GET /chat HTTP/1.1\r\nhost: app\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n").await;
    assert_eq!(upgraded.response().await.status, 101);
    let mut stream = Stream::open(web.outbound("app:81")).await;
    let mut bytes = Wire::connect(web.outbound("app:82")).await;
    let first = expires_at(&web).await.max(expires_at(&app).await);

    let mut round = 0;
    // The first certificate counts as well. A new connection after the first ones' expiry can only be by newer ones:
    // every connection of bytes has a handshake of its own.
    while renewals(&web).await.min(renewals(&app).await) < 3.0 || unix_seconds() < first + 1.0 {
        round += 1;
        let text = format!("round {round}\n");
        keep_alive.send(GET).await;
        let response = keep_alive.response().await;
        assert_eq!(response.status, 200, "round {round}: {response:?}");
        stream.exchange(&text).await;
        line(&mut upgraded, &text).await;
        line(&mut bytes, &text).await;
        line(&mut Wire::connect(web.outbound("app:82")).await, &text).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(unix_seconds() < first + 60.0, "no renewals: {} and {}", renewals(&web).await, renewals(&app).await);
    }
    assert_eq!((http2.accepted(), tcp.accepted()), (1, round + 1));
    let failures = web.samples("mesh_tcp_failures_total").await;
    assert!(failures.is_empty(), "{failures:#?}");
}

#[tokio::test]
async fn an_expired_certificate_is_no_reason_for_plaintext_and_renewed_when_the_controller_is_back() {
    let http = Server::http1(async |_: Message| ok("served")).await;
    let tcp = Server::tcp(lines).await;
    let mut mesh = Mesh::with_leaf_lifetime(LIFETIME).await;
    let app = mesh.proxy("app").numbered_port(80, http.addr, "http").numbered_port(82, tcp.addr, "tcp").start().await;
    let web = mesh.proxy("web").upstream("app:80").upstream("app:82").start().await;
    // Both targets are known, and no connection to either is open.
    let mut known = Wire::connect(web.outbound("app:82")).await;
    line(&mut known, "before\n").await;
    drop(known);
    let api = mesh.api();
    mesh.kill_controller().await;
    let end = expires_at(&web).await.max(expires_at(&app).await);
    eventually("the end of both certificates", async || (unix_seconds() > end + 1.0).then_some(())).await;

    let mut client = Wire::connect(web.outbound("app:80")).await;
    client.send(GET).await;
    let response = client.response().await;
    let said = (response.status, response.header("mesh-proxy-error"));
    assert_eq!(said, (503, Some("no-identity")), "{response:?}");
    let mut bytes = Wire::connect(web.outbound("app:82")).await;
    // It may be closed before the line is taken.
    let _ = bytes.try_send("after\n").await;
    assert_eq!(bytes.rest().await, b"");
    assert_eq!((http.accepted(), tcp.accepted()), (0, 1), "something reached the application");
    let failures = web.samples("mesh_tcp_failures_total").await;
    assert!(failures.keys().any(|labels| labels.contains("no-identity")), "{failures:#?}");

    mesh.start_controller(&api).await;
    eventually("a response after the controller is back", async || {
        client.send(GET).await;
        let response = client.response().await;
        assert!(matches!(response.status, 200 | 502 | 503), "{response:?}");
        (response.text() == "served").then_some(())
    })
    .await;
    eventually("a connection of bytes after the controller is back", async || {
        let mut bytes = Wire::connect(web.outbound("app:82")).await;
        let sent = bytes.try_send("again\n").await;
        (sent && bytes.until(b"\n").await.is_some()).then_some(())
    })
    .await;
}
