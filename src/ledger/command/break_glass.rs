//! Intentions about break-glass.

use std::net::IpAddr;

use projections::api_key::Environment;
use projections::digest::ReasonDigest;
use projections::event::{
    BreakGlassAsked, BreakGlassRefused, BreakGlassRules, KeyedDigest, ReviewFinding,
};
use projections::id::{BreakGlassGrantId, OrganizationId};
use projections::permission::Scopes;
use projections::text::{Label, Name};
use projections::time::Timestamp;

/// What somebody wants of break-glass.
#[derive(Clone, Debug)]
pub enum BreakGlassCommand {
    /// Govern it by these rules, or turn it off.
    Configure(Option<BreakGlassRules>),
    /// Open a grant.
    Open(OpenGrant),
    /// Let a request pass, or refuse it; either is recorded.
    Use(UseGrant),
    /// Record that a request was refused.
    Refuse(BreakGlassRefused),
    /// Let somebody else's grant permit what it says.
    Approve(ByPerson),
    /// End a grant.
    Close(ByPerson),
    /// Say what came of a look at what was done.
    Review(ByPerson, ReviewFinding),
    /// Record the end of a grant whose time is over, or which the rules no longer allow.
    End {
        /// The grant.
        grant_id: BreakGlassGrantId,
        /// Since when this server is there to record it.
        server_since: Timestamp,
    },
    /// End a grant whose custodian was given another master key.
    Withdraw(BreakGlassGrantId),
    /// Record that a grant was not reviewed in time.
    Escalate(BreakGlassGrantId),
}

impl BreakGlassCommand {
    /// Whether it may open a grant.
    #[must_use]
    pub(super) fn opens(&self) -> bool {
        if let Self::Use(UseGrant { which: WhichGrant::ForReason(opening), .. }) = self {
            return opening.openings.is_some();
        }
        matches!(self, Self::Open(_))
    }

    /// Whether it may end a grant, and so what somebody is about to do elsewhere.
    #[must_use]
    pub(super) fn may_end_authority(&self) -> bool {
        matches!(self, Self::Configure(_))
    }
}

/// What a person does with a grant.
#[derive(Clone, Debug)]
pub struct ByPerson {
    /// The grant.
    pub grant_id: BreakGlassGrantId,
    /// Which custodian they are, where they show a master key.
    pub custodian: Option<Label>,
}

/// See [`BreakGlassCommand::Open`].
#[derive(Clone, Debug)]
pub struct OpenGrant {
    /// Its identifier.
    pub grant_id: BreakGlassGrantId,
    /// Whose master key was shown.
    pub custodian: Label,
    /// What stands for its token; none where the master key is shown with each request.
    pub token: Option<KeyedDigest>,
    /// What stands for the reason.
    pub reason: ReasonDigest,
    /// The incident that it is for.
    pub incident: Option<Name>,
    /// What it shall permit; none for all that may be.
    pub permissions: Option<Scopes>,
    /// How long it shall last; none for as long as is usual.
    pub duration_seconds: Option<u32>,
    /// How many grants were opened in all organizations within the time that is counted; none
    /// where that is not known, and so none may be opened.
    pub openings: Option<u32>,
}

/// See [`BreakGlassCommand::Use`].
#[derive(Clone, Debug)]
pub struct UseGrant {
    /// By what it is found.
    pub which: WhichGrant,
    /// What is asked, as it is recorded.
    pub asked: BreakGlassAsked,
    /// The organization that the request claims to be for.
    pub tenant: Option<OrganizationId>,
    /// Which environment answers it.
    pub environment: Option<Environment>,
    /// The address that it comes from.
    pub client_ip: Option<IpAddr>,
}

/// By what a grant is found.
#[derive(Clone, Debug)]
pub enum WhichGrant {
    /// By its token.
    Shown(BreakGlassGrantId),
    /// By custodian and reason. Where there is none, this one is opened.
    ForReason(OpenGrant),
}
