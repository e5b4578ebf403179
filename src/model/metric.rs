//! The one table of metric and label names, for the proxy that writes them and for `query` that reads them.
//!
//! Prometheus conventions: base units, `_total` for counters. Label values are bounded: see `telemetry::encode` for how a
//! value is escaped, and `OVERFLOW` for what stands in when a set is full.

/// A metric family: its name, its kind in the exposition, and what it means.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Metric {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) help: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Kind {
    /// The word in a `# TYPE` line.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

macro_rules! metrics {
    ($($(#[$doc:meta])* $ident:ident = $kind:ident $name:literal $help:literal;)*) => {
        $($(#[$doc])* pub(crate) const $ident: Metric = Metric { name: $name, kind: Kind::$kind, help: $help };)*
        #[cfg(test)]
        const ALL: &[Metric] = &[$($ident),*];
    };
}

metrics! {
    PROXY_INFO = Gauge "mesh_proxy_info" "Who this proxy serves: namespace, workload, pod, version. Always 1.";
    REQUESTS = Counter "mesh_requests_total" "Requests ended, by edge, status and result.";
    REQUEST_DURATION = Histogram "mesh_request_duration_seconds" "Time from a request's first byte to the end of its response body.";
    REQUESTS_IN_FLIGHT = Gauge "mesh_requests_in_flight" "Requests begun and not yet ended.";
    TCP_OPENED = Counter "mesh_tcp_connections_opened_total" "Connections accepted or dialled for an edge.";
    TCP_OPEN = Gauge "mesh_tcp_connections" "Connections open now.";
    TCP_READ = Counter "mesh_tcp_read_bytes_total" "Bytes read from the edge's peer on connections carried as TCP.";
    TCP_WRITTEN = Counter "mesh_tcp_written_bytes_total" "Bytes written to the edge's peer on connections carried as TCP.";
    TCP_FAILED = Counter "mesh_tcp_failures_total" "Connections that were refused or broke, by reason.";
    DETECTED = Counter "mesh_detected_total" "Protocol verdicts on ports nobody described, by who spoke first.";
    CERTIFICATE_EXPIRY = Gauge "mesh_certificate_expiry_timestamp_seconds" "When the workload certificate in use expires (Unix time).";
    CERTIFICATE_RENEWALS = Counter "mesh_certificate_renewals_total" "Certificates obtained from the controller, by result.";
    CONTROLLER_CONNECTED = Gauge "mesh_controller_connected" "1 while the controller's streams are up, else 0.";
    PANICS = Counter "mesh_panics_total" "Connections lost to a bug in the proxy.";
    PROCESS_CPU = Counter "process_cpu_seconds_total" "CPU time, user and system.";
    PROCESS_MEMORY = Gauge "process_resident_memory_bytes" "Resident memory.";
    PROCESS_FDS = Gauge "process_open_fds" "Open file descriptors.";
    PROCESS_START = Gauge "process_start_time_seconds" "When the process started (Unix time).";
    /// The private `/stats` only: requests that ended within the asked window.
    WINDOW_REQUESTS = Gauge "mesh_window_requests" "Requests ended within the window, by edge, status and result.";
    /// The private `/stats` only: sparse log-linear buckets, label `bucket` is the index (see `telemetry::histogram`).
    WINDOW_DURATION = Gauge "mesh_window_duration_bucket" "Requests ended within the window, by edge, result and log-linear bucket.";
    WINDOW_TCP_OPENED = Gauge "mesh_window_tcp_opened" "Connections opened within the window.";
    WINDOW_TCP_READ = Gauge "mesh_window_tcp_read_bytes" "Bytes read from the edge's peer within the window.";
    WINDOW_TCP_WRITTEN = Gauge "mesh_window_tcp_written_bytes" "Bytes written to the edge's peer within the window.";
    WINDOW_SECONDS = Gauge "mesh_window_seconds" "Seconds that the window really covers: less than asked soon after a start.";
    /// How many samples the exposition holds, so that a reader notices lines that went missing. Always last.
    SCRAPE_SAMPLES = Gauge "mesh_scrape_samples" "Samples in this exposition, this one not counted.";
}

/// Label names. An *edge* is direction, target, peer, peer_id, tls; every request and connection belongs to one.
pub(crate) mod label {
    /// `inbound` | `outbound`.
    pub(crate) const DIRECTION: &str = "direction";
    /// The Service's port, `NS/SERVICE:PORT`, or the address where it is not a Service's; inbound: `PORT` of the application.
    pub(crate) const TARGET: &str = "target";
    /// The workload at the other side, `NS/KIND/NAME`, when known.
    pub(crate) const PEER: &str = "peer";
    /// The peer's verified identity; empty when the connection is not secured.
    pub(crate) const PEER_ID: &str = "peer_id";
    /// `mtls`, or why not: see `Tls` in `proxy::observe`.
    pub(crate) const TLS: &str = "tls";
    /// `http1` | `http2` | `grpc` | `tls` | `opaque`.
    pub(crate) const PROTOCOL: &str = "protocol";
    /// The HTTP status code.
    pub(crate) const STATUS: &str = "status";
    /// The gRPC status code, a number; absent for what is not gRPC.
    pub(crate) const GRPC_STATUS: &str = "grpc_status";
    /// `success` | `failure`: HTTP 5xx and connection failures fail; gRPC by its status.
    pub(crate) const RESULT: &str = "result";
    /// The kind of an error that the proxy made itself; absent when the application answered.
    pub(crate) const ERROR: &str = "error";
    pub(crate) const NAMESPACE: &str = "namespace";
    /// `KIND/NAME` of the proxy's own workload.
    pub(crate) const WORKLOAD: &str = "workload";
    pub(crate) const POD: &str = "pod";
    pub(crate) const IDENTITY: &str = "identity";
    pub(crate) const VERSION: &str = "version";
    pub(crate) const BUCKET: &str = "bucket";
    pub(crate) const REASON: &str = "reason";
    /// Who decided a detection: `client` | `server` | `hint` | `learned`.
    pub(crate) const FIRST: &str = "first";
    /// The upper bound of a histogram's bucket, Prometheus' own.
    pub(crate) const LE: &str = "le";
    /// The value of [`TLS`] for a connection that is secured; every other value is a reason why not.
    pub(crate) const MUTUAL: &str = "mtls";
}

/// Stands in for a label value once its set has reached its bound.
pub(crate) const OVERFLOW: &str = "__overflow__";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_prometheus_conventions() {
        let mut names: Vec<_> = ALL.iter().map(|metric| metric.name).collect();
        for metric in ALL {
            assert!(metric.name.starts_with("mesh_") || metric.name.starts_with("process_"), "{}", metric.name);
            assert_eq!(metric.name.ends_with("_total"), metric.kind == Kind::Counter, "{}", metric.name);
            assert!(metric.help.ends_with('.'), "{}", metric.name);
        }
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ALL.len());
    }
}
