//! Requests off an HTTP/1 connection, by hyper: keep-alive, pipelining, chunked bodies and upgrades are its work; limits,
//! drain and what a slow client is told are ours.

use std::{convert::Infallible, future::Future, time::Duration};

use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::mpsc,
    time::MissedTickBehavior,
};

use super::{
    Request, Response,
    body::Body,
    expect,
    phase::{Phase, Verdict, Watched},
    upgrade,
};
use crate::{
    proxy::{
        config::HttpLimits,
        error::{Error, Kind},
        io::Io,
    },
    rt::{clock, drain},
};

const SLOW_CLIENT: &[u8] =
    b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\nmesh-proxy-error: slow-client\r\n\r\n";

/// Serves `io` until it is closed, idle for too long, or drained.
///
/// # Errors
/// [`Kind::SlowClient`] or [`Kind::BadRequest`], answered already; [`Kind::Reset`] when the client broke off.
pub(crate) async fn serve<H, F>(io: Io, limits: &HttpLimits, mut drain: drain::Watch, handler: H) -> Result<(), Error>
where
    H: Fn(Request) -> F,
    F: Future<Output = Response>,
{
    let phase = Phase::new(true, clock::now());
    let watched = TokioIo::new(Watched { io, phase: phase.clone() });
    let body_patience = limits.request_body_timeout;
    let (joined, mut joins) = mpsc::channel(1);
    let phase_of = phase.clone();
    let service = service_fn(move |request: http::Request<Incoming>| {
        let busy = phase_of.busy();
        let mut request = admit(request, body_patience).map(|body| body.keep(phase_of.busy()));
        if upgrade::is_asked_for(&request) {
            request.extensions_mut().insert(upgrade::Joined { _held: joined.clone() });
        }
        // On the heap, where the memory of the last request is still warm: hyper keeps what it is given in the connection, and
        // moves it there for every request.
        let response = Box::pin(handler(request));
        async move { Ok::<_, Infallible>(response.await.map(|body| body.keep(busy))) }
    });
    // Not `pipeline_flush`: with it hyper never sends its 400 or 431, because the head that it refuses is still in its buffer.
    let mut builder = http1::Builder::new();
    builder.auto_date_header(false).max_header_size(limits.max_header_bytes);
    if let Some(max) = limits.told_headers() {
        builder.max_headers(max);
    }
    let mut connection = builder.serve_connection(watched, service).with_upgrades();
    let mut tick = tokio::time::interval(tick_interval(limits));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut draining = false;
    let ended = loop {
        tokio::select! {
            biased;
            ended = &mut connection => break ended,
            () = drain.signalled(), if !draining => {
                draining = true;
                Pin::new(&mut connection).graceful_shutdown();
            }
            _ = tick.tick() => match phase.verdict(limits.header_timeout, limits.idle_timeout, clock::now()) {
                Verdict::Fine => {}
                Verdict::Idle => Pin::new(&mut connection).graceful_shutdown(),
                Verdict::SlowHead => {
                    if let Some(parts) = connection.into_parts() {
                        refuse(parts.io.into_inner(), SLOW_CLIENT).await;
                    }
                    return Err(Error::new(Kind::SlowClient));
                }
            },
        }
    };
    let Err(error) = ended else {
        // An answer that came before the end of its request must not be overtaken by a reset either.
        if let Some(parts) = connection.into_parts().filter(|_| phase.was_cut()) {
            linger(parts.io.into_inner()).await;
        }
        // An upgraded connection still counts as what it was: nothing is sent, it ends with the last sender.
        let _ = joins.recv().await;
        return Ok(());
    };
    if !error.is_parse() {
        return Err(Error::caused(Kind::Reset, error));
    }
    // hyper has answered (400, 414 or 431), but what it did not read would turn the close into a reset, which can
    // overtake the answer.
    if let Some(parts) = connection.into_parts() {
        linger(parts.io.into_inner()).await;
    }
    Err(Error::caused(Kind::BadRequest, error))
}

fn admit(request: http::Request<Incoming>, body_patience: Duration) -> Request {
    let (mut parts, incoming) = request.into_parts();
    let body = if expect::is_expected(&parts.headers) {
        let (asked, gate) = expect::pair();
        parts.extensions.insert(asked);
        Body::gated(gate, incoming)
    } else {
        Body::http1(incoming).with_patience(body_patience)
    };
    Request::from_parts(parts, body)
}

/// Often enough to be near the limits, rarely enough to cost nothing.
fn tick_interval(limits: &HttpLimits) -> Duration {
    (limits.header_timeout.min(limits.idle_timeout) / 4).clamp(Duration::from_millis(20), Duration::from_secs(5))
}

/// A last word to a client that is being cut off. It may be gone: nothing depends on it.
pub(crate) async fn refuse(mut io: impl AsyncRead + AsyncWrite + Unpin, answer: &[u8]) {
    if let Ok(Ok(())) = tokio::time::timeout(LINGER, io.write_all(answer)).await {
        linger(io).await;
    }
}

/// Closes without losing what was written: reads on until the client has seen the end, within limits.
async fn linger(mut io: impl AsyncRead + AsyncWrite + Unpin) {
    let _ = tokio::time::timeout(LINGER, async {
        io.shutdown().await?;
        let mut discarded = [0; 4096];
        let mut left = LINGER_BYTES;
        while left > 0 {
            match io.read(&mut discarded).await? {
                0 => break,
                n => left = left.saturating_sub(n),
            }
        }
        std::io::Result::Ok(())
    })
    .await;
}

const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 64 << 20;
