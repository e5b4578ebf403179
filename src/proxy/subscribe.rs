//! What the control plane says, as watches: targets on first use, and this proxy's own inbound configuration.
//!
//! All streams share one HTTP/2 connection over mTLS. While it is down, receivers keep the last value; it is re-dialled
//! with jitter, and each stream's first snapshot then replaces what was known. A target nobody looks at any more is
//! dropped after a while, so that a proxy holds only what its workload talks to.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::identity::dial::Controller;
use crate::{api::inbound::Inbound, model::service::Target, tls::Identity};

mod follow;
mod session;

/// Asks for targets from any thread; the streams run where [`Subscriber::run`] does.
#[derive(Clone)]
pub(crate) struct ControlPlane {
    shared: Arc<Shared>,
}

/// Runs the streams. On a `LocalSet`.
pub(crate) struct Subscriber {
    shared: Arc<Shared>,
    controller: Controller,
    identity: watch::Receiver<Option<Arc<Identity>>>,
}

type TargetSender = watch::Sender<Option<Arc<Target>>>;

struct Shared {
    /// Locked to look up or forget a target, never on the request path and never across an await.
    targets: Mutex<HashMap<Arc<str>, TargetSender>>,
    /// A target was asked for that has no stream yet.
    asked: Notify,
    inbound: watch::Sender<Option<Arc<Inbound>>>,
    connected: watch::Sender<bool>,
    linger: Duration,
}

/// How long a target outlives its last receiver.
const LINGER: Duration = Duration::from_secs(10);

pub(crate) fn channel(
    controller: Controller,
    identity: watch::Receiver<Option<Arc<Identity>>>,
) -> (ControlPlane, Subscriber) {
    channel_with(controller, identity, LINGER)
}

fn channel_with(
    controller: Controller,
    identity: watch::Receiver<Option<Arc<Identity>>>,
    linger: Duration,
) -> (ControlPlane, Subscriber) {
    let shared = Arc::new(Shared {
        targets: Mutex::default(),
        asked: Notify::new(),
        inbound: watch::Sender::new(None),
        connected: watch::Sender::new(false),
        linger,
    });
    (ControlPlane { shared: Arc::clone(&shared) }, Subscriber { shared, controller, identity })
}

impl ControlPlane {
    /// One stream per target and process; dropped a while after the last receiver is gone. `None`: not heard yet.
    /// `target` is `NS/SERVICE:PORT` or `IP:PORT`.
    pub(crate) fn outbound(&self, target: &str) -> watch::Receiver<Option<Arc<Target>>> {
        let mut targets = self.shared.targets.lock();
        if let Some(known) = targets.get(target) {
            return known.subscribe();
        }
        let (sender, receiver) = watch::channel(None);
        targets.insert(target.into(), sender);
        self.shared.asked.notify_one();
        receiver
    }

    /// What this proxy's workload serves, and the trust anchors.
    pub(crate) fn inbound(&self) -> watch::Receiver<Option<Arc<Inbound>>> {
        self.shared.inbound.subscribe()
    }

    /// Whether the controller's streams are up.
    pub(crate) fn connected(&self) -> watch::Receiver<bool> {
        self.shared.connected.subscribe()
    }
}

impl Shared {
    /// Forgets a target that nobody watches; `false` when somebody does after all.
    fn forget(&self, name: &str) -> bool {
        let mut targets = self.targets.lock();
        let unused = targets.get(name).is_none_or(|sender| sender.receiver_count() == 0);
        if unused {
            targets.remove(name);
        }
        unused
    }
}
