//! The bytes decide what a client sends inside TLS, how it arrives and how it ends; complete is what
//! ended with close_notify, and nothing else.

use std::io::ErrorKind;

use accio_proto::Socket;

use crate::pair::{End, Secured, network, pair, server, server_config};

/// What the fuzzer makes of its bytes: sizes of the pieces of content; how much a receiving call
/// takes and how much the network hands out at once; how many bytes of the records arrive, if not
/// all; a byte that is changed on the way, and how; whether the client closes, whether it resets,
/// whether content is only counted; and what a peer without a handshake sends.
pub(crate) type Input<'a> =
    (Vec<u16>, [u16; 2], Option<u32>, Option<(u32, u8)>, [bool; 3], &'a [u8]);

pub(crate) fn run(input: Input<'_>) {
    handshake(input.5);
    session(input);
}

/// No bytes make a handshake, and none make the server panic.
fn handshake(garbage: &[u8]) {
    let network = network();
    let mut server = server(&network, &server_config(None));
    network.borrow_mut().to_server.extend(garbage);
    assert!(!matches!(server.handshake(), Ok(true)));
}

fn session((pieces, [buffer, slice], cut, flip, [close, reset, count_only], _): Input<'_>) {
    let (mut server, mut peer, network) = pair();
    network.borrow_mut().slice = usize::from(slice).max(1);
    let (mut content, mut records) = (Vec::new(), Vec::new());
    for (piece, size) in (0..).zip(pieces.iter().take(8)) {
        let piece = vec![piece; usize::from(*size)];
        records.extend(peer.encrypt(&piece));
        content.extend(piece);
    }
    if close {
        records.extend(peer.close_notify());
    }
    let (mut is_whole, mut is_changed) = (close, false);
    if let Some((at, bits)) = flip
        && !records.is_empty()
        && bits != 0
    {
        let at = at as usize % records.len();
        records[at] ^= bits;
        // The version in a record's header is not part of what is protected.
        is_changed = true;
    }
    if let Some(cut) = cut
        && !records.is_empty()
    {
        is_whole = false;
        records.truncate(cut as usize % records.len());
    }
    network.borrow_mut().to_server.extend(&records);
    network.borrow_mut().client_end = Some(if reset { End::Reset } else { End::Fin });
    let (got, count, end) = receive(&mut server, usize::from(buffer).max(1), count_only);
    assert!(content.starts_with(&got) && count <= content.len(), "other content than was sent");
    match end {
        Ok(()) => {
            assert!(is_whole, "complete without close_notify");
            assert_eq!(count, content.len());
        }
        Err(_) if is_changed => {}
        Err(kind) => {
            assert!(!is_whole, "{kind:?}");
            let due = if reset { ErrorKind::ConnectionReset } else { ErrorKind::UnexpectedEof };
            assert_eq!(kind, due);
        }
    }
}

/// Receives to the end: the content, how much of it there was, and how it ended.
fn receive(
    server: &mut Secured,
    size: usize,
    count_only: bool,
) -> (Vec<u8>, usize, Result<(), ErrorKind>) {
    let (mut content, mut count) = (Vec::new(), 0);
    let mut buffer = vec![0; size];
    loop {
        let result = match count_only {
            true => server.discard(&mut buffer),
            false => server.recv(&mut buffer),
        };
        match result {
            Ok(0) => return (content, count, Ok(())),
            Ok(more) => {
                count += more;
                if !count_only {
                    content.extend_from_slice(&buffer[..more]);
                }
            }
            // The network gave the call its share of reads and no content came of them.
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return (content, count, Err(error.kind())),
        }
    }
}
