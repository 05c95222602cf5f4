//! A server on tokio that uses only the handshake of this crate, as for any other runtime. It needs
//! no features: `cargo run --example tokio_server` sends a file to itself.
//!
//! Unlike [`accio_proto::Server`], this example has no limits, does not reset failed connections,
//! and does not keep incomplete files invisible.

use std::error::Error;
use std::io::{self, Write, stdout};
use std::time::Duration;

use accio_proto::handshake::{ServerHandshake, ServerStep};
use accio_proto::{Client, Dialect, ServerDialect};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// Reads, for at most the ten seconds of idle time that the protocol allows.
async fn receive_bytes(stream: &mut TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    timeout(Duration::from_secs(10), stream.read(buffer)).await?
}

/// Receives one file.
async fn receive(mut stream: TcpStream) -> Result<(Dialect, Vec<u8>), Box<dyn Error>> {
    let mut buffer = vec![0; 64 * 1024];
    let mut count = 0;
    let mut step = ServerHandshake::begin(ServerDialect::Auto);
    let (dialect, mut content) = loop {
        match step {
            ServerStep::Wait { send, handshake } => {
                stream.write_all(send).await?;
                count = receive_bytes(&mut stream, &mut buffer).await?;
                step = match &buffer[..count] {
                    [] => handshake.finish()?,
                    input => handshake.receive(input)?,
                };
            }
            ServerStep::Established { send, dialect, kept, consumed } => {
                stream.write_all(send).await?;
                // The content is the bytes that resembled a confirmation, then the rest of the
                // input.
                break (dialect, [kept, &buffer[consumed..count]].concat());
            }
        }
    };
    // If a FIN ended the handshake, this returns 0 immediately.
    while let count @ 1.. = receive_bytes(&mut stream, &mut buffer).await? {
        content.extend_from_slice(&buffer[..count]);
    }
    Ok((dialect, content))
}

fn main() -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
    let port = listener.local_addr()?.port();
    let content = b"content".repeat(100_000);

    for dialect in [Dialect::Accio, Dialect::Confirm] {
        let file = content.clone();
        let client = std::thread::spawn(move || {
            let client = Client::builder().dialect(dialect).build()?;
            client.send("127.0.0.1", port, &file[..])
        });
        let (spoken, received) = runtime.block_on(async {
            let (stream, _) = listener.accept().await?;
            receive(stream).await
        })?;
        assert!(client.join().map_err(|_| "the client panicked")??.confirmed);
        assert_eq!((spoken, received), (dialect, content.clone()));
        writeln!(stdout(), "{} bytes in the dialect {spoken}", content.len())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_runs() -> Result<(), Box<dyn std::error::Error>> {
        super::main()
    }
}
