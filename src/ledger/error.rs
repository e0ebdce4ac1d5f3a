//! Why a command had no effect.

use projections::corrupt::CorruptHistory;
use projections::envelope::Unstorable;
use projections::id::OrganizationId;

use super::accounts;
use super::clock::ClockAhead;
use super::event_store::AppendError;
use super::rejection::Rejection;
use super::vault::VaultError;
use super::vault::seal::SealError;

/// Why a command had no effect, or why nobody knows.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The rules refuse it. Retrying the same command is useless.
    #[error(transparent)]
    Rejected(#[from] Rejection),
    /// The wall clock ran away; an operator must look at it.
    #[error(transparent)]
    ClockAhead(#[from] ClockAhead),
    /// Its event is too long to be stored.
    #[error(transparent)]
    Unstorable(#[from] Unstorable),
    /// Its personal data cannot be sealed.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The organization answers nothing any more.
    #[error("organization `{organization_id}` is stopped")]
    Stopped {
        /// The organization.
        organization_id: OrganizationId,
        /// What is wrong with its history.
        source: CorruptHistory,
    },
    /// The rules refuse a command of an account. Retrying the same command is useless.
    #[error(transparent)]
    Account(#[from] accounts::AccountRejection),
    /// The account, or its e-mail, answers nothing any more.
    #[error(transparent)]
    StreamStopped(#[from] accounts::StreamStopped),
    /// The event store did not take it.
    #[error("append")]
    Append(#[from] AppendError),
    /// The vault did not give a key.
    #[error("vault")]
    Vault(#[from] VaultError),
    /// The installation has not been told that events of this type are written.
    #[error("events of type `{0}` are not activated")]
    NotActivated(&'static str),
    /// An append failed, and the store could not be read since.
    #[error("the organization's stream could not be read again in time")]
    Held,
    /// This node may not answer any more: another may be in its place.
    #[error("this node has no leave to answer")]
    NoContact,
    /// Others came first, again and again.
    #[error("too many appends failed in front of this command")]
    Contended,
    /// The ledger is closing.
    #[error("the ledger is closing")]
    Closing,
}
