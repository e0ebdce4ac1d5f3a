//! What Prometheus is told: the figures that others count, under their names.
//!
//! No label holds an identifier of a key or an organization, an address, or anything
//! else that a caller could make many of. docs/OPERATING.md has every name in a table.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;
use prometheus_client::registry::Registry;

use crate::delivery::DeliveryStats;
use crate::ledger::Ledger;
use crate::ledger::event_store::EventStore;
use crate::ledger::urgency::Urgency;
use crate::meter::Histogram;
use crate::server::calls::Calls;
use crate::server::stats::ConnectionStats;
use crate::services::Door;
use crate::services::answers::ANSWERS;
use crate::spans::SpanStats;
use crate::store::stats::StoreStats;

/// What the text is, for its reader.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const NANOS_PER_SECOND: f64 = 1e9;

/// Where the figures are.
pub(crate) struct Sources {
    pub(crate) door: Door,
    pub(crate) store: Arc<StoreStats>,
    pub(crate) events: Arc<dyn EventStore>,
    pub(crate) calls: Arc<Calls>,
    pub(crate) connections: Arc<ConnectionStats>,
    pub(crate) spans: Arc<SpanStats>,
    pub(crate) delivery: Option<Arc<DeliveryStats>>,
    /// When this process began to serve, in milliseconds since 1970.
    pub(crate) started_ms: i64,
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sources")
    }
}

/// Metrics, ready to be written down.
pub(crate) struct Metrics(Registry);

impl Metrics {
    pub(crate) fn new(sources: Sources) -> Self {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(sources));
        Self(registry)
    }

    /// All figures as they are now, in the text form of OpenMetrics.
    pub(crate) fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.0)?;
        Ok(text)
    }
}

type Labels<'a> = &'a [(&'static str, &'a str)];
const NO_LABELS: Labels<'static> = &[];

/// Writes one family after the other.
struct Writer<'a>(DescriptorEncoder<'a>);

impl Writer<'_> {
    fn family(
        &mut self,
        name: &str,
        help: &str,
        kind: MetricType,
        write: impl FnOnce(&mut MetricEncoder<'_>) -> fmt::Result,
    ) -> fmt::Result {
        write(&mut self.0.encode_descriptor(name, help, None, kind)?)
    }

    fn gauge(&mut self, name: &str, help: &str, value: Option<f64>) -> fmt::Result {
        self.family(name, help, MetricType::Gauge, |metric| match value {
            Some(value) => metric.encode_gauge(&value),
            None => Ok(()),
        })
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.family(name, help, MetricType::Counter, |metric| count(metric, NO_LABELS, value))
    }

    /// A histogram of values that are counted in parts of the metric's unit.
    fn histogram(&mut self, name: &str, help: &str, parts: f64, of: &Histogram) -> fmt::Result {
        let write = |metric: &mut MetricEncoder<'_>| histogram(metric, NO_LABELS, parts, of);
        self.family(name, help, MetricType::Histogram, write)
    }
}

fn count(metric: &mut MetricEncoder<'_>, labels: Labels<'_>, value: u64) -> fmt::Result {
    const NONE: Option<&Exemplar<[(&str, &str); 0], u64>> = None;
    if labels.is_empty() {
        metric.encode_counter(&value, NONE)
    } else {
        metric.encode_family(&Set(labels))?.encode_counter(&value, NONE)
    }
}

fn histogram(
    metric: &mut MetricEncoder<'_>,
    labels: Labels<'_>,
    parts: f64,
    of: &Histogram,
) -> fmt::Result {
    #[expect(
        clippy::cast_precision_loss,
        reason = "figures of this size lose nothing that matters"
    )]
    let real = |value: u64| value as f64 / parts;
    let buckets: Vec<(f64, u64)> =
        of.buckets().map(|(bound, count)| (bound.map_or(f64::INFINITY, real), count)).collect();
    let all = buckets.iter().map(|(_, count)| count).sum();
    let sum = real(of.sum());
    if labels.is_empty() {
        metric.encode_histogram::<Set<'_>>(sum, all, &buckets, None)
    } else {
        metric.encode_family(&Set(labels))?.encode_histogram::<Set<'_>>(sum, all, &buckets, None)
    }
}

/// Labels of one sample.
struct Set<'a>(Labels<'a>);

impl EncodeLabelSet for Set<'_> {
    fn encode(
        &self,
        encoder: &mut prometheus_client::encoding::LabelSetEncoder<'_>,
    ) -> fmt::Result {
        self.0.encode(encoder)
    }
}

impl Collector for Sources {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut out = Writer(encoder);
        self.process(&mut out)?;
        self.verification(&mut out)?;
        self.requests(&mut out)?;
        self.connections(&mut out)?;
        self.delivery(&mut out)?;
        self.spans(&mut out)?;
        self.writes(&mut out)?;
        let ledger = self.door.ledger().map(Arc::as_ref);
        self.break_glass(&mut out, ledger)?;
        self.tables(&mut out, ledger)
    }
}

#[expect(clippy::cast_precision_loss, reason = "figures of this size lose nothing that matters")]
impl Sources {
    fn process(&self, out: &mut Writer<'_>) -> fmt::Result {
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        out.family("keyledger_build", "The release that runs", MetricType::Info, |metric| {
            metric.encode_info(&version)
        })?;
        out.gauge(
            "process_start_time_seconds",
            "When the server began, in seconds since 1970",
            Some(self.started_ms as f64 / 1e3),
        )?;
        let ready = if self.door.ledger().is_some() { 1.0 } else { 0.0 };
        out.gauge("keyledger_ready", "1 once history is replayed", Some(ready))
    }

    fn verification(&self, out: &mut Writer<'_>) -> fmt::Result {
        let help = "Answers to verifications";
        out.family("keyledger_decisions", help, MetricType::Counter, |metric| {
            for (code, number) in ANSWERS.counts() {
                count(metric, &[("code", code)], number)?;
            }
            Ok(())
        })?;
        out.histogram(
            "keyledger_verification_seconds",
            "Time from a question to its answer inside the server; one in 16 is timed",
            NANOS_PER_SECOND,
            &ANSWERS.time_ns,
        )
    }

    fn requests(&self, out: &mut Writer<'_>) -> fmt::Result {
        let methods = self.calls.all();
        let help = "Calls that ended";
        out.family("keyledger_requests", help, MetricType::Counter, |metric| {
            for it in &methods {
                for (code, number) in it.codes().filter(|(_, number)| *number > 0) {
                    let code = code_name(code);
                    let labels: Labels<'_> =
                        &[("service", &it.service), ("method", &it.method), ("code", code)];
                    count(metric, labels, number)?;
                }
            }
            Ok(())
        })?;
        let help = "Time from a call to its answer, or to the end of its stream";
        out.family("keyledger_request_seconds", help, MetricType::Histogram, |metric| {
            for it in methods.iter().filter(|it| it.codes().any(|(_, number)| number > 0)) {
                let labels: Labels<'_> = &[("service", &it.service), ("method", &it.method)];
                histogram(metric, labels, NANOS_PER_SECOND, &it.time_ns)?;
            }
            Ok(())
        })?;
        let inside = self.door.inside() as f64;
        out.gauge("keyledger_requests_inside", "Requests under way", Some(inside))
    }

    fn connections(&self, out: &mut Writer<'_>) -> fmt::Result {
        let it = &self.connections;
        let open = it.open.value() as f64;
        out.gauge("keyledger_connections_open", "Connections that are open", Some(open))?;
        let help = "Connections that were let in";
        out.counter("keyledger_connections_accepted", help, it.accepted.value())?;
        let help = "Connections that were closed at once because too many were open";
        out.counter("keyledger_connections_refused", help, it.refused.value())?;
        let help = "TLS handshakes that failed or took too long";
        out.counter("keyledger_tls_handshakes_failed", help, it.handshakes_failed.value())
    }

    fn delivery(&self, out: &mut Writer<'_>) -> fmt::Result {
        let count = |of: fn(&DeliveryStats) -> u64| self.delivery.as_deref().map_or(0, of);
        let help = "One-time tokens that were handed to the program or the relay that delivers";
        out.counter("keyledger_tokens_delivered", help, count(DeliveryStats::delivered))?;
        let help = "One-time tokens that could not be delivered";
        out.counter("keyledger_tokens_undelivered", help, count(DeliveryStats::failed))
    }

    fn spans(&self, out: &mut Writer<'_>) -> fmt::Result {
        let it = &self.spans;
        out.counter(
            "keyledger_spans_exported",
            "Spans that a collector took",
            it.exported.value(),
        )?;
        let help = "Spans that no collector took";
        out.family("keyledger_spans_dropped", help, MetricType::Counter, |metric| {
            for (reason, number) in
                [("full", &it.full), ("failed", &it.failed), ("rejected", &it.rejected)]
            {
                count(metric, &[("reason", reason)], number.value())?;
            }
            Ok(())
        })
    }

    fn writes(&self, out: &mut Writer<'_>) -> fmt::Result {
        let it = &self.store;
        let help = "Events that were made durable together";
        out.histogram("keyledger_commit_events", help, 1.0, &it.commit_events)?;
        let help = "Appends that were made durable together";
        out.histogram("keyledger_commit_appends", help, 1.0, &it.commit_appends)?;
        let help = "Time until a commit was on disk";
        out.histogram("keyledger_commit_seconds", help, NANOS_PER_SECOND, &it.commit_ns)?;
        let fenced = it.fenced.value() as f64;
        let help = "1 once the store refuses writes until a restart";
        out.gauge("keyledger_store_fenced", help, Some(fenced))?;
        let full = f64::from(u8::from(self.events.is_full(Urgency::Normal)));
        let help = "1 while what is not urgent is refused for want of space";
        out.gauge("keyledger_store_full", help, Some(full))
    }

    fn break_glass(&self, out: &mut Writer<'_>, ledger: Option<&Ledger>) -> fmt::Result {
        let help = "Break-glass grants that something is still to come of";
        out.family("keyledger_break_glass_grants", help, MetricType::Gauge, |metric| {
            let Some(ledger) = ledger else { return Ok(()) };
            let it = ledger.break_glass().gauges(ledger.clock().now());
            for (state, number) in [
                ("awaiting_approval", it.awaiting_approval),
                ("open", it.open),
                ("unreviewed", it.unreviewed),
                ("overdue", it.overdue),
            ] {
                let labels: Labels<'_> = &[("state", state)];
                metric.encode_family(&Set(labels))?.encode_gauge(&(number as f64))?;
            }
            Ok(())
        })?;
        let help = "What befell break-glass grants, beside their uses";
        out.family("keyledger_break_glass_alerts", help, MetricType::Counter, |metric| {
            let Some(ledger) = ledger else { return Ok(()) };
            for (kind, number) in ledger.break_glass().counts() {
                count(metric, &[("kind", kind.name())], number)?;
            }
            Ok(())
        })
    }

    fn tables(&self, out: &mut Writer<'_>, ledger: Option<&Ledger>) -> fmt::Result {
        let stats = ledger.map(Ledger::stats);
        let help = "Events that were sent to the store and are not in the tables yet";
        let in_flight = stats.map(|it| it.in_flight.value() as f64);
        out.gauge("keyledger_events_in_flight", help, in_flight)?;
        let help = "Time from sending events off to knowing what came of them";
        out.family(
            "keyledger_append_seconds",
            help,
            MetricType::Histogram,
            |metric| match stats {
                Some(stats) => histogram(metric, NO_LABELS, NANOS_PER_SECOND, &stats.append_ns),
                None => Ok(()),
            },
        )?;
        let all = ledger.map(|ledger| ledger.tables().all());
        let keys = all.as_ref().map(|all| {
            let of = |(keys, revoked): (u64, u64)| keys.saturating_sub(revoked);
            all.iter().map(|it| of(it.tables().key_counts())).sum::<u64>() as f64
        });
        out.gauge("keyledger_keys_not_revoked", "Keys that are not revoked", keys)?;
        let organizations = all.as_ref().map(|all| all.len() as f64);
        let help = "Organizations, the operator's included";
        out.gauge("keyledger_organizations", help, organizations)?;
        let stopped =
            all.as_ref().map(|all| all.iter().filter(|it| it.stopped().is_some()).count() as f64);
        let help = "Organizations that answer nothing because their history is damaged";
        out.gauge("keyledger_organizations_stopped", help, stopped)?;
        let accounts = ledger.map(|ledger| ledger.accounts().len() as f64);
        out.gauge("keyledger_accounts", "Streams of accounts", accounts)?;
        let stopped = ledger.map(|ledger| ledger.accounts().stopped_count() as f64);
        let help = "Accounts and e-mails that are unavailable because their history is damaged";
        out.gauge("keyledger_accounts_stopped", help, stopped)?;
        let behind = ledger.map(|ledger| ledger.activity_index_behind() as f64);
        let help = "Events that the activity index does not know yet";
        out.gauge("keyledger_activity_index_behind_events", help, behind)?;
        let damaged = ledger.map_or(0, Ledger::activity_index_damaged);
        let help = "How often the activity index was found to be damaged";
        out.counter("keyledger_activity_index_damaged", help, damaged)?;
        let ahead = ledger.map(|ledger| ledger.clock().ahead_ms() as f64 / 1e3);
        let help = "By how much the wall clock has outrun the boot clock";
        out.gauge("keyledger_clock_ahead_seconds", help, ahead)
    }
}

/// As gRPC writes it.
fn code_name(code: tonic::Code) -> &'static str {
    use tonic::Code;
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
