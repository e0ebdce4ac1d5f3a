//! Secrets that are read from outside: files, and standard input.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use zeroize::Zeroizing;

/// Most bytes of a credential.
pub(super) const CREDENTIAL_BYTES_MAX: usize = 16 * 1024;

/// Reads a secret from a file, without the white space around it.
pub(super) fn read_file(path: &Path) -> io::Result<Zeroizing<String>> {
    read(File::open(path)?)
}

/// Reads a secret to its end, without the white space around it.
pub(super) fn read(source: impl Read) -> io::Result<Zeroizing<String>> {
    // Room for everything from the start: a text that grows leaves copies behind.
    let mut text = Zeroizing::new(String::with_capacity(CREDENTIAL_BYTES_MAX + 1));
    let limit = u64::try_from(CREDENTIAL_BYTES_MAX).unwrap_or(u64::MAX).saturating_add(1);
    source.take(limit).read_to_string(&mut text)?;
    if text.len() > CREDENTIAL_BYTES_MAX {
        let problem = format!("longer than {CREDENTIAL_BYTES_MAX} bytes");
        return Err(io::Error::new(ErrorKind::InvalidData, problem));
    }
    Ok(Zeroizing::new(text.trim().to_owned()))
}

/// Most bytes of a file of many secrets.
const SECRETS_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What a file is called, where `-` is standard input.
pub(super) fn name_of(path: &Path) -> String {
    if path == Path::new("-") {
        "standard input".to_owned()
    } else {
        format!("`{}`", path.display())
    }
}

/// Reads a file of many secrets, whole; `-` is standard input.
pub(super) fn read_many(path: &Path) -> io::Result<Zeroizing<String>> {
    let (source, bytes): (Box<dyn Read>, _) = if path == Path::new("-") {
        (Box::new(io::stdin().lock()), SECRETS_BYTES_MAX)
    } else {
        let file = File::open(path)?;
        let bytes = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
        (Box::new(file), bytes.min(SECRETS_BYTES_MAX))
    };
    let mut text = Zeroizing::new(String::with_capacity(bytes + 1));
    let limit = u64::try_from(SECRETS_BYTES_MAX).unwrap_or(u64::MAX).saturating_add(1);
    source.take(limit).read_to_string(&mut text)?;
    if text.len() > SECRETS_BYTES_MAX {
        let problem = format!("longer than {SECRETS_BYTES_MAX} bytes");
        return Err(io::Error::new(ErrorKind::InvalidData, problem));
    }
    Ok(text)
}

/// Whether a plain file lets others than its owner read it.
pub(super) fn is_open_to_others(path: &Path) -> bool {
    std::fs::metadata(path)
        .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o077 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_trimmed_and_bounded() {
        assert_eq!(*read(" \tkey\r\n".as_bytes()).unwrap(), "key");
        assert_eq!(*read("".as_bytes()).unwrap(), "");
        assert!(read("x".repeat(CREDENTIAL_BYTES_MAX).as_bytes()).is_ok());
        assert!(read("x".repeat(CREDENTIAL_BYTES_MAX + 1).as_bytes()).is_err());
        assert!(read([0xff_u8].as_slice()).is_err());
    }
}
