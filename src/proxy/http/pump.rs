//! A body into an HTTP/2 stream, no faster than the peer's windows allow.

use std::future::poll_fn;

use bytes::Bytes;
use h2::{Reason, SendStream};
use http_body::{Body as _, Frame};
use http_body_util::BodyExt;

use super::body::Body;
use crate::proxy::error::{Error, Kind};

/// The most that is handed to the connection at a time, so that streams share it fairly.
const PIECE: usize = 64 << 10;

/// Sends `body` to its end, its trailers included. On an error the stream is reset, so that the peer does not take a
/// piece for the whole.
///
/// # Errors
/// The body's own error, or [`Kind::Reset`] when the peer would not take more.
pub(crate) async fn pump(body: Body, stream: &mut SendStream<Bytes>) -> Result<(), Error> {
    pump_watched(body, stream, |_| {}).await
}

/// The same; `stalls` is told when the wait for the peer's window begins (`true`) and ends.
pub(crate) async fn pump_watched(
    mut body: Body,
    stream: &mut SendStream<Bytes>,
    stalls: impl Fn(bool),
) -> Result<(), Error> {
    let sent = send(&mut body, stream, &stalls).await;
    if let Err(error) = &sent {
        stream.send_reset(if error.kind == Kind::SlowClient { Reason::CANCEL } else { Reason::INTERNAL_ERROR });
    }
    sent
}

async fn send(body: &mut Body, stream: &mut SendStream<Bytes>, stalls: &impl Fn(bool)) -> Result<(), Error> {
    while let Some(frame) = next(body, stream).await? {
        match frame.into_data() {
            Ok(data) => {
                let last = body.is_end_stream();
                send_data(data, last, stream, stalls).await?;
                if last {
                    return Ok(());
                }
            }
            Err(frame) => {
                if let Ok(trailers) = frame.into_trailers() {
                    return stream.send_trailers(trailers).map_err(lost);
                }
            }
        }
    }
    stream.send_data(Bytes::new(), true).map_err(lost)
}

/// The next frame. A peer that has reset the stream is noticed first: the body may be sent again elsewhere, so that no
/// more of it must be read here.
async fn next(body: &mut Body, stream: &mut SendStream<Bytes>) -> Result<Option<Frame<Bytes>>, Error> {
    tokio::select! {
        biased;
        reason = poll_fn(|cx| stream.poll_reset(cx)) => Err(reason.map_or_else(lost, |reason| lost(reason.into()))),
        frame = body.frame() => frame.transpose(),
    }
}

async fn send_data(
    mut data: Bytes,
    last: bool,
    stream: &mut SendStream<Bytes>,
    stalls: &impl Fn(bool),
) -> Result<(), Error> {
    if data.is_empty() {
        return if last { stream.send_data(data, true).map_err(lost) } else { Ok(()) };
    }
    while !data.is_empty() {
        stream.reserve_capacity(data.len().min(PIECE));
        let mut granted = stream.capacity();
        if granted == 0 {
            stalls(true);
            let waited = poll_fn(|cx| stream.poll_capacity(cx)).await;
            stalls(false);
            granted = waited.ok_or_else(|| Error::new(Kind::Reset))?.map_err(lost)?;
        }
        let piece = data.split_to(granted.min(data.len()));
        if !piece.is_empty() {
            stream.send_data(piece, last && data.is_empty()).map_err(lost)?;
        }
    }
    Ok(())
}

fn lost(error: h2::Error) -> Error {
    Error::caused(Kind::Reset, error)
}
