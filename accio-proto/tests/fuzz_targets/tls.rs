//! The input decides what a client sends over TLS, how it arrives and how it ends. A file is
//! complete exactly if it ended with close_notify.

use std::io::ErrorKind;

use accio_proto::Socket;

use crate::pair::{End, Secured, network, pair, server, server_config};

/// The interpretation of the fuzzer's bytes: the sizes of the pieces of content; the size of a
/// receive call and of the network's chunks; the number of bytes of the records that arrive, if not
/// all; a byte that is changed, and how; whether the client closes, whether it resets, and whether
/// content is only counted; and the bytes of a peer that sends no handshake.
pub(crate) type Input<'a> =
    (Vec<u16>, [u16; 2], Option<u32>, Option<(u32, u8)>, [bool; 3], &'a [u8]);

pub(crate) fn run(input: Input<'_>) {
    handshake(input.5);
    session(input);
}

/// Arbitrary bytes never complete a handshake and never make the server panic.
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
        // The version in a record's header is not authenticated.
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

/// Receives to the end; returns the content, its length and the result.
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
            // The call used up its share of reads without finding content.
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return (content, count, Err(error.kind())),
        }
    }
}
