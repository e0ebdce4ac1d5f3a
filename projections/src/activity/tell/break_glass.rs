//! What events of break-glass say. The reason stands in them sealed, and what stands for it,
//! or for a token, never becomes part of an entry.

use super::super::{Outcome, TargetId, Value};
use super::{Told, denial_code, text};
use crate::event::{
    BreakGlassApproved, BreakGlassAsked, BreakGlassConfigured, BreakGlassEndReason,
    BreakGlassEnded, BreakGlassEscalated, BreakGlassOpened, BreakGlassRefused, BreakGlassReviewed,
    BreakGlassRules, BreakGlassUsed, Event, ReviewFinding,
};
use crate::id::BreakGlassGrantId;
use crate::permission::Scopes;

fn grant(id: BreakGlassGrantId, deed: &'static str) -> Told<'static> {
    Told::of(TargetId::BreakGlass(id), None, deed)
}

fn permissions(scopes: &Scopes) -> Value<'_> {
    Value::Texts(scopes.texts().map(Into::into).collect())
}

fn seconds(seconds: u32) -> Value<'static> {
    Value::Number(seconds.into())
}

/// The grant that an event is about.
pub(crate) fn grant_of(event: &Event) -> Option<BreakGlassGrantId> {
    macro_rules! of {
        ($($name:ident),+) => {
            $(if let Event::$name(data) = event {
                return Some(data.grant_id);
            })+
        };
    }
    of!(
        BreakGlassUsed,
        BreakGlassOpened,
        BreakGlassApproved,
        BreakGlassEnded,
        BreakGlassEscalated,
        BreakGlassReviewed
    );
    if let Event::BreakGlassRefused(data) = event { data.grant_id } else { None }
}

/// A field of the rules, by its name.
type Field<T> = (&'static str, fn(&BreakGlassRules) -> T);

pub(super) fn configured(data: &BreakGlassConfigured) -> Told<'_> {
    let BreakGlassConfigured { rules, before } = data;
    let deed = match (before, rules) {
        (None, Some(_)) => "had break-glass turned on",
        (Some(_), None) => "had break-glass turned off",
        _ => "had its rules of break-glass changed",
    };
    let mut told = Told::of(TargetId::Installation, None, deed);
    let (rules, before) = (rules.as_ref(), before.as_ref());
    let custodians = |it: &BreakGlassRules| {
        let named = it.custodians.iter().map(|it| match it.account_id {
            Some(account) => format!("{} ({account})", it.name).into(),
            None => it.name.to_string().into(),
        });
        Value::Texts(named.collect())
    };
    let changes = &mut told.changes;
    changes.changed("custodians", before.map(custodians), rules.map(custodians));
    let listed = |it: &BreakGlassRules| {
        Value::Texts(it.permissions.texts().map(|it| it.to_owned().into()).collect())
    };
    changes.changed("permissions", before.map(listed), rules.map(listed));
    let numbers: [Field<u32>; 6] = [
        ("duration_seconds", |it| it.duration_seconds),
        ("duration_max_seconds", |it| it.duration_max_seconds),
        ("approval_seconds", |it| it.approval_seconds),
        ("review_seconds", |it| it.review_seconds),
        ("openings_max", |it| it.openings_max),
        ("openings_seconds", |it| it.openings_seconds),
    ];
    for (field, number) in numbers {
        let of = |it: &BreakGlassRules| seconds(number(it));
        changes.changed(field, before.map(of), rules.map(of));
    }
    let switches: [Field<bool>; 4] = [
        ("approval_required", |it| it.approval_required),
        ("review_required", |it| it.review_required),
        ("reason_required", |it| it.reason_required),
        ("incident_required", |it| it.incident_required),
    ];
    for (field, switch) in switches {
        let of = |it: &BreakGlassRules| text(if switch(it) { "true" } else { "false" });
        changes.changed(field, before.map(of), rules.map(of));
    }
    told
}

pub(super) fn opened(data: &BreakGlassOpened) -> Told<'_> {
    let BreakGlassOpened {
        grant_id,
        custodian,
        account_id,
        token,
        reason: _,
        incident,
        permissions: permits,
        duration_seconds,
        awaits_approval,
        expires_at,
    } = data;
    let deed = if *awaits_approval { "was asked for" } else { "was opened" };
    let mut told = grant(*grant_id, deed);
    let changes = &mut told.changes;
    changes.made("custodian", text(custodian.as_str()));
    changes.made_some("account_id", account_id.map(|it| text(it.text())));
    changes.made("way", text(if token.is_some() { "token" } else { "master_key" }));
    changes.made_some("incident", incident.as_ref().map(|it| text(it.as_str())));
    changes.made("permissions", permissions(permits));
    changes.made("duration_seconds", seconds(*duration_seconds));
    changes.made("awaits_approval", text(if *awaits_approval { "true" } else { "false" }));
    changes.made("expires_at", Value::Instant(*expires_at));
    told
}

pub(super) fn approved(data: &BreakGlassApproved) -> Told<'_> {
    let BreakGlassApproved { grant_id, account_id, custodian, expires_at, before } = data;
    let mut told = grant(*grant_id, "was approved");
    let changes = &mut told.changes;
    changes.made("account_id", text(account_id.text()));
    changes.made_some("custodian", custodian.as_ref().map(|it| text(it.as_str())));
    let (before, after) = (Value::Instant(*before), Value::Instant(*expires_at));
    changes.changed("expires_at", Some(before), Some(after));
    told
}

fn asked<'a>(told: &mut Told<'a>, asked: &'a BreakGlassAsked) {
    let BreakGlassAsked { permissions: wanted, service, domain, method, asked_with } = asked;
    let changes = &mut told.changes;
    changes.made_some("permissions", wanted.as_ref().map(permissions));
    changes.made_some("service", service.as_ref().map(|it| text(it.as_str())));
    changes.made_some("domain", domain.as_ref().map(|it| text(it.as_str())));
    changes.made_some("method", method.as_ref().map(|it| text(it.as_str())));
    changes.made_some("asked_with", asked_with.map(|it| text(it.to_string())));
}

pub(super) fn used(data: &BreakGlassUsed) -> Told<'_> {
    let mut told = grant(data.grant_id, "was used");
    asked(&mut told, &data.asked);
    told
}

pub(super) fn refused(data: &BreakGlassRefused) -> Told<'_> {
    let BreakGlassRefused { grant_id, custodian, code, asked: what } = data;
    let mut told = match grant_id {
        Some(id) => grant(*id, "let nothing pass, shown"),
        None => Told::of(TargetId::Credentials, None, "of break-glass were refused"),
    };
    told.outcome = Outcome::Denied;
    told.reason = Some(denial_code(*code));
    told.changes.made("custodian", text(custodian.as_str()));
    asked(&mut told, what);
    told
}

fn end_reason(reason: BreakGlassEndReason) -> &'static str {
    match reason {
        BreakGlassEndReason::Closed => "closed",
        BreakGlassEndReason::Expired => "expired",
        BreakGlassEndReason::NotApproved => "not_approved",
        BreakGlassEndReason::Superseded => "superseded",
        BreakGlassEndReason::Withdrawn => "withdrawn",
    }
}

pub(super) fn ended(data: &BreakGlassEnded) -> Told<'_> {
    let BreakGlassEnded { grant_id, reason, ended_at, server_was_down } = data;
    let mut told = grant(*grant_id, "was ended");
    told.reason = Some(end_reason(*reason));
    told.changes.made("ended_at", Value::Instant(*ended_at));
    told.changes.made_some("server_was_down", server_was_down.then(|| text("true")));
    told
}

pub(super) fn escalated(data: &BreakGlassEscalated) -> Told<'_> {
    let mut told = grant(data.grant_id, "was not reviewed in time, as noted");
    told.changes.made("ended_at", Value::Instant(data.ended_at));
    told
}

pub(super) fn reviewed(data: &BreakGlassReviewed) -> Told<'_> {
    let BreakGlassReviewed { grant_id, account_id, custodian, finding } = data;
    let mut told = grant(*grant_id, "was reviewed");
    let finding = match finding {
        ReviewFinding::Justified => "justified",
        ReviewFinding::Unjustified => "unjustified",
    };
    told.reason = Some(finding);
    told.changes.made("account_id", text(account_id.text()));
    told.changes.made_some("custodian", custodian.as_ref().map(|it| text(it.as_str())));
    told.changes.made("finding", text(finding));
    told
}
