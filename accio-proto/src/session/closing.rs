//! The end of a session: the file is committed or aborted, then the peer is notified.

use std::cell::Cell;
use std::io;
#[cfg(feature = "server")]
use std::os::fd::OwnedFd;

use super::state::State;
use super::{Abort, SinkCall};
use crate::connection::Connection;
use crate::dialect::Dialect;
use crate::digest::Digest;
use crate::panics::{caught_with, discard, message};
use crate::program_log as log;
use crate::sink::{FileSink, OpenError, SinkFile};
use crate::socket::Socket;

/// A session that has ended but whose file is not yet committed or aborted.
///
/// If it is dropped instead of [finished](Closing::finish), the connection is reset and there is no
/// file.
#[derive(Debug)]
#[must_use]
pub struct Closing<S, F>(pub(super) Box<State<S, F>>);

/// A finished session, whose file or error marker is stored. The peer has not been notified.
#[derive(Debug)]
#[non_exhaustive]
pub struct Ended<S, F> {
    /// The description of the connection, with its dialect if that is known.
    pub connection: Connection,
    /// Number of content bytes received, whether or not they were stored.
    pub bytes: u64,
    /// The digest of a complete file, if the session computes it.
    pub digest: Option<Digest>,
    /// Whether the file is complete and, if not, why.
    pub result: Result<(), Abort>,
    /// The reason why not even the error marker could be stored: there is no file with this number.
    pub unmarked: Option<io::Error>,
    /// The connection, which is still open.
    pub socket: Unreleased<S>,
    /// The file of an aborted session. Dropping it frees its content, which may take long: drop it
    /// after the peer was notified, on a thread that delays no connection.
    pub discarded: Option<F>,
}

/// A connection whose peer waits for the result. Dropping it resets the connection.
#[derive(Debug)]
pub struct Unreleased<S>(pub(super) S);

impl<S: Socket> Unreleased<S> {
    /// Returns the connection.
    pub fn socket(&self) -> &S {
        &self.0
    }

    /// Notifies the peer: with FIN if the file is `kept`, otherwise with a reset.
    pub fn release(self, kept: bool) {
        if kept {
            self.0.close();
        }
    }
}

impl<S: Socket, F: SinkFile> Closing<S, F> {
    /// Returns the number of the connection.
    pub fn id(&self) -> u64 {
        self.0.connection.id
    }

    /// Returns the dialect of the client, if it is known.
    pub fn dialect(&self) -> Option<Dialect> {
        self.0.connection.dialect
    }

    /// Returns the description of the connection, with its dialect if that is known.
    pub fn connection(&self) -> &Connection {
        &self.0.connection
    }

    /// Returns the number of content bytes received.
    pub fn bytes(&self) -> u64 {
        self.0.bytes
    }

    /// Returns whether all content has been received, so that the file will be committed.
    pub fn is_complete(&self) -> bool {
        self.0.result.is_ok()
    }

    /// Resets the connection and leaves neither a file nor a marker. Returns the file, whose drop may
    /// take long.
    pub fn into_file(self) -> Option<F> {
        self.0.file
    }

    /// Makes the complete content readable for a review; opens the file of an empty upload. If that
    /// fails, the session has failed.
    #[cfg(feature = "server")]
    pub(crate) fn prepare_review<K: FileSink<File = F>>(&mut self, sink: &K) {
        self.open(sink);
        if let (Ok(()), Some(file)) = (&self.0.result, &mut self.0.file) {
            let prepared = catch_panic(|| file.prepare_review()).and_then(|prepared| prepared);
            self.0.result = prepared.map_err(Abort::sink(SinkCall::Write));
        }
    }

    /// Duplicates the descriptor of the content, if it has one.
    #[cfg(feature = "server")]
    pub(crate) fn descriptor(&self) -> io::Result<Option<OwnedFd>> {
        let descriptor = self.0.file.as_ref().and_then(SinkFile::descriptor);
        descriptor.map(|descriptor| descriptor.try_clone_to_owned()).transpose()
    }

    /// Returns the file, if it is open.
    #[cfg(feature = "server")]
    pub(crate) fn file_mut(&mut self) -> Option<&mut F> {
        self.0.file.as_mut()
    }

    /// Returns the digest of the complete content, if the session computes it.
    #[cfg(feature = "server")]
    pub(crate) fn digest(&self) -> Option<Digest> {
        self.0.digest
    }

    /// Returns the connection.
    #[cfg(feature = "server")]
    pub(crate) fn socket(&self) -> &S {
        &self.0.socket
    }

    /// Makes the session a failed one.
    #[cfg(feature = "server")]
    pub(crate) fn fail(&mut self, why: Abort) {
        self.0.result = Err(why);
    }

    /// Commits or aborts the file. If the commit fails, the file is aborted.
    pub fn finish<K: FileSink<File = F>>(mut self, sink: &K) -> Ended<S, F> {
        if self.0.result.is_ok() {
            self.open(sink);
        }
        if let (Ok(()), Some(file)) = (&self.0.result, &mut self.0.file) {
            let committed = catch_panic(|| file.commit()).and_then(|committed| committed);
            self.0.result = committed.map_err(Abort::sink(SinkCall::Commit));
        }
        self.conclude(sink)
    }

    /// Works like [`finish`](Closing::finish), but commits the file by [`FileSink::commit_all`], and
    /// calls `claim` once, before the file or the error marker becomes visible.
    ///
    /// # Errors
    ///
    /// If `claim` returns false, the session stores nothing and has no result; returns its file, whose
    /// drop may take long.
    #[cfg(feature = "server")]
    pub(crate) fn finish_if<K: FileSink<File = F>>(
        mut self,
        sink: &K,
        claim: &dyn Fn() -> bool,
    ) -> Result<Ended<S, F>, Option<F>> {
        let claimed = Cell::new(None);
        let claim = || {
            claimed.set(claimed.get().or_else(|| Some(claim())));
            claimed.get() == Some(true)
        };
        if self.0.result.is_ok() {
            self.open(sink);
        }
        if let (Ok(()), Some(file)) = (&self.0.result, &mut self.0.file) {
            let committed = catch_panic(|| sink.commit_all(&mut [file], &|_| claim()));
            let committed = committed.and_then(|results| {
                let mut results = results.into_iter();
                let first = results.next().unwrap_or_else(|| Err(missing_result()));
                // The drops of additional results may panic.
                discard(results);
                first
            });
            self.0.result = committed.map_err(Abort::sink(SinkCall::Commit));
        }
        match claim() {
            true => Ok(self.conclude(sink)),
            false => Err(self.0.file),
        }
    }

    /// Finishes several sessions, all of them complete, with a single [`FileSink::commit_all`].
    ///
    /// `claim` is called once for each index of `group`, before its file or its error marker
    /// becomes visible. If it returns false, the session stores nothing and has no result.
    pub fn finish_all<K: FileSink<File = F>>(
        mut group: Vec<Self>,
        sink: &K,
        claim: &dyn Fn(usize) -> bool,
    ) -> Vec<Option<Ended<S, F>>> {
        group.iter_mut().for_each(|closing| closing.open(sink));
        let claims: Vec<_> = group.iter().map(|_| Cell::new(None)).collect();
        let claim = |index: usize| {
            let claimed = claims[index].get().unwrap_or_else(|| claim(index));
            claims[index].set(Some(claimed));
            claimed
        };
        let (indices, mut files): (Vec<_>, Vec<_>) = (group.iter_mut().enumerate())
            .filter_map(|(index, closing)| Some((index, closing.0.file.as_mut()?)))
            .unzip();
        let may_name = |index: usize| claim(indices[index]);
        // After a panic it is unknown which files got their names, so all of them have failed.
        let results = catch_panic(|| sink.commit_all(&mut files, &may_name))
            .unwrap_or_else(|panic| files.iter().map(|_| Err(copy_of(&panic))).collect());
        let mut results = results.into_iter();
        for index in indices {
            // Without a result it is unknown whether the file is kept.
            let committed = results.next().unwrap_or_else(|| Err(missing_result()));
            group[index].0.result = committed.map_err(Abort::sink(SinkCall::Commit));
        }
        // Results without a file, and files of connections that the stop has ended, may panic when they
        // are dropped. That must not affect the others of the group.
        discard(results);
        let conclude = |(index, closing): (usize, Self)| {
            if claim(index) {
                return Some(closing.conclude(sink));
            }
            discard(closing);
            None
        };
        group.into_iter().enumerate().map(conclude).collect()
    }

    /// Opens the file of an empty upload.
    pub(crate) fn open<K: FileSink<File = F>>(&mut self, sink: &K) {
        if self.0.file.is_none() {
            match open(sink, &self.0.connection) {
                Ok(file) => self.0.file = Some(file),
                Err(why) => self.0.result = Err(why),
            }
        }
    }

    /// Stores the error marker if the session has failed.
    fn conclude<K: FileSink<File = F>>(mut self, sink: &K) -> Ended<S, F> {
        let unmarked = match self.0.result {
            Ok(()) => {
                let file = self.0.file.take();
                // The file is committed, so a panic, which the program's hook has reported, must not
                // fail this session or others of its group.
                discard(file);
                None
            }
            Err(_) => self.mark(sink).err(),
        };
        if let Some(error) = &unmarked {
            log::error!(
                "connection {}: cannot keep the error marker: {error}",
                self.0.connection.id
            );
        }
        let State { connection, file, bytes, hasher, digest, result, socket, .. } = *self.0;
        // The drop of the hasher closes a file, which the thread that ended the session may not be allowed to do.
        drop(hasher);
        let digest = digest.filter(|_| result.is_ok());
        let socket = Unreleased(socket);
        Ended { connection, bytes, digest, result, unmarked, socket, discarded: file }
    }

    fn mark<K: FileSink<File = F>>(&mut self, sink: &K) -> io::Result<()> {
        let mark = || catch_panic(|| sink.mark(&self.0.connection)).and_then(|marked| marked);
        match &mut self.0.file {
            Some(file) => {
                catch_panic(|| file.abort()).and_then(|aborted| aborted).or_else(|error| {
                    // An error of the sink may contain values whose drops panic.
                    discard(error);
                    mark()
                })
            }
            None => mark(),
        }
    }
}

fn missing_result() -> io::Error {
    io::Error::other("the sink returned no result for this file")
}

/// Opens the file of a connection.
pub(super) fn open<K: FileSink>(sink: &K, connection: &Connection) -> Result<K::File, Abort> {
    let opened = catch_panic(|| sink.open(connection)).map_err(OpenError::Failed);
    match opened.and_then(|opened| opened) {
        Ok(file) => Ok(file),
        Err(OpenError::Rejected(why)) => Err(Abort::Rejected(why)),
        Err(OpenError::Failed(error)) => Err(Abort::sink(SinkCall::Open)(error)),
    }
}

fn copy_of(error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), error.to_string())
}

/// Turns a panic of a sink into an error of one call, so that only one connection ends.
pub(super) fn catch_panic<T>(call: impl FnOnce() -> T) -> io::Result<T> {
    // After a panic the file is only aborted and dropped, and every lock in this crate tolerates a
    // panic.
    caught_with(call, message)
        .map_err(|message| io::Error::other(format!("the sink panicked: {message}")))
}
