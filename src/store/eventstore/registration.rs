//! One node at a time, by a stream that says who it is.
//!
//! A node registers in [`STREAM`] before it reads or writes anything else, and renews its
//! registration several times in each lease. Every event of the stream names the revision
//! it expects, so that of two nodes one wins. From its last renewal a node may answer for
//! one lease, counted on its own boot clock from the instant before it was sent; whoever
//! wants its place must see nothing new there for longer than that, on a boot clock of
//! their own. No wall clocks are compared.
//!
//! A node that comes back after a crash need not wait: it knows its own registration by its
//! name, and by the file of the name that was locked and is locked now, on the same boot of
//! the same machine. Whoever held that lock is gone. Of a copy none of that is true but the
//! name. A node that runs takes a registration for its own only by the identifier of the
//! event, which it has made itself.

use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;
use std::time::Duration;

use projections::digest::LeafHash;
use projections::id::EventId;
use projections::recorded::{Revision, StreamName};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use uuid::Uuid;

use super::fault::Fault;
use super::{EngineStore, Inner, wire};
use crate::ledger::clock::{Clock, boot_ms};
use crate::ledger::contact::{Contact, Loss};
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
    place: Option<String>,
}

impl Identity {
    /// A name that nobody has.
    ///
    /// # Errors
    ///
    /// The system gives no entropy.
    pub fn new() -> Result<Self, NoEntropy> {
        let id = Ids::from_system()?.event(Clock::system().now()).to_string();
        Ok(Self { name: id.replacen("evt_", "nod_", 1), host: host(), place: None })
    }

    /// One that was made before; none if the text is no name.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        let known = name.strip_prefix("nod_")?;
        let plain = known.len() == 26 && known.bytes().all(|it| it.is_ascii_alphanumeric());
        plain.then(|| Self { name: name.to_owned(), host: host(), place: None })
    }

    /// The same, known by this file, on which the caller holds the lock: nobody else who held
    /// it runs any more.
    #[must_use]
    pub fn locked_by(self, file: &File) -> Self {
        Self { place: place(file), ..self }
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

/// What no other file is, as long as this machine runs; none where that cannot be said.
fn place(file: &File) -> Option<String> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let metadata = file.metadata().ok()?;
    let text = format!("{} {} {}", boot.trim(), metadata.dev(), metadata.ino());
    Some(blake3::hash(text.as_bytes()).to_string())
}

/// What an event about a node holds.
#[derive(Deserialize, Serialize)]
struct About {
    node: String,
    host: String,
    /// How long it may answer from its last renewal on.
    lease_ms: u64,
    /// The file of its name that it has locked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    place: Option<String>,
}

impl About {
    /// Whether it is certain that this node was the one, and runs no more.
    fn was(&self, identity: &Identity) -> bool {
        self.node == identity.name && self.place.is_some() && self.place == identity.place
    }
}

/// The end of the stream.
struct Last {
    id: Uuid,
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
        let mut said = Said::default();
        for _ in 0..CLAIMS_MAX {
            let last = last(&inner).await?;
            let free = last
                .as_ref()
                .is_none_or(|last| last.left || said.is_ours(last) || last.about.was(&identity));
            if let Some(last) = last.as_ref().filter(|_| !free) {
                watch_silence(&inner, last, lease).await?;
            }
            let began = boot_ms();
            let expected = last.map(|last| last.revision);
            match said.say(&inner, &identity, REGISTERED, expected, lease, lease).await {
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
            said: Said::default(),
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

    /// Waits until the place is lost for good: never, once it was left.
    pub async fn lost(&self) -> Loss {
        loss(self.replaced.clone(), &self.contact).await
    }

    /// Answers no more, and leaves the place to whoever waits long enough for it.
    pub fn abandon(&self) {
        self.contact.lose();
        self.renewing.abort();
    }

    /// Gives the place up, so that the next node need not wait.
    pub async fn leave(&self) {
        let last = self.last.lock().await;
        if self.contact.is_lost() {
            return;
        }
        self.abandon();
        let (none, mut said) = (Duration::ZERO, Said::default());
        let left = said.say(&self.inner, &self.identity, LEFT, Some(*last), none, LEAVE_MAX);
        if let Err(error) = left.await {
            tracing::warn!(%error, "the event store was not told that this node has stopped: the next one will wait");
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.abandon();
    }
}

/// Waits for what tells of another node, or for its end.
async fn loss(mut replaced: watch::Receiver<bool>, contact: &Contact) -> Loss {
    if replaced.wait_for(|replaced| *replaced).await.is_ok() {
        return Loss::Replaced;
    }
    if contact.is_lost() {
        // The place was left.
        std::future::pending::<()>().await;
    }
    contact.lose();
    tracing::error!("the task that renews this node's registration has failed");
    Loss::Fault
}

/// What renews a registration.
struct Renewing {
    inner: Arc<Inner>,
    identity: Identity,
    lease: Duration,
    contact: Arc<Contact>,
    last: Arc<tokio::sync::Mutex<Revision>>,
    said: Said,
}

impl Renewing {
    /// Renews until another node has the place.
    async fn run(mut self) {
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
    async fn renew(&mut self, within: Duration) -> Result<(), bool> {
        let last = Arc::clone(&self.last);
        let mut last = last.lock().await;
        let began = boot_ms();
        let expected = Some(*last);
        let renewed =
            self.said.say(&self.inner, &self.identity, RENEWED, expected, self.lease, within);
        match renewed.await {
            Ok(revision) => {
                *last = revision;
                self.said = Said::default();
                self.contact.extend(began.saturating_add(millis(self.lease)));
                return Ok(());
            }
            Err(AppendError::WrongExpectedRevision { .. }) => {}
            Err(error) => tracing::warn!(%error, "this node's registration could not be renewed"),
        }
        // One of our own may have come late.
        match self::last(&self.inner).await {
            Ok(Some(found)) if self.said.is_ours(&found) => {
                *last = found.revision;
                self.said = Said::default();
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
    Ok(Some(Last { id: event.id, revision: Revision(event.revision), left, about }))
}

/// What a node has said of itself since its place was last certain: any of it may have been
/// written, or come late.
#[derive(Default)]
struct Said(Vec<Uuid>);

impl Said {
    /// Whether it is an event of this node's own making, in this process.
    fn is_ours(&self, last: &Last) -> bool {
        self.0.contains(&last.id)
    }

    async fn say(
        &mut self,
        inner: &Inner,
        identity: &Identity,
        event_type: &'static str,
        expected: Option<Revision>,
        lease: Duration,
        within: Duration,
    ) -> Result<Revision, AppendError> {
        let id = new_id()?;
        self.0.push(wire::id_of(id));
        let lease_ms = u64::try_from(lease.as_millis()).unwrap_or(u64::MAX);
        let Identity { name: node, host, place } = identity.clone();
        let about = About { node, host, lease_ms, place };
        let noted = note(inner, STREAM, (id, event_type), &about, expected, within).await;
        if matches!(noted, Err(AppendError::Unavailable(_))) {
            // It was not written, and never will be.
            self.0.pop();
        }
        noted
    }
}

/// An identifier that nobody has.
pub(super) fn new_id() -> Result<EventId, AppendError> {
    let ids = Ids::from_system().map_err(|error| AppendError::Unavailable(error.to_string()))?;
    Ok(ids.event(Clock::system().now()))
}

/// Appends an event that is about nodes.
pub(super) async fn note(
    inner: &Inner,
    stream: &str,
    (id, event_type): (EventId, &'static str),
    about: &impl Serialize,
    expected: Option<Revision>,
    within: Duration,
) -> Result<Revision, AppendError> {
    let unserializable = |error: serde_json::Error| AppendError::Unavailable(error.to_string());
    let stored = serde_json::to_vec(about).map_err(unserializable)?;
    let event =
        NewEvent { id, event_type, leaf_hash: LeafHash::of(&stored), stored: stored.into() };
    inner.write_within(&StreamName::from_store(stream), expected, &[event], within).await
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_end_of_what_renews_is_the_end_of_the_node() {
        let leave = || Contact::until(boot_ms() + 60_000);
        let (tell, replaced) = watch::channel(false);
        let contact = leave();
        tell.send_replace(true);
        assert_eq!(loss(replaced, &contact).await, Loss::Replaced);

        // As after a panic in its task.
        let (tell, replaced) = watch::channel(false);
        drop(tell);
        assert_eq!(loss(replaced, &contact).await, Loss::Fault);
        assert!(!contact.holds(), "and nothing more is answered");

        let (tell, replaced) = watch::channel(false);
        let contact = leave();
        contact.lose();
        drop(tell);
        let mut left = std::pin::pin!(loss(replaced, &contact));
        let polled = std::future::poll_fn(|it| std::task::Poll::Ready(left.as_mut().poll(it)));
        assert!(polled.await.is_pending(), "it has left by itself");
    }

    #[test]
    fn a_node_knows_itself_by_the_file_it_has_locked() {
        let directory = tempfile::TempDir::new().unwrap();
        let file = |name: &str| File::create(directory.path().join(name)).unwrap();
        let name = Identity::new().unwrap();
        let about = |identity: &Identity| About {
            node: identity.name.clone(),
            host: identity.host.clone(),
            lease_ms: 1,
            place: identity.place.clone(),
        };
        let (mine, copy) = (file("a"), file("b"));
        let here = name.clone().locked_by(&mine);
        assert!(about(&here).was(&name.clone().locked_by(&mine)));
        assert!(!about(&here).was(&name.clone().locked_by(&copy)), "a copy");
        assert!(!about(&here).was(&Identity::new().unwrap().locked_by(&mine)), "another name");
        assert!(!about(&name).was(&name), "without a file nothing is certain");
        let older = r#"{"node":"nod_1","host":"h","lease_ms":1}"#;
        assert!(serde_json::from_str::<About>(older).unwrap().place.is_none());
    }
}
