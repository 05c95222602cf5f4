//! Tests that hold for every balancer.

use std::io::{self, Write};
use std::thread;
use std::time::Duration;

use accio_harness::payload;
use accio_harness::peer::read;

use super::super::harness::{connect, finish};
use super::cluster::{Balancer, Cluster};

pub(super) fn uploads_arrive_intact_and_journals_name_the_real_peers(balancer: &Balancer) {
    let Some(cluster) = Cluster::start(balancer, &[], |config| config) else { return };
    let sizes = [0, 1, 7, 1000, 16_384, 65_537, 1 << 20, 5_000_000];
    let sent: Vec<_> = thread::scope(|scope| {
        let front = cluster.front;
        let threads: Vec<_> = (0..6)
            .map(|_| {
                scope.spawn(move || {
                    sizes.map(|size| {
                        let mut stream = connect(front).unwrap();
                        let peer = stream.local_addr().unwrap();
                        stream.write_all(&payload::bytes(1, size)).unwrap();
                        // The balancer forwards the FIN of the client and that of the receiver.
                        finish(stream).unwrap();
                        (peer, size)
                    })
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let journals = cluster.journals();
    assert_eq!(journals.len(), sent.len(), "a confirmed upload is in a journal already");
    let mut used = [0; 3];
    for (peer, size) in sent {
        let (index, id, line) = &journals[&peer.to_string()];
        assert_eq!((&line["outcome"], &line["bytes"]), (&"complete".into(), &size.into()));
        assert!(
            cluster.receivers[*index].place.read(*id).unwrap() == payload::bytes(1, size),
            "{size} bytes"
        );
        used[*index] += 1;
    }
    assert!(used.iter().all(|count| *count > 0), "all receivers have their share: {used:?}");
}

pub(super) fn confirms_no_file_before_it_is_committed(balancer: &Balancer) {
    let Some(cluster) = Cluster::start(balancer, &[], |config| config) else { return };
    for _ in 0..20 {
        let stream = connect(cluster.front).unwrap();
        let peer = stream.local_addr().unwrap();
        finish(stream).unwrap();
        assert!(cluster.journals().contains_key(&peer.to_string()));
    }
}

/// A reset by the client must not look like the end of a file, through HAProxy either.
pub(super) fn a_client_reset_at_any_point_becomes_an_error(balancer: &Balancer) {
    let Some(cluster) = Cluster::start(balancer, &[], |config| config) else { return };
    for round in 0..40 {
        let mut stream = connect(cluster.front).unwrap();
        let peer = stream.local_addr().unwrap();
        let size = [0, 1, 1000, 20_000, 300_000, 3_000_000][round % 6];
        stream.write_all(&payload::bytes(1, size)).unwrap();
        if round % 2 == 0 {
            thread::sleep(Duration::from_millis(20));
        }
        rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
        drop(stream);
        let (file, line) = cluster.wait_for_line(peer);
        assert_eq!(file, b"ERROR", "{size} bytes and a reset: {line}");
        assert_eq!(line["reason"], "reset", "{line}");
    }
}

/// If the receiver gives up before the client has ended its upload, the client's connection ends
/// without a confirmation.
pub(super) fn a_receivers_abort_ends_the_clients_connection(balancer: &Balancer) {
    let flags = ["--timeout", "0.4", "--max-size", "100K"];
    let Some(cluster) = Cluster::start(balancer, &flags, |config| config) else { return };
    for size in [0, 1, 1000, 50_000] {
        let mut stream = connect(cluster.front).unwrap();
        let peer = stream.local_addr().unwrap();
        stream.write_all(&payload::bytes(1, size)).unwrap();
        match read(&stream, &mut [0]) {
            Ok(count) => assert_eq!(count, 0, "nothing after the greeting"),
            Err(error) => assert_ne!(error.kind(), io::ErrorKind::WouldBlock, "no end at all"),
        }
        let (file, line) = cluster.wait_for_line(peer);
        assert_eq!((&file[..], &line["reason"]), (&b"ERROR"[..], &"idle".into()));
    }
    // More bytes than all buffers on the way hold.
    let much = vec![7; 64 << 20];
    for _ in 0..5 {
        let mut stream = connect(cluster.front).unwrap();
        let peer = stream.local_addr().unwrap();
        stream.write_all(&much).unwrap_err();
        let (file, line) = cluster.wait_for_line(peer);
        assert_eq!((&file[..], &line["reason"]), (&b"ERROR"[..], &"large".into()));
    }
}
