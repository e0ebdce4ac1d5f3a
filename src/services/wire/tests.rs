//! What is refused, by which field; that nothing else is; and that it arrives as
//! INVALID_ARGUMENT.

use proptest::prelude::*;
use prost::Message as _;
use tonic::codec::{EncodeBuf, Encoder};
use tonic::{Request, Response};

use super::table::{Field, Kind, Label};
use super::*;
use crate::proto::verification_service_server::{VerificationService, VerificationServiceServer};
use crate::proto::{
    CreateKeyRequest, ListKeysRequest, Scopes, StreamRevision, VerifyBatchRequest,
    VerifyBatchResponse, VerifyRequest, VerifyResponse, VerifyStreamRequest, VerifyStreamResponse,
    create_key_request,
};

/// What the scan says to these bytes: nothing, or the field and the message.
#[track_caller]
fn check<U: WireMessage>(bytes: &[u8], then: Option<(&str, &str)>) {
    let refusal = scan::check(U::REQUEST.unwrap(), bytes).err();
    let said = refusal.map(|refusal| (refusal.field(), refusal.to_string()));
    assert_eq!(said.as_ref().map(|(field, text)| (field.as_str(), text.as_str())), then);
}

/// A length-delimited field below number 16, of fewer than 128 bytes.
fn text(number: u8, value: impl AsRef<[u8]>) -> Vec<u8> {
    let value = value.as_ref();
    let length = u8::try_from(value.len()).unwrap();
    [&[number << 3 | 2, length][..], value].concat()
}

fn varint(number: u8, value: u64) -> Vec<u8> {
    let mut bytes = vec![number << 3];
    prost::encoding::encode_varint(value, &mut bytes);
    bytes
}

#[test]
fn what_was_meant_passes() {
    check::<VerifyRequest>(&[], None);
    check::<VerifyRequest>(&verify().encode_to_vec(), None);
    check::<CreateKeyRequest>(&create().encode_to_vec(), None);
    // Absent keys and values of map entries are empty ones; padded varints are allowed.
    check::<CreateKeyRequest>(&text(10, []), None);
    check::<VerifyRequest>(&[8 << 3, 0x81, 0x00], None);
}

#[test]
fn a_field_sent_twice_is_refused() {
    check::<VerifyRequest>(
        &[text(1, "a"), text(1, "a")].concat(),
        Some(("credential", "`credential`: sent twice; send it once")),
    );
    let revision = [text(1, "org-a"), varint(2, 1), varint(2, 2)].concat();
    check::<VerifyRequest>(
        &[text(10, []), text(10, revision)].concat(),
        Some((
            "at_least_revision[1].revision",
            "`at_least_revision[1].revision`: sent twice; send it once",
        )),
    );
    check::<CreateKeyRequest>(
        &[text(4, []), text(4, [])].concat(),
        Some(("scopes", "`scopes`: sent twice; send it once")),
    );
}

#[test]
fn two_members_of_a_oneof_are_refused() {
    let said = Some((
        "lifetime",
        "`lifetime`: only one of `expires_at`, `lifetime` may be sent, and only once; leave the \
         others out",
    ));
    check::<CreateKeyRequest>(&[text(8, []), text(9, [])].concat(), said);
    check::<CreateKeyRequest>(&[text(9, []), text(9, [])].concat(), said);
    // `optional` makes a oneof behind the scenes; callers never see it.
    check::<CreateKeyRequest>(
        &[varint(12, 1), varint(12, 1)].concat(),
        Some(("expected_revision", "`expected_revision`: sent twice; send it once")),
    );
}

#[test]
fn a_map_key_sent_twice_is_refused() {
    let entry = |key: &str| text(10, [text(1, key), text(2, "x")].concat());
    let said = Some(("metadata", "`metadata`: key `team` sent twice; send each key once"));
    check::<CreateKeyRequest>(&[entry("team"), entry("user"), entry("team")].concat(), said);
    let said = Some(("metadata", "`metadata`: key `` sent twice; send each key once"));
    check::<CreateKeyRequest>(&[text(10, []), entry("")].concat(), said);
    let said = Some(("metadata", "`metadata`: key `a\\nb` sent twice; send each key once"));
    check::<CreateKeyRequest>(&[entry("a\nb"), entry("a\nb")].concat(), said);
    let said = Some(("metadata[1].value", "`metadata[1].value`: sent twice; send it once"));
    let twice_inside = text(10, [text(2, "x"), text(2, "x")].concat());
    check::<CreateKeyRequest>(&[entry("a"), twice_inside].concat(), said);
    // Two maps don't disturb each other.
    check::<CreateKeyRequest>(&[entry("team"), text(11, text(1, "team"))].concat(), None);
}

/// At the size that is checked on the stack, and one past it.
#[test]
fn map_keys_are_compared_in_maps_of_any_size() {
    let entries = |count: usize| -> Vec<u8> {
        (0..count).flat_map(|n| text(10, text(1, format!("k{n}")))).collect()
    };
    for count in [scan::MAP_KEYS_ON_STACK, scan::MAP_KEYS_ON_STACK + 1, 5_000] {
        check::<CreateKeyRequest>(&entries(count), None);
        let said = "`metadata`: key `k0` sent twice; send each key once";
        let again = [entries(count - 1), entries(1)].concat();
        check::<CreateKeyRequest>(&again, Some(("metadata", said)));
    }
}

#[test]
fn an_unknown_field_is_refused() {
    let remedy = "unknown to this server; leave it out, or ask a server whose version knows it";
    let said = format!("field 16: {remedy}");
    check::<VerifyRequest>(&text(16, "x"), Some(("16", &said)));
    let said = format!("`at_least_revision[0]`: field 3: {remedy}");
    check::<VerifyRequest>(
        &text(10, varint(3, 1)),
        Some(("at_least_revision[0].3", said.as_str())),
    );
}

#[test]
fn an_unknown_value_is_refused() {
    let remedy = "is unknown to this server; use one of the values in its .proto files";
    for (value, shown) in [(3, "3"), (u64::MAX, "-1"), (1 << 32 | 1, "4294967297")] {
        let said = format!("`environment`: value {shown} {remedy}");
        check::<VerifyRequest>(&varint(8, value), Some(("environment", &said)));
    }
}

#[test]
fn a_number_outside_its_type_is_refused() {
    let said = "`page_size`: does not fit its type; send a number within its range";
    check::<ListKeysRequest>(&varint(6, u64::from(u32::MAX)), None);
    check::<ListKeysRequest>(&varint(6, 1 << 32), Some(("page_size", said)));
    let nanos = |value: i64| text(8, varint(2, value.cast_unsigned()));
    check::<CreateKeyRequest>(&nanos(i64::from(i32::MIN)), None);
    let said = "`expires_at.nanos`: does not fit its type; send a number within its range";
    for value in [i64::from(i32::MIN) - 1, i64::from(i32::MAX) + 1] {
        check::<CreateKeyRequest>(&nanos(value), Some(("expires_at.nanos", said)));
    }
}

#[test]
fn text_must_be_utf_8() {
    let said = "`permissions[1]`: is not UTF-8; send text in UTF-8";
    check::<VerifyRequest>(
        &[text(6, "a:b"), text(6, [0xff])].concat(),
        Some(("permissions[1]", said)),
    );
}

/// What would be large once it is decoded is counted before; the count is of that field
/// alone.
#[test]
fn more_than_may_be_sent_is_refused() {
    let questions = |count: usize| text(1, text(7, "a")).repeat(count);
    check::<VerifyBatchRequest>(&questions(1_000), None);
    let revisions = text(2, []).repeat(1_001);
    check::<VerifyBatchRequest>(&[questions(1_000), revisions].concat(), None);
    let said = "`questions`: sent more than 1000 times; send fewer";
    check::<VerifyBatchRequest>(&questions(1_001), Some(("questions", said)));
    let nested = [text(1, []), text(1, text(6, [0xff]))].concat();
    let said = "`questions[1].permissions[0]`: is not UTF-8; send text in UTF-8";
    check::<VerifyBatchRequest>(&nested, Some(("questions[1].permissions[0]", said)));
}

#[test]
fn malformed_bytes_are_refused() {
    let wire_type = "is encoded as another type than declared; use this server's .proto files";
    let group = "is encoded as a group, which proto3 does not have; use this server's .proto files";
    let cut = "ends in the middle; send the whole message";
    let tag = "no field can begin like this; encode the message with a protobuf library, from \
               this server's .proto files";
    let long = "a number is longer than 64 bits; encode it as a varint of at most ten bytes";
    let whole = "keyledger.v1.VerifyRequest";
    let ten = [0xff; 9];
    for (bytes, field, fault) in [
        (varint(1, 5), "credential", wire_type),
        (text(8, "x"), "environment", wire_type),
        (vec![8 << 3 | 1, 0, 0, 0, 0, 0, 0, 0, 0], "environment", wire_type),
        (vec![8 << 3 | 5, 0, 0, 0, 0], "environment", wire_type),
        (vec![1 << 3 | 3], "credential", group),
        (vec![1 << 3 | 4], "credential", group),
        (vec![1 << 3 | 2], "credential", cut),
        (vec![1 << 3 | 2, 2, b'a'], "credential", cut),
        (vec![8 << 3, 0x80], "environment", cut),
        (vec![0x80], whole, cut),
        (vec![0, 0], whole, tag),
        (vec![2, 0], whole, tag),
        (vec![1 << 3 | 6], whole, tag),
        (vec![1 << 3 | 7], whole, tag),
        (vec![0xff, 0xff, 0xff, 0xff, 0x10], whole, tag),
        ([&[8 << 3][..], &ten, &[2]].concat(), "environment", long),
        ([&[8 << 3][..], &ten, &[0xff, 0]].concat(), "environment", long),
        ([&[1 << 3 | 2][..], &ten, &[1]].concat(), "credential", cut),
    ] {
        let said = format!("`{field}`: {fault}");
        check::<VerifyRequest>(&bytes, Some((field, &said)));
    }
}

static NEST: Message = Message {
    name: "test.Nest",
    fields: &[
        Field {
            number: 1,
            name: "nest",
            kind: Kind::Message(&NEST),
            label: Label::Singular,
            slot: 0,
            oneof: &[],
            at_most: 0,
        },
        Field {
            number: 700,
            name: "flags",
            kind: Kind::Bool,
            label: Label::Repeated,
            slot: 0,
            oneof: &[],
            at_most: 0,
        },
    ],
};

#[test]
fn nesting_has_an_end() {
    let nested = |depth: usize| {
        (1..depth).fold(Vec::new(), |inner: Vec<u8>, _| {
            let mut bytes = vec![1 << 3 | 2];
            prost::encoding::encode_varint(inner.len() as u64, &mut bytes);
            [bytes, inner].concat()
        })
    };
    assert_eq!(scan::check(&NEST, &nested(scan::DEPTH_MAX)), Ok(()));
    let refusal = scan::check(&NEST, &nested(scan::DEPTH_MAX + 1)).unwrap_err();
    assert!(refusal.description().contains("more than 32 messages deep"), "{refusal}");
    assert!(refusal.field().starts_with("nest.nest."), "{refusal}");
}

#[test]
fn repeated_numbers_come_packed_or_one_by_one() {
    let mut key = Vec::new();
    prost::encoding::encode_varint(700 << 3 | 2, &mut key);
    let packed = |flags: &[u8]| [&key[..], &[flags.len() as u8], flags].concat();
    assert_eq!(scan::check(&NEST, &packed(&[0, 1, 1])), Ok(()));
    assert_eq!(scan::check(&NEST, &packed(&[0, 2])).unwrap_err().field(), "flags[0]");
    assert_eq!(scan::check(&NEST, &packed(&[0x80])).unwrap_err().field(), "flags[0]");
    key.clear();
    prost::encoding::encode_varint(700 << 3, &mut key);
    let single = |flag: u8| [&key[..], &[flag]].concat();
    let again = [single(1), single(1), single(2)].concat();
    assert_eq!(scan::check(&NEST, &again).unwrap_err().field(), "flags[2]");
}

fn verify() -> VerifyRequest {
    VerifyRequest {
        credential: "vtx_live_0123456789abcdefghijklmnopqrstuvwxyz123456".into(),
        permissions: vec!["invoices:read".into(), "invoices:write".into()],
        service: "billing".into(),
        environment: 1,
        correlation_id: "01JD5K3Q8ZC0W4T7N9XH2M6RVB".into(),
        at_least_revision: vec![StreamRevision { stream: "org-a".into(), revision: 7 }],
        ..VerifyRequest::default()
    }
}

fn create() -> CreateKeyRequest {
    CreateKeyRequest {
        name: "ci".into(),
        scopes: Some(Scopes { permissions: vec!["a:b".into()] }),
        metadata: [("team".to_owned(), "infra".to_owned())].into(),
        limits: [("rps".to_owned(), -1)].into(),
        expected_revision: Some(0),
        expiry: Some(create_key_request::Expiry::Lifetime(prost_types::Duration {
            seconds: -1,
            nanos: -999_999_999,
        })),
        ..CreateKeyRequest::default()
    }
}

prop_compose! {
    fn any_verify()(
        credential in ".{0,200}",
        headers in prop::collection::vec(".{0,20}", 0..4),
        permissions in prop::collection::vec(".{0,20}", 0..6),
        service in ".{0,20}",
        environment in 0..=2,
        revisions in prop::collection::vec((".{0,20}", any::<u64>()), 0..4),
    ) -> VerifyRequest {
        let revision = |(stream, revision)| StreamRevision { stream, revision };
        VerifyRequest {
            credential,
            authorization: headers.clone(),
            api_key: headers,
            permissions,
            service,
            environment,
            at_least_revision: revisions.into_iter().map(revision).collect(),
            ..VerifyRequest::default()
        }
    }
}

prop_compose! {
    fn any_create()(
        name in ".{0,20}",
        scopes in prop::option::of(prop::collection::vec(".{0,20}", 0..4)),
        metadata in prop::collection::btree_map(".{0,8}", ".{0,20}", 0..50),
        limits in prop::collection::btree_map(".{0,8}", any::<i64>(), 0..50),
        seconds in any::<i64>(),
        nanos in any::<i32>(),
        ends in any::<bool>(),
        expected_revision in any::<Option<u64>>(),
    ) -> CreateKeyRequest {
        CreateKeyRequest {
            name,
            scopes: scopes.map(|permissions| Scopes { permissions }),
            metadata,
            limits,
            expiry: Some(if ends {
                create_key_request::Expiry::ExpiresAt(prost_types::Timestamp { seconds, nanos })
            } else {
                create_key_request::Expiry::Lifetime(prost_types::Duration { seconds, nanos })
            }),
            expected_revision,
            ..CreateKeyRequest::default()
        }
    }
}

/// What passes must be decoded by prost to a message that encodes to no more than was sent.
fn passes_or_is_refused<U: prost::Message + WireMessage + Default>(bytes: &[u8]) {
    match scan::check(U::REQUEST.unwrap(), bytes) {
        Ok(()) => assert!(U::decode(bytes).unwrap().encoded_len() <= bytes.len()),
        Err(refusal) => {
            let text = refusal.to_string();
            assert!(text.contains("; ") && !text.contains(['\n', '\r']), "{text}");
            assert!(text.len() < 1_000 && !refusal.field().is_empty(), "{text}");
        }
    }
}

proptest! {
    #[test]
    fn every_valid_request_passes(verify in any_verify(), create in any_create()) {
        check::<VerifyRequest>(&verify.encode_to_vec(), None);
        check::<CreateKeyRequest>(&create.encode_to_vec(), None);
    }

    #[test]
    fn any_bytes_pass_or_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        passes_or_is_refused::<VerifyRequest>(&bytes);
        passes_or_is_refused::<CreateKeyRequest>(&bytes);
        passes_or_is_refused::<ListKeysRequest>(&bytes);
    }

    #[test]
    fn damaged_requests_pass_or_are_refused(
        create in any_create(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        cut in any::<bool>(),
    ) {
        let mut bytes = create.encode_to_vec();
        prop_assume!(!bytes.is_empty());
        let at = at.index(bytes.len());
        if cut { bytes.truncate(at) } else { bytes[at] = byte }
        passes_or_is_refused::<CreateKeyRequest>(&bytes);
    }

    /// One mutation of each kind, behind a valid request: the field at fault is named.
    #[test]
    fn mutations_are_refused_by_name(create in any_create(), key in "[a-z]{1,8}") {
        let mut create = create;
        create.name = "n".into();
        create.metadata.insert(key.clone(), String::new());
        let valid = create.encode_to_vec();
        for (extra, field) in [
            (text(2, "again"), "name"),
            (text(8, []), "expires_at"),
            (text(9, []), "lifetime"),
            (text(10, text(1, &key)), "metadata"),
            (vec![0x98, 0x06, 0], "99"),
            (varint(7, 9), "environment"),
            (vec![13 << 3 | 2, 9], "idempotency_key"),
            (text(13, [0xc0, 0x80]), "idempotency_key"),
            (varint(13, 0), "idempotency_key"),
            (vec![13 << 3 | 3], "idempotency_key"),
        ] {
            let bytes = [valid.clone(), extra].concat();
            let refusal = scan::check(CreateKeyRequest::REQUEST.unwrap(), &bytes).unwrap_err();
            prop_assert_eq!(refusal.field(), field);
        }
    }
}

/// A server that allows whatever it can read.
struct Allows;

#[tonic::async_trait]
impl VerificationService for Allows {
    async fn verify(&self, _: Request<VerifyRequest>) -> Result<Response<VerifyResponse>, Status> {
        Ok(Response::new(VerifyResponse { allowed: true, ..VerifyResponse::default() }))
    }

    async fn verify_batch(
        &self,
        _: Request<VerifyBatchRequest>,
    ) -> Result<Response<VerifyBatchResponse>, Status> {
        Err(Status::unimplemented("one method is enough"))
    }

    type VerifyStreamStream = tokio_stream::Pending<Result<VerifyStreamResponse, Status>>;

    async fn verify_stream(
        &self,
        _: Request<tonic::Streaming<VerifyStreamRequest>>,
    ) -> Result<Response<Self::VerifyStreamStream>, Status> {
        Err(Status::unimplemented("one method is enough"))
    }
}

/// A client that sends bytes as they are and reads answers as we do.
#[derive(Default)]
struct RawCodec;

struct RawEncoder;

impl Encoder for RawEncoder {
    type Item = Vec<u8>;
    type Error = Status;
    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        prost::bytes::BufMut::put_slice(buffer, &item);
        Ok(())
    }
}

impl Codec for RawCodec {
    type Encode = Vec<u8>;
    type Decode = VerifyResponse;
    type Encoder = RawEncoder;
    type Decoder = StrictDecoder<VerifyResponse>;
    fn encoder(&mut self) -> RawEncoder {
        RawEncoder
    }
    fn decoder(&mut self) -> Self::Decoder {
        StrictDecoder { message: PhantomData }
    }
}

async fn call(bytes: Vec<u8>) -> Result<bool, Status> {
    let mut client = tonic::client::Grpc::new(VerificationServiceServer::new(Allows));
    client.ready().await.unwrap();
    let path = http::uri::PathAndQuery::from_static("/keyledger.v1.VerificationService/Verify");
    let answer = client.unary(Request::new(bytes), path, RawCodec).await?;
    Ok(answer.into_inner().allowed)
}

#[tokio::test]
async fn a_refusal_arrives_as_invalid_argument() {
    assert!(call(verify().encode_to_vec()).await.unwrap());
    let status = call([text(7, "a"), text(7, "b")].concat()).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(status.message(), "`service`: sent twice; send it once");
    let details = status.get_error_details();
    let violation = &details.bad_request().unwrap().field_violations[0];
    assert_eq!(violation.field, "service");
    assert_eq!(violation.description, "sent twice; send it once");
}

/// A client bears what a newer server says.
#[test]
fn answers_are_read_leniently() {
    assert!(VerifyResponse::REQUEST.is_none());
    let newer = [varint(1, 1), varint(2, 9_999), vec![0x98, 0x06, 1]].concat();
    assert!(read::<VerifyResponse>(&newer[..]).unwrap().allowed);
    assert_eq!(read::<VerifyResponse>(&[0xff][..]).unwrap_err().code(), Code::Internal);
}

/// A body that comes in these pieces.
struct Pieces(std::collections::VecDeque<Vec<u8>>);

impl http_body::Body for Pieces {
    type Data = prost::bytes::Bytes;
    type Error = Status;
    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Self::Data>, Status>>> {
        let piece = self.0.pop_front();
        std::task::Poll::Ready(piece.map(|piece| Ok(http_body::Frame::data(piece.into()))))
    }
}

/// Calls a method that answers with the service it was asked about. Gives the status, as
/// headers or trailers say it, and the bytes of the answer.
async fn unary(
    headers: &[(&'static str, &'static str)],
    pieces: Vec<Vec<u8>>,
) -> (Code, String, Vec<u8>) {
    use http_body::Body as _;
    let mut request = http::Request::new(Pieces(pieces.into()));
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    let response = super::unary::call(request, 1_000, async |request: Request<VerifyRequest>| {
        let mut framed = super::unary::Framed::with_room(1);
        framed.message().extend_from_slice(request.into_inner().service.as_bytes());
        Ok(framed)
    });
    let (parts, body) = response.await.into_parts();
    assert_eq!(parts.headers["content-type"], "application/grpc");
    let (mut headers, mut answer) = (parts.headers, Vec::new());
    let mut body = std::pin::pin!(body);
    while let Some(frame) = std::future::poll_fn(|it| body.as_mut().poll_frame(it)).await {
        match frame.unwrap().into_data() {
            Ok(data) => answer.extend_from_slice(&data),
            Err(trailers) => headers.extend(trailers.into_trailers().unwrap()),
        }
    }
    assert!(body.is_end_stream());
    let status = Status::from_header_map(&headers).unwrap();
    (status.code(), status.message().to_owned(), answer)
}

fn framed(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[0][..], &length, message].concat()
}

#[tokio::test]
async fn a_unary_call_is_read_in_whatever_pieces_it_comes() {
    let request = framed(&text(7, "billing"));
    let answer = (Code::Ok, String::new(), framed(b"billing"));
    for size in 1..=request.len() {
        let pieces = request.chunks(size).map(<[u8]>::to_vec).collect();
        assert_eq!(unary(&[], pieces).await, answer);
    }
    let empty = vec![Vec::new(), request.clone(), Vec::new()];
    assert_eq!(unary(&[("grpc-encoding", "identity")], empty).await, answer);
    // At the limit, and one past it: as soon as it is announced.
    let large = |bytes: usize| {
        let value = "x".repeat(bytes - 3);
        let length = u8::try_from(value.len() >> 7).unwrap();
        [&[7 << 3 | 2, value.len() as u8 & 0x7f | 0x80, length], value.as_bytes()].concat()
    };
    assert_eq!(unary(&[], vec![framed(&large(1_000))]).await.0, Code::Ok);
    let (code, said, _) = unary(&[], vec![framed(&large(1_001))[..5].to_vec()]).await;
    assert_eq!(code, Code::OutOfRange);
    assert!(said.contains("it has 1001 bytes, the limit is: 1000 bytes"), "{said}");
}

#[tokio::test]
async fn a_unary_call_that_is_not_one_message_is_refused() {
    let request = framed(&text(7, "billing"));
    for cut in 0..request.len() {
        let (code, said, answer) = unary(&[], vec![request[..cut].to_vec()]).await;
        assert_eq!((code, answer.len()), (Code::InvalidArgument, 0), "{said}");
        assert!(said.contains("ends before its message"), "{said}");
    }
    for more in [&request[..], &[0]] {
        for pieces in [vec![[&request, more].concat()], vec![request.clone(), more.to_vec()]] {
            let (code, said, _) = unary(&[], pieces).await;
            assert_eq!(code, Code::InvalidArgument);
            assert!(said.contains("more than one message"), "{said}");
        }
    }
    // Compression is not offered; who uses it all the same is told by the protocol's rules.
    let (code, said, _) = unary(&[("grpc-encoding", "gzip")], vec![request.clone()]).await;
    assert_eq!(code, Code::Unimplemented, "{said}");
    let compressed = [&[1], &request[1..]].concat();
    assert_eq!(unary(&[], vec![compressed]).await.0, Code::Internal);
    // And what is read is read strictly.
    let twice = framed(&text(7, "a").repeat(2));
    let said = "`service`: sent twice; send it once".to_owned();
    assert_eq!(unary(&[], vec![twice]).await, (Code::InvalidArgument, said, Vec::new()));
}
