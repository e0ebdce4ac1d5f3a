//! Keys of one's own: what a user may do with them without being let to manage others'.

use projections::id::KeyId;
use projections::principal::{Owner, Principal};

use super::Given;
use crate::ledger::command::{Command, WhichKeys};

/// Whether a command is about keys of the very user who gives it, and about no others.
/// Another's keys, and keys that are not there, are all the same to them.
pub(super) fn are_ones_own(given: &Given<'_>, command: &Command) -> bool {
    let here = given.caller.credential().and(given.caller.home()) == Some(given.state.id);
    let Some(owner @ Owner::User(_)) = given.caller.owner().filter(|_| here) else { return false };
    let is_own = |id: &KeyId| given.state.key(*id).is_some_and(|key| key.owner() == Some(owner));
    match command {
        Command::CreateKey(command) => command.owner == Some(owner),
        Command::RotateKey(command) => is_own(&command.key_id),
        Command::EndRotation(id) | Command::DisableKey(id) => is_own(id),
        // What another disabled is not for them to enable.
        Command::EnableKey(id) => is_own(id) && disabled_by(given, *id) == Some(owner.principal()),
        Command::RevokeKey(command) => is_own(&command.key_id),
        Command::RevokeKeys(command) => match &command.which {
            WhichKeys::Of(whose) => *whose == owner,
            WhichKeys::Listed(ids) => !ids.is_empty() && ids.iter().all(is_own),
        },
        Command::CreateInstallation(_)
        | Command::ConfigureInstallation(_)
        | Command::ConfigureKeys(_)
        | Command::ReissueOperatorKey(_)
        | Command::RegisterOrganization(_)
        | Command::CreateOrganization(_)
        | Command::ImportKeys(_)
        | Command::UpdateKeyLabel(_)
        | Command::CreateServiceAccount(_)
        | Command::UpdatePolicy(_)
        | Command::RotatePepper(_)
        | Command::RecordDenials(_)
        | Command::RecordReading(_)
        | Command::CreateRole(_)
        | Command::UpdateRole(_)
        | Command::RetireRole(_)
        | Command::GrantRole(_)
        | Command::RevokeGrant(_)
        | Command::InviteUser(_)
        | Command::SeatOwner(_)
        | Command::RenewInvitation(_)
        | Command::JoinUser(_)
        | Command::UpdateUser(_)
        | Command::SuspendUser(_)
        | Command::RestoreUser(_)
        | Command::RemoveUser(_)
        | Command::StartSession(_)
        | Command::StepUpSession(_)
        | Command::EndSession(_)
        | Command::EndSessions(_)
        | Command::BreakGlass(_)
        | Command::AddSigningKey(_)
        | Command::RetireSigningKey(_) => false,
    }
}

fn disabled_by(given: &Given<'_>, id: KeyId) -> Option<Principal> {
    given.state.key(id).and_then(|key| key.disabled()).map(|act| act.by)
}
