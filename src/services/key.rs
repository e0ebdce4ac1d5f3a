//! KeyService: the life of API keys.

use std::sync::Arc;

use projections::api_key::Environment;
use projections::envelope::Envelope;
use projections::event::KeyOrigin;
use projections::id::{KeyId, OrganizationId, RoleId};
use projections::key::{Key, KeyState};
use projections::organization::{Change, Organization};
use projections::text::{Description, Name};
use projections::time::Timestamp;
use prost::Message as _;
use tonic::{Request, Response, Status};

use super::authentication::{Authenticated, authenticate, correlation_id, origin};
use super::{Door, page, read, status, write};
use crate::ledger::command::{Command, CreateKey, Order, Personal, RevokeKey};
use crate::ledger::mint::{Minted, mint};
use crate::ledger::tables::Published;
use crate::ledger::vault::seal::{OpenError, open};
use crate::ledger::{Executed, Ledger, permissions};
use crate::proto;
use crate::proto::key_service_server::KeyService;

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
        let (organization, context) = begin(ledger, &request, &request.get_ref().organization_id)?;
        let message = request.into_inner();
        let (command, minted) = create_key(ledger, &organization, &message)?;
        let sameness = proto::CreateKeyRequest {
            organization_id: organization.id.text(),
            idempotency_key: String::new(),
            expected_revision: None,
            ..message.clone()
        };
        let order = context.order(
            ledger,
            Command::CreateKey(Box::new(command)),
            ("CreateKey", &message.idempotency_key, &sameness),
            message.expected_revision,
        )?;
        let executed = ledger.execute(organization.id, &order).await.map_err(status::from)?;
        let key = outcome(ledger, &organization, executed)?;
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
        let caller = authenticate(ledger, &request, permissions::API_KEYS_READ)?;
        let message = request.into_inner();
        let organization = known(ledger, caller.target(&message.organization_id)?)?;
        let id: KeyId = read::field("key_id", &message.key_id)?;
        let tables = Arc::clone(&organization.tables());
        let row = tables.key(id).ok_or_else(|| status::key_not_found(id))?;
        let mut key = write_key(ledger, row, &tables);
        if let Some(revocation) = &mut key.revocation {
            add_comment(ledger, &organization, row, revocation).await?;
        }
        let revision = write::revision(&organization.stream, tables.revision());
        Ok(Response::new(proto::GetKeyResponse { key: Some(key), revision }))
    }

    async fn list_keys(
        &self,
        request: Request<proto::ListKeysRequest>,
    ) -> Result<Response<proto::ListKeysResponse>, Status> {
        let entered = self.door.enter()?;
        let ledger = entered.ledger();
        let caller = authenticate(ledger, &request, permissions::API_KEYS_READ)?;
        let message = request.into_inner();
        let organization = known(ledger, caller.target(&message.organization_id)?)?;
        list_keys(ledger, &organization, &message).map(Response::new)
    }

    async fn revoke_key(
        &self,
        request: Request<proto::RevokeKeyRequest>,
    ) -> Result<Response<proto::RevokeKeyResponse>, Status> {
        let entered = self.door.enter()?;
        let ledger = entered.ledger();
        let (organization, mut context) =
            begin(ledger, &request, &request.get_ref().organization_id)?;
        let message = request.into_inner();
        let command = RevokeKey {
            key_id: read::field("key_id", &message.key_id)?,
            reason: read::revocation_reason(message.reason)?,
        };
        if let Some(comment) = read::optional::<Description>("comment", &message.comment)? {
            context.personal.0.insert(Personal::COMMENT.to_owned(), comment.to_string());
        }
        let sameness = proto::RevokeKeyRequest {
            organization_id: organization.id.text(),
            idempotency_key: String::new(),
            expected_revision: None,
            ..message.clone()
        };
        let order = context.order(
            ledger,
            Command::RevokeKey(command),
            ("RevokeKey", &message.idempotency_key, &sameness),
            message.expected_revision,
        )?;
        let executed = ledger.execute(organization.id, &order).await.map_err(status::from)?;
        let mut key = outcome(ledger, &organization, executed)?;
        if let Some(revocation) = &mut key.revocation {
            revocation.comment = message.comment;
        }
        let revision = write::revision(&organization.stream, executed.revision);
        Ok(Response::new(proto::RevokeKeyResponse { key: Some(key), revision }))
    }
}

/// How every change of keys begins: who calls, on which organization, and all around it.
fn begin<T>(
    ledger: &Ledger,
    request: &Request<T>,
    organization_id: &str,
) -> Result<(Arc<Published>, Context), Status> {
    let caller = authenticate(ledger, request, permissions::API_KEYS_WRITE)?;
    let organization = known(ledger, caller.target(organization_id)?)?;
    Ok((organization, Context::of(ledger, &caller, request)?))
}

/// What surrounds a command, taken from its call.
pub(super) struct Context {
    caller: Authenticated,
    correlation_id: projections::text::CorrelationId,
    pub(super) personal: Personal,
}

impl Context {
    pub(super) fn of<T>(
        ledger: &Ledger,
        caller: &Authenticated,
        request: &Request<T>,
    ) -> Result<Self, Status> {
        let correlation_id = correlation_id(ledger, request)?;
        Ok(Self { caller: *caller, correlation_id, personal: origin(request) })
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

fn create_key(
    ledger: &Ledger,
    organization: &Published,
    message: &proto::CreateKeyRequest,
) -> Result<(CreateKey, Minted), Status> {
    let name: Name = read::field("name", &message.name)?;
    let description = read::optional("description", &message.description)?;
    let environment = read::environment(message.environment)?;
    let scopes = read::scopes(message.scopes.as_ref())?;
    let roles = read::roles(&message.role_ids)?;
    let services = read::services(message.services.as_ref())?;
    let expiry = read::expiry(message.expiry.as_ref())?;
    let metadata = read::metadata(&message.metadata)?;
    let limits = read::limits(&message.limits)?;
    let tables = organization.tables();
    let profile =
        tables.profile().ok_or_else(|| status::organization_not_found(organization.id))?;
    let minted = mint(&profile.key_prefix, environment, ledger.peppers())
        .map_err(|error| status::no_entropy(&error))?;
    let command = CreateKey {
        key_id: ledger.ids().key(ledger.clock().now()),
        name,
        description,
        origin: KeyOrigin::Minted,
        prefix: Some(profile.key_prefix.clone()),
        environment,
        hint: minted.hint,
        digest: minted.digest.clone(),
        scopes,
        roles,
        services,
        expiry,
        metadata,
        limits,
    };
    Ok((command, minted))
}

/// The key that a command made or changed, as it is now.
fn outcome(
    ledger: &Ledger,
    organization: &Published,
    executed: Executed,
) -> Result<proto::Key, Status> {
    let Change::Key(id) = executed.outcome else {
        return Err(status::outcome_missing(executed.outcome));
    };
    let tables = organization.tables();
    let row = tables.key(id).ok_or_else(|| status::key_not_found(id))?;
    Ok(write_key(ledger, row, &tables))
}

fn write_key(ledger: &Ledger, row: &Key, tables: &Organization) -> proto::Key {
    write::key(row, tables, &ledger.tables().operator().tables(), ledger.clock().now())
}

/// Adds what the revoker wrote, read from the event itself and opened.
async fn add_comment(
    ledger: &Ledger,
    organization: &Published,
    row: &Key,
    revocation: &mut proto::Revocation,
) -> Result<(), Status> {
    let Some(revision) = row.revocation.as_ref().map(|it| it.revision) else { return Ok(()) };
    let recorded =
        ledger.event(organization, revision).await.map_err(|error| status::from_read(&error))?;
    let envelope = recorded.and_then(|recorded| Envelope::decode(&recorded.stored).ok());
    let Some(sealed) =
        envelope.as_ref().and_then(|envelope| envelope.sealed.first().map(|it| (envelope.id, it)))
    else {
        return Ok(());
    };
    let (event_id, sealed) = sealed;
    let key =
        ledger.subject_key(&sealed.subject).await.map_err(|error| status::from_vault(&error))?;
    match open(&key, event_id, sealed) {
        Ok(opened) => {
            revocation.comment = opened.get(Personal::COMMENT).cloned().unwrap_or_default();
            Ok(())
        }
        Err(OpenError::Erased) => {
            revocation.comment_erased = true;
            Ok(())
        }
        Err(error @ OpenError::Damaged) => Err(status::unsealable(error)),
    }
}

/// Which keys a list shows.
struct Filter<'a> {
    state: Option<KeyState>,
    environment: Option<Environment>,
    role: Option<RoleId>,
    name_prefix: &'a str,
    now: Timestamp,
}

impl Filter<'_> {
    fn shows(&self, key: &Key) -> bool {
        self.state.is_none_or(|state| key.state(self.now) == state)
            && self.environment.is_none_or(|environment| key.effective_environment() == environment)
            && self.role.is_none_or(|role| key.roles().contains(&role))
            && key.name.as_str().starts_with(self.name_prefix)
    }
}

fn list_keys(
    ledger: &Ledger,
    organization: &Published,
    message: &proto::ListKeysRequest,
) -> Result<proto::ListKeysResponse, Status> {
    let filter = Filter {
        state: state(message.state)?,
        environment: read::environment(message.environment)?,
        role: read::optional("role_id", &message.role_id)?,
        name_prefix: read::optional::<Name>("name_prefix", &message.name_prefix)?
            .map_or("", |_| message.name_prefix.as_str()),
        now: ledger.clock().now(),
    };
    let rows_max = page::size(message.page_size)?;
    let parameters = [
        organization.stream.as_str(),
        &message.state.to_string(),
        &message.environment.to_string(),
        &message.role_id,
        &message.name_prefix,
    ];
    let list = page::List::new(ledger.stamper(), "ListKeys", &parameters);
    let after = list.continue_behind(&message.page_token)?.map(KeyId::from_bytes);
    let tables = Arc::clone(&organization.tables());
    let mut keys = Vec::new();
    let mut bytes = 0;
    let mut next_page_token = String::new();
    let mut rows = tables.keys_after(after).enumerate().peekable();
    while let Some((looked_at, row)) = rows.next() {
        if filter.shows(row) {
            let key = write_key(ledger, row, &tables);
            bytes += key.encoded_len();
            keys.push(key);
        }
        let full = keys.len() == rows_max
            || bytes >= page::PAGE_BYTES_MAX
            || looked_at + 1 == page::PAGE_WORK_MAX;
        if full && rows.peek().is_some() {
            next_page_token = list.token(row.id.to_bytes());
            break;
        }
    }
    Ok(proto::ListKeysResponse {
        keys,
        next_page_token,
        revision: write::revision(&organization.stream, tables.revision()),
    })
}

fn state(value: i32) -> Result<Option<KeyState>, Status> {
    match proto::KeyState::try_from(value) {
        Ok(proto::KeyState::Unspecified) => Ok(None),
        Ok(proto::KeyState::Active) => Ok(Some(KeyState::Active)),
        Ok(proto::KeyState::Expired) => Ok(Some(KeyState::Expired)),
        Ok(proto::KeyState::Revoked) => Ok(Some(KeyState::Revoked)),
        Err(_) => Err(status::invalid("state", "is no known state")),
    }
}
