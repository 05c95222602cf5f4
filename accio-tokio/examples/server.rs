//! A server for the command line: connection N's bytes become FILE-DIR/N.file, until a signal stops
//! it. `cargo xtask test` grades it.

#![allow(clippy::print_stderr, reason = "a program")]

mod common;

use std::error::Error;
use std::net::{IpAddr, Ipv6Addr};
use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

use accio_proto::{DirSink, FastPath, FastPaths, Port, Server, ServerConfig};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

const USAGE: &str = "server PORT FILE-DIR [--bind ADDRESS] [--handshake MODE] [--timeout SECONDS] \
                     [--max-connections N] [--without FAST-PATH]...";

/// Settings from the command line.
struct Settings {
    config: ServerConfig,
    /// The address to listen on.
    bind: IpAddr,
    /// Fast paths not to use.
    without: Vec<FastPath>,
}

impl Settings {
    fn parse(flags: Vec<(String, String)>) -> Result<Self, Box<dyn Error>> {
        // This address accepts IPv4, too, unless the system is configured otherwise.
        let bind = Ipv6Addr::UNSPECIFIED.into();
        let mut settings = Settings { config: ServerConfig::default(), bind, without: Vec::new() };
        for (flag, value) in flags {
            match &*flag {
                "--bind" => settings.bind = value.parse()?,
                "--handshake" => settings.config.dialect = value.parse()?,
                "--timeout" => {
                    let seconds = Duration::try_from_secs_f64(value.parse()?)?;
                    settings.config.limits.idle_timeout = seconds;
                }
                "--max-connections" => settings.config.max_connections = Some(value.parse()?),
                "--without" => settings.without.push(value.parse()?),
                _ => return Err(format!("{flag}: no such flag: usage: {USAGE}").into()),
            }
        }
        Ok(settings)
    }
}

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
    let ([port, dir], flags) = common::arguments(USAGE)?;
    let Settings { config, bind, without } = Settings::parse(flags)?;
    let port = port.parse::<Port>()?.number();
    let stop = stop_signal()?;
    let paths = || FastPaths::without(without.iter().copied());
    let sink = DirSink::options().fast_paths(paths()).create(dir)?;
    let listener = TcpListener::bind((bind, port)).await?;
    let builder = Server::builder(sink).config(config).fast_paths(paths());
    let server = accio_tokio::serve_with([listener], builder)?;
    eprintln!("listening on {}", server.local_addr());
    let handle = server.handle();
    let mut ended = pin!(server.ended());
    tokio::select! {
        served = &mut ended => served?,
        () = stop => {
            handle.stop();
            ended.await?;
        }
    }
    Ok(())
}

#[tokio::main]
async fn main() -> ExitCode {
    common::exit_code(run().await)
}
