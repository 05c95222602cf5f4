//! Shared by Accio's command-line programs: value parsers, the `ERROR:` line, logging, completions,
//! man pages, and what a server program needs besides the library.
//!
//! ```no_run
//! use std::process::ExitCode;
//!
//! #[derive(clap::Parser)]
//! struct Arguments {
//!     #[command(flatten)]
//!     verbosity: accio_cli::Verbosity,
//! }
//!
//! fn main() -> ExitCode {
//!     accio_cli::main(|arguments: Arguments| {
//!         arguments.verbosity.start_log();
//!         Ok(ExitCode::SUCCESS)
//!     })
//! }
//! ```
//!
//! # Features
//!
//! | feature | adds |
//! |---|---|
//! | none | [`main`], [`Failure`], [`Verbosity`], [`ColorFlag`], [`seconds`], [`bytes`], [`count`] |
//! | `server` | `ServerFlags`: dialect, addresses, idle timeout; signals |
//! | `operations` | `OperationFlags`: draining, the journal, systemd, fast paths |
//! | `tls-server` | the flags and files of TLS in a server |
//! | `tls-client` | the flags and files of TLS in a client |
//! | `metrics` | `--metrics`: Prometheus metrics, a health check and a status page over HTTP |
#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]

mod address;
mod color;
mod completions;
mod descriptors;
mod entry;
mod environment;
mod escape;
mod failure;
mod file_size;
mod log_writer;
mod logging;
#[cfg(feature = "server")]
mod server;
mod stdio;
mod values;

#[cfg(feature = "tls")]
pub mod tls;

pub use address::{ZonedAddress, address_and_port, peer_text};
pub use color::{Color, ColorFlag};
pub use completions::{add_generate_flag, generated};
pub use descriptors::raise_descriptor_limit;
pub use entry::main;
pub use environment::unlisted_variables;
pub use escape::{escape, escape_json, is_unprintable};
pub use failure::{Failure, USAGE, exit, say};
pub use log_writer::{wait_for_stderr, write_stderr_in_background};
pub use logging::Verbosity;
#[cfg(feature = "operations")]
pub use server::{ListedFile, ListedFiles, OperationFlags};
#[cfg(feature = "server")]
pub use server::{Program, ServerFlags};
#[cfg(feature = "metrics")]
pub use server::{StatusPage, explain};
#[cfg(all(linux_sys, feature = "operations"))]
pub use server::{is_helper, open_journals, outlive_signals};
pub use stdio::check_stdin;
pub use values::{bytes, count, seconds};
