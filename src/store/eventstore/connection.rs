//! The engine's client, renewed when it is of no more use.
//!
//! The client gives up for good once it has not found a node in its first attempts, and
//! stays with a node that fails it. So after every fault of the connection another client
//! takes its place, which looks for the leader anew; calls under way end on the old one.
//!
//! A client begins tasks that it never ends, and with them holds its connections. So each
//! has a runtime of its own, of one thread, that ends with the last call on it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use eventstore::{
    AppendToStreamOptions, Authentication, Client, ClientSettings, ReadAllOptions,
    ReadStreamOptions,
};
use tokio::runtime::{Builder, Runtime};
use tokio::time::Instant;

use super::super::engine_url::EngineUrl;
use super::names;

/// How long a client is given before another may take its place.
const RENEW_EVERY: Duration = Duration::from_millis(100);

/// The connection to an engine.
pub(super) struct Connection {
    url: EngineUrl,
    settings: ClientSettings,
    user: Option<Authentication>,
    pub(super) deadline: Duration,
    prefix: String,
    current: Mutex<Current>,
}

struct Current {
    client: Arc<Living>,
    generation: u64,
    /// When it was made, or another could not be.
    since: Instant,
}

/// A client, and where its tasks run.
pub(super) struct Living {
    client: Client,
    runtime: Option<Runtime>,
}

impl Living {
    /// The files that the settings name are looked at anew.
    fn new(url: &EngineUrl, settings: &ClientSettings) -> Result<Self, String> {
        url.check_files().map_err(|error| error.to_string())?;
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("event-store")
            .enable_all()
            .build()
            .map_err(|error| format!("no thread for it: {error}"))?;
        let (handle, settings) = (runtime.handle().clone(), settings.clone());
        // It panics where a file was changed since it was looked at.
        let made = catch_unwind(AssertUnwindSafe(|| Client::with_runtime_handle(handle, settings)));
        let runtime = Some(runtime);
        match made {
            Ok(Ok(client)) => Ok(Self { client, runtime }),
            Ok(Err(error)) => {
                Self::end(runtime);
                Err(error.to_string())
            }
            Err(_) => {
                Self::end(runtime);
                Err("the client fails on its settings".to_owned())
            }
        }
    }

    fn end(runtime: Option<Runtime>) {
        // It may not be waited for: this may be a task of another.
        if let Some(runtime) = runtime {
            runtime.shutdown_background();
        }
    }
}

impl std::ops::Deref for Living {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Drop for Living {
    fn drop(&mut self) {
        Self::end(self.runtime.take());
    }
}

/// A client, and which one it is.
pub(super) struct Lent {
    pub(super) client: Arc<Living>,
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
        let client = Arc::new(Living::new(url, &settings)?);
        let current = Current { client, generation: 0, since: Instant::now() };
        Ok(Self {
            url: url.clone(),
            settings,
            user,
            deadline: url.deadline(),
            prefix: url.stream_prefix().to_owned(),
            current: Mutex::new(current),
        })
    }

    pub(super) fn client(&self) -> Lent {
        let current = self.lock();
        Lent { client: Arc::clone(&current.client), generation: current.generation }
    }

    /// Puts another client in the place of this one, unless somebody did so before. Where
    /// none can be made, this one stays until the next fault.
    pub(super) fn renew(&self, generation: u64) {
        let mut current = self.lock();
        if current.generation != generation || current.since.elapsed() < RENEW_EVERY {
            return;
        }
        current.since = Instant::now();
        match Living::new(&self.url, &self.settings) {
            Ok(client) => {
                current.client = Arc::new(client);
                current.generation += 1;
            }
            Err(error) => {
                tracing::error!(error, "no other connection to the event store can be made");
            }
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
