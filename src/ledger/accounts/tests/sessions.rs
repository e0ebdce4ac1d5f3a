//! Commands given with sessions, and how these end.

use projections::event::SessionEndReason;
use projections::id::UserId;

use super::*;
use crate::ledger::accounts::command::HeldSession;
use crate::ledger::command::{
    Caller, Command, EndSession, InviteUser, JoinUser, Order, StartSession,
};

const HOME: OrganizationId = OrganizationId::OPERATOR;
const USER: UserId = UserId::from_bytes([5; 16]);

impl World {
    /// A world in which account 1 is a user of an organization.
    async fn with_user() -> Self {
        let world = Self::new().await;
        world.create(1, EMAIL).await.unwrap();
        let email = world.email(EMAIL);
        let invite = InviteUser {
            user_id: USER,
            email,
            lifetime_ms: 60_000,
            limits: Default::default(),
            grants: Vec::new(),
            token: None,
        };
        world.at_home(Command::InviteUser(Box::new(invite))).await.unwrap();
        let join = JoinUser { user_id: USER, account_id: id(1), email, email_proven: true };
        world.at_home(Command::JoinUser(join)).await.unwrap();
        world
    }

    /// Gives a command in the organization.
    async fn at_home(&self, command: Command) -> Result<(), LedgerError> {
        execute(&self.ledger, command).await
    }

    /// Starts a session of account 1.
    async fn log_in(&self, number: u8) -> HeldSession {
        let epoch = self.ledger.account(id(1)).unwrap().unwrap().epoch();
        let session = SessionId::from_bytes([number; 16]);
        let start = StartSession {
            session_id: session,
            user_id: USER,
            account_id: id(1),
            epoch,
            methods: vec![projections::event::AuthenticationMethod::Password],
            lifetime_ms: 3_600_000,
        };
        self.at_home(Command::StartSession(Box::new(start))).await.unwrap();
        HeldSession { organization_id: HOME, id: session, epoch }
    }

    async fn change_by(
        &self,
        session: HeldSession,
        command: AccountCommand,
    ) -> Result<AccountExecuted, LedgerError> {
        self.ledger.change_account(id(1), command, &by(session)).await
    }
}

async fn execute(ledger: &Arc<Ledger>, command: Command) -> Result<(), LedgerError> {
    let order = Order {
        caller: Caller::Ledger,
        command,
        expected: None,
        request: None,
        correlation_id: "c".parse().unwrap(),
        causation_id: None,
        personal: Personal::default(),
        about: None,
    };
    ledger.execute(HOME, &order).await.map(drop)
}

fn by(session: HeldSession) -> AccountOrder {
    AccountOrder { session: Some(session), ..order(None) }
}

fn end(session: HeldSession) -> Command {
    let reason = SessionEndReason::LoggedOut;
    Command::EndSession(EndSession { session_id: session.id, reason })
}

#[tokio::test]
async fn sessions_end_everywhere_when_the_call_returns() {
    let world = World::with_user().await;
    let (mine, other) = (world.log_in(1).await, world.log_in(2).await);
    let stands = |it: HeldSession| world.ledger.session_stands(id(1), it.id, it.epoch).unwrap();
    assert!(stands(mine) && stands(other));
    world.change(1, AccountCommand::EndSessions { keeps: Some(mine) }).await.unwrap();
    assert!(stands(mine) && !stands(other));
    // What the ended one was about to do is refused, and the kept one's is done.
    let refused = world.change_by(other, ENROLL).await.unwrap_err();
    assert_eq!(rejected(refused), AccountRejection::SessionEnded);
    world.change_by(mine, ENROLL).await.unwrap();
    world.change(1, RESET).await.unwrap();
    assert!(!stands(mine) && !stands(other));
    assert!(!world.ledger.session_stands(id(9), mine.id, mine.epoch).unwrap());
}

/// Its organization ends a session that its account lets stand; so does its time.
#[tokio::test]
async fn a_session_that_ended_where_it_is_changes_no_account() {
    let world = World::with_user().await;
    let before = world.ledger.account(id(1)).unwrap().unwrap();
    let refused = async |session: HeldSession| {
        assert!(world.ledger.session_stands(id(1), session.id, session.epoch).unwrap());
        for command in [ENROLL, RESET, END] {
            let refused = world.change_by(session, command).await.unwrap_err();
            assert_eq!(rejected(refused), AccountRejection::SessionEnded);
        }
        let held = world.ledger.hold_account(id(1), Some(session)).await.map(drop);
        assert_eq!(rejected(held.unwrap_err()), AccountRejection::SessionEnded);
    };
    let session = world.log_in(1).await;
    drop(world.ledger.hold_account(id(1), Some(session)).await.unwrap());
    world.at_home(end(session)).await.unwrap();
    refused(session).await;
    refused(HeldSession { organization_id: OrganizationId::from_bytes([9; 16]), ..session }).await;
    let session = world.log_in(2).await;
    world.at_home(Command::SuspendUser(USER)).await.unwrap();
    refused(session).await;
    world.at_home(Command::RestoreUser(USER)).await.unwrap();
    drop(world.ledger.hold_account(id(1), Some(session)).await.unwrap());
    world.time.set_wall(world.now().saturating_add_millis(3_600_000));
    world.ledger.clock().confirm();
    refused(session).await;
    assert_eq!(world.ledger.account(id(1)).unwrap().unwrap(), before);
    world.assert_is_history().await;
}

/// A command that was decided while the session stood lands before its end is acknowledged, and
/// one that was not is refused: none comes after.
#[tokio::test]
async fn nothing_done_with_a_session_lands_behind_its_end() {
    let ends: [fn(HeldSession) -> Command; 3] =
        [end, |_| Command::SuspendUser(USER), |_| Command::RemoveUser(USER)];
    for ends in ends {
        let world = World::with_user().await;
        let session = world.log_in(1).await;
        world.store.hold_appends();
        let ledger = Arc::clone(&world.ledger);
        let enroll =
            tokio::spawn(async move { ledger.change_account(id(1), ENROLL, &by(session)).await });
        while world.store.held_appends() < 1 {
            tokio::task::yield_now().await;
        }
        let ledger = Arc::clone(&world.ledger);
        let ended = tokio::spawn(async move { execute(&ledger, ends(session)).await });
        while world.store.held_appends() < 2 {
            tokio::task::yield_now().await;
        }
        // The end lands first.
        assert!(world.store.release_last_append());
        let home = StreamName::organization(HOME);
        let organization = || world.ledger.tables().organization(HOME).unwrap().tables().revision();
        let before = organization();
        for _ in 0..500 {
            tokio::task::yield_now().await;
        }
        assert!(organization() > before, "{home} goes on");
        assert!(!ended.is_finished(), "it is not acknowledged before the other has landed");
        world.store.release_appends();
        enroll.await.unwrap().unwrap();
        ended.await.unwrap().unwrap();
        let refused = world.change_by(session, RESET).await.unwrap_err();
        assert_eq!(rejected(refused), AccountRejection::SessionEnded);
        world.assert_is_history().await;
    }
}
