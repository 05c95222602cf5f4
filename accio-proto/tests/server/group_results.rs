//! Tests of commits with too few or too many results, in groups and one by one.

use std::fmt;
use std::io;
use std::net::{Shutdown, TcpStream};
use std::panic::resume_unwind;

use super::builder;
use super::cases::*;
use accio_proto::{Connection, FileSink, MemoryFile, MemorySink, OpenError, SinkFile, Stored};

/// A sink that returns no result for its commits, or one more than there are files.
struct WrongResults {
    memory: MemorySink,
    in_groups: bool,
    too_many: bool,
}

/// The cause of an error. Its drop panics.
#[derive(Debug)]
struct Explosive;

impl Drop for Explosive {
    fn drop(&mut self) {
        // Like a panic, but without its message on stderr.
        resume_unwind(Box::new("the cause of an error panics"));
    }
}

impl fmt::Display for Explosive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("explosive")
    }
}

impl std::error::Error for Explosive {}

impl FileSink for WrongResults {
    type File = MemoryFile;

    fn open(&self, connection: &Connection) -> Result<MemoryFile, OpenError> {
        self.memory.open(connection)
    }

    fn mark(&self, connection: &Connection) -> io::Result<()> {
        self.memory.mark(connection)
    }

    fn commits_in_groups(&self) -> bool {
        self.in_groups
    }

    fn commit_all(
        &self,
        files: &mut [&mut MemoryFile],
        _may_name: &dyn Fn(usize) -> bool,
    ) -> Vec<io::Result<()>> {
        if !self.too_many {
            return Vec::new();
        }
        let committed = files.iter_mut().map(|file| file.commit());
        committed.chain([Err(io::Error::other(Explosive))]).collect()
    }
}

#[test]
#[cfg_attr(not(linux_sys), ignore = "only the reactor commits by `commit_all`")]
fn an_upload_without_a_result_is_not_confirmed() {
    for in_groups in [true, false] {
        let memory = MemorySink::new();
        let sink = WrongResults { memory: memory.clone(), in_groups, too_many: false };
        let server = start(builder(sink));
        let stream = TcpStream::connect(server.address).unwrap();
        io::Write::write_all(&mut &stream, b"content").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let error = server.outcomes.wait(1)[&1].error.clone();
        assert!(error.is_some_and(|error| error.contains("no result")), "it counts as failed");
        assert_eq!(memory.get(1), Some(Stored::Error));
        server.stop().unwrap();
    }
}

#[test]
#[cfg_attr(not(linux_sys), ignore = "only the reactor commits by `commit_all`")]
fn a_result_without_a_file_changes_nothing() {
    for in_groups in [true, false] {
        let memory = MemorySink::new();
        let sink = WrongResults { memory: memory.clone(), in_groups, too_many: true };
        let server = start(builder(sink));
        upload(&server, b"content");
        assert_eq!(server.outcomes.wait(1)[&1].error, None);
        assert_eq!(memory.get(1), Some(Stored::Complete(b"content".to_vec())));
        server.stop().unwrap();
    }
}
