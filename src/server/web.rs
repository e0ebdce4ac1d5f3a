//! One port for three ways of asking: gRPC, gRPC-Web, and plain HTTP.
//!
//! A request's content type says which it is. gRPC goes straight to its service; gRPC-Web
//! is translated on the way; all else finds a page or is told that there is none. Only
//! what browsers send is looked at for CORS.

use std::convert::Infallible;
use std::future::{Future, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::header::{
    ACCESS_CONTROL_ALLOW_ORIGIN, ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue,
};
use http::{Method, Request, Response, StatusCode, Version};
use http_body_util::BodyExt as _;
use pin_project_lite::pin_project;
use tonic::body::Body;
use tonic_web::{GrpcWebLayer, GrpcWebService};
use tower::{Layer, Service};
use tower_http::cors::{AllowOrigin, Cors, CorsLayer};

use super::Inner;
use crate::config::Origin;
use crate::ledger::sign_in::signing_keys::{JWKS_MAX_AGE_S, published};
use crate::services::session::CSRF_HEADER;
use crate::services::{Door, status};

const GRPC: &[u8] = b"application/grpc";
const GRPC_WEB: &[u8] = b"application/grpc-web";
/// Where the public keys that access tokens are signed with are read.
const JWKS_PATH: &str = "/.well-known/jwks.json";
/// How long a browser may remember what it was allowed.
const ALLOWED_FOR_SECONDS: u64 = 3_600;
/// What a page may send.
const REQUEST_HEADERS: [&str; 14] = [
    "authorization",
    "content-type",
    "grpc-timeout",
    "traceparent",
    "tracestate",
    "x-admin-api-key",
    "x-api-key",
    "x-break-glass-reason",
    "x-correlation-id",
    CSRF_HEADER,
    "x-grpc-web",
    "x-master-key",
    "x-tenant-id",
    "x-user-agent",
];
/// What a page may read.
const ANSWER_HEADERS: [&str; 5] =
    ["grpc-message", "grpc-status", "grpc-status-details-bin", "x-correlation-id", "x-tenant-id"];

/// Puts a [`Web`] in front of services.
#[derive(Clone)]
pub(super) struct WebLayer {
    cors: Option<CorsLayer>,
    door: Door,
}

impl WebLayer {
    /// Browsers may let pages of these origins call.
    pub(super) fn new(origins: &[Origin], door: Door) -> Self {
        let name = HeaderName::from_static;
        let cors = (!origins.is_empty()).then(|| {
            let any = origins.iter().any(Origin::is_any);
            let allowed = if any {
                AllowOrigin::any()
            } else {
                AllowOrigin::list(origins.iter().filter_map(Origin::header))
            };
            CorsLayer::new()
                .allow_origin(allowed)
                // Cookies go to pages that are named, and to no others.
                .allow_credentials(!any)
                .allow_methods([Method::POST])
                .allow_headers(REQUEST_HEADERS.map(name))
                .expose_headers(ANSWER_HEADERS.map(name))
                .max_age(std::time::Duration::from_secs(ALLOWED_FOR_SECONDS))
        });
        Self { cors, door }
    }
}

impl Layer<Inner> for WebLayer {
    type Service = Web;

    fn layer(&self, grpc: Inner) -> Web {
        let readable = Readable { grpc: grpc.clone() };
        let web = GrpcWebLayer::new().layer(readable);
        let browsers = Browsers { web, door: self.door.clone() };
        let browsers = match &self.cors {
            Some(cors) => Other::Cors(Box::new(cors.layer(browsers))),
            None => Other::Bare(browsers),
        };
        Web { grpc, other: Arc::new(browsers) }
    }
}

/// Every way of asking. It is cloned for each request.
#[derive(Clone)]
pub(super) struct Web {
    grpc: Inner,
    other: Arc<Other>,
}

/// Whatever is not plain gRPC.
enum Other {
    Cors(Box<Cors<Browsers>>),
    Bare(Browsers),
}

type Answer = Result<Response<Body>, Infallible>;
type Boxed = Pin<Box<dyn Future<Output = Answer> + Send>>;

impl Service<Request<Body>> for Web {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = WebFuture<<Inner as Service<Request<Body>>>::Future>;

    fn poll_ready(&mut self, ctx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Service::<Request<Body>>::poll_ready(&mut self.grpc, ctx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if way(&request) == Way::Grpc {
            return WebFuture::Grpc { future: self.grpc.call(request) };
        }
        // Those are always ready.
        let future: Boxed = match &*self.other {
            Other::Cors(service) => Box::pin(service.clone().call(request)),
            Other::Bare(service) => service.clone().call(request),
        };
        WebFuture::Other { future }
    }
}

#[derive(PartialEq, Eq)]
enum Way {
    Grpc,
    GrpcWeb,
    Http,
}

fn way<B>(request: &Request<B>) -> Way {
    let kind = request.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    if kind.starts_with(GRPC_WEB) {
        Way::GrpcWeb
    } else if kind.starts_with(GRPC) && request.version() == Version::HTTP_2 {
        Way::Grpc
    } else {
        Way::Http
    }
}

pin_project! {
    /// An answer on its way.
    #[project = WebFutureProjection]
    pub(super) enum WebFuture<F> {
        Grpc { #[pin] future: F },
        Other { future: Boxed },
    }
}

impl<F: Future<Output = Answer>> Future for WebFuture<F> {
    type Output = Answer;

    fn poll(self: Pin<&mut Self>, ctx: &mut Context<'_>) -> Poll<Answer> {
        match self.project() {
            WebFutureProjection::Grpc { future } => future.poll(ctx),
            WebFutureProjection::Other { future } => future.as_mut().poll(ctx),
        }
    }
}

/// gRPC-Web and plain HTTP.
#[derive(Clone)]
struct Browsers {
    web: GrpcWebService<Readable>,
    door: Door,
}

impl Service<Request<Body>> for Browsers {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Boxed;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Boxed {
        match way(&request) {
            Way::GrpcWeb => Box::pin(self.web.call(request)),
            Way::Grpc | Way::Http => Box::pin(ready(Ok(page(&request, &self.door)))),
        }
    }
}

/// Services whose requests were translated. What cannot be translated is the caller's
/// fault, and is said in our words.
#[derive(Clone)]
struct Readable {
    grpc: Inner,
}

impl Service<Request<Body>> for Readable {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = <Inner as Service<Request<Body>>>::Future;

    fn poll_ready(&mut self, ctx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.grpc.poll_ready(ctx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let said = |_| status::unreadable_body();
        self.grpc.call(request.map(|body| Body::new(body.map_err(said))))
    }
}

/// What plain HTTP finds here.
fn page<B>(request: &Request<B>, door: &Door) -> Response<Body> {
    if request.uri().path() == JWKS_PATH {
        return signing_keys(request.method(), door);
    }
    let kind = request.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    if kind.starts_with(GRPC) {
        return problem(
            StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            "gRPC needs HTTP/2; over HTTP/1.1 use gRPC-Web (content-type application/grpc-web)",
        );
    }
    if !is_method(request.uri().path()) {
        return problem(StatusCode::NOT_FOUND, "there is nothing at this path");
    }
    if request.method() != Method::POST {
        let mut response = problem(StatusCode::METHOD_NOT_ALLOWED, "a gRPC method takes POST");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
        return response;
    }
    problem(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "a gRPC method takes content-type application/grpc or application/grpc-web",
    )
}

/// The public keys that access tokens are signed with: RFC 7517, section 8.5.
fn signing_keys(method: &Method, door: &Door) -> Response<Body> {
    if ![Method::GET, Method::HEAD].contains(method) {
        let mut response = problem(StatusCode::METHOD_NOT_ALLOWED, "this is read with GET");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    let Some(ledger) = door.ledger() else {
        let detail = "the ledger is replaying its history; try again shortly";
        return problem(StatusCode::SERVICE_UNAVAILABLE, detail);
    };
    let keys = published(ledger);
    let body = http_body_util::Full::new(prost::bytes::Bytes::from(keys));
    let mut response = Response::new(Body::new(body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/jwk-set+json"));
    if let Ok(seconds) = HeaderValue::try_from(format!("public, max-age={JWKS_MAX_AGE_S}")) {
        headers.insert(CACHE_CONTROL, seconds);
    }
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    response
}

/// Whether a path names a service of ours.
fn is_method(path: &str) -> bool {
    let service = path.strip_prefix('/').and_then(|path| path.split_once('/')).map(|it| it.0);
    service.is_some_and(|service| super::SERVICES.contains(&service))
}

/// An error as RFC 9457 has it.
fn problem(status: StatusCode, detail: &str) -> Response<Body> {
    let title = status.canonical_reason().unwrap_or_default();
    let problem = serde_json::json!({
        "type": "about:blank",
        "title": title,
        "status": status.as_u16(),
        "detail": detail,
    });
    let body = http_body_util::Full::new(prost::bytes::Bytes::from(problem.to_string()));
    let mut response = Response::new(Body::new(body));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("application/problem+json");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}
