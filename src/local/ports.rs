//! Ports of the loopback, kept for those who are to listen on them.
//!
//! A reservation is a socket that is bound and never listens. Whoever binds with `SO_REUSEADDR`, as our proxies do, may
//! listen beside it; nobody else can be given the port meanwhile.

use std::io;

use rand::{Rng, RngExt};
use socket2::{Domain, Socket, Type};

use super::instance::loopback;

#[derive(Debug)]
pub(crate) struct Reserved {
    pub(super) port: u16,
    _held: Socket,
}

/// A port that nobody has.
///
/// Taken below the range from which the system takes ports for outgoing connections (Linux: 32768 and up): one of
/// those could otherwise have it first, once the reservation is given up.
pub(super) fn any(rng: &mut impl Rng) -> io::Result<Reserved> {
    // Without the option, so that another's reservation is in the way, and with it from then on.
    let mut reserve = |_| bind(rng.random_range(QUIET), false).ok();
    let reserved = match (0..ATTEMPTS).find_map(&mut reserve) {
        Some(reserved) => reserved,
        None => bind(0, false)?,
    };
    reserved._held.set_reuse_address(true)?;
    Ok(reserved)
}

/// This port, unless somebody listens on it. What is left of closed connections is not in the way.
pub(super) fn exactly(port: u16) -> io::Result<Reserved> {
    bind(port, true)
}

fn bind(port: u16, reuse: bool) -> io::Result<Reserved> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(reuse)?;
    socket.bind(&loopback(port).into())?;
    let port = socket.local_addr()?.as_socket().map_or(port, |addr| addr.port());
    Ok(Reserved { port, _held: socket })
}

const QUIET: std::ops::Range<u16> = 20_000..32_768;
const ATTEMPTS: usize = 64;

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_reserved_port_is_given_to_nobody_else_and_can_be_listened_on() {
        let reserved = any(&mut rand::rng()).unwrap();
        assert!(bind(reserved.port, false).is_err(), "it was given twice");
        // As proxies and most servers do, std binds with SO_REUSEADDR.
        let listener = TcpListener::bind(loopback(reserved.port)).unwrap();
        assert!(exactly(reserved.port).is_err(), "somebody listens there");
        drop(listener);
        assert!(exactly(reserved.port).is_ok());
    }
}
