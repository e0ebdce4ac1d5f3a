//! Starts: from snapshots, over damage, and over what a kill left in the real store.

use projections::event::{AccountLocked, EmailReleased, Event, TotpRemoved};
use projections::id::EventId;

use super::*;
use crate::ledger::accounts::command::HeldSession;
use crate::ledger::event_store::NewEvent;
use crate::ledger::snapshots::RoundError;
use crate::ledger::start::StartError;
use crate::store::embedded::{EmbeddedStore, Options};

impl World {
    /// Starts anew from the snapshots that there are.
    async fn restart_from_snapshots(self) -> Self {
        let Self { store, vault, time, directory, ledger, .. } = self;
        drop(ledger);
        let kept = derived(directory.path());
        let (ledger, replayed) = open(Arc::new(store.clone()), &vault, &time, Some(kept)).await;
        Self { ledger, replayed, store, vault, time, directory }
    }

    /// Accounts of every kind: with all there is, plain, stuck in each step, and released.
    async fn populated() -> Self {
        let world = Self::new().await;
        for number in 1..40 {
            let request = (number % 3 == 0).then(|| asked(number)).flatten();
            let draft = CreateAccount {
                has_password: number % 2 == 0,
                default_organization: (number % 5 == 0)
                    .then(|| OrganizationId::from_bytes([number; 16])),
                ..draft(number, &format!("user{number}@example.com"))
            };
            world.ledger.create_account(&draft, &order(request)).await.unwrap();
        }
        let until = world.now().saturating_add_millis(60_000);
        for number in 1..20 {
            world.change(number, ENROLL).await.unwrap();
            world.change(number, AccountCommand::Lock { until }).await.unwrap();
            let keeps = HeldSession {
                organization_id: OrganizationId::from_bytes([7; 16]),
                id: SessionId::from_bytes([number; 16]),
                epoch: u64::from(number % 2 == 0),
            };
            world.change(number, AccountCommand::EndSessions { keeps: Some(keeps) }).await.unwrap();
        }
        for (number, steps, fault) in [
            (50, 1, AppendFault::RefuseAppend),
            (51, 1, AppendFault::RefuseFull),
            (52, 2, AppendFault::RefuseAppend),
        ] {
            world.store.inject_after(steps, fault);
            let email = format!("user{number}@example.com");
            world
                .ledger
                .create_account(&draft(number, &email), &order(asked(number)))
                .await
                .unwrap_err();
        }
        world
    }

    /// Writes an event that no rules allow.
    async fn write_raw(&self, stream: &StreamName, event: Event) {
        let envelope = Envelope {
            id: EventId::from_bytes([9; 16]),
            at: self.now(),
            actor: Principal::Ledger,
            credential: None,
            request: None,
            correlation_id: "c".parse().unwrap(),
            causation_id: None,
            event,
            sealed: Vec::new(),
        };
        let (stored, leaf_hash) = envelope.encode().unwrap();
        let event_type = envelope.event.event_type();
        let new = NewEvent { id: envelope.id, event_type, stored: stored.into(), leaf_hash };
        let events = self.events(stream).await.len() as u64;
        let expected = events.checked_sub(1).map(Revision);
        self.store.append(stream, expected, vec![new], Urgency::Normal).await.unwrap();
    }

    /// The account of this number is stopped, by its e-mail too, and nobody else is.
    async fn assert_stopped_alone(&self, number: u8) {
        self.ledger.account(id(number)).unwrap_err();
        let email = self.email(&format!("user{number}@example.com"));
        self.ledger.account_by_email(&email).unwrap_err();
        let session = SessionId::from_bytes([1; 16]);
        self.ledger.session_stands(id(number), session, 0).unwrap_err();
        let stopped = self.change(number, END).await.unwrap_err();
        assert!(matches!(stopped, LedgerError::StreamStopped(_)), "{stopped:?}");
        let again = self.create(99, &format!("user{number}@example.com")).await.unwrap_err();
        assert!(
            matches!(
                again,
                LedgerError::StreamStopped(_) | LedgerError::Account(AccountRejection::EmailTaken)
            ),
            "{again:?}"
        );
        for other in (1..40).filter(|it| *it != number) {
            assert_eq!(self.whose(&format!("user{other}@example.com")), Some(id(other)));
        }
        self.change(if number == 2 { 3 } else { 2 }, END).await.unwrap();
        let refused = self.ledger.take_snapshots().await.unwrap_err();
        assert!(matches!(refused, RoundError::Damaged), "{refused:?}");
    }
}

#[tokio::test]
async fn a_start_from_snapshots_has_all_accounts_and_reads_only_the_tail() {
    let world = World::populated().await;
    world.assert_is_history().await;
    world.ledger.take_snapshots().await.unwrap();
    let world = world.restart_from_snapshots().await;
    assert_eq!((world.replayed.events, world.replayed.accounts), (0, 40));
    assert_eq!(world.replayed.snapshots_refused, None);
    world.assert_is_history().await;
    // What was remembered still is, and what was cut short goes on.
    let draft = draft(60, "user3@example.com");
    let again = world.ledger.create_account(&draft, &order(asked(3))).await.unwrap();
    assert_eq!((again.account_id, again.repeat), (id(3), true));
    world.ledger.configure(&ConfiguredKeys::default()).await.unwrap();
    assert_eq!(world.whose("user52@example.com"), Some(id(52)));
    world.change(1, END).await.unwrap();
    world.create(70, "user70@example.com").await.unwrap();
    world.ledger.take_snapshots().await.unwrap();
    world.change(1, END).await.unwrap();
    world.create(71, "user71@example.com").await.unwrap();
    let world = world.restart_from_snapshots().await;
    assert_eq!((world.replayed.events, world.replayed.accounts), (1 + 5, 42));
    world.assert_is_history().await;
    assert_eq!(world.whose("user71@example.com"), Some(id(71)));
    // Nothing moved but what was in the tail.
    world.ledger.take_snapshots().await.unwrap();
    let world = world.restart_from_snapshots().await;
    assert_eq!(world.replayed.events, 0);
    world.assert_is_history().await;
}

#[tokio::test]
async fn a_part_that_is_not_what_was_written_is_thrown_away() {
    let world = World::populated().await;
    world.ledger.take_snapshots().await.unwrap();
    let path = world.directory.path().join("projections.db");
    let connection = crate::store::derived::beside(&path);
    let changed = connection
        .execute("UPDATE snapshots SET bytes = zeroblob(length(bytes)) WHERE kind = 2 AND rowid = (SELECT min(rowid) FROM snapshots WHERE kind = 2)", [])
        .unwrap();
    assert_eq!(changed, 1);
    drop(connection);
    let world = world.restart_from_snapshots().await;
    assert!(world.replayed.snapshots_refused.as_ref().unwrap().contains("of the accounts"));
    assert!(world.replayed.events > 0);
    world.assert_is_history().await;
}

#[tokio::test]
async fn accounts_of_another_history_are_thrown_away() {
    let world = World::populated().await;
    let before = world.store.copied();
    world.change(1, END).await.unwrap();
    world.ledger.take_snapshots().await.unwrap();
    let world = World { store: before, ..world };
    let world = world.restart_from_snapshots().await;
    assert!(world.replayed.snapshots_refused.is_some());
    world.assert_is_history().await;
}

#[tokio::test]
async fn a_corrupt_account_stops_alone() {
    // Damaged where it begins, so that not even its e-mail is known by itself; and later.
    for revision in [0, 3] {
        let world = World::populated().await;
        assert!(world.store.flip_stored_byte(&StreamName::account(id(4)), Revision(revision)));
        let world = world.restart().await;
        assert_eq!(world.replayed.accounts_stopped, 1);
        world.assert_stopped_alone(4).await;
        world.assert_is_history().await;
    }
    // Lost whole events.
    let world = World::populated().await;
    assert!(world.store.lose_record(&StreamName::account(id(4)), Revision(2)));
    world.restart().await.assert_stopped_alone(4).await;
    // And events that mean nothing there.
    let world = World::populated().await;
    let misplaced = TotpRemoved { account_id: id(5) }.into();
    world.write_raw(&StreamName::account(id(30)), misplaced).await;
    let world = world.restart().await;
    world.assert_stopped_alone(30).await;
    let damaged = world.ledger.accounts().damaged();
    assert_eq!(damaged.len(), 1);
    assert_eq!(damaged[0].0, StreamName::account(id(30)));
    assert_eq!(damaged[0].1.fault, Fault::Misplaced("TotpRemoved"));
}

#[tokio::test]
async fn damage_that_is_met_while_running_stops_its_account() {
    let world = World::populated().await;
    let until = world.now();
    let stream = StreamName::account(id(30));
    world.write_raw(&stream, AccountLocked { account_id: id(5), until }.into()).await;
    let stopped = world.change(30, END).await.unwrap_err();
    assert!(matches!(stopped, LedgerError::StreamStopped(_)), "{stopped:?}");
    world.assert_stopped_alone(30).await;
    world.assert_is_history().await;
}

#[tokio::test]
async fn an_email_whose_history_is_corrupt_is_unavailable_and_nobody_elses() {
    let stream = |world: &World| StreamName::email(world.email("user4@example.com"));
    // Where it was confirmed, the account is known to be one, and goes on.
    let world = World::populated().await;
    let released = EmailReleased { email: world.email("user5@example.com"), account_id: id(4) };
    world.write_raw(&stream(&world), released.into()).await;
    let world = world.restart().await;
    world.ledger.account_by_email(&world.email("user4@example.com")).unwrap_err();
    assert!(world.ledger.account(id(4)).unwrap().is_some());
    let stopped = world.create(99, "user4@example.com").await.unwrap_err();
    assert!(matches!(stopped, LedgerError::StreamStopped(_)), "{stopped:?}");
    assert_eq!(world.whose("user5@example.com"), Some(id(5)));
    world.assert_is_history().await;
    // Where that is not known, the account is not, either.
    let world = World::populated().await;
    assert!(world.store.flip_stored_byte(&stream(&world), Revision(1)));
    let world = world.restart().await;
    world.assert_stopped_alone(4).await;
    assert_eq!(world.replayed.accounts_stopped, 2);
    world.assert_is_history().await;
}

#[tokio::test]
async fn an_account_whose_history_is_gone_is_not_absent() {
    let world = World::new().await;
    let email = world.email(EMAIL);
    let order = order(None);
    let none = projections::email::Reservation::new(email);
    let now = world.now();
    let (account_id, until) = (id(1), now.saturating_add_millis(1));
    let events: Vec<(Event, Option<&Personal>)> = vec![
        (projections::event::EmailReserved { email, account_id, until }.into(), None),
        (projections::event::EmailConfirmed { email, account_id }.into(), None),
    ];
    world.ledger.write(&none, events, now, &order, None, Urgency::Normal).await.unwrap();
    let world = world.restart().await;
    world.ledger.account(id(1)).unwrap_err();
    world.ledger.account_by_email(&email).unwrap_err();
}

#[tokio::test]
async fn accounts_without_an_operator_are_no_installation() {
    let world = World::populated().await;
    let store = MemoryStore::new();
    let recorded = world.store.read_stream(&StreamName::account(id(4)), Revision::FIRST, 1).await;
    let recorded = recorded.unwrap().remove(0);
    let envelope = Envelope::decode(&recorded.stored).unwrap();
    let new = NewEvent {
        id: envelope.id,
        event_type: envelope.event.event_type(),
        stored: recorded.stored,
        leaf_hash: recorded.leaf_hash,
    };
    store.append(&recorded.stream, None, vec![new], Urgency::Normal).await.unwrap();
    let parts = Parts {
        store: Arc::new(store),
        vault: Arc::clone(&world.vault) as _,
        clock: Clock::manual(Arc::clone(&world.time)),
        ids: Ids::from_system().unwrap(),
        peppers: Peppers::new(PepperId::FIRST, [1; 32].into()),
        lookup_key: [2; 32].into(),
    };
    let refused = Ledger::open(parts).await.err();
    assert!(matches!(refused, Some(StartError::OperatorMissing(it)) if it == recorded.stream));
}

#[tokio::test]
async fn a_start_over_the_real_store_has_what_was_answered() {
    let directory = tempfile::tempdir().unwrap();
    let vault = Arc::new(MemoryVault::new());
    let time = ManualTime::at("2026-11-22T10:00:00.000Z".parse().unwrap());
    let start = async || {
        let store = EmbeddedStore::open(&Options::new(directory.path())).unwrap();
        let store: Arc<EmbeddedStore> = Arc::new(store);
        let kept = derived(directory.path());
        let (ledger, replayed) = open(Arc::clone(&store) as _, &vault, &time, Some(kept)).await;
        (store, ledger, replayed)
    };
    let (store, ledger, _) = start().await;
    ledger.create_installation(None, &ConfiguredKeys::default()).await.unwrap();
    ledger.create_account(&draft(1, EMAIL), &order(None)).await.unwrap();
    ledger.change_account(id(1), ENROLL, &order(None)).await.unwrap();
    // Whoever is dropped in the middle leaves nothing that cannot be gone on with.
    for number in 2..12 {
        let ledger = Arc::clone(&ledger);
        let email = format!("user{number}@example.com");
        let asking = tokio::spawn(async move {
            ledger.create_account(&draft(number, &email), &order(None)).await
        });
        tokio::task::yield_now().await;
        asking.abort();
    }
    store.close().await;
    drop((store, ledger));
    for snapshots in [false, true] {
        let (store, ledger, replayed) = start().await;
        assert_eq!(replayed.snapshots > 0, snapshots);
        let account = ledger.account(id(1)).unwrap().unwrap();
        assert!(account.has_totp());
        let email = ledger.email_digest(&EMAIL.parse().unwrap());
        assert_eq!(ledger.account_by_email(&email).unwrap().unwrap().id, id(1));
        ledger.configure(&ConfiguredKeys::default()).await.unwrap();
        time.advance_ms(RESERVED_FOR_MS);
        for number in 2..12 {
            let email = format!("user{number}@example.com");
            ledger.create_account(&draft(number, &email), &order(None)).await.unwrap();
        }
        let (_, rebuilt) = ledger.rebuilt().await.unwrap();
        assert_eq!(ledger.accounts().differing(&rebuilt), []);
        ledger.take_snapshots().await.unwrap();
        store.close().await;
    }
}
