//! The caller's own credential, an API key or a session, and where it comes from.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::super::failure::Failure;
use super::super::saved_session::Saved;
use super::super::{output, secret_text};
use super::server::Server;
use crate::config::DATA_DIR_DEFAULT;
use crate::node::ADMIN_KEY_FILE;

/// The variable that holds a key.
const VARIABLE: &str = "KEYLEDGER_API_KEY";
/// The variable that names a file with a key.
const FILE_VARIABLE: &str = "KEYLEDGER_API_KEY_FILE";

/// The caller's API key, or the access token of their session. Both go the same way.
pub(super) struct Credential {
    text: Zeroizing<String>,
    source: Source,
}

enum Source {
    Variable,
    File(PathBuf),
    Session(PathBuf),
}

impl Credential {
    /// Finds the key: by the flag, else by the variables, else, for a server on this
    /// machine and no other, the operator's in the usual place.
    pub(super) fn obtain(file: Option<&Path>, server: &Server) -> Result<Self, Failure> {
        if let Some(path) = file {
            return Self::read(path);
        }
        if let Some(text) = variable(VARIABLE)? {
            let text = text.into_string().map_err(|_| {
                Failure::fault(format!("environment variable `{VARIABLE}` is not text"))
            })?;
            let text = Zeroizing::new(text);
            return Self::of(text.trim(), Source::Variable);
        }
        if let Some(path) = variable(FILE_VARIABLE)? {
            return Self::read(Path::new(&path));
        }
        let usual = Path::new(DATA_DIR_DEFAULT).join(ADMIN_KEY_FILE);
        if server.is_local() && std::fs::File::open(&usual).is_ok() {
            return Self::read(&usual);
        }
        Err(Failure::fault("no API key to show the server").hint(format!(
            "name its file with `--api-key-file`, or put the key into `{VARIABLE}`; an operator's \
             is in `{ADMIN_KEY_FILE}` in the server's data directory"
        )))
    }

    /// Reads a file that holds a key, an access token, or a session that was saved.
    pub(super) fn read(path: &Path) -> Result<Self, Failure> {
        let text = secret_text::read_file(path).map_err(|error| {
            let path = path.display();
            let failure = Failure::fault(format!("cannot read the API key in `{path}`"));
            let failure = failure.because(&error);
            if error.kind() == ErrorKind::NotFound {
                failure.hint(format!(
                    "an operator's is in `{ADMIN_KEY_FILE}` in the server's data directory"
                ))
            } else if error.kind() == ErrorKind::PermissionDenied {
                failure.hint("run this as the user who owns the file")
            } else {
                failure
            }
        })?;
        if secret_text::is_open_to_others(path) {
            output::talk(&format!(
                "warning: `{}` can be read by others than its owner; run `chmod 600` on it\n",
                output::safe(&path.display().to_string())
            ));
        }
        match Saved::parse(&text) {
            Some(saved) => Self::of(&saved.access_token, Source::Session(path.to_owned())),
            None => Self::of(&text, Source::File(path.to_owned())),
        }
    }

    fn of(text: &str, source: Source) -> Result<Self, Failure> {
        let key = Self { text: Zeroizing::new(text.to_owned()), source };
        if key.text.is_empty() {
            return Err(Failure::fault(format!("there is no API key in {}", key.source())));
        }
        if !key.text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(key.unsendable());
        }
        Ok(key)
    }

    /// The text, for the header.
    pub(super) fn expose(&self) -> &str {
        &self.text
    }

    /// Where it came from.
    pub(super) fn source(&self) -> String {
        match &self.source {
            Source::Variable => format!("the environment variable `{VARIABLE}`"),
            Source::File(path) => format!("`{}`", path.display()),
            Source::Session(path) => format!("the session in `{}`", path.display()),
        }
    }

    /// What to do where a session's access token is too old.
    pub(super) fn renewed_by(&self) -> Option<String> {
        let path = self.saved_session()?.display();
        Some(format!("`keyledger session refresh {path}` goes on with it"))
    }

    /// The file of the session that was saved.
    pub(super) fn saved_session(&self) -> Option<&Path> {
        match &self.source {
            Source::Session(path) => Some(path),
            Source::Variable | Source::File(_) => None,
        }
    }

    /// It has characters that no key has.
    pub(super) fn unsendable(&self) -> Failure {
        Failure::fault(format!("what is in {} is not an API key", self.source()))
            .hint("a key is one line of visible ASCII characters")
    }
}

/// An empty one was meant to be set: what comes after it is not taken in its place.
fn variable(name: &str) -> Result<Option<OsString>, Failure> {
    match std::env::var_os(name) {
        Some(value) if value.is_empty() => {
            Err(Failure::fault(format!("the environment variable `{name}` is empty"))
                .hint("give it a value, or unset it"))
        }
        value => Ok(value),
    }
}
