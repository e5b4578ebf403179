//! What a target is, from Services and EndpointSlices. Ports are matched as Kubernetes does, by name.

use std::collections::BTreeMap;

use super::{Asked, Index};
use crate::{
    api::inbound::{Inbound, Port},
    controller::source::{Name, Service, ServicePort, Slice, SlicePort},
    model::{
        endpoint::Endpoint,
        identity::SpiffeId,
        name,
        service::{ProtocolHint, Target, TargetKind},
    },
};

impl Index {
    pub(super) fn resolve(&self, asked: &Asked) -> Target {
        match asked {
            Asked::Service(port) => self.resolve_service(port),
            Asked::Address(address) => {
                let service = self.cluster_ips.get(&address.ip()).into_iter().flatten().find(|name| {
                    self.services.get(name).is_some_and(|s| s.ports.iter().any(|p| p.port == address.port()))
                });
                match service {
                    Some(name) => self.resolve_service(&service_port(name, address.port())),
                    None => self.resolve_pod(*address),
                }
            }
        }
    }

    fn resolve_service(&self, asked: &name::ServicePort) -> Target {
        let name = Name { namespace: asked.namespace.clone(), name: asked.name.clone() };
        let service = self.services.get(&name);
        let Some(port) = self.choose(&name, service, asked.port) else {
            let kind = TargetKind::Service(asked.clone());
            return Target { kind, protocol: ProtocolHint::Unknown, endpoints: Vec::new() };
        };
        let mut protocol = port.protocol;
        let mut endpoints: BTreeMap<_, Endpoint> = BTreeMap::new();
        for slice in self.slices_of(&name) {
            let Some(found) = slice_port(service, &port, slice) else { continue };
            if protocol == ProtocolHint::Unknown {
                protocol = found.protocol;
            }
            for (addr, address) in slice.addresses(found.port) {
                endpoints.insert(addr, endpoint(slice, addr, address.pod.clone()));
            }
        }
        let kind = TargetKind::Service(service_port(&name, port.port));
        Target { kind, protocol, endpoints: endpoints.into_values().collect() }
    }

    /// The Service's port, or the one that its slices imply where there is no Service.
    fn choose(&self, name: &Name, service: Option<&Service>, asked: u16) -> Option<ServicePort> {
        if let Some(service) = service {
            return service.ports.iter().find(|port| asked == 0 || port.port == asked).cloned();
        }
        let named = self.slices_of(name).flat_map(|slice| &slice.ports);
        let numbers = named.filter_map(|port| port.name.parse().ok());
        let port: u16 = numbers.filter(|port| asked == 0 || *port == asked).min()?;
        let protocol = ProtocolHint::Unknown;
        Some(ServicePort { name: port.to_string(), port, target_port: Some(port), protocol })
    }

    fn resolve_pod(&self, address: std::net::SocketAddr) -> Target {
        for slice in self.by_ip.get(&address.ip()).into_iter().flatten().filter_map(|name| self.slices.get(name)) {
            let Some(port) = slice.ports.iter().find(|port| port.port == address.port()) else { continue };
            let Some(found) = slice.endpoints.iter().find(|endpoint| endpoint.ip == address.ip()) else { continue };
            return Target {
                kind: TargetKind::Pod,
                protocol: self.protocol(slice, port),
                endpoints: vec![endpoint(slice, address, found.pod.clone())],
            };
        }
        Target { kind: TargetKind::Unknown, protocol: ProtocolHint::Unknown, endpoints: Vec::new() }
    }

    /// The Service's word goes before the slice's.
    fn protocol(&self, slice: &Slice, port: &SlicePort) -> ProtocolHint {
        let service = slice.service_name().and_then(|name| self.services.get(&name));
        let ports = service.map(|service| service.ports.as_slice()).unwrap_or_default();
        let named = ports.iter().find(|candidate| slice_port(service, candidate, slice) == Some(port));
        match named.map(|port| port.protocol) {
            None | Some(ProtocolHint::Unknown) => port.protocol,
            Some(protocol) => protocol,
        }
    }

    /// What the instances of one identity serve: the application's ports, where they are known by number.
    pub(super) fn resolve_inbound(&self, id: &SpiffeId) -> Inbound {
        let mut ports = BTreeMap::new();
        for slice in self.slices.values().filter(|slice| slice.identity.as_ref() == Some(id)) {
            for port in &slice.ports {
                if let Ok(number) = port.name.parse::<u16>() {
                    ports.insert(number, self.protocol(slice, port));
                }
            }
        }
        let ports = ports.into_iter().map(|(port, protocol)| Port { port, protocol }).collect();
        Inbound { ports, trust_anchors: self.trust_anchors.clone() }
    }
}

/// The slice's port that a Service's port stands for: of the same name; else of the application's port; else the only
/// one for the only one.
fn slice_port<'a>(service: Option<&Service>, port: &ServicePort, slice: &'a Slice) -> Option<&'a SlicePort> {
    let by_name = slice.ports.iter().find(|candidate| candidate.name == port.name);
    let by_number = || {
        slice
            .ports
            .iter()
            .find(|candidate| candidate.name.parse::<u16>().ok() == port.target_port && port.target_port.is_some())
    };
    let only = || match (service.map(|service| service.ports.len()), slice.ports.as_slice()) {
        (Some(1), [only]) => Some(only),
        _ => None,
    };
    by_name.or_else(by_number).or_else(only)
}

fn service_port(name: &Name, port: u16) -> name::ServicePort {
    name::ServicePort { namespace: name.namespace.clone(), name: name.name.clone(), port }
}

fn endpoint(slice: &Slice, addr: std::net::SocketAddr, pod: Option<String>) -> Endpoint {
    Endpoint { addr, identity: slice.identity.clone(), workload: slice.workload.clone(), pod }
}
