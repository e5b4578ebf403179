//! Accepting: which worker serves a connection, whether one more is taken at all, and what it is for.

use std::{
    net::{SocketAddr, TcpListener as StdListener, TcpStream as StdStream},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
};

use super::{
    context::Context,
    detect,
    error::{Error, Kind},
    http::http1_server,
    inbound::{self, Apps},
    observe::Direction,
    outbound::{self, targets::Targets},
};
use crate::{
    model::service::ProtocolHint,
    net::{dial, orig_dst},
    rt::drain,
};

/// What connections to a listener are for.
#[derive(Clone, Debug)]
pub(crate) enum Purpose {
    /// To the application at this address.
    Inbound(SocketAddr, ProtocolHint),
    /// To this Service.
    Upstream(Arc<str>),
    /// Redirected: the original destination says where to.
    InboundRedirect,
    OutboundRedirect,
}

impl Purpose {
    fn direction(&self) -> Direction {
        match self {
            Self::Inbound(..) | Self::InboundRedirect => Direction::Inbound,
            Self::Upstream(_) | Self::OutboundRedirect => Direction::Outbound,
        }
    }
}

/// What the workers of one proxy share about accepting: counts, touched when a connection opens and when it closes.
#[derive(Debug)]
pub(crate) struct Admission {
    /// Open connections: listener by listener, a count for each worker.
    open: Vec<Vec<AtomicUsize>>,
    total: AtomicUsize,
    max: usize,
}

/// One connection's place in the counts.
struct Place {
    admission: Arc<Admission>,
    listener: usize,
    worker: usize,
}

/// A connection on its way to a worker with less to do.
pub(crate) struct Handed {
    stream: StdStream,
    listener: usize,
}

impl Admission {
    pub(crate) fn new(listeners: usize, workers: usize, max: usize) -> Self {
        let row = || (0..workers).map(|_| AtomicUsize::new(0)).collect();
        Self { open: (0..listeners).map(|_| row()).collect(), total: AtomicUsize::new(0), max }
    }

    /// The worker with the fewest connections of this listener, if it has fewer than `worker`: the kernel spreads
    /// connections by hash, which can leave a few long-lived ones all at one worker.
    fn less_busy_than(&self, worker: usize, listener: usize) -> Option<usize> {
        let counts = &self.open[listener];
        let own = counts[worker].load(Relaxed);
        let (other, least) = counts.iter().map(|count| count.load(Relaxed)).enumerate().min_by_key(|(_, n)| *n)?;
        (least < own).then_some(other)
    }

    /// A place, or `None` beyond the cap.
    fn enter(self: &Arc<Self>, listener: usize, worker: usize) -> Option<Place> {
        if self.total.fetch_add(1, Relaxed) >= self.max {
            self.total.fetch_sub(1, Relaxed);
            return None;
        }
        self.open[listener][worker].fetch_add(1, Relaxed);
        Some(Place { admission: Arc::clone(self), listener, worker })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.admission.total.fetch_sub(1, Relaxed);
        self.admission.open[self.listener][self.worker].fetch_sub(1, Relaxed);
    }
}

/// One worker's accepting.
pub(crate) struct Acceptor {
    pub(crate) worker: usize,
    pub(crate) purposes: Arc<[Purpose]>,
    pub(crate) admission: Arc<Admission>,
    pub(crate) others: Vec<mpsc::Sender<Handed>>,
    pub(crate) targets: Rc<Targets>,
    pub(crate) apps: Rc<Apps>,
    pub(crate) cx: Rc<Context>,
}

impl Acceptor {
    /// Accepts on one listener until the drain starts.
    pub(crate) async fn accept(self: Rc<Self>, listener: StdListener, index: usize, mut drain: drain::Watch) {
        let listener = match TcpListener::from_std(listener) {
            Ok(listener) => listener,
            Err(error) => return tracing::error!(%error, "listener lost"),
        };
        loop {
            let accepted = tokio::select! {
                biased;
                () = drain.signalled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => self.place(stream, index, &drain),
                Err(error) => {
                    // Out of file descriptors, above all: others have to close theirs before it makes sense to go on.
                    tracing::warn!(%error, "accept failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Serves what other workers hand over, until the drain starts.
    pub(crate) async fn take(self: Rc<Self>, mut handed: mpsc::Receiver<Handed>, mut drain: drain::Watch) {
        loop {
            let next = tokio::select! {
                biased;
                () = drain.signalled() => return,
                next = handed.recv() => next,
            };
            let Some(Handed { stream, listener }) = next else { return };
            match TcpStream::from_std(stream) {
                Ok(stream) => self.serve(stream, listener, &drain),
                Err(error) => tracing::warn!(%error, "connection lost on its way to another worker"),
            }
        }
    }

    fn place(self: &Rc<Self>, stream: TcpStream, listener: usize, drain: &drain::Watch) {
        let Some(other) = self.admission.less_busy_than(self.worker, listener) else {
            return self.serve(stream, listener, drain);
        };
        let Ok(stream) = stream.into_std() else { return };
        if let Err(refused) = self.others[other].try_send(Handed { stream, listener })
            && let Ok(stream) = TcpStream::from_std(refused.into_inner().stream)
        {
            self.serve(stream, listener, drain);
        }
    }

    fn serve(self: &Rc<Self>, stream: TcpStream, listener: usize, drain: &drain::Watch) {
        let place = self.admission.enter(listener, self.worker);
        dial::prepare(&stream);
        let (this, drain) = (Rc::clone(self), drain.clone());
        tokio::task::spawn_local(async move {
            let direction = this.purposes[listener].direction();
            let served = match place {
                Some(place) => {
                    let served = this.dispatch(stream, listener, drain).await;
                    drop(place);
                    served
                }
                None => Err(refuse(stream, Kind::ConnectionLimit).await),
            };
            if let Err(error) = served {
                tracing::debug!(direction = direction.label(), %error, "connection ended");
                if is_refusal(error.kind) {
                    this.cx.observer.refused(direction, error.kind.label());
                }
            }
        });
    }

    async fn dispatch(&self, stream: TcpStream, listener: usize, drain: drain::Watch) -> Result<(), Error> {
        let cx = Rc::clone(&self.cx);
        match &self.purposes[listener] {
            Purpose::Inbound(app, hint) => {
                // Boxed: a connection's future is some kilobytes, and most of its time it is idle in one of these.
                Box::pin(inbound::serve(stream, self.apps.at(*app), *hint, cx, drain)).await
            }
            Purpose::Upstream(name) => {
                let target = self.targets.named(name, &cx);
                Box::pin(outbound::serve(stream, target, cx, drain)).await
            }
            purpose @ (Purpose::InboundRedirect | Purpose::OutboundRedirect) => {
                // Not redirected, or to ourselves: it would come back here for ever.
                let Some(original) = orig_dst::original(&stream).filter(|addr| !cx.is_own(*addr)) else {
                    return Err(refuse(stream, Kind::Loop).await);
                };
                if matches!(purpose, Purpose::InboundRedirect) {
                    let app = self.apps.at(original);
                    Box::pin(inbound::serve(stream, app, ProtocolHint::Unknown, cx, drain)).await
                } else {
                    let target = self.targets.addressed(original, &cx);
                    Box::pin(outbound::serve(stream, target, cx, drain)).await
                }
            }
        }
    }
}

/// Refusals at the door are counted here; everything later has a record or a connection of its own.
fn is_refusal(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::ConnectionLimit | Kind::Loop | Kind::SlowClient | Kind::BadRequest | Kind::NoIdentity | Kind::Discovery
    )
}

/// Turns a connection away: an HTTP/1 client is told why, any other only by the close.
async fn refuse(stream: TcpStream, kind: Kind) -> Error {
    let mut opening = [0; 1024];
    if let Ok(Ok(n)) = tokio::time::timeout(REFUSAL_PATIENCE, stream.peek(&mut opening)).await {
        let http1 = match detect::client(&opening[..n]) {
            detect::Client::Http1 => true,
            detect::Client::NeedMore { worth_waiting } => worth_waiting,
            _ => false,
        };
        if http1 {
            let status = kind.status();
            let answer = format!(
                "HTTP/1.1 {} {}\r\nconnection: close\r\ncontent-length: 0\r\nmesh-proxy-error: {}\r\n\r\n",
                status.as_u16(),
                status.canonical_reason().unwrap_or_default(),
                kind.label(),
            );
            // Unread bytes would turn the close into a reset that overtakes the answer.
            let _ = stream.try_read(&mut opening);
            http1_server::refuse(stream, answer.as_bytes()).await;
        }
    }
    Error::new(kind)
}

/// For a connection that is refused to show whether it is HTTP.
const REFUSAL_PATIENCE: Duration = Duration::from_millis(500);

const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_go_to_the_worker_with_the_fewest() {
        let admission = Arc::new(Admission::new(1, 3, 100));
        let places: Vec<_> = (0..4).filter_map(|_| admission.enter(0, 0)).collect();
        let other = admission.enter(0, 1);
        assert_eq!(admission.less_busy_than(0, 0), Some(2));
        assert_eq!(admission.less_busy_than(2, 0), None);
        drop((places, other));
        assert_eq!(admission.less_busy_than(0, 0), None);
    }

    #[test]
    fn the_cap_holds_for_the_whole_proxy() {
        let admission = Arc::new(Admission::new(2, 2, 2));
        let (a, b) = (admission.enter(0, 0), admission.enter(1, 1));
        assert!(a.is_some() && b.is_some() && admission.enter(0, 1).is_none());
        drop(a);
        assert!(admission.enter(0, 1).is_some());
    }

    #[tokio::test]
    async fn a_connection_lost_to_a_bug_gives_its_place_back_and_leaves_the_others_alone() {
        let admission = Arc::new(Admission::new(1, 1, 2));
        let (doomed, other) = (admission.enter(0, 0), admission.enter(0, 0));
        tokio::task::LocalSet::new()
            .run_until(async {
                let bug = tokio::task::spawn_local(async move {
                    let _place = doomed;
                    tokio::task::yield_now().await;
                    panic!("a bug");
                });
                let other = tokio::task::spawn_local(async move { other.is_some() });
                assert!(bug.await.is_err());
                assert_eq!(other.await.ok(), Some(true));
            })
            .await;
        assert!(admission.enter(0, 0).is_some());
    }
}
