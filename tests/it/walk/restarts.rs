//! What a restart keeps, and what a stop lets end.

use keyledger::proto::{self, DecisionCode, RevokeKeyRequest, StreamRevision, VerifyRequest};
use tonic::Code;

use super::get;
use crate::support::{Acme, reason, scoped};

#[tokio::test]
async fn a_restart_keeps_everything() {
    let acme = Acme::new().await;
    let (kept, kept_secret) = acme.key("kept", &["a:b"]).await;
    let (gone, gone_secret) = acme.key("gone", &["a:b"]).await;
    let revoke = RevokeKeyRequest {
        key_id: gone.clone(),
        comment: "no longer needed".into(),
        ..Default::default()
    };
    acme.admin.revoke_key(revoke).await.unwrap();
    let admin_key = acme.home.admin_key();
    let see = async |server: &crate::support::Server| {
        let (operator, admin) = (server.client(&admin_key), server.client(&acme.admin_secret));
        let mut status = operator.get_status(proto::GetStatusRequest {}).await.unwrap();
        (status.now, status.clock_ahead_ms) = (None, 0);
        status.activity_index_behind = 0;
        // What is asked here is noted, too: each time later, and what is denied in a summary.
        let mut listed = admin.list_keys(Default::default()).await.unwrap();
        listed.revision = None;
        listed.keys.iter_mut().for_each(|key| key.last_used_at = None);
        let unused = |mut answer: proto::GetKeyResponse| {
            answer.revision = None;
            answer.key.as_mut().unwrap().last_used_at = None;
            answer
        };
        (
            status,
            operator.list_organizations(Default::default()).await.unwrap(),
            listed,
            unused(admin.get_key(get("", &kept)).await.unwrap()),
            unused(admin.get_key(get("", &gone)).await.unwrap()),
            operator.ask(&kept_secret, &["a:b"]).await.code(),
            operator.ask(&gone_secret, &["a:b"]).await.code(),
        )
    };
    let before = see(&acme.server).await;
    assert_eq!(before.0.keys_not_revoked, 3);
    assert_eq!((before.5, before.6), (DecisionCode::Allowed, DecisionCode::Revoked));
    acme.server.kill();
    let killed = acme.home.start().await;
    assert_eq!(see(&killed).await, before);
    killed.stop().await;
    let stopped = acme.home.start().await;
    assert_eq!(see(&stopped).await, before);
    assert_eq!(acme.home.admin_key(), admin_key);
    // Without its file the key goes on: the file is for its owner, not for the server.
    stopped.stop().await;
    std::fs::remove_file(acme.home.data().join("admin.key")).unwrap();
    let server = acme.home.start().await;
    assert_eq!(see(&server).await, before);
    assert!(!acme.home.data().join("admin.key").exists());
    let said = server.stop().await;
    assert!(!said.contains(&admin_key));
}

#[tokio::test]
async fn a_graceful_stop_lets_requests_end() {
    let acme = Acme::new().await;
    let Acme { home, server, operator, id, admin, .. } = acme;
    // One question that waits its full five seconds, and writes that keep coming.
    let waiting = {
        let (operator, stream) = (operator.clone(), format!("org-{id}"));
        tokio::spawn(async move {
            let at_least_revision = vec![StreamRevision { stream, revision: u64::MAX }];
            operator.verify(VerifyRequest { at_least_revision, ..Default::default() }).await
        })
    };
    let (first, mut acknowledged) = tokio::sync::mpsc::unbounded_channel();
    let writers: Vec<_> = (0..8)
        .map(|writer| {
            let (admin, first) = (admin.clone(), first.clone());
            tokio::spawn(async move {
                let mut made = Vec::new();
                loop {
                    let name = format!("key {writer}-{}", made.len());
                    match admin.create_key(scoped("", &name, &["a:b"])).await {
                        Ok(created) => {
                            made.push(created.key.unwrap().id);
                            let _ = first.send(());
                        }
                        Err(status) => return (made, status),
                    }
                }
            })
        })
        .collect();
    for _ in 0..20 {
        acknowledged.recv().await.unwrap();
    }
    let said = server.stop().await;
    assert!(said.contains("shutting down"));
    assert!(!said.contains("cut off"), "{said}");
    // It got its answer, although the server was going: its wait had ended in vain.
    let status = waiting.await.unwrap().unwrap_err();
    assert_eq!(reason(&status), "REVISION_NOT_REACHED", "{status:?}");
    let server = home.start().await;
    for writer in writers {
        let (made, status) = writer.await.unwrap();
        assert_ne!(status.code(), Code::Internal, "{status:?}");
        for key in made {
            server.client(&home.admin_key()).get_key(get(&id, &key)).await.unwrap();
        }
    }
    server.stop().await;
}
