//! rustls configurations. One crypto provider, TLS 1.3, no resumption, no tickets.

use std::sync::{Arc, LazyLock};

use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    client::Resumption,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer},
    server::{NoServerSessionStorage, WebPkiClientVerifier},
    sign::{CertifiedKey, SingleCertAndKey},
};

use super::{Error, verify};

/// Whether a server insists on a client certificate. What is presented is verified either way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClientAuth {
    Required,
    Optional,
}

/// aws-lc-rs; with the feature `prefer-post-quantum` its first key exchange is X25519MLKEM768.
pub(crate) static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| Arc::new(aws_lc_rs::default_provider()));

/// A chain with the key it belongs to.
///
/// # Errors
/// When the key cannot be read or is not the leaf's.
pub(crate) fn certified(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<CertifiedKey>, Error> {
    Ok(Arc::new(CertifiedKey::from_der(chain, key, &PROVIDER)?))
}

pub(crate) fn client(
    roots: &Arc<RootCertStore>,
    own: Option<&Arc<CertifiedKey>>,
    expected: Option<verify::Expected>,
    alpn: &[u8],
) -> Result<Arc<ClientConfig>, Error> {
    client_with(Arc::new(verify::Server::anchored(Arc::clone(roots), expected)), own, alpn)
}

/// For the first contact with a controller, by a join token: trusts the one root whose SHA-256 is `pin`.
pub(crate) fn pinned_client(pin: [u8; 32], alpn: &[u8]) -> Result<Arc<ClientConfig>, Error> {
    client_with(Arc::new(verify::Server::pinned(pin, verify::CONTROLLER)), None, alpn)
}

fn client_with(
    verifier: Arc<verify::Server>,
    own: Option<&Arc<CertifiedKey>>,
    alpn: &[u8],
) -> Result<Arc<ClientConfig>, Error> {
    let builder = ClientConfig::builder_with_provider(Arc::clone(&PROVIDER))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match own {
        Some(own) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(own)))),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![alpn.to_vec()];
    config.resumption = Resumption::disabled();
    // Peers are known by identity: there is no name to tell.
    config.enable_sni = false;
    Ok(Arc::new(config))
}

pub(crate) fn server(
    roots: &Arc<RootCertStore>,
    own: &Arc<CertifiedKey>,
    auth: ClientAuth,
    alpn: Vec<&[u8]>,
) -> Result<Arc<ServerConfig>, Error> {
    let webpki = WebPkiClientVerifier::builder_with_provider(Arc::clone(roots), Arc::clone(&PROVIDER))
        // The hints would name our roots in every handshake, and every proxy has one certificate to choose from.
        .clear_root_hint_subjects();
    let webpki = match auth {
        ClientAuth::Required => webpki,
        ClientAuth::Optional => webpki.allow_unauthenticated(),
    };
    let mut config = ServerConfig::builder_with_provider(Arc::clone(&PROVIDER))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::new(verify::Client::new(webpki.build()?)))
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(own))));
    config.alpn_protocols = alpn.into_iter().map(<[u8]>::to_vec).collect();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}
