//! Mutual TLS between proxies and towards the controller: TLS 1.3 only, post-quantum key exchange preferred, identities
//! as SPIFFE URI SANs, no resumption (a renewed or revoked identity counts from the next connection on).
//!
//! In: PEM and DER from `api::identity`. Out: rustls configurations as an [`Identity`]. No sockets here.

use std::{fmt, sync::Arc};

use rustls::{
    ClientConfig, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer},
};

use crate::model::identity::SpiffeId;

pub(crate) mod config;
pub(crate) mod csr;
pub(crate) mod hello;
pub(crate) mod leaf;
pub(crate) mod pem;
pub(crate) mod reason;
pub(crate) mod verify;

pub(crate) use leaf::peer_id;
pub(crate) use reason::reason;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{what} is not valid PEM")]
    Pem { what: &'static str, source: rustls::pki_types::pem::Error },
    #[error("{what} holds no certificate")]
    Empty { what: &'static str },
    #[error("the certificate cannot be read: {why}")]
    Certificate { why: String },
    #[error("the certificate has no mesh identity: it needs exactly one SPIFFE URI as its subject alternative name")]
    NoIdentity,
    #[error("rustls refused the certificate or key")]
    Rustls(#[from] rustls::Error),
    #[error("the trust anchors cannot be used")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
    #[error("creating a key or a certificate failed")]
    Generate(#[from] rcgen::Error),
}

/// What a connection between two proxies carries, as its ALPN says, so that the accepting side neither guesses nor waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Alpn {
    /// One HTTP/2 connection for many requests.
    Http2,
    /// A connection of its own for one HTTP/1.1 exchange: upgrades.
    Http1,
    /// Bytes.
    Opaque,
    /// Opened before the protocol is known: the server may speak first.
    Undetermined,
}

impl Alpn {
    pub(crate) const ALL: [Self; 4] = [Self::Http2, Self::Http1, Self::Opaque, Self::Undetermined];

    pub(crate) fn id(self) -> &'static [u8] {
        match self {
            Self::Http2 => b"mesh/h2",
            Self::Http1 => b"mesh/h1",
            Self::Opaque => b"mesh/opaque",
            Self::Undetermined => b"mesh/undetermined",
        }
    }

    /// `None`: not mesh traffic.
    pub(crate) fn from_id(id: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|alpn| alpn.id() == id)
    }
}

/// ALPN of the controller's API.
pub(crate) const API_ALPN: &[u8] = b"h2";

/// A certificate with its key and trust anchors, ready to dial and to accept with.
pub(crate) struct Identity {
    pub(crate) id: SpiffeId,
    /// Unix seconds.
    pub(crate) expires_at: i64,
    /// Accepts every mesh ALPN; a client certificate is required.
    pub(crate) server: Arc<ServerConfig>,
    clients: [Arc<ClientConfig>; 4],
    controller: Arc<ClientConfig>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    trust_anchors: String,
}

impl Identity {
    /// # Errors
    /// When the chain's leaf has no identity, the key does not fit it, or there is no usable trust anchor.
    pub(crate) fn new(key: PrivateKeyDer<'static>, chain_pem: &str, trust_anchors: &str) -> Result<Self, Error> {
        Self::build(key, pem::certificates("the certificate chain", chain_pem)?, trust_anchors)
    }

    /// The same certificate, trusting other anchors: how a root is rotated while everything runs.
    ///
    /// # Errors
    /// When there is no usable anchor.
    pub(crate) fn with_trust_anchors(&self, trust_anchors: &str) -> Result<Self, Error> {
        Self::build(self.key.clone_key(), self.chain.clone(), trust_anchors)
    }

    fn build(
        key: PrivateKeyDer<'static>,
        chain: Vec<CertificateDer<'static>>,
        trust_anchors: &str,
    ) -> Result<Self, Error> {
        let leaf = leaf::inspect(chain.first().ok_or(Error::Empty { what: "the certificate chain" })?)?;
        let roots = Arc::new(pem::roots(trust_anchors)?);
        let certified = config::certified(chain.clone(), key.clone_key())?;
        let [h2, h1, opaque, undetermined] =
            Alpn::ALL.map(|alpn| config::client(&roots, Some(&certified), None, alpn.id()));
        let controller = verify::Expected { trust_domain: Some(leaf.id.trust_domain.clone()), ..verify::CONTROLLER };
        Ok(Self {
            server: config::server(&roots, &certified, config::ClientAuth::Required, Alpn::ALL.map(Alpn::id).to_vec())?,
            clients: [h2?, h1?, opaque?, undetermined?],
            controller: config::client(&roots, Some(&certified), Some(controller), API_ALPN)?,
            id: leaf.id,
            expires_at: leaf.expires_at,
            chain,
            key,
            trust_anchors: trust_anchors.to_owned(),
        })
    }

    /// To dial another proxy. The peer's chain is verified here; that it is the expected identity is for the dialler to
    /// compare, by [`peer_id`], before it sends a byte.
    pub(crate) fn client(&self, alpn: Alpn) -> Arc<ClientConfig> {
        Arc::clone(&self.clients[alpn as usize])
    }

    /// To dial the controller's API; nobody but the controller of our trust domain passes.
    pub(crate) fn controller(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.controller)
    }

    /// PEM.
    pub(crate) fn trust_anchors(&self) -> &str {
        &self.trust_anchors
    }

    pub(crate) fn is_expired(&self, now_unix: i64) -> bool {
        now_unix >= self.expires_at
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("id", &self.id).field("expires_at", &self.expires_at).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
