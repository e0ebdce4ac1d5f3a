//! Passwords that are tried first: refused wherever one is chosen, and never repeated.

use keyledger::proto::{
    AcceptInvitationRequest, ChangePasswordRequest, InviteUserRequest, LoginRequest,
    RequestPasswordResetRequest, ResetPasswordRequest,
};
use tonic::{Code, Status};

use super::support::{Acme, Home};

const PASSWORD: &str = "correct horse battery";
const EMAIL: &str = "ada.lovelace@example.com";

/// Refused for the field and why, and without a word of what was chosen.
#[track_caller]
fn refused<T>(answer: Result<T, Status>, field: &str, chosen: &str) {
    let Err(status) = answer else { panic!("`{chosen}` was taken") };
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    assert!(status.message().starts_with(&format!("`{field}`: password: ")), "{status:?}");
    assert!(!format!("{status:?}").contains(chosen), "it is repeated: {status:?}");
}

#[tokio::test]
async fn what_is_tried_first_is_refused_wherever_a_password_is_chosen() {
    let home = Home::new();
    let list = home.path().join("refused");
    std::fs::write(&list, "Violet Trombones\n").unwrap();
    let settings = format!("[passwords]\nrefuse_file = {list:?}\n");
    std::fs::write(home.path().join("keyledger.toml"), settings).unwrap();
    let acme = Acme::on(home, |launch| launch).await;
    let weak = [
        "password1234",
        "violet TROMBONES",
        "xx ada.lovelace",
        "acme-acme-acme",
        "KeyLedger-2026!",
    ];

    let invite =
        InviteUserRequest { email: EMAIL.into(), name: "Ada".into(), ..Default::default() };
    let token = acme.admin.invite_user(invite).await.unwrap().invitation_token;
    let accept = |password: &str| AcceptInvitationRequest {
        token: token.clone(),
        password: password.into(),
        ..Default::default()
    };
    for chosen in weak {
        refused(acme.nobody().accept_invitation(accept(chosen)).await, "password", chosen);
    }
    acme.nobody().accept_invitation(accept(PASSWORD)).await.unwrap();

    let login =
        LoginRequest { email: EMAIL.into(), password: PASSWORD.into(), ..Default::default() };
    let session = acme.nobody().login(login.clone()).await.unwrap();
    let ada = acme.operator.with_key(&session.tokens.unwrap().access_token);
    for chosen in weak {
        let change =
            ChangePasswordRequest { password: PASSWORD.into(), new_password: chosen.into() };
        refused(ada.change_password(change).await, "new_password", chosen);
    }

    let ask = RequestPasswordResetRequest { email: EMAIL.into() };
    let token = acme.operator.request_password_reset(ask).await.unwrap().token;
    for chosen in weak {
        let reset = ResetPasswordRequest { token: token.clone(), new_password: chosen.into() };
        refused(acme.nobody().reset_password(reset).await, "new_password", chosen);
    }
    // Nothing was used up, and nothing ended.
    acme.nobody().login(login).await.unwrap();
    let reset = ResetPasswordRequest { token, new_password: "another long password".into() };
    acme.nobody().reset_password(reset).await.unwrap();
    let said = acme.server.process.said();
    assert!(weak.iter().all(|chosen| !said.contains(chosen)), "{said}");
    acme.server.stop().await;
}

#[test]
fn a_list_that_cannot_be_read_stops_the_start() {
    let home = Home::new();
    let settings = "[passwords]\nrefuse_file = \"/nonexistent/refused\"\n";
    std::fs::write(home.path().join("keyledger.toml"), settings).unwrap();
    let error = home.launch().refused();
    assert!(error.contains("`passwords.refuse_file`"), "{error}");
    assert!(error.contains("/nonexistent/refused"), "{error}");
}
