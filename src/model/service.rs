//! What a destination is: a Service's port, one pod, or an address nobody knows; and the protocol it speaks.

use serde::{Deserialize, Serialize};

use super::{endpoint::Endpoint, name::ServicePort};

/// What the controller knows of a port's protocol before a byte is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ProtocolHint {
    /// Nothing: the proxy detects.
    #[default]
    Unknown,
    Http1,
    Http2,
    Grpc,
    /// The application's own TLS, passed through.
    Tls,
    /// Bytes: no detection, forwarded as they are.
    Opaque,
}

impl ProtocolHint {
    /// Reads a Service port's `appProtocol` (Kubernetes: IANA names, `kubernetes.io/*`; Linkerd's own two are honoured).
    /// An unknown value is no hint.
    pub(crate) fn from_app_protocol(value: &str) -> Self {
        match value {
            "http" | "http/1.1" | "http1" => Self::Http1,
            "kubernetes.io/h2c" | "h2c" | "http2" => Self::Http2,
            "grpc" => Self::Grpc,
            "https" | "tls" => Self::Tls,
            "tcp" | "opaque" | "linkerd.io/opaque" | "linkerd.io/tcp" | "mysql" | "redis" | "smtp" | "postgresql" => {
                Self::Opaque
            }
            _ => Self::Unknown,
        }
    }
}

/// What a destination is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum TargetKind {
    /// A Service's port; requests are balanced over its endpoints.
    Service(ServicePort),
    /// One pod, addressed directly: exactly one endpoint.
    Pod,
    /// An address the controller does not know: passed through to where it was going.
    Unknown,
}

/// Everything an outbound proxy needs to know of one destination.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Target {
    pub(crate) kind: TargetKind,
    #[serde(default)]
    pub(crate) protocol: ProtocolHint,
    #[serde(default)]
    pub(crate) endpoints: Vec<Endpoint>,
}
