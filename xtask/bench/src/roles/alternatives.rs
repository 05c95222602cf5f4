//! Ways to keep a large upload that accio-server does not go, or not bare: what there would be to
//! gain. None handles an error, a time-out or a second connection at a time.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc;

use rustix::fs::FallocateFlags;
use rustix::pipe::SpliceFlags;

const CHUNK: usize = 1 << 20;
/// Chunks between two threads.
const AHEAD: usize = 3;

/// A way to receive a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Idea {
    /// splice in and splice out, as accio-server, and nothing else
    Splice,
    /// The same, in and out by a thread each
    SpliceThreads,
    /// Read by one thread, written by another
    BufferThreads,
}

impl Idea {
    pub(crate) const ALL: [Idea; 3] = [Idea::Splice, Idea::SpliceThreads, Idea::BufferThreads];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Idea::Splice => "splice",
            Idea::SpliceThreads => "splice-threads",
            Idea::BufferThreads => "buffer-threads",
        }
    }

    pub(super) fn copy(self) -> fn(&mut TcpStream, &mut File) -> io::Result<()> {
        match self {
            Idea::Splice => splice,
            Idea::SpliceThreads => splice_by_threads,
            Idea::BufferThreads => buffer_by_threads,
        }
    }
}

fn splice(stream: &mut TcpStream, file: &mut File) -> io::Result<()> {
    let mut pipe = Pipe::new()?;
    let mut room = Room::default();
    loop {
        match pipe.fill(&*stream)? {
            0 => return room.give_back(file),
            count => pipe.drain(&*file, count).and_then(|()| room.advance(file, count))?,
        }
    }
}

fn splice_by_threads(stream: &mut TcpStream, file: &mut File) -> io::Result<()> {
    let pipes = (0..AHEAD).map(|_| Pipe::new()).collect::<io::Result<Vec<_>>>()?;
    pass_on(pipes, |pipe| pipe.fill(&*stream), |pipe, count| pipe.drain(&*file, count), file)
}

fn buffer_by_threads(stream: &mut TcpStream, file: &mut File) -> io::Result<()> {
    let buffers = vec![vec![0; CHUNK]; AHEAD];
    let write = |buffer: &mut Vec<u8>, count| (&*file).write_all(&buffer[..count]);
    pass_on(buffers, |buffer| stream.read(buffer), write, file)
}

/// One thread fills vessels, another empties them and gives them back.
fn pass_on<V: Send>(
    vessels: Vec<V>,
    mut fill: impl FnMut(&mut V) -> io::Result<usize>,
    drain: impl Fn(&mut V, usize) -> io::Result<()> + Send,
    file: &File,
) -> io::Result<()> {
    let (full, to_drain) = mpsc::channel::<(V, usize)>();
    let (empty, to_fill) = mpsc::channel();
    for vessel in vessels {
        // The receiver is right here.
        let _ = empty.send(vessel);
    }
    std::thread::scope(|scope| {
        let drainer = scope.spawn(move || {
            let mut room = Room::default();
            for (mut vessel, count) in to_drain {
                drain(&mut vessel, count)?;
                room.advance(file, count)?;
                // At the end, nothing fills it any more.
                let _ = empty.send(vessel);
            }
            room.give_back(file)
        });
        while let Ok(mut vessel) = to_fill.recv() {
            let count = fill(&mut vessel)?;
            if count == 0 || full.send((vessel, count)).is_err() {
                break;
            }
        }
        drop(full);
        drainer.join().unwrap_or_else(|_| Err(io::Error::other("a thread panicked")))
    })
}

struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
}

impl Pipe {
    fn new() -> io::Result<Pipe> {
        let (read, write) = rustix::pipe::pipe()?;
        rustix::pipe::fcntl_setpipe_size(&write, CHUNK)?;
        Ok(Pipe { read, write })
    }

    fn fill(&mut self, source: &impl AsFd) -> io::Result<usize> {
        let flags = SpliceFlags::MOVE;
        Ok(rustix::pipe::splice(source, None, &self.write, None, CHUNK, flags)?)
    }

    fn drain(&mut self, target: &impl AsFd, mut count: usize) -> io::Result<()> {
        let target = target.as_fd();
        while count > 0 {
            let flags = SpliceFlags::MOVE;
            count -= rustix::pipe::splice(&self.read, None, target, None, count, flags)?;
        }
        Ok(())
    }
}

/// Room on the disk ahead of the data, as accio-server takes it.
#[derive(Default)]
struct Room {
    length: u64,
    end: u64,
}

impl Room {
    fn advance(&mut self, file: &File, count: usize) -> io::Result<()> {
        self.length += count as u64;
        if self.length >= CHUNK as u64 && self.length + CHUNK as u64 > self.end {
            let (from, step) = (self.end.max(self.length), self.length.min(64 << 20));
            rustix::fs::fallocate(file, FallocateFlags::KEEP_SIZE, from, step)?;
            self.end = from + step;
        }
        Ok(())
    }

    fn give_back(&self, file: &File) -> io::Result<()> {
        if self.end > self.length { file.set_len(self.length) } else { Ok(()) }
    }
}
