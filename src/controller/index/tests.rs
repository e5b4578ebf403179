//! The index by itself: what targets are, and which changes are heard by whom.

use proptest::prelude::*;

use super::*;
use crate::{
    api::outbound::Event,
    controller::source::{Address, ServicePort as Port, SlicePort},
    model::service::{ProtocolHint, TargetKind},
};

fn name(name: &str) -> Name {
    Name { namespace: "shop".into(), name: name.into() }
}

fn service(of: &str, ip: &str, ports: &[(&str, u16, ProtocolHint)]) -> Change {
    let port = |(name, port, protocol): &(&str, u16, ProtocolHint)| Port {
        name: (*name).to_owned(),
        port: *port,
        target_port: Some(*port),
        protocol: *protocol,
    };
    let ports = ports.iter().map(port).collect();
    Change::Apply(Resource::Service(Service { name: name(of), cluster_ips: ip.parse().into_iter().collect(), ports }))
}

fn slice(pod: &str, of: &str, ip: &str, ports: &[(&str, u16)]) -> Change {
    let port = |(name, port): &(&str, u16)| SlicePort {
        name: (*name).to_owned(),
        port: *port,
        protocol: ProtocolHint::Unknown,
    };
    Change::Apply(Resource::Slice(Box::new(Slice {
        name: name(pod),
        service: Some(of.into()),
        ports: ports.iter().map(port).collect(),
        endpoints: vec![Address { ip: ip.parse().unwrap(), pod: Some(pod.into()) }],
        identity: Some(SpiffeId::new("local", "shop", of)),
        workload: None,
        socket: None,
    })))
}

fn asked(text: &str) -> Asked {
    Asked::parse(text).unwrap()
}

fn addrs(index: &mut Index, text: &str) -> Vec<String> {
    index.watch(asked(text)).borrow().value.endpoints.iter().map(|e| e.addr.to_string()).collect()
}

const HTTP: ProtocolHint = ProtocolHint::Http1;

#[test]
fn ports_match_by_name_else_by_number_else_the_only_by_the_only() {
    let mut index = Index::default();
    index.update([
        service("named", "", &[("http", 80, HTTP), ("db", 5432, ProtocolHint::Opaque)]),
        slice("n-1", "named", "10.0.0.1", &[("db", 6000), ("http", 8080)]),
        service("numbered", "", &[("a", 80, HTTP), ("b", 81, HTTP)]),
        slice("m-1", "numbered", "10.0.0.2", &[("81", 1081), ("80", 1080)]),
        service("only", "", &[("", 80, HTTP)]),
        slice("o-1", "only", "10.0.0.3", &[("8080", 9999)]),
        slice("i-1", "implied", "10.0.0.4", &[("8080", 2080), ("80", 2000)]),
    ]);
    for (target, expected) in [
        ("shop/named:80", "10.0.0.1:8080"),
        ("shop/named:5432", "10.0.0.1:6000"),
        ("shop/named", "10.0.0.1:8080"),
        ("shop/numbered:81", "10.0.0.2:1081"),
        ("shop/only:80", "10.0.0.3:9999"),
        ("shop/implied:8080", "10.0.0.4:2080"),
        ("shop/implied", "10.0.0.4:2000"),
    ] {
        assert_eq!(addrs(&mut index, target), [expected], "{target}");
    }
    for nothing in ["shop/only:81", "shop/implied:1", "shop/none:80", "shop/none"] {
        assert_eq!(addrs(&mut index, nothing), [""; 0], "{nothing}");
        let watch = index.watch(asked(nothing));
        assert!(matches!(&watch.borrow().value.kind, TargetKind::Service(port) if port.to_string() == nothing));
    }
    assert_eq!(index.watch(asked("shop/named:5432")).borrow().value.protocol, ProtocolHint::Opaque);
}

#[test]
fn an_address_is_a_service_a_pod_or_unknown() {
    let mut index = Index::default();
    index.update([
        service("web", "10.96.0.1", &[("", 80, ProtocolHint::Grpc)]),
        slice("web-1", "web", "10.0.0.1", &[("", 8080)]),
    ]);
    let kinds = ["10.96.0.1:80", "10.0.0.1:8080", "10.0.0.1:9", "10.96.0.1:81", "[::1]:80"]
        .map(|address| index.watch(asked(address)).borrow().value.clone());
    assert!(matches!(&kinds[0].kind, TargetKind::Service(port) if port.to_string() == "shop/web:80"));
    assert_eq!((&kinds[1].kind, kinds[1].protocol), (&TargetKind::Pod, ProtocolHint::Grpc));
    assert_eq!(kinds[1].endpoints.len(), 1);
    assert!(kinds[2..].iter().all(|target| target.kind == TargetKind::Unknown && target.endpoints.is_empty()));
}

#[test]
fn only_those_concerned_hear_of_a_change() {
    let mut index = Index::default();
    index.update([service("web", "10.96.0.1", &[("", 80, HTTP)]), slice("web-1", "web", "10.0.0.1", &[("", 8080)])]);
    let mut concerned = ["shop/web:80", "10.96.0.1:80", "10.0.0.2:8080"].map(|text| index.watch(asked(text)));
    let mut others = ["shop/orders:80", "10.0.0.1:8080", "10.0.0.9:1"].map(|text| index.watch(asked(text)));
    index.update([slice("web-2", "web", "10.0.0.2", &[("", 8080)])]);
    assert!(concerned.iter_mut().all(|watch| watch.has_changed().unwrap()));
    assert!(others.iter_mut().all(|watch| !watch.has_changed().unwrap()));
    concerned.iter_mut().for_each(watch::Receiver::mark_unchanged);
    index.update([slice("web-2", "web", "10.0.0.2", &[("", 8080)])]);
    assert!(concerned.iter_mut().all(|watch| !watch.has_changed().unwrap()), "nothing changed");
}

#[test]
fn one_step_behind_gets_the_delta_anyone_else_the_snapshot() {
    let mut index = Index::default();
    let watch = index.watch(asked("shop/web:80"));
    let event = |sent| {
        let line = watch.borrow().line_after(sent);
        serde_json::from_slice::<Event>(&line).unwrap()
    };
    assert!(matches!(event(0), Event::Snapshot(_)));
    index.update([service("web", "", &[("", 80, HTTP)])]);
    assert!(matches!(event(1), Event::Snapshot(_)), "a protocol is not in a delta");
    index.update([slice("web-1", "web", "10.0.0.1", &[("", 8080)]), slice("web-2", "web", "10.0.0.2", &[("", 8080)])]);
    assert_eq!(watch.borrow().version, 3, "a batch is one step");
    assert!(matches!(event(2), Event::Delta(delta) if delta.add.len() == 2 && delta.remove.is_empty()));
    assert!(matches!(event(1), Event::Snapshot(target) if target.endpoints.len() == 2));
    let same = (watch.borrow().line_after(2), watch.borrow().line_after(2));
    assert_eq!(same.0.as_ptr(), same.1.as_ptr(), "encoded once");
}

#[test]
fn what_nobody_watches_is_dropped() {
    let mut index = Index::default();
    let kept = index.watch(asked("shop/web:80"));
    for port in 1..100 {
        drop(index.watch(asked(&format!("10.0.0.1:{port}"))));
    }
    index.update([service("web", "", &[("", 80, HTTP)])]);
    assert_eq!((index.targets.len(), kept.borrow().version), (1, 2));
}

#[test]
fn a_workload_hears_of_its_own_ports_and_of_new_roots() {
    let mut index = Index::new("old".into());
    let watch = index.watch_inbound(&SpiffeId::new("local", "shop", "web"));
    index.update([
        service("web", "", &[("", 80, ProtocolHint::Grpc)]),
        slice("web-1", "web", "10.0.0.1", &[("8080", 1000)]),
        slice("orders-1", "orders", "10.0.0.2", &[("9090", 1000)]),
    ]);
    let ports =
        |watch: &InboundWatch| watch.borrow().value.ports.iter().map(|p| (p.port, p.protocol)).collect::<Vec<_>>();
    assert_eq!(ports(&watch), [(8080, ProtocolHint::Grpc)]);
    index.set_trust_anchors("new".into());
    assert_eq!(watch.borrow().value.trust_anchors, "new");
}

fn change() -> impl Strategy<Value = Change> {
    let which = prop::sample::select(vec!["web", "orders"]);
    let hints = prop::sample::select(vec![ProtocolHint::Unknown, HTTP, ProtocolHint::Opaque]);
    let a_service = (which.clone(), hints, 80_u16..83).prop_map(|(of, hint, port)| {
        service(of, if of == "web" { "10.96.0.1" } else { "10.96.0.2" }, &[("", port, hint)])
    });
    let a_slice = (which.clone(), 1_u8..4, 1_u8..4)
        .prop_map(|(of, pod, ip)| slice(&format!("p-{pod}"), of, &format!("10.0.0.{ip}"), &[("80", 8080)]));
    let gone = which.prop_map(|of| Change::Delete(Key::Service(name(of))));
    let gone_slice = (1_u8..4).prop_map(|pod| Change::Delete(Key::Slice(name(&format!("p-{pod}")))));
    prop_oneof![a_service, a_slice, gone, gone_slice]
}

proptest! {
    /// However it came about, the state is that of an index which was told it at once; and whoever watched saw it.
    #[test]
    fn any_order_of_events_ends_like_a_fresh_index(batches in prop::collection::vec(prop::collection::vec(change(), 1..4), 1..12)) {
        let targets = ["shop/web:80", "shop/web", "shop/orders:81", "10.96.0.1:80", "10.96.0.2:82", "10.0.0.1:8080", "10.0.0.2:8080"];
        let mut index = Index::default();
        let watches = targets.map(|text| index.watch(asked(text)));
        let mut state = BTreeMap::new();
        for change in batches.iter().flatten().cloned() {
            match change {
                Change::Apply(resource) => drop(state.insert(resource.key(), resource)),
                Change::Delete(key) => drop(state.remove(&key)),
            }
        }
        for batch in batches {
            index.update(batch);
        }
        let mut fresh = Index::default();
        fresh.reset(state.values().cloned().collect());
        for (text, watch) in targets.iter().zip(&watches) {
            let (found, expected) = (watch.borrow().value.clone(), fresh.watch(asked(text)).borrow().value.clone());
            prop_assert_eq!(found, expected, "{}", text);
        }
        index.reset(Vec::new());
        prop_assert_eq!((index.services(), index.slices(), index.by_ip.len(), index.cluster_ips.len()), (0, 0, 0, 0));
        prop_assert!(watches.iter().all(|watch| watch.borrow().value.endpoints.is_empty()));
    }
}
