//! What a connection speaks, from its first bytes. Pure: see `race` for who reads them.
//!
//! Verdicts are monotone: more bytes of the same connection never change one, they only end [`Client::NeedMore`].

use crate::tls::hello::{self, Hello};

/// What the client's first bytes are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Client {
    /// Could still become one of several. `worth_waiting` when it is the beginning of HTTP or TLS beyond much doubt.
    NeedMore {
        worth_waiting: bool,
    },
    /// A request line of HTTP/1.0 or 1.1 (RFC 9112 section 3).
    Http1,
    /// The connection preface (RFC 9113 section 3.4).
    Http2,
    /// A ClientHello (RFC 8446 section 4.1.2).
    Tls {
        sni: Option<String>,
        alpn: Vec<Vec<u8>>,
    },
    Opaque,
}

/// What the server's first bytes are, on a connection whose client is silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Server {
    NeedMore,
    /// An HTTP/2 SETTINGS frame, or an HTTP/1 response that nobody asked for (an early 408): HTTP servers may speak
    /// first, so this decides nothing.
    MaybeHttp,
    Opaque,
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A longer request line is not waited for: what is not HTTP by then is opaque.
const MAX_REQUEST_LINE: usize = 16 << 10;

/// RFC 9110 section 9, PATCH (RFC 5789) and the commoner ones of WebDAV.
const METHODS: &[&[u8]] = &[
    b"GET",
    b"HEAD",
    b"POST",
    b"PUT",
    b"DELETE",
    b"CONNECT",
    b"OPTIONS",
    b"TRACE",
    b"PATCH",
    b"PROPFIND",
    b"REPORT",
    b"QUERY",
];

const MAX_METHOD: usize = 24;

/// Classifies what a client sent so far.
pub(crate) fn client(bytes: &[u8]) -> Client {
    if bytes.is_empty() {
        return Client::NeedMore { worth_waiting: false };
    }
    let common = bytes.len().min(PREFACE.len());
    if bytes[..common] == PREFACE[..common] {
        // "P" and "PR" may yet become PROPFIND; from "PRI " on nothing else is meant.
        return if common == PREFACE.len() { Client::Http2 } else { Client::NeedMore { worth_waiting: common > 3 } };
    }
    match hello::peek(bytes) {
        Hello::Client { sni, alpn } => return Client::Tls { sni, alpn },
        Hello::NeedMore => return Client::NeedMore { worth_waiting: true },
        Hello::NotTls => {}
    }
    request_line(bytes)
}

fn request_line(bytes: &[u8]) -> Client {
    // RFC 9112 section 2.2: a server should ignore an empty line before the request line.
    let line = bytes.strip_prefix(b"\r\n").unwrap_or(bytes);
    let method_len = line.iter().take(MAX_METHOD + 1).take_while(|b| b.is_ascii_uppercase() || **b == b'-').count();
    let method = &line[..method_len];
    match line.get(method_len) {
        None if line.is_empty() || method_len <= MAX_METHOD => {
            let worth_waiting = !line.is_empty() && METHODS.iter().any(|known| known == &method);
            return Client::NeedMore { worth_waiting };
        }
        Some(b' ') if method_len > 0 && method_len <= MAX_METHOD => {}
        _ => return Client::Opaque,
    }
    match line.iter().take(MAX_REQUEST_LINE).position(|b| *b == b'\n') {
        Some(end) => {
            let line = line[..end].strip_suffix(b"\r").unwrap_or(&line[..end]);
            if is_http1_version(line) { Client::Http1 } else { Client::Opaque }
        }
        None if line.len() < MAX_REQUEST_LINE => {
            Client::NeedMore { worth_waiting: METHODS.iter().any(|known| known == &method) }
        }
        // A request line beyond the limit, of a method that exists: HTTP, to be answered with 414.
        None if METHODS.iter().any(|known| known == &method) => Client::Http1,
        None => Client::Opaque,
    }
}

fn is_http1_version(line: &[u8]) -> bool {
    line.len() > 9 && matches!(&line[line.len() - 9..], b" HTTP/1.1" | b" HTTP/1.0")
}

/// Classifies what a server sent so far while its client was silent.
pub(crate) fn server(bytes: &[u8]) -> Server {
    const STATUS_LINE: &[u8] = b"HTTP/1.";
    if bytes.is_empty() {
        return Server::NeedMore;
    }
    let common = bytes.len().min(STATUS_LINE.len());
    if bytes[..common] == STATUS_LINE[..common] {
        return if common == STATUS_LINE.len() { Server::MaybeHttp } else { Server::NeedMore };
    }
    settings_frame(bytes)
}

/// A server's preface is a SETTINGS frame: length a multiple of 6, type 4, no flags, stream 0 (RFC 9113 sections 3.4 and 6.5).
fn settings_frame(bytes: &[u8]) -> Server {
    const HEADER: usize = 9;
    /// As many settings as anybody sends, tenfold.
    const MAX_LENGTH: usize = 600;
    let fits = |index: usize, allowed: fn(u8) -> bool| bytes.get(index).is_none_or(|b| allowed(*b));
    let shape = fits(0, |b| b == 0)
        && fits(1, |b| usize::from(b) <= MAX_LENGTH / 256)
        && fits(3, |b| b == 4)
        && (4..HEADER).all(|index| fits(index, |b| b == 0));
    if !shape {
        return Server::Opaque;
    }
    if bytes.len() < HEADER {
        return Server::NeedMore;
    }
    let length = usize::from(bytes[1]) * 256 + usize::from(bytes[2]);
    if length.is_multiple_of(6) && length <= MAX_LENGTH { Server::MaybeHttp } else { Server::Opaque }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn knows_http_1_by_its_whole_request_line() {
        assert_eq!(client(b"GET / HTTP/1.1\r\nhost: a\r\n"), Client::Http1);
        assert_eq!(client(b"MKACTIVITY /x HTTP/1.1\r\n"), Client::Http1);
        assert_eq!(client(b"\r\nGET / HTTP/1.0\n"), Client::Http1);
        assert_eq!(client(b"GET / HT"), Client::NeedMore { worth_waiting: true });
        assert_eq!(client(b"GET key\r\n"), Client::Opaque);
        assert_eq!(client(b"EHLO me\r\n"), Client::Opaque);
        assert_eq!(client(b"hello"), Client::Opaque);
        assert_eq!(client(b"HELLO"), Client::NeedMore { worth_waiting: false });
    }

    #[test]
    fn knows_http_2_by_its_preface() {
        assert_eq!(client(PREFACE), Client::Http2);
        assert_eq!(client(&PREFACE[..10]), Client::NeedMore { worth_waiting: true });
        assert_eq!(client(b"PRI * HTTP/2.0\r\n\r\nXX"), Client::Opaque);
    }

    #[test]
    fn servers_that_may_be_http_decide_nothing() {
        assert_eq!(server(&[0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 3]), Server::MaybeHttp);
        assert_eq!(server(b"HTTP/1.1 408 Request Timeout\r\n"), Server::MaybeHttp);
        assert_eq!(server(b"HTTP"), Server::NeedMore);
        // MariaDB's greeting: a little-endian length, sequence 0, protocol 10.
        assert_eq!(server(&[0x6e, 0, 0, 0, 10, b'5']), Server::Opaque);
        assert_eq!(server(b"220 mail ready\r\n"), Server::Opaque);
    }

    fn openings() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            prop::collection::vec(any::<u8>(), 0..64),
            prop::sample::select(vec![
                b"GET /a/b?c HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(),
                b"PROPFIND / HTTP/1.1\r\n".to_vec(),
                b"GET nothing\r\n".to_vec(),
                PREFACE.to_vec(),
                b"PRI * HTTP/1.1\r\n".to_vec(),
                b"\x16\x03\x01\x00\x05hello".to_vec(),
                vec![0, 0, 18, 4, 0, 0, 0, 0, 0, 1],
            ]),
        ]
    }

    proptest! {
        #[test]
        fn a_verdict_never_changes_with_more_bytes(bytes in openings(), cut in 0usize..64) {
            let cut = cut.min(bytes.len());
            let early = client(&bytes[..cut]);
            if !matches!(early, Client::NeedMore { .. }) {
                prop_assert_eq!(early, client(&bytes));
            }
            let early = server(&bytes[..cut]);
            if early != Server::NeedMore {
                prop_assert_eq!(early, server(&bytes));
            }
        }
    }
}
