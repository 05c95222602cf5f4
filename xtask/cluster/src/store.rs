//! Reads the store with curl, like any other S3 client.

use std::process::Command;
use std::time::{Duration, Instant};

use accio_harness::process;
use anyhow::{Context, Result};

use super::tools::Tools;

/// The bucket of the cluster.
#[derive(Debug)]
pub(super) struct Bucket {
    pub(super) tools: Tools,
    /// `http://127.0.0.1:PORT`
    pub(super) endpoint: String,
    pub(super) key: String,
    pub(super) secret: String,
}

/// Time limit for an object that is listed but cannot be read.
const LISTED_LIMIT: Duration = Duration::from_secs(10);

/// Time limit for a request, including curl's retries.
const LIMIT: Duration = Duration::from_secs(600);

/// The name of the bucket.
pub(super) const BUCKET: &str = "accio";

impl Bucket {
    pub(super) fn keys(&self) -> Result<Vec<String>> {
        let mut keys = Vec::new();
        let mut after = String::new();
        loop {
            // The parameters must be sorted, because they are signed.
            let page =
                self.curl(&format!("?list-type=2&start-after={}", after.replace('/', "%2F")))?;
            let page = String::from_utf8(page).context("the list is not UTF-8")?;
            let found = page.split("<Key>").skip(1).filter_map(|rest| rest.split("</Key>").next());
            let before = keys.len();
            keys.extend(found.map(str::to_owned));
            if !page.contains("<IsTruncated>true") || keys.len() == before {
                return Ok(keys);
            }
            after = keys.last().cloned().unwrap_or_default();
        }
    }

    /// Returns the object with a listed key, or `None` if the store no longer lists it. For a
    /// moment, Garage may list an object whose upload is being aborted.
    pub(super) fn get(&self, key: &str) -> Result<Option<Vec<u8>>> {
        let began = Instant::now();
        loop {
            match self.curl(&format!("/{key}")) {
                Ok(bytes) => return Ok(Some(bytes)),
                Err(_) if !self.keys()?.iter().any(|listed| listed == key) => return Ok(None),
                Err(error) if began.elapsed() > LISTED_LIMIT => return Err(error),
                Err(_) => std::thread::sleep(Duration::from_millis(200)),
            }
        }
    }

    fn curl(&self, what: &str) -> Result<Vec<u8>> {
        let user = format!("{}:{}", self.key, self.secret);
        let mut command = Command::new(&self.tools.curl);
        command
            .args(["--silent", "--show-error", "--fail", "--max-time", "60", "--retry", "3"])
            .args(["--aws-sigv4", "aws:amz:garage:s3", "--user", &user])
            .args(["--header", "x-amz-content-sha256: UNSIGNED-PAYLOAD"])
            .arg(format!("{}/{BUCKET}{what}", self.endpoint));
        process::checked_output(command, b"", LIMIT).with_context(|| what.to_owned())
    }

    /// Returns the number of multipart uploads that are neither complete nor aborted.
    pub(super) fn unfinished(&self) -> Result<usize> {
        // Count in the store's index, because the bucket's statistics are updated late.
        let page = String::from_utf8(self.curl("?uploads=")?).context("the list is not UTF-8")?;
        Ok(page.matches("<UploadId>").count())
    }
}
