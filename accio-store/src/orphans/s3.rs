//! Unfinished multipart uploads in an S3 store.
//!
//! The store lists them, so none is missed and no record must be kept during an upload.
//! `object_store` has no call for S3's list request, but it can sign the address; the response is
//! XML.

use std::io;
use std::time::Duration;

use object_store::aws::AmazonS3;
use object_store::multipart::MultipartStore;
use object_store::path::Path;
use object_store::signer::{Method, SignedUrlOptions, Signer};
use serde::Deserialize;

use crate::shared::store_error;

/// How long a signed address is valid.
const VALID: Duration = Duration::from_secs(60);

/// Maximum number of attempts while the store reports errors, and the delay after the first; it
/// doubles.
const TRIES: u32 = 6;
const PAUSE: Duration = Duration::from_millis(500);

/// Maximum number of pages, each with a thousand uploads.
const PAGES: usize = 100;

#[derive(Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "PascalCase")]
struct Page {
    #[serde(default)]
    is_truncated: bool,
    #[serde(default)]
    next_key_marker: String,
    #[serde(default)]
    next_upload_id_marker: String,
    #[serde(default, rename = "Upload")]
    uploads: Vec<OrphanedUpload>,
}

#[derive(Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "PascalCase")]
struct OrphanedUpload {
    key: String,
    upload_id: String,
}

/// Aborts every upload under `root`, this receiver's own prefix; returns their number.
pub(crate) async fn reap(s3: &AmazonS3, root: &Path) -> io::Result<usize> {
    let client = reqwest::Client::builder().timeout(VALID).build().map_err(io::Error::other)?;
    let mut count = 0;
    let mut markers = (String::new(), String::new());
    for _ in 0..PAGES {
        let mut query = vec![("uploads", String::new()), ("prefix", format!("{root}/"))];
        if !markers.0.is_empty() {
            query.push(("key-marker", markers.0));
            query.push(("upload-id-marker", markers.1));
        }
        let options = SignedUrlOptions::default().with_query(query);
        // The address of the bucket, not of an object.
        let address = s3.signed_url_opts(Method::GET, &Path::default(), VALID, &options).await;
        let address = address.map_err(|error| store_error(&error))?;
        let text = fetch(&client, address).await?;
        let page: Page = quick_xml::de::from_str(&text).map_err(io::Error::other)?;
        for left in page.uploads {
            let Ok(path) = Path::parse(&left.key) else { continue };
            // A store that ignores the prefix would list other receivers' uploads.
            if !path.prefix_matches(root) {
                continue;
            }
            match s3.abort_multipart(&path, &left.upload_id).await {
                Ok(()) => count += 1,
                Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(store_error(&error)),
            }
        }
        if !page.is_truncated {
            return Ok(count);
        }
        markers = (page.next_key_marker, page.next_upload_id_marker);
    }
    Ok(count)
}

/// Requests a page, with retries.
async fn fetch(client: &reqwest::Client, address: reqwest::Url) -> io::Result<String> {
    let mut pause = PAUSE;
    let mut tries = 1;
    let answer = loop {
        let answer = client.get(address.clone()).send().await;
        let settled = answer.as_ref().is_ok_and(|answer| !answer.status().is_server_error());
        if settled || tries == TRIES {
            break answer;
        }
        tokio::time::sleep(pause).await;
        pause *= 2;
        tries += 1;
    };
    let text = match answer.and_then(reqwest::Response::error_for_status) {
        Ok(answer) => answer.text().await,
        Err(error) => Err(error),
    };
    // The address contains the signature and must not be logged.
    text.map_err(|error| io::Error::other(error.without_url()))
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::net::{TcpListener, TcpStream};
    use std::thread;

    use object_store::aws::AmazonS3Builder;

    use super::*;

    /// Returns a page with these uploads and the markers of the next page, if any.
    fn page(uploads: &[(&str, &str)], next: Option<(&str, &str)>) -> String {
        let mut page = String::from("<ListMultipartUploadsResult>");
        for (key, id) in uploads {
            page += &format!("<Upload><Key>{key}</Key><UploadId>{id}</UploadId></Upload>");
        }
        page += &format!("<IsTruncated>{}</IsTruncated>", next.is_some());
        if let Some((key, id)) = next {
            page += &format!("<NextKeyMarker>{key}</NextKeyMarker>");
            page += &format!("<NextUploadIdMarker>{id}</NextUploadIdMarker>");
        }
        page + "</ListMultipartUploadsResult>"
    }

    /// Runs the removal against a store with these responses; returns the result and the requests.
    fn reaped(answers: Vec<(&'static str, String)>) -> (io::Result<usize>, Vec<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let store = thread::spawn(move || {
            let answer = |(status, body): (&str, String)| {
                let (mut stream, _) = listener.accept().unwrap();
                stream.set_read_timeout(Some(VALID)).unwrap();
                let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
                let first = lines.next()?;
                lines.find(String::is_empty)?;
                let length = body.len();
                let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n");
                write!(stream, "{head}Connection: close\r\n\r\n{body}").unwrap();
                Some(first)
            };
            answers.into_iter().map_while(answer).collect::<Vec<_>>()
        });
        let _ = rustls::crypto::ring::default_provider().install_default();
        let s3 = AmazonS3Builder::new()
            .with_bucket_name("b")
            .with_endpoint(format!("http://{address}"))
            .with_allow_http(true)
            .with_access_key_id("access-key")
            .with_secret_access_key("hush")
            .build()
            .unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let count = runtime.block_on(reap(&s3, &Path::from("p/n")));
        // Ends the test server's wait for another request.
        drop(TcpStream::connect(address));
        (count, store.join().unwrap())
    }

    #[test]
    fn aborts_only_uploads_of_this_receiver() {
        let first = page(&[("p/n/1.file", "u1"), ("p/n2/1.file", "u2")], Some(("k m", "u2")));
        let second = page(&[("p/n/3.file", "u3"), ("p/n/4.file", "u4")], None);
        let (count, requests) = reaped(vec![
            ("503 Slow Down", String::new()),
            ("200 OK", first),
            ("204 No Content", String::new()),
            ("200 OK", second),
            // Another process has removed this upload already.
            ("404 Not Found", "<Error><Code>NoSuchUpload</Code></Error>".to_owned()),
            ("204 No Content", String::new()),
        ]);
        assert_eq!(count.unwrap(), 2, "{requests:#?}");
        let said = |index: usize, text: &str| {
            assert!(requests[index].contains(text), "no {text} in {requests:#?}");
        };
        said(0, "GET /b");
        said(0, "prefix=p%2Fn%2F");
        said(2, "DELETE /b/p/n/1.file?uploadId=u1 ");
        said(3, "key-marker=k%20m");
        said(3, "upload-id-marker=u2");
        said(4, "DELETE /b/p/n/3.file?uploadId=u3 ");
        said(5, "DELETE /b/p/n/4.file?uploadId=u4 ");
    }

    #[test]
    fn reports_a_refusal_without_the_signature() {
        let (count, requests) = reaped(vec![("403 Forbidden", String::new())]);
        let why = count.unwrap_err().to_string();
        assert!(requests[0].contains("X-Amz-Signature="), "{requests:#?}");
        assert!(why.contains("403") && !why.contains("Signature"), "{why}");
    }

    #[test]
    fn parses_a_page_of_uploads() {
        let page: Page = quick_xml::de::from_str(
            r#"<?xml version="1.0" encoding="UTF-8"?>
            <ListMultipartUploadsResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">
              <Bucket>b</Bucket><KeyMarker/><UploadIdMarker/><Prefix>p/n/</Prefix>
              <NextKeyMarker>p/n/2.file</NextKeyMarker>
              <NextUploadIdMarker>u2</NextUploadIdMarker>
              <MaxUploads>1000</MaxUploads><IsTruncated>true</IsTruncated>
              <Upload><Initiated>2026-01-01T00:00:00Z</Initiated><Key>p/n/1.file</Key>
                <UploadId>u1</UploadId><StorageClass>STANDARD</StorageClass></Upload>
              <Upload><Key>p/n/2.file</Key><UploadId>u2</UploadId></Upload>
            </ListMultipartUploadsResult>"#,
        )
        .unwrap();
        let left =
            |key: &str, id: &str| OrphanedUpload { key: key.to_owned(), upload_id: id.to_owned() };
        assert_eq!(page.uploads, [left("p/n/1.file", "u1"), left("p/n/2.file", "u2")]);
        assert!(page.is_truncated);
        assert_eq!((&*page.next_key_marker, &*page.next_upload_id_marker), ("p/n/2.file", "u2"));
        let empty: Page = quick_xml::de::from_str(
            "<ListMultipartUploadsResult><IsTruncated>false</IsTruncated></ListMultipartUploadsResult>",
        )
        .unwrap();
        assert!(empty.uploads.is_empty() && !empty.is_truncated);
    }
}
