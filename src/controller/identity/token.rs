//! Join tokens: made for whoever reaches the private socket, good for one workload, for a day.

use aws_lc_rs::hmac;

use crate::api::join::{self, JoinToken, hex, unhex};

/// As long as a leaf: a proxy whose certificate ran out while the controller was away can come back by its token.
pub(crate) const LIFETIME_SECONDS: i64 = 24 * 3600;

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum Error {
    #[error(transparent)]
    Malformed(#[from] join::Error),
    #[error("the join token was not made by this mesh")]
    Foreign,
    #[error("the join token has expired")]
    Expired,
}

/// The key that signs tokens; a secret of `.mesh/ca`.
pub(crate) struct Key(hmac::Key);

pub(crate) struct Invitation<'a> {
    pub(crate) api: String,
    pub(crate) pin: [u8; 32],
    pub(crate) namespace: &'a str,
    pub(crate) service_account: &'a str,
    pub(crate) now: i64,
}

impl Key {
    pub(crate) fn new(secret: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    pub(crate) fn mint(&self, invitation: Invitation<'_>) -> JoinToken {
        let mut token = JoinToken {
            api: invitation.api,
            pin: hex(&invitation.pin),
            ns: invitation.namespace.to_owned(),
            sa: invitation.service_account.to_owned(),
            exp: invitation.now + LIFETIME_SECONDS,
            mac: String::new(),
        };
        token.mac = hex(hmac::sign(&self.0, &token.signed()).as_ref());
        token
    }

    /// Namespace and service account of a token that is ours and still good.
    pub(crate) fn admit(&self, text: &str, now: i64) -> Result<(String, String), Error> {
        let token: JoinToken = text.parse()?;
        let mac = unhex(&token.mac).ok_or(Error::Foreign)?;
        // In constant time.
        hmac::verify(&self.0, &token.signed(), &mac).map_err(|_| Error::Foreign)?;
        if now >= token.exp { Err(Error::Expired) } else { Ok((token.ns, token.sa)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(key: &Key) -> JoinToken {
        let api = "127.0.0.1:1".to_owned();
        key.mint(Invitation { api, pin: [1; 32], namespace: "shop", service_account: "web", now: 1000 })
    }

    #[test]
    fn lets_in_whom_it_names_until_it_expires() {
        let key = Key::new(b"secret");
        let text = token(&key).to_string();
        assert_eq!(key.admit(&text, 1001), Ok(("shop".into(), "web".into())));
        assert_eq!(key.admit(&text, 1000 + LIFETIME_SECONDS), Err(Error::Expired));
        assert_eq!(Key::new(b"other").admit(&text, 1001), Err(Error::Foreign));
    }

    #[test]
    fn a_changed_token_is_foreign() {
        let key = Key::new(b"secret");
        for change in [
            |t: &mut JoinToken| t.sa = "orders".into(),
            |t: &mut JoinToken| t.ns = "bank".into(),
            |t: &mut JoinToken| t.exp += 1,
            |t: &mut JoinToken| t.mac.clear(),
            |t: &mut JoinToken| t.mac = "zz".into(),
        ] {
            let mut token = token(&key);
            change(&mut token);
            assert_eq!(key.admit(&token.to_string(), 1001), Err(Error::Foreign));
        }
    }
}
