//! The input drives the simulation, and its oracle checks the result.

use std::fs::File;
use std::sync::{Arc, LazyLock};

use crate::{plan, world};

static NULL: LazyLock<Arc<File>> =
    LazyLock::new(|| Arc::new(File::options().write(true).open("/dev/null").unwrap()));

/// The input, made from the bytes of the fuzzer.
pub(crate) type Input<'a> = &'a [u8];

pub(crate) fn run(bytes: Input<'_>) {
    let world = world::World::new(plan::Random::scripted(0, bytes), &NULL);
    #[cfg(feature = "tls")]
    if bytes.len() % 64 == 7 {
        world.secured().run();
        return;
    }
    world.run();
}
