//! The manifest: what the snapshots that were written together are, and where in the
//! store's order they stand.
//!
//! It is the root of all that is kept with it: it holds a keyed checksum of every snapshot
//! and every run of fingerprints, and has one itself, so that nothing can be exchanged for
//! an older one, or for one of another installation.

use std::collections::BTreeMap;

use projections::digest::LeafHash;
use projections::id::{KeyId, OrganizationId};
use projections::organization::Head;
use projections::recorded::{Revision, StreamName};
use projections::time::Timestamp;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::ledger::accounts::snapshots::Part;
use crate::ledger::event_store::{Anchor, Position};
use crate::ledger::snapshot_store::SnapshotOf;

/// The form of manifests, and of what they list, that this version writes and reads.
const FORM: u8 = 2;

/// A keyed checksum.
pub(in crate::ledger) type Checksum = [u8; 32];

/// Makes keyed checksums: whoever cannot read the secrets cannot make them.
pub(in crate::ledger) struct Seal(Zeroizing<[u8; 32]>);

/// What a checksum is of.
#[derive(Clone, Copy)]
pub(in crate::ledger) enum Of {
    Manifest,
    Snapshot(SnapshotOf),
    DeadKey(OrganizationId, KeyId),
    Fingerprints(u64),
    /// Tables as they were.
    Past(OrganizationId, Revision),
}

impl Seal {
    /// The seal of an installation, by the key that keys the hashes of its requests.
    pub(in crate::ledger) fn new(lookup_key: &[u8; 32]) -> Self {
        Self(Zeroizing::new(blake3::derive_key("keyledger 2026-11 snapshots", lookup_key)))
    }

    pub(in crate::ledger) fn checksum(&self, of: Of, bytes: &[u8]) -> Checksum {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        match of {
            Of::Manifest => hasher.update(&[0, FORM]),
            Of::Snapshot(SnapshotOf::Tables(id)) => hasher.update(&[1]).update(&id.to_bytes()),
            Of::Snapshot(SnapshotOf::Usage(id)) => hasher.update(&[4]).update(&id.to_bytes()),
            Of::Snapshot(SnapshotOf::Accounts(part)) => {
                hasher.update(&[5]).update(&part.to_le_bytes())
            }
            Of::DeadKey(organization, key) => {
                hasher.update(&[2]).update(&organization.to_bytes()).update(&key.to_bytes())
            }
            Of::Fingerprints(run) => hasher.update(&[3]).update(&run.to_le_bytes()),
            Of::Past(organization, revision) => {
                let revision = revision.0.to_le_bytes();
                hasher.update(&[6]).update(&organization.to_bytes()).update(&revision)
            }
        };
        *hasher.update(bytes).finalize().as_bytes()
    }

    /// The bytes with their checksum in front.
    pub(in crate::ledger) fn seal(&self, of: Of, bytes: &[u8]) -> Vec<u8> {
        [&self.checksum(of, bytes)[..], bytes].concat()
    }

    /// The bytes of what was sealed; none where it was not sealed so.
    pub(in crate::ledger) fn open<'a>(&self, of: Of, sealed: &'a [u8]) -> Option<&'a [u8]> {
        let (checksum, bytes) = sealed.split_first_chunk::<32>()?;
        self.is(of, bytes, checksum).then_some(bytes)
    }

    pub(in crate::ledger) fn is(&self, of: Of, bytes: &[u8], checksum: &Checksum) -> bool {
        self.checksum(of, bytes).ct_eq(checksum).into()
    }
}

/// One snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::ledger) struct Entry {
    /// How far it was folded.
    pub(in crate::ledger) revision: Revision,
    pub(in crate::ledger) leaf_hash: LeafHash,
    /// How many keys are in it.
    pub(in crate::ledger) keys: u64,
    /// How many of the organization's keys are kept as dead.
    pub(in crate::ledger) dead: u64,
    pub(in crate::ledger) checksum: Checksum,
}

impl Entry {
    pub(in crate::ledger) fn is_at(&self, head: Option<Head>) -> bool {
        head.is_some_and(|it| it.revision == self.revision && it.leaf_hash == self.leaf_hash)
    }
}

/// One snapshot of when keys were last used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::ledger) struct UsageEntry {
    /// The event of the usage stream that it holds, and all before it.
    pub(in crate::ledger) head: Head,
    pub(in crate::ledger) checksum: Checksum,
}

/// One part of the accounts and e-mails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::ledger) struct PartEntry {
    /// How many rows are in it.
    pub(in crate::ledger) rows: u64,
    pub(in crate::ledger) checksum: Checksum,
}

/// The manifest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::ledger) struct Manifest {
    /// The last event that every snapshot has folded, if it is its organization's; none
    /// where there is none.
    pub(in crate::ledger) anchor: Option<Anchor>,
    /// How many dead keys' digests were taken of a digest.
    pub(in crate::ledger) dead_sha256: u64,
    /// How many dead keys' texts are not of the ledger's making.
    pub(in crate::ledger) dead_foreign: u64,
    /// How many dead keys need the pepper of their digest, by pepper.
    pub(in crate::ledger) dead_need: BTreeMap<u32, u64>,
    pub(in crate::ledger) entries: BTreeMap<OrganizationId, Entry>,
    pub(in crate::ledger) usage: BTreeMap<OrganizationId, UsageEntry>,
    /// The parts of the accounts and e-mails, by number.
    pub(in crate::ledger) accounts: BTreeMap<Part, PartEntry>,
    /// The runs of fingerprints, by number.
    pub(in crate::ledger) runs: BTreeMap<u64, Checksum>,
}

impl Manifest {
    pub(in crate::ledger) fn to_bytes(&self) -> Option<Vec<u8>> {
        let Self { anchor, dead_sha256, dead_foreign, dead_need, entries, usage, accounts, runs } =
            self;
        let Anchor { before, position, stream, revision, leaf_hash } = anchor.as_ref()?;
        let mut out =
            Vec::with_capacity(256 + (entries.len() + usage.len()) * 104 + runs.len() * 40);
        out.push(FORM);
        out.push(u8::from(before.is_some()));
        out.extend(before.map_or(0, |it| it.0).to_le_bytes());
        out.extend(position.0.to_le_bytes());
        out.extend(revision.0.to_le_bytes());
        out.extend(leaf_hash.0);
        out.extend((stream.as_str().len() as u64).to_le_bytes());
        out.extend(stream.as_str().as_bytes());
        out.extend(dead_sha256.to_le_bytes());
        out.extend(dead_foreign.to_le_bytes());
        out.extend((dead_need.len() as u64).to_le_bytes());
        for (pepper, keys) in dead_need {
            out.extend(pepper.to_le_bytes());
            out.extend(keys.to_le_bytes());
        }
        out.extend((entries.len() as u64).to_le_bytes());
        for (id, Entry { revision, leaf_hash, keys, dead, checksum }) in entries {
            out.extend(id.to_bytes());
            out.extend(revision.0.to_le_bytes());
            out.extend(leaf_hash.0);
            out.extend(keys.to_le_bytes());
            out.extend(dead.to_le_bytes());
            out.extend(checksum);
        }
        out.extend((usage.len() as u64).to_le_bytes());
        for (id, UsageEntry { head: Head { revision, leaf_hash, at }, checksum }) in usage {
            out.extend(id.to_bytes());
            out.extend(revision.0.to_le_bytes());
            out.extend(leaf_hash.0);
            out.extend(at.as_millis().to_le_bytes());
            out.extend(checksum);
        }
        out.extend((accounts.len() as u64).to_le_bytes());
        for (part, PartEntry { rows, checksum }) in accounts {
            out.extend(part.to_le_bytes());
            out.extend(rows.to_le_bytes());
            out.extend(checksum);
        }
        out.extend((runs.len() as u64).to_le_bytes());
        for (run, checksum) in runs {
            out.extend(run.to_le_bytes());
            out.extend(checksum);
        }
        Some(out)
    }

    pub(in crate::ledger) fn from_bytes(mut bytes: &[u8]) -> Option<Self> {
        let from = &mut bytes;
        let [form, has_before] = array(from)?;
        if form != FORM {
            return None;
        }
        let before = Position(u128::from_le_bytes(array(from)?));
        let position = Position(u128::from_le_bytes(array(from)?));
        let revision = Revision(number(from)?);
        let leaf_hash = LeafHash(array(from)?);
        let stream_bytes = usize::try_from(number(from)?).ok()?;
        let (stream, rest) = from.split_at_checked(stream_bytes)?;
        *from = rest;
        let stream = StreamName::from_store(std::str::from_utf8(stream).ok()?);
        let before = (has_before == 1).then_some(before);
        let mut manifest = Self {
            anchor: Some(Anchor { before, position, stream, revision, leaf_hash }),
            dead_sha256: number(from)?,
            dead_foreign: number(from)?,
            ..Self::default()
        };
        for _ in 0..number(from)? {
            let pepper = array(from).map(u32::from_le_bytes)?;
            manifest.dead_need.insert(pepper, number(from)?);
        }
        for _ in 0..number(from)? {
            let id = OrganizationId::from_bytes(array(from)?);
            let entry = Entry {
                revision: Revision(number(from)?),
                leaf_hash: LeafHash(array(from)?),
                keys: number(from)?,
                dead: number(from)?,
                checksum: array(from)?,
            };
            manifest.entries.insert(id, entry);
        }
        for _ in 0..number(from)? {
            let id = OrganizationId::from_bytes(array(from)?);
            let head = Head {
                revision: Revision(number(from)?),
                leaf_hash: LeafHash(array(from)?),
                at: Timestamp::from_millis(array(from).map(i64::from_le_bytes)?)?,
            };
            manifest.usage.insert(id, UsageEntry { head, checksum: array(from)? });
        }
        for _ in 0..number(from)? {
            let part = array(from).map(Part::from_le_bytes)?;
            let entry = PartEntry { rows: number(from)?, checksum: array(from)? };
            manifest.accounts.insert(part, entry);
        }
        for _ in 0..number(from)? {
            manifest.runs.insert(number(from)?, array(from)?);
        }
        bytes.is_empty().then_some(manifest)
    }
}

fn array<const N: usize>(from: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = from.split_first_chunk()?;
    *from = rest;
    Some(*taken)
}

fn number(from: &mut &[u8]) -> Option<u64> {
    array(from).map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        let entry = |byte| Entry {
            revision: Revision(byte),
            leaf_hash: LeafHash([3; 32]),
            keys: 4,
            dead: 5,
            checksum: [6; 32],
        };
        Manifest {
            anchor: Some(Anchor {
                before: Some(Position(6)),
                position: Position(7),
                stream: StreamName::organization(OrganizationId::OPERATOR),
                revision: Revision(2),
                leaf_hash: LeafHash([2; 32]),
            }),
            dead_sha256: 1,
            dead_foreign: 2,
            dead_need: [(1, 2), (7, 3)].into(),
            entries: (0..3)
                .map(|n| (OrganizationId::from_bytes([n; 16]), entry(n.into())))
                .collect(),
            usage: [(
                OrganizationId::from_bytes([1; 16]),
                UsageEntry {
                    head: Head {
                        revision: Revision(8),
                        leaf_hash: LeafHash([4; 32]),
                        at: Timestamp::MAX,
                    },
                    checksum: [5; 32],
                },
            )]
            .into(),
            accounts: [(3, PartEntry { rows: 4, checksum: [8; 32] })].into(),
            runs: [(1, [1; 32]), (9, [9; 32])].into(),
        }
    }

    #[test]
    fn a_manifest_reads_back() {
        let first = Anchor { before: None, ..manifest().anchor.unwrap() };
        for manifest in [manifest(), Manifest { anchor: Some(first), ..Manifest::default() }] {
            assert_eq!(Manifest::from_bytes(&manifest.to_bytes().unwrap()), Some(manifest));
        }
        assert_eq!(Manifest::default().to_bytes(), None);
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let seal = Seal::new(&[7; 32]);
        let sealed = seal.seal(Of::Manifest, &manifest().to_bytes().unwrap());
        assert!(seal.open(Of::Manifest, &sealed).is_some());
        for place in 0..sealed.len() {
            for bit in 0..8 {
                let mut damaged = sealed.clone();
                damaged[place] ^= 1 << bit;
                assert!(seal.open(Of::Manifest, &damaged).is_none());
            }
            assert!(seal.open(Of::Manifest, &sealed[..place]).is_none());
            assert!(Manifest::from_bytes(&sealed[32..][..place.saturating_sub(32)]).is_none());
        }
    }

    #[test]
    fn a_checksum_is_of_one_thing_under_one_key() {
        let (one, two) = (OrganizationId::from_bytes([1; 16]), OrganizationId::from_bytes([2; 16]));
        let (key, other) = (KeyId::from_bytes([1; 16]), KeyId::from_bytes([2; 16]));
        let all = [
            Of::Manifest,
            Of::Snapshot(SnapshotOf::Tables(one)),
            Of::Snapshot(SnapshotOf::Tables(two)),
            Of::Snapshot(SnapshotOf::Usage(one)),
            Of::Snapshot(SnapshotOf::Accounts(1)),
            Of::Snapshot(SnapshotOf::Accounts(2)),
            Of::DeadKey(one, key),
            Of::DeadKey(one, other),
            Of::DeadKey(two, key),
            Of::Fingerprints(0),
            Of::Fingerprints(1),
            Of::Past(one, Revision(1)),
            Of::Past(one, Revision(2)),
            Of::Past(two, Revision(1)),
        ];
        let seals = [Seal::new(&[1; 32]), Seal::new(&[2; 32])];
        let checksums = seals.iter().flat_map(|seal| all.map(|of| seal.checksum(of, b"x")));
        let distinct: std::collections::BTreeSet<_> = checksums.collect();
        assert_eq!(distinct.len(), 2 * all.len());
    }
}
