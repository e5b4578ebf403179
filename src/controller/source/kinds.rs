//! The kinds the controller reads, and how: a Kubernetes object in, what we keep of it out.

use std::{
    collections::BTreeSet,
    path::{Component, PathBuf},
};

use k8s_openapi::{
    api::{
        core::v1::Service as KubeService,
        discovery::v1::{Endpoint as KubeEndpoint, EndpointSlice},
    },
    apimachinery::pkg::{apis::meta::v1::ObjectMeta, util::intstr::IntOrString},
};

use super::{Address, Name, Resource, Service, ServicePort, Slice, SlicePort};
use crate::{
    model::service::ProtocolHint,
    yaml::{Document, Error},
};

/// Ports whose protocols a server begins, or that carry no HTTP for certain: the ones Linkerd lists. A local mesh
/// detects instead.
const DEFAULT_OPAQUE: [u16; 8] = [25, 587, 3306, 4444, 5432, 6379, 9300, 11211];

const OPAQUE_PORTS: &str = "mesh.dev/opaque-ports";
const IDENTITY: &str = "mesh.dev/identity";
const WORKLOAD: &str = "mesh.dev/workload";
const SOCKET: &str = "mesh.dev/socket";

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Settings {
    /// Treat Linkerd's default opaque ports as opaque unless `appProtocol` says otherwise.
    pub(crate) default_opaque_ports: bool,
}

/// A document as a resource; `None` for kinds that are of no concern.
///
/// # Errors
/// When an object of a kind we read is not valid.
pub(crate) fn read(document: Document<'_>, settings: Settings) -> Result<Option<Resource>, Error> {
    match (document.head.api_version.as_str(), document.head.kind.as_str()) {
        ("v1", "Service") => {
            let at = document.error("");
            service(document.read()?, settings).map(|s| Some(Resource::Service(s))).map_err(|e| blame(at, e))
        }
        ("discovery.k8s.io/v1", "EndpointSlice") => {
            let at = document.error("");
            slice(document.read()?).map(|s| Some(Resource::Slice(s.into()))).map_err(|e| blame(at, e))
        }
        ("", _) | (_, "") => Err(document.error("no Kubernetes object: it needs `apiVersion` and `kind`")),
        (api_version, kind) => {
            tracing::debug!(api_version, kind, "kind not read");
            Ok(None)
        }
    }
}

fn blame(at: Error, message: String) -> Error {
    Error { message, ..at }
}

fn name(metadata: &ObjectMeta) -> Result<Name, String> {
    let name = metadata.name.clone().filter(|name| !name.is_empty()).ok_or("`metadata.name` is missing")?;
    Ok(Name { namespace: metadata.namespace.clone().unwrap_or_else(|| "default".into()), name })
}

fn annotation<'a>(metadata: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

fn number(port: i32, field: &str) -> Result<u16, String> {
    u16::try_from(port).ok().filter(|port| *port != 0).ok_or_else(|| format!("`{field}` {port} is not a port"))
}

fn service(object: KubeService, settings: Settings) -> Result<Service, String> {
    let opaque = opaque_ports(annotation(&object.metadata, OPAQUE_PORTS).unwrap_or_default())?;
    let spec = object.spec.unwrap_or_default();
    let mut ports = Vec::new();
    // UDP and SCTP are not ours.
    for port in spec.ports.unwrap_or_default().into_iter().filter(|p| is_tcp(p.protocol.as_deref())) {
        let number = number(port.port, "spec.ports[].port")?;
        let protocol = match port.app_protocol.as_deref() {
            _ if opaque.contains(&number) => ProtocolHint::Opaque,
            Some(protocol) => ProtocolHint::from_app_protocol(protocol),
            None if settings.default_opaque_ports && DEFAULT_OPAQUE.contains(&number) => ProtocolHint::Opaque,
            None => ProtocolHint::Unknown,
        };
        let target_port = match port.target_port {
            Some(IntOrString::Int(target)) => u16::try_from(target).ok(),
            Some(IntOrString::String(_)) => None,
            None => Some(number),
        };
        ports.push(ServicePort { name: port.name.unwrap_or_default(), port: number, target_port, protocol });
    }
    let mut cluster_ips: BTreeSet<_> = spec.cluster_ips.unwrap_or_default().into_iter().collect();
    cluster_ips.extend(spec.cluster_ip);
    // "None" is a headless Service.
    let cluster_ips = cluster_ips.iter().filter_map(|ip| ip.parse().ok()).collect();
    Ok(Service { name: name(&object.metadata)?, cluster_ips, ports })
}

fn slice(object: EndpointSlice) -> Result<Slice, String> {
    let mut ports = Vec::new();
    for port in object.ports.unwrap_or_default().into_iter().filter(|p| is_tcp(p.protocol.as_deref())) {
        ports.push(SlicePort {
            name: port.name.unwrap_or_default(),
            port: number(port.port.ok_or("`ports[].port` is missing")?, "ports[].port")?,
            protocol: port.app_protocol.as_deref().map(ProtocolHint::from_app_protocol).unwrap_or_default(),
        });
    }
    let identity = match annotation(&object.metadata, IDENTITY) {
        Some(text) => Some(text.parse().map_err(|e| format!("annotation {IDENTITY}: {e}"))?),
        None => None,
    };
    let workload = match annotation(&object.metadata, WORKLOAD) {
        Some(text) => Some(text.parse().map_err(|e| format!("annotation {WORKLOAD}: {e}"))?),
        None => None,
    };
    let socket = annotation(&object.metadata, SOCKET).map(PathBuf::from);
    if socket.as_ref().is_some_and(|path| !path.components().all(|c| matches!(c, Component::Normal(_)))) {
        return Err(format!("annotation {SOCKET}: expected a path within the source directory"));
    }
    Ok(Slice {
        name: name(&object.metadata)?,
        service: object.metadata.labels.as_ref().and_then(|l| l.get("kubernetes.io/service-name")).cloned(),
        ports,
        endpoints: endpoints(object.endpoints, &object.address_type)?,
        identity,
        workload,
        socket,
    })
}

fn endpoints(listed: Vec<KubeEndpoint>, address_type: &str) -> Result<Vec<Address>, String> {
    let mut addresses = Vec::new();
    if address_type == "FQDN" {
        return Ok(addresses);
    }
    for endpoint in listed {
        // Absent means ready, as in Kubernetes.
        if endpoint.conditions.and_then(|conditions| conditions.ready) == Some(false) {
            continue;
        }
        let pod = endpoint.target_ref.filter(|object| object.kind.as_deref() == Some("Pod")).and_then(|pod| pod.name);
        for text in &endpoint.addresses {
            let ip = text.parse().map_err(|_| format!("`endpoints[].addresses`: `{text}` is not an address"))?;
            addresses.push(Address { ip, pod: pod.clone() });
        }
    }
    Ok(addresses)
}

fn is_tcp(protocol: Option<&str>) -> bool {
    protocol.is_none_or(|protocol| protocol == "TCP")
}

/// `25,3306,9000-9010`.
fn opaque_ports(text: &str) -> Result<BTreeSet<u16>, String> {
    let mut ports = BTreeSet::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        match (first.trim().parse::<u16>(), last.trim().parse::<u16>()) {
            (Ok(first), Ok(last)) if first <= last => ports.extend(first..=last),
            _ => return Err(format!("annotation {OPAQUE_PORTS}: `{part}` is not a port or a range of ports")),
        }
    }
    Ok(ports)
}

#[cfg(test)]
mod tests;
