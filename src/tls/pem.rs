//! PEM in: chains and trust anchors.

use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};

use super::Error;

/// Every certificate of `text`, in order; at least one.
///
/// # Errors
/// When the text is not PEM, or holds no certificate. `what` names it.
pub(crate) fn certificates(what: &'static str, text: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(text.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|source| Error::Pem { what, source })?;
    if chain.is_empty() { Err(Error::Empty { what }) } else { Ok(chain) }
}

/// Trust anchors.
///
/// # Errors
/// As [`certificates`], and when one of them is no certificate: a bundle is taken whole or not at all.
pub(crate) fn roots(text: &str) -> Result<RootCertStore, Error> {
    let mut store = RootCertStore::empty();
    for anchor in certificates("the trust anchors", text)? {
        store.add(anchor)?;
    }
    Ok(store)
}
