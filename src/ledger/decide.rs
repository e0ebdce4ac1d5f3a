//! The rules: a command and the tables give events, or a rejection.
//!
//! Pure: the instant, identifiers and digests of secrets come in as arguments, so that
//! any decision can be made again. All rules of writing are here and nowhere else; the
//! folds hold none.

pub(super) mod break_glass;
mod installation;
mod key;
mod organization;
mod own_keys;
mod people;
mod role;
mod rotation;
mod service_account;

#[cfg(test)]
mod tests;

use projections::envelope::RequestStamp;
use projections::event::Event;
use projections::key::Key;
use projections::organization::{Change, Organization};
use projections::permission::Permission;
use projections::recorded::Revision;
use projections::session::Standing;
use projections::time::Timestamp;
use projections::verification::{Authority, Code, Recognised, Wanted, gated, out_of_force};

use super::command::{Caller, Command};
use super::rejection::Rejection;

pub use service_account::SERVICE_ACCOUNTS_MAX;

/// What a decision is made from.
#[derive(Clone, Copy)]
pub struct Given<'a> {
    /// The tables of the organization that the command is for, in-flight events included.
    pub state: &'a Organization,
    /// The tables of the operator's organization; `state` itself where that is it.
    pub operator: &'a Organization,
    /// The instant.
    pub now: Timestamp,
    /// Who gives the command.
    pub caller: Caller,
    /// What the account of a session that gives the command says of its sessions.
    pub standing: Option<Standing>,
    /// The revision at which the caller saw the stream.
    pub expected: Option<Revision>,
    /// How a repeat is known.
    pub request: Option<RequestStamp>,
    /// The place, among the keys that a command imports, of the first whose secret is that
    /// of another key of the installation.
    pub taken: Option<usize>,
}

/// What the rules make of a command they accept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decided {
    /// These facts come of it.
    Events(Vec<Event>),
    /// It was carried out before; this is what it changed, and where.
    Done {
        /// What it changed.
        outcome: Change,
        /// The event it caused.
        revision: Revision,
        /// Whether it was carried out for an earlier request with the same idempotency key.
        repeat: bool,
    },
    /// It is so already.
    Nothing,
}

/// Decides a command.
pub fn decide(given: &Given<'_>, command: &Command) -> Result<Decided, Rejection> {
    if let Some(permission) = command.permission() {
        given.authorize_for(command, permission)?;
    }
    if let Command::CreateInstallation(command) = command {
        return installation::create(given, command);
    }
    let exists =
        given.state.profile().is_some() || matches!(command, Command::CreateOrganization(_));
    if !exists {
        return Err(Rejection::OrganizationNotFound);
    }
    if let Some(repeated) = given.repeated()? {
        return Ok(repeated);
    }
    let current = given.state.revision();
    if given.expected.is_some() && given.expected != current {
        return Err(Rejection::WrongExpectedRevision { current });
    }
    match command {
        Command::CreateInstallation(_) => Err(Rejection::InstallationExists),
        Command::ConfigureInstallation(rules) => installation::configure(given, rules),
        Command::ConfigureKeys(command) => installation::configure_keys(given, command),
        Command::ReissueOperatorKey(command) => installation::reissue(given, command),
        Command::RegisterOrganization(draft) => organization::register(given, draft),
        Command::CreateOrganization(draft) => organization::create(given, draft),
        Command::CreateKey(command) => key::create(given, command),
        Command::ImportKeys(command) => key::import(given, command),
        Command::UpdateKeyLabel(command) => key::relabel(given, command),
        Command::RotateKey(command) => rotation::rotate(given, command),
        Command::EndRotation(id) => rotation::end(given, *id),
        Command::DisableKey(id) => key::disable(given, *id),
        Command::EnableKey(id) => key::enable(given, *id),
        Command::RevokeKey(command) => key::revoke(given, *command),
        Command::RevokeKeys(command) => key::revoke_all(given, command),
        Command::CreateServiceAccount(draft) => service_account::create(given, draft),
        Command::UpdatePolicy(policy) => organization::update_policy(given, policy),
        Command::RotatePepper(event) => installation::rotate_pepper(given, event),
        Command::AddSigningKey(event) => installation::add_signing_key(given, event),
        Command::RetireSigningKey(id) => installation::retire_signing_key(given, *id),
        Command::CreateRole(command) => role::create(given, command),
        Command::UpdateRole(command) => role::update(given, command),
        Command::RetireRole(id) => role::retire(given, *id),
        Command::GrantRole(command) => role::grant(given, command),
        Command::RevokeGrant(id) => role::revoke(given, *id),
        Command::InviteUser(command) => people::invite(given, command),
        Command::RenewInvitation(command) => people::renew(given, *command),
        Command::JoinUser(command) => people::join(given, *command),
        Command::SeatOwner(command) => people::seat_owner(given, *command),
        Command::UpdateUser(command) => people::update(given, command),
        Command::SuspendUser(id) => people::suspend(given, *id),
        Command::RestoreUser(id) => people::restore(given, *id),
        Command::RemoveUser(id) => people::remove(given, *id),
        Command::StartSession(command) => people::start_session(given, command),
        Command::StepUpSession(command) => people::step_up(given, *command),
        Command::EndSession(command) => people::end_session(given, *command),
        Command::EndSessions(command) => people::end_sessions(given, *command),
        Command::BreakGlass(command) => break_glass::decide(given, command),
        Command::RecordReading(event) => Ok(Decided::Events(vec![event.clone().into()])),
        Command::RecordDenials(event) => Ok(Decided::Events(vec![event.clone().into()])),
    }
}

impl Given<'_> {
    /// The caller's key, where it is one, and what the caller may do; none where the ledger
    /// itself acts.
    fn caller(&self) -> Result<Option<(Option<&Key>, Authority<'_>)>, Rejection> {
        Ok(self.recognised()?.map(|(recognised, home)| {
            let authority = Authority::of_recognised(recognised, home, self.operator, self.now);
            (recognised.key(), authority)
        }))
    }

    /// What the caller acts with, which is in force, and the tables that it is a row of; none
    /// where the ledger itself acts.
    ///
    /// A caller of this organization is looked up with the events in flight, so that a
    /// credential which was just ended decides nothing more.
    fn recognised(&self) -> Result<Option<(Recognised<'_>, &Organization)>, Rejection> {
        let Some(organization_id) = self.caller.home() else { return Ok(None) };
        let home = if organization_id == self.state.id { self.state } else { self.operator };
        let home = Some(home).filter(|home| home.id == organization_id);
        let known = home.and_then(|home| {
            let recognised = match self.caller {
                Caller::Key { key_id, .. } => Recognised::Key(home.key(key_id)?),
                Caller::Session { session_id, .. } => {
                    Recognised::Session(home.session(session_id)?)
                }
                Caller::BreakGlass { grant_id, .. } => {
                    Recognised::BreakGlass(home.break_glass_grant(grant_id)?)
                }
                // Whoever has no credential holds nothing, nor does a master key by itself.
                Caller::Person { .. } | Caller::Custodian { .. } | Caller::Ledger => return None,
            };
            Some((recognised, home))
        });
        let (recognised, home) = known.ok_or(Rejection::CallerNotInForce)?;
        if out_of_force(recognised, self.standing, home, self.operator, self.now).is_some() {
            return Err(Rejection::CallerNotInForce);
        }
        Ok(Some((recognised, home)))
    }

    /// A user changes their own keys by being who they are; all else needs the permission.
    fn authorize_for(
        &self,
        command: &Command,
        permission: Permission<'_>,
    ) -> Result<(), Rejection> {
        if own_keys::are_ones_own(self, command) {
            return self.caller().map(|_| ());
        }
        self.authorize(permission)
    }

    fn authorize(&self, permission: Permission<'_>) -> Result<(), Rejection> {
        let Some((recognised, home)) = self.recognised()? else { return Ok(()) };
        let authority = Authority::of_recognised(recognised, home, self.operator, self.now);
        if !authority.holds(permission) {
            return Err(Rejection::PermissionDenied(permission.to_string()));
        }
        match gated(recognised, home, self.operator, Wanted::One(permission), self.now) {
            None => Ok(()),
            Some(Code::MfaRequired) => Err(Rejection::MfaRequired(permission.to_string())),
            Some(_) => Err(Rejection::FeatureNotLicensed(permission.to_string())),
        }
    }

    fn repeated(&self) -> Result<Option<Decided>, Rejection> {
        let Some(stamp) = self.request else { return Ok(None) };
        match self.state.request(stamp.id) {
            None => Ok(None),
            Some(before) if before.content != stamp.content => Err(Rejection::IdempotencyKeyReused),
            Some(before) => Ok(Some(Decided::Done {
                outcome: before.outcome,
                revision: before.revision,
                repeat: true,
            })),
        }
    }
}
