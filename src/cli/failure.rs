//! Why a verb did not do what it was asked: `error: …`, and `hint: …` where there is one.

use std::process::ExitCode;

use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::output::safe;

/// What a verb comes to.
pub(super) type Outcome = Result<ExitCode, Failure>;

/// No: a denial, a refusal.
pub(super) const NO: u8 = 1;
/// A fault, or the command line is wrong.
pub(super) const FAULT: u8 = 2;

/// Why a verb did not do what it was asked.
#[derive(Debug)]
pub(super) struct Failure {
    code: u8,
    message: String,
    causes: Vec<String>,
    hint: Option<String>,
    /// The server's own word for it, as the operator's pages name it.
    reason: Option<String>,
}

impl Failure {
    /// It could not be tried, or nobody knows what came of it.
    pub(super) fn fault(message: impl Into<String>) -> Self {
        Self { code: FAULT, message: message.into(), causes: Vec::new(), hint: None, reason: None }
    }

    /// It was refused.
    pub(super) fn refusal(message: impl Into<String>) -> Self {
        Self { code: NO, ..Self::fault(message) }
    }

    /// Nobody is there to read the answer, so nobody is told either.
    pub(super) fn unheard() -> Self {
        Self::fault("")
    }

    /// Why in turn.
    pub(super) fn because(mut self, cause: impl ToString) -> Self {
        self.causes.push(cause.to_string());
        self
    }

    /// What to do about it.
    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// What to do about it where the server's word for it is this one.
    pub(super) fn hint_where(self, reason: &str, hint: &str) -> Self {
        if self.reason.as_deref() == Some(reason) { self.hint(hint) } else { self }
    }

    /// A fault, whatever it was: where 1 is the answer "no" and nothing else.
    pub(super) fn into_fault(self) -> Self {
        Self { code: FAULT, ..self }
    }

    /// The lines for stderr.
    pub(super) fn report(&self) -> String {
        if self.message.is_empty() {
            return String::new();
        }
        let reason = self.reason.as_ref().map(|it| format!(" [{}]", safe(it))).unwrap_or_default();
        let mut lines = format!("error{reason}: {}\n", safe(&self.message));
        for cause in &self.causes {
            lines.push_str(&format!("  because: {}\n", safe(cause)));
        }
        if let Some(hint) = &self.hint {
            lines.push_str(&format!("hint: {}\n", safe(hint)));
        }
        lines
    }

    /// The server's own word for it.
    pub(super) fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    /// What it says.
    pub(super) fn message(&self) -> &str {
        &self.message
    }

    /// 1 or 2.
    pub(super) fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code)
    }

    /// What a server's refusal comes to; `key_source` tells where the caller's key is from.
    pub(super) fn of_status(status: &Status, key_source: &str) -> Self {
        let details = status.get_error_details();
        let reason = details.error_info().map(|info| info.reason.clone());
        let field = details
            .bad_request()
            .and_then(|request| request.field_violations.first())
            .map(|violation| violation.field.clone());
        let failure = Self {
            code: exit_code_of(status.code()),
            message: message(status),
            causes: Vec::new(),
            hint: None,
            reason: reason.clone(),
        };
        let hint = match (reason.as_deref(), field.as_deref()) {
            (Some("INVALID_ARGUMENT") | None, Some(field)) => hint_for_field(field),
            (Some(reason), _) => hint_for_reason(reason, key_source),
            (None, None) => hint_for_code(status.code()),
        };
        Self { hint, ..failure }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        let causes = error.chain().skip(1).map(ToString::to_string).collect();
        Self { causes, ..Self::fault(error.to_string()) }
    }
}

fn exit_code_of(code: Code) -> u8 {
    match code {
        Code::PermissionDenied
        | Code::NotFound
        | Code::FailedPrecondition
        | Code::AlreadyExists
        | Code::InvalidArgument
        | Code::Unauthenticated
        | Code::Aborted => NO,
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::DeadlineExceeded
        | Code::ResourceExhausted
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::Internal
        | Code::Unavailable
        | Code::DataLoss => FAULT,
    }
}

fn message(status: &Status) -> String {
    match status.message() {
        "" => status.code().description().to_lowercase(),
        message => message.to_owned(),
    }
}

/// Which flag sets a field of a request, where the name does not tell.
fn hint_for_field(field: &str) -> Option<String> {
    let outer = field.split(['.', '[']).next().unwrap_or_default();
    let flag = match outer {
        "organization_id" => {
            let hint = "name the organization (`key … --org ID`, `org get ID`), or put it into \
                        `KEYLEDGER_ORG`; `keyledger org list` shows them";
            return Some(hint.to_owned());
        }
        "key_id" => {
            return Some(
                "`keyledger key list`, with the same `--org`, shows the identifiers of keys"
                    .to_owned(),
            );
        }
        "role_ids" | "role_id" => "--role",
        "allowed_ips" => "--allow-ip",
        "service_account_id" => "--service-account",
        "tenant_id" => "--tenant",
        "at_least_revision" => "--at-least",
        "x-correlation-id" => "--correlation-id",
        _ => return None,
    };
    Some(format!("`{outer}` is what `{flag}` sets"))
}

fn hint_for_reason(reason: &str, key_source: &str) -> Option<String> {
    let hint = match reason {
        "NO_CREDENTIAL"
        | "MALFORMED"
        | "UNKNOWN"
        | "REVOKED"
        | "DISABLED"
        | "EXPIRED"
        | "IP_NOT_ALLOWED"
        | "AMBIGUOUS"
        | "CALLER_NOT_IN_FORCE" => {
            return Some(format!(
                "the credential came from {key_source}; name another with `--api-key-file`"
            ));
        }
        "PERMISSION_DENIED" | "SERVICE_NOT_ALLOWED" => {
            return Some(format!(
                "the credential came from {key_source}; use one that may do this"
            ));
        }
        "OTHER_ORGANIZATION" => {
            "name your own organization, or none; an operator's key reaches all"
        }
        "ORGANIZATION_NOT_FOUND" => "`keyledger org list` shows them",
        "KEY_NOT_FOUND" => {
            "`keyledger key list`, with the same `--org`, shows the organization's keys"
        }
        "KEY_NAME_TAKEN" => {
            "`keyledger key list --state active`, with the same `--org`, shows the names in use"
        }
        "KEY_WITHOUT_PERMISSIONS" => "name what it may do with `--scope`, `--role` or both",
        "KEY_ALREADY_DISABLED" | "KEY_DISABLED" => {
            "`keyledger key enable` brings a disabled key into force again"
        }
        "KEY_ALREADY_ROTATED" => {
            "`keyledger key get` shows its successor, and until when it is valid"
        }
        "KEY_NOT_ROTATED" => {
            "name the old key of a rotation; `keyledger key revoke` ends any other"
        }
        "SERVICE_ACCOUNT_NOT_FOUND" => {
            "`keyledger service-account list`, with the same `--org`, shows them"
        }
        "ALLOWED_IPS_REQUIRED" | "ALLOWED_IPS_EVERYWHERE" => {
            "`--allow-ip` names where a key may be used from"
        }
        "POLICY_LOOSENED" => "ask the operator of the installation to loosen it",
        "GRACE_ABOVE_MAX" => "say how long with `--grace`, such as `--grace 1h`, or `--grace 0`",
        "SECRET_IN_USE" => {
            "whoever has the key may be using it: find out whose it is before you import it"
        }
        "LIFETIME_ABOVE_PLAN" | "LIFETIME_ABOVE_POLICY" | "EXPIRY_NOT_IN_FUTURE" => {
            "say how long with `--lifetime`, such as `--lifetime 1h`"
        }
        "ROLE_NOT_FOUND" => "`--role` takes the name of a built-in role too, such as `dns-manager`",
        "IDEMPOTENCY_KEY_REUSED" => "`--idempotency-key` repeats one request, word for word",
        "BREAK_GLASS_GRANT_NOT_FOUND" => {
            "`keyledger break-glass list`, with the same `--org`, shows them"
        }
        "PERMISSION_NOT_LISTED" => "`break_glass.permissions` in the server's settings lists them",
        "DURATION_OUT_OF_RANGE" => "say how long with `--duration`, such as `--duration 30m`",
        "INCIDENT_REQUIRED" => "`--incident` names one",
        "NOT_A_PERSON" => {
            "show a custodian's master key (`--master-key-file`), or a session of your own \
             (`--api-key-file`)"
        }
        "BREAK_GLASS_GRANT_NOT_ENDED" => "`keyledger break-glass close` ends it",
        "ALERTS_MISSED" => "`keyledger break-glass list` shows the grants",
        "USER_NOT_FOUND" => "`keyledger user list`, with the same `--org`, shows them",
        "SECOND_FACTOR_REQUIRED" => "`--code` takes one",
        "NOT_A_MEMBER" => "`--org` names another organization, by its identifier or key prefix",
        "SESSION_REQUIRED" => {
            "`keyledger session login --save FILE` logs you in; `--api-key-file FILE` shows that"
        }
        "REFRESH_FAILED" | "REFRESH_REUSED" => "`keyledger session login` logs you in again",
        "NO_ENROLMENT" => "`keyledger session totp enroll` begins anew",
        "NO_AUTHENTICATOR" => "`keyledger session totp enroll` begins with one",
        "AUTHENTICATOR_ENROLLED" => "`keyledger session totp remove` lets go of it",
        "CLOCK_AHEAD" => {
            "once the clock is right, an operator runs `keyledger operator confirm-clock`"
        }
        _ => return None,
    };
    Some(hint.to_owned())
}

/// Only what is no answer of ours comes without a reason.
fn hint_for_code(code: Code) -> Option<String> {
    matches!(code, Code::Unimplemented | Code::Internal | Code::Unknown)
        .then(|| "is that a keyledger server, and of this release?".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_lines_of_text_whatever_the_server_says() {
        let status = Status::not_found("key\u{1b}[2J\nerror: `x`");
        let report = Failure::of_status(&status, "nowhere").report();
        assert_eq!(report, "error: key\\u{1b}[2J\\nerror: `x`\n");
        let empty = Failure::of_status(&Status::internal(""), "nowhere");
        assert_eq!(
            empty.report(),
            "error: internal error\nhint: is that a keyledger server, and of this release?\n"
        );
        assert_eq!(Failure::unheard().report(), "");
    }

    #[test]
    fn refusals_are_no_and_all_else_is_a_fault() {
        for number in 0..=16 {
            let expected = if [3, 5, 6, 7, 9, 10, 16].contains(&number) { NO } else { FAULT };
            assert_eq!(exit_code_of(Code::from_i32(number)), expected, "{number}");
        }
    }
}
