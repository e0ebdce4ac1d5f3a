//! gRPC calls, counted by method and status.
//!
//! Methods come from the descriptors, so no caller can make a new series. A status is
//! read off the answer: a unary method that fails says so in its headers; of a stream,
//! the end is watched. A call that nobody waits for any more is CANCELLED.
//!
//! Where a collector is told about calls, a call's span begins and ends here too.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Frame;
use pin_project_lite::pin_project;
use prost::Message as _;
use prost::bytes::Bytes;
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Layer, Service};

use crate::meter::{Counter, Histogram};
use crate::services::authentication::X_TENANT_ID;
use crate::spans::{CallSpan, Spans};

/// The name of whatever method there is not, and of its service.
const OTHER: &str = "other";
/// Status codes are 0 to 16.
const CODES: usize = 17;
/// From 50 µs to 30 s.
const CALL_NS: &[u64] = &[
    50_000,
    100_000,
    200_000,
    500_000,
    1_000_000,
    2_000_000,
    5_000_000,
    10_000_000,
    20_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
    30_000_000_000,
];

/// What is counted about one method.
#[derive(Debug)]
pub(crate) struct Method {
    /// The service's full name.
    pub(crate) service: String,
    /// The method's name.
    pub(crate) method: String,
    /// Nanoseconds from a call's headers to its answer's, or to the end of its stream.
    pub(crate) time_ns: Histogram,
    codes: [Counter; CODES],
    streams: bool,
}

impl Method {
    fn new(service: &str, method: &str, streams: bool) -> Arc<Self> {
        Arc::new(Self {
            service: service.to_owned(),
            method: method.to_owned(),
            time_ns: Histogram::new(CALL_NS),
            codes: Default::default(),
            streams,
        })
    }

    /// Service and method, unless it stands for what is none.
    fn named(&self) -> Option<(&str, &str)> {
        (self.service != OTHER).then_some((&*self.service, &*self.method))
    }

    /// How many calls ended with each status.
    pub(crate) fn codes(&self) -> impl Iterator<Item = (Code, u64)> {
        (0..).map(Code::from_i32).zip(self.codes.iter().map(Counter::value))
    }
}

/// All methods, counted.
#[derive(Debug)]
pub(crate) struct Calls {
    methods: HashMap<String, Arc<Method>>,
    /// Whatever is none of them.
    other: Arc<Method>,
}

impl Calls {
    /// The methods of these descriptors. Those that cannot be read are left out.
    pub(crate) fn new(descriptors: &[&[u8]]) -> Self {
        let mut methods = HashMap::new();
        for set in descriptors {
            let set = prost_types::FileDescriptorSet::decode(*set).unwrap_or_default();
            for file in &set.file {
                for service in &file.service {
                    let name = format!("{}.{}", file.package(), service.name());
                    for it in &service.method {
                        let streams = it.server_streaming();
                        let method = Method::new(&name, it.name(), streams);
                        methods.insert(format!("/{name}/{}", it.name()), method);
                    }
                }
            }
        }
        Self { methods, other: Method::new(OTHER, OTHER, true) }
    }

    /// Every method, in the order of their names.
    pub(crate) fn all(&self) -> Vec<&Method> {
        let mut all: Vec<&Method> = self.methods.values().map(Arc::as_ref).collect();
        all.sort_by(|a, b| (&a.service, &a.method).cmp(&(&b.service, &b.method)));
        all.push(&self.other);
        all
    }

    fn method(&self, path: &str) -> &Arc<Method> {
        self.methods.get(path).unwrap_or(&self.other)
    }
}

/// A call under way.
struct Call {
    method: Arc<Method>,
    began: Instant,
    ended: bool,
    span: Option<Box<CallSpan>>,
}

impl Call {
    fn end(&mut self, code: Code) {
        if !std::mem::replace(&mut self.ended, true) {
            // What is no code is UNKNOWN by now.
            if let Some(count) = self.method.codes.get(code as usize) {
                count.count();
            }
            self.method.time_ns.observe_time(self.began.elapsed());
            if let Some(span) = self.span.take() {
                span.end(self.method.named(), code);
            }
        }
    }

    /// Does some of its work, inside its span.
    fn within<T>(&self, work: impl FnOnce() -> T) -> T {
        match &self.span {
            None => work(),
            Some(span) => span.within(work),
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.end(Code::Cancelled);
    }
}

fn code(headers: &HeaderMap) -> Option<Code> {
    headers.get(Status::GRPC_STATUS).map(|value| Code::from_bytes(value.as_bytes()))
}

/// Counts the calls of a service, and has spans made of them.
#[derive(Clone)]
pub(super) struct Counting {
    pub(super) calls: Arc<Calls>,
    pub(super) spans: Option<Arc<Spans>>,
}

impl<S> Layer<S> for Counting {
    type Service = Counted<S>;

    fn layer(&self, service: S) -> Counted<S> {
        Counted { service, counting: self.clone() }
    }
}

/// A service whose calls are counted.
#[derive(Clone)]
pub(super) struct Counted<S> {
    service: S,
    counting: Counting,
}

impl<S, B> Service<Request<B>> for Counted<S>
where
    S: Service<Request<B>, Response = Response<Body>, Error = Infallible>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = CountedFuture<S::Future>;

    fn poll_ready(&mut self, ctx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(ctx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let Counting { calls, spans } = &self.counting;
        let method = Arc::clone(calls.method(request.uri().path()));
        let span = spans.as_ref().and_then(|spans| spans.call(request.headers()));
        let call = Call { method, began: Instant::now(), ended: false, span };
        // A call that is not refused is for the organization that it names.
        let tenant = request.headers().get(&X_TENANT_ID).cloned();
        let future = call.within(|| self.service.call(request));
        CountedFuture { future, call: Some(call), tenant }
    }
}

pin_project! {
    /// An answer on its way.
    pub(super) struct CountedFuture<F> {
        #[pin]
        future: F,
        call: Option<Call>,
        tenant: Option<HeaderValue>,
    }
}

impl<F> Future for CountedFuture<F>
where
    F: Future<Output = Result<Response<Body>, Infallible>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, ctx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let polled = match this.call {
            Some(call) => call.within(|| this.future.poll(ctx)),
            None => this.future.poll(ctx),
        };
        let Ok(mut response) = ready!(polled);
        if let Some(tenant) = this.tenant.take()
            && code(response.headers()).is_none_or(|code| code == Code::Ok)
        {
            response.headers_mut().insert(&X_TENANT_ID, tenant);
        }
        let Some(mut call) = this.call.take() else { return Poll::Ready(Ok(response)) };
        if response.status() != http::StatusCode::OK {
            // No answer of gRPC: a page that is not there, say.
            call.ended = true;
            return Poll::Ready(Ok(response));
        }
        match code(response.headers()) {
            Some(code) => call.end(code),
            None if !call.method.streams => call.end(Code::Ok),
            None => {
                let watch = |body| Body::new(CountedBody { body, call });
                return Poll::Ready(Ok(response.map(watch)));
            }
        }
        Poll::Ready(Ok(response))
    }
}

/// A stream of answers whose end is watched.
struct CountedBody {
    body: Body,
    call: Call,
}

impl http_body::Body for CountedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        ctx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Self { body, call } = &mut *self;
        let frame = ready!(call.within(|| Pin::new(body).poll_frame(ctx)));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(code) = frame.trailers_ref().and_then(code) {
                    call.end(code);
                }
            }
            Some(Err(status)) => call.end(status.code()),
            // Trailers that are part of the body, as gRPC-Web has them, cannot be seen.
            None => call.end(Code::Ok),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt as _;

    fn counting(calls: &Arc<Calls>) -> Counting {
        Counting { calls: Arc::clone(calls), spans: None }
    }

    fn counted(path: &str, headers: &[(&str, &str)]) -> (Calls, Vec<(Code, u64)>) {
        let calls = Arc::new(Calls::new(&[crate::proto::FILE_DESCRIPTOR_SET]));
        let mut response = Response::new(Body::empty());
        for (name, value) in headers {
            let name: http::HeaderName = name.parse().unwrap();
            response.headers_mut().insert(name, value.parse().unwrap());
        }
        let mut response = Some(response);
        let answer = move |_: Request<()>| std::future::ready(Ok(response.take().unwrap()));
        let mut service = counting(&calls).layer(tower::util::service_fn(answer));
        let request = Request::builder().uri(path).body(()).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let Ok(response) = service.call(request).await;
            drop(response.into_body().collect().await);
        });
        drop(service);
        let method = Arc::clone(calls.method(path));
        let codes = method.codes().filter(|(_, count)| *count > 0).collect();
        (Arc::into_inner(calls).unwrap(), codes)
    }

    const VERIFY: &str = "/keyledger.v1.VerificationService/Verify";

    #[test]
    fn a_status_is_read_off_the_answer() {
        assert_eq!(counted(VERIFY, &[]).1, [(Code::Ok, 1)]);
        assert_eq!(counted(VERIFY, &[("grpc-status", "16")]).1, [(Code::Unauthenticated, 1)]);
        assert_eq!(counted(VERIFY, &[("grpc-status", "99")]).1, [(Code::Unknown, 1)]);
        let (calls, codes) = counted("/made.Up/Name", &[("grpc-status", "12")]);
        assert_eq!(codes, [(Code::Unimplemented, 1)]);
        assert!(calls.all().iter().all(|it| it.method != "Name"), "no series of a caller's making");
    }

    #[test]
    fn a_call_that_nobody_waits_for_is_cancelled() {
        let calls = Arc::new(Calls::new(&[crate::proto::FILE_DESCRIPTOR_SET]));
        let never = |_: Request<()>| std::future::pending::<Result<Response<Body>, Infallible>>();
        let mut service = counting(&calls).layer(tower::util::service_fn(never));
        drop(service.call(Request::builder().uri(VERIFY).body(()).unwrap()));
        let cancelled = calls.method(VERIFY).codes().find(|(_, count)| *count > 0);
        assert_eq!(cancelled, Some((Code::Cancelled, 1)));
    }
}
