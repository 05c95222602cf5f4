//! The input drives the simulation, and its oracle checks the result.

use std::fs::File;
use std::sync::{Arc, LazyLock};

use crate::{plan, world};

static NULL: LazyLock<Arc<File>> =
    LazyLock::new(|| Arc::new(File::options().write(true).open("/dev/null").unwrap()));

/// The input, made from the bytes of the fuzzer.
pub(crate) type Input<'a> = &'a [u8];

pub(crate) fn run(bytes: Input<'_>) {
    world::World::new(plan::Random::scripted(0, bytes), &NULL).run();
}
