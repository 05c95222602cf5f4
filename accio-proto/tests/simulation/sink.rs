//! A simulated sink: files in memory, failures by script, calls that take time.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex};

use accio_proto::{Demand, FileSink, SinkFile};

use crate::plan::{Fault, Op, Plan, Wants};
use crate::socket::Clock;
use crate::world::{Happening, Log};

/// The stored result of one number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kept {
    Complete(Content),
    Marker,
}

/// The bytes that were written, and how many more were only counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Content {
    pub(crate) bytes: Vec<u8>,
    pub(crate) counted: u64,
}

/// One connection's share of the disk.
struct Shelf {
    faults: Vec<Fault>,
    wants: Wants,
    stall: Option<(u32, u64)>,
    calls: u32,
    log: Log,
    kept: Vec<Kept>,
}

/// All that the sink keeps; the test looks at it.
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
            kept: Vec::new(),
        };
        self.shelves.insert(id, shelf);
    }

    pub(crate) fn is_complete(&self, id: u64) -> bool {
        matches!(self.kept(id), Some(Kept::Complete(_)))
    }

    pub(crate) fn kept(&self, id: u64) -> Option<&Kept> {
        let kept = &self.shelves[&id].kept;
        assert!(kept.len() <= 1, "file {id} was kept twice: {kept:?}");
        kept.first()
    }

    /// Counts a call, takes its time, and fails if it is to.
    fn call(&mut self, id: u64, op: Op) -> io::Result<()> {
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
                shelf.log.lock().unwrap().push(Happening::Failed(op));
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
    /// A write failed, so only an abort may follow.
    broken: bool,
}

impl FileSink for SimSink {
    type File = SimFile;

    fn open(&self, id: u64) -> io::Result<SimFile> {
        let mut disk = self.0.lock().unwrap();
        disk.call(id, Op::Open)?;
        let null = Arc::clone(&disk.null);
        let shelf = &disk.shelves[&id];
        shelf.log.lock().unwrap().push(Happening::Opened);
        let (wants, disk) = (shelf.wants, Arc::clone(&self.0));
        Ok(SimFile { id, content: Content::default(), wants, null, disk, broken: false })
    }
}

impl SinkFile for SimFile {
    fn demand(&self) -> Demand<'_> {
        match self.wants {
            Wants::Bytes => Demand::Bytes,
            // The simulated socket has no descriptor to splice from, so it must not be used.
            Wants::Descriptor => Demand::Descriptor(self.null.as_fd()),
            Wants::Count => Demand::Count,
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        assert!(!self.broken && !bytes.is_empty());
        self.disk.lock().unwrap().call(self.id, Op::Write).inspect_err(|_| self.broken = true)?;
        if self.content.counted > 0 {
            // Counting may go back to plain writes; their place is no longer known.
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
        let kept = Kept::Complete(self.content.clone());
        disk.shelves.get_mut(&self.id).unwrap().kept.push(kept);
        Ok(())
    }

    fn abort(&mut self) -> io::Result<()> {
        let mut disk = self.disk.lock().unwrap();
        disk.call(self.id, Op::Abort)?;
        disk.shelves.get_mut(&self.id).unwrap().kept.push(Kept::Marker);
        Ok(())
    }
}
