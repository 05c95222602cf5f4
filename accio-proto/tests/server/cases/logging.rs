//! Tests of the log.

use super::*;
use crate::broken_logger;

#[test]
fn a_logger_that_panics_on_every_line_changes_nothing() {
    broken_logger::install();
    let (memory, before) = (MemorySink::new(), broken_logger::lines());
    ends_each_connection(builder(memory.clone()), &memory);
    // At least one for each connection.
    assert!(broken_logger::lines() >= before + 4);
}
