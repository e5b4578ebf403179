//! The edges of `aggregate`'s small mesh.

use super::*;
use crate::query::aggregate::tests::shop;

fn show(end: &End) -> String {
    match end {
        End::Resource(resource) => resource.to_string(),
        End::Outside(what) => format!("<{what}>"),
    }
}

fn ask(args: &[&str], namespace: Option<&str>) -> Vec<String> {
    let selectors: Vec<Selector> = args.iter().map(|arg| arg.parse().expect("a selector")).collect();
    let line = |(edge, volume): (Edge, Volume)| {
        format!("{} {} {} {} {}", show(&edge.source), show(&edge.destination), edge.protocol, edge.tls, volume.requests)
    };
    edges(&shop(), &selectors, namespace).into_iter().map(line).collect()
}

#[test]
fn each_edge_is_counted_once_and_clients_outside_are_seen_by_their_servers() {
    let all = [
        "deploy/web deploy/orders http1 mtls 120",
        "deploy/web <10.0.0.9:443> http1 not_meshed 1",
        "<> deploy/web http1 not_meshed 60",
    ];
    assert_eq!(ask(&[], None), all);
    assert_eq!(ask(&["deploy"], Some("shop")), all);
    assert_eq!(ask(&["deploy/orders"], None), all[..1]);
    assert_eq!(ask(&[], Some("elsewhere")), [""; 0]);
}

#[test]
fn the_kind_decides_what_ends_are_shown_as() {
    assert_eq!(ask(&["svc/orders"], None), ["deploy/web svc/orders http1 mtls 120"]);
    assert_eq!(ask(&["po/web-1"], None)[0], "po/web-1 deploy/orders http1 mtls 120");
    assert_eq!(ask(&["ns"], None)[0], "ns/shop ns/shop http1 mtls 120");
}

#[test]
fn requests_name_the_protocol_before_connections_do() {
    let mut traffic = Traffic::default();
    traffic.tcp.insert("http2".into(), Tcp { open: 1, ..Tcp::default() });
    assert_eq!(protocols(&traffic).into_keys().collect::<Vec<_>>(), ["http2"]);
    traffic.requests.insert(("grpc".into(), crate::model::class::Class::Success), 7);
    traffic.tcp.insert("opaque".into(), Tcp::default());
    assert_eq!(protocols(&traffic), BTreeMap::from([("grpc", Volume { requests: 7, open: 1 })]));
}
