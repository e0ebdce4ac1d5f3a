//! BreakGlassService: emergency access, and the whole story of it.
//!
//! A custodian shows a master key in the metadata; whoever acts under a grant shows its token.
//! What is refused to them is on disk before it is answered.

pub mod call;
mod replay;
mod view;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use projections::break_glass::{BreakGlassGrant, GrantState};
use projections::event::{BreakGlassAsked, ReviewFinding, WayOfReading};
use projections::id::{BreakGlassGrantId, OrganizationId};
use projections::organization::Organization;
use projections::permission::Scopes;
use projections::text::{CorrelationId, Description, Name};
use projections::verification::Code;
use tonic::{Request, Response, Status};

use super::authentication::{
    Authenticated, authenticate, authenticate_caller, correlation_id, master_key, origin,
};
use super::key::{Context, known};
use super::reading::Reading;
use super::telling::Story;
use super::{Door, page, read, status, write};
use crate::ledger::break_glass::{
    GivenReason, OpenGrantError, Opening, ShownCustodian, by_person, grant_changed,
};
use crate::ledger::command::{BreakGlassCommand, ByPerson, Command, Personal};
use crate::ledger::permissions::BREAK_GLASS_READ;
use crate::ledger::tables::Published;
use crate::ledger::verify::Reach;
use crate::ledger::{Executed, Ledger};
use crate::proto;
use crate::proto::break_glass_service_server::BreakGlassService;
use replay::Replay;
pub(super) use view::grant;
use watch::Watch;

/// The methods whose callers may show a custodian's master key, which opens nothing by that.
pub const BY_CUSTODIANS: &[&str] = &[
    "/keyledger.v1.BreakGlassService/OpenGrant",
    "/keyledger.v1.BreakGlassService/ApproveGrant",
    "/keyledger.v1.BreakGlassService/CloseGrant",
    "/keyledger.v1.BreakGlassService/ReviewGrant",
];

/// The service.
pub struct BreakGlass {
    door: Door,
}

impl BreakGlass {
    /// The service behind this door.
    #[must_use]
    pub fn new(door: Door) -> Self {
        Self { door }
    }
}

type Changed = (proto::BreakGlassGrant, Option<proto::StreamRevision>);

#[tonic::async_trait]
impl BreakGlassService for BreakGlass {
    type ReplayGrantStream = Replay;
    type WatchBreakGlassStream = Watch;

    async fn open_grant(
        &self,
        request: Request<proto::OpenGrantRequest>,
    ) -> Result<Response<proto::OpenGrantResponse>, Status> {
        let entered = self.door.enter()?;
        let ledger = entered.ledger();
        let custodian = custodian(ledger, &request)?.ok_or_else(status::master_key_required)?;
        let method = "BreakGlassService/OpenGrant";
        let around = around(ledger, &request);
        let context = Context::of(ledger, &Authenticated::custodian(&custodian), &request);
        let message = request.into_inner();
        let named = message.organization_id.clone();
        let opened = match context {
            Ok(context) => open(ledger, &custodian, context, message).await,
            Err(status) => Err(status),
        };
        let refused = Refused { custodian: Some(&custodian), named: &named, grant_id: "", method };
        refused.told(ledger, around, opened).await.map(Response::new)
    }

    async fn approve_grant(
        &self,
        request: Request<proto::ApproveGrantRequest>,
    ) -> Result<Response<proto::ApproveGrantResponse>, Status> {
        let entered = self.door.enter()?;
        let method = "BreakGlassService/ApproveGrant";
        let (named, id, comment) = {
            let message = request.get_ref();
            (&message.organization_id, &message.grant_id, &message.comment)
        };
        let (named, id, comment) = (named.clone(), id.clone(), comment.clone());
        let ask = Ask { named: &named, grant_id: &id, comment: &comment, method };
        let command = |by| Ok(BreakGlassCommand::Approve(by));
        let (grant, revision) = ask.change(entered.ledger(), &request, command).await?;
        Ok(Response::new(proto::ApproveGrantResponse { grant: Some(grant), revision }))
    }

    async fn close_grant(
        &self,
        request: Request<proto::CloseGrantRequest>,
    ) -> Result<Response<proto::CloseGrantResponse>, Status> {
        let entered = self.door.enter()?;
        let method = "BreakGlassService/CloseGrant";
        let message = request.get_ref().clone();
        let (named, grant_id) = (&message.organization_id, &message.grant_id);
        let ask = Ask { named, grant_id, comment: &message.comment, method };
        let command = |by| Ok(BreakGlassCommand::Close(by));
        let (grant, revision) = ask.change(entered.ledger(), &request, command).await?;
        Ok(Response::new(proto::CloseGrantResponse { grant: Some(grant), revision }))
    }

    async fn review_grant(
        &self,
        request: Request<proto::ReviewGrantRequest>,
    ) -> Result<Response<proto::ReviewGrantResponse>, Status> {
        let entered = self.door.enter()?;
        let method = "BreakGlassService/ReviewGrant";
        let message = request.get_ref().clone();
        let (named, grant_id) = (&message.organization_id, &message.grant_id);
        let ask = Ask { named, grant_id, comment: &message.comment, method };
        let command = |by| Ok(BreakGlassCommand::Review(by, finding(message.finding)?));
        let (grant, revision) = ask.change(entered.ledger(), &request, command).await?;
        Ok(Response::new(proto::ReviewGrantResponse { grant: Some(grant), revision }))
    }

    async fn list_break_glass_grants(
        &self,
        request: Request<proto::ListBreakGlassGrantsRequest>,
    ) -> Result<Response<proto::ListBreakGlassGrantsResponse>, Status> {
        let entered = self.door.enter()?;
        let ledger = entered.ledger();
        let caller = authenticate(ledger, &request, BREAK_GLASS_READ)?;
        list(ledger, &caller, request.get_ref()).map(Response::new)
    }

    async fn replay_grant(
        &self,
        request: Request<proto::ReplayGrantRequest>,
    ) -> Result<Response<Replay>, Status> {
        let entered = self.door.enter()?;
        let ledger = Arc::clone(entered.ledger());
        let caller = authenticate(&ledger, &request, BREAK_GLASS_READ)?;
        let message = request.get_ref();
        let organization = known(&ledger, caller.target(&ledger, &message.organization_id)?)?;
        let id: BreakGlassGrantId = read::field("grant_id", &message.grant_id)?;
        if organization.tables().break_glass_grant(id).is_none() {
            return Err(status::break_glass_grant_not_found(id));
        }
        let asked = replay::Asked::of(id, message);
        let shown = super::authentication::shown(&ledger, &request)?;
        let stay = self.door.stay(entered, caller.organization_id)?;
        let (door, permission) = (self.door.clone(), BREAK_GLASS_READ);
        let story = Story { door, ledger, organization, shown, permission };
        let reading = Reading::new(WayOfReading::Replayed).asking("grant_id", id);
        reading.record(&story.ledger, &request, &caller, &story.organization).await?;
        Ok(Response::new(replay::start(story, caller, asked, stay)))
    }

    async fn watch_break_glass(
        &self,
        request: Request<proto::WatchBreakGlassRequest>,
    ) -> Result<Response<Watch>, Status> {
        let entered = self.door.enter()?;
        let ledger = Arc::clone(entered.ledger());
        let caller = authenticate(&ledger, &request, BREAK_GLASS_READ)?;
        let named = &request.get_ref().organization_id;
        let of = match (caller.reach(), named.as_str()) {
            (Reach::Installation, "") if caller.tenant.is_none() => None,
            _ => Some(known(&ledger, caller.target(&ledger, named)?)?.id),
        };
        let shown = super::authentication::shown(&ledger, &request)?;
        let stay = self.door.stay(entered, caller.organization_id)?;
        Ok(Response::new(watch::start(self.door.clone(), ledger, of, shown, stay)))
    }
}

/// The custodian whose master key is shown; none where none is.
fn custodian<T>(ledger: &Ledger, request: &Request<T>) -> Result<Option<ShownCustodian>, Status> {
    let Some(text) = master_key(request)? else { return Ok(None) };
    if ledger.break_glass_rules().is_none() {
        ledger.note_unknown_emergency(Code::BreakGlassDisabled);
        return Err(status::unauthenticated(Code::BreakGlassDisabled));
    }
    match ledger.custodian(text) {
        Some(custodian) => Ok(Some(custodian)),
        None => {
            ledger.note_unknown_emergency(Code::Unknown);
            Err(status::not_a_custodian())
        }
    }
}

/// What ties a refusal to all else, and where it comes from.
fn around<T>(ledger: &Ledger, request: &Request<T>) -> (CorrelationId, Personal) {
    let id = correlation_id(ledger, request);
    (id.unwrap_or_else(|_| ledger.new_correlation_id()), origin(request))
}

/// What a custodian asked for, as far as they said.
struct Refused<'a> {
    custodian: Option<&'a ShownCustodian>,
    named: &'a str,
    grant_id: &'a str,
    method: &'static str,
}

impl Refused<'_> {
    /// Records that a custodian was refused, before they are told.
    async fn told<T>(
        &self,
        ledger: &Arc<Ledger>,
        around: (CorrelationId, Personal),
        answer: Result<T, Status>,
    ) -> Result<T, Status> {
        let (Some(custodian), Err(status)) = (self.custodian, &answer) else { return answer };
        let Some(code) = status::denial(status) else { return answer };
        let id: Option<OrganizationId> = self.named.parse().ok();
        let id = id.filter(|id| known(ledger, *id).is_ok());
        let which = (id, self.grant_id.parse().ok());
        let method = self.method.parse().ok();
        let asked = BreakGlassAsked { method, ..BreakGlassAsked::default() };
        let recorded = ledger.refuse_shown(which, custodian, (code, asked), around).await;
        recorded.map_err(status::from)?;
        answer
    }
}

async fn open(
    ledger: &Arc<Ledger>,
    custodian: &ShownCustodian,
    context: Context,
    message: proto::OpenGrantRequest,
) -> Result<proto::OpenGrantResponse, Status> {
    let organization_id: OrganizationId = read::field("organization_id", &message.organization_id)?;
    let reason = reason(&message.reason)?;
    let permissions = match message.permissions.as_slice() {
        [] => None,
        texts => Some(Scopes::new(texts).map_err(|error| status::invalid("permissions", error))?),
    };
    let duration_seconds = message.duration.as_ref().map(duration).transpose()?;
    let incident: Option<Name> = read::optional("incident", &message.incident)?;
    let organization = known(ledger, organization_id)?;
    let opening = Opening { organization_id, reason, permissions, duration_seconds, incident };
    let opened =
        ledger.open_grant(custodian, opening, |command| context.plain_order(command)).await;
    let (executed, token) = opened.map_err(|error| match error {
        OpenGrantError::NoEntropy(error) => status::no_entropy(&error),
        OpenGrantError::Ledger(error) => status::from(error),
    })?;
    let (grant, revision) = changed(ledger, &organization, &executed)?;
    let token = token.expose().to_owned();
    Ok(proto::OpenGrantResponse { grant: Some(grant), token, revision })
}

fn reason(text: &str) -> Result<Description, Status> {
    match GivenReason::of(Some(text)) {
        GivenReason::Given(reason) => Ok(reason),
        GivenReason::None | GivenReason::Unusable => {
            Err(status::invalid("reason", "must be 1 to 500 characters in one line"))
        }
    }
}

fn duration(duration: &prost_types::Duration) -> Result<u32, Status> {
    let wrong = || status::invalid("duration", "must be whole seconds, at least one");
    if duration.nanos != 0 {
        return Err(wrong());
    }
    u32::try_from(duration.seconds).ok().filter(|seconds| *seconds > 0).ok_or_else(wrong)
}

fn finding(value: i32) -> Result<ReviewFinding, Status> {
    match proto::ReviewFinding::try_from(value) {
        Ok(proto::ReviewFinding::Justified) => Ok(ReviewFinding::Justified),
        Ok(proto::ReviewFinding::Unjustified) => Ok(ReviewFinding::Unjustified),
        Ok(proto::ReviewFinding::Unspecified) => {
            Err(status::invalid("finding", "must say what came of the review"))
        }
        Err(_) => Err(status::invalid("finding", "is no known finding")),
    }
}

/// What a person asks of a grant.
struct Ask<'a> {
    named: &'a str,
    grant_id: &'a str,
    comment: &'a str,
    method: &'static str,
}

impl Ask<'_> {
    async fn change<T>(
        &self,
        ledger: &Arc<Ledger>,
        request: &Request<T>,
        command: impl FnOnce(ByPerson) -> Result<BreakGlassCommand, Status>,
    ) -> Result<Changed, Status> {
        let custodian = custodian(ledger, request)?;
        let caller = match &custodian {
            Some(custodian) => Authenticated::custodian(custodian),
            // What they hold is the rules' to ask.
            None => authenticate_caller(ledger, request)?,
        };
        let answer = async {
            let mut context = Context::of(ledger, &caller, request)?;
            context.comment(self.comment)?;
            let organization = known(ledger, caller.target(ledger, self.named)?)?;
            let id: BreakGlassGrantId = read::field("grant_id", self.grant_id)?;
            let command = command(by_person(id, custodian.as_ref()))?;
            let order = context.plain_order(Command::BreakGlass(Box::new(command)));
            let executed = ledger.execute(organization.id, &order).await.map_err(status::from)?;
            // The event that it was asked for may stand behind the record of an end.
            let executed =
                Executed { outcome: projections::organization::Change::BreakGlass(id), ..executed };
            changed(ledger, &organization, &executed)
        };
        let answer = answer.await;
        let Ask { named, grant_id, method, .. } = *self;
        let refused = Refused { custodian: custodian.as_ref(), named, grant_id, method };
        refused.told(ledger, around(ledger, request), answer).await
    }
}

/// The grant that a command made or changed, as it is now.
fn changed(
    ledger: &Ledger,
    organization: &Published,
    executed: &Executed,
) -> Result<Changed, Status> {
    let tables = organization.tables();
    let grant = grant_changed(executed).and_then(|id| tables.break_glass_grant(id));
    let grant = grant.ok_or_else(|| status::outcome_missing(executed.outcome))?;
    let grant = view::grant(grant, organization.id, ledger.now_for(&tables));
    Ok((grant, write::revision(&organization.stream, executed.revision)))
}

fn state(value: i32) -> Result<Option<GrantState>, Status> {
    use proto::BreakGlassGrantState as Wire;
    match Wire::try_from(value) {
        Ok(Wire::Unspecified) => Ok(None),
        Ok(Wire::AwaitingApproval) => Ok(Some(GrantState::AwaitingApproval)),
        Ok(Wire::Open) => Ok(Some(GrantState::Open)),
        Ok(Wire::Ended) => Ok(Some(GrantState::Ended)),
        Ok(Wire::Reviewed) => Ok(Some(GrantState::Reviewed)),
        Err(_) => Err(status::invalid("state", "is no known state")),
    }
}

fn list(
    ledger: &Ledger,
    caller: &Authenticated,
    message: &proto::ListBreakGlassGrantsRequest,
) -> Result<proto::ListBreakGlassGrantsResponse, Status> {
    let named = message.organization_id.as_str();
    let all = caller.reach() == Reach::Installation && named.is_empty() && caller.tenant.is_none();
    let organizations: Vec<Arc<Organization>> = if all {
        let all = ledger.tables().all();
        all.iter().filter(|it| it.stopped().is_none()).map(|it| Arc::clone(&it.tables())).collect()
    } else {
        vec![Arc::clone(&known(ledger, caller.target(ledger, named)?)?.tables())]
    };
    let state = state(message.state)?;
    let rows_max = page::size(message.page_size)?;
    let whose = if all {
        String::new()
    } else {
        organizations.first().map(|it| it.id.text()).unwrap_or_default()
    };
    let parameters = [whose.as_str(), &message.state.to_string()];
    let list = page::List::new(ledger.stamper(), "ListBreakGlassGrants", &parameters);
    let before = list.continue_behind(&message.page_token)?.map(BreakGlassGrantId::from_bytes);
    let mut rows: Vec<(&Arc<BreakGlassGrant>, &Organization)> = Vec::new();
    for tables in &organizations {
        let now = ledger.now_for(tables);
        let wanted = |grant: &&Arc<BreakGlassGrant>| {
            state.is_none_or(|state| grant.state(now) == state)
                && before.is_none_or(|before| grant.id < before)
        };
        let newest = tables.break_glass_grants_after(None).rev().filter(wanted);
        rows.extend(newest.take(rows_max + 1).map(|grant| (grant, &**tables)));
    }
    rows.sort_by_key(|(grant, _)| std::cmp::Reverse(grant.id));
    let goes_on = rows.len() > rows_max;
    rows.truncate(rows_max);
    let last = rows.last().map(|(grant, _)| grant.id);
    let written = rows
        .into_iter()
        .map(|(grant, tables)| view::grant(grant, tables.id, ledger.now_for(tables)));
    Ok(proto::ListBreakGlassGrantsResponse {
        grants: written.collect(),
        next_page_token: last
            .filter(|_| goes_on)
            .map(|last| list.token(last.to_bytes()))
            .unwrap_or_default(),
    })
}

/// How often a stream looks whether its caller may still be answered.
const LOOK_EVERY: Duration = Duration::from_secs(1);
