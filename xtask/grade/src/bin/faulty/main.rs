//! Small implementations of the three programs, correct or with one fault: what the conformance
//! kit is tested on, and nothing else. `faulty PROGRAM DIALECT FAULT ARGUMENTS…`; the fault `none`
//! is none.
#![forbid(unsafe_code)]

mod client;
mod server;
mod wire;

use std::env;
use std::io::{self, Write};
use std::process::ExitCode;

/// What every part is told.
#[derive(Debug, Clone)]
struct Way {
    /// `server-s` or `server`, where it matters.
    program: String,
    /// The dialect spoken.
    dialect: String,
    /// What is wrong.
    fault: String,
}

impl Way {
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
    let way = Way { program: word(), dialect: word(), fault: word() };
    let arguments: Vec<String> = words.collect();
    let outcome = match way.program.as_str() {
        "client" => client::run(&way, &arguments),
        _ => server::run(&way, &arguments),
    };
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            let start = if way.has("no-error-line") { "failed" } else { "ERROR" };
            // Nothing is left to do about a closed stderr.
            let _ = writeln!(io::stderr().lock(), "{start}: {error}");
            ExitCode::from(if way.has("exit-zero") { 0 } else { 1 })
        }
    }
}
