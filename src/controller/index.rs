//! Everything the controller knows, and for each target that somebody watches what it is right now.
//!
//! Pure and synchronous: changes in, [`Published`] values out by `watch`. Only targets that a change touches are computed
//! anew, once for a whole batch of changes.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use tokio::sync::watch;

use super::source::{Change, Key, Name, Resource, Service, Slice};
use crate::{
    api::{inbound::Inbound, outbound},
    model::{identity::SpiffeId, name::ServicePort, service::Target},
};

pub(crate) mod published;
mod resolve;

pub(crate) use published::Published;

/// What a proxy asks for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Asked {
    Service(ServicePort),
    Address(SocketAddr),
}

impl Asked {
    /// Reads `NS/SERVICE:PORT`, `NS/SERVICE` or `IP:PORT`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text.parse() {
            Ok(address) => Some(Self::Address(address)),
            Err(_) if text.contains('/') => text.parse().ok().map(Self::Service),
            Err(_) => None,
        }
    }
}

pub(crate) type TargetWatch = watch::Receiver<Arc<Published<Target>>>;
pub(crate) type InboundWatch = watch::Receiver<Arc<Published<Inbound>>>;

#[derive(Default)]
pub(crate) struct Index {
    services: BTreeMap<Name, Service>,
    slices: BTreeMap<Name, Slice>,
    slices_of: BTreeMap<Name, BTreeSet<Name>>,
    /// By address: an address may come from several slices for a moment, while a pod is replaced.
    by_ip: HashMap<IpAddr, BTreeSet<Name>>,
    cluster_ips: HashMap<IpAddr, BTreeSet<Name>>,
    trust_anchors: String,
    targets: HashMap<Asked, watch::Sender<Arc<Published<Target>>>>,
    inbounds: HashMap<SpiffeId, watch::Sender<Arc<Published<Inbound>>>>,
}

/// What a batch of changes may have changed.
#[derive(Default)]
struct Touched {
    services: HashSet<Name>,
    ips: HashSet<IpAddr>,
    namespaces: HashSet<String>,
}

impl Index {
    pub(crate) fn new(trust_anchors: String) -> Self {
        Self { trust_anchors, ..Self::default() }
    }

    pub(crate) fn services(&self) -> usize {
        self.services.len()
    }

    pub(crate) fn slices(&self) -> usize {
        self.slices.len()
    }

    /// Applies a batch and publishes what follows from it.
    pub(crate) fn update(&mut self, changes: impl IntoIterator<Item = Change>) {
        let mut touched = Touched::default();
        for change in changes {
            let (key, resource) = match change {
                Change::Apply(resource) => (resource.key(), Some(resource)),
                Change::Delete(key) => (key, None),
            };
            self.take(&key, &mut touched);
            match resource {
                Some(Resource::Service(service)) => self.put_service(service, &mut touched),
                Some(Resource::Slice(slice)) => self.put_slice(*slice, &mut touched),
                None => {}
            }
        }
        self.publish(&touched);
    }

    /// The state as a whole: what is not in it is gone. For sources that list anew; files never do.
    #[cfg(test)]
    pub(crate) fn reset(&mut self, resources: Vec<Resource>) {
        let kept: HashSet<Key> = resources.iter().map(Resource::key).collect();
        let known = self.services.keys().cloned().map(Key::Service).chain(self.slices.keys().cloned().map(Key::Slice));
        let gone: Vec<Change> = known.filter(|key| !kept.contains(key)).map(Change::Delete).collect();
        self.update(gone.into_iter().chain(resources.into_iter().map(Change::Apply)));
    }

    pub(crate) fn set_trust_anchors(&mut self, pem: String) {
        if self.trust_anchors != pem {
            self.trust_anchors = pem;
            self.publish_inbounds(|_| true);
        }
    }

    /// Watches a target; unknown ones too, since they may come to be.
    pub(crate) fn watch(&mut self, asked: Asked) -> TargetWatch {
        self.forget_unwatched();
        if let Some(known) = self.targets.get(&asked) {
            return known.subscribe();
        }
        let (sender, receiver) = watch::channel(Arc::new(Published::first(self.resolve(&asked))));
        self.targets.insert(asked, sender);
        receiver
    }

    /// Watches what the workloads of one identity serve.
    pub(crate) fn watch_inbound(&mut self, id: &SpiffeId) -> InboundWatch {
        if let Some(known) = self.inbounds.get(id) {
            return known.subscribe();
        }
        let (sender, receiver) = watch::channel(Arc::new(Published::first(self.resolve_inbound(id))));
        self.inbounds.insert(id.clone(), sender);
        receiver
    }

    fn forget_unwatched(&mut self) {
        // Amortised: only when the map has grown well beyond what is watched.
        if self.targets.len() >= self.targets.capacity() {
            self.targets.retain(|_, sender| sender.receiver_count() > 0);
            self.inbounds.retain(|_, sender| sender.receiver_count() > 0);
        }
    }

    fn take(&mut self, key: &Key, touched: &mut Touched) {
        match key {
            Key::Service(name) => {
                if let Some(old) = self.services.remove(name) {
                    self.touch_service(&old, touched);
                    for ip in &old.cluster_ips {
                        remove(&mut self.cluster_ips, ip, name);
                    }
                }
            }
            Key::Slice(name) => {
                if let Some(old) = self.slices.remove(name) {
                    self.touch_slice(&old, touched);
                    for address in &old.endpoints {
                        remove(&mut self.by_ip, &address.ip, name);
                    }
                    if let Some(service) = old.service_name()
                        && let Some(slices) = self.slices_of.get_mut(&service)
                    {
                        slices.remove(name);
                        if slices.is_empty() {
                            self.slices_of.remove(&service);
                        }
                    }
                }
            }
        }
    }

    fn put_service(&mut self, service: Service, touched: &mut Touched) {
        self.touch_service(&service, touched);
        for ip in &service.cluster_ips {
            self.cluster_ips.entry(*ip).or_default().insert(service.name.clone());
        }
        self.services.insert(service.name.clone(), service);
    }

    fn put_slice(&mut self, slice: Slice, touched: &mut Touched) {
        self.touch_slice(&slice, touched);
        for address in &slice.endpoints {
            self.by_ip.entry(address.ip).or_default().insert(slice.name.clone());
        }
        if let Some(service) = slice.service_name() {
            self.slices_of.entry(service).or_default().insert(slice.name.clone());
        }
        self.slices.insert(slice.name.clone(), slice);
    }

    fn touch_service(&self, service: &Service, touched: &mut Touched) {
        touched.services.insert(service.name.clone());
        touched.namespaces.insert(service.name.namespace.clone());
        touched.ips.extend(&service.cluster_ips);
        // A pod's protocol may come from its Service.
        let addresses = self.slices_of(&service.name).flat_map(|slice| &slice.endpoints);
        touched.ips.extend(addresses.map(|address| address.ip));
    }

    fn touch_slice(&self, slice: &Slice, touched: &mut Touched) {
        touched.namespaces.insert(slice.name.namespace.clone());
        touched.ips.extend(slice.endpoints.iter().map(|address| address.ip));
        if let Some(name) = slice.service_name() {
            if let Some(service) = self.services.get(&name) {
                touched.ips.extend(&service.cluster_ips);
            }
            touched.services.insert(name);
        }
    }

    fn publish(&mut self, touched: &Touched) {
        self.targets.retain(|_, sender| sender.receiver_count() > 0);
        for (asked, sender) in &self.targets {
            let affected = match asked {
                Asked::Service(port) => {
                    let name = Name { namespace: port.namespace.clone(), name: port.name.clone() };
                    touched.services.contains(&name)
                }
                Asked::Address(address) => touched.ips.contains(&address.ip()),
            };
            if affected {
                let target = self.resolve(asked);
                sender.send_if_modified(|published| published::advance(published, target, difference));
            }
        }
        self.publish_inbounds(|id| touched.namespaces.contains(&id.namespace));
    }

    fn publish_inbounds(&mut self, affected: impl Fn(&SpiffeId) -> bool) {
        self.inbounds.retain(|_, sender| sender.receiver_count() > 0);
        for (id, sender) in self.inbounds.iter().filter(|(id, _)| affected(id)) {
            let inbound = self.resolve_inbound(id);
            sender.send_if_modified(|published| published::advance(published, inbound, |_, _| None));
        }
    }

    fn slices_of(&self, service: &Name) -> impl Iterator<Item = &Slice> {
        let names = self.slices_of.get(service).into_iter().flatten();
        names.filter_map(|name| self.slices.get(name))
    }
}

/// A delta only says what endpoints did; any other change is a new snapshot.
fn difference(old: &Target, new: &Target) -> Option<outbound::Event> {
    let same = old.kind == new.kind && old.protocol == new.protocol;
    same.then(|| outbound::Event::Delta(outbound::Delta::between(&old.endpoints, &new.endpoints)))
}

fn remove(map: &mut HashMap<IpAddr, BTreeSet<Name>>, ip: &IpAddr, name: &Name) {
    if let Some(names) = map.get_mut(ip) {
        names.remove(name);
        if names.is_empty() {
            map.remove(ip);
        }
    }
}

#[cfg(test)]
mod tests;
