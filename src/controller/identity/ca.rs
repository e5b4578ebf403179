//! Root and issuer: made on first start, kept in `.mesh/ca`, ECDSA P-256. The root signs issuers, the issuer signs leaves.

use std::{
    fs, io,
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use rand::RngExt;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType,
    SerialNumber,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::{
    api::identity::Certificate,
    model::identity::SpiffeId,
    tls::{self, verify::fingerprint},
};

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{path}")]
    File { path: PathBuf, source: io::Error },
    #[error("{path} is open to others: it holds the keys of the mesh and must have mode 0700")]
    Open { path: PathBuf },
    #[error("{path} cannot be used")]
    Unusable { path: PathBuf, source: tls::Error },
    #[error("the certificate signing request cannot be used: {0}")]
    Request(String),
    #[error("the certificate signing request is for {asked}, not for {granted}")]
    OtherIdentity { asked: String, granted: SpiffeId },
    #[error("signing failed")]
    Sign(#[from] rcgen::Error),
}

/// How clocks may differ: a certificate is valid a little before it is made.
const CLOCK_SKEW_SECONDS: i64 = 60;
const ROOT_LIFETIME_SECONDS: i64 = 10 * 365 * 24 * 3600;
const ISSUER_LIFETIME_SECONDS: i64 = 365 * 24 * 3600;
/// An issuer with less than this left at start is replaced: leaves must not outlive it.
const ISSUER_RENEWAL_SECONDS: i64 = 60 * 24 * 3600;

pub(crate) struct Ca {
    trust_domain: String,
    root: CertificateDer<'static>,
    root_pem: String,
    issuer: Issuer<'static, KeyPair>,
    issuer_pem: String,
    leaf_lifetime: Duration,
    /// Secret bytes for the join tokens.
    pub(crate) token_secret: Vec<u8>,
    extra_anchors: PathBuf,
}

impl Ca {
    /// Opens the CA in `dir`, making what is missing.
    ///
    /// # Errors
    /// When a file cannot be read, written or used. Keys that are there are never overwritten.
    pub(crate) fn open(dir: &Path, trust_domain: &str, leaf_lifetime: Duration, now: i64) -> Result<Self, Error> {
        private_dir(dir)?;
        let file = |name: &str| dir.join(name);
        let root_key = key(&file("root.key"))?;
        let root_pem = match read(&file("root.crt"))? {
            Some(pem) => pem,
            None => {
                let params = authority(&format!("root.{trust_domain}.mesh"), now, ROOT_LIFETIME_SECONDS, None);
                create(&file("root.crt"), params.self_signed(&root_key)?.pem().as_bytes())?
            }
        };
        let root = certificate(&file("root.crt"), &root_pem)?;
        let issuer_key = key(&file("issuer.key"))?;
        let path = file("issuer.crt");
        let issuer_pem = match read(&path)? {
            Some(pem) if expiry(&path, &pem)? - now > ISSUER_RENEWAL_SECONDS => pem,
            stale => {
                let params = authority(&format!("issuer.{trust_domain}.mesh"), now, ISSUER_LIFETIME_SECONDS, Some(0));
                let signed = params.signed_by(&issuer_key, &Issuer::from_ca_cert_der(&root, &root_key)?)?;
                if stale.is_some() {
                    fs::remove_file(&path).map_err(|source| Error::File { path: path.clone(), source })?;
                }
                create(&path, signed.pem().as_bytes())?
            }
        };
        let secret_file = file("token.key");
        let token_secret = match read(&secret_file)? {
            Some(secret) => secret,
            None => create(&secret_file, crate::api::join::hex(&rand::rng().random::<[u8; 32]>()).as_bytes())?,
        };
        let issuer_der = certificate(&path, &issuer_pem)?;
        Ok(Self {
            trust_domain: trust_domain.to_owned(),
            issuer: Issuer::from_ca_cert_der(&issuer_der, issuer_key)?,
            root,
            root_pem,
            issuer_pem,
            leaf_lifetime,
            token_secret: token_secret.into_bytes(),
            extra_anchors: file("anchors.crt"),
        })
    }

    pub(crate) fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    /// SHA-256 of the root.
    pub(crate) fn pin(&self) -> [u8; 32] {
        fingerprint(&self.root)
    }

    /// The bundle: our root, and whatever `anchors.crt` adds, which is how one root takes over from another.
    pub(crate) fn trust_anchors(&self) -> String {
        let extra = fs::read_to_string(&self.extra_anchors).unwrap_or_default();
        let usable = !extra.trim().is_empty() && tls::pem::roots(&extra).is_ok();
        if usable { format!("{}{extra}", self.root_pem) } else { self.root_pem.clone() }
    }

    /// Signs a leaf for `id`. Nothing but the public key is taken from the request; a name in it must be the same.
    pub(crate) fn sign(&self, csr: &str, id: &SpiffeId, now: i64) -> Result<Certificate, Error> {
        // Verifies the proof of possession, too.
        let request = CertificateSigningRequestParams::from_pem(csr).map_err(|e| Error::Request(e.to_string()))?;
        if request.public_key.algorithm() != &PKCS_ECDSA_P256_SHA256 {
            return Err(Error::Request("only ECDSA P-256 keys are certified".into()));
        }
        for name in &request.params.subject_alt_names {
            match name {
                SanType::URI(uri) if uri.as_str() == id.to_string() => {}
                SanType::URI(uri) => {
                    return Err(Error::OtherIdentity { asked: uri.as_str().to_owned(), granted: id.clone() });
                }
                _ => return Err(Error::Request("it asks for a name that is no SPIFFE identity".into())),
            }
        }
        let expires_at = now + i64::try_from(self.leaf_lifetime.as_secs()).unwrap_or(i64::MAX / 2);
        let leaf = self.leaf(&request.public_key, id, now, expires_at)?;
        Ok(Certificate { chain: format!("{leaf}{}", self.issuer_pem), trust_anchors: self.trust_anchors(), expires_at })
    }

    /// The controller's own certificate. Its chain ends in the root, for those who only know the root's hash.
    pub(crate) fn own(&self, now: i64) -> Result<Own, Error> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let id = SpiffeId::new(&self.trust_domain, "mesh-system", "mesh-controller");
        let expires_at = now + i64::try_from(self.leaf_lifetime.as_secs()).unwrap_or(i64::MAX / 2);
        let chain = format!("{}{}{}", self.leaf(&key, &id, now, expires_at)?, self.issuer_pem, self.root_pem);
        Ok(Own { chain, key: PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())), expires_at })
    }

    fn leaf(&self, key: &impl PublicKeyData, id: &SpiffeId, now: i64, expires_at: i64) -> Result<String, Error> {
        let mut params = validity(now, expires_at);
        params.subject_alt_names = vec![SanType::URI(id.to_string().try_into()?)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        Ok(params.signed_by(key, &self.issuer)?.pem())
    }
}

/// What the controller serves with.
pub(crate) struct Own {
    pub(crate) chain: String,
    pub(crate) key: PrivateKeyDer<'static>,
    pub(crate) expires_at: i64,
}

fn authority(name: &str, now: i64, lifetime: i64, path_length: Option<u8>) -> CertificateParams {
    let mut params = validity(now, now + lifetime);
    // Names of their own: authorities of one trust domain that share a name look like bad signatures, not like strangers.
    let suffix = crate::api::join::hex(&rand::rng().random::<[u8; 4]>());
    params.distinguished_name.push(DnType::CommonName, format!("{name} {suffix}"));
    params.is_ca = IsCa::Ca(path_length.map_or(BasicConstraints::Unconstrained, BasicConstraints::Constrained));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn validity(now: i64, until: i64) -> CertificateParams {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let at = |seconds: i64| epoch + Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
    let mut serial = rand::rng().random::<[u8; 16]>();
    // Positive and without leading zeroes (RFC 5280, section 4.1.2.2).
    serial[0] = serial[0] & 0x7f | 0x40;
    let mut params = CertificateParams::default();
    params.not_before = at(now - CLOCK_SKEW_SECONDS);
    params.not_after = at(until);
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.distinguished_name = DistinguishedName::new();
    params
}

fn key(path: &Path) -> Result<KeyPair, Error> {
    let pem = match read(path)? {
        Some(pem) => pem,
        None => create(path, KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?.serialize_pem().as_bytes())?,
    };
    let unusable = |source: rcgen::Error| Error::Unusable { path: path.to_owned(), source: source.into() };
    KeyPair::from_pem(&pem).map_err(unusable)
}

fn certificate(path: &Path, pem: &str) -> Result<CertificateDer<'static>, Error> {
    let unusable = |source| Error::Unusable { path: path.to_owned(), source };
    tls::pem::certificates("the file", pem).map(|mut found| found.swap_remove(0)).map_err(unusable)
}

fn expiry(path: &Path, pem: &str) -> Result<i64, Error> {
    let der = certificate(path, pem)?;
    let (_, parsed) = x509_parser::parse_x509_certificate(&der).map_err(|e| Error::Unusable {
        path: path.to_owned(),
        source: tls::Error::Certificate { why: e.to_string() },
    })?;
    Ok(parsed.validity().not_after.timestamp())
}

fn private_dir(dir: &Path) -> Result<(), Error> {
    let file_error = |source| Error::File { path: dir.to_owned(), source };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(file_error)?;
    let mode = fs::metadata(dir).map_err(file_error)?.permissions().mode();
    if mode & 0o077 == 0 { Ok(()) } else { Err(Error::Open { path: dir.to_owned() }) }
}

fn read(path: &Path) -> Result<Option<String>, Error> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::File { path: path.to_owned(), source }),
    }
}

/// Writes a new file whole or not at all: a half-written key would lock the mesh out of its own directory.
fn create(path: &Path, bytes: &[u8]) -> Result<String, Error> {
    let file_error = |source| Error::File { path: path.to_owned(), source };
    let draft = path.with_extension("draft");
    let mut file =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft).map_err(file_error)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(file_error)?;
    fs::rename(&draft, path).map_err(file_error)?;
    String::from_utf8(bytes.to_vec()).map_err(|e| file_error(io::Error::other(e)))
}

#[cfg(test)]
mod tests;
