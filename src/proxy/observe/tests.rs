//! What the window of observations must hold true.

use super::*;
use crate::{model::class::CANCELLED, rt::clock, telemetry::process::Process};

const SNAPSHOTS: &str = "../../../tests/snapshots";

fn key(direction: Direction, target: &str) -> EdgeKey {
    EdgeKey {
        direction,
        target: target.into(),
        peer: Some("shop/deploy/web".into()),
        peer_id: Some("spiffe://local/ns/shop/sa/web".into()),
        tls: Tls::Mutual,
    }
}

fn gauges() -> Gauges {
    Gauges {
        info: vec![("namespace", "shop".into()), ("workload", "deploy/orders".into())],
        certificate_expiry: Some(1_900_000_000),
        certificate_renewals: vec![("success", 1)],
        is_controller_connected: true,
        panics: 0,
    }
}

/// A little of everything: two HTTP requests, a failed gRPC one, a TCP connection, a verdict and a refusal.
fn busy(start: Instant) -> (Observer, Connection) {
    let observer = Observer::new(start);
    let edge = observer.edge(key(Direction::Inbound, "8080"));
    for (status, millis) in [(200, 3), (503, 40)] {
        let mut request = edge.request(Protocol::Http1, start);
        request.response(status, None);
        request.finish(start + Duration::from_millis(millis));
    }
    let mut call = edge.request(Protocol::Grpc, start);
    call.response(200, None);
    call.grpc_status(14);
    call.finish(start + Duration::from_millis(7));
    let hostile =
        EdgeKey { peer: None, peer_id: None, tls: Tls::NotMeshed, ..key(Direction::Outbound, "a\"b,c=d}\n%") };
    let connection = observer.edge(hostile).connection(Protocol::Opaque, start);
    connection.add_written(10);
    observer.detected("opaque", "server");
    observer.refused(Direction::Inbound, "loop");
    (observer, connection)
}

#[test]
fn the_exposition_for_prometheus() {
    let start = clock::now();
    let (observer, _open) = busy(start);
    let snapshot = observer.snapshot(None, start + Duration::from_secs(1));
    insta::with_settings!({ snapshot_path => SNAPSHOTS }, {
        insta::assert_snapshot!(exposition(&snapshot, &gauges(), &Process::default()));
    });
}

#[test]
fn the_exposition_of_the_window() {
    let start = clock::now();
    let (observer, _open) = busy(start);
    let snapshot = observer.snapshot(Some(Duration::from_secs(60)), start + Duration::from_secs(10));
    insta::with_settings!({ snapshot_path => SNAPSHOTS }, {
        insta::assert_snapshot!(window_exposition(&snapshot, &gauges()));
    });
}

#[test]
fn a_window_forgets_and_counters_do_not() {
    let start = clock::now();
    let (observer, open) = busy(start);
    drop(open);
    let late = start + Duration::from_secs(3600);
    observer.prune(late);
    let snapshot = observer.snapshot(Some(Duration::from_secs(60)), late);
    assert_eq!(window_exposition(&snapshot, &gauges()).lines().filter(|line| !line.starts_with('#')).count(), 3);
    assert!(exposition(&snapshot, &gauges(), &Process::default()).contains("status=\"503\",result=\"failure\"} 1\n"));
}

#[test]
fn a_request_is_published_once_and_leaves_the_edge_it_moved_to() {
    let start = clock::now();
    let observer = Observer::new(start);
    let (first, second) =
        (observer.edge(key(Direction::Outbound, "a/b:1")), observer.edge(key(Direction::Outbound, "a/c:1")));
    let mut request = first.request(Protocol::Http2, start);
    request.move_to(&second);
    request.error("connect");
    request.error("later");
    drop(request);
    let snapshot = observer.snapshot(None, start);
    let stats: Vec<_> = snapshot.edges.values().collect();
    assert_eq!((stats[0].in_flight, stats[0].requests.len()), (0, 0));
    let (series, requests) = stats[1].requests.first_key_value().expect("the request was published");
    assert_eq!((stats[1].in_flight, requests.total, series.error), (0, 1, Some("connect")));
}

#[test]
fn a_client_that_leaves_before_the_response_is_told_apart() {
    let observer = Observer::new(clock::now());
    let edge = observer.edge(key(Direction::Inbound, "80"));
    drop(edge.request(Protocol::Http1, clock::now()));
    let mut head = edge.request(Protocol::Http1, clock::now());
    head.response(204, None);
    drop(head);
    let snapshot = observer.snapshot(None, clock::now());
    let series: Vec<_> = snapshot.edges.values().flat_map(|stats| stats.requests.keys()).collect();
    assert_eq!(
        series.iter().map(|s| (s.status, s.error)).collect::<Vec<_>>(),
        [(None, Some(CANCELLED)), (Some(204), None)]
    );
}

#[test]
fn edges_and_series_are_bounded() {
    let observer = Observer::new(clock::now());
    for n in 0..3000 {
        let edge = observer.edge(key(Direction::Outbound, &format!("ns/svc-{n}:80")));
        let mut request = edge.request(Protocol::Http1, clock::now());
        request.response(200, None);
        request.finish(clock::now());
    }
    let one = observer.edge(key(Direction::Outbound, "ns/svc-1:80"));
    for code in 0..300 {
        let mut request = one.request(Protocol::Grpc, clock::now());
        request.response(200, Some(code));
        request.finish(clock::now());
    }
    let snapshot = observer.snapshot(None, clock::now());
    let total: u64 = snapshot.edges.values().flat_map(|stats| stats.requests.values()).map(|r| r.total).sum();
    assert_eq!((snapshot.edges.len(), total), (MAX_EDGES + 1, 3300));
    assert!(snapshot.edges.values().all(|stats| stats.requests.len() <= 66));
}

#[tokio::test(flavor = "local")]
async fn the_collector_adds_up_the_workers_and_counts_those_that_are_gone() {
    let (collector, mut feeds) = channel(3);
    drop(feeds.pop());
    let start = clock::now();
    let mut tasks = tokio::task::JoinSet::new();
    for feed in feeds {
        tasks.spawn_local(feed.serve(busy(start).0));
    }
    let snapshot = collector.snapshot(Some(Duration::from_secs(60))).await;
    let requests: u64 = snapshot.edges.values().flat_map(|stats| stats.requests.values()).map(|r| r.windowed).sum();
    assert_eq!((requests, snapshot.missing_workers), (6, 1));
}
