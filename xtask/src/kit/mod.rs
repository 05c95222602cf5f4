//! The conformance kit: grades any implementation of the three programs, in any language.
//!
//! A [`check::Check`] is a row of the courses' tables, or something their documents ask for beside;
//! it is shown in a [`trial::Trial`] of the subject's programs, against the reference side made of
//! accio-proto ([`mod@reference`]) and peers that misbehave ([`broken`]), over a network that may be
//! emulated ([`proxy`], [`namespace`]). [`grade`] runs them on a submission, [`report`] says what
//! came of it.

pub(crate) mod broken;
mod check;
mod checks;
mod diag;
mod find;
mod grade;
mod interop;
mod judge;
pub(crate) mod namespace;
mod options;
mod outcome;
mod proof;
mod proxy;
mod reference;
mod report;
mod running;
mod sockets;
mod submissions;
mod trial;

pub(crate) use options::{Options, Run, dialect};
