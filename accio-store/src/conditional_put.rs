//! Putting an object where none is.

use std::io;
use std::time::Duration;

use accio_proto::ERROR_MARKER;
use object_store::path::Path;
use object_store::{
    Attribute, AttributeValue, Attributes, Error, GetOptions, ObjectStoreExt, PutMode, PutOptions,
    PutPayload,
};

use crate::shared::{Shared, told};

/// What an object is noted to be: content, or the mark of a failed or unfinished transfer.
pub(crate) const CONTENT: &str = "content";
pub(crate) const ERROR: &str = "error";

/// How often a put is tried. Each try is already repeated by the client of the store wherever that
/// is harmless; this is for those that may have been done when their answer was lost.
const TRIES: u32 = 4;

/// The pause before the second try; it doubles.
const PAUSE: Duration = Duration::from_millis(if cfg!(test) { 20 } else { 200 });

/// The name of the note, which every store accepts as one.
const NOTE: &str = "accio";

/// Who put the object that is there.
#[derive(Debug, PartialEq, Eq)]
enum Owner {
    Nobody,
    Other,
    /// We did, and it is noted to be this.
    We(String),
}

impl Shared {
    /// Puts an object that is not there yet. That it is there already is an error, unless an
    /// earlier try of ours put it there.
    pub(crate) async fn create(
        &self,
        path: &Path,
        payload: PutPayload,
        what: &str,
    ) -> io::Result<()> {
        let mut pause = PAUSE;
        let mut tries = 1;
        // What a store that is never asked to refuse would overwrite.
        let mut look = !self.traits.conditional;
        // Whether what is there may be parts alone, of an upload that was never completed.
        let mut parts = false;
        loop {
            let mode = if look {
                match self.owner(path).await? {
                    Owner::Nobody if self.traits.conditional && !parts => PutMode::Create,
                    Owner::Nobody => PutMode::Overwrite,
                    Owner::We(noted) if noted == what => return Ok(()),
                    // Such as content whose acknowledgement never came, now to be the mark.
                    Owner::We(_) => PutMode::Overwrite,
                    Owner::Other => return Err(self.taken(path)),
                }
            } else {
                PutMode::Create
            };
            let mut options = PutOptions::from(mode);
            options.attributes = self.note(what);
            match self.store.put_opts(path, payload.clone(), options).await {
                Ok(_) => return Ok(()),
                Err(Error::AlreadyExists { .. }) if !self.traits.notes => {
                    return Err(self.taken(path));
                }
                Err(error) if tries == TRIES || hopeless(&error) => return Err(told(&error)),
                Err(Error::AlreadyExists { .. }) => parts = !self.traits.parts_outlive_puts,
                Err(error) => log::info!("{path}: {}; trying again", told(&error)),
            }
            look = true;
            tokio::time::sleep(pause).await;
            pause *= 2;
            tries += 1;
        }
    }

    /// Fails if the name is taken already; says nothing about later.
    pub(crate) async fn vacant(&self, path: &Path) -> io::Result<()> {
        match self.owner(path).await? {
            Owner::Nobody => Ok(()),
            Owner::We(_) | Owner::Other => Err(self.taken(path)),
        }
    }

    /// Whether an upload of ours that took the name is complete.
    pub(crate) async fn arrived(&self, path: &Path, bytes: u64) -> bool {
        let ours = match self.owner(path).await {
            Ok(Owner::We(what)) => what == CONTENT,
            Ok(Owner::Other) => !self.traits.notes,
            Ok(Owner::Nobody) | Err(_) => false,
        };
        ours && self.store.head(path).await.is_ok_and(|meta| meta.size == bytes)
    }

    /// Marks connection `id` as failed.
    pub(crate) fn mark(&self, id: u64) -> io::Result<()> {
        self.tidy(self.create(&self.path(id), PutPayload::from_static(ERROR_MARKER), ERROR))
    }

    /// What goes with an object of ours.
    pub(crate) fn note(&self, what: &str) -> Attributes {
        let mut attributes = Attributes::new();
        if self.traits.notes {
            let value = AttributeValue::from(format!("{}-{what}", self.token));
            attributes.insert(Attribute::Metadata(NOTE.into()), value);
        }
        attributes
    }

    async fn owner(&self, path: &Path) -> io::Result<Owner> {
        let options = GetOptions { head: true, ..GetOptions::default() };
        let found = match self.store.get_opts(path, options).await {
            Ok(found) => found,
            Err(Error::NotFound { .. }) => return Ok(Owner::Nobody),
            Err(error) => return Err(told(&error)),
        };
        let note = found.attributes.get(&Attribute::Metadata(NOTE.into()));
        let ours = note.and_then(|note| note.strip_prefix(self.token.as_str())?.strip_prefix('-'));
        Ok(ours.map_or(Owner::Other, |what| Owner::We(what.to_owned())))
    }

    fn taken(&self, path: &Path) -> io::Error {
        let node = &self.node;
        let why = format!(
            "{path} is there already: does another receiver write as {node:?}? give each its own \
             --node, and --ids-from-store to go on after a restart"
        );
        io::Error::new(io::ErrorKind::AlreadyExists, why)
    }
}

/// Whether no other try can go better.
fn hopeless(error: &Error) -> bool {
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
