//! A receiver inside another program, in ten lines: `cargo run --example embedded_server`.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "an example, which prints what it does"
)]

use accio_proto::{DirSink, Server};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = Server::builder(DirSink::create("received")?)
        .on_outcome(|end| match &end.result {
            Ok(()) => println!("{}.file: {} bytes", end.id, end.bytes),
            Err(why) => println!("{}.file: ERROR, because {why}", end.id),
        })
        .bind("127.0.0.1:5000")?;
    println!("listening on {}", server.local_addr());
    Ok(server.run()?)
}
