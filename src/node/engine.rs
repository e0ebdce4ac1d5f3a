//! A node whose events are kept by an EventStoreDB or KurrentDB server.
//!
//! What is in the data directory is this node's own: `node.id`, by which (the name and the
//! file) it knows its own registration after a crash, locked while it runs, and the
//! operator's first key. The vault is where `secrets_dir` says.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use projections::id::OrganizationId;
use projections::recorded::{Revision, StreamName};

use super::derived::Derived;
use super::kept::Kept;
use super::{Directories, NodeError, Opened};
use crate::ledger::contact::{Contact, Loss};
use crate::ledger::event_store::{EventStore, ReadError};
use crate::ledger::secret::NoEntropy;
use crate::store::engine_url::EngineUrl;
use crate::store::eventstore::migration::{self, MigrationError};
use crate::store::eventstore::registration::{Identity, RegisterError, Registration};
use crate::store::eventstore::{EngineOpenError, EngineStore};
use crate::store::stats::StoreStats;
use crate::vault::file::{FileVault, OpenVaultError, Start};
use crate::vault::files;

/// Holds this node's name, in the data directory.
const NODE_FILE: &str = "node.id";

/// Why a server does not serve this node.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// It cannot be opened.
    #[error(transparent)]
    Open(#[from] EngineOpenError),
    /// This node is not admitted.
    #[error(transparent)]
    Register(#[from] RegisterError),
    /// A migration was begun and not ended.
    #[error(transparent)]
    Migration(#[from] MigrationError),
    /// It cannot be read.
    #[error("read the event store")]
    Read(#[from] ReadError),
    /// Another node runs on the data directory.
    #[error(
        "data directory `{}` is in use by another keyledger; stop that one, or give this one a directory of its own",
        .0.display()
    )]
    DirectoryLocked(PathBuf),
    /// The node's own file cannot be used.
    #[error("cannot use `{}`", path.display())]
    NodeFile {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The vault belongs to another history.
    #[error(
        "the vault `{}` has kept keys for a history, but the event store at {hosts} holds none; check `store`, and its `streamPrefix`, or name another `secrets_dir` to begin anew",
        path.display()
    )]
    HistoryElsewhere {
        /// The vault's file.
        path: PathBuf,
        /// Where the event store is.
        hosts: String,
    },
    /// The operating system gives no entropy.
    #[error(transparent)]
    NoEntropy(#[from] NoEntropy),
}

/// The store of a node, and its registration there.
pub(super) struct Engine {
    store: Arc<EngineStore>,
    registration: Registration,
    /// Held for its lock.
    _lock: File,
}

impl Engine {
    pub(super) fn event_store(&self) -> Arc<dyn EventStore> {
        Arc::clone(&self.store) as _
    }

    pub(super) fn stats(&self) -> &Arc<StoreStats> {
        self.store.stats()
    }

    pub(super) fn contact(&self) -> Arc<Contact> {
        self.registration.contact()
    }

    pub(super) async fn lost(&self) -> Loss {
        self.registration.lost().await
    }

    pub(super) async fn close(&self) {
        // Events first: while any is on its way, nobody else is to come in.
        if self.store.finish().await {
            self.registration.leave().await;
        } else {
            self.registration.abandon();
        }
        self.store.close().await;
    }
}

/// Opens what the directories and the server hold, making them where this is the first start.
pub(super) async fn open(directories: Directories, url: &EngineUrl) -> Result<Opened, NodeError> {
    files::make_directory(&directories.data).map_err(NodeError::AdminKey)?;
    let (lock, identity) = identity(&directories)?;
    let store = Arc::new(EngineStore::open(url).await.map_err(EngineError::from)?);
    let registered = Registration::obtain(&store, identity, url.lease()).await;
    let registration = registered.map_err(EngineError::from)?;
    let engine = Engine { store, registration, _lock: lock };
    match open_vault(&directories, url, &engine).await {
        Ok((vault, peppers)) => {
            let directories_too = directories.clone();
            let derived =
                tokio::task::spawn_blocking(move || Derived::open(&directories_too)).await;
            let derived = derived.map_err(|_| NodeError::Interrupted)?;
            Ok(Opened { store: Kept::Engine(engine), derived, vault, peppers, directories })
        }
        Err(error) => {
            // Whoever comes next need not wait for this one.
            engine.close().await;
            Err(error)
        }
    }
}

async fn open_vault(
    directories: &Directories,
    url: &EngineUrl,
    engine: &Engine,
) -> Result<(FileVault, crate::ledger::vault::peppers::Peppers), NodeError> {
    migration::ensure_none_begun(&engine.store).await.map_err(EngineError::from)?;
    let operator = StreamName::organization(OrganizationId::OPERATOR);
    let history = engine.store.read_stream(&operator, Revision::FIRST, 1).await;
    let history = history.map_err(EngineError::from)?;
    let start = if history.is_empty() { Start::First } else { Start::Later };
    let (secrets, hosts) = (directories.secrets.clone(), url.hosts());
    let opened = tokio::task::spawn_blocking(move || FileVault::open(&secrets, start)).await;
    opened.map_err(|_| NodeError::Interrupted)?.map_err(|error| {
        if let OpenVaultError::HistoryMissing { path } = error {
            return EngineError::HistoryElsewhere { path, hosts }.into();
        }
        error.into()
    })
}

/// Who this node is, and the lock on its name: two nodes must not have one.
fn identity(directories: &Directories) -> Result<(File, Identity), EngineError> {
    let path = directories.data.join(NODE_FILE);
    let io = |source| EngineError::NodeFile { path: path.clone(), source };
    let mut options = OpenOptions::new();
    let options = options.create(true).truncate(false).read(true).write(true).mode(0o600);
    let mut file = options.open(&path).map_err(io)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(EngineError::DirectoryLocked(directories.data.clone()));
        }
        Err(TryLockError::Error(source)) => return Err(io(source)),
    }
    let mut name = String::new();
    file.read_to_string(&mut name).map_err(io)?;
    if let Some(identity) = Identity::of_name(name.trim()) {
        let identity = identity.locked_by(&file);
        return Ok((file, identity));
    }
    let identity = Identity::new()?.locked_by(&file);
    file.set_len(0).map_err(io)?;
    file.write_all(identity.name().as_bytes()).map_err(io)?;
    file.sync_all().map_err(io)?;
    Ok((file, identity))
}
