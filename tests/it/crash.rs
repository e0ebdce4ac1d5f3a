//! kill -9 at any moment: what was acknowledged is there, and nothing is half there.
//!
//! The record of what was acknowledged is kept here, outside the process that is killed.
//! The moments come from a seed, which is printed; `KEYLEDGER_TEST_SEED` repeats it (the
//! draws, not the machine's timing), `KEYLEDGER_TEST_CRASH_ROUNDS` asks for more rounds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use keyledger::proto::{self, DecisionCode, KeyState};

use super::support::{Client, DEADLINE, Home, Launch, Server, StoredEvent, leaf_hash, scoped};

const ROUNDS: u64 = 200;
/// Rounds on one data directory: more make each start longer, not another.
const ROUNDS_OF_A_LIFE: u64 = 50;
const FIRST_STARTS: u64 = 50;
const ORGANIZATIONS: usize = 4;
const WRITERS: usize = 8;

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

/// SplitMix64.
struct Draw(u64);

impl Draw {
    fn seeded(test: &str) -> Self {
        use std::hash::{BuildHasher as _, Hasher as _};
        let fresh = || std::hash::RandomState::new().build_hasher().finish();
        let seed = setting("KEYLEDGER_TEST_SEED").unwrap_or_else(fresh);
        eprintln!("{test}: KEYLEDGER_TEST_SEED={seed}");
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn up_to(&mut self, longest: Duration) -> Duration {
        Duration::from_micros(self.below(longest.as_micros() as u64 + 1))
    }
}

/// A key whose making was acknowledged.
#[derive(Clone)]
struct Made {
    organization: usize,
    id: String,
    secret: String,
    revision: u64,
    /// A revocation was sent: without an acknowledgement it may or may not be so.
    revoking: bool,
    /// The revision of an acknowledged revocation.
    revoked: Option<u64>,
}

/// All that was acknowledged, and all that was asked for.
#[derive(Default)]
struct Record {
    made: Vec<Made>,
    names: BTreeSet<String>,
    organizations: BTreeSet<String>,
    acknowledged: u64,
    busy_rounds: u64,
}

type Shared = Arc<Mutex<Record>>;

/// One who makes keys and revokes some of them until the server is gone.
async fn write(client: Client, organization: (usize, String), record: Shared, mut draw: Draw) {
    let (index, organization_id) = organization;
    let mut own: Vec<usize> = Vec::new();
    loop {
        let revoke = draw.below(3) == 0;
        let candidate = own.pop().filter(|_| revoke);
        if let Some(place) = candidate {
            let key = {
                let mut record = record.lock().unwrap();
                record.made[place].revoking = true;
                record.made[place].id.clone()
            };
            let Ok(revision) = client.revoke(&organization_id, &key).await else { return };
            let mut record = record.lock().unwrap();
            record.made[place].revoked = Some(revision);
            record.acknowledged += 1;
        } else {
            let name = format!("key {:016x}", draw.next());
            record.lock().unwrap().names.insert(name.clone());
            let request = scoped(&organization_id, &name, &["a:b"]);
            let Ok(created) = client.create_key(request).await else { return };
            let mut record = record.lock().unwrap();
            own.push(record.made.len());
            record.made.push(Made {
                organization: index,
                id: created.key.unwrap().id,
                secret: created.secret,
                revision: created.revision.unwrap().revision,
                revoking: false,
                revoked: None,
            });
            record.acknowledged += 1;
        }
    }
}

/// One who makes organizations: two streams each, and the crash may fall between them.
async fn found(client: Client, record: Shared, mut draw: Draw) {
    loop {
        let request = proto::CreateOrganizationRequest {
            name: "made in a storm".into(),
            key_prefix: format!("p{:09x}", draw.next() & 0xf_ffff_ffff),
            ..Default::default()
        };
        let Ok(created) = client.create_organization(request).await else { return };
        record.lock().unwrap().organizations.insert(created.organization.unwrap().id);
        tokio::time::sleep(draw.up_to(Duration::from_millis(40))).await;
    }
}

/// What the file holds, as far as it was looked at.
#[derive(Default)]
struct Seen {
    events: Vec<StoredEvent>,
    ends: BTreeMap<String, u64>,
    /// Events by stream and revision: type, and the key it is about.
    places: BTreeMap<(String, u64), (String, String)>,
}

impl Seen {
    /// Reads the file after a kill: what was there still is, and what is new is whole,
    /// dense, and hashed right.
    fn check(&mut self, home: &Home) {
        let events = home.events();
        assert!(events.len() >= self.events.len(), "events were lost");
        for (before, now) in self.events.iter().zip(&events) {
            assert_eq!(before.leaf_hash, now.leaf_hash, "an event was changed");
        }
        for (place, event) in events.iter().enumerate().skip(self.events.len()) {
            assert_eq!(event.position, place as i64 + 1, "positions are not dense");
            let end = self.ends.entry(event.stream.clone()).or_insert(0);
            assert_eq!(event.revision, *end, "`{}` is not dense", event.stream);
            *end += 1;
            assert_eq!(event.leaf_hash, leaf_hash(&event.stored), "position {place}");
            let json = event.json();
            let key = json["data"]["key_id"].as_str().unwrap_or_default().to_owned();
            let kind = json["type"].as_str().unwrap().to_owned();
            self.places.insert((event.stream.clone(), event.revision), (kind, key));
        }
        self.events = events;
    }

    #[track_caller]
    fn holds(&self, organization: &str, revision: u64, kind: &str, key: &str) {
        let found = self.places.get(&(format!("org-{organization}"), revision));
        assert_eq!(found, Some(&(kind.to_owned(), key.to_owned())), "revision {revision}");
    }
}

/// Asks a fresh server about acknowledged keys: each is there, and what it was said to be.
async fn check_keys(operator: &Client, organizations: &[String], made: &mut [Made]) {
    for key in made {
        let request = proto::GetKeyRequest {
            organization_id: organizations[key.organization].clone(),
            key_id: key.id.clone(),
        };
        let state = operator.get_key(request).await.unwrap().key.unwrap().state();
        let code = operator.ask(&key.secret, &["a:b"]).await.code();
        match (state, code) {
            (KeyState::Active, DecisionCode::Allowed) => {
                assert!(key.revoked.is_none(), "an acknowledged revocation is gone");
                key.revoking = false;
            }
            (KeyState::Revoked, DecisionCode::Revoked) => {
                assert!(key.revoking, "a key was revoked that nobody revoked");
            }
            other => panic!("key {}: {other:?}", key.id),
        }
    }
}

#[tokio::test]
async fn nothing_acknowledged_is_lost() {
    let rounds = setting("KEYLEDGER_TEST_CRASH_ROUNDS").unwrap_or(ROUNDS);
    let mut draw = Draw::seeded("nothing_acknowledged_is_lost");
    let (mut acknowledged, mut busy) = (0, 0);
    let mut left = rounds;
    while left > 0 {
        let mut life = Life::begin().await;
        for _ in 0..left.min(ROUNDS_OF_A_LIFE) {
            life.round(&mut draw).await;
        }
        left -= left.min(ROUNDS_OF_A_LIFE);
        let record = life.end().await;
        acknowledged += record.acknowledged;
        busy += record.busy_rounds;
    }
    eprintln!("{acknowledged} writes acknowledged in {busy} of {rounds} rounds");
    assert!(busy > rounds / 3, "most kills came before anything was written");
}

/// Snapshots are taken all the time, so that kills fall into them.
const SNAPSHOT_EVENTS: &str = "40";

fn launch(home: &Home) -> Launch {
    home.launch().env("KEYLEDGER_SNAPSHOT_EVENTS", SNAPSHOT_EVENTS)
}

/// One data directory, killed again and again.
struct Life {
    home: Home,
    admin_key: String,
    organizations: Vec<String>,
    record: Shared,
    /// How many of the recorded keys a restarted server was asked about.
    checked: usize,
    seen: Seen,
}

impl Life {
    async fn begin() -> Self {
        let home = Home::new();
        let server = home.start().await;
        let admin_key = home.admin_key();
        let mut organizations = Vec::new();
        for n in 0..ORGANIZATIONS {
            let prefix = format!("org{n}");
            organizations.push(server.client(&admin_key).organization(&prefix, &prefix, "").await);
        }
        server.kill();
        let (record, seen) = (Shared::default(), Seen::default());
        Self { home, admin_key, organizations, record, checked: 0, seen }
    }

    async fn round(&mut self, draw: &mut Draw) {
        // Now and then the kill comes while history is replayed.
        while draw.below(8) == 0 {
            let mut process = launch(&self.home).spawn();
            std::thread::sleep(draw.up_to(Duration::from_millis(60)));
            process.kill();
        }
        let server = launch(&self.home).start().await;
        let operator = server.client(&self.admin_key);
        let mut fresh = self.record.lock().unwrap().made.split_off(self.checked);
        check_keys(&operator, &self.organizations, &mut fresh).await;
        let acknowledged = {
            let mut record = self.record.lock().unwrap();
            record.made.extend(fresh);
            self.checked = record.made.len();
            record.acknowledged
        };
        let writers =
            storm(&server, &self.admin_key, &self.organizations, &self.record, draw).await;
        let wait = draw.up_to(Duration::from_millis(50));
        // Half of the kills come behind a write, however slow the machine.
        let until = Instant::now() + DEADLINE;
        while wait.as_micros().is_multiple_of(2)
            && self.record.lock().unwrap().acknowledged == acknowledged
            && Instant::now() < until
        {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        tokio::time::sleep(wait).await;
        server.kill();
        for writer in writers {
            writer.await.unwrap();
        }
        self.seen.check(&self.home);
        let mut record = self.record.lock().unwrap();
        record.busy_rounds += u64::from(record.acknowledged > acknowledged);
        for key in &record.made[self.checked..] {
            let organization = &self.organizations[key.organization];
            self.seen.holds(organization, key.revision, "KeyCreated", &key.id);
            if let Some(revision) = key.revoked {
                self.seen.holds(organization, revision, "KeyRevoked", &key.id);
            }
        }
    }

    /// Everything ever acknowledged, once more; and nothing that nobody asked for.
    async fn end(self) -> Record {
        // The tables that the next start comes to, from what the last kill left of snapshots,
        // are those that all of history comes to.
        let verified = super::snapshots::verify_projections(&self.home);
        assert!(verified["differing"].as_array().unwrap().is_empty(), "{verified}");
        assert!(verified["snapshots"].as_u64().unwrap() > 0, "{verified}");
        let Self { home, admin_key, organizations, record, .. } = self;
        let server = home.start().await;
        let operator = server.client(&admin_key);
        let mut record = std::mem::take(&mut *record.lock().unwrap());
        check_keys(&operator, &organizations, &mut record.made).await;
        for id in &organizations {
            check_names(&operator, id, &record.names).await;
        }
        // Every organization that is listed has a stream of its own, acknowledged or not.
        let request = proto::ListOrganizationsRequest { page_size: 1_000, ..Default::default() };
        let page = operator.list_organizations(request).await.unwrap();
        assert!(page.next_page_token.is_empty(), "make fewer organizations");
        let mut listed = BTreeSet::new();
        for organization in page.organizations {
            operator.revision(&organization.id).await;
            listed.insert(organization.id);
        }
        assert!(record.organizations.is_subset(&listed), "an organization is lost");
        let status = operator.get_status(proto::GetStatusRequest {}).await.unwrap();
        assert!(status.stopped.is_empty(), "{status:?}");
        let said = server.stop().await;
        assert!(!said.contains("\"ERROR\""), "{said}");
        Seen::default().check(&home);
        record
    }
}

/// Every key has a name that somebody asked for.
async fn check_names(operator: &Client, organization_id: &str, asked: &BTreeSet<String>) {
    let mut request = proto::ListKeysRequest {
        organization_id: organization_id.to_owned(),
        page_size: 1_000,
        ..Default::default()
    };
    loop {
        let page = operator.list_keys(request.clone()).await.unwrap();
        assert!(page.keys.iter().all(|key| asked.contains(&key.name)));
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            return;
        }
    }
}

async fn storm(
    server: &Server,
    admin_key: &str,
    organizations: &[String],
    record: &Shared,
    draw: &mut Draw,
) -> Vec<tokio::task::JoinHandle<()>> {
    let mut writers = Vec::new();
    for writer in 0..WRITERS {
        let index = writer % organizations.len();
        let organization = (index, organizations[index].clone());
        let client = server.client(admin_key);
        let (record, draw) = (Arc::clone(record), Draw(draw.next()));
        writers.push(tokio::spawn(write(client, organization, record, draw)));
    }
    let founder = found(server.client(admin_key), Arc::clone(record), Draw(draw.next()));
    writers.push(tokio::spawn(founder));
    writers
}

/// The first start makes secrets, a database and a key. Cut off anywhere, however often,
/// the next one makes the rest, and the key in the file is the one in force.
#[tokio::test]
async fn a_first_start_can_be_cut_off_anywhere() {
    let mut draw = Draw::seeded("a_first_start_can_be_cut_off_anywhere");
    let mut unfinished = 0;
    for round in 0..FIRST_STARTS {
        let home = Home::new();
        let mut keys = BTreeSet::new();
        for _ in 0..=draw.below(3) {
            let mut process = home.launch().spawn();
            std::thread::sleep(draw.up_to(Duration::from_millis(30)));
            process.kill();
            let said = process.said();
            assert!(!said.contains("error:"), "{said}");
            unfinished += u64::from(!said.contains("\"ready\""));
            keys.extend(std::fs::read_to_string(home.data().join("admin.key")).ok());
        }
        let server = home.start().await;
        let admin_key = home.admin_key();
        keys.insert(admin_key.clone());
        assert_eq!(keys.len(), 1, "round {round}: the file's key was replaced");
        let operator = server.client(&admin_key);
        assert!(operator.ask(&admin_key, &["any:thing"]).await.allowed, "round {round}");
        operator.organization("acme", "vtx", "").await;
        server.stop().await;
        Seen::default().check(&home);
        let made = |kind: &str| home.events().iter().filter(|it| it.json()["type"] == kind).count();
        assert_eq!((made("InstallationCreated"), made("KeyCreated")), (1, 1), "round {round}");
        let roles = keyledger::ledger::built_in::rules().roles.len();
        assert_eq!(made("BuiltInRoleDefined"), roles, "round {round}");
    }
    eprintln!("{unfinished} starts were cut off before they were ready");
    assert!(unfinished > 0, "no kill came early enough to mean anything");
}
