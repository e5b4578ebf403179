//! Workload identity: `spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/SERVICE-ACCOUNT` (SPIFFE ID specification, section 2).

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Who a workload is, as its certificate's URI SAN says it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct SpiffeId {
    pub(crate) trust_domain: String,
    pub(crate) namespace: String,
    pub(crate) service_account: String,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not a mesh identity: expected spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/SERVICE-ACCOUNT")]
pub(crate) struct Error(String);

impl SpiffeId {
    /// The SPIFFE specification's limit on the whole identifier, in bytes.
    const MAX_LEN: usize = 2048;

    pub(crate) fn new(trust_domain: &str, namespace: &str, service_account: &str) -> Self {
        Self {
            trust_domain: trust_domain.to_owned(),
            namespace: namespace.to_owned(),
            service_account: service_account.to_owned(),
        }
    }
}

impl FromStr for SpiffeId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let bad = || Error(text.chars().take(128).collect());
        let path_char = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
        let valid = |part: &&str| !part.is_empty() && !matches!(*part, "." | "..") && part.bytes().all(path_char);
        let rest = text.strip_prefix("spiffe://").filter(|_| text.len() <= Self::MAX_LEN).ok_or_else(bad)?;
        let parts: Vec<&str> = rest.splitn(6, '/').collect();
        match parts.as_slice() {
            [domain, "ns", namespace, "sa", account] if [domain, namespace, account].into_iter().all(valid) => {
                Ok(Self::new(domain, namespace, account))
            }
            _ => Err(bad()),
        }
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}/ns/{}/sa/{}", self.trust_domain, self.namespace, self.service_account)
    }
}

impl TryFrom<String> for SpiffeId {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<SpiffeId> for String {
    fn from(id: SpiffeId) -> Self {
        id.to_string()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn prints_as_it_parses(domain in "[a-z]{1,9}(\\.[a-z]{1,9})?", ns in "[a-z0-9]{1,9}", sa in "[a-z0-9-]{1,9}") {
            let id = SpiffeId::new(&domain, &ns, &sa);
            prop_assert_eq!(id.to_string().parse(), Ok(id));
        }

        #[test]
        fn hostile_text_is_refused_without_a_panic(text in ".*") {
            let _ = text.parse::<SpiffeId>();
        }
    }

    #[test]
    fn rejects_what_only_looks_like_an_identity() {
        for text in ["spiffe://d/ns/a/sa/b/c", "spiffe:///ns/a/sa/b", "spiffe://d/ns/../sa/b", "https://d/ns/a/sa/b"] {
            assert!(text.parse::<SpiffeId>().is_err(), "{text}");
        }
    }
}
