//! A client for the command line: sends a file and prints nothing unless that fails. `cargo xtask
//! test` grades it.

mod common;

use std::error::Error;
use std::process::ExitCode;

use accio_proto::Port;
use accio_tokio::Client;
use tokio::fs::File;

async fn run() -> Result<(), Box<dyn Error>> {
    let ([host, port, path], flags) = common::arguments("client HOST PORT FILE")?;
    if let Some((flag, _)) = flags.first() {
        return Err(format!("{flag}: no such flag").into());
    }
    let port = port.parse::<Port>()?.number();
    let file = File::open(&path).await.map_err(|error| format!("{path}: {error}"))?;
    Client::default().send(&host, port, file).await?;
    Ok(())
}

#[tokio::main]
async fn main() -> ExitCode {
    common::exit_code(run().await)
}
