//! A local mesh of the real binary: `Mesh::local()` is a directory and its controller, `mesh.proxy("web")` a sidecar.
//!
//! ```text
//! let mesh = Mesh::local().await;
//! let orders = mesh.proxy("orders").port(server.addr, "http").start().await;
//! let web = mesh.proxy("web").upstream("orders").start().await;
//! let mut client = Wire::connect(web.outbound("orders")).await;
//! ```

use std::{
    collections::BTreeMap,
    fs::{self, Permissions},
    net::SocketAddr,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
};

use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{net::UnixStream, process::Command};

use super::{condition::eventually, namespace::Namespace, process::Process, wire::Wire};

const NAMESPACE: &str = "test";
/// Whom the rules of redirected pods know the proxy by.
pub(crate) const PROXY_USER: u32 = 2102;

pub(crate) struct Mesh {
    // In the order of their end: first the controller, then its directory.
    controller: Option<Process>,
    /// How long the certificates it gives are valid.
    leaf_lifetime: &'static str,
    dir: TempDir,
}

impl Mesh {
    /// An empty mesh with a running controller.
    pub(crate) async fn local() -> Self {
        Self::listening("127.0.0.1:0").await
    }

    /// The same, with the controller's API at an address that others can reach.
    pub(crate) async fn listening(api: &str) -> Self {
        Self::new(api, "24h").await
    }

    /// The same, with certificates that are soon over.
    pub(crate) async fn with_leaf_lifetime(time: &'static str) -> Self {
        Self::new("127.0.0.1:0", time).await
    }

    async fn new(api: &str, leaf_lifetime: &'static str) -> Self {
        // Not the default directory's long name: the paths of sockets are bounded by the system.
        let dir = tempfile::Builder::new().prefix("mt-").tempdir_in("/tmp").expect("a directory");
        fs::create_dir(dir.path().join("endpoints")).expect("a directory");
        let mut mesh = Self { controller: None, leaf_lifetime, dir };
        mesh.start_controller(api).await;
        mesh
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Starts the controller (again) and waits until it is ready.
    pub(crate) async fn start_controller(&mut self, api: &str) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mesh"));
        // A registry of its own: the tests are nobody's local mesh.
        let registry = concat!(env!("CARGO_TARGET_TMPDIR"), "/registry");
        command.args(["controller", "--listen", api, "--source"]).arg(self.path()).env("MESH_LOCAL_DIR", registry);
        command.args(["--leaf-lifetime", self.leaf_lifetime]);
        let mut process = Process::start("controller", self.path(), &mut command);
        let socket = self.controller_socket();
        eventually("the controller", async || {
            process.check();
            ask(&socket, "GET", "/ready", None).await.filter(|(status, _)| *status == 200)
        })
        .await;
        self.controller = Some(process);
    }

    /// Where the controller's API listens, `IP:PORT`.
    pub(crate) fn api(&self) -> String {
        let text = fs::read_to_string(self.path().join(".mesh/controller.json")).expect("the controller is ready");
        let file: Value = serde_json::from_str(&text).expect("JSON");
        file["api"].as_str().expect("an address").to_owned()
    }

    /// Kills the controller, without a chance to say goodbye.
    pub(crate) async fn kill_controller(&mut self) {
        let mut process = self.controller.take().expect("a running controller");
        process.signal(Signal::KILL);
        process.end().await;
    }

    /// A proxy beside a workload of this name, which is also its pod, its service account and its Service.
    pub(crate) fn proxy<'a>(&'a self, name: &'a str) -> Builder<'a> {
        let (ports, upstreams, arguments) = (Vec::new(), Vec::new(), Vec::new());
        Builder { mesh: self, name, service: name, ports, upstreams, arguments, pod: None }
    }

    /// Writes an EndpointSlice, and waits until the controller has it.
    pub(crate) async fn announce(&self, slice: Slice<'_>) {
        let whole = self.path().join(format!(".mesh/{}.new", slice.pod));
        fs::write(&whole, slice.to_json().to_string()).expect("a writable directory");
        fs::rename(&whole, self.path().join(format!("endpoints/{}.yaml", slice.pod))).expect("the same file system");
        self.settle().await;
    }

    /// Makes an application without a proxy an endpoint of `service`.
    pub(crate) async fn announce_plain(&self, service: &str, pod: &str, addr: SocketAddr) {
        self.announce(Slice { service, pod, ports: &[(80, addr, "http")], account: None, watched: false }).await;
    }

    /// Waits until the controller knows as many endpoint slices as there are files of them.
    pub(crate) async fn settle(&self) {
        if self.controller.is_none() {
            return;
        }
        let socket = self.controller_socket();
        eventually("the controller's knowledge of all endpoints", async || {
            let files = fs::read_dir(self.path().join("endpoints")).expect("a directory").count() as u64;
            let (_, status) = ask(&socket, "GET", "/status", None).await?;
            let status: Value = serde_json::from_str(&status).ok()?;
            (status["endpoint_slices"].as_u64()? == files).then_some(())
        })
        .await;
    }

    async fn join_token(&self, account: &str) -> String {
        let body = json!({ "namespace": NAMESPACE, "service_account": account }).to_string();
        let answer = ask(&self.controller_socket(), "POST", "/v1/join", Some(&body)).await;
        let (status, body) = answer.expect("an answer from the controller");
        assert_eq!(status, 200, "{body}");
        let answer: Value = serde_json::from_str(&body).expect("JSON");
        answer["token"].as_str().expect("a token").to_owned()
    }

    /// Lets another user make sockets in this directory of ours, and look at no other.
    fn let_in(&self, user: u32, sockets: &Path) {
        for dir in [self.path().to_owned(), self.path().join(".mesh")] {
            fs::set_permissions(dir, Permissions::from_mode(0o711)).expect("a directory of ours");
        }
        chown(sockets, Some(user), Some(user)).expect("the right to give it away");
    }

    fn controller_socket(&self) -> PathBuf {
        self.path().join(".mesh/controller.sock")
    }
}

/// An endpoint of a Service, as an EndpointSlice says it.
pub(crate) struct Slice<'a> {
    pub(crate) service: &'a str,
    pub(crate) pod: &'a str,
    /// The Service's port, the address, and the `appProtocol`, if any; all on one host.
    pub(crate) ports: &'a [(u16, SocketAddr, &'a str)],
    /// The service account that a proxy there must prove; `None` for an application without a proxy.
    pub(crate) account: Option<&'a str>,
    /// Whether the controller is to drop it when the proxy's private socket is dead.
    pub(crate) watched: bool,
}

impl Slice<'_> {
    fn to_json(&self) -> Value {
        let Self { service, pod, ports, account, watched } = self;
        let mut annotations = json!({});
        if let Some(account) = account {
            annotations["mesh.dev/identity"] = json!(format!("spiffe://local/ns/{NAMESPACE}/sa/{account}"));
            annotations["mesh.dev/workload"] = json!(format!("{NAMESPACE}/deploy/{service}"));
        }
        if *watched {
            annotations["mesh.dev/socket"] = json!(format!(".mesh/proxies/{pod}.sock"));
        }
        let entry = |(number, addr, protocol): &(u16, SocketAddr, &str)| {
            let mut entry = json!({ "name": number.to_string(), "port": addr.port() });
            if !protocol.is_empty() {
                entry["appProtocol"] = json!(protocol);
            }
            entry
        };
        json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": pod,
                "namespace": NAMESPACE,
                "labels": { "kubernetes.io/service-name": service },
                "annotations": annotations,
            },
            "addressType": if ports[0].1.is_ipv4() { "IPv4" } else { "IPv6" },
            "ports": ports.iter().map(entry).collect::<Vec<_>>(),
            "endpoints": [{
                "addresses": [ports[0].1.ip().to_string()],
                "conditions": { "ready": true },
                "targetRef": { "kind": "Pod", "name": pod, "namespace": NAMESPACE },
            }],
        })
    }
}

/// What a proxy is to be, before it is started.
pub(crate) struct Builder<'a> {
    mesh: &'a Mesh,
    name: &'a str,
    service: &'a str,
    ports: Vec<(u16, SocketAddr, &'a str)>,
    upstreams: Vec<&'a str>,
    arguments: Vec<String>,
    pod: Option<Pod<'a>>,
}

/// Where a redirected proxy runs: in a pod of its own, as a user of its own.
struct Pod<'a> {
    namespace: &'a Namespace,
    admin: &'a str,
}

impl<'a> Builder<'a> {
    /// Port 80 of the Service is this application. `protocol` is an `appProtocol`, or empty: to be detected.
    pub(crate) fn port(self, app: SocketAddr, protocol: &'a str) -> Self {
        self.numbered_port(80, app, protocol)
    }

    pub(crate) fn numbered_port(mut self, number: u16, app: SocketAddr, protocol: &'a str) -> Self {
        self.ports.push((number, app, protocol));
        self
    }

    /// One of several replicas of a Service.
    pub(crate) fn of(mut self, service: &'a str) -> Self {
        self.service = service;
        self
    }

    /// A listener of its own, for `SERVICE` or `SERVICE:PORT`.
    pub(crate) fn upstream(mut self, target: &'a str) -> Self {
        self.upstreams.push(target);
        self
    }

    /// In another pod than the test itself, as the proxy's own user, with the public admin API at this address.
    pub(crate) fn inside(mut self, namespace: &'a Namespace, admin: &'a str) -> Self {
        self.pod = Some(Pod { namespace, admin });
        self
    }

    pub(crate) fn args<const N: usize>(mut self, arguments: [&str; N]) -> Self {
        self.arguments.extend(arguments.map(str::to_owned));
        self
    }

    /// Starts the proxy, waits until it is ready, and tells the mesh of its ports.
    pub(crate) async fn start(self) -> Proxy {
        let Self { mesh, name, service, ports, upstreams, arguments, pod } = self;
        let sockets = mesh.path().join(".mesh/proxies");
        let socket = sockets.join(format!("{name}.sock"));
        fs::create_dir_all(&sockets).expect("a writable directory");
        let binary = env!("CARGO_BIN_EXE_mesh");
        let mut command = Command::new(if pod.is_some() { "ip" } else { binary });
        if let Some(pod) = &pod {
            mesh.let_in(PROXY_USER, &sockets);
            command.args(["netns", "exec", &pod.namespace.name, "setpriv", "--clear-groups"]);
            command.args([format!("--reuid={PROXY_USER}"), format!("--regid={PROXY_USER}"), binary.to_owned()]);
        }
        command.args(["proxy", "--namespace", NAMESPACE, "--pod", name, "--service-account", service]);
        command.args(["--workload", &format!("deploy/{service}"), "--join-token", &mesh.join_token(service).await]);
        let admin = pod.map_or("127.0.0.1:0", |pod| pod.admin);
        command.args(["--admin", admin, "--private-admin", &format!("unix:{}", socket.display())]);
        command.args(["--workers", "1", "--exit-with-parent"]).args(arguments);
        for (_, app, protocol) in &ports {
            let hint = match *protocol {
                "" => "",
                "kubernetes.io/h2c" => "/http2",
                "grpc" => "/grpc",
                "http" => "/http",
                "https" => "/tls",
                _ => "/opaque",
            };
            command.args(["--inbound", &format!("127.0.0.1:0={app}{hint}")]);
        }
        for target in &upstreams {
            command.args(["--upstream", &format!("{NAMESPACE}/{target}=127.0.0.1:0")]);
        }
        let mut process = Process::start(name, mesh.path(), &mut command);
        eventually("a proxy that is ready", async || {
            process.check();
            ask(&socket, "GET", "/ready", None).await.filter(|(status, _)| *status == 200)
        })
        .await;
        let (_, config) = ask(&socket, "GET", "/config", None).await.expect("an answer from the proxy");
        let proxy = Proxy { process, config: serde_json::from_str(&config).expect("JSON") };
        if !ports.is_empty() {
            let listening: Vec<_> =
                ports.iter().map(|(number, app, protocol)| (*number, proxy.inbound(*app), *protocol)).collect();
            let slice = Slice { service, pod: name, ports: &listening, account: Some(service), watched: true };
            mesh.announce(slice).await;
        }
        proxy
    }
}

pub(crate) struct Proxy {
    pub(crate) process: Process,
    config: Value,
}

impl Proxy {
    /// Where it takes what is for this application.
    pub(crate) fn inbound(&self, app: SocketAddr) -> SocketAddr {
        self.listener("inbound", "app", &app.to_string())
    }

    /// Where its workload reaches a target: `SERVICE`, or `SERVICE:PORT`.
    pub(crate) fn outbound(&self, target: &str) -> SocketAddr {
        self.listener("outbound", "target", &format!("{NAMESPACE}/{target}"))
    }

    fn listener(&self, direction: &str, key: &str, value: &str) -> SocketAddr {
        let listeners = self.config["listeners"].as_array().expect("listeners");
        let found = listeners.iter().find(|l| l["direction"] == direction && l[key] == value);
        let found = found.unwrap_or_else(|| panic!("no {direction} listener for {value} in {}", self.config));
        found["addr"].as_str().and_then(|addr| addr.parse().ok()).expect("an address")
    }

    /// The samples of `/metrics` whose line begins with `prefix`, by their labels.
    pub(crate) async fn samples(&self, prefix: &str) -> BTreeMap<String, f64> {
        let admin: SocketAddr = self.config["admin"].as_str().and_then(|a| a.parse().ok()).expect("an address");
        let mut wire = Wire::connect(admin).await;
        wire.send(format!("GET /metrics HTTP/1.1\r\nhost: {admin}\r\n\r\n")).await;
        let text = wire.response().await.text();
        let samples = text.lines().filter(|line| line.starts_with(prefix)).filter_map(|line| line.rsplit_once(' '));
        samples.filter_map(|(labels, value)| Some((labels.to_owned(), value.parse().ok()?))).collect()
    }
}

/// One request to a Unix socket; `None` when nobody answers.
async fn ask(socket: &Path, method: &str, target: &str, body: Option<&str>) -> Option<(u16, String)> {
    let stream = UnixStream::connect(socket).await.ok()?;
    let mut wire = Wire::over(stream);
    let body = body.unwrap_or_default();
    let length = body.len();
    wire.send(format!(
        "{method} {target} HTTP/1.1\r\nhost: localhost\r\nmesh-admin: 1\r\ncontent-length: {length}\r\n\r\n{body}"
    ))
    .await;
    let response = wire.try_response().await?;
    Some((response.status, response.text()))
}
