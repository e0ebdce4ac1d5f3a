//! Requests that no client of ours would make: bytes written by hand, texts past every
//! limit, headers that lie. Each is refused by the name of what is wrong, changes
//! nothing, and leaves a server that serves.

use keyledger::proto;
use prost::Message as _;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;

use super::support::{Acme, call_raw, call_without_body, scoped, texts};

const QUERY_ACTIVITY: &str = "keyledger.v1.AuditService/QueryActivity";
const TAIL_ACTIVITY: &str = "keyledger.v1.AuditService/TailActivity";
const EXPORT_ACTIVITY: &str = "keyledger.v1.AuditService/ExportActivity";
const CREATE_KEY: &str = "keyledger.v1.KeyService/CreateKey";
const GET_KEY: &str = "keyledger.v1.KeyService/GetKey";
const LIST_KEYS: &str = "keyledger.v1.KeyService/ListKeys";
const REVOKE_KEY: &str = "keyledger.v1.KeyService/RevokeKey";
const REVOKE_KEYS: &str = "keyledger.v1.KeyService/RevokeKeys";
const ROTATE_KEY: &str = "keyledger.v1.KeyService/RotateKey";
const END_ROTATION: &str = "keyledger.v1.KeyService/EndRotation";
const DISABLE_KEY: &str = "keyledger.v1.KeyService/DisableKey";
const ENABLE_KEY: &str = "keyledger.v1.KeyService/EnableKey";
const UPDATE_KEY_LABEL: &str = "keyledger.v1.KeyService/UpdateKeyLabel";
const IMPORT_KEYS: &str = "keyledger.v1.KeyService/ImportKeys";
const UPDATE_POLICY: &str = "keyledger.v1.OrganizationService/UpdatePolicy";
const CREATE_SERVICE_ACCOUNT: &str = "keyledger.v1.OrganizationService/CreateServiceAccount";
const LIST_SERVICE_ACCOUNTS: &str = "keyledger.v1.OrganizationService/ListServiceAccounts";
const CREATE_ORGANIZATION: &str = "keyledger.v1.OrganizationService/CreateOrganization";
const GET_ORGANIZATION: &str = "keyledger.v1.OrganizationService/GetOrganization";
const LIST_ORGANIZATIONS: &str = "keyledger.v1.OrganizationService/ListOrganizations";
const VERIFY: &str = "keyledger.v1.VerificationService/Verify";
const VERIFY_BATCH: &str = "keyledger.v1.VerificationService/VerifyBatch";
const VERIFY_STREAM: &str = "keyledger.v1.VerificationService/VerifyStream";
const GET_STATUS: &str = "keyledger.v1.OperatorService/GetStatus";

fn number(field: u32, value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    prost::encoding::encode_varint(u64::from(field) << 3, &mut bytes);
    prost::encoding::encode_varint(value, &mut bytes);
    bytes
}

fn text(field: u32, value: impl AsRef<[u8]>) -> Vec<u8> {
    let mut bytes = Vec::new();
    prost::encoding::encode_varint(u64::from(field) << 3 | 2, &mut bytes);
    prost::encoding::encode_varint(value.as_ref().len() as u64, &mut bytes);
    bytes.extend_from_slice(value.as_ref());
    bytes
}

fn joined(parts: &[Vec<u8>]) -> Vec<u8> {
    parts.concat()
}

struct Bench(Acme);

impl Bench {
    async fn new() -> Self {
        Self(Acme::new().await)
    }

    async fn call(&self, method: &str, bytes: Vec<u8>) -> Result<Vec<u8>, Status> {
        let request = self.0.operator.request(bytes);
        call_raw(self.0.server.channel(), method, request).await
    }

    /// A request that is refused, as its sender's fault, by the name of a field.
    async fn refuses(&self, method: &str, bytes: Vec<u8>, field: &str) {
        let shown = format!("{method} {field}: {:02x?}", &bytes[..bytes.len().min(64)]);
        let Err(status) = self.call(method, bytes).await else { panic!("accepted: {shown}") };
        assert_eq!(status.code(), Code::InvalidArgument, "{shown}: {status:?}");
        assert!(status.message().contains(field), "{shown}: {}", status.message());
        assert!(status.message().len() < 1_000, "{shown}");
        assert!(!status.message().contains(char::is_control), "{shown}: {}", status.message());
    }

    /// Why the one question of a stream is not decided.
    async fn told_in_stream(&self, bytes: Vec<u8>) -> proto::Undecided {
        let answer = self.call(VERIFY_STREAM, bytes).await.unwrap();
        let answer = proto::VerifyStreamResponse::decode(&*answer).unwrap();
        assert_eq!(answer.id, 9);
        match answer.answer {
            Some(proto::verify_stream_response::Answer::Undecided(told)) => told,
            other => panic!("{other:?}"),
        }
    }

    /// As `refuses`, and the details name the field for machines.
    async fn refuses_field(&self, method: &str, bytes: Vec<u8>, field: &str) {
        let status = self.call(method, bytes.clone()).await.unwrap_err();
        let details = status.get_error_details();
        let violations = details.bad_request().map(|it| it.field_violations.clone());
        let named = violations.unwrap_or_default();
        assert!(named.iter().any(|it| it.field == field), "{field}: {status:?}");
        // A field without a name is named by its number.
        let told = match field.rsplit_once('.').unwrap_or(("", field)) {
            (_, number) if number.parse::<u32>().is_ok() => format!("field {number}: unknown"),
            _ => format!("`{field}`"),
        };
        self.refuses(method, bytes, &told).await;
    }

    async fn revisions(&self) -> usize {
        self.0.home.facts()
    }

    /// After all of it: nothing has changed, and the server serves.
    async fn ends_as_it_began(self, before: usize) {
        assert_eq!(self.revisions().await, before);
        self.0.key("after all", &["a:b"]).await;
        let said = self.0.server.stop().await;
        assert!(!said.contains("panicked"), "{said}");
        assert!(!said.contains("\"ERROR\""), "{said}");
    }
}

fn key_request(organization: &str) -> Vec<u8> {
    scoped(organization, "n", &["a:b"]).encode_to_vec()
}

#[tokio::test]
async fn bytes_that_are_no_request() {
    let bench = Bench::new().await;
    let before = bench.revisions().await;
    let id = bench.0.id.clone();
    // Cut off anywhere: the name comes last, so that no part of it is a request.
    let whole = joined(&[text(4, text(1, "a:b")), text(1, &id), number(7, 1), text(2, "name")]);
    for cut in 1..whole.len() {
        bench.refuses(CREATE_KEY, whole[..cut].to_vec(), "`").await;
    }
    // No UTF-8.
    for (field, name) in
        [(1, "organization_id"), (2, "name"), (3, "description"), (13, "idempotency_key")]
    {
        for bytes in [&[0xff][..], &[0xc0, 0x80], &[0xed, 0xa0, 0x80], b"a\xf0\x9f"] {
            bench.refuses_field(CREATE_KEY, text(field, bytes), name).await;
        }
    }
    bench.refuses_field(VERIFY, text(6, [0xff]), "permissions[0]").await;
    bench.refuses_field(CREATE_KEY, text(10, text(1, [0xff])), "metadata[0].key").await;
    // Fields that nobody knows, at the top and inside.
    for field in [18, 99, 536_870_911] {
        let bytes = joined(&[key_request(&id), text(field, "x")]);
        bench.refuses_field(CREATE_KEY, bytes, &field.to_string()).await;
    }
    bench.refuses_field(GET_STATUS, number(1, 1), "1").await;
    // And in what is nested: a stream ends with it.
    for (method, one, question) in
        [(VERIFY_BATCH, "questions[1]", 1), (VERIFY_STREAM, "question", 2)]
    {
        let nested = |bytes: Vec<u8>| {
            let first = if method == VERIFY_BATCH { text(1, []) } else { number(1, 1) };
            joined(&[first, text(question, bytes)])
        };
        for (bytes, field) in [
            (text(99, "x"), "99"),
            (text(6, [0xff]), "permissions[0]"),
            (number(8, 9), "environment"),
            (joined(&[text(7, "a"), text(7, "a")]), "service"),
            (joined(&[text(1, "a"), text(1, "a")]), "credential"),
            (text(10, number(2, 1).repeat(2)), "at_least_revision[0].revision"),
            (number(5, 1), "tenant_id"),
            (vec![9 << 3 | 2, 9], "correlation_id"),
        ] {
            bench.refuses_field(method, nested(bytes), &format!("{one}.{field}")).await;
        }
        let beside = joined(&[nested(text(1, "k")), text(99, "x")]);
        bench.refuses_field(method, beside, "99").await;
    }
    bench.refuses_field(VERIFY_STREAM, text(2, []).repeat(2), "question").await;
    bench.refuses_field(VERIFY_STREAM, number(1, 1).repeat(2), "id").await;
    bench.refuses_field(VERIFY_BATCH, text(3, "c").repeat(2), "correlation_id").await;
    let inside =
        joined(&[text(1, &id), text(2, "n"), text(4, joined(&[text(1, "a:b"), number(2, 1)]))]);
    bench.refuses_field(CREATE_KEY, inside, "scopes.2").await;
    // Twice what can be there once.
    for (extra, field) in [
        (text(2, "other"), "name"),
        (text(4, text(1, "org:admin")), "scopes"),
        (number(7, 2), "environment"),
        (joined(&[text(8, []), text(9, [])]), "lifetime"),
        (joined(&[number(12, 1), number(12, 1)]), "expected_revision"),
        (joined(&[text(10, text(1, "k")), text(10, text(1, "k"))]), "metadata"),
        (joined(&[text(11, text(1, "k")), text(11, text(1, "k"))]), "limits"),
    ] {
        bench.refuses_field(CREATE_KEY, joined(&[key_request(&id), extra]), field).await;
    }
    // Values of enums that nobody named.
    let named = joined(&[text(1, &id), text(2, "n"), text(4, text(1, "a:b"))]);
    for value in [3, 9, u64::from(u32::MAX), u64::MAX, 1 << 32] {
        bench
            .refuses_field(CREATE_KEY, joined(&[named.clone(), number(7, value)]), "environment")
            .await;
        bench
            .refuses_field(
                LIST_KEYS,
                joined(&[text(1, &id), number(2, if value == 3 { 5 } else { value })]),
                "state",
            )
            .await;
        bench.refuses_field(VERIFY, number(8, value), "environment").await;
    }
    for reason in [2, 6, 7, 8, 10] {
        bench.refuses_field(REVOKE_KEY, number(3, reason), "reason").await;
    }
    // Other types than declared, groups, and no protobuf at all.
    for bytes in [number(2, 1), vec![2 << 3 | 5, 0, 0, 0, 0], vec![2 << 3 | 3, 2 << 3 | 4]] {
        bench.refuses_field(CREATE_KEY, bytes, "name").await;
    }
    for bytes in
        [&b"{\"name\": \"n\"}"[..], b"\x00", b"\x07", &[0xff; 32], b"GET / HTTP/1.1\r\n\r\n"]
    {
        for method in [CREATE_KEY, VERIFY, GET_STATUS, LIST_ORGANIZATIONS] {
            bench.refuses(method, bytes.to_vec(), "").await;
        }
    }
    // Nested as deep as bytes go: what nests does not recurse.
    let mut deep = Vec::new();
    for _ in 0..10_000 {
        deep = text(4, &deep);
        if deep.len() > 200_000 {
            break;
        }
    }
    bench.refuses(CREATE_KEY, deep, "scopes").await;
    bench.ends_as_it_began(before).await;
}

/// What the life of a key takes: each field of each request, by its name.
#[tokio::test]
async fn requests_that_change_keys() {
    let bench = Bench::new().await;
    let before = bench.revisions().await;
    let id = bench.0.id.clone();
    let key = bench.0.key("there", &["a:b"]).await.0;
    let before = before + 1;
    let target = joined(&[text(1, &id), text(2, &key)]);
    let negative = |field: u32| text(field, number(1, i64::from(-1).cast_unsigned()));
    // The last field of each is its idempotency key, the one before the expected revision.
    for (method, idempotency_key) in [
        (ROTATE_KEY, 7),
        (END_ROTATION, 4),
        (DISABLE_KEY, 5),
        (ENABLE_KEY, 5),
        (UPDATE_KEY_LABEL, 6),
    ] {
        let (expected, unknown) = (idempotency_key - 1, idempotency_key + 1);
        let with = |more: Vec<u8>| joined(&[target.clone(), more]);
        bench.refuses_field(method, with(text(unknown, "x")), &unknown.to_string()).await;
        bench.refuses_field(method, with(text(idempotency_key, "a b")), "idempotency_key").await;
        let twice = joined(&[number(expected, 1), number(expected, 1)]);
        bench.refuses_field(method, with(twice), "expected_revision").await;
        bench.refuses_field(method, with(text(expected, "x")), "expected_revision").await;
        bench.refuses_field(method, with(text(2, &key)), "key_id").await;
        bench.refuses_field(method, joined(&[text(1, &id), text(2, "key_")]), "key_id").await;
        bench
            .refuses_field(method, joined(&[text(1, "org_"), text(2, &key)]), "organization_id")
            .await;
        bench.refuses_field(method, with(text(idempotency_key, [0xff])), "idempotency_key").await;
    }
    for (method, more, field) in [
        (ROTATE_KEY, negative(3), "grace"),
        (ROTATE_KEY, text(3, number(1, u64::MAX >> 1)), "grace"),
        (ROTATE_KEY, text(3, number(3, 1)), "grace.3"),
        (ROTATE_KEY, joined(&[text(4, []), text(5, [])]), "lifetime"),
        (ROTATE_KEY, text(5, []), "lifetime"),
        (ROTATE_KEY, negative(5), "lifetime"),
        (ROTATE_KEY, text(4, number(2, 1_000_000_000)), "expires_at"),
        (DISABLE_KEY, text(3, "x".repeat(501)), "comment"),
        (ENABLE_KEY, text(3, "a\u{0}"), "comment"),
        (UPDATE_KEY_LABEL, text(3, "x".repeat(101)), "name"),
        (UPDATE_KEY_LABEL, text(3, " x"), "name"),
        (UPDATE_KEY_LABEL, text(4, "x".repeat(501)), "description"),
        (UPDATE_KEY_LABEL, joined(&[text(4, "x"), text(4, "x")]), "description"),
    ] {
        bench.refuses_field(method, joined(&[target.clone(), more]), field).await;
    }
    bench.ends_as_it_began(before).await;
}

/// Fields inside a list are named with their place in it.
#[tokio::test]
async fn imports_and_lists_of_keys() {
    let bench = Bench::new().await;
    let before = bench.revisions().await;
    let id = bench.0.id.clone();
    let good = |number: u8| {
        joined(&[text(1, [number; 32]), text(2, format!("n{number}")), text(4, text(1, "a:b"))])
    };
    let import = |keys: &[Vec<u8>]| {
        let mut bytes = text(1, &id);
        keys.iter().for_each(|key| bytes.extend(text(2, key)));
        bytes
    };
    bench.refuses_field(IMPORT_KEYS, import(&[]), "keys").await;
    let short = |number: usize| joined(&[text(1, [0; 32]), text(2, number.to_string())]);
    let many: Vec<_> = (0..1_001).map(short).collect();
    bench.refuses_field(IMPORT_KEYS, import(&many), "keys").await;
    for (more, field) in [
        (text(2, "x"), "name"),
        (text(5, "admin"), "role_ids[0]"),
        (joined(&[text(5, super::support::ADMIN), text(5, super::support::ADMIN)]), "role_ids[1]"),
        (text(6, []), "services.services"),
        (text(6, text(1, "a/b")), "services.services[0]"),
        (number(7, 3), "environment"),
        (text(8, number(2, 1_000_000_000)), "expires_at"),
        (text(9, []), "lifetime"),
        (joined(&[text(8, []), text(9, [])]), "lifetime"),
        (text(10, joined(&[text(1, "k"), text(2, "x".repeat(257))])), "metadata.k"),
        (text(11, text(1, "a b")), "limits"),
        (text(12, "sva_"), "service_account_id"),
        (text(13, "10.0.0"), "allowed_ips[0]"),
        (joined(&[text(13, "10.0.0.1"), text(13, "10.1.0.0/8")]), "allowed_ips[1]"),
        (joined(&[text(13, "10.0.0.1"), text(13, "10.0.0.1/32")]), "allowed_ips[1]"),
        (text(14, []), "rate_limit"),
        (text(14, number(1, 1)), "rate_limit"),
        (text(14, joined(&[number(1, 1_000_001), number(2, 1)])), "rate_limit"),
        (text(15, "usr_"), "user_id"),
        (text(16, "x"), "16"),
    ] {
        let bytes = import(&[good(1), joined(&[good(2), more])]);
        bench.refuses_field(IMPORT_KEYS, bytes, &format!("keys[1].{field}")).await;
    }
    for (bytes, field) in [
        (joined(&[text(1, [0; 31]), text(2, "n")]), "sha256"),
        (joined(&[text(1, [0; 33]), text(2, "n")]), "sha256"),
        (text(2, "n"), "sha256"),
        (joined(&[text(1, [0; 32]), text(2, [0xff])]), "name"),
        (text(1, [0; 32]), "name"),
        (joined(&[text(1, [0; 32]), text(2, "n"), text(4, [])]), "scopes.permissions"),
        (joined(&[text(1, [0; 32]), text(2, "n"), text(4, text(1, "a"))]), "scopes.permissions"),
    ] {
        let bytes = import(&[good(1), good(2), good(3), bytes]);
        bench.refuses_field(IMPORT_KEYS, bytes, &format!("keys[3].{field}")).await;
    }
    // The same fields of a key that is made.
    let key = key_request(&id);
    for (more, field) in [
        (text(14, "sva_"), "service_account_id"),
        (text(17, "usr_"), "user_id"),
        (text(15, ""), "allowed_ips[0]"),
        (text(15, "10.1.0.0/8"), "allowed_ips[0]"),
        ((0..33).flat_map(|n| text(15, format!("10.0.0.{n}"))).collect(), "allowed_ips[32]"),
        (text(16, joined(&[number(1, 1), number(2, 86_401)])), "rate_limit"),
        (text(16, number(3, 1)), "rate_limit.3"),
    ] {
        bench.refuses_field(CREATE_KEY, joined(&[key.clone(), more]), field).await;
    }
    // Lists of keys to revoke.
    let list = |list: Vec<u8>| joined(&[text(1, &id), text(2, list)]);
    let key = "key_00000000000000000000000009";
    for (bytes, field) in [
        (text(1, &id), "which"),
        (list(Vec::new()), "list"),
        (list((0..1_001).flat_map(|_| text(2, "x")).collect()), "list"),
        (list(joined(&[text(1, key), text(1, "key_")])), "list.key_ids[1]"),
        (list(text(1, [0xff])), "list.key_ids[0]"),
        (list(text(2, [0xff])), "list.leaked[0]"),
        (list(text(3, "x")), "list.3"),
        (joined(&[text(1, &id), text(3, "sva_")]), "service_account_id"),
        (joined(&[list(text(1, key)), text(3, "sva_")]), "service_account_id"),
        (joined(&[list(text(1, key)), number(4, 2)]), "reason"),
        (joined(&[list(text(1, key)), text(5, "x".repeat(501))]), "comment"),
        (joined(&[text(1, &id), text(6, "usr_")]), "user_id"),
        (joined(&[list(text(1, key)), text(6, "usr_")]), "user_id"),
        (joined(&[list(text(1, key)), text(7, "x")]), "7"),
    ] {
        bench.refuses_field(REVOKE_KEYS, bytes, field).await;
    }
    bench.refuses_field(LIST_KEYS, joined(&[text(1, &id), text(9, "usr_")]), "user_id").await;
    bench
        .refuses_field(LIST_KEYS, joined(&[text(1, &id), text(8, "sva_")]), "service_account_id")
        .await;
    bench.ends_as_it_began(before).await;
}

#[tokio::test]
async fn policies_and_service_accounts() {
    let bench = Bench::new().await;
    let before = bench.revisions().await;
    let id = bench.0.id.clone();
    let with = |more: Vec<u8>| joined(&[text(1, &id), more]);
    let seconds =
        |field: u32, seconds: i64| text(2, text(field, number(1, seconds.cast_unsigned())));
    for (more, field) in [
        (Vec::new(), "policy"),
        (seconds(1, -1), "policy.key_lifetime_max"),
        (text(2, text(1, [])), "policy.key_lifetime_max"),
        (text(2, text(1, number(2, 5))), "policy.key_lifetime_max"),
        (seconds(1, 1 << 32), "policy.key_lifetime_max"),
        (seconds(2, -1), "policy.rotation_grace_max"),
        (text(2, number(3, 2)), "policy.allowed_ips_required"),
        (text(2, number(4, 1)), "policy.4"),
        (joined(&[text(2, []), text(2, [])]), "policy"),
        (joined(&[text(2, []), text(4, "a b")]), "idempotency_key"),
        (joined(&[text(2, []), text(5, "x")]), "5"),
    ] {
        bench.refuses_field(UPDATE_POLICY, with(more), field).await;
    }
    let named = with(text(2, "bot"));
    for (bytes, field) in [
        (text(1, &id), "name"),
        (with(text(2, "a\nb")), "name"),
        (with(text(2, "x".repeat(101))), "name"),
        (joined(&[named.clone(), text(3, "x".repeat(501))]), "description"),
        (joined(&[named.clone(), text(4, "admin")]), "role_ids[0]"),
        (
            joined(&[
                named.clone(),
                (0..21).flat_map(|_| text(4, super::support::ADMIN)).collect(),
            ]),
            "role_ids",
        ),
        (joined(&[named.clone(), text(6, "é")]), "idempotency_key"),
        (joined(&[named.clone(), text(7, "x")]), "7"),
        (joined(&[named, text(2, "bot")]), "name"),
    ] {
        bench.refuses_field(CREATE_SERVICE_ACCOUNT, bytes, field).await;
    }
    bench.refuses_field(LIST_SERVICE_ACCOUNTS, with(number(2, 1_001)), "page_size").await;
    bench.refuses_field(LIST_SERVICE_ACCOUNTS, with(text(3, "x")), "page_token").await;
    bench.refuses_field(LIST_SERVICE_ACCOUNTS, with(text(4, "x")), "4").await;
    bench.ends_as_it_began(before).await;
}

#[tokio::test]
async fn texts_and_lists_past_their_limits() {
    let bench = Bench::new().await;
    let before = bench.revisions().await;
    let id = bench.0.id.clone();
    let good = || scoped(&id, "n", &["a:b"]);
    let many = |count: usize| -> Vec<String> { (0..count).map(|n| format!("a:b{n}")).collect() };
    type Change = Box<dyn Fn(&mut proto::CreateKeyRequest)>;
    let cases: Vec<(&str, Change)> = vec![
        ("name", Box::new(|it| it.name = String::new())),
        ("name", Box::new(|it| it.name = "x".repeat(101))),
        ("name", Box::new(|it| it.name = "x".repeat(100_000))),
        ("name", Box::new(|it| it.name = " x".into())),
        ("name", Box::new(|it| it.name = "a\nb".into())),
        ("name", Box::new(|it| it.name = "a\u{0}".into())),
        ("name", Box::new(|it| it.name = "a\u{7f}".into())),
        ("name", Box::new(|it| it.name = "a\u{202e}b".into())),
        ("description", Box::new(|it| it.description = "x".repeat(501))),
        ("description", Box::new(|it| it.description = "\u{1b}[31m".into())),
        ("idempotency_key", Box::new(|it| it.idempotency_key = "x".repeat(129))),
        ("idempotency_key", Box::new(|it| it.idempotency_key = "a b".into())),
        ("idempotency_key", Box::new(|it| it.idempotency_key = "é".into())),
        (
            "scopes.permissions",
            Box::new(move |it| it.scopes = Some(proto::Scopes { permissions: many(101) })),
        ),
        (
            "scopes.permissions",
            Box::new(|it| it.scopes = Some(proto::Scopes { permissions: texts(&["a:b", "a.b"]) })),
        ),
        (
            "scopes.permissions",
            Box::new(|it| it.scopes = Some(proto::Scopes { permissions: texts(&["a"]) })),
        ),
        (
            "scopes.permissions",
            Box::new(|it| it.scopes = Some(proto::Scopes { permissions: texts(&["A:b"]) })),
        ),
        (
            "scopes.permissions",
            Box::new(|it| it.scopes = Some(proto::Scopes { permissions: texts(&["a:b:c"]) })),
        ),
        (
            "scopes.permissions",
            Box::new(|it| {
                it.scopes =
                    Some(proto::Scopes { permissions: vec![format!("a:{}", "b".repeat(63))] })
            }),
        ),
        (
            "role_ids",
            Box::new(|it| {
                it.role_ids =
                    (0..21).map(|n| format!("rol_000000000000000000000000{n:02}")).collect()
            }),
        ),
        ("role_ids[0]", Box::new(|it| it.role_ids = texts(&["admin"]))),
        (
            "role_ids[1]",
            Box::new(|it| it.role_ids = vec!["rol_00000000000000000000000002".into(); 2]),
        ),
        ("services.services", Box::new(|it| it.services = Some(proto::ServiceAccess::default()))),
        (
            "services.services",
            Box::new(|it| {
                it.services = Some(proto::ServiceAccess {
                    services: (0..101).map(|n| n.to_string()).collect(),
                })
            }),
        ),
        (
            "services.services[1]",
            Box::new(|it| {
                it.services = Some(proto::ServiceAccess { services: texts(&["a", "a"]) })
            }),
        ),
        (
            "services.services[0]",
            Box::new(|it| it.services = Some(proto::ServiceAccess { services: texts(&["a/b"]) })),
        ),
        (
            "metadata",
            Box::new(|it| it.metadata = (0..33).map(|n| (n.to_string(), String::new())).collect()),
        ),
        ("metadata", Box::new(|it| it.metadata = [(String::new(), String::new())].into())),
        ("metadata", Box::new(|it| it.metadata = [("x".repeat(65), String::new())].into())),
        ("metadata.k", Box::new(|it| it.metadata = [("k".to_owned(), "x".repeat(257))].into())),
        ("metadata.k", Box::new(|it| it.metadata = [("k".to_owned(), "a\tb".into())].into())),
        ("limits", Box::new(|it| it.limits = (0..33).map(|n| (n.to_string(), n)).collect())),
        ("limits", Box::new(|it| it.limits = [("a b".to_owned(), 1)].into())),
        (
            "expires_at",
            Box::new(|it| {
                it.expiry =
                    Some(proto::create_key_request::Expiry::ExpiresAt(prost_types::Timestamp {
                        seconds: i64::MAX,
                        nanos: 0,
                    }))
            }),
        ),
        (
            "expires_at",
            Box::new(|it| {
                it.expiry =
                    Some(proto::create_key_request::Expiry::ExpiresAt(prost_types::Timestamp {
                        seconds: 4_000_000_000,
                        nanos: -1,
                    }))
            }),
        ),
        (
            "lifetime",
            Box::new(|it| {
                it.expiry =
                    Some(proto::create_key_request::Expiry::Lifetime(prost_types::Duration {
                        seconds: i64::MIN,
                        nanos: i32::MIN,
                    }))
            }),
        ),
        (
            "lifetime",
            Box::new(|it| {
                it.expiry =
                    Some(proto::create_key_request::Expiry::Lifetime(prost_types::Duration {
                        seconds: i64::MAX,
                        nanos: 0,
                    }))
            }),
        ),
        (
            "lifetime",
            Box::new(|it| {
                it.expiry =
                    Some(proto::create_key_request::Expiry::Lifetime(prost_types::Duration {
                        seconds: 1_000 * 366 * 86_400,
                        nanos: 0,
                    }))
            }),
        ),
    ];
    for (field, change) in cases {
        let mut request = good();
        change(&mut request);
        bench.refuses_field(CREATE_KEY, request.encode_to_vec(), field).await;
    }
    // Identifiers have one spelling.
    let upper = id.replacen("org_", "ORG_", 1);
    let lower = id.to_lowercase();
    for wrong in [
        "x",
        "org_",
        "usr_00000000000000000000000002",
        &id[..id.len() - 1],
        &format!("{id}0"),
        &format!(" {id}"),
        &lower,
        &upper,
        "org_0000000000000000000000000I",
        "org_80000000000000000000000000",
        "operator ",
        "org_\u{0}",
        &"x".repeat(100_000),
    ] {
        bench.refuses_field(GET_ORGANIZATION, text(1, wrong), "organization_id").await;
        bench.refuses_field(CREATE_KEY, key_request(wrong), "organization_id").await;
        let bytes = joined(&[text(1, &id), text(2, wrong)]);
        bench.refuses_field(GET_KEY, bytes.clone(), "key_id").await;
        bench.refuses_field(REVOKE_KEY, bytes, "key_id").await;
        bench.refuses_field(VERIFY, text(5, wrong), "tenant_id").await;
        bench.refuses_field(LIST_KEYS, joined(&[text(1, &id), text(4, wrong)]), "role_id").await;
    }
    // Pages.
    for wrong in ["x", "AAAA", &"A".repeat(43), &"A".repeat(100_000), "é", "a b"] {
        bench.refuses_field(LIST_KEYS, joined(&[text(1, &id), text(7, wrong)]), "page_token").await;
        bench.refuses_field(LIST_ORGANIZATIONS, text(2, wrong), "page_token").await;
        let bytes = joined(&[text(1, &id), text(5, wrong)]);
        bench.refuses_field(QUERY_ACTIVITY, bytes, "page_token").await;
    }
    for size in [1_001, u64::from(u32::MAX), 1 << 32] {
        bench.refuses_field(LIST_KEYS, joined(&[text(1, &id), number(6, size)]), "page_size").await;
        bench.refuses_field(LIST_ORGANIZATIONS, number(1, size), "page_size").await;
        let bytes = joined(&[text(1, &id), number(4, size)]);
        bench.refuses_field(QUERY_ACTIVITY, bytes, "page_size").await;
    }
    // What happened.
    let instant = |seconds: u64, nanos: u64| joined(&[number(1, seconds), number(2, nanos)]);
    for (bytes, field) in [
        (text(1, "somebody"), "actor"),
        (text(1, "usr_"), "actor"),
        (text(2, "key"), "credential_id"),
        (text(3, "key.mended"), "action"),
        (text(3, "*"), "action"),
        (text(3, "key*"), "action"),
        (text(3, "x".repeat(100_000)), "action"),
        (text(4, "a b"), "target_id"),
        (text(4, "x".repeat(129)), "target_id"),
        (text(4, "full"), "target_id"),
        (text(4, "key_xx"), "target_id"),
        (text(5, "a b"), "correlation_id"),
        (text(6, instant(253_402_300_800, 0)), "from"),
        (text(6, instant(i64::MIN.cast_unsigned(), 0)), "from"),
        (text(6, instant(0, 1_000_000_000)), "from"),
        (text(7, instant(0, i64::from(-1).cast_unsigned())), "to"),
        (text(7, instant(253_402_300_799, 999_999_999)), "to"),
        (joined(&[text(6, instant(2, 0)), text(7, instant(1, 0))]), "to"),
        (joined(&[text(6, instant(2, 0)), text(7, instant(2, 0))]), "to"),
        (number(8, 3), "outcome"),
        (text(9, "10.0.0"), "origin_ip"),
        (text(9, "10.0.0.1/8"), "origin_ip"),
        (text(9, "10.0.0.0/33"), "origin_ip"),
        (text(9, "10.0.0.0/8, 11.0.0.0/8"), "origin_ip"),
        (text(9, "::ffff:10.0.0.1"), "origin_ip"),
        (text(9, "localhost"), "origin_ip"),
        (text(9, "x".repeat(100_000)), "origin_ip"),
        (text(10, " "), "text"),
        (text(10, "' OR 1=1 --".replace(char::is_alphanumeric, "")), "text"),
        (text(10, "a b c d e f g h i"), "text"),
        (text(10, "x".repeat(201)), "text"),
        (text(10, "x".repeat(100_000)), "text"),
    ] {
        let bytes = joined(&[text(1, &id), text(2, bytes)]);
        let field = format!("filter.{field}");
        for (method, more) in
            [(QUERY_ACTIVITY, vec![]), (TAIL_ACTIVITY, vec![]), (EXPORT_ACTIVITY, number(3, 1))]
        {
            bench.refuses_field(method, joined(&[bytes.clone(), more]), &field).await;
        }
    }
    let far = u64::MAX;
    for (method, bytes, field) in [
        (TAIL_ACTIVITY, text(2, text(7, instant(2, 0))), "filter.to"),
        (TAIL_ACTIVITY, number(3, 1_000), "after_revision"),
        (TAIL_ACTIVITY, number(3, far), "after_revision"),
        (EXPORT_ACTIVITY, vec![], "format"),
        (EXPORT_ACTIVITY, number(3, 0), "format"),
        (EXPORT_ACTIVITY, number(3, 4), "format"),
        (EXPORT_ACTIVITY, joined(&[number(3, 1), number(4, far)]), "after_revision"),
        (EXPORT_ACTIVITY, joined(&[number(3, 1), number(5, 1_000)]), "up_to_revision"),
        (EXPORT_ACTIVITY, joined(&[number(3, 1), number(4, 1), number(5, 0)]), "up_to_revision"),
    ] {
        bench.refuses_field(method, joined(&[text(1, &id), bytes]), field).await;
    }
    for (bytes, field) in [
        (number(3, 3), "order"),
        (joined(&[number(6, 1), number(6, 1)]), "at_least_revision"),
        (joined(&[text(2, text(5, "a")), text(2, text(5, "a"))]), "filter"),
    ] {
        let bytes = joined(&[text(1, &id), bytes]);
        bench.refuses_field(QUERY_ACTIVITY, bytes, field).await;
    }
    bench.refuses_field(LIST_KEYS, joined(&[text(1, &id), text(5, "\n")]), "name_prefix").await;
    // Organizations.
    for (name, prefix, plan, field) in [
        ("", "abc", "", "name"),
        ("x", "", "", "key_prefix"),
        ("x", "a", "", "key_prefix"),
        ("x", "ABC", "", "key_prefix"),
        ("x", "a_b", "", "key_prefix"),
        ("x", "abcdefghijk", "", "key_prefix"),
        ("x", "abc", "Free", "plan"),
        ("x", "abc", " ", "plan"),
        ("x\u{200b}", "abc", "", "name"),
    ] {
        let bytes = joined(&[text(1, name), text(2, prefix), text(3, plan)]);
        bench.refuses_field(CREATE_ORGANIZATION, bytes, field).await;
    }
    // Questions.
    let stream = |stream: &str| text(10, text(1, stream));
    let wrongs = [
        (text(6, "a"), "permissions[0]"),
        (joined(&[text(6, "a:b"), text(6, "a:*")]), "permissions[1]"),
        ((0..101).flat_map(|_| text(6, "a:b")).collect(), "permissions[100]"),
        (text(7, "a b"), "service"),
        (text(7, "x".repeat(65)), "service"),
        (text(9, "a b"), "correlation_id"),
        (text(9, "x".repeat(129)), "correlation_id"),
        (stream("operator"), "at_least_revision[0].stream"),
        ((0..9).flat_map(|_| stream("org-operator")).collect(), "at_least_revision"),
        (text(4, "k").repeat(9), "admin_api_key"),
        (text(5, "org_"), "tenant_id"),
        (text(2, "k").repeat(9), "authorization"),
        (text(3, "k").repeat(9), "api_key"),
    ];
    for (bytes, field) in wrongs {
        bench.refuses_field(VERIFY, bytes.clone(), field).await;
        let told = bench.told_in_stream(joined(&[number(1, 9), text(2, &bytes)])).await;
        assert_eq!((told.status, told.reason.as_str()), (3, "INVALID_ARGUMENT"), "{told:?}");
        assert!(told.message.contains(&format!("`question.{field}`")), "{}", told.message);
        let batch = joined(&[text(1, []), text(1, []), text(1, bytes)]);
        let field = field.split("[0].stream").next().unwrap();
        bench.refuses_field(VERIFY_BATCH, batch, &format!("questions[2].{field}")).await;
    }
    // In a batch, revisions stand beside the questions.
    let beside =
        |stream: &str, count: usize| joined(&[text(1, []), text(2, text(1, stream)).repeat(count)]);
    bench.refuses_field(VERIFY_BATCH, beside("org-operator", 9), "at_least_revision").await;
    bench.refuses_field(VERIFY_BATCH, beside("x", 1), "at_least_revision[0].stream").await;
    bench.refuses_field(VERIFY_BATCH, Vec::new(), "questions").await;
    bench
        .refuses_field(VERIFY_BATCH, joined(&[text(1, []), text(3, "a b")]), "correlation_id")
        .await;
    for count in [1_001, 100_000] {
        bench.refuses_field(VERIFY_BATCH, text(1, []).repeat(count), "questions").await;
    }
    assert!(bench.call(VERIFY_BATCH, text(1, []).repeat(1_000)).await.is_ok());
    let told = bench.told_in_stream(number(1, 9)).await;
    assert!(told.message.starts_with("`question`: is missing"), "{told:?}");
    let comment = |comment: &str| {
        joined(&[text(1, &id), text(2, "key_00000000000000000000000009"), text(4, comment)])
    };
    bench.refuses_field(REVOKE_KEY, comment(&"x".repeat(501)), "comment").await;
    bench.refuses_field(REVOKE_KEY, comment("\u{8}"), "comment").await;

    // At the limits all is well.
    let request = proto::CreateKeyRequest {
        name: "é".repeat(100),
        description: "é".repeat(500),
        idempotency_key: "x".repeat(128),
        scopes: Some(proto::Scopes {
            permissions: (0..100).map(|n| format!("a:{}{n:02}", "x".repeat(60))).collect(),
        }),
        services: Some(proto::ServiceAccess {
            services: (0..100).map(|n| format!("{n:064}")).collect(),
        }),
        metadata: (0..32).map(|n| (format!("{n:064}"), "é".repeat(256))).collect(),
        limits: (0..32).map(|n| (format!("{n:064}"), i64::MIN)).collect(),
        ..good()
    };
    let created = bench.0.admin.create_key(request.clone()).await.unwrap().key.unwrap();
    assert_eq!((created.metadata, created.limits), (request.metadata, request.limits));
    let before = before + 1;
    bench.ends_as_it_began(before).await;
}

#[tokio::test]
async fn messages_and_headers_past_their_limits() {
    let bench = Bench::new().await;
    let before = bench.revisions().await;
    // One message may have 128 KiB. Past that it is not read at all: tonic answers
    // OUT_OF_RANGE and tells the limit.
    let fits = text(1, "n".repeat(131_000));
    bench.refuses_field(CREATE_ORGANIZATION, fits, "name").await;
    for method in [CREATE_ORGANIZATION, VERIFY, VERIFY_STREAM, GET_STATUS, LIST_ORGANIZATIONS] {
        let status = bench.call(method, text(1, vec![b'x'; 128 * 1024])).await.unwrap_err();
        assert_eq!(status.code(), Code::OutOfRange, "{status:?}");
        assert!(status.message().contains("the limit is: 131072 bytes"), "{status:?}");
    }
    // A batch, and an import, may have 1 MiB.
    let batch = |bytes: usize| text(1, text(7, "n".repeat(bytes)));
    bench.refuses_field(VERIFY_BATCH, batch(1_048_000), "questions[0].service").await;
    let import = text(2, joined(&[text(1, [0; 32]), text(2, "n".repeat(1_047_000))]));
    let import = joined(&[text(1, &bench.0.id), import]);
    bench.refuses_field(IMPORT_KEYS, import, "keys[0].name").await;
    for method in [VERIFY_BATCH, CREATE_KEY, IMPORT_KEYS] {
        let status = bench.call(method, batch(1024 * 1024)).await.unwrap_err();
        assert_eq!(status.code(), Code::OutOfRange, "{status:?}");
        assert!(status.message().contains("the limit is: 1048576 bytes"), "{status:?}");
    }
    // Headers.
    let ascii = |bytes: &[u8]| MetadataValue::<Ascii>::try_from(bytes).unwrap();
    let admin = format!("Bearer {}", bench.0.admin_secret);
    let send = async |headers: &[(&'static str, &[u8])]| {
        let mut request = Request::new(Vec::new());
        for (name, value) in headers {
            request.metadata_mut().append(*name, ascii(value));
        }
        // Each on a connection of its own: some may end it.
        call_raw(bench.0.server.connect().await, LIST_KEYS, request).await
    };
    let admin = admin.as_bytes();
    let refuses = async |headers: &[(&'static str, &[u8])], code: Code, says: &str| {
        let status = send(headers).await.unwrap_err();
        assert_eq!(status.code(), code, "{says}: {status:?}");
        assert!(status.message().contains(says), "{says}: {status:?}");
    };
    let invalid = Code::InvalidArgument;
    for name in ["authorization", "x-api-key", "x-admin-api-key"] {
        refuses(&[(name, b"Bearer k\xc3\xa9y")], invalid, &format!("`{name}`")).await;
        refuses(&[(name, &[0xff])], invalid, &format!("`{name}`")).await;
        let nine: Vec<(&'static str, &[u8])> = vec![(name, admin); 9];
        refuses(&nine, invalid, &format!("`{name}`")).await;
    }
    let eight: Vec<(&'static str, &[u8])> = vec![("authorization", admin); 8];
    send(&eight).await.unwrap();
    let two: &[(&'static str, &[u8])] =
        &[("authorization", admin), ("authorization", b"Bearer other")];
    refuses(two, Code::Unauthenticated, "two different credentials").await;
    // What writes takes a correlation id from the header.
    let create = async |headers: &[(&'static str, &[u8])]| {
        let mut request = Request::new(scoped("", "c", &["a:b"]).encode_to_vec());
        request.metadata_mut().append("authorization", ascii(admin));
        for (name, value) in headers {
            request.metadata_mut().append(*name, ascii(value));
        }
        call_raw(bench.0.server.connect().await, CREATE_KEY, request).await
    };
    for headers in [
        &[("x-correlation-id", &b"a"[..]), ("x-correlation-id", b"b")][..],
        &[("x-correlation-id", b"a b")],
        &[("x-correlation-id", b"")],
        &[("x-correlation-id", &[b'x'; 129])],
        &[("x-correlation-id", &[0xc3, 0xa9])],
        &[("x-correlation-id", &b"a"[..]); 9],
    ] {
        let status = create(headers).await.unwrap_err();
        assert_eq!(status.code(), invalid, "{status:?}");
        assert!(status.message().contains("`x-correlation-id`"), "{status:?}");
    }
    // Headers past 16 KiB end the call before anybody reads it: HTTP 431, to which gRPC
    // knows no answer but UNKNOWN.
    let large = vec![b'x'; 20 * 1024];
    let status = create(&[("x-anything", &large)]).await.unwrap_err();
    assert!(status.code() == Code::Unknown && status.message().contains("431"), "{status:?}");
    // No such method, no such service.
    for method in ["keyledger.v1.KeyService/EditKey", "keyledger.v2.KeyService/CreateKey", "x/y"] {
        let status = bench.call(method, Vec::new()).await.unwrap_err();
        assert_eq!(status.code(), Code::Unimplemented, "{status:?}");
    }
    // A user agent is nobody's credential: whatever it is, it does not matter.
    create(&[
        ("user-agent", &[0xff, 0xfe]),
        ("x-correlation-id", b"a"),
        ("x-correlation-id", b"a"),
    ])
    .await
    .unwrap();
    bench.ends_as_it_began(before + 1).await;
}

/// Whoever shows no key in force is answered before a byte of the request is there: they
/// cannot make the server keep their bytes. Whoever does is waited for.
#[tokio::test]
async fn who_shows_no_key_in_force_is_answered_before_the_request_is_read() {
    let bench = Bench::new().await;
    let (id, secret) = bench.0.key("soon gone", &["a:b"]).await;
    bench.0.operator.revoke(&bench.0.id, &id).await.unwrap();
    let channel = bench.0.server.channel();
    for credential in [None, Some("garbage".to_owned()), Some(format!("Bearer {secret}"))] {
        for method in
            [CREATE_KEY, VERIFY, VERIFY_BATCH, VERIFY_STREAM, GET_STATUS, LIST_ORGANIZATIONS]
        {
            let mut request = Request::new(());
            if let Some(credential) = &credential {
                request.metadata_mut().append("authorization", credential.parse().unwrap());
            }
            let answer = call_without_body(channel.clone(), method, request);
            let answer = tokio::time::timeout(std::time::Duration::from_secs(20), answer);
            let status = answer.await.expect("it does not wait for the body").unwrap_err();
            assert_eq!(status.code(), Code::Unauthenticated, "{method}: {status:?}");
        }
    }
    let request = bench.0.operator.request(());
    let waiting = call_without_body(channel, LIST_ORGANIZATIONS, request);
    let waiting = tokio::time::timeout(std::time::Duration::from_millis(300), waiting);
    assert!(waiting.await.is_err(), "a request that may be made is waited for");
}

/// A request has its time; what is not all there by then is given up.
#[tokio::test]
async fn a_request_that_never_ends_is_given_up() {
    let home = super::support::Home::new();
    let server = home.launch().args(&["--request-timeout-ms", "400"]).start().await;
    let request = server.client(&home.admin_key()).request(());
    let answer = call_without_body(server.channel(), LIST_ORGANIZATIONS, request);
    let answer = tokio::time::timeout(std::time::Duration::from_secs(20), answer);
    let status = answer.await.expect("it is given up").unwrap_err();
    assert!(matches!(status.code(), Code::Cancelled | Code::DeadlineExceeded), "{status:?}");
    server.stop().await;
}
