//! The controller with real proxies' clients, over loopback: certificates, streams, restarts, refusals.

use std::{fs, time::Instant};

use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    sync::oneshot,
    task::{JoinHandle, LocalSet, spawn_local},
    time::timeout,
};

use super::*;
use crate::{
    api::private::JoinAnswer,
    model::{
        identity::SpiffeId,
        service::{ProtocolHint, Target},
    },
    proxy::{
        identity::{self, Args, dial, dial::Controller as Address},
        subscribe::{self, ControlPlane},
    },
    tls::{Identity, csr::Key},
};

/// A controller under test, on a directory of its own.
struct Mesh {
    dir: Rc<TempDir>,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<Result<(), Error>>,
    api: SocketAddr,
    authority: Rc<Authority>,
}

impl Mesh {
    async fn start(leaf_seconds: u64) -> Self {
        Self::start_in(Rc::new(tempfile::tempdir().unwrap()), leaf_seconds).await
    }

    async fn start_in(dir: Rc<TempDir>, leaf_seconds: u64) -> Self {
        let config = Config {
            source: dir.path().to_owned(),
            name: "test".into(),
            listen: "127.0.0.1:0".parse().unwrap(),
            trust_domain: "local".into(),
            leaf_lifetime: Duration::from_secs(leaf_seconds),
            ephemeral: false,
        };
        let controller = Controller::build(config).await.unwrap();
        let (api, authority) = (controller.api, Rc::clone(&controller.authority));
        let (stop, stopped) = oneshot::channel::<()>();
        let task = spawn_local(controller.run(async { drop(stopped.await) }));
        let mesh = Self { dir, stop: Some(stop), task, api, authority };
        within("controller.json", async {
            while !mesh.dir.path().join(".mesh/controller.json").exists() {
                sleep(Duration::from_millis(2)).await;
            }
        })
        .await;
        mesh
    }

    async fn stop(mut self) -> Rc<TempDir> {
        drop(self.stop.take());
        within("the drain", self.task).await.unwrap().unwrap();
        self.dir
    }

    fn write(&self, file: &str, text: &str) {
        fs::write(self.dir.path().join(file), text).unwrap();
    }

    async fn token(&self, account: &str) -> String {
        let ask = serde_json::json!({ "namespace": "shop", "service_account": account });
        let answer = self.ask("POST", "/v1/join", &ask.to_string()).await;
        serde_json::from_str::<JoinAnswer>(&answer).unwrap().token
    }

    async fn status(&self) -> Status {
        serde_json::from_str(&self.ask("GET", "/status", "").await).unwrap()
    }

    /// Over the private socket; the body of the answer.
    async fn ask(&self, method: &str, path: &str, body: &str) -> String {
        let mut socket = UnixStream::connect(self.dir.path().join(".mesh/controller.sock")).await.unwrap();
        let length = body.len();
        let request =
            format!("{method} {path} HTTP/1.1\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}");
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        answer.split_once("\r\n\r\n").unwrap().1.to_owned()
    }

    async fn proxy(&self, account: &str) -> Proxy {
        Proxy::start(&self.token(account).await, self.dir.path(), account)
    }

    /// An identity signed by this mesh `ago` seconds ago.
    fn identity(&self, ago: i64) -> Identity {
        let (id, key) = (SpiffeId::new("local", "shop", "web"), Key::generate().unwrap());
        let csr = key.request(&id).unwrap();
        let answer = self.authority.ca.sign(&csr, &id, clock::unix_seconds() - ago).unwrap();
        Identity::new(key.into_der(), &answer.chain, &answer.trust_anchors).unwrap()
    }
}

/// What a proxy has of the control plane.
struct Proxy {
    identity: watch::Receiver<Option<Arc<Identity>>>,
    plane: ControlPlane,
    _tasks: JoinSet<()>,
}

impl Proxy {
    fn start(token: &str, dir: &Path, account: &str) -> Self {
        let args = Args {
            join_token: Some(token.to_owned()),
            controller: None,
            controller_file: Some(dir.join(".mesh/controller.json")),
            trust_anchors: None,
            identity_token_file: None,
        };
        let config = args.config("shop", account).unwrap();
        let address = config.controller.clone();
        let (manager, identity) = identity::channel(config);
        let (plane, subscriber) = subscribe::channel(address, identity.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn_local(manager.run(plane.inbound()));
        tasks.spawn_local(subscriber.run());
        Self { identity, plane, _tasks: tasks }
    }

    async fn identity(&mut self) -> Arc<Identity> {
        within("an identity", self.identity.wait_for(Option::is_some)).await.unwrap().clone().unwrap()
    }
}

/// Waits until the target is as expected.
async fn target(watch: &mut watch::Receiver<Option<Arc<Target>>>, is: impl Fn(&Target) -> bool) -> Arc<Target> {
    let expected = watch.wait_for(|target| target.as_deref().is_some_and(&is));
    within("the target", expected).await.unwrap().clone().unwrap()
}

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(20), future).await.unwrap_or_else(|_| panic!("{what} did not come"))
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, test);
}

fn slice(pod: &str, port: u16) -> String {
    format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: {pod}\n  namespace: shop\n  labels: \
         {{ kubernetes.io/service-name: web }}\n  annotations:\n    mesh.dev/identity: spiffe://local/ns/shop/sa/web\n    \
         mesh.dev/workload: shop/deploy/web\naddressType: IPv4\nports: [{{ name: \"8080\", port: {port} }}]\nendpoints: \
         [{{ addresses: [127.0.0.1] }}]\n"
    )
}

const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata: { name: web, namespace: shop }\nspec: { ports: [{ port: \
                       80, appProtocol: http }] }\n";

#[test]
fn a_proxy_gets_its_certificate_and_hears_of_endpoints_at_once() {
    run(async {
        let mesh = Mesh::start(3600).await;
        mesh.write("web.yaml", SERVICE);
        let mut proxy = mesh.proxy("web").await;
        let identity = proxy.identity().await;
        assert_eq!(identity.id.to_string(), "spiffe://local/ns/shop/sa/web");
        let mut web = proxy.plane.outbound("shop/web:80");
        let first = target(&mut web, |t| t.protocol == ProtocolHint::Http1).await;
        assert_eq!(first.endpoints, []);
        let mut slowest = Duration::ZERO;
        for n in 1..=10_u16 {
            let begun = clock::now();
            mesh.write(&format!("endpoints/web-{n}.yaml"), &slice(&format!("web-{n}"), 1000 + n));
            target(&mut web, |t| t.endpoints.len() == usize::from(n)).await;
            slowest = slowest.max(clock::now() - begun);
        }
        assert!(slowest < Duration::from_millis(300), "{slowest:?}");
        fs::remove_file(mesh.dir.path().join("endpoints/web-3.yaml")).unwrap();
        let last = target(&mut web, |t| t.endpoints.len() == 9).await;
        assert!(last.endpoints.iter().all(|e| e.is_meshed() && e.addr.port() != 1003));
        let inbound = proxy.plane.inbound().borrow().clone().unwrap();
        assert_eq!(
            inbound.ports.iter().map(|p| (p.port, p.protocol)).collect::<Vec<_>>(),
            [(8080, ProtocolHint::Http1)]
        );
        mesh.stop().await;
    });
}

#[test]
fn a_broken_file_keeps_its_last_state_and_says_where_it_broke() {
    run(async {
        let mesh = Mesh::start(3600).await;
        mesh.write("web.yaml", SERVICE);
        mesh.write("pod.yaml", &slice("web-1", 1001));
        let proxy = mesh.proxy("web").await;
        let mut web = proxy.plane.outbound("shop/web");
        target(&mut web, |t| t.endpoints.len() == 1).await;
        mesh.write("web.yaml", &format!("{SERVICE}---\nkind: [\n"));
        let status = within("the error", async {
            loop {
                let status = mesh.status().await;
                if !status.errors.is_empty() {
                    break status;
                }
                sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
        assert_eq!((status.errors[0].file.as_str(), status.services, status.endpoint_slices), ("web.yaml", 1, 1));
        assert!((6..=8).contains(&status.errors[0].line), "{:?}", status.errors);
        assert_eq!(status.streams, 2);
        assert_eq!(web.borrow().as_ref().unwrap().protocol, ProtocolHint::Http1);
        mesh.write("web.yaml", &SERVICE.replace("http", "grpc"));
        target(&mut web, |t| t.protocol == ProtocolHint::Grpc).await;
        assert_eq!(mesh.status().await.errors, []);
        mesh.stop().await;
    });
}

#[test]
fn streams_come_back_with_a_controller_that_was_away() {
    run(async {
        let mesh = Mesh::start(3600).await;
        mesh.write("pod.yaml", &slice("web-1", 1001));
        let proxy = mesh.proxy("web").await;
        let (mut web, mut connected) = (proxy.plane.outbound("shop/web:8080"), proxy.plane.connected());
        target(&mut web, |t| t.endpoints.len() == 1).await;
        within("a connection", connected.wait_for(|up| *up)).await.unwrap();
        let first = mesh.api;
        let dir = mesh.stop().await;
        within("the loss", connected.wait_for(|up| !*up)).await.unwrap();
        assert_eq!(web.borrow().as_ref().unwrap().endpoints.len(), 1, "what is known stays");
        fs::write(dir.path().join("more.yaml"), slice("web-2", 1002)).unwrap();
        let again = Mesh::start_in(Rc::clone(&dir), 3600).await;
        assert_eq!(again.api, first, "the port of the last run is taken again");
        target(&mut web, |t| t.endpoints.len() == 2).await;
        within("a connection", connected.wait_for(|up| *up)).await.unwrap();
        again.stop().await;
        // On another port: somebody else took the old one meanwhile.
        let _taken = std::net::TcpListener::bind(first).unwrap();
        fs::remove_file(dir.path().join("more.yaml")).unwrap();
        let elsewhere = Mesh::start_in(dir, 3600).await;
        assert_ne!(elsewhere.api, first);
        target(&mut web, |t| t.endpoints.len() == 1).await;
        elsewhere.stop().await;
    });
}

#[test]
fn certificates_are_renewed_and_roots_rotated_while_streams_go_on() {
    run(async {
        let mesh = Mesh::start(3).await;
        mesh.write("pod.yaml", &slice("web-1", 1001));
        let mut proxy = mesh.proxy("web").await;
        let mut web = proxy.plane.outbound("shop/web");
        let first = proxy.identity().await;
        target(&mut web, |t| t.endpoints.len() == 1).await;
        let later = |i: &Option<Arc<Identity>>| i.as_ref().is_some_and(|i| i.expires_at > first.expires_at);
        within("a renewal", proxy.identity.wait_for(later)).await.unwrap();
        let other = Mesh::start(3600).await;
        let roots = other.authority.ca.trust_anchors();
        mesh.write(".mesh/ca/anchors.crt", &roots);
        let both = |i: &Option<Arc<Identity>>| i.as_ref().is_some_and(|i| i.trust_anchors().ends_with(&roots));
        within("the new root", proxy.identity.wait_for(both)).await.unwrap();
        assert_eq!(web.borrow().as_ref().unwrap().endpoints.len(), 1);
        mesh.stop().await;
        other.stop().await;
    });
}

/// Dials the API with an identity and asks for the inbound stream; the reason of what went wrong.
async fn refusal(mesh: &Mesh, identity: &Identity) -> String {
    let address = Address::Fixed(mesh.api.to_string());
    match dial::dial(&address, identity.controller()).await {
        Err(error) => error.reason().to_owned(),
        Ok((connection, driver, _)) => {
            let watch = connection.watch::<crate::api::inbound::Event>("/v1/inbound");
            tokio::select! {
                biased;
                lost = driver => lost.map_or_else(|e| tls::reason::within(&e).to_owned(), |()| "closed".into()),
                opened = watch => opened.map_or_else(|e| tls::reason::within(&e).to_owned(), |_| "none".into()),
            }
        }
    }
}

#[test]
fn foreign_and_expired_certificates_are_refused_with_the_reason() {
    run(async {
        let (mesh, other) = (Mesh::start(3600).await, Mesh::start(3600).await);
        assert_eq!(refusal(&mesh, &mesh.identity(0)).await, "none");
        assert_eq!(refusal(&mesh, &mesh.identity(7200)).await, "refused_certificate_expired");
        // Not even we trust a controller that is not ours …
        assert_eq!(refusal(&other, &mesh.identity(0)).await, "unknown_issuer");
        // … nor it us, if we do.
        let trusting = mesh.identity(0).with_trust_anchors(&other.authority.ca.trust_anchors()).unwrap();
        assert_eq!(refusal(&other, &trusting).await, "refused_unknown_issuer");
        mesh.stop().await;
        other.stop().await;
    });
}

#[test]
fn nothing_but_certify_is_answered_without_a_certificate() {
    run(async {
        let mesh = Mesh::start(3600).await;
        let token: crate::api::join::JoinToken = mesh.token("web").await.parse().unwrap();
        let config = tls::config::pinned_client(token.pin_bytes().unwrap(), tls::API_ALPN).unwrap();
        let (connection, driver, id) = dial::dial(&Address::Fixed(token.api.clone()), config).await.unwrap();
        assert_eq!(id.to_string(), "spiffe://local/ns/mesh-system/sa/mesh-controller");
        let driver = spawn_local(driver);
        for path in ["/v1/inbound", "/v1/outbound?target=shop/web:80"] {
            let error = connection.watch::<crate::api::inbound::Event>(path).await.err().unwrap();
            assert!(error.to_string().contains("401"), "{error}");
        }
        let key = Key::generate().unwrap();
        let csr = key.request(&SpiffeId::new("local", "shop", "orders")).unwrap();
        for (token, status) in [(None, "401"), (Some("mesh1.x".into()), "403"), (Some(token.to_string()), "400")] {
            let ask = crate::api::identity::CertifyRequest { token, csr: csr.clone() };
            let answer = connection.call::<serde_json::Value>("/v1/certify", &ask).await;
            assert!(answer.as_ref().is_err_and(|e| e.to_string().contains(status)), "{answer:?}");
        }
        let wrong = tls::config::pinned_client([7; 32], tls::API_ALPN).unwrap();
        let refused = dial::dial(&Address::Fixed(token.api), wrong).await.err().unwrap();
        assert_eq!(refused.reason(), "not_pinned");
        driver.abort();
        mesh.stop().await;
    });
}

#[test]
fn an_instance_whose_socket_is_dead_is_forgotten() {
    run(async {
        let mesh = Mesh::start(3600).await;
        let alive = mesh.dir.path().join(".mesh/proxies/a.sock");
        let _listener = std::os::unix::net::UnixListener::bind(&alive).unwrap();
        for pod in ["a", "b"] {
            let text = slice(pod, 1)
                .replace("annotations:", &format!("annotations:\n    mesh.dev/socket: .mesh/proxies/{pod}.sock"));
            mesh.write(&format!("endpoints/{pod}.yaml"), &text);
        }
        let dead = mesh.dir.path().join("endpoints/b.yaml");
        within("the funeral", async {
            while dead.exists() {
                sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
        assert!(mesh.dir.path().join("endpoints/a.yaml").exists());
        mesh.stop().await;
    });
}

#[test]
fn a_directory_has_one_controller_and_a_drain_is_quick() {
    run(async {
        let mesh = Mesh::start(3600).await;
        let taken = Directory::take(mesh.dir.path()).err().unwrap();
        assert!(matches!(taken, directory::Error::Taken { .. }), "{taken}");
        let proxy = mesh.proxy("web").await;
        let mut web = proxy.plane.outbound("shop/web");
        target(&mut web, |_| true).await;
        let begun: Instant = clock::now();
        let dir = mesh.stop().await;
        assert!(clock::now() - begun < Duration::from_secs(1));
        assert!(!dir.path().join(".mesh/controller.json").exists());
        assert!(!dir.path().join(".mesh/controller.sock").exists());
    });
}
