//! What one worker has at hand while it serves a connection.

use std::{net::SocketAddr, sync::Arc};

use tokio::sync::watch;

use super::{config::Config, observe::Observer, subscribe::ControlPlane};
use crate::tls::Identity;

pub(crate) struct Context {
    pub(crate) config: Arc<Config>,
    pub(crate) observer: Observer,
    pub(crate) control: ControlPlane,
    pub(crate) identity: watch::Receiver<Option<Arc<Identity>>>,
    /// The proxy's own listeners.
    pub(crate) own: Arc<[SocketAddr]>,
}

impl Context {
    /// The certificate to use for a connection that begins now.
    pub(crate) fn identity(&self) -> Option<Arc<Identity>> {
        self.identity.borrow().clone()
    }

    /// Would a connection to `addr` come back to this very proxy?
    pub(crate) fn is_own(&self, addr: SocketAddr) -> bool {
        let is_local =
            |own: &SocketAddr| own.ip() == addr.ip() || (own.ip().is_unspecified() && addr.ip().is_loopback());
        self.own.iter().any(|own| own.port() == addr.port() && is_local(own))
    }
}
