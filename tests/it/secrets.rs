//! No secret and no personal data in clear, anywhere that is kept or shown.
//!
//! A busy story, logged at its loudest; then every file of the data directory but the
//! secrets' own, every line that was logged and every error that was answered is searched
//! for everything that must not be there.

use std::fs;
use std::path::Path;

use keyledger::proto::{
    self, CreateKeyRequest, GetKeyRequest, ListKeysRequest, RevokeKeyRequest, VerifyRequest,
};
use prost::Message as _;
use sha2::{Digest as _, Sha256};
use tonic::{Request, Status};

use super::support::{Client, Home, Server, call_raw, scoped, with_roles};

const TOKEN: &str = "token-of-the-administrators-0f9a";
const COMMENT: &str = "Found on Brünhilde Quux's laptop, call +49-30-5550199";
const AGENT: &str = "quux-agent/9.81 (brunhilde@quux.example)";
const IDEMPOTENCY_KEY: &str = "idem-5550199-brunhilde";
/// Loopback has many addresses; nobody else in this test has this one.
const PEER: &str = "127.77.13.5";
/// Nothing that is looked for is longer.
const BLOCK_BYTES: usize = 4_096;

/// What must not be found, by what it is.
struct Hidden(Vec<(&'static str, Vec<u8>)>);

impl Hidden {
    fn secret(&mut self, what: &'static str, text: &str) {
        let digest = Sha256::digest(text.as_bytes());
        let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        self.0.push((what, text.into()));
        self.0.push(("its SHA-256 in upper case", hex.to_uppercase().into()));
        self.0.push(("its SHA-256 in hexadecimal", hex.into()));
        self.0.push(("its SHA-256", digest.to_vec()));
        // Nor the part of a key that alone is enough to guess at the rest.
        if let Some((_, tail)) = text.rsplit_once('_') {
            self.0.push(("the secret part of a key", tail[..tail.len().min(24)].into()));
        }
    }

    fn personal(&mut self, what: &'static str, text: &str) {
        self.0.push((what, text.into()));
    }

    #[track_caller]
    fn is_not_in(&self, place: &str, bytes: &[u8]) {
        for (what, hidden) in &self.0 {
            assert!(hidden.len() <= BLOCK_BYTES, "{what} is too long to be looked for");
            if let Some(at) = find(bytes, hidden) {
                let around = &bytes[at.saturating_sub(200)..(at + 100).min(bytes.len())];
                panic!("{what} is in {place}: {}", String::from_utf8_lossy(around));
            }
        }
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    // The first byte is found quickly; nearly all of the search ends there.
    let (first, rest) = wanted.split_first().unwrap();
    let mut from = 0;
    while let Some(at) = bytes[from..].iter().position(|byte| byte == first) {
        let at = from + at;
        if bytes[at + 1..].starts_with(rest) {
            return Some(at);
        }
        from = at + 1;
    }
    None
}

/// The same bytes, with one block of zeros where many follow each other: the log and the
/// reserve are made of them. What is looked for is shorter than a block, so it is found all
/// the same, at the edge of such blocks, too.
fn without_emptiness(bytes: &[u8]) -> Vec<u8> {
    let mut kept = Vec::new();
    let mut before_was_empty = false;
    for block in bytes.chunks(BLOCK_BYTES) {
        let is_empty = block == &[0; BLOCK_BYTES][..block.len()];
        if !(is_empty && before_was_empty) {
            kept.extend_from_slice(block);
        }
        before_was_empty = is_empty;
    }
    kept
}

fn files(directory: &Path, found: &mut Vec<(String, Vec<u8>)>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else {
            let bytes = fs::read(&path).unwrap();
            found.push((path.display().to_string(), without_emptiness(&bytes)));
        }
    }
}

/// What the data directory keeps, the files that are secrets by design left out.
fn kept(home: &Home) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    files(&home.data(), &mut found);
    let secret = |name: &str| name.contains("/secrets/") || name.ends_with("admin.key");
    found.retain(|(name, _)| !secret(name));
    assert!(found.iter().any(|(name, bytes)| name.ends_with("ledger.db") && bytes.len() > 9_000));
    found
}

/// A connection from an address of its own, with a user agent of its own.
async fn channel_from_elsewhere(server: &Server) -> tonic::transport::Channel {
    let address = format!("http://{}", server.address);
    tonic::transport::Endpoint::from_shared(address)
        .unwrap()
        .user_agent(AGENT)
        .unwrap()
        .local_address(Some(PEER.parse().unwrap()))
        .connect()
        .await
        .unwrap()
}

struct Story {
    hidden: Hidden,
    errors: Vec<Status>,
    revoked: String,
    organization: String,
}

impl Story {
    fn fails<T>(&mut self, answer: Result<T, Status>) {
        let Err(status) = answer else { panic!("was accepted") };
        self.errors.push(status);
    }

    /// All there is to do, and much that is refused.
    async fn told(server: &Server, operator: &Client) -> Self {
        let organization = operator.organization("acme", "vtx", "").await;
        let mut story = Self {
            hidden: Hidden(Vec::new()),
            errors: Vec::new(),
            revoked: String::new(),
            organization,
        };
        let id = story.organization.clone();
        let admin = operator.create_key(scoped(&id, "admin", &["org:admin"])).await.unwrap().secret;
        story.hidden.secret("an administrator's key", &admin);
        let admin = operator.with_key(&admin);
        for n in 0..5 {
            let request = CreateKeyRequest {
                idempotency_key: format!("{IDEMPOTENCY_KEY}-{n}"),
                ..scoped(&id, &format!("key {n}"), &["a:b"])
            };
            let made = admin.create_key(request.clone()).await.unwrap();
            assert!(admin.create_key(request.clone()).await.unwrap().secret_already_issued);
            story.fails(admin.create_key(CreateKeyRequest { name: "x".into(), ..request }).await);
            story.hidden.secret("a key", &made.secret);
            story.used(operator, &made.secret).await;
            let request = RevokeKeyRequest {
                key_id: made.key.unwrap().id,
                comment: COMMENT.into(),
                ..Default::default()
            };
            story.revoked.clone_from(&request.key_id);
            admin.revoke_key(request.clone()).await.unwrap();
            story.fails(admin.revoke_key(request).await);
            story.used(operator, &made.secret).await;
            let gone = operator.with_key(&made.secret);
            story.fails(gone.list_keys(ListKeysRequest::default()).await);
        }
        story.keys_of_many_kinds(server, &admin).await;
        story.in_wrong_places(server, &admin).await;
        story.hidden.personal("a revocation's comment", COMMENT);
        story.hidden.personal("a part of the comment", "Quux's laptop");
        story.hidden.personal("an idempotency key", IDEMPOTENCY_KEY);
        story.hidden.personal("what both of them tell", "5550199");
        story
    }

    /// A secret as a caller's credential and as what is asked about, in every form.
    async fn used(&mut self, operator: &Client, secret: &str) {
        operator.ask(secret, &["a:b"]).await;
        let request = VerifyRequest {
            authorization: vec![format!("Bearer {secret}")],
            api_key: vec![secret.to_owned()],
            admin_api_key: vec![secret.to_owned()],
            ..Default::default()
        };
        operator.verify(request).await.unwrap();
        self.fails(operator.with_key(secret).get_status(proto::GetStatusRequest {}).await);
        self.fails(operator.with_key(&format!("{secret}x")).get_status(Default::default()).await);
    }

    /// Rotated, imported and leaked ones.
    async fn keys_of_many_kinds(&mut self, server: &Server, admin: &Client) {
        let made = admin.create_key(scoped("", "to rotate", &["a:b"])).await.unwrap();
        self.hidden.secret("a rotated key", &made.secret);
        let id = made.key.unwrap().id;
        let request = proto::RotateKeyRequest {
            key_id: id.clone(),
            idempotency_key: format!("{IDEMPOTENCY_KEY}-rotate"),
            ..Default::default()
        };
        let rotated = admin.rotate_key(request.clone()).await.unwrap();
        self.hidden.secret("a key that took another's place", &rotated.secret);
        assert!(admin.rotate_key(request.clone()).await.unwrap().secret.is_empty());
        let request = proto::RotateKeyRequest { idempotency_key: String::new(), ..request };
        self.fails(admin.rotate_key(request).await);
        for comment in [COMMENT, "x".repeat(501).as_str()] {
            let (key_id, comment) = (rotated.key.clone().unwrap().id, comment.to_owned());
            let request = proto::DisableKeyRequest { key_id, comment, ..Default::default() };
            match admin.disable_key(request).await {
                Ok(_) => {}
                Err(status) => self.errors.push(status),
            }
        }
        // Imported by its digest, which is as good as hidden: it could be imported elsewhere.
        let foreign = "foreign-key-0f9a-5550199-quux-xyzzy";
        self.hidden.secret("an imported key", foreign);
        let item = |name: &str| proto::ImportedKey {
            sha256: Sha256::digest(foreign.as_bytes()).to_vec(),
            name: name.into(),
            scopes: Some(proto::Scopes { permissions: vec!["a:b".into()] }),
            ..Default::default()
        };
        let import =
            |keys: Vec<proto::ImportedKey>| proto::ImportKeysRequest { keys, ..Default::default() };
        admin.import_keys(import(vec![item("imported")])).await.unwrap();
        self.fails(admin.import_keys(import(vec![item("imported")])).await);
        self.fails(admin.import_keys(import(vec![item("again")])).await);
        self.fails(admin.import_keys(import(vec![item("a"), item("b")])).await);
        // Whole keys where digests belong, and the other way round.
        let sha256 = foreign.as_bytes().to_vec();
        let wrong = proto::ImportedKey { sha256, ..item("wrong") };
        self.fails(admin.import_keys(import(vec![wrong])).await);
        let leaked = |texts: &[&str]| {
            let leaked = texts.iter().map(|it| (*it).to_owned()).collect();
            let list = proto::KeyList { key_ids: Vec::new(), leaked };
            proto::RevokeKeysRequest {
                which: Some(proto::revoke_keys_request::Which::List(list)),
                comment: COMMENT.into(),
                ..Default::default()
            }
        };
        let unknown = "leaked-elsewhere-5550199-never-seen-here";
        self.hidden.secret("a leaked text that is no key", unknown);
        admin.revoke_keys(leaked(&[foreign, &made.secret, unknown])).await.unwrap();
        self.fails(admin.revoke_keys(leaked(&vec![unknown; 1_001])).await);
        let mut bytes = leaked(&[foreign, unknown]).encode_to_vec();
        bytes.extend([0xff; 3]);
        let method = "keyledger.v1.KeyService/RevokeKeys";
        self.fails(call_raw(server.channel(), method, admin.request(bytes)).await);
        let list = proto::KeyList { key_ids: vec![foreign.into()], leaked: Vec::new() };
        let which = Some(proto::revoke_keys_request::Which::List(list));
        let wrong = proto::RevokeKeysRequest { which, ..Default::default() };
        self.fails(admin.revoke_keys(wrong).await);
    }

    /// A secret where none belongs, and requests that cannot be read around one.
    async fn in_wrong_places(&mut self, server: &Server, admin: &Client) {
        let id = self.organization.clone();
        let made = admin.create_key(scoped(&id, "misplaced", &["a:b"])).await.unwrap();
        let (key, secret) = (made.key.unwrap().id, made.secret);
        self.hidden.secret("a misplaced key", &secret);
        let bearer = format!("Bearer {secret}");
        let verify = |change: fn(&mut VerifyRequest, String)| {
            let mut request = VerifyRequest::default();
            change(&mut request, bearer.clone());
            request
        };
        for request in [
            verify(|it, secret| it.service = secret),
            verify(|it, secret| it.correlation_id = secret),
            verify(|it, secret| it.tenant_id = secret),
            verify(|it, secret| {
                it.authorization = vec![secret; 9];
            }),
        ] {
            self.fails(admin.verify(request.clone()).await);
            let mut bytes = request.encode_to_vec();
            bytes.extend([0xff; 3]);
            let request = admin.request(bytes);
            let method = "keyledger.v1.VerificationService/Verify";
            self.fails(call_raw(server.channel(), method, request).await);
        }
        let wrong = GetKeyRequest { organization_id: secret.clone(), key_id: key.clone() };
        self.fails(admin.get_key(wrong).await);
        let wrong = GetKeyRequest { organization_id: id.clone(), key_id: secret.clone() };
        self.fails(admin.get_key(wrong).await);
        self.fails(admin.create_key(with_roles(&id, "x", &[&secret])).await);
        let mut request = Request::new(Vec::new());
        request.metadata_mut().insert("x-api-key", secret.parse().unwrap());
        request.metadata_mut().append("x-api-key", format!("{secret}y").parse().unwrap());
        let method = "keyledger.v1.KeyService/ListKeys";
        self.fails(call_raw(server.channel(), method, request).await);
    }

    /// Calls from an address and with an agent that can be looked for.
    async fn calls_from_elsewhere(&mut self, server: &Server, operator_key: &str) {
        let channel = channel_from_elsewhere(server).await;
        let mut client = proto::key_service_client::KeyServiceClient::new(channel);
        for n in 0..3 {
            let mut request =
                Request::new(scoped(&self.organization, &format!("far {n}"), &["a:b"]));
            let bearer = format!("Bearer {operator_key}").parse().unwrap();
            request.metadata_mut().insert("authorization", bearer);
            let made = client.create_key(request).await.unwrap().into_inner();
            self.hidden.secret("a key made from elsewhere", &made.secret);
        }
        self.fails(client.list_keys(ListKeysRequest::default()).await);
        self.hidden.personal("the peer's address", PEER);
        self.hidden.personal("the user agent", AGENT);
        self.hidden.personal("a part of the user agent", "brunhilde@quux");
    }

    fn is_kept_quiet(&self, home: &Home, said: &str) {
        for (name, bytes) in kept(home) {
            self.hidden.is_not_in(&name, &bytes);
        }
        assert!(!said.is_empty());
        self.hidden.is_not_in("the log", said.as_bytes());
        assert!(self.errors.len() > 10);
        for status in &self.errors {
            self.hidden.is_not_in("an error", status.message().as_bytes());
            self.hidden.is_not_in("an error's details", status.details());
            self.hidden.is_not_in("an error, whole", format!("{status:?}").as_bytes());
        }
    }
}

async fn opens(client: &Client, story: &Story) {
    let request = GetKeyRequest {
        organization_id: story.organization.clone(),
        key_id: story.revoked.clone(),
    };
    let key = client.get_key(request).await.unwrap().key.unwrap();
    assert_eq!(key.revocation.unwrap().comment, COMMENT);
}

async fn check(filter: &str) {
    let home = Home::new();
    let server = home.launch().args(&["--log", filter]).start().await;
    let operator_key = home.admin_key();
    let operator = server.client(&operator_key);
    let mut story = Story::told(&server, &operator).await;
    story.hidden.secret("the operator's key", &operator_key);
    story.calls_from_elsewhere(&server, &operator_key).await;
    opens(&operator, &story).await;
    // Killed, so that the write-ahead log is still there to be searched; then in rest.
    let mut said = server.kill();
    story.is_kept_quiet(&home, &said);
    let launch = home.launch().args(&["--log", filter]).env("ADMIN_API_TOKEN", TOKEN);
    let server = launch.start().await;
    story.hidden.secret("ADMIN_API_TOKEN", TOKEN);
    let by_token = server.client(TOKEN);
    story.used(&by_token, TOKEN.trim_end_matches('a')).await;
    opens(&by_token, &story).await;
    said += &server.stop().await;
    let server = home.launch().args(&["--log", filter]).start().await;
    story.fails(server.client(TOKEN).get_status(proto::GetStatusRequest {}).await);
    said += &server.stop().await;
    said += &home.launch().env("ADMIN_API_TOKEN", TOKEN).refused();
    assert!(filter != "trace" || said.matches("\"TRACE\"").count() > 1_000, "not loud enough");
    story.is_kept_quiet(&home, &said);
}

#[tokio::test]
async fn nothing_is_kept_or_told_in_clear() {
    check("info").await;
}

/// At its loudest, our own code and every library under it.
#[tokio::test]
async fn nothing_is_told_in_clear_even_at_the_loudest() {
    check("trace").await;
}

/// Whatever lies between blocks of zeros, or across their edges, is still found.
#[test]
fn the_search_skips_nothing_but_emptiness() {
    for at in [0, 1, 4_090, 4_096, 5 * 4_096 - 3, 9 * 4_096 + 7, 19 * 4_096 - 4] {
        // Zeros of its own on both sides, as a digest may have.
        let hidden = [&[0][..], b"key", &[0]].concat();
        let mut bytes = vec![0; 20 * BLOCK_BYTES + 100];
        bytes[at + 1..at + 4].copy_from_slice(b"key");
        let kept = without_emptiness(&bytes);
        assert!(kept.len() <= 6 * BLOCK_BYTES, "{at}: {}", kept.len());
        assert!(find(&kept, &hidden).is_some(), "{at}");
    }
    let full: Vec<u8> = (0..50_000_u32).map(|it| (it % 251) as u8).collect();
    assert_eq!(without_emptiness(&full), full);
}

/// The search finds what is there: it is not the search that is silent.
#[tokio::test]
async fn the_search_finds_what_is_there() {
    let home = Home::new();
    let server = home.start().await;
    let operator = server.client(&home.admin_key());
    operator.organization("acme-5550199", "vtx", "").await;
    let hidden = Hidden(vec![("a name", b"acme-5550199".to_vec())]);
    server.kill();
    let found = std::panic::catch_unwind(|| {
        for (name, bytes) in kept(&home) {
            hidden.is_not_in(&name, &bytes);
        }
    });
    assert!(found.is_err());
}
