//! A place for tests to stand between a transaction's last write and its commit.
//!
//! Outside of this crate's tests it is empty: nothing can be arranged.

use std::io;

/// What a test arranged for the next commits.
#[derive(Clone, Default)]
pub(super) struct CommitFault {
    #[cfg(test)]
    hook: std::sync::Arc<std::sync::Mutex<Option<Hook>>>,
}

#[cfg(test)]
type Hook = Box<dyn FnMut() -> io::Result<()> + Send>;

impl CommitFault {
    /// Called just before each commit.
    #[cfg(not(test))]
    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "tests have a hook here")]
    pub(super) fn strike(&self) -> io::Result<()> {
        Ok(())
    }

    /// Called just before each commit: does what the test arranged.
    #[cfg(test)]
    pub(super) fn strike(&self) -> io::Result<()> {
        match &mut *self.hook.lock().unwrap() {
            Some(hook) => hook(),
            None => Ok(()),
        }
    }

    /// Arranges for `hook` to be called before each commit from now on.
    #[cfg(test)]
    pub(super) fn arrange(&self, hook: impl FnMut() -> io::Result<()> + Send + 'static) {
        *self.hook.lock().unwrap() = Some(Box::new(hook));
    }
}
