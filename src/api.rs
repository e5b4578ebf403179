//! The protocol between controller and proxies: newline-delimited JSON over HTTP/2 over TLS, in the style of a watch.
//!
//! | request | answer |
//! |---|---|
//! | `POST /v1/certify` [`identity::CertifyRequest`] | [`identity::Certificate`], once |
//! | `GET /v1/outbound?target=NS/SERVICE:PORT` or `IP:PORT` | a stream of [`outbound::Event`], a line each |
//! | `GET /v1/inbound` | a stream of [`inbound::Event`], a line each |
//!
//! Versions are in the path, unknown fields are ignored, so that old proxies and new controllers talk. Everything but
//! certify needs the workload's own certificate, and is answered by that identity. An error is an HTTP status with
//! a body of [`Error`].

use serde::{Deserialize, Serialize};

pub(crate) mod client;
pub(crate) mod executor;
pub(crate) mod identity;
pub(crate) mod inbound;
pub(crate) mod join;
pub(crate) mod line;
pub(crate) mod outbound;
pub(crate) mod private;
pub(crate) mod server;

/// The body of a refused request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Error {
    /// What went wrong, for a person.
    pub(crate) error: String,
}

/// The longest line either side accepts, in bytes; a longer one ends the stream.
pub(crate) const MAX_LINE: usize = 4 << 20;

/// A line of `{"ping":{}}` comes at least this often, so that a dead peer is noticed.
pub(crate) const PING_INTERVAL: std::time::Duration = std::time::Duration::from_secs(10);
