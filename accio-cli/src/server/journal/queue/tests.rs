use super::*;

fn written(bytes: usize, result: Result<(), io::ErrorKind>) -> Written {
    Written { bytes, is_synced: true, result: result.map_err(io::Error::from) }
}

struct Journal {
    queue: Queue<u32>,
    start: Instant,
}

impl Journal {
    fn new() -> Self {
        Journal { queue: Queue::new(), start: Instant::now() }
    }

    fn at(&self, millis: u64) -> Instant {
        self.start + Duration::from_millis(millis)
    }

    fn push(&mut self, millis: u64, client: u32) -> Option<u32> {
        let now = self.at(millis);
        self.queue.push(format!("{client}\n").into_bytes(), client, true, now)
    }

    /// Writes all waiting lines; returns the text, the released clients and the change of
    /// state.
    fn write(&mut self, millis: u64) -> (String, Vec<u32>, Option<Change>) {
        let text = self.queue.take(4096, |lost| format!("lost {lost}\n").into_bytes());
        let (clients, change) = self.queue.wrote(&written(text.len(), Ok(())), self.at(millis));
        (String::from_utf8(text).unwrap(), clients, change)
    }

    fn refuse(&mut self, millis: u64) {
        self.queue.take(4096, |_| Vec::new());
        let refused =
            self.queue.wrote(&written(0, Err(io::ErrorKind::WouldBlock)), self.at(millis));
        assert_eq!(refused, (vec![], None));
    }
}

#[test]
fn releases_a_client_when_its_line_is_written() {
    let mut journal = Journal::new();
    assert_eq!((journal.push(0, 1), journal.push(0, 2)), (None, None));
    assert_eq!(journal.write(1), ("1\n2\n".into(), vec![1, 2], None));
    assert!(journal.queue.is_empty());
}

#[test]
fn does_not_write_a_complete_line_twice_after_a_partial_write() {
    let mut journal = Journal::new();
    for client in 1..=3 {
        journal.push(0, client);
    }
    let text = journal.queue.take(4096, |_| Vec::new());
    assert_eq!(text, b"1\n2\n3\n");
    // The second line was written in part, so it is written again as a whole.
    let released = journal.queue.wrote(&written(3, Err(io::ErrorKind::StorageFull)), journal.at(1));
    assert_eq!(released, (vec![1], None));
    assert_eq!(journal.write(2), ("2\n3\n".into(), vec![2, 3], None));
}

#[test]
fn fails_after_a_second_of_refusals_and_recovers_after_a_second_of_success() {
    let mut journal = Journal::new();
    journal.push(0, 1);
    journal.refuse(10);
    journal.push(500, 2);
    assert!(journal.queue.expire(journal.at(999)).is_empty());
    assert_eq!(journal.queue.expire(journal.at(1000)), [1, 2]);
    // From here on no client waits, although the journal accepts a line now and then.
    for second in 1..20 {
        assert_eq!(journal.push(1000 * second + 1, 3), Some(3));
        journal.refuse(1000 * second + 10);
        assert!(journal.write(1000 * second + 20).1.is_empty());
        assert_eq!(journal.queue.recover(journal.at(1000 * second + 999)), None);
        journal.push(1000 * second + 999, 4);
        journal.refuse(1000 * second + 999);
        assert!(journal.queue.expire(journal.at(1000 * second + 999)).is_empty());
    }
    journal.write(20_000);
    assert_eq!(journal.queue.recovers_at(), Some(journal.at(21_000)));
    let change = journal.queue.recover(journal.at(21_000));
    assert_eq!(change, Some(Change::Works { missing: 0 }));
    assert_eq!(journal.push(21_000, 5), None);
}

#[test]
fn reports_the_number_of_lost_lines_where_they_are_missing() {
    let mut journal = Journal::new();
    journal.push(0, 0);
    journal.queue.expire(journal.at(1000));
    let line = [&[b'x'; 1023][..], b"\n"].concat();
    let mut kept = 1;
    for _ in 0..CAPACITY / line.len() + 4 {
        let before = journal.queue.lost();
        assert!(journal.queue.push(line.clone(), 1, true, journal.at(1000)).is_some());
        kept += u64::from(journal.queue.lost() == before);
    }
    let lost = journal.queue.lost();
    assert!(lost == 5 && kept == 1024, "{kept} {lost}");
    let mut text = String::new();
    let mut at = 1001;
    while journal.queue.has_work() {
        text += &journal.write(at).0;
        at += 1;
    }
    journal.push(at, 7);
    text += &journal.write(at).0;
    assert_eq!(text.lines().count() as u64, kept + 2);
    assert!(text.ends_with("\nlost 5\n7\n"), "{}", &text[text.len() - 20..]);
    let change = journal.queue.recover(journal.at(2001));
    assert_eq!(change, Some(Change::Works { missing: 5 }));
}

#[test]
fn lines_that_are_not_required_are_limited_even_if_the_journal_works() {
    let mut journal = Journal::new();
    let line = [&[b'x'; 1023][..], b"\n"].concat();
    for _ in 0..CAPACITY / line.len() + 5 {
        let now = journal.at(0);
        let _ = journal.queue.push(line.clone(), 1, false, now);
    }
    assert_eq!(journal.queue.lost(), 5);
    assert_eq!(journal.push(1, 7), None, "the line of a client that waits is not lost");
    let mut text = String::new();
    while journal.queue.has_work() {
        text += &journal.write(2).0;
    }
    assert!(text.ends_with("x\n7\nlost 5\n"), "{}", &text[text.len() - 20..]);
}

#[test]
fn releases_clients_of_a_hanging_write_without_losing_its_lines() {
    let mut journal = Journal::new();
    journal.push(0, 1);
    let text = journal.queue.take(4096, |_| Vec::new());
    assert_eq!(journal.queue.expire(journal.at(1000)), [1]);
    assert_eq!(journal.queue.wrote(&written(text.len(), Ok(())), journal.at(5000)), (vec![], None));
    assert_eq!((journal.queue.lost(), journal.queue.is_empty()), (0, true));
}

#[test]
fn counts_as_failed_at_once_when_a_sync_fails() {
    // The whole text was written, or only its first line.
    for bytes in [4, 3] {
        let mut journal = Journal::new();
        journal.push(0, 1);
        journal.push(0, 2);
        journal.queue.take(4096, |_| Vec::new());
        let failed = Written { is_synced: false, ..written(bytes, Err(io::ErrorKind::Other)) };
        let result = journal.queue.wrote(&failed, journal.at(1));
        assert_eq!(result, (vec![1, 2], Some(Change::Failed)));
    }
}

#[test]
fn counts_abandoned_lines_as_lost() {
    let mut journal = Journal::new();
    journal.push(0, 1);
    journal.push(0, 2);
    assert_eq!(journal.queue.abandon(), [1, 2]);
    assert_eq!(journal.queue.lost(), 2);
}
