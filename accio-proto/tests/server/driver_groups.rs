//! Tests of groups that a driver finishes, as a runtime does.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use accio_proto::driver::{Accept, Driver, Ending, Step};
use accio_proto::{MemorySink, Server, Stored, Threading};

use crate::any_sink::AnySink;

const PATIENCE: Duration = Duration::from_secs(20);

/// Calls `step` until it returns a value.
fn until<T>(mut step: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = step() {
            return value;
        }
        assert!(Instant::now() < end, "no value in time");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Uploads a file to the point where it is complete; returns the client's socket, too.
fn upload(driver: &Driver<AnySink>, listener: &TcpListener) -> (TcpStream, Ending<AnySink>) {
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let accepted = until(|| match driver.accept(listener) {
        Accept::Connection(Step::Waiting(live)) => Some(live),
        _ => None,
    });
    let Step::Waiting(live) = driver.greet(accepted) else { panic!("not greeted") };
    client.read_exact(&mut [0; 7]).unwrap();
    client.write_all(b"content").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let (mut waiting, mut copier) = (Some(live), driver.copier());
    let ending = until(|| {
        let live = waiting.take_if(|live| live.is_ready())?;
        match driver.take_turn(live, &mut copier) {
            Step::Ended(ending) => Some(ending),
            Step::Waiting(live) => {
                waiting = Some(live);
                None
            }
            Step::Refused(_) => panic!("refused"),
        }
    });
    (client, ending)
}

#[test]
fn a_panic_in_the_end_of_a_connection_fails_no_other_of_its_group() {
    let (memory, outcomes) = (MemorySink::new(), Arc::new(Mutex::new(Vec::new())));
    let reported = Arc::clone(&outcomes);
    let server = Server::builder(AnySink::new(memory.clone()))
        .threading(Threading::Runtime)
        .on_outcome(move |outcome| reported.lock().unwrap().push(outcome.connection.id))
        .bind("127.0.0.1:0")
        .unwrap();
    let (driver, listeners) = server.into_driver().unwrap();
    let (mut clients, group): (Vec<_>, Vec<_>) =
        (0..3).map(|_| upload(&driver, &listeners[0])).unzip();
    let finished = group.into_iter().enumerate().map(|(index, ending)| {
        let released = move || assert_ne!(index, 0, "the runtime panics");
        (ending, released)
    });
    assert!(driver.finish_all(finished.collect()).is_empty());
    for (index, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.read(&mut [0]).is_ok(), index > 0, "client {index}");
    }
    assert_eq!(*outcomes.lock().unwrap(), [1, 2, 3], "one report each");
    assert!(memory.all().values().all(|stored| *stored == Stored::Complete(b"content".to_vec())));
    assert_eq!(driver.handle().connections().count(), 0);
}
