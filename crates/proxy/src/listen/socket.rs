//! Listening sockets: one per worker and port, so that the kernel spreads connections over the workers.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1024;

/// Binds `count` listeners to one address. Port 0 takes a free port, the same for all.
///
/// `SO_REUSEPORT` would let us share a port with another process of the same user without anybody noticing, so the
/// address is first bound without it.
///
/// # Errors
/// When the address cannot be bound, which includes that somebody else listens there.
pub(crate) fn bind(
    ip: IpAddr,
    port: u16,
    count: usize,
) -> io::Result<(SocketAddr, Vec<TcpListener>)> {
    let first = open(SocketAddr::new(ip, port), false)?;
    let address = first.local_addr()?;
    if count <= 1 {
        return Ok((address, vec![first]));
    }
    drop(first);
    let listeners = (0..count)
        .map(|_| open(address, true))
        .collect::<io::Result<Vec<_>>>()?;
    Ok((address, listeners))
}

fn open(address: SocketAddr, share: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    // Connections of a former process in TIME_WAIT must not keep us from starting.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    if share {
        socket.set_reuse_port(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn all_workers_share_one_port_and_nobody_else_does() {
        let ip = IpAddr::V4(Ipv4Addr::LOCALHOST);
        for count in [1, 3] {
            let (address, listeners) = bind(ip, 0, count).expect("a free port");
            assert_eq!(listeners.len(), count);
            assert!(
                listeners
                    .iter()
                    .all(|l| l.local_addr().expect("bound") == address)
            );
            let taken = bind(ip, address.port(), count).expect_err("in use");
            assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
        }
    }
}
