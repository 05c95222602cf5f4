//! An S3 store that keeps names, sizes and notes, and discards the bytes: to measure who fills it.
//!
//! It speaks as much of HTTP/1.1 and S3 as the receiver does: objects put whole or in parts, on
//! condition that there is none, looked at, listed and deleted.

mod objects;
mod request;

use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use objects::Kept;
use request::{LONGEST, Request, invalid};

/// How much of a body is read at once.
const BUFFER: usize = 256 << 10;

/// How long a connection may lie idle.
const IDLE: Duration = Duration::from_secs(60);

/// The store, on a port of its own; it ends with its handle.
#[derive(Debug)]
pub(super) struct Stub {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    kept: Mutex<Kept>,
    requests: AtomicU64,
    over: AtomicBool,
}

impl Stub {
    pub(super) fn start() -> io::Result<Stub> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::default());
        let accepting = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || accept(&listener, &shared))
        };
        Ok(Stub { address, shared, accepting: Some(accepting) })
    }

    pub(super) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How many requests there were so far.
    pub(super) fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::SeqCst)
    }

    /// How many objects have so many bytes.
    pub(super) fn objects_of(&self, bytes: u64) -> usize {
        self.shared.lock().objects.values().filter(|object| object.bytes == bytes).count()
    }

    /// How many uploads in parts are neither complete nor aborted.
    pub(super) fn unfinished(&self) -> usize {
        self.shared.lock().uploads.len()
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::SeqCst);
        // It waits for the next one. Those it has end with their clients.
        let _ = TcpStream::connect(self.address);
        let _ = self.accepting.take().map(JoinHandle::join);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        if shared.over.load(Ordering::SeqCst) {
            return;
        }
        let Ok(stream) = stream else { continue };
        let shared = Arc::clone(shared);
        // A client that breaks off has nothing to hear.
        thread::spawn(move || drop(serve(&stream, &shared)));
    }
}

/// Answers one request after the other.
fn serve(stream: &TcpStream, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(IDLE))?;
    let mut input = BufReader::with_capacity(BUFFER, stream);
    while let Some(request) = Request::read(&mut input)? {
        shared.requests.fetch_add(1, Ordering::SeqCst);
        let text = if request.is("POST", "delete") {
            if request.length > LONGEST {
                return Err(invalid("too long a list"));
            }
            let mut text = String::new();
            (&mut input).take(request.length).read_to_string(&mut text)?;
            text
        } else {
            discard(&mut input, request.length)?;
            String::new()
        };
        let answer = shared.lock().answer(&request, &text);
        let mut head = format!("HTTP/1.1 {}\r\n", answer.status);
        for (name, value) in &answer.headers {
            // Into a string, which takes all.
            let _ = write!(head, "{name}: {value}\r\n");
        }
        if request.method != "HEAD" {
            let _ = write!(head, "Content-Length: {}\r\n", answer.body.len());
        }
        head += "\r\n";
        (&mut &*stream).write_all(&[head.as_bytes(), answer.body.as_bytes()].concat())?;
    }
    Ok(())
}

/// Reads bytes and drops them; nothing copies them.
fn discard(input: &mut impl BufRead, mut left: u64) -> io::Result<()> {
    while left > 0 {
        let here = input.fill_buf()?.len();
        if here == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let count = usize::try_from(left).unwrap_or(usize::MAX).min(here);
        input.consume(count);
        left -= count as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::request::line;
    use super::*;

    /// Asks on a connection that stays; the status, and what follows the head.
    fn ask(connection: &TcpStream, head: &str, body: &[u8]) -> (u16, String, String) {
        let head = format!("{head}\r\nContent-Length: {}\r\n\r\n", body.len());
        (&mut &*connection).write_all(&[head.as_bytes(), body].concat()).unwrap();
        let mut input = BufReader::new(connection);
        let (mut headers, mut length) = (String::new(), 0);
        loop {
            let line = line(&mut input).unwrap().unwrap();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("Content-Length: ") {
                length = value.parse().unwrap();
            }
            headers += &(line + "\n");
        }
        let mut said = String::new();
        if !head.starts_with("HEAD") {
            input.take(length).read_to_string(&mut said).unwrap();
        }
        (headers[9..12].parse().unwrap(), headers, said)
    }

    #[test]
    fn objects_are_put_once_looked_at_listed_and_deleted() {
        let stub = Stub::start().unwrap();
        let connection = TcpStream::connect(stub.address).unwrap();
        connection.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let create = "PUT /b/p/1.file HTTP/1.1\r\nif-none-match: *\r\nX-Amz-Meta-Accio: mine";
        assert_eq!(ask(&connection, create, &[7; 100_000]).0, 200);
        assert_eq!(ask(&connection, create, b"again").0, 412);
        assert_eq!(stub.objects_of(100_000), 1);
        let (status, headers, _) = ask(&connection, "HEAD /b/p/1.file HTTP/1.1", b"");
        assert_eq!(status, 200);
        assert!(headers.contains("Content-Length: 100000\n"), "{headers}");
        assert!(headers.contains("x-amz-meta-accio: mine\n"), "{headers}");
        let list = |prefix: &str| {
            let head = format!("GET /b?list-type=2&prefix={prefix} HTTP/1.1");
            ask(&connection, &head, b"").2.matches("<Key>p/1.file</Key>").count()
        };
        assert_eq!((list("p%2F"), list("q%2F")), (1, 0));
        let keys = b"<Delete><Object><Key>p/1.file</Key></Object></Delete>";
        assert!(ask(&connection, "POST /b?delete HTTP/1.1", keys).2.contains("<Deleted>"));
        assert_eq!(ask(&connection, "HEAD /b/p/1.file HTTP/1.1", b"").0, 404);
        assert_eq!(ask(&connection, "PATCH /b HTTP/1.1", b"").0, 501);
        assert_eq!(stub.requests(), 8);
    }

    #[test]
    fn parts_are_counted_until_they_are_complete_or_aborted() {
        let stub = Stub::start().unwrap();
        let connection = TcpStream::connect(stub.address).unwrap();
        connection.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let begin = || {
            let said = ask(&connection, "POST /b/1.file?uploads HTTP/1.1", b"").2;
            let id = said.split("<UploadId>").nth(1).unwrap().split('<').next().unwrap();
            id.to_owned()
        };
        let (kept, aborted) = (begin(), begin());
        let to = |method: &str, query: &str, id: &str, body: &[u8]| {
            let head = format!("{method} /b/1.file?{query}uploadId={id} HTTP/1.1");
            ask(&connection, &head, body).0
        };
        for part in ["partNumber=1&", "partNumber=2&", "partNumber=2&"] {
            assert_eq!(to("PUT", part, &kept, &[7; 1000]), 200);
        }
        assert_eq!((stub.unfinished(), stub.objects_of(2000)), (2, 0));
        assert_eq!(to("DELETE", "", &aborted, b""), 204);
        assert_eq!(to("PUT", "partNumber=1&", &aborted, b"late"), 404);
        assert_eq!(to("POST", "", &kept, b"<CompleteMultipartUpload/>"), 200);
        assert_eq!((stub.unfinished(), stub.objects_of(2000)), (0, 1));
    }
}
