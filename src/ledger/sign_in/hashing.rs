//! Hashing passwords: Argon2id (RFC 9106), on threads of its own.
//!
//! A hash is made to cost memory and time, so both are bounded: as many hashes at once as
//! there are threads ([`HashingTerms::threads`] times [`HashingCost::memory_kib`] of memory),
//! as many waiting as the queue holds, and [`HashingError::Busy`] beyond. Who goes away
//! while waiting costs nothing. On Linux the threads give way to all others, so that a storm of
//! logins does not hold up those who need no password.

use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use argon2::{Algorithm, Argon2, Params, Version};
use tokio::sync::oneshot;
use zeroize::Zeroizing;

use super::password::Password;
use crate::ledger::secret::random_key;

/// Bytes of a password's salt.
const SALT_BYTES: usize = 16;
/// Bytes of a password's hash.
const HASH_BYTES: usize = 32;
/// By how much the threads are nicer than the process: beside another busy thread they are
/// given a tenth of a core, and all of it where nobody else wants it.
#[cfg(target_os = "linux")]
const NICER: i32 = 10;

/// What one hash costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashingCost {
    /// Memory, in KiB.
    pub memory_kib: u32,
    /// Passes over it.
    pub iterations: u32,
    /// Lanes. They are gone through one after the other: a hash takes one thread.
    pub parallelism: u32,
}

impl HashingCost {
    /// Least and most memory, in KiB.
    pub const MEMORY_KIB: [u32; 2] = [8_192, 1_048_576];
    /// Fewest and most passes.
    pub const ITERATIONS: [u32; 2] = [1, 64];
    /// Fewest and most lanes.
    pub const PARALLELISM: [u32; 2] = [1, 16];

    /// Whether it is within the bounds.
    #[must_use]
    pub fn is_allowed(self) -> bool {
        let within = |value, [least, most]: [u32; 2]| (least..=most).contains(&value);
        within(self.memory_kib, Self::MEMORY_KIB)
            && within(self.iterations, Self::ITERATIONS)
            && within(self.parallelism, Self::PARALLELISM)
    }

    fn params(self) -> Option<Params> {
        Params::new(self.memory_kib, self.iterations, self.parallelism, Some(HASH_BYTES)).ok()
    }

    /// What this hash cost.
    fn of(hash: &PasswordHash) -> Option<Self> {
        let params = Params::try_from(hash).ok()?;
        Some(Self {
            memory_kib: params.m_cost(),
            iterations: params.t_cost(),
            parallelism: params.p_cost(),
        })
    }
}

impl Default for HashingCost {
    /// OWASP's least: 19 MiB, two passes, one lane.
    fn default() -> Self {
        Self { memory_kib: 19_456, iterations: 2, parallelism: 1 }
    }
}

/// What hashing may take of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashingTerms {
    /// What one hash costs.
    pub cost: HashingCost,
    /// How many are made at once.
    pub threads: usize,
    /// How many may wait.
    pub queue_max: usize,
}

impl HashingTerms {
    /// Most threads.
    pub const THREADS_MAX: usize = 64;
    /// Most that may be made to wait.
    pub const QUEUE_MAX: usize = 10_000;
}

impl Default for HashingTerms {
    fn default() -> Self {
        Self { cost: HashingCost::default(), threads: 1, queue_max: 64 }
    }
}

/// Why nothing was hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HashingError {
    /// As many wait as may.
    #[error("too many passwords are being checked; try again later")]
    Busy,
    /// What is kept of the password is no hash of this program's.
    #[error("what is kept of a password is damaged; restore the vault from a backup")]
    Damaged,
    /// The cost, the system's entropy or a thread's end stands in the way.
    #[error("passwords cannot be hashed")]
    Failed,
}

/// What stands for a password at rest: a PHC string. It cannot be printed, and is
/// overwritten when dropped.
pub struct HashedPassword(Zeroizing<String>);

impl HashedPassword {
    /// Takes what was kept.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        Some(Self(Zeroizing::new(text.to_owned())))
    }

    /// The text, for keeping.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

/// Whether a password is the one that a hash stands for.
pub enum Compared {
    /// It is not, or there is no hash.
    Different,
    /// It is.
    Same {
        /// The same password hashed at today's cost, where the hash is not of today's.
        renewed: Option<HashedPassword>,
    },
}

type Reply<T> = oneshot::Sender<Result<T, HashingError>>;

enum Job {
    Hash(Password, Reply<HashedPassword>),
    Compare(Password, Option<HashedPassword>, Reply<Compared>),
}

impl Job {
    fn is_abandoned(&self) -> bool {
        match self {
            Self::Hash(_, reply) => reply.is_closed(),
            Self::Compare(_, _, reply) => reply.is_closed(),
        }
    }
}

/// The threads that hash. They end when this is dropped.
pub struct Hashers {
    jobs: SyncSender<Job>,
}

impl Hashers {
    /// Starts the threads.
    ///
    /// # Errors
    ///
    /// The system gives no thread.
    pub fn start(terms: HashingTerms) -> std::io::Result<Self> {
        let (jobs, waiting) = sync_channel(terms.queue_max.clamp(1, HashingTerms::QUEUE_MAX));
        let waiting = Arc::new(Mutex::new(waiting));
        for _ in 0..terms.threads.clamp(1, HashingTerms::THREADS_MAX) {
            let waiting = Arc::clone(&waiting);
            std::thread::Builder::new()
                .name("hashing".to_owned())
                .spawn(move || run(&waiting, terms.cost))?;
        }
        Ok(Self { jobs })
    }

    /// Hashes a password, with a salt of its own.
    ///
    /// # Errors
    ///
    /// [`HashingError::Busy`] at once, if as many wait as may.
    pub async fn hash(&self, password: Password) -> Result<HashedPassword, HashingError> {
        self.ask(|reply| Job::Hash(password, reply)).await
    }

    /// Compares a password with a hash; where there is none, hashes it all the same, so that
    /// time does not tell whether there is one.
    ///
    /// # Errors
    ///
    /// [`HashingError::Busy`] at once, if as many wait as may; [`HashingError::Damaged`] if
    /// the hash is none.
    pub async fn compare(
        &self,
        password: Password,
        with: Option<HashedPassword>,
    ) -> Result<Compared, HashingError> {
        self.ask(|reply| Job::Compare(password, with, reply)).await
    }

    async fn ask<T>(&self, job: impl FnOnce(Reply<T>) -> Job) -> Result<T, HashingError> {
        let (reply, answer) = oneshot::channel();
        self.jobs.try_send(job(reply)).map_err(|error| match error {
            TrySendError::Full(_) => HashingError::Busy,
            TrySendError::Disconnected(_) => HashingError::Failed,
        })?;
        answer.await.map_err(|_| HashingError::Failed)?
    }
}

/// Lets the system prefer all other threads to this one. Elsewhere than on Linux that would
/// be said of the whole process, and is not.
fn give_way() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::nice(NICER) {
        tracing::warn!(%error, "hashing passwords gives way to nothing else");
    }
}

/// Works until no one can ask any more.
fn run(waiting: &Mutex<Receiver<Job>>, cost: HashingCost) {
    give_way();
    while let Some(job) = next(waiting) {
        match job {
            Job::Hash(password, reply) => drop(reply.send(hash(&password, cost))),
            Job::Compare(password, with, reply) => {
                drop(reply.send(compare(&password, with.as_ref(), cost)));
            }
        }
    }
}

/// The next job that somebody still waits for; none once no one can ask any more.
fn next(waiting: &Mutex<Receiver<Job>>) -> Option<Job> {
    loop {
        let job = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv().ok()?;
        if !job.is_abandoned() {
            return Some(job);
        }
    }
}

fn hash(password: &Password, cost: HashingCost) -> Result<HashedPassword, HashingError> {
    let random = random_key().map_err(|_| HashingError::Failed)?;
    let salt = random.first_chunk::<SALT_BYTES>().ok_or(HashingError::Failed)?;
    let params = cost.params().ok_or(HashingError::Failed)?;
    let hash = Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_with_salt(password.expose(), salt)
        .map_err(|_| HashingError::Failed)?;
    Ok(HashedPassword(Zeroizing::new(hash.to_string())))
}

fn compare(
    password: &Password,
    with: Option<&HashedPassword>,
    cost: HashingCost,
) -> Result<Compared, HashingError> {
    let Some(with) = with else {
        return hash(password, cost).map(|_| Compared::Different);
    };
    let kept = PasswordHash::new(with.expose()).map_err(|_| HashingError::Damaged)?;
    let is_ours = kept.algorithm.as_str() == Algorithm::Argon2id.as_str()
        && kept.version == Some(Version::V0x13.into())
        && kept.hash.as_ref().is_some_and(|hash| hash.len() == HASH_BYTES);
    let kept_cost = HashingCost::of(&kept).filter(|cost| is_ours && cost.is_allowed());
    let kept_cost = kept_cost.ok_or(HashingError::Damaged)?;
    if Argon2::default().verify_password(password.expose(), &kept).is_err() {
        return Ok(Compared::Different);
    }
    let renewed = (kept_cost != cost).then(|| hash(password, cost)).transpose()?;
    Ok(Compared::Same { renewed })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHEAP: HashingCost = HashingCost { memory_kib: 8_192, iterations: 1, parallelism: 1 };

    fn password(text: &str) -> Password {
        Password::presented(text).unwrap()
    }

    fn hashers(cost: HashingCost) -> Hashers {
        Hashers::start(HashingTerms { cost, threads: 2, queue_max: 8 }).unwrap()
    }

    /// What came of a comparison: whether it was the same, and the new hash.
    fn told(compared: Result<Compared, HashingError>) -> Result<Option<bool>, HashingError> {
        compared.map(|compared| match compared {
            Compared::Different => None,
            Compared::Same { renewed } => Some(renewed.is_some()),
        })
    }

    /// RFC 9106 has no vector without a secret; this one is the reference program's:
    /// `echo -n password | argon2 somesalt -id -t 2 -m 16 -p 1`.
    #[test]
    fn the_hash_is_argon2id() {
        let kept = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";
        let kept = HashedPassword(Zeroizing::new(kept.to_owned()));
        assert_eq!(told(compare(&password("password"), Some(&kept), CHEAP)), Ok(Some(true)));
        assert_eq!(told(compare(&password("passwore"), Some(&kept), CHEAP)), Ok(None));
    }

    #[tokio::test]
    async fn a_password_is_known_again_and_no_other() {
        let hashers = hashers(CHEAP);
        let one = hashers.hash(password("correct horse battery")).await.unwrap();
        let two = hashers.hash(password("correct horse battery")).await.unwrap();
        assert_ne!(one.expose(), two.expose(), "each has a salt of its own");
        assert!(one.expose().starts_with("$argon2id$v=19$m=8192,t=1,p=1$"));
        for (text, same) in
            [("correct horse battery", true), ("correct horse batterY", false), ("", false)]
        {
            let kept = HashedPassword::from_bytes(one.expose().as_bytes());
            let compared = told(hashers.compare(password(text), kept).await);
            assert_eq!(compared, Ok(same.then_some(false)), "{text}");
        }
        assert_eq!(told(hashers.compare(password("x"), None).await), Ok(None));
    }

    #[tokio::test]
    async fn a_hash_of_another_cost_is_renewed_once_the_password_is_known() {
        let before = hashers(CHEAP).hash(password("correct horse battery")).await.unwrap();
        let today = HashingCost { iterations: 2, ..CHEAP };
        let hashers = hashers(today);
        let kept = || HashedPassword::from_bytes(before.expose().as_bytes());
        assert_eq!(told(hashers.compare(password("wrong"), kept()).await), Ok(None));
        let compared = hashers.compare(password("correct horse battery"), kept()).await;
        let Ok(Compared::Same { renewed: Some(renewed) }) = compared else {
            panic!("must be renewed")
        };
        assert!(renewed.expose().starts_with("$argon2id$v=19$m=8192,t=2,p=1$"));
        let again = hashers.compare(password("correct horse battery"), Some(renewed)).await;
        assert_eq!(told(again), Ok(Some(false)));
    }

    /// Another algorithm, another version, a cost beyond all bounds, no hash at all: nothing
    /// that this program wrote, and nothing to spend memory on.
    #[tokio::test]
    async fn what_is_no_hash_of_ours_is_damage() {
        let hashers = hashers(CHEAP);
        let good = hashers.hash(password("correct horse battery")).await.unwrap();
        let good = good.expose();
        let cut = &good[..good.len() - 3];
        for bad in [
            String::new(),
            "x".to_owned(),
            cut.to_owned(),
            good.replace("argon2id", "argon2i"),
            good.replace("v=19", "v=16"),
            good.replace("$v=19", ""),
            good.replace("m=8192", "m=4294967295"),
            good.replace("m=8192", "m=64"),
            good.replace("t=1", "t=4000000000"),
        ] {
            let kept = HashedPassword::from_bytes(bad.as_bytes());
            let compared = told(hashers.compare(password("correct horse battery"), kept).await);
            assert_eq!(compared, Err(HashingError::Damaged), "{bad}");
        }
    }

    /// As many wait as may: who comes then is told so at once. Those who went away are
    /// passed over.
    #[tokio::test]
    async fn too_many_are_told_so_and_who_goes_away_costs_nothing() {
        let (jobs, waiting) = sync_channel(2);
        let hashers = Hashers { jobs };
        let ask = |text| Box::pin(hashers.hash(password(text)));
        // Polled once, a request is in the queue; no thread takes it yet.
        let mut gone = ask("gone");
        let mut stays = ask("stays");
        for asking in [&mut gone, &mut stays] {
            assert!(is_pending(asking));
        }
        assert_eq!(ask("third").await.err(), Some(HashingError::Busy));
        drop(gone);
        let waiting = Mutex::new(waiting);
        let Some(Job::Hash(first, reply)) = next(&waiting) else { panic!("one still waits") };
        assert_eq!(first.expose(), b"stays");
        let worker = std::thread::spawn(move || run(&waiting, CHEAP));
        drop(reply.send(hash(&first, CHEAP)));
        assert!(stays.await.is_ok());
        assert!(hashers.hash(password("later")).await.is_ok());
        drop(hashers);
        worker.join().unwrap();
    }

    /// The thread that hashes gives way, and no other does.
    #[cfg(target_os = "linux")]
    #[test]
    fn hashing_gives_way() {
        let priority = || rustix::process::getpriority_process(None).unwrap();
        let before = priority();
        let (jobs, waiting) = sync_channel(1);
        // Nobody can ask, so it ends at once.
        drop(jobs);
        let worker = std::thread::spawn(move || {
            run(&Mutex::new(waiting), CHEAP);
            priority()
        });
        assert_eq!(worker.join().unwrap(), (before + NICER).min(19));
        assert_eq!(priority(), before);
    }

    /// Polls once; whether it waits.
    fn is_pending<F: Future + Unpin>(future: &mut F) -> bool {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        std::pin::Pin::new(future).poll(&mut context).is_pending()
    }

    #[test]
    fn costs_are_bounded() {
        assert!(HashingCost::default().is_allowed() && CHEAP.is_allowed());
        let bounds = [
            HashingCost { memory_kib: 8_191, ..CHEAP },
            HashingCost { memory_kib: 1_048_577, ..CHEAP },
            HashingCost { iterations: 0, ..CHEAP },
            HashingCost { iterations: 65, ..CHEAP },
            HashingCost { parallelism: 0, ..CHEAP },
            HashingCost { parallelism: 17, ..CHEAP },
        ];
        for cost in bounds {
            assert!(!cost.is_allowed(), "{cost:?}");
        }
        for [memory_kib, iterations, parallelism] in [
            [8_192, 1, 1],
            [HashingCost::MEMORY_KIB[1], HashingCost::ITERATIONS[1], HashingCost::PARALLELISM[1]],
        ] {
            let cost = HashingCost { memory_kib, iterations, parallelism };
            assert!(cost.is_allowed() && cost.params().is_some());
        }
    }
}
