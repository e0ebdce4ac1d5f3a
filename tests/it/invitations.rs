//! Who is handed the token of an invitation that nobody delivers, and what is recorded of that.

use keyledger::proto::{
    AcceptInvitationRequest, GetUserRequest, InviteUserRequest, RenewInvitationRequest,
};

use super::support::{Acme, Home};

async fn acme(settings: &str) -> Acme {
    let home = Home::new();
    std::fs::write(home.path().join("keyledger.toml"), settings).unwrap();
    Acme::on(home, |launch| launch).await
}

fn invite(acme: &Acme, email: &str) -> InviteUserRequest {
    InviteUserRequest {
        organization_id: acme.id.clone(),
        email: email.into(),
        name: "Ada".into(),
        ..Default::default()
    }
}

/// What the log says of the tokens of invitations, in order.
fn recorded(acme: &Acme) -> Vec<String> {
    let events = acme.home.events().into_iter().map(|it| it.json());
    let told = events.filter(|it| it["type"] == "UserInvited" || it["type"] == "InvitationRenewed");
    told.map(|it| it["data"]["token"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_token_goes_to_whom_the_setting_names_and_the_log_says_so() {
    for (settings, to_admin, to_operator) in [
        ("", true, true),
        ("[invitations]\nhand_over = 'inviter'\n", true, true),
        ("[invitations]\nhand_over = 'operators'\n", false, true),
        ("[invitations]\nhand_over = 'nobody'\n", false, false),
    ] {
        let acme = acme(settings).await;
        let way = |handed: bool| if handed { "handed_over" } else { "withheld" };
        let by_admin = acme.admin.invite_user(invite(&acme, "ada@example.com")).await.unwrap();
        assert!(!by_admin.invitation_sent);
        assert_eq!(!by_admin.invitation_token.is_empty(), to_admin, "{settings}");
        let by_operator =
            acme.operator.invite_user(invite(&acme, "bob@example.com")).await.unwrap();
        assert_eq!(!by_operator.invitation_token.is_empty(), to_operator, "{settings}");
        let renew = RenewInvitationRequest {
            organization_id: acme.id.clone(),
            user_id: by_operator.user.unwrap().id,
            ..Default::default()
        };
        let renewed = acme.admin.renew_invitation(renew).await.unwrap();
        assert_eq!(!renewed.invitation_token.is_empty(), to_admin, "{settings}");
        let expected = [way(to_admin), way(to_operator), way(to_admin)];
        assert_eq!(recorded(&acme), expected, "{settings}");
        acme.server.stop().await;
    }
}

#[tokio::test]
async fn a_token_that_was_handed_over_proves_no_e_mail() {
    let acme = acme("").await;
    let token = acme.admin.invite_user(invite(&acme, "ada@example.com")).await.unwrap();
    let accept = AcceptInvitationRequest {
        token: token.invitation_token,
        password: "correct horse battery".into(),
        ..Default::default()
    };
    let user_id = acme.nobody().accept_invitation(accept).await.unwrap().user_id;
    let get = GetUserRequest { user_id, ..Default::default() };
    let user = acme.admin.get_user(get).await.unwrap().user.unwrap();
    assert!(user.joined_at.is_some() && !user.email_proven);
    acme.server.stop().await;
}
