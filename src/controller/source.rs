//! Where objects come from, and what of them the controller keeps.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use crate::model::{identity::SpiffeId, name::Workload, service::ProtocolHint};

pub(crate) mod dead;
pub(crate) mod file;
pub(crate) mod files;
pub(crate) mod kinds;

/// `NAMESPACE/NAME` of an object.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Name {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Key {
    Service(Name),
    Slice(Name),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Resource {
    Service(Service),
    Slice(Box<Slice>),
}

impl Resource {
    pub(crate) fn key(&self) -> Key {
        match self {
            Self::Service(service) => Key::Service(service.name.clone()),
            Self::Slice(slice) => Key::Slice(slice.name.clone()),
        }
    }
}

/// A step from one state of the cluster to the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Apply(Resource),
    Delete(Key),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Service {
    pub(crate) name: Name,
    pub(crate) cluster_ips: Vec<IpAddr>,
    pub(crate) ports: Vec<ServicePort>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServicePort {
    /// Empty for a Service's only port.
    pub(crate) name: String,
    pub(crate) port: u16,
    /// The application's port, where it is a number.
    pub(crate) target_port: Option<u16>,
    /// From the annotation, else `appProtocol`.
    pub(crate) protocol: ProtocolHint,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Slice {
    pub(crate) name: Name,
    /// The Service's name, by label.
    pub(crate) service: Option<String>,
    pub(crate) ports: Vec<SlicePort>,
    pub(crate) endpoints: Vec<Address>,
    /// Set on the slices of a local mesh: one instance each.
    pub(crate) identity: Option<SpiffeId>,
    pub(crate) workload: Option<Workload>,
    /// The private socket of the instance's proxy, relative to the source directory.
    pub(crate) socket: Option<PathBuf>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SlicePort {
    /// In a local mesh the application's port number.
    pub(crate) name: String,
    pub(crate) port: u16,
    pub(crate) protocol: ProtocolHint,
}

/// One endpoint address that is ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) ip: IpAddr,
    pub(crate) pod: Option<String>,
}

impl Slice {
    pub(crate) fn service_name(&self) -> Option<Name> {
        Some(Name { namespace: self.name.namespace.clone(), name: self.service.clone()? })
    }

    pub(crate) fn addresses(&self, port: u16) -> impl Iterator<Item = (SocketAddr, &Address)> {
        self.endpoints.iter().map(move |address| (SocketAddr::new(address.ip, port), address))
    }
}
