//! `GET /metrics`, on a port of its own: whoever may scrape need not reach the ledger.

use std::convert::Infallible;
use std::future::ready;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prost::bytes::Bytes;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::ServeError;
use crate::metrics::{self, Metrics};

/// Most connections at once: a few scrapers.
const CONNECTIONS_MAX: usize = 16;
/// Longest wait for a request on a connection.
const REQUEST_WAIT_MAX: Duration = Duration::from_secs(60);
/// Most bytes of a request.
const REQUEST_BYTES_MAX: usize = 16 * 1024;
/// How long to wait before the next connection is accepted where one could not be.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// The port.
pub(super) struct MetricsPort {
    listener: TcpListener,
    address: SocketAddr,
}

impl MetricsPort {
    /// Takes the port.
    pub(super) async fn bind(address: SocketAddr) -> Result<Self, ServeError> {
        let failed = |source| ServeError::ListenForMetrics { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address })
    }

    /// Where it is.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers for ever.
    pub(super) async fn answer(self, metrics: Metrics) {
        let metrics = Arc::new(metrics);
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let Ok((stream, _)) = self.listener.accept().await else {
                tokio::time::sleep(ACCEPT_AGAIN).await;
                continue;
            };
            // One too many is closed at once.
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
            let metrics = Arc::clone(&metrics);
            tokio::spawn(async move {
                let answer = service_fn(move |request: Request<hyper::body::Incoming>| {
                    ready(Ok::<_, Infallible>(answer(&request, &metrics)))
                });
                // A scraper that goes away is no fault.
                let _ = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(REQUEST_WAIT_MAX)
                    .max_buf_size(REQUEST_BYTES_MAX)
                    .serve_connection(TokioIo::new(stream), answer)
                    .await;
                drop(place);
            });
        }
    }
}

fn answer<B>(request: &Request<B>, metrics: &Metrics) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    if request.uri().path() != "/metrics" {
        *response.status_mut() = StatusCode::NOT_FOUND;
    } else if ![Method::GET, Method::HEAD].contains(request.method()) {
        *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    } else if let Ok(text) = metrics.text() {
        let kind = HeaderValue::from_static(metrics::CONTENT_TYPE);
        response.headers_mut().insert(CONTENT_TYPE, kind);
        *response.body_mut() = Full::new(text.into());
    } else {
        *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
    }
    response
}
