//! People: how they join, log in, and what they hold while they are.

use std::time::{Duration, Instant};

use keyledger::proto::{
    AcceptInvitationRequest, ChangePasswordRequest, ConfirmTotpRequest, CreateKeyRequest,
    DecisionCode, EnrollTotpRequest, GetSigningKeysRequest, InitialGrant, InviteUserRequest,
    ListSessionsRequest, LoginRequest, LoginResponse, LogoutRequest, PrincipalKind, RefreshRequest,
    RemoveUserRequest, RequestPasswordResetRequest, ResetPasswordRequest, RestoreUserRequest,
    RevokeSessionsRequest, Scopes, StepUpRequest, SuspendUserRequest, WhoAmIRequest,
    revoke_sessions_request,
};
use projections::time::Timestamp;
use tonic::{Code, Status};

use super::support::{
    Acme, Client, DNS_MANAGER, Home, READ_ONLY_ADMIN, StoredEvent, reason, texts,
};

const PASSWORD: &str = "correct horse battery";
const OTHER_PASSWORD: &str = "another long password";

/// A user of Acme who joined.
struct Member {
    email: String,
    user_id: String,
    account_id: String,
}

async fn invite(acme: &Acme, email: &str, role: &str) -> (String, String) {
    let grants = vec![InitialGrant { role_id: role.into(), ..Default::default() }];
    let request = InviteUserRequest {
        email: email.into(),
        name: "Ada".into(),
        limits: [("max_concurrent_bots".to_owned(), 5)].into(),
        grants,
        ..Default::default()
    };
    let invited = acme.admin.invite_user(request).await.unwrap();
    assert!(!invited.invitation_sent && !invited.invitation_token.is_empty());
    (invited.user.unwrap().id, invited.invitation_token)
}

async fn join(acme: &Acme, email: &str, role: &str) -> Member {
    let (user_id, token) = invite(acme, email, role).await;
    let accept = AcceptInvitationRequest { token, password: PASSWORD.into(), ..Default::default() };
    let joined = acme.nobody().accept_invitation(accept).await.unwrap();
    assert!(joined.account_created);
    assert_eq!(joined.user_id, user_id);
    Member { email: email.into(), user_id, account_id: joined.account_id }
}

fn credentials(email: &str, password: &str) -> LoginRequest {
    LoginRequest { email: email.into(), password: password.into(), ..Default::default() }
}

async fn login(acme: &Acme, member: &Member) -> LoginResponse {
    acme.nobody().login(credentials(&member.email, PASSWORD)).await.unwrap()
}

fn token(login: &LoginResponse) -> String {
    login.tokens.as_ref().unwrap().access_token.clone()
}

fn refresh_token(login: &LoginResponse) -> RefreshRequest {
    RefreshRequest { refresh_token: login.tokens.as_ref().unwrap().refresh_token.clone() }
}

/// How often somebody may fail before they must wait.
const FREE: u32 = 5;

/// Fails until that is held up: not before the free attempts are used up, and not later than
/// the waits of those that follow say, however long each takes.
pub(crate) async fn held_up(guess: impl AsyncFn(u32) -> String) {
    held_up_behind(0, guess).await;
}

/// The same, behind so many failures.
async fn held_up_behind(failed: u32, guess: impl AsyncFn(u32) -> String) {
    let mut last = Instant::now();
    for number in failed.. {
        let began = Instant::now();
        match guess(number).await.as_str() {
            "TOO_MANY_ATTEMPTS" => {
                assert!(number >= FREE, "after {number} failures");
                return;
            }
            told => assert_eq!(told, "LOGIN_FAILED"),
        }
        if let Some(beyond) = number.checked_sub(FREE) {
            let wait = Duration::from_secs(1 << beyond);
            assert!(last.elapsed() >= wait, "failure {number} came before {wait:?}");
        }
        last = began;
    }
}

/// What is right is refused while attempts are held up. Where the machine was so slow that the
/// wait was over, it is tried again.
async fn refused_while_held_up<T>(
    right: impl AsyncFn() -> Result<T, Status>,
    guess: impl AsyncFn(u32) -> String,
) {
    for _ in 0..20 {
        match right().await {
            Err(refused) => return assert_eq!(reason(&refused), "TOO_MANY_ATTEMPTS"),
            Ok(_) => held_up(&guess).await,
        }
    }
    panic!("it is never refused");
}

fn with(acme: &Acme, login: &LoginResponse) -> Client {
    acme.operator.with_key(&token(login))
}

#[tokio::test]
async fn whoever_joins_logs_in_and_holds_what_they_were_granted() {
    let acme = Acme::new().await;
    let ada = join(&acme, "Ada@Example.com", DNS_MANAGER).await;
    // However the address is written.
    let session = acme.nobody().login(credentials(" ada@EXAMPLE.com ", PASSWORD)).await.unwrap();
    let started = session.session.clone().unwrap();
    assert_eq!((&started.user_id, &started.account_id), (&ada.user_id, &ada.account_id));
    let answer = acme.operator.ask(&token(&session), &["dns:write"]).await;
    assert!(answer.allowed, "{answer:?}");
    let principal = answer.principal.clone().unwrap();
    assert_eq!((principal.kind(), &principal.user_id), (PrincipalKind::User, &ada.user_id));
    assert_eq!(answer.credential_id, started.id);
    assert_eq!(answer.limits["max_concurrent_bots"], 5);
    let denied = acme.operator.ask(&token(&session), &["waf:write"]).await;
    assert_eq!(denied.code(), DecisionCode::PermissionDenied);
    let me = with(&acme, &session).who_am_i(WhoAmIRequest {}).await.unwrap();
    assert_eq!((me.email.as_str(), me.organization_id), ("ada@example.com", acme.id.clone()));
    assert_eq!(me.permissions, ["dns:*"]);
    // It is the user who acts: their own key needs no permission, and never more than theirs.
    let own = CreateKeyRequest {
        user_id: ada.user_id.clone(),
        name: "mine".into(),
        scopes: Some(Scopes { permissions: texts(&["dns:read"]) }),
        ..Default::default()
    };
    let key = with(&acme, &session).create_key(own.clone()).await.unwrap();
    assert!(acme.operator.ask(&key.secret, &["dns:read"]).await.allowed);
    let made = key.key.unwrap();
    assert_eq!(made.created_with, started.id);
    let more = CreateKeyRequest {
        name: "more".into(),
        scopes: Some(Scopes { permissions: texts(&["waf:read"]) }),
        ..own
    };
    let refused = with(&acme, &session).create_key(more).await.unwrap_err();
    assert_eq!(reason(&refused), "PERMISSION_NOT_HELD");
}

#[tokio::test]
async fn an_end_is_felt_by_the_next_question() {
    let acme = Acme::new().await;
    let ada = join(&acme, "ada@example.com", DNS_MANAGER).await;
    let code =
        async |login: &LoginResponse| acme.operator.ask(&token(login), &["dns:read"]).await.code();
    // Logging out.
    let first = login(&acme, &ada).await;
    with(&acme, &first).logout(LogoutRequest {}).await.unwrap();
    assert_eq!(code(&first).await, DecisionCode::Revoked);
    let refused = with(&acme, &first).who_am_i(WhoAmIRequest {}).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::Unauthenticated, "REVOKED"));
    let refused = acme.nobody().refresh(refresh_token(&first)).await.unwrap_err();
    assert_eq!(reason(&refused), "REFRESH_FAILED");
    // Suspension, and its end.
    let second = login(&acme, &ada).await;
    let suspend = SuspendUserRequest { user_id: ada.user_id.clone(), ..Default::default() };
    acme.admin.suspend_user(suspend).await.unwrap();
    assert_eq!(code(&second).await, DecisionCode::Suspended);
    let refused = acme.nobody().login(credentials(&ada.email, PASSWORD)).await.unwrap_err();
    assert_eq!(reason(&refused), "USER_SUSPENDED");
    let restore = RestoreUserRequest { user_id: ada.user_id.clone(), ..Default::default() };
    acme.admin.restore_user(restore).await.unwrap();
    assert_eq!(code(&second).await, DecisionCode::Allowed);
    // By somebody who may, in this organization.
    let which = revoke_sessions_request::Which::UserId(ada.user_id.clone());
    let revoke = RevokeSessionsRequest { which: Some(which), ..Default::default() };
    acme.admin.revoke_sessions(revoke).await.unwrap();
    assert_eq!(code(&second).await, DecisionCode::Revoked);
    // Of the whole account, by its holder.
    let (third, fourth) = (login(&acme, &ada).await, login(&acme, &ada).await);
    let others = Some(revoke_sessions_request::Which::Others(true));
    let others = RevokeSessionsRequest { which: others, ..Default::default() };
    with(&acme, &fourth).revoke_sessions(others).await.unwrap();
    assert_eq!(code(&third).await, DecisionCode::Revoked);
    assert_eq!(code(&fourth).await, DecisionCode::Allowed);
    // Removal, and a new user of the same address who has nothing of the old.
    let remove = RemoveUserRequest { user_id: ada.user_id.clone(), ..Default::default() };
    acme.admin.remove_user(remove).await.unwrap();
    assert_eq!(code(&fourth).await, DecisionCode::Revoked);
    let (again, invitation) = invite(&acme, "ada@example.com", READ_ONLY_ADMIN).await;
    assert_ne!(again, ada.user_id);
    assert_eq!(code(&fourth).await, DecisionCode::Revoked);
    // Her account is hers: without its password nobody joins with it.
    let wrong = AcceptInvitationRequest {
        token: invitation.clone(),
        password: OTHER_PASSWORD.into(),
        ..Default::default()
    };
    let refused = acme.nobody().accept_invitation(wrong.clone()).await.unwrap_err();
    assert_eq!(reason(&refused), "LOGIN_FAILED");
    let right = AcceptInvitationRequest { password: PASSWORD.into(), ..wrong };
    let joined = acme.nobody().accept_invitation(right.clone()).await.unwrap();
    assert_eq!((joined.account_created, joined.account_id), (false, ada.account_id.clone()));
    let refused = acme.nobody().accept_invitation(right).await.unwrap_err();
    assert_eq!(reason(&refused), "TOKEN_FAILED", "once");
    let fifth = login(&acme, &ada).await;
    let me = with(&acme, &fifth).who_am_i(WhoAmIRequest {}).await.unwrap();
    assert_eq!(me.permissions, ["*:read"]);
}

#[tokio::test]
async fn a_refresh_token_is_good_once_and_a_copy_ends_the_session() {
    let acme = Acme::new().await;
    let ada = join(&acme, "ada@example.com", DNS_MANAGER).await;
    let first = login(&acme, &ada).await;
    let second = acme.nobody().refresh(refresh_token(&first)).await.unwrap();
    let tokens = second.tokens.unwrap();
    assert!(acme.operator.ask(&tokens.access_token, &["dns:read"]).await.allowed);
    assert!(acme.operator.ask(&token(&first), &["dns:read"]).await.allowed, "until it expires");
    let refused = acme.nobody().refresh(refresh_token(&first)).await.unwrap_err();
    assert_eq!(reason(&refused), "REFRESH_REUSED");
    let code = acme.operator.ask(&tokens.access_token, &["dns:read"]).await.code();
    assert_eq!(code, DecisionCode::Revoked);
    let next = RefreshRequest { refresh_token: tokens.refresh_token };
    let refused = acme.nobody().refresh(next).await.unwrap_err();
    assert_eq!(reason(&refused), "REFRESH_FAILED");
    // Two at once: one gets the next, the session goes on for it.
    let third = login(&acme, &ada).await;
    let nobody = acme.nobody();
    let ask = || nobody.refresh(refresh_token(&third));
    let (one, other) = tokio::join!(ask(), ask());
    match (one, other) {
        // Both were under way: the session goes on for the one that won.
        (Ok(won), Err(lost)) | (Err(lost), Ok(won)) if reason(&lost) == "REFRESH_RACED" => {
            let next = won.tokens.unwrap().refresh_token;
            nobody.refresh(RefreshRequest { refresh_token: next }).await.unwrap();
        }
        // One came after the other: that is reuse.
        (Ok(_), Err(lost)) | (Err(lost), Ok(_)) => assert_eq!(reason(&lost), "REFRESH_REUSED"),
        (one, other) => panic!("one alone is given the next: {one:?} {other:?}"),
    }
}

#[tokio::test]
async fn nobody_learns_whether_there_is_an_account() {
    let acme = Acme::new().await;
    let ada = join(&acme, "ada@example.com", DNS_MANAGER).await;
    let wrong = async |email: &str| {
        acme.nobody().login(credentials(email, OTHER_PASSWORD)).await.unwrap_err()
    };
    let (known, unknown) = (wrong(&ada.email).await, wrong("nobody@example.com").await);
    assert_eq!(known.message(), unknown.message());
    assert_eq!((known.code(), reason(&known)), (unknown.code(), reason(&unknown)));
    assert_eq!(reason(&known), "LOGIN_FAILED");
    // Held up alike; the right password, too.
    let guess = async |email: &str| reason(&wrong(email).await);
    held_up_behind(1, async |_| guess("nobody@example.com").await).await;
    let right = async || acme.nobody().login(credentials(&ada.email, PASSWORD)).await;
    held_up_behind(1, async |_| guess(&ada.email).await).await;
    refused_while_held_up(right, async |_| guess(&ada.email).await).await;
    let reset = |email: &str| RequestPasswordResetRequest { email: email.into() };
    let known = acme.nobody().request_password_reset(reset("ada@example.com")).await.unwrap();
    let unknown = acme.nobody().request_password_reset(reset("no@example.com")).await.unwrap();
    assert_eq!(known, unknown);
}

/// Whoever fails with somebody's e-mail at one place delays nobody at another; an e-mail that is
/// nobody's is held back where it was tried in the same way.
#[tokio::test]
async fn nobody_is_delayed_by_what_somebody_else_fails_elsewhere() {
    let acme =
        Acme::on(Home::new(), |launch| launch.args(&["--trusted-proxies", "127.0.0.1"])).await;
    let ada = join(&acme, "ada@example.com", DNS_MANAGER).await;
    let wrong = async |email: &str, from: &str| {
        let asked = credentials(email, OTHER_PASSWORD);
        reason(&acme.nobody().from(from).login(asked).await.unwrap_err())
    };
    // One line of IPv6 is one place.
    let there = |n: u32| format!("2001:db8:1:2::{}", n + 1);
    for email in [ada.email.as_str(), "nobody@example.com"] {
        held_up(async |n| wrong(email, &there(n)).await).await;
    }
    let right = || credentials(&ada.email, PASSWORD);
    let guess = async |n| wrong(&ada.email, &there(n)).await;
    refused_while_held_up(async || acme.nobody().from(&there(9)).login(right()).await, guess).await;
    for home in ["2001:db8:1:3::1", "192.0.2.1"] {
        acme.nobody().from(home).login(right()).await.unwrap();
        assert_eq!(wrong("nobody@example.com", home).await, "LOGIN_FAILED");
    }
}

#[tokio::test]
async fn a_password_that_changes_ends_the_other_sessions() {
    let acme = Acme::new().await;
    let ada = join(&acme, "ada@example.com", DNS_MANAGER).await;
    let (kept, other) = (login(&acme, &ada).await, login(&acme, &ada).await);
    let change = |password: &str, new: &str| ChangePasswordRequest {
        password: password.into(),
        new_password: new.into(),
    };
    let refused = with(&acme, &kept).change_password(change(OTHER_PASSWORD, PASSWORD)).await;
    assert_eq!(reason(&refused.unwrap_err()), "LOGIN_FAILED");
    let refused = with(&acme, &kept).change_password(change(PASSWORD, "short")).await;
    assert_eq!(refused.unwrap_err().code(), Code::InvalidArgument);
    with(&acme, &kept).change_password(change(PASSWORD, OTHER_PASSWORD)).await.unwrap();
    let code =
        async |login: &LoginResponse| acme.operator.ask(&token(login), &["dns:read"]).await.code();
    assert_eq!(code(&kept).await, DecisionCode::Allowed);
    assert_eq!(code(&other).await, DecisionCode::Revoked);
    let refused = acme.nobody().login(credentials(&ada.email, PASSWORD)).await.unwrap_err();
    assert_eq!(reason(&refused), "LOGIN_FAILED");
    // An operator hands over the token of a reset; it ends them all, and is good once.
    let asked = RequestPasswordResetRequest { email: ada.email.clone() };
    let refused = acme.admin.request_password_reset(asked.clone()).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "no organization's administrator");
    let token = acme.operator.request_password_reset(asked).await.unwrap().token;
    let reset = ResetPasswordRequest { token, new_password: PASSWORD.into() };
    acme.nobody().reset_password(reset.clone()).await.unwrap();
    assert_eq!(code(&kept).await, DecisionCode::Revoked);
    let refused = acme.nobody().reset_password(reset).await.unwrap_err();
    assert_eq!(reason(&refused), "TOKEN_FAILED");
    login(&acme, &ada).await;
}

/// What an authenticator shows. Its first code is that of the step in which it was asked, the
/// next one that of the step behind: a clock may be one step off, so that each is right for half a
/// minute at the least, wherever in a step it was asked for.
pub(crate) struct Authenticator {
    totp: totp_rs::Totp,
    first_s: u64,
}

impl Authenticator {
    pub(crate) fn of(uri: &str) -> Self {
        let now_ms = keyledger::ledger::clock::Clock::system().now().as_millis();
        let first_s = u64::try_from(now_ms / 1_000).unwrap();
        Self { totp: totp_rs::Totp::from_url(uri).unwrap(), first_s }
    }

    pub(crate) fn first(&self) -> String {
        self.totp.generate(self.first_s).to_string()
    }

    pub(crate) fn second(&self) -> String {
        self.totp.generate(self.first_s + 30).to_string()
    }
}

#[tokio::test]
async fn a_second_factor_is_asked_for_and_its_codes_are_good_once() {
    let acme = Acme::new().await;
    let ada = join(&acme, "ada@example.com", DNS_MANAGER).await;
    let first = login(&acme, &ada).await;
    let me = with(&acme, &first);
    let none = ConfirmTotpRequest { code: "000000".into() };
    assert_eq!(reason(&me.confirm_totp(none).await.unwrap_err()), "NO_ENROLMENT");
    let enroll = EnrollTotpRequest { password: PASSWORD.into() };
    let secret = me.enroll_totp(enroll).await.unwrap().uri;
    // It does not count before it is confirmed.
    login(&acme, &ada).await;
    let shows = Authenticator::of(&secret);
    let confirm = ConfirmTotpRequest { code: shows.first() };
    let codes = me.confirm_totp(confirm).await.unwrap().recovery_codes;
    assert_eq!(codes.len(), 10);
    let refused = acme.nobody().login(credentials(&ada.email, PASSWORD)).await.unwrap_err();
    assert_eq!(reason(&refused), "SECOND_FACTOR_REQUIRED");
    let shown =
        |code: &str| LoginRequest { code: code.into(), ..credentials(&ada.email, PASSWORD) };
    let code = shows.second();
    let second = acme.nobody().login(shown(&code)).await.unwrap();
    let methods: Vec<i32> = second.session.as_ref().unwrap().methods.clone();
    assert_eq!(methods, [1, 2], "a password and a code");
    assert!(second.session.unwrap().second_factor_at.is_some());
    let refused = acme.nobody().login(shown(&code)).await.unwrap_err();
    assert_eq!(reason(&refused), "LOGIN_FAILED", "a code is good once");
    let third = acme.nobody().login(shown(&codes[0])).await.unwrap();
    let refused = acme.nobody().login(shown(&codes[0])).await.unwrap_err();
    assert_eq!(reason(&refused), "LOGIN_FAILED", "so is a recovery code");
    let left = with(&acme, &third).who_am_i(WhoAmIRequest {}).await.unwrap();
    assert_eq!((left.totp, left.recovery_codes_left), (true, 9));
    // Stepping up, in a session that began without.
    let step = StepUpRequest { code: codes[1].clone() };
    let stepped = me.step_up(step).await.unwrap().session.unwrap();
    assert!(stepped.second_factor_at.is_some());
    // To guess codes in a session is held up as to guess them at the door.
    held_up(async |n| {
        if n == 4 {
            // What knows the password alone forgives no wrong code.
            let new_password = "short".into();
            let weak = ChangePasswordRequest { password: PASSWORD.into(), new_password };
            assert_eq!(me.change_password(weak).await.unwrap_err().code(), Code::InvalidArgument);
        }
        reason(&me.step_up(StepUpRequest { code: "wrong".into() }).await.unwrap_err())
    })
    .await;
    // Nor is an authenticator confirmed twice.
    let again = ConfirmTotpRequest { code: shows.second() };
    assert_eq!(reason(&me.confirm_totp(again).await.unwrap_err()), "AUTHENTICATOR_ENROLLED");
}

#[tokio::test]
async fn a_session_in_cookies_needs_its_csrf_token() {
    let acme = Acme::new().await;
    let ada = join(&acme, "ada@example.com", DNS_MANAGER).await;
    let request = LoginRequest { cookies: true, ..credentials(&ada.email, PASSWORD) };
    let (answer, cookies) = acme.nobody().login_for_cookies(request).await;
    let tokens = answer.tokens.unwrap();
    assert!(tokens.access_token.is_empty() && tokens.refresh_token.is_empty());
    assert_eq!(cookies.len(), 2, "{cookies:?}");
    for cookie in &cookies {
        for attribute in ["HttpOnly", "Secure", "SameSite=Strict", "Path=/", "__Host-"] {
            assert!(cookie.contains(attribute), "{cookie}");
        }
    }
    let header: Vec<&str> = cookies.iter().map(|it| it.split(';').next().unwrap()).collect();
    let header = header.join("; ");
    let without = acme.nobody().page(&header, "").who_am_i(WhoAmIRequest {}).await.unwrap_err();
    assert_eq!(reason(&without), "CSRF");
    let wrong = acme.nobody().page(&header, &"0".repeat(64)).who_am_i(WhoAmIRequest {}).await;
    assert_eq!(reason(&wrong.unwrap_err()), "CSRF");
    let page = acme.nobody().page(&header, &tokens.csrf_token);
    assert_eq!(page.who_am_i(WhoAmIRequest {}).await.unwrap().organization_id, acme.id);
    let without =
        acme.nobody().page(&header, "").refresh(RefreshRequest::default()).await.unwrap_err();
    assert_eq!(reason(&without), "CSRF");
    page.refresh(RefreshRequest::default()).await.unwrap();
}

/// What a browser sends of what it was told to keep.
fn kept(cookies: &[String]) -> String {
    let pairs: Vec<&str> = cookies.iter().map(|it| it.split(';').next().unwrap()).collect();
    pairs.join("; ")
}

#[tokio::test]
async fn dead_cookies_are_cleared_whatever_the_answer_is() {
    let acme = Acme::new().await;
    let ada = join(&acme, "ada@example.com", DNS_MANAGER).await;
    let log_in = async || {
        let request = LoginRequest { cookies: true, ..credentials(&ada.email, PASSWORD) };
        let (answer, cookies) = acme.nobody().login_for_cookies(request).await;
        (kept(&cookies), answer.tokens.unwrap().csrf_token)
    };
    let log_out = async |cookies: &str, csrf: &str| {
        let (outcome, cookies) = acme.nobody().page(cookies, csrf).logout_of_cookies().await;
        for cookie in &cookies {
            assert!(cookie.contains("=; Max-Age=0; Path=/; HttpOnly; Secure"), "{cookie}");
        }
        assert!(matches!(cookies.len(), 0 | 2), "{cookies:?}");
        (outcome.map_err(|it| reason(&it)), cookies.len() == 2)
    };
    let refused = |reason: &str| Err(reason.to_owned());
    let (cookies, csrf) = log_in().await;
    let (others, others_csrf) = log_in().await;
    let wrong = "0".repeat(64);
    // A session that stands is nobody's to end, or to have a browser forget, without its token.
    for csrf in ["", &wrong, &others_csrf] {
        assert_eq!(log_out(&cookies, csrf).await, (refused("CSRF"), false));
    }
    assert_eq!(log_out(&cookies, &csrf).await, (Ok(()), true));
    assert_eq!(log_out(&cookies, &csrf).await, (refused("REVOKED"), true), "once more");
    for csrf in ["", &wrong] {
        assert_eq!(log_out(&cookies, csrf).await, (refused("CSRF"), true));
    }
    // What is no token at all, or only half of what a browser kept.
    let (access, refresh) = cookies.split_once("; ").unwrap();
    let garbled = cookies.replace("access=", "access=x");
    for (cookies, told) in [
        (access, "REVOKED"),
        (refresh, "NO_CREDENTIAL"),
        (garbled.as_str(), "MALFORMED"),
        ("__Host-keyledger-access=x", "MALFORMED"),
        ("__Host-keyledger-access=a.b.c; __Host-keyledger-refresh=?", "MALFORMED"),
    ] {
        assert_eq!(log_out(cookies, &csrf).await, (refused(told), true), "{cookies}");
    }
    // Whoever shows no cookie has none to be cleared, and the other session went on.
    assert_eq!(log_out("other=1", "").await, (refused("NO_CREDENTIAL"), false));
    let page = acme.nobody().page(&others, &others_csrf);
    page.who_am_i(WhoAmIRequest {}).await.unwrap();
    let suspend = SuspendUserRequest { user_id: ada.user_id.clone(), ..Default::default() };
    acme.admin.suspend_user(suspend).await.unwrap();
    assert_eq!(log_out(&others, &others_csrf).await, (refused("SUSPENDED"), true));
}

/// An operator who issues a reset is named by the account's own history, before the token is
/// anybody's; what a stranger asks for leaves no event.
#[tokio::test]
async fn a_reset_that_is_handed_over_names_who_issued_it() {
    let acme = Acme::new().await;
    let ada = join(&acme, "ada@example.com", DNS_MANAGER).await;
    let asked = || RequestPasswordResetRequest { email: ada.email.clone() };
    let issued = || {
        let events = acme.home.events();
        let of_type = |it: &StoredEvent| it.json()["type"] == "PasswordResetIssued";
        events.into_iter().filter(of_type).collect::<Vec<_>>()
    };
    acme.nobody().request_password_reset(asked()).await.unwrap();
    assert!(issued().is_empty());
    let answer = acme.operator.request_password_reset(asked()).await.unwrap();
    let [event] = <[StoredEvent; 1]>::try_from(issued()).ok().unwrap();
    let told = event.json();
    assert_eq!(event.stream, format!("account-{}", ada.account_id));
    assert_eq!(told["actor"], "operator");
    assert!(told["credential"].as_str().unwrap().starts_with("key_"), "{told}");
    assert_eq!(told["data"]["given_to"], "issuer");
    let ends = told["data"]["expires_at"].as_str().unwrap().parse::<Timestamp>().unwrap();
    let expires_at = answer.expires_at.unwrap();
    let millis = expires_at.seconds * 1_000 + i64::from(expires_at.nanos / 1_000_000);
    assert_eq!(ends.as_millis(), millis);
    assert!(!String::from_utf8_lossy(&event.stored).contains(&answer.token));
    assert!(!told["sealed"].as_array().unwrap().is_empty(), "from where, sealed");
    // The account goes on, over a restart too.
    let acme = acme.restarted().await;
    let reset = ResetPasswordRequest { token: answer.token, new_password: OTHER_PASSWORD.into() };
    acme.nobody().reset_password(reset).await.unwrap();
    acme.nobody().login(credentials(&ada.email, OTHER_PASSWORD)).await.unwrap();
}

#[tokio::test]
async fn sessions_are_their_organizations() {
    let acme = Acme::new().await;
    let ada = join(&acme, "ada@example.com", "rol_00000000000000000000000002").await;
    let session = login(&acme, &ada).await;
    let me = with(&acme, &session);
    let own = me.list_sessions(ListSessionsRequest::default()).await.unwrap().sessions;
    assert_eq!(own.len(), 1);
    assert!(own[0].current);
    // Another organization's administrator learns nothing, and its verifiers neither.
    let other = acme.another("other").await;
    let list = ListSessionsRequest { user_id: ada.user_id.clone(), ..Default::default() };
    let refused = other.list_sessions(list.clone()).await.unwrap_err();
    assert_eq!(reason(&refused), "USER_NOT_FOUND");
    let there = ListSessionsRequest { organization_id: acme.id.clone(), ..list };
    let refused = other.list_sessions(there).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert_eq!(other.ask(&token(&session), &[]).await.code(), DecisionCode::Unknown);
    let mut elsewhere = credentials(&ada.email, PASSWORD);
    elsewhere.organization_id = acme.operator.organization("third", "third", "").await;
    let refused = acme.nobody().login(elsewhere).await.unwrap_err();
    assert_eq!(reason(&refused), "NOT_A_MEMBER");
    // By prefix, too; whoever is nobody learns nothing of what there is.
    let at = |organization: &str, password: &str| LoginRequest {
        organization_id: organization.into(),
        ..credentials(&ada.email, password)
    };
    let here = acme.nobody().login(at("vtx", PASSWORD)).await.unwrap();
    assert_eq!(here.session.unwrap().organization_id, acme.id);
    for organization in ["third", "nosuch", "operator"] {
        for (password, told) in [(PASSWORD, "NOT_A_MEMBER"), (OTHER_PASSWORD, "LOGIN_FAILED")] {
            let refused = acme.nobody().login(at(organization, password)).await.unwrap_err();
            assert_eq!(reason(&refused), told, "{organization}");
        }
    }
    let refused = acme.nobody().login(at("no prefix", PASSWORD)).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    // Its tokens stand across a restart, and so do the keys that signed them.
    let keys = acme.nobody().get_signing_keys(GetSigningKeysRequest {}).await.unwrap().jwks;
    assert!(keys.contains("Ed25519"), "{keys}");
    let acme = acme.restarted().await;
    assert!(acme.operator.ask(&token(&session), &["dns:read"]).await.allowed);
    let again = acme.nobody().get_signing_keys(GetSigningKeysRequest {}).await.unwrap().jwks;
    assert_eq!(again, keys);
    acme.nobody().refresh(refresh_token(&session)).await.unwrap();
}
