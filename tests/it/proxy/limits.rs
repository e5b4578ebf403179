//! What one peer may ask of a proxy, and how it is told that it asked too much.

use std::{net::SocketAddr, time::Duration};

use socket2::{Domain, Socket, Type};
use tokio::{net::TcpStream, time::Instant};

use super::Pair;
use crate::support::{
    condition::eventually,
    mesh::Mesh,
    server::{Server, ok},
    wire::{Message, Wire},
};

const GET: &str = "GET / HTTP/1.1\r\nhost: app\r\n\r\n";

async fn plain() -> Server {
    Server::http1(async |_: Message| ok("")).await
}

#[tokio::test]
async fn too_large_or_too_many_headers_are_431_and_the_application_never_sees_them() {
    let server = plain().await;
    let pair = Pair::around(&server, "http").await;
    let large = |bytes| format!("x-large: {}\r\n", "x".repeat(bytes));
    let many = |count| (0..count).map(|n| format!("x-{n}: 1\r\n")).collect::<String>();
    // Just over, and far over: a client that is still sending when it is refused must hear it all the same.
    for headers in [many(150), many(5000), large(70_000), large(1 << 20)] {
        let mut client = Wire::connect(pair.addr()).await;
        client.try_send(format!("GET / HTTP/1.1\r\nhost: app\r\n{headers}\r\n")).await;
        let response = client.try_response().await;
        assert_eq!(response.map(|r| r.status), Some(431), "{} bytes of headers", headers.len());
    }
    assert_eq!(server.accepted(), 0);
}

#[tokio::test]
async fn a_client_that_is_slow_with_its_headers_is_told_so_and_let_go() {
    let server = plain().await;
    let mesh = Mesh::local().await;
    let _app = mesh.proxy("app").port(server.addr, "http").start().await;
    let web = mesh.proxy("web").upstream("app").args(["--header-timeout", "300ms"]).start().await;
    let mut client = Wire::connect(web.outbound("app")).await;
    let started = Instant::now();
    client.send("GET / HTTP/1.1\r\nhost: ap").await;
    let response = client.response().await;
    assert_eq!((response.status, response.header("mesh-proxy-error")), (408, Some("slow-client")), "{response:?}");
    assert!(client.rest().await.is_empty());
    let took = started.elapsed();
    assert!(took > Duration::from_millis(250) && took < Duration::from_secs(5), "it took {took:?}");
}

#[tokio::test]
async fn connections_over_the_cap_are_refused_and_taken_again_when_others_end() {
    let server = plain().await;
    let mesh = Mesh::local().await;
    let _app = mesh.proxy("app").port(server.addr, "http").start().await;
    let web = mesh.proxy("web").upstream("app").args(["--max-connections", "3"]).start().await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = Wire::connect(web.outbound("app")).await;
        client.send(GET).await;
        assert_eq!(client.response().await.status, 200);
        clients.push(client);
    }
    let mut over = Wire::connect(web.outbound("app")).await;
    over.try_send(GET).await;
    let refused = over.try_response().await;
    assert!(refused.as_ref().is_none_or(|response| response.status == 503), "{refused:?}");
    clients.pop();
    eventually("a connection in the place of one that ended", async || {
        let mut client = Wire::connect(web.outbound("app")).await;
        client.try_send(GET).await;
        client.try_response().await.filter(|response| response.status == 200)
    })
    .await;
    clients[0].send(GET).await;
    assert_eq!(clients[0].response().await.status, 200, "a connection from before the cap was reached");
}

#[tokio::test]
async fn an_endpoint_that_is_the_proxy_itself_is_refused_as_a_loop() {
    let mesh = Mesh::local().await;
    let web = mesh.proxy("web").upstream("app").start().await;
    // A slice that says that the application is where this proxy listens for it.
    mesh.announce_plain("app", "app-0", web.outbound("app")).await;
    // Until the proxy has heard of it, there is no endpoint.
    let response = eventually("an answer that is not for want of endpoints", async || {
        let mut client = Wire::connect(web.outbound("app")).await;
        client.send(GET).await;
        let response = client.response().await;
        (response.header("mesh-proxy-error") != Some("no-endpoints")).then_some(response)
    })
    .await;
    assert_eq!((response.status, response.header("mesh-proxy-error")), (508, Some("loop")), "{response:?}");
}

#[tokio::test]
async fn a_client_that_stops_in_the_middle_of_a_body_is_told_so_and_let_go() {
    let server = plain().await;
    let mesh = Mesh::local().await;
    let _app = mesh.proxy("app").port(server.addr, "http").start().await;
    let web = mesh.proxy("web").upstream("app").args(["--request-body-timeout", "300ms"]).start().await;
    let mut client = Wire::connect(web.outbound("app")).await;
    client.send("POST / HTTP/1.1\r\nhost: app\r\ncontent-length: 10\r\n\r\nhalf").await;
    let response = client.response().await;
    assert_eq!((response.status, response.header("mesh-proxy-error")), (408, Some("slow-client")), "{response:?}");
    assert!(client.rest().await.is_empty());
}

#[tokio::test]
async fn an_idle_connection_is_closed_after_its_time_and_one_in_use_is_not() {
    let server = Server::http1(async |_: Message| {
        tokio::time::sleep(Duration::from_millis(900)).await;
        ok("late")
    })
    .await;
    let mesh = Mesh::local().await;
    let _app = mesh.proxy("app").port(server.addr, "http").start().await;
    let web = mesh.proxy("web").upstream("app").args(["--http-idle-timeout", "300ms"]).start().await;
    let mut client = Wire::connect(web.outbound("app")).await;
    client.send(GET).await;
    assert_eq!(client.response().await.text(), "late");
    let started = Instant::now();
    assert!(client.rest().await.is_empty());
    assert!(started.elapsed() < Duration::from_secs(5), "it took {:?}", started.elapsed());
}

#[tokio::test]
async fn an_endpoint_that_does_not_take_the_connection_is_504_after_the_connect_timeout() {
    // A queue of one that nobody takes from: once it is full, the kernel lets further connections hang.
    let stuck = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    stuck.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a loopback address");
    stuck.listen(0).expect("a bound socket");
    let addr = stuck.local_addr().ok().and_then(|addr| addr.as_socket()).expect("an address");
    let waiting = Duration::from_millis(200);
    let mut queue = Vec::new();
    while let Ok(Ok(stream)) = tokio::time::timeout(waiting, TcpStream::connect(addr)).await {
        queue.push(stream);
    }
    let mesh = Mesh::local().await;
    mesh.announce_plain("app", "app-0", addr).await;
    let web = mesh.proxy("web").upstream("app").args(["--connect-timeout", "300ms"]).start().await;
    let started = Instant::now();
    let mut client = Wire::connect(web.outbound("app")).await;
    client.send(GET).await;
    let response = client.response().await;
    assert_eq!((response.status, response.header("mesh-proxy-error")), (504, Some("connect-timeout")), "{response:?}");
    let took = started.elapsed();
    assert!(took > Duration::from_millis(250) && took < Duration::from_secs(5), "it took {took:?}");
}

#[tokio::test]
async fn a_body_may_take_longer_than_a_head_even_when_the_answer_has_begun() {
    // Answers the head at once and each chunk as it comes, like a duplex stream or an upload that reports progress.
    let server = Server::tcp(async |mut wire: Wire| {
        wire.head().await.expect("a request");
        wire.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
        while let Some(line) = wire.until(b"\r\n").await.filter(|line| line.as_slice() != b"0\r\n") {
            wire.until(b"\r\n").await.expect("a chunk");
            wire.send([line.as_slice(), b"x\r\n"].concat()).await;
        }
        wire.send("0\r\n\r\n").await;
    })
    .await;
    let mesh = Mesh::local().await;
    let _app = mesh.proxy("app").args(["--header-timeout", "300ms"]).port(server.addr, "http").start().await;
    let web = mesh.proxy("web").upstream("app").args(["--header-timeout", "300ms"]).start().await;
    let mut client = Wire::connect(web.outbound("app")).await;
    client.send("POST / HTTP/1.1\r\nhost: app\r\ntransfer-encoding: chunked\r\n\r\n").await;
    assert_eq!(client.head().await.expect("a response").status, 200);
    for n in 0..5 {
        client.send("1\r\nx\r\n").await;
        assert_eq!(client.bytes(6).await, b"1\r\nx\r\n", "chunk {n}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    client.send("0\r\n\r\n").await;
    assert_eq!(client.bytes(5).await, b"0\r\n\r\n");
}

#[tokio::test]
async fn an_upgraded_connection_counts_as_long_as_it_is_open() {
    let server = Server::tcp(async |mut wire: Wire| {
        let head = wire.head().await.expect("a request");
        if head.header("upgrade").is_none() {
            wire.send(ok("")).await;
            return;
        }
        wire.send("HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\nhi").await;
        wire.rest().await;
    })
    .await;
    let mesh = Mesh::local().await;
    let _app = mesh.proxy("app").port(server.addr, "http").start().await;
    let web = mesh.proxy("web").upstream("app").args(["--max-connections", "1"]).start().await;
    let mut upgraded = Wire::connect(web.outbound("app")).await;
    upgraded.send("GET / HTTP/1.1\r\nhost: app\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n").await;
    assert_eq!(upgraded.head().await.expect("a response").status, 101);
    assert_eq!(upgraded.bytes(2).await, b"hi");
    let mut over = Wire::connect(web.outbound("app")).await;
    over.try_send(GET).await;
    assert_eq!(over.try_response().await.map(|response| response.status), Some(503));
    drop(upgraded);
    eventually("a connection in the place of the upgraded one", async || {
        let mut client = Wire::connect(web.outbound("app")).await;
        client.try_send(GET).await;
        client.try_response().await.filter(|response| response.status == 200)
    })
    .await;
}
