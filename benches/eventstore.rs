//! What the store on an engine costs over the engine's client alone, both against the
//! tests' stand-in on the same machine: it keeps everything in memory, so that what is
//! measured is ours and the client's.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a measurement prints, and stops at the first fault"
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use eventstore::{
    AppendToStreamOptions, Client, EventData, ReadAllOptions, StreamPosition, StreamState,
};
use keyledger::ledger::event_store::{EventStore as _, READ_EVENTS_MAX};
use keyledger::ledger::urgency::Urgency;
use keyledger::store::conformance::event;
use keyledger::store::eventstore::EngineStore;
use projections::recorded::{Revision, StreamName};

#[path = "../tests/it/engine.rs"]
mod engine;

use engine::Engine;

const EVENT_BYTES: usize = 600;
const EVENTS: u64 = 100_000;
const SLICES: usize = 10;
const SLICE: Duration = Duration::from_millis(300);
/// Appends in flight of one organization, or organizations with one each.
const IN_FLIGHT: [usize; 3] = [1, 8, 64];

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        catch_up().await;
        println!("appends of {EVENT_BYTES} bytes, events/s: medians of {SLICES} slices in turn");
        println!("in flight  one stream  many streams  bare client, many streams");
        for in_flight in IN_FLIGHT {
            appends(in_flight).await;
        }
    });
}

async fn open(engine: &Engine) -> (EngineStore, Client) {
    let url = engine.url();
    let store = EngineStore::open(&url.parse().expect("a url")).await.expect("a store");
    let settings = format!("{url}&discoveryInterval=20").parse().expect("settings");
    (store, Client::new(settings).expect("a client"))
}

fn stream(number: usize) -> StreamName {
    StreamName::from_store(&format!("org-{number:026}"))
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates.get(rates.len() / 2).copied().unwrap_or(f64::NAN)
}

#[expect(clippy::cast_precision_loss, reason = "a rate")]
fn rate(count: u64, began: Instant) -> f64 {
    count as f64 / began.elapsed().as_secs_f64()
}

async fn catch_up() {
    let engine = Engine::start();
    let (store, client) = open(&engine).await;
    let mut last = None;
    for first in (0..EVENTS).step_by(1_000) {
        let batch = (first..first + 1_000).map(|number| event(number, EVENT_BYTES)).collect();
        last = Some(store.append(&stream(0), last, batch, Urgency::Normal).await.expect("written"));
    }
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        let began = Instant::now();
        let (mut after, mut count) = (None, 0);
        loop {
            let page = store.read_all(after, READ_EVENTS_MAX).await.expect("a page");
            let Some(item) = page.last() else { break };
            after = Some(item.as_ref().expect("an event").position);
            count += page.len() as u64;
        }
        assert_eq!(count, EVENTS);
        ours.push(rate(count, began));

        let began = Instant::now();
        let (mut from, mut count) = (StreamPosition::Start, 0);
        loop {
            let options = ReadAllOptions::default().position(from).max_count(READ_EVENTS_MAX);
            let mut page = client.read_all(&options).await.expect("a page");
            let mut found = 0;
            while let Some(event) = page.next().await.expect("an event") {
                from = StreamPosition::Position(event.get_original_event().position);
                found += 1;
            }
            count += found;
            if found < READ_EVENTS_MAX as u64 {
                break;
            }
        }
        assert!(count >= EVENTS);
        bare.push(rate(count, began));
    }
    let (ours, bare) = (median(ours), median(bare));
    println!(
        "catch-up, events/s of {EVENT_BYTES} bytes: the store {ours:.0}, bare client {bare:.0}, {:.2}",
        ours / bare
    );
}

async fn appends(in_flight: usize) {
    let engine = Engine::start();
    let (store, client) = open(&engine).await;
    let store = Arc::new(store);
    let (mut one, mut many, mut bare) = (Vec::new(), Vec::new(), Vec::new());
    let (mut next, mut lasts, mut bare_lasts) =
        (0_u64, vec![None; in_flight], vec![None; in_flight]);
    for _ in 0..SLICES {
        one.push(pipelined(&store, &mut next, in_flight).await);
        many.push(side_by_side(&store, &mut lasts).await);
        bare.push(by_client(&client, &mut bare_lasts).await);
    }
    println!("{in_flight:>9} {:>11.0} {:>13.0} {:>26.0}", median(one), median(many), median(bare));
    store.close().await;
}

/// So many appends of one stream are always in flight.
async fn pipelined(store: &Arc<EngineStore>, next: &mut u64, in_flight: usize) -> f64 {
    let stream = StreamName::from_store("org-pipelined");
    let (began, mut count) = (Instant::now(), 0);
    let mut waiting = std::collections::VecDeque::new();
    while began.elapsed() < SLICE {
        while waiting.len() < in_flight {
            let expected = next.checked_sub(1).map(Revision);
            let new = vec![event(*next, EVENT_BYTES)];
            waiting.push_back(store.append(&stream, expected, new, Urgency::Normal));
            *next += 1;
        }
        if let Some(append) = waiting.pop_front() {
            append.await.expect("an append");
            count += 1;
        }
    }
    for append in waiting {
        append.await.expect("an append");
        count += 1;
    }
    rate(count, began)
}

/// So many streams, each with one append in flight.
async fn side_by_side(store: &Arc<EngineStore>, lasts: &mut [Option<Revision>]) -> f64 {
    let began = Instant::now();
    let tasks: Vec<_> = lasts
        .iter()
        .copied()
        .enumerate()
        .map(|(number, mut last)| {
            let store = Arc::clone(store);
            tokio::spawn(async move {
                let mut count = 0;
                while began.elapsed() < SLICE {
                    let new = vec![event(count, EVENT_BYTES)];
                    let append = store.append(&stream(number), last, new, Urgency::Normal);
                    last = Some(append.await.expect("an append"));
                    count += 1;
                }
                (last, count)
            })
        })
        .collect();
    let mut count = 0;
    for (slot, task) in lasts.iter_mut().zip(tasks) {
        let (last, more) = task.await.expect("a writer");
        (*slot, count) = (last, count + more);
    }
    rate(count, began)
}

async fn by_client(client: &Client, lasts: &mut [Option<u64>]) -> f64 {
    let began = Instant::now();
    let tasks: Vec<_> = lasts
        .iter()
        .copied()
        .enumerate()
        .map(|(number, mut last)| {
            let client = client.clone();
            tokio::spawn(async move {
                let mut count = 0;
                while began.elapsed() < SLICE {
                    let state = last.map_or(StreamState::NoStream, StreamState::StreamRevision);
                    let options = AppendToStreamOptions::default().stream_state(state);
                    let stored = event(count, EVENT_BYTES).stored.to_vec();
                    let new = EventData::binary("bare", stored.into());
                    let name = format!("bare-{number}");
                    let written = client.append_to_stream(name, &options, new).await;
                    last = Some(written.expect("an append").next_expected_version);
                    count += 1;
                }
                (last, count)
            })
        })
        .collect();
    let mut count = 0;
    for (slot, task) in lasts.iter_mut().zip(tasks) {
        let (last, more) = task.await.expect("a writer");
        (*slot, count) = (last, count + more);
    }
    rate(count, began)
}
