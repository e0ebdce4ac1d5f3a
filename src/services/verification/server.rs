//! The service as the transport calls it.
//!
//! Written by hand where the others are generated: answers are encoded where they are
//! made, and each method has its own limit for what is asked.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use prost::bytes::Bytes;
use tonic::body::Body;
use tonic::codegen::{Body as HttpBody, BoxFuture, Service, StdError};
use tonic::server::{Grpc, NamedService};
use tonic::{Request, Status, Streaming};
use tower::service_fn;

use super::{BATCH_BYTES_MAX, Verification};
use crate::proto::VerifyStreamRequest;
use crate::proto::verification_service_server::SERVICE_NAME;
use crate::services::wire::{WrittenCodec, unary};

const VERIFY: &str = "/keyledger.v1.VerificationService/Verify";
const VERIFY_BATCH: &str = "/keyledger.v1.VerificationService/VerifyBatch";
const VERIFY_STREAM: &str = "/keyledger.v1.VerificationService/VerifyStream";
/// Room for the answers of a stream that are sent together.
const STREAM_ROOM_BYTES: usize = 4 * 1024;

/// The service, for as many connections as there are.
#[derive(Clone)]
pub struct VerificationServer {
    verification: Arc<Verification>,
    request_bytes_max: usize,
}

impl VerificationServer {
    /// Serves with this limit for a question.
    #[must_use]
    pub fn new(verification: Verification, request_bytes_max: usize) -> Self {
        Self { verification: Arc::new(verification), request_bytes_max }
    }
}

impl NamedService for VerificationServer {
    const NAME: &'static str = SERVICE_NAME;
}

impl<B> Service<http::Request<B>> for VerificationServer
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<http::Response<Body>, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let Self { verification, request_bytes_max } = self.clone();
        match request.uri().path() {
            VERIFY => Box::pin(async move {
                let method = |request| verification.verify(request);
                Ok(unary::call(request, request_bytes_max, method).await)
            }),
            VERIFY_BATCH => Box::pin(async move {
                let method = |request| verification.verify_batch(request);
                Ok(unary::call(request, BATCH_BYTES_MAX, method).await)
            }),
            VERIFY_STREAM => Box::pin(async move {
                let method = service_fn(|request: Request<Streaming<VerifyStreamRequest>>| {
                    std::future::ready(verification.verify_stream(request))
                });
                let mut grpc = Grpc::new(WrittenCodec::with_room(STREAM_ROOM_BYTES))
                    .max_decoding_message_size(request_bytes_max);
                Ok(grpc.streaming(method, request).await)
            }),
            _ => Box::pin(std::future::ready(Ok(
                Status::unimplemented("no such method").into_http()
            ))),
        }
    }
}
