//! A server that discards received bytes without copying them: the limit for a client.

use std::io::{Read, Write};
use std::net::TcpStream;

use accio_harness::peer::GREETING;
use anyhow::{Context, Result};
use rustix::net::{RecvFlags, recv};

/// The protocol that the client expects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum DrainProtocol {
    /// Greet, and close at the end
    Accio,
    /// Send nothing
    Nothing,
    /// Answer a PUT request
    Http,
}

/// Serves one connection after the other.
pub(super) fn serve(port: u16, protocol: DrainProtocol) -> Result<()> {
    let listener = super::listener::listen(port)?;
    let mut scratch = vec![0; 1 << 20];
    loop {
        let (stream, _) = listener.accept()?;
        // Ignore clients that fail.
        let _ = serve_one(stream, protocol, &mut scratch);
    }
}

fn serve_one(mut stream: TcpStream, protocol: DrainProtocol, scratch: &mut [u8]) -> Result<()> {
    let mut left = u64::MAX;
    match protocol {
        DrainProtocol::Accio => stream.write_all(GREETING)?,
        DrainProtocol::Nothing => {}
        DrainProtocol::Http => left = content_length(&mut stream, scratch)?,
    }
    while left > 0 {
        match recv(&stream, &mut *scratch, RecvFlags::TRUNC)?.1 {
            0 => break,
            count => left -= count as u64,
        }
    }
    if protocol == DrainProtocol::Http {
        stream
            .write_all(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")?;
    }
    Ok(())
}

/// Reads the head of a request and returns the number of body bytes still to receive.
fn content_length(stream: &mut TcpStream, buffer: &mut [u8]) -> Result<u64> {
    let mut filled = 0;
    loop {
        let count = stream.read(&mut buffer[filled..])?;
        anyhow::ensure!(count > 0, "the request is incomplete");
        filled += count;
        let end = buffer[..filled].windows(4).position(|bytes| bytes == b"\r\n\r\n");
        let Some(end) = end else { continue };
        let head = String::from_utf8_lossy(&buffer[..end]).to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
        let length: u64 = length.context("no content length")?.trim().parse()?;
        return Ok(length - (filled - end - 4) as u64);
    }
}
