//! What comes, told as it comes: nothing lost, nothing twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use keyledger::proto::audit_service_client::AuditServiceClient;
use keyledger::proto::{TailActivityRequest, TailActivityResponse};
use tonic::Streaming;

use super::super::support::{DEADLINE, Server};
use super::*;

type Tail = Streaming<TailActivityResponse>;

async fn tail(
    server: &Server,
    client: &Client,
    request: TailActivityRequest,
) -> Result<Tail, Status> {
    let mut service = AuditServiceClient::new(server.connect().await);
    service.tail_activity(client.request(request)).await.map(tonic::Response::into_inner)
}

/// The next piece; the test fails where none comes.
async fn next(tail: &mut Tail) -> Result<TailActivityResponse, Status> {
    let piece = tokio::time::timeout(DEADLINE, tail.message()).await.expect("a piece in time");
    piece.map(|piece| piece.expect("a tail has no end"))
}

/// Everything that was ever recorded.
fn from_the_beginning(organization_id: &str) -> TailActivityRequest {
    let from = Some(prost_types::Timestamp::default());
    let filter = Some(ActivityFilter { from, ..Default::default() });
    let organization_id = organization_id.into();
    TailActivityRequest { organization_id, filter, after_revision: None }
}

/// What somebody heard who remembers nothing but the last revision.
#[derive(Default)]
struct Heard {
    revisions: Vec<u64>,
    last: Option<u64>,
}

impl Heard {
    fn take(&mut self, piece: TailActivityResponse) {
        self.revisions.extend(revisions(&piece.entries));
        let told = piece.revision.map(|it| it.revision);
        assert!(told >= self.last, "{told:?} behind {:?}", self.last);
        assert!(self.revisions.last().copied() <= told, "an entry beyond what is told");
        self.last = told;
    }

    async fn until(&mut self, tail: &mut Tail, revision: u64) {
        while self.last.is_none_or(|last| last < revision) {
            self.take(next(tail).await.unwrap());
        }
    }

    fn request(&self, of: TailActivityRequest) -> TailActivityRequest {
        TailActivityRequest { after_revision: self.last, ..of }
    }
}

#[tokio::test]
async fn a_tail_tells_each_event_once_across_breaks_and_restarts() {
    let acme = Acme::new().await;
    let request = from_the_beginning("");
    let mut heard = Heard::default();
    // Others write all the while; the tail breaks off behind any piece, and goes on.
    let enough = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..3)
        .map(|writer| {
            let (admin, enough) = (acme.admin.clone(), Arc::clone(&enough));
            tokio::spawn(async move {
                for number in 0.. {
                    if enough.load(Ordering::Relaxed) {
                        return;
                    }
                    let name = format!("writer {writer} {number}");
                    admin.create_key(scoped("", &name, &["a:b"])).await.unwrap();
                }
            })
        })
        .collect();
    for pieces in 1..8 {
        let request = heard.request(request.clone());
        let mut tail = tail(&acme.server, &acme.admin, request).await.unwrap();
        for _ in 0..pieces {
            heard.take(next(&mut tail).await.unwrap());
        }
    }
    enough.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.unwrap();
    }
    // The server goes while somebody listens, and comes again.
    let mut open = tail(&acme.server, &acme.admin, heard.request(request.clone())).await.unwrap();
    heard.until(&mut open, acme.revision().await).await;
    let closing = tokio::spawn(async move {
        loop {
            if let Err(status) = next(&mut open).await {
                return status;
            }
        }
    });
    let acme = acme.restarted().await;
    let status = closing.await.unwrap();
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::Unavailable, "CLOSING"),
        "{status:?}"
    );
    acme.key("after", &["a:b"]).await;
    let head = acme.revision().await;
    let mut again = tail(&acme.server, &acme.admin, heard.request(request)).await.unwrap();
    heard.until(&mut again, head).await;
    assert_eq!(heard.revisions, (0..=heard.last.unwrap()).collect::<Vec<_>>());
    drop(again);
    acme.server.stop().await;
}

#[tokio::test]
async fn a_tail_begins_now_or_where_it_is_told() {
    let acme = Acme::new().await;
    acme.key("before", &["a:b"]).await;
    let before = acme.revision().await;
    let mut now = tail(&acme.server, &acme.admin, TailActivityRequest::default()).await.unwrap();
    // Behind the record of its beginning.
    let head = acme.revision().await;
    assert_eq!(head, before + 1);
    let first = next(&mut now).await.unwrap();
    assert_eq!((first.entries.len(), first.revision.unwrap().revision), (0, head));
    let (id, _) = acme.key("next", &["a:b"]).await;
    let piece = next(&mut now).await.unwrap();
    assert_eq!(revisions(&piece.entries), [head + 1]);
    // The same entry as a page has.
    let page = acme.admin.query_activity(of("")).await.unwrap();
    assert_eq!(page.entries[0].revision, head + 1);
    assert_eq!(page.entries[0], piece.entries[0]);
    assert_eq!(piece.entries[0].target.as_ref().unwrap().id, id);
    let behind = TailActivityRequest { after_revision: Some(head), ..Default::default() };
    let mut behind = tail(&acme.server, &acme.admin, behind).await.unwrap();
    let mut heard = Heard::default();
    heard.until(&mut behind, head + 1).await;
    assert_eq!(heard.revisions, (head + 1..=heard.last.unwrap()).collect::<Vec<_>>());
    // Whoever waits for what is rare is told how far they are.
    let filter = ActivityFilter { action: "key.revoked".into(), ..Default::default() };
    let rare = TailActivityRequest { filter: Some(filter), ..Default::default() };
    let mut rare = tail(&acme.server, &acme.admin, rare).await.unwrap();
    let head = acme.revision().await;
    let mut heard = Heard::default();
    heard.until(&mut rare, head).await;
    acme.key("not this", &["a:b"]).await;
    heard.until(&mut rare, head + 1).await;
    assert!(heard.revisions.is_empty());
    revoke(&acme.admin, "", &id, RevocationReason::Unspecified, "").await;
    heard.until(&mut rare, head + 2).await;
    assert_eq!(heard.revisions, [head + 2]);
    drop((now, behind, rare));
    acme.server.stop().await;
}

#[tokio::test]
async fn a_tail_ends_with_its_callers_authority_whatever_is_recorded() {
    let acme = Acme::new().await;
    let (reader, secret) = acme.key("reader", &["activity:read"]).await;
    let client = acme.operator.with_key(&secret);
    let mut tail = tail(&acme.server, &client, TailActivityRequest::default()).await.unwrap();
    next(&mut tail).await.unwrap();
    revoke(&acme.admin, "", &reader, RevocationReason::Unspecified, "").await;
    let end = acme.revision().await;
    loop {
        match next(&mut tail).await {
            // What was queued before may still be told; the end of the key is not.
            Ok(piece) => assert!(piece.revision.unwrap().revision < end),
            Err(status) => {
                assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");
                assert_eq!(reason(&status), "REVOKED");
                break;
            }
        }
    }
    acme.server.stop().await;
}

#[tokio::test]
async fn whoever_takes_nothing_holds_up_nobody_and_misses_nothing() {
    const EVENTS: u64 = 20_000;
    let acme = Acme::new().await;
    let Acme { home, server, id, admin_secret, .. } = acme;
    server.stop().await;
    lengthen(&home, &id, EVENTS).await;
    let server = home.start().await;
    let admin = server.client(&admin_secret);
    let request = from_the_beginning("");
    let mut slow = tail(&server, &admin, request.clone()).await.unwrap();
    for number in 0..20 {
        let name = format!("meanwhile {number}");
        admin.create_key(scoped("", &name, &["a:b"])).await.unwrap();
    }
    let head = admin.query_activity(of("")).await.unwrap().revision.unwrap().revision;
    let mut heard = Heard::default();
    while heard.last.is_none_or(|last| last < head) {
        match next(&mut slow).await {
            Ok(piece) => heard.take(piece),
            // A machine that stood still long enough: that is how it goes on.
            Err(status) => {
                assert_eq!(reason(&status), "TAIL_TOO_SLOW", "{status:?}");
                slow = tail(&server, &admin, heard.request(request.clone())).await.unwrap();
            }
        }
    }
    assert_eq!(heard.revisions, (0..=heard.last.unwrap()).collect::<Vec<_>>());
    drop(slow);
    server.stop().await;
}

/// Two pieces wait, and what the transport holds; then the tail ends, and nothing is skipped.
#[tokio::test]
async fn whoever_takes_nothing_for_long_is_cut_off_and_goes_on_where_they_were() {
    const EVENTS: u64 = 20_000;
    let acme = Acme::new().await;
    let Acme { home, server, id, admin_secret, .. } = acme;
    server.stop().await;
    lengthen(&home, &id, EVENTS).await;
    let server = home.start().await;
    let admin = server.client(&admin_secret);
    let request = from_the_beginning("");
    let mut heard = Heard::default();
    let mut slow = tail(&server, &admin, request.clone()).await.unwrap();
    heard.take(next(&mut slow).await.unwrap());
    tokio::time::sleep(std::time::Duration::from_secs(32)).await;
    let status = loop {
        match next(&mut slow).await {
            Ok(piece) => heard.take(piece),
            Err(status) => break status,
        }
    };
    assert_eq!((status.code(), reason(&status).as_str()), (Code::Aborted, "TAIL_TOO_SLOW"));
    assert!(heard.last.is_none_or(|last| last < EVENTS), "it was cut off in the middle");
    let head = admin.revision(&id).await;
    let mut again = tail(&server, &admin, heard.request(request)).await.unwrap();
    heard.until(&mut again, head).await;
    assert_eq!(heard.revisions, (0..=heard.last.unwrap()).collect::<Vec<_>>());
    drop(again);
    server.stop().await;
}
