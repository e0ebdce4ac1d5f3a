//! Spans: what OpenTelemetry is told about single calls.
//!
//! Nothing is told unless a collector is configured. Then a call is sampled before anything
//! is made for it: if its caller says so in `traceparent`, or by chance where the caller says
//! nothing. What a stranger says counts for nothing, chance alone does: whether the caller
//! is one is known at the call's end. Whoever works for a sampled call finds it in their task and may add to it;
//! to everybody else that is one look at an empty place.
//!
//! A span that ended waits in a queue of fixed length and is sent by [`export`]. Where the
//! queue is full it is dropped and counted: nobody who works ever waits.
//!
//! INVARIANT: what a span says comes from [`Value`]s made here or in the protocol's own names,
//! and the correlation id. Nothing else that a caller sent, no address, no identifier of an
//! organization or a key is ever put into one. docs/OPERATING.md has every name in a table.

#[cfg(feature = "otel")]
mod export;
#[cfg(not(feature = "otel"))]
#[path = "spans/no_export.rs"]
mod export;
mod parent;

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use http::HeaderMap;
use tokio::sync::mpsc;
use tonic::Code;

pub(crate) use self::export::{ExportError, Exporter};
use self::parent::Parent;
use crate::config::Collector;
use crate::ledger::secret::Ids;
use crate::meter::Counter;

/// Most spans that wait to be sent; one more is dropped.
pub(crate) const WAITING_MAX: usize = 2_048;
/// The span of a write's append: from sending its events off until they are durable and in
/// the tables.
pub(crate) const APPEND: &str = "append";

/// What came of spans, counted.
#[derive(Debug, Default)]
pub(crate) struct SpanStats {
    /// Taken by the collector.
    pub(crate) exported: Counter,
    /// Dropped because as many waited as may.
    pub(crate) full: Counter,
    /// Dropped because the collector did not answer, or refused them all.
    pub(crate) failed: Counter,
    /// Dropped by the collector, by its own word.
    pub(crate) rejected: Counter,
}

/// A span that ended.
#[cfg_attr(not(feature = "otel"), expect(dead_code, reason = "nobody sends it"))]
struct Span {
    trace_id: u128,
    span_id: u64,
    /// The span it is a part of, and whether that one is the caller's.
    parent: Option<(u64, bool)>,
    name: Cow<'static, str>,
    /// Whether it stands for a whole call, or for a part of one.
    is_call: bool,
    began: SystemTime,
    took: Duration,
    failed: bool,
    attributes: Vec<(&'static str, Value)>,
}

/// The value of an attribute.
#[cfg_attr(not(feature = "otel"), expect(dead_code, reason = "nobody sends it"))]
enum Value {
    Text(Cow<'static, str>),
    Number(i64),
}

impl Value {
    const fn word(text: &'static str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }
}

/// Begins spans, and takes those that ended.
pub(crate) struct Spans {
    sample_ratio: f64,
    address: SocketAddr,
    ids: Ids,
    waiting: mpsc::Sender<Span>,
    stats: Arc<SpanStats>,
}

/// Begins to tell a collector about the calls of the server at this address.
pub(crate) fn start(
    collector: &Collector,
    address: SocketAddr,
    stats: &Arc<SpanStats>,
) -> Result<(Arc<Spans>, Exporter), ExportError> {
    let (waiting, ended) = mpsc::channel(WAITING_MAX);
    let exporter = Exporter::start(collector, ended, Arc::clone(stats))?;
    let ids = Ids::from_system().map_err(|_| ExportError::NoEntropy)?;
    let sample_ratio = collector.sample_ratio;
    let stats = Arc::clone(stats);
    Ok((Arc::new(Spans { sample_ratio, address, ids, waiting, stats }), exporter))
}

impl Spans {
    /// Begins the span of a call, if it is sampled.
    pub(crate) fn call(self: &Arc<Self>, headers: &HeaderMap) -> Option<Box<CallSpan>> {
        let parent = Parent::of(headers);
        let by_chance = fastrand::f64() < self.sample_ratio;
        let sampled = parent.as_ref().map_or(by_chance, |parent| parent.sampled);
        sampled.then(|| Box::new(self.begin(parent, by_chance)))
    }

    fn begin(self: &Arc<Self>, parent: Option<Parent>, by_chance: bool) -> CallSpan {
        let trace_id = parent.as_ref().map_or_else(|| self.ids.trace(), |parent| parent.trace_id);
        let call = Arc::new(Call {
            spans: Arc::clone(self),
            trace_id,
            span_id: self.ids.span(),
            told: AtomicBool::new(by_chance),
            noted: Mutex::default(),
        });
        let parent = parent.map(|parent| parent.span_id);
        CallSpan { call, parent, began: now(), clock: Instant::now() }
    }

    fn ended(&self, span: Span) {
        if self.waiting.try_send(span).is_err() {
            self.stats.full.count();
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a span is no part of history")]
fn now() -> SystemTime {
    SystemTime::now()
}

tokio::task_local! {
    static CALL: Arc<Call>;
}

/// A sampled call, for whoever works for it.
struct Call {
    spans: Arc<Spans>,
    trace_id: u128,
    span_id: u64,
    /// Whether the collector is to be told: by chance, or because somebody whose word
    /// counts asked for it.
    told: AtomicBool,
    noted: Mutex<Noted>,
}

/// What those who worked for a call said about it.
#[derive(Default)]
struct Noted {
    correlation_id: Option<String>,
    decision: Option<&'static str>,
}

/// The call in hand is from somebody who shows a key that is in force: their word counts.
pub(crate) fn note_known_caller() {
    let _ = CALL.try_with(|call| call.told.store(true, Ordering::Relaxed));
}

fn note(write: impl FnOnce(&mut Noted)) {
    // Most calls are not sampled.
    let _ = CALL.try_with(|call| {
        write(&mut call.noted.lock().unwrap_or_else(PoisonError::into_inner));
    });
}

/// The call in hand has this correlation id: at most 128 visible ASCII characters.
pub(crate) fn note_correlation_id(id: &str) {
    note(|noted| noted.correlation_id = Some(id.to_owned()));
}

/// The call in hand is answered with this decision.
pub(crate) fn note_decision(name: impl FnOnce() -> Option<&'static str>) {
    note(|noted| noted.decision = name());
}

/// Begins a part of the call in hand, if that is sampled.
pub(crate) fn part(name: &'static str) -> Option<Part> {
    let begin = |call: &Arc<Call>| Part {
        call: Arc::clone(call),
        name,
        began: now(),
        clock: Instant::now(),
        failed: false,
    };
    CALL.try_with(begin).ok()
}

/// A part of a call, until it is dropped.
pub(crate) struct Part {
    call: Arc<Call>,
    name: &'static str,
    began: SystemTime,
    clock: Instant,
    failed: bool,
}

impl Part {
    /// It did not do what it was for.
    pub(crate) fn fail(&mut self) {
        self.failed = true;
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let Call { spans, trace_id, span_id, .. } = &*self.call;
        spans.ended(Span {
            trace_id: *trace_id,
            span_id: spans.ids.span(),
            parent: Some((*span_id, false)),
            name: Cow::Borrowed(self.name),
            is_call: false,
            began: self.began,
            took: self.clock.elapsed(),
            failed: self.failed,
            attributes: Vec::new(),
        });
    }
}

/// The span of a call under way.
pub(crate) struct CallSpan {
    call: Arc<Call>,
    parent: Option<u64>,
    began: SystemTime,
    clock: Instant,
}

impl CallSpan {
    /// Does some of the call's work.
    pub(crate) fn within<T>(&self, work: impl FnOnce() -> T) -> T {
        CALL.sync_scope(Arc::clone(&self.call), work)
    }

    /// The call ended. Service and method are the protocol's names, none where it was a
    /// method that there is not.
    pub(crate) fn end(self, named: Option<(&str, &str)>, code: Code) {
        let Call { spans, trace_id, span_id, told, noted } = &*self.call;
        if !told.load(Ordering::Relaxed) {
            return;
        }
        let noted = std::mem::take(&mut *noted.lock().unwrap_or_else(PoisonError::into_inner));
        let text = |text: &str| Value::Text(Cow::Owned(text.to_owned()));
        let (name, service, method) = match named {
            Some((service, method)) => {
                (Cow::Owned(format!("{service}/{method}")), Some(text(service)), text(method))
            }
            None => (Cow::Borrowed(OTHER), None, Value::word(OTHER)),
        };
        let address = Some(spans.address.ip()).filter(|ip| !ip.is_unspecified());
        let optional = [
            ("rpc.service", service),
            ("server.address", address.map(|ip| Value::Text(Cow::Owned(ip.to_string())))),
            ("keyledger.correlation_id", noted.correlation_id.map(|id| Value::Text(id.into()))),
            ("keyledger.decision", noted.decision.map(Value::word)),
        ];
        let mut attributes = vec![
            ("rpc.system", Value::word("grpc")),
            ("rpc.method", method),
            ("rpc.grpc.status_code", Value::Number((code as i32).into())),
            ("server.port", Value::Number(spans.address.port().into())),
        ];
        attributes.extend(optional.into_iter().filter_map(|(name, value)| Some((name, value?))));
        spans.ended(Span {
            trace_id: *trace_id,
            span_id: *span_id,
            parent: self.parent.map(|parent| (parent, true)),
            name,
            is_call: true,
            began: self.began,
            took: self.clock.elapsed(),
            failed: is_fault(code),
            attributes,
        });
    }
}

/// The name of whatever method there is not.
const OTHER: &str = "_OTHER";

/// Whether a status is a failure of the server's, as the conventions have it: what is the
/// caller's fault leaves the span's own status unset.
fn is_fault(code: Code) -> bool {
    match code {
        Code::Unknown
        | Code::DeadlineExceeded
        | Code::Unimplemented
        | Code::Internal
        | Code::Unavailable
        | Code::DataLoss => true,
        Code::Ok
        | Code::Cancelled
        | Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unauthenticated => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spans(sample_ratio: f64) -> (Arc<Spans>, mpsc::Receiver<Span>) {
        let (waiting, ended) = mpsc::channel(2);
        let address = "127.0.0.1:7".parse().unwrap();
        let (ids, stats) = (Ids::from_seed(1), Arc::default());
        (Arc::new(Spans { sample_ratio, address, ids, waiting, stats }), ended)
    }

    fn from(parent: &str) -> HeaderMap {
        HeaderMap::from_iter([(
            http::HeaderName::from_static("traceparent"),
            parent.parse().unwrap(),
        )])
    }

    const SAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    const NOT_SAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";

    #[test]
    fn the_callers_word_goes_before_chance() {
        let sampled = |ratio, headers: &HeaderMap| spans(ratio).0.call(headers).is_some();
        let none = HeaderMap::new();
        assert!(sampled(1.0, &none) && !sampled(0.0, &none));
        assert!(sampled(0.0, &from(SAMPLED)) && !sampled(1.0, &from(NOT_SAMPLED)));
        assert!(sampled(1.0, &from("nonsense")) && !sampled(0.0, &from("nonsense")));
        let half = spans(0.5).0;
        let some = (0..10_000).filter(|_| half.call(&none).is_some()).count();
        assert!((4_000..6_000).contains(&some), "{some}: by chance once in 10^80 runs");
    }

    #[test]
    fn a_full_queue_drops_and_counts() {
        let (spans, mut ended) = spans(1.0);
        for _ in 0..5 {
            spans.call(&HeaderMap::new()).unwrap().end(None, Code::Ok);
        }
        assert_eq!(spans.stats.full.value(), 3);
        ended.close();
        assert_eq!(std::iter::from_fn(|| ended.try_recv().ok()).count(), 2);
    }

    #[test]
    fn a_strangers_word_does_not_count() {
        let told = |ratio, headers: &HeaderMap, known| {
            let (spans, mut ended) = spans(ratio);
            let call = spans.call(headers).unwrap();
            if known {
                call.within(note_known_caller);
            }
            call.end(None, Code::Unauthenticated);
            ended.try_recv().is_ok()
        };
        assert!(told(0.0, &from(SAMPLED), true) && !told(0.0, &from(SAMPLED), false));
        assert!(told(1.0, &from(SAMPLED), false) && told(1.0, &HeaderMap::new(), false));
    }

    #[test]
    fn parts_and_notes_find_the_call_in_hand_and_no_other() {
        let (spans, mut ended) = spans(1.0);
        note_correlation_id("nobody's");
        assert!(part(APPEND).is_none());
        let call = spans.call(&from(SAMPLED)).unwrap();
        call.within(|| {
            note_known_caller();
            note_correlation_id("c");
            note_decision(|| Some("ALLOWED"));
            part(APPEND).unwrap().fail();
        });
        assert!(part(APPEND).is_none());
        call.end(Some(("s", "m")), Code::NotFound);
        let (append, call) = (ended.try_recv().unwrap(), ended.try_recv().unwrap());
        assert_eq!(append.parent, Some((call.span_id, false)));
        assert_eq!(call.parent, Some((0xb7ad_6b71_6920_3331, true)));
        assert_eq!(append.trace_id, call.trace_id);
        assert_eq!(call.trace_id, 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c);
        assert_eq!((append.failed, call.failed), (true, false));
        assert_eq!((&*append.name, &*call.name), ("append", "s/m"));
        let named = |name: &str| {
            call.attributes.iter().any(|(it, value)| {
                *it == name
                    && matches!(value, Value::Text(text) if text == "c" || text == "ALLOWED")
            })
        };
        assert!(named("keyledger.correlation_id") && named("keyledger.decision"));
    }
}
