//! The vault port: what the ledger asks of the place that keeps keys.
//!
//! Events carry personal data only sealed ([`seal`]), under a key of its subject. The
//! vault keeps those keys outside the event log, so that destroying one erases the data
//! everywhere the sealed bytes went, and history stays as it was. What stands for
//! credentials in the log is a digest under a [`peppers::Peppers`].
//!
//! Adapters are in `crate::vault`; one suite (`vault::conformance`) holds them to this
//! contract.

pub mod peppers;
pub mod rows;
pub mod seal;

use std::pin::Pin;
use std::sync::Arc;

use projections::sealed::Subject;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::urgency::Urgency;
use rows::{RowName, RowSecret, RowVersion, RowWritten, SecretRow};

/// What a [`Vault`] call gives back.
pub type VaultFuture<T> = Pin<Box<dyn Future<Output = Result<T, VaultError>> + Send + 'static>>;

/// The key under which data about one subject is sealed. It cannot be printed, and is
/// overwritten when its last holder drops it.
#[derive(Clone)]
pub struct SubjectKey(Arc<Zeroizing<[u8; 32]>>);

impl SubjectKey {
    /// Takes these bytes as a key.
    #[must_use]
    pub fn new(bytes: Zeroizing<[u8; 32]>) -> Self {
        Self(Arc::new(bytes))
    }

    /// The bytes, for deriving other keys and for wrapping.
    #[must_use]
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl PartialEq for SubjectKey {
    fn eq(&self, other: &Self) -> bool {
        self.expose().ct_eq(other.expose()).into()
    }
}

impl Eq for SubjectKey {}

/// What the vault has for a subject.
#[derive(Clone, PartialEq, Eq)]
pub enum SubjectKeyState {
    /// Its key.
    Held(SubjectKey),
    /// Nothing any more: the key was destroyed, and no other will be made.
    Erased,
    /// Nothing yet.
    Absent,
}

/// Why the vault did not do as it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VaultError {
    /// The subject was erased: nothing about it may be sealed again.
    #[error("the subject `{0}` has been erased")]
    Erased(Subject),
    /// What the vault keeps for this name is not what was put there.
    #[error("what the vault keeps for `{0}` is damaged; restore the vault from a backup")]
    Damaged(String),
    /// No space is left for keys of this urgency. Nothing was written; keys that are
    /// there are still given.
    #[error("no space left for keys")]
    Full,
    /// The vault cannot be asked now.
    #[error("the vault is unavailable: {0}")]
    Unavailable(String),
}

/// Keeps the keys that personal data is sealed under, and keys that outlive a process.
pub trait Vault: Send + Sync + 'static {
    /// The subject's key, if it is at hand. Must not wait, for I/O or for a lock that is
    /// held during I/O. Nothing may be concluded from its absence.
    ///
    /// Must not give a key whose erasure has returned.
    fn cached_subject_key(&self, subject: &Subject) -> Option<SubjectKey>;

    /// The subject's key, made if there is none. Must be ready only when the key is on
    /// disk: an event may be sealed under it at once. Concurrent callers must get the
    /// same key, and so must all later ones. Fails with [`VaultError::Erased`] for a
    /// subject that was erased.
    ///
    /// Where space runs out it must fail with [`VaultError::Full`], keep space back that
    /// [`Urgency::Reserved`] alone may use, and make keys again by itself once there is space.
    fn obtain_subject_key(&self, subject: &Subject, urgency: Urgency) -> VaultFuture<SubjectKey>;

    /// The subject's key if there is one, and otherwise whether there was one.
    fn existing_subject_key(&self, subject: &Subject) -> VaultFuture<SubjectKeyState>;

    /// The same of many subjects, in their order, looked up at once. Whoever erases one
    /// meanwhile may come before or after it.
    fn existing_subject_keys(&self, subjects: &[Subject]) -> VaultFuture<Vec<SubjectKeyState>>;

    /// Destroys the subject's key for good, and lets none be made again; a subject that
    /// never had one too. Must be ready only when that is on disk. Gives whether there
    /// was a key to destroy.
    ///
    /// Who holds the key already can still use it: let go of it first.
    fn erase_subject(&self, subject: &Subject) -> VaultFuture<bool>;

    /// The installation's key of this name, made if there is none; the same for ever
    /// after. Must be ready only when it is on disk. Names are few and fixed, such as
    /// `lookup-key`.
    fn obtain_named_key(&self, name: &'static str) -> VaultFuture<Zeroizing<[u8; 32]>>;

    /// The secret row of this name as it is now, if there is one.
    fn read_row(&self, name: &RowName) -> VaultFuture<Option<SecretRow>>;

    /// Makes, replaces or takes away (`secret` none) the row of this name, if its version is
    /// the expected one (none: if there is no such row). Must be ready only when that is on
    /// disk. Of callers who expect the same version one alone may win. What was there before
    /// must be overwritten, and no version may ever come back.
    ///
    /// Where space runs out it must fail with [`VaultError::Full`] and have written nothing;
    /// what is set aside is for [`Urgency::Reserved`], and for taking rows away.
    fn write_row(
        &self,
        name: &RowName,
        expected: Option<RowVersion>,
        secret: Option<RowSecret>,
        urgency: Urgency,
    ) -> VaultFuture<RowWritten>;

    /// The names of rows in their order, those behind `after` only, at most
    /// [`rows::ROW_NAMES_MAX`] of them.
    fn row_names(&self, after: Option<&RowName>) -> VaultFuture<Vec<RowName>>;
}
