//! A simulated connection that behaves as on Linux: queued data precedes a reset, an error is
//! reported once, and the socket looks closed afterwards. Under TLS, the client's bytes are encrypted
//! when they arrive.

mod line;
#[cfg(feature = "tls")]
mod secure;

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::{Arc, Mutex};

use accio_proto::Socket;
#[cfg(feature = "tls")]
use accio_proto::tls::TlsSocket;

use crate::sink::Disk;
use line::LineSocket;
pub(crate) use line::{Clock, End, Line, time};

/// The session's side of the connection.
pub(crate) struct SimSocket {
    id: u64,
    disk: Arc<Mutex<Disk>>,
    transport: Transport,
}

enum Transport {
    Plain(LineSocket),
    #[cfg(feature = "tls")]
    Tls(Box<TlsSocket<LineSocket>>, Rc<RefCell<Line>>),
}

impl SimSocket {
    pub(crate) fn new(id: u64, line: &Rc<RefCell<Line>>, disk: Arc<Mutex<Disk>>) -> Self {
        let transport = Transport::Plain(LineSocket(Rc::clone(line)));
        SimSocket { id, disk, transport }
    }

    /// Returns a connection whose TLS handshake is complete.
    #[cfg(feature = "tls")]
    pub(crate) fn secured(id: u64, line: &Rc<RefCell<Line>>, disk: Arc<Mutex<Disk>>) -> Self {
        let socket = secure::connect(line, LineSocket(Rc::clone(line)));
        let transport = Transport::Tls(Box::new(socket), Rc::clone(line));
        SimSocket { id, disk, transport }
    }
}

impl Socket for SimSocket {
    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.transport {
            Transport::Plain(socket) => socket.recv(buffer),
            #[cfg(feature = "tls")]
            Transport::Tls(socket, line) => {
                let result = socket.recv(buffer);
                line.borrow_mut().record(&result);
                result
            }
        }
    }

    fn discard(&mut self, scratch: &mut [u8]) -> io::Result<usize> {
        match &mut self.transport {
            Transport::Plain(socket) => {
                let count = socket.recv(scratch)?;
                scratch[..count.min(64)].fill(0xEE);
                Ok(count)
            }
            #[cfg(feature = "tls")]
            Transport::Tls(socket, line) => {
                let result = socket.discard(scratch);
                line.borrow_mut().record(&result);
                result
            }
        }
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.transport {
            Transport::Plain(socket) => socket.send(bytes),
            #[cfg(feature = "tls")]
            Transport::Tls(socket, line) => {
                let result = socket.send(bytes);
                if result.is_err() {
                    line.borrow_mut().record(&result);
                }
                result
            }
        }
    }

    fn wants_write(&self) -> bool {
        match &self.transport {
            Transport::Plain(_) => false,
            #[cfg(feature = "tls")]
            Transport::Tls(socket, _) => socket.wants_write(),
        }
    }

    fn has_buffered(&self) -> bool {
        match &self.transport {
            Transport::Plain(_) => false,
            #[cfg(feature = "tls")]
            Transport::Tls(socket, _) => socket.has_buffered(),
        }
    }

    fn has_input(&self) -> bool {
        match &self.transport {
            Transport::Plain(socket) => socket.has_input(),
            #[cfg(feature = "tls")]
            Transport::Tls(socket, _) => socket.has_input(),
        }
    }

    fn has_received_part(&self) -> bool {
        match &self.transport {
            Transport::Plain(_) => false,
            #[cfg(feature = "tls")]
            Transport::Tls(socket, _) => socket.has_received_part(),
        }
    }

    fn close(self) {
        let id = self.id;
        assert!(self.disk.lock().unwrap().is_durable(id), "closed before file {id} is durable");
        match self.transport {
            Transport::Plain(socket) => socket.close(),
            #[cfg(feature = "tls")]
            Transport::Tls(socket, _) => socket.close(),
        }
    }
}
