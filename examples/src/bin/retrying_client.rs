//! An asynchronous client that reports its progress, and tries again when that may help.
//!
//! cargo run --bin retrying_client -- HOST PORT FILE

use std::error::Error;
use std::time::Duration;

use accio_proto::{ClientError, Port, Progress, Sent};
use accio_tokio::Client;
use tokio::fs::File;

/// Number of attempts, and the delay before the second one, which doubles with each further one.
const ATTEMPTS: u32 = 5;
const PAUSE: Duration = Duration::from_millis(200);

fn client(report: impl Fn(Progress) + Send + Sync + 'static) -> Result<Client, ClientError> {
    Ok(Client::from(accio_proto::Client::builder().on_progress(report).build()?))
}

async fn send(client: &Client, host: &str, port: u16, path: &str) -> Result<Sent, Box<dyn Error>> {
    let mut pause = PAUSE;
    for attempt in 1.. {
        // Each attempt reads the file from its beginning.
        match client.send(host, port, File::open(path).await?).await {
            Ok(sent) => return Ok(sent),
            Err(error) if attempt < ATTEMPTS && error.is_transient() => {
                eprintln!("{error}: trying again in {pause:?}");
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
            Err(error) => return Err(error.into()),
        }
    }
    unreachable!("the last attempt returns")
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [host, port, path] = &arguments[..] else {
        return Err("usage: retrying_client HOST PORT FILE".into());
    };
    let client = client(|progress| eprintln!("{} bytes sent", progress.sent))?;
    let sent = send(&client, host, port.parse::<Port>()?.number(), path).await?;
    println!("{} bytes, confirmed: {}", sent.bytes, sent.confirmed);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use accio_proto::testing::{FakeServer, Reply};

    use super::*;

    /// Returns a file of 300,000 bytes, and its path.
    fn file() -> (tempfile::NamedTempFile, String) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), vec![7; 300_000]).unwrap();
        let path = file.path().to_str().unwrap().to_owned();
        (file, path)
    }

    #[tokio::test]
    async fn tries_again_until_the_server_keeps_the_file() {
        let (_file, path) = file();
        let server = FakeServer::start([Reply::ResetAfter(3), Reply::Reject, Reply::Keep]).unwrap();
        let most = Arc::new(AtomicU64::new(0));
        let seen = Arc::clone(&most);
        let client = client(move |progress| {
            seen.fetch_max(progress.sent, Ordering::Relaxed);
        });
        let sent = send(&client.unwrap(), "127.0.0.1", server.port(), &path).await.unwrap();
        assert!(sent.confirmed);
        assert_eq!(most.load(Ordering::Relaxed), 300_000);
        assert_eq!(server.finish()[2], vec![7; 300_000]);
    }

    #[tokio::test]
    async fn gives_up_if_another_attempt_cannot_help() {
        let (_file, path) = file();
        let server = FakeServer::start([Reply::Greeting(b"220 mail\r\n")]).unwrap();
        let client = client(|_| {}).unwrap();
        let error = send(&client, "127.0.0.1", server.port(), &path).await.unwrap_err();
        assert!(error.to_string().contains("handshake"), "{error}");
    }
}
