//! One certificate: a new key, a request, and the controller's answer looked at before it is used.

use std::{io, path::PathBuf, sync::Arc};

use rustls::ClientConfig;

use super::{
    args::{Bootstrap, Config},
    dial,
};
use crate::{
    api::{
        client,
        identity::{Certificate, CertifyRequest},
    },
    model::identity::SpiffeId,
    rt::clock,
    tls::{self, Identity, csr::Key},
};

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Dial(#[from] dial::Error),
    #[error("asking for a certificate")]
    Api(#[from] client::Error),
    #[error("reading {path}")]
    File { path: PathBuf, source: io::Error },
    #[error("TLS")]
    Tls(#[from] tls::Error),
    #[error("the controller gave a certificate for {given}, not for {asked}")]
    WrongIdentity { given: String, asked: String },
    #[error("the controller gave a certificate that has already expired: do the clocks agree?")]
    Expired,
}

impl Error {
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Dial(error) => error.reason(),
            Self::Api(client::Error::Refused { .. }) => "refused",
            Self::Api(error) => tls::reason::within(error),
            Self::File { .. } => "file",
            Self::Tls(_) => "bad_certificate",
            Self::WrongIdentity { .. } => "wrong_identity",
            Self::Expired => "certificate_expired",
        }
    }
}

/// Obtains a certificate: with `current`, its successor over mTLS; without, by what the proxy was started with.
pub(super) async fn certify(config: &Config, current: Option<&Identity>) -> Result<Identity, Error> {
    let (tls_config, token) = match current {
        Some(identity) => (identity.controller(), None),
        None => bootstrap(&config.bootstrap)?,
    };
    let (connection, driver, controller) = dial::dial(&config.controller, tls_config).await?;
    let asked = SpiffeId::new(&controller.trust_domain, &config.namespace, &config.service_account);
    let key = Key::generate()?;
    let request = CertifyRequest { token, csr: key.request(&asked)? };
    let answer: Certificate = tokio::select! {
        answer = connection.call("/v1/certify", &request) => answer?,
        lost = driver => return Err(lost.err().map_or(client::Error::Ended, client::Error::from).into()),
    };
    let identity = Identity::new(key.into_der(), &answer.chain, &answer.trust_anchors)?;
    if identity.id != asked {
        return Err(Error::WrongIdentity { given: identity.id.to_string(), asked: asked.to_string() });
    }
    if identity.is_expired(clock::unix_seconds()) {
        return Err(Error::Expired);
    }
    Ok(identity)
}

fn bootstrap(by: &Bootstrap) -> Result<(Arc<ClientConfig>, Option<String>), Error> {
    let read =
        |path: &PathBuf| std::fs::read_to_string(path).map_err(|source| Error::File { path: path.clone(), source });
    match by {
        Bootstrap::Join(token) => {
            let pin = token.pin_bytes().unwrap_or_default();
            Ok((tls::config::pinned_client(pin, tls::API_ALPN)?, Some(token.to_string())))
        }
        Bootstrap::ServiceAccount { token, trust_anchors } => {
            let roots = Arc::new(tls::pem::roots(&read(trust_anchors)?)?);
            let config = tls::config::client(&roots, None, Some(tls::verify::CONTROLLER), tls::API_ALPN)?;
            Ok((config, Some(read(token)?.trim().to_owned())))
        }
    }
}
