//! Tests of the log.

use std::num::NonZeroU32;

use super::*;
use crate::broken_logger;

#[test]
fn a_logger_that_panics_on_every_line_changes_nothing() {
    broken_logger::install();
    let memory = MemorySink::new();
    let server = start(builder(memory.clone()).max_size(100).max_per_ip(NonZeroU32::MIN));
    upload(&server, b"content");
    let mut large = server.connect();
    greeted(&mut large);
    assert!(is_reset(&mut server.connect()), "a second connection of the address is refused");
    send_in_vain(&mut large, &[b'x'; 1000]);
    assert!(is_reset(&mut large));
    let mut silent = server.connect();
    greeted(&mut silent);
    let (handle, outcomes) = (server.handle.clone(), Arc::clone(&server.outcomes));
    server.stop().unwrap();

    let ended = outcomes.wait(3);
    assert_eq!(ended[&1].error, None);
    assert!((2..=3).all(|id| ended[&id].error.is_some()), "{ended:?}");
    assert_eq!(memory.get(1), Some(Stored::Complete(b"content".to_vec())));
    assert!((2..=3).all(|id| memory.get(id) == Some(Stored::Error)), "{:?}", memory.all());
    assert_eq!(handle.connections().count(), 0);
    let stats = handle.stats();
    let ended = (stats.completed, stats.failed, stats.refused, stats.in_service);
    assert_eq!(ended, (1, 2, 1, 0), "{stats:?}");
    // At least one for each connection.
    assert!(broken_logger::lines() >= 4);
}
