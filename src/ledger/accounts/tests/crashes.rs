//! Creations and changes that are cut short, and appends whose outcome is lost.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const FAULTS: [AppendFault; 5] = [
    AppendFault::LoseAppendAck,
    AppendFault::DropAppend,
    AppendFault::RefuseAppend,
    AppendFault::RefuseFull,
    AppendFault::FenceStore,
];

impl World {
    /// The next append but this many meets with this fault.
    fn inject(&self, after: usize, fault: AppendFault) {
        self.store.inject_after(after, fault);
    }

    /// A kill: what was asked of the store and not carried out is gone.
    async fn killed(self) -> Self {
        let Self { store, vault, time, directory, ledger, .. } = self;
        drop(ledger);
        let store = store.copied();
        let (ledger, replayed) = open(Arc::new(store.clone()), &vault, &time, None).await;
        Self { ledger, replayed, store, vault, time, directory }
    }

    /// What the configuration of a start does: it finishes what was cut short.
    async fn configured(self) -> Self {
        self.ledger.configure(&ConfiguredKeys::default()).await.unwrap();
        self
    }
}

#[tokio::test]
async fn an_append_that_fails_or_whose_answer_is_lost_is_known() {
    for fault in FAULTS {
        for step in 0..3 {
            let world = World::new().await;
            world.inject(step, fault);
            let made = world.create(1, EMAIL).await;
            assert_eq!(made.is_ok(), fault == AppendFault::LoseAppendAck, "{fault:?} {step}");
            assert_eq!(world.whose(EMAIL).is_some(), made.is_ok(), "{fault:?} {step}");
            world.assert_is_history().await;
            if fault != AppendFault::FenceStore {
                // Asked again, by anybody, it goes on where it stopped.
                let again = world.create(1, EMAIL).await.unwrap();
                assert_eq!(again.account_id, id(1), "{fault:?} {step}");
                assert_eq!(world.whose(EMAIL), Some(id(1)));
            }
            world.assert_is_history().await;
        }
        let world = World::new().await;
        world.create(1, EMAIL).await.unwrap();
        world.inject(0, fault);
        let changed = world.change(1, END).await;
        assert_eq!(changed.is_ok(), fault == AppendFault::LoseAppendAck, "{fault:?}");
        let epoch = world.ledger.account(id(1)).unwrap().unwrap().epoch();
        assert_eq!(epoch, 1 + u64::from(changed.is_ok()), "{fault:?}");
        world.assert_is_history().await;
        if fault != AppendFault::FenceStore {
            world.change(1, END).await.unwrap();
            world.assert_is_history().await;
        }
    }
}

/// What is left of a creation that was cut short behind so many steps.
async fn cut_short(steps: usize) -> World {
    let world = World::new().await;
    world.inject(steps, AppendFault::FenceStore);
    world.create(1, EMAIL).await.unwrap_err();
    let world = world.killed().await;
    let expected = [&[][..], &["EmailReserved"], &["EmailReserved"]][steps.min(2)];
    assert_eq!(world.email_types().await, expected);
    assert_eq!(
        world.types(&StreamName::account(id(1))).await.len(),
        if steps == 2 { 3 } else { 0 }
    );
    assert_eq!((world.whose(EMAIL), world.ledger.account(id(1)).unwrap()), (None, None));
    world
}

#[tokio::test]
async fn a_reservation_whose_account_never_came_to_be_is_given_up() {
    let world = cut_short(1).await.configured().await;
    let held = rejected(world.create(2, EMAIL).await.unwrap_err());
    assert_eq!(held, AccountRejection::EmailReserved);
    world.time.advance_ms(RESERVED_FOR_MS - 1);
    let held = rejected(world.create(2, EMAIL).await.unwrap_err());
    assert_eq!(held, AccountRejection::EmailReserved);
    world.time.advance_ms(1);
    world.create(2, EMAIL).await.unwrap();
    assert_eq!(world.whose(EMAIL), Some(id(2)));
    let late = rejected(world.create(1, EMAIL).await.unwrap_err());
    assert_eq!(late, AccountRejection::EmailTaken);
    world.assert_is_history().await;
}

#[tokio::test]
async fn a_reservation_is_gone_on_with_by_the_same_request() {
    for passed in [0, RESERVED_FOR_MS] {
        let world = World::new().await;
        world.inject(1, AppendFault::FenceStore);
        let ask = async |world: &World, number| {
            world.ledger.create_account(&draft(number, EMAIL), &order(asked(1))).await
        };
        ask(&world, 1).await.unwrap_err();
        let world = world.killed().await;
        world.time.advance_ms(passed);
        // The account is the one that was reserved for, whatever identifier comes with it.
        let made = ask(&world, 2).await.unwrap();
        assert_eq!((made.account_id, made.repeat), (id(1), false));
        assert_eq!(world.whose(EMAIL), Some(id(1)));
        assert_eq!(world.ledger.account(id(2)).unwrap(), None);
        world.assert_is_history().await;
    }
}

#[tokio::test]
async fn an_account_that_was_begun_is_finished() {
    // By the next start.
    let world = cut_short(2).await.configured().await;
    assert_eq!(world.whose(EMAIL), Some(id(1)));
    let world = world.restart().await;
    assert_eq!(world.whose(EMAIL), Some(id(1)));
    world.assert_is_history().await;
    // Or by whoever asks first, even when the reservation's time has come.
    for (number, passed) in [(1, 0), (2, 0), (1, RESERVED_FOR_MS), (2, RESERVED_FOR_MS)] {
        let world = cut_short(2).await;
        world.time.advance_ms(passed);
        let asked = world.create(number, EMAIL).await;
        match number {
            1 => assert_eq!(asked.unwrap().account_id, id(1)),
            _ => assert_eq!(rejected(asked.unwrap_err()), AccountRejection::EmailTaken),
        }
        assert_eq!(world.whose(EMAIL), Some(id(1)));
        assert_eq!(world.types(&StreamName::account(id(2))).await, [""; 0]);
        world.assert_is_history().await;
    }
}

#[tokio::test]
async fn an_email_whose_account_cannot_be_begun_is_let_go_of() {
    let world = World::new().await;
    world.inject(1, AppendFault::RefuseFull);
    let full = world.create(1, EMAIL).await.unwrap_err();
    assert!(matches!(full, LedgerError::Append(AppendError::Full)), "{full:?}");
    assert_eq!(world.email_types().await, ["EmailReserved", "EmailReleased"]);
    world.create(2, EMAIL).await.unwrap();
    assert_eq!(world.whose(EMAIL), Some(id(2)));
    world.assert_is_history().await;
}

/// Two nodes on one store, the second of which knows nothing of what the first has done
/// since it started.
async fn two_nodes() -> (World, Arc<Ledger>) {
    let world = World::new().await;
    let (other, _) = open(Arc::new(world.store.clone()), &world.vault, &world.time, None).await;
    (world, other)
}

#[tokio::test]
async fn another_writer_is_noticed_and_the_next_step_decided_anew() {
    let (world, other) = two_nodes().await;
    world.create(1, EMAIL).await.unwrap();
    let taken = other.create_account(&draft(2, EMAIL), &order(None)).await.unwrap_err();
    assert_eq!(rejected(taken), AccountRejection::EmailTaken);
    let email = world.email(EMAIL);
    assert_eq!(other.account_by_email(&email).unwrap().map(|it| it.id), Some(id(1)));
    world.change(1, ENROLL).await.unwrap();
    let twice = other.change_account(id(1), ENROLL, &order(None)).await.unwrap_err();
    assert_eq!(rejected(twice), AccountRejection::TotpAlreadyEnrolled);
    other.change_account(id(1), END, &order(None)).await.unwrap();
    world.change(1, END).await.unwrap();
    assert_eq!(world.ledger.account(id(1)).unwrap().unwrap().epoch(), 3);
    world.assert_is_history().await;
}

/// A node that stands still between its steps, for longer than its reservation lasts, comes
/// too late: what it begins is no account.
#[tokio::test]
async fn an_account_that_comes_too_late_is_nobodys() {
    let (world, other) = two_nodes().await;
    world.store.hold_appends();
    let late = world.start(1, EMAIL).await;
    assert!(world.store.release_append(), "the reservation");
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
    assert_eq!(world.store.held_appends(), 1, "the account waits");
    world.time.advance_ms(RESERVED_FOR_MS);
    let made = tokio::spawn({
        let other = Arc::clone(&other);
        async move { other.create_account(&draft(2, EMAIL), &order(None)).await }
    });
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
    // The reservation of the other one goes first.
    world.store.release_last_append();
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
    world.store.release_appends();
    made.await.unwrap().unwrap();
    assert_eq!(rejected(late.await.unwrap().unwrap_err()), AccountRejection::EmailReserved);
    assert_eq!(world.types(&StreamName::account(id(1))).await.len(), 3, "it was begun");
    assert_eq!(other.account_by_email(&world.email(EMAIL)).unwrap().unwrap().id, id(2));
    assert_eq!(world.ledger.account(id(1)).unwrap(), None);
    let world = world.restart().await.configured().await;
    assert_eq!(world.whose(EMAIL), Some(id(2)));
    assert_eq!(world.ledger.account(id(1)).unwrap(), None);
    let found = world.change(1, END).await.unwrap_err();
    assert_eq!(rejected(found), AccountRejection::AccountNotFound);
    world.assert_is_history().await;
}

const EMAILS: [&str; 3] = ["alice@example.com", "bob@example.com", "carol@example.com"];

/// What comes next in a run.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// Somebody asks for an account: which node, identifier, e-mail, idempotency key.
    Create(bool, u8, u8, u8),
    Change(bool, u8, u8),
    Inject(u8, u8),
    Kill(bool),
    Pass(u8),
}

fn runs() -> impl Strategy<Value = Vec<Event>> {
    let one = prop_oneof![
        5 => (any::<bool>(), 1_u8..6, 0_u8..3, 0_u8..4)
            .prop_map(|(node, id, email, key)| Event::Create(node, id, email, key)),
        2 => (any::<bool>(), 1_u8..6, 0_u8..4).prop_map(|(node, id, what)| Event::Change(node, id, what)),
        4 => (0_u8..3, 0_u8..5).prop_map(|(after, fault)| Event::Inject(after, fault)),
        2 => any::<bool>().prop_map(Event::Kill),
        2 => (0_u8..3).prop_map(Event::Pass),
    ];
    prop::collection::vec(one, 1..30)
}

/// What was acknowledged in a run.
#[derive(Default)]
struct Acknowledged {
    emails: BTreeMap<usize, AccountId>,
    epochs: BTreeMap<AccountId, u64>,
}

async fn run(events: Vec<Event>) -> Result<(), TestCaseError> {
    let mut world = World::new().await;
    let reopen = async |world: &World| {
        open(Arc::new(world.store.clone()), &world.vault, &world.time, None).await.0
    };
    let mut other = reopen(&world).await;
    let mut acknowledged = Acknowledged::default();
    for event in events {
        match event {
            Event::Create(node, number, email, key) => {
                let ledger = if node { &world.ledger } else { &other };
                let email = usize::from(email);
                // The same key asks for the same: one e-mail.
                let request = (key > 0).then(|| asked(key * 10 + email as u8)).flatten();
                let draft = draft(number, EMAILS[email]);
                if let Ok(made) = ledger.create_account(&draft, &order(request)).await {
                    let before = acknowledged.emails.insert(email, made.account_id);
                    prop_assert!(before.is_none_or(|it| it == made.account_id));
                }
            }
            Event::Change(node, number, what) => {
                let ledger = if node { &world.ledger } else { &other };
                let command = [RESET, END, ENROLL, AccountCommand::RemoveTotp][usize::from(what)];
                let changed = ledger.change_account(id(number), command, &order(None)).await;
                if changed.is_ok() && what < 2 {
                    *acknowledged.epochs.entry(id(number)).or_default() += 1;
                }
            }
            Event::Inject(after, fault) => {
                world.inject(after.into(), FAULTS[usize::from(fault)]);
            }
            Event::Kill(configures) => {
                world = world.killed().await;
                other = reopen(&world).await;
                if configures {
                    world = world.configured().await;
                }
            }
            Event::Pass(minutes) => world.time.advance_ms(i64::from(minutes) * 40_000),
        }
    }
    // Whatever happened: a replay gives what was acknowledged, and no e-mail two accounts.
    let world = world.killed().await;
    let (_, accounts) = world.ledger.rebuilt().await.unwrap();
    let mut holders = BTreeSet::new();
    for (place, text) in EMAILS.iter().enumerate() {
        let found = accounts.by_email(&world.email(text)).unwrap();
        if let Some(whose) = acknowledged.emails.get(&place) {
            prop_assert_eq!(found.as_ref().map(|it| it.id), Some(*whose));
        }
        if let Some(account) = found {
            prop_assert_eq!(account.email(), Some(world.email(text)));
            prop_assert!(holders.insert(account.id), "one account has two e-mails");
        }
    }
    for number in 1..6 {
        let account = accounts.account(id(number)).unwrap();
        // Whoever is an account is found by its e-mail, and nobody else is.
        prop_assert_eq!(account.is_some(), holders.contains(&id(number)));
        if let Some(account) = account {
            let ended = acknowledged.epochs.get(&id(number)).copied().unwrap_or_default();
            prop_assert!(account.epoch() > ended, "a first password, and all that was answered");
        }
    }
    prop_assert_eq!(world.ledger.accounts().differing(&accounts), vec![]);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn no_sequence_of_commands_and_crashes_gives_one_email_to_two(events in runs()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(run(events))?;
    }
}
