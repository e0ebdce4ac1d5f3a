//! Whether there is space, and what is set aside for the worst hour.
//!
//! Two things are kept back from appends that are not urgent: the *reserve*, a file of
//! real blocks, and the *headroom*, as much free space as the write-ahead log may still
//! have to move into the database. Whoever fills the disk from outside can take the
//! headroom; the reserve then pays for both.
//!
//! Once there is too little the store is *short*: it stays so until the reserve is whole
//! and the headroom is there again, which the checkpointer looks for.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rusqlite::ErrorCode;

use crate::reserve::{self, Reserve, Volume};

/// The reserve's file.
pub(super) const RESERVE: &str = "reserve";
const MIB: u64 = 1 << 20;
/// How much of the reserve is given up, or taken again, at once.
pub(super) const STEP_BYTES: u64 = 256 << 10;
/// What must be free beside a step that is taken again, so that a step just given up is
/// left to whom it was given up for.
const SPARE_BYTES: u64 = 2 * STEP_BYTES;
/// What opening may need: the index of the write-ahead log, and a few pages.
const OPENING_BYTES: u64 = 2 << 20;
/// Most bytes that one write of the engine may ask for, and more.
const WRITE_BYTES: u64 = 256 << 10;
/// The reserve's share of a small volume, and the log's.
const RESERVE_PART: u64 = 4;
const LOG_PART: u64 = 8;
/// What an append may take beside its own bytes: pages half filled, and the index.
pub(super) const APPEND_BYTES: u64 = 16 << 10;

/// How much space is kept for what, on a volume of that size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sizes {
    /// Of the reserve.
    pub(super) reserve: u64,
    /// Of the write-ahead log, and of the headroom.
    pub(super) log: u64,
}

impl Sizes {
    pub(super) fn on(volume: Volume, reserve_max: u64, log_max: u64) -> Self {
        let mib = |bytes: u64| (bytes - bytes % MIB).max(MIB);
        Self {
            reserve: mib(reserve_max.min(volume.bytes / RESERVE_PART)),
            log: mib(log_max.min(volume.bytes / LOG_PART)),
        }
    }

    /// What a new store needs to be free.
    pub(super) fn needed(self) -> u64 {
        self.reserve + 2 * self.log + OPENING_BYTES
    }
}

/// The space of one data directory.
pub(super) struct Space {
    directory: File,
    reserve: Mutex<Reserve>,
    headroom: u64,
    short: AtomicBool,
    #[cfg(test)]
    pub(super) pretend_full: AtomicBool,
}

impl Space {
    /// Takes up the reserve as far as there is space. Where there is next to none, some of
    /// it is given up so that the database can be opened: see [`Space::opened`].
    pub(super) fn open(directory: &Path, sizes: Sizes) -> io::Result<Self> {
        let mut reserve = Reserve::open(&directory.join(RESERVE), sizes.reserve, STEP_BYTES)?;
        let directory = File::open(directory)?;
        reserve.refill(SPARE_BYTES)?;
        while !reserve.has_room(OPENING_BYTES)? && reserve.release()? {}
        let short = AtomicBool::new(!reserve.is_whole());
        let space = Self {
            directory,
            reserve: Mutex::new(reserve),
            headroom: sizes.log,
            short,
            #[cfg(test)]
            pretend_full: AtomicBool::default(),
        };
        if space.is_short() {
            space.warn();
        }
        Ok(space)
    }

    /// Takes back what opening did not need, before others do: it is not to get less with
    /// every start on a full disk.
    pub(super) fn opened(&self) {
        if let Err(error) = self.reserve().refill(0) {
            tracing::warn!(%error, "the reserve could not be made whole");
        }
    }

    /// Whether appends that are not urgent are refused.
    pub(super) fn is_short(&self) -> bool {
        self.short.load(Ordering::Acquire)
    }

    /// How many bytes may be written by appends that are not urgent; none where the store
    /// is short.
    pub(super) fn room(&self) -> u64 {
        #[cfg(test)]
        if self.pretend_full.load(Ordering::SeqCst) {
            return 0;
        }
        if self.is_short() {
            return 0;
        }
        match reserve::volume(&self.directory) {
            Ok(volume) => volume.free.saturating_sub(self.headroom),
            // Whoever writes will see.
            Err(_) => u64::MAX,
        }
    }

    /// Refuses appends that are not urgent from now on.
    pub(super) fn tighten(&self) {
        if !self.short.swap(true, Ordering::AcqRel) {
            self.warn();
        }
    }

    /// Leaves it to others to refuse appends.
    pub(super) fn forget(&self) {
        self.short.store(false, Ordering::Release);
    }

    /// Whether so many bytes can be taken without leaving too little to open with.
    pub(super) fn spares(&self, bytes: u64) -> bool {
        let free = reserve::volume(&self.directory).map_or(0, |volume| volume.free);
        free >= bytes.saturating_add(OPENING_BYTES)
    }

    fn warn(&self) {
        let free = reserve::volume(&self.directory).map_or(0, |volume| volume.free);
        tracing::error!(
            free_bytes = free,
            reserve_bytes = self.reserve().held(),
            "the disk of the event store is full: writes are refused, but those that end access; make space"
        );
    }

    /// Gives up a step of the reserve for an urgent append; false where nothing is left.
    pub(super) fn release(&self) -> bool {
        let mut reserve = self.reserve();
        let released = reserve.release();
        let left = reserve.held();
        drop(reserve);
        match released {
            Ok(released) => {
                if released {
                    tracing::warn!(
                        reserve_bytes = left,
                        "the reserve was used for an urgent write"
                    );
                }
                released
            }
            Err(error) => {
                tracing::error!(%error, "the reserve could not be used");
                false
            }
        }
    }

    /// Looks whether space is back: takes the reserve up again, and once it is whole and
    /// there is headroom lets appends through. True if it does.
    pub(super) fn recover(&self) -> bool {
        #[cfg(test)]
        if self.pretend_full.load(Ordering::SeqCst) {
            return false;
        }
        let back = self.find_room().unwrap_or_else(|error| {
            tracing::warn!(%error, "the reserve could not be made whole");
            false
        });
        if back {
            self.short.store(false, Ordering::Release);
            tracing::info!("there is space again: writes are taken");
        }
        back
    }

    fn find_room(&self) -> io::Result<bool> {
        let mut reserve = self.reserve();
        let enough = self.headroom + STEP_BYTES;
        // The last look is at quotas, too.
        Ok(reserve.refill(SPARE_BYTES)?
            && reserve::volume(&self.directory)?.free >= enough
            && reserve.has_room(enough)?)
    }

    /// Whether an error of the engine says that there is no space. It names one kind of
    /// that itself; a quota that is used up it takes for an error like any other.
    pub(super) fn is_no_space(&self, error: &rusqlite::Error) -> bool {
        match error.sqlite_error() {
            Some(code) if code.code == ErrorCode::DiskFull => true,
            Some(code) if code.extended_code == rusqlite::ffi::SQLITE_IOERR_WRITE => {
                self.reserve().has_room(WRITE_BYTES).is_ok_and(|room| !room)
            }
            Some(_) | None => false,
        }
    }

    fn reserve(&self) -> MutexGuard<'_, Reserve> {
        self.reserve.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_volume_keeps_less_back() {
        let on = |bytes| Sizes::on(Volume { bytes, free: bytes }, 64 << 20, 40 << 20);
        assert_eq!(on(1 << 40), Sizes { reserve: 64 << 20, log: 40 << 20 });
        assert_eq!(on(96 << 20), Sizes { reserve: 24 << 20, log: 12 << 20 });
        assert_eq!(on(0), Sizes { reserve: 1 << 20, log: 1 << 20 });
        assert!(on(96 << 20).needed() < 60 << 20);
    }
}
