//! The client: waits with the runtime instead of blocking a thread.

use std::future::Future;
use std::io;
use std::os::fd::BorrowedFd;
use std::pin::Pin;
use std::task::ready;
use std::time::Duration;

use accio_proto::{ClientError, Sent, Source, Watch};
use tokio::io::{AsyncRead, Interest, ReadBuf};

use crate::registration::{Registration, register};

/// Sends files to Accio servers, one per connection, without blocking a thread.
///
/// It is created from an [`accio_proto::Client`], whose settings it uses; the default has the
/// default settings.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let client = accio_tokio::Client::default();
/// let sent = client.send("localhost", 5000, tokio::fs::File::open("photo.jpg").await?).await?;
/// assert!(sent.confirmed, "the server has kept all {} bytes", sent.bytes);
/// # Ok(())
/// # }
/// ```
///
/// With a time limit, and all possible results. Set [`transfer_timeout`] instead of dropping the future
/// after a time: then the error says whether the server may have stored the file.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let limit = std::time::Duration::from_secs(60);
/// let client = accio_proto::Client::builder().transfer_timeout(limit).build()?;
/// let client = accio_tokio::Client::from(client);
/// let file = tokio::fs::File::open("photo.jpg").await?;
/// match client.send("localhost", 5000, file).await {
///     Ok(sent) if sent.confirmed => println!("stored"),
///     Ok(_) => println!("may be stored: a retry may store it twice"),
///     Err(error) if error.may_be_stored() => println!("may be stored: {error}"),
///     Err(error) if error.is_transient() => println!("not stored, try again: {error}"),
///     Err(error) => println!("not stored: {error}"),
/// }
/// # Ok(())
/// # }
/// ```
///
/// [`transfer_timeout`]: accio_proto::ClientBuilder::transfer_timeout
#[derive(Debug, Clone)]
pub struct Client(accio_proto::Client);

impl Client {
    /// Sends everything that `reader` returns to `host`, which is a host name, an IPv4 address or an
    /// IPv6 address. While a read is pending, the client notices when the server closes the
    /// connection; an Accio server does so after ten seconds of silence. The future borrows nothing but
    /// what the reader borrows, so it can be spawned.
    ///
    /// The host name is resolved and the connection established on a thread for blocking work, within
    /// the connect timeout. A runtime that is dropped before that waits for the thread.
    ///
    /// # Errors
    ///
    /// See [`ClientError`], which also describes the state of the file on the server. If
    /// [`is_transient`](ClientError::is_transient) returns true, another attempt may succeed; it needs a
    /// new reader, for example the file opened again.
    ///
    /// # Panics
    ///
    /// The future panics outside of a tokio runtime whose I/O and time are enabled, and resumes a panic
    /// of the reader or an observer.
    ///
    /// # Cancellation
    ///
    /// Dropping the future resets the connection, so the server does not keep the file, unless it
    /// already has all of it and its confirmation is on the way. If the connection is not established
    /// yet, that continues for at most the connect timeout and is then reset; an Accio server counts it
    /// as a failed upload. The future is not cancel safe in the sense of `select!`: it cannot be
    /// resumed, and what was read of the reader is lost.
    pub fn send<R: AsyncRead + Send>(
        &self,
        host: &str,
        port: u16,
        reader: R,
    ) -> impl Future<Output = Result<Sent, ClientError>> + Send + use<R> {
        let (client, host) = (self.0.clone(), host.to_owned());
        async move {
            let connecting = tokio::task::spawn_blocking(move || client.connect(&host, port));
            let connected = connecting.await.map_err(|error| match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(error) => {
                    ClientError::Local { what: "connect", cause: io::Error::other(error) }
                }
            })??;
            let mut reader = Box::pin(reader);
            let source = Source::poll(move |context, buffer| {
                let mut buffer = ReadBuf::new(buffer);
                ready!(reader.as_mut().poll_read(context, &mut buffer))?;
                Ok(buffer.filled().len()).into()
            });
            connected.upload(watch, source).await
        }
    }
}

impl From<accio_proto::Client> for Client {
    fn from(client: accio_proto::Client) -> Self {
        Client(client)
    }
}

impl Default for Client {
    /// Returns a client with the default settings.
    fn default() -> Self {
        match accio_proto::Client::builder().build() {
            Ok(client) => Client(client),
            Err(error) => unreachable!("the default settings are valid: {error}"),
        }
    }
}

/// The socket of an upload in the runtime's event queue.
struct Registered(Registration);

fn watch(socket: BorrowedFd<'_>) -> io::Result<Box<dyn Watch>> {
    let interest = Interest::READABLE | Interest::WRITABLE;
    Ok(Box::new(Registered(register(socket, interest)?)))
}

impl Watch for Registered {
    fn wait<'a>(
        &'a self,
        write: bool,
        limit: Duration,
        is_ready: &'a (dyn Fn() -> bool + Send + Sync),
    ) -> Pin<Box<dyn Future<Output = io::Result<()>> + Send + 'a>> {
        let interest = match write {
            true => Interest::READABLE | Interest::WRITABLE,
            false => Interest::READABLE,
        };
        let wait = async move {
            loop {
                let mut ready = self.0.ready(interest).await?;
                // The end of a connection stays ready forever. An early return is harmless.
                let closed = ready.ready().is_read_closed() || ready.ready().is_write_closed();
                if is_ready() || closed {
                    return Ok(());
                }
                // An earlier call has handled the event.
                ready.clear_ready();
            }
        };
        Box::pin(async move { tokio::time::timeout(limit, wait).await.unwrap_or(Ok(())) })
    }

    fn sleep<'a>(&'a self, time: Duration) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        match time.is_zero() {
            true => Box::pin(tokio::task::yield_now()),
            false => Box::pin(tokio::time::sleep(time)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;
    use std::sync::mpsc;

    use super::*;

    /// An end stays ready in the event queue, so a wait for something else must not spin on it.
    #[test]
    fn a_closed_socket_ends_a_wait() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        stream.set_nonblocking(true).unwrap();
        drop(listener.accept().unwrap());
        let (done, ended) = mpsc::channel();
        std::thread::spawn(move || {
            let builder = &mut tokio::runtime::Builder::new_current_thread();
            let runtime = builder.enable_all().build().unwrap();
            runtime.block_on(async {
                let watch = watch(stream.as_fd()).unwrap();
                watch.wait(false, Duration::from_millis(1), &|| false).await.unwrap();
                watch.sleep(Duration::from_millis(1)).await;
            });
            done.send(()).unwrap();
        });
        ended.recv_timeout(Duration::from_secs(20)).expect("the wait ends");
    }
}
