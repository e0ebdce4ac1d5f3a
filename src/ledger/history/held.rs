//! Who held something between two instants, and from when to when.
//!
//! The fold goes on from the first instant to the last, and looks again at whoever an event may
//! have given something or taken it from: one principal, or all where a role changed its
//! meaning. What ends by itself is looked at again when its time is over.

use std::collections::{BTreeMap, BTreeSet};

use projections::corrupt::CorruptHistory;
use projections::digest::LeafHash;
use projections::envelope::Envelope;
use projections::id::{BreakGlassGrantId, KeyId, OrganizationId, RoleId, ServiceAccountId, UserId};
use projections::key::KeyState;
use projections::organization::{Change, Organization};
use projections::permission::Permission;
use projections::principal::{Owner, Principal};
use projections::recorded::{Revision, StreamName};
use projections::role::Grant;
use projections::time::Timestamp;
use projections::verification::{Authority, Recognised, out_of_force};

use super::{FOLD_EVENTS_MAX, PastError, TURN_WITHIN, fold};
use crate::ledger::Ledger;
use crate::ledger::event_store::{READ_EVENTS_MAX, ReadError};
use crate::ledger::tables::Published;

/// Most looks at somebody for one question.
const LOOKS_MAX: u64 = 20_000_000;

/// What is asked about.
#[derive(Clone, Debug)]
pub enum Wanted {
    /// A permission, for the whole organization or for a domain: `resource:action`.
    Permission(String),
    /// A role.
    Role(RoleId),
}

/// Who can hold something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Holder {
    /// A service account.
    ServiceAccount(ServiceAccountId),
    /// A user.
    User(UserId),
    /// A key of the organization's own.
    Key(KeyId),
    /// A break-glass grant.
    BreakGlass(BreakGlassGrantId),
}

impl Holder {
    /// The 16 bytes of the identifier.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 16] {
        match self {
            Self::ServiceAccount(id) => id.to_bytes(),
            Self::User(id) => id.to_bytes(),
            Self::Key(id) => id.to_bytes(),
            Self::BreakGlass(id) => id.to_bytes(),
        }
    }
}

/// An event that gave something or took it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// The stream that it stands in: the organization's, or the operator's.
    pub stream: StreamName,
    /// Its place.
    pub revision: Revision,
}

/// A time in which somebody held something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldTime {
    /// Who.
    pub holder: Holder,
    /// The domains that it was held for; none for the whole organization.
    pub domains: BTreeSet<String>,
    /// Since when.
    pub from: Timestamp,
    /// What began it; none where it was held at the first instant.
    pub began_by: Option<Cause>,
    /// The first instant at which it was not held; none where it was to the end.
    pub to: Option<Timestamp>,
    /// What ended it; none where its time was over, or it did not end.
    pub ended_by: Option<Cause>,
}

/// The fold, and what came of it so far.
struct Holding {
    wanted: Wanted,
    tables: Organization,
    operator: Organization,
    open: BTreeMap<Holder, Open>,
    ends: BTreeSet<(Timestamp, Holder)>,
    times: Vec<HeldTime>,
    looks: u64,
}

/// A time that has not ended.
struct Open {
    domains: BTreeSet<String>,
    from: Timestamp,
    began_by: Option<Cause>,
}

/// Whom an event may have given something, or taken it from.
enum Concerned {
    Nobody,
    One(Holder),
    All,
}

impl Holding {
    /// The domains for which somebody holds it; empty for the whole organization, and none where
    /// they do not.
    fn held(&self, holder: Holder, now: Timestamp) -> Option<BTreeSet<String>> {
        let (tables, operator) = (&self.tables, &self.operator);
        let operator = if tables.id.is_operator() { tables } else { operator };
        let authority = match holder {
            Holder::ServiceAccount(id) if tables.service_account(id).is_some() => {
                Authority::of_owner(Owner::ServiceAccount(id), tables, operator, now)
            }
            Holder::User(id) if tables.user(id).is_some_and(|it| it.is_in_force()) => {
                Authority::of_owner(Owner::User(id), tables, operator, now)
            }
            Holder::Key(id) => match tables.key(id) {
                Some(key) if tables.key_state(key, now) == KeyState::Active => {
                    Authority::of(key, tables, operator, now)
                }
                _ => return None,
            },
            Holder::BreakGlass(id) => {
                let grant = Recognised::BreakGlass(tables.break_glass_grant(id)?);
                if out_of_force(grant, None, tables, operator, now).is_some() {
                    return None;
                }
                Authority::of_recognised(grant, tables, operator, now)
            }
            Holder::ServiceAccount(_) | Holder::User(_) => return None,
        };
        let domain = |grant: &Grant| grant.domain().map(ToString::to_string);
        let domains: BTreeSet<String> = match &self.wanted {
            Wanted::Permission(text) => {
                let wanted = Permission::parse(text).ok()?;
                if authority.holds(wanted) {
                    return Some(BTreeSet::new());
                }
                if !authority.holds_for_a_domain(wanted) {
                    return None;
                }
                let implying = authority.grants().filter(|(_, role)| role.implies(wanted));
                implying.filter_map(|(grant, _)| domain(grant)).collect()
            }
            Wanted::Role(id) => {
                if authority.role_ids().any(|it| it == *id) {
                    return Some(BTreeSet::new());
                }
                let granted = authority.grants().filter(|(grant, _)| grant.terms.role_id == *id);
                granted.filter_map(|(grant, _)| domain(grant)).collect()
            }
        };
        (!domains.is_empty()).then_some(domains)
    }

    /// When something of somebody's ends by itself, behind this instant.
    fn end_of(&self, holder: Holder, now: Timestamp) -> Option<Timestamp> {
        let granted = |principal| {
            let ends = self.tables.grants_of(principal).iter();
            ends.filter_map(|it| it.terms.expires_at).filter(|end| *end > now).min()
        };
        match holder {
            Holder::ServiceAccount(id) => granted(Principal::ServiceAccount(id)),
            Holder::User(id) => granted(Principal::User(id)),
            Holder::Key(id) => {
                let key = self.tables.key(id)?;
                let ends = [key.expires_at(), key.rotation().map(|it| it.ends_at)];
                ends.into_iter().flatten().filter(|end| *end > now).min()
            }
            Holder::BreakGlass(id) => {
                let end = self.tables.break_glass_grant(id)?.expires_at;
                (end > now).then_some(end)
            }
        }
    }

    /// Looks at somebody again: what they hold now began or ended by this.
    fn look(&mut self, holder: Holder, now: Timestamp, cause: Option<&Cause>) {
        self.looks += 1;
        if let Some(end) = self.end_of(holder, now) {
            self.ends.insert((end, holder));
        }
        let held = self.held(holder, now);
        if self.open.get(&holder).map(|it| &it.domains) == held.as_ref() {
            return;
        }
        // Held for other domains is held anew.
        if let Some(Open { domains, from, began_by }) = self.open.remove(&holder) {
            // What was given and taken within one instant was never held.
            if from < now {
                let (to, ended_by) = (Some(now), cause.cloned());
                self.times.push(HeldTime { holder, domains, from, began_by, to, ended_by });
            }
        }
        if let Some(domains) = held {
            self.open.insert(holder, Open { domains, from: now, began_by: cause.cloned() });
        }
    }

    fn look_at_all(&mut self, now: Timestamp, cause: Option<&Cause>) {
        let tables = &self.tables;
        let accounts = tables.service_accounts_after(None).map(|it| Holder::ServiceAccount(it.id));
        let users = tables.users_after(None).map(|it| Holder::User(it.id));
        let keys = tables.keys_after(None).filter(|it| it.owner().is_none());
        let keys = keys.map(|it| Holder::Key(it.id));
        let grants = tables.break_glass_grants_after(None).map(|it| Holder::BreakGlass(it.id));
        let all: Vec<Holder> = accounts.chain(users).chain(keys).chain(grants).collect();
        for holder in all {
            self.look(holder, now, cause);
        }
    }

    /// Lets time pass: what ends by itself until then has ended.
    fn pass(&mut self, now: Timestamp) {
        while let Some((end, holder)) = self.ends.first().copied().filter(|(end, _)| *end <= now) {
            self.ends.remove(&(end, holder));
            self.look(holder, end, None);
        }
    }

    fn concerned(&self, change: Change, before: &Organization) -> Concerned {
        match change {
            Change::Key(id) => match self.tables.key(id) {
                Some(key) if key.owner().is_none() => Concerned::One(Holder::Key(id)),
                _ => Concerned::Nobody,
            },
            Change::ServiceAccount(id) => Concerned::One(Holder::ServiceAccount(id)),
            Change::User(id) => Concerned::One(Holder::User(id)),
            Change::Grant(id) => {
                let grant = self.tables.grant(id).or_else(|| before.grant(id));
                match grant.map(|it| it.terms.principal) {
                    Some(Principal::ServiceAccount(id)) => {
                        Concerned::One(Holder::ServiceAccount(id))
                    }
                    Some(Principal::User(id)) => Concerned::One(Holder::User(id)),
                    _ => Concerned::Nobody,
                }
            }
            Change::Role(_) | Change::Rule => Concerned::All,
            // What was made under a grant ends with it.
            Change::BreakGlass(id) => {
                let ended = self.tables.break_glass_grant(id).is_some_and(|it| it.ended.is_some());
                if ended { Concerned::All } else { Concerned::One(Holder::BreakGlass(id)) }
            }
            Change::Redelivered
            | Change::Profile
            | Change::Policy
            | Change::Registration(_)
            | Change::Evidence
            | Change::Session(_) => Concerned::Nobody,
        }
    }

    /// An event of the organization's stream.
    fn step(
        &mut self,
        cause: &Cause,
        leaf_hash: LeafHash,
        envelope: &Envelope,
    ) -> Result<(), CorruptHistory> {
        self.pass(envelope.at);
        let before = self.tables.clone();
        let change = self.tables.apply_next(envelope, leaf_hash)?;
        match self.concerned(change, &before) {
            Concerned::Nobody => {}
            Concerned::One(holder) => self.look(holder, envelope.at, Some(cause)),
            Concerned::All => self.look_at_all(envelope.at, Some(cause)),
        }
        Ok(())
    }

    /// An event of the operator's: what built-in roles mean.
    fn step_operator(
        &mut self,
        cause: &Cause,
        leaf_hash: LeafHash,
        envelope: &Envelope,
    ) -> Result<(), CorruptHistory> {
        self.pass(envelope.at);
        let change = self.operator.apply_next(envelope, leaf_hash)?;
        if change == Change::Rule {
            self.look_at_all(envelope.at, Some(cause));
        }
        Ok(())
    }

    fn finish(mut self, to: Timestamp) -> Vec<HeldTime> {
        // What ends at the instant behind the last was held to the end.
        self.pass(to.saturating_add_millis(-1));
        let open = std::mem::take(&mut self.open);
        self.times.extend(open.into_iter().map(|(holder, it)| HeldTime {
            holder,
            domains: it.domains,
            from: it.from,
            began_by: it.began_by,
            to: None,
            ended_by: None,
        }));
        self.times.sort_by_key(|it| (it.holder.to_bytes(), it.holder, it.from));
        self.times
    }
}

impl Ledger {
    /// The times in which anybody held something, from one instant to another, in the order of
    /// their identifiers.
    ///
    /// # Errors
    ///
    /// The last instant has not come, more was recorded between than one request may read, or
    /// history cannot be read.
    pub async fn held_between(
        &self,
        organization: &Published,
        wanted: Wanted,
        (from, to): (Timestamp, Timestamp),
    ) -> Result<Vec<HeldTime>, PastError> {
        let Some(head) = organization.tables().head() else { return Ok(Vec::new()) };
        let now = self.now_for(&organization.tables());
        if to > now {
            return Err(PastError::Ahead(now));
        }
        let until = to.saturating_add_millis(-1);
        let first = self.last_at(organization, head, from).await?;
        let Some(last) = self.last_at(organization, head, until).await? else {
            return Ok(Vec::new());
        };
        let events = last.0.saturating_sub(first.map_or(0, |it| it.0));
        if events > FOLD_EVENTS_MAX {
            return Err(PastError::TooLong(events));
        }
        let tables = match first {
            Some(first) => Organization::clone(&*self.tables_at(organization, first).await?),
            None => Organization::new(organization.id),
        };
        let (operator, operators) = self.operator_between(organization.id, from, until).await?;
        let turn = tokio::time::timeout(TURN_WITHIN, self.history.turns.acquire()).await;
        let Ok(Ok(_turn)) = turn else { return Err(PastError::Busy) };
        let mut holding = Holding {
            wanted,
            tables,
            operator,
            open: BTreeMap::new(),
            ends: BTreeSet::new(),
            times: Vec::new(),
            looks: 0,
        };
        holding.look_at_all(from, None);
        let mut operators = operators.into_iter().peekable();
        let way = (Revision::after(first), last);
        let mut chunks = fold::read_ahead(&self.store, &organization.stream, way, u64::MAX);
        let operator_stream = StreamName::organization(OrganizationId::OPERATOR);
        while let Some(chunk) = chunks.recv().await {
            let (chunk, stream) = (chunk?, organization.stream.clone());
            let operator_stream = operator_stream.clone();
            let folding = tokio::task::spawn_blocking(move || {
                for (revision, leaf_hash, envelope) in chunk.into_events() {
                    let envelope = envelope.map_err(|fault| fault.at(revision))?;
                    while let Some((revision, leaf_hash, envelope)) =
                        operators.next_if(|it| it.2.at <= envelope.at)
                    {
                        let cause = Cause { stream: operator_stream.clone(), revision };
                        holding.step_operator(&cause, leaf_hash, &envelope)?;
                    }
                    let cause = Cause { stream: stream.clone(), revision };
                    holding.step(&cause, leaf_hash, &envelope)?;
                }
                Ok((holding, operators))
            });
            let folded = folding.await.map_err(|it| ReadError::Unavailable(it.to_string()))?;
            (holding, operators) = folded.map_err(|fault: CorruptHistory| {
                let stream = organization.stream.clone();
                ReadError::Corrupt { stream, revision: fault.revision, what: fault.to_string() }
            })?;
            if holding.looks > LOOKS_MAX {
                return Err(PastError::TooLong(events));
            }
        }
        for (revision, leaf_hash, envelope) in operators {
            let cause = Cause { stream: operator_stream.clone(), revision };
            holding.step_operator(&cause, leaf_hash, &envelope).map_err(|fault| {
                let stream = operator_stream.clone();
                ReadError::Corrupt { stream, revision: fault.revision, what: fault.to_string() }
            })?;
        }
        Ok(holding.finish(to))
    }

    /// The operator's tables at an instant, and its events behind it until another.
    async fn operator_between(
        &self,
        organization: OrganizationId,
        from: Timestamp,
        until: Timestamp,
    ) -> Result<(Organization, Vec<(Revision, LeafHash, Envelope)>), PastError> {
        let operator = self.tables.operator();
        let head = operator.tables().head().filter(|_| !organization.is_operator());
        let Some(head) = head else {
            return Ok((Organization::new(OrganizationId::OPERATOR), Vec::new()));
        };
        let first = self.last_at(operator, head, from).await?;
        let tables = match first {
            Some(first) => Organization::clone(&*self.tables_at(operator, first).await?),
            None => Organization::new(OrganizationId::OPERATOR),
        };
        let mut events = Vec::new();
        let Some(last) = self.last_at(operator, head, until).await? else {
            return Ok((tables, events));
        };
        let mut next = Revision::after(first);
        while next <= last {
            let wanted = usize::try_from(last.0 - next.0 + 1).unwrap_or(READ_EVENTS_MAX);
            let read = self.read_organization(operator, next, wanted.min(READ_EVENTS_MAX)).await?;
            next = Revision(next.0 + read.len() as u64);
            for recorded in read {
                let revision = recorded.revision;
                let envelope = Envelope::decode(&recorded.stored).map_err(|fault| {
                    let stream = operator.stream.clone();
                    ReadError::Corrupt { stream, revision, what: fault.at(revision).to_string() }
                })?;
                events.push((revision, recorded.leaf_hash, envelope));
            }
            if events.len() as u64 > FOLD_EVENTS_MAX {
                return Err(PastError::TooLong(events.len() as u64));
            }
        }
        Ok((tables, events))
    }
}
