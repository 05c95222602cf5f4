//! Tests of the directory sink with each way to make and name a file.

use std::fs;

use super::directory::Exclusive;
use super::*;
use crate::fast_path::FastPaths;
use crate::sink::{ERROR_MARKER, SinkFile};

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Runs a test with each way of creating and naming files.
fn each_way(test: impl Fn(&Path, DirSink)) {
    for without in [&[][..], &[FastPath::EmptyPath], &[FastPath::Tmpfile], &[FastPath::Preallocate]]
    {
        let paths = FastPaths::without(without.iter().copied());
        for durable in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let options = DirSink::options().fast_paths(paths.clone()).durable(durable);
            test(dir.path(), options.create(dir.path()).unwrap());
        }
    }
}

#[test]
fn a_file_becomes_visible_only_when_committed() {
    each_way(|dir, sink| {
        let mut file = sink.open(&Connection::new(7)).unwrap();
        file.write(b"some ").unwrap();
        file.write(b"content").unwrap();
        assert!(names(dir).iter().all(|name| name.starts_with(".7.file.")));
        file.commit().unwrap();
        assert_eq!(names(dir), ["7.file"]);
        assert_eq!(fs::read(dir.join("7.file")).unwrap(), b"some content");
    });
}

#[test]
fn an_abort_leaves_only_the_marker() {
    each_way(|dir, sink| {
        let mut file = sink.open(&Connection::new(1)).unwrap();
        file.write(&vec![b'x'; 3 << 20]).unwrap();
        file.abort().unwrap();
        sink.open(&Connection::new(2)).unwrap().abort().unwrap();
        assert_eq!(names(dir), ["1.file", "2.file"]);
        for name in names(dir) {
            assert_eq!(fs::read(dir.join(name)).unwrap(), ERROR_MARKER);
        }
    });
}

#[test]
fn replaces_an_existing_file_and_follows_no_link() {
    each_way(|dir, sink| {
        let outside = tempfile::NamedTempFile::new().unwrap();
        fs::write(dir.join("1.file"), "old").unwrap();
        std::os::unix::fs::symlink(outside.path(), dir.join("2.file")).unwrap();
        for id in [1, 2] {
            let mut file = sink.open(&Connection::new(id)).unwrap();
            file.write(b"new").unwrap();
            file.commit().unwrap();
        }
        assert_eq!(names(dir), ["1.file", "2.file"]);
        assert_eq!(fs::read(dir.join("1.file")).unwrap(), b"new");
        assert!(fs::symlink_metadata(dir.join("2.file")).unwrap().is_file());
        assert_eq!(fs::read(outside.path()).unwrap(), b"");
    });
}

#[test]
fn keeps_an_existing_file_on_request() {
    let tmpfile = &[FastPath::Tmpfile][..];
    for (without, exclusive) in [
        (&[][..], Exclusive::Rename),
        (&[FastPath::EmptyPath], Exclusive::Rename),
        (tmpfile, Exclusive::Rename),
        (tmpfile, Exclusive::Claim),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let options = DirSink::options()
            .existing(Existing::Keep)
            .fast_paths(FastPaths::without(without.iter().copied()));
        let sink = options.create_by(dir.path(), &[exclusive]).unwrap();
        assert!(names(dir.path()).is_empty(), "the rehearsal leaves nothing");
        fs::write(dir.path().join("1.file"), "old").unwrap();
        let mut file = sink.open(&Connection::new(1)).unwrap();
        file.write(b"new").unwrap();
        assert_eq!(file.commit().unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        let mut file = sink.open(&Connection::new(1)).unwrap();
        assert_eq!(file.abort().unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        let mut file = sink.open(&Connection::new(2)).unwrap();
        file.write(b"new").unwrap();
        file.commit().unwrap();
        assert_eq!(names(dir.path()), ["1.file", "2.file"]);
        assert_eq!(fs::read(dir.path().join("1.file")).unwrap(), b"old");
        assert_eq!(fs::read(dir.path().join("2.file")).unwrap(), b"new");
    }
}

#[test]
fn a_directory_is_shared_only_by_servers_that_keep_existing_files() {
    let dir = tempfile::tempdir().unwrap();
    let create = |existing| DirSink::options().existing(existing).create(dir.path());
    for (first, second, is_shared) in [
        (Existing::Replace, Existing::Replace, false),
        (Existing::Replace, Existing::Keep, false),
        (Existing::Keep, Existing::Replace, false),
        (Existing::Keep, Existing::Keep, true),
    ] {
        let sink = create(first).unwrap();
        let clone = sink.clone();
        drop(sink);
        match create(second) {
            Ok(_) => assert!(is_shared, "{first:?} {second:?}"),
            Err(error) => {
                assert!(!is_shared, "{first:?} {second:?}: {error}");
                assert_eq!(error.kind(), DirErrorKind::InUse);
            }
        }
        drop(clone);
        assert!(names(dir.path()).is_empty(), "a lock needs no file");
    }
    create(Existing::Replace).unwrap();
}

#[test]
fn planted_names_do_not_make_an_upload_fail() {
    each_way(|dir, sink| {
        for count in 0..100 {
            let planted = format!(".1.file.{}-{count}", std::process::id());
            std::os::unix::fs::symlink("/nowhere", dir.join(planted)).unwrap();
        }
        fs::write(dir.join("1.file"), "old").unwrap();
        let mut file = sink.open(&Connection::new(1)).unwrap();
        file.write(b"new").unwrap();
        file.commit().unwrap();
        assert_eq!(fs::read(dir.join("1.file")).unwrap(), b"new");
    });
}

#[test]
fn a_file_never_has_more_permissions_than_it_ends_with() {
    for without in [&[][..], &[FastPath::Tmpfile]] {
        let dir = tempfile::tempdir().unwrap();
        let paths = FastPaths::without(without.iter().copied());
        let sink = DirSink::options().mode(0o600).fast_paths(paths).create(dir.path()).unwrap();
        // No permissions have been set yet.
        let (file, hidden) = sink.dir.open(1).unwrap();
        assert_eq!(calls::fstat(&file).unwrap().mode & !0o600, 0);
        if let Some(hidden) = hidden {
            sink.dir.remove(&hidden);
        }
    }
}

#[test]
fn a_file_whose_name_cannot_be_synced_loses_it() {
    let dir = tempfile::tempdir().unwrap();
    let sink = DirSink::create(dir.path()).unwrap();
    sink.open(&Connection::new(1)).unwrap().commit().unwrap();
    sink.dir.take_back(1, "1.file");
    assert!(names(dir.path()).is_empty());
    // A name that cannot be removed is only logged; the commit fails all the same.
    fs::create_dir(dir.path().join("2.file")).unwrap();
    sink.dir.take_back(2, "2.file");
}

#[test]
fn reports_a_removed_directory_as_the_cause() {
    each_way(|dir, sink| {
        sink.check_ready().unwrap();
        let mut early = sink.open(&Connection::new(1)).unwrap();
        early.write(b"content").unwrap();
        for name in names(dir) {
            // The hidden name of the upload.
            fs::remove_file(dir.join(name)).unwrap();
        }
        fs::remove_dir(dir).unwrap();
        fs::create_dir(dir).unwrap();
        assert_eq!(early.commit().unwrap_err().to_string(), REMOVED);
        assert_eq!(sink.open(&Connection::new(2)).unwrap_err().to_string(), REMOVED);
        let error = sink.check_ready().unwrap_err();
        assert_eq!(error.kind(), DirErrorKind::Gone);
        assert!(error.to_string().ends_with(REMOVED), "{error}");
    });
}

#[test]
fn counts_files_that_a_run_would_replace() {
    let dir = tempfile::tempdir().unwrap();
    let sink = DirSink::create(dir.path()).unwrap();
    assert_eq!(sink.count_from(1).unwrap(), 0);
    for name in ["1.file", "5.file", "6.file", "07.file", "x"] {
        fs::write(dir.path().join(name), "").unwrap();
    }
    assert_eq!([1, 5, 7].map(|first| sink.count_from(first).unwrap()), [3, 2, 0]);
}

#[test]
fn sets_the_exact_mode() {
    use std::os::unix::fs::PermissionsExt;
    // 0o666 is more than usual umasks allow; 0o400 is not writable.
    for mode in [0o666, 0o640, 0o400, 0] {
        for without in [&[][..], &[FastPath::Tmpfile]] {
            let dir = tempfile::tempdir().unwrap();
            let options = DirSink::options()
                .mode(mode)
                .fast_paths(FastPaths::without(without.iter().copied()));
            let sink = options.create(dir.path()).unwrap();
            sink.open(&Connection::new(1)).unwrap().commit().unwrap();
            sink.open(&Connection::new(2)).unwrap().abort().unwrap();
            for name in ["1.file", "2.file"] {
                let metadata = fs::metadata(dir.path().join(name)).unwrap();
                assert_eq!(metadata.permissions().mode() & 0o7777, mode, "{name}");
            }
        }
    }
}

#[test]
fn highest_considers_only_names_that_a_server_writes() {
    let dir = tempfile::tempdir().unwrap();
    let sink = DirSink::create(dir.path()).unwrap();
    assert_eq!(sink.highest().unwrap(), None);
    for name in ["007.file", "+9.file", "8.files", ".9.file.1-1", "99999999999999999999.file"] {
        fs::write(dir.path().join(name), "").unwrap();
    }
    assert_eq!(sink.highest().unwrap(), None);
    for name in ["9.file", "10.file"] {
        fs::write(dir.path().join(name), "").unwrap();
    }
    assert_eq!(sink.highest().unwrap(), Some(10));
}

#[test]
#[cfg_attr(not(linux_sys), ignore = "only Linux has nameless files")]
fn connections_share_a_marker_if_no_file_can_be_created() {
    for durable in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("3.file"), "old").unwrap();
        let sink = DirSink::options().durable(durable).create(dir.path()).unwrap();
        for id in 1..=3 {
            assert!(sink.dir.mark_by_spare(&format!("{id}.file")).unwrap());
        }
        assert_eq!(names(dir.path()), ["1.file", "2.file", "3.file"]);
        for name in names(dir.path()) {
            assert_eq!(fs::read(dir.path().join(name)).unwrap(), ERROR_MARKER);
        }
        if durable {
            continue;
        }
        // The next marker that can be created is a separate file.
        sink.mark(&Connection::new(4)).unwrap();
        fs::write(dir.path().join("4.file"), "changed").unwrap();
        assert_eq!(fs::read(dir.path().join("1.file")).unwrap(), ERROR_MARKER);
    }
}

#[test]
fn a_dropped_file_leaves_nothing() {
    each_way(|dir, sink| {
        let mut file = sink.open(&Connection::new(1)).unwrap();
        file.write(b"partial").unwrap();
        drop(file);
        assert!(names(dir).is_empty());
    });
}

#[test]
fn a_directory_with_the_files_name_fails_the_commit() {
    each_way(|dir, sink| {
        fs::create_dir(dir.join("1.file")).unwrap();
        let mut file = sink.open(&Connection::new(1)).unwrap();
        file.write(b"content").unwrap();
        file.commit().unwrap_err();
        assert_eq!(names(dir), ["1.file"]);
        assert!(dir.join("1.file").is_dir());
    });
}

#[test]
fn rejects_a_path_that_is_not_a_directory() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let error = DirSink::create(file.path()).unwrap_err().to_string();
    assert!(error.contains(file.path().to_str().unwrap()), "{error}");
    assert!(error.ends_with("not a directory"), "{error}");
    DirSink::create(file.path().join("below")).unwrap_err();
    DirSink::create("").unwrap_err();
}

#[test]
fn creates_missing_parents() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a/b");
    DirSink::create(&path).unwrap().open(&Connection::new(1)).unwrap().commit().unwrap();
    assert_eq!(names(&path), ["1.file"]);
}

#[test]
fn removes_only_hidden_files_of_killed_processes() {
    let dir = tempfile::tempdir().unwrap();
    let kept = [".7.file", ".7.file.x-1", ".file.1-1", "7.file", ".x.file.1-1", ".7.file.1-"];
    for name in kept.iter().chain(&[".7.file.4242-0", ".1.file.1-17", ".1.file.0123456789abcdef"]) {
        fs::write(dir.path().join(name), "left").unwrap();
    }
    let keep = || DirSink::options().existing(Existing::Keep).create(dir.path());
    let other = keep().unwrap();
    let mut kept: Vec<_> = kept.iter().map(|name| name.to_string()).collect();
    kept.sort();
    assert_eq!(names(dir.path()), kept);

    // Another server is running: an apparent orphan may be its upload.
    fs::write(dir.path().join(".8.file.4242-0"), "uploading").unwrap();
    let sink = keep().unwrap();
    assert!(dir.path().join(".8.file.4242-0").exists());
    drop((other, sink));
    DirSink::create(dir.path()).unwrap();
    assert!(!dir.path().join(".8.file.4242-0").exists());
}

#[test]
fn reports_too_little_free_space() {
    let dir = tempfile::tempdir().unwrap();
    let sink = |min_free| DirSink::options().min_free(min_free).create(dir.path()).unwrap();
    assert!(sink(0).has_room() && sink(1).has_room());
    assert!(!sink(u64::MAX).has_room());
}

/// The marker has the chosen name, too, even if the sink never opened the file.
#[test]
fn the_program_chooses_names() {
    for without in [&[][..], &[FastPath::Tmpfile]] {
        let dir = tempfile::tempdir().unwrap();
        let options = DirSink::options().fast_paths(FastPaths::without(without.iter().copied()));
        let options = options.names(|connection| match connection.peer {
            Some(peer) => format!("{}-{}", peer.ip(), connection.id),
            None => "../escaped".to_owned(),
        });
        let sink = options.create(dir.path()).unwrap();
        let from = |id| Connection {
            peer: Some(([192, 0, 2, id as u8], 1).into()),
            ..Connection::new(id)
        };
        let mut file = sink.open(&from(1)).unwrap();
        file.write(b"content").unwrap();
        file.commit().unwrap();
        sink.open(&from(2)).unwrap().abort().unwrap();
        sink.mark(&from(3)).unwrap();
        let unknown = Connection::new(4);
        let error = sink.open(&unknown).unwrap_err();
        assert_eq!(error.to_string(), "\"../escaped\" is not the name of a file in the directory");
        sink.mark(&unknown).unwrap_err();
        assert_eq!(names(dir.path()), ["192.0.2.1-1", "192.0.2.2-2", "192.0.2.3-3"]);
        assert_eq!(fs::read(dir.path().join("192.0.2.1-1")).unwrap(), b"content");
        assert_eq!(fs::read(dir.path().join("192.0.2.3-3")).unwrap(), ERROR_MARKER);
    }
}

#[test]
#[cfg_attr(not(linux_sys), ignore = "only Linux opens a file by its descriptor")]
fn a_file_without_a_name_can_be_read_back() {
    for durable in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let sink = DirSink::options().durable(durable).create(dir.path()).unwrap();
        let mut file = sink.open(&Connection::new(1)).unwrap();
        file.write(b"first").unwrap();
        let again = file.reopen().unwrap();
        file.write(b" and second").unwrap();
        let mut content = [0; 20];
        assert_eq!(calls::read_at(&again, &mut content, 0).unwrap(), 16);
        assert_eq!(&content[..16], b"first and second");
        calls::write_all(&again, b"x").unwrap_err();
        file.commit().unwrap();
        assert_eq!(fs::read(dir.path().join("1.file")).unwrap(), b"first and second");
    }
}

#[test]
fn a_file_with_a_hidden_name_is_not_read_back() {
    for without in [FastPath::Tmpfile, FastPath::ReadBack] {
        let dir = tempfile::tempdir().unwrap();
        let paths = FastPaths::without([without]);
        let options = DirSink::options().fast_paths(paths).reopen(|_| panic!("asked"));
        let sink = options.create(dir.path()).unwrap();
        assert!(sink.open(&Connection::new(1)).unwrap().reopen().is_none(), "{without:?}");
    }
}

#[test]
#[cfg_attr(not(linux_sys), ignore = "only Linux opens a file by its descriptor")]
fn the_program_opens_files_until_that_fails() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    // Whether the program opens the right file, its error, and whether it is asked again.
    for (right, code, again) in
        [(true, None, true), (false, None, false), (true, Some(13), false), (true, Some(24), true)]
    {
        let dir = tempfile::tempdir().unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let open = move |file: BorrowedFd<'_>| {
            count.fetch_add(1, Ordering::Relaxed);
            match (code, right) {
                (Some(code), _) => Err(io::Error::from_raw_os_error(code)),
                (None, true) => calls::reopen(file),
                (None, false) => Ok(tempfile::tempfile().unwrap().into()),
            }
        };
        let sink = DirSink::options().reopen(open).create(dir.path()).unwrap();
        let file = sink.open(&Connection::new(1)).unwrap();
        assert_eq!(asked.load(Ordering::Relaxed), 0, "only when it is needed");
        for attempt in 1..=2 {
            assert_eq!(file.reopen().is_some(), right && code.is_none());
            assert_eq!(asked.load(Ordering::Relaxed), if again { attempt } else { 1 });
        }
        assert_eq!(sink.dir.paths.has(FastPath::ReadBack), again);
    }
}
