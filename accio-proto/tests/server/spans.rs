//! Tests that a subscriber that panics changes nothing for any connection.

use accio_proto::MemorySink;

use super::builder;
use super::cases::*;
use crate::SUBSCRIBER;
use crate::broken_subscriber::*;

/// Serves connections while these methods panic.
fn survives_panics_of(panicking: Methods) {
    let _subscriber = SUBSCRIBER.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    install(panicking);
    let memory = MemorySink::new();
    ends_each_connection(builder(memory.clone()), &memory);
    assert_ne!(panicked() & panicking, 0, "nothing panicked");
    install(0);
}

#[test]
fn a_subscriber_that_panics_when_a_span_is_left_changes_nothing() {
    survives_panics_of(EXIT);
}

#[test]
fn a_subscriber_that_panics_when_a_span_is_closed_changes_nothing() {
    survives_panics_of(TRY_CLOSE);
}

/// The destructor of a span that is entered calls both methods.
#[test]
fn a_subscriber_that_panics_when_a_span_is_left_and_closed_changes_nothing() {
    survives_panics_of(EXIT | TRY_CLOSE);
}

#[test]
fn a_subscriber_that_panics_when_a_span_is_entered_changes_nothing() {
    survives_panics_of(ENTER);
}

#[test]
fn a_subscriber_that_panics_when_a_span_is_created_or_recorded_changes_nothing() {
    [ENABLED, NEW_SPAN, RECORD].into_iter().for_each(survives_panics_of);
}

/// In every method that the spans before it have reached.
#[test]
fn a_subscriber_that_panics_in_every_method_changes_nothing() {
    let spans = [ALL, ALL & !ENABLED, ALL & !(ENABLED | NEW_SPAN | REGISTER_CALLSITE)];
    spans.into_iter().for_each(survives_panics_of);
}
