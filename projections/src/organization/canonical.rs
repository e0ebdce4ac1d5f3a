//! The canonical bytes of an organization's tables.
//!
//! Not in them: what follows from what is (who bears a name is a flag of the row; the keys
//! of a service account, the ends of keys and grants, and whose prefix is whose are worked
//! out), the
//! rows that departed, and what rows happen to share.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};

use super::keys::owned;
use super::people::People;
use super::roles::place;
use super::{Change, Departed, Head, Organization, Profile, RememberedRequest};
use crate::break_glass::{Approval, BreakGlassGrant, BreakGlassTable, GrantEnd, Review};
use crate::digest::{NameDigest, RequestContent, RequestId};
use crate::event::{BreakGlassRules, GrantTerms, PlanRules};
use crate::id::{KeyId, OrganizationId};
use crate::installation::{Installation, PermissionRules, Registration, SigningKeyRow};
use crate::key::{Key, Maker, ROW_BYTES_MIN, Shared};
use crate::permission::{PermissionPattern, Scopes};
use crate::policy::Policy;
use crate::principal::Principal;
use crate::recorded::Revision;
use crate::role::{Grant, Role};
use crate::service_account::ServiceAccount;
use crate::session::{Session, SessionEnd};
use crate::snapshot::{
    Canonical, FORM, Malformed, Reader, ascending, row, write_count, write_text,
};
use crate::text::PlanName;
use crate::time::Timestamp;
use crate::user::{Identity, User, UserState};

row!(Head { revision, leaf_hash, at });
row!(SigningKeyRow { public_key, added_at, retired_at });
row!(Profile { name, key_prefix, plan, created_at, personal_of });
row!(Role { id, name, description, permissions, built_in, created_at, retired_at, changed_at });
row!(GrantTerms { principal, role_id, domain, expires_at });
row!(Grant { id, terms, granted_at, granted_by, changed_at });
row!(SessionEnd { reason, act });
row!(Session {
    id,
    user_id,
    account_id,
    epoch,
    methods,
    second_factor_at,
    started_at,
    expires_at,
    ended,
    started_by,
    changed_at,
});
row!(Approval { account_id, custodian, act });
row!(GrantEnd { reason, ended_at, server_was_down, act });
row!(Review { account_id, custodian, finding, act });
row!(BreakGlassGrant {
    id,
    custodian,
    account_id,
    token,
    reason,
    incident,
    permissions,
    duration_seconds,
    opened_at,
    opened_by,
    awaits_approval,
    approved,
    expires_at,
    uses,
    last_used_at,
    refusals,
    ended,
    escalated_at,
    reviewed,
    changed_at,
});
row!(Identity { event_id, sealed });
row!(User {
    id,
    email,
    account_id,
    limits,
    invitation_ends_at,
    invited_at,
    invited_by,
    joined_at,
    email_proven,
    suspended,
    removed,
    identity,
    changed_at,
});
row!(ServiceAccount { id, name, description, roles, created_at, created_by, changed_at });

impl Canonical for Change {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Redelivered => out.push(0),
            Self::Key(id) => {
                out.push(1);
                id.write(out);
            }
            Self::Profile => out.push(2),
            Self::ServiceAccount(id) => {
                out.push(3);
                id.write(out);
            }
            Self::Policy => out.push(4),
            Self::Registration(id) => {
                out.push(5);
                id.write(out);
            }
            Self::Rule => out.push(6),
            Self::Evidence => out.push(7),
            Self::Role(id) => {
                out.push(8);
                id.write(out);
            }
            Self::Grant(id) => {
                out.push(9);
                id.write(out);
            }
            Self::User(id) => {
                out.push(10);
                id.write(out);
            }
            Self::Session(id) => {
                out.push(11);
                id.write(out);
            }
            Self::BreakGlass(id) => {
                out.push(12);
                id.write(out);
            }
        }
    }
    fn read(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(match u8::read(from)? {
            0 => Self::Redelivered,
            1 => Self::Key(Canonical::read(from)?),
            2 => Self::Profile,
            3 => Self::ServiceAccount(Canonical::read(from)?),
            4 => Self::Policy,
            5 => Self::Registration(Canonical::read(from)?),
            6 => Self::Rule,
            7 => Self::Evidence,
            8 => Self::Role(Canonical::read(from)?),
            9 => Self::Grant(Canonical::read(from)?),
            10 => Self::User(Canonical::read(from)?),
            11 => Self::Session(Canonical::read(from)?),
            12 => Self::BreakGlass(Canonical::read(from)?),
            _ => return Err(Malformed("a change is of an unknown kind")),
        })
    }
}

impl Canonical for People {
    fn write(&self, out: &mut Vec<u8>) {
        // All else follows from the rows.
        let Self { users, by_email: _, by_account: _, sessions, sessions_of: _, forgotten: _ } =
            self;
        write_count(users.len(), out);
        users.values().for_each(|user| user.write(out));
        write_count(sessions.len(), out);
        sessions.values().for_each(|session| session.write(out));
    }
    fn read(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let mut it = Self::default();
        for _ in 0..from.count(48)? {
            let user = User::read(from)?;
            ascending(it.users.get_max().map(|(last, _)| last), &user.id)?;
            let there = user.state() != UserState::Removed;
            let known = user.account_id.is_some_and(|id| it.by_account.contains_key(&id));
            if there && (known || it.by_email.contains_key(&user.email)) {
                return Err(Malformed("two users are one person"));
            }
            it.restore_user(user);
        }
        for _ in 0..from.count(48)? {
            let session = Session::read(from)?;
            ascending(it.sessions.get_max().map(|(last, _)| last), &session.id)?;
            if !session.methods.is_sorted_by(|a, b| a < b) {
                return Err(Malformed("methods have another spelling"));
            }
            it.put_session(session);
        }
        Ok(it)
    }
}

impl Canonical for BreakGlassTable {
    fn write(&self, out: &mut Vec<u8>) {
        // All else follows from the rows: the last grant of a reason is the one that was
        // opened last.
        let Self { grants, by_reason: _, open: _ } = self;
        write_count(grants.len(), out);
        grants.values().for_each(|grant| grant.write(out));
    }
    fn read(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let mut it = Self::default();
        let mut rows = Vec::new();
        for _ in 0..from.count(64)? {
            let grant = BreakGlassGrant::read(from)?;
            ascending(rows.last().map(|last: &BreakGlassGrant| &last.id), &grant.id)?;
            rows.push(grant);
        }
        rows.sort_by_key(|grant| grant.opened_by);
        rows.into_iter().for_each(|grant| it.put(grant));
        Ok(it)
    }
}

/// A remembered request, as it stands in the list by age.
struct Remembered {
    at: Timestamp,
    id: RequestId,
    content: RequestContent,
    outcome: Change,
    revision: Revision,
}

row!(Remembered { at, id, content, outcome, revision });

impl Canonical for Installation {
    fn write(&self, out: &mut Vec<u8>) {
        // Whose prefix is whose follows from the organizations.
        let Self {
            id,
            pepper,
            peppers,
            organizations,
            prefixes: _,
            plans,
            permission_rules,
            schemas,
            signing_keys,
            break_glass,
        } = self;
        id.write(out);
        pepper.write(out);
        write_map(peppers, out);
        write_count(organizations.len(), out);
        for (id, Registration { profile, event_id }) in organizations {
            id.write(out);
            profile.write(out);
            event_id.write(out);
        }
        write_map(plans, out);
        write_count(permission_rules.iter().len(), out);
        for (pattern, rule) in permission_rules.iter() {
            pattern.write(out);
            rule.write(out);
        }
        write_count(schemas.len(), out);
        schemas.iter().for_each(|schema| schema.write(out));
        write_map(signing_keys, out);
        break_glass.is_some().write(out);
        if let Some(rules) = break_glass {
            rules.write(out);
        }
    }
    fn read(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let id = Canonical::read(from)?;
        let pepper = Canonical::read(from)?;
        let peppers = read_map(from)?;
        let mut organizations: OrdMap<OrganizationId, Registration> = OrdMap::new();
        let mut prefixes = OrdMap::new();
        for _ in 0..from.count(32)? {
            let id = Canonical::read(from)?;
            ascending(organizations.get_max().map(|(last, _)| last), &id)?;
            let profile: Arc<Profile> = Arc::new(Canonical::read(from)?);
            let event_id = Canonical::read(from)?;
            if prefixes.insert(profile.key_prefix.clone(), id).is_some() {
                return Err(Malformed("two organizations have one prefix"));
            }
            organizations.insert(id, Registration { profile, event_id });
        }
        let plans: OrdMap<PlanName, PlanRules> = read_map(from)?;
        if plans.values().any(|it| !it.features.is_sorted_by(|a, b| a < b)) {
            return Err(Malformed("features have another spelling"));
        }
        let mut permission_rules = PermissionRules::default();
        for _ in 0..from.count(3)? {
            let pattern: PermissionPattern = Canonical::read(from)?;
            ascending(permission_rules.iter().next_back().map(|(last, _)| last), &pattern)?;
            permission_rules.insert(pattern, Canonical::read(from)?);
        }
        let mut schemas = OrdSet::new();
        for _ in 0..from.count(2)? {
            let schema = Canonical::read(from)?;
            ascending(schemas.get_max(), &schema)?;
            schemas.insert(schema);
        }
        let signing_keys = read_map(from)?;
        let break_glass = Option::<BreakGlassRules>::read(from)?.map(Arc::new);
        Ok(Self {
            id,
            pepper,
            peppers,
            organizations,
            prefixes,
            plans,
            permission_rules,
            schemas,
            signing_keys,
            break_glass,
        })
    }
}

fn write_map<K: Canonical + Ord, V: Canonical>(map: &OrdMap<K, V>, out: &mut Vec<u8>) {
    write_count(map.len(), out);
    for (key, value) in map {
        key.write(out);
        value.write(out);
    }
}

fn read_map<K: Canonical + Ord + Clone, V: Canonical + Clone>(
    from: &mut Reader<'_>,
) -> Result<OrdMap<K, V>, Malformed> {
    let mut map: OrdMap<K, V> = OrdMap::new();
    for _ in 0..from.count(2)? {
        let key = K::read(from)?;
        ascending(map.get_max().map(|(last, _)| last), &key)?;
        map.insert(key, V::read(from)?);
    }
    Ok(map)
}

/// Distinct values that rows share, in order, and the place of each.
struct Places<T>(HashMap<T, usize>);

impl<T: Copy + Ord + std::hash::Hash> Places<T> {
    fn of(values: impl Iterator<Item = T>) -> (Vec<T>, Self) {
        let distinct: HashSet<T> = values.collect();
        let mut distinct: Vec<T> = distinct.into_iter().collect();
        distinct.sort_unstable();
        let places = distinct.iter().enumerate().map(|(place, value)| (*value, place)).collect();
        (distinct, Self(places))
    }

    fn place(&self, value: T) -> usize {
        let place = self.0.get(&value).copied();
        debug_assert!(place.is_some(), "every row's value is in the list");
        place.unwrap_or_default()
    }
}

impl Organization {
    /// The canonical bytes of the tables: equal for equal tables, and different for others.
    #[must_use]
    pub fn to_canonical(&self) -> Vec<u8> {
        let Self {
            id,
            head,
            profile,
            policy,
            service_accounts,
            service_account_names,
            owned: _,
            keys,
            names,
            ends: _,
            keys_made,
            revoked_keys,
            departed: _,
            shared: _,
            roles,
            role_names,
            grants,
            granted: _,
            grants_of_roles: _,
            grant_ends: _,
            people,
            break_glass,
            requests,
            requests_by_age,
            installation,
        } = self;
        let mut out = Vec::with_capacity(1_024 + keys.len() * 100);
        out.push(FORM);
        id.write(&mut out);
        head.write(&mut out);
        profile.is_some().write(&mut out);
        if let Some(profile) = profile {
            profile.write(&mut out);
        }
        policy.write(&mut out);
        write_count(service_accounts.len(), &mut out);
        for account in service_accounts.values() {
            account.write(&mut out);
            let place = NameDigest::of(account.name.as_str());
            (service_account_names.get(&place) == Some(&account.id)).write(&mut out);
        }
        write_count(roles.len(), &mut out);
        for role in roles.values() {
            role.write(&mut out);
            (role_names.get(&place(&role.name)) == Some(&role.id)).write(&mut out);
        }
        write_count(grants.len(), &mut out);
        grants.values().for_each(|grant| grant.write(&mut out));
        people.write(&mut out);
        break_glass.write(&mut out);
        write_count(requests_by_age.len(), &mut out);
        for (at, id) in requests_by_age {
            let Some(request) = requests.get(id) else { continue };
            let RememberedRequest { content, outcome, revision } = *request;
            Remembered { at: *at, id: *id, content, outcome, revision }.write(&mut out);
        }
        installation.is_some().write(&mut out);
        if let Some(installation) = installation {
            installation.write(&mut out);
        }
        keys_made.write(&mut out);
        revoked_keys.write(&mut out);
        write_keys(keys, names, &mut out);
        out
    }

    /// The tables of these canonical bytes.
    ///
    /// # Errors
    ///
    /// They are none, or of another form. No bytes, whatever they are, take more memory
    /// than a small multiple of their length.
    pub fn from_canonical(bytes: &[u8]) -> Result<Self, Malformed> {
        let from = &mut Reader::new(bytes);
        if u8::read(from)? != FORM {
            return Err(Malformed("it has another form"));
        }
        let mut it = Self::new(Canonical::read(from)?);
        it.head = Canonical::read(from)?;
        it.profile = Option::<Profile>::read(from)?.map(Arc::new);
        it.policy = Arc::new(Policy::read(from)?);
        it.read_service_accounts(from)?;
        it.read_roles(from)?;
        it.read_grants(from)?;
        it.people = Arc::new(Canonical::read(from)?);
        it.break_glass = Arc::new(Canonical::read(from)?);
        it.read_requests(from)?;
        it.installation = Option::<Installation>::read(from)?.map(Arc::new);
        it.keys_made = Canonical::read(from)?;
        it.revoked_keys = Canonical::read(from)?;
        it.read_keys(from)?;
        from.end()?;
        it.departed = Departed::default();
        it.shared = Shared::default();
        Ok(it)
    }

    fn read_service_accounts(&mut self, from: &mut Reader<'_>) -> Result<(), Malformed> {
        for _ in 0..from.count(16)? {
            let account = ServiceAccount::read(from)?;
            ascending(self.service_accounts.get_max().map(|(last, _)| last), &account.id)?;
            let place = NameDigest::of(account.name.as_str());
            if bool::read(from)? && self.service_account_names.insert(place, account.id).is_some() {
                return Err(Malformed("two service accounts bear one name"));
            }
            self.service_accounts.insert(account.id, Arc::new(account));
        }
        Ok(())
    }

    fn read_roles(&mut self, from: &mut Reader<'_>) -> Result<(), Malformed> {
        for _ in 0..from.count(16)? {
            let role = Role::read(from)?;
            ascending(self.roles.get_max().map(|(last, _)| last), &role.id)?;
            if !role.permissions.is_sorted() {
                return Err(Malformed("permissions have another order"));
            }
            let bears_name = bool::read(from)?;
            if bears_name && (role.built_in || !role.is_in_force()) {
                return Err(Malformed("a role bears a name that is not its own"));
            }
            if bears_name && self.role_names.insert(place(&role.name), role.id).is_some() {
                return Err(Malformed("two roles bear one name"));
            }
            self.roles.insert(role.id, Arc::new(role));
        }
        Ok(())
    }

    fn read_grants(&mut self, from: &mut Reader<'_>) -> Result<(), Malformed> {
        let mut last = None;
        // Put one by one, a principal's many grants would be copied as many times.
        let mut granted: HashMap<Principal, Vec<Arc<Grant>>> = HashMap::new();
        for _ in 0..from.count(16)? {
            let grant = Arc::new(Grant::read(from)?);
            ascending(last.as_ref(), &grant.id)?;
            last = Some(grant.id);
            self.grants_of_roles.insert((grant.terms.role_id, grant.id));
            self.grant_ends.extend(grant.terms.expires_at.map(|end| (end, grant.id)));
            granted.entry(grant.terms.principal).or_default().push(Arc::clone(&grant));
            self.grants.insert(grant.id, grant);
        }
        self.granted = granted.into_iter().map(|(who, grants)| (who, Arc::new(grants))).collect();
        Ok(())
    }

    fn read_requests(&mut self, from: &mut Reader<'_>) -> Result<(), Malformed> {
        for _ in 0..from.count(32)? {
            let Remembered { at, id, content, outcome, revision } = Canonical::read(from)?;
            ascending(self.requests_by_age.get_max(), &(at, id))?;
            self.requests_by_age.insert((at, id));
            let request = RememberedRequest { content, outcome, revision };
            if self.requests.insert(id, request).is_some() {
                return Err(Malformed("a request is remembered twice"));
            }
        }
        Ok(())
    }

    fn read_keys(&mut self, from: &mut Reader<'_>) -> Result<(), Malformed> {
        let scopes: Vec<Scopes> = from.sorted(|a: &Scopes, b| a.joined() < b.joined())?;
        let makers: Vec<Maker> = from.sorted(|a, b| a < b)?;
        let makers: Vec<Arc<Maker>> = makers.into_iter().map(Arc::new).collect();
        let (mut scopes_used, mut makers_used) =
            (vec![false; scopes.len()], vec![false; makers.len()]);
        let count = from.count(ROW_BYTES_MIN)?;
        let (mut names, mut ends) = (Vec::with_capacity(count), Vec::new());
        let mut last = None;
        for _ in 0..count {
            let row = Key::read_row(from, &scopes, &makers)?;
            for (used, place) in
                [(&mut scopes_used, row.scopes), (&mut makers_used, Some(row.maker))]
            {
                if let Some(used) = place.and_then(|place| used.get_mut(place)) {
                    *used = true;
                }
            }
            let key = Arc::new(row.key);
            ascending(last.as_ref(), &key.id)?;
            last = Some(key.id);
            if row.bears_name {
                names.push((NameDigest::of(key.name.as_str()), key.id));
            }
            ends.extend(key.ends_for_good_at().map(|end| (end, key.id)));
            if let Some(owned) = owned(&key) {
                self.owned.insert(owned);
            }
            self.keys.insert(key.id, key);
        }
        if scopes_used.contains(&false) || makers_used.contains(&false) {
            return Err(Malformed("a list holds what no row shares"));
        }
        // In their order they go in faster.
        names.sort_unstable();
        ends.sort_unstable();
        let bearers = names.len();
        self.names = names.into_iter().collect();
        self.ends = ends.into_iter().collect();
        if self.names.len() != bearers {
            return Err(Malformed("two keys bear one name"));
        }
        Ok(())
    }
}

fn write_keys(
    keys: &OrdMap<KeyId, Arc<Key>>,
    names: &OrdMap<NameDigest, KeyId>,
    out: &mut Vec<u8>,
) {
    let texts = keys.values().filter_map(|key| key.scopes.as_ref()).map(Scopes::joined);
    let (texts, scopes) = Places::of(texts);
    let (distinct, makers) = Places::of(keys.values().map(|key| &*key.maker));
    write_count(texts.len(), out);
    texts.iter().for_each(|text| write_text(text, out));
    write_count(distinct.len(), out);
    distinct.iter().for_each(|maker| maker.write(out));
    write_count(keys.len(), out);
    for key in keys.values() {
        let scopes = key.scopes.as_ref().map(|it| scopes.place(it.joined()));
        let bears_name = names.get(&NameDigest::of(key.name.as_str())) == Some(&key.id);
        key.write_row(scopes, makers.place(&key.maker), bears_name, out);
    }
}
