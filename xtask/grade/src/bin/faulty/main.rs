//! Small implementations of the three programs, correct or with one fault, to test the conformance
//! kit: `faulty PROGRAM DIALECT FAULT ARGUMENTS…`. With the fault `none` the program is correct.
#![forbid(unsafe_code)]

mod client;
mod server;
mod wire;

use std::env;
use std::io::{self, Write};
use std::process::ExitCode;

/// The program to run and its fault.
#[derive(Debug, Clone)]
struct FaultyProgram {
    /// `client`, `server-s` or `server`.
    program: String,
    /// The name of its dialect.
    dialect: String,
    /// The name of its fault.
    fault: String,
}

impl FaultyProgram {
    fn has(&self, fault: &str) -> bool {
        self.fault == fault
    }

    fn confirms(&self) -> bool {
        self.dialect == "confirm"
    }

    fn greets(&self) -> bool {
        self.dialect != "direct"
    }
}

fn main() -> ExitCode {
    let mut words = env::args().skip(1);
    let mut word = || words.next().unwrap_or_default();
    let faulty = FaultyProgram { program: word(), dialect: word(), fault: word() };
    let arguments: Vec<String> = words.collect();
    let outcome = match faulty.program.as_str() {
        "client" => client::run(&faulty, &arguments),
        _ => server::run(&faulty, &arguments),
    };
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            let start = if faulty.has("no-error-line") { "failed" } else { "ERROR" };
            // If stderr is closed, the error cannot be printed.
            let _ = writeln!(io::stderr().lock(), "{start}: {error}");
            ExitCode::from(if faulty.has("exit-zero") { 0 } else { 1 })
        }
    }
}
