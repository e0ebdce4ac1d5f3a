//! Spans on their way to a collector, in batches, off everybody's way (OTLP over gRPC).
//!
//! One task sends one batch at a time. A collector that is slow, gone or talks nonsense costs
//! that task some time and the spans of that batch, never more than [`EXPORT_MAX`]: there is
//! no second try, so that what waits is bounded by its queue. The log hears of it
//! once in [`TELL_AGAIN`] at most; `/metrics` has the figures.

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{
    ResourceSpans, ScopeSpans, Span as WireSpan, SpanFlags, Status as WireStatus,
};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};
use tonic::{Request, Status};

use super::{Span, SpanStats, Value};
use crate::config::Collector;

/// Most spans in one batch.
const BATCH_MAX: usize = 512;
/// How long the first span of a batch waits for others.
const BATCH_WAIT: Duration = Duration::from_secs(1);
/// Longest time for one batch, the connection included.
const EXPORT_MAX: Duration = Duration::from_secs(5);
/// Longest time for what waits when the server ends.
const FLUSH_MAX: Duration = Duration::from_secs(3);
/// How often the log may hear that spans are dropped.
const TELL_AGAIN: Duration = Duration::from_secs(60);
/// Most bytes of a collector's answer.
const ANSWER_BYTES_MAX: usize = 16 * 1024;
/// Most characters of a collector's words in the log.
const WORDS_CHARS_MAX: usize = 200;
/// The conventions that the names of attributes follow.
const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.30.0";
/// In the flags of a span: sampled.
const SAMPLED: u32 = 1;

/// Why spans cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The operating system gives no entropy.
    #[error("the operating system gives no entropy")]
    NoEntropy,
    /// TLS to the collector cannot be set up.
    #[error(
        "`otel_endpoint`: TLS cannot be set up; are the system's authorities installed (`ca-certificates`)?"
    )]
    Tls(#[source] tonic::transport::Error),
}

/// Sends spans, until it is dropped.
pub(crate) struct Exporter {
    task: JoinHandle<()>,
    stop: Option<oneshot::Sender<()>>,
}

impl Exporter {
    /// Begins to send what comes. A collector that is not there is no error.
    pub(super) fn start(
        collector: &Collector,
        ended: mpsc::Receiver<Span>,
        stats: Arc<SpanStats>,
    ) -> Result<Self, ExportError> {
        let channel = connect(collector).map_err(ExportError::Tls)?;
        let client = TraceServiceClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX);
        let (stop, stopping) = oneshot::channel();
        let worker = Worker {
            client,
            resource: resource(&collector.service_name),
            ended,
            stopping: Some(stopping),
            batch: Vec::with_capacity(BATCH_MAX),
            stats,
            told: None,
            told_dropped: 0,
        };
        Ok(Self { task: tokio::spawn(worker.run()), stop: Some(stop) })
    }

    /// Sends what waits and ends, within [`FLUSH_MAX`].
    pub(crate) async fn flush(mut self) {
        drop(self.stop.take());
        if tokio::time::timeout(FLUSH_MAX, &mut self.task).await.is_err() {
            tracing::warn!("the last spans were dropped: the collector does not take them");
        }
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Connects when there is something to send, and again whenever that is needed.
fn connect(collector: &Collector) -> Result<Channel, tonic::transport::Error> {
    let mut endpoint = Endpoint::from(collector.endpoint.uri().clone())
        .user_agent(concat!("keyledger/", env!("CARGO_PKG_VERSION")))?
        .connect_timeout(EXPORT_MAX);
    if collector.endpoint.is_tls() {
        endpoint = endpoint.tls_config(ClientTlsConfig::new().with_native_roots())?;
    }
    Ok(endpoint.connect_lazy())
}

struct Worker {
    client: TraceServiceClient<Channel>,
    resource: Resource,
    ended: mpsc::Receiver<Span>,
    /// Until the server ends.
    stopping: Option<oneshot::Receiver<()>>,
    batch: Vec<Span>,
    stats: Arc<SpanStats>,
    told: Option<Instant>,
    told_dropped: u64,
}

impl Worker {
    async fn run(mut self) {
        loop {
            let more = self.gather().await;
            if !self.batch.is_empty() {
                let outcome = self.send().await;
                self.tell(outcome.err());
            }
            if !more {
                return;
            }
        }
    }

    /// Fills a batch, in [`BATCH_WAIT`] from its first span; gives whether more can come.
    async fn gather(&mut self) -> bool {
        let mut until = None;
        while let room @ 1.. = BATCH_MAX.saturating_sub(self.batch.len()) {
            let full = tokio::time::sleep_until(until.unwrap_or_else(tokio::time::Instant::now));
            let stop = async {
                match &mut self.stopping {
                    // A sender that is gone means the same.
                    Some(stopping) => drop(stopping.await),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                came = self.ended.recv_many(&mut self.batch, room) => {
                    if came == 0 {
                        return false;
                    }
                    until.get_or_insert_with(|| tokio::time::Instant::now() + BATCH_WAIT);
                }
                () = stop => {
                    self.stopping = None;
                    self.ended.close();
                }
                () = full, if until.is_some() => return true,
            }
        }
        true
    }

    /// Sends the batch, and counts what came of it.
    async fn send(&mut self) -> Result<(), String> {
        let spans: Vec<WireSpan> = self.batch.drain(..).map(wire).collect();
        let sent = u64::try_from(spans.len()).unwrap_or(u64::MAX);
        let scope = InstrumentationScope {
            name: env!("CARGO_PKG_NAME").to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..InstrumentationScope::default()
        };
        let scope_spans =
            vec![ScopeSpans { scope: Some(scope), spans, schema_url: SCHEMA_URL.to_owned() }];
        let resource_spans = vec![ResourceSpans {
            resource: Some(self.resource.clone()),
            scope_spans,
            schema_url: SCHEMA_URL.to_owned(),
        }];
        let mut request = Request::new(ExportTraceServiceRequest { resource_spans });
        request.set_timeout(EXPORT_MAX);
        let answer = match tokio::time::timeout(EXPORT_MAX, self.client.export(request)).await {
            Ok(Ok(answer)) => answer.into_inner(),
            Ok(Err(status)) => {
                self.stats.failed.add(sent);
                return Err(why(&status));
            }
            Err(_) => {
                self.stats.failed.add(sent);
                return Err(format!("no answer within {EXPORT_MAX:?}"));
            }
        };
        let refused = answer.partial_success.unwrap_or_default();
        // It may say what it likes: no more than all, no fewer than none.
        let rejected = u64::try_from(refused.rejected_spans).unwrap_or(0).min(sent);
        self.stats.exported.add(sent - rejected);
        self.stats.rejected.add(rejected);
        if rejected > 0 { Err(words(&refused.error_message)) } else { Ok(()) }
    }

    /// Tells the log that spans were dropped, now and then.
    fn tell(&mut self, error: Option<String>) {
        let SpanStats { full, failed, rejected, .. } = &*self.stats;
        let dropped = full.value() + failed.value() + rejected.value();
        let spans = dropped.saturating_sub(self.told_dropped);
        if spans == 0 || self.told.is_some_and(|told| told.elapsed() < TELL_AGAIN) {
            return;
        }
        self.told = Some(Instant::now());
        self.told_dropped = dropped;
        let error = error.unwrap_or_else(|| "more came than could be sent".to_owned());
        tracing::warn!(spans, error, "spans were dropped");
    }
}

/// Why a batch was not taken.
fn why(status: &Status) -> String {
    let mut cause: Option<&(dyn Error + 'static)> = status.source();
    let mut text = status.message().to_owned();
    while let Some(error) = cause {
        text = error.to_string();
        cause = error.source();
    }
    format!("{:?}: {}", status.code(), words(&text))
}

/// A stranger's words, short and without what a terminal would obey.
fn words(text: &str) -> String {
    text.chars().take(WORDS_CHARS_MAX).flat_map(char::escape_debug).collect()
}

fn resource(service_name: &str) -> Resource {
    let attributes = vec![
        text("service.name", service_name.to_owned()),
        text("service.version", env!("CARGO_PKG_VERSION").to_owned()),
    ];
    Resource { attributes, ..Resource::default() }
}

fn text(key: &str, value: String) -> KeyValue {
    attribute(key, any_value::Value::StringValue(value))
}

fn attribute(key: &str, value: any_value::Value) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

fn wire(span: Span) -> WireSpan {
    let began = span.began.duration_since(UNIX_EPOCH).unwrap_or_default();
    let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    let kind = if span.is_call { SpanKind::Server } else { SpanKind::Internal };
    let code = if span.failed { StatusCode::Error } else { StatusCode::Unset };
    let (parent, remote) = span.parent.unzip();
    let mut flags = SAMPLED | SpanFlags::ContextHasIsRemoteMask as u32;
    if remote == Some(true) {
        flags |= SpanFlags::ContextIsRemoteMask as u32;
    }
    let attributes = span.attributes.into_iter().map(|(name, value)| match value {
        Value::Text(value) => text(name, value.into_owned()),
        Value::Number(value) => attribute(name, any_value::Value::IntValue(value)),
    });
    WireSpan {
        trace_id: span.trace_id.to_be_bytes().to_vec(),
        span_id: span.span_id.to_be_bytes().to_vec(),
        parent_span_id: parent.map(|parent| parent.to_be_bytes().to_vec()).unwrap_or_default(),
        flags,
        name: span.name.into_owned(),
        kind: kind.into(),
        start_time_unix_nano: nanos(began),
        end_time_unix_nano: nanos(began.saturating_add(span.took)),
        attributes: attributes.collect(),
        status: Some(WireStatus { code: code.into(), message: String::new() }),
        ..WireSpan::default()
    }
}
