//! The one definition of success, for counters, breakers, retries, `stat` and everything that comes later.
//!
//! | what happened | class |
//! |---|---|
//! | the proxy made an error itself (no endpoint, connect failure, reset, …) | failure |
//! | HTTP status ≥ 500 | failure |
//! | gRPC, by grpc-status: Unknown 2, DeadlineExceeded 4, PermissionDenied 7, Internal 13, Unavailable 14, DataLoss 15, beyond 16 | failure |
//! | gRPC that ended without a grpc-status: by the status its HTTP status stands for (gRPC's `http-grpc-status-mapping`) | 401, 404 succeed |
//! | the client left before the end ([`CANCELLED`]) | success: nobody refused it anything |
//! | all else | success |
//!
//! The six gRPC codes are the defaults of linkerd2-proxy.

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Class {
    Success,
    Failure,
}

/// The `error` label of a request whose client left before the end.
pub(crate) const CANCELLED: &str = "client_cancelled";

/// What a request's end looked like.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) is_grpc: bool,
    /// The HTTP status; `None` when there was no response.
    pub(crate) status: Option<u16>,
    pub(crate) grpc_status: Option<u16>,
    /// The label of an error that the proxy made, or [`CANCELLED`].
    pub(crate) error: Option<&'static str>,
}

impl Class {
    pub(crate) fn of(outcome: Outcome) -> Self {
        let failed = match outcome {
            Outcome { error: Some(error), .. } => error != CANCELLED,
            Outcome { status: None, grpc_status: None, .. } => true,
            Outcome { grpc_status: Some(code), .. } => is_grpc_failure(code),
            Outcome { is_grpc: true, status, .. } => !matches!(status, Some(401 | 404)),
            Outcome { status, .. } => status.is_some_and(|status| status >= 500),
        };
        if failed { Self::Failure } else { Self::Success }
    }

    /// The value of the `result` label.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
        }
    }

    pub(crate) fn from_label(label: &str) -> Option<Self> {
        [Self::Success, Self::Failure].into_iter().find(|class| class.label() == label)
    }
}

/// Codes that gRPC does not define count as Unknown, as gRPC's own libraries read them.
fn is_grpc_failure(code: u16) -> bool {
    matches!(code, 2 | 4 | 7 | 13 | 14 | 15 | 17..)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classifies_as_the_table_says() {
        let http = |status| Outcome { status: Some(status), ..Outcome::default() };
        let grpc = |code| Outcome { is_grpc: true, grpc_status: code, ..http(200) };
        let failures = [
            http(500),
            http(503),
            grpc(Some(2)),
            grpc(Some(14)),
            grpc(Some(99)),
            grpc(None),
            Outcome { error: Some("connect"), ..http(200) },
            Outcome::default(),
        ];
        let successes = [
            http(200),
            http(404),
            http(499),
            grpc(Some(0)),
            grpc(Some(1)),
            grpc(Some(5)),
            Outcome { error: Some(CANCELLED), ..Outcome::default() },
            Outcome { is_grpc: true, ..http(404) },
        ];
        assert!(failures.into_iter().all(|outcome| Class::of(outcome) == Class::Failure));
        assert!(successes.into_iter().all(|outcome| Class::of(outcome) == Class::Success));
    }
}
