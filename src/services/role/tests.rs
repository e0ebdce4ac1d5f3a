//! What a grant that ended comes to, whatever the clock says.

use projections::id::OrganizationId;
use projections::principal::Principal;

use super::*;
use crate::ledger::command::{Expiry, InviteUser};
use crate::services::testing::{ACME, World, draft};

/// History has seen the end of a grant: a clock that is set back does not undo it.
#[tokio::test]
async fn a_grant_that_ended_stays_ended_whatever_the_clock_says() {
    let world = World::new().await;
    let now = world.ledger.clock().now();
    let user_id = world.ledger.ids().user(now);
    let grant = GrantRole {
        grant_id: world.ledger.ids().grant(now),
        principal: Principal::User(user_id),
        role_id: "rol_00000000000000000000000006".parse().unwrap(),
        domain: None,
        expiry: Some(Expiry::After(60_000)),
    };
    let invited = InviteUser {
        user_id,
        email: projections::digest::EmailDigest([1; 32]),
        lifetime_ms: 1_000,
        limits: Default::default(),
        grants: vec![grant],
        token: None,
    };
    world.give(ACME, Command::InviteUser(Box::new(invited))).await;
    let seen = async || {
        let (ledger, acme) = (&world.ledger, world.acme());
        let grants = list_grants(ledger, &acme, &Default::default()).unwrap().grants.len();
        let subject = proto::effective_permissions_request::Subject::UserId(user_id.text());
        let subject =
            proto::EffectivePermissionsRequest { subject: Some(subject), ..Default::default() };
        let held = holding::effective(ledger, &acme, &subject).await.unwrap().permissions.len();
        let wanted =
            proto::WhoHoldsRequest { permission: "dns:write".into(), ..Default::default() };
        let holders = holding::who_holds(ledger, &acme, &wanted).unwrap().holders.len();
        (grants > 0, held > 0, holders > 0)
    };
    assert_eq!(seen().await, (true, true, true));
    // Its end passes; the operator's history says so, the organization's own does not.
    world.time.advance_ms(60_000);
    assert_eq!(seen().await, (false, false, false));
    let other = draft(OrganizationId::from_bytes([8; 16]), "glx");
    world.give(OrganizationId::OPERATOR, Command::RegisterOrganization(other)).await;
    world.time.set_wall(now);
    world.ledger.clock().confirm();
    assert_eq!(world.ledger.clock().now(), now);
    assert_eq!(seen().await, (false, false, false));
}
