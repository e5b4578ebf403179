//! Shutdown as a value: whoever works holds a [`Watch`], and draining ends when the last of them is dropped.
//!
//! Idea: ztunnel and linkerd2-proxy. A connection task selects on [`Watch::signalled`], finishes what is in flight and
//! returns; [`Signal::drain`] waits for that, with a deadline.

use std::time::Duration;

use tokio::sync::{mpsc, watch};

/// Starts the drain. Held by the composition root.
#[derive(Debug)]
pub(crate) struct Signal {
    started: watch::Sender<bool>,
    held: mpsc::Receiver<()>,
}

/// Held by everything that must be waited for.
#[derive(Clone, Debug)]
pub(crate) struct Watch {
    started: watch::Receiver<bool>,
    _held: mpsc::Sender<()>,
}

/// Makes watches without being waited for itself: for what lives as long as its worker.
#[derive(Clone, Debug)]
pub(crate) struct Handle {
    started: watch::Receiver<bool>,
    held: mpsc::WeakSender<()>,
}

pub(crate) fn channel() -> (Signal, Watch) {
    let (started, watching) = watch::channel(false);
    let (hold, held) = mpsc::channel(1);
    (Signal { started, held }, Watch { started: watching, _held: hold })
}

impl Signal {
    /// Tells every watch to finish and waits until all are dropped; `false` when `deadline` passed first.
    pub(crate) async fn drain(mut self, deadline: Duration) -> bool {
        self.started.send_replace(true);
        tokio::time::timeout(deadline, self.held.recv()).await.is_ok()
    }
}

impl Watch {
    /// Resolves once the drain has started. Cancel safe.
    pub(crate) async fn signalled(&mut self) {
        // An error means that the signal is gone: the process is ending without a drain.
        let _ = self.started.wait_for(|started| *started).await;
    }

    pub(crate) fn handle(&self) -> Handle {
        Handle { started: self.started.clone(), held: self._held.downgrade() }
    }
}

impl Handle {
    /// `None` once everybody else has finished: the process is about to end.
    pub(crate) fn watch(&self) -> Option<Watch> {
        Some(Watch { started: self.started.clone(), _held: self.held.upgrade()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_drain_ends_with_the_last_watch() {
        let (signal, mut watch) = channel();
        let worker = async move { watch.signalled().await };
        let (drained, ()) = tokio::join!(signal.drain(Duration::from_secs(1)), worker);
        assert!(drained);
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_gives_up_at_its_deadline() {
        let (signal, _watch) = channel();
        assert!(!signal.drain(Duration::from_secs(1)).await);
    }
}
