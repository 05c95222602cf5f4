//! Tests of the client with various servers over loopback.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use accio_proto::{Client, ClientBuilder, ClientError, Dialect, Sent};
use rustls::{ClientConfig, ServerConfig, ServerConnection, StreamOwned};

use crate::content;
use crate::pair::{Identity, SERVER, client_config, server_config};

type Stream = StreamOwned<ServerConnection, TcpStream>;

/// Sends `content` to a server that runs `serve` on its connection; returns the results of both.
fn send<T: Send + 'static>(
    client: ClientBuilder,
    content: &[u8],
    serve: impl FnOnce(TcpStream) -> T + Send + 'static,
) -> (Result<Sent, ClientError>, T) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        serve(stream)
    });
    let sent = client.build().unwrap().send("127.0.0.1", port, content);
    (sent, server.join().unwrap())
}

fn secure(stream: TcpStream, config: Arc<ServerConfig>) -> Stream {
    StreamOwned::new(ServerConnection::new(config).unwrap(), stream)
}

/// Sends the greeting, and reads until the client's close_notify.
fn receive(stream: &mut Stream) -> io::Result<Vec<u8>> {
    stream.write_all(b"accio\r\n")?;
    let mut content = Vec::new();
    stream.read_to_end(&mut content)?;
    Ok(content)
}

fn close(mut stream: Stream) {
    stream.conn.send_close_notify();
    stream.flush().unwrap();
}

fn client() -> ClientBuilder {
    Client::builder().tls(client_config(SERVER.pin(), None))
}

fn code(result: &Result<Sent, ClientError>) -> &'static str {
    result.as_ref().map_or_else(ClientError::code, |_| "sent")
}

#[test]
fn close_notify_confirms_a_file() {
    for size in [0, 1, 16_384, 5_000_000] {
        let content = content(size);
        let (sent, got) = send(client(), &content, |stream| {
            let mut stream = secure(stream, server_config(None));
            let got = receive(&mut stream).unwrap();
            close(stream);
            got
        });
        let sent = sent.unwrap();
        assert!(sent.confirmed && sent.bytes == size as u64);
        assert!(got == content, "{size} bytes");
    }
}

#[cfg(feature = "digest")]
#[test]
fn the_digest_is_that_of_the_content_not_of_its_records() {
    let algorithm = accio_proto::DigestAlgorithm::Blake3;
    let content = content(5_000_000);
    let (sent, _) = send(client().digest(algorithm), &content, |stream| {
        let mut stream = secure(stream, server_config(None));
        receive(&mut stream).unwrap();
        close(stream);
    });
    let mut hasher = accio_proto::Hasher::new(algorithm);
    hasher.update(&content);
    assert_eq!(sent.unwrap().digest, Some(hasher.finish()));
}

#[test]
fn every_dialect_works_under_tls() {
    for dialect in [Dialect::Direct, Dialect::Confirm] {
        let (sent, got) = send(client().dialect(dialect), b"content", move |stream| {
            let mut stream = secure(stream, server_config(None));
            if dialect == Dialect::Confirm {
                for line in [&b"confirm-accio\r\n"[..], b"confirm-accio-again\r\n\r\n"] {
                    stream.write_all(b"accio\r\n").unwrap();
                    let mut got = vec![0; line.len()];
                    stream.read_exact(&mut got).unwrap();
                    assert_eq!(got, line);
                }
            }
            let mut content = Vec::new();
            stream.read_to_end(&mut content).unwrap();
            close(stream);
            content
        });
        assert!(sent.unwrap().confirmed);
        assert_eq!(got, b"content");
    }
}

#[test]
fn a_fin_without_close_notify_is_not_a_confirmation() {
    let (sent, _) = send(client(), b"content", |stream| {
        let mut stream = secure(stream, server_config(None));
        receive(&mut stream).unwrap();
        stream.sock.shutdown(Shutdown::Both).unwrap();
    });
    assert_eq!(code(&sent), "truncated");
    assert!(sent.unwrap_err().to_string().contains("without close_notify"));
}

#[test]
fn a_close_notify_before_the_end_is_not_a_confirmation() {
    let (sent, _) = send(client(), &content(50_000_000), |stream| {
        let mut stream = secure(stream, server_config(None));
        stream.write_all(b"accio\r\n").unwrap();
        stream.read_exact(&mut [0; 10]).unwrap();
        stream.conn.send_close_notify();
        stream.flush().unwrap();
        let _ = io::copy(&mut stream.sock, &mut io::sink());
    });
    assert_eq!(code(&sent), "closed-early");
}

#[test]
fn a_reset_is_not_a_confirmation() {
    let (sent, _) = send(client(), b"content", |stream| {
        let mut stream = secure(stream, server_config(None));
        receive(&mut stream).unwrap();
        socket2::SockRef::from(&stream.sock).set_linger(Some(Duration::ZERO)).unwrap();
    });
    assert_eq!(code(&sent), "not-kept");
}

#[test]
fn reports_a_server_without_tls() {
    let (sent, _) = send(client(), b"content", |mut stream| {
        stream.write_all(b"accio\r\n").unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
    });
    assert_eq!(code(&sent), "tls-plain");
    let text = sent.unwrap_err().to_string();
    assert!(text.contains(r#"does not speak TLS: it sent "accio\r\n""#), "{text}");
}

#[test]
fn an_alert_tells_a_client_that_the_server_requires_tls() {
    const ALERT: &[u8] = &[21, 3, 3, 0, 2, 1, 90];
    for dialect in [Dialect::Accio, Dialect::Confirm, Dialect::Direct] {
        let (sent, _) = send(Client::builder().dialect(dialect), &content(9_000_000), |stream| {
            (&stream).write_all(ALERT).unwrap();
            thread::sleep(Duration::from_millis(50));
            // Dropping the stream with unread bytes resets the connection.
        });
        assert_eq!(code(&sent), "tls-required", "{dialect}: {:?}", sent.err());
    }
}

#[test]
fn rejects_a_server_with_another_key() {
    let other = Identity::of(Default::default());
    let client = Client::builder().tls(client_config(other.pin(), None));
    let (sent, seen) =
        send(client, b"content", |stream| receive(&mut secure(stream, server_config(None))));
    assert_eq!(code(&sent), "tls-untrusted");
    let text = sent.unwrap_err().to_string();
    assert!(text.contains(&format!("the server has another key: {}", SERVER.pin())), "{text}");
    assert!(seen.is_err());
}

#[test]
fn an_unlisted_client_receives_an_alert() {
    let [alice, stranger] = [(), ()].map(|()| Identity::of(Default::default()));
    let clients = format!("{} alice", alice.pin());
    for (identity, expected, words) in [
        (Some(&alice), "sent", ""),
        (Some(&stranger), "tls-refused", "certificate_unknown"),
        (None, "tls-refused", "the server requires a client certificate"),
    ] {
        for dialect in [Dialect::Accio, Dialect::Direct] {
            let config = server_config(Some(clients.parse().unwrap()));
            let client = Client::builder().dialect(dialect);
            let client = client.tls(client_config(SERVER.pin(), identity));
            let (sent, _) = send(client, b"content", move |stream| {
                let mut stream = secure(stream, config);
                let content = match dialect {
                    Dialect::Direct => stream.read_to_end(&mut Vec::new()).map(drop),
                    _ => receive(&mut stream).map(drop),
                };
                match content {
                    Ok(()) => close(stream),
                    // The alert has been sent. Read the rest, so that no reset overtakes it.
                    Err(_) => drop(io::copy(&mut stream.sock, &mut io::sink())),
                }
            });
            assert_eq!(code(&sent), expected, "{dialect}: {:?}", sent.err());
            let text = sent.err().map_or(String::new(), |error| error.to_string());
            assert!(text.contains(words), "{text}");
        }
    }
}

#[test]
fn the_timeout_applies_to_the_whole_handshake() {
    let limit = Duration::from_millis(400);
    let started = Instant::now();
    let (sent, _) = send(client().handshake_timeout(limit), b"content", |mut stream| {
        // A handshake record that never becomes complete, sent byte by byte.
        stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        let record = [&[22, 3, 3, 1, 0, 2, 0, 0, 252][..], &[0; 200]].concat();
        for byte in record {
            if stream.write_all(&[byte]).is_err() {
                break;
            }
            thread::sleep(Duration::from_millis(10));
        }
    });
    assert_eq!(code(&sent), "tls-timeout", "{:?}", sent.err());
    assert!(started.elapsed() >= limit && started.elapsed() < 20 * limit);
}

#[test]
fn the_limit_for_the_whole_upload_applies_to_the_handshake() {
    let limit = Duration::from_millis(300);
    let (sent, _) = send(client().transfer_timeout(limit), b"content", |mut stream| {
        // It never answers.
        while stream.read(&mut [0; 1000]).is_ok_and(|count| count > 0) {}
    });
    assert_eq!(code(&sent), "transfer-timeout", "{:?}", sent.err());
}

#[test]
fn many_transfers_share_a_configuration() {
    let config: Arc<ClientConfig> = Arc::new(client_config(SERVER.pin(), None));
    for _ in 0..3 {
        let client = Client::builder().tls(Arc::clone(&config));
        let (sent, got) = send(client, b"content", |stream| {
            let mut stream = secure(stream, server_config(None));
            let got = receive(&mut stream);
            close(stream);
            got
        });
        assert!(sent.unwrap().confirmed);
        assert_eq!(
            got.map_err(|error: io::Error| error.kind()),
            Ok::<_, ErrorKind>(b"content".to_vec())
        );
    }
}
