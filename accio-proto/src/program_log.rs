//! Calls of the program's logger.
//!
//! A line is often written before a connection is counted, reported or released, so a panic of the
//! logger must not end the call: it would lose a connection, or a thread that serves others. The
//! program's panic hook has reported it.

use crate::panics::caught;

/// Calls the logger, or a subscriber of the feature `tracing`.
pub fn write(write: impl FnOnce()) {
    caught(write);
}

/// Defines a macro like the one of the same name in the crate `log`, for each level that the calling
/// crate uses.
#[doc(hidden)]
#[macro_export]
macro_rules! define_log_macros {
    ($dollar:tt $($private:ident $name:ident),*) => {$(
        macro_rules! $private {
            ($dollar($dollar line:tt)+) => {
                $crate::program_log::write(|| ::log::$name!($dollar($dollar line)+))
            };
        }
        pub(crate) use $private as $name;
    )*};
}

define_log_macros!($ error_line error, warn_line warn, info_line info, debug_line debug);

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    /// Returns the number of files that log, and checks that they use the macros of this one.
    fn search(dir: &Path) -> usize {
        let levels = ["error", "warn", "info", "debug", "trace"];
        let mut found = 0;
        for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
            let path = entry.path();
            if path.is_dir() {
                found += search(&path);
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            if levels.iter().any(|level| text.contains(&format!("log::{level}!("))) {
                let is_guarded = text.contains("use crate::program_log as log;");
                assert!(is_guarded, "{path:?} logs without `use crate::program_log as log;`");
                found += 1;
            }
        }
        found
    }

    #[test]
    fn every_file_that_logs_survives_panics_of_the_logger() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let found = search(&root.join("src"));
        assert!(found >= 25, "{found} files log");
        // Absent where only this crate is tested.
        let store = root.join("../accio-store/src");
        if store.exists() {
            let found = search(&store);
            assert!(found >= 4, "{found} files of accio-store log");
        }
    }
}
