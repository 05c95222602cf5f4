//! Runs a server program until a signal ends it.

use std::iter;
#[cfg(feature = "operations")]
use std::net::TcpListener;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
#[cfg(feature = "operations")]
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

#[cfg(feature = "operations")]
use accio_proto::Outcome;
use accio_proto::{FileSink, Port, Server, ServerBuilder, ServerError, os_error_text};
use rustix::net::{AddressFamily, SocketType, socket};

#[cfg(feature = "operations")]
use super::flags::OperationFlags;
use super::flags::ServerFlags;
#[cfg(feature = "operations")]
use super::journal::Journal;
#[cfg(feature = "metrics")]
use super::metrics::Metrics;
use super::program::Program;
use super::shutdown::{Ending, Shutdown};
#[cfg(all(linux_sys, feature = "operations"))]
use super::systemd;
#[cfg(feature = "tls-server")]
use super::tls::Tls;
#[cfg(all(target_os = "linux", feature = "operations"))]
use crate::address::prepare_zone_names;
use crate::{Failure, log_writer, raise_descriptor_limit, say};

/// Minimum time to write the journal once the server has ended (100 ms). A stop takes at most
/// 0.85 s, and the process must end within a second.
const LAST_REPORTS: Duration = Duration::from_millis(100);

impl ServerFlags {
    /// Listens on `port`, prints the addresses on stderr, and serves until a signal ends the
    /// server.
    ///
    /// # Errors
    ///
    /// Returns an error if the server cannot listen, if `program` cannot be confined, or if serving
    /// fails.
    pub fn run<K: FileSink>(
        &self,
        builder: ServerBuilder<K>,
        port: Port,
        program: impl Program,
    ) -> Result<ExitCode, Failure> {
        let program = Arc::new(program);
        let shutdown = Shutdown::watch()?;
        raise_descriptor_limit();
        let observer = Arc::clone(&program);
        let mut builder =
            self.configure(builder).on_outcome(move |outcome| observer.observe(outcome));
        if program.records() {
            let recorder = Arc::clone(&program);
            builder = builder.recorder(move |outcome, client| recorder.record(outcome, client));
        }
        let server = self.listen(builder, port)?;
        program.confine(&[])?;
        start_log_writer()?;
        self.announce(&server);
        let ending = shutdown.start(server.handle(), program.clone())?;
        serve(|| server.run(), &*program, ending, |_| {})
    }

    fn listen<K: FileSink>(
        &self,
        builder: ServerBuilder<K>,
        port: Port,
    ) -> Result<Server<K>, Failure> {
        let port = port.number();
        let addresses = match self.bind[..] {
            [] => every_interface(port, has_ipv6()),
            ref bind => bind.iter().map(|address| address.with_port(port)).collect(),
        };
        builder.bind_all(&addresses).map_err(Failure::from)
    }

    /// Prints the addresses that the server listens on; returns the line.
    fn announce<K: FileSink>(&self, server: &Server<K>) -> String {
        let addresses: Vec<_> = server.local_addrs().iter().map(ToString::to_string).collect();
        let listening = format!("listening on {}", addresses.join(", "));
        if !self.verbosity.quiet {
            say(&listening);
        }
        listening
    }
}

#[cfg(feature = "operations")]
impl OperationFlags {
    /// Works like [`ServerFlags::run`], with these flags in addition, and on the sockets that
    /// systemd passes, if any.
    ///
    /// # Errors
    ///
    /// Returns the same errors as [`ServerFlags::run`], and an error if the journal or the metrics
    /// address cannot be used.
    pub fn run<K: FileSink>(
        &self,
        flags: &ServerFlags,
        builder: ServerBuilder<K>,
        port: Port,
        program: impl Program,
    ) -> Result<ExitCode, Failure> {
        self.run_with(flags, builder, port, program, Server::run)
    }

    /// Works like [`run`](OperationFlags::run), but lets `run_server` serve until a handle stops the
    /// server.
    ///
    /// # Errors
    ///
    /// Returns the same errors as [`run`](OperationFlags::run), and those of `run_server`.
    pub fn run_with<K: FileSink>(
        &self,
        flags: &ServerFlags,
        builder: ServerBuilder<K>,
        port: Port,
        program: impl Program,
        run_server: impl FnOnce(Server<K>) -> Result<(), ServerError>,
    ) -> Result<ExitCode, Failure> {
        // This comes first, so that no child process inherits the sockets.
        #[cfg(linux_sys)]
        let sockets = systemd::sockets()?;
        #[cfg(not(linux_sys))]
        let sockets = Vec::new();
        let program = Arc::new(program);
        let journal = self.journal.as_deref().map(|path| open_journal(path, &*program));
        let journal = journal.transpose()?.map(Arc::new);
        // A file that does not respond must not make the server ignore signals.
        #[cfg(feature = "tls-server")]
        let tls = Tls::load(&self.tls)?;
        // Signals are watched before any client can connect, so that none ends the process in
        // another way.
        let mut shutdown = Shutdown::watch()?.drain(self.drain);
        #[cfg(linux_sys)]
        {
            shutdown = shutdown.on_notice(Box::new(systemd::notify_notice));
        }
        #[cfg(feature = "tls-server")]
        if let Some(tls) = tls.clone() {
            shutdown = shutdown.on_hangup(Arc::new(move || tls.reload()));
        }
        if let Some(journal) = journal.clone() {
            shutdown = shutdown.on_hangup(Arc::new(move || journal.reopen()));
        }
        if let Some(journal) = &journal {
            let finished = Arc::clone(journal);
            shutdown = shutdown.before_exit(Box::new(move |deadline| finished.finish(deadline)));
        }
        raise_descriptor_limit();

        #[cfg(feature = "metrics")]
        let metrics = {
            let names = (!self.metrics_only).then_some(&self.metrics_name[..]);
            self.metrics.map(|address| Metrics::bind(address, names)).transpose()?
        };
        let observe = {
            let program = Arc::clone(&program);
            #[cfg(feature = "metrics")]
            let metrics = metrics.as_ref().map(Metrics::observer);
            move |outcome: &Outcome| {
                #[cfg(feature = "metrics")]
                if let Some(observe) = &metrics {
                    observe(outcome);
                }
                program.observe(outcome);
            }
        };
        let mut builder =
            flags.configure(builder).fast_paths(self.fast_paths()).on_outcome(observe);
        if let Some(journal) = journal.clone() {
            // The journal notifies the client by dropping its acknowledgement.
            builder =
                builder.recorder(move |outcome, client| journal.record(&outcome, Box::new(client)));
        }
        let readable = Vec::new();
        #[cfg(feature = "tls-server")]
        let (builder, readable) = match &tls {
            None => (builder, readable),
            Some(tls) => {
                let journal = journal.clone();
                #[cfg(feature = "metrics")]
                let status = metrics.as_ref().and_then(Metrics::status_observer);
                let builder = tls.configure(builder).on_handshake_failure(move |failed| {
                    #[cfg(feature = "metrics")]
                    if let Some(status) = &status {
                        status.refuse(failed);
                    }
                    if let Some(journal) = &journal {
                        journal.refuse(failed);
                    }
                });
                (builder, tls.directories()?)
            }
        };
        let server = listen_on(sockets, flags, builder, port)?;
        #[cfg(linux_sys)]
        systemd::connect();
        #[cfg(target_os = "linux")]
        prepare_zone_names();
        #[cfg(linux_sys)]
        if let Some(journal) = &journal
            && program.is_confined()
        {
            journal.delegate();
        }
        program.confine(&readable)?;
        start_log_writer()?;
        #[cfg_attr(not(linux_sys), expect(unused_variables, reason = "systemd shows it"))]
        let listening = flags.announce(&server);
        #[cfg(feature = "tls-server")]
        if let Some(tls) = &tls {
            tls.serve(server.handle());
            if !flags.verbosity.quiet {
                tls.announce(server.local_addr());
            }
        }
        if let Some(journal) = &journal {
            journal.start()?;
        }
        let ending = shutdown.start(server.handle(), program.clone())?;
        #[cfg(feature = "metrics")]
        if let Some(metrics) = metrics {
            if !flags.verbosity.quiet {
                say(format_args!("metrics on http://{}/metrics", metrics.address()));
                if metrics.has_status_page() {
                    say(format_args!("status page on http://{}/", metrics.address()));
                }
            }
            let (started, listening) = (ending.started(), server.local_addrs());
            let (program, journal) = (program.clone(), journal.clone());
            metrics.serve(server.handle(), listening, program, journal, started)?;
        }
        #[cfg(linux_sys)]
        systemd::ready(&listening);
        serve(
            || run_server(server),
            &*program,
            ending,
            |deadline| {
                if let Some(journal) = &journal {
                    journal.finish(deadline);
                }
            },
        )
    }
}

/// Returns the addresses of all interfaces.
fn every_interface(port: u16, has_ipv6: bool) -> Vec<SocketAddr> {
    let v6 = has_ipv6.then(|| (Ipv6Addr::UNSPECIFIED, port).into());
    iter::once((Ipv4Addr::UNSPECIFIED, port).into()).chain(v6).collect()
}

/// Returns whether this machine has IPv6, which the kernel may lack or have disabled.
fn has_ipv6() -> bool {
    let (family, kind) = (AddressFamily::INET6, SocketType::STREAM);
    let any_port = SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, 0, 0, 0);
    socket(family, kind, None).and_then(|socket| rustix::net::bind(&socket, &any_port)).is_ok()
}

/// Listens on the sockets passed by systemd, or else on the addresses of `flags`.
#[cfg(feature = "operations")]
fn listen_on<K: FileSink>(
    sockets: Vec<TcpListener>,
    flags: &ServerFlags,
    builder: ServerBuilder<K>,
    port: Port,
) -> Result<Server<K>, Failure> {
    match sockets.is_empty() {
        true => flags.listen(builder, port),
        false => builder.listen_all(sockets).map_err(Failure::from),
    }
}

fn serve(
    run_server: impl FnOnce() -> Result<(), ServerError>,
    program: &impl Program,
    ending: Ending,
    finish: impl FnOnce(Instant),
) -> Result<ExitCode, Failure> {
    let served = run_server();
    program.finish(&|| ending.deadline());
    // A server with stuck threads ends after that deadline; its last reports must still be written.
    finish(ending.deadline().max(Instant::now() + LAST_REPORTS));
    ending.finished();
    served.map_err(Failure::from)?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(feature = "operations")]
fn open_journal(path: &Path, program: &impl Program) -> Result<Journal, Failure> {
    match path == Path::new("-") {
        true => Journal::stdout(),
        false => Journal::open(path, program.file_dir(), program.is_durable()),
    }
}

/// Starts the thread that writes the log. It starts after the sandbox, so that it is sandboxed too.
fn start_log_writer() -> Result<(), Failure> {
    log_writer::start()
        .map_err(|error| Failure::new("cannot start a thread", os_error_text(&error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listens_on_ipv4_and_on_ipv6_if_the_machine_has_it() {
        let texts = |has_ipv6| -> Vec<_> {
            every_interface(5000, has_ipv6).iter().map(SocketAddr::to_string).collect()
        };
        assert_eq!(texts(true), ["0.0.0.0:5000", "[::]:5000"]);
        assert_eq!(texts(false), ["0.0.0.0:5000"]);
    }
}
