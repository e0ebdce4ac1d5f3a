//! The store on an EventStoreDB or KurrentDB server: against the stand-in always, and
//! against a real one where `KEYLEDGER_TEST_ESDB` holds its connection string.

use std::sync::atomic::{AtomicUsize, Ordering};

use keyledger::store::conformance::{self, Adapter, Damage};
use keyledger::store::engine_url::EngineUrl;
use keyledger::store::eventstore::EngineStore;
use projections::recorded::{Revision, StreamName};

use crate::engine::Engine;

#[path = "eventstore/faults.rs"]
mod faults;
#[path = "eventstore/migrating.rs"]
mod migrating;
#[path = "eventstore/serving.rs"]
mod serving;

/// Where tests run: the variable that holds a real server's connection string.
const REAL: &str = "KEYLEDGER_TEST_ESDB";

/// What a test runs against.
enum Target {
    StandIn(Engine),
    /// A connection string, and a prefix that is nobody else's.
    Real(String, String),
}

impl Target {
    /// The stand-in, and a real server where one is named. The output says which.
    fn all(test: &str) -> Vec<Self> {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let mut targets = vec![Self::StandIn(Engine::start())];
        eprintln!("{test}: against the stand-in");
        match std::env::var(REAL) {
            Ok(url) => {
                eprintln!("{test}: against the server of {REAL}");
                let number = NUMBER.fetch_add(1, Ordering::Relaxed);
                targets.push(Self::Real(url, format!("t{}_{number}", prefix_of_its_own())));
            }
            Err(_) => eprintln!("{test}: not against a real server: {REAL} is not set"),
        }
        targets
    }

    fn url(&self) -> String {
        match self {
            Self::StandIn(engine) => engine.url(),
            Self::Real(url, prefix) => {
                let joint = if url.contains('?') { '&' } else { '?' };
                format!("{url}{joint}streamPrefix={prefix}")
            }
        }
    }
}

/// Something that no other run has.
fn prefix_of_its_own() -> String {
    let directory = tempfile::TempDir::with_prefix("k").unwrap();
    let name = directory.path().file_name().unwrap().to_string_lossy().to_ascii_lowercase();
    name.chars().filter(char::is_ascii_alphanumeric).collect()
}

async fn open(url: &str) -> EngineStore {
    EngineStore::open(&url.parse::<EngineUrl>().unwrap()).await.unwrap()
}

/// A new engine, or a new prefix, for each check.
struct OnEngine {
    real: Option<String>,
    target: std::sync::Mutex<Option<Target>>,
}

impl OnEngine {
    fn url(&self) -> String {
        self.target.lock().unwrap().as_ref().unwrap().url()
    }
}

impl Adapter for OnEngine {
    type Store = EngineStore;

    async fn fresh(&self) -> EngineStore {
        let target = match &self.real {
            None => Target::StandIn(Engine::start()),
            Some(url) => Target::Real(url.clone(), format!("c{}", prefix_of_its_own())),
        };
        let url = target.url();
        *self.target.lock().unwrap() = Some(target);
        open(&url).await
    }

    async fn reopen(&self, store: EngineStore) -> Option<EngineStore> {
        store.close().await;
        Some(open(&self.url()).await)
    }

    fn set_full(&self, _: &EngineStore, _: bool) -> bool {
        false
    }

    async fn damage(
        &self,
        store: EngineStore,
        damage: Damage,
        stream: &StreamName,
        revision: Revision,
    ) -> Option<EngineStore> {
        store.close().await;
        let url = {
            let target = self.target.lock().unwrap();
            let Some(Target::StandIn(engine)) = &*target else { return None };
            // A kind of stream that is none of the first ones.
            let name = format!("keyledger.{stream}");
            engine.state().log.damage(&name, revision.0, |entry| match damage {
                Damage::Stored => entry.data.push(b' '),
                Damage::LeafHash => {
                    entry.custom_metadata =
                        format!(r#"{{"leaf_hash":"{}"}}"#, "00".repeat(32)).into_bytes();
                }
                Damage::Missing => entry.gone = true,
            });
            engine.url()
        };
        Some(open(&url).await)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_keeps_the_contract_on_an_engine() {
    for target in Target::all("conformance") {
        let real = match target {
            Target::StandIn(_) => None,
            Target::Real(url, _) => Some(url),
        };
        let adapter = OnEngine { real, target: std::sync::Mutex::default() };
        assert_eq!(conformance::run(&adapter).await, []);
    }
}
