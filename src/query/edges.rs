//! Who talks to whom, and whether it is secured.
//!
//! An edge is known from its client's outbound record: the source is that proxy's workload, the destination the peer's, or
//! the target where no workload is known. Clients without a proxy have no such record; theirs are the servers'
//! inbound ones that are not secured. A record counts if it saw traffic within the window or has connections open now.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    View,
    aggregate::{Party, owners, receiver},
    decode::{Report, Tcp, Traffic},
    pods::Pod,
    select::{Kind, Resource, Selector},
};
use crate::model::metric::label;

/// One end of an edge.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum End {
    Resource(Resource),
    /// Outside what has a name here: an address, or nothing known (empty).
    Outside(String),
}

/// What tells edges apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Edge {
    pub(crate) source: End,
    pub(crate) destination: End,
    pub(crate) protocol: String,
    /// `mtls`, or the reason why not.
    pub(crate) tls: String,
    /// Verified identities; empty where there is none.
    pub(crate) client_id: String,
    pub(crate) server_id: String,
}

/// How much goes over an edge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Volume {
    pub(crate) requests: u64,
    pub(crate) open: u64,
}

impl Edge {
    pub(crate) fn is_secured(&self) -> bool {
        self.tls == label::MUTUAL
    }
}

/// The edges with an end that a selector selects; without selectors, all. `ns`, `svc` and `po` change what the
/// ends are shown as, the workload being the default.
pub(crate) fn edges(view: &View, selectors: &[Selector], namespace: Option<&str>) -> BTreeMap<Edge, Volume> {
    let shown = shown_as(selectors);
    let mut edges = BTreeMap::<Edge, Volume>::new();
    for (pod, report) in view.pods.iter().filter_map(|(pod, report)| Some((pod, report.as_ref()?))) {
        for traffic in report.traffic.iter().filter(|traffic| is_known_here(traffic)) {
            let (source, destination) = ends(shown, pod, traffic);
            if !is_selected(selectors, namespace, pod, traffic, [&source, &destination]) {
                continue;
            }
            for (protocol, volume) in protocols(traffic) {
                let (client_id, server_id) = identities(report, traffic);
                let edge = Edge {
                    source: source.clone(),
                    destination: destination.clone(),
                    protocol: protocol.to_owned(),
                    tls: traffic.tls.clone(),
                    client_id,
                    server_id,
                };
                let sum = edges.entry(edge).or_default();
                sum.requests += volume.requests;
                sum.open += volume.open;
            }
        }
    }
    edges
}

/// Secured inbound traffic has a record at its client too, which knows more.
fn is_known_here(traffic: &Traffic) -> bool {
    let is_secured = traffic.tls == label::MUTUAL;
    !traffic.target.is_empty() && (!traffic.is_inbound || !is_secured)
}

fn shown_as(selectors: &[Selector]) -> Option<Kind> {
    let kinds: BTreeSet<Kind> = selectors.iter().map(|selector| selector.kind).collect();
    let special = |kind: &Kind| matches!(kind, Kind::Pod | Kind::Service | Kind::Namespace);
    (kinds.len() == 1).then(|| kinds.first().copied().filter(special)).flatten()
}

fn ends(shown: Option<Kind>, pod: &Pod, traffic: &Traffic) -> (End, End) {
    let own = own_end(shown, pod);
    let other = match &traffic.peer {
        Some(peer) if matches!(shown, None | Some(Kind::Pod)) => Kind::parse(&peer.kind).map(|kind| Resource {
            namespace: peer.namespace.clone(),
            kind,
            name: peer.name.clone(),
        }),
        Some(_) | None => receiver(shown.filter(|kind| *kind != Kind::Pod).unwrap_or(Kind::Service), traffic),
    };
    if traffic.is_inbound {
        (other.map_or_else(|| End::Outside(String::new()), End::Resource), own)
    } else {
        (own, other.map_or_else(|| End::Outside(traffic.target.clone()), End::Resource))
    }
}

/// A client's own end is its workload when it is services that are asked for.
fn own_end(shown: Option<Kind>, pod: &Pod) -> End {
    let as_pod = || Resource { namespace: pod.namespace.clone(), kind: Kind::Pod, name: pod.name.clone() };
    let of_kind = |kind: Kind| owners(kind, pod).into_iter().next();
    let workload = || pod.workload.as_ref().and_then(|workload| of_kind(Kind::parse(&workload.kind)?));
    let resource = match shown {
        Some(kind @ (Kind::Namespace | Kind::Pod)) => of_kind(kind),
        _ => workload(),
    };
    End::Resource(resource.unwrap_or_else(as_pod))
}

fn is_selected(selectors: &[Selector], namespace: Option<&str>, pod: &Pod, traffic: &Traffic, ends: [&End; 2]) -> bool {
    let here =
        |end: &&End| matches!(end, End::Resource(resource) if namespace.is_none_or(|it| it == resource.namespace));
    if !ends.iter().any(here) {
        return false;
    }
    let party = |selector: &Selector| Party { selector: selector.clone(), namespace: namespace.map(str::to_owned) };
    selectors.is_empty() || selectors.iter().map(party).any(|party| party.is(pod) || party.receives(traffic))
}

fn identities(report: &Report, traffic: &Traffic) -> (String, String) {
    if traffic.tls != label::MUTUAL {
        return Default::default();
    }
    (report.identity.clone(), traffic.peer_id.clone())
}

/// The protocols of a record. What its requests are says more than what its connections were taken for, so HTTP
/// connections count on their own only while no request has ended on them.
fn protocols(traffic: &Traffic) -> BTreeMap<&str, Volume> {
    let mut found = BTreeMap::<&str, Volume>::new();
    for ((protocol, _), count) in &traffic.requests {
        found.entry(protocol).or_default().requests += count;
    }
    let is_request = |protocol: &str| matches!(protocol, "http1" | "http2" | "grpc" | "unknown");
    let mut open_for_requests = 0;
    for (protocol, tcp) in traffic.tcp.iter().filter(|(_, tcp)| **tcp != Tcp::default()) {
        if !found.is_empty() && is_request(protocol) {
            open_for_requests += tcp.open;
        } else {
            found.entry(protocol).or_default().open += tcp.open;
        }
    }
    if let Some(first) = found.values_mut().next() {
        first.open += open_for_requests;
    }
    found
}

#[cfg(test)]
mod tests;
