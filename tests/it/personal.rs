//! Personal organizations: one for each new account, where the configuration says so.

use super::support::{Acme, Client, Home, READ_ONLY_ADMIN, rejected, texts};
use keyledger::proto::{
    self, AcceptInvitationRequest, CreateKeyRequest, GetOrganizationRequest, InitialGrant,
    InviteUserRequest, ListOrganizationsRequest, ListUsersRequest, LoginRequest, LoginResponse,
    RemoveUserRequest, Scopes, WhoAmIRequest,
};

const PASSWORD: &str = "correct horse battery";

fn configured(settings: &str) -> Home {
    let home = Home::new();
    std::fs::write(home.path().join("keyledger.toml"), settings).unwrap();
    home
}

async fn giving() -> Acme {
    Acme::on(configured("[accounts]\npersonal_organizations = true\n"), |launch| launch).await
}

/// Somebody who was invited to Acme and made an account: their account and user there.
async fn join(acme: &Acme, email: &str) -> (String, String) {
    let grant = InitialGrant { role_id: READ_ONLY_ADMIN.into(), ..Default::default() };
    let invite = InviteUserRequest {
        email: email.into(),
        name: "Ada".into(),
        grants: vec![grant],
        ..Default::default()
    };
    let token = acme.admin.invite_user(invite).await.unwrap().invitation_token;
    let accept = AcceptInvitationRequest { token, password: PASSWORD.into(), ..Default::default() };
    let joined = acme.nobody().accept_invitation(accept).await.unwrap();
    (joined.account_id, joined.user_id)
}

async fn login(
    acme: &Acme,
    email: &str,
    organization: &str,
) -> Result<LoginResponse, tonic::Status> {
    let login = LoginRequest {
        email: email.into(),
        password: PASSWORD.into(),
        organization_id: organization.into(),
        ..Default::default()
    };
    acme.nobody().login(login).await
}

fn home_of(login: &LoginResponse) -> &str {
    &login.session.as_ref().unwrap().organization_id
}

fn with(acme: &Acme, login: &LoginResponse) -> Client {
    acme.operator.with_key(&login.tokens.as_ref().unwrap().access_token)
}

/// All organizations there are but Acme.
async fn personal(acme: &Acme) -> Vec<proto::Organization> {
    let all = ListOrganizationsRequest { page_size: 100, ..Default::default() };
    let all = acme.operator.list_organizations(all).await.unwrap().organizations;
    all.into_iter().filter(|it| it.id != acme.id).collect()
}

#[tokio::test]
async fn a_new_account_has_an_organization_of_its_own_and_can_use_it() {
    let acme = giving().await;
    let (account, _) = join(&acme, "ada@example.com").await;
    let (other, _) = join(&acme, "bob@example.com").await;
    let mut there = personal(&acme).await;
    there.sort_by_key(|it| it.personal_account_id == other);
    let [own, bobs] = &there[..] else { panic!("{there:?}") };
    assert_eq!((&own.personal_account_id, &bobs.personal_account_id), (&account, &other));
    assert_eq!((own.name.as_str(), own.plan.as_str()), ("personal", "paid"));
    assert_ne!(own.key_prefix, bobs.key_prefix);

    // A login that names none leads to where they were invited; one that names it, to it.
    let session = login(&acme, "ada@example.com", "").await.unwrap();
    assert_eq!(home_of(&session), acme.id);
    let session = login(&acme, "ada@example.com", &own.id).await.unwrap();
    assert_eq!(home_of(&session), own.id);
    rejected(login(&acme, "ada@example.com", &bobs.id).await, "NOT_A_MEMBER");
    let ada = with(&acme, &session);
    let me = ada.who_am_i(WhoAmIRequest {}).await.unwrap();
    assert_eq!(me.organization_id, own.id);
    let shown = ada.get_organization(GetOrganizationRequest::default()).await.unwrap();
    assert_eq!(shown.organization.as_ref(), Some(own));
    let users = ada.list_users(ListUsersRequest::default()).await.unwrap().users;
    let [owner] = &users[..] else { panic!("{users:?}") };
    assert_eq!((owner.email.as_str(), owner.name.as_str()), ("ada@example.com", "Ada"));
    assert_eq!(owner.account_id, account);

    let key = CreateKeyRequest {
        name: "laptop".into(),
        scopes: Some(Scopes { permissions: texts(&["dns:write"]) }),
        ..Default::default()
    };
    let key = ada.create_key(key).await.unwrap();
    assert!(key.secret.starts_with(&format!("{}_", own.key_prefix)), "its prefix is its own");
    let answer = acme.operator.ask(&key.secret, &["dns:write"]).await;
    assert!(answer.allowed, "{answer:?}");
    assert_eq!(answer.organization_id, own.id);

    let invite = InviteUserRequest {
        email: "eve@example.com".into(),
        name: "Eve".into(),
        ..Default::default()
    };
    rejected(ada.invite_user(invite.clone()).await, "ORGANIZATION_PERSONAL");
    let invite = InviteUserRequest { organization_id: own.id.clone(), ..invite };
    rejected(acme.operator.invite_user(invite).await, "ORGANIZATION_PERSONAL");
    acme.server.stop().await;
}

#[tokio::test]
async fn it_stays_when_its_owner_is_removed_elsewhere_and_a_login_then_leads_to_it() {
    let acme = giving().await;
    let (_, user_id) = join(&acme, "ada@example.com").await;
    let own = personal(&acme).await.remove(0).id;
    let remove = RemoveUserRequest { user_id, ..Default::default() };
    acme.admin.remove_user(remove).await.unwrap();
    let session = login(&acme, "ada@example.com", "").await.unwrap();
    assert_eq!(home_of(&session), own);
    let named = login(&acme, "ada@example.com", &acme.id).await;
    rejected(named, "NOT_A_MEMBER");
    // A restart makes nothing anew.
    let acme = acme.restarted().await;
    assert_eq!(personal(&acme).await.len(), 1);
    acme.server.stop().await;
}

/// The setting is for accounts that are made while it is on, whatever it says later.
#[tokio::test]
async fn accounts_that_were_there_before_get_none() {
    let acme = Acme::new().await;
    let (_, user_id) = join(&acme, "ada@example.com").await;
    assert_eq!(personal(&acme).await, []);
    let settings = "[accounts]\npersonal_organizations = true\npersonal_plan = \"free\"\n";
    std::fs::write(acme.home.path().join("keyledger.toml"), settings).unwrap();
    let acme = acme.restarted().await;
    login(&acme, "ada@example.com", "").await.unwrap();
    assert_eq!(personal(&acme).await, []);
    let (bob, _) = join(&acme, "bob@example.com").await;
    let there = personal(&acme).await;
    let [own] = &there[..] else { panic!("{there:?}") };
    assert_eq!((&own.personal_account_id, own.plan.as_str()), (&bob, "free"));
    let remove = RemoveUserRequest { user_id, ..Default::default() };
    acme.admin.remove_user(remove).await.unwrap();
    rejected(login(&acme, "ada@example.com", "").await, "NOT_A_MEMBER");
    acme.server.stop().await;
}
