//! A simulated sink: files in memory, scripted failures, calls that take time.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex};

use accio_proto::{Connection, Demand, FileSink, OpenError, SinkFile};

use crate::connection::{Log, LogEntry};
use crate::plan::{Fault, Op, Plan, Wants};
use crate::socket::Clock;

/// The stored result of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum StoredFile {
    Complete(Content),
    Marker,
}

/// The written bytes, and the number of bytes that were only counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Content {
    pub(crate) bytes: Vec<u8>,
    pub(crate) counted: u64,
}

/// The files of one connection.
struct Shelf {
    faults: Vec<Fault>,
    wants: Wants,
    stall: Option<(u32, u64)>,
    calls: u32,
    log: Log,
    /// The bytes would survive a power loss.
    data_synced: bool,
    kept: Vec<StoredFile>,
    /// And so would the name.
    name_synced: bool,
}

/// Everything that the sink stores, for inspection by the test.
pub(crate) struct Disk {
    clock: Clock,
    shelves: BTreeMap<u64, Shelf>,
    null: Arc<File>,
}

impl Disk {
    pub(crate) fn new(clock: &Clock, null: &Arc<File>) -> Self {
        let shelves = BTreeMap::new();
        Disk { clock: Arc::clone(clock), shelves, null: Arc::clone(null) }
    }

    pub(crate) fn prepare(&mut self, id: u64, plan: &Plan, log: &Log) {
        let shelf = Shelf {
            faults: plan.faults.clone(),
            wants: plan.wants,
            stall: plan.sink_stall,
            calls: 0,
            log: Arc::clone(log),
            data_synced: false,
            kept: Vec::new(),
            name_synced: false,
        };
        self.shelves.insert(id, shelf);
    }

    pub(crate) fn is_complete(&self, id: u64) -> bool {
        matches!(self.kept(id), Some(StoredFile::Complete(_)))
    }

    /// Returns whether the complete file would survive a power loss at this moment.
    pub(crate) fn is_durable(&self, id: u64) -> bool {
        let shelf = &self.shelves[&id];
        self.is_complete(id) && shelf.data_synced && shelf.name_synced
    }

    /// The power may fail before each call. A name may have reached the disk by itself, so its
    /// bytes must have been there first.
    fn check_power_loss(&self) {
        for (id, shelf) in &self.shelves {
            let is_named = matches!(shelf.kept[..], [StoredFile::Complete(_)]);
            assert!(!is_named || shelf.data_synced, "file {id} has a name without its bytes");
        }
    }

    fn name(&mut self, file: &SimFile) {
        let kept = StoredFile::Complete(file.content.clone());
        self.shelf(file.id).kept.push(kept);
    }

    fn shelf(&mut self, id: u64) -> &mut Shelf {
        self.shelves.get_mut(&id).expect("only prepared numbers are opened")
    }

    pub(crate) fn kept(&self, id: u64) -> Option<&StoredFile> {
        let kept = &self.shelves[&id].kept;
        assert!(kept.len() <= 1, "file {id} was kept twice: {kept:?}");
        kept.first()
    }

    /// Counts a call, advances the time, and fails the call if the plan says so.
    fn call(&mut self, id: u64, op: Op) -> io::Result<()> {
        self.check_power_loss();
        let shelf = self.shelves.get_mut(&id).expect("only prepared numbers are opened");
        shelf.calls += 1;
        if let Some((at, pause)) = shelf.stall
            && at == shelf.calls
        {
            *self.clock.lock().unwrap() += pause;
        }
        for fault in &mut shelf.faults {
            if fault.op == op && fault.left > 0 {
                if fault.after > 0 {
                    fault.after -= 1;
                    continue;
                }
                fault.left -= 1;
                shelf.log.lock().unwrap().push(LogEntry::Failed(op));
                return Err(io::ErrorKind::StorageFull.into());
            }
        }
        Ok(())
    }
}

#[derive(Clone)]
pub(crate) struct SimSink(pub(crate) Arc<Mutex<Disk>>);

pub(crate) struct SimFile {
    id: u64,
    content: Content,
    wants: Wants,
    null: Arc<File>,
    disk: Arc<Mutex<Disk>>,
    /// Whether a write failed, so that only an abort may follow.
    broken: bool,
}

impl SimSink {
    fn create(&self, id: u64) -> io::Result<SimFile> {
        let mut disk = self.0.lock().unwrap();
        disk.call(id, Op::Open)?;
        let null = Arc::clone(&disk.null);
        let shelf = &disk.shelves[&id];
        shelf.log.lock().unwrap().push(LogEntry::Opened);
        let (wants, disk) = (shelf.wants, Arc::clone(&self.0));
        Ok(SimFile { id, content: Content::default(), wants, null, disk, broken: false })
    }
}

impl FileSink for SimSink {
    type File = SimFile;

    fn open(&self, connection: &Connection) -> Result<SimFile, OpenError> {
        assert!(connection.dialect.is_some(), "the dialect is known when the file is opened");
        Ok(self.create(connection.id)?)
    }

    fn mark(&self, connection: &Connection) -> io::Result<()> {
        self.create(connection.id)?.abort()
    }

    /// As a durable sink does: the bytes of all, the names of all, the directory.
    fn commit_all(
        &self,
        files: &mut [&mut SimFile],
        may_name: &dyn Fn(usize) -> bool,
    ) -> Vec<io::Result<()>> {
        let sync = |file: &mut &mut SimFile| {
            assert!(!file.broken, "committed after a failed write");
            let mut disk = self.0.lock().unwrap();
            disk.call(file.id, Op::Commit)?;
            disk.shelf(file.id).data_synced = true;
            Ok(())
        };
        let mut results: Vec<io::Result<()>> = files.iter_mut().map(sync).collect();
        for (index, (file, result)) in files.iter().zip(&mut results).enumerate() {
            if result.is_ok() && !may_name(index) {
                *result = Err(io::ErrorKind::Interrupted.into());
            }
            if result.is_ok() {
                self.0.lock().unwrap().name(file);
            }
        }
        let named = files.iter().zip(&mut results).filter(|(_, result)| result.is_ok());
        let mut named: Vec<_> = named.map(|(file, result)| (file.id, result)).collect();
        let mut disk = self.0.lock().unwrap();
        // The directory of all of them is synced once.
        let failed = named.iter().position(|(id, _)| disk.call(*id, Op::SyncNames).is_err());
        for (index, (id, result)) in named.iter_mut().enumerate() {
            let shelf = disk.shelf(*id);
            if failed.is_none() {
                shelf.name_synced = true;
                continue;
            }
            shelf.kept.pop();
            if failed != Some(index) {
                shelf.log.lock().unwrap().push(LogEntry::Failed(Op::SyncNames));
            }
            **result = Err(io::ErrorKind::StorageFull.into());
        }
        drop(disk);
        results
    }
}

impl SinkFile for SimFile {
    fn demand(&self) -> Demand<'_> {
        match self.wants {
            Wants::Bytes => Demand::Bytes,
            // The simulated socket has no descriptor to splice from, so this descriptor must not be
            // used.
            Wants::Descriptor => Demand::Descriptor(self.null.as_fd()),
            Wants::Count => Demand::Count,
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        assert!(!self.broken && !bytes.is_empty());
        self.disk.lock().unwrap().call(self.id, Op::Write).inspect_err(|_| self.broken = true)?;
        if self.content.counted > 0 {
            // Counting may change to plain writes; the position of the bytes is unknown then.
            self.content.counted += bytes.len() as u64;
        } else {
            self.content.bytes.extend_from_slice(bytes);
        }
        Ok(())
    }

    fn advance(&mut self, count: u64) {
        assert!(!self.broken && self.wants == Wants::Count);
        self.content.counted += count;
    }

    fn commit(&mut self) -> io::Result<()> {
        assert!(!self.broken, "committed after a failed write");
        let mut disk = self.disk.lock().unwrap();
        disk.call(self.id, Op::Commit)?;
        disk.shelf(self.id).data_synced = true;
        disk.name(self);
        let synced = disk.call(self.id, Op::SyncNames);
        let shelf = disk.shelf(self.id);
        match synced {
            Ok(()) => shelf.name_synced = true,
            Err(_) => drop(shelf.kept.pop()),
        }
        synced
    }

    fn abort(&mut self) -> io::Result<()> {
        let mut disk = self.disk.lock().unwrap();
        disk.call(self.id, Op::Abort)?;
        disk.shelf(self.id).kept.push(StoredFile::Marker);
        Ok(())
    }
}
