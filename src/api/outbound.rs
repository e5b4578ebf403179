//! `GET /v1/outbound`: what one destination is, and how that changes.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::model::{endpoint::Endpoint, service::Target};

/// A line of the stream. The first is a snapshot; a snapshot may come again at any time and replaces everything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Event {
    Snapshot(Target),
    Delta(Delta),
    Ping(Ping),
}

/// Endpoints that went and came; an endpoint that changed is in `add` alone and replaces the one of its address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Delta {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) add: Vec<Endpoint>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) remove: Vec<SocketAddr>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ping {}

impl Delta {
    pub(crate) fn between(old: &[Endpoint], new: &[Endpoint]) -> Self {
        let remove = old.iter().map(|e| e.addr).filter(|addr| !new.iter().any(|e| e.addr == *addr)).collect();
        let add = new.iter().filter(|e| !old.contains(e)).cloned().collect();
        Self { add, remove }
    }

    pub(crate) fn apply(&self, endpoints: &mut Vec<Endpoint>) {
        endpoints.retain(|e| !self.remove.contains(&e.addr));
        for added in &self.add {
            match endpoints.iter_mut().find(|e| e.addr == added.addr) {
                Some(known) => *known = added.clone(),
                None => endpoints.push(added.clone()),
            }
        }
    }
}
