//! What a ledger records by itself, under the faults of a store, and what it comes to.

use std::time::Duration;

use projections::corrupt::Fault;
use projections::event::{DenialCode, DenialsSummarized, UsageRecorded};
use projections::network::RateLimit;
use tokio::time::Instant;

use super::*;
use crate::ledger::command::UpdateKeyLabel;
use crate::ledger::denials::SUMMARY_GROUPS_MAX;
use crate::ledger::event_store::READ_EVENTS_MAX;
use crate::ledger::usage::recorder::HELD_BACK;
use crate::ledger::verify::{Asking, Purpose};

fn key(number: u8) -> KeyId {
    KeyId::from_bytes([number; 16])
}

fn ask_for(ledger: &Ledger, number: u8, permission: &str, purpose: Purpose) -> Code {
    let wanted = [permission.to_owned()];
    let question = Question {
        tenant: None,
        permissions: Wanted::new(&wanted).unwrap(),
        service: Some("cdn"),
        environment: None,
        client_ip: None,
        domain: None,
        now: ledger.clock().now(),
    };
    let text = text(number);
    let mut presented = Presented::default();
    presented.bearer(&text);
    let asking = Asking { reach: Reach::Installation, purpose };
    ledger.verify(presented, &question, asking, |answer| match answer {
        Answer::Decided(decision) | Answer::RateLimited { decision, .. } => decision.code,
        Answer::Refused(code) => code,
        Answer::Unavailable(id) => panic!("{id} is stopped"),
        Answer::Elsewhere(_) | Answer::Emergency(_) => panic!("nothing is kept elsewhere"),
    })
}

impl World {
    async fn make(&self, number: u8) {
        self.ledger.execute(ACME, &order(create(number))).await.unwrap();
    }

    fn use_key(&self, number: u8) {
        let asked = ask_for(&self.ledger, number, "dns:read", Purpose::Ask(key(99).into()));
        assert_eq!(asked, Code::Allowed);
    }

    fn last_used(&self, number: u8) -> Option<Timestamp> {
        last_used(&self.ledger, number)
    }

    /// The events of a stream.
    async fn events(&self, stream: &StreamName) -> Vec<Event> {
        let all = self.store.read_stream(stream, Revision::FIRST, READ_EVENTS_MAX).await.unwrap();
        all.iter().map(|it| Envelope::decode(&it.stored).unwrap().event).collect()
    }

    async fn recorded(&self) -> Vec<UsageRecorded> {
        let events = self.events(&StreamName::usage(ACME)).await;
        let recorded = events.into_iter().map(|event| {
            let Event::UsageRecorded(event) = event else { panic!("{event:?}") };
            event
        });
        recorded.collect()
    }

    async fn uses(&self, number: u8) -> u64 {
        let recorded = self.recorded().await;
        let keys = recorded.iter().flat_map(|it| &it.keys);
        keys.filter(|it| it.key_id == key(number)).map(|it| it.uses).sum()
    }

    async fn summaries(&self, id: OrganizationId) -> Vec<DenialsSummarized> {
        let events = self.events(&StreamName::organization(id)).await;
        let summaries = events.into_iter().filter_map(|event| {
            if let Event::DenialsSummarized(event) = event { Some(event) } else { None }
        });
        summaries.collect()
    }

    async fn denied(&self, id: OrganizationId) -> u64 {
        self.summaries(id).await.iter().map(DenialsSummarized::total).sum()
    }
}

fn last_used(ledger: &Ledger, number: u8) -> Option<Timestamp> {
    let tables = ledger.tables().organization(ACME).unwrap();
    let tables = tables.tables();
    ledger.last_used(tables.key(key(number)).unwrap())
}

#[tokio::test]
async fn a_use_is_recorded_at_once_and_then_held_back() {
    let world = World::new().await;
    for number in [1, 2] {
        world.make(number).await;
    }
    assert_eq!(world.last_used(1), None, "to be made is no use");
    // Nor is what nobody answers for, and what is denied.
    assert_eq!(ask_for(&world.ledger, 1, "dns:read", Purpose::Look), Code::Allowed);
    assert_eq!(ask_for(&world.ledger, 1, "dns:read", Purpose::Knock), Code::Allowed);
    assert_eq!(ask_for(&world.ledger, 1, "dns:read", Purpose::Again), Code::Allowed);
    let denied = ask_for(&world.ledger, 1, "dns:write", Purpose::Ask(key(99).into()));
    assert_eq!((denied, world.last_used(1)), (Code::PermissionDenied, None));
    let begin = Instant::now();
    world.ledger.record_uses_at(begin, false).await;
    assert_eq!(world.recorded().await, []);

    for _ in 0..3 {
        world.use_key(1);
    }
    let first = world.ledger.clock().now();
    assert_eq!((world.last_used(1), world.last_used(2)), (Some(first), None));
    world.ledger.record_uses_at(begin, false).await;
    assert_eq!((world.recorded().await.len(), world.uses(1).await), (1, 3));
    // Used on and on, it is counted on, and another key is recorded meanwhile.
    world.time.advance_ms(60_000);
    world.use_key(1);
    world.use_key(2);
    let soon = begin + HELD_BACK - Duration::from_millis(1);
    world.ledger.record_uses_at(soon, false).await;
    assert_eq!((world.uses(1).await, world.uses(2).await), (3, 1));
    let found = world.reopened().await;
    assert_eq!(last_used(&found, 1), Some(first), "as far as it was recorded");
    assert_eq!(last_used(&found, 2), Some(world.ledger.clock().now()));
    // Then it is written; and at the end, at once.
    world.ledger.record_uses_at(begin + HELD_BACK, false).await;
    assert_eq!(world.uses(1).await, 4);
    world.time.advance_ms(1_000);
    world.use_key(1);
    world.ledger.record_uses_at(begin + HELD_BACK, true).await;
    assert_eq!(world.uses(1).await, 5);
    let events = world.recorded().await.len();
    world.ledger.record_uses_at(begin + HELD_BACK * 9, true).await;
    assert_eq!(world.recorded().await.len(), events, "nothing new, nothing written");
    assert_eq!(last_used(&*world.reopened().await, 1), world.last_used(1));
    world.assert_replays().await;
}

#[tokio::test]
async fn a_key_that_is_changed_keeps_its_uses_and_its_successor_has_its_own() {
    let world = World::new().await;
    world.make(1).await;
    world.use_key(1);
    let relabelled = Command::UpdateKeyLabel(UpdateKeyLabel {
        key_id: key(1),
        name: "other".parse().ok(),
        description: None,
    });
    world.ledger.execute(ACME, &order(relabelled)).await.unwrap();
    let used = world.last_used(1);
    assert_eq!(used, Some(world.ledger.clock().now()));
    world.time.advance_ms(5_000);
    world.ledger.execute(ACME, &order(revoke(1))).await.unwrap();
    world.make(2).await;
    assert_eq!((world.last_used(1), world.last_used(2)), (used, None));
    world.ledger.record_uses_at(Instant::now(), false).await;
    assert_eq!(world.uses(1).await, 1);
    assert_eq!(last_used(&*world.reopened().await, 1), used);
}

#[tokio::test]
async fn uses_that_cannot_be_written_are_written_later() {
    let faults = [
        AppendFault::RefuseFull,
        AppendFault::RefuseAppend,
        AppendFault::DropAppend,
        AppendFault::LoseAppendAck,
    ];
    for fault in faults {
        let world = World::new().await;
        for number in [1, 2] {
            world.make(number).await;
        }
        let mut uses = 0;
        for round in 0..4 {
            for number in [1, 1, 2] {
                world.use_key(number);
            }
            uses += 2;
            world.store.inject(fault, usize::from(round < 2));
            let now = Instant::now() + HELD_BACK * round;
            world.ledger.record_uses_at(now, false).await;
        }
        world.ledger.record_uses_at(Instant::now() + HELD_BACK * 9, true).await;
        let recorded = (world.uses(1).await, world.uses(2).await);
        assert_eq!(recorded, (uses, uses / 2), "{fault:?}");
        world.assert_replays().await;
    }
}

#[tokio::test]
async fn another_writers_usage_is_found() {
    let world = World::new().await;
    world.make(1).await;
    let other = world.reopened().await;
    for ledger in [&world.ledger, &other, &world.ledger, &other] {
        assert_eq!(ask_for(ledger, 1, "dns:read", Purpose::Enter), Code::Allowed);
        for _ in 0..2 {
            ledger.record_uses_at(Instant::now() + HELD_BACK, true).await;
        }
    }
    assert_eq!(world.uses(1).await, 4);
}

#[tokio::test]
async fn more_keys_than_the_queue_holds_are_looked_through() {
    let world = World::new().await;
    for number in 1..=20 {
        world.make(number).await;
    }
    (1..=20).for_each(|number| world.use_key(number));
    // As if all of them had found the queue full.
    while world.ledger.noted.keys.pop().is_some() {}
    world.ledger.noted.overflowed.store(true, std::sync::atomic::Ordering::Relaxed);
    let begin = Instant::now();
    world.ledger.record_uses_at(begin, false).await;
    let first = world.recorded().await;
    assert_eq!(first.iter().map(|it| it.keys.len()).collect::<Vec<_>>(), [20]);
    // They are held back like all others.
    (1..=20).for_each(|number| world.use_key(number));
    world.ledger.record_uses_at(begin, false).await;
    assert_eq!(world.recorded().await.len(), 1);
    world.ledger.record_uses_at(begin + HELD_BACK, false).await;
    assert_eq!(world.recorded().await.len(), 2);
    assert_eq!(world.uses(7).await, 2);
}

#[tokio::test]
async fn many_keys_are_split_among_events_that_fit() {
    let world = World::new().await;
    let keys: Vec<_> = (0..1_200_u128)
        .map(|number| projections::event::KeyUses {
            key_id: KeyId::from_parts(u64::MAX >> 16, u128::MAX >> 48 << 10 | number),
            uses: u32::MAX.into(),
            last_used_at: Timestamp::MAX,
        })
        .collect();
    for part in keys.chunks(500) {
        let event = UsageRecorded { keys: part.to_vec() };
        let envelope = Envelope {
            id: world.ledger.ids().event(Timestamp::MAX),
            at: Timestamp::MAX,
            actor: projections::principal::Principal::Ledger,
            credential: None,
            request: None,
            correlation_id: world.ledger.new_correlation_id(),
            causation_id: None,
            event: event.into(),
            sealed: Vec::new(),
        };
        assert!(envelope.encode().unwrap().0.len() < 64 * 1_024);
    }
}

#[tokio::test]
async fn a_corrupt_usage_stream_stops_nothing() {
    for damage in [MemoryStore::flip_stored_byte, MemoryStore::lose_record] {
        let world = World::new().await;
        world.make(1).await;
        for round in 0..3 {
            world.use_key(1);
            world.ledger.record_uses_at(Instant::now() + HELD_BACK * round, false).await;
        }
        let stream = StreamName::usage(ACME);
        assert!(damage(&world.store, &stream, Revision(1)));
        let again = world.reopened().await;
        assert!(again.tables().organization(ACME).unwrap().stopped().is_none());
        assert_eq!(code(&again, 1), Ok(Code::Allowed));
        assert_eq!(last_used(&again, 1), None, "nothing behind damage is believed");
        // It is known again from here on, and nothing is written behind the damage.
        assert_eq!(ask_for(&again, 1, "dns:read", Purpose::Enter), Code::Allowed);
        assert!(last_used(&again, 1).is_some());
        again.record_uses_at(Instant::now(), true).await;
        let behind = world.store.read_stream(&stream, Revision(3), 1).await.unwrap();
        assert!(behind.is_empty());
        again.execute(ACME, &order(create(2))).await.unwrap();
    }
}

#[tokio::test]
async fn every_denial_is_in_one_summary() {
    let faults = [
        None,
        Some(AppendFault::RefuseFull),
        Some(AppendFault::DropAppend),
        Some(AppendFault::LoseAppendAck),
    ];
    for fault in faults {
        let world = World::new().await;
        world.make(1).await;
        let recording = world.ledger.start_recording();
        for _ in 0..2 {
            let denied = ask_for(&world.ledger, 1, "dns:write", Purpose::Ask(key(99).into()));
            assert_eq!(denied, Code::PermissionDenied);
        }
        let unknown = ask_for(&world.ledger, 9, "dns:read", Purpose::Ask(key(99).into()));
        assert_eq!(unknown, Code::Unknown);
        assert_eq!(ask_for(&world.ledger, 9, "dns:read", Purpose::Knock), Code::Unknown);
        // Known to be there, and asked by nobody in particular.
        assert_eq!(ask_for(&world.ledger, 9, "dns:read", Purpose::Look), Code::Unknown);
        if let Some(fault) = fault {
            world.store.inject(fault, 1);
        }
        while world.denied(ACME).await + world.denied(OrganizationId::OPERATOR).await == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        recording.finish().await;
        let summaries = world.summaries(ACME).await;
        assert_eq!(summaries.len(), 1, "{fault:?}: {summaries:?}");
        let counted = &summaries[0].denials[0];
        assert_eq!((counted.count, summaries[0].total()), (2, 2));
        assert_eq!(counted.denial.code, DenialCode::PermissionDenied);
        assert_eq!(
            (counted.denial.credential, counted.denial.asked_with),
            (Some(key(1).into()), Some(key(99).into()))
        );
        assert_eq!(world.denied(OrganizationId::OPERATOR).await, 2, "{fault:?}");
        world.assert_replays().await;
    }
}

#[tokio::test]
async fn the_denials_of_a_stopped_organization_go_nowhere() {
    let world = World::new().await;
    world.make(1).await;
    let denied = ask_for(&world.ledger, 1, "dns:write", Purpose::Ask(key(99).into()));
    assert_eq!(denied, Code::PermissionDenied);
    let organization = world.ledger.tables().organization(ACME).unwrap();
    world.ledger.tables().stop(&organization, Fault::Rewritten.at(Revision(1)));
    let recording = world.ledger.start_recording();
    recording.finish().await;
    assert_eq!(world.denied(ACME).await + world.denied(OrganizationId::OPERATOR).await, 0);
    assert_eq!(world.ledger.denials().groups(), 0, "nor are they kept");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_is_counted_to_the_last_while_summaries_are_written() {
    const EACH: u64 = 100_000;
    let world = World::new().await;
    for number in 1..=5 {
        world.make(number).await;
    }
    let recording = world.ledger.start_recording();
    let floods: Vec<_> = (0..2_u64)
        .map(|thread| {
            let ledger = Arc::clone(&world.ledger);
            std::thread::spawn(move || {
                for number in 0..EACH {
                    let asker = KeyId::from_parts(1, u128::from(number << 1 | thread));
                    // Known and unknown credentials in turn, each asked about by another key.
                    let which = if number % 2 == 0 { 1 + (number % 5) as u8 } else { 20 };
                    let code = ask_for(&ledger, which, "dns:write", Purpose::Ask(asker.into()));
                    assert_ne!(code, Code::Allowed);
                }
            })
        })
        .collect();
    floods.into_iter().for_each(|it| it.join().unwrap());
    recording.finish().await;
    assert_eq!(world.denied(ACME).await, EACH);
    assert_eq!(world.denied(OrganizationId::OPERATOR).await, EACH);
    let summaries = world.summaries(ACME).await;
    assert!(summaries.len() <= 3, "once a minute, and at the end");
    for summary in &summaries {
        assert!(summary.denials.len() <= SUMMARY_GROUPS_MAX);
    }
    // Nobody's key was pushed out by the other ones.
    let last = summaries.last().unwrap();
    for number in 1..=5 {
        let of_key = |it: &&projections::event::CountedDenial| {
            it.denial.credential == Some(key(number).into())
        };
        assert!(last.denials.iter().find(of_key).is_some_and(|it| it.count > 100), "{number}");
    }
    assert_eq!(world.ledger.denials().groups(), 0);
}

#[tokio::test]
async fn a_rate_limit_takes_the_place_of_yes_alone() {
    let world = World::new().await;
    let Command::CreateKey(mut command) = create(1) else { unreachable!() };
    command.rate_limit = RateLimit::new(3, 86_400).ok();
    world.ledger.execute(ACME, &order(Command::CreateKey(command))).await.unwrap();
    world.make(2).await;
    let ask = |number, permission| {
        ask_for(&world.ledger, number, permission, Purpose::Ask(key(99).into()))
    };
    for _ in 0..9 {
        assert_eq!(ask(1, "dns:write"), Code::PermissionDenied, "a denial costs no token");
    }
    // Nor do looks.
    for purpose in [Purpose::Look, Purpose::Knock, Purpose::Again] {
        assert_eq!(ask_for(&world.ledger, 1, "dns:read", purpose), Code::Allowed);
    }
    for _ in 0..3 {
        assert_eq!(ask(1, "dns:read"), Code::Allowed);
    }
    let used = world.last_used(1);
    world.time.advance_ms(5_000);
    assert_eq!(ask(1, "dns:read"), Code::RateLimited);
    assert_eq!(ask(1, "dns:write"), Code::PermissionDenied, "what is wrong comes first");
    assert_eq!(world.last_used(1), used, "a denial is no use");
    assert!((0..99).all(|_| ask(2, "dns:read") == Code::Allowed), "others have no limit");
    assert_eq!(world.ledger.rate_limits.len(), 1, "and no bucket");
    world.ledger.start_recording().finish().await;
    let summaries = world.summaries(ACME).await;
    let limited = summaries[0].denials.iter().find(|it| it.denial.code == DenialCode::RateLimited);
    assert_eq!(limited.map(|it| it.count), Some(1));
}
