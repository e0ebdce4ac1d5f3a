//! Secret files: one secret each, readable by their owner alone.
//!
//! They are made once and never overwritten. A file appears whole or not at all, and
//! [`write()`] returns when it would survive a power cut.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use zeroize::Zeroizing;

use crate::ledger::secret::{NoEntropy, random_key};
use crate::ledger::vault::peppers::PepperId;
use crate::reserve;

/// The file that holds the vault's root key.
pub const ROOT_KEY_FILE: &str = "vault-root.key";
/// Most bytes in a secret file.
pub const SECRET_FILE_BYTES_MAX: u64 = 4_096;

const KEY_BYTES: usize = 32;

/// The file that holds this pepper.
#[must_use]
pub fn pepper_file(id: PepperId) -> String {
    format!("pepper-{id}.key")
}

/// The peppers that this directory holds files of, in the order of their making.
///
/// # Errors
///
/// The file system fails.
pub fn peppers_in(directory: &Path) -> Result<Vec<PepperId>, SecretFileError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).map_err(io_error("read", directory))? {
        let name = entry.map_err(io_error("read", directory))?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("pepper-"));
        let number = number.and_then(|it| it.strip_suffix(".key")).and_then(|it| it.parse().ok());
        let pepper = number.map(PepperId).filter(|it| name.to_str() == Some(&pepper_file(*it)));
        found.extend(pepper);
    }
    found.sort_unstable();
    Ok(found)
}

/// What is wrong with a secret file, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum SecretFileError {
    /// It is not there.
    #[error("`{path}` is missing; restore it from a backup: it cannot be made anew")]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// It is there already, and is not overwritten.
    #[error("`{path}` exists already; move it away if another is wanted")]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// Others than its owner can read or write it.
    #[error(
        "`{path}` is open to others than its owner (mode {mode:03o}); run `chmod {remedy} {path}`"
    )]
    Open {
        /// The file or directory.
        path: PathBuf,
        /// Its mode.
        mode: u32,
        /// The mode it should have.
        remedy: &'static str,
    },
    /// It is no file, or no directory where one is needed.
    #[error("`{path}` is not a {expected}")]
    Kind {
        /// The path.
        path: PathBuf,
        /// What it should be.
        expected: &'static str,
    },
    /// It does not hold a key.
    #[error("`{path}` must hold a key of 32 bytes as 64 hexadecimal digits, or in base64")]
    Content {
        /// The file.
        path: PathBuf,
    },
    /// No key could be made for it.
    #[error("cannot make a key for `{path}`")]
    NoEntropy {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: NoEntropy,
    },
    /// The file system failed.
    #[error("cannot {doing} `{path}`")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl SecretFileError {
    /// Whether the file system failed for want of space.
    #[must_use]
    pub fn is_no_space(&self) -> bool {
        match self {
            Self::Io { source, .. } => reserve::is_no_space(source),
            Self::Missing { .. }
            | Self::Exists { .. }
            | Self::Open { .. }
            | Self::Kind { .. }
            | Self::Content { .. }
            | Self::NoEntropy { .. } => false,
        }
    }
}

fn io_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SecretFileError {
    let path = path.to_owned();
    move |source| SecretFileError::Io { doing, path, source }
}

/// Makes the directory with mode 0700 if it is not there. One that is there must let
/// nobody but its owner write.
///
/// # Errors
///
/// It is no directory, others can write into it, or the file system fails.
pub fn make_directory(path: &Path) -> Result<(), SecretFileError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io_error("make", path))?;
    let metadata = fs::metadata(path).map_err(io_error("look at", path))?;
    if !metadata.is_dir() {
        return Err(SecretFileError::Kind { path: path.to_owned(), expected: "directory" });
    }
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o022 != 0 {
        return Err(SecretFileError::Open { path: path.to_owned(), mode, remedy: "700" });
    }
    Ok(())
}

/// Writes a secret into a new file of mode 0600. When this returns the file is on disk,
/// whole; on an error there is none of that name, unless there was one before.
///
/// # Errors
///
/// There is such a file already, or the file system fails.
pub fn write(path: &Path, secret: &str) -> Result<(), SecretFileError> {
    put(path, secret, publish)
}

/// Writes a secret into a file of mode 0600, in place of the one that may be there. When
/// this returns the file is on disk, whole; at every moment there is the old or the new.
///
/// # Errors
///
/// The file system fails.
pub fn replace(path: &Path, secret: &str) -> Result<(), SecretFileError> {
    put(path, secret, |draft, path| fs::rename(draft, path).map_err(io_error("make", path)))
}

fn put(
    path: &Path,
    secret: &str,
    publish: impl FnOnce(&Path, &Path) -> Result<(), SecretFileError>,
) -> Result<(), SecretFileError> {
    let directory = parent(path);
    let Some(name) = path.file_name() else {
        return Err(SecretFileError::Kind { path: path.to_owned(), expected: "file name" });
    };
    let draft = directory.join(format!(".{}.new", name.to_string_lossy()));
    // What an interrupted start may have left.
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(io_error("remove", &draft)(error));
        }
        Ok(()) | Err(_) => {}
    }
    let written = write_draft(&draft, secret).and_then(|()| publish(&draft, path));
    let removed = fs::remove_file(&draft);
    written?;
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(io_error("remove", &draft)(error));
        }
        Ok(()) | Err(_) => {}
    }
    let sync = |directory: &Path| File::open(directory)?.sync_all();
    sync(directory).map_err(io_error("sync", directory))
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn write_draft(draft: &Path, secret: &str) -> Result<(), SecretFileError> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    let mut file = options.open(draft).map_err(io_error("make", draft))?;
    file.write_all(secret.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(io_error("write", draft))
}

/// Gives the draft its name. A link, unlike a rename, never replaces what is there.
fn publish(draft: &Path, path: &Path) -> Result<(), SecretFileError> {
    fs::hard_link(draft, path).map_err(|error| {
        if error.kind() == io::ErrorKind::AlreadyExists {
            SecretFileError::Exists { path: path.to_owned() }
        } else {
            io_error("make", path)(error)
        }
    })
}

/// Reads a secret file, without the white space around its text.
///
/// # Errors
///
/// It is missing, open to others, too long, no UTF-8, or the file system fails.
pub fn read(path: &Path) -> Result<Zeroizing<String>, SecretFileError> {
    let file = File::open(path).map_err(|error| {
        if error.kind() == io::ErrorKind::NotFound {
            SecretFileError::Missing { path: path.to_owned() }
        } else {
            io_error("open", path)(error)
        }
    })?;
    // Of the file that was opened, not of whatever has the name by now.
    let metadata = file.metadata().map_err(io_error("look at", path))?;
    refuse_open_to_others(path, &metadata)?;
    if metadata.len() > SECRET_FILE_BYTES_MAX {
        return Err(SecretFileError::Content { path: path.to_owned() });
    }
    // Room for everything from the start: a text that grows leaves copies behind.
    let room = usize::try_from(SECRET_FILE_BYTES_MAX).unwrap_or_default();
    let mut text = Zeroizing::new(String::with_capacity(room));
    let read = file.take(SECRET_FILE_BYTES_MAX).read_to_string(&mut text);
    match read {
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            Err(SecretFileError::Content { path: path.to_owned() })
        }
        Err(error) => Err(io_error("read", path)(error)),
        Ok(_) => Ok(Zeroizing::new(text.trim().to_owned())),
    }
}

/// Refuses what is no file, or a file that others than its owner can open.
pub(super) fn refuse_open_to_others(
    path: &Path,
    metadata: &fs::Metadata,
) -> Result<(), SecretFileError> {
    if !metadata.is_file() {
        return Err(SecretFileError::Kind { path: path.to_owned(), expected: "file" });
    }
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(SecretFileError::Open { path: path.to_owned(), mode, remedy: "600" });
    }
    Ok(())
}

/// Reads a file that holds a key.
///
/// # Errors
///
/// As [`read`], or the file holds no key of 32 bytes.
pub fn read_key(path: &Path) -> Result<Zeroizing<[u8; KEY_BYTES]>, SecretFileError> {
    decode_key(&read(path)?).ok_or_else(|| SecretFileError::Content { path: path.to_owned() })
}

/// Makes a file that holds a new key.
///
/// # Errors
///
/// As [`write()`], or there is no entropy.
pub fn make_key(path: &Path) -> Result<Zeroizing<[u8; KEY_BYTES]>, SecretFileError> {
    let key = random_key()
        .map_err(|source| SecretFileError::NoEntropy { path: path.to_owned(), source })?;
    let mut text = Zeroizing::new(String::with_capacity(2 * KEY_BYTES + 1));
    for byte in key.iter() {
        for digit in [byte >> 4, byte & 15] {
            text.extend(char::from_digit(u32::from(digit), 16));
        }
    }
    text.push('\n');
    write(path, &text)?;
    Ok(key)
}

/// 64 hexadecimal digits, or base64 of either alphabet, padded or not.
fn decode_key(text: &str) -> Option<Zeroizing<[u8; KEY_BYTES]>> {
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    if text.len() == 2 * KEY_BYTES {
        for (byte, pair) in key.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let &[high, low] = pair else { return None };
            let digit = |digit: u8| char::from(digit).to_digit(16);
            *byte = u8::try_from(digit(high)? << 4 | digit(low)?).ok()?;
        }
        return Some(key);
    }
    // One byte more than a key: a longer text must not be cut to one.
    let mut bytes = Zeroizing::new([0; KEY_BYTES + 1]);
    for engine in [&STANDARD, &STANDARD_NO_PAD, &URL_SAFE, &URL_SAFE_NO_PAD] {
        if engine.decode_slice(text, bytes.as_mut_slice()) == Ok(KEY_BYTES) {
            key.copy_from_slice(bytes.first_chunk::<KEY_BYTES>()?);
            return Some(key);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_key_file_is_made_once_for_its_owner() {
        let home = TempDir::new().unwrap();
        let directory = home.path().join("data/secrets");
        make_directory(&directory).unwrap();
        assert_eq!(mode(&directory), 0o700);
        let path = directory.join(ROOT_KEY_FILE);
        let key = make_key(&path).unwrap();
        assert_eq!(mode(&path), 0o600);
        assert_eq!(*read_key(&path).unwrap(), *key);
        let names: Vec<_> =
            fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, [ROOT_KEY_FILE]);

        assert!(matches!(make_key(&path), Err(SecretFileError::Exists { .. })));
        assert_eq!(*read_key(&path).unwrap(), *key);
    }

    #[test]
    fn an_interrupted_write_is_no_obstacle() {
        let home = TempDir::new().unwrap();
        let path = home.path().join("admin.key");
        fs::write(home.path().join(".admin.key.new"), "half").unwrap();
        assert!(matches!(read(&path), Err(SecretFileError::Missing { .. })));
        write(&path, "whole\n").unwrap();
        assert_eq!(read(&path).unwrap().as_str(), "whole");
        assert!(!home.path().join(".admin.key.new").exists());
    }

    #[test]
    fn what_others_can_read_is_refused_with_the_remedy() {
        let home = TempDir::new().unwrap();
        let path = home.path().join("pepper-1.key");
        make_key(&path).unwrap();
        for bad in [0o640, 0o604, 0o620, 0o601] {
            set_mode(&path, bad);
            let text = read_key(&path).unwrap_err().to_string();
            assert!(text.contains(&format!("chmod 600 {}", path.display())), "{text}");
            assert!(text.contains(&format!("mode {bad:o}")), "{text}");
        }
        set_mode(&path, 0o400);
        assert!(read_key(&path).is_ok());
        set_mode(home.path(), 0o770);
        let text = make_directory(home.path()).unwrap_err().to_string();
        assert!(text.contains("chmod 700"), "{text}");
    }

    #[test]
    fn a_key_is_32_bytes_of_hexadecimal_or_base64() {
        let home = TempDir::new().unwrap();
        let check = |text: &str, good: bool| {
            let path = home.path().join("key");
            let _ = fs::remove_file(&path);
            write(&path, text).unwrap();
            match read_key(&path) {
                Ok(key) => assert!(good && *key == [251; 32], "{text}"),
                Err(SecretFileError::Content { .. }) => assert!(!good, "{text}"),
                Err(other) => panic!("{other}"),
            }
        };
        let hex = "fb".repeat(32);
        check(&hex, true);
        check(&format!("  {}\n", hex.to_uppercase()), true);
        for engine in [&STANDARD, &STANDARD_NO_PAD, &URL_SAFE, &URL_SAFE_NO_PAD] {
            check(&engine.encode([251; 32]), true);
            check(&engine.encode([251; 31]), false);
            check(&engine.encode([251; 33]), false);
            check(&engine.encode([251; 64]), false);
        }
        for bad in ["", "fb", &hex.replacen('f', "g", 1), &hex.replacen("fb", "é", 1), &hex[1..]] {
            check(bad, false);
        }
        let long = " ".repeat(usize::try_from(SECRET_FILE_BYTES_MAX).unwrap() - hex.len());
        check(&format!("{hex}{long}"), true);
        check(&format!("{hex}{long} "), false);
    }
}
