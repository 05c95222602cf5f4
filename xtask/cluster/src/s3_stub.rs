//! An S3 store that keeps names, sizes and notes, and discards the bytes: to measure who fills it.
//!
//! It speaks as much of HTTP/1.1 and S3 as the receiver does: objects put whole or in parts, on
//! condition that there is none, looked at, listed and deleted.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// How much of a body is read at once.
const BUFFER: usize = 256 << 10;

/// The longest line of a request, and the longest body that is looked into.
const LONGEST: u64 = 64 << 10;

/// How long a connection may lie idle.
const IDLE: Duration = Duration::from_secs(60);

/// The header of the marker that receivers store next to their objects.
const NOTE: &str = "x-amz-meta-accio";

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

#[derive(Debug, Default)]
struct Kept {
    objects: BTreeMap<String, Object>,
    uploads: BTreeMap<String, Upload>,
    /// Uploads so far.
    begun: u64,
}

#[derive(Debug)]
struct Object {
    bytes: u64,
    note: Option<String>,
}

#[derive(Debug)]
struct Upload {
    /// Bytes by number.
    parts: BTreeMap<String, u64>,
    note: Option<String>,
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

fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[derive(Debug)]
struct Request {
    method: String,
    /// `/BUCKET/KEY`.
    path: String,
    query: BTreeMap<String, String>,
    length: u64,
    /// It is to fail if there is an object.
    unless_there: bool,
    note: Option<String>,
}

impl Request {
    /// The next one's head; none when the client has no more.
    fn read(input: &mut impl BufRead) -> io::Result<Option<Request>> {
        let Some(first) = line(input)? else { return Ok(None) };
        let mut words = first.split(' ');
        let (Some(method), Some(target)) = (words.next(), words.next()) else {
            return Err(invalid("no request"));
        };
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        let pair = |pair: &str| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decoded(name), decoded(value))
        };
        let mut request = Request {
            method: method.to_owned(),
            path: decoded(path),
            query: pairs.map(pair).collect(),
            length: 0,
            unless_there: false,
            note: None,
        };
        while let Some(header) = line(input)?.filter(|line| !line.is_empty()) {
            let Some((name, value)) = header.split_once(':') else { continue };
            let value = value.trim();
            match &*name.to_ascii_lowercase() {
                "content-length" => request.length = value.parse().map_err(io::Error::other)?,
                "transfer-encoding" => return Err(invalid("a body of unknown length")),
                "if-none-match" => request.unless_there = value == "*",
                NOTE => request.note = Some(value.to_owned()),
                _ => {}
            }
        }
        Ok(Some(request))
    }

    fn is(&self, method: &str, query: &str) -> bool {
        self.method == method && self.query.contains_key(query)
    }

    fn query(&self, name: &str) -> &str {
        self.query.get(name).map_or("", String::as_str)
    }
}

/// A line without its end; none at the end of all.
fn line(input: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut bytes = Vec::new();
    let count = input.take(LONGEST).read_until(b'\n', &mut bytes)?;
    if count == 0 {
        return Ok(None);
    }
    let line = bytes.strip_suffix(b"\n").ok_or_else(|| invalid("half a line, or no end to it"))?;
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    String::from_utf8(line.to_vec()).map(Some).map_err(io::Error::other)
}

/// Without `%2F` and the like.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = if *first == b'%' { tail.get(..2) } else { None };
        let byte = hex.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        bytes.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[derive(Debug)]
struct Answer {
    status: &'static str,
    headers: Vec<(&'static str, String)>,
    body: String,
}

impl Answer {
    fn new(status: &'static str) -> Answer {
        Answer { status, headers: Vec::new(), body: String::new() }
    }

    fn with(mut self, name: &'static str, value: impl ToString) -> Answer {
        self.headers.push((name, value.to_string()));
        self
    }

    fn saying(mut self, body: impl Into<String>) -> Answer {
        self.body = body.into();
        self
    }
}

const ETAG: &str = "\"1\"";

impl Kept {
    fn answer(&mut self, request: &Request, text: &str) -> Answer {
        let has = |name: &str| request.query.contains_key(name);
        match &*request.method {
            "PUT" if has("uploadId") => self.put_part(request),
            "PUT" => self.put(request),
            "POST" if has("uploads") => self.begin(request),
            "POST" if has("uploadId") => self.complete(request),
            "POST" if has("delete") => self.delete(request, text),
            "DELETE" if has("uploadId") => match self.uploads.remove(request.query("uploadId")) {
                Some(_) => Answer::new("204 No Content"),
                None => no_upload(),
            },
            "HEAD" => self.look(request),
            // A receiver that asks at its start finds none: it is the first.
            "GET" if has("uploads") => Answer::new("200 OK").saying(
                "<ListMultipartUploadsResult><IsTruncated>false</IsTruncated>\
                 </ListMultipartUploadsResult>",
            ),
            "GET" if has("list-type") => self.list(request),
            _ => Answer::new("501 Not Implemented"),
        }
    }

    fn put(&mut self, request: &Request) -> Answer {
        if request.unless_there && self.objects.contains_key(&request.path) {
            return Answer::new("412 Precondition Failed")
                .saying("<Error><Code>PreconditionFailed</Code></Error>");
        }
        let object = Object { bytes: request.length, note: request.note.clone() };
        self.objects.insert(request.path.clone(), object);
        Answer::new("200 OK").with("ETag", ETAG)
    }

    fn put_part(&mut self, request: &Request) -> Answer {
        let Some(upload) = self.uploads.get_mut(request.query("uploadId")) else {
            return no_upload();
        };
        // One that is sent again replaces itself.
        upload.parts.insert(request.query("partNumber").to_owned(), request.length);
        Answer::new("200 OK").with("ETag", ETAG)
    }

    fn begin(&mut self, request: &Request) -> Answer {
        self.begun += 1;
        let id = self.begun.to_string();
        let body = format!(
            "<InitiateMultipartUploadResult><UploadId>{id}</UploadId>\
             </InitiateMultipartUploadResult>"
        );
        let upload = Upload { parts: BTreeMap::new(), note: request.note.clone() };
        self.uploads.insert(id, upload);
        Answer::new("200 OK").saying(body)
    }

    fn complete(&mut self, request: &Request) -> Answer {
        let Some(upload) = self.uploads.remove(request.query("uploadId")) else {
            return no_upload();
        };
        let object = Object { bytes: upload.parts.values().sum(), note: upload.note };
        self.objects.insert(request.path.clone(), object);
        Answer::new("200 OK").saying(format!(
            "<CompleteMultipartUploadResult><ETag>{ETAG}</ETag></CompleteMultipartUploadResult>"
        ))
    }

    fn delete(&mut self, request: &Request, text: &str) -> Answer {
        let mut body = String::from("<DeleteResult>");
        for key in text.split("<Key>").skip(1).filter_map(|rest| rest.split("</Key>").next()) {
            self.objects.remove(&format!("{}/{key}", request.path.trim_end_matches('/')));
            let _ = write!(body, "<Deleted><Key>{key}</Key></Deleted>");
        }
        Answer::new("200 OK").saying(body + "</DeleteResult>")
    }

    fn look(&self, request: &Request) -> Answer {
        let Some(Object { bytes, note }) = self.objects.get(&request.path) else {
            return Answer::new("404 Not Found");
        };
        let answer = Answer::new("200 OK")
            .with("Content-Length", bytes)
            .with("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
            .with("ETag", ETAG);
        note.iter().fold(answer, |answer, note| answer.with(NOTE, note))
    }

    fn list(&self, request: &Request) -> Answer {
        let mut body = String::from("<ListBucketResult>");
        let bucket = format!("{}/", request.path.trim_end_matches('/'));
        for (path, Object { bytes, .. }) in &self.objects {
            let key = path.strip_prefix(&bucket);
            let Some(key) = key.filter(|key| key.starts_with(request.query("prefix"))) else {
                continue;
            };
            let _ = write!(
                body,
                "<Contents><Key>{key}</Key><Size>{bytes}</Size><ETag>{ETAG}</ETag>\
                 <LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
            );
        }
        Answer::new("200 OK").saying(body + "</ListBucketResult>")
    }
}

fn no_upload() -> Answer {
    Answer::new("404 Not Found").saying("<Error><Code>NoSuchUpload</Code></Error>")
}

#[cfg(test)]
mod tests {
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
