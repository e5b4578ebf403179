//! Traffic that the workload sends where it always did, redirected into the proxies by the kernel: two pods and the node
//! between them as network namespaces, real rules of nftables, and the original destination says what a connection is for.
//!
//! ```text
//! client pod ── node (the test, the controller, a server outside the mesh) ── server pod
//! ```

use std::{fs, net::SocketAddr, time::Duration};

use tokio::{net::TcpStream, process::Command};

use crate::support::{
    condition::{eventually, within},
    mesh::{Mesh, PROXY_USER, Proxy, Slice},
    namespace::Namespace,
    require,
    server::{Server, ok},
    wire::Wire,
};

/// From the client's connecting to the greeting in its hands, through two proxies.
const GREETING: Duration = Duration::from_millis(50);

const SERVER: [&str; 2] = ["10.99.2.2", "fd99:2::2"];
const SERVICE: [&str; 2] = ["10.96.0.10", "fd96::10"];
const APP: u16 = 8080;
const MAIL: [u16; 3] = [2501, 2502, 2503];

/// The controller reads each of a Service's addresses; nothing else makes them special.
const SERVICES: &str = "
apiVersion: v1
kind: Service
metadata: { name: app, namespace: test }
spec:
  clusterIP: 10.96.0.10
  clusterIPs: [10.96.0.10, 'fd96::10']
  ports:
  - { name: '80', port: 80 }
  - { name: '2501', port: 2501 }
  - { name: '2502', port: 2502 }
  - { name: '2503', port: 2503 }
";

fn at(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse().expect("an address"), port)
}

/// Everything of both pods' applications goes through the proxies, which themselves are let through.
fn redirect(pod: &Namespace) {
    pod.nft(&format!(
        "table inet mesh {{
           chain inbound {{
             type nat hook prerouting priority dstnat;
             tcp dport != {{ 4143, 4191 }} redirect to :4143
           }}
           chain outbound {{
             type nat hook output priority -100;
             meta skuid {PROXY_USER} accept
             oifname lo accept
             meta l4proto tcp redirect to :4140
           }}
         }}"
    ));
}

/// In the order of their end: the pods go last.
struct Cluster {
    web: Proxy,
    app: Proxy,
    _mesh: Mesh,
    outside: Server,
    _apps: Vec<Server>,
    client: Namespace,
    server: Namespace,
    node: Namespace,
}

impl Cluster {
    /// `None`: the machine does not have what it takes.
    async fn start() -> Option<Self> {
        require::root()?;
        for (program, package) in [("ip", "iproute2"), ("nft", "nftables"), ("setpriv", "util-linux"), ("curl", "curl")]
        {
            require::program(program, package)?;
        }
        let (client, server, node) = (Namespace::new("client"), Namespace::new("server"), Namespace::new("node"));
        for (pod, number) in [(&client, 1), (&server, 2)] {
            let ends = [1, 2].map(|end| [format!("10.99.{number}.{end}/24"), format!("fd99:{number}::{end}/64")]);
            node.join(&format!("pod{number}"), &ends[0], pod, &ends[1]);
            pod.run(&format!("ip route add default via 10.99.{number}.1"));
            pod.run(&format!("ip -6 route add default via fd99:{number}::1"));
            redirect(pod);
        }
        node.run("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1");
        node.enter();

        let mut apps = vec![Server::on(server.listen(&format!("[::]:{APP}")), answer)];
        for port in MAIL {
            apps.push(Server::on(server.listen(&format!("[::]:{port}")), greet));
        }
        let outside = Server::on(node.listen("10.99.1.1:0"), answer);

        let mesh = Mesh::listening("10.99.1.1:0").await;
        fs::write(mesh.path().join("services.yaml"), SERVICES).expect("a writable directory");
        // What a pod's EndpointSlice says: the application's own addresses.
        for ip in SERVER {
            let mail = MAIL.map(|port| (port, at(ip, port), ""));
            let ports = [[(80, at(ip, APP), "")].as_slice(), &mail].concat();
            let pod = if ip.contains(':') { "app-0-v6" } else { "app-0" };
            mesh.announce(Slice { service: "app", pod, ports: &ports, account: Some("app"), watched: false }).await;
        }
        let redirects = ["--inbound-redirect", "[::]:4143", "--outbound-redirect", "[::]:4140"];
        let app = mesh.proxy("app").inside(&server, "10.99.2.2:4191").args(redirects).start().await;
        let web = mesh.proxy("web").inside(&client, "10.99.1.2:4191").args(redirects).start().await;
        Some(Self { web, app, _mesh: mesh, outside, _apps: apps, client, server, node })
    }

    /// What curl in a pod gets; `None` when it fails.
    async fn curl(pod: &Namespace, url: &str) -> Option<String> {
        let mut command = Command::new("ip");
        command.args([
            "netns",
            "exec",
            &pod.name,
            "curl",
            "--silent",
            "--show-error",
            "--fail",
            "--max-time",
            "10",
            url,
        ]);
        let output =
            within("curl", Duration::from_secs(20), command.kill_on_drop(true).output()).await.expect("it runs");
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

async fn answer(mut wire: Wire) {
    while let Some(request) = wire.request().await {
        if !wire.try_send(ok(request.first)).await {
            break;
        }
    }
}

async fn greet(mut wire: Wire) {
    if !wire.try_send("220 mail.example ready\r\n").await {
        return;
    }
    while let Some(line) = wire.until(b"\r\n").await {
        if !wire.try_send([b"250 ".as_slice(), &line].concat()).await {
            break;
        }
    }
}

fn wire(stream: std::net::TcpStream) -> Wire {
    stream.set_nonblocking(true).expect("a socket");
    Wire::over(TcpStream::from_std(stream).expect("a runtime"))
}

/// Whether the proxy has a sample with all of these labels.
async fn has(proxy: &Proxy, metric: &str, labels: &[&str]) {
    eventually(&format!("{metric} with {labels:?}"), async || {
        let samples = proxy.samples(metric).await;
        samples.iter().any(|(l, count)| *count > 0.0 && labels.iter().all(|label| l.contains(label))).then_some(())
    })
    .await;
}

#[tokio::test]
async fn curl_reaches_a_cluster_ip_through_both_proxies_over_mutual_tls() {
    let Some(cluster) = Cluster::start().await else { return };
    for ip in SERVICE {
        let url = format!("http://{}/hello", at(ip, 80));
        assert_eq!(Cluster::curl(&cluster.client, &url).await.as_deref(), Some("GET /hello HTTP/1.1"), "{url}");
    }
    let expected = ["direction=\"outbound\"", "target=\"test/app:80\"", "tls=\"mtls\"", "protocol=\"http1\""];
    has(&cluster.web, "mesh_requests_total", &expected).await;
    let peer = "peer_id=\"spiffe://local/ns/test/sa/web\"";
    has(&cluster.app, "mesh_requests_total", &["direction=\"inbound\"", "tls=\"mtls\"", peer]).await;
    let requests: f64 = cluster.app.samples("mesh_requests_total").await.values().sum();
    assert!((requests - 2.0).abs() < 0.5, "{requests} requests");
}

#[tokio::test]
async fn the_greeting_of_a_redirected_server_that_speaks_first_comes_at_once() {
    let Some(cluster) = Cluster::start().await else { return };
    let mut times = Vec::new();
    // Each port's first connection, from which nothing was learned yet.
    for port in MAIL {
        let (stream, begun) = cluster.client.connect(at(SERVICE[0], port));
        let mut client = wire(stream);
        let greeting = client.until(b"\r\n").await;
        times.push(begun.elapsed());
        assert_eq!(greeting.as_deref(), Some(b"220 mail.example ready\r\n".as_slice()));
        client.send("HELO there\r\n").await;
        assert_eq!(client.until(b"\r\n").await.as_deref(), Some(b"250 HELO there\r\n".as_slice()));
    }
    times.sort_unstable();
    assert!(times[1] < GREETING, "greetings took {times:?}");
    let expected = ["direction=\"inbound\"", "tls=\"mtls\"", "target=\"2501\""];
    has(&cluster.app, "mesh_tcp_connections_opened_total", &expected).await;
}

#[tokio::test]
async fn what_is_no_service_passes_through_both_ways() {
    let Some(cluster) = Cluster::start().await else { return };
    let outside = cluster.outside.addr;
    let out = Cluster::curl(&cluster.client, &format!("http://{outside}/out")).await;
    assert_eq!(out.as_deref(), Some("GET /out HTTP/1.1"));
    let expected = ["direction=\"outbound\"", "tls=\"not_meshed\"", &format!("target=\"{outside}\"")];
    has(&cluster.web, "mesh_requests_total", &expected).await;
    let inward = Cluster::curl(&cluster.node, &format!("http://{}/in", at(SERVER[0], APP))).await;
    assert_eq!(inward.as_deref(), Some("GET /in HTTP/1.1"));
    has(&cluster.app, "mesh_requests_total", &["direction=\"inbound\"", "tls=\"not_meshed\""]).await;
    // By the pod's own address it is that pod, and meshed.
    let direct = Cluster::curl(&cluster.client, &format!("http://{}/pod", at(SERVER[1], APP))).await;
    assert_eq!(direct.as_deref(), Some("GET /pod HTTP/1.1"));
    has(&cluster.web, "mesh_requests_total", &["tls=\"mtls\"", &format!("target=\"{}", at(SERVER[1], APP))]).await;
}

#[tokio::test]
async fn a_pod_reaches_itself_by_its_own_service_without_leaving() {
    let Some(cluster) = Cluster::start().await else { return };
    // Each of its addresses gets its turn.
    for n in 0..4 {
        let url = format!("http://{}/self/{n}", at(SERVICE[0], 80));
        let answer = format!("GET /self/{n} HTTP/1.1");
        assert_eq!(Cluster::curl(&cluster.server, &url).await, Some(answer));
    }
    let expected = ["direction=\"outbound\"", "target=\"test/app:80\"", "tls=\"loopback\""];
    has(&cluster.app, "mesh_requests_total", &expected).await;
    let (stream, begun) = cluster.server.connect(at(SERVICE[0], MAIL[0]));
    assert!(wire(stream).until(b"\r\n").await.is_some(), "no greeting after {:?}", begun.elapsed());
}

#[tokio::test]
async fn a_connection_straight_to_the_proxys_own_ports_is_refused_and_counted() {
    let Some(cluster) = Cluster::start().await else { return };
    let get = "GET / HTTP/1.1\r\nhost: app\r\n\r\n";
    let (own, others) = (at("127.0.0.1", 4140), at(SERVER[0], 4143));
    let ways = [
        (&cluster.client, own, &cluster.web, "outbound"),
        (&cluster.client, at("::1", 4143), &cluster.web, "inbound"),
        (&cluster.node, others, &cluster.app, "inbound"),
    ];
    for (from, addr, proxy, direction) in ways {
        let mut client = wire(from.connect(addr).0);
        client.send(get).await;
        let response = client.response().await;
        let said = (response.status, response.header("mesh-proxy-error"));
        assert_eq!(said, (508, Some("loop")), "{addr}: {response:?}");
        let direction = format!("direction=\"{direction}\"");
        has(proxy, "mesh_tcp_failures_total", &[&direction, "reason=\"loop\""]).await;
    }
    // The same port of another pod, through the own proxy: it ends there, and does not go round.
    let mut client = wire(cluster.client.connect(others).0);
    client.send(get).await;
    assert_eq!(client.response().await.status, 508);
}
