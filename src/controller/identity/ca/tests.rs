//! The authority on disk: made once, opened again, never overwritten.

use super::*;
use crate::tls::{csr::Key, leaf};

const NOW: i64 = 1_800_000_000;

fn open(dir: &Path, now: i64) -> Result<Ca, Error> {
    Ca::open(&dir.join("ca"), "local", Duration::from_secs(3600), now)
}

fn web() -> SpiffeId {
    SpiffeId::new("local", "shop", "web")
}

#[test]
fn what_was_made_once_is_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    let (first, again) = (open(dir.path(), NOW).unwrap(), open(dir.path(), NOW + 1).unwrap());
    assert_eq!(first.pin(), again.pin());
    assert_eq!((&first.issuer_pem, &first.token_secret), (&again.issuer_pem, &again.token_secret));
    let later = open(dir.path(), NOW + ISSUER_LIFETIME_SECONDS - 100).unwrap();
    assert_eq!(first.pin(), later.pin());
    assert_ne!(first.issuer_pem, later.issuer_pem, "an issuer about to expire is replaced");
    for entry in fs::read_dir(dir.path().join("ca")).unwrap() {
        assert_eq!(entry.unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }
}

#[test]
fn a_damaged_or_open_directory_is_refused_not_repaired() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path(), NOW).unwrap());
    let key = dir.path().join("ca/root.key");
    fs::write(&key, "damaged").unwrap();
    assert!(matches!(open(dir.path(), NOW), Err(Error::Unusable { path, .. }) if path == key));
    fs::set_permissions(dir.path().join("ca"), fs::Permissions::from_mode(0o755)).unwrap();
    assert!(matches!(open(dir.path(), NOW), Err(Error::Open { .. })));
}

#[test]
fn a_leaf_is_for_whom_it_was_granted_and_tolerates_a_slow_clock() {
    let dir = tempfile::tempdir().unwrap();
    let ca = open(dir.path(), NOW).unwrap();
    let csr = Key::generate().unwrap().request(&web()).unwrap();
    let answer = ca.sign(&csr, &web(), NOW).unwrap();
    let chain = tls::pem::certificates("chain", &answer.chain).unwrap();
    assert_eq!(chain.len(), 2, "leaf and issuer, not the root");
    let leaf = leaf::inspect(&chain[0]).unwrap();
    assert_eq!((leaf.id, leaf.expires_at), (web(), NOW + 3600));
    let (_, parsed) = x509_parser::parse_x509_certificate(&chain[0]).unwrap();
    assert_eq!(parsed.validity().not_before.timestamp(), NOW - CLOCK_SKEW_SECONDS);
    assert_eq!(answer.expires_at, NOW + 3600);
}

#[test]
fn requests_that_ask_for_more_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let ca = open(dir.path(), NOW).unwrap();
    let other = Key::generate().unwrap().request(&SpiffeId::new("local", "bank", "vault")).unwrap();
    assert!(matches!(ca.sign(&other, &web(), NOW), Err(Error::OtherIdentity { .. })));
    assert!(matches!(ca.sign("no PEM", &web(), NOW), Err(Error::Request(_))));
    let name = CertificateParams::new(vec!["web.shop.example".to_owned()]).unwrap();
    let dns = name.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap();
    assert!(matches!(ca.sign(&dns, &web(), NOW), Err(Error::Request(_))));
    let ed25519 = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let weak = CertificateParams::default().serialize_request(&ed25519).unwrap().pem().unwrap();
    assert!(matches!(ca.sign(&weak, &web(), NOW), Err(Error::Request(_))));
    // A request whose signature is not that of its key.
    let mut der = pem_body(&Key::generate().unwrap().request(&web()).unwrap());
    let last = der.len() - 1;
    der[last] ^= 1;
    assert!(matches!(ca.sign(&pem_of(&der), &web(), NOW), Err(Error::Request(_))));
}

fn pem_body(pem: &str) -> Vec<u8> {
    use base64::{Engine, prelude::BASE64_STANDARD};
    let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    BASE64_STANDARD.decode(body).unwrap()
}

fn pem_of(der: &[u8]) -> String {
    use base64::{Engine, prelude::BASE64_STANDARD};
    let body = BASE64_STANDARD.encode(der);
    format!("-----BEGIN CERTIFICATE REQUEST-----\n{body}\n-----END CERTIFICATE REQUEST-----\n")
}

#[test]
fn more_anchors_are_trusted_only_if_they_are_whole() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (ca, foreign) = (open(dir.path(), NOW).unwrap(), open(other.path(), NOW).unwrap());
    assert_eq!(tls::pem::roots(&ca.trust_anchors()).unwrap().len(), 1);
    fs::write(dir.path().join("ca/anchors.crt"), &foreign.root_pem).unwrap();
    assert_eq!(tls::pem::roots(&ca.trust_anchors()).unwrap().len(), 2);
    fs::write(dir.path().join("ca/anchors.crt"), &foreign.root_pem[..100]).unwrap();
    assert_eq!(tls::pem::roots(&ca.trust_anchors()).unwrap().len(), 1);
}
