//! What durable appends and replay cost, as ratios to what the disk and the database
//! engine do on their own in the same run.
//!
//! Budgets (docs/PERFORMANCE.md): with 64 writers at least 0.8 of a bare SQLite loop
//! of the same rows and batch; replay well above 400,000 events a second.

#![allow(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a measurement prints, and stops at the first fault"
)]

use std::fs::File;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use keyledger::ledger::event_store::{EventStore, NewEvent, READ_EVENTS_MAX};
use keyledger::ledger::urgency::Urgency;
use keyledger::store::conformance::event;
use keyledger::store::embedded::{EmbeddedStore, Options};
use projections::recorded::{Revision, StreamName};
use rusqlite::Connection;

const EVENT_BYTES: usize = 600;
const WRITERS: [usize; 3] = [1, 8, 64];
/// Each subject runs for a slice, in turn: what else happens on the machine meets all.
const SLICES: usize = 30;
const SLICE: Duration = Duration::from_millis(120);
const RAW_FILE_BYTES: usize = 12 << 20;
const REPLAY_EVENTS: u64 = 400_000;

fn main() {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("target");
    let root = tempfile::tempdir_in(target).expect("a directory on the real disk");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    println!(
        "durable appends of {EVENT_BYTES} bytes, events/s: medians of {SLICES} slices in turn"
    );
    println!("writers      port  bare SQLite   raw sync  port/SQLite  port/raw");
    for writers in WRITERS {
        let directory = root.path().join(writers.to_string());
        let mut port = Port::new(&directory.join("port"), writers);
        let mut bare = Bare::new(&directory, writers);
        let mut raw = Raw::new(&directory, writers);
        let rates: Vec<_> = (0..SLICES)
            .map(|_| (runtime.block_on(port.slice()), bare.slice(), raw.slice()))
            .collect();
        println!(
            "{writers:>7} {:>9.0} {:>12.0} {:>10.0} {:>12.2} {:>9.2}",
            median(rates.iter().map(|(port, _, _)| *port)),
            median(rates.iter().map(|(_, bare, _)| *bare)),
            median(rates.iter().map(|(_, _, raw)| *raw)),
            median(rates.iter().map(|(port, bare, _)| port / bare)),
            median(rates.iter().map(|(port, _, raw)| port / raw)),
        );
        runtime.block_on(port.store.close());
    }
    let replayed = runtime.block_on(replay(&root.path().join("replay")));
    println!("replay through read_all: {replayed:.0} events/s of {EVENT_BYTES} bytes");
}

fn median(rates: impl Iterator<Item = f64>) -> f64 {
    let mut rates: Vec<_> = rates.collect();
    rates.sort_by(f64::total_cmp);
    rates.get(rates.len() / 2).copied().unwrap_or(f64::NAN)
}

fn rate(count: usize, began: Instant) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX)) / began.elapsed().as_secs_f64()
}

/// Events made beforehand: making one is no part of keeping it.
fn prepared() -> Arc<[NewEvent]> {
    (0..4_096).map(|number| event(number, EVENT_BYTES)).collect()
}

fn name(writer: usize) -> StreamName {
    StreamName::from_store(&format!("org-{writer:026}"))
}

/// Writers that each append one event and wait for it.
struct Port {
    store: Arc<EmbeddedStore>,
    events: Arc<[NewEvent]>,
    lasts: Vec<Option<Revision>>,
}

impl Port {
    fn new(directory: &Path, writers: usize) -> Self {
        let store = Arc::new(EmbeddedStore::open(&Options::new(directory)).expect("a store"));
        Self { store, events: prepared(), lasts: vec![None; writers] }
    }

    async fn slice(&mut self) -> f64 {
        let began = Instant::now();
        let tasks: Vec<_> = self
            .lasts
            .iter()
            .copied()
            .enumerate()
            .map(|(writer, mut last)| {
                let (store, events) = (Arc::clone(&self.store), Arc::clone(&self.events));
                tokio::spawn(async move {
                    let (stream, mut count) = (name(writer), 0);
                    for event in events.iter().cycle() {
                        if began.elapsed() >= SLICE {
                            break;
                        }
                        let append =
                            store.append(&stream, last, vec![event.clone()], Urgency::Normal);
                        last = Some(append.await.expect("an append"));
                        count += 1;
                    }
                    (last, count)
                })
            })
            .collect();
        let mut count = 0;
        for (task, last) in tasks.into_iter().zip(&mut self.lasts) {
            let more;
            (*last, more) = task.await.expect("a writer");
            count += more;
        }
        rate(count, began)
    }
}

/// The same rows in the same table, as many in each transaction as there are writers,
/// with nothing around it: no triggers, no threads, checkpoints as the engine likes.
struct Bare {
    connection: Connection,
    events: Arc<[NewEvent]>,
    batch: usize,
    revision: i64,
}

impl Bare {
    fn new(directory: &Path, batch: usize) -> Self {
        let connection = Connection::open(directory.join("bare.db")).expect("a database");
        connection
            .execute_batch(
                "PRAGMA journal_mode = WAL;
                 PRAGMA synchronous = FULL;
                 CREATE TABLE events (
                     position INTEGER PRIMARY KEY,
                     stream INTEGER NOT NULL,
                     revision INTEGER NOT NULL,
                     stored BLOB NOT NULL,
                     leaf_hash BLOB NOT NULL,
                     place_check INTEGER NOT NULL,
                     UNIQUE (stream, revision)
                 ) STRICT;",
            )
            .expect("a table");
        Self { connection, events: prepared(), batch, revision: 0 }
    }

    fn slice(&mut self) -> f64 {
        let mut events = self.events.iter().cycle();
        let mut count = 0;
        let began = Instant::now();
        while began.elapsed() < SLICE {
            let transaction = self.connection.transaction().expect("a transaction");
            {
                let mut insert = transaction
                    .prepare_cached(
                        "INSERT INTO events (stream, revision, stored, leaf_hash, place_check)
                         VALUES (?1, ?2, ?3, ?4, ?5)",
                    )
                    .expect("a statement");
                for (event, stream) in events.by_ref().take(self.batch).zip(0_i64..) {
                    let hash = event.leaf_hash.0.as_slice();
                    let row = (stream, self.revision, &*event.stored, hash, stream);
                    insert.execute(row).expect("a row");
                }
            }
            transaction.commit().expect("a commit");
            self.revision += 1;
            count += self.batch;
        }
        rate(count, began)
    }
}

/// The same bytes over a file that has its length already, synced after each batch.
struct Raw {
    file: File,
    events: Arc<[NewEvent]>,
    batch: usize,
    written: usize,
}

impl Raw {
    fn new(directory: &Path, batch: usize) -> Self {
        let mut file = File::create(directory.join("raw")).expect("a file");
        file.write_all(&vec![1; RAW_FILE_BYTES]).expect("a write");
        file.sync_all().expect("a sync");
        Self { file, events: prepared(), batch, written: RAW_FILE_BYTES }
    }

    fn slice(&mut self) -> f64 {
        let mut events = self.events.iter().cycle();
        let (mut count, mut bytes) = (0, Vec::new());
        let began = Instant::now();
        while began.elapsed() < SLICE {
            bytes.clear();
            events
                .by_ref()
                .take(self.batch)
                .for_each(|event| bytes.extend_from_slice(&event.stored));
            if self.written + bytes.len() > RAW_FILE_BYTES {
                self.file.seek(SeekFrom::Start(0)).expect("a seek");
                self.written = 0;
            }
            self.file.write_all(&bytes).expect("a write");
            self.file.sync_data().expect("a sync");
            self.written += bytes.len();
            count += self.batch;
        }
        rate(count, began)
    }
}

async fn replay(directory: &Path) -> f64 {
    const STREAMS: usize = 1_000;
    let store = EmbeddedStore::open(&Options::new(directory)).expect("a store");
    let mut lasts: Vec<Option<Revision>> = vec![None; STREAMS];
    let mut written = 0;
    while written < REPLAY_EVENTS {
        let mut appends = Vec::new();
        for (stream, last) in lasts.iter().enumerate() {
            let events = (0..10).map(|number| event(written + number, EVENT_BYTES)).collect();
            appends.push(store.append(&name(stream), *last, events, Urgency::Normal));
            written += 10;
        }
        for (append, last) in appends.into_iter().zip(&mut lasts) {
            *last = Some(append.await.expect("an append"));
        }
    }
    store.close().await;
    drop(store);
    let opening = Instant::now();
    let store = EmbeddedStore::open(&Options::new(directory)).expect("a store");
    println!("opening {written} events: {:.1} ms", opening.elapsed().as_secs_f64() * 1e3);
    let mut rates = Vec::new();
    for _ in 0..5 {
        rates.push(replay_once(&store).await);
    }
    median(rates.into_iter())
}

/// One pass. The next page is asked for before the last is looked at, as a fold would.
async fn replay_once(store: &EmbeddedStore) -> f64 {
    let began = Instant::now();
    let mut count = 0;
    let mut reading = store.read_all(None, READ_EVENTS_MAX);
    loop {
        let page = reading.await.expect("a page");
        let Some(Ok(last)) = page.last() else { break };
        reading = store.read_all(Some(last.position), READ_EVENTS_MAX);
        count += page.iter().filter(|item| item.is_ok()).count();
    }
    rate(count, began)
}
