//! A server for the tests of a program that uploads: it runs in the same process and keeps the
//! files in memory. `cargo run --example in_memory`.

use std::error::Error;
use std::io::{Write, stdout};

use accio_proto::{Client, Dialect, MemorySink, Server, Stored};

fn main() -> Result<(), Box<dyn Error>> {
    let files = MemorySink::new();
    let server = Server::builder(files.clone()).bind("127.0.0.1:0")?;
    let (port, handle) = (server.local_addr().port(), server.handle());
    let serving = std::thread::spawn(move || server.run());

    // The code under test goes here.
    for dialect in [Dialect::Accio, Dialect::Confirm] {
        let client = Client::builder().dialect(dialect).build()?;
        let sent = client.send("127.0.0.1", port, &b"content"[..])?;
        assert!(sent.confirmed, "the server has closed, so it has kept the file");
    }

    handle.stop();
    serving.join().map_err(|_| "the server panicked")??;
    for id in [1, 2] {
        assert_eq!(files.get(id), Some(Stored::Complete(b"content".to_vec())));
    }
    writeln!(stdout(), "two uploads arrived intact")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_runs() -> Result<(), Box<dyn std::error::Error>> {
        super::main()
    }
}
