#![no_main]

use std::fs::File;
use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;

#[path = "../../tests/simulation/oracle.rs"]
mod oracle;
#[path = "../../tests/simulation/plan.rs"]
mod plan;
#[path = "../../tests/simulation/sink.rs"]
mod sink;
#[path = "../../tests/simulation/socket.rs"]
mod socket;
#[path = "../../tests/simulation/world.rs"]
mod world;

static NULL: LazyLock<Arc<File>> =
    LazyLock::new(|| Arc::new(File::options().write(true).open("/dev/null").unwrap()));

fuzz_target!(|bytes: &[u8]| {
    world::World::new(plan::Random::scripted(0, bytes), &NULL).run();
});
