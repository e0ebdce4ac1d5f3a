//! A long history of one organization, as real use would leave it, made from a seed: people log
//! in and out, keys come, are switched off and on, called otherwise and go, access is denied.
//! The ledger folds it like any other.

use keyledger::ledger::event_store::{APPEND_EVENTS_MAX, EventStore, NewEvent};
use keyledger::ledger::urgency::Urgency;
use keyledger::ledger::vault::seal::seal;
use keyledger::ledger::vault::{SubjectKey, Vault};
use projections::digest::{EmailDigest, SecretDigest};
use projections::envelope::Envelope;
use projections::event::{
    CountedDenial, Denial, DenialCode, DenialsSummarized, DigestForm, Event, KeyCreated,
    KeyDisabled, KeyEnabled, KeyLabel, KeyOrigin, KeyRelabelled, KeyRevoked, KeyStateBefore,
    KeyedDigest, RevocationReason, SessionEndReason, SessionEnded, SessionStarted, UserInvited,
    UserJoined,
};
use projections::id::{AccountId, EventId, KeyId, OrganizationId, SessionId, UserId};
use projections::permission::Scopes;
use projections::principal::{Credential, Principal};
use projections::recorded::{Revision, StreamName};
use projections::sealed::Subject;
use projections::time::Timestamp;

/// People.
pub(crate) const USERS: u64 = 1_000;
/// Keys that stay.
pub(crate) const KEYS: u64 = 20_000;
/// Milliseconds from one event to the next.
const PACE_MS: i64 = 500;
const MS: u64 = 1_790_000_000_000;

/// A small generator of numbers: what matters is that they are the same each time.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    /// A number below this one.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) % end
    }

    /// One of these.
    pub(crate) fn one_of<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        let place = usize::try_from(self.below(of.len() as u64)).expect("it fits");
        of.get(place).expect("it is below the length")
    }

    /// The same as `below`, small ones far more often.
    pub(crate) fn skewed(&mut self, end: u64) -> u64 {
        let most = self.below(end) + 1;
        self.below(most)
    }
}

pub(crate) fn user_id(number: u64) -> UserId {
    UserId::from_parts(MS, u128::from(number) + 1)
}

pub(crate) fn key_id(number: u64) -> KeyId {
    KeyId::from_parts(MS, u128::from(number) + 1)
}

fn account_id(number: u64) -> AccountId {
    AccountId::from_parts(MS, u128::from(number) + 1)
}

fn session_id(number: u64) -> SessionId {
    SessionId::from_parts(MS, u128::from(number) + 1)
}

pub(crate) fn correlation(number: u64) -> String {
    format!("req-{:016x}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// What is going on.
pub(crate) struct History {
    dice: Dice,
    began: Timestamp,
    written: u64,
    keys: u64,
    sessions: u64,
    /// Keys that were made to go, sessions that run, keys that are switched off.
    passing: Vec<u64>,
    running: Vec<(u64, u64)>,
    off: Vec<u64>,
    rounds: Vec<u32>,
}

impl History {
    pub(crate) fn new(began: Timestamp) -> Self {
        Self {
            dice: Dice(2_026),
            began,
            written: 0,
            keys: KEYS,
            sessions: 0,
            passing: Vec::new(),
            running: Vec::new(),
            off: Vec::new(),
            rounds: vec![0; usize::try_from(KEYS).expect("it fits")],
        }
    }

    fn at(&self) -> Timestamp {
        let events = i64::try_from(self.written).expect("it fits");
        self.began.saturating_add_millis(events * PACE_MS)
    }

    fn label(key: u64, round: u32) -> KeyLabel {
        let team = ["billing", "search", "edge", "mobile", "data"];
        let team = Dice(key).one_of(&team);
        let name = format!("{team} deploy {key} v{round}").parse().expect("a name");
        KeyLabel { name, description: None }
    }

    fn key_created(key: u64) -> Event {
        let key_id = key_id(key);
        let blake3 = SecretDigest(*blake3::hash(&key_id.to_bytes()).as_bytes());
        KeyCreated {
            key_id,
            name: Self::label(key, 0).name,
            description: None,
            origin: KeyOrigin::Minted,
            prefix: "vtx".parse().ok(),
            environment: None,
            hint: None,
            digest: KeyedDigest { form: DigestForm::Text, pepper: 1, blake3 },
            scopes: Scopes::new(&["workflows:read", "events:write"]).ok(),
            roles: Vec::new(),
            services: None,
            expires_at: None,
            metadata: Default::default(),
            limits: Default::default(),
            owner: None,
            allowed_ips: None,
            rate_limit: None,
            rotates: None,
        }
        .into()
    }

    fn user(&mut self) -> Principal {
        Principal::User(user_id(self.dice.skewed(USERS)))
    }

    fn take<T: Copy>(dice: &mut Dice, of: &mut Vec<T>) -> Option<T> {
        let place = dice.below(of.len().max(1) as u64);
        (!of.is_empty()).then(|| of.swap_remove(usize::try_from(place).unwrap_or(0)))
    }

    /// The next event, and who acts.
    fn next(&mut self) -> (Event, Principal, Option<Credential>) {
        let number = self.written;
        self.written += 1;
        let begun = number / 2;
        if begun < USERS {
            let (user_id, by) = (user_id(begun), Principal::Ledger);
            if number.is_multiple_of(2) {
                let mut email = [0; 32];
                email[..8].copy_from_slice(&begun.to_le_bytes());
                let email = EmailDigest(email);
                let expires_at = self.at().saturating_add_millis(1_000_000);
                let invited = UserInvited {
                    user_id,
                    email,
                    expires_at,
                    limits: Default::default(),
                    token: None,
                };
                return (invited.into(), by, None);
            }
            let account_id = account_id(begun);
            return (UserJoined { user_id, account_id, email_proven: true }.into(), by, None);
        }
        let admin = Some(Credential::Key(KeyId::from_bytes([9; 16])));
        let key = number - 2 * USERS;
        if key < KEYS {
            return (Self::key_created(key), self.user(), admin);
        }
        match self.dice.below(20) {
            0..7 => {
                let full = self.running.len() > 400;
                if full && let Some((session, user)) = Self::take(&mut self.dice, &mut self.running)
                {
                    let (session_id, reason) = (session_id(session), SessionEndReason::LoggedOut);
                    let by = Principal::User(user_id(user));
                    let with = Some(Credential::Session(session_id));
                    return (SessionEnded { session_id, reason }.into(), by, with);
                }
                let user = self.dice.skewed(USERS);
                self.sessions += 1;
                self.running.push((self.sessions, user));
                let started = SessionStarted {
                    session_id: session_id(self.sessions),
                    user_id: user_id(user),
                    account_id: account_id(user),
                    epoch: 0,
                    methods: vec![projections::event::AuthenticationMethod::Password],
                    expires_at: self.at().saturating_add_millis(40_000_000_000),
                };
                (started.into(), Principal::User(user_id(user)), None)
            }
            7..12 => {
                if self.passing.len() > 2_000
                    && let Some(key) = Self::take(&mut self.dice, &mut self.passing)
                {
                    let (key_id, before) = (key_id(key), KeyStateBefore::Active);
                    let reason = match self.dice.below(50) {
                        0 => RevocationReason::KeyCompromise,
                        _ => RevocationReason::CessationOfOperation,
                    };
                    return (KeyRevoked { key_id, reason, before }.into(), self.user(), admin);
                }
                self.keys += 1;
                self.passing.push(self.keys);
                (Self::key_created(self.keys), self.user(), admin)
            }
            12..15 => {
                if self.off.len() > 50
                    && let Some(key) = Self::take(&mut self.dice, &mut self.off)
                {
                    let by = self.user();
                    return (KeyEnabled { key_id: key_id(key) }.into(), by, admin);
                }
                let key = self.dice.below(KEYS);
                if self.off.contains(&key) {
                    return self.relabelled(key, admin);
                }
                self.off.push(key);
                (KeyDisabled { key_id: key_id(key) }.into(), self.user(), admin)
            }
            15..18 => {
                let denials = (0..1 + self.dice.below(3))
                    .map(|_| CountedDenial {
                        denial: Denial {
                            code: DenialCode::PermissionDenied,
                            credential: Some(Credential::Key(key_id(self.dice.skewed(KEYS)))),
                            asked_with: None,
                            service: None,
                        },
                        count: 1 + self.dice.skewed(50),
                    })
                    .collect();
                let (first_at, last_at) = (self.at(), self.at());
                let denied = DenialsSummarized { first_at, last_at, denials, others: 0 };
                (denied.into(), Principal::Ledger, None)
            }
            _ => {
                let key = self.dice.below(KEYS);
                self.relabelled(key, admin)
            }
        }
    }

    fn relabelled(
        &mut self,
        key: u64,
        with: Option<Credential>,
    ) -> (Event, Principal, Option<Credential>) {
        let place = usize::try_from(key).unwrap_or(0);
        let round = self.rounds.get(place).copied().unwrap_or(0);
        if let Some(it) = self.rounds.get_mut(place) {
            *it += 1;
        }
        let (label, before) = (Self::label(key, round + 1), Self::label(key, round));
        let event = KeyRelabelled { key_id: key_id(key), label, before };
        (event.into(), self.user(), with)
    }

    /// Writes so many events behind this revision of the organization's stream.
    pub(crate) async fn write(
        &mut self,
        store: &dyn EventStore,
        vault: &dyn Vault,
        organization: OrganizationId,
        mut last: Revision,
        events: u64,
    ) -> Revision {
        let stream = StreamName::organization(organization);
        let subject = Subject::organization_month(organization, self.began);
        let key = vault.obtain_subject_key(&subject, Urgency::Normal).await.expect("a key");
        let mut left = events;
        while left > 0 {
            let some = left.min(APPEND_EVENTS_MAX as u64);
            let new = (0..some).map(|_| self.new_event(&subject, &key)).collect();
            let appended = store.append(&stream, Some(last), new, Urgency::Normal);
            last = appended.await.expect("appended");
            left -= some;
        }
        last
    }

    fn new_event(&mut self, subject: &Subject, key: &SubjectKey) -> NewEvent {
        let (number, at) = (self.written, self.at());
        let (event, actor, credential) = self.next();
        let id = EventId::from_parts(MS, u128::from(number) + 1);
        let origin = format!("192.0.2.{}", self.dice.skewed(250));
        let personal = [("origin_ip", origin.as_str()), ("user_agent", "bench/1.0")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
        let sealed = if actor == Principal::Ledger {
            Vec::new()
        } else {
            vec![seal(key, id, subject, &personal).expect("sealed")]
        };
        let envelope = Envelope {
            id,
            at,
            actor,
            credential,
            request: None,
            correlation_id: correlation(number).parse().expect("an id"),
            causation_id: None,
            event,
            sealed,
        };
        let (stored, leaf_hash) = envelope.encode().expect("it encodes");
        let event_type = envelope.event.event_type();
        NewEvent { id, event_type, stored: stored.into(), leaf_hash }
    }
}
