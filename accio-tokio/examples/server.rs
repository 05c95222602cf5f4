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
                     [--max-connections N] [--max-per-ip N] [--without FAST-PATH]... [-q]";

/// Settings from the command line.
struct Settings {
    config: ServerConfig,
    /// The address to listen on.
    bind: IpAddr,
    /// Fast paths not to use.
    without: Vec<FastPath>,
    /// Prints nothing but errors.
    quiet: bool,
}

impl Settings {
    fn parse(flags: Vec<(String, String)>) -> Result<Self, Box<dyn Error>> {
        // This address accepts IPv4, too, unless the system is configured otherwise.
        let bind = Ipv6Addr::UNSPECIFIED.into();
        let (config, without) = (ServerConfig::default(), Vec::new());
        let mut settings = Settings { config, bind, without, quiet: false };
        for (flag, value) in flags {
            let set = settings.set(&flag, &value);
            set.map_err(|error| format!("{flag} {value:?}: {error}"))?;
        }
        Ok(settings)
    }

    fn set(&mut self, flag: &str, value: &str) -> Result<(), Box<dyn Error>> {
        match flag {
            "--bind" => self.bind = value.parse()?,
            "--handshake" => self.config.dialect = value.parse()?,
            "--timeout" => {
                let seconds = Duration::try_from_secs_f64(value.parse()?)?;
                self.config.limits.idle_timeout = seconds;
                self.config.validate()?;
            }
            "--max-connections" => self.config.max_connections = Some(value.parse()?),
            "--max-per-ip" => self.config.max_per_ip = Some(value.parse()?),
            "--without" => self.without.push(value.parse()?),
            "-q" => self.quiet = true,
            _ => return Err(format!("no such flag: usage: {USAGE}").into()),
        }
        Ok(())
    }
}

/// SIGXFSZ on Linux and macOS.
const FILE_SIZE_EXCEEDED: SignalKind = SignalKind::from_raw(25);

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
    let Settings { config, bind, without, quiet } = Settings::parse(flags)?;
    let port = port.parse::<Port>()?.number();
    let stop = stop_signal()?;
    // With a handler, a file above the limit of `ulimit -f` fails instead of ending the process.
    let _file_size_exceeded = signal(FILE_SIZE_EXCEEDED)?;
    let paths = || FastPaths::without(without.iter().copied());
    let sink = DirSink::options().fast_paths(paths()).create(dir)?;
    let listener = TcpListener::bind((bind, port)).await;
    let listener = listener.map_err(|error| format!("listen on {bind} port {port}: {error}"))?;
    let builder = Server::builder(sink).config(config).fast_paths(paths());
    let server = accio_tokio::serve_with([listener], builder)?;
    if !quiet {
        eprintln!("listening on {}", server.local_addr());
    }
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
