//! Tests of commits in groups.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Condvar, Mutex};

use accio_proto::{
    ClientError, Connection, FileSink, MemoryFile, MemorySink, OpenError, Phase, Server, SinkFile,
    Stored,
};
use accio_tokio::{Client, Serving, serve_with};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::any_sink::AnySink;
use crate::{PATIENCE, eventually, listen, serve};

/// A sink in memory that commits in groups, once its gate is open.
#[derive(Clone, Default)]
struct Grouped {
    files: MemorySink,
    sizes: Arc<Mutex<Vec<usize>>>,
    gate: Arc<(Mutex<bool>, Condvar)>,
}

/// A file whose commit fails if its content is `fails`. If it is `panics`, its drop panics.
struct GroupedFile {
    file: MemoryFile,
    fails: bool,
    panics: bool,
}

impl Drop for GroupedFile {
    fn drop(&mut self) {
        assert!(!self.panics, "the drop panics");
    }
}

impl Grouped {
    fn open_gate(&self) {
        *self.gate.0.lock().unwrap() = true;
        self.gate.1.notify_all();
    }
}

impl FileSink for Grouped {
    type File = GroupedFile;

    fn open(&self, connection: &Connection) -> Result<GroupedFile, OpenError> {
        Ok(GroupedFile { file: self.files.open(connection)?, fails: false, panics: false })
    }

    fn commits_in_groups(&self) -> bool {
        true
    }

    fn commit_all(
        &self,
        files: &mut [&mut GroupedFile],
        may_name: &dyn Fn(usize) -> bool,
    ) -> Vec<io::Result<()>> {
        self.sizes.lock().unwrap().push(files.len());
        let is_open = self.gate.0.lock().unwrap();
        drop(self.gate.1.wait_while(is_open, |is_open| !*is_open).unwrap());
        let commit = |(index, file): (usize, &mut &mut GroupedFile)| {
            assert!(may_name(index));
            file.commit()
        };
        files.iter_mut().enumerate().map(commit).collect()
    }
}

impl SinkFile for GroupedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.fails |= bytes == b"fails";
        self.panics |= bytes == b"panics";
        self.file.write(bytes)
    }

    fn commit(&mut self) -> io::Result<()> {
        match self.fails {
            true => Err(io::Error::other("the disk is broken")),
            false => self.file.commit(),
        }
    }

    fn abort(&mut self) -> io::Result<()> {
        self.file.abort()
    }
}

const UPLOADS: usize = 20;

type Upload = JoinHandle<Result<bool, ClientError>>;

/// Starts a server, and uploads that all wait for their commits. The first one will fail.
async fn start(sink: &Grouped) -> (Serving, Vec<Upload>) {
    let server = serve(listen().await, sink.clone());
    let uploads = begin(&server, |index| if index == 0 { b"fails" } else { b"content" }).await;
    (server, uploads)
}

/// Begins uploads, and waits until all of them wait for their commits.
async fn begin(server: &Serving, content: fn(usize) -> &'static [u8]) -> Vec<Upload> {
    let (port, handle) = (server.local_addr().port(), server.handle());
    let upload = |index: usize| async move {
        let content = content(index);
        Ok(Client::default().send("127.0.0.1", port, content).await?.confirmed)
    };
    let uploads = (0..UPLOADS).map(|index| tokio::spawn(upload(index))).collect();
    let committing = || handle.connections().filter(|upload| upload.phase == Phase::Finishing);
    eventually(|| committing().count() == UPLOADS).await;
    uploads
}

/// Checks that one upload has failed and all others are stored and confirmed.
async fn check(sink: &Grouped, uploads: Vec<JoinHandle<Result<bool, ClientError>>>) {
    for (index, upload) in uploads.into_iter().enumerate() {
        let result = timeout(PATIENCE, upload).await.expect("the upload ends").unwrap();
        match index {
            0 => assert!(matches!(result, Err(ClientError::NotKept { .. })), "{result:?}"),
            _ => assert!(result.unwrap(), "upload {index} is confirmed"),
        }
    }
    let files = sink.files.all();
    let is_complete = |stored: &&Stored| **stored == Stored::Complete(b"content".to_vec());
    assert_eq!(files.values().filter(is_complete).count(), UPLOADS - 1);
    assert!(files.values().any(|stored| *stored == Stored::Error));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_wait_are_committed_together() {
    let sink = Grouped::default();
    let (server, uploads) = start(&sink).await;
    sink.open_gate();
    check(&sink, uploads).await;
    let sizes = sink.sizes.lock().unwrap().clone();
    assert_eq!(sizes.iter().sum::<usize>(), UPLOADS, "{sizes:?}");
    assert!(sizes.iter().any(|size| *size > 1), "{sizes:?}");
    timeout(PATIENCE, server.stop()).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_waits_for_files_that_wait_for_a_group() {
    let sink = Grouped::default();
    let (server, uploads) = start(&sink).await;
    let (address, handle) = (server.local_addr(), server.handle());
    let ended = tokio::spawn(server.stop());
    let refused = async {
        while TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, refused).await.expect("it stops listening");
    assert!(handle.stats().in_service >= UPLOADS as u64);
    sink.open_gate();
    timeout(PATIENCE, ended).await.expect("the server ends").unwrap().unwrap();
    assert_eq!(handle.stats().in_service, 0, "all are reported");
    check(&sink, uploads).await;
}

/// Even the drops of all files of a group change the result of none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_while_committed_files_are_dropped_fails_no_upload() {
    let sink = Grouped::default();
    let server = serve(listen().await, sink.clone());
    let uploads = begin(&server, |_| b"panics").await;
    sink.open_gate();
    for upload in uploads {
        assert!(timeout(PATIENCE, upload).await.expect("the upload ends").unwrap().unwrap());
    }
    let files = sink.files.all();
    assert!(files.values().all(|stored| *stored == Stored::Complete(b"panics".to_vec())));
    assert_eq!((files.len(), server.handle().stats().failed), (UPLOADS, 0));
    timeout(PATIENCE, server.stop()).await.unwrap().unwrap();
}

/// A panic of the logger fails no upload, and ends no thread that commits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_of_the_logger_fails_no_upload_of_a_group() {
    crate::broken_logger::install();
    let sink = Grouped::default();
    let outcomes = Arc::new(Mutex::new(BTreeMap::<u64, Vec<bool>>::new()));
    let builder = Server::builder(AnySink::new(sink.clone())).on_outcome({
        let outcomes = Arc::clone(&outcomes);
        move |outcome| {
            let mut outcomes = outcomes.lock().unwrap();
            outcomes.entry(outcome.connection.id).or_default().push(outcome.result.is_ok());
        }
    });
    let server = serve_with([listen().await], builder).unwrap();
    // More rounds than threads that commit.
    for round in 1..=3 {
        let uploads = begin(&server, |_| b"content").await;
        sink.open_gate();
        for upload in uploads {
            assert!(timeout(PATIENCE, upload).await.expect("the upload ends").unwrap().unwrap());
        }
        *sink.gate.0.lock().unwrap() = false;
        assert_eq!(outcomes.lock().unwrap().len(), round * UPLOADS);
    }
    assert!(crate::broken_logger::lines() >= 3 * UPLOADS);
    let files = sink.files.all();
    assert!(files.values().all(|stored| *stored == Stored::Complete(b"content".to_vec())));
    for (id, results) in &*outcomes.lock().unwrap() {
        assert_eq!(results[..], [true], "connection {id}: one report");
    }
    timeout(PATIENCE, server.stop()).await.expect("the server ends").unwrap();
}
