//! Rows of a small mesh: `web` calls `orders` (two replicas, one of them new and one more that does not answer).

use super::*;
use crate::query::Unreachable;

const SECOND: Duration = Duration::from_secs(1);

fn traffic(is_inbound: bool, target: &str, peer: &str, success: u64, failure: u64) -> Traffic {
    let mut traffic = Traffic {
        is_inbound,
        target: target.into(),
        peer: peer.parse().ok(),
        tls: "mtls".into(),
        peer_id: "spiffe://local/ns/shop/sa/orders".into(),
        ..Traffic::default()
    };
    for (class, count) in [(Class::Success, success), (Class::Failure, failure)] {
        traffic.requests.insert(("http1".into(), class), count);
    }
    traffic.buckets.insert(crate::telemetry::histogram::index(5_000_000), success + failure);
    traffic.tcp.insert("http1".into(), Tcp { open: 2, ..Tcp::default() });
    traffic
}

fn pod(name: &str, workload: &str, service: &str, covered: Duration, traffic: Vec<Traffic>) -> (Pod, Option<Report>) {
    let workload: Option<Workload> = workload.parse().ok();
    let namespace = workload.as_ref().map(|it| it.namespace.clone()).unwrap_or_default();
    let services = vec![service.to_owned()];
    let report = Report {
        namespace: namespace.clone(),
        covered,
        traffic,
        identity: format!("spiffe://local/ns/shop/sa/{service}"),
        ..Report::default()
    };
    (Pod { namespace, name: name.into(), workload, services, is_listed: true, source: None }, Some(report))
}

pub(crate) fn shop() -> View {
    let mut silent = pod("orders-3", "shop/deploy/orders", "orders", SECOND, vec![]);
    silent.1 = None;
    View {
        pods: vec![
            pod(
                "web-1",
                "shop/deploy/web",
                "web",
                60 * SECOND,
                vec![
                    traffic(false, "shop/orders:80", "shop/deploy/orders", 100, 20),
                    Traffic {
                        tls: "not_meshed".into(),
                        peer_id: String::new(),
                        ..traffic(false, "10.0.0.9:443", "", 1, 0)
                    },
                    Traffic { tls: "not_meshed".into(), ..traffic(true, "8080", "", 60, 0) },
                ],
            ),
            pod(
                "orders-1",
                "shop/deploy/orders",
                "orders",
                60 * SECOND,
                vec![traffic(true, "8080", "shop/deploy/web", 80, 20)],
            ),
            pod(
                "orders-2",
                "shop/deploy/orders",
                "orders",
                10 * SECOND,
                vec![traffic(true, "8080", "shop/deploy/web", 20, 0)],
            ),
            silent,
        ],
        unreachable: vec![Unreachable { namespace: "shop".into(), pod: "orders-3".into(), error: "gone".into() }],
    }
}

fn party(text: &str) -> Option<Party> {
    Some(Party { selector: text.parse().expect("a selector"), namespace: None })
}

/// `NAME meshed/pods success failure rate` of each row.
fn ask(args: &[&str], to: Option<Party>, from: Option<Party>) -> Vec<String> {
    let selectors = args.iter().map(|arg| arg.parse().expect("a selector")).collect();
    let question = Question { selectors, namespace: None, to, from };
    let show = |row: Row| {
        let Totals { success, failure, .. } = row.totals;
        let rate = row.covered.rate(row.totals.requests());
        format!("{} {}/{} {success} {failure} {rate:.1}", row.resource, row.meshed, row.pods)
    };
    rows(&shop(), &question).expect("a sound question").into_iter().map(show).collect()
}

#[test]
fn inbound_is_what_the_own_pods_received() {
    assert_eq!(ask(&["deploy"], None, None), ["deploy/orders 2/3 100 20 2.0", "deploy/web 1/1 60 0 1.0"]);
    assert_eq!(ask(&["ns"], None, None), ["ns/shop 3/4 160 20 3.0"]);
    assert_eq!(ask(&["po/orders-2"], None, None), ["po/orders-2 1/1 20 0 2.0"]);
    assert_eq!(ask(&["sts"], None, None), [""; 0]);
}

#[test]
fn outbound_is_what_the_own_pods_sent_to_a_party() {
    assert_eq!(ask(&["deploy/web"], party("deploy/orders"), None), ["deploy/web 1/1 100 20 2.0"]);
    assert_eq!(ask(&["deploy/web"], party("svc/orders"), None), ["deploy/web 1/1 100 20 2.0"]);
    assert_eq!(ask(&["deploy/web"], party("svc/web"), None), ["deploy/web 1/1 0 0 0.0"]);
}

#[test]
fn from_counts_what_the_party_sent() {
    let rows = ["deploy/orders 2/3 100 20 2.0", "deploy/web 1/1 0 0 0.0"];
    assert_eq!(ask(&["deploy"], None, party("deploy/web")), rows);
    assert_eq!(ask(&["po/orders-1"], None, party("deploy/web")), ["po/orders-1 1/1 80 20 1.7"]);
}

#[test]
fn a_service_is_what_was_sent_to_it() {
    assert_eq!(ask(&["svc"], None, None), ["svc/orders 2/3 100 20 2.0", "svc/web 1/1 0 0 0.0"]);
    assert_eq!(ask(&["svc/orders"], None, party("deploy/orders")), ["svc/orders 2/3 0 0 0.0"]);
}

#[test]
fn questions_that_mean_nothing_are_refused() {
    let ask = |selector: &str, to: &str| {
        let selectors = vec![selector.parse().expect("a selector")];
        rows(&shop(), &Question { selectors, to: party(to), ..Question::default() })
    };
    assert_eq!(ask("svc", "deploy/web"), Err(Error::ServiceTo));
    assert_eq!(ask("deploy", "po/web-1"), Err(Error::ToPod));
}
