//! One running copy of an application: what the person said of it, and what follows from that (pure).

use std::{
    cell::RefCell,
    ffi::OsString,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    str::FromStr,
};

use rand::{Rng, RngExt};

use super::{
    layout,
    layout::Layout,
    ports::{self, Reserved},
};
use crate::model::{
    identity::SpiffeId,
    name::{self, ServicePort, Workload},
};

#[cfg(test)]
mod tests;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("`{0}` is not a port: expected PORT or PORT/PROTOCOL, PROTOCOL one of http, http2, grpc, opaque, tls")]
    Port(String),
    #[error("`{0}` is not an upstream: expected [NAMESPACE/]SERVICE[:PORT]=LOCAL-PORT")]
    Upstream(String),
    #[error("`{0}` is not a workload: expected KIND/NAME")]
    Workload(String),
    #[error("`{0}` is too long: the pod's name adds 6 characters, and 63 is the most")]
    Long(String),
    #[error("nothing to mesh: neither --port nor --upstream is given")]
    Nothing,
    #[error(transparent)]
    Name(#[from] name::Error),
}

/// What the application speaks, where it is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http,
    Http2,
    Grpc,
    Opaque,
    Tls,
}

/// Flag value and `appProtocol` of each protocol.
const PROTOCOLS: [(Protocol, &str, &str); 5] = [
    (Protocol::Http, "http", "http"),
    (Protocol::Http2, "http2", "kubernetes.io/h2c"),
    (Protocol::Grpc, "grpc", "grpc"),
    (Protocol::Opaque, "opaque", "tcp"),
    (Protocol::Tls, "tls", "https"),
];

impl Protocol {
    pub(crate) fn app_protocol(self) -> &'static str {
        PROTOCOLS.iter().find(|(protocol, ..)| *protocol == self).map_or("tcp", |(_, _, app)| app)
    }

    fn flag(self) -> &'static str {
        PROTOCOLS.iter().find(|(protocol, ..)| *protocol == self).map_or("opaque", |(_, flag, _)| flag)
    }
}

/// The application's port; 0 until one is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Port {
    pub(crate) number: u16,
    pub(crate) protocol: Option<Protocol>,
}

impl FromStr for Port {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let bad = || Error::Port(text.to_owned());
        let (number, protocol) = match text.split_once('/') {
            None => (text, None),
            Some((number, flag)) => {
                let known = PROTOCOLS.iter().find(|(_, name, _)| *name == flag).ok_or_else(bad)?;
                (number, Some(known.0))
            }
        };
        Ok(Self { number: number.parse().map_err(|_| bad())?, protocol })
    }
}

/// A Service that the application calls, at a port of its own on the loopback; 0 until one is chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Upstream {
    /// As written: the namespace may be left out.
    pub(crate) target: String,
    pub(crate) local_port: u16,
}

impl FromStr for Upstream {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let bad = || Error::Upstream(text.to_owned());
        let (target, port) = text.split_once('=').unwrap_or((text, "0"));
        ServicePort::parse_in(target, "default").map_err(|_| bad())?;
        Ok(Self { target: target.to_owned(), local_port: port.parse().map_err(|_| bad())? })
    }
}

/// What the person said.
#[derive(Clone, Debug)]
pub(crate) struct Instance {
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) service: String,
    pub(crate) service_account: String,
    /// `KIND/NAME`.
    pub(crate) workload: String,
    /// `None`: it only calls others.
    pub(crate) port: Option<Port>,
    /// The port its Service is known by; `None`: the application's, or 80 where that was left to us.
    pub(crate) service_port: Option<u16>,
    pub(crate) upstreams: Vec<Upstream>,
    /// A token made elsewhere; `None`: asked of the controller.
    pub(crate) token: Option<String>,
    /// The proxy's worker threads; `None`: its own default.
    pub(crate) workers: Option<u16>,
    pub(crate) command: Vec<OsString>,
}

/// An instance with everything chosen that was left open. It stays so through all restarts of its parts.
#[derive(Debug)]
pub(crate) struct Placed {
    pub(crate) instance: Instance,
    pub(crate) pod: String,
    pub(crate) workload: Workload,
    pub(crate) identity: SpiffeId,
    pub(crate) inbound: Option<Inbound>,
    pub(crate) upstreams: Vec<(ServicePort, u16)>,
    pub(super) reserved: Reservations,
}

/// Ports that are kept from others.
#[derive(Debug, Default)]
pub(super) struct Reservations {
    /// Until the application starts: it might not be able to share its port.
    pub(super) app: RefCell<Option<Reserved>>,
    /// As long as the instance, through all restarts of the proxy.
    pub(super) _proxy: Vec<Reserved>,
}

/// The way in: others dial the proxy, the proxy dials the application.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Inbound {
    pub(crate) app_port: u16,
    pub(crate) proxy_port: u16,
    pub(crate) service_port: u16,
    pub(crate) protocol: Option<Protocol>,
}

impl Instance {
    /// An instance with the defaults of `mesh run`: everything is called after its name.
    pub(crate) fn new(name: &str, namespace: &str) -> Self {
        Self {
            name: name.to_owned(),
            namespace: namespace.to_owned(),
            service: name.to_owned(),
            service_account: name.to_owned(),
            workload: format!("deploy/{name}"),
            port: None,
            service_port: None,
            upstreams: Vec::new(),
            token: None,
            workers: None,
            command: Vec::new(),
        }
    }

    pub(crate) fn check(&self) -> Result<Workload, Error> {
        for text in [&self.name, &self.namespace, &self.service, &self.service_account] {
            name::label(text)?;
        }
        if self.name.len() > 63 - POD_SUFFIX {
            return Err(Error::Long(self.name.clone()));
        }
        if self.port.is_none() && self.upstreams.is_empty() {
            return Err(Error::Nothing);
        }
        let bad = |_| Error::Workload(self.workload.clone());
        format!("{}/{}", self.namespace, self.workload).parse().map_err(bad)
    }

    /// Chooses the pod's name and the free ports.
    pub(super) fn place(self, layout: &Layout) -> Result<Placed, layout::Error> {
        let mut rng = rand::rng();
        let workload = self.check()?;
        let pod = pod_name(&self.name, &mut rng);
        let identity = SpiffeId::new(&layout.trust_domain()?, &self.namespace, &self.service_account);
        let reserved = Reservations::default();
        let mut reserve = |port: u16| {
            let reserved = if port == 0 { ports::any(&mut rng) } else { ports::exactly(port) };
            reserved.map_err(|source| layout::Error::Port { port, source })
        };
        let mut kept = Vec::new();
        let mut keep = |port: Reserved| {
            kept.push(port);
            kept[kept.len() - 1].port
        };
        let inbound = match self.port {
            Some(port) => {
                let app_port = match port.number {
                    0 => {
                        let chosen = reserve(0)?;
                        let number = chosen.port;
                        reserved.app.replace(Some(chosen));
                        number
                    }
                    // The person's to keep; an application may be there already.
                    number => number,
                };
                Some(Inbound {
                    app_port,
                    proxy_port: keep(reserve(0)?),
                    service_port: self.service_port.unwrap_or(if port.number == 0 { 80 } else { port.number }),
                    protocol: port.protocol,
                })
            }
            None => None,
        };
        let mut upstreams = Vec::new();
        for upstream in &self.upstreams {
            let target = ServicePort::parse_in(&upstream.target, &self.namespace).map_err(Error::from)?;
            upstreams.push((target, keep(reserve(upstream.local_port)?)));
        }
        let reserved = Reservations { _proxy: kept, ..reserved };
        Ok(Placed { pod, workload, identity, inbound, upstreams, reserved, instance: self })
    }
}

impl Placed {
    /// The proxy's command line. It holds no secret: the token goes by the environment.
    pub(super) fn proxy_args(&self, socket: &Path, controller: &Path) -> Vec<OsString> {
        let mut args: Vec<OsString> = vec!["proxy".into()];
        let mut flag = |name: &str, value: OsString| args.extend([name.into(), value]);
        flag("--namespace", self.instance.namespace.clone().into());
        flag("--workload", self.instance.workload.clone().into());
        flag("--pod", self.pod.clone().into());
        flag("--service-account", self.instance.service_account.clone().into());
        if let Some(Inbound { app_port, proxy_port, protocol, .. }) = self.inbound {
            let protocol = protocol.map(|protocol| format!("/{}", protocol.flag())).unwrap_or_default();
            flag("--inbound", format!("{}={}{protocol}", loopback(proxy_port), loopback(app_port)).into());
        }
        for (target, port) in &self.upstreams {
            flag("--upstream", format!("{target}={}", loopback(*port)).into());
        }
        flag("--admin", loopback(0).to_string().into());
        let mut private = OsString::from("unix:");
        private.push(socket);
        flag("--private-admin", private);
        // A controller that comes back is at another port; its file says where.
        flag("--controller-file", controller.as_os_str().to_owned());
        if let Some(workers) = self.instance.workers {
            flag("--workers", workers.to_string().into());
        }
        args.push("--exit-with-parent".into());
        args
    }

    /// What the application finds in its environment.
    pub(super) fn environment(&self) -> Vec<(String, String)> {
        let port = self.inbound.map(|inbound| ("PORT".to_owned(), inbound.app_port.to_string()));
        let address = |(target, port): &(ServicePort, u16)| {
            let name = target.name.to_ascii_uppercase().replace('-', "_");
            (format!("{name}_ADDR"), loopback(*port).to_string())
        };
        let upstreams = self.upstreams.iter().map(address);
        port.into_iter().chain(upstreams).chain([("MESH_POD".to_owned(), self.pod.clone())]).collect()
    }
}

pub(super) fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

fn pod_name(name: &str, rng: &mut impl Rng) -> String {
    format!("{name}-{:05x}", rng.random_range(0..0x10_0000_u32))
}

/// `-` and five digits.
const POD_SUFFIX: usize = 6;
