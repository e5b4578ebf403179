//! The flags and variables of `mesh proxy`.

use std::{net::SocketAddr, time::Duration};

use super::{config::HttpLimits, identity};

/// One sidecar: what it serves, what it listens on, and its limits.
#[derive(Debug, clap::Args)]
#[group(skip)]
#[command(about = "Run the data plane beside a workload (started by `mesh run`, or by the injected sidecar)")]
pub struct Args {
    #[command(flatten)]
    pub(super) workload: Workload,
    #[command(flatten)]
    pub(super) identity: identity::Args,
    #[command(flatten)]
    pub(super) listen: Listen,
    #[command(flatten)]
    pub(super) limits: Limits,
    /// End when the parent process ends, however it ends (Linux).
    #[arg(long)]
    pub(super) exit_with_parent: bool,
}

#[derive(Debug, clap::Args)]
#[group(skip)]
#[command(next_help_heading = "Workload")]
pub(super) struct Workload {
    /// The workload's namespace.
    #[arg(long, env = "MESH_NAMESPACE", default_value = "default")]
    pub(super) namespace: String,
    /// The workload, KIND/NAME.
    #[arg(long, env = "MESH_WORKLOAD", value_name = "KIND/NAME")]
    pub(super) workload: String,
    /// This instance.
    #[arg(long, env = "MESH_POD")]
    pub(super) pod: String,
    /// The service account that the workload runs as.
    #[arg(long, env = "MESH_SERVICE_ACCOUNT", default_value = "default")]
    pub(super) service_account: String,
}

#[derive(Debug, clap::Args)]
#[group(skip)]
#[command(next_help_heading = "Listeners")]
pub(super) struct Listen {
    /// Serve the application at APP on LISTEN (default 127.0.0.1:0, an ephemeral port). Repeatable.
    #[arg(long, env = "MESH_INBOUND", value_name = "[LISTEN=]APP[/PROTOCOL]", value_delimiter = ',')]
    pub(super) inbound: Vec<String>,
    /// Reach the Service TARGET through LISTEN. Repeatable.
    #[arg(long, env = "MESH_UPSTREAM", value_name = "NS/SERVICE[:PORT]=LISTEN", value_delimiter = ',')]
    pub(super) upstream: Vec<String>,
    /// Take connections to the workload that were redirected here.
    #[arg(long, env = "MESH_INBOUND_REDIRECT", value_name = "ADDR")]
    pub(super) inbound_redirect: Option<SocketAddr>,
    /// Take connections of the workload that were redirected here.
    #[arg(long, env = "MESH_OUTBOUND_REDIRECT", value_name = "ADDR")]
    pub(super) outbound_redirect: Option<SocketAddr>,
    /// Public: /metrics, /live, /ready.
    #[arg(long, env = "MESH_ADMIN", value_name = "ADDR", default_value = "127.0.0.1:0")]
    pub(super) admin: SocketAddr,
    /// Private: windowed statistics and the configuration. A loopback address, or unix:PATH.
    #[arg(long, env = "MESH_PRIVATE_ADMIN", value_name = "ADDR|unix:PATH")]
    pub(super) private_admin: Option<String>,
    /// Allow the private verbs that change something: log level, shutdown.
    #[arg(long, env = "MESH_ADMIN_CHANGES")]
    pub(super) admin_changes: bool,
}

#[derive(Debug, clap::Args)]
#[group(skip)]
#[command(next_help_heading = "Limits")]
pub(super) struct Limits {
    /// Worker threads; by default the CPU limit, rounded up.
    #[arg(long, env = "MESH_WORKERS", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(super) workers: Option<u16>,
    /// Open connections that are accepted, the whole proxy; beyond it they are refused with 503.
    #[arg(long, env = "MESH_MAX_CONNECTIONS", default_value_t = 20_000)]
    pub(super) max_connections: usize,
    /// Headers of a message; up to the default they cost no allocation.
    #[arg(long, env = "MESH_MAX_HEADERS", default_value_t = HttpLimits::FREE_HEADERS)]
    pub(super) max_headers: usize,
    /// Bytes of a message's head; beyond it 431.
    #[arg(long, env = "MESH_MAX_HEADER_BYTES", default_value_t = 64 << 10, value_parser = at_least_8k)]
    pub(super) max_header_bytes: usize,
    /// Streams of one HTTP/2 connection.
    #[arg(long, env = "MESH_MAX_STREAMS", default_value_t = 4096)]
    pub(super) max_streams: u32,
    /// For a request's head to arrive; then 408.
    #[arg(long, env = "MESH_HEADER_TIMEOUT", default_value = "15s", value_parser = duration)]
    pub(super) header_timeout: Duration,
    /// For the next piece of an HTTP/1 request body to arrive; then 408.
    #[arg(long, env = "MESH_REQUEST_BODY_TIMEOUT", default_value = "60s", value_parser = duration)]
    pub(super) request_body_timeout: Duration,
    /// An HTTP connection without a request is closed after this.
    #[arg(long, env = "MESH_HTTP_IDLE_TIMEOUT", default_value = "10m", value_parser = duration)]
    pub(super) http_idle_timeout: Duration,
    /// A TCP connection without a byte either way is closed after this.
    #[arg(long, env = "MESH_TCP_IDLE_TIMEOUT", default_value = "1h", value_parser = duration)]
    pub(super) tcp_idle_timeout: Duration,
    /// For TCP to connect, and again for the TLS handshake.
    #[arg(long, env = "MESH_CONNECT_TIMEOUT", default_value = "1s", value_parser = duration)]
    pub(super) connect_timeout: Duration,
    /// For the controller's first word on a destination; then 503.
    #[arg(long, env = "MESH_DISCOVERY_TIMEOUT", default_value = "5s", value_parser = duration)]
    pub(super) discovery_timeout: Duration,
    /// How long a client may be silent on a port of unknown protocol before the server is asked too.
    #[arg(long, env = "MESH_DETECT_WAIT", default_value = "5ms", value_parser = duration)]
    pub(super) detect_wait: Duration,
    /// After SIGTERM, for requests in flight to finish.
    #[arg(long, env = "MESH_DRAIN_DEADLINE", default_value = "30s", value_parser = duration)]
    pub(super) drain_deadline: Duration,
}

fn duration(text: &str) -> Result<Duration, String> {
    crate::units::duration::parse(text).map_err(|error| error.to_string())
}

/// hyper needs this much to read any request at all.
fn at_least_8k(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(bytes) if bytes >= 8 << 10 => Ok(bytes),
        _ => Err("a number of bytes, at least 8192".to_owned()),
    }
}
