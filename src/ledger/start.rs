//! The start: history is replayed, then the configuration's say is recorded.
//!
//! Where there are snapshots that can be believed, only the tail of history behind them is
//! read ([`load`]); else all of it.

mod break_glass;
mod configure;
mod global_key;
mod load;
mod replay;

use std::sync::Arc;

use projections::api_key::CREDENTIAL_CHARS_MAX;
use projections::corrupt::CorruptHistory;
use projections::event::{PermissionRule, PlanRules};
use projections::permission::PermissionPattern;
use projections::recorded::StreamName;
use projections::text::PlanName;
use tokio::sync::Semaphore;

use super::accounts::Accounts;
use super::clock::Clock;
use super::command::RequestStamper;
use super::dead::DeadKeys;
use super::email::EmailDigester;
use super::event_store::{EventStore, ReadError};
use super::fingerprints::Fingerprints;
use super::history::History;
use super::importing::Importing;
use super::secret::{Ids, Secret};
use super::snapshot_store::SnapshotStore;
use super::snapshots::{Manifest, Rounds, Seal, Snapshots, in_one_line};
use super::stats::LedgerStats;
use super::tables::Tables;
use super::vault::Vault;
use super::vault::peppers::{PepperId, Peppers};
use super::{COMMANDS_MAX, Ledger, LedgerError, denials, pepper_use, rate_limits, usage};
pub use break_glass::{BreakGlassError, ConfiguredBreakGlass, ConfiguredCustodian};
pub use global_key::GlobalKeyError;
use load::Loaded;
use replay::Before;
pub(super) use replay::{Arrived, Folded, in_parallel};

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
    /// The global key.
    pub global: Option<ConfiguredGlobalKey>,
    /// And the rules that it sets.
    pub rules: ConfiguredRules,
    /// Emergency access; none where there is none.
    pub break_glass: Option<ConfiguredBreakGlass>,
}

/// Rules that the configuration sets, beside those that every installation has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfiguredRules {
    /// What permissions ask for, beside being held: all such rules that there are.
    pub permission_rules: Vec<(PermissionPattern, PermissionRule)>,
    /// Plans. Built-in ones that are not among them are what they are without configuration.
    pub plans: Vec<(PlanName, PlanRules)>,
}

/// One organization's key that whole services share, from before they had keys of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfiguredGlobalKey {
    /// The SHA-256 digest of its text.
    pub sha256: [u8; 32],
    /// The organization, by its identifier or key prefix.
    pub organization: String,
    /// The role, by a built-in one's name, or by its identifier.
    pub role: String,
    /// Whether a role that permits everything is refused.
    pub production: bool,
}

impl ConfiguredKeys {
    /// Whether there are none of the operator's own.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.admin_api_token.is_none() && self.admin_key_sha256.is_none()
    }
}

/// How much was replayed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Events folded.
    pub events: u64,
    /// Organizations whose streams were found.
    pub organizations: u64,
    /// Of those, the ones that are stopped because their history is corrupt.
    pub stopped: u64,
    /// Streams of accounts that were found.
    pub accounts: u64,
    /// Streams of accounts and e-mails that are stopped because their history is corrupt.
    pub accounts_stopped: u64,
    /// Of the organizations, the ones whose tables were read from a snapshot.
    pub snapshots: u64,
    /// Why there were snapshots that were not used; none where they were, or were not there.
    pub snapshots_refused: Option<String>,
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
    /// The global key cannot be what the configuration says.
    #[error(transparent)]
    GlobalKey(#[from] GlobalKeyError),
    /// Break-glass cannot be what the configuration says.
    #[error(transparent)]
    BreakGlass(#[from] BreakGlassError),
}

/// A configured secret that cannot be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`ADMIN_API_TOKEN` must have at least {ADMIN_API_TOKEN_CHARS_MIN} visible ASCII characters and at most {CREDENTIAL_CHARS_MAX}"
)]
pub struct WeakToken;

/// Checks that `ADMIN_API_TOKEN` holds what can be a secret.
pub fn check_admin_api_token(token: &Secret) -> Result<(), WeakToken> {
    if check_secret_text(token) { Ok(()) } else { Err(WeakToken) }
}

/// Whether a configured text can be a secret: long enough, and made for a header.
#[must_use]
pub fn check_secret_text(secret: &Secret) -> bool {
    let text = secret.expose();
    let long_enough = (ADMIN_API_TOKEN_CHARS_MIN..=CREDENTIAL_CHARS_MAX).contains(&text.len());
    long_enough && text.bytes().all(|byte| byte.is_ascii_graphic())
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
        Self::open_with(parts, None).await
    }

    /// As [`Ledger::open`], from the snapshots that are kept here, if they can be believed,
    /// and to keep them here from now on.
    pub async fn open_with(
        parts: Parts,
        snapshots: Option<Arc<dyn SnapshotStore>>,
    ) -> Result<(Arc<Self>, Replayed), StartError> {
        let seal = Arc::new(Seal::new(&parts.lookup_key));
        let loaded = match &snapshots {
            Some(snapshots) => load::load(&parts.store, snapshots, &seal).await,
            None => Ok(None),
        };
        let snapshots_refused = loaded.as_ref().err().map(|error| in_one_line(error));
        if let Some(error) = &snapshots_refused {
            tracing::warn!(error, "the snapshots cannot be used: all history is replayed");
        }
        let (tables, accounts) = (Tables::new(), Accounts::new());
        let loaded = loaded.ok().flatten();
        let from = loaded.as_ref().map_or(0, |it| it.manifest.entries.len() as u64);
        let Loaded { manifest, mut folded, fingerprints, check } = match loaded {
            Some(loaded) => loaded,
            None => Loaded {
                folded: replay::fold_all(&parts.store, Before::default()).await?,
                manifest: Manifest::default(),
                fingerprints: Fingerprints::default(),
                check: None,
            },
        };
        let rounds = Rounds::behind(&folded, manifest);
        for (id, entry) in &rounds.manifest.entries {
            tables.obtain(*id).set_buried(entry.dead);
        }
        tables.add_dead(&rounds.manifest);
        let usage = std::mem::take(&mut folded.usage);
        let replayed_to = folded.last.as_ref().map(|it| it.position);
        let mut replayed = replay::publish(folded, &tables, &accounts)?;
        replayed.snapshots = from;
        replayed.snapshots_refused = snapshots_refused;
        tables.moved_before(replayed.events);
        let places = usage.restore(&tables);
        let peppers = pepper_use::settled(&tables, parts.clock.now(), parts.peppers)?;
        let ledger = Arc::new(Self {
            store: parts.store,
            vault: parts.vault,
            clock: parts.clock,
            ids: parts.ids,
            tables,
            pipelines: papaya::HashMap::new(),
            emails: EmailDigester::new(&parts.lookup_key),
            accounts,
            stamper: RequestStamper::new(parts.lookup_key),
            peppers,
            admission: Semaphore::new(COMMANDS_MAX),
            abroad: Arc::default(),
            sign_in: std::sync::OnceLock::new(),
            importing: Importing::default(),
            dead: DeadKeys::new(snapshots.clone(), seal, fingerprints),
            snapshots: Snapshots::new(snapshots, rounds, check),
            history: History::new(),
            replayed_to,
            noted: usage::Noted::new(),
            recorder: tokio::sync::Mutex::new(usage::recorder::Recorder::new(places)),
            denials: denials::Denials::new(),
            opening: tokio::sync::Mutex::default(),
            server_since: std::sync::OnceLock::new(),
            rate_limits: rate_limits::RateLimits::new(),
            activity: super::activity::IndexState::default(),
            readings: super::reading::Readings::default(),
            instants: super::instants::Instants::default(),
            stats: LedgerStats::default(),
        });
        Ok((ledger, replayed))
    }

    /// The tables and accounts that a replay of all history comes to now, beside those that are
    /// published. Takes as long as a start without snapshots.
    pub async fn rebuilt(&self) -> Result<(Tables, Accounts), StartError> {
        let (tables, accounts) = (Tables::new(), Accounts::new());
        let folded = replay::fold_all(&self.store, Before::default()).await?;
        replay::publish(folded, &tables, &accounts)?;
        Ok((tables, accounts))
    }

    /// Whether the installation is still to be made.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.tables.operator().tables().revision().is_none()
    }
}
