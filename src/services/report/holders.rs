//! Who held a permission, or had a role, over a time.

use std::sync::Arc;

use projections::envelope::Envelope;
use projections::id::RoleId;
use projections::permission::Permission;
use projections::time::Timestamp;
use prost::Message as _;
use tonic::Status;

use crate::ledger::Ledger;
use crate::ledger::history::PastError;
use crate::ledger::history::held::{Cause, HeldTime, Holder, Wanted};
use crate::ledger::tables::Published;
use crate::proto;
use crate::proto::held_time::Holder as Wire;
use crate::services::history::{failed, instant, past_event};
use crate::services::{page, read, status, write};

/// Who held a permission.
pub(super) async fn of_permission(
    ledger: &Ledger,
    organization: &Published,
    message: &proto::ListPermissionHoldersRequest,
) -> Result<proto::ListPermissionHoldersResponse, Status> {
    let permission = Permission::parse(&message.permission)
        .map_err(|error| status::invalid("permission", error))?
        .to_string();
    let asked = Asked {
        method: "ListPermissionHolders",
        what: permission.clone(),
        wanted: Wanted::Permission(permission),
        between: between(message.from.as_ref(), message.to.as_ref())?,
        page_size: message.page_size,
        page_token: &message.page_token,
    };
    let (times, next_page_token) = asked.page(ledger, organization).await?;
    Ok(proto::ListPermissionHoldersResponse { times, next_page_token })
}

/// Who had a role.
pub(super) async fn of_role(
    ledger: &Ledger,
    organization: &Published,
    message: &proto::ListRoleHoldersRequest,
) -> Result<proto::ListRoleHoldersResponse, Status> {
    let role: RoleId = read::field("role_id", &message.role_id)?;
    let own = organization.tables().role(role).is_some();
    if !own && ledger.tables().operator().tables().built_in_role(role).is_none() {
        return Err(status::role_not_found(role));
    }
    let asked = Asked {
        method: "ListRoleHolders",
        what: role.text(),
        wanted: Wanted::Role(role),
        between: between(message.from.as_ref(), message.to.as_ref())?,
        page_size: message.page_size,
        page_token: &message.page_token,
    };
    let (times, next_page_token) = asked.page(ledger, organization).await?;
    Ok(proto::ListRoleHoldersResponse { times, next_page_token })
}

/// The first instant, and the one behind the last.
fn between(
    from: Option<&prost_types::Timestamp>,
    to: Option<&prost_types::Timestamp>,
) -> Result<(Timestamp, Timestamp), Status> {
    let from = instant("from", from.ok_or_else(|| status::invalid("from", "must be given"))?)?;
    let to = instant("to", to.ok_or_else(|| status::invalid("to", "must be given"))?)?;
    if from >= to {
        return Err(status::invalid("to", "must be later than `from`"));
    }
    Ok((from, to))
}

/// A request, read.
struct Asked<'a> {
    method: &'static str,
    what: String,
    wanted: Wanted,
    between: (Timestamp, Timestamp),
    page_size: u32,
    page_token: &'a str,
}

impl Asked<'_> {
    async fn page(
        self,
        ledger: &Ledger,
        organization: &Published,
    ) -> Result<(Vec<proto::HeldTime>, String), Status> {
        let rows_max = page::size(self.page_size)?;
        let (from, to) = (self.between.0.to_string(), self.between.1.to_string());
        let parameters = [organization.stream.as_str(), &self.what, &from, &to];
        let list = page::List::new(ledger.stamper(), self.method, &parameters);
        let after = list.continue_behind(self.page_token)?;
        let held = ledger.held_between(organization, self.wanted, self.between).await;
        let held = held.map_err(|error| {
            if let PastError::Ahead(now) = error {
                return status::invalid("to", format_args!("must not be ahead: it is {now} now"));
            }
            failed(organization, error)
        })?;
        let mut rows =
            held.iter().filter(|it| after.is_none_or(|after| it.holder.to_bytes() > after));
        let (mut times, mut holders, mut bytes) = (Vec::new(), 0, 0);
        let mut last: Option<Holder> = None;
        for row in rows.by_ref() {
            if last != Some(row.holder) {
                if let Some(last) =
                    last.filter(|_| holders == rows_max || bytes >= page::PAGE_BYTES_MAX)
                {
                    return Ok((times, list.token(last.to_bytes())));
                }
                holders += 1;
                last = Some(row.holder);
            }
            let written = write_time(ledger, organization, row).await?;
            bytes += written.encoded_len();
            times.push(written);
        }
        Ok((times, String::new()))
    }
}

async fn write_time(
    ledger: &Ledger,
    organization: &Published,
    row: &HeldTime,
) -> Result<proto::HeldTime, Status> {
    let tables = Arc::clone(&organization.tables());
    let name = match row.holder {
        Holder::ServiceAccount(id) => tables.service_account(id).map(|it| it.name.to_string()),
        Holder::Key(id) => tables.key(id).map(|it| it.name.to_string()),
        Holder::BreakGlass(id) => tables.break_glass_grant(id).map(|it| it.custodian.to_string()),
        Holder::User(_) => None,
    };
    Ok(proto::HeldTime {
        holder_name: name.unwrap_or_default(),
        domains: row.domains.iter().cloned().collect(),
        holder: Some(match row.holder {
            Holder::ServiceAccount(id) => Wire::ServiceAccountId(id.text()),
            Holder::User(id) => Wire::UserId(id.text()),
            Holder::Key(id) => Wire::KeyId(id.text()),
            Holder::BreakGlass(id) => Wire::BreakGlassGrantId(id.text()),
        }),
        from: Some(write::timestamp(row.from)),
        to: row.to.map(write::timestamp),
        began_by: cause(ledger, organization, row.began_by.as_ref()).await?,
        ended_by: cause(ledger, organization, row.ended_by.as_ref()).await?,
    })
}

/// The event that gave something or took it. Who set a rule of the operator's, and with what, is
/// for operators in their own stream.
async fn cause(
    ledger: &Ledger,
    organization: &Published,
    cause: Option<&Cause>,
) -> Result<Option<proto::PastEvent>, Status> {
    let Some(Cause { stream, revision }) = cause else { return Ok(None) };
    let own = *stream == organization.stream;
    let operator = ledger.tables().operator();
    let of = if own { organization } else { &**operator };
    let recorded = ledger.event(of, *revision).await.map_err(|error| status::from_read(&error))?;
    let envelope = recorded.and_then(|it| Envelope::decode(&it.stored).ok());
    Ok(envelope.map(|envelope| {
        let mut event = past_event(stream, *revision, &envelope, &organization.tables());
        if !own {
            event.credential_id.clear();
            event.sentence = format!("`{}` was recorded by the operator", event.action);
        }
        event
    }))
}
