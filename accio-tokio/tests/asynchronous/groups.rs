//! Tests of commits in groups.

use std::io;
use std::sync::{Arc, Condvar, Mutex};

use accio_proto::{
    ClientError, Connection, FileSink, MemoryFile, MemorySink, OpenError, Phase, ServerConfig,
    SinkFile, Stored,
};
use accio_tokio::{Client, Serving, serve};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::{PATIENCE, eventually, listen};

/// A sink in memory that commits in groups, once its gate is open.
#[derive(Clone, Default)]
struct Grouped {
    files: MemorySink,
    sizes: Arc<Mutex<Vec<usize>>>,
    gate: Arc<(Mutex<bool>, Condvar)>,
}

/// A file whose commit fails if its content is `fails`.
struct GroupedFile {
    file: MemoryFile,
    fails: bool,
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
        Ok(GroupedFile { file: self.files.open(connection)?, fails: false })
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

/// Starts a server, and uploads that all wait for their commits. The first one will fail.
async fn start(sink: &Grouped) -> (Serving, Vec<JoinHandle<Result<bool, ClientError>>>) {
    let server = serve(listen().await, sink.clone(), ServerConfig::default()).unwrap();
    let (port, handle) = (server.local_addr().port(), server.handle());
    let upload = |index: usize| async move {
        let content: &[u8] = if index == 0 { b"fails" } else { b"content" };
        Ok(Client::default().send("127.0.0.1", port, content).await?.confirmed)
    };
    let uploads = (0..UPLOADS).map(|index| tokio::spawn(upload(index))).collect();
    let committing = || handle.connections().filter(|upload| upload.phase == Phase::Finishing);
    eventually(|| committing().count() == UPLOADS).await;
    (server, uploads)
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
