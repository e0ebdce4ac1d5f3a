//! `keyledger key create`

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use zeroize::Zeroizing;

use super::super::client::{Client, Repeat, Session, Target};
use super::super::failure::{Failure, Outcome};
use super::super::flags::{self, Environment, environment, once_each};
use super::super::output::{print, talk, warn};
use super::super::view::key::Created;
use super::{role, service};
use crate::proto;
use crate::proto::create_key_request::Expiry;

const EXAMPLES: &str = "\
Examples:
  keyledger key create --org vtx --name ci --scope workflows:read,events:write
  keyledger key create --org vtx --name dns-bot --role dns-manager --environment live --lifetime 90d
  keyledger key create --org vtx --name laptop --user usr_01M3250V000000000000000001 --scope dns:read
  KEY=$(keyledger key create --org vtx --name edge --scope cache:purge --allow-ip 192.0.2.0/24 \
--secret-only)";

/// Create a key and show its secret, once.
///
/// A key needs scopes, roles or both: with both it may do what the roles permit and the
/// scopes name. You can give only what your own key holds.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(in crate::cli) struct Create {
    /// What it is called: 1 to 100 characters, no other active key's name
    #[arg(long)]
    name: String,

    /// What it is for, in at most 500 characters; no place for personal data
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,

    /// A permission to narrow it to, such as dns:read; repeat, or separate by commas
    #[arg(long = "scope", value_name = "PERMISSION", value_delimiter = ',')]
    scopes: Vec<String>,

    /// A role, by identifier or by the name of a built-in one, such as dns-manager; repeat, or
    /// separate by commas
    #[arg(long = "role", value_name = "ROLE", value_delimiter = ',')]
    roles: Vec<String>,

    /// A service it may be used for; repeat, or separate by commas [default: all, future ones
    /// included]
    #[arg(long = "service", value_name = "NAME", value_delimiter = ',')]
    services: Vec<String>,

    /// Where it may be used [default: live, without saying so in the key's text]
    #[arg(long, value_enum)]
    environment: Option<Environment>,

    /// When it stops being accepted, such as 2026-12-31T23:59:59Z [default: when the plan says so,
    /// else never]
    #[arg(long, value_name = "INSTANT", value_parser = flags::instant, conflicts_with = "lifetime")]
    expires_at: Option<prost_types::Timestamp>,

    /// How long it is accepted, such as 1h or 30d
    #[arg(long, value_name = "DURATION", value_parser = flags::duration)]
    lifetime: Option<Duration>,

    /// A text that whoever verifies the key is told; repeat for more
    #[arg(long, value_name = "KEY=VALUE", value_parser = flags::entry)]
    metadata: Vec<(String, String)>,

    /// A number that whoever verifies the key is told; repeat for more
    #[arg(long = "limit", value_name = "KEY=N", value_parser = flags::numeric_entry)]
    limits: Vec<(String, i64)>,

    /// Make it the key of this service account, whose roles it has
    #[arg(long, value_name = "SERVICE_ACCOUNT", conflicts_with = "roles")]
    service_account: Option<String>,

    /// Make it the key of this user: it holds what they were granted, and for anybody but
    /// yourself needs scopes, all of which you hold
    #[arg(long, value_name = "USER", conflicts_with_all = ["roles", "service_account"])]
    user: Option<String>,

    /// Where it may be used from, such as 192.0.2.7 or 192.0.2.0/24; repeat for more
    #[arg(long = "allow-ip", value_name = "NETWORK")]
    allowed_ips: Vec<String>,

    /// How often it may be used, such as 100/60s
    #[arg(long, value_name = "N/SECONDSs", value_parser = flags::rate_limit)]
    rate_limit: Option<proto::RateLimit>,

    /// Print the secret alone, for a script: KEY=$(keyledger key create … --secret-only)
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

impl Create {
    pub(in crate::cli) fn run(self: Box<Self>) -> Outcome {
        let Self { client, secret_only, .. } = *self;
        let mut request = proto::CreateKeyRequest {
            organization_id: self.target.organization_id(),
            name: self.name,
            description: self.description.unwrap_or_default(),
            scopes: some(self.scopes).map(|permissions| proto::Scopes { permissions }),
            role_ids: self.roles.iter().map(|it| role::id_of(it)).collect::<Result<_, _>>()?,
            services: some(self.services).map(|services| proto::ServiceAccess { services }),
            environment: environment(self.environment),
            expiry: expiry(self.expires_at, self.lifetime),
            metadata: once_each("--metadata", self.metadata)?,
            limits: once_each("--limit", self.limits)?,
            expected_revision: self.expected_revision,
            idempotency_key: self.repeat.idempotency_key(),
            service_account_id: self.service_account.unwrap_or_default(),
            user_id: self.user.unwrap_or_default(),
            allowed_ips: self.allowed_ips,
            rate_limit: self.rate_limit,
        };
        client.run(async |session| {
            session.aim(&mut request.organization_id).await?;
            let request = session.request(request)?;
            let answer = session.answer(service(session).create_key(request)).await?;
            show(session, &Created::from(answer), secret_only)
        })
    }
}

/// An empty list is refused on the wire; no flag means none at all.
pub(super) fn some(list: Vec<String>) -> Option<Vec<String>> {
    (!list.is_empty()).then_some(list)
}

fn expiry(at: Option<prost_types::Timestamp>, lifetime: Option<Duration>) -> Option<Expiry> {
    let after = |lifetime| Expiry::Lifetime(flags::wire(lifetime));
    at.map(Expiry::ExpiresAt).or(lifetime.map(after))
}

fn warn_of(created: &Created) {
    created.warn();
    if created.rules_for_ever() {
        warn(
            "this key may do everything in the whole installation, and never expires; `--scope` \
             narrows a key, `--lifetime` ends it",
        );
    }
}

fn show(session: &Session<'_>, created: &Created, secret_only: bool) -> Outcome {
    if !secret_only {
        let code = session.print(created, || created.to_text()).map_err(Failure::secret_lost)?;
        if created.secret_already_issued {
            talk("note: this is a repeat: the first answer showed the secret\n");
        } else {
            talk("note: the secret is shown this once; keep it now\n");
        }
        warn_of(created);
        return Ok(code);
    }
    if created.secret_already_issued {
        return Err(Failure::refusal("this is a repeat: the first answer showed the secret")
            .hint("if that answer was lost, revoke the key and create another"));
    }
    print_secret(&created.secret)?;
    warn_of(created);
    Ok(ExitCode::SUCCESS)
}

/// Prints a secret alone, on a line of its own.
pub(super) fn print_secret(secret: &str) -> Result<(), Failure> {
    let line = Zeroizing::new(format!("{secret}\n"));
    print(&line).map_err(Failure::secret_lost)
}

impl Failure {
    /// The key is there, its secret went nowhere.
    pub(super) fn secret_lost(self) -> Self {
        Self::fault("the key was made, but its secret could not be written")
            .hint("revoke it (`keyledger key list` shows it) and create another")
    }
}
