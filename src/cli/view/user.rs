//! Users.

use std::collections::BTreeMap;

use serde::Serialize;

use super::super::output::{Fields, table};
use super::super::pages::Page;
use super::common::{Act, Principal, StreamRevision, entries, instant, short};
use crate::proto;

/// See `User` in `organization.proto`.
#[derive(Serialize)]
pub(in crate::cli) struct User {
    pub(in crate::cli) id: String,
    organization_id: String,
    state: String,
    identity_state: String,
    email: String,
    name: String,
    limits: BTreeMap<String, i64>,
    account_id: String,
    invited_at: Option<String>,
    invited_by: Option<Principal>,
    invitation_ends_at: Option<String>,
    joined_at: Option<String>,
    email_proven: bool,
    suspended: Option<Act>,
    removed: Option<Act>,
}

impl From<proto::User> for User {
    fn from(message: proto::User) -> Self {
        let state = short(message.state, "USER_STATE_", proto::UserState::as_str_name);
        let identity_state = short(
            message.identity_state,
            "USER_IDENTITY_STATE_",
            proto::UserIdentityState::as_str_name,
        );
        Self {
            id: message.id,
            organization_id: message.organization_id,
            state,
            identity_state,
            email: message.email,
            name: message.name,
            limits: message.limits,
            account_id: message.account_id,
            invited_at: instant(message.invited_at),
            invited_by: message.invited_by.map(Into::into),
            invitation_ends_at: instant(message.invitation_ends_at),
            joined_at: instant(message.joined_at),
            email_proven: message.email_proven,
            suspended: message.suspended.map(Into::into),
            removed: message.removed.map(Into::into),
        }
    }
}

impl User {
    /// What they are known by, or why that is not to be seen.
    fn shown<'a>(&'a self, text: &'a str) -> &'a str {
        match self.identity_state.as_str() {
            "erased" => "(erased)",
            "unreadable" => "(unreadable)",
            _ => text,
        }
    }

    fn describe(&self, fields: &mut Fields) {
        let by = self.invited_by.as_ref().map(Principal::to_text);
        let ends = self.invitation_ends_at.as_ref().filter(|_| self.state == "invited");
        fields
            .add("id", &self.id)
            .add("organization", &self.organization_id)
            .add("e-mail", self.shown(&self.email))
            .add("name", self.shown(&self.name))
            .add("state", &self.state)
            .add_all("limits", entries(&self.limits))
            .add("account", &self.account_id)
            .add_some("invited", self.invited_at.as_ref())
            .add_some("invited by", by.as_ref())
            .add_some("may accept until", ends)
            .add_some("joined", self.joined_at.as_ref());
        if self.joined_at.is_some() {
            fields.add("e-mail proven", if self.email_proven { "yes" } else { "no" });
        }
        for (what, act) in [("suspended", &self.suspended), ("removed", &self.removed)] {
            if let Some(act) = act {
                fields.add(what, &act.to_text()).add("comment", act.comment());
            }
        }
    }
}

/// One user, and where that was read or recorded.
#[derive(Serialize)]
pub(in crate::cli) struct Got {
    pub(in crate::cli) user: Option<User>,
    revision: Option<StreamRevision>,
}

macro_rules! got {
    ($($message:ident),+) => {$(
        impl From<proto::$message> for Got {
            fn from(message: proto::$message) -> Self {
                Self {
                    user: message.user.map(Into::into),
                    revision: message.revision.map(Into::into),
                }
            }
        }
    )+};
}
got!(
    GetUserResponse,
    UpdateUserResponse,
    SuspendUserResponse,
    RestoreUserResponse,
    RemoveUserResponse
);

impl Got {
    /// For people.
    pub(in crate::cli) fn to_text(&self) -> String {
        let mut fields = Fields::default();
        if let Some(user) = &self.user {
            user.describe(&mut fields);
        }
        fields.add_all("revision", self.revision.iter().map(StreamRevision::to_text));
        fields.to_text()
    }
}

/// A user who may join, and the one-time token that they join by.
#[derive(Serialize)]
pub(in crate::cli) struct Invited {
    pub(in crate::cli) user: Option<User>,
    revision: Option<StreamRevision>,
    pub(in crate::cli) invitation_token: String,
    pub(in crate::cli) invitation_sent: bool,
}

macro_rules! invited {
    ($($message:ident),+) => {$(
        impl From<proto::$message> for Invited {
            fn from(message: proto::$message) -> Self {
                Self {
                    user: message.user.map(Into::into),
                    revision: message.revision.map(Into::into),
                    invitation_token: message.invitation_token,
                    invitation_sent: message.invitation_sent,
                }
            }
        }
    )+};
}
invited!(InviteUserResponse, RenewInvitationResponse);

impl Invited {
    /// For people.
    pub(in crate::cli) fn to_text(&self) -> String {
        let mut fields = Fields::default();
        if let Some(user) = &self.user {
            user.describe(&mut fields);
        }
        fields
            .add("invitation", &self.invitation_token)
            .add_all("revision", self.revision.iter().map(StreamRevision::to_text));
        fields.to_text()
    }

    /// What becomes of the token, for people.
    pub(in crate::cli) fn note(&self) -> &'static str {
        match (self.invitation_sent, self.invitation_token.as_str()) {
            (true, _) => "done: the invitation is on its way to them\n",
            (false, "") => "note: this is a repeat: the first answer had the invitation\n",
            (false, _) => {
                "note: the invitation is shown this once: hand it over; `keyledger user accept` \
                 takes it\n"
            }
        }
    }
}

/// See `AcceptInvitationResponse`.
#[derive(Serialize)]
pub(in crate::cli) struct Accepted {
    organization_id: String,
    user_id: String,
    account_id: String,
    account_created: bool,
    revision: Option<StreamRevision>,
}

impl From<proto::AcceptInvitationResponse> for Accepted {
    fn from(message: proto::AcceptInvitationResponse) -> Self {
        Self {
            organization_id: message.organization_id,
            user_id: message.user_id,
            account_id: message.account_id,
            account_created: message.account_created,
            revision: message.revision.map(Into::into),
        }
    }
}

impl Accepted {
    /// For people.
    pub(in crate::cli) fn to_text(&self) -> String {
        let mut fields = Fields::default();
        fields
            .add("organization", &self.organization_id)
            .add("user", &self.user_id)
            .add("account", &self.account_id)
            .add("account made", if self.account_created { "now" } else { "before" })
            .add_all("revision", self.revision.iter().map(StreamRevision::to_text));
        fields.to_text()
    }
}

/// See `ListUsersResponse`.
#[derive(Serialize)]
pub(in crate::cli) struct Listed {
    users: Vec<User>,
    next_page_token: String,
    revision: Option<StreamRevision>,
}

impl From<proto::ListUsersResponse> for Listed {
    fn from(message: proto::ListUsersResponse) -> Self {
        Self {
            users: message.users.into_iter().map(Into::into).collect(),
            next_page_token: message.next_page_token,
            revision: message.revision.map(Into::into),
        }
    }
}

impl Listed {
    /// For people.
    pub(in crate::cli) fn to_text(&self) -> String {
        table(
            ["ID", "E-MAIL", "NAME", "STATE", "INVITED"],
            self.users.iter().map(|it| {
                [
                    it.id.clone(),
                    it.shown(&it.email).to_owned(),
                    it.shown(&it.name).to_owned(),
                    it.state.clone(),
                    it.invited_at.clone().unwrap_or_default(),
                ]
            }),
        )
    }
}

impl Page for Listed {
    fn next_page_token(&self) -> &str {
        &self.next_page_token
    }

    fn rows(&self) -> usize {
        self.users.len()
    }

    fn join(&mut self, later: Self) {
        self.users.extend(later.users);
        self.next_page_token = later.next_page_token;
        self.revision = later.revision;
    }
}
