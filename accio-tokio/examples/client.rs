//! A client for the command line: sends a file and prints nothing unless that fails. `cargo xtask
//! test` grades it.

#![allow(clippy::print_stderr, reason = "a program")]

use std::error::Error;
use std::process::ExitCode;

use accio_proto::Port;
use accio_tokio::Client;
use tokio::fs::File;

async fn run() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [host, port, path] = &arguments[..] else {
        return Err("usage: client HOST PORT FILE".into());
    };
    let port = port.parse::<Port>()?.number();
    let file = File::open(path).await.map_err(|error| format!("{path}: {error}"))?;
    Client::default().send(host, port, file).await?;
    Ok(())
}

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ERROR: {error}");
            ExitCode::FAILURE
        }
    }
}
