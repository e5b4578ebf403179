//! The data plane beside a workload: `Proxy::build(config)` binds and starts everything, `run` serves until it is told to
//! stop and then drains. The composition root: parts are made and wired here and nowhere else.
//!
//! The calling thread is the control side (certificates, the controller's streams, the admin servers); each worker is a
//! thread of its own that shares nothing with the others on the request path. A connection goes
//! `listener` → `inbound` or `outbound` → `race`/`detect` → an `http` server or `tcp` → `balance` → `connect`.

use std::{
    net::{SocketAddr, TcpListener},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

use crate::{
    model::metric::label,
    net::listen,
    rt::{drain, signal},
    tls::Identity,
};

pub(crate) mod admin;
pub(crate) mod args;
pub(crate) mod balance;
pub(crate) mod carry;
pub(crate) mod config;
pub(crate) mod connect;
pub(crate) mod context;
pub(crate) mod detect;
pub(crate) mod error;
pub(crate) mod http;
pub(crate) mod identity;
pub(crate) mod inbound;
pub(crate) mod io;
pub(crate) mod listener;
pub(crate) mod observe;
pub(crate) mod outbound;
pub(crate) mod race;
pub(crate) mod subscribe;
pub(crate) mod worker;

pub use args::Args;
use config::Config;
use listener::{Admission, Purpose};

/// Why a proxy did not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot listen on {addr} for {what}")]
    Listen { addr: String, what: &'static str, source: std::io::Error },
    #[error("cannot start a worker")]
    Worker(#[source] std::io::Error),
    #[error("cannot wait for signals")]
    Signal(#[source] std::io::Error),
}

/// A proxy that listens already.
pub(crate) struct Proxy {
    config: Arc<Config>,
    signal: drain::Signal,
    public: admin::Listener,
    private: Option<admin::Listener>,
    state: Rc<admin::State>,
    ready: watch::Sender<bool>,
    identity: watch::Receiver<Option<Arc<Identity>>>,
    manager: identity::Manager,
    subscriber: subscribe::Subscriber,
    control: subscribe::ControlPlane,
    shutdown: mpsc::Receiver<()>,
}

impl Proxy {
    /// Binds the listeners and starts the workers. On a `LocalSet`.
    ///
    /// # Errors
    /// An address that cannot be bound, named.
    pub(crate) async fn build(config: Config, log: crate::telemetry::log::Handle) -> Result<Self, Error> {
        count_panics();
        let config = Arc::new(config);
        let (manager, identity) = identity::channel(config.identity.clone());
        let (control, subscriber) = subscribe::channel(config.identity.controller.clone(), identity.clone());
        let (signal, watch) = drain::channel();
        let bound = bind_all(&config)?;
        let public = bind_admin(&admin::Address::Tcp(config.admin), "the public admin API").await?;
        let private = match &config.private_admin {
            Some(address) => Some(bind_admin(address, "the private admin API").await?),
            None => None,
        };
        let (collector, feeds) = observe::channel(config.workers);
        let described = describe(&config, &bound, &public);
        let own: Arc<[SocketAddr]> = bound.iter().map(|listener| listener.addr).collect();
        let purposes: Arc<[Purpose]> = bound.iter().map(|listener| listener.purpose.clone()).collect();
        let admission = Arc::new(Admission::new(bound.len(), config.workers, config.max_connections));
        let (others, mut handed): (Vec<_>, Vec<_>) =
            (0..config.workers).map(|_| mpsc::channel(worker::HANDED_QUEUE)).map(|(s, r)| (s, Some(r))).unzip();
        let mut listeners: Vec<Vec<TcpListener>> = (0..config.workers).map(|_| Vec::new()).collect();
        for bound in bound {
            for (worker, listener) in listeners.iter_mut().zip(bound.sockets) {
                worker.push(listener);
            }
        }
        for (index, (listeners, feed)) in listeners.into_iter().zip(feeds).enumerate() {
            let Some(handed) = handed[index].take() else { continue };
            let parts = worker::Parts {
                index,
                listeners,
                purposes: Arc::clone(&purposes),
                admission: Arc::clone(&admission),
                handed,
                others: others.clone(),
                own: Arc::clone(&own),
                config: Arc::clone(&config),
                control: control.clone(),
                identity: identity.clone(),
                feed,
                drain: watch.clone(),
            };
            worker::spawn(parts).map_err(Error::Worker)?;
        }
        let (ready, is_ready) = watch::channel(false);
        let (stop, shutdown) = mpsc::channel(1);
        let verbs = config.admin_changes.then_some(admin::Verbs { log, shutdown: stop.clone() });
        let state = Rc::new(admin::State {
            collector,
            ready: is_ready,
            gauges: gauges(&config, &identity, &manager, &control),
            config: describe_now(described, identity.clone()),
            verbs,
        });
        // The channel stays open when no verb holds its other end.
        tokio::task::spawn_local(async move { stop.closed().await });
        Ok(Self { config, signal, public, private, state, ready, identity, manager, subscriber, control, shutdown })
    }

    /// Serves until SIGTERM, SIGINT or the shutdown verb; then drains. On a `LocalSet`.
    ///
    /// # Errors
    /// When signals cannot be received.
    pub(crate) async fn run(mut self) -> Result<(), Error> {
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn_local(admin::serve(admin::Server::Public, self.public, Rc::clone(&self.state)));
        if let Some(private) = self.private {
            tasks.spawn_local(admin::serve(admin::Server::Private, private, Rc::clone(&self.state)));
        }
        tasks.spawn_local(self.manager.run(self.control.inbound()));
        tasks.spawn_local(self.subscriber.run());
        let ready = self.ready.clone();
        let mut identity = self.identity;
        // Ready is a latch: a controller that goes away later takes nothing from what already works.
        tasks.spawn_local(async move {
            if identity.wait_for(Option::is_some).await.is_ok() {
                tracing::info!("ready");
                ready.send_replace(true);
            }
        });
        let reason = tokio::select! {
            signal = signal::shutdown() => signal.map_err(Error::Signal)?,
            Some(()) = self.shutdown.recv() => "the shutdown verb",
        };
        self.ready.send_replace(false);
        tracing::info!(reason, deadline = ?self.config.drain_deadline, "draining");
        if !self.signal.drain(self.config.drain_deadline).await {
            tracing::warn!("drain deadline passed: connections that were still open are cut");
        }
        Ok(())
    }
}

/// An address and what comes in there, with a socket for each worker.
struct Bound {
    purpose: Purpose,
    addr: SocketAddr,
    sockets: Vec<TcpListener>,
}

fn bind_all(config: &Config) -> Result<Vec<Bound>, Error> {
    let mut wanted: Vec<(SocketAddr, Purpose, &'static str)> = Vec::new();
    for inbound in &config.inbound {
        wanted.push((inbound.listen, Purpose::Inbound(inbound.app, inbound.protocol), "--inbound"));
    }
    for upstream in &config.upstreams {
        wanted.push((upstream.listen, Purpose::Upstream(upstream.target.to_string().into()), "--upstream"));
    }
    wanted.extend(config.inbound_redirect.map(|addr| (addr, Purpose::InboundRedirect, "--inbound-redirect")));
    wanted.extend(config.outbound_redirect.map(|addr| (addr, Purpose::OutboundRedirect, "--outbound-redirect")));
    wanted
        .into_iter()
        .map(|(addr, purpose, what)| {
            let failed = |source| Error::Listen { addr: addr.to_string(), what, source };
            let sockets = listen::bind(addr, config.workers).map_err(failed)?;
            let addr = sockets[0].local_addr().map_err(failed)?;
            tracing::info!(%addr, ?purpose, "listening");
            Ok(Bound { purpose, addr, sockets })
        })
        .collect()
}

async fn bind_admin(address: &admin::Address, what: &'static str) -> Result<admin::Listener, Error> {
    admin::Listener::bind(address).await.map_err(|source| Error::Listen { addr: address.to_string(), what, source })
}

/// `GET /config`, but for the identity, which comes later.
fn describe(config: &Config, bound: &[Bound], public: &admin::Listener) -> Value {
    let listeners: Vec<Value> = bound
        .iter()
        .map(|listener| {
            let addr = listener.addr.to_string();
            match &listener.purpose {
                Purpose::Inbound(app, hint) => {
                    json!({ "direction": "inbound", "addr": addr, "app": app.to_string(), "protocol": hint })
                }
                Purpose::Upstream(target) => json!({ "direction": "outbound", "addr": addr, "target": &**target }),
                Purpose::InboundRedirect => json!({ "direction": "inbound", "addr": addr, "redirect": true }),
                Purpose::OutboundRedirect => json!({ "direction": "outbound", "addr": addr, "redirect": true }),
            }
        })
        .collect();
    json!({
        "schema": "mesh.dev/proxy-config/v1",
        "namespace": config.namespace,
        "workload": config.workload,
        "pod": config.pod,
        "identity": null,
        "workers": config.workers,
        "listeners": listeners,
        "admin": public.address().ok().map(|address| address.to_string()),
    })
}

fn describe_now(described: Value, identity: watch::Receiver<Option<Arc<Identity>>>) -> Box<dyn Fn() -> Value> {
    Box::new(move || {
        let mut now = described.clone();
        if let Some(identity) = identity.borrow().as_ref() {
            now["identity"] = identity.id.to_string().into();
            now["certificateExpiresAt"] = identity.expires_at.into();
        }
        now
    })
}

fn gauges(
    config: &Config,
    identity: &watch::Receiver<Option<Arc<Identity>>>,
    manager: &identity::Manager,
    control: &subscribe::ControlPlane,
) -> Box<dyn Fn() -> observe::Gauges> {
    let who = [
        (label::NAMESPACE, config.namespace.clone()),
        (label::WORKLOAD, config.workload.clone()),
        (label::POD, config.pod.clone()),
        (label::VERSION, env!("CARGO_PKG_VERSION").to_owned()),
    ];
    let (identity, renewals, connected) = (identity.clone(), manager.renewals(), control.connected());
    Box::new(move || {
        let identity = identity.borrow().clone();
        let id = identity.as_ref().map(|identity| identity.id.to_string()).unwrap_or_default();
        let renewals = *renewals.borrow();
        observe::Gauges {
            info: who.iter().cloned().chain([(label::IDENTITY, id)]).collect(),
            certificate_expiry: identity.map(|identity| identity.expires_at),
            certificate_renewals: vec![("success", renewals.succeeded), ("failure", renewals.failed)],
            is_controller_connected: *connected.borrow(),
            panics: PANICS.load(Relaxed),
        }
    })
}

/// Panics of connection tasks so far: each cost its connection, and no more.
static PANICS: AtomicU64 = AtomicU64::new(0);

fn count_panics() {
    std::panic::set_hook(Box::new(|panic| {
        PANICS.fetch_add(1, Relaxed);
        tracing::error!(%panic, "a bug in the proxy cost a connection");
    }));
}
