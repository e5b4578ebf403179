//! What a ClientHello asks for, read from the first bytes of a connection without answering: SNI and ALPN.
//!
//! Pure. A post-quantum hello spans segments, and may span records (RFC 8446, section 5.1): it is put together from up to
//! [`MAX`] bytes. The verdict is monotone: more bytes never change one that was not [`Hello::NeedMore`].

/// As many bytes of a connection are looked at; a hello that is not complete by then is not taken for TLS.
pub(crate) const MAX: usize = 16 << 10;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Hello {
    NeedMore,
    NotTls,
    Client { sni: Option<String>, alpn: Vec<Vec<u8>> },
}

/// Judges the first bytes of a connection.
pub(crate) fn peek(bytes: &[u8]) -> Hello {
    let seen = &bytes[..bytes.len().min(MAX)];
    match message(seen) {
        Message::Incomplete if seen.len() == MAX => Hello::NotTls,
        Message::Incomplete => Hello::NeedMore,
        Message::Malformed => Hello::NotTls,
        Message::Whole(body) => parse(&body).unwrap_or(Hello::NotTls),
    }
}

enum Message {
    Incomplete,
    Malformed,
    /// The body of the ClientHello, without its handshake header.
    Whole(Vec<u8>),
}

const RECORD_HEADER: usize = 5;
const HANDSHAKE_HEADER: usize = 4;
const RECORD_HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;

/// Puts the first handshake message together from records. Each byte is judged as soon as it is there.
fn message(mut rest: &[u8]) -> Message {
    let mut joined: Vec<u8> = Vec::new();
    loop {
        let plausible = match rest {
            [] => true,
            [kind] => *kind == RECORD_HANDSHAKE,
            [kind, major, ..] => *kind == RECORD_HANDSHAKE && *major == 3,
        };
        if !plausible {
            return Message::Malformed;
        }
        let Some((header, after)) = rest.split_first_chunk::<RECORD_HEADER>() else { return Message::Incomplete };
        let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
        if length == 0 || length > 1 << 14 {
            return Message::Malformed;
        }
        let payload = &after[..after.len().min(length)];
        joined.extend_from_slice(payload);
        if joined.first().is_some_and(|kind| *kind != CLIENT_HELLO) {
            return Message::Malformed;
        }
        if let Some(header) = joined.first_chunk::<HANDSHAKE_HEADER>() {
            let body = u32::from_be_bytes([0, header[1], header[2], header[3]]) as usize;
            if body > MAX {
                return Message::Malformed;
            }
            if let Some(whole) = joined.get(HANDSHAKE_HEADER..HANDSHAKE_HEADER + body) {
                return Message::Whole(whole.to_vec());
            }
        }
        if payload.len() < length {
            return Message::Incomplete;
        }
        rest = &after[length..];
    }
}

/// RFC 8446, section 4.1.2.
fn parse(body: &[u8]) -> Option<Hello> {
    let mut input = Input(body);
    let version = input.take(2)?;
    if version[0] != 3 {
        return None;
    }
    input.take(32)?; // random
    input.vector8()?; // session id
    input.vector16()?; // cipher suites
    input.vector8()?; // compression methods
    let (mut sni, mut alpn) = (None, Vec::new());
    if !input.0.is_empty() {
        let mut extensions = Input(input.vector16()?);
        while !extensions.0.is_empty() {
            let kind = extensions.u16()?;
            let data = extensions.vector16()?;
            match kind {
                0 => sni = server_name(data),
                16 => alpn = protocols(data)?,
                _ => {}
            }
        }
    }
    Some(Hello::Client { sni, alpn })
}

/// RFC 6066, section 3. A name that is none is left out, not fatal: the application may know better.
fn server_name(data: &[u8]) -> Option<String> {
    let mut names = Input(Input(data).vector16()?);
    while !names.0.is_empty() {
        let kind = names.take(1)?[0];
        let name = names.vector16()?;
        let valid = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
        if kind == 0 && !name.is_empty() && name.len() <= 255 && name.iter().all(valid) {
            return String::from_utf8(name.to_ascii_lowercase()).ok();
        }
    }
    None
}

/// RFC 7301, section 3.1.
fn protocols(data: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut list = Input(Input(data).vector16()?);
    let mut found = Vec::new();
    while !list.0.is_empty() {
        found.push(list.vector8()?.to_vec());
    }
    Some(found)
}

/// What is left to read; every step is checked.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(taken)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2)?.try_into().ok().map(u16::from_be_bytes)
    }

    fn vector8(&mut self) -> Option<&'a [u8]> {
        let n = self.take(1)?[0];
        self.take(usize::from(n))
    }

    fn vector16(&mut self) -> Option<&'a [u8]> {
        let n = self.u16()?;
        self.take(usize::from(n))
    }
}

#[cfg(test)]
mod tests;
