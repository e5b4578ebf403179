//! Where a redirected connection was going before the redirect (netfilter's SO_ORIGINAL_DST).

use std::net::SocketAddr;

use socket2::SockRef;
use tokio::net::TcpStream;

/// The original destination, or `None` when the connection was not redirected: then the kernel knows no translation,
/// or names our own address.
pub(crate) fn original(stream: &TcpStream) -> Option<SocketAddr> {
    let local = stream.local_addr().ok()?;
    // What comes by IPv4 to a listener of both kinds has an IPv6 address by name only: the translation is IPv4's.
    let local = SocketAddr::new(local.ip().to_canonical(), local.port());
    let socket = SockRef::from(stream);
    let found = if local.is_ipv4() { socket.original_dst_v4() } else { socket.original_dst_v6() };
    found.ok().and_then(|addr| addr.as_socket()).filter(|addr| *addr != local)
}
