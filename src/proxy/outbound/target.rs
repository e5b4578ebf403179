//! One destination as a worker sees it: what the controller says of it, its endpoints, and what was learned of its port.

use std::{
    cell::{Cell, RefCell},
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use rand::rng;
use tokio::sync::{Notify, watch};

use super::endpoint::{Lease, Reach};
use crate::{
    model::{
        endpoint::Endpoint,
        service::{self, ProtocolHint, TargetKind},
    },
    net::listen,
    proxy::{
        balance::pool::Pool,
        error::{Error, Kind},
        observe::{Direction, Edge, EdgeKey, Observer, Tls},
    },
    rt::clock,
};

/// How long it is believed that a port's server speaks first.
const LEARNED: Duration = Duration::from_secs(600);

pub(crate) struct Target {
    /// Where the client was going, when it was redirected here.
    original: Option<SocketAddr>,
    state: RefCell<State>,
    known: Cell<bool>,
    /// Nobody knows the address: connections go where they were going.
    passes_through: Cell<bool>,
    became_known: Notify,
    server_first_until: Cell<Option<Instant>>,
    observer: Observer,
    last_used: Cell<Instant>,
}

struct State {
    name: Rc<str>,
    hint: ProtocolHint,
    pool: Pool<Reach>,
    /// For what never got as far as an endpoint.
    edge: Rc<Edge>,
}

impl Target {
    pub(crate) fn new(name: &str, original: Option<SocketAddr>, observer: &Observer) -> Self {
        let name: Rc<str> = name.into();
        let edge = observer.edge(nobody(&name));
        Self {
            original,
            state: RefCell::new(State { name, hint: ProtocolHint::Unknown, pool: Pool::default(), edge }),
            known: Cell::new(false),
            passes_through: Cell::new(false),
            became_known: Notify::new(),
            server_first_until: Cell::new(None),
            observer: observer.clone(),
            last_used: Cell::new(clock::now()),
        }
    }

    /// Follows the controller's stream for as long as somebody else holds the target.
    pub(crate) async fn follow(this: std::rc::Weak<Self>, mut news: watch::Receiver<Option<Arc<service::Target>>>) {
        loop {
            let newest = news.borrow_and_update().clone();
            let Some(target) = this.upgrade() else { return };
            if let Some(newest) = newest {
                target.update(&newest, clock::now());
            }
            drop(target);
            if news.changed().await.is_err() {
                return;
            }
        }
    }

    fn update(&self, newest: &service::Target, now: Instant) {
        let mut state = self.state.borrow_mut();
        state.hint = newest.protocol;
        if let TargetKind::Service(port) = &newest.kind {
            let name = port.to_string();
            if *state.name != *name {
                state.name = name.into();
                state.edge = self.observer.edge(nobody(&state.name));
            }
        }
        self.passes_through.set(newest.kind == TargetKind::Unknown);
        let passed_through;
        let endpoints = match (&newest.kind, self.original) {
            (TargetKind::Unknown, Some(addr)) => {
                passed_through = [Endpoint { addr, identity: None, workload: None, pod: None }];
                &passed_through[..]
            }
            _ => &newest.endpoints,
        };
        let endpoints: Vec<Endpoint> = endpoints.iter().map(|endpoint| self.within_reach(endpoint)).collect();
        let State { name, pool, .. } = &mut *state;
        pool.update(&endpoints, now, |endpoint| {
            let plain = if self.is_own_pod(endpoint) { Tls::Loopback } else { Tls::NotMeshed };
            Reach::new(endpoint, name, plain, &self.observer)
        });
        self.known.set(true);
        self.became_known.notify_waiters();
    }

    /// A pod that calls itself does not meet its own proxy on the way, which the rules let through to the application.
    fn within_reach(&self, endpoint: &Endpoint) -> Endpoint {
        let identity = endpoint.identity.clone().filter(|_| !self.is_own_pod(endpoint));
        Endpoint { identity, ..endpoint.clone() }
    }

    /// Only where connections are redirected has a pod an address of its own.
    fn is_own_pod(&self, endpoint: &Endpoint) -> bool {
        self.original.is_some() && listen::is_local(endpoint.addr.ip())
    }

    /// Waits for the controller's first word.
    ///
    /// # Errors
    /// [`Kind::Discovery`] after `deadline`.
    pub(crate) async fn known(&self, deadline: Duration) -> Result<(), Error> {
        self.last_used.set(clock::now());
        if self.known.get() {
            return Ok(());
        }
        let wait = async {
            loop {
                let notified = self.became_known.notified();
                if self.known.get() {
                    return;
                }
                notified.await;
            }
        };
        tokio::time::timeout(deadline, wait).await.map_err(|_| Error::new(Kind::Discovery))
    }

    pub(crate) fn hint(&self) -> ProtocolHint {
        self.state.borrow().hint
    }

    pub(crate) fn name(&self) -> Rc<str> {
        Rc::clone(&self.state.borrow().name)
    }

    /// What to call it in labels when the client named a server: for an address that is nobody's Service, `SNI:PORT` says
    /// more than the address. The set is bounded as all edges are.
    pub(crate) fn name_with(&self, sni: Option<&str>, port: u16) -> Rc<str> {
        match sni {
            Some(sni) if self.passes_through.get() => format!("{sni}:{port}").into(),
            _ => self.name(),
        }
    }

    pub(crate) fn edge(&self) -> Rc<Edge> {
        Rc::clone(&self.state.borrow().edge)
    }

    pub(crate) fn observer(&self) -> &Observer {
        &self.observer
    }

    pub(crate) fn pick(&self, now: Instant, tried: &[SocketAddr]) -> Option<Lease> {
        self.last_used.set(now);
        self.state.borrow().pool.pick(now, &mut rng(), tried)
    }

    /// How long to wait for the client before the server is asked: not at all where servers spoke first lately.
    pub(crate) fn silence(&self, wait: Duration) -> Duration {
        match self.server_first_until.get() {
            Some(until) if clock::now() < until => Duration::ZERO,
            _ => wait,
        }
    }

    pub(crate) fn learn_server_first(&self) {
        self.server_first_until.set(Some(clock::now() + LEARNED));
    }

    /// HTTP on this port overrules what was learned of it.
    pub(crate) fn saw_http(&self) {
        self.server_first_until.set(None);
    }

    pub(crate) fn sweep(&self, now: Instant) {
        for member in self.state.borrow().pool.members() {
            member.reach.http1.sweep(now);
        }
    }

    /// Whether this is where a redirected connection was going, not a Service that was asked for by name.
    pub(crate) fn is_addressed(&self) -> bool {
        self.original.is_some()
    }

    pub(crate) fn idle_for(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.last_used.get())
    }
}

fn nobody(name: &Rc<str>) -> EdgeKey {
    EdgeKey { direction: Direction::Outbound, target: Rc::clone(name), peer: None, peer_id: None, tls: Tls::Unknown }
}
