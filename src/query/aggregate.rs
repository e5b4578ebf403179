//! From a [`View`] to rows: which records answer a question, and whose row they belong to.
//!
//! | asked | records | row |
//! |---|---|---|
//! | a workload kind, `po`, `ns` | inbound ones of its own pods | the pod's |
//! | … `--to X` | outbound ones of its own pods whose peer (`svc`: target) is X | the pod's |
//! | … `--from X` | outbound ones of X's pods | the peer's |
//! | `po --from X` | inbound ones of its own pods whose peer is X: outbound records name no pod | the pod's |
//! | `svc`, `svc --from X` | outbound ones of all pods, of X's | the target's |
//!
//! Latency is over all requests of the row, failed ones too.

use std::{collections::BTreeMap, time::Duration};

use super::{
    View,
    decode::{Report, Tcp, Traffic},
    pods::Pod,
    quantile::{Buckets, quantile},
    select::{Kind, Resource, Selector},
    window::Covered,
};
use crate::model::{
    class::Class,
    name::{ServicePort, Workload},
};

/// What is asked. A namespace that is not given is any.
#[derive(Clone, Debug, Default)]
pub(crate) struct Question {
    pub(crate) selectors: Vec<Selector>,
    pub(crate) namespace: Option<String>,
    pub(crate) to: Option<Party>,
    pub(crate) from: Option<Party>,
}

/// The other side of the traffic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Party {
    pub(crate) selector: Selector,
    pub(crate) namespace: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    #[error("--to does not apply to svc: its rows are the traffic towards it already")]
    ServiceTo,
    #[error("--to cannot name a pod: what goes out is known by workload and service")]
    ToPod,
}

/// One line of `stat`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Row {
    pub(crate) resource: Resource,
    /// Pods whose proxy answered, of all there are.
    pub(crate) meshed: usize,
    pub(crate) pods: usize,
    pub(crate) totals: Totals,
    pub(crate) covered: Covered,
}

/// Traffic added up.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Totals {
    pub(crate) success: u64,
    pub(crate) failure: u64,
    pub(crate) buckets: Buckets,
    pub(crate) tcp: Tcp,
}

impl Totals {
    fn add(&mut self, traffic: &Traffic) {
        for ((_, class), count) in &traffic.requests {
            match class {
                Class::Success => self.success += count,
                Class::Failure => self.failure += count,
            }
        }
        for (bucket, count) in &traffic.buckets {
            *self.buckets.entry(*bucket).or_default() += count;
        }
        for tcp in traffic.tcp.values() {
            self.tcp.open += tcp.open;
            self.tcp.opened += tcp.opened;
            self.tcp.read += tcp.read;
            self.tcp.written += tcp.written;
        }
    }

    pub(crate) fn requests(&self) -> u64 {
        self.success + self.failure
    }

    /// The share of requests that succeeded; `None` without requests.
    pub(crate) fn success_rate(&self) -> Option<f64> {
        (self.requests() > 0).then(|| self.success as f64 / self.requests() as f64)
    }

    pub(crate) fn latency(&self, q: f64) -> Option<Duration> {
        quantile(&self.buckets, q)
    }

    pub(crate) fn has_traffic(&self) -> bool {
        self.requests() > 0 || self.tcp != Tcp::default()
    }
}

/// Answers a question.
///
/// # Errors
/// A combination that means nothing.
pub(crate) fn rows(view: &View, question: &Question) -> Result<Vec<Row>, Error> {
    if question.to.as_ref().is_some_and(|to| to.selector.kind == Kind::Pod) {
        return Err(Error::ToPod);
    }
    let mut rows = BTreeMap::<Resource, Row>::new();
    for selector in &question.selectors {
        if selector.kind == Kind::Service && question.to.is_some() {
            return Err(Error::ServiceTo);
        }
        let mut table = Table { selector, namespace: question.namespace.as_deref(), rows: BTreeMap::new() };
        table.list_pods(view);
        for (pod, report) in view.pods.iter().filter_map(|(pod, report)| Some((pod, report.as_ref()?))) {
            table.count(pod, report, question);
        }
        rows.extend(table.rows);
    }
    Ok(rows.into_values().collect())
}

/// The rows of one selector.
struct Table<'a> {
    selector: &'a Selector,
    namespace: Option<&'a str>,
    rows: BTreeMap<Resource, Row>,
}

impl Table<'_> {
    fn list_pods(&mut self, view: &View) {
        for (pod, report) in &view.pods {
            for resource in owners(self.selector.kind, pod) {
                if let Some(row) = self.row(resource) {
                    row.pods += 1;
                    row.meshed += usize::from(report.is_some());
                }
            }
        }
    }

    fn count(&mut self, pod: &Pod, report: &Report, question: &Question) {
        let kind = self.selector.kind;
        let from = question.from.as_ref();
        let to = question.to.as_ref();
        if kind == Kind::Service || (from.is_some() && kind != Kind::Pod) {
            if from.is_none_or(|from| from.is(pod)) {
                self.count_outbound_by_peer(report, to);
            }
            return;
        }
        let counts = |traffic: &&Traffic| match (to, from) {
            (Some(to), _) => !traffic.is_inbound && to.receives(traffic),
            (None, Some(from)) => traffic.is_inbound && from.sends(traffic),
            (None, None) => traffic.is_inbound,
        };
        for resource in owners(kind, pod) {
            if let Some(row) = self.row(resource) {
                row.covered.include(report.covered);
                report.traffic.iter().filter(counts).for_each(|traffic| row.totals.add(traffic));
            }
        }
    }

    fn count_outbound_by_peer(&mut self, report: &Report, to: Option<&Party>) {
        // Any of the clients could have called any of the rows: the longest time that one of them was there counts.
        self.rows.values_mut().for_each(|row| row.covered.include(report.covered));
        let outbound = report.traffic.iter().filter(|traffic| !traffic.is_inbound);
        for traffic in outbound.filter(|traffic| to.is_none_or(|to| to.receives(traffic))) {
            if let Some(row) = receiver(self.selector.kind, traffic).and_then(|resource| self.row(resource)) {
                row.covered.include(report.covered);
                row.totals.add(traffic);
            }
        }
    }

    /// The row of a resource, if it was asked for.
    fn row(&mut self, resource: Resource) -> Option<&mut Row> {
        let in_namespace = self.namespace.is_none_or(|namespace| namespace == resource.namespace);
        (in_namespace && self.selector.selects(&resource)).then(|| {
            let fresh = |resource: &Resource| Row {
                resource: resource.clone(),
                meshed: 0,
                pods: 0,
                totals: Totals::default(),
                covered: Covered::default(),
            };
            self.rows.entry(resource).or_insert_with_key(fresh)
        })
    }
}

impl Party {
    /// Whether a pod belongs to this party.
    pub(crate) fn is(&self, pod: &Pod) -> bool {
        owners(self.selector.kind, pod).iter().any(|resource| self.matches(resource))
    }

    /// Whether outbound traffic goes to this party.
    pub(crate) fn receives(&self, traffic: &Traffic) -> bool {
        receiver(self.selector.kind, traffic).is_some_and(|resource| self.matches(&resource))
    }

    /// Whether inbound traffic comes from this party.
    fn sends(&self, traffic: &Traffic) -> bool {
        let peer = traffic.peer.as_ref().and_then(|peer| of_workload(self.selector.kind, peer));
        peer.is_some_and(|resource| self.matches(&resource))
    }

    fn matches(&self, resource: &Resource) -> bool {
        self.selector.selects(resource) && self.namespace.as_ref().is_none_or(|it| *it == resource.namespace)
    }
}

/// The resources of a kind that a pod belongs to.
pub(crate) fn owners(kind: Kind, pod: &Pod) -> Vec<Resource> {
    let named = |name: &String| Resource { namespace: pod.namespace.clone(), kind, name: name.clone() };
    match kind {
        Kind::Pod => vec![named(&pod.name)],
        Kind::Service => pod.services.iter().map(named).collect(),
        kind => pod.workload.iter().filter_map(|workload| of_workload(kind, workload)).collect(),
    }
}

/// The resource of a kind that outbound traffic goes to.
pub(crate) fn receiver(kind: Kind, traffic: &Traffic) -> Option<Resource> {
    let service = || traffic.target.contains('/').then(|| traffic.target.parse::<ServicePort>().ok()).flatten();
    match (kind, &traffic.peer) {
        (Kind::Service, _) => service().map(|it| Resource { namespace: it.namespace, kind, name: it.name }),
        (Kind::Namespace, None) => service().map(|it| namespace(&it.namespace)),
        (kind, peer) => peer.as_ref().and_then(|peer| of_workload(kind, peer)),
    }
}

fn of_workload(kind: Kind, workload: &Workload) -> Option<Resource> {
    match kind {
        Kind::Namespace => Some(namespace(&workload.namespace)),
        kind if Kind::parse(&workload.kind) == Some(kind) => {
            Some(Resource { namespace: workload.namespace.clone(), kind, name: workload.name.clone() })
        }
        _ => None,
    }
}

/// A namespace stands in no other; it is its own, so that `-n` selects it.
fn namespace(name: &str) -> Resource {
    Resource { namespace: name.to_owned(), kind: Kind::Namespace, name: name.to_owned() }
}

#[cfg(test)]
pub(crate) mod tests;
