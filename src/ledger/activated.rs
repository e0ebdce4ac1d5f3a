//! Which events may be written.

use projections::event::Event;
use projections::organization::Organization;

use super::LedgerError;

/// An event is written only once the installation says that its type is: every reader of
/// the history can then know it.
pub(super) fn may_write(operator: &Organization, event: &Event) -> Result<(), LedgerError> {
    let (event_type, schema) = (event.event_type(), event.schema());
    let begins = match event {
        Event::SchemaActivated(_) => true,
        Event::InstallationCreated(_) | Event::OrganizationCreated(_) => {
            operator.profile().is_none()
        }
        Event::PlanDefined(_)
        | Event::PermissionRuleDefined(_)
        | Event::PermissionRuleRemoved(_)
        | Event::BuiltInRoleDefined(_)
        | Event::OrganizationRegistered(_)
        | Event::KeyCreated(_)
        | Event::KeyRevoked(_)
        | Event::KeyRelabelled(_)
        | Event::KeyRotated(_)
        | Event::KeyRotationEnded(_)
        | Event::KeyDisabled(_)
        | Event::KeyEnabled(_)
        | Event::ServiceAccountCreated(_)
        | Event::PolicyUpdated(_)
        | Event::PepperRotated(_)
        | Event::DenialsSummarized(_)
        | Event::HistoryRead(_)
        | Event::UsageRecorded(_)
        | Event::RoleCreated(_)
        | Event::RoleUpdated(_)
        | Event::RoleRetired(_)
        | Event::RoleGranted(_)
        | Event::GrantRevoked(_)
        | Event::UserInvited(_)
        | Event::BreakGlassConfigured(_)
        | Event::BreakGlassOpened(_)
        | Event::BreakGlassApproved(_)
        | Event::BreakGlassUsed(_)
        | Event::BreakGlassRefused(_)
        | Event::BreakGlassEnded(_)
        | Event::BreakGlassEscalated(_)
        | Event::BreakGlassReviewed(_)
        | Event::InvitationRenewed(_)
        | Event::UserJoined(_)
        | Event::UserUpdated(_)
        | Event::UserSuspended(_)
        | Event::UserRestored(_)
        | Event::UserRemoved(_)
        | Event::SessionStarted(_)
        | Event::SessionSteppedUp(_)
        | Event::SessionEnded(_)
        | Event::SigningKeyAdded(_)
        | Event::SigningKeyRetired(_)
        | Event::EmailReserved(_)
        | Event::EmailConfirmed(_)
        | Event::EmailReleased(_)
        | Event::AccountCreated(_)
        | Event::PasswordSet(_)
        | Event::TotpEnrolled(_)
        | Event::TotpRemoved(_)
        | Event::RecoveryCodesReplaced(_)
        | Event::RecoveryCodeUsed(_)
        | Event::SessionsEnded(_)
        | Event::AccountLocked(_)
        | Event::DefaultOrganizationSet(_)
        | Event::PasswordResetIssued(_) => false,
    };
    let activated = operator.installation().is_some_and(|it| it.may_write(event_type, schema));
    if begins || activated { Ok(()) } else { Err(LedgerError::NotActivated(event_type)) }
}
