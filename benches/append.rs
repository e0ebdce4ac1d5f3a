//! What durable appends and replay cost, as ratios to what the disk and the database
//! engine do on their own in the same run.
//!
//! Budgets (DESIGN.md, section 11): with 64 writers at least 0.8 of a bare SQLite loop
//! of the same rows and batch; replay well above 400,000 events a second.

#![allow(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a measurement prints, and stops at the first fault"
)]

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use keyledger::ledger::event_store::{EventStore, NewEvent, READ_EVENTS_MAX};
use keyledger::store::conformance::event;
use keyledger::store::embedded::{EmbeddedStore, Options};
use projections::recorded::{Revision, StreamName};
use rusqlite::Connection;

const EVENT_BYTES: usize = 600;
const WRITERS: [usize; 3] = [1, 8, 64];
const ROUNDS: usize = 3;
const ROUND_TIME: Duration = Duration::from_millis(1_000);
const REPLAY_EVENTS: u64 = 400_000;

fn main() {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("target");
    let root = tempfile::tempdir_in(target).expect("a directory on the real disk");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    println!("durable appends of {EVENT_BYTES} bytes, events/s, median of {ROUNDS} rounds in turn");
    println!("writers      port  bare SQLite   raw sync  port/SQLite  port/raw");
    for writers in WRITERS {
        let (mut port, mut bare, mut raw) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..ROUNDS {
            let directory = |what: &str| root.path().join(format!("{what}-{writers}-{round}"));
            port.push(runtime.block_on(through_port(&directory("port"), writers)));
            bare.push(bare_sqlite(&directory("bare"), writers));
            raw.push(raw_sync(&directory("raw"), writers));
        }
        let (port, bare, raw) = (median(port), median(bare), median(raw));
        println!(
            "{writers:>7} {port:>9.0} {bare:>12.0} {raw:>10.0} {:>12.2} {:>9.2}",
            port / bare,
            port / raw
        );
    }
    let replayed = runtime.block_on(replay(&root.path().join("replay")));
    println!("replay through read_all: {replayed:.0} events/s of {EVENT_BYTES} bytes");
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates.get(rates.len() / 2).copied().unwrap_or(f64::NAN)
}

fn rate(count: usize, began: Instant) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX)) / began.elapsed().as_secs_f64()
}

/// Events made beforehand: making one is no part of keeping it.
fn prepared() -> Vec<NewEvent> {
    (0..4_096).map(|number| event(number, EVENT_BYTES)).collect()
}

fn name(writer: usize) -> StreamName {
    StreamName::from_store(&format!("org-{writer:026}"))
}

async fn through_port(directory: &Path, writers: usize) -> f64 {
    let store = Arc::new(EmbeddedStore::open(&Options::new(directory)).expect("a store"));
    let events = Arc::new(prepared());
    let began = Instant::now();
    let tasks: Vec<_> = (0..writers)
        .map(|writer| {
            let (store, events) = (Arc::clone(&store), Arc::clone(&events));
            tokio::spawn(async move {
                let (stream, mut last, mut count) = (name(writer), None, 0);
                for event in events.iter().cycle() {
                    if began.elapsed() >= ROUND_TIME {
                        break;
                    }
                    let append = store.append(&stream, last, vec![event.clone()]);
                    last = Some(append.await.expect("an append"));
                    count += 1;
                }
                count
            })
        })
        .collect();
    let mut count = 0;
    for task in tasks {
        count += task.await.expect("a writer");
    }
    let rate = rate(count, began);
    store.close().await;
    rate
}

/// The same rows in the same tables, as many in each transaction as there are writers,
/// with nothing around it: no triggers, no threads, checkpoints as the engine likes.
fn bare_sqlite(directory: &Path, batch: usize) -> f64 {
    std::fs::create_dir(directory).expect("a directory");
    let mut connection = Connection::open(directory.join("bare.db")).expect("a database");
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
        .expect("tables");
    let events = prepared();
    let mut events = events.iter().cycle();
    let (mut count, mut revision) = (0, 0_i64);
    let began = Instant::now();
    while began.elapsed() < ROUND_TIME {
        let transaction = connection.transaction().expect("a transaction");
        {
            let mut insert = transaction
                .prepare_cached(
                    "INSERT INTO events (stream, revision, stored, leaf_hash, place_check)
                     VALUES (?1, ?2, ?3, ?4, ?5)",
                )
                .expect("a statement");
            for (event, stream) in events.by_ref().take(batch).zip(0_i64..) {
                let hash = event.leaf_hash.0.as_slice();
                insert.execute((stream, revision, &*event.stored, hash, stream)).expect("a row");
            }
        }
        transaction.commit().expect("a commit");
        revision += 1;
        count += batch;
    }
    rate(count, began)
}

/// The same bytes to a file that is there already, synced after each batch.
fn raw_sync(path: &Path, batch: usize) -> f64 {
    let mut file = File::create(path).expect("a file");
    let events = prepared();
    let mut events = events.iter().cycle();
    let mut count = 0;
    let mut bytes = Vec::new();
    let began = Instant::now();
    while began.elapsed() < ROUND_TIME {
        bytes.clear();
        events.by_ref().take(batch).for_each(|event| bytes.extend_from_slice(&event.stored));
        file.write_all(&bytes).expect("a write");
        file.sync_data().expect("a sync");
        count += batch;
    }
    rate(count, began)
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
            appends.push(store.append(&name(stream), *last, events));
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
    for _ in 0..ROUNDS {
        rates.push(replay_once(&store).await);
    }
    median(rates)
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
