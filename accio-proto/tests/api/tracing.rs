//! Tests of the spans of connections.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use accio_proto::{Client, MemorySink, Server, Threading};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// The values of a span's fields.
type Values = BTreeMap<&'static str, String>;

/// Records the fields of spans, and which of them are closed.
#[derive(Clone, Default)]
struct Spans {
    last: Arc<AtomicU64>,
    open: Arc<Mutex<BTreeMap<u64, (Values, usize)>>>,
    closed: Arc<Mutex<Vec<Values>>>,
}

struct Fields<'a>(&'a mut Values);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name(), format!("{value:?}").trim_matches('"').to_owned());
    }
}

impl Subscriber for Spans {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let id = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        let mut fields = BTreeMap::from([("span", span.metadata().name().to_owned())]);
        span.record(&mut Fields(&mut fields));
        self.open.lock().unwrap().insert(id, (fields, 1));
        Id::from_u64(id)
    }

    fn record(&self, id: &Id, values: &Record<'_>) {
        let mut open = self.open.lock().unwrap();
        values.record(&mut Fields(&mut open.get_mut(&id.into_u64()).unwrap().0));
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, _: &Event<'_>) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}

    fn clone_span(&self, id: &Id) -> Id {
        self.open.lock().unwrap().get_mut(&id.into_u64()).unwrap().1 += 1;
        id.clone()
    }

    fn try_close(&self, id: Id) -> bool {
        let mut open = self.open.lock().unwrap();
        let entry = open.get_mut(&id.into_u64()).unwrap();
        entry.1 -= 1;
        if entry.1 > 0 {
            return false;
        }
        let (fields, _) = open.remove(&id.into_u64()).unwrap();
        self.closed.lock().unwrap().push(fields);
        true
    }
}

#[test]
fn each_connection_has_one_span_until_its_end() {
    let spans = Spans::default();
    tracing::subscriber::set_global_default(spans.clone()).unwrap();
    for threading in [Threading::Reactor, Threading::PerSession] {
        let server = Server::builder(MemorySink::new()).threading(threading).max_size(10);
        let server = server.bind("127.0.0.1:0").unwrap();
        let (port, handle) = (server.local_addr().port(), server.handle());
        let serving = std::thread::spawn(move || server.run());
        let client = Client::builder().build().unwrap();
        assert!(client.send("127.0.0.1", port, &b"content"[..]).unwrap().confirmed);
        client.send("127.0.0.1", port, &b"too much content"[..]).unwrap_err();
        handle.stop();
        serving.join().unwrap().unwrap();
        let end = Instant::now() + Duration::from_secs(20);
        while spans.closed.lock().unwrap().len() < 2 {
            assert!(Instant::now() < end, "{:?}", spans.open.lock().unwrap());
            std::thread::sleep(Duration::from_millis(1));
        }
        let mut closed = std::mem::take(&mut *spans.closed.lock().unwrap());
        closed.sort_by_key(|fields| fields["id"].clone());
        for (fields, (id, bytes, outcome)) in
            closed.iter().zip([("1", "7", "complete"), ("2", "16", "large")])
        {
            assert_eq!((&*fields["span"], &*fields["id"]), ("connection", id));
            assert!(fields["peer"].starts_with("127.0.0.1:"), "{fields:?}");
            assert_eq!(&*fields["dialect"], "accio");
            assert_eq!((&*fields["bytes"], &*fields["outcome"]), (bytes, outcome));
        }
        assert_eq!(closed.len(), 2);
        assert!(spans.open.lock().unwrap().is_empty());
    }
}
