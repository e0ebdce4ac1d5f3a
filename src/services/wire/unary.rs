//! Unary calls, framed by hand: what a call costs beside its work, made small.
//!
//! gRPC puts five bytes in front of a message: whether it is compressed, and its length.
//! A call with one message each way needs no more than that to be read and answered.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use http::header::{CONTENT_TYPE, HeaderName};
use http::{HeaderMap, HeaderValue, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use prost::bytes::Bytes;
use tonic::body::Body;
use tonic::codegen::StdError;
use tonic::metadata::{GRPC_CONTENT_TYPE, MetadataMap, MetadataValue};
use tonic::{Request, Status};

use super::{WireMessage, check, read};

/// What stands in front of a message.
const PREFIX_BYTES: usize = 5;

/// An answer, with room for what stands in front of it.
#[derive(Debug)]
pub struct Framed(Vec<u8>);

impl Framed {
    /// An empty answer with room for a message of so many bytes. It grows where that is
    /// too little.
    #[must_use]
    pub fn with_room(bytes: usize) -> Self {
        let mut framed = Vec::with_capacity(PREFIX_BYTES + bytes);
        framed.resize(PREFIX_BYTES, 0);
        Self(framed)
    }

    /// Where to append the message. What is there already must stay.
    pub fn message(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }

    fn finish(mut self) -> Result<Bytes, Status> {
        let length = u32::try_from(self.0.len() - PREFIX_BYTES)
            .map_err(|_| Status::resource_exhausted("the answer is too large"))?;
        let [_, a, b, c, d, ..] = self.0.as_mut_slice() else { return Ok(Bytes::new()) };
        [*a, *b, *c, *d] = length.to_be_bytes();
        Ok(self.0.into())
    }
}

/// Reads a request of at most so many bytes, and answers it.
pub async fn call<U, B, F>(
    request: http::Request<B>,
    bytes_max: usize,
    method: impl FnOnce(Request<U>) -> F,
) -> Response<Body>
where
    U: prost::Message + WireMessage + Default,
    B: HttpBody<Data = Bytes>,
    B::Error: Into<StdError>,
    F: Future<Output = Result<Framed, Status>>,
{
    let answer = match read_request(request, bytes_max).await {
        Ok(request) => method(request).await.and_then(Framed::finish),
        Err(status) => Err(status),
    };
    match answer {
        Ok(message) => {
            let mut response = Response::new(Body::new(Answer::Message(message)));
            response.headers_mut().insert(CONTENT_TYPE, GRPC_CONTENT_TYPE);
            response
        }
        Err(status) => status.into_http(),
    }
}

async fn read_request<U, B>(
    request: http::Request<B>,
    bytes_max: usize,
) -> Result<Request<U>, Status>
where
    U: prost::Message + WireMessage + Default,
    B: HttpBody<Data = Bytes>,
    B::Error: Into<StdError>,
{
    let (parts, body) = request.into_parts();
    if parts.headers.get(&GRPC_ENCODING).is_some_and(|encoding| encoding != "identity") {
        let mut status =
            Status::unimplemented("messages are not taken compressed; send them plain");
        let identity = MetadataValue::from_static("identity");
        status.metadata_mut().insert("grpc-accept-encoding", identity);
        return Err(status);
    }
    let bytes = read_message(body, bytes_max).await?;
    check::<U>(&bytes)?;
    let message = read::<U>(bytes)?;
    Ok(Request::from_parts(MetadataMap::from_headers(parts.headers), parts.extensions, message))
}

/// The bytes of the one message of a body.
async fn read_message<B>(body: B, bytes_max: usize) -> Result<Bytes, Status>
where
    B: HttpBody<Data = Bytes>,
    B::Error: Into<StdError>,
{
    let mut body = pin!(body);
    // Nearly always all comes at once. What does not is put together, each byte once.
    let (mut first, mut more) = (Bytes::new(), Vec::new());
    while let Some(frame) = poll_fn(|context| body.as_mut().poll_frame(context)).await {
        let frame = frame.map_err(|error| Status::from_error(error.into()))?;
        // Trailers say nothing, and end it.
        let Ok(data) = frame.into_data() else { break };
        if first.is_empty() {
            first = data;
        } else {
            if more.is_empty() {
                more.extend_from_slice(&first);
            }
            more.extend_from_slice(&data);
        }
        let framed = if more.is_empty() { &*first } else { &*more };
        if let Some(length) = announced(framed)? {
            if length > bytes_max {
                return Err(Status::out_of_range(format!(
                    "the message is too large: it has {length} bytes, the limit is: {bytes_max} bytes"
                )));
            }
            if framed.len() > PREFIX_BYTES + length {
                return Err(Status::invalid_argument("more than one message was sent; send one"));
            }
        }
    }
    let mut framed = if more.is_empty() { first } else { more.into() };
    match announced(&framed)? {
        Some(length) if framed.len() == PREFIX_BYTES + length => Ok(framed.split_off(PREFIX_BYTES)),
        Some(_) | None => Err(Status::invalid_argument(
            "the request ends before its message does; send the whole message",
        )),
    }
}

/// The length that stands in front of a message, once it is there.
fn announced(framed: &[u8]) -> Result<Option<usize>, Status> {
    match framed {
        [0, a, b, c, d, ..] => {
            let length = u32::from_be_bytes([*a, *b, *c, *d]);
            Ok(Some(usize::try_from(length).unwrap_or(usize::MAX)))
        }
        [] | [0, ..] => Ok(None),
        // As the protocol has it for a message that says so against the headers.
        [_, ..] => Err(Status::internal(
            "the message claims to be compressed, and the headers name no compression",
        )),
    }
}

/// The body of an answer: one message, then that all went well.
enum Answer {
    Message(Bytes),
    Status,
    Over,
}

static GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
static GRPC_ENCODING: HeaderName = HeaderName::from_static("grpc-encoding");

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Poll::Ready(match std::mem::replace(&mut *self, Self::Over) {
            Self::Message(message) => {
                *self = Self::Status;
                Some(Ok(Frame::data(message)))
            }
            Self::Status => {
                let mut trailers = HeaderMap::with_capacity(1);
                trailers.insert(GRPC_STATUS.clone(), HeaderValue::from_static("0"));
                Some(Ok(Frame::trailers(trailers)))
            }
            Self::Over => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Over)
    }

    fn size_hint(&self) -> SizeHint {
        // Not even of the message: trailers are to follow it.
        SizeHint::default()
    }
}
