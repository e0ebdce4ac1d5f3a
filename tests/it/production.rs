//! Production mode at the real binary: what it refuses, and what it does otherwise.

use tonic::Code;

use keyledger::proto::InviteUserRequest;

use crate::support::{Home, Launch, call_raw, refused, scoped};

fn production(home: &Home) -> Launch {
    let secrets = home.path().join("secrets");
    home.launch().args(&["--production", "--secrets-dir", secrets.to_str().unwrap()])
}

fn accepted(home: &Home) -> Launch {
    production(home).args(&["--allow-plaintext", "--metrics-listen", "127.0.0.1:0"])
}

#[test]
fn what_is_unsafe_is_refused() {
    let home = Home::new();
    let error = production(&home).refused();
    assert!(error.contains("`production`: TLS is required"), "{error}");
    let error = home.launch().args(&["--production", "--allow-plaintext"]).refused();
    assert!(error.contains("`secrets_dir` must be set"), "{error}");
    let inside = home.data().join("secrets");
    let inside = ["--production", "--allow-plaintext", "--secrets-dir", inside.to_str().unwrap()];
    let error = home.launch().args(&inside).refused();
    assert!(error.contains("must lie outside the data directory"), "{error}");
    let error = accepted(&home).env("ADMIN_API_TOKEN", "x".repeat(40)).refused();
    assert!(error.contains("set `admin_key_sha256` instead"), "{error}");
    let error = accepted(&home).args(&["--cors-origins", "*"]).refused();
    assert!(error.contains("name the origins"), "{error}");
    let settings = home.path().join("keyledger.toml");
    std::fs::write(&settings, "[invitations]\nhand_over = 'inviter'\n").unwrap();
    let error = accepted(&home).refused();
    assert!(error.contains("`invitations.hand_over` may not be `inviter`"), "{error}");
    assert!(!home.data().exists(), "a start that is refused leaves nothing");
}

#[tokio::test]
async fn what_is_wise_is_the_default() {
    const REFLECTION: &str = "grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
    let home = Home::new();
    let server = accepted(&home).start().await;
    let ask = || tonic::Request::new(Vec::new());
    let answer = call_raw(server.channel(), REFLECTION, ask()).await;
    refused(answer, Code::Unimplemented, "");
    assert!(server.process.said().contains("answering metrics"));
    assert!(!server.process.said().contains("move it off this machine"), "it was just made");
    server.stop().await;

    let mut server = accepted(&home).args(&["--reflection"]).start().await;
    let answer = call_raw(server.channel(), REFLECTION, ask()).await;
    assert!(answer.is_err_and(|status| status.code() != Code::Unimplemented), "it can be had");
    server.process.wait_for(|line| line.contains("move it off this machine").then_some(()));
    server.stop().await;

    std::fs::remove_file(home.data().join("admin.key")).unwrap();
    let server = accepted(&home).start().await;
    assert!(!server.process.said().contains("move it off this machine"));
}

#[tokio::test]
async fn an_invitation_that_nobody_delivers_is_shown_to_operators_alone() {
    let home = Home::new();
    let server = accepted(&home).start().await;
    let operator = server.client(&home.admin_key());
    let id = operator.organization("acme", "vtx", "").await;
    let key = operator.create_key(scoped(&id, "admin", &["org:admin"])).await.unwrap();
    let invite = |email: &str| InviteUserRequest {
        organization_id: id.clone(),
        email: email.into(),
        name: "Ada".into(),
        ..Default::default()
    };
    let admin = operator.with_key(&key.secret);
    let invited = admin.invite_user(invite("ada@example.com")).await.unwrap();
    assert_eq!((invited.invitation_token.as_str(), invited.invitation_sent), ("", false));
    let invited = operator.invite_user(invite("bob@example.com")).await.unwrap();
    assert!(invited.invitation_token.starts_with("klit_"));
}
