//! What a leaf certificate says: whose it is and how long it is valid.

use rustls::pki_types::CertificateDer;
use x509_parser::{
    extensions::GeneralName,
    prelude::{FromDer, X509Certificate},
};

use super::Error;
use crate::model::identity::SpiffeId;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Leaf {
    pub(crate) id: SpiffeId,
    /// Unix seconds.
    pub(crate) expires_at: i64,
}

/// # Errors
/// When the certificate cannot be parsed, or has not exactly one URI SAN that is a mesh identity (X509-SVID, section 2).
pub(crate) fn inspect(der: &CertificateDer<'_>) -> Result<Leaf, Error> {
    let bad = |e: &dyn std::fmt::Display| Error::Certificate { why: e.to_string() };
    let (_, certificate) = X509Certificate::from_der(der).map_err(|e| bad(&e))?;
    let names = certificate.subject_alternative_name().map_err(|e| bad(&e))?.ok_or(Error::NoIdentity)?;
    let mut uris = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    let (Some(uri), None) = (uris.next(), uris.next()) else { return Err(Error::NoIdentity) };
    Ok(Leaf {
        id: uri.parse().map_err(|_| Error::NoIdentity)?,
        expires_at: certificate.validity().not_after.timestamp(),
    })
}

/// The identity of a connection's peer. Only for chains that rustls has verified: this reads, it does not check.
pub(crate) fn peer_id(certs: Option<&[CertificateDer<'_>]>) -> Option<SpiffeId> {
    inspect(certs?.first()?).ok().map(|leaf| leaf.id)
}
