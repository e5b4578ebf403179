//! Traffic that the workload sends where it always did, redirected into the proxies by the kernel: two pods as network
//! namespaces, the original destination says what a connection is for.

use std::{fs, net::SocketAddr};

use tempfile::TempDir;
use tokio::process::Command;

use crate::support::{
    condition::eventually,
    mesh::{Mesh, Slice},
    namespace::Namespace,
    process::Process,
    require,
    wire::Wire,
};

const CLUSTER_IP: &str = "10.99.1.10:80";
const APP: &str = "10.99.0.2:8080";
const OUTBOUND: &str = "127.0.0.1:4140";
const INBOUND: &str = "10.99.0.2:4143";

const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: { name: app, namespace: test }
spec:
  clusterIP: 10.99.1.10
  ports: [{ port: 80 }]
";

fn addr(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

#[tokio::test]
async fn redirected_connections_go_where_they_were_going_over_mutual_tls_and_direct_ones_are_refused() {
    let (Some(()), Some(_), Some(_), Some(python)) = (
        require::root(),
        require::program("ip", "iproute2"),
        require::program("iptables", "iptables"),
        require::program("python3", "python3"),
    ) else {
        return;
    };
    let (client, server) = (Namespace::new("c"), Namespace::new("s"));
    client.join("10.99.0.1", &server, "10.99.0.2");
    client.run("ip route add 10.99.1.0/24 via 10.99.0.2");
    client.run("iptables -t nat -A OUTPUT -p tcp -d 10.99.1.10 --dport 80 -j REDIRECT --to-ports 4140");
    server.run("iptables -t nat -A PREROUTING -p tcp --dport 8080 -j REDIRECT --to-ports 4143");
    client.enter();

    let served = TempDir::new().expect("a directory");
    fs::write(served.path().join("greeting"), "from the application").expect("a writable directory");
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &server.name]).arg(python).args(["-m", "http.server", "8080", "--directory"]);
    let mut app = Process::start("app", served.path(), command.arg(served.path()));

    let mesh = Mesh::listening("10.99.0.1:0").await;
    fs::write(mesh.path().join("service.yaml"), SERVICE).expect("a writable directory");
    let proxy = mesh.proxy("app").inside(&server).args(["--inbound-redirect", "0.0.0.0:4143"]).start().await;
    let ports = [(80, addr(APP), "http")];
    mesh.announce(Slice { service: "app", pod: "app-0", ports: &ports, account: Some("app"), watched: false }).await;
    let web = mesh.proxy("web").args(["--outbound-redirect", OUTBOUND]).start().await;

    let get = "GET /greeting HTTP/1.1\r\nhost: app\r\n\r\n";
    eventually("a response through both redirects", async || {
        app.check();
        let mut wire = Wire::connect(addr(CLUSTER_IP)).await;
        wire.send(get).await;
        wire.try_response().await.filter(|response| response.text() == "from the application")
    })
    .await;
    let samples = web.samples("mesh_requests_total").await;
    let secured = |l: &String| l.contains("target=\"test/app:80\"") && l.contains("tls=\"mtls\"");
    assert!(samples.keys().any(secured), "{samples:#?}");

    for own_port in [OUTBOUND, INBOUND] {
        let mut wire = Wire::connect(addr(own_port)).await;
        wire.send(get).await;
        let response = wire.response().await;
        assert_eq!(
            (response.status, response.header("mesh-proxy-error")),
            (508, Some("loop")),
            "{own_port}: {response:?}"
        );
    }
    drop(proxy);
}
