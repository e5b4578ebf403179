//! Handshakes in memory, between identities made here.

use std::io::{Read, Write};

use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::{
    ClientConnection, HandshakeKind, NamedGroup, ProtocolVersion, ServerConnection,
    pki_types::{PrivatePkcs8KeyDer, ServerName},
};

use super::*;

struct Authority {
    root: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new(name: &str) -> Self {
        let (mut params, key) = (CertificateParams::default(), KeyPair::generate().unwrap());
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let root = params.self_signed(&key).unwrap().pem();
        Self { root, issuer: Issuer::new(params, key) }
    }

    /// A leaf with these URIs as its names, and its key.
    fn leaf(&self, uris: &[&str], years: std::ops::Range<i32>) -> (PrivateKeyDer<'static>, String) {
        let (mut params, key) = (CertificateParams::default(), KeyPair::generate().unwrap());
        params.subject_alt_names = uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())).collect();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.not_before = rcgen::date_time_ymd(years.start, 1, 1);
        params.not_after = rcgen::date_time_ymd(years.end, 1, 1);
        let leaf = params.signed_by(&key, &self.issuer).unwrap().pem();
        (PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())), leaf)
    }

    fn identity(&self, account: &str) -> Identity {
        let (key, leaf) = self.leaf(&[&uri(account)], FRESH);
        Identity::new(key, &leaf, &self.root).unwrap()
    }
}

const FRESH: std::ops::Range<i32> = 2020..2120;

fn uri(account: &str) -> String {
    format!("spiffe://local/ns/shop/sa/{account}")
}

type Ends = (ClientConnection, ServerConnection);

/// Shakes hands and exchanges a word, as the client then hears of a refusal; the error is of whoever found it.
fn shake(client: Arc<ClientConfig>, server: Arc<ServerConfig>) -> Result<Ends, rustls::Error> {
    let mut client = ClientConnection::new(client, ServerName::try_from("peer").unwrap()).unwrap();
    let mut server = ServerConnection::new(server).unwrap();
    client.writer().write_all(b"hello").unwrap();
    for _ in 0..10 {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        server.read_tls(&mut wire.as_slice()).unwrap();
        server.process_new_packets()?;
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        client.read_tls(&mut wire.as_slice()).unwrap();
        client.process_new_packets()?;
    }
    let mut word = [0; 5];
    server.reader().read_exact(&mut word).unwrap();
    Ok((client, server))
}

fn refusal(client: Arc<ClientConfig>, server: Arc<ServerConfig>) -> &'static str {
    shake(client, server).map_or_else(|error| reason::of_rustls(&error), |_| "none")
}

#[test]
fn two_proxies_know_each_other_and_what_the_connection_carries() {
    let mesh = Authority::new("root");
    let (web, orders) = (mesh.identity("web"), mesh.identity("orders"));
    for alpn in Alpn::ALL {
        let (client, server) = shake(web.client(alpn), Arc::clone(&orders.server)).unwrap();
        assert_eq!(peer_id(client.peer_certificates()), Some(orders.id.clone()));
        assert_eq!(peer_id(server.peer_certificates()), Some(web.id.clone()));
        assert_eq!(server.alpn_protocol().and_then(Alpn::from_id), Some(alpn));
        assert_eq!(client.protocol_version(), Some(ProtocolVersion::TLSv1_3));
        assert_eq!(client.handshake_kind(), Some(HandshakeKind::Full));
        assert_eq!(client.negotiated_key_exchange_group().map(|g| g.name()), Some(NamedGroup::X25519MLKEM768));
    }
}

#[test]
fn a_second_connection_is_not_a_resumed_one() {
    let mesh = Authority::new("root");
    let (web, orders) = (mesh.identity("web"), mesh.identity("orders"));
    for _ in 0..2 {
        let (client, _) = shake(web.client(Alpn::Http2), Arc::clone(&orders.server)).unwrap();
        assert_eq!(client.handshake_kind(), Some(HandshakeKind::Full));
    }
}

#[test]
fn strangers_are_refused_with_a_reason() {
    let (mesh, other) = (Authority::new("root"), Authority::new("other root"));
    let (ours, foreign) = (mesh.identity("web"), other.identity("web"));
    assert_eq!(refusal(ours.client(Alpn::Http2), Arc::clone(&foreign.server)), "unknown_issuer");
    let both = format!("{}{}", mesh.root, other.root);
    let trusting = ours.with_trust_anchors(&both).unwrap();
    assert_eq!(refusal(trusting.client(Alpn::Http2), Arc::clone(&foreign.server)), "unknown_issuer");
    let welcoming = foreign.with_trust_anchors(&both).unwrap();
    assert_eq!(refusal(trusting.client(Alpn::Http2), Arc::clone(&welcoming.server)), "none");
}

#[test]
fn certificates_out_of_their_time_or_without_an_identity_are_refused() {
    let mesh = Authority::new("root");
    let server = mesh.identity("orders").server;
    let roots = Arc::new(pem::roots(&mesh.root).unwrap());
    let cases: [(&[&str], std::ops::Range<i32>, &str); 5] = [
        (&["spiffe://local/ns/shop/sa/web"], 2000..2001, "certificate_expired"),
        (&["spiffe://local/ns/shop/sa/web"], 2110..2120, "certificate_not_yet_valid"),
        (&["https://example.com"], FRESH, "no_identity"),
        (&["spiffe://local/ns/shop/sa/web", "spiffe://local/ns/shop/sa/admin"], FRESH, "no_identity"),
        (&["spiffe://local/ns/shop/sa/web"], FRESH, "none"),
    ];
    for (uris, years, expected) in cases {
        let (key, leaf) = mesh.leaf(uris, years);
        let own = config::certified(pem::certificates("leaf", &leaf).unwrap(), key).unwrap();
        let client = config::client(&roots, Some(&own), None, Alpn::Http2.id()).unwrap();
        assert_eq!(refusal(client, Arc::clone(&server)), expected, "{uris:?} as a client");
        let alpn = vec![Alpn::Http2.id()];
        let serving = config::server(&roots, &own, config::ClientAuth::Required, alpn).unwrap();
        assert_eq!(refusal(mesh.identity("web").client(Alpn::Http2), serving), expected, "{uris:?} as a server");
    }
    let anonymous = config::client(&roots, None, None, Alpn::Http2.id()).unwrap();
    assert_eq!(refusal(anonymous, Arc::clone(&server)), "no_certificate");
    let web = mesh.identity("web");
    let unknown = config::client(&roots, None, None, b"http/1.1").unwrap();
    assert_eq!(refusal(unknown, Arc::clone(&web.server)), "no_common_alpn");
}

#[test]
fn only_the_controller_passes_for_the_controller() {
    let mesh = Authority::new("root");
    let serve = |uri: &str| {
        let (key, leaf) = mesh.leaf(&[uri], FRESH);
        let chain = pem::certificates("chain", &format!("{leaf}{}", mesh.root)).unwrap();
        let own = config::certified(chain, key).unwrap();
        let roots = Arc::new(pem::roots(&mesh.root).unwrap());
        config::server(&roots, &own, config::ClientAuth::Optional, vec![API_ALPN]).unwrap()
    };
    let controller = serve("spiffe://local/ns/mesh-system/sa/mesh-controller");
    let root = pem::certificates("root", &mesh.root).unwrap().swap_remove(0);
    let pinned = config::pinned_client(verify::fingerprint(&root), API_ALPN).unwrap();
    let web = mesh.identity("web");
    for client in [&pinned, &web.controller()] {
        assert_eq!(refusal(Arc::clone(client), Arc::clone(&controller)), "none");
        assert_eq!(refusal(Arc::clone(client), serve(&uri("mesh-controller"))), "wrong_identity");
    }
    let elsewhere = serve("spiffe://elsewhere/ns/mesh-system/sa/mesh-controller");
    assert_eq!(refusal(web.controller(), elsewhere), "wrong_identity");
    let other = config::pinned_client([0; 32], API_ALPN).unwrap();
    assert_eq!(refusal(other, controller), "not_pinned");
}

#[test]
fn an_identity_says_until_when() {
    let identity = Authority::new("root").identity("web");
    assert_eq!(identity.expires_at, 4_733_510_400);
    assert!(identity.is_expired(identity.expires_at) && !identity.is_expired(identity.expires_at - 1));
    assert!(!format!("{identity:?}").to_lowercase().contains("key"), "{identity:?}");
}

#[test]
fn unusable_material_is_an_error() {
    let mesh = Authority::new("root");
    let (key, leaf) = mesh.leaf(&[&uri("web")], FRESH);
    let (other_key, _) = mesh.leaf(&[&uri("web")], FRESH);
    assert!(matches!(Identity::new(key.clone_key(), "", &mesh.root), Err(Error::Empty { .. })));
    assert!(matches!(Identity::new(key.clone_key(), &leaf, "no PEM"), Err(Error::Empty { .. })));
    assert!(matches!(Identity::new(other_key, &leaf, &mesh.root), Err(Error::Rustls(_))));
    assert!(Identity::new(key, &leaf, &mesh.root).is_ok());
}

#[test]
fn a_reason_survives_being_wrapped() {
    let expired = rustls::Error::InvalidCertificate(rustls::CertificateError::Expired);
    let error = std::io::Error::other(std::io::Error::other(expired));
    assert_eq!(reason(&error), "certificate_expired");
    let alert = rustls::Error::AlertReceived(rustls::AlertDescription::UnknownCA).to_string();
    assert_eq!(reason(&std::io::Error::new(std::io::ErrorKind::InvalidData, alert)), "refused_unknown_issuer");
    assert_eq!(reason(&std::io::ErrorKind::ConnectionRefused.into()), "connection_refused");
}
