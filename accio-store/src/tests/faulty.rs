//! An in-memory store that fails, loses responses or delays them on request.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
    UploadPart,
};

#[derive(Debug, Default)]
pub(crate) struct Faulty {
    pub(super) inner: InMemory,
    pub(crate) plan: Arc<Faults>,
}

/// The faults to inject.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    /// Number of puts that fail without any effect.
    pub(super) puts: AtomicU32,
    /// Number of puts that succeed but whose response is lost.
    pub(super) lost_responses: AtomicU32,
    pub(super) parts: AtomicU32,
    pub(super) completes: AtomicU32,
    pub(super) lost_completions: AtomicU32,
    /// Number of aborts that fail, with an effect.
    pub(super) aborts: AtomicU32,
    /// Whether the store overwrites objects despite a conditional put.
    pub(super) ignores_conditions: AtomicBool,
    /// Whether a put ends earlier multipart uploads under its name, a conditional put is refused
    /// because of them, and an abort has no effect.
    pub(super) puts_end_uploads: AtomicBool,
    /// Whether parts of such uploads exist.
    hidden: AtomicBool,
    /// Number of puts that succeeded.
    done: AtomicUsize,
    /// Whether parts are delayed until this is reset.
    pub(super) delays_parts: AtomicBool,
    /// Whether parts are counted and dropped.
    pub(super) drops_parts: AtomicBool,
    /// Number of multipart uploads that were neither completed nor aborted.
    pub(super) open: AtomicUsize,
}

impl Faults {
    pub(crate) fn ignores_conditions(&self) {
        self.ignores_conditions.store(true, Ordering::SeqCst);
    }

    pub(crate) fn fail_puts(&self, count: u32) {
        self.puts.store(count, Ordering::SeqCst);
    }
}

fn due(fault: &AtomicU32) -> bool {
    fault.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
}

fn trouble() -> Error {
    Error::Generic { store: "faulty", source: "out of order\nfor now".into() }
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("faulty")
    }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(
        &self,
        to: &Path,
        bytes: PutPayload,
        mut how: PutOptions,
    ) -> Result<PutResult> {
        if due(&self.plan.puts) {
            return Err(trouble());
        }
        if self.plan.ignores_conditions.load(Ordering::SeqCst) {
            how.mode = PutMode::Overwrite;
        }
        if how.mode == PutMode::Create && self.plan.hidden.load(Ordering::SeqCst) {
            return Err(Error::AlreadyExists { path: to.to_string(), source: "parts".into() });
        }
        let result = self.inner.put_opts(to, bytes, how).await?;
        self.plan.hidden.store(false, Ordering::SeqCst);
        self.plan.done.fetch_add(1, Ordering::SeqCst);
        if due(&self.plan.lost_responses) { Err(trouble()) } else { Ok(result) }
    }

    async fn put_multipart_opts(
        &self,
        to: &Path,
        how: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let inner = self.inner.put_multipart_opts(to, how).await?;
        self.plan.open.fetch_add(1, Ordering::SeqCst);
        let began = self.plan.done.load(Ordering::SeqCst);
        Ok(Box::new(Parts { inner, plan: Arc::clone(&self.plan), began }))
    }

    async fn get_opts(&self, from: &Path, how: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(from, how).await
    }

    fn delete_stream(
        &self,
        which: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(which)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, how: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, how).await
    }
}

#[derive(Debug)]
struct Parts {
    inner: Box<dyn MultipartUpload>,
    plan: Arc<Faults>,
    /// Number of puts before this upload began.
    began: usize,
}

#[async_trait]
impl MultipartUpload for Parts {
    fn put_part(&mut self, bytes: PutPayload) -> UploadPart {
        let plan = Arc::clone(&self.plan);
        plan.hidden.store(plan.puts_end_uploads.load(Ordering::SeqCst), Ordering::SeqCst);
        let drops_parts = plan.drops_parts.load(Ordering::SeqCst);
        let part = if drops_parts { None } else { Some(self.inner.put_part(bytes.clone())) };
        Box::pin(async move {
            if due(&plan.parts) {
                return Err(trouble());
            }
            while plan.delays_parts.load(Ordering::SeqCst) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            drop(bytes);
            match part {
                Some(part) => part.await,
                None => Ok(()),
            }
        })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let was_ended = self.plan.puts_end_uploads.load(Ordering::SeqCst)
            && self.plan.done.load(Ordering::SeqCst) != self.began;
        if due(&self.plan.completes) || was_ended {
            return Err(trouble());
        }
        let result = self.inner.complete().await?;
        self.plan.hidden.store(false, Ordering::SeqCst);
        self.plan.open.fetch_sub(1, Ordering::SeqCst);
        if due(&self.plan.lost_completions) { Err(trouble()) } else { Ok(result) }
    }

    async fn abort(&mut self) -> Result<()> {
        self.plan.open.fetch_sub(1, Ordering::SeqCst);
        self.inner.abort().await?;
        if due(&self.plan.aborts) { Err(trouble()) } else { Ok(()) }
    }
}
