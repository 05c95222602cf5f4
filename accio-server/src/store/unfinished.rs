//! What an earlier run of this receiver left in an S3 store when it was killed: uploads that nobody
//! will finish.
//!
//! The store itself is asked which there are, so none is missed and nothing needs to be written
//! down before or during an upload. S3's request for that is the one thing `object_store` has no
//! call for; it signs the address, and the answer is a page of XML.

use std::io;
use std::time::Duration;

use object_store::aws::AmazonS3;
use object_store::multipart::MultipartStore;
use object_store::path::Path;
use object_store::signer::{Method, SignedUrlOptions, Signer};
use serde::Deserialize;

use super::told;

/// How long a signed address holds.
const VALID: Duration = Duration::from_secs(60);

/// How often a store that is in trouble is asked, and the pause after the first time; it doubles.
const TRIES: u32 = 6;
const PAUSE: Duration = Duration::from_millis(500);

/// Pages of a thousand uploads that are looked at.
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
    uploads: Vec<Left>,
}

#[derive(Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "PascalCase")]
struct Left {
    key: String,
    upload_id: String,
}

/// Aborts every upload under `root`, which is this receiver's alone; how many they were.
pub(super) async fn reap(s3: &AmazonS3, root: &Path) -> io::Result<usize> {
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
        // Of the bucket, not of an object.
        let address = s3.signed_url_opts(Method::GET, &Path::default(), VALID, &options).await;
        let address = address.map_err(|error| told(&error))?;
        let text = fetch(&client, address).await?;
        let page: Page = quick_xml::de::from_str(&text).map_err(io::Error::other)?;
        for left in page.uploads {
            let Ok(path) = Path::parse(&left.key) else { continue };
            // A store that does not know the prefix would answer with those of others.
            if !path.prefix_matches(root) {
                continue;
            }
            match s3.abort_multipart(&path, &left.upload_id).await {
                Ok(()) => count += 1,
                Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(told(&error)),
            }
        }
        if !page.is_truncated {
            return Ok(count);
        }
        markers = (page.next_key_marker, page.next_upload_id_marker);
    }
    Ok(count)
}

/// Asks until there is an answer, some times.
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
    // The address holds the signature, and must not be told.
    text.map_err(|error| io::Error::other(error.without_url()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_of_uploads_is_read() {
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
        let left = |key: &str, id: &str| Left { key: key.to_owned(), upload_id: id.to_owned() };
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
