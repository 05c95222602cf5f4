//! `accio-grade demo PORT`: runs a correct server that prints connections and the start of their
//! content.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use accio_proto::{FileSink, Outcome, Server, ServerDialect, SinkFile};
use signal_hook::consts::{SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;

/// The options of `accio-grade demo`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Port to listen on
    port: u16,
    /// Dialect: auto, direct, accio or confirm
    #[arg(long, value_name = "DIALECT", default_value_t)]
    handshake: ServerDialect,
}

/// Number of bytes of a file's start to print.
const SHOWN: usize = 32;
/// Interval at which the progress of transfers is printed.
const BEAT: Duration = Duration::from_secs(1);

/// The transfers in progress, by connection.
#[derive(Debug, Clone, Default)]
struct Transfers(Arc<Mutex<BTreeMap<u64, Transfer>>>);

#[derive(Debug, Default)]
struct Transfer {
    bytes: u64,
    /// Number of bytes in the last printed line.
    printed: u64,
    start: Vec<u8>,
}

/// A file whose start and length are printed, and which is discarded.
#[derive(Debug)]
struct PrintedFile {
    id: u64,
    transfers: Transfers,
}

/// Runs the server until a signal stops it.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let transfers = Transfers::default();
    let began = Instant::now();
    let finished = transfers.clone();
    let server = Server::builder(transfers.clone())
        .dialect(arguments.handshake)
        .on_outcome(move |outcome| print(began, &finished.end(outcome)))
        .bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, arguments.port)))?;
    let handle = server.handle();
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGQUIT])?;
    thread::spawn(move || {
        if signals.forever().next().is_some() {
            handle.stop();
        }
    });
    let all = transfers;
    thread::spawn(move || {
        loop {
            thread::sleep(BEAT);
            all.progress().iter().for_each(|line| print(began, line));
        }
    });
    print(began, &format!("demo server, {}, {}", arguments.handshake, server.local_addr()));
    server.run()?;
    Ok(ExitCode::SUCCESS)
}

impl Transfers {
    fn with<T>(&self, work: impl FnOnce(&mut BTreeMap<u64, Transfer>) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns a line for each transfer that has made progress.
    fn progress(&self) -> Vec<String> {
        self.with(|transfers| {
            let moving =
                transfers.iter_mut().filter(|(_, transfer)| transfer.bytes > transfer.printed);
            moving
                .map(|(id, transfer)| {
                    transfer.printed = transfer.bytes;
                    format!("connection {id}: {} bytes so far", transfer.bytes)
                })
                .collect()
        })
    }

    /// Returns a line for a finished transfer.
    fn end(&self, outcome: &Outcome) -> String {
        let start = self.with(|transfers| transfers.remove(&outcome.id)).unwrap_or_default().start;
        let from = outcome.peer.map_or("unknown".into(), |peer| peer.to_string());
        let dialect = outcome.dialect.map_or("unknown".into(), |dialect| dialect.to_string());
        let end = match &outcome.result {
            Ok(()) => "complete".to_owned(),
            Err(why) => format!("ERROR: {why}"),
        };
        format!(
            "connection {} from {from}: dialect {dialect}, {} bytes in {:.1} s, {end}; starts with \"{}\"",
            outcome.id,
            outcome.bytes,
            outcome.duration.as_secs_f64(),
            start.escape_ascii()
        )
    }
}

impl FileSink for Transfers {
    type File = PrintedFile;

    fn open(&self, id: u64) -> io::Result<PrintedFile> {
        self.with(|transfers| transfers.insert(id, Transfer::default()));
        Ok(PrintedFile { id, transfers: self.clone() })
    }
}

impl SinkFile for PrintedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.transfers.with(|transfers| {
            let transfer = transfers.entry(self.id).or_default();
            transfer.bytes += bytes.len() as u64;
            let room = SHOWN.saturating_sub(transfer.start.len()).min(bytes.len());
            transfer.start.extend_from_slice(&bytes[..room]);
        });
        Ok(())
    }

    fn commit(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn abort(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn print(began: Instant, line: &str) {
    // The reader of the output may have closed it.
    let _ = writeln!(io::stdout().lock(), "{:8.1} s  {line}", began.elapsed().as_secs_f64());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_bytes_and_keeps_the_start_of_the_content() {
        let transfers = Transfers::default();
        let mut file = transfers.open(7).unwrap();
        file.write(b"a\x1b[2J").unwrap();
        file.write(&[b'x'; 100]).unwrap();
        assert_eq!(transfers.progress(), ["connection 7: 105 bytes so far"]);
        assert!(transfers.progress().is_empty());
        let start = transfers.with(|transfers| transfers[&7].start.clone());
        assert_eq!(start.len(), SHOWN);
        assert!(start.starts_with(b"a\x1b[2Jx"));
    }
}
