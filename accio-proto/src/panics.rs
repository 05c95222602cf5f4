//! Panics of the program's code: its logger, its subscriber, its sink, its cryptography and its callbacks.

use std::any::Any;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Calls code of the program. Returns `None` if it panics, which the program's panic hook has
/// reported.
pub fn caught<T>(call: impl FnOnce() -> T) -> Option<T> {
    caught_with(call, |_| ()).ok()
}

/// Works like [`caught`], but returns what `describe` finds in the value of the panic.
pub fn caught_with<T, E>(
    call: impl FnOnce() -> T,
    describe: impl FnOnce(&(dyn Any + Send)) -> E,
) -> Result<T, E> {
    catch_unwind(AssertUnwindSafe(call)).map_err(|panic| {
        let described = describe(&*panic);
        discard(panic);
        described
    })
}

/// Drops a value of the program, such as that of a panic or the cause of an error. Its drop may panic.
pub fn discard<T>(value: T) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(value))) {
        // The drop of this value might panic again, and so on.
        mem::forget(panic);
    }
}

/// Returns the message of a panic.
pub fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no message").to_owned()
}

#[cfg(test)]
mod tests {
    use std::panic::resume_unwind;

    use super::*;

    /// A value whose drop panics with such a value, this number of times.
    struct Explosive(u32);

    impl Drop for Explosive {
        fn drop(&mut self) {
            if let Some(left) = self.0.checked_sub(1) {
                resume_unwind(Box::new(Explosive(left)));
            }
        }
    }

    fn explode<T>() -> T {
        resume_unwind(Box::new(Explosive(2)))
    }

    #[test]
    fn values_whose_drops_panic_are_discarded() {
        let panics = |call: fn()| catch_unwind(call).map_err(mem::forget).is_err();
        assert!(panics(explode), "the test works");
        assert!(!panics(|| discard(Explosive(2))));
        assert!(!panics(|| assert_eq!(caught(explode), None::<()>)));
        assert!(!panics(|| assert_eq!(
            caught_with(explode::<()>, message).unwrap_err(),
            "no message"
        )));
    }
}
