//! Everything that can go wrong with a request or a connection, and what each kind means: the HTTP status, the gRPC
//! status and the label. One table; responses that the proxy makes itself carry `mesh-proxy-error: KIND`.

use std::{error::Error as StdError, fmt};

use http::StatusCode;

/// gRPC status codes that the proxy itself answers with (gRPC core, `statuscodes.md`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Grpc {
    DeadlineExceeded = 4,
    ResourceExhausted = 8,
    Aborted = 10,
    Internal = 13,
    Unavailable = 14,
}

/// May the request be sent again?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Retry {
    /// It never reached an application.
    Safe,
    Never,
}

macro_rules! kinds {
    ($($(#[doc = $doc:literal])+ $kind:ident $label:literal $status:ident $grpc:ident;)*) => {
        /// What went wrong.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Kind { $($(#[doc = $doc])+ $kind,)* }

        impl Kind {
            #[cfg(test)]
            const ALL: &[Self] = &[$(Self::$kind,)*];

            /// The value of `mesh-proxy-error` and of the label `error`.
            pub(crate) fn label(self) -> &'static str {
                match self { $(Self::$kind => $label,)* }
            }

            pub(crate) fn status(self) -> StatusCode {
                match self { $(Self::$kind => StatusCode::$status,)* }
            }

            pub(crate) fn grpc(self) -> Grpc {
                match self { $(Self::$kind => Grpc::$grpc,)* }
            }
        }
    };
}

kinds! {
    /// The target has no endpoint at all.
    NoEndpoints "no-endpoints" SERVICE_UNAVAILABLE Unavailable;
    /// The controller has not said yet what the target is.
    Discovery "discovery" SERVICE_UNAVAILABLE Unavailable;
    /// An endpoint refused the connection, or broke it before the request could be sent.
    Connect "connect" BAD_GATEWAY Unavailable;
    /// An endpoint did not answer the connection in time.
    ConnectTimeout "connect-timeout" GATEWAY_TIMEOUT DeadlineExceeded;
    /// The peer's certificate is expired, foreign, or another identity's than expected.
    PeerIdentity "peer-identity" BAD_GATEWAY Unavailable;
    /// This proxy has no valid certificate: it does not fall back to plaintext.
    NoIdentity "no-identity" SERVICE_UNAVAILABLE Unavailable;
    /// The connection broke, or the peer reset the stream, after the request was sent.
    Reset "reset" BAD_GATEWAY Unavailable;
    /// The peer said that it did not process the request, again and again.
    Unprocessed "unprocessed" BAD_GATEWAY Unavailable;
    /// The peer's answer was not HTTP.
    BadResponse "bad-response" BAD_GATEWAY Internal;
    /// The client's request was not HTTP as the RFCs have it.
    BadRequest "bad-request" BAD_REQUEST Internal;
    /// The client took too long to send its request.
    SlowClient "slow-client" REQUEST_TIMEOUT DeadlineExceeded;
    /// More connections than this proxy takes.
    ConnectionLimit "connection-limit" SERVICE_UNAVAILABLE ResourceExhausted;
    /// The proxy would talk to itself.
    Loop "loop" LOOP_DETECTED Aborted;
    /// The client is gone.
    Cancelled "cancelled" BAD_REQUEST Aborted;
}

/// An error on the data path: its kind, whether the request may move to another endpoint, and what caused it.
#[derive(Debug)]
pub(crate) struct Error {
    pub(crate) kind: Kind,
    pub(crate) retry: Retry,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    pub(crate) fn new(kind: Kind) -> Self {
        Self { kind, retry: Retry::Never, source: None }
    }

    pub(crate) fn caused(kind: Kind, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self { kind, retry: Retry::Never, source: Some(source.into()) }
    }

    /// The request never reached an application, so it may be sent to another endpoint.
    pub(crate) fn unsent(mut self) -> Self {
        self.retry = Retry::Safe;
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.label())?;
        let mut cause = self.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_unique_header_values() {
        let mut labels: Vec<_> = Kind::ALL.iter().map(|kind| kind.label()).collect();
        assert!(labels.iter().all(|label| label.bytes().all(|b| b.is_ascii_lowercase() || b == b'-')));
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(labels.len(), Kind::ALL.len());
    }

    #[test]
    fn an_error_says_its_kind_and_cause() {
        let error = Error::caused(Kind::Connect, std::io::Error::other("refused"));
        assert_eq!(error.to_string(), "connect: refused");
    }
}
