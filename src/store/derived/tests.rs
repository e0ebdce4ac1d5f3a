use std::fs;

use super::*;

fn open() -> (tempfile::TempDir, DerivedStore) {
    let directory = tempfile::tempdir().unwrap();
    let store = DerivedStore::open(&directory.path().join("projections.db")).unwrap();
    (directory, store)
}

fn row(organization: u8, key: u8) -> DeadRow {
    DeadRow {
        organization: OrganizationId::from_bytes([organization; 16]),
        key: KeyId::from_bytes([key; 16]),
        fingerprint: u64::MAX - u64::from(key % 2),
        sealed: vec![key; 3],
    }
}

static GO_ON: AtomicBool = AtomicBool::new(false);

fn write(store: &DerivedStore, manifest: &[u8]) -> Result<(), SnapshotError> {
    let mut round = store.begin(&GO_ON)?;
    round.snapshot(
        SnapshotOf::Tables(OrganizationId::OPERATOR),
        &vec![manifest[0]; PART_BYTES + 1],
    )?;
    for (organization, key) in [(1, 0), (1, 1), (1, 2), (2, 1)] {
        round.dead_key(&row(organization, key))?;
    }
    round.fingerprints(manifest[0].into(), &[8; 16])?;
    round.manifest(manifest)?;
    round.commit()
}

#[test]
fn what_was_committed_is_read_back() {
    let (directory, store) = open();
    assert_eq!(store.manifest().unwrap(), None);
    write(&store, &[1]).unwrap();
    let path = directory.path().join("projections.db");
    assert!(!path.with_extension("db-shm").exists(), "a mapped file can be a hole on a full disk");
    drop(store);
    let store = DerivedStore::open(&path).unwrap();
    assert_eq!(store.manifest().unwrap(), Some(vec![1]));
    assert_eq!(
        store.snapshot(SnapshotOf::Tables(OrganizationId::OPERATOR)).unwrap(),
        vec![1; PART_BYTES + 1]
    );
    assert!(store.snapshot(SnapshotOf::Usage(OrganizationId::OPERATOR)).unwrap().is_empty());
    assert_eq!(store.fingerprints(1).unwrap(), [8; 16]);
    let first = row(1, 0).organization;
    assert_eq!(store.dead_key(first, row(1, 1).key).unwrap(), Some(row(1, 1)));
    assert_eq!(store.dead_keys_named(row(1, 1).key).unwrap(), [row(1, 1), row(2, 1)]);
    assert_eq!(store.dead_keys_named(row(1, 2).key).unwrap(), [row(1, 2)]);
    assert_eq!(store.dead_keys_named(row(1, 9).key).unwrap(), []);
    assert_eq!(store.dead_key(first, row(1, 3).key).unwrap(), None);
    let after = |after: Option<u8>, max| -> Vec<u8> {
        let after = after.map(|key| row(1, key).key);
        let rows = store.dead_keys_after(first, after, max).unwrap();
        rows.iter().map(|row| row.key.to_bytes()[0]).collect()
    };
    assert_eq!(after(None, 9), [0, 1, 2]);
    assert_eq!(after(None, 2), [0, 1]);
    assert_eq!(after(Some(0), 9), [1, 2]);
    assert_eq!(store.dead_keys_like(u64::MAX).unwrap(), [row(1, 0), row(1, 2)]);
    assert_eq!(store.dead_keys_like(7).unwrap(), []);
    use std::os::unix::fs::PermissionsExt as _;
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    store.clear().unwrap();
    assert_eq!(store.manifest().unwrap(), None);
    write(&store, &[3]).unwrap();
    assert_eq!(store.manifest().unwrap(), Some(vec![3]));
}

#[test]
fn what_was_not_committed_never_was() {
    let (_directory, store) = open();
    write(&store, &[1]).unwrap();
    let mut round = store.begin(&GO_ON).unwrap();
    round.manifest(&[2]).unwrap();
    round.remove_fingerprints(1).unwrap();
    // Whoever reads meanwhile waits for nobody, and sees what was there.
    assert_eq!(store.manifest().unwrap(), Some(vec![1]));
    drop(round);
    assert_eq!(store.manifest().unwrap(), Some(vec![1]));
    assert_eq!(store.fingerprints(1).unwrap(), [8; 16]);
    let stop = AtomicBool::new(true);
    let mut round = store.begin(&stop).unwrap();
    assert!(matches!(round.dead_key(&row(3, 3)), Err(SnapshotError::Stopped)));
    drop(round);
    write(&store, &[4]).unwrap();
    assert_eq!(store.manifest().unwrap(), Some(vec![4]));
}

#[test]
fn without_space_what_was_there_stays() {
    let (_directory, store) = open();
    write(&store, &[1]).unwrap();
    store.set_pages_max(1);
    let mut round = store.begin(&GO_ON).unwrap();
    let other = OrganizationId::from_bytes([9; 16]);
    let full = round.snapshot(SnapshotOf::Tables(other), &vec![9; 3 * PART_BYTES]);
    assert!(matches!(full, Err(SnapshotError::Full)), "{full:?}");
    drop(round);
    assert_eq!(store.manifest().unwrap(), Some(vec![1]));
    assert!(store.snapshot(SnapshotOf::Tables(other)).unwrap().is_empty());
    store.set_pages_max(u32::MAX);
    write(&store, &[2]).unwrap();
}

#[test]
fn a_file_that_cannot_be_used_is_made_anew() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("projections.db");
    fs::write(&path, b"no database at all, and long enough to be told from an empty one").unwrap();
    write(&DerivedStore::open(&path).unwrap(), &[1]).unwrap();
    Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let store = DerivedStore::open(&path).unwrap();
    assert_eq!(store.manifest().unwrap(), None);
    drop(store);
    Connection::open(&path).unwrap().execute_batch("DROP TABLE dead_keys").unwrap();
    write(&DerivedStore::open(&path).unwrap(), &[1]).unwrap();
}

#[test]
fn tables_as_they_were_are_found_by_their_place() {
    let (_directory, store) = open();
    let (one, two) = (row(1, 0).organization, row(2, 0).organization);
    let past = |organization, revision, byte| PastRow {
        organization,
        revision: Revision(revision),
        sealed: vec![byte; PART_BYTES + 1],
    };
    let mut round = store.begin(&GO_ON).unwrap();
    for (organization, revision) in [(one, 4), (one, 9), (two, 6)] {
        round.past(&past(organization, revision, 1)).unwrap();
    }
    round.past(&past(one, 9, 2)).unwrap();
    round.commit().unwrap();
    let last = |organization, at_most| store.last_past(organization, Revision(at_most)).unwrap();
    assert_eq!(
        [last(one, 3), last(one, 4), last(one, 8)],
        [None, Some(Revision(4)), Some(Revision(4))]
    );
    assert_eq!([last(one, u64::MAX), last(two, 9)], [Some(Revision(9)), Some(Revision(6))]);
    assert_eq!(store.past(one, Revision(9)).unwrap(), Some(past(one, 9, 2)));
    assert_eq!(store.past(one, Revision(6)).unwrap(), None);
    let mut round = store.begin(&GO_ON).unwrap();
    round.remove_past(one, Revision(9)).unwrap();
    round.commit().unwrap();
    assert_eq!([last(one, u64::MAX), last(two, 9)], [Some(Revision(4)), Some(Revision(6))]);
    store.clear().unwrap();
    assert_eq!(last(one, 4), None);
}
