//! Reports: held against what was so when it was so.

use std::collections::BTreeSet;

use keyledger::proto::held_time::Holder;
use keyledger::proto::{self, DecisionCode, HeldTime};
use prost_types::{Duration, Timestamp};
use tonic::Code;

use super::history::{instant, told};
use super::roles::{give, make_account};
use super::support::{Acme, Client, DNS_MANAGER, POLL, about, refused, scoped};

fn key(at: Timestamp) -> (i64, i32) {
    (at.seconds, at.nanos)
}

fn id(time: &HeldTime) -> String {
    match time.holder.clone().unwrap() {
        Holder::ServiceAccountId(id)
        | Holder::UserId(id)
        | Holder::KeyId(id)
        | Holder::BreakGlassGrantId(id) => id,
    }
}

/// Who held it at this instant, by what was reported.
fn at(times: &[HeldTime], at: Timestamp) -> BTreeSet<String> {
    let held = |it: &&HeldTime| {
        key(it.from.unwrap()) <= key(at) && it.to.is_none_or(|to| key(to) > key(at))
    };
    times.iter().filter(held).map(id).collect()
}

async fn permission_holders(
    client: &Client,
    permission: &str,
    (from, to): (Timestamp, Timestamp),
    page_size: u32,
) -> Vec<HeldTime> {
    let mut request = proto::ListPermissionHoldersRequest {
        permission: permission.into(),
        from: Some(from),
        to: Some(to),
        page_size,
        ..Default::default()
    };
    let mut times = Vec::new();
    loop {
        let page = client.list_permission_holders(request.clone()).await.unwrap();
        times.extend(page.times);
        if page.next_page_token.is_empty() {
            return times;
        }
        request.page_token = page.next_page_token;
    }
}

#[tokio::test]
async fn who_held_a_permission_is_who_was_said_to_at_every_moment() {
    let story = told().await;
    let admin = &story.acme.admin;
    let end = instant().await;
    let first = story.holders[0].0;
    let beginning = Timestamp { seconds: 1, nanos: 0 };
    for (from, page_size) in [(beginning, 1_000), (first, 1_000), (first, 1)] {
        let times = permission_holders(admin, "dns:read", (from, end), page_size).await;
        for (moment, holders) in &story.holders {
            assert_eq!(at(&times, *moment), *holders, "at {moment:?}");
        }
        for time in &times {
            let began = time.began_by.as_ref();
            assert_eq!(began.is_none(), time.from == Some(from), "{time:?}");
            if let Some(began) = began {
                assert_eq!(began.at, time.from);
            }
            // Nothing of it ends by itself.
            assert_eq!(time.to.is_some(), time.ended_by.is_some(), "{time:?}");
        }
    }
    let all = permission_holders(admin, "dns:read", (beginning, end), 1_000).await;
    let actions: BTreeSet<&str> =
        all.iter().filter_map(|it| it.ended_by.as_ref()).map(|it| it.action.as_str()).collect();
    for action in [
        "role.updated",
        "role.grant_revoked",
        "role.retired",
        "key.disabled",
        "user.suspended",
        "key.revoked",
    ] {
        assert!(actions.contains(action), "{action} in {actions:?}");
    }
    let mut distinct = BTreeSet::new();
    assert!(all.iter().all(|it| distinct.insert((id(it), key(it.from.unwrap())))), "each once");
}

#[tokio::test]
async fn what_ends_by_itself_ended_at_its_time() {
    let acme = Acme::new().await;
    let before = instant().await;
    let account = proto::CreateServiceAccountRequest { name: "bot".into(), ..Default::default() };
    let account = acme.admin.create_service_account(account).await.unwrap();
    let account = account.service_account.unwrap().id;
    let second = Duration { seconds: 1, nanos: 0 };
    let grant = proto::GrantRoleRequest {
        role_id: DNS_MANAGER.into(),
        principal: Some(proto::grant_role_request::Principal::ServiceAccountId(account.clone())),
        expiry: Some(proto::grant_role_request::Expiry::Lifetime(second)),
        ..Default::default()
    };
    let grant = acme.admin.grant_role(grant).await.unwrap().grant.unwrap();
    let short = proto::CreateKeyRequest {
        expiry: Some(proto::create_key_request::Expiry::Lifetime(second)),
        ..scoped("", "short", &["dns:read"])
    };
    let short = acme.admin.create_key(short).await.unwrap();
    let rotated = acme.admin.create_key(scoped("", "rotated", &["dns:read"])).await.unwrap();
    let rotation = proto::RotateKeyRequest {
        key_id: rotated.key.as_ref().unwrap().id.clone(),
        grace: Some(second),
        ..Default::default()
    };
    acme.admin.rotate_key(rotation).await.unwrap();
    acme.wait_for(&short.secret, DecisionCode::Expired).await;
    acme.wait_for(&rotated.secret, DecisionCode::Revoked).await;
    let short = short.key.unwrap();
    let role = |to| proto::ListRoleHoldersRequest {
        role_id: DNS_MANAGER.into(),
        from: Some(before),
        to: Some(to),
        ..Default::default()
    };
    let rotated = acme.get(&rotated.key.unwrap().id).await;
    let ends = [grant.expires_at, short.expires_at, rotated.rotation.as_ref().unwrap().ends_at];
    let mut end = instant().await;
    while ends.iter().any(|it| key(end) <= key(it.unwrap())) {
        tokio::time::sleep(POLL).await;
        end = instant().await;
    }
    let holders = acme.admin.list_role_holders(role(end)).await.unwrap().times;
    assert_eq!(holders.len(), 1);
    assert_eq!(
        (id(&holders[0]), holders[0].from, holders[0].to),
        (account, grant.granted_at, grant.expires_at)
    );
    assert_eq!(holders[0].began_by.as_ref().unwrap().action, "role.granted");
    assert!(holders[0].ended_by.is_none(), "its time was over");
    let keys = permission_holders(&acme.admin, "dns:read", (before, end), 0).await;
    let of_key = keys.iter().find(|it| id(it) == short.id).unwrap();
    assert_eq!((of_key.to, &of_key.ended_by), (short.expires_at, &None));
    let of_key = keys.iter().find(|it| id(it) == rotated.id).unwrap();
    assert_eq!((of_key.to, &of_key.ended_by), (rotated.rotation.unwrap().ends_at, &None));
    let nobodys = proto::ListRoleHoldersRequest {
        role_id: "rol_01M3250V000000000000000001".into(),
        ..role(end)
    };
    refused(acme.admin.list_role_holders(nobodys).await, Code::NotFound, "role");
    // Up to the instant of its end it was held to the end.
    let cut = acme.admin.list_role_holders(role(grant.expires_at.unwrap())).await.unwrap().times;
    assert_eq!(cut[0].to, None);
    for (from, to, says) in [
        (None, Some(end), "`from`: must be given"),
        (Some(before), None, "`to`: must be given"),
        (Some(end), Some(before), "`to`: must be later than `from`"),
        (Some(before), Some(before), "`to`: must be later than `from`"),
        (
            Some(before),
            Some(Timestamp { seconds: end.seconds + 3_600, nanos: 0 }),
            "`to`: must not be ahead",
        ),
        (Some(Timestamp { seconds: i64::MIN, nanos: 0 }), Some(end), "`from`: must be an instant"),
    ] {
        let request = proto::ListRoleHoldersRequest { from, to, ..role(end) };
        refused(acme.admin.list_role_holders(request).await, Code::InvalidArgument, says);
    }
    let request = proto::ListRoleHoldersRequest { page_token: "AAAA".into(), ..role(end) };
    refused(acme.admin.list_role_holders(request).await, Code::InvalidArgument, "`page_token`");
    let request = proto::ListPermissionHoldersRequest {
        permission: "dns:*".into(),
        from: Some(before),
        to: Some(end),
        ..Default::default()
    };
    refused(
        acme.admin.list_permission_holders(request).await,
        Code::InvalidArgument,
        "`permission`",
    );
}

#[tokio::test]
async fn keys_that_want_a_look_are_reported() {
    let acme = Acme::new().await;
    let (endless, secret) = acme.key("endless", &["dns:read"]).await;
    let ends = proto::CreateKeyRequest {
        expiry: Some(proto::create_key_request::Expiry::Lifetime(Duration {
            seconds: 3_600,
            nanos: 0,
        })),
        ..scoped("", "ends", &["dns:read"])
    };
    let ends = acme.admin.create_key(ends).await.unwrap().key.unwrap().id;
    let (gone, _) = acme.key("gone", &["dns:read"]).await;
    acme.admin.revoke("", &gone).await.unwrap();
    let mut found = Vec::new();
    let mut request = proto::ListKeysWithoutExpiryRequest { page_size: 1, ..Default::default() };
    loop {
        let page = acme.admin.list_keys_without_expiry(request.clone()).await.unwrap();
        found.extend(page.keys.into_iter().map(|it| it.id));
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    assert!(found.contains(&endless) && !found.contains(&ends) && !found.contains(&gone));
    // Nothing here is a day old.
    let unused = |days| proto::ListUnusedKeysRequest { days, ..Default::default() };
    assert!(acme.admin.list_unused_keys(unused(1)).await.unwrap().keys.is_empty());
    for days in [0, 3_651, u32::MAX] {
        let answer = acme.admin.list_unused_keys(unused(days)).await;
        refused(answer, Code::InvalidArgument, "`days`: must be 1 to 3650");
    }
    let summary = acme.admin.summarize_break_glass(Default::default()).await.unwrap();
    assert!(summary.quarters.is_empty() && summary.revision.is_some());
    assert_eq!(acme.operator.code(about(&secret, &["dns:read"])).await, DecisionCode::Allowed);
}

/// Held for a domain is not held everywhere, and is not reported so.
#[tokio::test]
async fn what_was_held_for_a_domain_alone_is_said_with_the_domain() {
    let acme = Acme::new().await;
    let account = make_account(&acme.admin, "bot").await;
    let before = instant().await;
    for domain in ["a.example", "b.example", ""] {
        give(&acme.admin, &account, DNS_MANAGER, domain).await;
        instant().await;
    }
    let end = instant().await;
    let request = proto::ListRoleHoldersRequest {
        role_id: DNS_MANAGER.into(),
        from: Some(before),
        to: Some(end),
        ..Default::default()
    };
    let of_role = acme.admin.list_role_holders(request).await.unwrap().times;
    let of_permission = permission_holders(&acme.admin, "dns:read", (before, end), 0).await;
    for times in [of_role, of_permission] {
        let times: Vec<_> = times.iter().filter(|it| id(it) == account).collect();
        let domains: Vec<Vec<&str>> =
            times.iter().map(|it| it.domains.iter().map(String::as_str).collect()).collect();
        assert_eq!(domains, [vec!["a.example"], vec!["a.example", "b.example"], vec![]]);
        for pair in times.windows(2) {
            assert_eq!(pair[0].to, pair[1].from);
            assert_eq!(pair[0].ended_by, pair[1].began_by);
        }
        assert!(times.iter().all(|it| it.holder_name == "bot"));
        assert!(times[2].to.is_none());
    }
    acme.server.stop().await;
}
