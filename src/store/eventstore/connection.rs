//! The engine's client, renewed when it is of no more use.
//!
//! The client gives up for good once it has not found a node in its first attempts, and
//! stays with a node that fails it. So after every fault of the connection another client
//! takes its place, which looks for the leader anew; calls under way end on the old one.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use eventstore::{
    AppendToStreamOptions, Authentication, Client, ClientSettings, ReadAllOptions,
    ReadStreamOptions,
};
use tokio::time::Instant;

use super::super::engine_url::EngineUrl;
use super::names;

/// How long a client is given before another may take its place.
const RENEW_EVERY: Duration = Duration::from_millis(100);

/// The connection to an engine.
pub(super) struct Connection {
    settings: ClientSettings,
    user: Option<Authentication>,
    pub(super) deadline: Duration,
    prefix: String,
    current: Mutex<Current>,
}

struct Current {
    client: Client,
    generation: u64,
    since: Instant,
}

/// A client, and which one it is.
pub(super) struct Lent {
    pub(super) client: Client,
    pub(super) generation: u64,
}

impl Connection {
    pub(super) fn new(url: &EngineUrl) -> Result<Self, String> {
        // What the client says of a string it does not take would repeat it.
        let settings: ClientSettings =
            url.for_client().parse().map_err(|_| "it cannot be parsed".to_owned())?;
        let user = url
            .user()
            .map(|(name, password)| Authentication::basic(name.to_owned(), password.to_owned()));
        let client = Client::new(settings.clone()).map_err(|error| error.to_string())?;
        let current = Current { client, generation: 0, since: Instant::now() };
        Ok(Self {
            settings,
            user,
            deadline: url.deadline(),
            prefix: url.stream_prefix().to_owned(),
            current: Mutex::new(current),
        })
    }

    pub(super) fn client(&self) -> Lent {
        let current = self.lock();
        Lent { client: current.client.clone(), generation: current.generation }
    }

    /// Puts another client in the place of this one, unless somebody did so before.
    pub(super) fn renew(&self, generation: u64) {
        let mut current = self.lock();
        if current.generation != generation || current.since.elapsed() < RENEW_EVERY {
            return;
        }
        match Client::new(self.settings.clone()) {
            Ok(client) => {
                current.client = client;
                current.generation += 1;
                current.since = Instant::now();
            }
            Err(error) => tracing::warn!(%error, "no other connection to the event store"),
        }
    }

    /// What a stream is called there.
    pub(super) fn named(&self, stream: &str) -> String {
        names::named(&self.prefix, stream)
    }

    /// What we call a stream of that name; none for one that is not ours.
    pub(super) fn ours<'a>(&self, name: &'a str) -> Option<&'a str> {
        names::ours(&self.prefix, name)
    }

    pub(super) fn appending(&self) -> AppendToStreamOptions {
        let options =
            AppendToStreamOptions::default().requires_leader(true).deadline(self.deadline);
        match &self.user {
            Some(user) => options.authenticated(user.clone()),
            None => options,
        }
    }

    pub(super) fn reading(&self) -> ReadStreamOptions {
        let options = ReadStreamOptions::default().requires_leader(true);
        match &self.user {
            Some(user) => options.authenticated(user.clone()),
            None => options,
        }
    }

    pub(super) fn reading_all(&self) -> ReadAllOptions {
        let options = ReadAllOptions::default().requires_leader(true);
        match &self.user {
            Some(user) => options.authenticated(user.clone()),
            None => options,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
