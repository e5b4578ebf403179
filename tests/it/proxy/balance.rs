//! Where requests go: away from the slow and the dead, and nowhere when there is nowhere to go.

use std::{
    net::{SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{task::JoinSet, time::Instant};

use crate::support::{
    condition::eventually,
    mesh::Mesh,
    server::{Server, ok},
    wire::{Message, Wire},
};

/// A server that takes this long for each request, and how many it got.
async fn replica(delay: Duration) -> (Server, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    let server = Server::http1(move |_: Message| {
        counted.fetch_add(1, Ordering::Relaxed);
        async move {
            tokio::time::sleep(delay).await;
            ok("")
        }
    })
    .await;
    (server, count)
}

/// `clients` connections, each asking `requests` times in a row; the statuses that came.
async fn load(addr: SocketAddr, clients: usize, requests: usize) -> Vec<u16> {
    let mut tasks = JoinSet::new();
    for _ in 0..clients {
        tasks.spawn(async move {
            let (mut client, mut statuses) = (Wire::connect(addr).await, Vec::new());
            for _ in 0..requests {
                client.send("GET / HTTP/1.1\r\nhost: app\r\n\r\n").await;
                statuses.push(client.response().await.status);
            }
            statuses
        });
    }
    tasks.join_all().await.concat()
}

#[tokio::test]
async fn a_replica_ten_times_slower_than_the_others_gets_under_a_tenth_of_the_requests() {
    let (fast, slow) = (Duration::from_millis(5), Duration::from_millis(50));
    let replicas = [replica(fast).await, replica(fast).await, replica(slow).await];
    let mesh = Mesh::local().await;
    let mut proxies = Vec::new();
    for (n, (server, _)) in replicas.iter().enumerate() {
        proxies.push(mesh.proxy(&format!("app-{n}")).of("app").port(server.addr, "http").start().await);
    }
    let web = mesh.proxy("web").upstream("app").start().await;
    let statuses = load(web.outbound("app"), 8, 100).await;
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    let shares: Vec<usize> = replicas.iter().map(|(_, count)| count.load(Ordering::Relaxed)).collect();
    assert_eq!(shares.iter().sum::<usize>(), statuses.len(), "{shares:?}");
    assert!(shares[2] * 10 < statuses.len(), "the slow one is the last of {shares:?}");
    assert!(shares[..2].iter().all(|share| share * 4 > statuses.len()), "{shares:?}");
}

#[tokio::test]
async fn a_dead_replica_costs_no_request() {
    let (server, count) = replica(Duration::ZERO).await;
    // Bound and given back: nobody listens there.
    let dead = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a loopback address");
    let mesh = Mesh::local().await;
    mesh.announce_plain("app", "app-0", server.addr).await;
    mesh.announce_plain("app", "app-1", dead).await;
    let web = mesh.proxy("web").upstream("app").start().await;
    let statuses = load(web.outbound("app"), 4, 50).await;
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
    assert_eq!(count.load(Ordering::Relaxed), 200);
}

#[tokio::test]
async fn a_replica_that_breaks_every_request_is_left_alone_after_the_first_failures() {
    let (server, count) = replica(Duration::ZERO).await;
    let broken = Server::tcp(async |mut wire: Wire| {
        wire.head().await;
    })
    .await;
    let mesh = Mesh::local().await;
    mesh.announce_plain("app", "app-0", server.addr).await;
    mesh.announce_plain("app", "app-1", broken.addr).await;
    let web = mesh.proxy("web").upstream("app").start().await;
    let statuses = load(web.outbound("app"), 1, 200).await;
    // It did get the request, so the request may not be sent again: a failure that the client must see.
    let failures = |statuses: &[u16]| statuses.iter().filter(|status| **status == 502).count();
    let (first, second) = statuses.split_at(100);
    assert_eq!(failures(&statuses) + count.load(Ordering::Relaxed), 200, "{statuses:?}");
    // A few until it is out of the rotation; later at most one for each probe, which come ever more rarely.
    assert!(failures(first) <= 8 && failures(second) <= 2, "{statuses:?}");
}

#[tokio::test]
async fn a_service_without_endpoints_is_503_at_once_and_200_when_one_appears() {
    let (server, _) = replica(Duration::ZERO).await;
    let mesh = Mesh::local().await;
    let web = mesh.proxy("web").upstream("app").start().await;
    let mut client = Wire::connect(web.outbound("app")).await;
    let started = Instant::now();
    client.send("GET / HTTP/1.1\r\nhost: app\r\n\r\n").await;
    let response = client.response().await;
    assert_eq!((response.status, response.header("mesh-proxy-error")), (503, Some("no-endpoints")), "{response:?}");
    assert!(started.elapsed() < Duration::from_secs(1), "it took {:?}", started.elapsed());
    let _app = mesh.proxy("app").port(server.addr, "http").start().await;
    eventually("a response from the new endpoint", async || {
        client.send("GET / HTTP/1.1\r\nhost: app\r\n\r\n").await;
        (client.response().await.status == 200).then_some(())
    })
    .await;
}
