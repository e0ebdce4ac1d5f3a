//! The index against a list of the same events.

use std::fs;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::ledger::activity::index::IndexDigest;

const ACME: OrganizationId = OrganizationId::from_bytes([7; 16]);
const OTHER: OrganizationId = OrganizationId::from_bytes([8; 16]);

fn open(directory: &TempDir) -> ActivityDb {
    ActivityDb::open(&directory.path().join("activity.db")).unwrap()
}

fn checkpoint(position: u128) -> Anchor {
    Anchor {
        before: position.checked_sub(1).map(Position),
        position: Position(position),
        stream: StreamName::organization(ACME),
        revision: Revision(3),
        leaf_hash: LeafHash([5; 32]),
    }
}

fn event(organization: OrganizationId, revision: u64, terms: &[u64]) -> Indexed {
    let terms = terms.iter().map(|it| Term(*it)).collect();
    Indexed { organization, revision: Revision(revision), terms }
}

fn search(terms: &[u64], low: u64, high: u64, direction: Direction) -> Search {
    Search {
        organization: ACME,
        terms: terms.iter().map(|it| Term(*it)).collect(),
        low: Revision(low),
        high: Revision(high),
        direction,
        wanted: 3,
    }
}

/// All that a search finds, however often it must go on.
fn all(index: &ActivityDb, mut search: Search) -> Vec<u64> {
    let mut revisions = Vec::new();
    loop {
        let found = index.find(&search).unwrap();
        assert!(found.revisions.len() <= search.wanted);
        revisions.extend(found.revisions.iter().map(|it| it.0));
        match (found.next, search.direction) {
            (None, _) => return revisions,
            (Some(next), Direction::NewestFirst) => search.high = next,
            (Some(next), Direction::OldestFirst) => search.low = next,
        }
    }
}

/// All that an index holds.
fn digest_of(index: &ActivityDb) -> Result<IndexDigest, IndexError> {
    let mut digesting = index.begin_digest()?;
    while !index.digest_on(&mut digesting)? {}
    Ok(digesting.digest)
}

#[test]
fn what_was_added_is_found_in_both_directions_and_by_its_own_organization_alone() {
    let directory = TempDir::new().unwrap();
    let index = open(&directory);
    let events: Vec<_> = (0..10).map(|it| event(ACME, it, &[1, 10 + it % 2])).collect();
    index.add(&events, &checkpoint(9)).unwrap();
    index.add(&[event(OTHER, 0, &[1, 10]), event(OTHER, 1, &[1, 99])], &checkpoint(11)).unwrap();
    index.add(&[event(ACME, 10, &[1])], &checkpoint(12)).unwrap();

    let newest = Direction::NewestFirst;
    assert_eq!(all(&index, search(&[1], 0, 10, newest)), [10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0]);
    assert_eq!(all(&index, search(&[1, 11], 2, 8, newest)), [7, 5, 3]);
    assert_eq!(all(&index, search(&[1, 10], 2, 8, Direction::OldestFirst)), [2, 4, 6, 8]);
    assert!(all(&index, search(&[99], 0, 10, newest)).is_empty());
    assert!(all(&index, search(&[10, 11], 0, 10, newest)).is_empty());

    drop(index);
    let again = open(&directory);
    let reached = again.reached().unwrap();
    assert_eq!(reached.checkpoint, Some(checkpoint(12)));
    let mut organizations = reached.organizations;
    organizations.sort();
    assert_eq!(organizations, [(ACME, Revision(10)), (OTHER, Revision(1))]);
    assert_eq!(all(&again, search(&[1, 11], 0, 10, newest)), [9, 7, 5, 3, 1]);
    again.add(&[event(OrganizationId::from_bytes([9; 16]), 0, &[1])], &checkpoint(13)).unwrap();
    assert_eq!(all(&again, search(&[1], 9, 10, newest)), [10, 9], "it has a number of its own");
}

#[test]
fn an_event_out_of_its_place_changes_nothing() {
    let directory = TempDir::new().unwrap();
    let index = open(&directory);
    index.add(&[event(ACME, 0, &[1])], &checkpoint(1)).unwrap();
    for wrong in [0, 2, u64::MAX] {
        let batch = [event(ACME, 1, &[1]), event(ACME, 2, &[1]), event(ACME, wrong, &[1])];
        assert!(matches!(index.add(&batch, &checkpoint(2)), Err(IndexError::Damaged(_))));
    }
    assert_eq!(index.reached().unwrap().checkpoint, Some(checkpoint(1)));
    assert_eq!(all(&index, search(&[1], 0, 9, Direction::OldestFirst)), [0]);
    index.add(&[event(ACME, 1, &[1])], &checkpoint(2)).unwrap();
    assert_eq!(all(&index, search(&[1], 0, 9, Direction::OldestFirst)), [0, 1]);
}

#[test]
fn what_has_nothing_in_common_for_long_is_looked_at_in_windows() {
    let directory = TempDir::new().unwrap();
    let index = open(&directory);
    // Two terms that take turns, over more than a run, and meet at both ends.
    let end = RUN + RUN / 2;
    let terms = |it: u64| if it == 0 || it == end { vec![1, 2] } else { vec![1 + it % 2] };
    let events: Vec<_> = (0..=end).map(|it| event(ACME, it, &terms(it))).collect();
    index.add(&events, &checkpoint(1)).unwrap();
    assert_eq!(all(&index, search(&[1, 2], 0, end, Direction::NewestFirst)), [end, 0]);
    assert_eq!(all(&index, search(&[1, 2], 0, end, Direction::OldestFirst)), [0, end]);
    assert_eq!(all(&index, search(&[1, 2], 1, end - 1, Direction::OldestFirst)), [0; 0]);
}

#[test]
fn what_is_looked_for_across_runs_is_found_on_both_sides_of_each_border() {
    let directory = TempDir::new().unwrap();
    let index = open(&directory);
    // The rows of another organization stand in front, so that runs are counted from none.
    index.add(&[event(OTHER, 0, &[1, 2])], &checkpoint(1)).unwrap();
    let end = 2 * RUN + RUN / 4;
    let meet = [0, 1, RUN - 2, RUN - 1, RUN, RUN + 1, 2 * RUN - 1, 2 * RUN, end - 1, end];
    let terms = |it: u64| if meet.contains(&it) { vec![1, 2, 3] } else { vec![1 + it % 2] };
    let events: Vec<_> = (0..=end).map(|it| event(ACME, it, &terms(it))).collect();
    index.add(&events, &checkpoint(2)).unwrap();
    let bounds = [0, 1, 5, RUN - 1, RUN, RUN + 1, RUN + 5, 2 * RUN - 1, 2 * RUN, end];
    for low in bounds {
        for high in bounds {
            let within: Vec<u64> =
                meet.into_iter().filter(|it| (low..=high).contains(it)).collect();
            let newest: Vec<u64> = within.iter().rev().copied().collect();
            // One term, two, and all three.
            for terms in [&[3][..], &[1, 2], &[2, 1], &[1, 2, 3]] {
                let found = all(&index, search(terms, low, high, Direction::OldestFirst));
                assert_eq!(found, within, "{terms:?} from {low} to {high}");
                let found = all(&index, search(terms, low, high, Direction::NewestFirst));
                assert_eq!(found, newest, "{terms:?} from {high} to {low}");
            }
        }
    }
    let found = all(&index, search(&[1], RUN - 4, RUN + 3, Direction::OldestFirst));
    assert_eq!(found, [RUN - 4, RUN - 2, RUN - 1, RUN, RUN + 1, RUN + 2]);
}

#[test]
fn what_is_cleared_is_gone_and_can_be_made_again() {
    let directory = TempDir::new().unwrap();
    let index = open(&directory);
    let events = [event(ACME, 0, &[1, 2]), event(ACME, 1, &[2])];
    index.add(&events, &checkpoint(1)).unwrap();
    let digest = digest_of(&index).unwrap();
    assert_eq!(digest.terms, 3);
    index.clear().unwrap();
    assert_eq!(index.reached().unwrap(), Reached::default());
    assert_eq!(digest_of(&index).unwrap(), IndexDigest::default());
    assert!(all(&index, search(&[2], 0, 9, Direction::OldestFirst)).is_empty());
    for event in &events {
        index.add(std::slice::from_ref(event), &checkpoint(1)).unwrap();
    }
    assert_eq!(digest_of(&index).unwrap(), digest, "in however many steps");
    let mut told = IndexDigest::default();
    for Indexed { organization, revision, terms } in events.iter().rev() {
        told.events += 1;
        terms.iter().for_each(|term| told.add(*organization, *revision, *term));
    }
    assert_eq!(told, digest, "in whatever order");
    index.add(&[event(ACME, 2, &[3])], &checkpoint(2)).unwrap();
    assert_ne!(digest_of(&index).unwrap(), digest);
}

#[test]
fn a_digest_is_of_what_was_there_when_it_was_begun() {
    let directory = TempDir::new().unwrap();
    let index = open(&directory);
    // One term that all have, and steps that end within its list; and one of each alone.
    let events: Vec<_> = (0..10_000).map(|it| event(ACME, it, &[7, 1_000 + it])).collect();
    let mut told = IndexDigest::default();
    for Indexed { organization, revision, terms } in &events {
        told.events += 1;
        terms.iter().for_each(|term| told.add(*organization, *revision, *term));
    }
    index.add(&events, &checkpoint(1)).unwrap();
    let mut digesting = index.begin_digest().unwrap();
    assert_eq!(digesting.checkpoint, Some(checkpoint(1)));
    let (mut steps, mut next) = (1, 10_000);
    while !index.digest_on(&mut digesting).unwrap() {
        let more = [event(ACME, next, &[7, next]), event(OTHER, next - 10_000, &[7])];
        index.add(&more, &checkpoint(2)).unwrap();
        (steps, next) = (steps + 1, next + 1);
    }
    assert!(steps > 30_000 / u64::from(DIGEST_PLACES), "{steps} steps");
    assert_eq!(digesting.digest, told);
    assert_ne!(digest_of(&index).unwrap(), told);
}

/// What is found for each term, in both directions; none where that fails.
fn findings(index: &ActivityDb, terms: u64, end: u64) -> Option<Vec<Vec<Revision>>> {
    let mut findings = Vec::new();
    for term in 0..terms {
        for direction in [Direction::NewestFirst, Direction::OldestFirst] {
            let search = Search { wanted: 1_000, ..search(&[term], 0, end, direction) };
            findings.push(index.find(&search).ok()?.revisions);
        }
    }
    Some(findings)
}

#[test]
fn no_bit_that_flips_behind_sqlites_back_hides_an_event_from_queries_and_from_a_digest() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("activity.db");
    let index = open(&directory);
    let terms = 12;
    for some in 0..3 {
        let events: Vec<_> = (some * 40..some * 40 + 40)
            .map(|it| event(ACME, it, &[0, 1 + it % 5, 6 + it % 3, 9 + it / 50]))
            .collect();
        index.add(&events, &checkpoint(1)).unwrap();
    }
    let (whole, found) = (digest_of(&index).unwrap(), findings(&index, terms, 119).unwrap());
    drop(index);
    let database = Connection::open(&path).unwrap();
    let blocks = "SELECT id, block FROM terms_data WHERE id > 10 ORDER BY id";
    let blocks: Vec<(i64, Vec<u8>)> = database
        .prepare(blocks)
        .unwrap()
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    let put = |id: i64, block: &[u8]| {
        let put = "UPDATE terms_data SET block = ?2 WHERE id = ?1";
        assert_eq!(database.execute(put, params![id, block]).unwrap(), 1);
    };
    let (mut hidden, mut differing) = (0, 0);
    for (id, block) in &blocks {
        for bit in (0..block.len() * 8).step_by(37) {
            let mut flipped = block.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            put(*id, &flipped);
            let index = open(&directory);
            let differs = digest_of(&index) != Ok(whole);
            let lost = findings(&index, terms, 119).is_some_and(|now| {
                now.iter().zip(&found).any(|(now, all)| all.iter().any(|it| !now.contains(it)))
            });
            assert!(differs || !lost, "bit {bit} of block {id}");
            differing += u32::from(differs);
            hidden += u32::from(lost);
            drop(index);
            put(*id, block);
        }
    }
    // Enough of them did something, and did nothing that SQLite itself noticed.
    assert!(hidden > 20 && differing > hidden, "{hidden} hidden, {differing} differ");
    assert_eq!(digest_of(&open(&directory)), Ok(whole));
}

#[test]
fn a_digest_looks_at_the_way_to_each_place_too() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("activity.db");
    let index = open(&directory);
    let rare = |it: u64| 100 + it.wrapping_mul(0x9e37_79b9_7f4a_7c15) % 100_000_000_000;
    let events: Vec<_> = (0..8_000).map(|it| event(ACME, it, &[7, rare(it)])).collect();
    index.add(&events, &checkpoint(1)).unwrap();
    let whole = digest_of(&index).unwrap();
    assert_eq!(digest_of(&index), Ok(whole), "whatever is searched for");
    drop(index);
    // Of one leaf in the middle nothing says any more where it is: it is read, and not found.
    let database = Connection::open(&path).unwrap();
    let take = "DELETE FROM terms_idx WHERE (segid, term) IN
        (SELECT segid, term FROM terms_idx ORDER BY segid, term LIMIT 1 OFFSET
         (SELECT count(*) / 2 FROM terms_idx))";
    assert_eq!(database.execute(take, []).unwrap(), 1);
    let index = open(&directory);
    let lost =
        |it: &u64| all(&index, search(&[rare(*it)], 0, 9_999, Direction::NewestFirst)) != [*it];
    assert!((0..8_000).filter(lost).count() > 50);
    assert!(matches!(digest_of(&index), Err(IndexError::Damaged(_))));
}

#[test]
fn a_file_that_is_none_is_made_anew() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("activity.db");
    let index = open(&directory);
    index.add(&[event(ACME, 0, &[1])], &checkpoint(1)).unwrap();
    drop(index);
    fs::write(&path, "something else altogether".repeat(1_000)).unwrap();
    assert!(matches!(ActivityDb::look(&path), Err(IndexError::Damaged(_))));
    assert_eq!(open(&directory).reached().unwrap(), Reached::default());

    let other = Connection::open(&path).unwrap();
    other.pragma_update(None, "user_version", FORM).unwrap();
    drop(other);
    assert_eq!(open(&directory).reached().unwrap(), Reached::default(), "other terms");
    let index = open(&directory);
    index.add(&[event(ACME, 0, &[1])], &checkpoint(1)).unwrap();
    drop(index);
    let earlier = Connection::open(&path).unwrap();
    let form = (FORM - (1 << 16)).saturating_add_unsigned(TERMS_FORM);
    earlier.pragma_update(None, "user_version", form).unwrap();
    drop(earlier);
    assert_eq!(open(&directory).reached().unwrap(), Reached::default(), "an earlier form");
    use std::os::unix::fs::PermissionsExt as _;
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn it_finds_what_a_look_at_all_finds(
        events in prop::collection::vec((any::<bool>(), prop::collection::btree_set(0_u64..6, 0..4)), 1..60),
        cut in 1_usize..20,
        wanted in prop::collection::btree_set(0_u64..6, 1..3),
        bounds in (0_u64..60, 0_u64..60),
        newest_first in any::<bool>(),
    ) {
        let directory = TempDir::new().unwrap();
        let index = open(&directory);
        let (mut acme, mut other) = (0, 0);
        let events: Vec<_> = events.into_iter().map(|(is_acme, terms)| {
            let (id, next) = if is_acme { (ACME, &mut acme) } else { (OTHER, &mut other) };
            *next += 1;
            event(id, *next - 1, &terms.into_iter().collect::<Vec<_>>())
        }).collect();
        for some in events.chunks(cut) {
            index.add(some, &checkpoint(1)).unwrap();
        }
        let terms: Vec<u64> = wanted.into_iter().collect();
        let mut expected: Vec<u64> = events.iter()
            .filter(|it| it.organization == ACME && (bounds.0..=bounds.1).contains(&it.revision.0))
            .filter(|it| terms.iter().all(|term| it.terms.contains(&Term(*term))))
            .map(|it| it.revision.0)
            .collect();
        let direction = if newest_first { Direction::NewestFirst } else { Direction::OldestFirst };
        if newest_first {
            expected.reverse();
        }
        prop_assert_eq!(all(&index, search(&terms, bounds.0, bounds.1, direction)), expected);
    }
}
