//! A server that drops what it is sent, uncopied: the limit for a client.

use std::io::{Read, Write};
use std::net::TcpStream;

use accio_harness::peer::GREETING;
use anyhow::{Context, Result};
use rustix::net::{RecvFlags, recv};

/// The handshake that the client expects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Speaks {
    /// A greeting first, and the end of the connection at last
    Accio,
    /// Nothing at all
    Nothing,
    /// An answer to its PUT request
    Http,
}

/// Serves one connection after the other.
pub(super) fn serve(port: u16, speaks: Speaks) -> Result<()> {
    let listener = super::listener::listen(port)?;
    let mut scratch = vec![0; 1 << 20];
    loop {
        let (stream, _) = listener.accept()?;
        // A client that breaks off is not the drain's concern.
        let _ = serve_one(stream, speaks, &mut scratch);
    }
}

fn serve_one(mut stream: TcpStream, speaks: Speaks, scratch: &mut [u8]) -> Result<()> {
    let mut left = u64::MAX;
    match speaks {
        Speaks::Accio => stream.write_all(GREETING)?,
        Speaks::Nothing => {}
        Speaks::Http => left = content_length(&mut stream, scratch)?,
    }
    while left > 0 {
        match recv(&stream, &mut *scratch, RecvFlags::TRUNC)?.1 {
            0 => break,
            count => left -= count as u64,
        }
    }
    if speaks == Speaks::Http {
        stream
            .write_all(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")?;
    }
    Ok(())
}

/// Reads a request's head and says how much of its body is still to come.
fn content_length(stream: &mut TcpStream, buffer: &mut [u8]) -> Result<u64> {
    let mut filled = 0;
    loop {
        let count = stream.read(&mut buffer[filled..])?;
        anyhow::ensure!(count > 0, "the request breaks off");
        filled += count;
        let end = buffer[..filled].windows(4).position(|bytes| bytes == b"\r\n\r\n");
        let Some(end) = end else { continue };
        let head = String::from_utf8_lossy(&buffer[..end]).to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
        let length: u64 = length.context("no content length")?.trim().parse()?;
        return Ok(length - (filled - end - 4) as u64);
    }
}
