//! The store as its other clients see it, through curl.

use std::process::Command;
use std::time::{Duration, Instant};

use accio_harness::process;
use anyhow::{Context, Result};

use super::tools::Tools;

/// A bucket of the cluster.
#[derive(Debug)]
pub(super) struct Bucket {
    pub(super) tools: Tools,
    /// `http://127.0.0.1:PORT`
    pub(super) endpoint: String,
    pub(super) key: String,
    pub(super) secret: String,
}

/// How long an object may be listed that cannot be had.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a request may take, with all that curl repeats.
const LIMIT: Duration = Duration::from_secs(600);

/// Its name.
pub(super) const BUCKET: &str = "accio";

impl Bucket {
    /// Every key there is.
    pub(super) fn keys(&self) -> Result<Vec<String>> {
        let mut keys = Vec::new();
        let mut after = String::new();
        loop {
            // In the order of their names, as they are signed.
            let page =
                self.curl(&format!("?list-type=2&start-after={}", after.replace('/', "%2F")))?;
            let page = String::from_utf8(page).context("a list in UTF-8")?;
            let found = page.split("<Key>").skip(1).filter_map(|rest| rest.split("</Key>").next());
            let before = keys.len();
            keys.extend(found.map(str::to_owned));
            if !page.contains("<IsTruncated>true") || keys.len() == before {
                return Ok(keys);
            }
            after = keys.last().cloned().unwrap_or_default();
        }
    }

    /// Returns the object under a listed key, or `None` if the store no longer lists it. Garage
    /// may list an object for a moment whose upload a receiver is just aborting.
    pub(super) fn get(&self, key: &str) -> Result<Option<Vec<u8>>> {
        let began = Instant::now();
        loop {
            match self.curl(&format!("/{key}")) {
                Ok(bytes) => return Ok(Some(bytes)),
                Err(_) if !self.keys()?.iter().any(|listed| listed == key) => return Ok(None),
                Err(error) if began.elapsed() > PATIENCE => return Err(error),
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

    /// How many uploads were begun and neither completed nor aborted.
    pub(super) fn unfinished(&self) -> Result<usize> {
        // Asked of the store's index: the bucket's own count comes true only some time later.
        let page = String::from_utf8(self.curl("?uploads=")?).context("a list in UTF-8")?;
        Ok(page.matches("<UploadId>").count())
    }
}
