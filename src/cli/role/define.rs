//! What roles mean: `keyledger role list`, `get`, `create`, `update` and `retire`.

use clap::Args;

use super::super::client::{Client, Repeat, Target};
use super::super::failure::Outcome;
use super::super::key::role::id_of;
use super::super::output::talk;
use super::super::pages::{Page as _, Pages, talk_about};
use super::super::view::role::{Got, Listed};
use super::service;
use crate::proto;

/// List roles: the built-in ones, then the organization's own in order of creation.
#[derive(Args)]
pub(in crate::cli) struct List {
    #[command(flatten)]
    pages: Pages,

    #[command(flatten)]
    target: Target,

    #[command(flatten)]
    client: Client,
}

impl List {
    pub(in crate::cli) fn run(self) -> Outcome {
        let mut organization_id = self.target.organization_id();
        self.client.run(async |session| {
            session.aim(&mut organization_id).await?;
            let page = async |page_size, page_token| {
                let organization_id = organization_id.clone();
                let message = proto::ListRolesRequest { organization_id, page_size, page_token };
                let request = session.request(message)?;
                let call = async { service(session).list_roles(request).await };
                session.answer(call).await.map(Listed::from)
            };
            let listed = self.pages.fetch(page).await?;
            if !self.client.json() {
                talk_about(&listed, "roles");
            }
            session.print(&listed, || {
                if listed.rows() == 0 { String::new() } else { listed.to_text() }
            })
        })
    }
}

/// Show one role.
#[derive(Args)]
pub(in crate::cli) struct Get {
    /// The role, by identifier or by the name of a built-in one
    #[arg(value_name = "ROLE")]
    role: String,

    #[command(flatten)]
    target: Target,

    #[command(flatten)]
    client: Client,
}

impl Get {
    pub(in crate::cli) fn run(self) -> Outcome {
        let organization_id = self.target.organization_id();
        let mut request = proto::GetRoleRequest { organization_id, role_id: id_of(&self.role)? };
        self.client.run(async |session| {
            session.aim(&mut request.organization_id).await?;
            let request = session.request(request)?;
            let got = Got::from(session.answer(service(session).get_role(request)).await?);
            session.print(&got, || got.to_text())
        })
    }
}

/// Create a role of the organization's own.
///
/// You can let it permit only what your own key holds.
#[derive(Args)]
pub(in crate::cli) struct Create {
    /// What it is called: 1 to 64 characters of `a-z 0-9 -`, a letter first
    #[arg(long)]
    name: String,

    /// What it is for, in at most 500 characters; no place for personal data
    #[arg(long, value_name = "TEXT")]
    description: String,

    /// A permission, such as dns:read or dns:*; repeat, or separate by commas
    #[arg(long = "permission", value_name = "PERMISSION", value_delimiter = ',', required = true)]
    permissions: Vec<String>,

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
    pub(in crate::cli) fn run(self) -> Outcome {
        let mut request = proto::CreateRoleRequest {
            organization_id: self.target.organization_id(),
            name: self.name,
            description: self.description,
            permissions: self.permissions,
            expected_revision: self.expected_revision,
            idempotency_key: self.repeat.idempotency_key(),
        };
        self.client.run(async |session| {
            session.aim(&mut request.organization_id).await?;
            let request = session.request(request)?;
            let got = Got::from(session.answer(service(session).create_role(request)).await?);
            session.print(&got, || got.to_text())
        })
    }
}

/// Let a role of the organization's own mean something else.
///
/// It is true for everybody who has the role when this returns. You must hold all that the role
/// then permits.
#[derive(Args)]
pub(in crate::cli) struct Update {
    /// The role
    #[arg(value_name = "ROLE")]
    role: String,

    /// What it is called from now on [default: as it is]
    #[arg(long, default_value = "", hide_default_value = true)]
    name: String,

    /// What it is for [default: as it is]
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    description: String,

    /// All that it permits from now on; repeat, or separate by commas [default: as it is]
    #[arg(long = "permission", value_name = "PERMISSION", value_delimiter = ',')]
    permissions: Vec<String>,

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
    pub(in crate::cli) fn run(self) -> Outcome {
        let permissions = self.permissions;
        let mut request = proto::UpdateRoleRequest {
            organization_id: self.target.organization_id(),
            role_id: id_of(&self.role)?,
            name: self.name,
            description: self.description,
            permissions: (!permissions.is_empty())
                .then_some(proto::RolePermissions { permissions }),
            expected_revision: self.expected_revision,
            idempotency_key: self.repeat.idempotency_key(),
        };
        self.client.run(async |session| {
            session.aim(&mut request.organization_id).await?;
            let request = session.request(request)?;
            let got = Got::from(session.answer(service(session).update_role(request)).await?);
            session.print(&got, || got.to_text())
        })
    }
}

/// Let a role of the organization's own permit nothing any more, for good.
///
/// It is true for everybody who has the role when this returns.
#[derive(Args)]
pub(in crate::cli) struct Retire {
    /// The role
    #[arg(value_name = "ROLE")]
    role: String,

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

impl Retire {
    pub(in crate::cli) fn run(self) -> Outcome {
        let mut request = proto::RetireRoleRequest {
            organization_id: self.target.organization_id(),
            role_id: id_of(&self.role)?,
            comment: self.comment,
            expected_revision: self.expected_revision,
            idempotency_key: self.repeat.idempotency_key(),
        };
        self.client.run(async |session| {
            session.aim(&mut request.organization_id).await?;
            let request = session.request(request)?;
            let got = Got::from(session.answer(service(session).retire_role(request)).await?);
            let code = session.print(&got, || got.to_text())?;
            if !session.json() {
                talk("done: it permits nothing to anybody from now on\n");
            }
            Ok(code)
        })
    }
}
