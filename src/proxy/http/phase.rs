//! What an HTTP/1 connection is doing, to tell a client that takes its time over a request's head from one that is idle.
//!
//! Two clock reads a request instead of hyper's timer, which costs an allocation and a timer registration a request and
//! does not tell the two apart. A coarse tick of the connection's task asks for the [`Verdict`].

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{proxy::io::Io, rt::clock};

const IDLE: u8 = 0;
const HEAD: u8 = 1;
const BUSY: u8 = 2;

/// Shared between the connection's I/O and its service. Atomics only because hyper wants what may be upgraded to be
/// `Send`: there is no contention.
#[derive(Clone, Debug)]
pub(crate) struct Phase(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    start: Instant,
    phase: AtomicU8,
    since_ms: AtomicU64,
    /// Bodies of the present exchange that have not ended: the request's and the response's.
    bodies: AtomicUsize,
    /// A body was dropped before its end.
    cut: AtomicBool,
}

/// Held by a body: the exchange lasts until both have ended, whichever does first.
#[derive(Debug)]
pub(crate) struct Busy(Phase);

impl Busy {
    /// Its body is dropped before its end: there may be bytes of it that nobody reads.
    pub(crate) fn cut(&self) {
        self.0.0.cut.store(true, Relaxed);
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        if self.0.0.bodies.fetch_sub(1, Relaxed) == 1 {
            self.0.enter(IDLE, clock::now());
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Fine,
    /// Nothing asked for longer than the idle time.
    Idle,
    /// A request's head has been coming for longer than its time.
    SlowHead,
}

impl Phase {
    /// A connection that has begun to send a request if `reading`, else an idle one.
    pub(crate) fn new(reading: bool, now: Instant) -> Self {
        let phase = AtomicU8::new(if reading { HEAD } else { IDLE });
        Self(Arc::new(Inner {
            start: now,
            phase,
            since_ms: AtomicU64::new(0),
            bodies: AtomicUsize::new(0),
            cut: AtomicBool::new(false),
        }))
    }

    /// A request's head is complete: until this and what is made from it are dropped, the connection is at work.
    pub(crate) fn busy(&self) -> Busy {
        self.0.bodies.fetch_add(1, Relaxed);
        self.0.phase.store(BUSY, Relaxed);
        Busy(self.clone())
    }

    /// Whether bytes may have been left unread: then closing at once would reset the connection.
    pub(crate) fn was_cut(&self) -> bool {
        self.0.cut.load(Relaxed)
    }

    fn read(&self) {
        if self.0.phase.load(Relaxed) == IDLE {
            self.enter(HEAD, clock::now());
        }
    }

    fn enter(&self, phase: u8, now: Instant) {
        let since = now.saturating_duration_since(self.0.start).as_millis();
        self.0.since_ms.store(u64::try_from(since).unwrap_or(u64::MAX), Relaxed);
        self.0.phase.store(phase, Relaxed);
    }

    pub(crate) fn verdict(&self, head: Duration, idle: Duration, now: Instant) -> Verdict {
        let since = Duration::from_millis(self.0.since_ms.load(Relaxed));
        let elapsed = now.saturating_duration_since(self.0.start).saturating_sub(since);
        match self.0.phase.load(Relaxed) {
            IDLE if elapsed > idle => Verdict::Idle,
            HEAD if elapsed > head => Verdict::SlowHead,
            _ => Verdict::Fine,
        }
    }
}

/// I/O that tells its phase when bytes come.
#[derive(Debug)]
pub(crate) struct Watched {
    pub(crate) io: Io,
    pub(crate) phase: Phase,
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        if buf.filled().len() > before {
            self.phase.read();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_head_and_an_idle_connection_are_told_apart() {
        let (start, second) = (clock::now(), Duration::from_secs(1));
        let phase = Phase::new(true, start);
        assert_eq!(phase.verdict(second, 9 * second, start + 2 * second), Verdict::SlowHead);
        let (request, response) = (phase.busy(), phase.busy());
        assert_eq!(phase.verdict(second, 9 * second, start + 99 * second), Verdict::Fine);
        drop(response);
        assert_eq!(phase.verdict(second, 9 * second, start + 99 * second), Verdict::Fine, "the request goes on");
        drop(request);
        let ended = clock::now();
        assert_eq!(phase.verdict(second, 9 * second, ended + 2 * second), Verdict::Fine);
        assert_eq!(phase.verdict(second, 9 * second, ended + 10 * second), Verdict::Idle);
    }
}
