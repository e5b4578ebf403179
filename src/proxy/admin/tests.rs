//! The two admin servers over real sockets.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UnixStream},
};

use super::*;
use crate::{proxy::observe, rt::clock};

/// One server with one worker behind it, its exchanges done by `client`, which gets the bound address.
async fn with_server<F: Future<Output = ()>>(server: Server, address: &str, client: impl FnOnce(Address) -> F) {
    let listener = Listener::bind(&address.parse().expect("an address")).await.expect("a free address");
    let bound = listener.address().expect("bound");
    let (collector, feeds) = observe::channel(1);
    let (_ready, ready) = watch::channel(true);
    let config = Box::new(|| serde_json::json!({ "schema": "mesh.dev/proxy-config/v1" }));
    let state = State { collector, ready, gauges: Box::new(Gauges::default), config, verbs: None };
    let observer = observe::Observer::new(clock::now());
    let mut worker = JoinSet::new();
    feeds.into_iter().for_each(|feed| drop(worker.spawn_local(feed.serve(observer.clone()))));
    tokio::select! {
        () = serve(server, listener, Rc::new(state)) => {}
        () = client(bound) => {}
    }
}

async fn exchange(address: &Address, head: &str) -> String {
    let request = format!("{head}\r\nconnection: close\r\n\r\n");
    let mut answer = String::new();
    match address {
        Address::Tcp(addr) => {
            let mut stream = TcpStream::connect(addr).await.expect("listening");
            stream.write_all(request.as_bytes()).await.expect("open");
            stream.read_to_string(&mut answer).await.expect("an answer");
        }
        Address::Unix(path) => {
            let mut stream = UnixStream::connect(path).await.expect("listening");
            stream.write_all(request.as_bytes()).await.expect("open");
            stream.read_to_string(&mut answer).await.expect("an answer");
        }
    }
    answer
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or_default()
}

#[tokio::test(flavor = "local")]
async fn the_public_server_tells_metrics_and_nothing_private() {
    with_server(Server::Public, "127.0.0.1:0", async |address| {
        let metrics = exchange(&address, "GET /metrics HTTP/1.1\r\nhost: any").await;
        assert_eq!(status(&metrics), "200");
        assert!(metrics.contains("process_resident_memory_bytes "), "{metrics}");
        for (request, expected) in [
            ("GET /live", "200"),
            ("GET /ready", "200"),
            ("POST /live", "405"),
            ("GET /stats", "404"),
            ("GET /config", "404"),
        ] {
            let answer = exchange(&address, &format!("{request} HTTP/1.1\r\nhost: any")).await;
            assert_eq!(status(&answer), expected, "{request}");
        }
    })
    .await;
}

#[tokio::test(flavor = "local")]
async fn the_private_server_over_tcp_wants_its_header_and_a_loopback_host() {
    with_server(Server::Private, "127.0.0.1:0", async |address| {
        for (headers, expected) in [
            ("host: localhost:4192\r\nmesh-admin: 1", "200"),
            ("host: [::1]:4192\r\nmesh-admin: 1", "200"),
            ("host: localhost:4192", "403"),
            ("host: evil.example\r\nmesh-admin: 1", "403"),
            ("host: localhost.evil.example\r\nmesh-admin: 1", "403"),
        ] {
            let answer = exchange(&address, &format!("GET /ready HTTP/1.1\r\n{headers}")).await;
            assert_eq!(status(&answer), expected, "{headers}");
        }
    })
    .await;
}

#[tokio::test(flavor = "local")]
async fn the_private_socket_tells_the_window_and_refuses_to_change_anything() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("admin.sock");
    with_server(Server::Private, &format!("unix:{}", path.display()), async |address| {
        for (request, expected) in [
            ("GET /stats?window=10s", "200"),
            ("GET /stats", "200"),
            ("GET /stats?window=11m", "400"),
            ("GET /stats?window=soon", "400"),
            ("GET /config", "200"),
            ("PUT /log-level", "403"),
            ("POST /shutdown", "403"),
            ("GET /shutdown", "405"),
            ("GET /metrics", "404"),
        ] {
            let answer = exchange(&address, &format!("{request} HTTP/1.1\r\nhost: mesh")).await;
            assert_eq!(status(&answer), expected, "{request}");
        }
        let stats = exchange(&address, "GET /stats HTTP/1.1\r\nhost: mesh").await;
        assert!(stats.ends_with("\nmesh_scrape_samples 2\n"), "{stats}");
    })
    .await;
    assert!(!path.exists(), "the socket goes with its listener");
}
