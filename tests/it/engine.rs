//! A stand-in for an EventStoreDB or KurrentDB server: it speaks the part of its published
//! protocol that we use, keeps everything in memory, and misbehaves when it is told to.
//!
//! It is as strict as the engine where that matters: expected revisions, repeats of an
//! append by its identifiers, positions that are those of records, `requires-leader`.

#![allow(dead_code, reason = "each of those who share it uses a part of it")]

#[path = "engine/log.rs"]
pub(crate) mod log;
#[path = "engine/protocol.rs"]
mod protocol;
#[path = "engine/services.rs"]
mod services;
#[path = "engine/socket.rs"]
mod socket;

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Certificate, Identity, ServerTlsConfig};

use log::Log;

/// What goes wrong with one append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AppendFault {
    /// It is refused before anything happens, as by a server that is about to stop.
    CutBeforeCommit,
    /// It is carried out, and the answer lost.
    CutAfterCommit,
    /// It is carried out, and no answer ever comes.
    SilentAfterCommit,
    /// No answer comes; it is carried out when the test says so.
    LateCommit,
    /// It is carried out, and the answer names another revision.
    LieAboutRevision,
    /// It is said not to be the leader's, with nobody named.
    NoLeader,
}

/// What goes wrong with every read until it is taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReadFault {
    /// A byte of what was stored is another.
    LieAboutBytes,
    /// Every event is given twice.
    AnswerTwice,
    /// Only this many records are there: the state of long ago.
    PastAt(usize),
    /// An event without its stream's name.
    Nonsense,
    /// It is refused.
    Refuse,
}

/// Who may call, and how.
#[derive(Clone, Default)]
pub(crate) struct Access {
    /// `user:password`; none for anybody.
    pub(crate) user: Option<String>,
    /// The server's certificate and key in PEM, and who signs clients'.
    pub(crate) tls: Option<(String, String, Option<String>)>,
}

/// What all nodes of an engine share.
pub(crate) struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    access: Access,
}

pub(crate) struct State {
    pub(crate) log: Log,
    append_faults: std::collections::VecDeque<AppendFault>,
    read_fault: Option<ReadFault>,
    /// Appends that are to be carried out when the test says so.
    late: Vec<log::Append>,
    /// Appends to streams whose names begin so are refused before anything happens, as by a
    /// server that is about to stop.
    refused: Vec<String>,
    /// The streams of the appends that were refused so.
    pub(crate) refused_appends: std::collections::BTreeSet<String>,
    /// An append with an event that holds this text is one that the engine will not take.
    pub(crate) unacceptable: Option<String>,
    held: bool,
    /// How many appends go on before they wait at the door.
    held_after: Option<usize>,
    leader: usize,
    nodes: Vec<SocketAddr>,
    /// How many connections are open, and how many ever were.
    pub(crate) connections: (usize, usize),
    /// How many calls were made, by what they asked for.
    pub(crate) appends: usize,
    pub(crate) reads: usize,
    /// Streams whose last append was left in doubt, and which nobody has read since.
    doubts: std::collections::HashSet<String>,
    /// Appends that were sent to a stream in doubt.
    pub(crate) blind: usize,
    /// Appends that did not name the revision they expect.
    pub(crate) unconditional: usize,
}

/// An engine of one node or more; it is gone when this is dropped.
pub(crate) struct Engine {
    shared: Arc<Shared>,
    running: Mutex<Vec<Option<Runtime>>>,
}

impl Engine {
    /// One node, on a port of its own.
    pub(crate) fn start() -> Self {
        Self::with(1, Access::default())
    }

    /// So many nodes, the first of which leads.
    pub(crate) fn with(nodes: usize, access: Access) -> Self {
        let state = State {
            log: Log::default(),
            append_faults: std::collections::VecDeque::new(),
            read_fault: None,
            late: Vec::new(),
            refused: Vec::new(),
            refused_appends: Default::default(),
            unacceptable: None,
            held: false,
            held_after: None,
            leader: 0,
            nodes: Vec::new(),
            connections: (0, 0),
            appends: 0,
            reads: 0,
            doubts: std::collections::HashSet::new(),
            blind: 0,
            unconditional: 0,
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new(), access });
        let engine = Self { shared, running: Mutex::default() };
        for node in 0..nodes {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            engine.state().nodes.push(listener.local_addr().unwrap());
            let runtime = engine.serve(node, listener);
            engine.running.lock().unwrap().push(Some(runtime));
        }
        engine
    }

    fn serve(&self, node: usize, listener: TcpListener) -> Runtime {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        listener.set_nonblocking(true).unwrap();
        let mut builder = tonic::transport::Server::builder();
        if let Some((certificate, key, client_ca)) = &self.shared.access.tls {
            let mut tls = ServerTlsConfig::new().identity(Identity::from_pem(certificate, key));
            if let Some(client_ca) = client_ca {
                tls = tls.client_ca_root(Certificate::from_pem(client_ca));
            }
            builder = builder.tls_config(tls).unwrap();
        }
        let routes = services::routes(&self.shared, node);
        let shared = Arc::clone(&self.shared);
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let incoming = TcpListenerStream::new(listener)
                .map(move |it| it.map(|it| socket::Socket::new(it, Arc::clone(&shared))));
            builder.add_routes(routes).serve_with_incoming(incoming).await.unwrap();
        });
        runtime
    }

    /// Where a client finds it, without user or TLS.
    pub(crate) fn url(&self) -> String {
        format!("esdb://{}?tls=false", self.hosts())
    }

    /// The hosts of all nodes.
    pub(crate) fn hosts(&self) -> String {
        let nodes: Vec<String> = self.state().nodes.iter().map(ToString::to_string).collect();
        nodes.join(",")
    }

    /// Kills a node: its connections end, nothing listens.
    pub(crate) fn kill(&self, node: usize) {
        let runtime = self.running.lock().unwrap()[node].take();
        if let Some(runtime) = runtime {
            // A runtime may not be waited for inside another.
            let end = move || runtime.shutdown_timeout(Duration::from_secs(5));
            std::thread::spawn(end).join().unwrap();
        }
    }

    /// Starts a node that was killed, where it was.
    pub(crate) fn revive(&self, node: usize) {
        let address = self.state().nodes[node];
        let listener = loop {
            match TcpListener::bind(address) {
                Ok(listener) => break listener,
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
        };
        let runtime = self.serve(node, listener);
        self.running.lock().unwrap()[node] = Some(runtime);
    }

    /// Lets another node lead.
    pub(crate) fn elect(&self, node: usize) {
        self.state().leader = node;
    }

    /// What it holds and counts.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.shared.lock()
    }

    /// Gives the next appends these faults, one each. What is about nodes is left alone.
    pub(crate) fn fail_appends(&self, faults: &[AppendFault]) {
        self.state().append_faults.extend(faults);
    }

    /// Gives every read this fault, or none any more.
    pub(crate) fn fail_reads(&self, fault: Option<ReadFault>) {
        self.state().read_fault = fault;
    }

    /// Refuses appends to streams whose names begin so, until it is said otherwise.
    pub(crate) fn refuse_appends_to(&self, streams: &[&str]) {
        self.state().refused = streams.iter().map(ToString::to_string).collect();
    }

    /// Carries out what came and was held back as late.
    pub(crate) fn commit_late(&self) -> usize {
        let mut state = self.state();
        let late = std::mem::take(&mut state.late);
        let count = late.len();
        for append in late {
            // What comes too late for its revision is refused, and nobody hears of it.
            let _ = state.log.append(append);
        }
        count
    }

    /// Lets appends wait at the door, or go on.
    pub(crate) fn hold_appends(&self, held: bool) {
        let mut state = self.state();
        (state.held, state.held_after) = (held, None);
        drop(state);
        self.shared.changed.notify_all();
    }

    /// Lets so many appends more go on, and the others wait at the door.
    pub(crate) fn hold_appends_after(&self, appends: usize) {
        let mut state = self.state();
        state.held_after = Some(state.appends + appends);
    }

    /// Waits until something holds of it.
    #[track_caller]
    pub(crate) fn wait_until(&self, holds: impl Fn(&State) -> bool) {
        let state = self.state();
        let wait = Duration::from_secs(30);
        let waited = self.shared.changed.wait_timeout_while(state, wait, |state| !holds(state));
        assert!(!waited.unwrap().1.timed_out(), "waited in vain for the engine");
    }
}

impl State {
    fn is_held(&self, number: usize) -> bool {
        self.held || self.held_after.is_some_and(|after| number > after)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.hold_appends(false);
        for runtime in self.running.lock().unwrap().drain(..).flatten() {
            runtime.shutdown_background();
        }
    }
}

impl Shared {
    pub(crate) fn tell(&self) {
        self.changed.notify_all();
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
