//! Real hellos of rustls, cut and framed in every way, and hostile bytes.

use std::sync::Arc;

use proptest::prelude::*;
use rustls::{ClientConfig, ClientConnection, RootCertStore, pki_types::ServerName};

use super::*;
use crate::tls::{Alpn, config::PROVIDER};

/// What a client sends first, as it goes over the wire.
fn hello(name: &'static str, alpn: &[&[u8]]) -> Vec<u8> {
    let builder = ClientConfig::builder_with_provider(Arc::clone(&PROVIDER));
    let builder = builder.with_protocol_versions(&[&rustls::version::TLS13]).unwrap();
    let mut config = builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|id| id.to_vec()).collect();
    let mut client = ClientConnection::new(Arc::new(config), ServerName::try_from(name).unwrap()).unwrap();
    let mut wire = Vec::new();
    client.write_tls(&mut wire).unwrap();
    wire
}

/// The same handshake bytes in records of at most `size`.
fn reframed(wire: &[u8], size: usize) -> Vec<u8> {
    let message = &wire[RECORD_HEADER..];
    let records = message.chunks(size).map(|part| {
        let length = u16::try_from(part.len()).unwrap().to_be_bytes();
        [&[22, 3, 1], length.as_slice(), part].concat()
    });
    records.collect::<Vec<_>>().concat()
}

#[test]
fn a_hello_of_several_records_is_read_whole() {
    let wire = hello("db.shop.example", &[b"h2", b"http/1.1"]);
    assert!(wire.len() > 1200, "post-quantum shares are large: {}", wire.len());
    let expected =
        Hello::Client { sni: Some("db.shop.example".into()), alpn: vec![b"h2".to_vec(), b"http/1.1".to_vec()] };
    for size in [1, 2, 3, 100, 1000, 16_000] {
        let framed = reframed(&wire, size);
        assert_eq!(peek(&framed), expected, "records of {size}");
    }
}

#[test]
fn mesh_traffic_is_known_by_its_alpn_and_addresses_are_no_names() {
    let expected = Hello::Client { sni: None, alpn: vec![Alpn::Opaque.id().to_vec()] };
    assert_eq!(peek(&hello("10.0.0.1", &[Alpn::Opaque.id()])), expected);
}

#[test]
fn other_protocols_are_told_at_once() {
    for first in [b"G".as_slice(), b"PRI * HTTP/2.0", &[22, 2], &[23, 3, 3], &[22, 3, 1, 0, 0], &[22, 3, 1, 0, 9, 2]] {
        assert_eq!(peek(first), Hello::NotTls, "{first:?}");
    }
    assert_eq!(peek(&[]), Hello::NeedMore);
    assert_eq!(peek(&[22, 3, 1, 2, 0, 1]), Hello::NeedMore);
}

#[test]
fn a_hello_that_does_not_end_is_given_up() {
    let endless = [&[22, 3, 1, 0x40, 0, 1, 0, 0x3f, 0xff], vec![0; MAX].as_slice()].concat();
    assert_eq!(peek(&endless[..MAX - 1]), Hello::NeedMore);
    assert_eq!(peek(&endless), Hello::NotTls);
}

/// Every longer prefix must say what the first decided one said.
fn assert_monotone(bytes: &[u8]) {
    let mut decided: Option<Hello> = None;
    for end in 0..=bytes.len() {
        let verdict = peek(&bytes[..end]);
        match &decided {
            Some(first) => assert_eq!(&verdict, first, "at {end}"),
            None if verdict != Hello::NeedMore => decided = Some(verdict),
            None => {}
        }
    }
}

proptest! {
    #[test]
    fn hostile_bytes_never_panic_and_verdicts_are_monotone(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        assert_monotone(&bytes);
    }

    #[test]
    fn what_looks_like_a_hello_is_judged_monotonically(
        records in prop::collection::vec((0u8..5, prop::collection::vec(0u8..4, 0..40)), 0..6),
    ) {
        let mut bytes = Vec::new();
        for (minor, payload) in records {
            bytes.extend([22, 3, minor, 0, payload.len() as u8]);
            bytes.extend(payload);
        }
        assert_monotone(&bytes);
    }

    #[test]
    fn a_damaged_hello_never_panics(at in 0usize..1500, value: u8, size in 1usize..2000, more in 0usize..50) {
        let mut wire = hello("a.example", &[b"h2"]);
        let at = at % wire.len();
        wire[at] = value;
        let mut framed = reframed(&wire, size);
        framed.extend(vec![7; more]);
        for end in (0..framed.len()).step_by(97) {
            let _ = peek(&framed[..end]);
        }
        let _ = peek(&framed);
    }

    #[test]
    fn the_verdict_does_not_depend_on_the_framing(size in 1usize..2000) {
        let wire = hello("a.example", &[b"mesh/h2"]);
        let framed = reframed(&wire, size);
        prop_assert_eq!(peek(&framed), peek(&wire));
    }
}
