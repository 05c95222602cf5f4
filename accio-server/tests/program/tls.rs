//! `--tls` of a confined server, which must still read its files when they are replaced.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use accio_proto::tls::{ALPN, Pin, PinnedServer};
use accio_proto::{Client, ClientError, Sent};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use rustix::fs::{CWD, Mode, mkfifoat};
use rustix::process::Signal;
use rustls::ClientConfig;
use rustls::crypto::ring::default_provider;

use super::harness::{Place, Server, program, until};
use super::usage::fails;

const SECOND: Duration = Duration::from_secs(1);

/// Lets a server create a key of its own at `path`; returns the pin that it prints.
fn create_key(path: &Path) -> Pin {
    let place = Place::new();
    let mut command = program();
    fs::create_dir(place.path("state")).unwrap();
    command.env("STATE_DIRECTORY", place.text("state"));
    let flags = ["--tls", "--bind", "127.0.0.1", "--sandbox", "off"];
    let server = Server::start_as(command, &place, &flags);
    let line = server.line("send files with: ");
    let pin = line.split(' ').find(|word| word.starts_with("sha256//")).unwrap().parse().unwrap();
    server.stop(SECOND);
    fs::copy(place.path("state/server.pem"), path).unwrap();
    pin
}

/// Uploads to a server that must have the key with this pin.
fn send(server: &Server, pin: Pin, content: &[u8]) -> Result<Sent, ClientError> {
    let provider = Arc::new(default_provider());
    let verifier = PinnedServer::new([pin], &provider);
    let builder = ClientConfig::builder_with_provider(provider);
    let builder = builder.with_protocol_versions(&[&rustls::version::TLS13]).unwrap();
    let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = builder.with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    let client = Client::builder().tls(config).build().unwrap();
    client.send("127.0.0.1", server.address().port(), content)
}

#[test]
fn a_confined_server_reloads_its_key_and_refuses_one_that_others_may_read() {
    let place = Place::new();
    let key = place.path("keys/server.pem");
    fs::create_dir(place.path("keys")).unwrap();
    let first = create_key(&key);
    let name = key.to_str().unwrap();
    let flags = ["--sandbox", "require", "--tls-cert", name, "--tls-key", name, "-v"];
    let server = Server::start(&place, &flags);
    server.line("Landlock confines the server");
    server.line("seccomp confines the server");
    assert!(send(&server, first, b"with the first key").unwrap().confirmed);

    let next = place.path("keys/next.pem");
    let second = create_key(&next);
    fs::rename(&next, &key).unwrap();
    server.signal(Signal::HUP);
    server.line("TLS files reloaded");
    send(&server, first, b"with the first key").unwrap_err();
    assert!(send(&server, second, b"with the second key").unwrap().confirmed);

    // The new one must be as secret as the one at the start.
    create_key(&next);
    fs::set_permissions(&next, Permissions::from_mode(0o640)).unwrap();
    fs::rename(&next, &key).unwrap();
    server.signal(Signal::HUP);
    let line = server.line("cannot reload the TLS files, continuing with the old ones");
    assert!(line.contains("others may read it (mode 640)"), "{line}");
    assert!(send(&server, second, b"still the second").unwrap().confirmed);
    until("all are kept", || place.read(3).is_some());
    assert_eq!(place.read(2).unwrap(), b"with the second key");
    server.stop(SECOND);
}

/// Writes a new key and a self-signed certificate that expires in `year`; returns its pin.
fn write_certificate(path: &Path, year: i32) -> Pin {
    let mut params = CertificateParams::new(["receiver".to_owned()]).unwrap();
    params.not_after = date_time_ymd(year, 1, 1);
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    let pem = |kind, der: &[u8]| {
        let text = STANDARD.encode(der);
        format!("-----BEGIN {kind}-----\n{text}\n-----END {kind}-----\n")
    };
    let text = pem("PRIVATE KEY", &key.serialize_der()) + &pem("CERTIFICATE", certificate.der());
    fs::write(path, text).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
    Pin::of(certificate.der()).unwrap()
}

#[test]
fn an_expired_certificate_is_not_reloaded_but_may_remain() {
    let place = Place::new();
    let (key, next) = (place.path("keys/server.pem"), place.path("keys/next.pem"));
    fs::create_dir(place.path("keys")).unwrap();
    let first = write_certificate(&key, 4000);
    let name = key.to_str().unwrap();
    let server = Server::start(&place, &["--tls-cert", name, "--tls-key", name, "-v"]);
    write_certificate(&next, 2020);
    fs::rename(&next, &key).unwrap();
    server.signal(Signal::HUP);
    let line = server.line("cannot reload the TLS files, continuing with the old ones");
    assert!(line.contains("the certificate is not valid: it expired "), "{line}");
    assert!(send(&server, first, b"with the first key").unwrap().confirmed);
    server.stop(SECOND);

    // One that has expired since the start must not prevent the reload of other files.
    let server = Server::start(&place, &["--tls-cert", name, "--tls-key", name, "-v"]);
    server.line("clients without a pin refuse the certificate: it expired ");
    server.signal(Signal::HUP);
    server.line("TLS files reloaded");
    server.stop(SECOND);
}

#[test]
fn a_confined_server_reloads_its_clients_from_another_directory_than_its_key() {
    let place = Place::new();
    let clients = place.path("lists/clients");
    ["state", "lists"].iter().for_each(|name| fs::create_dir(place.path(name)).unwrap());
    fs::write(&clients, "").unwrap();
    let mut command = program();
    command.env("STATE_DIRECTORY", place.text("state"));
    let list = clients.to_str().unwrap();
    let flags =
        ["--bind", "127.0.0.1", "--sandbox", "require", "--tls", "--tls-clients", list, "-v"];
    let server = Server::start_as(command, &place, &flags);
    let pin = create_key(&place.path("client.pem"));
    fs::write(&clients, format!("{pin} alice\n")).unwrap();
    server.signal(Signal::HUP);
    server.line("TLS files reloaded");
    server.stop(SECOND);
}

#[test]
fn a_pipe_in_place_of_a_file_delays_neither_a_start_nor_a_stop() {
    let place = Place::new();
    let (key, pipe) = (place.path("keys/server.pem"), place.path("keys/pipe"));
    fs::create_dir(place.path("keys")).unwrap();
    create_key(&key);
    mkfifoat(CWD, &pipe, Mode::from_raw_mode(0o600)).unwrap();
    let dir = place.dir();
    for (flag, cert, key) in [("--tls-cert", &pipe, &key), ("--tls-key", &key, &pipe)] {
        let [cert, key] = [cert, key].map(|path| path.to_str().unwrap());
        let line = fails(1, &["5000", &dir, "--tls-cert", cert, "--tls-key", key]);
        let why = format!("cannot use {flag} {pipe:?}: it is not a regular file");
        assert!(line.contains(&why), "{line}");
    }

    let name = key.to_str().unwrap();
    let server = Server::start(&place, &["--tls-cert", name, "--tls-key", name, "-v"]);
    fs::rename(&pipe, &key).unwrap();
    server.signal(Signal::HUP);
    server.line("it is not a regular file");
    server.stop(SECOND);
}
