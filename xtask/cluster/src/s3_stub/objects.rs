//! The objects of the store, and its responses.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::request::{NOTE, Request};

#[derive(Debug, Default)]
pub(super) struct Objects {
    pub(super) objects: BTreeMap<String, Object>,
    pub(super) uploads: BTreeMap<String, Upload>,
    /// Number of multipart uploads so far.
    begun: u64,
}

#[derive(Debug)]
pub(super) struct Object {
    pub(super) bytes: u64,
    note: Option<String>,
}

#[derive(Debug)]
pub(super) struct Upload {
    /// Sizes by part number.
    parts: BTreeMap<String, u64>,
    note: Option<String>,
}

#[derive(Debug)]
#[must_use]
pub(super) struct Response {
    pub(super) status: &'static str,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: String,
}

impl Response {
    fn new(status: &'static str) -> Response {
        Response { status, headers: Vec::new(), body: String::new() }
    }

    fn with(mut self, name: &'static str, value: impl ToString) -> Response {
        self.headers.push((name, value.to_string()));
        self
    }

    fn body(mut self, body: impl Into<String>) -> Response {
        self.body = body.into();
        self
    }
}

const ETAG: &str = "\"1\"";

impl Objects {
    pub(super) fn answer(&mut self, request: &Request, text: &str) -> Response {
        let has = |name: &str| request.query.contains_key(name);
        match &*request.method {
            "PUT" if has("uploadId") => self.put_part(request),
            "PUT" => self.put(request),
            "POST" if has("uploads") => self.begin(request),
            "POST" if has("uploadId") => self.complete(request),
            "POST" if has("delete") => self.delete(request, text),
            "DELETE" if has("uploadId") => match self.uploads.remove(request.query("uploadId")) {
                Some(_) => Response::new("204 No Content"),
                None => no_upload(),
            },
            "HEAD" => self.look(request),
            // A receiver asks at its start, when there are no unfinished uploads yet.
            "GET" if has("uploads") => Response::new("200 OK").body(
                "<ListMultipartUploadsResult><IsTruncated>false</IsTruncated>\
                 </ListMultipartUploadsResult>",
            ),
            "GET" if has("list-type") => self.list(request),
            _ => Response::new("501 Not Implemented"),
        }
    }

    fn put(&mut self, request: &Request) -> Response {
        if request.if_absent && self.objects.contains_key(&request.path) {
            return Response::new("412 Precondition Failed")
                .body("<Error><Code>PreconditionFailed</Code></Error>");
        }
        let object = Object { bytes: request.length, note: request.note.clone() };
        self.objects.insert(request.path.clone(), object);
        Response::new("200 OK").with("ETag", ETAG)
    }

    fn put_part(&mut self, request: &Request) -> Response {
        let Some(upload) = self.uploads.get_mut(request.query("uploadId")) else {
            return no_upload();
        };
        // A part that is sent again replaces the previous one.
        upload.parts.insert(request.query("partNumber").to_owned(), request.length);
        Response::new("200 OK").with("ETag", ETAG)
    }

    fn begin(&mut self, request: &Request) -> Response {
        self.begun += 1;
        let id = self.begun.to_string();
        let body = format!(
            "<InitiateMultipartUploadResult><UploadId>{id}</UploadId>\
             </InitiateMultipartUploadResult>"
        );
        let upload = Upload { parts: BTreeMap::new(), note: request.note.clone() };
        self.uploads.insert(id, upload);
        Response::new("200 OK").body(body)
    }

    fn complete(&mut self, request: &Request) -> Response {
        let Some(upload) = self.uploads.remove(request.query("uploadId")) else {
            return no_upload();
        };
        let object = Object { bytes: upload.parts.values().sum(), note: upload.note };
        self.objects.insert(request.path.clone(), object);
        Response::new("200 OK").body(format!(
            "<CompleteMultipartUploadResult><ETag>{ETAG}</ETag></CompleteMultipartUploadResult>"
        ))
    }

    fn delete(&mut self, request: &Request, text: &str) -> Response {
        let mut body = String::from("<DeleteResult>");
        for key in text.split("<Key>").skip(1).filter_map(|rest| rest.split("</Key>").next()) {
            self.objects.remove(&format!("{}/{key}", request.path.trim_end_matches('/')));
            let _ = write!(body, "<Deleted><Key>{key}</Key></Deleted>");
        }
        Response::new("200 OK").body(body + "</DeleteResult>")
    }

    fn look(&self, request: &Request) -> Response {
        let Some(Object { bytes, note }) = self.objects.get(&request.path) else {
            return Response::new("404 Not Found");
        };
        let answer = Response::new("200 OK")
            .with("Content-Length", bytes)
            .with("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
            .with("ETag", ETAG);
        note.iter().fold(answer, |answer, note| answer.with(NOTE, note))
    }

    fn list(&self, request: &Request) -> Response {
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
        Response::new("200 OK").body(body + "</ListBucketResult>")
    }
}

fn no_upload() -> Response {
    Response::new("404 Not Found").body("<Error><Code>NoSuchUpload</Code></Error>")
}
