//! Detection without a stall: who speaks first, on a port that nobody described.

use std::{
    net::{SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tempfile::TempDir;
use tokio::{net::TcpStream, process::Command, time::Instant};

use super::{Pair, grpc};
use crate::support::{
    condition::{eventually, within},
    mesh::{Mesh, Slice},
    process::Process,
    require,
    server::{Server, ok},
    wire::{Message, Wire},
};

/// From the client's connecting to the greeting in its hands, through two proxies.
const GREETING: Duration = Duration::from_millis(50);

/// Longer than any proxy would wait for a client's first bytes before it takes a connection for something else.
const SILENCE: Duration = Duration::from_secs(2);

#[tokio::test]
async fn the_greeting_of_a_server_that_speaks_first_comes_at_once() {
    let server = Server::tcp(async |mut wire: Wire| {
        wire.send("220 mail.example ready\r\n").await;
        while let Some(line) = wire.until(b"\r\n").await {
            wire.send([b"250 ".as_slice(), &line].concat()).await;
        }
    })
    .await;
    let mesh = Mesh::local().await;
    // Several ports, so that what is measured is each port's first connection, from which nothing was learned yet.
    let ports: Vec<u16> = (2501..=2505).collect();
    let app = ports.iter().fold(mesh.proxy("app"), |app, port| app.numbered_port(*port, server.addr, ""));
    let _app = app.start().await;
    let targets: Vec<String> = ports.iter().map(|port| format!("app:{port}")).collect();
    let web = targets.iter().fold(mesh.proxy("web"), |web, target| web.upstream(target)).start().await;
    let mut times = Vec::new();
    for target in &targets {
        let started = Instant::now();
        let mut client = Wire::connect(web.outbound(target)).await;
        let greeting = client.until(b"\r\n").await;
        times.push(started.elapsed());
        assert_eq!(greeting.as_deref(), Some(b"220 mail.example ready\r\n".as_slice()));
        client.send("HELO there\r\n").await;
        assert_eq!(client.until(b"\r\n").await.as_deref(), Some(b"250 HELO there\r\n".as_slice()));
    }
    times.sort_unstable();
    assert!(times[times.len() / 2] < GREETING, "greetings took {times:?}");
}

#[tokio::test]
async fn a_peer_whose_hello_is_late_is_not_taken_for_a_client_that_waits_for_the_greeting() {
    let server = Server::tcp(async |mut wire: Wire| {
        wire.send("220 mail.example ready\r\n").await;
        wire.rest().await;
    })
    .await;
    let mesh = Mesh::local().await;
    let app = mesh.proxy("app").numbered_port(25, server.addr, "").start().await;
    // Late within reason; and so late that the peer has to try again.
    for (name, delays, connections) in [("late", [40, 40], 1), ("lost", [300, 0], 2)] {
        let wire = slow_start(app.inbound(server.addr), delays.map(Duration::from_millis)).await;
        let ports = [(25, wire.addr, "")];
        mesh.announce(Slice { service: name, pod: name, ports: &ports, account: Some("app"), watched: false }).await;
        let target = format!("{name}:25");
        let web = mesh.proxy(&format!("web-{name}")).upstream(&target).start().await;
        let greeting = Wire::connect(web.outbound(&target)).await.until(b"\r\n").await;
        assert_eq!(greeting.as_deref(), Some(b"220 mail.example ready\r\n".as_slice()), "{name}");
        assert_eq!(wire.accepted(), connections, "{name}");
    }
}

/// A way to `addr` on which nothing moves for a while: the first and the later connections' delays.
async fn slow_start(addr: SocketAddr, delays: [Duration; 2]) -> Server {
    let count = Arc::new(AtomicUsize::new(0));
    Server::streams(move |mut stream| {
        let delay = delays[count.fetch_add(1, Ordering::Relaxed).min(1)];
        async move {
            let mut onward = TcpStream::connect(addr).await.expect("the proxy listens");
            tokio::time::sleep(delay).await;
            // An error here is the end of one of the two.
            let _ = tokio::io::copy_bidirectional(&mut stream, &mut onward).await;
        }
    })
    .await
}

#[tokio::test]
async fn a_silent_client_is_closed_soon_when_nobody_is_there_to_greet_it() {
    let mesh = Mesh::local().await;
    let ports = [(25, free_address(), "")];
    mesh.announce(Slice { service: "app", pod: "app-0", ports: &ports, account: Some("app"), watched: false }).await;
    let web = mesh.proxy("web").upstream("app:25").start().await;
    let mut client = Wire::connect(web.outbound("app:25")).await;
    let closed = within("the close", Duration::from_secs(5), client.rest()).await;
    assert_eq!(closed, b"");
}

#[tokio::test]
async fn mariadb_greets_through_two_proxies_at_once_and_answers_a_query() {
    let (Some(daemon), Some(install), Some(client)) = (
        require::program("mariadbd", "mariadb-server"),
        require::program("mariadb-install-db", "mariadb-server"),
        require::program("mariadb", "mariadb-client"),
    ) else {
        return;
    };
    let dir = TempDir::new().expect("a directory");
    let data = format!("--datadir={}", dir.path().join("data").display());
    let user = "--user=root";
    let mut command = Command::new(install);
    command.args(["--no-defaults", &data, user, "--auth-root-authentication-method=normal", "--skip-test-db"]);
    let installed = within("a database", Duration::from_secs(60), command.output()).await.expect("it can be run");
    assert!(installed.status.success(), "{}", String::from_utf8_lossy(&installed.stderr));
    let addr = free_address();
    let mut command = Command::new(daemon);
    command.args(["--no-defaults", &data, user, "--bind-address=127.0.0.1", "--skip-name-resolve"]);
    command.arg(format!("--port={}", addr.port())).arg(format!("--socket={}", dir.path().join("s").display()));
    let mut process = Process::start("mariadbd", dir.path(), &mut command);
    eventually("MariaDB", async || {
        process.check();
        TcpStream::connect(addr).await.ok()
    })
    .await;

    let mesh = Mesh::local().await;
    let _app = mesh.proxy("db").numbered_port(3306, addr, "").start().await;
    let web = mesh.proxy("web").upstream("db:3306").start().await;
    let through = web.outbound("db:3306");
    let started = Instant::now();
    let greeting = Wire::connect(through).await.bytes(20).await;
    let took = started.elapsed();
    assert!(greeting.windows(5).any(|w| w.starts_with(b"11.") || w.starts_with(b"10.")), "{greeting:?}");
    assert!(took < GREETING, "the greeting took {took:?}");
    let mut command = Command::new(client);
    command.args(["--no-defaults", "--protocol=tcp", "--host=127.0.0.1", "--user=root", "--batch", "--skip-ssl"]);
    command.arg(format!("--port={}", through.port())).args(["--execute", "select 6 * 7 as answer"]);
    let answer = within("an answer", Duration::from_secs(20), command.output()).await.expect("it can be run");
    let text = String::from_utf8_lossy(&answer.stdout);
    assert_eq!(text, "answer\n42\n", "{}", String::from_utf8_lossy(&answer.stderr));
}

#[tokio::test]
async fn redis_where_the_client_speaks_first_is_carried_as_bytes() {
    let (Some(daemon), Some(client)) =
        (require::program("redis-server", "redis-server"), require::program("redis-cli", "redis-tools"))
    else {
        return;
    };
    let (dir, addr) = (TempDir::new().expect("a directory"), free_address());
    let mut command = Command::new(daemon);
    command.args(["--bind", "127.0.0.1", "--port", &addr.port().to_string(), "--save", "", "--dir"]).arg(dir.path());
    let mut process = Process::start("redis", dir.path(), &mut command);
    eventually("Redis", async || {
        process.check();
        TcpStream::connect(addr).await.ok()
    })
    .await;
    let mesh = Mesh::local().await;
    let _db = mesh.proxy("db").numbered_port(6379, addr, "").start().await;
    let web = mesh.proxy("web").upstream("db:6379").start().await;
    let port = web.outbound("db:6379").port().to_string();
    for (arguments, expected) in [(["set", "key", "value"].as_slice(), "OK\n"), (&["get", "key"], "value\n")] {
        let mut command = Command::new(&client);
        command.args(["-h", "127.0.0.1", "-p", &port]).args(arguments).kill_on_drop(true);
        let answer = within("an answer", Duration::from_secs(20), command.output()).await.expect("it can be run");
        assert_eq!(String::from_utf8_lossy(&answer.stdout), expected, "{answer:?}");
    }
}

#[tokio::test]
async fn a_client_that_says_nothing_for_two_seconds_still_speaks_http2_to_a_server_that_speaks_first() {
    // hyper's server sends SETTINGS as soon as it is connected, like most gRPC servers.
    let server = Server::http2(grpc::echo).await;
    let pair = Pair::around(&server, "").await;
    let stream = TcpStream::connect(pair.addr()).await.expect("the proxy listens");
    tokio::time::sleep(SILENCE).await;
    grpc::call_over(stream, "hello").await;
    let samples = pair.web.samples("mesh_requests_total").await;
    assert!(samples.keys().any(|labels| labels.contains("protocol=\"grpc\"")), "{samples:#?}");
    // What was learned from the silence must not make the next client's connection opaque either.
    let stream = TcpStream::connect(pair.addr()).await.expect("the proxy listens");
    grpc::call_over(stream, "again").await;
    let samples = pair.web.samples("mesh_requests_total").await;
    let requests: f64 = samples.iter().filter(|(l, _)| l.contains("protocol=\"grpc\"")).map(|(_, count)| count).sum();
    assert!((requests - 2.0).abs() < 0.5, "{samples:#?}");
}

#[tokio::test]
async fn a_client_that_says_nothing_for_two_seconds_still_speaks_http1() {
    let server = Server::http1(async |request: Message| ok(request.first)).await;
    let pair = Pair::around(&server, "").await;
    let mut client = Wire::connect(pair.addr()).await;
    tokio::time::sleep(SILENCE).await;
    for n in 0..3 {
        client.send(format!("GET /{n} HTTP/1.1\r\nhost: app\r\n\r\n")).await;
        assert_eq!(client.response().await.text(), format!("GET /{n} HTTP/1.1"));
    }
    let samples = pair.web.samples("mesh_requests_total").await;
    assert!(samples.keys().any(|labels| labels.contains("protocol=\"http1\"")), "{samples:#?}");
}

#[tokio::test]
async fn a_request_that_comes_byte_by_byte_is_detected() {
    let server = Server::http1(async |request: Message| ok(request.first)).await;
    let pair = Pair::around(&server, "").await;
    let mut client = Wire::connect(pair.addr()).await;
    for byte in b"GET /slowly HTTP/1.1\r\nhost: app\r\n\r\n" {
        client.send([*byte]).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(client.response().await.text(), "GET /slowly HTTP/1.1");
}

/// For a server that wants to be told: bound and given back, so free a moment ago.
fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a loopback address")
}
