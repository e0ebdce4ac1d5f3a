//! Rules of service accounts.

use projections::event::ServiceAccountCreated;
use projections::organization::Change;

use super::{Decided, Given, key};
use crate::ledger::rejection::Rejection;

/// Most service accounts of one organization.
pub const SERVICE_ACCOUNTS_MAX: usize = 10_000;

/// Makes a service account. Its roles are given to it, so whoever makes it holds them.
pub(super) fn create(
    given: &Given<'_>,
    draft: &ServiceAccountCreated,
) -> Result<Decided, Rejection> {
    let id = draft.service_account_id;
    // The identifier is fresh and random: if it is there, this very command made it.
    if let Some(account) = given.state.service_account(id) {
        return Ok(Decided::Done {
            outcome: Change::ServiceAccount(id),
            revision: account.changed_at,
            repeat: false,
        });
    }
    let roles = key::roles(given, &draft.roles)?;
    if !roles.is_empty() {
        key::may_act_for_all(given)?;
    }
    if let Some((_, authority)) = given.caller()? {
        key::may_give(&authority, None, &key::GivenWith::roles(roles, true), None)?;
    }
    if given.state.service_account_named(&draft.name).is_some() {
        return Err(Rejection::ServiceAccountNameTaken(draft.name.to_string()));
    }
    if given.state.service_accounts_after(None).take(SERVICE_ACCOUNTS_MAX).count()
        == SERVICE_ACCOUNTS_MAX
    {
        return Err(Rejection::TooManyServiceAccounts);
    }
    Ok(Decided::Events(vec![draft.clone().into()]))
}
