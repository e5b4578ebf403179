//! Who may be at the other end: a chain to a trust anchor, and exactly one SPIFFE identity instead of a DNS name.

use std::{borrow::Cow, sync::Arc};

use aws_lc_rs::digest;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore, SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    crypto::verify_tls13_signature,
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::{
        ParsedCertificate,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};

use super::{config::PROVIDER, leaf};
use crate::model::identity::SpiffeId;

/// An identity that alone is accepted; without a trust domain, any.
#[derive(Clone, Debug)]
pub(crate) struct Expected {
    pub(crate) trust_domain: Option<String>,
    pub(crate) namespace: Cow<'static, str>,
    pub(crate) service_account: Cow<'static, str>,
}

/// The controller, of any trust domain.
pub(crate) const CONTROLLER: Expected = Expected {
    trust_domain: None,
    namespace: Cow::Borrowed("mesh-system"),
    service_account: Cow::Borrowed("mesh-controller"),
};

impl Expected {
    fn admits(&self, id: &SpiffeId) -> bool {
        self.trust_domain.as_ref().is_none_or(|domain| *domain == id.trust_domain)
            && self.namespace == id.namespace
            && self.service_account == id.service_account
    }
}

/// Why a chain that is valid in itself was refused; carried through rustls to `reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error("the certificate has no mesh identity")]
    NoIdentity,
    #[error("the certificate is of another identity than expected")]
    WrongIdentity,
    #[error("no certificate of the chain has the pinned SHA-256")]
    NotPinned,
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Self {
        CertificateError::Other(OtherError(Arc::new(refused))).into()
    }
}

#[derive(Debug)]
enum Trust {
    Anchors(Arc<RootCertStore>),
    /// SHA-256 of the one root to trust, which the peer sends at the end of its chain.
    Pin([u8; 32]),
}

/// A client's view of the server.
#[derive(Debug)]
pub(crate) struct Server {
    trust: Trust,
    expected: Option<Expected>,
}

impl Server {
    pub(crate) fn anchored(roots: Arc<RootCertStore>, expected: Option<Expected>) -> Self {
        Self { trust: Trust::Anchors(roots), expected }
    }

    pub(crate) fn pinned(pin: [u8; 32], expected: Expected) -> Self {
        Self { trust: Trust::Pin(pin), expected: Some(expected) }
    }
}

impl ServerCertVerifier for Server {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let roots = match &self.trust {
            Trust::Anchors(roots) => Arc::clone(roots),
            Trust::Pin(pin) => Arc::new(pinned_root(intermediates, pin)?),
        };
        let parsed = ParsedCertificate::try_from(end_entity)?;
        let algorithms = PROVIDER.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&parsed, &roots, intermediates, now, algorithms)?;
        let id = leaf::inspect(end_entity).map_err(|_| Refused::NoIdentity)?.id;
        match &self.expected {
            Some(expected) if !expected.admits(&id) => Err(Refused::WrongIdentity.into()),
            _ => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is never offered".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &PROVIDER.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        PROVIDER.signature_verification_algorithms.supported_schemes()
    }
}

fn pinned_root(sent: &[CertificateDer<'_>], pin: &[u8; 32]) -> Result<RootCertStore, Error> {
    let root = sent.iter().find(|der| fingerprint(der) == *pin).ok_or(Refused::NotPinned)?;
    let mut roots = RootCertStore::empty();
    roots.add(root.clone().into_owned())?;
    Ok(roots)
}

/// SHA-256 of a certificate's DER.
pub(crate) fn fingerprint(der: &CertificateDer<'_>) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, der).as_ref());
    out
}

/// A server's view of its clients: what webpki says, and a mesh identity on top.
#[derive(Debug)]
pub(crate) struct Client(Arc<dyn ClientCertVerifier>);

impl Client {
    pub(crate) fn new(webpki: Arc<dyn ClientCertVerifier>) -> Self {
        Self(webpki)
    }
}

impl ClientCertVerifier for Client {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.0.client_auth_mandatory()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.0.verify_client_cert(end_entity, intermediates, now)?;
        leaf::inspect(end_entity).map_err(|_| Refused::NoIdentity)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
