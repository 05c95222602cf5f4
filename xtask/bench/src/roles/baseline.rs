//! The simplest client and server: a thread per connection and a copy loop.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use accio_harness::peer::GREETING;
use anyhow::{Context, Result, ensure};
use rustix::fs::{AtFlags, Mode, OFlags};

const BUFFER: usize = 64 << 10;
const THREADS: usize = 128;

/// Stores connection N as `N.file`.
pub(super) fn serve(
    port: u16,
    dir: &Path,
    copy: fn(&mut TcpStream, &mut File) -> io::Result<()>,
) -> Result<()> {
    let listener = super::listener::listen(port)?;
    let last = AtomicU64::new(0);
    let work = || -> io::Result<()> {
        loop {
            let (mut stream, _) = listener.accept()?;
            let id = last.fetch_add(1, Ordering::Relaxed) + 1;
            stream.write_all(GREETING)?;
            let mut file = File::create(dir.join(format!("{id}.file")))?;
            copy(&mut stream, &mut file)?;
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
        threads.into_iter().try_for_each(|thread| match thread.join() {
            Ok(result) => result,
            Err(_) => Err(io::Error::other("a thread panicked")),
        })
    })
    .context("baseline server")
}

/// Stores connection N as `N.file`, one connection after the other, with the system calls of a
/// durable commit.
pub(super) fn serve_durable(port: u16, dir: &Path) -> Result<()> {
    let listener = super::listener::listen(port)?;
    let dir = File::open(dir)?;
    let mut buffer = vec![0; BUFFER];
    for id in 1_u64.. {
        let (mut stream, _) = listener.accept()?;
        stream.write_all(GREETING)?;
        let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&dir, ".", flags, Mode::from_raw_mode(0o666))?;
        let mut file = File::from(file);
        loop {
            match stream.read(&mut buffer)? {
                0 => break,
                count => file.write_all(&buffer[..count])?,
            }
        }
        file.sync_data()?;
        let name = format!("{id}.file");
        rustix::fs::linkat(&file, "", &dir, name, AtFlags::EMPTY_PATH).context("cannot link")?;
        dir.sync_all()?;
    }
    Ok(())
}

pub(super) fn copy_by_loop(stream: &mut TcpStream, file: &mut File) -> io::Result<()> {
    pump(stream, file)
}

pub(super) fn copy_by_std(stream: &mut TcpStream, file: &mut File) -> io::Result<()> {
    io::copy(stream, file).map(drop)
}

/// Sends a file and waits for the server to close.
pub(super) fn send(
    port: u16,
    file: &Path,
    copy: fn(&mut File, &mut TcpStream) -> io::Result<()>,
) -> Result<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    let mut greeting = [0; GREETING.len()];
    stream.read_exact(&mut greeting)?;
    ensure!(greeting == *GREETING, "not greeted");
    copy(&mut File::open(file)?, &mut stream)?;
    stream.shutdown(Shutdown::Write)?;
    ensure!(stream.read(&mut greeting)? == 0, "the server sent more than its greeting");
    Ok(())
}

pub(super) fn send_by_loop(file: &mut File, stream: &mut TcpStream) -> io::Result<()> {
    pump(file, stream)
}

pub(super) fn send_by_std(file: &mut File, stream: &mut TcpStream) -> io::Result<()> {
    io::copy(file, stream).map(drop)
}

pub(super) fn send_by_sendfile(file: &mut File, stream: &mut TcpStream) -> io::Result<()> {
    while rustix::fs::sendfile(&*stream, &*file, None, 1 << 20)? > 0 {}
    Ok(())
}

fn pump(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(()),
            count => to.write_all(&buffer[..count])?,
        }
    }
}
