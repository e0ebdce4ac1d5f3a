//! The start: history is replayed, then the configuration's say is recorded.

use std::collections::{BTreeMap, HashMap, hash_map};
use std::sync::Arc;

use projections::api_key::CREDENTIAL_CHARS_MAX;
use projections::corrupt::{CorruptHistory, Fault};
use projections::digest::{LeafHash, SecretDigest};
use projections::envelope::Envelope;
use projections::event::{DigestForm, Hint, KeyOrigin, KeyedDigest};
use projections::id::{OrganizationId, RoleId};
use projections::organization::Organization;
use projections::recorded::{Recorded, Revision, StreamName};
use projections::text::{CorrelationId, KeyPrefix, Name};
use tokio::sync::{Semaphore, mpsc};

use super::clock::Clock;
use super::command::{
    Caller, Command, ConfigureKeys, CreateInstallation, CreateKey, Expiry, ImportedKey, Order,
    OrganizationDraft, Personal, RequestStamper,
};
use super::event_store::{EventStore, Positioned, ReadError, ReadItem};
use super::importing::Importing;
use super::rejection::Rejection;
use super::secret::{Ids, Secret};
use super::stats::LedgerStats;
use super::tables::Tables;
use super::vault::Vault;
use super::vault::peppers::{PepperId, Peppers};
use super::{
    COMMANDS_MAX, Executed, Ledger, LedgerError, built_in, denials, mint, pepper_use, rate_limits,
    usage,
};

/// Fewest characters in `ADMIN_API_TOKEN`.
pub const ADMIN_API_TOKEN_CHARS_MIN: usize = 24;

/// All that a ledger is made of.
pub struct Parts {
    /// Where events are kept.
    pub store: Arc<dyn EventStore>,
    /// Where usable secrets are kept.
    pub vault: Arc<dyn Vault>,
    /// What time it is.
    pub clock: Clock,
    /// What makes identifiers.
    pub ids: Ids,
    /// What keys the digests of secrets.
    pub peppers: Peppers,
    /// What keys the hashes of requests; the same for the installation's life.
    pub lookup_key: zeroize::Zeroizing<[u8; 32]>,
}

/// Keys that the configuration of the installation holds.
#[derive(Default)]
pub struct ConfiguredKeys {
    /// The value of `ADMIN_API_TOKEN`.
    pub admin_api_token: Option<Secret>,
    /// The SHA-256 digest of an administrator's key.
    pub admin_key_sha256: Option<[u8; 32]>,
}

impl ConfiguredKeys {
    /// Whether there are any.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.admin_api_token.is_none() && self.admin_key_sha256.is_none()
    }
}

/// How much was replayed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Events folded.
    pub events: u64,
    /// Organizations whose streams were found.
    pub organizations: u64,
    /// Of those, the ones that are stopped because their history is corrupt.
    pub stopped: u64,
}

/// Why the ledger cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The operator's stream is corrupt: nothing can be decided without it.
    #[error("the operator's history is corrupt; restore the data directory from a backup")]
    OperatorCorrupt(#[source] CorruptHistory),
    /// The store holds streams but no operator's stream.
    #[error(
        "the event store holds stream `{0}` but no operator's stream; this is no whole installation"
    )]
    OperatorMissing(StreamName),
    /// A stream of a kind that this version does not know.
    #[error(
        "stream `{0}` is of a kind unknown to this version; run the version that wrote it, or a newer one"
    )]
    UnknownStream(StreamName),
    /// A pepper is another one than history tells of.
    #[error("pepper {0} is not the one of this installation; put its secrets directory back")]
    WrongPepper(PepperId),
    /// A pepper is not there, and keys need it.
    #[error("pepper {pepper} is missing; restore it from a backup (keys that need it: {keys})")]
    MissingPepper {
        /// The pepper.
        pepper: PepperId,
        /// How many keys need it.
        keys: u64,
    },
    /// Events are gone, and nothing says whose they were: any organization may lack one.
    #[error(
        "stored history is damaged, and nothing says whose it is: {0}; restore the data directory from a backup"
    )]
    Lost(String),
    /// The store could not be read.
    #[error("reading history")]
    Read(#[source] ReadError),
    /// What the configuration says could not be recorded.
    #[error("recording the configuration")]
    Record(#[from] LedgerError),
    /// A configured secret is too short, or no text for a header.
    #[error(transparent)]
    WeakToken(#[from] WeakToken),
}

/// A configured secret that cannot be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`ADMIN_API_TOKEN` must have at least {ADMIN_API_TOKEN_CHARS_MIN} visible ASCII characters and at most {CREDENTIAL_CHARS_MAX}"
)]
pub struct WeakToken;

/// Checks that `ADMIN_API_TOKEN` holds what can be a secret.
pub fn check_admin_api_token(token: &Secret) -> Result<(), WeakToken> {
    let text = token.expose();
    let long_enough = (ADMIN_API_TOKEN_CHARS_MIN..=CREDENTIAL_CHARS_MAX).contains(&text.len());
    if long_enough && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok(())
    } else {
        Err(WeakToken)
    }
}

impl From<ReadError> for StartError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Lost { what, .. } => Self::Lost(what),
            ReadError::Corrupt { .. } | ReadError::Unavailable(_) => Self::Read(error),
        }
    }
}

impl Ledger {
    /// Replays all history and is then ready to answer.
    pub async fn open(parts: Parts) -> Result<(Arc<Self>, Replayed), StartError> {
        let tables = Tables::new();
        let (replayed, places) = replay(&parts.store, &tables).await?;
        let peppers = pepper_use::settled(&tables, parts.clock.now(), parts.peppers)?;
        let ledger = Arc::new(Self {
            store: parts.store,
            vault: parts.vault,
            clock: parts.clock,
            ids: parts.ids,
            tables,
            pipelines: papaya::HashMap::new(),
            stamper: RequestStamper::new(parts.lookup_key),
            peppers,
            admission: Semaphore::new(COMMANDS_MAX),
            abroad: Arc::default(),
            importing: Importing::default(),
            noted: usage::Noted::new(),
            recorder: tokio::sync::Mutex::new(usage::recorder::Recorder::new(places)),
            denials: denials::Denials::new(),
            rate_limits: rate_limits::RateLimits::new(),
            stats: LedgerStats::default(),
        });
        Ok((ledger, replayed))
    }

    /// Whether the installation is still to be made.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.tables.operator().tables().revision().is_none()
    }

    /// Makes the installation, with the operator's first key where one was minted. The
    /// key must be kept safe by now: once this returns it is in force.
    pub async fn create_installation(
        self: &Arc<Self>,
        admin_key: Option<&Secret>,
        configured: &ConfiguredKeys,
    ) -> Result<(), StartError> {
        let command = CreateInstallation {
            installation_id: self.ids.installation(self.clock.now()),
            pepper: self.peppers.current().0,
            pepper_check: pepper_use::check(&self.peppers),
            rules: built_in::rules(),
            admin_key: admin_key.map(|secret| self.admin_key(secret)),
            configured: self.configured(configured)?.into_iter().map(|it| it.key).collect(),
        };
        self.as_ledger(OrganizationId::OPERATOR, Command::CreateInstallation(Box::new(command)))
            .await?;
        Ok(())
    }

    /// Records what the configuration says now, and finishes what a crash left half done.
    pub async fn configure(
        self: &Arc<Self>,
        configured: &ConfiguredKeys,
    ) -> Result<(), StartError> {
        self.as_ledger(OrganizationId::OPERATOR, Command::ConfigureInstallation(built_in::rules()))
            .await?;
        let keys = ConfigureKeys { keys: self.configured(configured)? };
        self.as_ledger(OrganizationId::OPERATOR, Command::ConfigureKeys(keys)).await?;
        self.finish_organizations().await
    }

    /// Begins the stream of every organization that was admitted but not begun.
    async fn finish_organizations(self: &Arc<Self>) -> Result<(), StartError> {
        let operator = self.tables.operator().tables().clone();
        let Some(installation) = operator.installation() else { return Ok(()) };
        for (id, registration) in &installation.organizations {
            let organization = self.tables.organization(*id);
            let begun = organization
                .is_some_and(|it| it.stopped().is_some() || it.tables().profile().is_some());
            if begun {
                continue;
            }
            let profile = &registration.profile;
            let draft = OrganizationDraft {
                organization_id: *id,
                name: profile.name.clone(),
                key_prefix: profile.key_prefix.clone(),
                plan: profile.plan.clone(),
            };
            let order = Order {
                causation_id: Some(registration.event_id),
                ..self.ledgers_order(Command::CreateOrganization(draft))
            };
            self.execute(*id, &order).await?;
        }
        Ok(())
    }

    /// Replaces the operator's minted administrator keys by this one.
    pub async fn reissue_operator_key(
        self: &Arc<Self>,
        secret: &Secret,
    ) -> Result<Executed, LedgerError> {
        let command = Command::ReissueOperatorKey(Box::new(self.admin_key(secret)));
        self.as_ledger(OrganizationId::OPERATOR, command).await
    }

    pub(super) async fn as_ledger(
        self: &Arc<Self>,
        id: OrganizationId,
        command: Command,
    ) -> Result<Executed, LedgerError> {
        let order = self.ledgers_order(command);
        self.execute(id, &order).await
    }

    fn ledgers_order(&self, command: Command) -> Order {
        Order {
            caller: Caller::Ledger,
            command,
            expected: None,
            request: None,
            correlation_id: self.new_correlation_id(),
            causation_id: None,
            personal: Personal::default(),
        }
    }

    /// A correlation id for what was asked without one.
    #[must_use]
    pub fn new_correlation_id(&self) -> CorrelationId {
        let id = self.ids.event(self.clock.now()).to_string().replacen("evt_", "cor_", 1);
        id.parse().unwrap_or_else(|_| built_in::fallback_correlation_id())
    }

    fn admin_key(&self, secret: &Secret) -> CreateKey {
        let digest = mint::digest(secret.expose(), &self.peppers);
        let prefix = Some(built_in::operator_key_prefix());
        self.operator_key(
            built_in::admin_key_name(),
            KeyOrigin::Minted,
            prefix,
            Hint::of(secret.expose()),
            digest,
        )
    }

    fn configured(&self, configured: &ConfiguredKeys) -> Result<Vec<ImportedKey>, StartError> {
        let mut keys = Vec::new();
        if let Some(token) = &configured.admin_api_token {
            check_admin_api_token(token)?;
            let text = token.expose();
            let digest = mint::digest(text, &self.peppers);
            let name = built_in::admin_api_token_name();
            let key = self.operator_key(name, KeyOrigin::Configured, None, None, digest);
            keys.push(ImportedKey { key, others: mint::other_digests(text, &self.peppers) });
        }
        if let Some(sha256) = &configured.admin_key_sha256 {
            let digest = mint::digest_of_sha256(sha256, &self.peppers);
            debug_assert_eq!(digest.form, DigestForm::Sha256, "the digest of a digest says so");
            let name = built_in::admin_digest_name();
            let key = self.operator_key(name, KeyOrigin::Configured, None, None, digest);
            let others = mint::retired_digests_of_sha256(sha256, &self.peppers);
            keys.push(ImportedKey { key, others });
        }
        // A digest leads to one key. The operator's own are the rules' to look at.
        let index = self.tables.index();
        let elsewhere = |digest: SecretDigest| {
            index.key(&digest).is_some_and(|found| !found.organization.id.is_operator())
        };
        if keys.iter().flat_map(ImportedKey::digests).any(elsewhere) {
            return Err(LedgerError::from(Rejection::SecretInUse).into());
        }
        Ok(keys)
    }

    fn operator_key(
        &self,
        name: Name,
        origin: KeyOrigin,
        prefix: Option<KeyPrefix>,
        hint: Option<Hint>,
        digest: KeyedDigest,
    ) -> CreateKey {
        const ROLES: [RoleId; 1] = [built_in::OPERATOR_ADMIN];
        CreateKey {
            key_id: self.ids.key(self.clock.now()),
            name,
            description: None,
            origin,
            prefix,
            environment: None,
            hint,
            digest,
            scopes: None,
            roles: ROLES.to_vec(),
            services: None,
            expiry: Expiry::PlanDefault,
            metadata: BTreeMap::new(),
            limits: BTreeMap::new(),
            owner: None,
            allowed_ips: None,
            rate_limit: None,
        }
    }
}

/// One organization while its history is replayed.
struct Replaying {
    tables: Organization,
    fault: Option<CorruptHistory>,
    /// The last revision that the store gave, believed or not.
    seen: Option<Revision>,
    /// How many revisions the store did not give.
    missing: u64,
}

/// One item on its way from the store into the tables.
#[expect(clippy::large_enum_variant, reason = "nearly every item is an event")]
enum Arriving {
    /// An event of a known stream, or damage in its place.
    In(StreamName, Revision, Result<Arrived, Fault>),
    /// This many events are gone, and it is not known whose they were.
    Lost(u64, String),
}

/// An event that the store gave whole.
pub(super) struct Arrived {
    pub(super) leaf_hash: LeafHash,
    pub(super) envelope: Result<Envelope, Fault>,
}

/// How many events are read at once, a batch for each stage and those that wait.
const BATCH_EVENTS: usize = 2_048;
/// How many batches may wait between two stages of a replay.
const BATCHES_WAITING_MAX: usize = 2;

/// Folds all history and publishes the tables it comes to.
///
/// In three stages side by side: the store reads and checks hashes, a thread decodes,
/// and this task folds.
async fn replay(
    store: &Arc<dyn EventStore>,
    tables: &Tables,
) -> Result<(Replayed, HashMap<OrganizationId, usage::recorder::Place>), StartError> {
    let (read, mut to_decode) = mpsc::channel(BATCHES_WAITING_MAX);
    let (decoded, mut to_fold) = mpsc::channel(BATCHES_WAITING_MAX);
    let reading = tokio::spawn(read_all(Arc::clone(store), read));
    let decoding = tokio::task::spawn_blocking(move || {
        while let Some(batch) = to_decode.blocking_recv() {
            let batch: Vec<ReadItem> = batch;
            let arriving: Result<Vec<Arriving>, ReadError> =
                batch.into_iter().map(decode).collect();
            let failed = arriving.is_err();
            if decoded.blocking_send(arriving).is_err() || failed {
                break;
            }
        }
    });
    let mut streams = HashMap::new();
    let mut usage = usage::replay::Replaying::default();
    let mut replayed = Replayed::default();
    let (mut lost, mut lost_what) = (0, String::new());
    while let Some(batch) = to_fold.recv().await {
        for arriving in batch? {
            match arriving {
                Arriving::In(stream, revision, arrived) => {
                    match stream.as_usage() {
                        Some(id) => usage.fold(id, revision, arrived),
                        None => fold(&mut streams, stream, revision, arrived)?,
                    }
                    replayed.events += 1;
                }
                Arriving::Lost(events, what) => {
                    tracing::error!(events, what, "stored events are gone");
                    lost += events;
                    lost_what = what;
                }
            }
        }
    }
    let ended = |error: tokio::task::JoinError| ReadError::Unavailable(error.to_string());
    decoding.await.map_err(ended)?;
    reading.await.map_err(ended)??;
    // A loss is known by the gap it left in its stream, and stops that stream alone. One
    // that left none was somebody's last word, perhaps a revocation: nobody can be believed.
    let missing = streams.values().map(|it: &Replaying| it.missing).sum::<u64>();
    if lost > missing + usage.missing() {
        return Err(StartError::Lost(lost_what));
    }
    publish(streams, tables, &mut replayed)?;
    Ok((replayed, usage.restore(tables)))
}

/// Reads the whole store, batch by batch, ahead of whoever takes them.
async fn read_all(
    store: Arc<dyn EventStore>,
    batches: mpsc::Sender<Vec<ReadItem>>,
) -> Result<(), ReadError> {
    let mut after = None;
    loop {
        let batch = store.read_all(after, BATCH_EVENTS).await?;
        after = match batch.last() {
            None => return Ok(()),
            Some(Ok(item)) => Some(item.position),
            Some(Err((position, _))) => Some(*position),
        };
        if batches.send(batch).await.is_err() {
            return Ok(());
        }
    }
}

fn decode(item: ReadItem) -> Result<Arriving, ReadError> {
    match item {
        Ok(Positioned { recorded, .. }) => {
            let envelope = Envelope::decode(&recorded.stored);
            let Recorded { stream, revision, leaf_hash, .. } = recorded;
            Ok(Arriving::In(stream, revision, Ok(Arrived { leaf_hash, envelope })))
        }
        Err((_, ReadError::Corrupt { stream, revision, what })) => {
            Ok(Arriving::In(stream, revision, Err(Fault::Stored(what))))
        }
        Err((_, ReadError::Lost { events: Some(events), what })) => {
            Ok(Arriving::Lost(events, what))
        }
        Err((_, error @ (ReadError::Lost { events: None, .. } | ReadError::Unavailable(_)))) => {
            Err(error)
        }
    }
}

fn fold(
    streams: &mut HashMap<StreamName, Replaying>,
    stream: StreamName,
    revision: Revision,
    arrived: Result<Arrived, Fault>,
) -> Result<(), StartError> {
    let replaying = match streams.entry(stream) {
        hash_map::Entry::Occupied(entry) => entry.into_mut(),
        hash_map::Entry::Vacant(entry) => {
            let Some(id) = entry.key().as_organization() else {
                return Err(StartError::UnknownStream(entry.key().clone()));
            };
            entry.insert(Replaying {
                tables: Organization::new(id),
                fault: None,
                seen: None,
                missing: 0,
            })
        }
    };
    let expected = Revision::after(replaying.seen);
    replaying.missing += revision.0.saturating_sub(expected.0);
    replaying.seen = replaying.seen.max(Some(revision));
    // Nothing behind a fault is believed; nothing in front of it is forgotten.
    if replaying.fault.is_none() {
        let tables = &mut replaying.tables;
        let folded = arrived
            .map_err(|fault| fault.at(revision))
            .and_then(|it| tables.apply_decoded(revision, it.leaf_hash, it.envelope));
        replaying.fault = folded.err();
    }
    Ok(())
}

fn publish(
    mut streams: HashMap<StreamName, Replaying>,
    tables: &Tables,
    replayed: &mut Replayed,
) -> Result<(), StartError> {
    let operator_stream = StreamName::organization(OrganizationId::OPERATOR);
    let Some(operator) = streams.remove(&operator_stream) else {
        return match streams.into_keys().next() {
            Some(other) => Err(StartError::OperatorMissing(other)),
            None => Ok(()),
        };
    };
    if let Some(fault) = operator.fault {
        return Err(StartError::OperatorCorrupt(fault));
    }
    let keys: u64 = streams.values().map(|it| it.tables.key_counts().0).sum();
    tables.reserve(usize::try_from(keys).unwrap_or_default());
    let installation = operator.tables.installation().cloned();
    tables.publish_whole(tables.operator(), Arc::new(operator.tables));
    replayed.organizations += 1;
    if let Some(installation) = &installation {
        // Admitted organizations are known, even those whose stream was not begun.
        for id in installation.organizations.keys() {
            tables.obtain(*id);
        }
    }
    for replaying in streams.into_values() {
        let organization = tables.obtain(replaying.tables.id);
        let admitted =
            installation.as_ref().is_some_and(|it| it.organizations.contains_key(&organization.id));
        let fault = replaying.fault.or_else(|| {
            (!admitted).then(|| Fault::Misplaced("OrganizationCreated").at(Revision::FIRST))
        });
        tables.publish_whole(&organization, Arc::new(replaying.tables));
        replayed.organizations += 1;
        if let Some(fault) = fault {
            tables.stop(&organization, fault);
            replayed.stopped += 1;
        }
    }
    Ok(())
}
