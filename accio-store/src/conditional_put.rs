//! Creates objects without overwriting existing ones.

use std::io;
use std::time::Duration;

use accio_proto::ERROR_MARKER;
use object_store::path::Path;
use object_store::{
    Attribute, AttributeValue, Attributes, Error, GetOptions, ObjectStoreExt, PutMode, PutOptions,
    PutPayload,
};

use crate::program_log as log;
use crate::shared::{Shared, store_error};

/// The end of an object's note: content, or the marker of a failed or unfinished transfer.
pub(crate) const CONTENT: &str = "content";
pub(crate) const ERROR: &str = "error";

/// Maximum number of attempts per put. The store's client already retries where that is safe; these
/// attempts are for puts that may have succeeded although their response was lost.
const TRIES: u32 = 4;

/// Delay before the second attempt; doubles with each further one.
const PAUSE: Duration = Duration::from_millis(if cfg!(test) { 20 } else { 200 });

/// Metadata key of the note, which identifies the run of the receiver that put the object. Every
/// store accepts this key.
const NOTE: &str = "accio";

/// The receiver that created an existing object.
#[derive(Debug, PartialEq, Eq)]
enum Owner {
    None,
    Other,
    /// This run of this receiver; the value is the end of the object's note.
    This(String),
}

impl Shared {
    /// Creates an object. Fails if the object exists, unless an earlier attempt of this call created
    /// it.
    pub(crate) async fn create(
        &self,
        path: &Path,
        payload: PutPayload,
        what: &str,
    ) -> io::Result<()> {
        let mut pause = PAUSE;
        let mut tries = 1;
        // A store without conditional puts would overwrite an existing object.
        let mut look = !self.capabilities.conditional;
        // Whether the conflict may be caused by parts of an upload that was never completed.
        let mut parts = false;
        loop {
            let mode = if look {
                match self.owner(path).await? {
                    Owner::None if self.capabilities.conditional && !parts => PutMode::Create,
                    Owner::None => PutMode::Overwrite,
                    Owner::This(noted) if noted == what => return Ok(()),
                    // For example, content whose response was lost and which the marker replaces.
                    Owner::This(_) => PutMode::Overwrite,
                    Owner::Other => return Err(self.taken(path)),
                }
            } else {
                PutMode::Create
            };
            let mut options = PutOptions::from(mode);
            options.attributes = self.note(what);
            match self.store.put_opts(path, payload.clone(), options).await {
                Ok(_) => return Ok(()),
                Err(Error::AlreadyExists { .. }) if !self.capabilities.notes => {
                    return Err(self.taken(path));
                }
                Err(error) if tries == TRIES || is_permanent(&error) => {
                    return Err(store_error(&error));
                }
                Err(Error::AlreadyExists { .. }) => parts = !self.capabilities.parts_outlive_puts,
                Err(error) => log::info!("{path}: {}; trying again", store_error(&error)),
            }
            look = true;
            tokio::time::sleep(pause).await;
            pause *= 2;
            tries += 1;
        }
    }

    /// Fails if the name is taken now; it may still be taken later.
    pub(crate) async fn vacant(&self, path: &Path) -> io::Result<()> {
        match self.owner(path).await? {
            Owner::None => Ok(()),
            Owner::This(_) | Owner::Other => Err(self.taken(path)),
        }
    }

    /// Returns whether this receiver's upload of `bytes` bytes under the name is complete.
    pub(crate) async fn arrived(&self, path: &Path, bytes: u64) -> bool {
        let ours = match self.owner(path).await {
            Ok(Owner::This(what)) => what == CONTENT,
            Ok(Owner::Other) => !self.capabilities.notes,
            Ok(Owner::None) | Err(_) => false,
        };
        ours && self.store.head(path).await.is_ok_and(|meta| meta.size == bytes)
    }

    /// Marks connection `id` as failed.
    pub(crate) async fn mark(&self, id: u64) -> io::Result<()> {
        let path = self.path(id);
        self.tidy(self.create(&path, PutPayload::from_static(ERROR_MARKER), ERROR)).await
    }

    /// Returns the attributes that identify an object of this receiver.
    pub(crate) fn note(&self, what: &str) -> Attributes {
        let mut attributes = Attributes::new();
        if self.capabilities.notes {
            let value = AttributeValue::from(format!("{}-{what}", self.token));
            attributes.insert(Attribute::Metadata(NOTE.into()), value);
        }
        attributes
    }

    async fn owner(&self, path: &Path) -> io::Result<Owner> {
        let options = GetOptions { head: true, ..GetOptions::default() };
        let found = match self.store.get_opts(path, options).await {
            Ok(found) => found,
            Err(Error::NotFound { .. }) => return Ok(Owner::None),
            Err(error) => return Err(store_error(&error)),
        };
        let note = found.attributes.get(&Attribute::Metadata(NOTE.into()));
        let ours = note.and_then(|note| note.strip_prefix(self.token.as_str())?.strip_prefix('-'));
        Ok(ours.map_or(Owner::Other, |what| Owner::This(what.to_owned())))
    }

    fn taken(&self, path: &Path) -> io::Error {
        let node = &self.node;
        let why = format!(
            "{path} exists already: does another receiver write as {node:?}? give each its own node \
             name, and continue after the highest number on a restart"
        );
        io::Error::new(io::ErrorKind::AlreadyExists, why)
    }
}

/// Returns whether a retry is pointless.
fn is_permanent(error: &Error) -> bool {
    matches!(
        error,
        Error::InvalidPath { .. }
            | Error::NotFound { .. }
            | Error::NotImplemented { .. }
            | Error::NotSupported { .. }
            | Error::PermissionDenied { .. }
            | Error::Unauthenticated { .. }
            | Error::UnknownConfigurationKey { .. }
    )
}
