//! HTTP/1.1 through two proxies: what the application and its client can do without them, they can do with them.

use super::Pair;
use crate::support::{
    server::{Server, ok},
    wire::{Message, Wire},
};

/// Answers with what it was asked, for tests of what arrives.
async fn mirror(request: Message) -> Vec<u8> {
    let headers: Vec<String> = request.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
    let trailers: Vec<String> = request.trailers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
    ok(format!("{}\n{}\n\n{}\n{}", request.first, headers.join("\n"), request.text(), trailers.join("\n")))
}

#[tokio::test]
async fn requests_on_one_connection_are_answered_in_turn_over_mutual_tls() {
    let server = Server::http1(mirror).await;
    let pair = Pair::around(&server, "http").await;
    let mut client = Wire::connect(pair.addr()).await;
    for n in 0..50 {
        client.send(format!("GET /{n} HTTP/1.1\r\nhost: app\r\n\r\n")).await;
        let response = client.response().await;
        assert_eq!(response.status, 200, "{response:?}");
        assert!(response.text().starts_with(&format!("GET /{n} HTTP/1.1\n")), "{response:?}");
    }
    assert_eq!(server.accepted(), 1, "one connection to the application is enough");
    let samples = pair.app.samples("mesh_").await;
    let secured = samples.iter().any(|(labels, _)| labels.contains("tls=\"mtls\"") && labels.contains("inbound"));
    assert!(secured, "{samples:#?}");
}

#[tokio::test]
async fn nothing_is_added_to_a_request_or_a_response() {
    let server = Server::http1(mirror).await;
    let pair = Pair::around(&server, "http").await;
    let mut client = Wire::connect(pair.addr()).await;
    client.send("GET /a?b=c HTTP/1.1\r\nhost: app.example:81\r\nx-own: 1\r\naccept: */*\r\n\r\n").await;
    let response = client.response().await;
    assert_eq!(response.text(), "GET /a?b=c HTTP/1.1\nhost: app.example:81\nx-own: 1\naccept: */*\n\n\n");
    let names: Vec<&str> = response.headers.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["content-length"], "{response:?}");
}

#[tokio::test]
async fn chunked_bodies_keep_their_trailers_in_both_directions() {
    let server = Server::http1(async |request: Message| {
        let trailers: Vec<String> = request.trailers.iter().map(|(n, v)| format!("{n}: {v}\r\n")).collect();
        let (text, trailers) = (request.text(), trailers.concat());
        let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n";
        format!("{head}{:x}\r\n{text}\r\n0\r\n{trailers}\r\n", text.len()).into_bytes()
    })
    .await;
    let pair = Pair::around(&server, "http").await;
    let mut client = Wire::connect(pair.addr()).await;
    client
        .send("POST / HTTP/1.1\r\nhost: app\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\nte: trailers\r\n\r\n")
        .await;
    client.send("5\r\nhello\r\n7\r\n, world\r\n0\r\nx-sum: 12\r\n\r\n").await;
    let response = client.response().await;
    assert_eq!(response.text(), "hello, world");
    assert_eq!(response.trailers, [("x-sum".to_owned(), "12".to_owned())]);
}

#[tokio::test]
async fn an_expected_100_continue_comes_from_the_application_before_the_body_is_sent() {
    let server = Server::tcp(async |mut wire: Wire| {
        let head = wire.head().await.expect("a request");
        assert_eq!(head.header("expect"), Some("100-continue"), "{head:?}");
        wire.send("HTTP/1.1 100 Continue\r\n\r\n").await;
        let body = wire.bytes(5).await;
        wire.send(ok(body)).await;
        wire.rest().await;
    })
    .await;
    let pair = Pair::around(&server, "http").await;
    let mut client = Wire::connect(pair.addr()).await;
    client.send("PUT / HTTP/1.1\r\nhost: app\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n").await;
    // The application reads nothing of the body before it has said this, and the client sends nothing before it hears it.
    assert_eq!(client.head().await.expect("an interim response").status, 100);
    client.send("12345").await;
    assert_eq!(client.response().await.text(), "12345");
}

#[tokio::test]
async fn a_refused_100_continue_ends_with_the_applications_answer_and_no_body() {
    let server = Server::tcp(async |mut wire: Wire| {
        wire.head().await.expect("a request");
        wire.send("HTTP/1.1 417 Expectation Failed\r\ncontent-length: 2\r\nconnection: close\r\n\r\nno").await;
        wire.finish().await;
        wire.rest().await;
    })
    .await;
    let pair = Pair::around(&server, "http").await;
    let mut client = Wire::connect(pair.addr()).await;
    client.send("PUT / HTTP/1.1\r\nhost: app\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n").await;
    let head = client.head().await.expect("a response");
    assert_eq!(head.status, 417, "{head:?}");
    assert_eq!(client.bytes(2).await, b"no");
}

#[tokio::test]
async fn a_head_response_has_the_length_and_no_body() {
    let server = Server::http1(async |request: Message| {
        if request.first.starts_with("HEAD") {
            return b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n".to_vec();
        }
        ok("next")
    })
    .await;
    let pair = Pair::around(&server, "http").await;
    let mut client = Wire::connect(pair.addr()).await;
    client.send("HEAD / HTTP/1.1\r\nhost: app\r\n\r\n").await;
    let head = client.head().await.expect("a response");
    assert_eq!((head.status, head.header("content-length")), (200, Some("1000")), "{head:?}");
    client.send("GET / HTTP/1.1\r\nhost: app\r\n\r\n").await;
    assert_eq!(client.response().await.text(), "next");
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_their_order() {
    let server = Server::http1(mirror).await;
    let pair = Pair::around(&server, "http").await;
    let mut client = Wire::connect(pair.addr()).await;
    let requests: Vec<String> = (0..20).map(|n| format!("GET /{n} HTTP/1.1\r\nhost: app\r\n\r\n")).collect();
    client.send(requests.concat()).await;
    for n in 0..20 {
        let response = client.response().await;
        assert!(response.text().starts_with(&format!("GET /{n} HTTP/1.1\n")), "{response:?}");
    }
}

#[tokio::test]
async fn an_upgraded_connection_carries_bytes_both_ways_until_either_side_ends_it() {
    let server = Server::tcp(async |mut wire: Wire| {
        let head = wire.head().await.expect("a request");
        assert_eq!(head.header("upgrade"), Some("websocket"), "{head:?}");
        // The first bytes of the new protocol right behind the answer, as a server may send them.
        wire.send("HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\nhi").await;
        while let Some(line) = wire.until(b"\n").await {
            wire.send(line).await;
        }
    })
    .await;
    let pair = Pair::around(&server, "http").await;
    let mut client = Wire::connect(pair.addr()).await;
    client.send("GET /chat HTTP/1.1\r\nhost: app\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n").await;
    let head = client.head().await.expect("a response");
    assert_eq!((head.status, head.header("upgrade")), (101, Some("websocket")), "{head:?}");
    assert_eq!(client.bytes(2).await, b"hi");
    for n in 0..100 {
        let line = format!("{n}{}\n", "x".repeat(n * 100));
        client.send(&line).await;
        assert_eq!(client.bytes(line.len()).await, line.as_bytes());
    }
    client.finish().await;
    assert!(client.rest().await.is_empty());
}

#[tokio::test]
async fn large_bodies_arrive_byte_for_byte() {
    let server = Server::http1(async |request: Message| ok(request.body)).await;
    let pair = Pair::around(&server, "http").await;
    let mut client = Wire::connect(pair.addr()).await;
    let body: Vec<u8> = (0..8 << 20).map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    client.send(format!("POST / HTTP/1.1\r\nhost: app\r\ncontent-length: {}\r\n\r\n", body.len())).await;
    client.send(&body).await;
    assert!(client.response().await.body == body, "the body changed on its way");
}

#[tokio::test]
async fn a_response_without_a_length_ends_with_the_connection() {
    let server = Server::tcp(async |mut wire: Wire| {
        wire.request().await.expect("a request");
        wire.send("HTTP/1.0 200 OK\r\ncontent-type: text/plain\r\n\r\nuntil the end").await;
        wire.finish().await;
    })
    .await;
    let pair = Pair::around(&server, "http").await;
    let mut client = Wire::connect(pair.addr()).await;
    client.send("GET / HTTP/1.1\r\nhost: app\r\n\r\n").await;
    assert_eq!(client.response().await.text(), "until the end");
}

#[tokio::test]
async fn a_request_that_could_be_read_in_two_ways_is_refused() {
    let server = Server::http1(mirror).await;
    let pair = Pair::around(&server, "http").await;
    let smuggled = "5\r\nhello\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: app\r\n\r\n";
    for head in [
        "POST / HTTP/1.1\r\nhost: app\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello",
        "POST / HTTP/1.1\r\nhost: app\r\ntransfer-encoding: chunked, identity\r\n\r\n",
        "GET / HTTP/1.1\r\nhost : app\r\n\r\n",
    ] {
        let mut client = Wire::connect(pair.addr()).await;
        client.send(head).await;
        client.try_send(smuggled).await;
        let response = client.response().await;
        assert_eq!(response.status, 400, "{head:?} gave {response:?}");
        assert!(client.try_response().await.is_none(), "{head:?}: the connection must not be used further");
    }
}

#[tokio::test]
async fn an_answer_before_the_end_of_the_request_arrives_whole() {
    // So large that some of it waits at the client's proxy when the rest of the request is declined there.
    const ANSWER: usize = 8 << 20;
    let server = Server::tcp(async |mut wire: Wire| {
        wire.head().await.expect("a request");
        wire.bytes(1 << 20).await;
        wire.send(format!("HTTP/1.1 413 Content Too Large\r\ntransfer-encoding: chunked\r\n\r\n{ANSWER:x}\r\n")).await;
        wire.send(vec![b'y'; ANSWER]).await;
        wire.send("\r\n0\r\n\r\n").await;
        // Takes what was on its way, so that the answer is not overtaken by a reset.
        wire.finish().await;
        wire.rest().await;
    })
    .await;
    let pair = Pair::around(&server, "http").await;
    let mut client = Wire::connect(pair.addr()).await;
    client.send(format!("POST / HTTP/1.1\r\nhost: app\r\ncontent-length: {}\r\n\r\n", 64 << 20)).await;
    client.try_send(vec![b'x'; 6 << 20]).await;
    let response = client.response().await;
    assert_eq!((response.status, response.body.len()), (413, ANSWER));
}

#[tokio::test]
async fn answers_that_have_no_body_by_definition_keep_their_headers() {
    let server = Server::http1(async |request: Message| {
        let head = if request.first.contains("/304") {
            "304 Not Modified\r\ncontent-length: 1000\r\netag: \"a\""
        } else {
            "204 No Content\r\netag: \"a\""
        };
        format!("HTTP/1.1 {head}\r\n\r\n").into_bytes()
    })
    .await;
    let pair = Pair::around(&server, "http").await;
    let mut client = Wire::connect(pair.addr()).await;
    for status in [304, 204, 304] {
        client.send(format!("GET /{status} HTTP/1.1\r\nhost: app\r\n\r\n")).await;
        let response = client.response().await;
        assert_eq!((response.status, response.header("etag")), (status, Some("\"a\"")), "{response:?}");
    }
}

#[tokio::test]
async fn targets_and_clients_of_every_form_arrive_as_they_mean() {
    let server = Server::http1(mirror).await;
    let pair = Pair::around(&server, "http").await;
    for (sent, first, host) in [
        ("OPTIONS * HTTP/1.1\r\nhost: app\r\n\r\n", "OPTIONS * HTTP/1.1", "host: app"),
        ("GET http://u:p@other:81/a HTTP/1.1\r\nhost: app\r\n\r\n", "GET /a HTTP/1.1", "host: other:81"),
        ("GET /b HTTP/1.1\r\nhost: app\r\nte: trailers\r\nte: gzip\r\n\r\n", "GET /b HTTP/1.1", "host: app"),
        // A request of HTTP/1.0 need not have a Host, one of 1.1 must (RFC 9112 section 3.2).
        ("GET /c HTTP/1.0\r\n\r\n", "GET /c HTTP/1.1", "host: "),
        // An obsolete offer, which a request can be answered without (RFC 9113 section 3.1).
        (
            "GET /d HTTP/1.1\r\nhost: app\r\nconnection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AA\r\n\r\n",
            "GET /d HTTP/1.1",
            "host: app",
        ),
    ] {
        let mut client = Wire::connect(pair.addr()).await;
        client.send(sent).await;
        let response = client.response().await;
        let text = response.text();
        let mut lines = text.lines();
        assert_eq!((response.status, lines.next()), (200, Some(first)), "{sent:?} gave {response:?}");
        assert!(lines.any(|line| line == host), "{sent:?} gave {text}");
        assert!(!text.contains("upgrade"), "{sent:?} gave {text}");
    }
}

#[tokio::test]
async fn a_connect_request_becomes_a_tunnel() {
    let server = Server::tcp(async |mut wire: Wire| {
        let head = wire.head().await.expect("a request");
        assert_eq!(head.first, "CONNECT other:443 HTTP/1.1", "{head:?}");
        wire.send("HTTP/1.1 200 OK\r\n\r\n").await;
        while let Some(line) = wire.until(b"\n").await {
            wire.send(line).await;
        }
    })
    .await;
    let pair = Pair::around(&server, "http").await;
    let mut client = Wire::connect(pair.addr()).await;
    client.send("CONNECT other:443 HTTP/1.1\r\nhost: other:443\r\n\r\n").await;
    assert_eq!(client.head().await.expect("a response").status, 200);
    client.send("hello\n").await;
    assert_eq!(client.bytes(6).await, b"hello\n");
}
