//! `GET /v1/outbound`: what one destination is, and how that changes.

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
};

use serde::{Deserialize, Serialize};

use crate::model::{endpoint::Endpoint, service::Target};

/// A line of the stream. The first is a snapshot; a snapshot may come again at any time and replaces everything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Event {
    Snapshot(Target),
    Delta(Delta),
    Ping(Ping),
}

/// Endpoints that went and came; an endpoint that changed is in `add` alone and replaces the one of its address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Delta {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) add: Vec<Endpoint>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) remove: Vec<SocketAddr>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ping {}

impl Delta {
    pub(crate) fn between(old: &[Endpoint], new: &[Endpoint]) -> Self {
        // By address: a Service of thousands of endpoints must not cost their square at each change.
        let before: HashMap<SocketAddr, &Endpoint> = old.iter().map(|e| (e.addr, e)).collect();
        let after: HashSet<SocketAddr> = new.iter().map(|e| e.addr).collect();
        let remove = old.iter().map(|e| e.addr).filter(|addr| !after.contains(addr)).collect();
        let add = new.iter().filter(|e| before.get(&e.addr) != Some(e)).cloned().collect();
        Self { add, remove }
    }

    pub(crate) fn apply(&self, endpoints: &mut Vec<Endpoint>) {
        let gone: HashSet<SocketAddr> = self.remove.iter().copied().collect();
        endpoints.retain(|e| !gone.contains(&e.addr));
        let mut places: HashMap<SocketAddr, usize> = endpoints.iter().enumerate().map(|(at, e)| (e.addr, at)).collect();
        for added in &self.add {
            match places.get(&added.addr).and_then(|at| endpoints.get_mut(*at)) {
                Some(known) => *known = added.clone(),
                None => {
                    places.insert(added.addr, endpoints.len());
                    endpoints.push(added.clone());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn endpoints() -> impl Strategy<Value = Vec<Endpoint>> {
        prop::collection::btree_map(1_u16..20, prop::option::of("[a-c]"), 0..12).prop_map(|found| {
            let endpoint = |(port, pod): (u16, Option<String>)| Endpoint {
                addr: SocketAddr::from(([10, 0, 0, 1], port)),
                identity: None,
                workload: None,
                pod,
            };
            found.into_iter().map(endpoint).collect()
        })
    }

    proptest! {
        #[test]
        fn a_delta_leads_from_one_to_the_other(old in endpoints(), new in endpoints()) {
            let delta = Delta::between(&old, &new);
            let mut there = old;
            delta.apply(&mut there);
            there.sort_by_key(|e| e.addr);
            prop_assert_eq!(there, new);
        }
    }
}
