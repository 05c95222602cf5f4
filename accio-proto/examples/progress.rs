//! A progress bar for [`Client`] that shows the bytes acknowledged by the peer, not the bytes
//! buffered by this kernel.
//!
//! ```sh
//! cargo run --example progress -- localhost 5000 photo.jpg
//! ```

use std::error::Error;
use std::fs::File;
use std::io::{Write, stderr};

use accio_proto::{Client, ClientEvent, Port, Progress};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [host, port, file] = &arguments[..] else {
        return Err("usage: progress HOST PORT FILE".into());
    };
    let client = Client::builder().on_event(step).on_progress(draw).build()?;
    let sent = client.send(host, port.parse::<Port>()?.number(), File::open(file)?)?;
    writeln!(stderr())?;
    let word = if sent.confirmed { "kept" } else { "acknowledged" };
    writeln!(stderr(), "{} has {word} {} bytes", sent.peer, sent.bytes)?;
    Ok(())
}

/// Prints the steps of an upload.
fn step(event: &ClientEvent) {
    if let ClientEvent::Connected { peer, took, .. } = event {
        let _ = writeln!(stderr(), "connected to {peer} in {took:.1?}");
    }
}

/// Draws the bar; called about ten times a second.
fn draw(at: Progress) {
    const WIDTH: usize = 40;
    let done = at.acknowledged.unwrap_or(at.sent);
    let total = at.total.unwrap_or(done).max(done).max(1);
    let full = (done as f64 / total as f64 * WIDTH as f64) as usize;
    let _ = write!(stderr(), "\r[{:<WIDTH$}] {done} of {total} bytes", "=".repeat(full));
}

#[cfg(test)]
mod tests {
    use accio_proto::{MemorySink, Server, Stored};

    use super::*;

    #[test]
    fn it_draws_while_a_server_receives() -> Result<(), Box<dyn Error>> {
        let files = MemorySink::new();
        let server = Server::builder(files.clone()).bind("127.0.0.1:0")?;
        let (handle, port) = (server.handle(), server.local_addr().port());
        let serving = std::thread::spawn(move || server.run());
        let client = Client::builder().on_event(step).on_progress(draw).build()?;
        let sent = client.send("127.0.0.1", port, &[7; 100_000][..]);
        handle.stop();
        serving.join().expect("no panic in the server")?;
        assert!(sent?.confirmed);
        assert_eq!(files.get(1), Some(Stored::Complete(vec![7; 100_000])));
        Ok(())
    }
}
