//! One node's ledger, opened from its data directory.
//!
//! The directory holds `ledger.db` (the truth) and `admin.key` (the operator's first
//! key); the secrets directory, `secrets` inside it unless configured elsewhere, holds
//! the vault and the keys that the log is useless without.

mod derived;
#[cfg(feature = "eventstore")]
mod engine;
mod kept;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use projections::api_key;
use projections::corrupt::CorruptHistory;
use projections::id::OrganizationId;
use projections::key::KeyState;
use projections::recorded::{Revision, StreamName};
use projections::text::KeyPrefix;

use crate::ledger::activity::FillError;
use crate::ledger::activity::index::IndexError;
use crate::ledger::clock::Clock;
use crate::ledger::contact::{Contact, Loss};
use crate::ledger::event_store::{EventStore, ReadError};
use crate::ledger::history::keeping::Pace;
use crate::ledger::recording::Recording;
use crate::ledger::secret::{Ids, NoEntropy, Secret};
use crate::ledger::snapshots::RoundError;
use crate::ledger::start::{ConfiguredKeys, Parts, Replayed, StartError};
use crate::ledger::vault::peppers::{PepperId, Peppers};
use crate::ledger::vault::{Vault as _, VaultError};
use crate::ledger::{Ledger, LedgerError, built_in, mint};
use crate::store::embedded::{EmbeddedStore, OpenError, Options};
use crate::store::engine_url::{EngineText, EngineUrlError};
use crate::store::stats::StoreStats;
use crate::vault::file::{FileVault, OpenVaultError, Start, VAULT_FILE};
use crate::vault::files::{self, SecretFileError};
use derived::Derived;
pub use derived::{ACTIVITY_FILE, PROJECTIONS_FILE, Unusable};
use kept::Kept;

/// The file that holds the operator's own key, in the data directory.
pub const ADMIN_KEY_FILE: &str = "admin.key";
/// The file that holds the events, in the data directory.
const LEDGER_FILE: &str = "ledger.db";
/// How long the last snapshots may take when a node closes.
const LAST_SNAPSHOTS_WITHIN: Duration = Duration::from_secs(5);
/// The vault's name for the key of request hashes.
const LOOKUP_KEY: &str = "lookup-key";

/// Where a node keeps what is its own.
#[derive(Clone, Debug)]
pub struct Directories {
    /// Events, and the operator's key.
    pub data: PathBuf,
    /// The vault and its keys.
    pub secrets: PathBuf,
    /// Where the events are, if not in the data directory.
    pub engine: Option<EngineText>,
}

impl Directories {
    /// The data directory, and the secrets directory inside it.
    #[must_use]
    pub fn inside(data: &Path) -> Self {
        Self { data: data.to_owned(), secrets: data.join("secrets"), engine: None }
    }

    /// Whether there is history in them: opening them makes what is not there.
    #[must_use]
    pub fn hold_history(&self) -> bool {
        match self.engine {
            // What the engine holds is seen when it is opened; its vault is here.
            Some(_) => self.secrets.join(VAULT_FILE).exists(),
            None => self.data.join(LEDGER_FILE).exists(),
        }
    }
}

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The vault does not open.
    #[error(transparent)]
    OpenVault(#[from] OpenVaultError),
    /// The event store does not open.
    #[error(transparent)]
    OpenStore(#[from] OpenError),
    /// The event store's connection string is none.
    #[error("`store`: {0}")]
    StoreUrl(#[from] EngineUrlError),
    /// The event store's server does not serve this node.
    #[cfg(feature = "eventstore")]
    #[error(transparent)]
    Engine(#[from] engine::EngineError),
    /// This program cannot use an event store.
    #[cfg(not(feature = "eventstore"))]
    #[error("`store`: this program was built without the feature `eventstore`")]
    NoEventStore,
    /// The vault does not give a key.
    #[error("the vault failed")]
    Vault(#[from] VaultError),
    /// The ledger does not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The operator's key cannot be kept or read.
    #[error(transparent)]
    AdminKey(#[from] SecretFileError),
    /// The file for the operator's key holds something else, and there is no history.
    #[error("`{0}` does not hold an operator's key; move it away, and a new key is made")]
    NotOurKey(PathBuf),
    /// The operator's key could not be recorded.
    #[error("cannot record the operator's new key")]
    Record(#[from] LedgerError),
    /// The new pepper could not be recorded.
    #[error("cannot record the new pepper")]
    RecordPepper(#[source] LedgerError),
    /// The operating system gives no entropy.
    #[error(transparent)]
    NoEntropy(#[from] NoEntropy),
    /// There is no installation to work on.
    #[error("`{0}` holds no installation; `keyledger serve` makes one")]
    NoInstallation(PathBuf),
    /// What is derived cannot be had at all; the log says why.
    #[error("`projections.db` or `activity.db` can be neither used nor made; the log says why")]
    NoDerived,
    /// What is derived could not be read or written.
    #[error("what is derived cannot be used")]
    Derived(#[from] Unusable),
    /// History could not be read.
    #[error("reading history")]
    Read(#[from] ReadError),
    /// Snapshots could not be taken.
    #[error("cannot take snapshots")]
    Snapshots(#[source] RoundError),
    /// A pepper is not there, and keys need it.
    #[error("`{path}` is missing; restore it from a backup (keys that need it: {keys})")]
    MissingPepper {
        /// The pepper's file.
        path: PathBuf,
        /// How many keys need it.
        keys: u64,
    },
    /// A pepper is another one than history tells of.
    #[error(
        "`{0}`: the pepper is not the one of this installation; put its secrets directory back"
    )]
    WrongPepper(PathBuf),
    /// A thread ended early.
    #[error("a thread of the start ended early")]
    Interrupted,
}

impl From<FillError> for NodeError {
    fn from(error: FillError) -> Self {
        match error {
            FillError::Index(error) => Self::Derived(error.into()),
            FillError::Read(error) => Self::Read(error),
        }
    }
}

/// An organization whose tables are not what history says, and how far history goes.
pub type DifferingTables = (OrganizationId, Option<Revision>);

/// A node's ledger and what it stands on.
pub struct Node {
    /// The ledger.
    pub ledger: Arc<Ledger>,
    /// How much was replayed.
    pub replayed: Replayed,
    store: Kept,
    derived: Derived,
    directories: Directories,
    recording: Mutex<Option<Recording>>,
}

/// The event store and the vault of a node, open, before history is replayed.
pub struct Opened {
    store: Kept,
    derived: Derived,
    vault: FileVault,
    peppers: Peppers,
    directories: Directories,
}

impl Opened {
    /// Opens what the directories hold, making them where this is the first start.
    pub async fn open(directories: Directories) -> Result<Self, NodeError> {
        if let Some(engine) = &directories.engine {
            let url = engine.url()?;
            #[cfg(feature = "eventstore")]
            return engine::open(directories, &url).await;
            #[cfg(not(feature = "eventstore"))]
            {
                let _ = url;
                return Err(NodeError::NoEventStore);
            }
        }
        tokio::task::spawn_blocking(move || {
            // The vault comes first: events are sealed under its keys from the first one on.
            let options = Options::new(&directories.data);
            // Nothing is half made where it is known not to fit.
            EmbeddedStore::check_space(&options)?;
            files::make_directory(&directories.data).map_err(NodeError::AdminKey)?;
            let start = if directories.hold_history() { Start::Later } else { Start::First };
            let (vault, peppers) = FileVault::open(&directories.secrets, start)?;
            let store = Kept::Embedded(Arc::new(EmbeddedStore::open(&options)?));
            let derived = Derived::open(&directories);
            Ok(Self { store, derived, vault, peppers, directories })
        })
        .await
        .map_err(|_| NodeError::Interrupted)?
    }

    /// The event store.
    #[must_use]
    pub fn event_store(&self) -> Arc<dyn EventStore> {
        self.store.event_store()
    }

    /// What the event store counts.
    #[must_use]
    pub fn store_stats(&self) -> Arc<StoreStats> {
        Arc::clone(self.store.stats())
    }

    /// This node's leave to answer; none where it needs none.
    #[must_use]
    pub fn contact(&self) -> Option<Arc<Contact>> {
        self.store.contact()
    }

    /// Looks whether the files of what is derived, where there are any, can be used: opening
    /// makes those anew that cannot. They are left as they are.
    pub async fn look_at_derived(directories: &Directories) -> Result<(), NodeError> {
        let directories = directories.clone();
        let looked = tokio::task::spawn_blocking(move || Derived::look(&directories)).await;
        Ok(looked.map_err(|_| NodeError::Interrupted)??)
    }

    /// Throws away what is derived: the next replay is of all history.
    pub async fn forget_derived(&self) -> Result<(), NodeError> {
        let derived = self.derived.clone();
        let cleared = tokio::task::spawn_blocking(move || derived.clear()).await;
        cleared.map_err(|_| NodeError::Interrupted)?
    }

    /// Replays history.
    pub async fn replay(self) -> Result<Node, NodeError> {
        let lookup_key = self.vault.obtain_named_key(LOOKUP_KEY).await?;
        let parts = Parts {
            store: self.store.event_store(),
            vault: Arc::new(self.vault),
            clock: Clock::system(),
            ids: Ids::from_system()?,
            peppers: self.peppers,
            lookup_key,
        };
        let pepper_path = |id| self.directories.secrets.join(files::pepper_file(id));
        let opened =
            Ledger::open_with(parts, self.derived.snapshots.clone().map(|it| it as _)).await;
        let (ledger, replayed) = opened.map_err(|error| {
            if let StartError::MissingPepper { pepper, keys } = error {
                return NodeError::MissingPepper { path: pepper_path(pepper), keys };
            }
            if let StartError::WrongPepper(pepper) = error {
                return NodeError::WrongPepper(pepper_path(pepper));
            }
            error.into()
        })?;
        let recording = Mutex::default();
        let Self { store, derived, directories, .. } = self;
        Ok(Node { ledger, replayed, store, derived, directories, recording })
    }
}

/// The operator's first key, just made.
pub struct FirstKey {
    /// The key.
    pub secret: Secret,
    /// The file that holds it.
    pub path: PathBuf,
}

impl Node {
    /// Makes the installation if there is none, and records what the configuration says.
    ///
    /// Gives the operator's key where this start made it: kept in a file of its own,
    /// which is on disk before the event that brings the key into force.
    pub async fn configure(
        &self,
        configured: &ConfiguredKeys,
    ) -> Result<Option<FirstKey>, NodeError> {
        if !self.ledger.is_new() {
            self.ledger.configure(configured).await?;
            return Ok(None);
        }
        let first = if configured.is_empty() { Some(self.first_key()?) } else { None };
        self.ledger.create_installation(first.as_ref().map(|it| &it.secret), configured).await?;
        Ok(first)
    }

    /// The operator's first key: a new one, or the one that a start which was cut short
    /// left behind.
    fn first_key(&self) -> Result<FirstKey, NodeError> {
        let path = self.admin_key_path();
        let secret = match files::read(&path) {
            // Only a key of our own making is ever taken up: another text would be brought
            // into force and then refused as malformed, or be one that can be guessed.
            Ok(text) => match api_key::prefix_of(&text) {
                Some(prefix) if prefix == built_in::operator_key_prefix().as_str() => {
                    Secret::new(text)
                }
                _ => return Err(NodeError::NotOurKey(path)),
            },
            Err(SecretFileError::Missing { .. }) => {
                let secret = self.mint_admin_key()?;
                files::write(&path, secret.expose())?;
                secret
            }
            Err(error) => return Err(error.into()),
        };
        Ok(FirstKey { secret, path })
    }

    fn mint_admin_key(&self) -> Result<Secret, NoEntropy> {
        let prefix: KeyPrefix = built_in::operator_key_prefix();
        Ok(mint::mint(&prefix, None, self.ledger.peppers())?.secret)
    }

    fn admin_key_path(&self) -> PathBuf {
        self.directories.data.join(ADMIN_KEY_FILE)
    }

    /// The file of the operator's minted key, where it still lies beside the data.
    #[must_use]
    pub fn admin_key_beside_data(&self) -> Option<PathBuf> {
        Some(self.admin_key_path()).filter(|path| path.exists())
    }

    /// Replaces the operator's own key: the old file's key is revoked, the new one is in
    /// force and in the file.
    pub async fn reissue_operator_key(&self) -> Result<FirstKey, NodeError> {
        if self.ledger.is_new() {
            return Err(NodeError::NoInstallation(self.directories.data.clone()));
        }
        let secret = self.mint_admin_key()?;
        let path = self.admin_key_path();
        // A full disk must not keep a key in force: what is set aside is for this file, too.
        while let Err(error) = files::replace(&path, secret.expose()) {
            if !error.is_no_space() || !self.store.release_reserve() {
                return Err(error.into());
            }
        }
        self.ledger.reissue_operator_key(&secret).await?;
        Ok(FirstKey { secret, path })
    }

    /// Makes another pepper current, from the next start on. Its file is on disk before
    /// the event that names it; one that an attempt which was cut short left is taken up.
    /// Gives the pepper and its file.
    pub async fn rotate_pepper(&self) -> Result<(PepperId, PathBuf), NodeError> {
        if self.ledger.is_new() {
            return Err(NodeError::NoInstallation(self.directories.data.clone()));
        }
        let pepper = self.ledger.next_pepper();
        let path = self.pepper_path(pepper);
        let key = match files::read_key(&path) {
            Err(SecretFileError::Missing { .. }) => files::make_key(&path)?,
            outcome => outcome?,
        };
        self.ledger.rotate_pepper(pepper, key).await.map_err(NodeError::RecordPepper)?;
        Ok((pepper, path))
    }

    /// The file that holds a pepper.
    #[must_use]
    pub fn pepper_path(&self, pepper: PepperId) -> PathBuf {
        self.directories.secrets.join(files::pepper_file(pepper))
    }

    /// Whether any key of the operator's organization is in force.
    #[must_use]
    pub fn has_operator_key(&self) -> bool {
        let now = self.ledger.clock().now();
        let operator = self.ledger.tables().operator().tables();
        operator.keys_after(None).any(|key| key.state(now) == KeyState::Active)
    }

    /// Records from here on what keys are used for, and what is denied.
    pub fn start_recording(&self) {
        let recording = self.ledger.start_recording();
        *self.recording.lock().unwrap_or_else(PoisonError::into_inner) = Some(recording);
    }

    /// Waits until this node's leave to answer is over for good: for ever, where it needs
    /// none.
    pub async fn lost(&self) -> Loss {
        self.store.lost().await
    }

    /// Replays all history anew and compares: the organizations whose tables are not, byte
    /// by byte, those that this node started with, and the revision of each; and the streams
    /// of accounts and e-mails of which that is so.
    pub async fn differing(&self) -> Result<(Vec<DifferingTables>, Vec<StreamName>), NodeError> {
        let (rebuilt, accounts) = self.ledger.rebuilt().await?;
        let differing_streams = self.ledger.accounts().differing(&accounts);
        let tables = self.ledger.tables();
        let mut differing = Vec::new();
        for organization in rebuilt.all() {
            let (id, rebuilt) = (organization.id, organization.tables());
            let running = tables.organization(id);
            let same = running.as_ref().is_some_and(|it| {
                it.tables().to_canonical() == rebuilt.to_canonical()
                    && it.stopped() == organization.stopped()
            });
            let revision = rebuilt.revision();
            drop(rebuilt);
            let dead = match running {
                Some(running) => self.ledger.has_dead_of(&running, &organization).await,
                None => false,
            };
            if !same || !dead {
                differing.push((id, revision));
            }
        }
        Ok((differing, differing_streams))
    }

    /// The streams whose history is damaged, and where and how.
    #[must_use]
    pub fn damaged(&self) -> Vec<(StreamName, CorruptHistory)> {
        let mut damaged = Vec::new();
        for organization in self.ledger.tables().all() {
            let usage = || StreamName::usage(organization.id);
            let own = organization.stopped().map(|fault| (organization.stream.clone(), fault));
            let faults =
                own.into_iter().chain(organization.usage_damaged().map(|it| (usage(), it)));
            damaged.extend(faults.map(|(stream, fault)| (stream, fault.clone())));
        }
        damaged.extend(self.ledger.accounts().damaged());
        damaged
    }

    /// Takes snapshots of all that moved since the last ones.
    pub async fn take_snapshots(&self) -> Result<(), NodeError> {
        self.ledger.take_snapshots().await.map(|_| ()).map_err(NodeError::Snapshots)
    }

    /// Keeps the activity index up to date, where there is one, for as long as this is awaited.
    pub fn keep_activity_index(&self) -> impl Future<Output = ()> + use<> {
        let (ledger, index) = (Arc::clone(&self.ledger), self.derived.activity.clone());
        async move {
            if let Some(index) = index {
                ledger.keep_activity_index(index as _).await;
            }
        }
    }

    /// Adds to the activity index all that the store holds behind what it has. Gives the
    /// number of events.
    pub async fn fill_activity_index(&self) -> Result<u64, NodeError> {
        let Some(index) = self.derived.activity.clone() else { return Err(NodeError::NoDerived) };
        Ok(self.ledger.fill_activity_index(&(index as _)).await?)
    }

    /// Whether the activity index holds what history says, up to where it has read.
    pub async fn activity_index_is_right(&self) -> Result<bool, NodeError> {
        let Some(index) = self.derived.activity.clone() else { return Err(NodeError::NoDerived) };
        match self.ledger.activity_index_is_right(&(index as _), Pace::Steady).await {
            Err(FillError::Index(IndexError::Damaged(_))) => Ok(false),
            right => Ok(right?),
        }
    }

    /// Closes the event store and writes nothing more.
    pub async fn leave(&self) {
        self.store.close().await;
    }

    /// Records what is left to record, takes the last snapshots, if they do not take long,
    /// and closes the event store: what was acknowledged is on disk already.
    pub async fn close(&self) {
        let recording = self.recording.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(recording) = recording {
            recording.finish().await;
        }
        self.ledger.take_last_snapshots(LAST_SNAPSHOTS_WITHIN).await;
        self.store.close().await;
    }
}
