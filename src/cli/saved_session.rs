//! A session in a file: what `session login --save` writes, and other verbs show as they
//! show a key.

use std::io::ErrorKind;
use std::path::Path;

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::failure::Failure;
use super::secret_text;
use crate::proto;
use crate::vault::files;

/// Room for the text: one that grows leaves copies behind.
const ROOM_BYTES: usize = 8 * 1024;

/// What is saved of a session.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(deny_unknown_fields)]
pub(super) struct Saved {
    /// Which one it is.
    pub(super) session_id: String,
    /// What calls show, for minutes.
    pub(super) access_token: String,
    /// What gets the next pair, once.
    pub(super) refresh_token: String,
}

impl Saved {
    /// What an answer gave.
    pub(super) fn of(session: Option<&proto::Session>, tokens: &proto::Tokens) -> Self {
        Self {
            session_id: session.map(|it| it.id.clone()).unwrap_or_default(),
            access_token: tokens.access_token.clone(),
            refresh_token: tokens.refresh_token.clone(),
        }
    }

    /// Reads the text of a file; none where it is another thing.
    pub(super) fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// Reads a file that holds a session.
    pub(super) fn read(path: &Path) -> Result<Self, Failure> {
        let cannot = || Failure::fault(format!("cannot read a session in `{}`", path.display()));
        let hint = "`keyledger session login --save FILE` writes one";
        let text = secret_text::read_file(path).map_err(|error| cannot().because(error).hint(hint));
        Self::parse(&text?).ok_or_else(|| cannot().because("that is no session").hint(hint))
    }

    /// Refuses to save into a file that holds another thing: it would be lost.
    pub(super) fn may_be_written(path: &Path) -> Result<(), Failure> {
        let cannot = || Failure::fault(format!("cannot save the session in `{}`", path.display()));
        match secret_text::read_file(path) {
            Ok(text) if text.is_empty() || Self::parse(&text).is_some() => Ok(()),
            Ok(_) => Err(cannot()
                .because("the file holds something else")
                .hint("name a file that is not there")),
            Err(error) if error.kind() == ErrorKind::NotFound => match path.parent() {
                Some(parent) if !parent.as_os_str().is_empty() && !parent.is_dir() => {
                    Err(cannot().because("there is no such directory"))
                }
                _ => Ok(()),
            },
            Err(error) => Err(cannot().because(error)),
        }
    }

    /// Writes it into a file of mode 0600, in place of the session that may be there.
    pub(super) fn write(&self, path: &Path) -> Result<(), Failure> {
        let cannot = || {
            Failure::fault(format!("the session could not be saved in `{}`", path.display()))
                .hint("log in again, and save it elsewhere")
        };
        let mut json = Zeroizing::new(Vec::with_capacity(ROOM_BYTES));
        serde_json::to_writer_pretty(&mut *json, self).map_err(|it| cannot().because(it))?;
        json.push(b'\n');
        let text = std::str::from_utf8(&json).map_err(|error| cannot().because(error))?;
        files::replace(path, text).map_err(|error| cannot().because(error))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn saved(token: &str) -> Saved {
        let session = proto::Session { id: "ses_1".into(), ..Default::default() };
        let tokens = proto::Tokens {
            access_token: token.into(),
            refresh_token: "r".into(),
            ..Default::default()
        };
        Saved::of(Some(&session), &tokens)
    }

    #[test]
    fn what_is_saved_is_read_again_by_its_owner_alone() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("me");
        for token in ["first", "second"] {
            Saved::may_be_written(&path).unwrap();
            saved(token).write(&path).unwrap();
            assert_eq!(Saved::read(&path).unwrap().access_token, token);
            let mode = std::fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    #[test]
    fn a_file_that_holds_something_else_is_not_overwritten() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("admin.key");
        std::fs::write(&path, "kl_live_x").unwrap();
        assert!(Saved::may_be_written(&path).is_err() && Saved::read(&path).is_err());
        assert!(Saved::may_be_written(&home.path().join("no/such")).is_err());
    }
}
