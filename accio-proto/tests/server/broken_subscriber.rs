//! A subscriber of the spans of connections whose methods panic on request.

use std::panic::resume_unwind;
use std::sync::Once;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Event, Metadata, Subscriber};

/// A set of methods, one in each bit.
pub(crate) type Methods = usize;

pub(crate) const REGISTER_CALLSITE: Methods = 1;
pub(crate) const ENABLED: Methods = 1 << 1;
pub(crate) const NEW_SPAN: Methods = 1 << 2;
pub(crate) const RECORD: Methods = 1 << 3;
pub(crate) const ENTER: Methods = 1 << 4;
pub(crate) const EXIT: Methods = 1 << 5;
pub(crate) const CLONE_SPAN: Methods = 1 << 6;
pub(crate) const TRY_CLOSE: Methods = 1 << 7;
pub(crate) const ALL: Methods = (1 << 8) - 1;

struct BrokenSubscriber;

static PANICKING: AtomicUsize = AtomicUsize::new(0);
/// The methods that have panicked.
static PANICKED: AtomicUsize = AtomicUsize::new(0);

fn enter(method: Methods) {
    if PANICKING.load(Ordering::SeqCst) & method != 0 {
        PANICKED.fetch_or(method, Ordering::SeqCst);
        // Like a panic, but without its message on stderr.
        resume_unwind(Box::new("the subscriber panics"));
    }
}

impl Subscriber for BrokenSubscriber {
    fn register_callsite(&self, _: &Metadata<'_>) -> Interest {
        enter(REGISTER_CALLSITE);
        // So that `enabled` is called each time.
        Interest::sometimes()
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        enter(ENABLED);
        metadata.name() == "connection"
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        static LAST: AtomicU64 = AtomicU64::new(0);
        enter(NEW_SPAN);
        Id::from_u64(LAST.fetch_add(1, Ordering::SeqCst) + 1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {
        enter(RECORD);
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, _: &Event<'_>) {}

    fn enter(&self, _: &Id) {
        enter(ENTER);
    }

    fn exit(&self, _: &Id) {
        enter(EXIT);
    }

    fn clone_span(&self, id: &Id) -> Id {
        enter(CLONE_SPAN);
        id.clone()
    }

    fn try_close(&self, _: Id) -> bool {
        enter(TRY_CLOSE);
        true
    }
}

/// Installs a `BrokenSubscriber` for the rest of this process, and makes these methods panic.
pub(crate) fn install(panicking: Methods) {
    static INSTALL: Once = Once::new();
    INSTALL.call_once(|| tracing::subscriber::set_global_default(BrokenSubscriber).unwrap());
    PANICKED.store(0, Ordering::SeqCst);
    PANICKING.store(panicking, Ordering::SeqCst);
}

/// Returns the methods that have panicked since [`install`].
pub(crate) fn panicked() -> Methods {
    PANICKED.load(Ordering::SeqCst)
}
