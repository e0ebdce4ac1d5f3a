//! What a decision costs in a stream and in a batch, as a ratio to one call for each:
//! decisions per second of CPU time, the client's included.
//!
//! Budgets and figures: docs/PERFORMANCE.md.

#![allow(
    clippy::expect_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a measurement prints, and stops at the first fault"
)]

mod support;

use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use keyledger::proto;
use keyledger::proto::verification_service_client::VerificationServiceClient;
use support::{
    SERVE_LEDGER, Served, connect, cpu_of_this_process, ledger, median, serve_ledger, with_caller,
};
use tonic::transport::Channel;

/// What the server allocates with.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SLICES: usize = 9;
const SLICE: Duration = Duration::from_millis(1_200);
const CONNECTIONS: usize = 4;
const CALLS_PER_CONNECTION: usize = 16;
const STREAMS_PER_CONNECTION: usize = 2;
/// Questions of one stream that are asked and not answered yet.
const WINDOW: u64 = 256;
const BATCH: usize = 100;

type Requests = Arc<[proto::VerifyRequest]>;

/// The questions of one stream: as many ahead of the answers as the window allows.
struct Questions {
    requests: Requests,
    number: u64,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    asked: u64,
    answered: u64,
    over: bool,
    waker: Option<Waker>,
}

impl tokio_stream::Stream for Questions {
    type Item = proto::VerifyStreamRequest;
    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        {
            let mut state = self.state.lock().expect("a lock");
            if state.over {
                return Poll::Ready(None);
            }
            if state.asked - state.answered >= WINDOW {
                state.waker = Some(context.waker().clone());
                return Poll::Pending;
            }
            state.asked += 1;
        }
        self.number += 1;
        let place = usize::try_from(self.number).expect("a place") % self.requests.len();
        Poll::Ready(Some(proto::VerifyStreamRequest {
            id: self.number,
            question: Some(self.requests[place].clone()),
        }))
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    Unary,
    Batch,
    Stream,
}

/// Asks until the time is over; gives the number of decisions.
async fn ask(
    way: Way,
    mut client: VerificationServiceClient<Channel>,
    requests: Requests,
    caller: String,
    seed: usize,
    until: Instant,
) -> u64 {
    let mut decisions = 0;
    match way {
        Way::Unary => {
            while Instant::now() < until {
                let place =
                    (seed * 7_919 + usize::try_from(decisions).expect("a place")) % requests.len();
                let request = with_caller(requests[place].clone(), &caller);
                let answer = client.verify(request).await.expect("an answer");
                assert!(answer.get_ref().allowed);
                decisions += 1;
            }
        }
        Way::Batch => {
            while Instant::now() < until {
                let begin = (seed * 7_919 + usize::try_from(decisions).expect("a place"))
                    % (requests.len() - BATCH);
                let questions = requests[begin..begin + BATCH].to_vec();
                let request =
                    proto::VerifyBatchRequest { questions, ..proto::VerifyBatchRequest::default() };
                let answer =
                    client.verify_batch(with_caller(request, &caller)).await.expect("an answer");
                for answer in answer.into_inner().answers {
                    let decision = answer.answer.expect("an answer");
                    assert!(matches!(
                        decision,
                        proto::verify_batch_answer::Answer::Decision(it) if it.allowed
                    ));
                    decisions += 1;
                }
            }
        }
        Way::Stream => {
            let state = Arc::<Mutex<State>>::default();
            let questions =
                Questions { requests, number: seed as u64 * 7_919, state: Arc::clone(&state) };
            let request = with_caller(questions, &caller);
            let mut answers = client.verify_stream(request).await.expect("a stream").into_inner();
            while let Some(answer) = answers.message().await.expect("an answer") {
                assert!(matches!(
                    answer.answer,
                    Some(proto::verify_stream_response::Answer::Decision(it)) if it.allowed
                ));
                decisions += 1;
                let mut state = state.lock().expect("a lock");
                state.answered += 1;
                state.over |= decisions % 64 == 0 && Instant::now() >= until;
                // Not for each: a question alone fills no packet.
                if (state.over || state.asked - state.answered <= WINDOW / 2)
                    && let Some(waker) = state.waker.take()
                {
                    waker.wake();
                }
            }
        }
    }
    decisions
}

/// What one slice of load showed.
struct Slice {
    per_cpu_second: f64,
    per_second: f64,
    server_us: f64,
    client_us: f64,
}

async fn load(
    way: Way,
    server: &Served,
    channels: &[Channel],
    requests: &Requests,
    caller: &str,
) -> Slice {
    let (begin, server_before, client_before) =
        (Instant::now(), server.cpu(), cpu_of_this_process());
    let until = begin + SLICE;
    let workers = if way == Way::Stream { STREAMS_PER_CONNECTION } else { CALLS_PER_CONNECTION };
    let workers = workers * channels.len();
    let tasks: Vec<_> = (0..workers)
        .map(|worker| {
            let client = VerificationServiceClient::new(channels[worker % channels.len()].clone())
                .max_decoding_message_size(16 * 1024 * 1024);
            tokio::spawn(ask(way, client, Arc::clone(requests), caller.to_owned(), worker, until))
        })
        .collect();
    let mut decisions = 0;
    for task in tasks {
        decisions += task.await.expect("a worker");
    }
    let decisions = decisions as f64;
    let server_used = (server.cpu() - server_before).as_secs_f64();
    let client_used = (cpu_of_this_process() - client_before).as_secs_f64();
    Slice {
        per_cpu_second: decisions / (server_used + client_used),
        per_second: decisions / begin.elapsed().as_secs_f64(),
        server_us: server_used / decisions * 1e6,
        client_us: client_used / decisions * 1e6,
    }
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(place) = arguments.iter().position(|it| it == SERVE_LEDGER) {
        return serve_ledger(&runtime, &arguments[place + 1..]);
    }
    runtime.block_on(measure());
}

async fn measure() {
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("target");
    let root = tempfile::tempdir_in(target).expect("a directory on the real disk");
    let (server, requests, caller) = ledger(root.path(), None).await;
    let requests: Requests = requests.into();
    let channels = connect(&server.address, CONNECTIONS).await;
    println!(
        "{CONNECTIONS} connections; {CALLS_PER_CONNECTION} calls on each, or {STREAMS_PER_CONNECTION} streams of up to {WINDOW} open questions; batches of {BATCH}; medians of {SLICES} slices in turn"
    );
    let ways = [Way::Unary, Way::Batch, Way::Stream];
    let mut slices: [Vec<Slice>; 3] = Default::default();
    for turn in 0..=SLICES {
        for (way, slices) in ways.iter().zip(&mut slices) {
            let slice = load(*way, &server, &channels, &requests, &caller).await;
            // The first warms up.
            if turn > 0 {
                slices.push(slice);
            }
        }
    }
    for (way, of_way) in ways.iter().zip(&slices) {
        let ratio = median(
            of_way
                .iter()
                .zip(&slices[0])
                .map(|(it, unary)| it.per_cpu_second / unary.per_cpu_second),
        );
        let middle = |figure: fn(&Slice) -> f64| median(of_way.iter().map(figure));
        println!(
            "{way:?}: decisions per CPU second {:.0}, ratio to unary {ratio:.2}; per second {:.0}; server {:.2} us, client {:.2} us each",
            middle(|it| it.per_cpu_second),
            middle(|it| it.per_second),
            middle(|it| it.server_us),
            middle(|it| it.client_us),
        );
    }
    println!("budget: stream and batch at least 8 times unary");
}
