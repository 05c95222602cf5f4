//! Tests of the sink with an in-memory store, one in a directory, and a faulty one.

#[path = "../../../accio-proto/tests/server/broken_logger.rs"]
mod broken_logger;
mod faulty;
mod served;

use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use accio_proto::{Connection, FileSink, SinkFile};
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};

use crate::blocking::{StoreFile, StoreSink};
use crate::conditional_put;
use crate::part_size::PART;
use crate::shared::{Capabilities, LAST_CLEANUP, Location, Shared};
use crate::sink::AsyncStoreSink;
use faulty::Faults;
pub(crate) use faulty::Faulty;

/// Maximum duration of any step of a test.
const BOUND: Duration = Duration::from_secs(60);

pub(crate) const CLOUD: Capabilities =
    Capabilities { conditional: true, notes: true, multipart: true, parts_outlive_puts: true };
const MEMORY: usize = 4 * PART;

pub(crate) fn sink(
    store: Arc<dyn ObjectStore>,
    capabilities: Capabilities,
    memory: usize,
) -> StoreSink {
    let runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = { runtime }.worker_threads(2).enable_all().build().unwrap();
    let (root, node) = (Path::from("p/node"), "node".to_owned());
    let location = Location { address: "test://".to_owned(), root, node };
    let sink = AsyncStoreSink::new(Shared::new(store, capabilities, location, memory));
    StoreSink::new(sink, runtime)
}

fn faulty() -> (StoreSink, Arc<Faults>) {
    let store = Faulty::default();
    let plan = Arc::clone(&store.plan);
    (sink(Arc::new(store), CLOUD, MEMORY), plan)
}

/// Returns content in which no piece equals another; fast to generate, even without optimization.
fn content(len: usize, seed: u8) -> Vec<u8> {
    let mut bytes = vec![seed; len];
    for (index, piece) in bytes.chunks_exact_mut(61).enumerate() {
        piece[..8].copy_from_slice(&(index as u64).to_le_bytes());
    }
    bytes
}

fn write(file: &mut StoreFile, bytes: &[u8]) -> io::Result<()> {
    bytes.chunks(100_003).try_for_each(|chunk| file.write(chunk))
}

fn put(sink: &StoreSink, id: u64, bytes: &[u8]) -> io::Result<()> {
    let mut file = sink.open(&Connection::new(id))?;
    match write(&mut file, bytes) {
        Ok(()) => file.commit(),
        Err(error) => {
            file.abort()?;
            Err(error)
        }
    }
}

fn get(sink: &StoreSink, id: u64) -> Option<Vec<u8>> {
    let Shared { store, .. } = &**sink.shared();
    let path = sink.shared().path(id);
    sink.runtime()
        .block_on(async { Some(store.get(&path).await.ok()?.bytes().await.unwrap().to_vec()) })
}

fn stores_every_length(sink: &StoreSink) {
    for (id, len) in (1..).zip([0, 1, 5, PART - 1, PART, PART + 1, 3 * PART + 7]) {
        let bytes = content(len, 0);
        put(sink, id, &bytes).unwrap();
        assert!(get(sink, id).unwrap() == bytes, "{len} bytes");
    }
    for len in [0, 10, 2 * PART] {
        let id = 100 + len as u64;
        let mut file = sink.open(&Connection::new(id)).unwrap();
        write(&mut file, &content(len, 0)).unwrap();
        assert_eq!(get(sink, id), None, "visible before the end");
        file.abort().unwrap();
        assert_eq!(get(sink, id).unwrap(), b"ERROR");
    }
    sink.mark(&Connection::new(50)).unwrap();
    assert_eq!(get(sink, 50).unwrap(), b"ERROR");
    assert_eq!(sink.shared().budget.in_use(), 0);
}

#[test]
fn stores_every_length_in_memory() {
    stores_every_length(&sink(Arc::new(InMemory::new()), CLOUD, MEMORY));
}

#[test]
fn stores_every_length_in_a_directory_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let store = LocalFileSystem::new_with_prefix(dir.path()).unwrap();
    let capabilities = Capabilities { notes: false, ..CLOUD };
    stores_every_length(&sink(Arc::new(store), capabilities, MEMORY));
    let names = std::fs::read_dir(dir.path().join("p/node")).unwrap();
    for name in names {
        let name = name.unwrap().file_name();
        assert!(name.to_str().unwrap().ends_with(".file"), "left behind: {name:?}");
    }
}

#[test]
fn stores_every_length_in_a_store_that_overwrites() {
    let store = Faulty::default();
    store.plan.ignores_conditions.store(true, Ordering::SeqCst);
    let plan = Arc::clone(&store.plan);
    stores_every_length(&sink(
        Arc::new(store),
        Capabilities { conditional: false, ..CLOUD },
        MEMORY,
    ));
    assert_eq!(plan.open.load(Ordering::SeqCst), 0);
}

#[test]
fn stores_a_large_upload_where_a_put_ends_uploads_of_its_name() {
    let store = Faulty::default();
    store.plan.puts_end_uploads.store(true, Ordering::SeqCst);
    let plan = Arc::clone(&store.plan);
    let store: Arc<dyn ObjectStore> = Arc::new(store);
    let capabilities = Capabilities { parts_outlive_puts: false, ..CLOUD };
    let first = sink(Arc::clone(&store), capabilities, MEMORY);
    let bytes = content(3 * PART + 7, 0);
    put(&first, 1, &bytes).unwrap();
    // An aborted upload leaves parts, which must not disturb others.
    let mut given_up = first.open(&Connection::new(2)).unwrap();
    write(&mut given_up, &bytes).unwrap();
    given_up.abort().unwrap();
    assert_eq!(get(&first, 2).unwrap(), b"ERROR");
    let mut dropped = first.open(&Connection::new(3)).unwrap();
    write(&mut dropped, &bytes).unwrap();
    drop(dropped);
    put(&first, 3, b"small").unwrap();
    assert_eq!(get(&first, 3).unwrap(), b"small");
    // Another receiver with the same name still notices that the name is taken.
    let second = sink(store, capabilities, MEMORY);
    assert_eq!(put(&second, 1, &bytes).unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert!(get(&first, 1).unwrap() == bytes);
    assert_eq!(plan.open.load(Ordering::SeqCst), 0);
}

#[test]
fn without_multipart_accepts_files_that_fit_into_one_request() {
    let capabilities = Capabilities { conditional: false, notes: false, multipart: false, ..CLOUD };
    let sink = sink(Arc::new(InMemory::new()), capabilities, MEMORY);
    let bytes = content(PART, 0);
    put(&sink, 1, &bytes).unwrap();
    assert!(get(&sink, 1).unwrap() == bytes);
    let why = put(&sink, 2, &content(PART + 1, 0)).unwrap_err().to_string();
    assert!(why.contains("not support uploads in parts"), "{why}");
    assert_eq!(get(&sink, 2).unwrap(), b"ERROR");
}

#[test]
fn of_two_receivers_with_one_name_one_fails() {
    let lengths = [(10, 20), (2 * PART, 20), (10, 2 * PART), (2 * PART, 3 * PART)];
    for ((first, second), conditional) in lengths.into_iter().flat_map(|x| [(x, true), (x, false)])
    {
        let store = Faulty::default();
        store.plan.ignores_conditions.store(!conditional, Ordering::SeqCst);
        let store: Arc<dyn ObjectStore> = Arc::new(store);
        let capabilities = Capabilities { conditional, ..CLOUD };
        let (a, b) =
            (sink(Arc::clone(&store), capabilities, MEMORY), sink(store, capabilities, MEMORY));
        let (ours, theirs) = (content(first, 1), content(second, 2));
        // Both uploads begin before either ends.
        let (mut one, mut other) =
            (a.open(&Connection::new(1)).unwrap(), b.open(&Connection::new(1)).unwrap());
        write(&mut one, &ours).unwrap();
        write(&mut other, &theirs).unwrap();
        one.commit().unwrap();
        let error = other.commit().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        assert!(error.to_string().contains("node name"), "{error}");
        assert_eq!(b.mark(&Connection::new(1)).unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert!(get(&a, 1).unwrap() == ours, "overwritten");
    }
}

#[test]
fn retries_temporary_failures() {
    let (sink, plan) = faulty();
    for (id, len) in [(1, 10), (2, 2 * PART)] {
        plan.puts.store(2, Ordering::SeqCst);
        let bytes = content(len, 0);
        put(&sink, id, &bytes).unwrap();
        assert!(get(&sink, id).unwrap() == bytes);
    }
    assert_eq!(plan.open.load(Ordering::SeqCst), 0);
}

#[test]
fn a_lost_response_is_not_a_failure() {
    let (sink, plan) = faulty();
    for (id, len) in [(1, 10), (2, 2 * PART)] {
        plan.lost_responses.store(1, Ordering::SeqCst);
        plan.lost_completions.store(1, Ordering::SeqCst);
        let bytes = content(len, 0);
        put(&sink, id, &bytes).unwrap();
        assert!(get(&sink, id).unwrap() == bytes);
    }
    assert_eq!(plan.open.load(Ordering::SeqCst), 0);
}

#[test]
fn replaces_content_of_a_failed_put_by_the_marker() {
    let (sink, plan) = faulty();
    // The content is stored but its response is lost; the marker finds it.
    let shared = Arc::clone(sink.shared());
    let path = shared.path(1);
    let stored =
        shared.create(&path, PutPayload::from_static(b"content"), conditional_put::CONTENT);
    sink.runtime().block_on(stored).unwrap();
    sink.mark(&Connection::new(1)).unwrap();
    assert_eq!(get(&sink, 1).unwrap(), b"ERROR");
    assert_eq!(plan.open.load(Ordering::SeqCst), 0);
}

#[test]
fn a_persistent_failure_fails_the_upload_with_its_reason() {
    let (sink, plan) = faulty();
    plan.puts.store(u32::MAX, Ordering::SeqCst);
    let error = put(&sink, 1, b"content").unwrap_err().to_string();
    assert!(error.contains("out of order for now"), "{error}");
    sink.mark(&Connection::new(1)).unwrap_err();
    assert_eq!(get(&sink, 1), None);
    plan.puts.store(0, Ordering::SeqCst);
    sink.mark(&Connection::new(1)).unwrap();
    assert_eq!(get(&sink, 1).unwrap(), b"ERROR");
}

#[test]
fn a_failed_part_or_completion_leaves_no_upload() {
    let (sink, plan) = faulty();
    plan.parts.store(1, Ordering::SeqCst);
    put(&sink, 1, &content(6 * PART, 0)).unwrap_err();
    plan.completes.store(1, Ordering::SeqCst);
    put(&sink, 2, &content(2 * PART, 0)).unwrap_err();
    sink.mark(&Connection::new(2)).unwrap();
    for id in [1, 2] {
        assert_eq!(get(&sink, id).unwrap(), b"ERROR");
    }
    assert_eq!(plan.open.load(Ordering::SeqCst), 0);
    assert_eq!(sink.shared().budget.in_use(), 0);
}

#[test]
fn a_dropped_file_leaves_no_object() {
    let (sink, plan) = faulty();
    let mut file = sink.open(&Connection::new(1)).unwrap();
    write(&mut file, &content(2 * PART, 0)).unwrap();
    assert_eq!(plan.open.load(Ordering::SeqCst), 1);
    drop(file);
    assert_eq!(plan.open.load(Ordering::SeqCst), 0);
    assert_eq!(get(&sink, 1), None);
    assert_eq!(sink.shared().budget.in_use(), 0);
}

#[test]
fn many_uploads_finish_with_memory_for_two_parts() {
    const UPLOADS: u64 = 40;
    let store = Faulty::default();
    store.plan.drops_parts.store(true, Ordering::SeqCst);
    let sink = sink(Arc::new(store), CLOUD, 2 * PART);
    let (done, finished) = mpsc::channel();
    for id in 1..=UPLOADS {
        let (sink, done) = (sink.clone(), done.clone());
        thread::spawn(move || {
            let mut file = sink.open(&Connection::new(id)).unwrap();
            let piece = vec![7; 256 << 10];
            // More than two parts each, in pieces, so that all uploads hold memory at the same time.
            // On a busy machine each of them takes milliseconds.
            for _ in 0..(2 * PART / piece.len() + 3) {
                file.write(&piece).unwrap();
                thread::yield_now();
            }
            done.send(file.abort().is_ok()).unwrap();
        });
    }
    for left in (0..UPLOADS).rev() {
        let ended = finished.recv_timeout(BOUND);
        assert_eq!(ended, Ok(true), "{} uploads wait for each other", left + 1);
    }
    assert!(sink.shared().budget.peak() <= 2 * PART);
    assert_eq!(sink.shared().budget.in_use(), 0);
}

#[test]
fn close_fails_a_blocked_upload_and_marks_it() {
    let (sink, plan) = faulty();
    plan.delays_parts.store(true, Ordering::SeqCst);
    let (done, finished) = mpsc::channel();
    {
        let sink = sink.clone();
        let bytes = content(6 * PART, 0);
        thread::spawn(move || done.send(put(&sink, 1, &bytes).is_err()).unwrap());
    }
    let began = Instant::now();
    while plan.open.load(Ordering::SeqCst) == 0 && began.elapsed() < BOUND {
        thread::sleep(Duration::from_millis(5));
    }
    // The store accepts nothing, so the upload hangs.
    finished.recv_timeout(Duration::from_millis(300)).unwrap_err();
    let began = Instant::now();
    sink.close();
    assert_eq!(finished.recv_timeout(BOUND), Ok(true));
    assert!(began.elapsed() < LAST_CLEANUP * 2, "took {:?}", began.elapsed());
    assert_eq!(get(&sink, 1).unwrap(), b"ERROR");
    assert_eq!(plan.open.load(Ordering::SeqCst), 0);
}

#[test]
fn a_store_that_never_answers_does_not_delay_shutdown() {
    let (sink, _) = faulty();
    sink.close();
    let began = Instant::now();
    let tidy = sink.shared().tidy(std::future::pending::<io::Result<()>>());
    let error = sink.runtime().block_on(tidy).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    assert!((LAST_CLEANUP..BOUND).contains(&began.elapsed()), "{:?}", began.elapsed());
}

#[test]
fn a_logger_that_panics_on_every_line_changes_nothing() {
    broken_logger::install();
    let (sink, plan) = faulty();
    let before = broken_logger::lines();
    let large = content(2 * PART, 0);
    // A line for each repeated request.
    plan.puts.store(2, Ordering::SeqCst);
    put(&sink, 1, b"content").unwrap();
    assert_eq!(get(&sink, 1).unwrap(), b"content");
    // A line for each upload that cannot be aborted: by `abort`, `commit` and `drop`.
    plan.aborts.store(1, Ordering::SeqCst);
    let mut aborted = sink.open(&Connection::new(2)).unwrap();
    write(&mut aborted, &large).unwrap();
    aborted.abort().unwrap();
    assert_eq!(get(&sink, 2).unwrap(), b"ERROR");
    plan.aborts.store(1, Ordering::SeqCst);
    plan.completes.store(1, Ordering::SeqCst);
    let error = put(&sink, 3, &large).unwrap_err().to_string();
    assert!(error.contains("out of order for now"), "{error}");
    plan.aborts.store(1, Ordering::SeqCst);
    let mut dropped = sink.open(&Connection::new(4)).unwrap();
    write(&mut dropped, &large).unwrap();
    drop(dropped);
    assert!(broken_logger::lines() >= before + 5);
    assert_eq!(plan.open.load(Ordering::SeqCst), 0);
    assert_eq!(sink.shared().budget.in_use(), 0);
}
