//! The destinations that a worker's connections go to: asked for on first use, forgotten when idle.

use std::{
    cell::RefCell,
    collections::HashMap,
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};

use super::{name_of, target::Target};
use crate::proxy::context::Context;

/// A destination that nobody used for this long, and nobody is connected to, is forgotten.
const IDLE: Duration = Duration::from_secs(60);

#[derive(Default)]
pub(crate) struct Targets {
    known: RefCell<HashMap<String, Rc<Target>>>,
}

impl Targets {
    /// The Service that an explicit listener stands for.
    pub(crate) fn named(&self, name: &str, cx: &Rc<Context>) -> Rc<Target> {
        self.find(name, None, cx)
    }

    /// Where a redirected connection was going.
    pub(crate) fn addressed(&self, addr: SocketAddr, cx: &Rc<Context>) -> Rc<Target> {
        self.find(&name_of(addr), Some(addr), cx)
    }

    fn find(&self, name: &str, original: Option<SocketAddr>, cx: &Rc<Context>) -> Rc<Target> {
        if let Some(known) = self.known.borrow().get(name) {
            return Rc::clone(known);
        }
        let target = Rc::new(Target::new(name, original, &cx.observer));
        let news = cx.control.outbound(name);
        // Ends with the target: it holds nothing else.
        tokio::task::spawn_local(Target::follow(Rc::downgrade(&target), news));
        self.known.borrow_mut().insert(name.to_owned(), Rc::clone(&target));
        target
    }

    /// Drops idle connections, and destinations that are not used. Called now and then by the worker.
    pub(crate) fn sweep(&self, now: Instant) {
        self.known.borrow_mut().retain(|_, target| {
            target.sweep(now);
            Rc::strong_count(target) > 1 || target.idle_for(now) < IDLE
        });
    }
}
