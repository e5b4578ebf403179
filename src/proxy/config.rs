//! What the flags mean: checked once, all mistakes reported together, and then the only thing the rest sees.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use super::{admin::Address, args::Args, identity};
use crate::{
    model::{
        name::{self, ServicePort},
        service::ProtocolHint,
    },
    rt,
};

#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) namespace: String,
    /// `KIND/NAME`.
    pub(crate) workload: String,
    pub(crate) pod: String,
    pub(crate) identity: identity::Config,
    pub(crate) inbound: Vec<Inbound>,
    pub(crate) upstreams: Vec<Upstream>,
    pub(crate) inbound_redirect: Option<SocketAddr>,
    pub(crate) outbound_redirect: Option<SocketAddr>,
    pub(crate) admin: SocketAddr,
    pub(crate) private_admin: Option<Address>,
    pub(crate) admin_changes: bool,
    pub(crate) workers: usize,
    /// For the whole process: a shared count, touched when a connection opens and closes.
    pub(crate) max_connections: usize,
    pub(crate) http: HttpLimits,
    pub(crate) tcp_idle_timeout: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) discovery_timeout: Duration,
    pub(crate) detect_wait: Duration,
    pub(crate) drain_deadline: Duration,
    pub(crate) exit_with_parent: bool,
}

/// Limits of one HTTP connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HttpLimits {
    pub(crate) max_headers: usize,
    pub(crate) max_header_bytes: usize,
    pub(crate) max_streams: u32,
    pub(crate) header_timeout: Duration,
    pub(crate) request_body_timeout: Duration,
    pub(crate) idle_timeout: Duration,
}

impl HttpLimits {
    /// hyper parses this many headers on the stack, as long as it is not told of a limit; any other number costs it an
    /// allocation a message.
    pub(crate) const FREE_HEADERS: usize = 100;

    /// The limit to tell hyper of, if any.
    pub(crate) fn told_headers(&self) -> Option<usize> {
        (self.max_headers != Self::FREE_HEADERS).then_some(self.max_headers)
    }
}

/// An explicit inbound listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Inbound {
    pub(crate) listen: SocketAddr,
    pub(crate) app: SocketAddr,
    pub(crate) protocol: ProtocolHint,
}

/// An explicit outbound listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Upstream {
    pub(crate) target: ServicePort,
    pub(crate) listen: SocketAddr,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(
        "--inbound {0}: expected [LISTEN=]APP[/PROTOCOL], addresses as IP:PORT, PROTOCOL one of http, http2, grpc, tls, opaque"
    )]
    Inbound(String),
    #[error("--upstream {0}: expected NS/SERVICE[:PORT]=IP:PORT")]
    Upstream(String),
    #[error("--upstream {0}")]
    Target(String, #[source] name::Error),
    #[error("--workload {0}: expected KIND/NAME")]
    Workload(String),
    #[error("--private-admin {0}: expected unix:PATH or a loopback address (it has no other protection)")]
    PrivateAdmin(String),
    #[error(transparent)]
    Identity(#[from] identity::args::Error),
}

/// Every mistake at once.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.iter().map(crate::proxy::config::explain).collect::<Vec<_>>().join("\n       "))]
pub(crate) struct Errors(pub(crate) Vec<Error>);

fn explain(error: &Error) -> String {
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
    format!("{error}{cause}")
}

impl Config {
    /// # Errors
    /// All that is wrong with the arguments.
    pub(crate) fn new(args: Args) -> Result<Self, Errors> {
        let Args { workload, identity, listen, limits, exit_with_parent } = args;
        let mut wrong = Vec::new();
        if !matches!(workload.workload.split_once('/'), Some((kind, name)) if !kind.is_empty() && !name.is_empty()) {
            wrong.push(Error::Workload(workload.workload.clone()));
        }
        let inbound = collect(&listen.inbound, &mut wrong, parse_inbound);
        let upstreams = collect(&listen.upstream, &mut wrong, |text| parse_upstream(text, &workload.namespace));
        let private_admin = collect(&listen.private_admin, &mut wrong, parse_private_admin).pop();
        let identity = match identity.config(&workload.namespace, &workload.service_account) {
            Ok(identity) if wrong.is_empty() => identity,
            Ok(_) => return Err(Errors(wrong)),
            Err(error) => {
                wrong.push(error.into());
                return Err(Errors(wrong));
            }
        };
        Ok(Self {
            namespace: workload.namespace,
            workload: workload.workload,
            pod: workload.pod,
            identity,
            inbound,
            upstreams,
            inbound_redirect: listen.inbound_redirect,
            outbound_redirect: listen.outbound_redirect,
            admin: listen.admin,
            private_admin,
            admin_changes: listen.admin_changes,
            workers: limits.workers.map_or_else(rt::workers::default_count, usize::from),
            max_connections: limits.max_connections,
            http: HttpLimits {
                max_headers: limits.max_headers,
                max_header_bytes: limits.max_header_bytes,
                max_streams: limits.max_streams,
                header_timeout: limits.header_timeout,
                request_body_timeout: limits.request_body_timeout,
                idle_timeout: limits.http_idle_timeout,
            },
            tcp_idle_timeout: limits.tcp_idle_timeout,
            connect_timeout: limits.connect_timeout,
            discovery_timeout: limits.discovery_timeout,
            detect_wait: limits.detect_wait,
            drain_deadline: limits.drain_deadline,
            exit_with_parent,
        })
    }
}

fn collect<'a, T>(
    texts: impl IntoIterator<Item = &'a String>,
    wrong: &mut Vec<Error>,
    parse: impl Fn(&str) -> Result<T, Error>,
) -> Vec<T> {
    texts.into_iter().filter_map(|text| parse(text).map_err(|error| wrong.push(error)).ok()).collect()
}

fn parse_inbound(text: &str) -> Result<Inbound, Error> {
    let bad = || Error::Inbound(text.to_owned());
    let (addresses, protocol) = match text.split_once('/') {
        None => (text, ProtocolHint::Unknown),
        Some((addresses, protocol)) => match ProtocolHint::from_app_protocol(protocol) {
            ProtocolHint::Unknown => return Err(bad()),
            hint => (addresses, hint),
        },
    };
    let (listen, app) = addresses.split_once('=').map_or((None, addresses), |(listen, app)| (Some(listen), app));
    let ephemeral = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let listen = listen.map_or(Ok(ephemeral), |addr| addr.parse().map_err(|_| bad()))?;
    Ok(Inbound { listen, app: app.parse().map_err(|_| bad())?, protocol })
}

fn parse_upstream(text: &str, namespace: &str) -> Result<Upstream, Error> {
    let bad = || Error::Upstream(text.to_owned());
    let (target, listen) = text.split_once('=').ok_or_else(bad)?;
    let target = ServicePort::parse_in(target, namespace).map_err(|error| Error::Target(text.to_owned(), error))?;
    Ok(Upstream { target, listen: listen.parse().map_err(|_| bad())? })
}

fn parse_private_admin(text: &str) -> Result<Address, Error> {
    match text.parse() {
        Ok(Address::Tcp(addr)) if !addr.ip().is_loopback() => Err(Error::PrivateAdmin(text.to_owned())),
        Ok(address) => Ok(address),
        Err(_) => Err(Error::PrivateAdmin(text.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inbound_listener_is_ephemeral_unless_asked_for() {
        let inbound = parse_inbound("127.0.0.1:8080/grpc").expect("valid");
        assert_eq!((inbound.listen.port(), inbound.protocol), (0, ProtocolHint::Grpc));
        assert!(parse_inbound("127.0.0.1:8080/smoke").is_err());
        assert!(parse_inbound("localhost:8080").is_err());
    }

    #[test]
    fn the_private_api_is_never_open_to_the_network() {
        assert!(parse_private_admin("0.0.0.0:4192").is_err());
        assert!(parse_private_admin("127.0.0.1:4192").is_ok());
    }
}
