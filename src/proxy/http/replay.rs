//! A request body that can be sent again, as long as little of it went out.

use std::{
    cell::RefCell,
    collections::VecDeque,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame};

use super::body::Body;
use crate::proxy::error::Error;

/// More than this of a body is not kept; a request that got further cannot move (same as linkerd 2.x).
const MAX_KEPT: usize = 64 << 10;

/// Shared between the copy that is being sent and the one in reserve: only one of them is read at a time.
#[derive(Debug)]
struct Shared {
    rest: Body,
    kept: Vec<Bytes>,
    trailers: Option<HeaderMap>,
    kept_bytes: usize,
    complete: bool,
    lost: bool,
}

/// Reads what was kept, then the rest.
#[derive(Debug)]
pub(crate) struct Replay {
    shared: Rc<RefCell<Shared>>,
    /// What this copy still has to repeat of what an earlier one sent.
    again: VecDeque<Bytes>,
    trailers_due: bool,
}

/// The copy in reserve.
#[derive(Debug)]
pub(crate) struct Reserve(Rc<RefCell<Shared>>);

/// Splits a body into one to send now and a reserve.
pub(crate) fn keep(body: Body) -> (Body, Reserve) {
    let shared = Shared { rest: body, kept: Vec::new(), trailers: None, kept_bytes: 0, complete: false, lost: false };
    let shared = Rc::new(RefCell::new(shared));
    let first = Replay { shared: Rc::clone(&shared), again: VecDeque::new(), trailers_due: false };
    (Body::replay(first), Reserve(shared))
}

impl Reserve {
    /// The body from its beginning, unless too much went out already. The earlier copy must not be read any more.
    pub(crate) fn again(&self) -> Option<Body> {
        let shared = self.0.borrow();
        if shared.lost {
            return None;
        }
        let again = shared.kept.iter().cloned().collect();
        Some(Body::replay(Replay { shared: Rc::clone(&self.0), again, trailers_due: shared.trailers.is_some() }))
    }
}

impl Replay {
    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if let Some(data) = self.again.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        let mut shared = self.shared.borrow_mut();
        if std::mem::take(&mut self.trailers_due)
            && let Some(trailers) = &shared.trailers
        {
            return Poll::Ready(Some(Ok(Frame::trailers(trailers.clone()))));
        }
        if shared.complete {
            return Poll::Ready(None);
        }
        let frame = ready!(Pin::new(&mut shared.rest).poll_frame(cx));
        if Rc::strong_count(&self.shared) == 1 {
            // The response is there: this is the last copy that will ever be sent.
            shared.lose();
        }
        shared.record(frame.as_ref());
        Poll::Ready(frame)
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        let shared = self.shared.borrow();
        self.again.is_empty() && !self.trailers_due && (shared.complete || shared.rest.is_end_stream())
    }
}

impl Shared {
    fn lose(&mut self) {
        self.lost = true;
        self.kept = Vec::new();
    }

    fn record(&mut self, frame: Option<&Result<Frame<Bytes>, Error>>) {
        match frame {
            Some(Ok(_)) if self.lost => {}
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    self.kept_bytes += data.len();
                    if self.kept_bytes > MAX_KEPT {
                        self.lose();
                    } else {
                        self.kept.push(data.clone());
                    }
                } else if let Some(trailers) = frame.trailers_ref() {
                    self.trailers = Some(trailers.clone());
                }
            }
            Some(Err(_)) => self.lose(),
            None => self.complete = true,
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn a_small_body_can_be_sent_twice() {
        let (first, reserve) = keep(Body::once(Bytes::from_static(b"hello")));
        assert_eq!(first.collect().await.map(|b| b.to_bytes()).ok(), Some(Bytes::from_static(b"hello")));
        let second = reserve.again().expect("a small body is kept");
        assert_eq!(second.collect().await.map(|b| b.to_bytes()).ok(), Some(Bytes::from_static(b"hello")));
    }

    #[tokio::test]
    async fn a_large_body_cannot() {
        let (first, reserve) = keep(Body::once(Bytes::from(vec![0; MAX_KEPT + 1])));
        assert!(first.collect().await.is_ok());
        assert!(reserve.again().is_none());
    }
}
