//! `Expect: 100-continue` (RFC 9110 section 10.1.1): the client is asked for its body only when the application asked.
//!
//! The server side of a request makes a pair: the [`Gate`] holds back the body or the interim response, the [`Asked`]
//! travels with the request (in its extensions) to whoever hears the application say `100 Continue`.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use http::{HeaderMap, header};
use parking_lot::Mutex;
use tokio::{
    sync::oneshot,
    time::{Sleep, sleep},
};

/// An application that does not know the expectation just waits for the body: it gets it after this time, as clients do.
const PATIENCE: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Gate {
    opened: oneshot::Receiver<()>,
    patience: Pin<Box<Sleep>>,
    open: bool,
}

/// Opens the gate. Shared and thread-safe only because hyper's callback for interim responses has to be.
#[derive(Clone, Debug)]
pub(crate) struct Asked(Arc<Mutex<Option<oneshot::Sender<()>>>>);

pub(crate) fn is_expected(headers: &HeaderMap) -> bool {
    headers.get(header::EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

pub(crate) fn pair() -> (Asked, Gate) {
    let (open, opened) = oneshot::channel();
    let gate = Gate { opened, patience: Box::pin(sleep(PATIENCE)), open: false };
    (Asked(Arc::new(Mutex::new(Some(open)))), gate)
}

impl Asked {
    pub(crate) fn open(&self) {
        if let Some(open) = self.0.lock().take() {
            // Nobody waits any more when the final response came first.
            let _ = open.send(());
        }
    }
}

impl Gate {
    /// Ready once the application asked for the body, or took too long to say so.
    pub(crate) fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.open {
            return Poll::Ready(());
        }
        // The sender going away without a word means that the final response is there: nobody wants the body.
        if let Poll::Ready(Ok(())) = Pin::new(&mut self.opened).poll(cx) {
            self.open = true;
            return Poll::Ready(());
        }
        ready!(self.patience.as_mut().poll(cx));
        self.open = true;
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_gate_opens_when_asked_or_after_its_patience() {
        let (asked, mut gate) = pair();
        asked.open();
        poll_fn(|cx| gate.poll_open(cx)).await;

        let (_asked, mut gate) = pair();
        let start = tokio::time::Instant::now();
        poll_fn(|cx| gate.poll_open(cx)).await;
        assert_eq!(start.elapsed(), PATIENCE);
    }
}
