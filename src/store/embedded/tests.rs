use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;

use tempfile::TempDir;

use super::*;
use crate::store::conformance::{self, Adapter, Damage, event};

mod damage;
mod opening;

/// How long a test waits for what must come: a test that fails must end.
const WAIT_MAX: std::time::Duration = std::time::Duration::from_secs(20);

/// Stores in directories of their own, remembered so that they can be opened again.
struct Embedded {
    root: TempDir,
    count: Mutex<usize>,
}

impl Embedded {
    fn new() -> Self {
        Self { root: directory(), count: Mutex::default() }
    }

    fn options(&self) -> Options {
        options(self.root.path().join(self.count.lock().unwrap().to_string()))
    }
}

impl Adapter for Embedded {
    type Store = EmbeddedStore;

    async fn fresh(&self) -> EmbeddedStore {
        *self.count.lock().unwrap() += 1;
        EmbeddedStore::open(&self.options()).unwrap()
    }

    async fn reopen(&self, store: EmbeddedStore) -> Option<EmbeddedStore> {
        store.close().await;
        Some(EmbeddedStore::open(&self.options()).unwrap())
    }

    fn set_full(&self, store: &EmbeddedStore, full: bool) -> bool {
        store.space.pretend_full.store(full, Ordering::SeqCst);
        true
    }

    async fn damage(
        &self,
        store: EmbeddedStore,
        damage: Damage,
        stream: &StreamName,
        revision: Revision,
    ) -> Option<EmbeddedStore> {
        store.close().await;
        let edit = match damage {
            Damage::Stored => "UPDATE events SET stored = CAST(stored || ' ' AS BLOB)",
            Damage::LeafHash => "UPDATE events SET leaf_hash = zeroblob(32)",
            Damage::Missing => "DELETE FROM events",
        };
        let row = format!(
            "revision = {revision} AND stream = (SELECT stream FROM streams WHERE name = '{stream}')"
        );
        edit_behind(&self.options(), &format!("{edit} WHERE {row}"));
        Some(EmbeddedStore::open(&self.options()).unwrap())
    }
}

/// A directory on the disk the sources are on: the system's own may be in memory.
fn directory() -> TempDir {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("target");
    // Whoever builds elsewhere has none.
    std::fs::create_dir_all(&target).unwrap();
    tempfile::tempdir_in(target).unwrap()
}

/// As usual, with a short log and a small reserve: a test writes little.
fn options(directory: impl Into<PathBuf>) -> Options {
    Options { log_bytes_reserved: 1 << 20, reserve_bytes: 2 << 20, ..Options::new(directory) }
}

fn stream(name: &str) -> StreamName {
    StreamName::from_store(&format!("org-{name}"))
}

/// A connection that knows nothing of keyledger.
fn foreign(options: &Options) -> Connection {
    Connection::open(options.directory.join("ledger.db")).unwrap()
}

/// Edits the database with its triggers away.
fn edit_behind(options: &Options, edit: &str) {
    let connection = foreign(options);
    let drop: String = connection
        .query_row(
            "SELECT group_concat('DROP TRIGGER ' || name || ';', '') FROM sqlite_schema
             WHERE type = 'trigger'",
            [],
            |row| row.get(0),
        )
        .unwrap();
    connection.execute_batch(&drop).unwrap();
    connection.execute_batch(edit).unwrap();
    connection.execute_batch(schema::TRIGGERS).unwrap();
}

fn rows(options: &Options) -> i64 {
    foreign(options).query_row("SELECT count(*) FROM events", [], |row| row.get(0)).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_keeps_the_contract() {
    assert_eq!(conformance::run(&Embedded::new()).await, []);
}

#[tokio::test]
async fn nobody_is_answered_before_the_commit() {
    let root = directory();
    let options = options(root.path().join("data"));
    let store = EmbeddedStore::open(&options).unwrap();
    let (reached, at_commit) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    store.commit_fault.arrange(move || {
        reached.send(()).unwrap();
        released.recv().map_err(io::Error::other)
    });
    let mut subscription = store.subscribe_all(None);
    let mut append = store.append(&stream("a"), None, vec![event(0, 100)], Urgency::Normal);
    at_commit.recv_timeout(WAIT_MAX).unwrap();
    let polled = std::future::poll_fn(|cx| std::task::Poll::Ready(append.as_mut().poll(cx))).await;
    assert!(polled.is_pending(), "answered before the commit");
    assert_eq!(store.read_all(None, 10).await, Ok(Vec::new()), "read before the commit");
    assert_eq!(rows(&options), 0);
    release.send(()).unwrap();
    assert_eq!(append.await, Ok(Revision(0)));
    assert_eq!(rows(&options), 1);
    assert!(subscription.next().await.unwrap().is_ok());
}

#[tokio::test]
async fn what_waits_is_committed_together_across_streams() {
    let root = directory();
    let store = EmbeddedStore::open(&options(root.path().join("data"))).unwrap();
    let (reached, commits) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    store.commit_fault.arrange(move || {
        reached.send(()).unwrap();
        // An error means that the test holds nothing any more.
        let _ = released.recv();
        Ok(())
    });
    let first = store.append(&stream("first"), None, vec![event(0, 100)], Urgency::Normal);
    commits.recv_timeout(WAIT_MAX).unwrap();
    let waiting: Vec<_> = (0..50)
        .map(|number| {
            store.append(
                &stream(&number.to_string()),
                None,
                vec![event(number, 100)],
                Urgency::Normal,
            )
        })
        .collect();
    drop(release);
    first.await.unwrap();
    for append in waiting {
        append.await.unwrap();
    }
    assert_eq!(commits.try_iter().count(), 1, "fifty appends, one commit");
}

#[tokio::test]
async fn an_io_error_fences_until_the_store_is_opened_again() {
    let root = directory();
    let options = options(root.path().join("data"));
    let store = EmbeddedStore::open(&options).unwrap();
    store.append(&stream("a"), None, vec![event(0, 100)], Urgency::Normal).await.unwrap();
    let broken = Arc::new(AtomicBool::new(true));
    let breaks = Arc::clone(&broken);
    store.commit_fault.arrange(move || match breaks.load(Ordering::SeqCst) {
        true => Err(io::Error::other("the disk is gone")),
        false => Ok(()),
    });
    let fenced =
        store.append(&stream("a"), Some(Revision(0)), vec![event(1, 100)], Urgency::Normal).await;
    assert_eq!(fenced, Err(AppendError::Fenced("the disk is gone".to_owned())));
    broken.store(false, Ordering::SeqCst);
    let fenced = store.append(&stream("b"), None, vec![event(1, 100)], Urgency::Normal).await;
    assert!(matches!(fenced, Err(AppendError::Fenced(_))), "{fenced:?}");
    assert_eq!(store.read_stream(&stream("a"), Revision::FIRST, 10).await.unwrap().len(), 1);
    drop(store);
    let store = EmbeddedStore::open(&options).unwrap();
    let next =
        store.append(&stream("a"), Some(Revision(0)), vec![event(1, 100)], Urgency::Normal).await;
    assert_eq!(next, Ok(Revision(1)));
}

#[tokio::test]
async fn a_full_disk_refuses_and_does_not_fence() {
    let root = directory();
    let mut options = options(root.path().join("data"));
    options.pages_max = Some(64);
    let store = EmbeddedStore::open(&options).unwrap();
    let mut count = 0;
    let refusal = loop {
        let expected = Revision(count).0.checked_sub(1).map(Revision);
        match store
            .append(&stream("a"), expected, vec![event(count, 20_000)], Urgency::Normal)
            .await
        {
            Ok(_) => count += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(refusal, AppendError::Full);
    while store.is_full(Urgency::Normal) {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    // One that fits is taken, though it came in one commit with one that does not.
    let (reached, commits) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    store.commit_fault.arrange(move || {
        let _ = reached.send(());
        let _ = released.recv();
        Ok(())
    });
    let last = Revision(count - 1);
    let first = store.append(&stream("a"), Some(last), vec![event(900, 100)], Urgency::Normal);
    commits.recv_timeout(WAIT_MAX).unwrap();
    let small =
        store.append(&stream("a"), Some(last.next()), vec![event(901, 100)], Urgency::Normal);
    let big = store.append(
        &stream("b"),
        None,
        vec![event(902, 60_000), event(903, 60_000)],
        Urgency::Normal,
    );
    drop(release);
    assert_eq!(first.await, Ok(last.next()));
    assert_eq!(big.await, Err(AppendError::Full));
    assert_eq!(small.await, Ok(last.next().next()));
    drop(store);
    options.pages_max = None;
    let store = EmbeddedStore::open(&options).unwrap();
    let found = store.read_stream(&stream("a"), Revision::FIRST, 1_000).await.unwrap();
    assert_eq!(found.len() as u64, count + 2);
    store.append(&stream("b"), None, vec![event(0, 60_000)], Urgency::Normal).await.unwrap();
}

#[tokio::test]
async fn the_queue_has_a_limit() {
    let root = directory();
    let store = EmbeddedStore::open(&options(root.path().join("data"))).unwrap();
    let (reached, at_commit) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    store.commit_fault.arrange(move || {
        let _ = reached.send(());
        let _ = released.recv();
        Ok(())
    });
    let first = store.append(&stream("first"), None, vec![event(0, 100)], Urgency::Normal);
    at_commit.recv_timeout(WAIT_MAX).unwrap();
    let fill = append_queue::QUEUE_EVENTS_MAX / 1_024;
    let waiting: Vec<_> = (0..fill)
        .map(|number| {
            let events = (0..1_024).map(|number| event(number, 100)).collect();
            store.append(&stream(&number.to_string()), None, events, Urgency::Normal)
        })
        .collect();
    let refused = store.append(&stream("a"), None, vec![event(0, 100)], Urgency::Normal);
    let refused = tokio::time::timeout(WAIT_MAX, refused).await.expect("refused at once");
    assert!(matches!(refused, Err(AppendError::Unavailable(_))), "{refused:?}");
    drop(release);
    first.await.unwrap();
    for append in waiting {
        append.await.unwrap();
    }
    store.append(&stream("a"), None, vec![event(0, 100)], Urgency::Normal).await.unwrap();
}

#[tokio::test]
async fn closing_carries_out_what_waits_and_leaves_no_log() {
    let root = directory();
    let options = options(root.path().join("data"));
    let store = EmbeddedStore::open(&options).unwrap();
    let mut subscription = store.subscribe_all(None);
    let appends: Vec<_> = (0..200)
        .map(|number| {
            store.append(
                &stream(&number.to_string()),
                None,
                vec![event(number, 100)],
                Urgency::Normal,
            )
        })
        .collect();
    store.close().await;
    for append in appends {
        assert_eq!(append.await, Ok(Revision(0)));
    }
    while subscription.next().await.is_some() {}
    let refused = store.append(&stream("a"), None, vec![event(0, 100)], Urgency::Normal).await;
    assert!(matches!(refused, Err(AppendError::Unavailable(_))), "{refused:?}");
    assert!(store.read_all(None, 1).await.is_err());
    let wal = fs::metadata(options.directory.join("ledger.db-wal"));
    assert!(wal.is_err() || wal.unwrap().len() == 0, "the log is not empty");
    // Closed, though not dropped: the directory is free.
    let again = EmbeddedStore::open(&options).unwrap();
    assert_eq!(again.read_all(None, 1_000).await.unwrap().len(), 200);
}
