//! Users: people as members of an organization, their keys, and what they were granted.

use keyledger::proto::grant_role_request::Principal as Grantee;
use keyledger::proto::holder::Holder as Who;
use keyledger::proto::revoke_keys_request::Which;
use keyledger::proto::{
    self, DecisionCode, KeyState, KeyWarningCode, UserIdentityState, UserState,
};
use prost_types::Duration;
use tonic::Code;

use super::support::{
    ADMIN, Acme, Client, DNS_MANAGER, READ_ONLY_ADMIN, about, refused, rejected, scoped, texts,
};

const NOBODY: &str = "usr_00000000000000000000000009";

fn invitation(name: &str, roles: &[&str]) -> proto::InviteUserRequest {
    let grant = |role: &&str| proto::InitialGrant { role_id: (*role).into(), ..Default::default() };
    proto::InviteUserRequest {
        email: format!("{name}@example.com"),
        name: name.into(),
        grants: roles.iter().map(grant).collect(),
        ..Default::default()
    }
}

async fn invited(admin: &Client, name: &str, roles: &[&str]) -> String {
    admin.invite_user(invitation(name, roles)).await.unwrap().user.unwrap().id
}

/// Invites a user without roles; gives their identifier.
pub(crate) async fn make_user(admin: &Client, name: &str) -> String {
    invited(admin, name, &[]).await
}

async fn get(client: &Client, user: &str) -> proto::User {
    let request = proto::GetUserRequest { user_id: user.into(), ..Default::default() };
    client.get_user(request).await.unwrap().user.unwrap()
}

async fn suspend(client: &Client, user: &str) -> Result<proto::SuspendUserResponse, tonic::Status> {
    let request = proto::SuspendUserRequest { user_id: user.into(), ..Default::default() };
    client.suspend_user(request).await
}

async fn restore(client: &Client, user: &str) -> Result<proto::RestoreUserResponse, tonic::Status> {
    let request = proto::RestoreUserRequest { user_id: user.into(), ..Default::default() };
    client.restore_user(request).await
}

async fn remove(client: &Client, user: &str) -> Result<proto::RemoveUserResponse, tonic::Status> {
    let request = proto::RemoveUserRequest { user_id: user.into(), ..Default::default() };
    client.remove_user(request).await
}

/// A request for a key of a user's.
fn owned(user: &str, name: &str, scopes: &[&str]) -> proto::CreateKeyRequest {
    let scopes = (!scopes.is_empty()).then(|| proto::Scopes { permissions: texts(scopes) });
    proto::CreateKeyRequest {
        user_id: user.into(),
        name: name.into(),
        scopes,
        ..Default::default()
    }
}

async fn key(client: &Client, request: proto::CreateKeyRequest) -> (String, String) {
    let made = client.create_key(request).await.unwrap();
    (made.key.unwrap().id, made.secret)
}

async fn listed(client: &Client, state: UserState, email: &str) -> Vec<String> {
    let request = proto::ListUsersRequest {
        state: state.into(),
        email: email.into(),
        page_size: 2,
        ..Default::default()
    };
    let mut users = Vec::new();
    let mut page_token = String::new();
    loop {
        let page = proto::ListUsersRequest { page_token, ..request.clone() };
        let page = client.list_users(page).await.unwrap();
        users.extend(page.users.into_iter().map(|it| it.id));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return users;
        }
    }
}

#[tokio::test]
async fn the_life_of_a_user() {
    let acme = Acme::new().await;
    let admin = &acme.admin;
    let request = proto::InviteUserRequest {
        email: " Alice@EXAMPLE.com".into(),
        name: "Alice Doe".into(),
        limits: [("max_concurrent_bots".to_owned(), 3)].into(),
        grants: vec![proto::InitialGrant {
            role_id: DNS_MANAGER.into(),
            domain: "a.example".into(),
            expiry: Some(proto::initial_grant::Expiry::Lifetime(Duration {
                seconds: 3_600,
                nanos: 0,
            })),
        }],
        idempotency_key: "i".into(),
        comment: "joins the DNS team".into(),
        ..Default::default()
    };
    let made = admin.invite_user(request.clone()).await.unwrap();
    let again = admin.invite_user(request.clone()).await.unwrap();
    assert_eq!(again.user, made.user, "a repeat gives the same user");
    let alice = made.user.unwrap();
    assert_eq!((alice.email.as_str(), alice.name.as_str()), ("alice@example.com", "Alice Doe"));
    assert_eq!(alice.identity_state(), UserIdentityState::Shown);
    assert_eq!(alice.state(), UserState::Invited);
    let day = |at: Option<prost_types::Timestamp>| at.unwrap().seconds / 86_400;
    assert_eq!(day(alice.invitation_ends_at), day(alice.invited_at) + 7);
    assert_eq!(get(admin, &alice.id).await, alice);
    // Her key holds what she was granted, there, and tells whose it is.
    let (key_id, secret) = key(admin, owned(&alice.id, "laptop", &["dns:read"])).await;
    let ask = |domain: &str| proto::VerifyRequest {
        domain: domain.into(),
        ..about(&secret, &["dns:read"])
    };
    let answer = acme.operator.verify(ask("a.example")).await.unwrap();
    assert!(answer.allowed, "{answer:?}");
    assert_eq!(answer.limits.get("max_concurrent_bots"), Some(&3));
    let principal = answer.principal.unwrap();
    assert_eq!(principal.kind(), proto::PrincipalKind::User);
    assert_eq!((principal.user_id, principal.organization_id), (alice.id.clone(), acme.id.clone()));
    assert_eq!(acme.operator.code(ask("b.example")).await, DecisionCode::DomainNotAllowed);
    // Changed, at once.
    let limits = proto::UserLimits { entries: [("max_concurrent_bots".to_owned(), 5)].into() };
    let update = proto::UpdateUserRequest {
        user_id: alice.id.clone(),
        name: "Alice Roe".into(),
        limits: Some(limits),
        ..Default::default()
    };
    let updated = admin.update_user(update).await.unwrap().user.unwrap();
    assert_eq!((updated.name.as_str(), updated.email.as_str()), ("Alice Roe", "alice@example.com"));
    let answer = acme.operator.verify(ask("a.example")).await.unwrap();
    assert_eq!(answer.limits.get("max_concurrent_bots"), Some(&5));
    let renew = proto::RenewInvitationRequest {
        user_id: alice.id.clone(),
        invitation_lifetime: Some(Duration { seconds: 14 * 86_400, nanos: 0 }),
        ..Default::default()
    };
    let renewed = admin.renew_invitation(renew).await.unwrap().user.unwrap();
    assert_eq!(day(renewed.invitation_ends_at), day(alice.invited_at) + 14);
    // Suspended and restored, at once.
    let suspended = proto::SuspendUserRequest {
        user_id: alice.id.clone(),
        comment: "on leave".into(),
        ..Default::default()
    };
    let suspended = admin.suspend_user(suspended).await.unwrap().user.unwrap();
    assert_eq!(suspended.state(), UserState::Suspended);
    assert_eq!(acme.operator.code(ask("a.example")).await, DecisionCode::Suspended);
    let act = get(admin, &alice.id).await.suspended.unwrap();
    assert_eq!((act.comment.as_str(), act.comment_erased), ("on leave", false));
    assert_eq!(acme.get(&key_id).await.state(), KeyState::Active, "the key itself is as it was");
    restore(admin, &alice.id).await.unwrap();
    assert_eq!(acme.operator.code(ask("a.example")).await, DecisionCode::Allowed);
    // Removed, with all that was hers.
    let before = acme.writes();
    let removed = remove(admin, &alice.id).await.unwrap();
    assert_eq!(acme.writes() - before, 3, "she, her key and her grant, in one");
    assert_eq!(removed.user.unwrap().state(), UserState::Removed);
    assert_eq!(acme.operator.code(ask("a.example")).await, DecisionCode::Revoked);
    let revoked = acme.get(&key_id).await;
    let reason = revoked.revocation.unwrap().reason();
    assert_eq!(reason, proto::RevocationReason::AffiliationChanged);
    assert!(admin.list_grants(Default::default()).await.unwrap().grants.is_empty());
    rejected(remove(admin, &alice.id).await, "USER_NOT_FOUND");
    // The same e-mail is another user, with nothing of hers.
    let request =
        proto::InviteUserRequest { grants: Vec::new(), idempotency_key: String::new(), ..request };
    let another = admin.invite_user(request.clone()).await.unwrap().user.unwrap();
    assert_ne!(another.id, alice.id);
    rejected(admin.invite_user(request).await, "EMAIL_TAKEN");
    let nothing = owned(&another.id, "laptop", &["dns:read"]);
    let (_, nothing) = key(admin, nothing).await;
    assert_eq!(
        acme.operator.ask(&nothing, &["dns:read"]).await.code(),
        DecisionCode::PermissionDenied
    );
    // Found by any spelling of the e-mail, by state, and page by page.
    let bob = make_user(admin, "bob").await;
    assert_eq!(listed(admin, UserState::Unspecified, "ALICE@example.COM").await, [&*another.id]);
    assert!(listed(admin, UserState::Removed, "alice@example.com").await.is_empty());
    assert!(listed(admin, UserState::Unspecified, "nobody@example.com").await.is_empty());
    assert_eq!(listed(admin, UserState::Removed, "").await, [&*alice.id]);
    assert_eq!(listed(admin, UserState::Invited, "").await, [&*another.id, &*bob]);
    let all = [alice.id.clone(), another.id.clone(), bob];
    assert_eq!(listed(admin, UserState::Unspecified, "").await, all);
    // Nowhere in clear.
    for event in acme.home.events() {
        let text = String::from_utf8(event.stored).unwrap().to_lowercase();
        for personal in ["alice", "example.com", "on leave", "dns team"] {
            assert!(!text.contains(personal), "{text}");
        }
    }
    // All of it is so after a kill, and from snapshots.
    let (gone, there) = (get(admin, &alice.id).await, get(admin, &another.id).await);
    let Acme { home, server, id, admin_secret, .. } = acme;
    server.kill();
    for orderly in [true, false] {
        let server = home.start().await;
        let operator = server.client(&home.admin_key());
        let admin = operator.with_key(&admin_secret);
        assert_eq!(get(&admin, &alice.id).await, gone);
        assert_eq!(get(&admin, &another.id).await, there);
        assert_eq!(listed(&admin, UserState::Unspecified, "").await, all);
        assert_eq!(operator.ask(&secret, &[]).await.code(), DecisionCode::Revoked);
        let denied = operator.ask(&nothing, &["dns:read"]).await.code();
        assert_eq!(denied, DecisionCode::PermissionDenied, "{id}");
        if orderly {
            server.stop().await;
            let verified = super::snapshots::verify_projections(&home);
            assert!(verified["differing"].as_array().unwrap().is_empty(), "{verified}");
        }
    }
}

#[tokio::test]
async fn what_cannot_be_is_refused_by_its_reason() {
    let acme = Acme::new().await;
    let admin = &acme.admin;
    let alice = invited(admin, "alice", &[DNS_MANAGER]).await;
    for email in ["", "alice", "a@b@example.com", "a b@example.com", "alice@localhost"] {
        let request = proto::InviteUserRequest { email: email.into(), ..invitation("x", &[]) };
        let status = refused(admin.invite_user(request).await, Code::InvalidArgument, "`email`");
        assert!(email.is_empty() || !status.message().contains(email), "{status:?}");
    }
    let named = proto::InviteUserRequest { name: String::new(), ..invitation("x", &[]) };
    refused(admin.invite_user(named).await, Code::InvalidArgument, "`name`");
    for seconds in [0, -1, 30 * 86_400 + 1] {
        let lifetime = Some(Duration { seconds, nanos: 0 });
        let says = "`invitation_lifetime`";
        let request =
            proto::InviteUserRequest { invitation_lifetime: lifetime, ..invitation("x", &[]) };
        refused(admin.invite_user(request).await, Code::InvalidArgument, says);
        let request = proto::RenewInvitationRequest {
            user_id: alice.clone(),
            invitation_lifetime: lifetime,
            ..Default::default()
        };
        refused(admin.renew_invitation(request).await, Code::InvalidArgument, says);
    }
    let twice = invitation("x", &[DNS_MANAGER, DNS_MANAGER]);
    refused(admin.invite_user(twice).await, Code::InvalidArgument, "`grants[1]`");
    let many = invitation("x", &[DNS_MANAGER; 21]);
    refused(admin.invite_user(many).await, Code::InvalidArgument, "at most 20");
    let wrong = invitation("x", &[DNS_MANAGER, "rol_x"]);
    refused(admin.invite_user(wrong).await, Code::InvalidArgument, "`grants[1].role_id`");
    let missing = invitation("x", &["rol_0000000000000000000000000Z"]);
    refused(admin.invite_user(missing).await, Code::NotFound, "`grants[0]`");
    let limits = (0..33).map(|number| (format!("n{number}"), 1)).collect();
    let request = proto::InviteUserRequest { limits, ..invitation("x", &[]) };
    refused(admin.invite_user(request).await, Code::InvalidArgument, "`limits`");
    let wrong = proto::InviteUserRequest { expected_revision: Some(0), ..invitation("x", &[]) };
    rejected(admin.invite_user(wrong).await, "WRONG_EXPECTED_REVISION");
    // Nobody gives what they do not hold.
    let (_, limited) = acme.key("limited", &["users:write", "api-keys:write", "users:read"]).await;
    let limited = admin.with_key(&limited);
    rejected(limited.invite_user(invitation("x", &[DNS_MANAGER])).await, "PERMISSION_NOT_HELD");
    let renew = proto::RenewInvitationRequest { user_id: alice.clone(), ..Default::default() };
    rejected(limited.renew_invitation(renew).await, "PERMISSION_NOT_HELD");
    suspend(&limited, &alice).await.unwrap();
    rejected(restore(&limited, &alice).await, "PERMISSION_NOT_HELD");
    rejected(suspend(admin, &alice).await, "USER_SUSPENDED");
    restore(admin, &alice).await.unwrap();
    rejected(restore(admin, &alice).await, "USER_NOT_SUSPENDED");
    // Keys for others are narrowed to what their maker holds.
    rejected(admin.create_key(owned(&alice, "x", &[])).await, "SCOPES_FOR_ANOTHER");
    let beyond = limited.create_key(owned(&alice, "x", &["dns:read"])).await;
    rejected(beyond, "PERMISSION_NOT_HELD");
    let with_roles = proto::CreateKeyRequest {
        role_ids: texts(&[READ_ONLY_ADMIN]),
        ..owned(&alice, "x", &["a:b"])
    };
    rejected(admin.create_key(with_roles).await, "ROLES_OF_OWNER");
    let both = proto::CreateKeyRequest {
        service_account_id: "sva_00000000000000000000000009".into(),
        ..owned(&alice, "x", &["a:b"])
    };
    refused(admin.create_key(both).await, Code::InvalidArgument, "`user_id`");
    rejected(admin.create_key(owned(NOBODY, "x", &["a:b"])).await, "USER_NOT_FOUND");
    let of_nobody = proto::RevokeKeysRequest {
        which: Some(Which::UserId(NOBODY.into())),
        ..Default::default()
    };
    rejected(admin.revoke_keys(of_nobody).await, "USER_NOT_FOUND");
}

#[tokio::test]
async fn a_user_manages_their_own_keys() {
    let acme = Acme::new().await;
    let admin = &acme.admin;
    let (alice, bob) = (
        invited(admin, "alice", &[DNS_MANAGER]).await,
        invited(admin, "bob", &[DNS_MANAGER]).await,
    );
    let (first_id, first) = key(admin, owned(&alice, "first", &["dns:read", "dns:write"])).await;
    let (others, _) = key(admin, owned(&bob, "bob's", &["dns:read"])).await;
    let herself = admin.with_key(&first);
    // She may not read keys, nor make others.
    let denied = herself.list_keys(Default::default()).await;
    refused(denied, Code::PermissionDenied, "api-keys:read");
    let denied = |status| refused::<()>(Err(status), Code::PermissionDenied, "`api-keys:write`");
    denied(herself.create_key(scoped("", "x", &["dns:read"])).await.unwrap_err());
    denied(herself.create_key(owned(&bob, "x", &["dns:read"])).await.unwrap_err());
    for id in [others.as_str(), "key_00000000000000000000000009"] {
        let key_id = id.to_owned();
        denied(herself.revoke("", id).await.unwrap_err());
        let request = proto::DisableKeyRequest { key_id: key_id.clone(), ..Default::default() };
        denied(herself.disable_key(request).await.unwrap_err());
        let request = proto::RotateKeyRequest { key_id: key_id.clone(), ..Default::default() };
        denied(herself.rotate_key(request).await.unwrap_err());
        let which = Which::List(proto::KeyList { key_ids: vec![key_id], leaked: Vec::new() });
        let request = proto::RevokeKeysRequest { which: Some(which), ..Default::default() };
        denied(herself.revoke_keys(request).await.unwrap_err());
    }
    let which = Some(Which::UserId(bob.clone()));
    let of_bob = proto::RevokeKeysRequest { which, ..Default::default() };
    denied(herself.revoke_keys(of_bob).await.unwrap_err());
    // Never more than the key that she does it with.
    rejected(herself.create_key(owned(&alice, "x", &[])).await, "PERMISSION_NOT_HELD");
    let beyond = herself.create_key(owned(&alice, "x", &["routing:read"])).await;
    rejected(beyond, "PERMISSION_NOT_HELD");
    let (second_id, second) = key(&herself, owned(&alice, "second", &["dns:read"])).await;
    assert!(acme.operator.ask(&second, &["dns:read"]).await.allowed);
    assert!(!acme.operator.ask(&second, &["dns:write"]).await.allowed);
    let by = acme.get(&second_id).await;
    assert_eq!((by.created_by.unwrap().user_id, &by.user_id), (alice.clone(), &alice));
    // She rotates, disables, enables and revokes it.
    let rotate = proto::RotateKeyRequest { key_id: second_id, ..Default::default() };
    let rotated = herself.rotate_key(rotate).await.unwrap();
    let third = rotated.key.unwrap().id;
    let disable = proto::DisableKeyRequest { key_id: third.clone(), ..Default::default() };
    herself.disable_key(disable.clone()).await.unwrap();
    assert_eq!(acme.code(&rotated.secret).await, DecisionCode::Disabled);
    let enable = proto::EnableKeyRequest { key_id: third.clone(), ..Default::default() };
    herself.enable_key(enable.clone()).await.unwrap();
    assert_eq!(acme.code(&rotated.secret).await, DecisionCode::Allowed);
    // What another disabled stays so.
    admin.disable_key(disable).await.unwrap();
    denied(herself.enable_key(enable.clone()).await.unwrap_err());
    admin.enable_key(enable).await.unwrap();
    herself.revoke("", &third).await.unwrap();
    assert_eq!(acme.code(&rotated.secret).await, DecisionCode::Revoked);
    // Her keys are found by her, and end together.
    let request = proto::ListKeysRequest {
        user_id: alice.clone(),
        state: KeyState::Active.into(),
        ..Default::default()
    };
    let keys = admin.list_keys(request).await.unwrap().keys;
    let names: Vec<_> = keys.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(names, ["first", "second"], "the second in its grace");
    let which = Some(Which::UserId(alice.clone()));
    let own = proto::RevokeKeysRequest { which, ..Default::default() };
    assert_eq!(herself.revoke_keys(own).await.unwrap().keys.len(), 2);
    assert_eq!(acme.code(&first).await, DecisionCode::Revoked);
    refused(herself.revoke("", &first_id).await, Code::Unauthenticated, "revoked");
    // What she does shows in the log as hers.
    let filter = Some(proto::ActivityFilter { actor: alice, ..Default::default() });
    let asked = proto::QueryActivityRequest { filter, ..Default::default() };
    let entries = admin.query_activity(asked).await.unwrap().entries;
    assert_eq!(entries.len(), 8, "{entries:?}");
}

#[tokio::test]
async fn a_users_keys_are_warned_of() {
    let acme = Acme::new().await;
    let alice = invited(&acme.admin, "alice", &[DNS_MANAGER]).await;
    let request = owned(&alice, "narrow", &["dns:read", "waf:read"]);
    let warnings = acme.admin.create_key(request).await.unwrap().key.unwrap().warnings;
    assert_eq!(warnings.len(), 1);
    assert_eq!(warnings[0].code(), KeyWarningCode::ScopeOutsideRoles);
    assert!(warnings[0].message.contains("`waf:read`"), "{warnings:?}");
    let services = proto::ServiceAccess { services: texts(&["cache"]) };
    let request = proto::CreateKeyRequest {
        services: Some(services),
        ..owned(&alice, "elsewhere", &["dns:read"])
    };
    let made = acme.admin.create_key(request).await.unwrap().key.unwrap();
    let codes: Vec<_> = made.warnings.iter().map(|it| it.code()).collect();
    assert!(codes.contains(&KeyWarningCode::ServiceWithoutPermission), "{:?}", made.warnings);
}

#[tokio::test]
async fn users_are_granted_roles() {
    let acme = Acme::new().await;
    let admin = &acme.admin;
    let alice = make_user(admin, "alice").await;
    let (_, secret) = key(admin, owned(&alice, "laptop", &["dns:write"])).await;
    let grant = proto::GrantRoleRequest {
        principal: Some(Grantee::UserId(alice.clone())),
        role_id: DNS_MANAGER.into(),
        ..Default::default()
    };
    assert!(!acme.operator.ask(&secret, &["dns:write"]).await.allowed);
    let made = admin.grant_role(grant.clone()).await.unwrap().grant.unwrap();
    assert_eq!(made.principal.as_ref().unwrap().user_id, alice);
    assert!(acme.operator.ask(&secret, &["dns:write"]).await.allowed);
    rejected(admin.grant_role(grant.clone()).await, "GRANT_EXISTS");
    let of = |user: &str| proto::ListGrantsRequest { user_id: user.into(), ..Default::default() };
    assert_eq!(admin.list_grants(of(&alice)).await.unwrap().grants, std::slice::from_ref(&made));
    assert!(admin.list_grants(of(NOBODY)).await.unwrap().grants.is_empty());
    let subject = proto::effective_permissions_request::Subject::UserId(alice.clone());
    let effective =
        proto::EffectivePermissionsRequest { subject: Some(subject), ..Default::default() };
    let answer = admin.effective_permissions(effective.clone()).await.unwrap();
    assert!(answer.in_force && answer.permissions.iter().all(|it| it.grant_id == made.id));
    let wanted = proto::WhoHoldsRequest { permission: "dns:write".into(), ..Default::default() };
    let holders = admin.who_holds(wanted.clone()).await.unwrap().holders;
    let who: Vec<_> = holders.iter().map(|it| it.holder.clone().unwrap()).collect();
    assert_eq!(who[0], Who::UserId(alice.clone()));
    assert!(
        matches!(&who[1..], [Who::KeyId(_)]),
        "the administrator's key, not the user's: {who:?}"
    );
    // Page by page the same.
    let page = proto::WhoHoldsRequest { page_size: 1, ..wanted.clone() };
    let first = admin.who_holds(page.clone()).await.unwrap();
    assert_eq!(first.holders, holders[..1]);
    let page = proto::WhoHoldsRequest { page_token: first.next_page_token, ..page };
    assert_eq!(admin.who_holds(page).await.unwrap().holders, holders[1..]);
    suspend(admin, &alice).await.unwrap();
    let answer = admin.effective_permissions(effective).await.unwrap();
    assert!(!answer.in_force && answer.permissions.is_empty());
    assert_eq!(admin.who_holds(wanted).await.unwrap().holders.len(), 1);
    restore(admin, &alice).await.unwrap();
    let revoke = proto::RevokeGrantRequest { grant_id: made.id, ..Default::default() };
    admin.revoke_grant(revoke).await.unwrap();
    assert!(!acme.operator.ask(&secret, &["dns:write"]).await.allowed);
}

/// Another organization's users are as absent as some that never were.
#[tokio::test]
async fn nothing_is_known_of_another_organizations_users() {
    let acme = Acme::new().await;
    let alice = invited(&acme.admin, "alice", &[DNS_MANAGER]).await;
    let other = acme.operator.organization("globex", "glx", "").await;
    let stranger = scoped(&other, "stranger", &["org:admin"]);
    let stranger = acme.operator.create_key(stranger).await.unwrap().secret;
    let stranger = acme.operator.with_key(&stranger);
    let said = async |user: &str| {
        let user_id = user.to_owned();
        let mut said = Vec::new();
        let mut note = |status: tonic::Status| {
            said.push((status.code(), status.message().replace(user, "X")));
        };
        let request = proto::GetUserRequest { user_id: user_id.clone(), ..Default::default() };
        note(stranger.get_user(request).await.unwrap_err());
        let name = "Mallory".to_owned();
        let request =
            proto::UpdateUserRequest { user_id: user_id.clone(), name, ..Default::default() };
        note(stranger.update_user(request).await.unwrap_err());
        let request =
            proto::RenewInvitationRequest { user_id: user_id.clone(), ..Default::default() };
        note(stranger.renew_invitation(request).await.unwrap_err());
        note(suspend(&stranger, user).await.unwrap_err());
        note(restore(&stranger, user).await.unwrap_err());
        note(remove(&stranger, user).await.unwrap_err());
        note(stranger.create_key(owned(user, "x", &["a:b"])).await.unwrap_err());
        let which = Some(Which::UserId(user_id.clone()));
        let request = proto::RevokeKeysRequest { which, ..Default::default() };
        note(stranger.revoke_keys(request).await.unwrap_err());
        let grant = proto::GrantRoleRequest {
            principal: Some(Grantee::UserId(user_id.clone())),
            role_id: DNS_MANAGER.into(),
            ..Default::default()
        };
        note(stranger.grant_role(grant).await.unwrap_err());
        let subject = proto::effective_permissions_request::Subject::UserId(user_id.clone());
        let request =
            proto::EffectivePermissionsRequest { subject: Some(subject), ..Default::default() };
        note(stranger.effective_permissions(request).await.unwrap_err());
        said
    };
    let about_alice = said(&alice).await;
    assert_eq!(about_alice, said(NOBODY).await);
    assert!(about_alice.iter().all(|(code, _)| *code == Code::NotFound), "{about_alice:?}");
    for email in ["", "alice@example.com"] {
        assert!(listed(&stranger, UserState::Unspecified, email).await.is_empty());
    }
    let of = proto::ListGrantsRequest { user_id: alice.clone(), ..Default::default() };
    assert!(stranger.list_grants(of).await.unwrap().grants.is_empty());
    let of = proto::ListKeysRequest { user_id: alice.clone(), ..Default::default() };
    assert!(stranger.list_keys(of).await.unwrap().keys.is_empty());
    // By its identifier it is not theirs to name, and its e-mails are free elsewhere.
    let named = proto::GetUserRequest { organization_id: acme.id.clone(), user_id: alice.clone() };
    rejected(stranger.get_user(named).await, "OTHER_ORGANIZATION");
    let same = make_user(&stranger, "alice").await;
    assert_eq!(listed(&stranger, UserState::Unspecified, "alice@example.com").await, [same]);
    assert_eq!(listed(&acme.admin, UserState::Unspecified, "alice@example.com").await, [alice]);
}

/// Whatever somebody holds, an answer about it is one that any client takes.
#[tokio::test]
async fn all_that_a_user_holds_comes_in_pages() {
    const CLIENTS_TAKE: usize = 4 * 1024 * 1024;
    let acme = Acme::new().await;
    let admin = &acme.admin;
    let permissions: Vec<String> =
        (0..100).map(|number| format!("r{number:028}:a{number:028}")).collect();
    let permissions: Vec<&str> = permissions.iter().map(String::as_str).collect();
    let role =
        super::roles::make_role(admin, "all-of-it-".repeat(6).trim_end_matches('-'), &permissions)
            .await;
    let alice = make_user(admin, "alice").await;
    let label = "d".repeat(60);
    for number in 0..100 {
        let grant = proto::GrantRoleRequest {
            principal: Some(Grantee::UserId(alice.clone())),
            role_id: role.clone(),
            domain: format!("{label}.{label}.{label}.d{number}.example"),
            ..Default::default()
        };
        admin.grant_role(grant).await.unwrap();
    }
    let subject = proto::effective_permissions_request::Subject::UserId(alice.clone());
    let mut request =
        proto::EffectivePermissionsRequest { subject: Some(subject), ..Default::default() };
    let mut held = Vec::new();
    let mut pages = 0;
    loop {
        let page = admin.effective_permissions(request.clone()).await.unwrap();
        assert!(
            prost::Message::encoded_len(&page) < CLIENTS_TAKE / 2,
            "{}",
            page.permissions.len()
        );
        held.extend(page.permissions.into_iter().map(|it| (it.grant_id, it.permission)));
        pages += 1;
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            break;
        }
    }
    assert!(pages > 2, "{pages}");
    assert_eq!(held.len(), 100 * 100);
    held.sort();
    held.dedup();
    assert_eq!(held.len(), 100 * 100, "each once");
    let other = make_user(admin, "bob").await;
    let subject = proto::effective_permissions_request::Subject::UserId(other);
    let mixed = proto::EffectivePermissionsRequest {
        subject: Some(subject),
        page_token: "AAAA".into(),
        ..Default::default()
    };
    refused(admin.effective_permissions(mixed).await, Code::InvalidArgument, "`page_token`");
    // Who holds it, domain by domain, is as much; so is it for administrators.
    for number in 0..40 {
        let user = invited(admin, &format!("u{number}"), &[ADMIN]).await;
        get(admin, &user).await;
    }
    let wanted = proto::WhoHoldsRequest {
        permission: permissions[0].into(),
        page_size: 1_000,
        ..Default::default()
    };
    let answer = admin.who_holds(wanted).await.unwrap();
    assert_eq!(answer.holders.len(), 42);
    assert_eq!(answer.holders[0].domains.len(), 100);
}
