//! The controller as certificate authority: who may have which certificate, and making it.

pub(crate) mod ca;
pub(crate) mod token;

use std::sync::Arc;

use http::StatusCode;

use crate::{
    api::{
        identity::{Certificate, CertifyRequest},
        join::JoinToken,
    },
    model::identity::SpiffeId,
};

#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error(transparent)]
    Token(#[from] token::Error),
    #[error("neither a token nor a client certificate was given")]
    Nobody,
    #[error(transparent)]
    Request(#[from] ca::Error),
}

impl Refusal {
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Token(_) => StatusCode::FORBIDDEN,
            Self::Nobody => StatusCode::UNAUTHORIZED,
            Self::Request(ca::Error::Request(_) | ca::Error::OtherIdentity { .. }) => StatusCode::BAD_REQUEST,
            Self::Request(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// Decides on certify requests and signs them.
pub(crate) struct Authority {
    pub(crate) ca: ca::Ca,
    pub(crate) tokens: token::Key,
}

impl Authority {
    /// A token says who asks; without one, the client certificate does, for its own successor.
    pub(crate) fn certify(
        &self,
        request: &CertifyRequest,
        peer: Option<&Arc<SpiffeId>>,
        now: i64,
    ) -> Result<Certificate, Refusal> {
        let id = match (&request.token, peer) {
            (Some(token), _) => {
                let (namespace, account) = self.tokens.admit(token, now)?;
                SpiffeId::new(self.ca.trust_domain(), &namespace, &account)
            }
            (None, Some(peer)) => peer.as_ref().clone(),
            (None, None) => return Err(Refusal::Nobody),
        };
        Ok(self.ca.sign(&request.csr, &id, now)?)
    }

    /// A token that lets in one workload of this mesh.
    pub(crate) fn invite(&self, api: String, namespace: &str, service_account: &str, now: i64) -> JoinToken {
        self.tokens.mint(token::Invitation { api, pin: self.ca.pin(), namespace, service_account, now })
    }
}
