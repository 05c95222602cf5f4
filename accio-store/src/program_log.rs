//! Calls of the program's logger, whose panics have no effect.

accio_proto::define_log_macros!($ error_line error, warn_line warn, info_line info);
