//! Changes of a user: `keyledger user update`, `suspend`, `restore` and `remove`.

use clap::Args;

use super::super::client::{Client, Repeat, Target};
use super::super::failure::{Failure, Outcome};
use super::super::flags::{self, once_each};
use super::super::org::service;
use super::super::output::talk;
use super::super::view::user::Got;
use crate::proto;

/// Call a user otherwise, or give them other numbers.
#[derive(Args)]
#[command(after_help = "\
Examples:
  keyledger user update usr_01M3250V000000000000000001 --org vtx --name 'Alice Roe'
  keyledger user update usr_01M3250V000000000000000001 --org vtx --limit max_concurrent_bots=5")]
pub(in crate::cli) struct Update {
    /// The user
    #[arg(value_name = "USER")]
    user: String,

    /// What they are called from now on; rests sealed [default: as it is]
    #[arg(long, default_value = "", hide_default_value = true)]
    name: String,

    /// A number that whoever verifies what they present is told; repeat for more: all of them
    /// from now on [default: as they are]
    #[arg(long = "limit", value_name = "KEY=N", value_parser = flags::numeric_entry)]
    limits: Vec<(String, i64)>,

    /// Take away all their numbers
    #[arg(long, conflicts_with = "limits")]
    no_limits: bool,

    /// Why, in your own words, at most 500 characters; rests sealed
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    comment: String,

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

impl Update {
    pub(in crate::cli) fn run(self: Box<Self>) -> Outcome {
        let changed = self.no_limits || !self.limits.is_empty();
        if self.name.is_empty() && !changed {
            return Err(Failure::fault("there is nothing to change")
                .hint("`--name`, `--limit` and `--no-limits` say what"));
        }
        let entries = once_each("--limit", self.limits)?;
        let mut request = proto::UpdateUserRequest {
            organization_id: self.target.organization_id(),
            user_id: self.user,
            name: self.name,
            limits: changed.then_some(proto::UserLimits { entries }),
            comment: self.comment,
            expected_revision: self.expected_revision,
            idempotency_key: self.repeat.idempotency_key(),
        };
        self.client.run(async |session| {
            session.aim(&mut request.organization_id).await?;
            let request = session.request(request)?;
            let got = Got::from(session.answer(service(session).update_user(request)).await?);
            session.print(&got, || got.to_text())
        })
    }
}

/// Let a user do nothing until they are restored.
///
/// When this returns, their keys and sessions are refused everywhere. Nobody suspends themself.
#[derive(Args)]
#[command(after_help = "\
Example:
  keyledger user suspend usr_01M3250V000000000000000001 --org vtx --comment 'on leave'")]
pub(in crate::cli) struct Suspend {
    /// The user
    #[arg(value_name = "USER")]
    user: String,

    /// Why, in your own words, at most 500 characters; rests sealed
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    comment: String,

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

impl Suspend {
    pub(in crate::cli) fn run(self) -> Outcome {
        let mut request = proto::SuspendUserRequest {
            organization_id: self.target.organization_id(),
            user_id: self.user,
            comment: self.comment,
            expected_revision: self.expected_revision,
            idempotency_key: self.repeat.idempotency_key(),
        };
        self.client.run(async |session| {
            session.aim(&mut request.organization_id).await?;
            let request = session.request(request)?;
            let got = Got::from(session.answer(service(session).suspend_user(request)).await?);
            let code = session.print(&got, || got.to_text())?;
            if !session.json() {
                talk("done: their keys and sessions are refused everywhere from now on\n");
            }
            Ok(code)
        })
    }
}

/// Let a suspended user do again what they were granted.
///
/// You must hold all of that.
#[derive(Args)]
#[command(after_help = "\
Example:
  keyledger user restore usr_01M3250V000000000000000001 --org vtx --comment 'back from leave'")]
pub(in crate::cli) struct Restore {
    /// The user
    #[arg(value_name = "USER")]
    user: String,

    /// Why, in your own words, at most 500 characters; rests sealed
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    comment: String,

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

impl Restore {
    pub(in crate::cli) fn run(self) -> Outcome {
        let mut request = proto::RestoreUserRequest {
            organization_id: self.target.organization_id(),
            user_id: self.user,
            comment: self.comment,
            expected_revision: self.expected_revision,
            idempotency_key: self.repeat.idempotency_key(),
        };
        self.client.run(async |session| {
            session.aim(&mut request.organization_id).await?;
            let request = session.request(request)?;
            let got = Got::from(session.answer(service(session).restore_user(request)).await?);
            let code = session.print(&got, || got.to_text())?;
            if !session.json() {
                talk("done: they hold what they were granted from now on\n");
            }
            Ok(code)
        })
    }
}

/// End a user, for good, with their keys, their sessions and all that they were granted.
///
/// When this returns, all of that is refused everywhere. The same e-mail may be invited anew:
/// that is another user. Nobody removes themself.
#[derive(Args)]
#[command(after_help = "\
Example:
  keyledger user remove usr_01M3250V000000000000000001 --org vtx --comment 'has left'")]
pub(in crate::cli) struct Remove {
    /// The user
    #[arg(value_name = "USER")]
    user: String,

    /// Why, in your own words, at most 500 characters; rests sealed
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    comment: String,

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

impl Remove {
    pub(in crate::cli) fn run(self) -> Outcome {
        let mut request = proto::RemoveUserRequest {
            organization_id: self.target.organization_id(),
            user_id: self.user,
            comment: self.comment,
            expected_revision: self.expected_revision,
            idempotency_key: self.repeat.idempotency_key(),
        };
        self.client.run(async |session| {
            session.aim(&mut request.organization_id).await?;
            let request = session.request(request)?;
            let got = Got::from(session.answer(service(session).remove_user(request)).await?);
            let code = session.print(&got, || got.to_text())?;
            if !session.json() {
                talk("done: what they had is refused everywhere from now on\n");
            }
            Ok(code)
        })
    }
}
