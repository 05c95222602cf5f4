//! The listening socket of the baseline servers.

use anyhow::Result;

/// Listens on the loopback interface with the longest accept queue that the system allows.
pub(super) fn listen(port: u16) -> Result<std::net::TcpListener> {
    use socket2::{Domain, Socket, Type};
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], port)).into())?;
    socket.listen(4096)?;
    Ok(socket.into())
}
