//! Minimal servers with other ways to store a large upload, which show what accio-server could
//! gain. None of them handles errors, timeouts or concurrent connections.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc;

use rustix::fs::FallocateFlags;
use rustix::pipe::SpliceFlags;

const CHUNK: usize = 1 << 20;
/// Number of chunks in flight between two threads.
const AHEAD: usize = 3;

/// A way to store an upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Alternative {
    /// splice in and splice out, like accio-server, and nothing else
    Splice,
    /// splice in and splice out, a thread each
    SpliceThreads,
    /// Read and write, a thread each
    BufferThreads,
}

impl Alternative {
    pub(crate) const ALL: [Alternative; 3] =
        [Alternative::Splice, Alternative::SpliceThreads, Alternative::BufferThreads];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Alternative::Splice => "splice",
            Alternative::SpliceThreads => "splice-threads",
            Alternative::BufferThreads => "buffer-threads",
        }
    }

    pub(super) fn copy_function(self) -> fn(&mut TcpStream, &mut File) -> io::Result<()> {
        match self {
            Alternative::Splice => splice,
            Alternative::SpliceThreads => splice_by_threads,
            Alternative::BufferThreads => buffer_by_threads,
        }
    }
}

fn splice(stream: &mut TcpStream, file: &mut File) -> io::Result<()> {
    let mut pipe = Pipe::new()?;
    let mut reserved = Reservation::default();
    loop {
        match pipe.fill(&*stream)? {
            0 => return reserved.release(file),
            count => pipe.drain(&*file, count).and_then(|()| reserved.advance(file, count))?,
        }
    }
}

fn splice_by_threads(stream: &mut TcpStream, file: &mut File) -> io::Result<()> {
    let pipes = (0..AHEAD).map(|_| Pipe::new()).collect::<io::Result<Vec<_>>>()?;
    copy_by_threads(
        pipes,
        |pipe| pipe.fill(&*stream),
        |pipe, count| pipe.drain(&*file, count),
        file,
    )
}

fn buffer_by_threads(stream: &mut TcpStream, file: &mut File) -> io::Result<()> {
    let buffers = vec![vec![0; CHUNK]; AHEAD];
    let write = |buffer: &mut Vec<u8>, count| (&*file).write_all(&buffer[..count]);
    copy_by_threads(buffers, |buffer| stream.read(buffer), write, file)
}

/// Fills containers (pipes or buffers) in one thread and empties them in another.
fn copy_by_threads<V: Send>(
    containers: Vec<V>,
    mut fill: impl FnMut(&mut V) -> io::Result<usize>,
    drain: impl Fn(&mut V, usize) -> io::Result<()> + Send,
    file: &File,
) -> io::Result<()> {
    let (full, to_drain) = mpsc::channel::<(V, usize)>();
    let (empty, to_fill) = mpsc::channel();
    for container in containers {
        // The receiver still exists.
        let _ = empty.send(container);
    }
    std::thread::scope(|scope| {
        let drainer = scope.spawn(move || {
            let mut reserved = Reservation::default();
            for (mut container, count) in to_drain {
                drain(&mut container, count)?;
                reserved.advance(file, count)?;
                // At the end the other thread needs no more containers.
                let _ = empty.send(container);
            }
            reserved.release(file)
        });
        while let Ok(mut container) = to_fill.recv() {
            let count = fill(&mut container)?;
            if count == 0 || full.send((container, count)).is_err() {
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

/// Blocks preallocated ahead of the data, as in accio-server.
#[derive(Default)]
struct Reservation {
    length: u64,
    end: u64,
}

impl Reservation {
    fn advance(&mut self, file: &File, count: usize) -> io::Result<()> {
        self.length += count as u64;
        if self.length >= CHUNK as u64 && self.length + CHUNK as u64 > self.end {
            let (from, step) = (self.end.max(self.length), self.length.min(64 << 20));
            rustix::fs::fallocate(file, FallocateFlags::KEEP_SIZE, from, step)?;
            self.end = from + step;
        }
        Ok(())
    }

    fn release(&self, file: &File) -> io::Result<()> {
        if self.end > self.length { file.set_len(self.length) } else { Ok(()) }
    }
}
