//! Which peppers there are, and which keys rest on which.
//!
//! History names every pepper there was and what it makes of a fixed text; the secrets
//! directory holds the peppers themselves. A retired one may be gone once no key needs it.

use std::collections::BTreeMap;
use std::sync::Arc;

use projections::digest::SecretDigest;
use projections::event::{KeyOrigin, PepperRotated};
use projections::id::OrganizationId;
use projections::key::{Key, KeyState};
use projections::time::Timestamp;
use zeroize::Zeroizing;

use super::command::Command;
use super::start::StartError;
use super::tables::Tables;
use super::vault::peppers::{PepperId, Peppers};
use super::{Ledger, LedgerError, built_in};

/// What a pepper is recognised by.
const CHECK_TEXT: &[u8] = b"keyledger pepper check";

/// How many keys rest on one pepper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PepperUse {
    /// The pepper.
    pub pepper: PepperId,
    /// Whether new digests are made under it.
    pub current: bool,
    /// Whether it is at hand.
    pub present: bool,
    /// Keys whose digest was made under it.
    pub keys: u64,
    /// Those of them that need it: see [`needs_its_pepper`].
    pub needed_by: u64,
}

/// Whether something would go wrong without the pepper of this key's digest.
///
/// A key that is in force, or may come into force again, would no longer be known. A secret
/// that was made elsewhere may be shown to the ledger once more, by an import or by the
/// configuration: if its digest cannot be compared, a revoked one would come back.
#[must_use]
pub fn needs_its_pepper(key: &Key, now: Timestamp) -> bool {
    is_made_elsewhere(key) || matches!(key.state(now), KeyState::Active | KeyState::Disabled)
}

/// Whether the secret was made elsewhere.
pub(super) fn is_made_elsewhere(key: &Key) -> bool {
    match key.origin() {
        KeyOrigin::Configured | KeyOrigin::Imported | KeyOrigin::Global => true,
        KeyOrigin::Minted => false,
    }
}

/// What the current pepper makes of the text that it is recognised by.
pub(super) fn check(peppers: &Peppers) -> SecretDigest {
    peppers.digest(CHECK_TEXT)
}

/// The peppers at hand as history has them: the current one is current, the others are
/// retired, and one that history does not know is left out: its rotation was cut short.
pub(super) fn settled(
    tables: &Tables,
    now: Timestamp,
    peppers: Peppers,
) -> Result<Peppers, StartError> {
    let operator = tables.operator().tables();
    let Some(installation) = operator.installation() else { return Ok(peppers) };
    let mut missing = Vec::new();
    for (id, expected) in &installation.peppers {
        let pepper = PepperId(*id);
        match peppers.digest_under(pepper, CHECK_TEXT) {
            Some(found) if found == *expected => {}
            Some(_) => return Err(StartError::WrongPepper(pepper)),
            None => missing.push(pepper),
        }
    }
    let current = PepperId(installation.pepper);
    if !missing.is_empty() {
        let counted = counted(tables, now);
        for pepper in missing {
            let (_, keys) = counted.get(&pepper).copied().unwrap_or_default();
            if keys > 0 || pepper == current {
                return Err(StartError::MissingPepper { pepper, keys });
            }
        }
    }
    let known = |id: PepperId| installation.peppers.contains_key(&id.0);
    // INVARIANT: the current one is not missing.
    let absent = StartError::MissingPepper { pepper: current, keys: 0 };
    peppers.with_current(current, known).ok_or(absent)
}

/// By pepper: its keys, and those that need it.
fn counted(tables: &Tables, now: Timestamp) -> BTreeMap<PepperId, (u64, u64)> {
    let mut counted: BTreeMap<PepperId, (u64, u64)> = BTreeMap::new();
    for organization in tables.all() {
        // What leaves the tables meanwhile is in both.
        let departed = organization.departed_after(None, usize::MAX);
        let tables = organization.tables();
        for key in tables.keys_after(None).chain(&departed) {
            let (keys, needed_by) = counted.entry(PepperId(key.digest.pepper)).or_default();
            *keys += 1;
            *needed_by += u64::from(needs_its_pepper(key, now));
        }
    }
    for (pepper, dead) in tables.dead_that_need() {
        let (keys, needed_by) = counted.entry(PepperId(pepper)).or_default();
        *keys += dead;
        *needed_by += dead;
    }
    counted
}

impl Ledger {
    /// Every pepper there was, in the order of their making.
    #[must_use]
    pub fn pepper_use(&self) -> Vec<PepperUse> {
        let operator = self.tables.operator().tables();
        let Some(installation) = operator.installation() else { return Vec::new() };
        let counted = counted(&self.tables, self.clock.now());
        let row = |id: &u32| {
            let pepper = PepperId(*id);
            let (keys, needed_by) = counted.get(&pepper).copied().unwrap_or_default();
            let current = *id == installation.pepper;
            PepperUse { pepper, current, present: self.peppers.has(pepper), keys, needed_by }
        };
        installation.peppers.keys().map(row).collect()
    }

    /// The pepper that comes after the current one.
    #[must_use]
    pub fn next_pepper(&self) -> PepperId {
        PepperId(self.peppers.current().0.saturating_add(1))
    }

    /// Records that new digests are made under another pepper, which must be kept safe by
    /// now. It is taken up at the next start.
    pub async fn rotate_pepper(
        self: &Arc<Self>,
        pepper: PepperId,
        key: Zeroizing<[u8; 32]>,
    ) -> Result<(), LedgerError> {
        // An installation of an older release is told of all that may be written first.
        let rules = Command::ConfigureInstallation(built_in::no_rules());
        self.as_ledger(OrganizationId::OPERATOR, rules).await?;
        let pepper_check = check(&Peppers::new(pepper, key));
        let event = PepperRotated { pepper: pepper.0, pepper_check };
        self.as_ledger(OrganizationId::OPERATOR, Command::RotatePepper(event)).await?;
        Ok(())
    }
}
