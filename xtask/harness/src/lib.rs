//! The foundation of the project's test tools: child processes and their limits, scripted peers,
//! payloads, ports, installed programs, namespaces, verdicts and jobs. It contains no scenario,
//! check, fault or workload.
//!
//! Only this crate starts child processes, looks for ports and installed programs, quotes commands,
//! derives seeds and creates namespaces. Functions that judge a program return a
//! [`Verdict`](verdict::Verdict); commands return `anyhow::Result`.
#![forbid(unsafe_code)]

mod capture;
pub mod cargo;
pub mod context;
pub mod cores;
pub mod cpu_delay;
pub mod interruption;
pub mod jobs;
pub mod namespace;
pub mod options;
/// The same source file as in the library, because this crate depends on no other of the project.
#[path = "../../../accio-proto/src/os_error.rs"]
mod os_error;
pub mod payload;
pub mod peer;
pub mod ports;
pub mod process;
pub mod process_table;
pub mod program;
pub mod quoting;
pub mod report;
pub mod resource_limits;
#[cfg(linux_sys)]
pub mod sandbox;
#[cfg(not(linux_sys))]
#[path = "sandbox_missing.rs"]
pub mod sandbox;
pub mod scheduling_delay;
pub mod seeds;
mod servers;
mod spinning;
pub mod subject;
pub mod timeline;
pub mod tools;
pub mod usage;
pub mod verdict;
pub mod wait;
pub mod work_dir;
mod wrapper;

pub use self::os_error::reason as os_error_text;

/// The exit code of a tool that failed itself, whatever the programs under test do.
pub const TROUBLE: u8 = 3;
