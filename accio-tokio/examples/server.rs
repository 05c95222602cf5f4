//! A server for the command line: connection N's bytes become FILE-DIR/N.file, until a signal stops
//! it. `cargo xtask test` grades it.

#![allow(clippy::print_stderr, reason = "a program")]

use std::error::Error;
use std::net::Ipv6Addr;
use std::process::ExitCode;

use accio_proto::{DirSink, Port, ServerConfig};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// Returns a future that waits for SIGINT, SIGTERM or SIGQUIT, and also notices a signal that
/// arrives before it is polled.
fn stop_signal() -> Result<impl Future<Output = ()>, Box<dyn Error>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut quit = signal(SignalKind::quit())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = quit.recv() => {}
        }
    })
}

async fn run() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [port, dir] = &arguments[..] else { return Err("usage: server PORT FILE-DIR".into()) };
    let port = port.parse::<Port>()?.number();
    let stop = stop_signal()?;
    // This address accepts IPv4, too.
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await?;
    let server = accio_tokio::serve(listener, DirSink::create(dir)?, ServerConfig::default())?;
    stop.await;
    server.stop().await?;
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
