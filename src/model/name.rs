//! Names of the objects that take part in the mesh: services, workloads, pods.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A port of a Service, `NAMESPACE/SERVICE:PORT`: what an explicit listener points at, and the `target` label of metrics.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct ServicePort {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) port: u16,
}

/// The owner of a set of pods, `NAMESPACE/KIND/NAME` with kubectl's short kind (`shop/deploy/web`).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Workload {
    pub(crate) namespace: String,
    pub(crate) kind: String,
    pub(crate) name: String,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum Error {
    #[error("`{0}` is not a service port: expected NAMESPACE/SERVICE:PORT, SERVICE:PORT or SERVICE")]
    ServicePort(String),
    #[error("`{0}` is not a workload: expected NAMESPACE/KIND/NAME")]
    Workload(String),
    #[error("`{0}` is not a name: expected lower-case letters, digits and `-`, at most 63 (RFC 1123 label)")]
    Label(String),
}

/// Checks an RFC 1123 label, the form of nearly every Kubernetes name.
pub(crate) fn label(text: &str) -> Result<&str, Error> {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let bytes = text.as_bytes();
    let ends = bytes.first() != Some(&b'-') && bytes.last() != Some(&b'-');
    if bytes.is_empty() || bytes.len() > 63 || !ends || !bytes.iter().copied().all(inner) {
        return Err(Error::Label(text.to_owned()));
    }
    Ok(text)
}

impl ServicePort {
    /// Reads `NS/SERVICE:PORT`; a missing namespace is `namespace`, a missing port is 0, "the only port of the Service".
    pub(crate) fn parse_in(text: &str, namespace: &str) -> Result<Self, Error> {
        let bad = || Error::ServicePort(text.to_owned());
        let (namespace, rest) = text.split_once('/').unwrap_or((namespace, text));
        let (name, port) = match rest.split_once(':') {
            Some((name, port)) => (name, port.parse().ok().filter(|p| *p != 0).ok_or_else(bad)?),
            None => (rest, 0),
        };
        label(namespace).and(label(name)).map_err(|_| bad())?;
        Ok(Self { namespace: namespace.to_owned(), name: name.to_owned(), port })
    }
}

impl FromStr for ServicePort {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::parse_in(text, "default")
    }
}

impl FromStr for Workload {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let mut parts = text.split('/');
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(namespace), Some(kind), Some(name), None)
                if !namespace.is_empty() && !kind.is_empty() && !name.is_empty() =>
            {
                Ok(Self { namespace: namespace.into(), kind: kind.into(), name: name.into() })
            }
            _ => Err(Error::Workload(text.to_owned())),
        }
    }
}

impl fmt::Display for ServicePort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)?;
        if self.port != 0 {
            write!(f, ":{}", self.port)?;
        }
        Ok(())
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.namespace, self.kind, self.name)
    }
}

impl TryFrom<String> for ServicePort {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl TryFrom<String> for Workload {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<ServicePort> for String {
    fn from(name: ServicePort) -> Self {
        name.to_string()
    }
}

impl From<Workload> for String {
    fn from(name: Workload) -> Self {
        name.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn service_ports_print_as_they_parse(ns in "[a-z][a-z0-9]{0,8}", name in "[a-z][a-z0-9]{0,8}", port: u16) {
            let port_name = ServicePort { namespace: ns, name, port };
            prop_assert_eq!(port_name.to_string().parse(), Ok(port_name));
        }

        #[test]
        fn parsing_never_panics(text in ".*") {
            let _ = text.parse::<ServicePort>();
            let _ = text.parse::<Workload>();
        }
    }

    #[test]
    fn a_bare_service_takes_the_given_namespace() {
        assert_eq!(ServicePort::parse_in("orders", "shop").map(|s| s.to_string()), Ok("shop/orders".into()));
        assert!(ServicePort::parse_in("orders:0", "shop").is_err());
        assert!(ServicePort::parse_in("Orders", "shop").is_err());
    }
}
