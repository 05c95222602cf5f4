//! Records every upload in an SQLite database. A client is notified of its upload only after the row
//! is committed, so that the index never misses a file that a client relies on.
//!
//! cargo run --bin sqlite_index -- ADDRESS DIRECTORY DATABASE

use std::error::Error;
use std::path::Path;
use std::sync::mpsc::{self, Receiver};
use std::thread::{self, JoinHandle};

use accio_proto::{Acknowledgement, DirSink, Outcome, Server};
use rusqlite::{Connection, params};

type Recorded = (Outcome, Acknowledgement);

fn open(database: &Path) -> rusqlite::Result<Connection> {
    let index = Connection::open(database)?;
    index.execute(
        "CREATE TABLE IF NOT EXISTS uploads
             (id INTEGER PRIMARY KEY, peer TEXT, bytes INTEGER, seconds REAL, error TEXT)",
        [],
    )?;
    Ok(index)
}

/// Writes rows until the server has ended.
fn record(index: &Connection, outcomes: Receiver<Recorded>) {
    for (outcome, client) in outcomes {
        let peer = outcome.connection.peer.map(|peer| peer.to_string());
        let error = outcome.result.as_ref().err().map(ToString::to_string);
        let (id, bytes) = (outcome.connection.id as i64, outcome.bytes as i64);
        let row = params![id, peer, bytes, outcome.duration.as_secs_f64(), error];
        let inserted =
            index.execute("INSERT OR REPLACE INTO uploads VALUES (?1, ?2, ?3, ?4, ?5)", row);
        if let Err(error) = inserted {
            eprintln!("connection {id}: not recorded: {error}");
        }
        client.send();
    }
}

/// Returns a server that records its uploads, and the thread that does so.
fn bind(
    address: &str,
    directory: &Path,
    database: &Path,
) -> Result<(Server<DirSink>, JoinHandle<()>), Box<dyn Error>> {
    let index = open(database)?;
    let last: i64 = index.query_row("SELECT coalesce(max(id), 0) FROM uploads", [], |row| row.get(0))?;
    let (record_it, outcomes) = mpsc::channel();
    let recorder = thread::spawn(move || record(&index, outcomes));
    let server = Server::builder(DirSink::create(directory)?)
        .first_id(last as u64 + 1)
        .recorder(move |outcome, client| {
            // The thread ends after the server, so it receives everything.
            let _ = record_it.send((outcome, client));
        })
        .bind(address)?;
    Ok((server, recorder))
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, directory, database] = &arguments[..] else {
        return Err("usage: sqlite_index ADDRESS DIRECTORY DATABASE".into());
    };
    let (server, recorder) = bind(address, directory.as_ref(), database.as_ref())?;
    server.run()?;
    recorder.join().map_err(|_| "the recorder panicked")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use accio_proto::Client;

    use super::*;

    #[test]
    fn the_row_exists_when_the_client_is_notified() {
        let dir = tempfile::tempdir().unwrap();
        let database = dir.path().join("index.db");
        let (server, recorder) = bind("127.0.0.1:0", &dir.path().join("files"), &database).unwrap();
        let (port, handle) = (server.local_addr().port(), server.handle());
        let serving = thread::spawn(move || server.run());
        let client = Client::builder().build().unwrap();
        let index = open(&database).unwrap();
        for (id, content) in [(1, &b"first"[..]), (2, b"")] {
            assert!(client.send("127.0.0.1", port, content).unwrap().confirmed);
            let row = index.query_row("SELECT bytes, error FROM uploads WHERE id = ?1", [id], |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, Option<String>>(1)?))
            });
            assert_eq!(row.unwrap(), (content.len() as i64, None));
        }
        handle.stop();
        serving.join().unwrap().unwrap();
        recorder.join().unwrap();
    }
}
