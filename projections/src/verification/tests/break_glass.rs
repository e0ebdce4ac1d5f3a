//! Break-glass grants, in the order of the codes.

use super::*;
use crate::break_glass::BreakGlassGrant;
use crate::digest::{ReasonDigest, SecretDigest};
use crate::event::*;
use crate::id::BreakGlassGrantId;
use crate::permission::Scopes;
use crate::sample::account_id;

const GRANT: BreakGlassGrantId = BreakGlassGrantId::from_bytes([5; 16]);

fn rules() -> BreakGlassRules {
    BreakGlassRules {
        custodians: vec![Custodian {
            name: "alice".parse().unwrap(),
            account_id: Some(account_id(1)),
            digest: KeyedDigest {
                form: DigestForm::Sha256,
                pepper: 1,
                blake3: SecretDigest([1; 32]),
            },
        }],
        permissions: Scopes::new(&["dns:read", "sso:use"]).unwrap(),
        duration_seconds: 60,
        duration_max_seconds: 60,
        approval_required: false,
        approval_seconds: 60,
        review_required: true,
        review_seconds: 60,
        reason_required: true,
        incident_required: false,
        openings_max: 1,
        openings_seconds: 60,
    }
}

/// What is wrong with a grant, or with what is asked of it, in the order of precedence.
type Flaw = (fn(&mut World), Code);

struct World {
    rules: Option<BreakGlassRules>,
    awaits_approval: bool,
    ended: Option<BreakGlassEndReason>,
    now: i64,
    tenant: Option<OrganizationId>,
    environment: Option<Environment>,
    wanted: &'static str,
}

const FLAWS: &[Flaw] = &[
    (|world| world.tenant = Some(OrganizationId::from_bytes([9; 16])), Code::TenantMismatch),
    (|world| world.ended = Some(BreakGlassEndReason::Closed), Code::Revoked),
    (|world| world.now = 60_000, Code::Expired),
    (|world| world.rules = None, Code::BreakGlassDisabled),
    (|world| world.awaits_approval = true, Code::BreakGlassApprovalPending),
    (|world| world.environment = Some(Environment::Test), Code::WrongEnvironment),
    (|world| world.wanted = "dns:write", Code::PermissionDenied),
    (|world| world.wanted = "sso:use", Code::FeatureNotLicensed),
];

impl World {
    fn new() -> Self {
        Self {
            rules: Some(rules()),
            awaits_approval: false,
            ended: None,
            now: 10,
            tenant: None,
            environment: None,
            wanted: "dns:read",
        }
    }

    fn code(&self) -> Code {
        let rule = PermissionRule { mfa: None, feature: Some("sso".parse().unwrap()) };
        let mfa = MfaRule { max_age_seconds: None, api_keys_satisfy: false };
        let of = |permission: &str, rule| -> Event {
            let permission = permission.parse().unwrap();
            PermissionRuleDefined { permission, rule, before: None }.into()
        };
        let operator = operator(&[
            BreakGlassConfigured { rules: self.rules.clone(), before: None }.into(),
            of("sso:*", rule),
            // Nobody has a second factor in an emergency.
            of("dns:*", PermissionRule { mfa: Some(mfa), feature: None }),
        ]);
        let opened = BreakGlassOpened {
            grant_id: GRANT,
            custodian: "alice".parse().unwrap(),
            account_id: Some(account_id(1)),
            token: None,
            reason: ReasonDigest([1; 32]),
            incident: None,
            permissions: Scopes::new(&["dns:read", "sso:use"]).unwrap(),
            duration_seconds: 60,
            awaits_approval: self.awaits_approval,
            expires_at: at(60_000),
        };
        let end = self.ended.map(|reason| -> Event {
            let (ended_at, server_was_down) = (at(2), false);
            BreakGlassEnded { grant_id: GRANT, reason, ended_at, server_was_down }.into()
        });
        let mut events: Vec<Event> = vec![created(), opened.into()];
        events.extend(end);
        let organization = tables(ACME, &events);
        let wanted = [self.wanted.to_owned()];
        let question = Question {
            tenant: self.tenant,
            environment: self.environment,
            permissions: Wanted::new(&wanted).unwrap(),
            now: at(self.now),
            ..ask()
        };
        let grant: &BreakGlassGrant = organization.break_glass_grant(GRANT).unwrap();
        decide_break_glass(grant, &organization, &operator, &question).code
    }
}

#[test]
fn of_two_flaws_of_a_grant_the_first_is_the_answer() {
    assert_eq!(World::new().code(), Code::Allowed);
    for (place, (first, code)) in FLAWS.iter().enumerate() {
        let mut world = World::new();
        first(&mut world);
        assert_eq!(world.code(), *code);
        for (second, other) in FLAWS.iter().skip(place + 1) {
            assert!(code < other, "codes stand in order of precedence");
            let mut world = World::new();
            second(&mut world);
            // What comes first is said last: two flaws of one kind, the first counts.
            first(&mut world);
            assert_eq!(world.code(), *code, "{code:?} and {other:?}");
        }
    }
}

#[test]
fn a_grant_whose_custodian_or_permission_is_gone_is_revoked() {
    let with = |change: fn(&mut BreakGlassRules)| {
        let mut world = World::new();
        world.rules.iter_mut().for_each(change);
        world.code()
    };
    assert_eq!(with(|rules| rules.custodians[0].name = "bob".parse().unwrap()), Code::Revoked);
    assert_eq!(with(|rules| rules.custodians[0].account_id = None), Code::Revoked);
    assert_eq!(
        with(|rules| rules.permissions = Scopes::new(&["dns:read"]).unwrap()),
        Code::Revoked
    );
    // Another key of the same custodian's is the custodian's.
    let other = |rules: &mut BreakGlassRules| rules.custodians[0].digest.blake3.0[0] ^= 1;
    assert_eq!(with(other), Code::Allowed);
}
