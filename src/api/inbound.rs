//! `GET /v1/inbound`: what a proxy's own workload serves, and the trust bundle.

use serde::{Deserialize, Serialize};

use super::outbound::Ping;
use crate::model::service::ProtocolHint;

/// A line of the stream. Each snapshot replaces the one before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Event {
    Snapshot(Inbound),
    Ping(Ping),
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Inbound {
    /// What is known of the application's ports; a port not named here is detected.
    #[serde(default)]
    pub(crate) ports: Vec<Port>,
    /// The roots to trust, PEM: a proxy that sees a new bundle trusts it from the next handshake on.
    pub(crate) trust_anchors: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Port {
    pub(crate) port: u16,
    #[serde(default)]
    pub(crate) protocol: ProtocolHint,
}
