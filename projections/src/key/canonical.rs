//! The canonical bytes of a key's row.
//!
//! In a snapshot many rows share their scopes and their maker: these stand in lists of
//! their own, and a row has their places. A row alone has them itself.

use std::sync::Arc;

use super::{Act, Extras, Key, Maker, NEVER_MS, Past, Revocation, Rotation};
use crate::api_key::HINT_CHARS;
use crate::event::{DigestForm, Hint, KeyedDigest};
use crate::permission::Scopes;
use crate::snapshot::{Canonical, FORM, Malformed, Reader, row};
use crate::time::Timestamp;

row!(Maker { by, with });
row!(Act { at, by, with, revision });
row!(Revocation { reason, act });
row!(Rotation { successor, ends_at, act });
row!(Past { revocation, rotation, disabled });
row!(Extras {
    description,
    roles,
    services,
    metadata,
    limits,
    origin,
    owner,
    allowed_ips,
    rate_limit,
    predecessor,
});

/// What a row has, in its first two bytes.
mod flag {
    pub(super) const LIVE: u16 = 1;
    pub(super) const TEST: u16 = 1 << 1;
    pub(super) const MINTED: u16 = 1 << 2;
    pub(super) const HINT: u16 = 1 << 3;
    pub(super) const SCOPES: u16 = 1 << 4;
    pub(super) const ENDS: u16 = 1 << 5;
    pub(super) const PAST: u16 = 1 << 6;
    pub(super) const EXTRAS: u16 = 1 << 7;
    pub(super) const SHA256: u16 = 1 << 8;
    pub(super) const BEARS_NAME: u16 = 1 << 9;
    pub(super) const ALL: u16 = (1 << 10) - 1;
}

/// Fewest bytes of a row.
pub(crate) const ROW_BYTES_MIN: usize = 2 + 16 + 32;

/// A row as it stands in a snapshot.
pub(crate) struct Row {
    pub(crate) key: Key,
    /// Whether its name leads to it.
    pub(crate) bears_name: bool,
    /// The place of its scopes.
    pub(crate) scopes: Option<usize>,
    /// The place of its maker.
    pub(crate) maker: usize,
}

impl Key {
    /// Appends the row; `scopes` and `maker` are the places of what it shares.
    pub(crate) fn write_row(
        &self,
        scopes: Option<usize>,
        maker: usize,
        bears_name: bool,
        out: &mut Vec<u8>,
    ) {
        use crate::api_key::Environment;
        let Self {
            digest: KeyedDigest { form, pepper, blake3 },
            scopes: _,
            ends_at_ms,
            past,
            extras,
            changed_at,
            environment,
            minted,
            hint,
            created_at,
            maker: _,
            id,
            name,
        } = self;
        let mut flags = match environment {
            None => 0,
            Some(Environment::Live) => flag::LIVE,
            Some(Environment::Test) => flag::TEST,
        };
        for (has, bit) in [
            (*minted, flag::MINTED),
            (hint.is_some(), flag::HINT),
            (scopes.is_some(), flag::SCOPES),
            (*ends_at_ms != NEVER_MS, flag::ENDS),
            (past.is_some(), flag::PAST),
            (extras.is_some(), flag::EXTRAS),
            (*form == DigestForm::Sha256, flag::SHA256),
            (bears_name, flag::BEARS_NAME),
        ] {
            flags |= if has { bit } else { 0 };
        }
        out.extend_from_slice(&flags.to_le_bytes());
        id.write(out);
        blake3.write(out);
        pepper.write(out);
        name.write(out);
        created_at.write(out);
        changed_at.write(out);
        (maker as u64).write(out);
        if let Some(scopes) = scopes {
            (scopes as u64).write(out);
        }
        if let Some(hint) = hint {
            out.extend_from_slice(hint.as_str().as_bytes());
        }
        if *ends_at_ms != NEVER_MS {
            ends_at_ms.write(out);
        }
        if let Some(past) = past {
            past.write(out);
        }
        if let Some(extras) = extras {
            extras.write(out);
        }
    }

    /// Takes a row off the front.
    pub(crate) fn read_row(
        from: &mut Reader<'_>,
        scopes: &[Scopes],
        makers: &[Arc<Maker>],
    ) -> Result<Row, Malformed> {
        use crate::api_key::Environment;
        let flags = u16::from_le_bytes(from.array()?);
        let has = |bit| flags & bit != 0;
        if flags & !flag::ALL != 0 || (has(flag::LIVE) && has(flag::TEST)) {
            return Err(Malformed("a row has unknown flags"));
        }
        let id = Canonical::read(from)?;
        let blake3 = Canonical::read(from)?;
        let pepper = Canonical::read(from)?;
        let name = Canonical::read(from)?;
        let created_at = Canonical::read(from)?;
        let changed_at = Canonical::read(from)?;
        let (maker_place, maker) = shared(from, makers)?;
        let scopes = if has(flag::SCOPES) { Some(shared(from, scopes)?) } else { None };
        let hint = if has(flag::HINT) { Some(hint(from)?) } else { None };
        let ends_at_ms = match has(flag::ENDS) {
            true => Timestamp::read(from)?.as_millis(),
            false => NEVER_MS,
        };
        let past = part(from, has(flag::PAST))?;
        let extras = part(from, has(flag::EXTRAS))?;
        let form = if has(flag::SHA256) { DigestForm::Sha256 } else { DigestForm::Text };
        let environment = match (has(flag::LIVE), has(flag::TEST)) {
            (true, _) => Some(Environment::Live),
            (false, true) => Some(Environment::Test),
            (false, false) => None,
        };
        let key = Self {
            digest: KeyedDigest { form, pepper, blake3 },
            scopes: scopes.map(|(_, it)| it.clone()),
            ends_at_ms,
            past,
            extras,
            changed_at,
            environment,
            minted: has(flag::MINTED),
            hint,
            created_at,
            maker: Arc::clone(maker),
            id,
            name,
        };
        let scopes = scopes.map(|(place, _)| place);
        Ok(Row { key, bears_name: has(flag::BEARS_NAME), scopes, maker: maker_place })
    }

    /// The canonical bytes of the row alone.
    #[must_use]
    pub fn to_canonical(&self) -> Vec<u8> {
        let mut out = vec![FORM];
        self.maker.write(&mut out);
        self.scopes.write(&mut out);
        self.write_row(self.scopes.as_ref().map(|_| 0), 0, false, &mut out);
        out
    }

    /// The row of these canonical bytes.
    ///
    /// # Errors
    ///
    /// They are none, or of another form.
    pub fn from_canonical(bytes: &[u8]) -> Result<Self, Malformed> {
        let from = &mut Reader::new(bytes);
        if u8::read(from)? != FORM {
            return Err(Malformed("it has another form"));
        }
        let makers = [Arc::new(Maker::read(from)?)];
        let scopes: Option<Scopes> = Canonical::read(from)?;
        let row = Self::read_row(from, scopes.as_slice(), &makers)?;
        if row.bears_name || row.key.scopes.is_some() != scopes.is_some() {
            return Err(Malformed("a row alone has another spelling"));
        }
        from.end()?;
        Ok(row.key)
    }
}

/// The value of a list that a row shares, and its place there.
fn shared<'a, T>(from: &mut Reader<'_>, list: &'a [T]) -> Result<(usize, &'a T), Malformed> {
    let place = usize::try_from(u64::read(from)?).ok();
    place
        .and_then(|place| Some((place, list.get(place)?)))
        .ok_or(Malformed("a row shares what is not there"))
}

/// A part that few rows have. One that says nothing is left out.
fn part<T: Canonical + Default + PartialEq>(
    from: &mut Reader<'_>,
    there: bool,
) -> Result<Option<Arc<T>>, Malformed> {
    if !there {
        return Ok(None);
    }
    let part = T::read(from)?;
    if part == T::default() {
        return Err(Malformed("a part says nothing"));
    }
    Ok(Some(Arc::new(part)))
}

fn hint(from: &mut Reader<'_>) -> Result<Hint, Malformed> {
    let text = std::str::from_utf8(from.take(HINT_CHARS)?).ok();
    text.and_then(Hint::of).ok_or(Malformed("a hint is none"))
}
