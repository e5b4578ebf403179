//! The join token: `mesh1.` and base64url of JSON. Whoever holds it may become one workload, and knows which controller
//! to trust while doing so.

use std::{fmt, str::FromStr};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};

/// Secret: `Debug` hides it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct JoinToken {
    /// Where the controller's API was when the token was made, `IP:PORT`.
    pub(crate) api: String,
    /// SHA-256 of the root's DER, hex.
    pub(crate) pin: String,
    pub(crate) ns: String,
    pub(crate) sa: String,
    /// Unix seconds.
    pub(crate) exp: i64,
    /// HMAC-SHA256 by the controller over [`JoinToken::signed`], hex.
    pub(crate) mac: String,
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "not a join token: expected `mesh1.` and base64url; they come from `mesh run` or the controller's private socket"
)]
pub(crate) struct Error;

const PREFIX: &str = "mesh1.";

impl JoinToken {
    /// What the controller signs: everything else, unambiguous because no field can hold a line break in JSON text
    /// that [`JoinToken::from_str`] accepts.
    pub(crate) fn signed(&self) -> Vec<u8> {
        format!("{PREFIX}\n{}\n{}\n{}\n{}\n{}", self.api, self.pin, self.ns, self.sa, self.exp).into_bytes()
    }

    pub(crate) fn pin_bytes(&self) -> Result<[u8; 32], Error> {
        unhex(&self.pin).and_then(|bytes| bytes.try_into().ok()).ok_or(Error)
    }
}

impl FromStr for JoinToken {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let encoded = text.trim().strip_prefix(PREFIX).filter(|rest| rest.len() <= 4096).ok_or(Error)?;
        let json = BASE64_URL_SAFE_NO_PAD.decode(encoded).map_err(|_| Error)?;
        let token: Self = serde_json::from_slice(&json).map_err(|_| Error)?;
        let fields = [&token.api, &token.pin, &token.ns, &token.sa, &token.mac];
        if fields.into_iter().any(|field| field.contains('\n')) { Err(Error) } else { Ok(token) }
    }
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let json = serde_json::to_vec(self).map_err(|_| fmt::Error)?;
        write!(f, "{PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(json))
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinToken({}/{}, …)", self.ns, self.sa)
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

pub(crate) fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text.chars().map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok())).collect();
    let digits = digits.filter(|digits| digits.len() % 2 == 0)?;
    Some(digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn prints_as_it_parses(api in "[0-9.:]{3,20}", ns in "[a-z]{1,9}", sa in "[a-z]{1,9}", exp: i64, pin: [u8; 32]) {
            let token = JoinToken { api, pin: hex(&pin), ns, sa, exp, mac: hex(&[7; 32]) };
            let parsed: JoinToken = token.to_string().parse().expect("our own token");
            prop_assert_eq!(parsed.pin_bytes(), Ok(pin));
            prop_assert_eq!(parsed, token);
        }

        #[test]
        fn hostile_text_is_refused_without_a_panic(text in ".*") {
            let _ = text.parse::<JoinToken>();
            let _ = format!("{PREFIX}{text}").parse::<JoinToken>();
        }
    }

    #[test]
    fn a_token_does_not_show_itself_in_a_log() {
        let token = JoinToken {
            api: "a".into(),
            pin: "p".into(),
            ns: "n".into(),
            sa: "s".into(),
            exp: 1,
            mac: "secret".into(),
        };
        assert_eq!(format!("{token:?}"), "JoinToken(n/s, …)");
    }
}
