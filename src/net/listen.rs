//! Listening sockets, one a worker, on the same address by SO_REUSEPORT.

use std::{
    io,
    net::{IpAddr, SocketAddr, TcpListener, UdpSocket},
};

use socket2::{Domain, Protocol, Socket, Type};

/// Connections the kernel holds for a worker that is busy; bounded by `net.core.somaxconn` too.
const BACKLOG: i32 = 4096;

/// Binds `count` non-blocking listeners to one address. Port 0 takes an ephemeral port, the same for all.
pub(crate) fn bind(addr: SocketAddr, count: usize) -> io::Result<Vec<TcpListener>> {
    if count > 1 && addr.port() != 0 {
        // SO_REUSEPORT would also let another process of ours share the port unnoticed: without it, a taken port is refused.
        bind_one(addr, false)?;
    }
    let first = bind_one(addr, count > 1)?;
    let addr = first.local_addr()?;
    let mut listeners = vec![first];
    for _ in 1..count {
        listeners.push(bind_one(addr, true)?);
    }
    Ok(listeners)
}

/// Is this an address of ours? Only such can be bound; a datagram socket that is bound and dropped disturbs nobody.
pub(crate) fn is_local(ip: IpAddr) -> bool {
    UdpSocket::bind((ip, 0)).is_ok()
}

fn bind_one(addr: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if shared {
        socket.set_reuse_port(true)?;
    }
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_is_taken_is_refused_though_workers_share_theirs() -> io::Result<()> {
        let taken = bind(SocketAddr::from(([127, 0, 0, 1], 0)), 2)?;
        let refused = bind(taken[0].local_addr()?, 2).map(drop);
        assert_eq!(refused.map_err(|error| error.kind()), Err(io::ErrorKind::AddrInUse));
        Ok(())
    }

    #[test]
    fn only_addresses_of_ours_are_local() {
        for (ip, local) in [("127.0.0.1", true), ("192.0.2.1", false), ("2001:db8::1", false)] {
            assert_eq!(ip.parse().map(is_local), Ok(local), "{ip}");
        }
    }

    #[test]
    fn listeners_of_all_workers_share_one_ephemeral_port() -> io::Result<()> {
        let listeners = bind(SocketAddr::from(([127, 0, 0, 1], 0)), 3)?;
        let first = listeners[0].local_addr()?;
        assert_ne!(first.port(), 0);
        for listener in &listeners {
            assert_eq!(listener.local_addr()?, first);
        }
        Ok(())
    }
}
