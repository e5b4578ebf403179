//! Bytes: half-close, and the application's own TLS passed through.

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
