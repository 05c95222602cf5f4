//! A custom sink, which keeps a checksum of each file instead of the file.
//!
//! `cargo run --example hashing_sink` sends a file to itself and prints the checksum.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "an example")]

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher};
use std::io;
use std::sync::{Arc, Mutex};

use accio_proto::{Client, Connection, FileSink, OpenError, Server, SinkFile};

/// The stored results: a checksum for each complete file, `None` for a failed one.
type Sums = Arc<Mutex<BTreeMap<u64, Option<u64>>>>;

struct HashingSink(Sums);

struct HashedFile {
    id: u64,
    hasher: DefaultHasher,
    sums: Sums,
}

impl FileSink for HashingSink {
    type File = HashedFile;

    fn open(&self, connection: &Connection) -> Result<HashedFile, OpenError> {
        let id = connection.id;
        Ok(HashedFile { id, hasher: DefaultHasher::new(), sums: Arc::clone(&self.0) })
    }
}

impl SinkFile for HashedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.write(bytes);
        Ok(())
    }

    fn commit(&mut self) -> io::Result<()> {
        self.sums.lock().unwrap().insert(self.id, Some(self.hasher.finish()));
        Ok(())
    }

    fn abort(&mut self) -> io::Result<()> {
        self.sums.lock().unwrap().insert(self.id, None);
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let sums = Sums::default();
    let server = Server::builder(HashingSink(Arc::clone(&sums))).bind("127.0.0.1:0")?;
    let (port, handle) = (server.local_addr().port(), server.handle());
    let serving = std::thread::spawn(move || server.run());

    let content = b"the content of a file".repeat(10_000);
    Client::builder().build()?.send("127.0.0.1", port, &content[..])?;
    handle.stop();
    serving.join().unwrap()?;

    let mut expected = DefaultHasher::new();
    expected.write(&content);
    let sums = sums.lock().unwrap();
    println!("file 1 has the checksum {:016x}", sums[&1].unwrap());
    assert_eq!(*sums, BTreeMap::from([(1, Some(expected.finish()))]));
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_runs() -> Result<(), Box<dyn std::error::Error>> {
        super::main()
    }
}
