//! Who may join: `keyledger user invite` and `renew`.

use std::time::Duration;

use clap::Args;

use super::super::client::{Client, Repeat, Target};
use super::super::failure::{Failure, Outcome};
use super::super::flags::{self, once_each};
use super::super::key::role::id_of;
use super::super::org::service;
use super::super::output::{safe, talk, warn};
use super::super::view::user::Invited;
use crate::proto;
use crate::proto::initial_grant::Expiry;

const EXAMPLES: &str = "\
Examples:
  keyledger user invite --org vtx --email alice@example.com --name 'Alice Doe' --role dns-manager
  keyledger user invite --org vtx --email bob@example.com --name Bob \
--role dns-manager@example.com --roles-lifetime 30d --limit max_concurrent_bots=3";

/// Make a user, who may join.
///
/// They hold at once what their roles permit, with keys alone until they join. You can give
/// only what your own key holds, there and for as long.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(in crate::cli) struct Invite {
    /// Their e-mail: no other user's of the organization; rests sealed
    #[arg(long, value_name = "E-MAIL")]
    email: String,

    /// What they are called: 1 to 100 characters; rests sealed
    #[arg(long)]
    name: String,

    /// A role, by identifier or by the name of a built-in one, everywhere or for one domain;
    /// repeat, or separate by commas
    #[arg(long = "role", value_name = "ROLE[@DOMAIN]", value_delimiter = ',')]
    roles: Vec<String>,

    /// When they lose these roles [default: never]
    #[arg(
        long,
        value_name = "INSTANT",
        value_parser = flags::instant,
        requires = "roles",
        conflicts_with = "roles_lifetime"
    )]
    roles_expire_at: Option<prost_types::Timestamp>,

    /// After how long they lose these roles, such as 30d [default: never]
    #[arg(long, value_name = "DURATION", value_parser = flags::duration, requires = "roles")]
    roles_lifetime: Option<Duration>,

    /// A number that whoever verifies what they present is told; repeat for more
    #[arg(long = "limit", value_name = "KEY=N", value_parser = flags::numeric_entry)]
    limits: Vec<(String, i64)>,

    /// How long they may accept, at most 30d [default: 7d]
    #[arg(long, value_name = "DURATION", value_parser = flags::duration)]
    invitation_lifetime: Option<Duration>,

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

impl Invite {
    pub(in crate::cli) fn run(self: Box<Self>) -> Outcome {
        let again = self.target.again();
        let lifetime = self.roles_lifetime.map(flags::wire).map(Expiry::Lifetime);
        let expiry = self.roles_expire_at.map(Expiry::ExpiresAt).or(lifetime);
        let grant = |role: &String| -> Result<_, Failure> {
            let (role, domain) = role.split_once('@').unwrap_or((role, ""));
            let (role_id, domain) = (id_of(role)?, domain.to_owned());
            Ok(proto::InitialGrant { role_id, domain, expiry })
        };
        let mut request = proto::InviteUserRequest {
            organization_id: self.target.organization_id(),
            email: self.email,
            name: self.name,
            limits: once_each("--limit", self.limits)?,
            grants: self.roles.iter().map(grant).collect::<Result<_, _>>()?,
            invitation_lifetime: self.invitation_lifetime.map(flags::wire),
            comment: self.comment,
            expected_revision: self.expected_revision,
            idempotency_key: self.repeat.idempotency_key(),
        };
        let without_roles = request.grants.is_empty();
        self.client.run(async |session| {
            session.aim(&mut request.organization_id).await?;
            let request = session.request(request)?;
            let got = Invited::from(session.answer(service(session).invite_user(request)).await?);
            let code = session.print(&got, || got.to_text())?;
            if let Some(user) = got.user.as_ref().filter(|_| !session.json()) {
                talk(got.note());
                let id = safe(&user.id);
                if without_roles {
                    warn("without a role they may do nothing");
                    talk(&format!(
                        "next: give them one: `keyledger role grant ROLE{again} --user {id}`\n"
                    ));
                }
            }
            Ok(code)
        })
    }
}

/// Let a user who has not joined accept for longer.
///
/// You must hold all that they were granted.
#[derive(Args)]
#[command(after_help = "\
Example:
  keyledger user renew usr_01M3250V000000000000000001 --org vtx --invitation-lifetime 14d")]
pub(in crate::cli) struct Renew {
    /// The user
    #[arg(value_name = "USER")]
    user: String,

    /// How long they may accept from now on, at most 30d [default: 7d]
    #[arg(long, value_name = "DURATION", value_parser = flags::duration)]
    invitation_lifetime: Option<Duration>,

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

impl Renew {
    pub(in crate::cli) fn run(self) -> Outcome {
        let mut request = proto::RenewInvitationRequest {
            organization_id: self.target.organization_id(),
            user_id: self.user,
            invitation_lifetime: self.invitation_lifetime.map(flags::wire),
            comment: self.comment,
            expected_revision: self.expected_revision,
            idempotency_key: self.repeat.idempotency_key(),
        };
        self.client.run(async |session| {
            session.aim(&mut request.organization_id).await?;
            let request = session.request(request)?;
            let got =
                Invited::from(session.answer(service(session).renew_invitation(request)).await?);
            let code = session.print(&got, || got.to_text())?;
            if !session.json() {
                talk(got.note());
            }
            Ok(code)
        })
    }
}
