//! `KIND[/NAME]` as kubectl's users write it, and what it selects.

use std::{fmt, str::FromStr};

use serde::{Serialize, Serializer};

/// Kinds that can be asked for, in the order in which `all` shows them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    Deployment,
    StatefulSet,
    DaemonSet,
    ReplicaSet,
    CronJob,
    Job,
    Pod,
    Service,
    Namespace,
}

/// Kind, its short name (in `model::name::Workload` too), and what else people type.
const KINDS: &[(Kind, &str, &[&str])] = &[
    (Kind::Deployment, "deploy", &["deployment", "deployments"]),
    (Kind::StatefulSet, "sts", &["statefulset", "statefulsets"]),
    (Kind::DaemonSet, "ds", &["daemonset", "daemonsets"]),
    (Kind::ReplicaSet, "rs", &["replicaset", "replicasets"]),
    (Kind::CronJob, "cronjob", &["cj", "cronjobs"]),
    (Kind::Job, "job", &["jobs"]),
    (Kind::Pod, "po", &["pod", "pods"]),
    (Kind::Service, "svc", &["service", "services"]),
    (Kind::Namespace, "ns", &["namespace", "namespaces"]),
];

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    #[error("`{0}` is not a kind: expected deploy, sts, ds, rs, cronjob, job, po, svc, ns or all")]
    Kind(String),
    #[error("`{0}` is not KIND or KIND/NAME")]
    Form(String),
}

/// A kind, and perhaps one name of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Selector {
    pub(crate) kind: Kind,
    pub(crate) name: Option<String>,
}

/// One object: what a row is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub(crate) struct Resource {
    pub(crate) namespace: String,
    pub(crate) kind: Kind,
    pub(crate) name: String,
}

impl Kind {
    pub(crate) fn short(self) -> &'static str {
        KINDS.iter().find(|(kind, ..)| *kind == self).map_or("", |(_, short, _)| short)
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        let text = text.to_ascii_lowercase();
        KINDS
            .iter()
            .find(|(_, short, aliases)| *short == text || aliases.contains(&text.as_str()))
            .map(|(kind, ..)| *kind)
    }
}

impl Serialize for Kind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.short())
    }
}

/// Reads arguments: `KIND/NAME…`, `KIND…`, `all`, or kubectl's `KIND NAME…`.
///
/// # Errors
/// The first argument that is nothing of this.
pub(crate) fn parse_all(args: &[String]) -> Result<Vec<Selector>, Error> {
    if let [kind, names @ ..] = args
        && let Some(kind) = Kind::parse(kind)
        && !names.is_empty()
        && names.iter().all(|name| !name.contains('/') && name != "all" && Kind::parse(name).is_none())
    {
        return Ok(names.iter().map(|name| Selector { kind, name: Some(name.clone()) }).collect());
    }
    let mut selectors = Vec::new();
    for arg in args {
        match arg.as_str() {
            "all" => selectors.extend(KINDS.iter().map(|(kind, ..)| Selector { kind: *kind, name: None })),
            arg => selectors.push(arg.parse()?),
        }
    }
    Ok(selectors)
}

impl FromStr for Selector {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let (kind, name) = match text.split_once('/') {
            Some((kind, name)) if !name.is_empty() && !name.contains('/') => (kind, Some(name.to_owned())),
            Some(_) => return Err(Error::Form(text.to_owned())),
            None => (text, None),
        };
        Ok(Self { kind: Kind::parse(kind).ok_or_else(|| Error::Kind(kind.to_owned()))?, name })
    }
}

impl Selector {
    pub(crate) fn selects(&self, resource: &Resource) -> bool {
        self.kind == resource.kind && self.name.as_ref().is_none_or(|name| *name == resource.name)
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind.short(), self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Vec<Selector>, Error> {
        parse_all(&args.iter().map(|arg| (*arg).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn reads_kubectls_forms() {
        let web = Selector { kind: Kind::Deployment, name: Some("web".into()) };
        assert_eq!(parse(&["deployment/web"]), Ok(vec![web.clone()]));
        assert_eq!(parse(&["Deploy", "web"]), Ok(vec![web]));
        let kinds = |args: &[&str]| parse(args).map(|all| all.iter().map(|s| s.kind).collect::<Vec<_>>());
        assert_eq!(kinds(&["po", "svc"]), Ok(vec![Kind::Pod, Kind::Service]));
        assert_eq!(kinds(&["all"]).map(|all| all.len()), Ok(KINDS.len()));
    }

    #[test]
    fn says_what_is_no_kind() {
        assert_eq!(parse(&["deplyo"]), Err(Error::Kind("deplyo".into())));
        assert_eq!(parse(&["deploy/"]), Err(Error::Form("deploy/".into())));
    }
}
