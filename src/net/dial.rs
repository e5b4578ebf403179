//! Outgoing connections, with a deadline.

use std::{io, net::SocketAddr, time::Duration};

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

/// Same as linkerd 2.x: a peer that vanished is noticed within half a minute.
const KEEPALIVE: Duration = Duration::from_secs(10);
/// The kernel's default of 9 makes it a minute and a half more.
const KEEPALIVE_PROBES: u32 = 2;

/// Connects within `deadline`; Nagle off, keepalive on.
///
/// # Errors
/// `TimedOut` at the deadline, else what the kernel says.
pub(crate) async fn connect(addr: SocketAddr, deadline: Duration) -> io::Result<TcpStream> {
    let stream =
        tokio::time::timeout(deadline, TcpStream::connect(addr)).await.map_err(|_| io::ErrorKind::TimedOut)??;
    prepare(&stream);
    Ok(stream)
}

/// The options that every connection of ours gets, dialled or accepted. A socket that refuses one still works.
pub(crate) fn prepare(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE).with_retries(KEEPALIVE_PROBES);
    let _ = SockRef::from(stream).set_tcp_keepalive(&keepalive);
}
