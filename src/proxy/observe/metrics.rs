//! A [`Snapshot`] as exposition text: `/metrics` for Prometheus, and the window for `stat`.

use super::{
    Snapshot,
    snapshot::{EdgeStats, Key, Series},
};
use crate::{
    model::metric::{self, Metric, OVERFLOW, label},
    telemetry::{
        encode::{Labels, Text},
        process::Process,
    },
};

/// What is known beside the workers' counters.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gauges {
    /// The labels of `mesh_proxy_info`, by name.
    pub(crate) info: Vec<(&'static str, String)>,
    /// Unix time; `None` without a certificate.
    pub(crate) certificate_expiry: Option<i64>,
    /// Certificates obtained, by result label.
    pub(crate) certificate_renewals: Vec<(&'static str, u64)>,
    pub(crate) is_controller_connected: bool,
    /// Connections lost to a bug of ours.
    pub(crate) panics: u64,
}

/// `/metrics`: everything since the start.
pub(crate) fn exposition(snapshot: &Snapshot, gauges: &Gauges, process: &Process) -> String {
    let mut text = Text::default();
    let edges = labelled(snapshot);
    info(&mut text, gauges);
    family(&mut text, metric::REQUESTS);
    each_series(&edges, |labels, stats, series| {
        text.sample(metric::REQUESTS.name, &labels, stats.requests[series].total);
    });
    durations(&mut text, &edges);
    per_edge(&mut text, metric::REQUESTS_IN_FLIGHT, &edges, |stats| {
        (!stats.requests.is_empty() || stats.in_flight != 0).then_some(stats.in_flight)
    });
    tcp(&mut text, metric::TCP_OPENED, &edges, |tcp| Some(tcp.total.opened as i64));
    tcp(&mut text, metric::TCP_OPEN, &edges, |tcp| Some(tcp.open));
    tcp(&mut text, metric::TCP_READ, &edges, |tcp| Some(tcp.total.read as i64));
    tcp(&mut text, metric::TCP_WRITTEN, &edges, |tcp| Some(tcp.total.written as i64));
    family(&mut text, metric::TCP_FAILED);
    for (labels, stats) in &edges {
        for (reason, count) in &stats.failed {
            text.sample(metric::TCP_FAILED.name, &labels.clone().with(label::REASON, reason), count);
        }
    }
    family(&mut text, metric::DETECTED);
    for ((verdict, first), count) in &snapshot.detected {
        let labels = Labels::default().with(label::PROTOCOL, verdict).with(label::FIRST, first);
        text.sample(metric::DETECTED.name, &labels, count);
    }
    control_plane(&mut text, gauges);
    process_figures(&mut text, process);
    text.finish()
}

/// `/stats`: what happened within the window, what is open now, and at the end the number of samples.
pub(crate) fn window_exposition(snapshot: &Snapshot, gauges: &Gauges) -> String {
    let mut text = Text::default();
    let edges = labelled(snapshot);
    info(&mut text, gauges);
    value(&mut text, metric::WINDOW_SECONDS, snapshot.covered.unwrap_or_default().as_secs_f64());
    family(&mut text, metric::WINDOW_REQUESTS);
    each_series(&edges, |labels, stats, series| {
        let windowed = stats.requests[series].windowed;
        if windowed > 0 {
            text.sample(metric::WINDOW_REQUESTS.name, &labels, windowed);
        }
    });
    family(&mut text, metric::WINDOW_DURATION);
    for (labels, stats) in &edges {
        for (class, latency) in &stats.latency {
            let labels = labels.clone().with(label::RESULT, class.label());
            for (bucket, count) in latency.windowed.buckets() {
                let labels = labels.clone().with(label::BUCKET, bucket.to_string());
                text.sample(metric::WINDOW_DURATION.name, &labels, count);
            }
        }
    }
    let nonzero = |count: u64| (count > 0).then_some(count as i64);
    tcp(&mut text, metric::WINDOW_TCP_OPENED, &edges, |tcp| nonzero(tcp.windowed.opened));
    tcp(&mut text, metric::WINDOW_TCP_READ, &edges, |tcp| nonzero(tcp.windowed.read));
    tcp(&mut text, metric::WINDOW_TCP_WRITTEN, &edges, |tcp| nonzero(tcp.windowed.written));
    tcp(&mut text, metric::TCP_OPEN, &edges, |tcp| (tcp.open > 0).then_some(tcp.open));
    let samples = text.samples();
    value(&mut text, metric::SCRAPE_SAMPLES, samples);
    text.finish()
}

type Edges<'a> = Vec<(Labels, &'a EdgeStats)>;

fn labelled(snapshot: &Snapshot) -> Edges<'_> {
    snapshot.edges.iter().map(|(key, stats)| (edge_labels(key), stats)).collect()
}

fn edge_labels(key: &Key) -> Labels {
    Labels::default()
        .with(label::DIRECTION, key.direction.label())
        .with(label::TARGET, &key.target)
        .with(label::PEER, key.peer.as_deref().unwrap_or_default())
        .with(label::PEER_ID, key.peer_id.as_deref().unwrap_or_default())
        .with(label::TLS, key.tls.label())
}

fn each_series(edges: &Edges<'_>, mut visit: impl FnMut(Labels, &EdgeStats, &Series)) {
    for (labels, stats) in edges {
        for series in stats.requests.keys() {
            visit(series_labels(labels.clone(), series), stats, series);
        }
    }
}

fn series_labels(labels: Labels, series: &Series) -> Labels {
    let mut labels = labels.with(label::PROTOCOL, series.protocol.label());
    labels = match series.status {
        Some(Series::OVERFLOW_STATUS) => labels.with(label::STATUS, OVERFLOW),
        Some(status) => labels.with(label::STATUS, status.to_string()),
        None => labels,
    };
    if let Some(code) = series.grpc_status {
        labels = labels.with(label::GRPC_STATUS, code.to_string());
    }
    if let Some(error) = series.error {
        labels = labels.with(label::ERROR, error);
    }
    labels.with(label::RESULT, series.class.label())
}

fn durations(text: &mut Text, edges: &Edges<'_>) {
    let name = metric::REQUEST_DURATION.name;
    family(text, metric::REQUEST_DURATION);
    for (labels, stats) in edges {
        for (class, latency) in &stats.latency {
            let labels = labels.clone().with(label::RESULT, class.label());
            for (le, count) in latency.total.cumulative() {
                text.suffixed(name, "_bucket", &labels.clone().with(label::LE, le), count);
            }
            text.suffixed(name, "_sum", &labels, latency.total.sum_seconds());
            text.suffixed(name, "_count", &labels, latency.total.count());
        }
    }
}

fn tcp(text: &mut Text, metric: Metric, edges: &Edges<'_>, figure: impl Fn(&super::snapshot::Tcp) -> Option<i64>) {
    family(text, metric);
    for (labels, stats) in edges {
        for (protocol, tcp) in &stats.tcp {
            if let Some(figure) = figure(tcp) {
                text.sample(metric.name, &labels.clone().with(label::PROTOCOL, protocol.label()), figure);
            }
        }
    }
}

fn per_edge(text: &mut Text, metric: Metric, edges: &Edges<'_>, figure: impl Fn(&EdgeStats) -> Option<i64>) {
    family(text, metric);
    for (labels, stats) in edges {
        if let Some(figure) = figure(stats) {
            text.sample(metric.name, labels, figure);
        }
    }
}

fn info(text: &mut Text, gauges: &Gauges) {
    family(text, metric::PROXY_INFO);
    let labels = gauges.info.iter().fold(Labels::default(), |labels, (name, value)| labels.with(name, value));
    text.sample(metric::PROXY_INFO.name, &labels, 1);
}

fn control_plane(text: &mut Text, gauges: &Gauges) {
    if let Some(expiry) = gauges.certificate_expiry {
        value(text, metric::CERTIFICATE_EXPIRY, expiry);
    }
    family(text, metric::CERTIFICATE_RENEWALS);
    for (result, count) in &gauges.certificate_renewals {
        text.sample(metric::CERTIFICATE_RENEWALS.name, &Labels::default().with(label::RESULT, result), count);
    }
    value(text, metric::CONTROLLER_CONNECTED, i32::from(gauges.is_controller_connected));
    value(text, metric::PANICS, gauges.panics);
}

fn process_figures(text: &mut Text, process: &Process) {
    let figures = [
        (metric::PROCESS_CPU, process.cpu_seconds),
        (metric::PROCESS_MEMORY, process.resident_bytes.map(|bytes| bytes as f64)),
        (metric::PROCESS_FDS, process.open_fds.map(|fds| fds as f64)),
        (metric::PROCESS_START, process.start_seconds),
    ];
    for (metric, figure) in figures {
        if let Some(figure) = figure {
            value(text, metric, figure);
        }
    }
}

fn family(text: &mut Text, metric: Metric) {
    text.family(metric.name, metric.kind.label(), metric.help);
}

/// A family of one sample without labels.
fn value(text: &mut Text, metric: Metric, figure: impl std::fmt::Display) {
    family(text, metric);
    text.sample(metric.name, &Labels::default(), figure);
}
