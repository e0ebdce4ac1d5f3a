//! The events that made a decision what it was.
//!
//! Most are named by the rows that were decided on: a row knows the events that made it what it
//! is. What is no row any more, a role that was taken away, is looked for backwards, as far as
//! one walk goes. An event counts where the decision would be another one without it; the newest
//! of those is said to decide.

use projections::account::Account;
use projections::activity::{ActionPattern, Filter};
use projections::envelope::Envelope;
use projections::event::Event;
use projections::id::AccountId;
use projections::key::Key;
use projections::permission::Permission;
use projections::principal::{Owner, Principal};
use projections::recorded::{Revision, StreamName};
use projections::role::{Grant, Role};
use projections::session::Session;
use projections::time::Timestamp;
use projections::verification::{Code, Decision, Question, Recognised};
use tonic::Status;

use super::{failed, past_event};
use crate::ledger::Ledger;
use crate::ledger::activity::{Direction, Step, Walk};
use crate::ledger::history::Past;
use crate::ledger::tables::Published;
use crate::proto;
use crate::services::status;

/// Most events of one instant that are looked through for one.
const INSTANT_EVENTS_MAX: usize = 10_000;
/// Most links of a chain that are found by looking back.
const LOOKED_UP_MAX: usize = 32;

/// What a chain is made from.
pub(super) struct Chain<'a> {
    pub(super) ledger: &'a Ledger,
    pub(super) organization: &'a Published,
    pub(super) past: &'a Past,
    pub(super) question: &'a Question<'a>,
}

/// A chain.
pub(super) struct Links {
    pub(super) links: Vec<proto::DecisionLink>,
    pub(super) complete: bool,
}

/// Where an event stands.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Of {
    Organization,
    Operator,
    Account(AccountId),
}

/// An event that a decision rests on, before it is read.
struct Found {
    of: Of,
    revision: Revision,
    fact: String,
    /// Whether the decision would be another one without it.
    counts: bool,
}

/// Gathers links.
struct Gathered {
    found: Vec<Found>,
    complete: bool,
    /// The event that made the credential: it decides where nothing else does.
    made: Option<Revision>,
}

impl Gathered {
    fn add(&mut self, of: Of, revision: Revision, fact: impl Into<String>, counts: bool) {
        let same = |it: &&mut Found| it.of == of && it.revision == revision;
        match self.found.iter_mut().find(same) {
            Some(it) => {
                it.counts |= counts;
                let fact = fact.into();
                if it.fact != fact {
                    it.fact = format!("{}; {fact}", it.fact);
                }
            }
            None => self.found.push(Found { of, revision, fact: fact.into(), counts }),
        }
    }

    fn own(&mut self, revision: Revision, fact: impl Into<String>, counts: bool) {
        self.add(Of::Organization, revision, fact, counts);
    }
}

impl Chain<'_> {
    /// The links of a decision, the newest first.
    pub(super) async fn links(
        &self,
        decision: &Decision<'_>,
        account: Option<&Account>,
        shows_operators: bool,
    ) -> Result<Links, Status> {
        let mut gathered = Gathered { found: Vec::new(), complete: true, made: None };
        match decision.credential {
            Recognised::Key(key) => self.key(&mut gathered, decision, key).await?,
            Recognised::Session(session) => {
                self.session(&mut gathered, decision, session, account).await?;
            }
            Recognised::BreakGlass(grant) => {
                let (code, counts) = (decision.code, decision.code == Code::Allowed);
                let permits = listed(grant.permissions.texts());
                let fact =
                    format!("the grant was opened, for {permits}, until {}", grant.expires_at);
                let by_itself = matches!(
                    code,
                    Code::Expired | Code::PermissionDenied | Code::BreakGlassApprovalPending
                );
                gathered.made = Some(grant.opened_by);
                gathered.own(grant.opened_by, fact, counts || by_itself);
                if let Some(approval) = &grant.approved {
                    gathered.own(approval.act.revision, "the grant was approved", counts);
                }
                if let Some(end) = &grant.ended {
                    gathered.own(end.act.revision, "the grant ended", out_of_force(code));
                }
                if matches!(code, Code::BreakGlassDisabled | Code::Revoked) {
                    let counts = code == Code::BreakGlassDisabled || grant.ended.is_none();
                    let action = "break_glass.configured";
                    let fact = "the operator's rules of break-glass became these";
                    self.look_up_rule(&mut gathered, (action, None), fact, counts).await?;
                }
            }
        }
        if let Some(owner) = decision.credential.owner() {
            self.owner(&mut gathered, decision, owner).await?;
        }
        self.authority(&mut gathered, decision).await?;
        self.gates(&mut gathered, decision).await?;
        self.read(gathered, shows_operators).await
    }

    /// What a key's own row says.
    async fn key(
        &self,
        gathered: &mut Gathered,
        decision: &Decision<'_>,
        key: &Key,
    ) -> Result<(), Status> {
        let (code, now) = (decision.code, self.past.at);
        let narrowed = code == Code::PermissionDenied && {
            let scopes = key.scopes.as_ref();
            scopes.is_some_and(|it| self.wanted().any(|wanted| !it.imply(wanted)))
                || (scopes.is_none() && key.roles().is_empty() && key.owner().is_none())
        };
        let by_itself = narrowed
            || matches!(
                code,
                Code::Allowed
                    | Code::Expired
                    | Code::IpNotAllowed
                    | Code::WrongEnvironment
                    | Code::ServiceNotAllowed
                    | Code::TenantMismatch
            );
        match self.made(key).await? {
            Some(revision) => {
                gathered.made = Some(revision);
                gathered.own(revision, made_fact(key), by_itself);
            }
            None => gathered.complete = false,
        }
        if let Some(revocation) = key.revocation() {
            gathered.own(revocation.act.revision, "the key was revoked", code == Code::Revoked);
        }
        if let Some(rotation) = key.rotation() {
            let over = rotation.ends_at <= now;
            let fact = format!(
                "key `{}` took its place; it stayed valid until {}",
                rotation.successor, rotation.ends_at
            );
            gathered.own(rotation.act.revision, fact, over && code == Code::Revoked);
        }
        if let Some(act) = key.disabled() {
            gathered.own(act.revision, "the key was disabled", code == Code::Disabled);
        }
        let last = self.envelope(&Of::Organization, key.changed_at).await?;
        if let Some(Event::KeyEnabled(_)) = last.as_ref().map(|it| &it.event) {
            gathered.own(key.changed_at, "the key was enabled again", code == Code::Allowed);
        }
        // What was made under a break-glass grant ends with it.
        if let Principal::BreakGlass(id) = key.maker.by
            && let Some(grant) = self.past.tables.break_glass_grant(id)
        {
            let counts = code == Code::Revoked && key.revocation().is_none();
            if let Some(end) = &grant.ended {
                let fact = "the break-glass grant that the key was made under ended";
                gathered.own(end.act.revision, fact, counts);
            } else {
                let fact = format!(
                    "the break-glass grant that the key was made under, until {}",
                    grant.expires_at
                );
                gathered.own(grant.opened_by, fact, counts);
            }
        }
        Ok(())
    }

    /// What a session's row says, and its account.
    async fn session(
        &self,
        gathered: &mut Gathered,
        decision: &Decision<'_>,
        session: &Session,
        account: Option<&Account>,
    ) -> Result<(), Status> {
        let code = decision.code;
        let fact = format!("the session began, until {}", session.expires_at);
        let by_itself = matches!(code, Code::Allowed | Code::Expired | Code::WrongEnvironment);
        gathered.made = Some(session.started_by);
        gathered.own(session.started_by, fact, by_itself || code == Code::MfaRequired);
        if let Some(end) = &session.ended {
            gathered.own(end.act.revision, "the session ended", code == Code::Revoked);
        }
        let last = self.envelope(&Of::Organization, session.changed_at).await?;
        if let Some(Event::SessionSteppedUp(_)) = last.as_ref().map(|it| &it.event) {
            let fact = "a second factor was shown";
            gathered.own(
                session.changed_at,
                fact,
                matches!(code, Code::Allowed | Code::MfaRequired),
            );
        }
        let Some(account) = account.filter(|it| !it.stands(session.id, session.epoch)) else {
            return Ok(());
        };
        let began = (session.id, session.epoch);
        let ended = self.ledger.past_sessions_end(account.id, began, self.past.at).await;
        let ended = ended.map_err(|error| failed(self.organization, error))?;
        if let Some(revision) = ended {
            let fact = "the account's sessions were ended, in every organization";
            gathered.add(Of::Account(account.id), revision, fact, code == Code::Revoked);
        }
        Ok(())
    }

    /// What the row of whoever a credential belongs to says, and what was taken from them.
    async fn owner(
        &self,
        gathered: &mut Gathered,
        decision: &Decision<'_>,
        owner: Owner,
    ) -> Result<(), Status> {
        let (code, tables) = (decision.code, &self.past.tables);
        match owner {
            Owner::User(id) => {
                let Some(user) = tables.user(id) else { return Ok(()) };
                if let Some(act) = &user.suspended {
                    gathered.own(act.revision, "the user was suspended", code == Code::Suspended);
                }
                if let Some(act) = &user.removed {
                    gathered.own(act.revision, "the user was removed", code == Code::Revoked);
                }
                let last = self.envelope(&Of::Organization, user.changed_at).await?;
                if let Some(Event::UserRestored(_)) = last.as_ref().map(|it| &it.event) {
                    let fact = "the user was restored";
                    gathered.own(user.changed_at, fact, code == Code::Allowed);
                }
            }
            Owner::ServiceAccount(id) => {
                if let Some(account) = tables.service_account(id) {
                    let roles = account.roles.len();
                    let fact = format!("the service account was made, with {}", roles_of(roles));
                    let counts = code == Code::Allowed && roles > 0;
                    gathered.own(account.changed_at, fact, counts);
                }
            }
        }
        if matches!(code, Code::PermissionDenied | Code::DomainNotAllowed) {
            self.taken(gathered, owner).await?;
        }
        Ok(())
    }

    /// Roles that were taken from somebody, or whose time was over: they are no rows any more.
    async fn taken(&self, gathered: &mut Gathered, owner: Owner) -> Result<(), Status> {
        let filter = Filter {
            action: action("role.*"),
            target: Some(owner.to_string()),
            ..Filter::default()
        };
        let now = self.past.at;
        let would_do = |id| {
            let role = projections::verification::role_in_force(
                id,
                &self.past.tables,
                &self.past.operator,
            );
            role.is_some_and(|role: &Role| self.wanted().any(|wanted| role.implies(wanted)))
        };
        let found = self.look_back(self.organization, &filter).await?;
        gathered.complete &= found.1;
        for (revision, envelope) in found.0 {
            if let Event::GrantRevoked(event) = &envelope.event {
                let fact = format!("role `{}` was taken back", event.before.role_id);
                gathered.own(revision, fact, would_do(event.before.role_id));
            } else if let Event::RoleGranted(event) = &envelope.event
                && let Some(end) = event.terms.expires_at.filter(|end| *end <= now)
            {
                let fact = format!("role `{}` was granted, until {end}", event.terms.role_id);
                gathered.own(revision, fact, would_do(event.terms.role_id));
            }
        }
        Ok(())
    }

    /// What the roles mean, and by which grants they are had.
    async fn authority(
        &self,
        gathered: &mut Gathered,
        decision: &Decision<'_>,
    ) -> Result<(), Status> {
        let (code, authority) = (decision.code, &decision.authority);
        let implies = |role: &Role| self.wanted().any(|wanted| role.implies(wanted));
        for id in authority.role_ids() {
            let own = self.past.tables.role(id);
            let of = if own.is_some() { Of::Organization } else { Of::Operator };
            let Some(role) = own.or_else(|| self.past.operator.built_in_role(id)) else { continue };
            let fact = match role.retired_at {
                Some(_) => format!("role `{}` was retired: it permits nothing", role.name),
                None => {
                    let permits = role.permissions().iter().map(|it| it.as_str());
                    format!("role `{}` permits {}", role.name, listed(permits))
                }
            };
            let denied = code == Code::PermissionDenied && !implies(role);
            // One that is what it always was takes nothing away.
            let counts = (code == Code::Allowed && implies(role))
                || (denied && self.was_changed(&of, role.changed_at).await?);
            gathered.add(of, role.changed_at, fact, counts);
        }
        for (grant, role) in authority.grants() {
            let does = implies(role);
            let counts = does && matches!(code, Code::Allowed | Code::DomainNotAllowed);
            gathered.own(grant.changed_at, granted_fact(grant, role), counts);
        }
        Ok(())
    }

    /// Whether this event gave a role another meaning than it was made with.
    async fn was_changed(&self, of: &Of, revision: Revision) -> Result<bool, Status> {
        let envelope = self.envelope(of, revision).await?;
        let changes =
            |event: &Event| matches!(event, Event::RoleUpdated(_) | Event::RoleRetired(_));
        Ok(envelope.is_some_and(|it| changes(&it.event)))
    }

    /// The rules that ask for more than that a permission is held.
    async fn gates(&self, gathered: &mut Gathered, decision: &Decision<'_>) -> Result<(), Status> {
        let code = decision.code;
        if !matches!(code, Code::FeatureNotLicensed | Code::MfaRequired) {
            return Ok(());
        }
        let operator = &self.past.operator;
        let Some(installation) = operator.installation() else { return Ok(()) };
        let mut patterns = Vec::new();
        for (pattern, rule) in installation.permission_rules.iter() {
            let licence = code == Code::FeatureNotLicensed;
            let asks = if licence { rule.feature.is_some() } else { rule.mfa.is_some() };
            let mut concerned = self.wanted().flat_map(|it| installation.permission_rules.of(it));
            if asks && concerned.any(|it| std::ptr::eq(it, rule)) {
                patterns.push(pattern.to_string());
            }
        }
        for pattern in patterns {
            let fact = format!("the rule of `{pattern}` became what it was");
            let which = ("permission_rule.defined", Some(pattern));
            self.look_up_rule(gathered, which, &fact, true).await?;
        }
        if code == Code::FeatureNotLicensed
            && let Some(profile) = self.past.tables.profile()
        {
            let plan = profile.plan.to_string();
            let fact = format!("plan `{plan}` became what it was");
            self.look_up_rule(gathered, ("plan.defined", Some(plan)), &fact, true).await?;
        }
        Ok(())
    }

    /// The last event of the operator's that set a rule.
    async fn look_up_rule(
        &self,
        gathered: &mut Gathered,
        (name, target): (&str, Option<String>),
        fact: &str,
        counts: bool,
    ) -> Result<(), Status> {
        let filter = Filter { action: action(name), target, ..Filter::default() };
        let operator = self.ledger.tables().operator();
        let (found, complete) = self.look_back_for(operator, &filter, 1).await?;
        gathered.complete &= complete;
        for (revision, _) in found {
            gathered.add(Of::Operator, revision, fact, counts);
        }
        Ok(())
    }

    /// All that is wanted.
    fn wanted(&self) -> impl Iterator<Item = Permission<'_>> {
        self.question.permissions.each()
    }

    /// The event that made a key, found by its time.
    async fn made(&self, key: &Key) -> Result<Option<Revision>, Status> {
        let is_it = |event: &Event| matches!(event, Event::KeyCreated(it) if it.key_id == key.id);
        self.at_instant(key.created_at, is_it).await
    }

    /// The event of this kind that was recorded at this instant.
    async fn at_instant(
        &self,
        at: Timestamp,
        is_it: impl Fn(&Event) -> bool,
    ) -> Result<Option<Revision>, Status> {
        let Some(head) = self.past.tables.head() else { return Ok(None) };
        let before = at.saturating_add_millis(-1);
        let before = self.ledger.last_at(self.organization, head, before).await;
        let before = before.map_err(|error| status::from_read(&error))?;
        let (direction, rows) = (Direction::OldestFirst, 16);
        let mut walk = Walk::new(self.ledger, self.organization, head, direction, rows);
        if let Some(before) = before {
            walk.continue_behind(before);
        }
        for _ in 0..INSTANT_EVENTS_MAX {
            match walk.step().await.map_err(|error| status::from_read(&error))? {
                Step::Event(_, envelope) if envelope.at > at => return Ok(None),
                Step::Event(revision, envelope) if is_it(&envelope.event) => {
                    return Ok(Some(revision));
                }
                Step::Event(..) => {}
                Step::End | Step::WorkLimit => return Ok(None),
            }
        }
        Ok(None)
    }

    async fn look_back(
        &self,
        organization: &Published,
        filter: &Filter,
    ) -> Result<(Vec<(Revision, Envelope)>, bool), Status> {
        self.look_back_for(organization, filter, LOOKED_UP_MAX).await
    }

    /// The last events of a stream that a filter shows, up to the moment; and whether there are
    /// no more of them further back than one walk goes.
    async fn look_back_for(
        &self,
        organization: &Published,
        filter: &Filter,
        events_max: usize,
    ) -> Result<(Vec<(Revision, Envelope)>, bool), Status> {
        let Past { tables, operator, .. } = self.past;
        let own = organization.id == tables.id;
        let head = if own { tables.head() } else { operator.head() };
        let Some(head) = head else { return Ok((Vec::new(), true)) };
        let walk = Walk::new(self.ledger, organization, head, Direction::NewestFirst, 64);
        let mut walk = walk.looking_for(filter.terms());
        let mut found = Vec::new();
        while found.len() < events_max {
            match walk.step().await.map_err(|error| status::from_read(&error))? {
                Step::Event(revision, envelope) if filter.shows(&envelope) => {
                    found.push((revision, *envelope));
                }
                Step::Event(..) => {}
                Step::End => return Ok((found, true)),
                Step::WorkLimit => return Ok((found, false)),
            }
        }
        Ok((found, true))
    }

    /// One event.
    async fn envelope(&self, of: &Of, revision: Revision) -> Result<Option<Envelope>, Status> {
        let read = match of {
            Of::Organization => self.ledger.event(self.organization, revision).await,
            Of::Operator => self.ledger.event(self.ledger.tables().operator(), revision).await,
            Of::Account(id) => self.ledger.account_event(*id, revision).await,
        };
        let recorded = read.map_err(|error| status::from_read(&error))?;
        Ok(recorded.and_then(|it| Envelope::decode(&it.stored).ok()))
    }

    /// Reads what was found: the events themselves, the newest first.
    async fn read(&self, gathered: Gathered, shows_operators: bool) -> Result<Links, Status> {
        let Gathered { found, mut complete, made } = gathered;
        let mut read = Vec::with_capacity(found.len());
        for it in found {
            match self.envelope(&it.of, it.revision).await? {
                Some(envelope) => read.push((envelope, it)),
                None => complete = false,
            }
        }
        read.sort_by(|(one, a), (two, b)| {
            (two.at, b.revision).cmp(&(one.at, a.revision)).then_with(|| a.of.cmp(&b.of))
        });
        let is_making =
            |it: &Found| it.of == Of::Organization && made.is_some_and(|made| it.revision == made);
        let decides = read.iter().position(|(_, it)| it.counts);
        let decides = decides.or_else(|| read.iter().position(|(_, it)| is_making(it)));
        let links = read.iter().enumerate().map(|(place, (envelope, it))| {
            let stream = match &it.of {
                Of::Organization => self.organization.stream.clone(),
                Of::Operator => self.ledger.tables().operator().stream.clone(),
                Of::Account(id) => StreamName::account(*id),
            };
            let mut event = past_event(&stream, it.revision, envelope, &self.past.tables);
            // What an operator's staff acts with is for operators alone, in their own stream.
            if it.of == Of::Operator && !shows_operators && !self.organization.id.is_operator() {
                event.credential_id.clear();
                event.sentence = format!("`{}` was recorded by the operator", event.action);
            }
            let (fact, decides) = (it.fact.clone(), decides == Some(place));
            proto::DecisionLink { event: Some(event), fact, decides }
        });
        Ok(Links { links: links.collect(), complete })
    }
}

fn out_of_force(code: Code) -> bool {
    matches!(code, Code::Revoked | Code::Expired)
}

fn action(name: &str) -> Option<ActionPattern> {
    name.parse().ok()
}

/// What a key is, from its making on.
fn made_fact(key: &Key) -> String {
    let mut fact = "the key was made".to_owned();
    if let Some(scopes) = &key.scopes {
        fact.push_str(&format!(", with scopes {}", listed(scopes.texts())));
    }
    if !key.roles().is_empty() {
        fact.push_str(&format!(", with {}", roles_of(key.roles().len())));
    }
    if let Some(owner) = key.owner() {
        fact.push_str(&format!(", for `{owner}`"));
    }
    if let Some(services) = key.services() {
        fact.push_str(&format!(", for services {}", listed(services.iter().map(|it| it.as_str()))));
    }
    if let Some(allowed) = key.allowed_ips() {
        let texts: Vec<String> = allowed.texts().collect();
        fact.push_str(&format!(", for requests from {}", listed(texts.iter().map(String::as_str))));
    }
    if let Some(end) = key.expires_at() {
        fact.push_str(&format!(", until {end}"));
    }
    fact
}

fn granted_fact(grant: &Grant, role: &Role) -> String {
    let mut fact = format!("role `{}` was granted", role.name);
    if let Some(domain) = grant.domain() {
        fact.push_str(&format!(" for `{domain}`"));
    }
    if let Some(end) = grant.terms.expires_at {
        fact.push_str(&format!(", until {end}"));
    }
    fact
}

fn roles_of(roles: usize) -> String {
    match roles {
        0 => "no roles".to_owned(),
        1 => "1 role".to_owned(),
        many => format!("{many} roles"),
    }
}

/// Most texts of a list that are shown.
const LISTED_MAX: usize = 8;

/// The first of them, between backticks.
fn listed<'a>(texts: impl Iterator<Item = &'a str>) -> String {
    let texts: Vec<&str> = texts.collect();
    let shown: Vec<String> = texts.iter().take(LISTED_MAX).map(|it| format!("`{it}`")).collect();
    match texts.len().saturating_sub(LISTED_MAX) {
        0 if shown.is_empty() => "nothing".to_owned(),
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}
