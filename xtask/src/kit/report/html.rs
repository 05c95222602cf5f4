//! A page for a class: submissions × checks.
