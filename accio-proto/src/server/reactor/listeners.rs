//! The reactor's listening sockets.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::interest::Interest;
use crate::server::listener::{Accepted, accept, prepare};
use crate::sys::event_queue::Poller;
use crate::tuning::server::ACCEPT_BATCH;

/// The sockets a server listens on. The workers watch them: an event is delivered to one worker, and
/// the socket must be armed again afterwards.
#[derive(Debug)]
pub(super) struct Listeners {
    sockets: Vec<Arc<TcpListener>>,
    /// The token of the first socket; the others follow in order.
    first_token: u64,
}

/// Predicts how many connections wait when a socket becomes readable, because an attempt to accept
/// one more costs as much as arming the socket again.
///
/// If clients arrive one at a time, a worker accepts one connection per event, and only sometimes
/// looks for a second one.
#[derive(Debug, Default)]
pub(super) struct Forecast {
    /// Number of events in a row that announced a single connection, as far as known. If several
    /// threads change it at once, some events are not counted, which does not matter.
    singles: AtomicU32,
}

/// Number of events with a single connection after which the next ones are expected to be the same.
const CERTAIN: u32 = 4;

/// Number of events after which a worker looks for a second connection again, 16 of them after it was
/// certain that there is none.
const CERTAIN_UNTIL: u32 = CERTAIN + 16;

impl Listeners {
    /// Takes over listening sockets and adds them to the event queue.
    pub(super) fn new(
        sockets: Vec<TcpListener>,
        first_token: u64,
        poller: &Poller,
    ) -> io::Result<Self> {
        for (token, socket) in (first_token..).zip(&sockets) {
            prepare(socket)?;
            poller.add(socket, token, Interest::Read)?;
        }
        let sockets = sockets.into_iter().map(Arc::new).collect();
        Ok(Listeners { sockets, first_token })
    }

    /// Accepts one connection from the socket with this token.
    pub(super) fn accept(&self, token: u64) -> Accepted {
        self.at(token).map_or(Accepted::Nothing, |socket| accept(socket))
    }

    /// Returns the socket with this token, unless it is closed.
    pub(super) fn socket(&self, token: u64) -> Option<Arc<TcpListener>> {
        self.at(token).cloned()
    }

    /// Arms all sockets.
    pub(super) fn arm_all(&self, poller: &Poller) -> io::Result<()> {
        self.tokens().zip(&self.sockets).try_for_each(|(token, socket)| arm(socket, poller, token))
    }

    /// Returns the tokens of all sockets.
    pub(super) fn tokens(&self) -> impl Iterator<Item = u64> + use<> {
        self.first_token..self.first_token + self.sockets.len() as u64
    }

    /// Closes the sockets. A socket continues to listen if another process has a descriptor of it.
    pub(super) fn close(&mut self, poller: &Poller) {
        self.sockets.drain(..).for_each(|socket| poller.remove(&socket));
    }

    fn at(&self, token: u64) -> Option<&Arc<TcpListener>> {
        self.sockets.get((token - self.first_token) as usize)
    }
}

impl Forecast {
    /// Returns how many connections to accept for an event.
    pub(super) fn batch(&self) -> usize {
        if self.singles.load(Ordering::Relaxed) >= CERTAIN { 1 } else { ACCEPT_BATCH }
    }

    /// Records the number of connections that were accepted for an event.
    pub(super) fn record(&self, accepted: usize) {
        let singles = match (accepted, self.singles.load(Ordering::Relaxed)) {
            (1, CERTAIN_UNTIL) => CERTAIN - 1,
            (1, singles) => singles + 1,
            _ => 0,
        };
        self.singles.store(singles, Ordering::Relaxed);
    }
}

/// Arms a socket again.
pub(super) fn arm(socket: &TcpListener, poller: &Poller, token: u64) -> io::Result<()> {
    poller.arm(socket, token, Interest::Read)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expects_one_connection_only_while_clients_arrive_one_at_a_time() {
        let forecast = Forecast::default();
        let mut looked = Vec::new();
        for event in 0..100 {
            if forecast.batch() > 1 {
                looked.push(event);
            }
            forecast.record(1);
        }
        assert_eq!(looked[..5], [0, 1, 2, 3, 21], "it looks for a second one now and then");
        assert!(looked.len() < 10, "{looked:?}");
        while forecast.batch() == 1 {
            forecast.record(1);
        }
        forecast.record(5);
        assert_eq!(forecast.batch(), ACCEPT_BATCH);
    }
}
