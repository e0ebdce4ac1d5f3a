//! `keyledger key rotate`

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::super::client::{Client, Repeat, Session, Target};
use super::super::failure::{Failure, Outcome};
use super::super::flags;
use super::super::output::{safe, talk};
use super::super::view::key_change::Rotated;
use super::create::print_secret;
use super::service;
use crate::proto;
use crate::proto::rotate_key_request::Expiry;

/// The server's word for a key without addresses where the policy demands them.
pub(super) const ADDRESSES_MISSING: &str = "ALLOWED_IPS_REQUIRED";
/// What a key may be used from is fixed, and so is its successor's.
pub(super) const ADDRESSES_HINT: &str = "a key's addresses never change: create another key with \
                                         `keyledger key create --allow-ip`, deploy it, then revoke \
                                         this one";

/// Put a new key in the place of another, and show its secret, once.
///
/// The new key is like the old one, but for its secret and its end. The old one stays valid
/// for a while (a day, unless `--grace` says otherwise), so that nothing that uses it stops.
#[derive(Args)]
pub(in crate::cli) struct Rotate {
    /// The old key
    #[arg(value_name = "ID")]
    key_id: String,

    /// How long the old key stays valid, such as 24h, at most 30d; 0 for not at all [default: 24h,
    /// or as long as the policy allows]
    #[arg(long, value_name = "DURATION", value_parser = flags::duration_or_zero)]
    grace: Option<Duration>,

    /// When the new key stops being accepted [default: it lives as long as the old one was to]
    #[arg(long, value_name = "INSTANT", value_parser = flags::instant, conflicts_with = "lifetime")]
    expires_at: Option<prost_types::Timestamp>,

    /// How long the new key is accepted, such as 1h or 30d
    #[arg(long, value_name = "DURATION", value_parser = flags::duration)]
    lifetime: Option<Duration>,

    /// Print the new secret alone, for a script: KEY=$(keyledger key rotate … --secret-only)
    #[arg(long, conflicts_with = "json")]
    secret_only: bool,

    /// Refuse if the organization's stream does not end at this revision
    #[arg(long, value_name = "REVISION")]
    expected_revision: Option<u64>,

    #[command(flatten)]
    repeat: Repeat,

    #[command(flatten)]
    target: Target,

    #[command(flatten)]
    client: Client,
}

impl Rotate {
    pub(in crate::cli) fn run(self) -> Outcome {
        let (again, secret_only) = (self.target.again(), self.secret_only);
        let after = |lifetime| Expiry::Lifetime(flags::wire(lifetime));
        let mut request = proto::RotateKeyRequest {
            organization_id: self.target.organization_id(),
            key_id: self.key_id,
            grace: self.grace.map(flags::wire),
            expiry: self.expires_at.map(Expiry::ExpiresAt).or(self.lifetime.map(after)),
            expected_revision: self.expected_revision,
            idempotency_key: self.repeat.idempotency_key(),
        };
        self.client.run(async |session| {
            session.aim(&mut request.organization_id).await?;
            let request = session.request(request)?;
            let answer = session.answer(service(session).rotate_key(request)).await;
            let answer = answer.map_err(|it| it.hint_where(ADDRESSES_MISSING, ADDRESSES_HINT))?;
            show(session, &Rotated::from(answer), secret_only, &again)
        })
    }
}

fn show(session: &Session<'_>, rotated: &Rotated, secret_only: bool, again: &str) -> Outcome {
    let new_key = rotated.key.as_ref().map(|it| safe(&it.id)).unwrap_or_default();
    if rotated.secret_already_issued && secret_only {
        return Err(Failure::refusal("this is a repeat: the first answer showed the secret").hint(
            format!(
                "if that answer was lost, rotate the new key: `keyledger key rotate \
                 {new_key}{again} --grace 0`"
            ),
        ));
    }
    if secret_only {
        print_secret(&rotated.secret)?;
    } else {
        session.print(rotated, || rotated.to_text()).map_err(Failure::secret_lost)?;
        talk(if rotated.secret_already_issued {
            "note: this is a repeat: the first answer showed the secret\n"
        } else {
            "note: the secret is shown this once; keep it now\n"
        });
    }
    rotated.warn();
    if !session.json() {
        tell_of_the_old_key(rotated, again);
    }
    Ok(ExitCode::SUCCESS)
}

fn tell_of_the_old_key(rotated: &Rotated, again: &str) {
    let Some(old) = &rotated.predecessor else { return };
    let old_key = safe(&old.id);
    match rotated.old_key_until() {
        None => talk(&format!("done: the old key {old_key} is refused everywhere from now on\n")),
        Some(until) => talk(&format!(
            "next: deploy the new key; the old one, {old_key}, is accepted until {}\n      \
             (end it sooner: `keyledger key end-rotation {old_key}{again}`)\n",
            safe(until)
        )),
    }
}
