//! Break-glass at work: master keys and tokens are recognised, requests under them recorded
//! and answered, grants opened within the limit, and ended when their time is over.
//!
//! The rules are in [`super::decide`]. What is here finds out who is there, counts the
//! openings of all organizations under one lock, and sees to it that every grant has an end.

mod index;
mod keeping;

use std::net::IpAddr;
use std::sync::Arc;

use projections::api_key::Environment;
use projections::break_glass::BreakGlassGrant;
use projections::event::{BreakGlassAsked, BreakGlassRefused, BreakGlassRules, DenialCode};
use projections::id::{AccountId, BreakGlassGrantId, OrganizationId};
use projections::organization::{Change, Organization};
use projections::permission::Scopes;
use projections::presented::GRANT_TOKEN_HEAD;
use projections::text::{CorrelationId, Description, Label, Name};
use projections::time::Timestamp;
use projections::verification::Code;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

pub use index::{Alert, AlertKind, BreakGlassGauges, BreakGlassIndex};

use super::command::{
    BreakGlassCommand, ByPerson, Caller, Command, OpenGrant, Order, Personal, UseGrant, WhichGrant,
};
use super::decide::break_glass::code_of;
use super::rejection::{BreakGlassRejection, Rejection};
use super::secret::NoEntropy;
use super::verify::Reach;
use super::{Executed, Ledger, LedgerError, mint};

/// What a master key begins with. No organization's keys do.
pub const MASTER_KEY_HEAD: &str = "klmk_";

/// A custodian whose master key was shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShownCustodian {
    /// What the custodian is called.
    pub name: Label,
    /// Their account.
    pub account_id: Option<AccountId>,
}

impl ShownCustodian {
    /// How commands name whoever showed the key.
    #[must_use]
    pub fn caller(&self) -> Caller {
        Caller::Custodian { account_id: self.account_id }
    }
}

/// A credential of break-glass that was recognised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Emergency {
    /// The token of a grant.
    Token {
        /// The organization that it is for.
        organization_id: OrganizationId,
        /// The grant.
        grant_id: BreakGlassGrantId,
    },
    /// A master key.
    MasterKey(ShownCustodian),
}

/// A request under break-glass, all but the credential.
#[derive(Clone)]
pub struct Emergent {
    /// What is asked, as it is recorded.
    pub asked: BreakGlassAsked,
    /// The organization that the request claims to be for.
    pub tenant: Option<OrganizationId>,
    /// Which environment answers it.
    pub environment: Option<Environment>,
    /// The address that it comes from.
    pub client_ip: Option<IpAddr>,
    /// The reason that was given; none where none was, and why not where it can be none.
    pub reason: GivenReason,
    /// Whose credentials the asker may know.
    pub reach: Reach,
    /// What ties it to all else that the same cause brings about.
    pub correlation_id: CorrelationId,
}

/// The reason of a request, as far as one was given.
#[derive(Clone, Default)]
pub enum GivenReason {
    /// None was.
    #[default]
    None,
    /// This one.
    Given(Description),
    /// What was given is no reason: too long, two different ones, or of characters that
    /// cannot be one.
    Unusable,
}

impl GivenReason {
    /// What was given is a reason, none, or unusable.
    #[must_use]
    pub fn of(text: Option<&str>) -> Self {
        let Some(text) = text.map(str::trim).filter(|text| !text.is_empty()) else {
            return Self::None;
        };
        let one_line = !text.chars().any(char::is_control);
        match text.parse() {
            Ok(reason) if one_line => Self::Given(reason),
            Ok(_) | Err(_) => Self::Unusable,
        }
    }
}

/// What came of a request under break-glass. It is on disk by now.
pub struct EmergencyAnswer {
    /// The answer.
    pub code: Code,
    /// The tables of its organization and the grant, where one was found or opened.
    pub found: Option<(Arc<Organization>, Arc<BreakGlassGrant>)>,
}

/// What a grant shall be.
pub struct Opening {
    /// The organization.
    pub organization_id: OrganizationId,
    /// Why.
    pub reason: Description,
    /// What it shall permit; none for all that may be.
    pub permissions: Option<Scopes>,
    /// How long it shall last, in seconds; none for as long as is usual.
    pub duration_seconds: Option<u32>,
    /// The incident that it is for.
    pub incident: Option<Name>,
}

impl Ledger {
    /// The rules of break-glass; none where it is off.
    #[must_use]
    pub fn break_glass_rules(&self) -> Option<Arc<BreakGlassRules>> {
        self.tables.operator().tables().installation()?.break_glass.clone()
    }

    /// Break-glass grants of all organizations, and alerts of them.
    #[must_use]
    pub fn break_glass(&self) -> &BreakGlassIndex {
        self.tables.break_glass()
    }

    /// The custodian whose master key this is. It takes as long whoever's it is, and nobody's.
    #[must_use]
    pub fn custodian(&self, master_key: &str) -> Option<ShownCustodian> {
        let rules = self.break_glass_rules()?;
        let sha256 = Sha256::digest(master_key.as_bytes());
        let mut found = None;
        for digest in self.peppers.digests(&sha256) {
            for custodian in &rules.custodians {
                if bool::from(digest.0.ct_eq(&custodian.digest.blake3.0)) {
                    let (name, account_id) = (custodian.name.clone(), custodian.account_id);
                    found = Some(ShownCustodian { name, account_id });
                }
            }
        }
        // What is an API key, too, would leave no trace as that: it is no master key.
        if found.is_some() && self.is_secret_of_key(master_key, &sha256) {
            tracing::error!(
                "a custodian's master key is the secret of an API key: it is refused; make a new one"
            );
            return None;
        }
        found
    }

    fn is_secret_of_key(&self, text: &str, sha256: &[u8]) -> bool {
        let index = self.tables.index();
        let mut digests = self.peppers.digests(text.as_bytes()).chain(self.peppers.digests(sha256));
        digests.any(|digest| index.key(&digest).is_some())
    }

    /// What this credential of break-glass is, as far as the asker may know.
    ///
    /// # Errors
    ///
    /// The code of the answer where it is none that may be used.
    pub fn emergency(&self, text: &str, reach: Reach) -> Result<Emergency, Code> {
        if self.break_glass_rules().is_none() {
            return Err(Code::BreakGlassDisabled);
        }
        if text.starts_with(GRANT_TOKEN_HEAD) {
            let found = self.break_glass().by_token(self.peppers.digests(text.as_bytes()));
            let (organization_id, grant_id) =
                found.filter(|(id, _)| reach.includes(*id)).ok_or(Code::Unknown)?;
            return Ok(Emergency::Token { organization_id, grant_id });
        }
        self.custodian(text).map(Emergency::MasterKey).ok_or(Code::Unknown)
    }

    /// Lets a request under break-glass pass or refuses it, once that is on disk. Dropping the
    /// future does not undo what was begun.
    ///
    /// # Errors
    ///
    /// It could not be recorded, and so nothing was decided.
    pub async fn use_break_glass(
        self: &Arc<Self>,
        emergency: Emergency,
        request: Emergent,
    ) -> Result<EmergencyAnswer, LedgerError> {
        match emergency {
            Emergency::Token { organization_id, grant_id } => {
                let which = WhichGrant::Shown(grant_id);
                let caller = Caller::BreakGlass { organization_id, grant_id };
                self.use_grant(organization_id, caller, which, &request, false).await
            }
            Emergency::MasterKey(custodian) => self.use_master_key(custodian, request).await,
        }
    }

    async fn use_master_key(
        self: &Arc<Self>,
        custodian: ShownCustodian,
        request: Emergent,
    ) -> Result<EmergencyAnswer, LedgerError> {
        let own = match request.reach {
            Reach::Installation => None,
            Reach::Organization(own) => Some(own),
        };
        let tenant = request.tenant.or(own);
        let organization = tenant
            .filter(|id| !id.is_operator())
            .and_then(|id| self.tables.organization(id))
            .filter(|it| it.stopped().is_some() || it.tables().profile().is_some());
        let elsewhere = own.is_some() && tenant != own;
        let reason = match &request.reason {
            GivenReason::Given(reason) => Some(reason.as_str()),
            GivenReason::None => {
                let required = self.break_glass_rules().is_none_or(|it| it.reason_required);
                if required { None } else { Some("") }
            }
            GivenReason::Unusable => None,
        };
        let (organization, reason) = match (organization, reason) {
            _ if elsewhere => {
                return self.refuse_custodian(None, custodian, request, Code::TenantMismatch).await;
            }
            (None, _) => {
                let code = Code::BreakGlassOrganizationRequired;
                return self.refuse_custodian(None, custodian, request, code).await;
            }
            (Some(organization), None) => {
                let code = Code::BreakGlassReasonRequired;
                let id = Some(organization.id);
                return self.refuse_custodian(id, custodian, request, code).await;
            }
            (Some(organization), Some(reason)) => (organization, reason),
        };
        let mut opening = OpenGrant {
            grant_id: self.ids.break_glass_grant(self.clock.now()),
            custodian: custodian.name.clone(),
            token: None,
            reason: self.stamper.reason(reason),
            incident: None,
            permissions: None,
            duration_seconds: None,
            openings: None,
        };
        let caller = custodian.caller();
        let which = WhichGrant::ForReason(opening.clone());
        let first = self.use_grant(organization.id, caller, which, &request, false).await;
        if !is_not_open(&first) {
            return first;
        }
        let limit = self.break_glass_rules().map_or(0, |it| it.openings_max);
        let so_far = self.openings();
        if so_far >= limit {
            // It is refused, whoever else opens meanwhile: nobody waits for that.
            opening.openings = Some(so_far);
            let which = WhichGrant::ForReason(opening);
            return self.use_grant(organization.id, caller, which, &request, true).await;
        }
        // The lock is held until the opening has landed, whoever waits for it.
        let this = Arc::clone(self);
        let opened = tokio::spawn(async move {
            let _one_at_a_time = this.opening.lock().await;
            opening.openings = Some(this.openings());
            let which = WhichGrant::ForReason(opening);
            this.use_grant(organization.id, caller, which, &request, true).await
        });
        opened.await.unwrap_or(Err(LedgerError::Closing))
    }

    /// How many grants were opened within the time that is counted.
    fn openings(&self) -> u32 {
        let Some(rules) = self.break_glass_rules() else { return 0 };
        let seconds = i64::from(rules.openings_seconds);
        let since = self.clock.now().saturating_add_millis(seconds.saturating_mul(-1_000));
        self.break_glass().openings_since(since)
    }

    async fn use_grant(
        self: &Arc<Self>,
        id: OrganizationId,
        caller: Caller,
        which: WhichGrant,
        request: &Emergent,
        tells_reason: bool,
    ) -> Result<EmergencyAnswer, LedgerError> {
        let found_by = which.clone();
        let command = UseGrant {
            which,
            asked: request.asked.clone(),
            tenant: request.tenant,
            environment: request.environment,
            client_ip: request.client_ip,
        };
        let mut personal = origin(request.client_ip);
        if let (true, GivenReason::Given(reason)) = (tells_reason, &request.reason) {
            personal.0.insert(Personal::COMMENT.to_owned(), reason.to_string());
        }
        let order = Order {
            caller,
            command: Command::BreakGlass(Box::new(BreakGlassCommand::Use(command))),
            expected: None,
            request: None,
            correlation_id: request.correlation_id.clone(),
            causation_id: None,
            personal,
            about: None,
        };
        let executed = self.execute(id, &order).await?;
        let tables = self.tables.organization(id).map(|it| Arc::clone(&it.tables()));
        let found = tables.and_then(|tables| {
            let grant = match &found_by {
                WhichGrant::Shown(id) => tables.break_glass_grant(*id).cloned(),
                WhichGrant::ForReason(opening) => {
                    tables.break_glass_grant_for(&opening.custodian, opening.reason).cloned()
                }
            };
            grant.map(|grant| (tables, grant))
        });
        Ok(EmergencyAnswer { code: code_of(executed.refused), found })
    }

    /// Records that a request under a custodian's master key was refused, in the history of the
    /// organization that it was for, or the operator's.
    async fn refuse_custodian(
        self: &Arc<Self>,
        organization_id: Option<OrganizationId>,
        custodian: ShownCustodian,
        request: Emergent,
        code: Code,
    ) -> Result<EmergencyAnswer, LedgerError> {
        let denied = super::denials::code(code).unwrap_or(DenialCode::NotInForce);
        let id = organization_id.unwrap_or(OrganizationId::OPERATOR);
        let caller = custodian.caller();
        let refused = BreakGlassRefused {
            grant_id: None,
            custodian: custodian.name,
            code: denied,
            asked: request.asked,
        };
        let around = (request.correlation_id, origin(request.client_ip));
        self.record_refusal(id, (caller, refused), around).await?;
        Ok(EmergencyAnswer { code, found: None })
    }

    /// Records that a custodian was refused what they asked of break-glass itself.
    ///
    /// # Errors
    ///
    /// It could not be recorded.
    pub async fn refuse_shown(
        self: &Arc<Self>,
        (organization_id, grant_id): (Option<OrganizationId>, Option<BreakGlassGrantId>),
        custodian: &ShownCustodian,
        (code, asked): (DenialCode, BreakGlassAsked),
        around: (CorrelationId, Personal),
    ) -> Result<(), LedgerError> {
        let id = organization_id.unwrap_or(OrganizationId::OPERATOR);
        let there = self.tables.organization(id);
        let is_there = |grant: &BreakGlassGrantId| {
            there.is_some_and(|it| it.tables().break_glass_grant(*grant).is_some())
        };
        let grant_id = grant_id.filter(is_there);
        let (caller, custodian) = (custodian.caller(), custodian.name.clone());
        let refused = BreakGlassRefused { grant_id, custodian, code, asked };
        self.record_refusal(id, (caller, refused), around).await
    }

    /// Counts that a credential of break-glass was shown that is nobody's, or while it is off.
    pub fn note_unknown_emergency(&self, code: Code) {
        self.count_unknown(super::denials::code(code).unwrap_or(DenialCode::Unknown));
    }

    /// Records that a request under a grant was refused where the ledger itself was called.
    ///
    /// # Errors
    ///
    /// It could not be recorded.
    pub async fn refuse_under_grant(
        self: &Arc<Self>,
        organization_id: OrganizationId,
        grant_id: BreakGlassGrantId,
        (code, asked): (DenialCode, BreakGlassAsked),
        around: (CorrelationId, Personal),
    ) -> Result<(), LedgerError> {
        let tables = self.tables.organization(organization_id);
        let grant = tables.and_then(|it| it.tables().break_glass_grant(grant_id).cloned());
        let grant = grant.ok_or(Rejection::BreakGlass(BreakGlassRejection::NotFound(grant_id)))?;
        let custodian = grant.custodian.clone();
        let caller = Caller::BreakGlass { organization_id, grant_id };
        let refused = BreakGlassRefused { grant_id: Some(grant_id), custodian, code, asked };
        self.record_refusal(organization_id, (caller, refused), around).await
    }

    async fn record_refusal(
        self: &Arc<Self>,
        id: OrganizationId,
        (caller, refused): (Caller, BreakGlassRefused),
        (correlation_id, personal): (CorrelationId, Personal),
    ) -> Result<(), LedgerError> {
        let (is_of_grant, custodian, code) =
            (refused.grant_id.is_some(), refused.custodian.clone(), refused.code);
        let command = Command::BreakGlass(Box::new(BreakGlassCommand::Refuse(refused)));
        let order = Order { caller, correlation_id, personal, ..self.ledgers_order(command) };
        // Whoever is told of it is told by the row of the grant, where there is one.
        let this = Arc::clone(self);
        let recorded = tokio::spawn(async move {
            this.execute(id, &order).await?;
            if !is_of_grant {
                this.break_glass().tell(Alert {
                    kind: AlertKind::Refused,
                    at: this.clock.now(),
                    organization_id: id,
                    custodian,
                    grant: None,
                    code: Some(code),
                });
            }
            Ok(())
        });
        recorded.await.unwrap_or(Err(LedgerError::Closing))
    }

    /// Opens a grant and gives its token, which is shown once.
    ///
    /// # Errors
    ///
    /// The rules refuse it, or it could not be recorded. Nothing was opened.
    pub async fn open_grant(
        self: &Arc<Self>,
        custodian: &ShownCustodian,
        opening: Opening,
        order: impl FnOnce(Command) -> Order,
    ) -> Result<(Executed, super::secret::Secret), OpenGrantError> {
        let minted = mint::mint_token(GRANT_TOKEN_HEAD, &self.peppers)?;
        let mut command = OpenGrant {
            grant_id: self.ids.break_glass_grant(self.clock.now()),
            custodian: custodian.name.clone(),
            token: Some(minted.digest),
            reason: self.stamper.reason(opening.reason.as_str()),
            incident: opening.incident,
            permissions: opening.permissions,
            duration_seconds: opening.duration_seconds,
            openings: None,
        };
        let mut order =
            order(Command::BreakGlass(Box::new(BreakGlassCommand::Open(command.clone()))));
        order.personal.0.insert(Personal::COMMENT.to_owned(), opening.reason.to_string());
        let this = Arc::clone(self);
        let opened = tokio::spawn(async move {
            let _one_at_a_time = this.opening.lock().await;
            command.openings = Some(this.openings());
            order.command = Command::BreakGlass(Box::new(BreakGlassCommand::Open(command)));
            this.execute(opening.organization_id, &order).await
        });
        let executed = opened.await.unwrap_or(Err(LedgerError::Closing))?;
        Ok((executed, minted.secret))
    }
}

/// Why a grant could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenGrantError {
    /// No token could be made.
    #[error(transparent)]
    NoEntropy(#[from] NoEntropy),
    /// It could not be recorded, or the rules refuse it.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// Where a request came from, to be sealed.
fn origin(client_ip: Option<IpAddr>) -> Personal {
    let mut personal = Personal::default();
    if let Some(address) = client_ip {
        personal.0.insert(Personal::ORIGIN_IP.to_owned(), address.to_string());
    }
    personal
}

fn is_not_open(answer: &Result<EmergencyAnswer, LedgerError>) -> bool {
    let not_open = Rejection::BreakGlass(BreakGlassRejection::NotOpen);
    matches!(answer, Err(LedgerError::Rejected(rejection)) if *rejection == not_open)
}

/// The change that a command about a grant made.
#[must_use]
pub fn grant_changed(executed: &Executed) -> Option<BreakGlassGrantId> {
    if let Change::BreakGlass(id) = executed.outcome { Some(id) } else { None }
}

/// What a person does with a grant, as a command.
#[must_use]
pub fn by_person(grant_id: BreakGlassGrantId, custodian: Option<&ShownCustodian>) -> ByPerson {
    ByPerson { grant_id, custodian: custodian.map(|it| it.name.clone()) }
}

/// The instant from which a server is there.
pub(super) type ServerSince = std::sync::OnceLock<Timestamp>;
