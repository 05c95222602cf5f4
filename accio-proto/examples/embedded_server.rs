//! A file receiver embedded in another program: `cargo run --example embedded_server`.

#![allow(clippy::print_stdout, reason = "an example")]

use std::error::Error;

use accio_proto::{DirSink, Server};

fn bind(dir: &str, address: &str) -> Result<Server<DirSink>, Box<dyn Error>> {
    let server = Server::builder(DirSink::create(dir)?)
        .on_outcome(|end| match &end.result {
            Ok(()) => println!("{}.file: {} bytes", end.connection.id, end.bytes),
            Err(why) => println!("{}.file: ERROR, because {why}", end.connection.id),
        })
        .bind(address)?;
    println!("listening on {}", server.local_addr());
    Ok(server)
}

fn main() -> Result<(), Box<dyn Error>> {
    Ok(bind("received", "127.0.0.1:5000")?.run()?)
}

#[cfg(test)]
mod tests {
    use accio_proto::Client;

    use super::*;

    #[test]
    fn it_receives() -> Result<(), Box<dyn Error>> {
        let dir = tempfile::tempdir()?;
        let server = bind(dir.path().to_str().ok_or("no UTF-8")?, "127.0.0.1:0")?;
        let (port, handle) = (server.local_addr().port(), server.handle());
        let serving = std::thread::spawn(move || server.run());
        let sent = Client::builder().build()?.send("127.0.0.1", port, &b"content"[..]);
        handle.stop();
        serving.join().map_err(|_| "the server panicked")??;
        assert!(sent?.confirmed);
        assert_eq!(std::fs::read(dir.path().join("1.file"))?, b"content");
        Ok(())
    }
}
