//! `keyledger org policy`

use std::process::ExitCode;

use clap::Args;

use super::super::client::{Client, Repeat, Session};
use super::super::failure::{Failure, Outcome};
use super::super::flags::{self, Limit};
use super::super::output::talk;
use super::super::view::organization::PolicyNow;
use super::service;
use crate::proto;

/// How often a change is tried again because somebody else wrote in between.
const TRIES_MAX: usize = 8;
const CONFLICT: &str = "WRONG_EXPECTED_REVISION";

/// Show an organization's rules for its keys, or change them.
///
/// Without a flag it shows them; each flag changes one, and the others stay as they are. An
/// organization tightens its rules; only its operator loosens them. They hold for keys that
/// are made, imported, rotated or enabled from then on.
#[derive(Args)]
pub(in crate::cli) struct Policy {
    /// The organization, by identifier or by what its keys begin with [default: your key's own;
    /// an operator must name one]
    #[arg(env = "KEYLEDGER_ORG", value_name = "ORGANIZATION", value_parser = flags::not_empty)]
    organization_id: Option<String>,

    /// How long a key may live, such as 90d; `none` for as long as the plan allows
    #[arg(long, value_name = "DURATION", value_parser = flags::limit)]
    key_lifetime_max: Option<Limit>,

    /// How long the old key of a rotation may stay valid, such as 1h, or 0; `none` for 30d
    #[arg(long, value_name = "DURATION", value_parser = flags::limit)]
    rotation_grace_max: Option<Limit>,

    /// Whether a key must say from where it may be used
    #[arg(long, value_name = "BOOL")]
    allowed_ips_required: Option<bool>,

    /// Refuse if the organization's stream does not end at this revision
    #[arg(long, value_name = "REVISION")]
    expected_revision: Option<u64>,

    #[command(flatten)]
    repeat: Repeat,

    #[command(flatten)]
    client: Client,
}

impl Policy {
    pub(in crate::cli) fn run(self) -> Outcome {
        let asks = self.key_lifetime_max.is_some()
            || self.rotation_grace_max.is_some()
            || self.allowed_ips_required.is_some();
        let Self { client, expected_revision, .. } = self;
        let mut organization_id = self.organization_id.unwrap_or_default();
        let idempotency_key = self.repeat.idempotency_key();
        let changed = |before: proto::Policy| proto::Policy {
            key_lifetime_max: merged(self.key_lifetime_max, before.key_lifetime_max),
            rotation_grace_max: merged(self.rotation_grace_max, before.rotation_grace_max),
            allowed_ips_required: self.allowed_ips_required.unwrap_or(before.allowed_ips_required),
        };
        client.run(async |session| {
            session.aim(&mut organization_id).await?;
            let mut tries = 1;
            loop {
                let (before, revision) = read(session, &organization_id).await?;
                if !asks {
                    return show(session, &PolicyNow::new(before, revision), false);
                }
                // Whoever else changes the policy in between is not overruled unseen.
                let seen = revision.as_ref().map(|it| it.revision);
                let request = session.request(proto::UpdatePolicyRequest {
                    organization_id: organization_id.clone(),
                    policy: Some(changed(before)),
                    expected_revision: expected_revision.or(seen),
                    idempotency_key: idempotency_key.clone(),
                })?;
                match session.answer(service(session).update_policy(request)).await {
                    Ok(answer) => return show(session, &PolicyNow::from(answer), true),
                    Err(failure)
                        if failure.reason() == Some(CONFLICT)
                            && expected_revision.is_none()
                            && tries < TRIES_MAX =>
                    {
                        tries += 1;
                    }
                    Err(failure) => return Err(failure),
                }
            }
        })
    }
}

/// What a flag asks for, or what was.
fn merged(
    asked: Option<Limit>,
    before: Option<prost_types::Duration>,
) -> Option<prost_types::Duration> {
    asked.map_or(before, |limit| limit.map(flags::wire))
}

async fn read(
    session: &Session<'_>,
    organization_id: &str,
) -> Result<(proto::Policy, Option<proto::StreamRevision>), Failure> {
    let organization_id = organization_id.to_owned();
    let request = session.request(proto::GetOrganizationRequest { organization_id })?;
    let answer = session.answer(service(session).get_organization(request)).await?;
    let policy = answer.organization.and_then(|it| it.policy).unwrap_or_default();
    Ok((policy, answer.revision))
}

fn show(session: &Session<'_>, policy: &PolicyNow, changed: bool) -> Result<ExitCode, Failure> {
    let code = session.print(policy, || policy.to_text())?;
    if changed && !session.json() {
        talk("done: it holds for keys that are made, imported, rotated or enabled from now on\n");
    }
    Ok(code)
}
