//! Ends and new beginnings: draining, and a controller that dies and comes back.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use rustix::process::Signal;
use tokio::{net::TcpStream, sync::Notify, time::Instant};

use super::Pair;
use crate::support::{
    condition::{eventually, within},
    server::{Server, ok},
    wire::{Message, Wire},
};

const GET: &str = "GET / HTTP/1.1\r\nhost: app\r\n\r\n";

#[tokio::test]
async fn on_sigterm_requests_in_flight_finish_and_the_proxy_exits_with_0() {
    let (arrived, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let signals = (arrived.clone(), go_on.clone());
    let server = Server::http1(move |_: Message| {
        let (arrived, go_on) = signals.clone();
        async move {
            arrived.notify_one();
            go_on.notified().await;
            ok("finished")
        }
    })
    .await;
    let mut pair = Pair::around(&server, "http").await;
    let addr = pair.addr();
    let mut client = Wire::connect(addr).await;
    client.send(GET).await;
    within("the request at the server", Duration::from_secs(10), arrived.notified()).await;
    // Both at once: neither may lose what goes through it.
    pair.web.process.signal(Signal::TERM);
    pair.app.process.signal(Signal::TERM);
    eventually("no more connections taken", async || TcpStream::connect(addr).await.err()).await;
    go_on.notify_one();
    let response = client.response().await;
    assert_eq!((response.status, response.text().as_str()), (200, "finished"), "{response:?}");
    assert_eq!(response.header("connection"), Some("close"), "{response:?}");
    let started = Instant::now();
    assert_eq!(pair.web.process.end().await.code(), Some(0));
    assert_eq!(pair.app.process.end().await.code(), Some(0));
    assert!(started.elapsed() < Duration::from_secs(5), "it took {:?} after the last request", started.elapsed());
}

#[tokio::test]
async fn idle_connections_do_not_hold_up_the_end() {
    let server = Server::http1(async |_: Message| ok("")).await;
    let mut pair = Pair::around(&server, "http").await;
    let mut client = Wire::connect(pair.addr()).await;
    client.send(GET).await;
    assert_eq!(client.response().await.status, 200);
    // As a pool opens them ahead of need: nothing was ever sent.
    let mut silent = Wire::connect(pair.addr()).await;
    let mut silent_inbound = Wire::connect(pair.app.inbound(server.addr)).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let started = Instant::now();
    pair.web.process.signal(Signal::TERM);
    pair.app.process.signal(Signal::TERM);
    assert_eq!(pair.web.process.end().await.code(), Some(0));
    assert_eq!(pair.app.process.end().await.code(), Some(0));
    assert!(started.elapsed() < Duration::from_secs(5), "it took {:?}", started.elapsed());
    for connection in [&mut client, &mut silent, &mut silent_inbound] {
        assert!(connection.rest().await.is_empty());
    }
}

#[tokio::test]
async fn traffic_survives_the_controllers_death_and_new_endpoints_come_when_it_is_back() {
    let server = Server::http1(async |_: Message| ok("old")).await;
    let mut pair = Pair::around(&server, "http").await;
    let api = pair.mesh.api();
    let addr = pair.addr();
    let mut client = Wire::connect(addr).await;
    client.send(GET).await;
    assert_eq!(client.response().await.text(), "old");

    pair.mesh.kill_controller().await;
    for n in 0..20 {
        // New connections as well as the one that was there.
        let mut fresh = Wire::connect(addr).await;
        for connection in [&mut client, &mut fresh] {
            connection.send(GET).await;
            assert_eq!(connection.response().await.text(), "old", "request {n} without a controller");
        }
    }

    let hits = Arc::new(AtomicUsize::new(0));
    let counted = hits.clone();
    let second = Server::http1(move |_: Message| {
        counted.fetch_add(1, Ordering::Relaxed);
        async { ok("new") }
    })
    .await;
    pair.mesh.start_controller(&api).await;
    let _second = pair.mesh.proxy("app-2").of("app").port(second.addr, "http").start().await;
    eventually("a response from the endpoint that came after", async || {
        client.send(GET).await;
        let response = client.response().await;
        assert_eq!(response.status, 200, "{response:?}");
        (response.text() == "new").then_some(())
    })
    .await;
    assert!(hits.load(Ordering::Relaxed) > 0);
}
