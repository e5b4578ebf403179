//! What one peer may ask of a proxy, and how it is told that it asked too much.

use std::time::Duration;

use tokio::time::Instant;

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
    let large = format!("x-large: {}\r\n", "x".repeat(1 << 20));
    let many: String = (0..5000).map(|n| format!("x-{n}: 1\r\n")).collect();
    for headers in [large, many] {
        let mut client = Wire::connect(pair.addr()).await;
        client.try_send(format!("GET / HTTP/1.1\r\nhost: app\r\n{headers}\r\n")).await;
        let response = client.response().await;
        assert_eq!(response.status, 431, "{response:?}");
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
    let started = Instant::now();
    let mut client = Wire::connect(web.outbound("app")).await;
    client.send(GET).await;
    let response = client.response().await;
    assert_eq!((response.status, response.header("mesh-proxy-error")), (508, Some("loop")), "{response:?}");
    assert!(started.elapsed() < Duration::from_secs(5), "it took {:?}", started.elapsed());
}
