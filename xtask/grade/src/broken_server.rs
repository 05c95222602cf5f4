//! `accio-grade broken NAME PORT`: runs a misbehaving server.

use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::thread;

use crate::broken::{self, ACCEPTS_NOTHING};
use crate::options::dialect;
use accio_harness::peer::{Dialect, End, Listener};
use anyhow::{anyhow, bail};

/// The options of `accio-grade broken`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Name of the misbehaviour, see below
    name: String,
    /// Port to listen on
    port: u16,
    /// Dialect: direct, accio or confirm
    #[arg(long, value_name = "DIALECT", value_parser = dialect, default_value = "confirm")]
    handshake: Dialect,
}

/// Returns the names and descriptions, for `--help`.
pub(crate) fn names() -> String {
    let mut text = String::from("Names:\n");
    for broken in broken::ALL {
        text.push_str(&format!("  {:16} {}\n", broken.name, broken.about));
    }
    text.push_str(&format!(
        "  {ACCEPTS_NOTHING:16} never accepts a connection; the backlog is full\n"
    ));
    text
}

/// Runs the server until the process is killed.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let Arguments { name, port, handshake } = arguments;
    let broken = broken::named(name);
    if broken.is_none() && name != ACCEPTS_NOTHING {
        writeln!(io::stderr().lock(), "ERROR: broken server {name:?}: unknown name; {}", names())?;
        return Ok(ExitCode::from(2));
    }
    let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, *port));
    let backlog = if broken.is_none() { 0 } else { 128 };
    // With a small buffer, a client soon notices that the server does not read.
    let listener = Listener::at(address, backlog, Some(64 << 10))
        .map_err(|error| anyhow!("cannot listen on port {port}: {error}: choose another port"))?;
    let mut out = io::stdout().lock();
    writeln!(out, "broken server {name}, {}, port {}", handshake.name(), listener.port())?;
    out.flush()?;
    drop(out);
    let Some(broken) = broken else {
        let fillers = broken::fill(&listener);
        if fillers.is_none() {
            bail!("a full backlog does not drop connections on this machine");
        }
        loop {
            thread::park();
        }
    };
    let (dialect, serve) = (*handshake, broken.serve);
    for number in 1_u64.. {
        let mut peer = listener.next()?;
        thread::spawn(move || {
            let from = peer.stream().peer_addr().map_or("?".into(), |from| from.to_string());
            print(&format!("{number}: {from} connected"));
            match serve(&mut peer, dialect) {
                Ok(seen) => print(&format!(
                    "{number}: {} bytes received; the client {}",
                    seen.bytes,
                    match seen.end {
                        End::Fin => "closed the connection",
                        End::Reset => "reset the connection",
                        End::Open => "kept the connection open",
                    }
                )),
                Err(stop) => print(&format!("{number}: {stop}")),
            }
            if broken.keeps_open {
                // Keep the connection open without doing anything.
                loop {
                    thread::park();
                }
            }
        });
    }
    Ok(ExitCode::SUCCESS)
}

fn print(text: &str) {
    // The reader of the output may have closed it.
    let _ = writeln!(io::stdout().lock(), "{text}");
}
