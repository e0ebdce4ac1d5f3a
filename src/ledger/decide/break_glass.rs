//! Rules of break-glass.
//!
//! A grant is opened by a custodian, for one organization, with permissions from a list, for
//! a time that has an end. It may need somebody else's approval. Every request under it is
//! decided here, behind all events in flight, and becomes an event, whether it passes or
//! not. Once it has ended it is reviewed by somebody who neither opened nor approved it.
//! Persons are told apart by their accounts.

use projections::break_glass::BreakGlassGrant;
use projections::event::{
    BreakGlassApproved, BreakGlassConfigured, BreakGlassEndReason, BreakGlassEnded,
    BreakGlassEscalated, BreakGlassOpened, BreakGlassRefused, BreakGlassReviewed, BreakGlassRules,
    BreakGlassUsed, Custodian, DenialCode, Event, ReviewFinding,
};
use projections::id::{AccountId, BreakGlassGrantId};
use projections::organization::Change;
use projections::permission::Permission;
use projections::principal::{Owner, Principal};
use projections::recorded::Revision;
use projections::text::Label;
use projections::time::Timestamp;
use projections::verification::{self, Code, Question, Wanted};

use super::{Decided, Given, key};
use crate::ledger::command::{
    BreakGlassCommand, ByPerson, Caller, OpenGrant, UseGrant, WhichGrant,
};
use crate::ledger::denials;
use crate::ledger::permissions::{BREAK_GLASS_APPROVE, BREAK_GLASS_CLOSE, BREAK_GLASS_REVIEW};
use crate::ledger::rejection::{BreakGlassRejection, Rejection};

/// Decides what somebody wants of break-glass.
pub(super) fn decide(given: &Given<'_>, command: &BreakGlassCommand) -> Result<Decided, Rejection> {
    match command {
        BreakGlassCommand::Configure(rules) => configure(given, rules.as_ref()),
        BreakGlassCommand::Open(command) => open(given, command),
        BreakGlassCommand::Use(command) => use_grant(given, command),
        BreakGlassCommand::Refuse(event) => refuse(given, event),
        BreakGlassCommand::Approve(command) => approve(given, command),
        BreakGlassCommand::Close(command) => close(given, command),
        BreakGlassCommand::Review(command, finding) => review(given, command, *finding),
        BreakGlassCommand::End { grant_id, server_since } => end(given, *grant_id, *server_since),
        BreakGlassCommand::Withdraw(grant_id) => withdraw(given, *grant_id),
        BreakGlassCommand::Escalate(grant_id) => escalate(given, *grant_id),
    }
}

fn by_ledger(given: &Given<'_>) -> Result<(), Rejection> {
    if given.caller == Caller::Ledger { Ok(()) } else { Err(Rejection::CallerNotInForce) }
}

/// Governs break-glass by the rules of the configuration.
fn configure(given: &Given<'_>, rules: Option<&BreakGlassRules>) -> Result<Decided, Rejection> {
    by_ledger(given)?;
    let before = given.state.installation().and_then(|it| it.break_glass.as_deref());
    if before == rules {
        return Ok(Decided::Nothing);
    }
    let event = BreakGlassConfigured { rules: rules.cloned(), before: before.cloned() };
    Ok(Decided::Events(vec![event.into()]))
}

fn rules<'a>(given: &Given<'a>) -> Result<&'a BreakGlassRules, Rejection> {
    let rules = given.operator.installation().and_then(|it| it.break_glass.as_deref());
    rules.ok_or_else(|| BreakGlassRejection::Disabled.into())
}

/// The custodian of this name, whose master key the caller showed.
fn custodian<'a>(
    given: &Given<'_>,
    rules: &'a BreakGlassRules,
    name: &Label,
) -> Result<&'a Custodian, Rejection> {
    let Caller::Custodian { account_id } = given.caller else {
        return Err(Rejection::CallerNotInForce);
    };
    let found = rules.custodians.iter().find(|it| it.name == *name && it.account_id == account_id);
    found.ok_or(Rejection::CallerNotInForce)
}

fn done(grant: &BreakGlassGrant) -> Decided {
    let outcome = Change::BreakGlass(grant.id);
    Decided::Done { outcome, revision: grant.changed_at, repeat: false }
}

fn known<'a>(given: &Given<'a>, id: BreakGlassGrantId) -> Result<&'a BreakGlassGrant, Rejection> {
    let grant = given.state.break_glass_grant(id);
    grant.map(|grant| &**grant).ok_or_else(|| BreakGlassRejection::NotFound(id).into())
}

/// The event that records the end of a grant by its time.
fn over(grant: &BreakGlassGrant, server_was_down: bool) -> Event {
    let reason = match grant.awaits_approval {
        true => BreakGlassEndReason::NotApproved,
        false => BreakGlassEndReason::Expired,
    };
    let (grant_id, ended_at) = (grant.id, grant.expires_at);
    BreakGlassEnded { grant_id, reason, ended_at, server_was_down }.into()
}

/// The same, where its time is over and that was not recorded.
fn over_unless_recorded(given: &Given<'_>, grant: &BreakGlassGrant) -> Option<Event> {
    let is_over = grant.ended.is_none() && given.now >= grant.expires_at;
    is_over.then(|| over(grant, false))
}

/// Opens a grant. Another one of the custodian's whose token was given out ends with it.
fn open(given: &Given<'_>, command: &OpenGrant) -> Result<Decided, Rejection> {
    let rules = rules(given)?;
    let custodian = custodian(given, rules, &command.custodian)?;
    if given.state.id.is_operator() {
        return Err(BreakGlassRejection::Operator.into());
    }
    // The identifier is fresh and random: if it is there, this very command made it.
    if let Some(grant) = given.state.break_glass_grant(command.grant_id) {
        return Ok(done(grant));
    }
    let opened = opened(given, rules, custodian, command)?;
    let mut events: Vec<Event> = Vec::new();
    for grant in given.state.open_break_glass_grants() {
        let is_same = grant.custodian == command.custodian && grant.token.is_some();
        if is_same && command.token.is_some() {
            let superseded = || ended(grant, BreakGlassEndReason::Superseded, given.now);
            events.push(over_unless_recorded(given, grant).unwrap_or_else(superseded));
        }
    }
    // First: what the command made is what it is asked for.
    events.insert(0, opened.into());
    Ok(Decided::Events(events))
}

/// Whether a grant has ended and somebody must look at it. Where nobody can be told to be
/// another than who opened it, nobody must.
fn awaits_review(rules: &BreakGlassRules, grant: &BreakGlassGrant, now: Timestamp) -> bool {
    let is_over = grant.ended.is_some() || now >= grant.expires_at;
    rules.review_required && grant.account_id.is_some() && is_over && grant.reviewed.is_none()
}

fn ended(grant: &BreakGlassGrant, reason: BreakGlassEndReason, ended_at: Timestamp) -> Event {
    BreakGlassEnded { grant_id: grant.id, reason, ended_at, server_was_down: false }.into()
}

fn opened(
    given: &Given<'_>,
    rules: &BreakGlassRules,
    custodian: &Custodian,
    command: &OpenGrant,
) -> Result<BreakGlassOpened, Rejection> {
    let permissions = command.permissions.as_ref().unwrap_or(&rules.permissions);
    // By name: `org:admin`, which implies all others, is never on the list.
    if let Some(other) = permissions.iter().find(|it| !rules.permissions.iter().any(|on| on == *it))
    {
        return Err(BreakGlassRejection::PermissionNotListed(other.to_string()).into());
    }
    let duration_seconds = command.duration_seconds.unwrap_or(rules.duration_seconds);
    let duration_max = rules.duration_max_seconds;
    if !(1..=duration_max).contains(&duration_seconds) {
        return Err(BreakGlassRejection::Duration(duration_max).into());
    }
    if rules.incident_required && command.incident.is_none() {
        return Err(BreakGlassRejection::IncidentRequired.into());
    }
    let last = given.state.break_glass_grant_for(&command.custodian, command.reason);
    if let Some(last) = last.filter(|last| awaits_review(rules, last, given.now)) {
        return Err(BreakGlassRejection::ReviewPending(last.id).into());
    }
    if command.openings.is_none_or(|openings| openings >= rules.openings_max) {
        return Err(BreakGlassRejection::Limited(rules.openings_max, rules.openings_seconds).into());
    }
    let lasts = match rules.approval_required {
        true => rules.approval_seconds,
        false => duration_seconds,
    };
    Ok(BreakGlassOpened {
        grant_id: command.grant_id,
        custodian: command.custodian.clone(),
        account_id: custodian.account_id,
        token: command.token.clone(),
        reason: command.reason,
        incident: command.incident.clone(),
        permissions: permissions.clone(),
        duration_seconds,
        awaits_approval: rules.approval_required,
        expires_at: given.now.saturating_add_millis(i64::from(lasts) * 1_000),
    })
}

/// Lets a request pass, or refuses it: either is an event.
fn use_grant(given: &Given<'_>, command: &UseGrant) -> Result<Decided, Rejection> {
    match &command.which {
        WhichGrant::Shown(id) => {
            let grant = known(given, *id)?;
            let mut events: Vec<Event> = over_unless_recorded(given, grant).into_iter().collect();
            events.push(used_or_refused(given, grant, command));
            Ok(Decided::Events(events))
        }
        WhichGrant::ForReason(opening) => use_for_reason(given, command, opening),
    }
}

fn use_for_reason(
    given: &Given<'_>,
    command: &UseGrant,
    opening: &OpenGrant,
) -> Result<Decided, Rejection> {
    let rules = rules(given)?;
    let custodian = custodian(given, rules, &opening.custodian)?;
    let refused = |grant_id, code| -> Event {
        let (custodian, asked) = (opening.custodian.clone(), command.asked.clone());
        BreakGlassRefused { grant_id, custodian, code, asked }.into()
    };
    let mut events: Vec<Event> = Vec::new();
    let by_master_key = given.state.break_glass_grant_by(&opening.custodian, opening.reason);
    if let Some(grant) = by_master_key {
        if grant.ended.is_none() && given.now < grant.expires_at {
            return Ok(Decided::Events(vec![used_or_refused(given, grant, command)]));
        }
        events.extend(over_unless_recorded(given, grant));
    }
    // However it was opened.
    let last = given.state.break_glass_grant_for(&opening.custodian, opening.reason);
    if let Some(last) = last.filter(|last| awaits_review(rules, last, given.now)) {
        events.push(refused(Some(last.id), DenialCode::BreakGlassReviewPending));
        return Ok(Decided::Events(events));
    }
    if opening.openings.is_none() {
        // Whoever asks counts the openings, and asks again.
        return Err(BreakGlassRejection::NotOpen.into());
    }
    match opened(given, rules, custodian, opening) {
        Ok(opened) => {
            let revision = Revision::after(given.state.revision());
            let grant = BreakGlassGrant::of(revision, given.now, &opened);
            events.push(opened.into());
            events.push(used_or_refused(given, &grant, command));
        }
        Err(Rejection::BreakGlass(BreakGlassRejection::Limited(..))) => {
            events.push(refused(None, DenialCode::BreakGlassLimited));
        }
        Err(Rejection::BreakGlass(BreakGlassRejection::IncidentRequired)) => {
            events.push(refused(None, DenialCode::BreakGlassReasonRequired));
        }
        Err(other) => return Err(other),
    }
    Ok(Decided::Events(events))
}

/// What comes of a request under this grant.
fn used_or_refused(given: &Given<'_>, grant: &BreakGlassGrant, command: &UseGrant) -> Event {
    let asked = &command.asked;
    let wanted: Vec<String> =
        asked.permissions.iter().flat_map(|it| it.texts()).map(str::to_owned).collect();
    let question = Question {
        tenant: command.tenant,
        permissions: Wanted::Texts(&wanted),
        service: asked.service.as_ref().map(|it| it.as_str()),
        domain: asked.domain.as_ref().map(|it| it.as_str()),
        environment: command.environment,
        client_ip: command.client_ip,
        now: given.now,
    };
    let decision = verification::decide_break_glass(grant, given.state, given.operator, &question);
    let asked = asked.clone();
    match denials::code(decision.code) {
        None => BreakGlassUsed { grant_id: grant.id, asked }.into(),
        Some(code) => {
            let (grant_id, custodian) = (Some(grant.id), grant.custodian.clone());
            BreakGlassRefused { grant_id, custodian, code, asked }.into()
        }
    }
}

/// Whoever was refused is named as the one who acted.
fn refuse(given: &Given<'_>, event: &BreakGlassRefused) -> Result<Decided, Rejection> {
    match given.caller {
        Caller::Custodian { .. } => {}
        Caller::BreakGlass { grant_id, .. } if event.grant_id == Some(grant_id) => {}
        Caller::Key { .. }
        | Caller::Session { .. }
        | Caller::Person { .. }
        | Caller::BreakGlass { .. }
        | Caller::Ledger => by_ledger(given)?,
    }
    if let Some(id) = event.grant_id {
        known(given, id)?;
    }
    Ok(Decided::Events(vec![event.clone().into()]))
}

/// The person who gives a command, by their account: a custodian who shows a master key, or
/// somebody who holds the permission.
fn person(
    given: &Given<'_>,
    command: &ByPerson,
    permission: Permission<'_>,
) -> Result<(AccountId, Option<Label>), Rejection> {
    let nobody = || Rejection::BreakGlass(BreakGlassRejection::NotAPerson);
    if let Some(name) = &command.custodian {
        let custodian = custodian(given, rules(given)?, name)?;
        return Ok((custodian.account_id.ok_or_else(nobody)?, Some(name.clone())));
    }
    given.authorize(permission)?;
    let Some(Owner::User(user)) = given.caller.owner() else { return Err(nobody()) };
    let (recognised, home) = given.recognised()?.ok_or_else(nobody)?;
    // A key says who somebody is if nobody else ever had its secret: it was made by its owner.
    if let Some(row) = recognised.key() {
        if row.maker.by != Principal::User(user) {
            return Err(nobody());
        }
        key::may_act_on_live(given)?;
    }
    let account = home.user(user).and_then(|user| user.account_id);
    Ok((account.ok_or_else(nobody)?, None))
}

/// Lets a grant permit what it says, if somebody else opened it.
fn approve(given: &Given<'_>, command: &ByPerson) -> Result<Decided, Rejection> {
    let (account_id, custodian) = person(given, command, BREAK_GLASS_APPROVE)?;
    let rules = rules(given)?;
    let grant = known(given, command.grant_id)?;
    if grant.account_id.is_none_or(|opener| opener == account_id) {
        return Err(BreakGlassRejection::OwnGrant("approved").into());
    }
    if grant.approved.as_ref().is_some_and(|it| it.account_id == account_id) {
        return Ok(done(grant));
    }
    let awaits = grant.awaits_approval && grant.ended.is_none() && given.now < grant.expires_at;
    if !awaits || !grant.is_allowed_by(rules) {
        return Err(BreakGlassRejection::NotAwaitingApproval(grant.id).into());
    }
    let lasts = i64::from(grant.duration_seconds.min(rules.duration_max_seconds)) * 1_000;
    let approved = BreakGlassApproved {
        grant_id: grant.id,
        account_id,
        custodian,
        expires_at: given.now.saturating_add_millis(lasts),
        before: grant.expires_at,
    };
    Ok(Decided::Events(vec![approved.into()]))
}

/// Ends a grant: whoever acts under it, its custodian, or somebody who holds the permission.
fn close(given: &Given<'_>, command: &ByPerson) -> Result<Decided, Rejection> {
    let is_its_own = match given.caller {
        Caller::BreakGlass { grant_id, .. } => grant_id == command.grant_id,
        Caller::Custodian { .. } => {
            let name = command.custodian.as_ref().ok_or(Rejection::CallerNotInForce)?;
            custodian(given, rules(given)?, name)?;
            let grant = known(given, command.grant_id)?;
            if grant.custodian != *name {
                return Err(BreakGlassRejection::NotFound(command.grant_id).into());
            }
            true
        }
        Caller::Key { .. } | Caller::Session { .. } | Caller::Person { .. } | Caller::Ledger => {
            false
        }
    };
    if !is_its_own {
        given.authorize(BREAK_GLASS_CLOSE)?;
        key::may_act_on_live(given)?;
    }
    let grant = known(given, command.grant_id)?;
    if grant.ended.is_some() {
        return Ok(done(grant));
    }
    let over = over_unless_recorded(given, grant);
    let closed = || ended(grant, BreakGlassEndReason::Closed, given.now);
    Ok(Decided::Events(vec![over.unwrap_or_else(closed)]))
}

/// Records what came of a look at what was done, by somebody who had no part in it.
fn review(
    given: &Given<'_>,
    command: &ByPerson,
    finding: ReviewFinding,
) -> Result<Decided, Rejection> {
    let (account_id, custodian) = person(given, command, BREAK_GLASS_REVIEW)?;
    let grant = known(given, command.grant_id)?;
    if grant.account_id.is_none() || grant.is_of(account_id) {
        return Err(BreakGlassRejection::OwnGrant("reviewed").into());
    }
    if let Some(reviewed) = &grant.reviewed {
        return match reviewed.account_id == account_id && reviewed.finding == finding {
            true => Ok(done(grant)),
            false => Err(BreakGlassRejection::Reviewed(grant.id).into()),
        };
    }
    let mut events: Vec<Event> = over_unless_recorded(given, grant).into_iter().collect();
    if grant.ended.is_none() && events.is_empty() {
        return Err(BreakGlassRejection::NotEnded(grant.id).into());
    }
    let grant_id = grant.id;
    events.push(BreakGlassReviewed { grant_id, account_id, custodian, finding }.into());
    Ok(Decided::Events(events))
}

/// Records the end of a grant that is over, or that the rules no longer allow.
fn end(
    given: &Given<'_>,
    id: BreakGlassGrantId,
    server_since: Timestamp,
) -> Result<Decided, Rejection> {
    by_ledger(given)?;
    let grant = known(given, id)?;
    if grant.ended.is_some() {
        return Ok(Decided::Nothing);
    }
    if given.now >= grant.expires_at {
        return Ok(Decided::Events(vec![over(grant, grant.expires_at < server_since)]));
    }
    match rules(given).is_ok_and(|rules| grant.is_allowed_by(rules)) {
        true => Ok(Decided::Nothing),
        false => Ok(Decided::Events(vec![ended(grant, BreakGlassEndReason::Withdrawn, given.now)])),
    }
}

/// Ends a grant whose custodian was given another master key.
fn withdraw(given: &Given<'_>, id: BreakGlassGrantId) -> Result<Decided, Rejection> {
    by_ledger(given)?;
    let grant = known(given, id)?;
    if grant.ended.is_some() {
        return Ok(Decided::Nothing);
    }
    let withdrawn = || ended(grant, BreakGlassEndReason::Withdrawn, given.now);
    let over = over_unless_recorded(given, grant);
    Ok(Decided::Events(vec![over.unwrap_or_else(withdrawn)]))
}

/// When a missing review of a grant is escalated; none where it is not.
pub(in crate::ledger) fn escalated_at(
    rules: &BreakGlassRules,
    grant: &BreakGlassGrant,
) -> Option<Timestamp> {
    let ended = grant.ended.filter(|_| grant.reviewed.is_none() && grant.escalated_at.is_none())?;
    let after = i64::from(rules.review_seconds) * 1_000;
    let is_asked_for = rules.review_required && grant.account_id.is_some();
    is_asked_for.then(|| ended.ended_at.saturating_add_millis(after))
}

/// Records that a grant was not reviewed in time.
fn escalate(given: &Given<'_>, id: BreakGlassGrantId) -> Result<Decided, Rejection> {
    by_ledger(given)?;
    let (rules, grant) = (rules(given)?, known(given, id)?);
    let due = escalated_at(rules, grant).filter(|due| given.now >= *due);
    let (Some(_), Some(end)) = (due, grant.ended) else { return Ok(Decided::Nothing) };
    let event = BreakGlassEscalated { grant_id: id, ended_at: end.ended_at };
    Ok(Decided::Events(vec![event.into()]))
}

/// The code of an answer to a request under break-glass, from what was recorded of it.
pub(in crate::ledger) fn code_of(refused: Option<DenialCode>) -> Code {
    refused.map_or(Code::Allowed, denials::code_back)
}
