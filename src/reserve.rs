//! Disk space set aside: a file that stands for nothing but the blocks it holds.
//!
//! What must be written even when the disk is full is given these blocks, a step at a
//! time; when space returns they are taken again. The file is allocated for real, not
//! sparse, so nobody else can have them meanwhile.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::{FallocateFlags, fallocate, fstatvfs};
use rustix::io::Errno;

/// What is written at once where the file system cannot allocate.
const CHUNK_BYTES: usize = 64 << 10;

/// How large the file system is that holds a file or directory, and how much of it can
/// still be written by those who are not root, in bytes.
///
/// # Errors
///
/// The system does not say.
pub fn volume(file: &File) -> io::Result<Volume> {
    let found = fstatvfs(file)?;
    Ok(Volume {
        bytes: found.f_blocks.saturating_mul(found.f_frsize),
        free: found.f_bavail.saturating_mul(found.f_frsize),
    })
}

/// See [`volume`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Volume {
    /// Its size.
    pub bytes: u64,
    /// What is free of it. Quotas are not looked at.
    pub free: u64,
}

/// Whether an error says that there is no space, or that a quota is used up.
#[must_use]
pub fn is_no_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// The space that is set aside.
pub struct Reserve {
    file: File,
    held: u64,
    wanted: u64,
    step: u64,
}

impl Reserve {
    /// Opens the file, making it (0600, empty) if it is not there. It shall hold `wanted`
    /// bytes, rounded down to whole steps, and give them up by `step` bytes. What it
    /// holds already stays held; [`Reserve::refill`] brings the rest.
    ///
    /// # Errors
    ///
    /// The file system fails.
    pub fn open(path: &Path, wanted: u64, step: u64) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).read(true).write(true).mode(0o600);
        let file = options.open(path)?;
        let step = step.max(1);
        let wanted = wanted - wanted % step;
        let found = file.metadata()?;
        let held = found.len().min(wanted);
        let mut reserve = Self { file, held: held - held % step, wanted, step };
        if found.len() != reserve.held {
            reserve.file.set_len(reserve.held)?;
        }
        // A copy of the file, by a backup say, may have its length and no blocks.
        if reserve.held > 0 && found.blocks().saturating_mul(512) < reserve.held {
            let held = std::mem::take(&mut reserve.held);
            reserve.file.set_len(0)?;
            while reserve.held < held && reserve.take_step()? {}
        }
        Ok(reserve)
    }

    /// How many bytes it holds.
    #[must_use]
    pub fn held(&self) -> u64 {
        self.held
    }

    /// How many bytes it shall hold.
    #[must_use]
    pub fn wanted(&self) -> u64 {
        self.wanted
    }

    /// Whether it holds all it shall.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.held == self.wanted
    }

    /// Gives one step up to whoever writes next; false where nothing is left.
    ///
    /// # Errors
    ///
    /// The file system fails.
    pub fn release(&mut self) -> io::Result<bool> {
        if self.held == 0 {
            return Ok(false);
        }
        let left = self.held.saturating_sub(self.step);
        self.file.set_len(left)?;
        self.held = left;
        // A journaling file system gives blocks out again only once it is on disk that
        // they are free.
        self.file.sync_all()?;
        Ok(true)
    }

    /// Takes what is missing, step by step, as long as `spare` bytes stay free; true once
    /// it is whole. What it could take it holds.
    ///
    /// # Errors
    ///
    /// The file system fails. That there is no space is no error.
    pub fn refill(&mut self, spare: u64) -> io::Result<bool> {
        let before = self.held;
        while self.held < self.wanted {
            let step = self.step.min(self.wanted - self.held);
            if volume(&self.file)?.free < step.saturating_add(spare) || !self.take_step()? {
                break;
            }
        }
        if self.held != before {
            self.file.sync_all()?;
        }
        Ok(self.is_whole())
    }

    /// Whether so many bytes more could be written now: takes them and lets them go. It
    /// knows of quotas, too.
    ///
    /// # Errors
    ///
    /// The file system fails. That there is no space is no error.
    pub fn has_room(&mut self, bytes: u64) -> io::Result<bool> {
        let there = allocate(&self.file, self.held, bytes);
        self.file.set_len(self.held)?;
        match there {
            Ok(()) => Ok(true),
            Err(error) if is_no_space(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn take_step(&mut self) -> io::Result<bool> {
        let step = self.step.min(self.wanted - self.held);
        match allocate(&self.file, self.held, step) {
            Ok(()) => {
                self.held += step;
                Ok(true)
            }
            Err(error) => {
                // Part of it may have been had.
                self.file.set_len(self.held)?;
                if is_no_space(&error) { Ok(false) } else { Err(error) }
            }
        }
    }
}

/// Makes sure that these bytes of the file are on blocks of their own. What they hold
/// stays, except where the file system cannot allocate: there they are written.
fn allocate(file: &File, from: u64, bytes: u64) -> io::Result<()> {
    if bytes == 0 {
        return Ok(());
    }
    match fallocate(file, FallocateFlags::empty(), from, bytes) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => write_noise(file, from, bytes),
        outcome => Ok(outcome?),
    }
}

/// Writes what no file system can make smaller.
fn write_noise(file: &File, from: u64, bytes: u64) -> io::Result<()> {
    let mut noise = blake3::Hasher::new().update(&from.to_le_bytes()).finalize_xof();
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut written = 0;
    while written < bytes {
        let left = usize::try_from(bytes - written).unwrap_or(usize::MAX).min(chunk.len());
        noise.fill(&mut chunk);
        let (part, _) = chunk.split_at(left);
        file.write_all_at(part, from + written)?;
        written += part.len() as u64;
    }
    file.sync_data()
}

/// Makes sure that a file that others write through memory has blocks for its first
/// `bytes`: a write into a hole would end the process where the disk is full.
///
/// # Errors
///
/// There is no space, or the file system cannot say.
pub fn back_with_blocks(file: &File, bytes: u64) -> io::Result<()> {
    match fallocate(file, FallocateFlags::empty(), 0, bytes) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
        outcome => Ok(outcome?),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const STEP: u64 = 64 << 10;

    fn blocks(path: &Path) -> u64 {
        fs::metadata(path).unwrap().blocks() * 512
    }

    #[test]
    fn it_holds_blocks_and_gives_them_up_by_steps() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("reserve");
        let mut reserve = Reserve::open(&path, 3 * STEP + 1, STEP).unwrap();
        assert_eq!((reserve.held(), reserve.wanted()), (0, 3 * STEP));
        assert!(!reserve.refill(u64::MAX).unwrap(), "it leaves what must stay free");
        assert!(reserve.refill(0).unwrap() && reserve.is_whole());
        assert!(blocks(&path) >= 3 * STEP);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(reserve.has_room(STEP).unwrap());
        assert_eq!(fs::metadata(&path).unwrap().len(), 3 * STEP);
        for left in [2, 1, 0] {
            assert!(reserve.release().unwrap());
            assert_eq!(
                (reserve.held(), fs::metadata(&path).unwrap().len()),
                (left * STEP, left * STEP)
            );
            assert!(!reserve.is_whole());
        }
        assert!(!reserve.release().unwrap());
        assert!(reserve.refill(0).unwrap());
    }

    #[test]
    fn what_is_found_is_held_and_really_there() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("reserve");
        for (found, held) in [(2 * STEP, 2 * STEP), (9 * STEP, 3 * STEP), (STEP + 7, STEP)] {
            // Sparse, as a copy may be.
            File::create(&path).unwrap().set_len(found).unwrap();
            let reserve = Reserve::open(&path, 3 * STEP, STEP).unwrap();
            assert_eq!(reserve.held(), held);
            assert_eq!(fs::metadata(&path).unwrap().len(), held);
            assert!(blocks(&path) >= held);
        }
    }

    #[test]
    fn a_file_system_that_cannot_allocate_is_written_to() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("reserve");
        let file = File::create(&path).unwrap();
        write_noise(&file, 0, STEP + 7).unwrap();
        write_noise(&file, STEP + 7, 10).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), STEP + 17);
        assert!(fs::read(&path).unwrap().iter().filter(|it| **it == 0).count() < 1_000);
    }
}
