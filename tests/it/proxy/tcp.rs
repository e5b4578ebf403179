//! Bytes: half-close, and the application's own TLS passed through.

use std::sync::Arc;

use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    pki_types::{PrivateKeyDer, ServerName},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::Pair;
use crate::support::{server::Server, wire::Wire};

#[tokio::test]
async fn each_direction_of_a_connection_ends_by_itself() {
    // Answers only after the client has said that it is done: a proxy that closes both directions at once loses it.
    let server = Server::tcp(async |mut wire: Wire| {
        let all = wire.rest().await;
        wire.send(format!("{} bytes", all.len())).await;
        wire.finish().await;
    })
    .await;
    let pair = Pair::around(&server, "tcp").await;
    let mut client = Wire::connect(pair.addr()).await;
    client.send(vec![7; 3 << 20]).await;
    client.finish().await;
    assert_eq!(client.rest().await, format!("{} bytes", 3 << 20).as_bytes());
}

#[tokio::test]
async fn bytes_that_are_no_protocol_we_know_pass_unchanged() {
    let server = Server::tcp(async |mut wire: Wire| {
        while let Some(line) = wire.until(b"\n").await {
            wire.send(line).await;
        }
    })
    .await;
    let pair = Pair::around(&server, "").await;
    let mut client = Wire::connect(pair.addr()).await;
    for line in ["\0\x01\x02 binary\n", "PING\n", "GET me a coffee\n"] {
        client.send(line).await;
        assert_eq!(client.bytes(line.len()).await, line.as_bytes());
    }
}

#[tokio::test]
async fn the_applications_own_tls_passes_untouched() {
    let own = own_tls();
    let acceptor = TlsAcceptor::from(own.server);
    let server = Server::streams(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let mut wire = Wire::over(acceptor.accept(stream).await.expect("a handshake with the client itself"));
            while let Some(line) = wire.until(b"\n").await {
                wire.send(line).await;
            }
        }
    })
    .await;
    for protocol in ["", "https"] {
        let pair = Pair::around(&server, protocol).await;
        let stream = TcpStream::connect(pair.addr()).await.expect("the proxy listens");
        let name = ServerName::try_from("secret.example").expect("a name");
        // Trusts the application's certificate alone: nobody in between can have ended this.
        let stream = TlsConnector::from(own.client.clone()).connect(name, stream).await.expect("a handshake");
        let mut client = Wire::over(stream);
        for n in 0..10 {
            let line = format!("{n} {}\n", "x".repeat(n * 5000));
            client.send(&line).await;
            assert_eq!(client.bytes(line.len()).await, line.as_bytes());
        }
        // The first connection on a described or a detected port: both are seen as TLS.
        let samples = pair.web.samples("mesh_tcp_connections_opened_total").await;
        assert!(samples.keys().any(|l| l.contains("protocol=\"tls\"")), "{protocol:?}: {samples:#?}");
    }
}

struct OwnTls {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

/// A server's certificate for `secret.example` that signs itself, and a client that trusts nothing else.
fn own_tls() -> OwnTls {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let own = rcgen::generate_simple_self_signed(vec!["secret.example".to_owned()]).expect("a certificate");
    let certificate = own.cert.der().clone();
    let key = PrivateKeyDer::try_from(own.signing_key.serialize_der()).expect("a key");
    let server = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
    let server = server.expect("versions").with_no_client_auth().with_single_cert(vec![certificate.clone()], key);
    let mut roots = RootCertStore::empty();
    roots.add(certificate).expect("a certificate");
    let client = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let client = client.expect("versions").with_root_certificates(roots).with_no_client_auth();
    OwnTls { server: Arc::new(server.expect("a key of that certificate")), client: Arc::new(client) }
}
