//! KeyService: the life of API keys.

mod draft;
mod import;
mod list;
mod repeatable;
mod revoke_many;

use std::sync::Arc;

use projections::envelope::Envelope;
use projections::id::{KeyId, OrganizationId};
use projections::key::Key;
use projections::organization::{Change, Organization};
use projections::permission::Permission;
use projections::recorded::Revision;
use projections::text::Description;
use tonic::{Request, Response, Status};

pub(super) use list::{KEYS_PER_TURN, Rows};
use repeatable::Repeatable;

use super::authentication::{
    Authenticated, authenticate, authenticate_for_oneself, correlation_id, origin,
};
use super::warnings::{self, Measure};
use super::{Door, read, status, write};
use crate::ledger::command::{About, Command, Order, Personal, RevokeKey, UpdateKeyLabel};
use crate::ledger::dead::KeyRow;
use crate::ledger::permissions::{API_KEYS_READ, API_KEYS_WRITE};
use crate::ledger::tables::Published;
use crate::ledger::vault::seal::{OpenError, open};
use crate::ledger::{Executed, Ledger};
use crate::proto;
use crate::proto::key_service_server::KeyService;
use crate::proto::revoke_keys_request::Which;

/// The service.
pub struct Keys {
    door: Door,
}

impl Keys {
    /// The service behind this door.
    #[must_use]
    pub fn new(door: Door) -> Self {
        Self { door }
    }
}

#[tonic::async_trait]
impl KeyService for Keys {
    async fn create_key(
        &self,
        request: Request<proto::CreateKeyRequest>,
    ) -> Result<Response<proto::CreateKeyResponse>, Status> {
        let entered = self.door.enter()?;
        let ledger = entered.ledger();
        let named = &request.get_ref().organization_id;
        let (organization, context) = begin_for_oneself(ledger, &request, named)?;
        let message = request.into_inner();
        let (command, minted) = draft::create_key(ledger, &organization, &message)?;
        let order = context.order_in(
            ledger,
            organization.id,
            Command::CreateKey(Box::new(command)),
            &message,
        )?;
        let executed = ledger.execute(organization.id, &order).await.map_err(status::from)?;
        let key = outcome(ledger, &organization, executed).await?;
        let secret =
            if executed.repeat { String::new() } else { minted.secret.expose().to_owned() };
        Ok(Response::new(proto::CreateKeyResponse {
            key: Some(key),
            secret,
            secret_already_issued: executed.repeat,
            revision: write::revision(&organization.stream, executed.revision),
        }))
    }

    async fn get_key(
        &self,
        request: Request<proto::GetKeyRequest>,
    ) -> Result<Response<proto::GetKeyResponse>, Status> {
        let entered = self.door.enter()?;
        let ledger = entered.ledger();
        let caller = authenticate(ledger, &request, API_KEYS_READ)?;
        let message = request.into_inner();
        let organization = known(ledger, caller.target(ledger, &message.organization_id)?)?;
        let id: KeyId = read::field("key_id", &message.key_id)?;
        let tables = Arc::clone(&organization.tables());
        let row = row(ledger, &organization, &tables, id).await?;
        let mut key = write_key(ledger, &row, &tables);
        add_comments(ledger, &organization, &row.key, &mut key).await?;
        let revision = write::revision(&organization.stream, tables.revision());
        Ok(Response::new(proto::GetKeyResponse { key: Some(key), revision }))
    }

    async fn list_keys(
        &self,
        request: Request<proto::ListKeysRequest>,
    ) -> Result<Response<proto::ListKeysResponse>, Status> {
        let entered = self.door.enter()?;
        let ledger = entered.ledger();
        let caller = authenticate(ledger, &request, API_KEYS_READ)?;
        let message = request.into_inner();
        let organization = known(ledger, caller.target(ledger, &message.organization_id)?)?;
        list::list_keys(ledger, &organization, &message).await.map(Response::new)
    }

    async fn update_key_label(
        &self,
        request: Request<proto::UpdateKeyLabelRequest>,
    ) -> Result<Response<proto::UpdateKeyLabelResponse>, Status> {
        let entered = self.door.enter()?;
        let ledger = entered.ledger();
        let named = &request.get_ref().organization_id;
        let (organization, context) = begin(ledger, &request, named, API_KEYS_WRITE)?;
        let message = request.into_inner();
        let description = message.description.as_deref();
        let command = UpdateKeyLabel {
            key_id: read::field("key_id", &message.key_id)?,
            name: read::optional("name", &message.name)?,
            description: description.map(|it| read::optional("description", it)).transpose()?,
        };
        let order = context.order_in(
            ledger,
            organization.id,
            Command::UpdateKeyLabel(command),
            &message,
        )?;
        let (key, revision) = change(ledger, &organization, &order).await?;
        Ok(Response::new(proto::UpdateKeyLabelResponse { key: Some(key), revision }))
    }

    async fn rotate_key(
        &self,
        request: Request<proto::RotateKeyRequest>,
    ) -> Result<Response<proto::RotateKeyResponse>, Status> {
        let entered = self.door.enter()?;
        let ledger = entered.ledger();
        let named = &request.get_ref().organization_id;
        let (organization, context) = begin_for_oneself(ledger, &request, named)?;
        let message = request.into_inner();
        let (command, minted) = draft::rotate_key(ledger, &organization, &message)?;
        let predecessor_id = command.key_id;
        let order = context.order_in(
            ledger,
            organization.id,
            Command::RotateKey(Box::new(command)),
            &message,
        )?;
        let executed = ledger.execute(organization.id, &order).await.map_err(status::from)?;
        let key = outcome(ledger, &organization, executed).await?;
        let tables = Arc::clone(&organization.tables());
        let secret =
            if executed.repeat { String::new() } else { minted.secret.expose().to_owned() };
        // A repeat remembers the first event of the two.
        let predecessor = row(ledger, &organization, &tables, predecessor_id).await?;
        let rotation = predecessor.key.rotation().copied();
        let recorded = rotation.map(|it| it.act.revision).or(executed.revision);
        Ok(Response::new(proto::RotateKeyResponse {
            key: Some(key),
            secret,
            secret_already_issued: executed.repeat,
            predecessor: Some(write_key(ledger, &predecessor, &tables)),
            revision: write::revision(&organization.stream, recorded),
        }))
    }

    async fn end_rotation(
        &self,
        request: Request<proto::EndRotationRequest>,
    ) -> Result<Response<proto::EndRotationResponse>, Status> {
        let entered = self.door.enter()?;
        let ledger = entered.ledger();
        let named = &request.get_ref().organization_id;
        let (organization, context) = begin_for_oneself(ledger, &request, named)?;
        let message = request.into_inner();
        let command = Command::EndRotation(read::field("key_id", &message.key_id)?);
        let order = context.order_in(ledger, organization.id, command, &message)?;
        let (key, revision) = change(ledger, &organization, &order).await?;
        Ok(Response::new(proto::EndRotationResponse { key: Some(key), revision }))
    }

    async fn disable_key(
        &self,
        request: Request<proto::DisableKeyRequest>,
    ) -> Result<Response<proto::DisableKeyResponse>, Status> {
        let entered = self.door.enter()?;
        let ledger = entered.ledger();
        let named = &request.get_ref().organization_id;
        let (organization, mut context) = begin_for_oneself(ledger, &request, named)?;
        let message = request.into_inner();
        context.comment(&message.comment)?;
        let key_id = read::field("key_id", &message.key_id)?;
        let command = Command::DisableKey(key_id);
        let order = context.order_in(ledger, organization.id, command, &message)?;
        let (mut key, revision) = change(ledger, &organization, &order).await?;
        add_own_comment(ledger, &organization, key_id, &message.comment, &mut key).await;
        Ok(Response::new(proto::DisableKeyResponse { key: Some(key), revision }))
    }

    async fn enable_key(
        &self,
        request: Request<proto::EnableKeyRequest>,
    ) -> Result<Response<proto::EnableKeyResponse>, Status> {
        let entered = self.door.enter()?;
        let ledger = entered.ledger();
        let named = &request.get_ref().organization_id;
        let (organization, mut context) = begin_for_oneself(ledger, &request, named)?;
        let message = request.into_inner();
        context.comment(&message.comment)?;
        let command = Command::EnableKey(read::field("key_id", &message.key_id)?);
        let order = context.order_in(ledger, organization.id, command, &message)?;
        let (key, revision) = change(ledger, &organization, &order).await?;
        Ok(Response::new(proto::EnableKeyResponse { key: Some(key), revision }))
    }

    async fn import_keys(
        &self,
        request: Request<proto::ImportKeysRequest>,
    ) -> Result<Response<proto::ImportKeysResponse>, Status> {
        let entered = self.door.enter()?;
        let ledger = entered.ledger();
        let named = &request.get_ref().organization_id;
        let (organization, context) = begin(ledger, &request, named, API_KEYS_WRITE)?;
        import::import_keys(ledger, &organization, context, request.into_inner())
            .await
            .map(Response::new)
    }

    async fn revoke_key(
        &self,
        request: Request<proto::RevokeKeyRequest>,
    ) -> Result<Response<proto::RevokeKeyResponse>, Status> {
        let entered = self.door.enter()?;
        let ledger = entered.ledger();
        let named = &request.get_ref().organization_id;
        let (organization, mut context) = begin_for_oneself(ledger, &request, named)?;
        let message = request.into_inner();
        let key_id = read::field("key_id", &message.key_id)?;
        let command = RevokeKey { key_id, reason: read::revocation_reason(message.reason)? };
        context.comment(&message.comment)?;
        let order =
            context.order_in(ledger, organization.id, Command::RevokeKey(command), &message)?;
        let (mut key, revision) = change(ledger, &organization, &order).await?;
        add_own_comment(ledger, &organization, key_id, &message.comment, &mut key).await;
        Ok(Response::new(proto::RevokeKeyResponse { key: Some(key), revision }))
    }

    async fn revoke_keys(
        &self,
        request: Request<proto::RevokeKeysRequest>,
    ) -> Result<Response<proto::RevokeKeysResponse>, Status> {
        let entered = self.door.enter()?;
        let ledger = entered.ledger();
        let caller = match &request.get_ref().which {
            Some(Which::UserId(_)) => authenticate_for_oneself(ledger, &request, API_KEYS_WRITE)?,
            // Whether a key is known is for those to know who may revoke any.
            _ => authenticate(ledger, &request, API_KEYS_WRITE)?,
        };
        let mut context = Context::of(ledger, &caller, &request)?;
        let message = request.into_inner();
        context.comment(&message.comment)?;
        revoke_many::revoke_keys(ledger, &caller, context, message).await.map(Response::new)
    }
}

/// How every change begins: who calls, on which organization, and all around it.
pub(super) fn begin<T>(
    ledger: &Ledger,
    request: &Request<T>,
    organization_id: &str,
    permission: Permission<'static>,
) -> Result<(Arc<Published>, Context), Status> {
    let caller = authenticate(ledger, request, permission)?;
    let organization = known(ledger, caller.target(ledger, organization_id)?)?;
    Ok((organization, Context::of(ledger, &caller, request)?))
}

/// As [`begin`], for a change of keys that may be a user's own.
fn begin_for_oneself<T>(
    ledger: &Ledger,
    request: &Request<T>,
    organization_id: &str,
) -> Result<(Arc<Published>, Context), Status> {
    let caller = authenticate_for_oneself(ledger, request, API_KEYS_WRITE)?;
    let organization = known(ledger, caller.target(ledger, organization_id)?)?;
    Ok((organization, Context::of(ledger, &caller, request)?))
}

/// Carries out a change of one key; gives the key as it is then, and where that was
/// recorded.
async fn change(
    ledger: &Arc<Ledger>,
    organization: &Published,
    order: &Order,
) -> Result<(proto::Key, Option<proto::StreamRevision>), Status> {
    let executed = ledger.execute(organization.id, order).await.map_err(status::from)?;
    let mut key = outcome(ledger, organization, executed).await?;
    key.warnings.extend(left_behind(ledger, organization.id));
    Ok((key, write::revision(&organization.stream, executed.revision)))
}

/// What a change of keys of this organization left behind that looks like a mistake.
fn left_behind(ledger: &Ledger, id: OrganizationId) -> Option<proto::KeyWarning> {
    let operator = ledger.tables().operator();
    (id == operator.id)
        .then(|| warnings::no_operator_key(&operator.tables(), ledger.clock().now()))
        .flatten()
}

/// What surrounds a command, taken from its call.
pub(super) struct Context {
    caller: Authenticated,
    correlation_id: projections::text::CorrelationId,
    pub(super) personal: Personal,
    /// What is said of whomever the command is about.
    pub(super) about: Option<About>,
}

impl Context {
    pub(super) fn of<T>(
        ledger: &Ledger,
        caller: &Authenticated,
        request: &Request<T>,
    ) -> Result<Self, Status> {
        let correlation_id = correlation_id(ledger, request)?;
        Ok(Self { caller: *caller, correlation_id, personal: origin(request), about: None })
    }

    /// What the caller wrote, in their own words.
    pub(super) fn comment(&mut self, text: &str) -> Result<(), Status> {
        if let Some(comment) = read::optional::<Description>("comment", text)? {
            self.personal.0.insert(Personal::COMMENT.to_owned(), comment.to_string());
        }
        Ok(())
    }

    /// The order to carry out a command that is not made to be repeated.
    pub(super) fn plain_order(&self, command: Command) -> Order {
        Order {
            caller: self.caller.caller,
            command,
            expected: None,
            request: None,
            correlation_id: self.correlation_id.clone(),
            causation_id: None,
            personal: self.personal.clone(),
            about: None,
        }
    }

    /// The order to carry out what a request asks for in an organization.
    pub(super) fn order_in<M: Repeatable>(
        self,
        ledger: &Ledger,
        organization_id: OrganizationId,
        command: Command,
        message: &M,
    ) -> Result<Order, Status> {
        let sameness = message.sameness(organization_id);
        let repeat = (M::METHOD, message.idempotency_key(), &sameness);
        self.order(ledger, command, repeat, message.expected_revision())
    }

    /// The order to carry out a command; `repeat` names the method, the idempotency key
    /// and all else that must be the same in a repeat.
    pub(super) fn order<M: prost::Message>(
        self,
        ledger: &Ledger,
        command: Command,
        repeat: (&str, &str, &M),
        expected: Option<u64>,
    ) -> Result<Order, Status> {
        let (method, idempotency_key, sameness) = repeat;
        let caller = self.caller.caller;
        let request =
            read::request_stamp(ledger.stamper(), caller, method, idempotency_key, sameness)?;
        Ok(Order {
            caller,
            command,
            expected: read::expected(expected),
            request,
            correlation_id: self.correlation_id,
            causation_id: None,
            personal: self.personal,
            about: self.about,
        })
    }
}

/// An organization that exists and can answer.
pub(super) fn known(ledger: &Ledger, id: OrganizationId) -> Result<Arc<Published>, Status> {
    let missing = || status::organization_not_found(id);
    let organization = ledger.tables().organization(id).ok_or_else(missing)?;
    if organization.stopped().is_some() {
        return Err(status::stopped(id));
    }
    if organization.tables().profile().is_none() {
        return Err(missing());
    }
    Ok(organization)
}

/// The key that a command made or changed, as it is now.
async fn outcome(
    ledger: &Ledger,
    organization: &Published,
    executed: Executed,
) -> Result<proto::Key, Status> {
    let Change::Key(id) = executed.outcome else {
        return Err(status::outcome_missing(executed.outcome));
    };
    let tables = Arc::clone(&organization.tables());
    let row = row(ledger, organization, &tables, id).await?;
    Ok(write_key(ledger, &row, &tables))
}

/// The row of a key, in the tables or among those that left them long after their end.
async fn row(
    ledger: &Ledger,
    organization: &Published,
    tables: &Organization,
    id: KeyId,
) -> Result<KeyRow, Status> {
    if let Some(key) = tables.key(id) {
        return Ok(ledger.row(Arc::clone(key)));
    }
    let dead = ledger.dead_key(organization, id).await;
    dead.map_err(|error| status::from_dead_keys(&error))?.ok_or_else(|| status::key_not_found(id))
}

fn write_key(ledger: &Ledger, row: &KeyRow, tables: &Organization) -> proto::Key {
    let operator = ledger.tables().operator().tables();
    write_row(row, &mut Measure::new(tables, &operator, ledger.now_for(tables)))
}

/// As [`write_key`], for one of many.
pub(super) fn write_row(row: &KeyRow, measure: &mut Measure<'_>) -> proto::Key {
    let last_used_at = row.last_used.map(write::timestamp);
    proto::Key { last_used_at, ..write::key(&row.key, measure) }
}

/// Adds what was just written with a change, as it is stored: a vault that was full kept it
/// out. A fault was logged, and the change was made all the same.
async fn add_own_comment(
    ledger: &Ledger,
    organization: &Published,
    key_id: KeyId,
    written: &str,
    key: &mut proto::Key,
) {
    let tables = Arc::clone(&organization.tables());
    if let (Some(row), false) = (tables.key(key_id), written.is_empty()) {
        let _ = add_comments(ledger, organization, row, key).await;
    }
}

/// Adds what those wrote who disabled or revoked a key.
async fn add_comments(
    ledger: &Ledger,
    organization: &Published,
    row: &Key,
    key: &mut proto::Key,
) -> Result<(), Status> {
    if let (Some(message), Some(act)) = (&mut key.revocation, row.revocation().map(|it| it.act)) {
        (message.comment, message.comment_erased) =
            comment(ledger, organization, act.revision).await?;
    }
    if let (Some(message), Some(act)) = (&mut key.disabled, row.disabled()) {
        (message.comment, message.comment_erased) =
            comment(ledger, organization, act.revision).await?;
    }
    Ok(())
}

/// What was written with an event, read from the event itself and opened; and whether that
/// was erased since.
pub(super) async fn comment(
    ledger: &Ledger,
    organization: &Published,
    revision: Revision,
) -> Result<(String, bool), Status> {
    let recorded =
        ledger.event(organization, revision).await.map_err(|error| status::from_read(&error))?;
    let envelope = recorded.and_then(|recorded| Envelope::decode(&recorded.stored).ok());
    let Some((event_id, sealed)) =
        envelope.as_ref().and_then(|envelope| envelope.sealed.first().map(|it| (envelope.id, it)))
    else {
        return Ok(Default::default());
    };
    let key =
        ledger.subject_key(&sealed.subject).await.map_err(|error| status::from_vault(&error))?;
    match open(&key, event_id, sealed) {
        Ok(opened) => Ok((opened.get(Personal::COMMENT).cloned().unwrap_or_default(), false)),
        Err(OpenError::Erased) => Ok((String::new(), true)),
        Err(error @ OpenError::Damaged) => Err(status::unsealable(error)),
    }
}
