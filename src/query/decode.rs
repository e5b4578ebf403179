//! A proxy's window exposition (see `proxy::observe`) as a [`Report`]. The only file that names prometheus-parse.
//!
//! That parser drops lines it cannot read without a word, so the number of samples is held against the one that the
//! exposition ends with; and label values come percent-escaped (see `telemetry::encode`).

use std::{collections::BTreeMap, time::Duration};

use prometheus_parse::{Sample, Scrape, Value};

use super::quantile::Buckets;
use crate::{
    model::{
        class::Class,
        metric::{self, label},
        name::Workload,
    },
    telemetry::encode::unescape,
};

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    #[error("the answer is not a mesh proxy's exposition")]
    Foreign,
    #[error("the answer is not whole: {found} of {expected} samples")]
    Incomplete { found: usize, expected: u64 },
}

/// What one proxy has seen.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Report {
    pub(crate) namespace: String,
    /// The workload that the proxy serves.
    pub(crate) workload: Option<Workload>,
    pub(crate) pod: String,
    /// Empty before the proxy has a certificate.
    pub(crate) identity: String,
    /// How much of the window the figures cover.
    pub(crate) covered: Duration,
    pub(crate) traffic: Vec<Traffic>,
}

/// The traffic of one edge.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Traffic {
    pub(crate) is_inbound: bool,
    pub(crate) target: String,
    pub(crate) peer: Option<Workload>,
    pub(crate) peer_id: String,
    pub(crate) tls: String,
    pub(crate) requests: BTreeMap<(String, Class), u64>,
    /// Latencies of all requests.
    pub(crate) buckets: Buckets,
    /// Connections, by protocol.
    pub(crate) tcp: BTreeMap<String, Tcp>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tcp {
    pub(crate) open: u64,
    pub(crate) opened: u64,
    pub(crate) read: u64,
    pub(crate) written: u64,
}

pub(crate) fn report(text: &str) -> Result<Report, Error> {
    // Reading from memory does not fail.
    let scrape = Scrape::parse(text.lines().map(|line| Ok(line.to_owned()))).map_err(|_| Error::Foreign)?;
    let is_count = |sample: &&Sample| sample.metric == metric::SCRAPE_SAMPLES.name;
    let expected = scrape.samples.iter().find(is_count).map(number).ok_or(Error::Foreign)?;
    let found = scrape.samples.len() - 1;
    if found as u64 != expected {
        return Err(Error::Incomplete { found, expected });
    }
    let mut report = Report::default();
    let mut edges = BTreeMap::<[String; 5], Traffic>::new();
    for sample in &scrape.samples {
        if sample.metric == metric::PROXY_INFO.name {
            report.namespace = text_of(sample, label::NAMESPACE);
            report.pod = text_of(sample, label::POD);
            report.identity = text_of(sample, label::IDENTITY);
            let workload = format!("{}/{}", report.namespace, text_of(sample, label::WORKLOAD));
            report.workload = workload.parse().ok();
        } else if sample.metric == metric::WINDOW_SECONDS.name {
            report.covered = Duration::try_from_secs_f64(float(sample)).unwrap_or_default();
        } else if sample.labels.contains_key(label::DIRECTION) {
            edge(&mut edges, sample).add(sample);
        }
    }
    report.traffic = edges.into_values().collect();
    Ok(report)
}

fn edge<'a>(edges: &'a mut BTreeMap<[String; 5], Traffic>, sample: &Sample) -> &'a mut Traffic {
    let key =
        [label::DIRECTION, label::TARGET, label::PEER, label::PEER_ID, label::TLS].map(|name| text_of(sample, name));
    edges.entry(key).or_insert_with_key(|[direction, target, peer, peer_id, tls]| Traffic {
        is_inbound: direction == "inbound",
        target: target.clone(),
        peer: peer.parse().ok(),
        peer_id: peer_id.clone(),
        tls: tls.clone(),
        ..Traffic::default()
    })
}

impl Traffic {
    fn add(&mut self, sample: &Sample) {
        let count = number(sample);
        let name = sample.metric.as_str();
        if name == metric::WINDOW_REQUESTS.name {
            let class = Class::from_label(&text_of(sample, label::RESULT)).unwrap_or(Class::Failure);
            *self.requests.entry((text_of(sample, label::PROTOCOL), class)).or_default() += count;
        } else if name == metric::WINDOW_DURATION.name {
            if let Ok(bucket) = text_of(sample, label::BUCKET).parse() {
                *self.buckets.entry(bucket).or_default() += count;
            }
        } else {
            let tcp = self.tcp.entry(text_of(sample, label::PROTOCOL)).or_default();
            let fields = [
                (metric::TCP_OPEN, &mut tcp.open),
                (metric::WINDOW_TCP_OPENED, &mut tcp.opened),
                (metric::WINDOW_TCP_READ, &mut tcp.read),
                (metric::WINDOW_TCP_WRITTEN, &mut tcp.written),
            ];
            fields.into_iter().filter(|(metric, _)| metric.name == name).for_each(|(_, field)| *field += count);
        }
    }
}

fn text_of(sample: &Sample, name: &str) -> String {
    sample.labels.get(name).map(unescape).unwrap_or_default()
}

fn float(sample: &Sample) -> f64 {
    match sample.value {
        Value::Counter(value) | Value::Gauge(value) | Value::Untyped(value) => value,
        Value::Histogram(_) | Value::Summary(_) => 0.0,
    }
}

/// Counts are whole and fit; the cast turns what is neither into the nearest that is.
fn number(sample: &Sample) -> u64 {
    float(sample) as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::telemetry::encode::{Labels, Text};

    /// An exposition of one edge whose strings are `target` and `peer_id`.
    fn expose(target: &str, peer_id: &str, count: u64) -> String {
        let mut text = Text::default();
        let info = Labels::default()
            .with(label::NAMESPACE, "shop")
            .with(label::WORKLOAD, "deploy/web")
            .with(label::POD, "web-1");
        text.sample(metric::PROXY_INFO.name, &info, 1);
        text.sample(metric::WINDOW_SECONDS.name, &Labels::default(), 12.5);
        let edge = Labels::default()
            .with(label::DIRECTION, "outbound")
            .with(label::TARGET, target)
            .with(label::PEER, "shop/deploy/orders")
            .with(label::PEER_ID, peer_id)
            .with(label::TLS, label::MUTUAL)
            .with(label::PROTOCOL, "http1");
        text.sample(metric::WINDOW_REQUESTS.name, &edge.clone().with(label::RESULT, "success"), count);
        text.sample(metric::WINDOW_DURATION.name, &edge.clone().with(label::BUCKET, "557"), count);
        text.sample(metric::TCP_OPEN.name, &edge, 3);
        let samples = text.samples();
        text.sample(metric::SCRAPE_SAMPLES.name, &Labels::default(), samples);
        text.finish()
    }

    proptest! {
        /// The tie between the two ends: what is written is what is read, whatever names come from outside.
        #[test]
        fn hostile_label_values_come_back_as_they_went(target: String, peer_id in ".*[,={}\"\\\\%\n].*", count in 0_u64..1 << 50) {
            let report = report(&expose(&target, &peer_id, count)).expect("a whole exposition");
            let traffic = &report.traffic[0];
            prop_assert_eq!((&traffic.target, &traffic.peer_id), (&target, &peer_id));
            prop_assert_eq!(traffic.requests.get(&("http1".to_owned(), Class::Success)), Some(&count));
            prop_assert_eq!((traffic.buckets.get(&557), traffic.tcp["http1"].open), (Some(&count), 3));
        }

        #[test]
        fn any_text_is_read_or_refused(text: String) {
            let _ = report(&text);
        }
    }

    #[test]
    fn a_report_says_whose_it_is() {
        let report = report(&expose("shop/orders:80", "", 1)).expect("a whole exposition");
        assert_eq!(report.workload, "shop/deploy/web".parse().ok());
        assert_eq!((report.pod.as_str(), report.covered), ("web-1", Duration::from_millis(12_500)));
        assert_eq!(report.traffic[0].peer, "shop/deploy/orders".parse().ok());
    }

    #[test]
    fn missing_lines_are_noticed() {
        let whole = expose("t", "", 1);
        let cut: String = whole.split_inclusive('\n').filter(|line| !line.contains("bucket")).collect();
        assert_eq!(report(&cut), Err(Error::Incomplete { found: 4, expected: 5 }));
        assert_eq!(report("<html>"), Err(Error::Foreign));
    }
}
