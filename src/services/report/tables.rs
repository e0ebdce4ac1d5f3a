//! Reports on the tables of today.

use std::collections::BTreeMap;
use std::sync::Arc;

use projections::break_glass::{BreakGlassGrant, GrantState};
use projections::id::KeyId;
use projections::key::KeyState;
use projections::time::Timestamp;
use prost::Message as _;
use tonic::Status;

use crate::ledger::Ledger;
use crate::ledger::dead::KeyRow;
use crate::ledger::tables::Published;
use crate::proto;
use crate::services::key::{KEYS_PER_TURN, write_row};
use crate::services::warnings::Measure;
use crate::services::{page, status, write};

/// Most days that a report looks back.
const DAYS_MAX: u32 = 3_650;
const DAY_MS: i64 = 24 * 60 * 60 * 1_000;

/// Keys in force that nobody used for so long.
pub(super) async fn unused_keys(
    ledger: &Ledger,
    organization: &Published,
    message: &proto::ListUnusedKeysRequest,
) -> Result<proto::ListUnusedKeysResponse, Status> {
    if !(1..=DAYS_MAX).contains(&message.days) {
        return Err(status::invalid("days", format_args!("must be 1 to {DAYS_MAX}")));
    }
    let days = message.days.to_string();
    let list = ["ListUnusedKeys", organization.stream.as_str(), &days];
    let since_ms = -i64::from(message.days) * DAY_MS;
    let unused = |row: &KeyRow, now: Timestamp| {
        let since = now.saturating_add_millis(since_ms);
        row.key.created_at <= since && row.last_used.is_none_or(|last| last <= since)
    };
    let asked = (message.page_size, message.page_token.as_str());
    let (keys, next_page_token, revision) = keys(ledger, organization, list, asked, unused).await?;
    Ok(proto::ListUnusedKeysResponse { keys, next_page_token, revision })
}

/// Keys in force that never end by themselves.
pub(super) async fn keys_without_expiry(
    ledger: &Ledger,
    organization: &Published,
    message: &proto::ListKeysWithoutExpiryRequest,
) -> Result<proto::ListKeysWithoutExpiryResponse, Status> {
    let list = ["ListKeysWithoutExpiry", organization.stream.as_str(), ""];
    let endless = |row: &KeyRow, _: Timestamp| row.key.expires_at().is_none();
    let asked = (message.page_size, message.page_token.as_str());
    let (keys, next_page_token, revision) =
        keys(ledger, organization, list, asked, endless).await?;
    Ok(proto::ListKeysWithoutExpiryResponse { keys, next_page_token, revision })
}

type KeysPage = (Vec<proto::Key>, String, Option<proto::StreamRevision>);

/// A page of the keys in force of which something is so.
async fn keys(
    ledger: &Ledger,
    organization: &Published,
    [method, parameters @ ..]: [&str; 3],
    (page_size, page_token): (u32, &str),
    is_so: impl Fn(&KeyRow, Timestamp) -> bool,
) -> Result<KeysPage, Status> {
    let rows_max = page::size(page_size)?;
    let list = page::List::new(ledger.stamper(), method, &parameters);
    let after = list.continue_behind(page_token)?.map(KeyId::from_bytes);
    let tables = Arc::clone(&organization.tables());
    let operator = Arc::clone(&ledger.tables().operator().tables());
    let now = ledger.now_for(&tables);
    let mut measure = Measure::new(&tables, &operator, now);
    let mut rows = tables.keys_after(after).peekable();
    let (mut keys, mut bytes, mut looked, mut next) = (Vec::new(), 0, 0_usize, String::new());
    while let Some(key) = rows.next() {
        looked += 1;
        if looked.is_multiple_of(KEYS_PER_TURN) {
            tokio::task::yield_now().await;
        }
        let row = ledger.row(Arc::clone(key));
        if tables.key_state(key, now) == KeyState::Active && is_so(&row, now) {
            let written = write_row(&row, &mut measure);
            bytes += written.encoded_len();
            keys.push(written);
        }
        let full = keys.len() == rows_max
            || bytes >= page::PAGE_BYTES_MAX
            || looked == page::PAGE_WORK_MAX;
        if full && rows.peek().is_some() {
            next = list.token(key.id.to_bytes());
            break;
        }
    }
    Ok((keys, next, write::revision(&organization.stream, tables.revision())))
}

/// Break-glass grants by quarter and custodian.
pub(super) fn break_glass(
    ledger: &Ledger,
    organization: &Published,
) -> proto::SummarizeBreakGlassResponse {
    let tables = Arc::clone(&organization.tables());
    let now = ledger.now_for(&tables);
    let mut quarters: BTreeMap<(String, String), proto::BreakGlassQuarter> = BTreeMap::new();
    for grant in tables.break_glass_grants_after(None) {
        let (quarter, custodian) = (quarter(grant.opened_at), grant.custodian.to_string());
        let row = quarters.entry((quarter.clone(), custodian.clone())).or_insert_with(|| {
            proto::BreakGlassQuarter { quarter, custodian, ..Default::default() }
        });
        row.opened += 1;
        row.uses += grant.uses;
        row.refusals += grant.refusals;
        row.unreviewed += u64::from(grant.state(now) == GrantState::Ended);
        let open = row.open.get_or_insert_default();
        let millis = open.seconds * 1_000 + i64::from(open.nanos) / 1_000_000;
        let millis = millis + open_ms(grant, now);
        open.seconds = millis / 1_000;
        open.nanos = i32::try_from(millis % 1_000).unwrap_or_default() * 1_000_000;
    }
    proto::SummarizeBreakGlassResponse {
        quarters: quarters.into_values().collect(),
        revision: write::revision(&organization.stream, tables.revision()),
    }
}

/// How long a grant permitted anything, so far.
fn open_ms(grant: &BreakGlassGrant, now: Timestamp) -> i64 {
    let began = match (&grant.approved, grant.awaits_approval) {
        (Some(approval), _) => approval.act.at,
        (None, true) => return 0,
        (None, false) => grant.opened_at,
    };
    let end = grant.ended.map_or(grant.expires_at, |end| end.ended_at).min(now);
    (end.as_millis() - began.as_millis()).max(0)
}

/// `2026-Q4`
fn quarter(at: Timestamp) -> String {
    let text = at.to_string();
    let year = text.get(..4).unwrap_or_default();
    let month: u32 = text.get(5..7).and_then(|it| it.parse().ok()).unwrap_or(1);
    format!("{year}-Q{}", month.saturating_sub(1) / 3 + 1)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use projections::event::{DigestForm, Hint, KeyOrigin, KeyedDigest};
    use projections::permission::Scopes;
    use projections::presented::Presented;
    use projections::principal::Credential;
    use projections::verification::{Question, Wanted};

    use super::*;
    use crate::ledger::command::{Command, CreateKey, Expiry};
    use crate::ledger::vault::peppers::{PepperId, Peppers};
    use crate::ledger::verify::{Asking, Purpose, Reach};
    use crate::services::testing::{ACME, World};

    fn key_id(number: u8) -> KeyId {
        KeyId::from_bytes([number; 16])
    }

    /// Makes a key, and gives its text.
    async fn make(world: &World, number: u8) -> String {
        let mut text = "vtx_live_".to_owned();
        text.extend(std::iter::repeat_n(char::from(b'a' + number), 36));
        projections::api_key::push_checksum(&mut text);
        let digest = Peppers::new(PepperId::FIRST, [1; 32].into()).digest(text.as_bytes());
        let command = CreateKey {
            key_id: key_id(number),
            name: format!("key {number}").parse().unwrap(),
            description: None,
            origin: KeyOrigin::Minted,
            prefix: Some("vtx".parse().unwrap()),
            environment: None,
            hint: Hint::of(&text),
            digest: KeyedDigest { form: DigestForm::Text, pepper: 1, blake3: digest },
            scopes: Some(Scopes::new(&["dns:read"]).unwrap()),
            roles: Vec::new(),
            services: None,
            expiry: Expiry::PlanDefault,
            metadata: BTreeMap::new(),
            limits: BTreeMap::new(),
            owner: None,
            allowed_ips: None,
            rate_limit: None,
        };
        world.give(ACME, Command::CreateKey(Box::new(command))).await;
        text
    }

    fn pass(world: &World, days: i64) {
        let now = world.ledger.clock().now();
        world.time.set_wall(now.saturating_add_millis(days * DAY_MS));
        world.ledger.clock().confirm();
    }

    fn use_key(world: &World, text: &str) {
        let mut presented = Presented::default();
        presented.bearer(text);
        let question = Question {
            tenant: None,
            permissions: Wanted::Texts(&[]),
            service: None,
            environment: None,
            client_ip: None,
            domain: None,
            now: world.ledger.clock().now(),
        };
        let purpose = Purpose::Ask(Credential::Key(key_id(9)));
        let asking = Asking { reach: Reach::Installation, purpose };
        world.ledger.verify(presented, &question, asking, |_| ());
    }

    #[tokio::test]
    async fn a_key_is_unused_from_its_last_use_or_its_making_on() {
        let world = World::new().await;
        let old_and_used = make(&world, 1).await;
        make(&world, 2).await;
        let once = make(&world, 3).await;
        use_key(&world, &once);
        pass(&world, 10);
        make(&world, 4).await;
        use_key(&world, &old_and_used);
        let unused = async |days| {
            let message = proto::ListUnusedKeysRequest { days, ..Default::default() };
            let found = unused_keys(&world.ledger, &world.acme(), &message).await.unwrap();
            let number = |it: &proto::Key| it.id.parse::<KeyId>().unwrap().to_bytes()[0];
            found.keys.iter().map(number).collect::<Vec<_>>()
        };
        assert_eq!(unused(10).await, [2, 3], "never used, and used ten days ago");
        assert!(unused(11).await.is_empty(), "nothing is that old");
        pass(&world, 1);
        assert_eq!(unused(1).await, [1, 2, 3, 4]);
        assert_eq!(unused(10).await, [2, 3]);
    }

    #[test]
    fn a_quarter_has_three_months() {
        for (at, expected) in [
            ("2026-01-01T00:00:00.000Z", "2026-Q1"),
            ("2026-03-31T23:59:59.999Z", "2026-Q1"),
            ("2026-04-01T00:00:00.000Z", "2026-Q2"),
            ("2026-11-22T10:00:00.000Z", "2026-Q4"),
            ("2027-12-31T23:59:59.999Z", "2027-Q4"),
        ] {
            assert_eq!(quarter(at.parse().unwrap()), expected);
        }
    }
}
