//! Who is at the other side: proven, or refused with a reason; never plaintext instead.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use crate::support::{
    condition::eventually,
    mesh::{Mesh, Slice},
    server::{Server, ok},
    wire::{Message, Wire},
};

const GET: &str = "GET / HTTP/1.1\r\nhost: app\r\n\r\n";

/// An application that counts what reaches it.
async fn counting() -> (Server, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    let server = Server::http1(move |_: Message| {
        counted.fetch_add(1, Ordering::Relaxed);
        async { ok("") }
    })
    .await;
    (server, count)
}

async fn refused(client: &mut Wire) {
    client.send(GET).await;
    let response = client.response().await;
    assert_eq!((response.status, response.header("mesh-proxy-error")), (502, Some("peer-identity")), "{response:?}");
}

#[tokio::test]
async fn a_proxy_with_another_identity_than_expected_gets_no_request() {
    let (server, count) = counting().await;
    let mesh = Mesh::local().await;
    let other = mesh.proxy("other").port(server.addr, "http").start().await;
    // The endpoint of `app` is a proxy of this mesh, with a good certificate, but it is not `app`.
    let ports = [(80, other.inbound(server.addr), "http")];
    mesh.announce(Slice { service: "app", pod: "app-0", ports: &ports, account: Some("app"), watched: false }).await;
    let web = mesh.proxy("web").upstream("app").start().await;
    refused(&mut Wire::connect(web.outbound("app")).await).await;
    assert_eq!(count.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_proxy_of_a_foreign_mesh_gets_no_request_and_is_served_none() {
    let (server, count) = counting().await;
    let (ours, theirs) = (Mesh::local().await, Mesh::local().await);
    // The same names and the same trust domain, certified by another root.
    let foreign = theirs.proxy("app").port(server.addr, "http").start().await;
    let ports = [(80, foreign.inbound(server.addr), "http")];
    ours.announce(Slice { service: "app", pod: "app-0", ports: &ports, account: Some("app"), watched: false }).await;
    let web = ours.proxy("web").upstream("app").start().await;
    refused(&mut Wire::connect(web.outbound("app")).await).await;
    assert_eq!(count.load(Ordering::Relaxed), 0);
    let failures = eventually("the foreign client in the server's metrics", async || {
        let failures = foreign.samples("mesh_tcp_failures_total").await;
        failures.keys().any(|labels| labels.contains("direction=\"inbound\"")).then_some(failures)
    })
    .await;
    assert!(failures.values().any(|count| *count >= 1.0), "{failures:#?}");
}

#[tokio::test]
async fn a_meshed_endpoint_that_speaks_no_tls_is_never_spoken_to_in_plaintext() {
    let (server, count) = counting().await;
    let mesh = Mesh::local().await;
    let ports = [(80, server.addr, "http")];
    mesh.announce(Slice { service: "app", pod: "app-0", ports: &ports, account: Some("app"), watched: false }).await;
    let web = mesh.proxy("web").upstream("app").start().await;
    let mut client = Wire::connect(web.outbound("app")).await;
    client.send(GET).await;
    let response = client.response().await;
    assert_eq!((response.status, response.header("mesh-proxy-error")), (504, Some("connect-timeout")), "{response:?}");
    assert_eq!(count.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn what_is_not_meshed_is_reached_and_served_in_the_clear_and_said_to_be_so() {
    let (server, count) = counting().await;
    let mesh = Mesh::local().await;
    mesh.announce_plain("plain", "plain-0", server.addr).await;
    let app = mesh.proxy("app").port(server.addr, "http").upstream("plain").start().await;
    for addr in [app.outbound("plain"), app.inbound(server.addr)] {
        let mut client = Wire::connect(addr).await;
        client.send(GET).await;
        assert_eq!(client.response().await.status, 200);
    }
    assert_eq!(count.load(Ordering::Relaxed), 2);
    let samples = app.samples("mesh_requests_total").await;
    for direction in ["inbound", "outbound"] {
        let is_said =
            |l: &String| l.contains(&format!("direction=\"{direction}\"")) && l.contains("tls=\"not_meshed\"");
        assert!(samples.keys().any(is_said), "{direction}: {samples:#?}");
    }
}
