//! One place where a target can be reached.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::{identity::SpiffeId, name::Workload};

/// An endpoint of a target: an address to dial and what is known of who answers there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Endpoint {
    pub(crate) addr: SocketAddr,
    /// The identity its proxy must show. `None`: this port is not meshed and is dialled in plaintext.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) identity: Option<SpiffeId>,
    /// The workload behind it, for labels; unknown for addresses outside the mesh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) workload: Option<Workload>,
    /// The pod's name, for labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) pod: Option<String>,
}

impl Endpoint {
    pub(crate) fn is_meshed(&self) -> bool {
        self.identity.is_some()
    }
}
