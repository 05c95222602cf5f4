//! Sending and receiving under TLS.

use std::io::{self, ErrorKind};
use std::net::TcpStream;

use rustls::client::UnbufferedClientConnection;

use crate::socket::Socket;
use crate::sys;
use crate::tls::{Output, TlsStream};

/// A connection under TLS.
#[derive(Debug)]
pub(super) struct Secured {
    stream: TlsStream<UnbufferedClientConnection>,
    /// Bytes that the kernel has accepted since the last [`Secured::take_written`].
    written: usize,
    /// Bytes of content that are encrypted but not completely accepted by the kernel.
    pending: usize,
    is_closing: bool,
}

/// The socket, with a counter of sent bytes.
pub(super) struct Counted<'a>(pub(super) &'a TcpStream, pub(super) &'a mut usize);

impl Socket for Counted<'_> {
    fn recv(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        sys::socket::recv(self.0, buffer)
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = sys::socket::send(self.0, bytes)?;
        *self.1 += count;
        Ok(count)
    }

    fn close(self) {}
}

impl Secured {
    /// Returns a connection whose handshake is complete.
    pub(super) fn new(stream: TlsStream<UnbufferedClientConnection>) -> Self {
        Secured { stream, written: 0, pending: 0, is_closing: false }
    }

    pub(super) fn receive(&mut self, stream: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.receive(&mut Counted(stream, &mut self.written), Output::Copy(buffer, 0))
    }

    pub(super) fn has_buffered(&self) -> bool {
        self.stream.has_buffered()
    }

    /// Encrypts the bytes and sends them. They count as sent when the kernel has accepted all of
    /// them.
    pub(super) fn send(&mut self, stream: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
        let socket = &mut Counted(stream, &mut self.written);
        if self.pending > 0 {
            self.stream.flush(socket)?;
        } else {
            self.stream.send(socket, bytes)?;
            self.pending = bytes.len();
        }
        match self.stream.wants_write() {
            true => Err(ErrorKind::WouldBlock.into()),
            false => Ok(std::mem::take(&mut self.pending)),
        }
    }

    pub(super) fn close(&mut self, stream: &TcpStream) -> io::Result<bool> {
        let socket = &mut Counted(stream, &mut self.written);
        match std::mem::replace(&mut self.is_closing, true) {
            true => self.stream.flush(socket)?,
            false => self.stream.close(socket)?,
        }
        Ok(!self.stream.wants_write())
    }

    pub(super) fn take_written(&mut self) -> usize {
        std::mem::take(&mut self.written)
    }
}
