//! How attempts are counted, and who waits for it.

use super::*;

const TERMS: ThrottleTerms =
    ThrottleTerms { attempts: 3, email_attempts: 12, origin_attempts: 10, wait_ms_max: 10_000 };

fn at(ms: i64) -> Timestamp {
    Timestamp::default().saturating_add_millis(ms)
}

fn email(n: usize) -> EmailDigest {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&n.to_le_bytes());
    EmailDigest(bytes)
}

fn from(text: &str) -> Option<IpAddr> {
    Some(text.parse().unwrap())
}

/// When the next attempt may be made; none for now.
fn waits(throttle: &mut Throttle, n: usize, origin: Option<IpAddr>, ms: i64) -> Option<i64> {
    throttle.begin(email(n), origin, at(ms)).err().map(|it| it.at.as_millis())
}

fn begin(throttle: &mut Throttle, n: usize, origin: Option<IpAddr>, ms: i64) -> Begun {
    throttle.begin(email(n), origin, at(ms)).unwrap()
}

#[test]
fn each_failure_beyond_the_free_ones_waits_twice_as_long() {
    let mut throttle = Throttle::new(TERMS);
    for _ in 0..3 {
        assert_eq!(waits(&mut throttle, 1, None, 0), None);
    }
    let mut now = 0;
    for wait in [1_000, 2_000, 4_000, 8_000, 10_000, 10_000] {
        assert_eq!(waits(&mut throttle, 1, None, now), Some(now + wait));
        // Attempts that are refused do not make it longer.
        assert_eq!(waits(&mut throttle, 1, None, now + wait - 1), Some(now + wait));
        now += wait;
        assert_eq!(waits(&mut throttle, 1, None, now), None, "{now}");
    }
    assert_eq!(waits(&mut throttle, 2, None, now), None, "another e-mail");
    assert_eq!(waits(&mut throttle, 1, None, now + FORGOTTEN_MS), None);
    assert_eq!(waits(&mut throttle, 1, None, now + FORGOTTEN_MS), None, "all are forgotten");
}

#[test]
fn what_is_taken_back_forgives_no_other_failure() {
    let mut throttle = Throttle::new(TERMS);
    let mut last = begin(&mut throttle, 1, None, 0);
    for _ in 1..3 {
        last = begin(&mut throttle, 1, None, 0);
    }
    for _ in 0..20 {
        throttle.taken_back(last);
        // As many as were free.
        last = begin(&mut throttle, 1, None, 0);
    }
    assert_eq!(waits(&mut throttle, 1, None, 0), Some(1_000), "and no more");
}

#[test]
fn who_signs_in_begins_anew() {
    let mut throttle = Throttle::new(TERMS);
    for round in 0..50 {
        for _ in 0..2 {
            assert_eq!(waits(&mut throttle, 1, None, round), None);
        }
        let right = begin(&mut throttle, 1, None, round);
        throttle.succeeded(right);
    }
    // A success says nothing about others.
    for _ in 0..3 {
        assert_eq!(waits(&mut throttle, 1, None, 50), None);
    }
    let right = begin(&mut throttle, 2, None, 50);
    throttle.succeeded(right);
    assert!(waits(&mut throttle, 1, None, 50).is_some());
}

/// One origin that tries many e-mails is held back, one behind which many sign in is not.
#[test]
fn an_origin_is_held_back_whatever_e_mails_it_tries() {
    let mut throttle = Throttle::new(TERMS);
    let home = from("192.0.2.1");
    for n in 0..500 {
        let right = begin(&mut throttle, n, home, 0);
        throttle.succeeded(right);
    }
    for n in 0..10 {
        assert_eq!(waits(&mut throttle, n, home, 0), None);
    }
    assert_eq!(waits(&mut throttle, 20, home, 0), Some(1_000));
    assert_eq!(waits(&mut throttle, 20, from("::ffff:192.0.2.1"), 0), Some(1_000));
    assert_eq!(waits(&mut throttle, 20, from("192.0.2.2"), 0), None);
    // The whole of what one IPv6 line is given is one origin.
    for n in 100..110 {
        let address = from(&format!("2001:db8:1:2:{n}::{n}"));
        assert_eq!(waits(&mut throttle, n, address, 0), None);
    }
    assert!(waits(&mut throttle, 200, from("2001:db8:1:2::7"), 0).is_some());
    assert_eq!(waits(&mut throttle, 200, from("2001:db8:1:3::7"), 0), None);
}

#[test]
fn memory_is_bounded_and_who_goes_on_is_not_forgotten() {
    let mut throttle = Throttle::new(TERMS);
    for _ in 0..3 {
        assert_eq!(waits(&mut throttle, 0, None, 0), None);
    }
    let mut now = 0;
    for n in 1..REMEMBERED_MAX * 10 {
        now += 200;
        assert_eq!(waits(&mut throttle, n, None, now), None);
        // Tried again whenever that may be: held back ever longer, through all generations.
        let _ = waits(&mut throttle, 0, None, now);
        assert!(throttle.emails.newer.len() <= REMEMBERED_MAX);
        assert!(throttle.emails.older.len() <= REMEMBERED_MAX);
        assert!(throttle.pairs.newer.len() <= REMEMBERED_MAX);
        assert!(throttle.pairs.older.len() <= REMEMBERED_MAX);
    }
    assert!(waits(&mut throttle, 0, None, now).is_some_and(|next| next > now));
}

#[test]
fn no_number_is_too_large() {
    let mut failures = Failures { count: u32::MAX, last_ms: i64::MAX - 5, ..Failures::default() };
    assert_eq!(failures.next_ms(0, i64::MAX), i64::MAX);
    failures.last_ms = 0;
    for count in 0..200 {
        let failures = Failures { count, ..failures };
        let next = failures.next_ms(3, 10_000);
        assert!(next == i64::MIN || (1_000..=10_000).contains(&next), "{count}");
    }
}

/// Whatever somebody does at one place, for however long: the person at another is let in.
#[test]
fn nobody_is_delayed_by_what_fails_elsewhere() {
    const ROUNDS: i64 = 3_000;
    let (there, home) = (from("198.51.100.1"), from("192.0.2.1"));
    // All the time, and so that each time all is forgotten just before, or just not.
    for pause_ms in [60_000, 7_000_000, FORGOTTEN_MS - 1, FORGOTTEN_MS, FORGOTTEN_MS + 1] {
        let mut throttle = Throttle::new(ThrottleTerms { origin_attempts: 10_000, ..TERMS });
        for round in 0..ROUNDS {
            let now = round * pause_ms;
            for _ in 0..TERMS.attempts + 2 {
                let _ = waits(&mut throttle, 1, there, now);
            }
            assert!(waits(&mut throttle, 1, there, now).is_some());
            // The person mistypes in between, and logs in.
            let now = now + pause_ms / 2;
            let mistyped = waits(&mut throttle, 1, home, now);
            assert_eq!(mistyped, None, "{pause_ms}: {round}");
            let right = begin(&mut throttle, 1, home, now);
            throttle.succeeded(right);
        }
    }
}

/// That somebody was let in is felt at their own place alone: elsewhere it would tell that
/// there is an account.
#[test]
fn a_success_is_felt_at_its_own_place_alone() {
    let mut throttle = Throttle::new(TERMS);
    let (there, home) = (from("198.51.100.1"), from("2001:db8:1:2::7"));
    for place in [there, home, None] {
        for _ in 0..3 {
            assert_eq!(waits(&mut throttle, 1, place, 0), None);
        }
    }
    let right = begin(&mut throttle, 1, from("2001:db8:1:2::8"), 1_000);
    throttle.succeeded(right);
    for place in [there, None] {
        assert_eq!(begin(&mut throttle, 1, place, 1_000).now_ms, 1_000);
        assert_eq!(waits(&mut throttle, 1, place, 1_000), Some(3_000));
    }
    for _ in 0..3 {
        assert_eq!(waits(&mut throttle, 1, home, 1_000), None);
    }
}

/// Many places together are held back as one: all that is tried with an e-mail is bounded.
#[test]
fn many_places_together_are_held_back() {
    const SPAN_MS: i64 = 3_600_000;
    let mut throttle = Throttle::new(TERMS);
    let places: Vec<_> = (0..40).map(|n| from(&format!("198.51.100.{n}"))).collect();
    let mut tried = 0;
    let mut now = 0;
    while now < SPAN_MS {
        for place in &places {
            tried += i64::from(waits(&mut throttle, 1, *place, now).is_none());
        }
        now += 1_000;
    }
    // The free ones, those whose waits are shorter, and one for each of the longest.
    let most = 12 + 4 + SPAN_MS / TERMS.wait_ms_max;
    assert!((most - 5..=most).contains(&tried), "{tried} of {most}");
    // What is taken back was never there; the failures of a place count once.
    let mut throttle = Throttle::new(TERMS);
    for place in &places {
        let begun = begin(&mut throttle, 1, *place, 0);
        throttle.taken_back(begun);
    }
    for place in &places[..4] {
        for _ in 0..3 {
            assert_eq!(waits(&mut throttle, 1, *place, 0), None);
        }
    }
    assert_eq!(waits(&mut throttle, 1, places[9], 0), Some(1_000));
    // Another e-mail is not that one, and a day after the first all is forgotten.
    assert_eq!(waits(&mut throttle, 2, places[9], 0), None);
    assert_eq!(waits(&mut throttle, 1, places[9], 1_000), None);
    assert_eq!(waits(&mut throttle, 1, places[8], 2_000), Some(3_000));
    assert_eq!(waits(&mut throttle, 1, places[8], FORGOTTEN_MS), None);
}

/// Where each place has no more than all have together, it is the e-mail that counts.
#[test]
fn wherever_it_is_tried_from() {
    let mut throttle = Throttle::new(TERMS.wherever());
    for place in [from("198.51.100.1"), from("192.0.2.1"), None] {
        assert_eq!(waits(&mut throttle, 1, place, 0), None);
    }
    assert_eq!(waits(&mut throttle, 1, from("192.0.2.7"), 0), Some(1_000));
}
