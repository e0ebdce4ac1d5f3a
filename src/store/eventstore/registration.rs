//! One node at a time, by a stream that says who it is.
//!
//! A node registers in [`STREAM`] before it reads or writes anything else, and renews its
//! registration several times in each lease. Every event of the stream names the revision
//! it expects, so that of two nodes one wins. From its last renewal a node may answer for
//! one lease, counted on its own boot clock from the instant before it was sent; whoever
//! wants its place must see nothing new there for longer than that, on a boot clock of
//! their own. No wall clocks are compared.
//!
//! A node that comes back after a crash knows its own registration by its name, which a
//! lock in its data directory keeps from others, and need not wait.

use std::sync::Arc;
use std::time::Duration;

use projections::digest::LeafHash;
use projections::recorded::{Revision, StreamName};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::fault::Fault;
use super::{EngineStore, Inner};
use crate::ledger::clock::{Clock, boot_ms};
use crate::ledger::contact::Contact;
use crate::ledger::event_store::{AppendError, NewEvent};
use crate::ledger::secret::{Ids, NoEntropy};

/// The stream that says which node is admitted.
pub const STREAM: &str = "node-registration";
/// How many renewals a lease has room for.
const RENEWALS: u32 = 3;
/// How long leaving may take.
const LEAVE_MAX: Duration = Duration::from_secs(2);
/// How often a claim is tried against others who come at once.
const CLAIMS_MAX: usize = 8;

const REGISTERED: &str = "NodeRegistered";
const RENEWED: &str = "NodeRenewed";
const LEFT: &str = "NodeLeft";

/// Why a node is not admitted.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// Another node is.
    #[error(
        "another node is running on this event store: {node} on host `{host}`; only one may: stop that one, and start this one again"
    )]
    InUse {
        /// Its name.
        node: String,
        /// Where it runs, by its own word.
        host: String,
    },
    /// Others claim the place at the same time, again and again.
    #[error(
        "other nodes register on this event store at the same time; stop them, and start this one again"
    )]
    Contended,
    /// The registration cannot be written or read.
    #[error("register this node in the event store: {0}")]
    Store(String),
    /// The stream holds what no node of this version writes.
    #[error(
        "stream `{STREAM}` of the event store holds what this version does not know; use the version that wrote it"
    )]
    Unknown,
    /// The operating system gives no entropy.
    #[error(transparent)]
    NoEntropy(#[from] NoEntropy),
}

/// Who a node is.
#[derive(Clone, Debug)]
pub struct Identity {
    name: String,
    host: String,
}

impl Identity {
    /// A name that nobody has.
    ///
    /// # Errors
    ///
    /// The system gives no entropy.
    pub fn new() -> Result<Self, NoEntropy> {
        let id = Ids::from_system()?.event(Clock::system().now()).to_string();
        Ok(Self { name: id.replacen("evt_", "nod_", 1), host: host() })
    }

    /// One that was made before; none if the text is no name.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        let known = name.strip_prefix("nod_")?;
        let plain = known.len() == 26 && known.bytes().all(|it| it.is_ascii_alphanumeric());
        plain.then(|| Self { name: name.to_owned(), host: host() })
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// What this machine is called, for whoever must find it.
fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname")
        .or_else(|_| std::fs::read_to_string("/etc/hostname"))
        .unwrap_or_default();
    let plain = |it: &char| it.is_ascii_alphanumeric() || matches!(it, '-' | '.' | '_');
    let name: String = name.trim().chars().filter(plain).take(64).collect();
    if name.is_empty() { "unknown".to_owned() } else { name }
}

/// What an event about a node holds.
#[derive(Deserialize, Serialize)]
struct About {
    node: String,
    host: String,
    /// How long it may answer from its last renewal on.
    lease_ms: u64,
}

/// The end of the stream.
struct Last {
    revision: Revision,
    left: bool,
    about: About,
}

/// A node's place at the engine, kept until it leaves or another takes it.
pub struct Registration {
    contact: Arc<Contact>,
    identity: Identity,
    inner: Arc<Inner>,
    renewing: JoinHandle<()>,
    replaced: watch::Receiver<bool>,
    last: Arc<tokio::sync::Mutex<Revision>>,
}

impl Registration {
    /// Registers a node, once it is certain that no other is running.
    ///
    /// # Errors
    ///
    /// Another node is running, or the store cannot be used.
    pub async fn obtain(
        store: &EngineStore,
        identity: Identity,
        lease: Duration,
    ) -> Result<Self, RegisterError> {
        let inner = Arc::clone(&store.inner);
        for _ in 0..CLAIMS_MAX {
            let last = last(&inner).await?;
            let free =
                last.as_ref().is_none_or(|last| last.left || last.about.node == identity.name);
            if let Some(last) = last.as_ref().filter(|_| !free) {
                watch_silence(&inner, last, lease).await?;
            }
            let began = boot_ms();
            let expected = last.map(|last| last.revision);
            match say(&inner, &identity, REGISTERED, expected, lease, lease).await {
                Ok(revision) => return Ok(Self::begin(inner, identity, lease, began, revision)),
                Err(AppendError::WrongExpectedRevision { .. } | AppendError::Unknown(_)) => {}
                Err(error) => return Err(RegisterError::Store(error.to_string())),
            }
        }
        Err(RegisterError::Contended)
    }

    fn begin(
        inner: Arc<Inner>,
        identity: Identity,
        lease: Duration,
        began: i64,
        revision: Revision,
    ) -> Self {
        let contact = Arc::new(Contact::until(began.saturating_add(millis(lease))));
        // A second would change nothing: a store is registered once.
        let _ = inner.leave.set(Arc::clone(&contact));
        let last = Arc::new(tokio::sync::Mutex::new(revision));
        let (tell, replaced) = watch::channel(false);
        let renewing = Renewing {
            inner: Arc::clone(&inner),
            identity: identity.clone(),
            lease,
            contact: Arc::clone(&contact),
            last: Arc::clone(&last),
        };
        let renewing = tokio::spawn(async move {
            renewing.run().await;
            tell.send_replace(true);
        });
        Self { contact, identity, inner, renewing, replaced, last }
    }

    /// The node's leave to answer.
    #[must_use]
    pub fn contact(&self) -> Arc<Contact> {
        Arc::clone(&self.contact)
    }

    /// Waits until another node has taken the place.
    pub async fn replaced(&self) {
        let mut replaced = self.replaced.clone();
        if replaced.wait_for(|replaced| *replaced).await.is_err() {
            // It has left by itself.
            std::future::pending::<()>().await;
        }
    }

    /// Answers no more, and leaves the place to whoever waits long enough for it.
    pub fn abandon(&self) {
        self.contact.lose();
        self.renewing.abort();
    }

    /// Gives the place up, so that the next node need not wait.
    pub async fn leave(&self) {
        let last = self.last.lock().await;
        self.renewing.abort();
        if self.contact.is_lost() {
            return;
        }
        self.contact.lose();
        if let Err(error) =
            say(&self.inner, &self.identity, LEFT, Some(*last), Duration::ZERO, LEAVE_MAX).await
        {
            tracing::warn!(%error, "the event store was not told that this node has stopped: the next one will wait");
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.abandon();
    }
}

/// What renews a registration.
struct Renewing {
    inner: Arc<Inner>,
    identity: Identity,
    lease: Duration,
    contact: Arc<Contact>,
    last: Arc<tokio::sync::Mutex<Revision>>,
}

impl Renewing {
    /// Renews until another node has the place.
    async fn run(self) {
        let pause = self.lease / RENEWALS;
        loop {
            tokio::time::sleep(pause).await;
            while let Err(lost) = self.renew(pause).await {
                if lost {
                    self.contact.lose();
                    tracing::error!("another node has registered in the event store");
                    return;
                }
                tokio::time::sleep(pause / 10).await;
            }
        }
    }

    /// Renews once. An error says whether the place is lost for good.
    async fn renew(&self, within: Duration) -> Result<(), bool> {
        let mut last = self.last.lock().await;
        let began = boot_ms();
        match say(&self.inner, &self.identity, RENEWED, Some(*last), self.lease, within).await {
            Ok(revision) => {
                *last = revision;
                self.contact.extend(began.saturating_add(millis(self.lease)));
                return Ok(());
            }
            Err(AppendError::WrongExpectedRevision { .. }) => {}
            Err(error) => tracing::warn!(%error, "this node's registration could not be renewed"),
        }
        // One of our own may have come late.
        match self::last(&self.inner).await {
            Ok(Some(found)) if found.about.node == self.identity.name && !found.left => {
                *last = found.revision;
                Err(false)
            }
            // The engine may answer from the past: then it is the next attempt that tells.
            Ok(Some(found)) if found.revision <= *last => Err(false),
            Ok(Some(_)) => Err(true),
            Ok(None) | Err(_) => Err(false),
        }
    }
}

/// Waits until whoever is registered has lost their leave; fails as soon as they are heard of.
async fn watch_silence(inner: &Inner, seen: &Last, lease: Duration) -> Result<(), RegisterError> {
    // Whoever is there may have been given longer than this node would be.
    let lease = lease.max(Duration::from_millis(seen.about.lease_ms));
    // A third more, for clocks that do not run alike.
    let until = Instant::now() + lease + lease / 3;
    tracing::info!(
        node = %seen.about.node, host = %seen.about.host,
        "another node is registered in the event store: waiting for a sign of life"
    );
    while Instant::now() < until {
        tokio::time::sleep(lease / 10).await;
        let now = last(inner).await?;
        if let Some(now) = now.filter(|now| now.revision != seen.revision) {
            if now.left {
                return Ok(());
            }
            return Err(RegisterError::InUse { node: now.about.node, host: now.about.host });
        }
    }
    Ok(())
}

async fn last(inner: &Inner) -> Result<Option<Last>, RegisterError> {
    let event = inner.last(&StreamName::from_store(STREAM)).await.map_err(|fault| {
        let deleted = fault == Fault::Deleted;
        if deleted { RegisterError::Unknown } else { RegisterError::Store(fault.to_string()) }
    })?;
    let Some(event) = event else { return Ok(None) };
    let left = match event.event_type.as_str() {
        LEFT => true,
        REGISTERED | RENEWED => false,
        _ => return Err(RegisterError::Unknown),
    };
    let about = serde_json::from_slice(&event.data).map_err(|_| RegisterError::Unknown)?;
    Ok(Some(Last { revision: Revision(event.revision), left, about }))
}

async fn say(
    inner: &Inner,
    identity: &Identity,
    event_type: &'static str,
    expected: Option<Revision>,
    lease: Duration,
    within: Duration,
) -> Result<Revision, AppendError> {
    let lease_ms = u64::try_from(lease.as_millis()).unwrap_or(u64::MAX);
    let (node, host) = (identity.name.clone(), identity.host.clone());
    let about = About { node, host, lease_ms };
    note(inner, STREAM, event_type, &about, expected, within).await
}

/// Appends an event that is about nodes.
pub(super) async fn note(
    inner: &Inner,
    stream: &str,
    event_type: &'static str,
    about: &impl Serialize,
    expected: Option<Revision>,
    within: Duration,
) -> Result<Revision, AppendError> {
    let unavailable = |what: String| AppendError::Unavailable(what);
    let ids = Ids::from_system().map_err(|error| unavailable(error.to_string()))?;
    let stored = serde_json::to_vec(about).map_err(|error| unavailable(error.to_string()))?;
    let event = NewEvent {
        id: ids.event(Clock::system().now()),
        event_type,
        leaf_hash: LeafHash::of(&stored),
        stored: stored.into(),
    };
    inner.write_within(&StreamName::from_store(stream), expected, &[event], within).await
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
