//! `accio-grade demo PORT`: runs a correct server that prints connections, the start of their content
//! and what went wrong, and shows the same on a status page.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use accio_cli::StatusPage;
use accio_proto::handshake::{HandshakeError, ServerHandshake, ServerStep};
use accio_proto::{
    Abort, Connection, Dialect, FileSink, OpenError, Outcome, Server, ServerDialect, SinkFile,
};
use signal_hook::consts::{SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;

/// The options of `accio-grade demo`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Port to listen on; 0 chooses a free one
    port: u16,
    /// Dialect: auto, direct, accio or confirm
    #[arg(long, value_name = "DIALECT", default_value_t)]
    handshake: ServerDialect,
    /// Serve the status page on this address [default: port PORT+1, or a free one, on this machine only]
    ///
    /// There is no authentication. 0.0.0.0:8080 shows it to a class.
    #[arg(long, value_name = "ADDR", conflicts_with = "no_status")]
    status: Option<SocketAddr>,
    /// Serve no status page
    #[arg(long)]
    no_status: bool,
}

/// Number of bytes of a file's start to print.
const SHOWN: usize = 64;
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
    let page = arguments.page()?;
    let observer = page.as_ref().map(StatusPage::observer);
    let server = Server::builder(transfers.clone())
        .dialect(arguments.handshake)
        .on_outcome(move |outcome| {
            let start = finished.end(outcome.connection.id);
            report(outcome, &start).iter().for_each(|line| print(began, line));
            if let Some(observe) = &observer {
                observe(outcome, note(outcome, &start).as_deref());
            }
        })
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
    if let Some(page) = page {
        print(began, &format!("status page on http://{}/", page.address()));
        page.serve(server.handle(), server.local_addrs())
            .map_err(|failure| anyhow::anyhow!("{failure}"))?;
    }
    server.run()?;
    Ok(ExitCode::SUCCESS)
}

impl Arguments {
    /// Listens for the status page.
    fn page(&self) -> anyhow::Result<Option<StatusPage>> {
        if self.no_status {
            return Ok(None);
        }
        let bind = |address: SocketAddr| {
            StatusPage::bind(address).map_err(|failure| anyhow::anyhow!("{failure}"))
        };
        let page = match self.status {
            Some(address) => bind(address)?,
            None => {
                let own = |port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
                // If there is no such port, or it is in use, let the kernel choose one.
                let next = if self.port == 0 { 0 } else { self.port.wrapping_add(1) };
                bind(own(next)).or_else(|_| bind(own(0)))?
            }
        };
        Ok(Some(page))
    }
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

    /// Removes a finished transfer. Returns the start of its content.
    fn end(&self, id: u64) -> Vec<u8> {
        self.with(|transfers| transfers.remove(&id)).unwrap_or_default().start
    }
}

/// Returns the lines for a finished transfer.
fn report(outcome: &Outcome, start: &[u8]) -> Vec<String> {
    let from = outcome.connection.peer.map_or("unknown".into(), |peer| peer.to_string());
    let dialect =
        outcome.connection.dialect.map_or("unknown".into(), |dialect| dialect.to_string());
    let end = match &outcome.result {
        Ok(()) => "complete".to_owned(),
        Err(why) => format!("ERROR: {why}"),
    };
    let line = format!(
        "connection {} from {from}: dialect {dialect}, {} bytes in {:.1} s, {end}; starts with \"{}\"",
        outcome.connection.id,
        outcome.bytes,
        outcome.duration.as_secs_f64(),
        start.escape_ascii()
    );
    let explanation = outcome.result.as_ref().err().map(|why| {
        let explanation = accio_cli::explain(why, outcome.connection.dialect);
        format!("connection {}: {explanation}", outcome.connection.id)
    });
    let hint = confirmation_hint(outcome.connection.dialect, start)
        .map(|hint| format!("connection {}: {hint}", outcome.connection.id));
    [Some(line), explanation, hint].into_iter().flatten().collect()
}

/// Returns the text about the content for the status page.
fn note(outcome: &Outcome, start: &[u8]) -> Option<String> {
    let content = (!start.is_empty()).then(|| format!("starts with \"{}\"", start.escape_ascii()));
    let hint = confirmation_hint(outcome.connection.dialect, start);
    let parts: Vec<_> = content.into_iter().chain(hint).collect();
    (!parts.is_empty()).then(|| parts.join(". "))
}

/// Explains what is wrong with content that was meant as a confirmation: a server that accepts any
/// dialect takes it for the beginning of a file.
fn confirmation_hint(dialect: Option<Dialect>, start: &[u8]) -> Option<String> {
    if dialect != Some(Dialect::Accio) || !start.starts_with(b"confirm-accio") {
        return None;
    }
    let error = confirmation_error(start)?;
    let explanation = accio_cli::explain(&Abort::Handshake(error), None);
    Some(format!("If this was meant as a confirmation: {explanation}"))
}

/// Returns why bytes are not both confirmations and the start of a file.
fn confirmation_error(bytes: &[u8]) -> Option<HandshakeError> {
    let dialect = ServerDialect::Only(Dialect::Confirm);
    let ServerStep::Wait { handshake, .. } = ServerHandshake::begin(dialect) else { return None };
    match handshake.receive(bytes) {
        Err(error) => Some(error),
        Ok(ServerStep::Wait { handshake, .. }) => handshake.finish().err(),
        Ok(ServerStep::Established { .. }) => None,
    }
}

impl FileSink for Transfers {
    type File = PrintedFile;

    fn open(&self, connection: &Connection) -> Result<PrintedFile, OpenError> {
        let id = connection.id;
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
        let mut file = transfers.open(&Connection::new(7)).unwrap();
        file.write(b"a\x1b[2J").unwrap();
        file.write(&[b'x'; 100]).unwrap();
        assert_eq!(transfers.progress(), ["connection 7: 105 bytes so far"]);
        assert!(transfers.progress().is_empty());
        let start = transfers.with(|transfers| transfers[&7].start.clone());
        assert_eq!(start.len(), SHOWN);
        assert!(start.starts_with(b"a\x1b[2Jx"));
    }

    #[test]
    fn explains_a_confirmation_that_became_content() {
        let hint = |start: &[u8]| confirmation_hint(Some(Dialect::Accio), start);
        let text = hint(b"confirm-accio\nfile").unwrap();
        assert!(text.contains("The first confirmation was wrong at byte 14"), "{text}");
        let text = hint(b"confirm-accio\r\nconfirm-accio-again\r\nfile").unwrap();
        assert!(text.contains("The second confirmation was wrong at byte 22"), "{text}");
        let text = hint(b"confirm-accio\r\nconfirm").unwrap();
        assert!(text.contains("after 7 of the 23 bytes of the second"), "{text}");
        assert_eq!(hint(b"hello"), None);
        assert_eq!(confirmation_hint(Some(Dialect::Confirm), b"confirm-accio\n"), None);
    }
}
