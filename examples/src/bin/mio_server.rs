//! The sans-IO handshake on mio: receives files into memory, and prints how long they are. It uses
//! nothing else of the library, so it has no time limits, for example.
//!
//! cargo run --bin mio_server -- ADDRESS

use std::collections::HashMap;
use std::error::Error;
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;

use accio_proto::ServerDialect;
use accio_proto::handshake::{HandshakeError, ServerHandshake, ServerStep};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

const LISTENER: Token = Token(0);

/// A connection, until its end.
struct Upload {
    stream: TcpStream,
    /// `None` once the dialect is known.
    handshake: Option<ServerHandshake>,
    content: Vec<u8>,
}

impl Upload {
    /// Greets a new connection.
    fn begin(mut stream: TcpStream) -> io::Result<Self> {
        let handshake = match ServerHandshake::begin(ServerDialect::Auto) {
            ServerStep::Wait { send, handshake } => {
                // Seven bytes fit into the empty buffer of a new connection.
                stream.write_all(send)?;
                Some(handshake)
            }
            ServerStep::Established { .. } => None,
        };
        Ok(Upload { stream, handshake, content: Vec::new() })
    }

    /// Receives what is available; returns true at the end of the file.
    fn receive(&mut self) -> Result<bool, Box<dyn Error>> {
        let mut buffer = [0; 4096];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => {
                    self.take(&[])?;
                    return Ok(true);
                }
                Ok(count) => self.take(&buffer[..count])?,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Passes bytes through the handshake; no bytes are the end.
    fn take(&mut self, input: &[u8]) -> Result<(), Box<dyn Error>> {
        let step: Result<ServerStep, HandshakeError> = match self.handshake.take() {
            None => {
                self.content.extend_from_slice(input);
                return Ok(());
            }
            Some(handshake) if input.is_empty() => handshake.finish(),
            Some(handshake) => handshake.receive(input),
        };
        match step? {
            ServerStep::Wait { send, handshake } => {
                self.stream.write_all(send)?;
                self.handshake = Some(handshake);
            }
            ServerStep::Established { send, kept, consumed, .. } => {
                self.stream.write_all(send)?;
                self.content.extend_from_slice(kept);
                self.content.extend_from_slice(&input[consumed..]);
            }
        }
        Ok(())
    }
}

/// Serves until `on_file` returns false.
fn serve(mut listener: TcpListener, mut on_file: impl FnMut(&[u8]) -> bool) -> io::Result<()> {
    let mut poll = Poll::new()?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut uploads = HashMap::new();
    let mut last = LISTENER.0;
    let mut events = Events::with_capacity(64);
    loop {
        poll.poll(&mut events, None)?;
        for event in &events {
            if event.token() == LISTENER {
                while let Ok((mut stream, _)) = listener.accept() {
                    last += 1;
                    poll.registry().register(&mut stream, Token(last), Interest::READABLE)?;
                    // A client that is gone already is not worth a message.
                    uploads.extend(Upload::begin(stream).ok().map(|upload| (Token(last), upload)));
                }
                continue;
            }
            let Some(upload) = uploads.get_mut(&event.token()) else { continue };
            match upload.receive() {
                Ok(false) => {}
                Ok(true) => {
                    // Dropping the connection confirms the file.
                    let Some(upload) = uploads.remove(&event.token()) else { continue };
                    if !on_file(&upload.content) {
                        return Ok(());
                    }
                }
                Err(error) => {
                    eprintln!("ERROR: {error}");
                    uploads.remove(&event.token());
                }
            }
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let address: SocketAddr = std::env::args().nth(1).ok_or("usage: mio_server ADDRESS")?.parse()?;
    serve(TcpListener::bind(address)?, |content| {
        println!("{} bytes", content.len());
        true
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use accio_proto::{Client, Dialect};

    use super::*;

    #[test]
    fn receives_files_in_every_dialect_with_a_greeting() {
        let listener = TcpListener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let port = listener.local_addr().unwrap().port();
        let serving = std::thread::spawn(move || {
            let mut files = Vec::new();
            serve(listener, |content| {
                files.push(content.to_vec());
                files.len() < 3
            })
            .unwrap();
            files
        });
        let large = vec![7; 300_000];
        for (dialect, content) in
            [(Dialect::Accio, &b"one"[..]), (Dialect::Confirm, &large), (Dialect::Confirm, b"")]
        {
            let client = Client::builder().dialect(dialect).build().unwrap();
            assert!(client.send("127.0.0.1", port, content).unwrap().confirmed);
        }
        assert_eq!(serving.join().unwrap(), [&b"one"[..], &large, b""]);
    }
}
