//! Tests that no upload is confirmed for which a group of commits has no result.

use std::io;
use std::net::{Shutdown, TcpStream};

use super::builder;
use super::cases::*;
use accio_proto::{Connection, FileSink, MemoryFile, MemorySink, OpenError, Stored};

/// A sink that commits in groups and returns no result.
struct WithoutResults(MemorySink);

impl FileSink for WithoutResults {
    type File = MemoryFile;

    fn open(&self, connection: &Connection) -> Result<MemoryFile, OpenError> {
        self.0.open(connection)
    }

    fn mark(&self, connection: &Connection) -> io::Result<()> {
        self.0.mark(connection)
    }

    fn commits_in_groups(&self) -> bool {
        true
    }

    fn commit_all(
        &self,
        _files: &mut [&mut MemoryFile],
        _may_name: &dyn Fn(usize) -> bool,
    ) -> Vec<io::Result<()>> {
        Vec::new()
    }
}

#[test]
fn an_upload_without_a_result_is_not_confirmed() {
    let memory = MemorySink::new();
    let server = start(builder(WithoutResults(memory.clone())));
    let stream = TcpStream::connect(server.address).unwrap();
    io::Write::write_all(&mut &stream, b"content").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let error = server.outcomes.wait(1)[&1].error.clone();
    assert!(error.is_some_and(|error| error.contains("no result")), "it counts as failed");
    assert_eq!(memory.get(1), Some(Stored::Error));
    server.stop().unwrap();
}
