//! Reads that signals do not end.

use std::io::{self, Read};

/// Reads once, and again for as long as signals interrupt it.
///
/// [`Read::read`] on a socket with a timeout can be interrupted in any process that has children: a
/// thread that starts one blocks all signals while it does so, and the `SIGCHLD` of another that ends
/// at this moment is not ignored, but delivered to one of the other threads.
///
/// # Errors
///
/// All errors of [`Read::read`] but [`io::ErrorKind::Interrupted`].
pub fn read(mut from: impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        match from.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A reader that is interrupted this number of times.
    struct Signals(usize);

    impl Read for Signals {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.0 > 0 {
                self.0 -= 1;
                return Err(io::ErrorKind::Interrupted.into());
            }
            buffer[0] = b'a';
            Ok(1)
        }
    }

    #[test]
    fn signals_do_not_end_a_read() {
        let mut buffer = [0];
        assert_eq!(read(Signals(3), &mut buffer).unwrap(), 1);
        assert_eq!(&buffer, b"a");
        let closed = read(&mut Broken, &mut buffer).unwrap_err();
        assert_eq!(closed.kind(), io::ErrorKind::ConnectionReset);
    }

    struct Broken;

    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::ConnectionReset.into())
        }
    }
}
