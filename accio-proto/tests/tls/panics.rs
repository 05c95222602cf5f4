//! Cryptography of the program that panics after a connection has got its number.

use std::num::NonZeroU32;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use accio_proto::Stored;
use accio_proto::tls::ServerTls;
use rustls::crypto::cipher::{
    AeadKey, Iv, MessageDecrypter, MessageEncrypter, OutboundOpaqueMessage, OutboundPlainMessage,
    Tls13AeadAlgorithm, UnsupportedOperationError,
};
use rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256;
use rustls::crypto::ring::default_provider;
use rustls::crypto::{CipherSuiteCommon, CryptoProvider};
use rustls::{
    ConnectionTrafficSecrets, ContentType, Error, SupportedCipherSuite, Tls13CipherSuite,
};

use crate::pair::server_config_with;
use crate::server::{Report, RunningServer, both, client};

/// A cipher that panics once, at the first record of a type.
struct Panicking {
    cipher: &'static dyn Tls13AeadAlgorithm,
    at: ContentType,
    is_due: Arc<AtomicBool>,
}

struct Encrypter {
    encrypter: Box<dyn MessageEncrypter>,
    at: ContentType,
    is_due: Arc<AtomicBool>,
}

impl Tls13AeadAlgorithm for Panicking {
    fn encrypter(&self, key: AeadKey, iv: Iv) -> Box<dyn MessageEncrypter> {
        let encrypter = self.cipher.encrypter(key, iv);
        Box::new(Encrypter { encrypter, at: self.at, is_due: Arc::clone(&self.is_due) })
    }

    fn decrypter(&self, key: AeadKey, iv: Iv) -> Box<dyn MessageDecrypter> {
        self.cipher.decrypter(key, iv)
    }

    fn key_len(&self) -> usize {
        self.cipher.key_len()
    }

    fn extract_keys(
        &self,
        key: AeadKey,
        iv: Iv,
    ) -> Result<ConnectionTrafficSecrets, UnsupportedOperationError> {
        self.cipher.extract_keys(key, iv)
    }
}

impl MessageEncrypter for Encrypter {
    fn encrypt(
        &mut self,
        message: OutboundPlainMessage<'_>,
        sequence: u64,
    ) -> Result<OutboundOpaqueMessage, Error> {
        if message.typ == self.at && self.is_due.swap(false, Ordering::SeqCst) {
            // Like a panic, but without its message on stderr.
            resume_unwind(Box::new("the cipher panics"));
        }
        self.encrypter.encrypt(message, sequence)
    }

    fn encrypted_payload_len(&self, length: usize) -> usize {
        self.encrypter.encrypted_payload_len(length)
    }
}

/// Returns the settings of a server whose cipher panics at the first record of this type.
fn panics_at(at: ContentType) -> ServerTls {
    let suite = TLS13_AES_128_GCM_SHA256.tls13().expect("a suite of TLS 1.3");
    let is_due = Arc::new(AtomicBool::new(true));
    // rustls expects ciphers to live forever.
    let cipher = Box::leak(Box::new(Panicking { cipher: suite.aead_alg, at, is_due }));
    let common = CipherSuiteCommon { ..suite.common };
    let suite = Box::leak(Box::new(Tls13CipherSuite { aead_alg: cipher, common, ..*suite }));
    let cipher_suites = vec![SupportedCipherSuite::Tls13(suite)];
    let provider = CryptoProvider { cipher_suites, ..default_provider() };
    server_config_with(Arc::new(provider), None).into()
}

#[test]
fn a_panic_in_the_greeting_leaves_a_marker_and_a_report() {
    both(|threading| {
        let tls = panics_at(ContentType::ApplicationData);
        let server =
            RunningServer::new(threading, tls, |builder| builder.max_per_ip(NonZeroU32::MIN));
        let client = client().build().unwrap();
        let send = || client.send("127.0.0.1", server.address.port(), &b"x"[..]);
        send().unwrap_err();
        assert_eq!(server.report(), Report::Outcome(1, "system", None));
        assert_eq!(server.files.get(1), Some(Stored::Error));
        send().expect("the first connection no longer counts");
        assert_eq!(server.report(), Report::Outcome(2, "kept", None));
    });
}

#[test]
fn a_panic_in_the_notification_of_a_peer_does_not_reach_the_recorders_thread() {
    both(|threading| {
        let (send, recorded) = mpsc::channel();
        let send = Mutex::new(send);
        let server = RunningServer::new(threading, panics_at(ContentType::Alert), |builder| {
            builder.recorder(move |_, acknowledgement| {
                let _ = send.lock().unwrap().send(acknowledgement);
            })
        });
        let port = server.address.port();
        for is_confirmed in [false, true] {
            let sending = std::thread::spawn(move || {
                client().build().unwrap().send("127.0.0.1", port, &b"x"[..])
            });
            let acknowledgement = recorded.recv_timeout(Duration::from_secs(20)).unwrap();
            let sent = catch_unwind(AssertUnwindSafe(|| acknowledgement.send()));
            assert!(sent.is_ok(), "the panic reached the recorder");
            assert_eq!(sending.join().unwrap().is_ok(), is_confirmed);
        }
        for id in [1, 2] {
            assert_eq!(server.report(), Report::Outcome(id, "kept", None));
            assert_eq!(server.files.get(id), Some(Stored::Complete(b"x".to_vec())));
        }
    });
}
