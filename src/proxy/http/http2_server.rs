//! Requests off an HTTP/2 connection, by the h2 crate: an application with prior knowledge, or a link from another proxy.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    time::Duration,
};

use bytes::Bytes;
use h2::{
    Reason,
    server::{self, SendResponse},
};
use http::{Method, StatusCode, header};
use tokio::time::MissedTickBehavior;

use super::{
    Request, Response,
    body::{Body, Of},
    expect, pump,
};
use crate::{
    proxy::{
        config::HttpLimits,
        error::{Error, Kind},
        io::Io,
    },
    rt::drain,
};

/// A stream's window: what one request may have on its way before it is read.
pub(crate) const STREAM_WINDOW: u32 = 1 << 20;
/// A connection's: all its streams together.
pub(crate) const CONNECTION_WINDOW: u32 = 16 << 20;
/// Half of it may be headers that a peer made us remember; the default of HPACK.
pub(crate) const HEADER_TABLE: u32 = 4096;

/// What a handler makes of a request.
pub(crate) enum Answer {
    Response(Response),
    /// The request reached nobody and may be sent elsewhere: `RST_STREAM` with `REFUSED_STREAM` (RFC 9113 section 8.7).
    Refused,
}

/// Serves `io` until it is closed, idle for too long, or drained: then `GOAWAY`, and the streams that are open finish.
///
/// # Errors
/// [`Kind::BadRequest`] when the peer broke the protocol, [`Kind::Reset`] when the connection broke.
pub(crate) async fn serve<H, F>(io: Io, limits: &HttpLimits, mut drain: drain::Watch, handler: H) -> Result<(), Error>
where
    H: Fn(Request) -> F + Clone + 'static,
    F: Future<Output = Answer> + 'static,
{
    let mut builder = builder(limits);
    if matches!(io, Io::TlsServer(_)) {
        // A link carries the requests of many clients: those who give up must not cost the others their connection.
        builder
            .max_pending_accept_reset_streams(usize::try_from(limits.max_streams).unwrap_or(usize::MAX))
            .max_local_error_reset_streams(None);
    }
    let handshake = tokio::time::timeout(limits.header_timeout, builder.handshake(io));
    let mut connection = handshake.await.map_err(|_| Error::new(Kind::SlowClient))?.map_err(broken)?;
    let mut tick = tokio::time::interval(limits.idle_timeout.max(Duration::from_millis(50)));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tick.tick().await;
    let (mut draining, mut busy, mut idle) = (false, false, false);
    loop {
        tokio::select! {
            biased;
            next = connection.accept() => match next {
                None => return Ok(()),
                Some(Err(error)) => return Err(broken(error)),
                Some(Ok((request, respond))) => {
                    busy = true;
                    // This holds the drain until its streams have ended: they need not.
                    tokio::task::spawn_local(answer(request, respond, handler.clone()));
                }
            },
            () = drain.signalled(), if !draining => {
                draining = true;
                connection.graceful_shutdown();
            }
            _ = tick.tick(), if !draining => {
                if !busy && !connection.has_streams() {
                    // A peer that did not answer to GOAWAY either is not waited for any longer.
                    if idle {
                        return Ok(());
                    }
                    idle = true;
                    connection.graceful_shutdown();
                }
                busy = false;
            }
        }
    }
}

fn builder(limits: &HttpLimits) -> server::Builder {
    let mut builder = server::Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(limits.max_streams)
        .max_header_list_size(u32::try_from(limits.max_header_bytes).unwrap_or(u32::MAX))
        .header_table_size(HEADER_TABLE);
    builder
}

fn broken(error: h2::Error) -> Error {
    let kind = if error.is_io() { Kind::Reset } else { Kind::BadRequest };
    Error::caused(kind, error)
}

/// One request: the handler's answer, unless the client resets the stream first.
async fn answer<H, F>(request: http::Request<h2::RecvStream>, mut respond: SendResponse<Bytes>, handler: H)
where
    H: Fn(Request) -> F,
    F: Future<Output = Answer>,
{
    let (mut parts, stream) = request.into_parts();
    let head_only = parts.method == Method::HEAD;
    let mut gate = None;
    if expect::is_expected(&parts.headers) {
        let (asked, opened) = expect::pair();
        parts.extensions.insert(asked);
        gate = Some(opened);
    }
    let mut handled = pin!(handler(Request::from_parts(parts, Body::http2(stream, Of::Request))));
    let answer = loop {
        tokio::select! {
            biased;
            answer = &mut handled => break answer,
            _ = poll_fn(|cx| respond.poll_reset(cx)) => return,
            () = async { poll_fn(|cx| gate.as_mut().map_or(std::task::Poll::Pending, |gate| gate.poll_open(cx))).await },
                if gate.is_some() =>
            {
                gate = None;
                let mut interim = http::Response::new(());
                *interim.status_mut() = StatusCode::CONTINUE;
                let _ = respond.send_informational(interim);
            }
        }
    };
    match answer {
        Answer::Response(response) => send(response, head_only, respond).await,
        Answer::Refused => respond.send_reset(Reason::REFUSED_STREAM),
    }
}

/// Sends the response; an error here is the client's going away, which its own record has noted.
async fn send(response: Response, head_only: bool, mut respond: SendResponse<Bytes>) {
    let (mut parts, body) = response.into_parts();
    parts.version = http::Version::HTTP_2;
    // The application's own is gone already; what the proxy says to HTTP/1 clients means nothing here.
    parts.headers.remove(header::CONNECTION);
    let end = body.is_empty() || head_only;
    let head = http::Response::from_parts(parts, ());
    match respond.send_response(head, end) {
        Ok(mut stream) if !end => {
            let _ = pump::pump(body, &mut stream).await;
        }
        Ok(_) => drop(body),
        Err(error) => {
            tracing::debug!(%error, "response not sent");
            respond.send_reset(Reason::INTERNAL_ERROR);
        }
    }
}
