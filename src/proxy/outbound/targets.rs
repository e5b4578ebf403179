//! The destinations that a worker's connections go to: asked for on first use, forgotten when idle.

use std::{
    cell::RefCell,
    collections::HashMap,
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};

use tokio::task::AbortHandle;

use super::target::Target;
use crate::proxy::context::Context;

/// An address that nobody used for this long, and nobody is connected to, is forgotten. The Services that explicit
/// listeners stand for are not: they are few, and their endpoints must be known when the controller is away.
const IDLE: Duration = Duration::from_secs(60);

#[derive(Default)]
pub(crate) struct Targets {
    known: RefCell<HashMap<String, Followed>>,
}

/// A destination, and the task that follows the controller's stream for it.
struct Followed {
    target: Rc<Target>,
    following: AbortHandle,
}

/// Also ends the stream, which the task would else wait on until its next news.
impl Drop for Followed {
    fn drop(&mut self) {
        self.following.abort();
    }
}

impl Targets {
    /// The Service that an explicit listener stands for.
    pub(crate) fn named(&self, name: &str, cx: &Rc<Context>) -> Rc<Target> {
        self.find(name, None, cx)
    }

    /// Where a redirected connection was going.
    pub(crate) fn addressed(&self, addr: SocketAddr, cx: &Rc<Context>) -> Rc<Target> {
        self.find(&addr.to_string(), Some(addr), cx)
    }

    fn find(&self, name: &str, original: Option<SocketAddr>, cx: &Rc<Context>) -> Rc<Target> {
        if let Some(known) = self.known.borrow().get(name) {
            return Rc::clone(&known.target);
        }
        let target = Rc::new(Target::new(name, original, &cx.observer));
        let news = cx.control.outbound(name);
        let following = tokio::task::spawn_local(Target::follow(Rc::downgrade(&target), news)).abort_handle();
        self.known.borrow_mut().insert(name.to_owned(), Followed { target: Rc::clone(&target), following });
        target
    }

    /// Drops idle connections, and destinations that are not used, unless nobody is there who could be asked for them
    /// again (`is_connected`: to the controller). Called now and then by the worker.
    pub(crate) fn sweep(&self, now: Instant, is_connected: bool) {
        self.known.borrow_mut().retain(|_, Followed { target, .. }| {
            target.sweep(now);
            let is_used = Rc::strong_count(target) > 1 || target.idle_for(now) < IDLE;
            is_used || !target.is_addressed() || !is_connected
        });
    }
}
