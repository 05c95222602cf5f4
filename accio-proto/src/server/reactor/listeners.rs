//! The reactor's listening sockets.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;

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
    /// How many connections the next event is expected to announce.
    pub(super) forecast: Forecast,
}

/// Predicts how many connections wait when a socket becomes readable, because an attempt to accept
/// one more costs as much as arming the socket again.
///
/// If clients arrive one at a time, a worker accepts one connection per event, and only sometimes
/// looks for a second one.
#[derive(Debug, Default)]
pub(super) struct Forecast {
    /// Number of events in a row that announced a single connection, as far as known.
    singles: u32,
}

/// Number of events with a single connection after which the next ones are expected to be the same.
const CERTAIN: u32 = 4;

/// Number of events that are then handled by accepting one connection, before a worker looks for a
/// second one.
const RELIED_UPON: u32 = 16;

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
        Ok(Listeners { sockets, first_token, forecast: Forecast::default() })
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
        if self.singles >= CERTAIN { 1 } else { ACCEPT_BATCH }
    }

    /// Records the number of connections that were accepted for an event.
    pub(super) fn record(&mut self, accepted: usize) {
        self.singles = match accepted {
            1 if self.singles == CERTAIN + RELIED_UPON => CERTAIN - 1,
            1 => self.singles + 1,
            _ => 0,
        };
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
        let mut forecast = Forecast::default();
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
