//! An S3 store that keeps names, sizes and metadata but discards the bytes, to measure its clients.
//!
//! It supports the part of HTTP/1.1 and S3 that receivers use: PUT, conditional PUT and multipart
//! uploads, HEAD, lists, and DELETE.

mod objects;
mod request;

use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use objects::Objects;
use request::{LONGEST, Request, invalid};

/// Size of the read buffer, in bytes.
const BUFFER: usize = 256 << 10;

/// Idle timeout of a connection.
const IDLE: Duration = Duration::from_secs(60);

/// A running stub; it stops on drop.
#[derive(Debug)]
pub(super) struct S3Stub {
    address: SocketAddr,
    shared: Arc<StubState>,
    accepting: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct StubState {
    objects: Mutex<Objects>,
    requests: AtomicU64,
    stop: AtomicBool,
}

impl S3Stub {
    pub(super) fn start() -> io::Result<S3Stub> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let shared = Arc::new(StubState::default());
        let accepting = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || accept(&listener, &shared))
        };
        Ok(S3Stub { address, shared, accepting: Some(accepting) })
    }

    pub(super) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns the number of requests so far.
    pub(super) fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::SeqCst)
    }

    /// Returns the number of objects with this size.
    pub(super) fn objects_of(&self, bytes: u64) -> usize {
        self.shared.lock().objects.values().filter(|object| object.bytes == bytes).count()
    }

    /// Returns the number of multipart uploads that are neither complete nor aborted.
    pub(super) fn unfinished(&self) -> usize {
        self.shared.lock().uploads.len()
    }
}

impl Drop for S3Stub {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        // Connect, so that the accepting thread wakes up. Open connections end with their clients.
        let _ = TcpStream::connect(self.address);
        let _ = self.accepting.take().map(JoinHandle::join);
    }
}

impl StubState {
    fn lock(&self) -> MutexGuard<'_, Objects> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn accept(listener: &TcpListener, shared: &Arc<StubState>) {
    for stream in listener.incoming() {
        if shared.stop.load(Ordering::SeqCst) {
            return;
        }
        let Ok(stream) = stream else { continue };
        let shared = Arc::clone(shared);
        // Ignore clients that fail.
        thread::spawn(move || drop(serve(&stream, &shared)));
    }
}

/// Answers the requests of a connection.
fn serve(stream: &TcpStream, shared: &StubState) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(IDLE))?;
    let mut input = BufReader::with_capacity(BUFFER, stream);
    while let Some(request) = Request::read(&mut input)? {
        shared.requests.fetch_add(1, Ordering::SeqCst);
        let text = if request.is("POST", "delete") {
            if request.length > LONGEST {
                return Err(invalid("the list is too long"));
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
            // Writing to a string cannot fail.
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

/// Reads and discards bytes without copying them.
fn discard(input: &mut impl BufRead, mut left: u64) -> io::Result<()> {
    while left > 0 {
        let here = match input.fill_buf() {
            Ok(bytes) => bytes.len(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
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

    /// Sends a request on a persistent connection; returns the status, the head and the body.
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
        let mut body_text = String::new();
        if !head.starts_with("HEAD") {
            input.take(length).read_to_string(&mut body_text).unwrap();
        }
        (headers[9..12].parse().unwrap(), headers, body_text)
    }

    #[test]
    fn supports_conditional_put_head_list_and_delete() {
        let stub = S3Stub::start().unwrap();
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
    fn counts_multipart_uploads_until_complete_or_aborted() {
        let stub = S3Stub::start().unwrap();
        let connection = TcpStream::connect(stub.address).unwrap();
        connection.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let begin = || {
            let body_text = ask(&connection, "POST /b/1.file?uploads HTTP/1.1", b"").2;
            let id = body_text.split("<UploadId>").nth(1).unwrap().split('<').next().unwrap();
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
