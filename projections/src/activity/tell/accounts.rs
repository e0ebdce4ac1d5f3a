//! What the events of accounts, and of e-mails, say of themselves. What stands for an
//! e-mail is left out: it could be looked for elsewhere.

use super::{Told, text};
use crate::activity::{TargetId, Value};
use crate::event::{
    AccountCreated, AccountLocked, DefaultOrganizationSet, EmailConfirmed, EmailReleased,
    EmailReserved, PasswordCause, PasswordResetIssued, PasswordSet, RecoveryCodeUsed,
    RecoveryCodesReplaced, ResetGivenTo, SessionsEnded, TotpEnrolled, TotpRemoved,
};
use crate::id::{AccountId, SessionId};

fn account(id: AccountId, deed: &'static str) -> Told<'static> {
    Told::of(TargetId::Account(id), None, deed)
}

pub(super) fn email_reserved(data: &EmailReserved) -> Told<'_> {
    let EmailReserved { email: _, account_id, until } = data;
    let mut told = account(*account_id, "had its e-mail reserved");
    told.changes.made("until", Value::Instant(*until));
    told
}

pub(super) fn email_confirmed(data: &EmailConfirmed) -> Told<'_> {
    let EmailConfirmed { email: _, account_id } = data;
    account(*account_id, "had its e-mail confirmed")
}

pub(super) fn email_released(data: &EmailReleased) -> Told<'_> {
    let EmailReleased { email: _, account_id } = data;
    account(*account_id, "had its e-mail released")
}

pub(super) fn created(data: &AccountCreated) -> Told<'_> {
    let AccountCreated { account_id, email: _, personal_organization } = data;
    let mut told = account(*account_id, "was created");
    let organization = personal_organization.map(|id| text(id.text()));
    told.changes.made_some("personal_organization", organization);
    told
}

pub(super) fn password_set(data: &PasswordSet) -> Told<'_> {
    let PasswordSet { account_id, cause, keeps } = data;
    let mut told = account(*account_id, "had its password set and its sessions ended");
    told.reason = Some(match cause {
        PasswordCause::Invitation => "invitation",
        PasswordCause::Change => "change",
        PasswordCause::Reset => "reset",
    });
    told.changes.made_some("keeps", keeps.map(session));
    told
}

pub(super) fn password_reset_issued(data: &PasswordResetIssued) -> Told<'_> {
    let PasswordResetIssued { account_id, expires_at, given_to } = data;
    let mut told = account(
        *account_id,
        match given_to {
            ResetGivenTo::Issuer => "had a password's reset issued and handed over",
            ResetGivenTo::Email => "had a password's reset issued and sent to its e-mail",
        },
    );
    told.changes.made("expires_at", Value::Instant(*expires_at));
    told
}

fn session(id: SessionId) -> Value<'static> {
    text(id.text())
}

pub(super) fn totp_enrolled(data: &TotpEnrolled) -> Told<'_> {
    let mut told = account(data.account_id, "had a second factor enrolled");
    told.changes.changed("totp", Some(text("absent")), Some(text("enrolled")));
    told
}

pub(super) fn totp_removed(data: &TotpRemoved) -> Told<'_> {
    let mut told = account(data.account_id, "had its second factor removed");
    told.changes.changed("totp", Some(text("enrolled")), Some(text("absent")));
    told
}

pub(super) fn recovery_codes_replaced(data: &RecoveryCodesReplaced) -> Told<'_> {
    let mut told = account(data.account_id, "had its recovery codes replaced");
    told.changes.made("recovery_codes", Value::Number(data.codes.into()));
    told
}

pub(super) fn recovery_code_used(data: &RecoveryCodeUsed) -> Told<'_> {
    let mut told = account(data.account_id, "had a recovery code used");
    let before = Value::Number(i64::from(data.left) + 1);
    told.changes.changed("recovery_codes", Some(before), Some(Value::Number(data.left.into())));
    told
}

pub(super) fn sessions_ended(data: &SessionsEnded) -> Told<'_> {
    let SessionsEnded { account_id, keeps } = data;
    let mut told = account(*account_id, "had its sessions ended");
    told.changes.made_some("keeps", keeps.map(session));
    told
}

pub(super) fn locked(data: &AccountLocked) -> Told<'_> {
    let mut told = account(data.account_id, "was locked");
    told.changes.made("locked_until", Value::Instant(data.until));
    told
}

pub(super) fn default_organization_set(data: &DefaultOrganizationSet) -> Told<'_> {
    let DefaultOrganizationSet { account_id, organization_id, before } = data;
    let mut told = account(*account_id, "had its default organization set");
    let before = before.map(|it| text(it.text()));
    told.changes.changed("default_organization", before, Some(text(organization_id.text())));
    told
}
