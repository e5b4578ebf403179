//! A worker: one thread that owns its connections, pools and counters.

use std::{io, net::TcpListener, rc::Rc, sync::Arc, thread, time::Duration};

use tokio::{
    sync::{mpsc, watch},
    task::LocalSet,
};

use super::{
    config::Config,
    context::Context,
    inbound::Apps,
    listener::{Acceptor, Admission, Handed, Purpose},
    observe::{Feed, Observer},
    outbound::targets::Targets,
    subscribe::ControlPlane,
};
use crate::{
    rt::{clock, drain},
    tls::Identity,
};

/// Everything a worker needs, made by the composition root and sent to its thread.
pub(crate) struct Parts {
    pub(crate) index: usize,
    pub(crate) listeners: Vec<TcpListener>,
    pub(crate) purposes: Arc<[Purpose]>,
    pub(crate) admission: Arc<Admission>,
    pub(crate) handed: mpsc::Receiver<Handed>,
    pub(crate) others: Vec<mpsc::Sender<Handed>>,
    pub(crate) own: Arc<[std::net::SocketAddr]>,
    pub(crate) config: Arc<Config>,
    pub(crate) control: ControlPlane,
    pub(crate) identity: watch::Receiver<Option<Arc<Identity>>>,
    pub(crate) feed: Feed,
    pub(crate) drain: drain::Watch,
}

/// Connections on their way to one worker.
pub(crate) const HANDED_QUEUE: usize = 256;

/// How often idle connections and targets are looked over.
const SWEEP_INTERVAL: Duration = Duration::from_secs(2);

/// Starts the worker's thread. It ends with the process: the drain is what is waited for.
pub(crate) fn spawn(parts: Parts) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    thread::Builder::new().name(format!("worker-{}", parts.index)).spawn(move || {
        LocalSet::new().block_on(&runtime, run(parts));
    })?;
    Ok(())
}

async fn run(parts: Parts) {
    let observer = Observer::new(clock::now());
    let cx = Rc::new(Context {
        config: parts.config,
        observer: observer.clone(),
        control: parts.control,
        identity: parts.identity,
        own: parts.own,
    });
    let acceptor = Rc::new(Acceptor {
        worker: parts.index,
        purposes: parts.purposes,
        admission: parts.admission,
        others: parts.others,
        targets: Rc::new(Targets::default()),
        apps: Rc::new(Apps::default()),
        cx: Rc::clone(&cx),
    });
    // Known from the start, so that the first connection does not wait for the controller.
    for purpose in acceptor.purposes.iter() {
        if let Purpose::Upstream(name) = purpose {
            acceptor.targets.named(name, &cx);
        }
    }
    for (index, listener) in parts.listeners.into_iter().enumerate() {
        tokio::task::spawn_local(Rc::clone(&acceptor).accept(listener, index, parts.drain.clone()));
    }
    tokio::task::spawn_local(Rc::clone(&acceptor).take(parts.handed, parts.drain));
    tokio::task::spawn_local(sweep(acceptor));
    parts.feed.serve(observer).await;
}

async fn sweep(acceptor: Rc<Acceptor>) {
    let mut interval = tokio::time::interval(SWEEP_INTERVAL);
    let connected = acceptor.cx.control.connected();
    loop {
        interval.tick().await;
        let now = clock::now();
        acceptor.targets.sweep(now, *connected.borrow());
        acceptor.apps.sweep(now);
    }
}
