//! Ports for applications that were given none.

use std::{io, net::TcpListener};

use rand::{Rng, RngExt};

/// A port of the loopback that nobody listens on, to be bound by somebody else in a moment.
///
/// Taken below the range from which the system takes ports for outgoing connections (Linux: 32768 and up): one of
/// those could otherwise have it first.
pub(super) fn free(rng: &mut impl Rng) -> io::Result<u16> {
    let is_free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let quiet = (0..ATTEMPTS).map(|_| rng.random_range(QUIET)).find(is_free);
    match quiet {
        Some(port) => Ok(port),
        None => Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port()),
    }
}

const QUIET: std::ops::Range<u16> = 20_000..32_768;
const ATTEMPTS: usize = 64;
