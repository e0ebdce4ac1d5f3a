//! A custodian's master key: where it comes from, and how it is shown.

use std::path::{Path, PathBuf};

use clap::Args;
use tonic::Request;
use tonic::metadata::AsciiMetadataValue;
use zeroize::Zeroizing;

use super::super::client::{Client, Session};
use super::super::failure::{Failure, Outcome};
use super::super::output::{safe, talk};
use super::super::{secret_text, typed};

/// The variable that holds a master key.
const VARIABLE: &str = "KEYLEDGER_MASTER_KEY";
/// What a server says of a master key that it does not take.
const NOT_TAKEN: [&str; 3] = ["UNKNOWN", "MALFORMED", "CALLER_NOT_IN_FORCE"];

/// Where a master key is, for verbs that may do without.
#[derive(Args)]
pub(super) struct MayShow {
    /// The file that holds your master key, `-` for standard input [default: what
    /// KEYLEDGER_MASTER_KEY holds, unless `--api-key-file` names another credential]
    #[arg(long, value_name = "FILE", conflicts_with = "api_key_file")]
    master_key_file: Option<PathBuf>,
}

/// Where a master key is, for verbs that need one.
#[derive(Args)]
pub(super) struct MustShow {
    /// The file that holds your master key, `-` for standard input [default: what
    /// KEYLEDGER_MASTER_KEY holds, else asked for on a terminal, else a line of standard input]
    #[arg(long, value_name = "FILE")]
    master_key_file: Option<PathBuf>,
}

/// A master key.
pub(super) struct MasterKey {
    text: Zeroizing<String>,
    source: String,
}

impl MayShow {
    /// The master key that is to be shown; none where the caller's own credential is.
    pub(super) fn obtain(&self, client: &Client) -> Result<Option<MasterKey>, Failure> {
        match &self.master_key_file {
            Some(path) => MasterKey::read(path).map(Some),
            None if client.names_credential() => Ok(None),
            None => MasterKey::of_variable(),
        }
    }
}

impl MustShow {
    /// The master key.
    pub(super) fn obtain(&self) -> Result<MasterKey, Failure> {
        if let Some(path) = &self.master_key_file {
            return MasterKey::read(path);
        }
        match MasterKey::of_variable()? {
            Some(key) => Ok(key),
            None => MasterKey::typed(),
        }
    }
}

impl MasterKey {
    fn typed() -> Result<Self, Failure> {
        Self::of(&typed::secret(None, "master key")?, "what was typed".to_owned())
    }

    fn read(path: &Path) -> Result<Self, Failure> {
        if path == Path::new("-") {
            return Self::typed();
        }
        let source = format!("`{}`", path.display());
        let text = secret_text::read_file(path).map_err(|error| {
            Failure::fault(format!("cannot read the master key in {source}")).because(error)
        })?;
        if secret_text::is_open_to_others(path) {
            let name = safe(&path.display().to_string());
            talk(&format!(
                "warning: `{name}` can be read by others than its owner; run `chmod 600` on it\n"
            ));
        }
        Self::of(&text, source)
    }

    fn of_variable() -> Result<Option<Self>, Failure> {
        let Some(value) = std::env::var_os(VARIABLE) else { return Ok(None) };
        let source = format!("the environment variable `{VARIABLE}`");
        let text = value.to_str().map(str::to_owned).map(Zeroizing::new);
        drop(value);
        let text = text.ok_or_else(|| Failure::fault(format!("{source} is not text")))?;
        if text.is_empty() {
            let failure = Failure::fault(format!("{source} is empty"));
            return Err(failure.hint("give it a value, or unset it"));
        }
        Self::of(&text, source).map(Some)
    }

    fn of(text: &str, source: String) -> Result<Self, Failure> {
        let text = Zeroizing::new(text.trim().to_owned());
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Failure::fault(format!("there is no master key in {source}"))
                .hint("a master key is one line of visible ASCII characters, `klmk_…`"));
        }
        Ok(Self { text, source })
    }

    /// A request that shows it.
    fn request<T>(&self, session: &Session<'_>, message: T) -> Result<Request<T>, Failure> {
        let mut request = session.request(message)?;
        let value = AsciiMetadataValue::try_from(self.text.as_bytes());
        let mut value = value
            .map_err(|_| Failure::fault(format!("what is in {} cannot be sent", self.source)))?;
        value.set_sensitive(true);
        request.metadata_mut().insert("x-master-key", value);
        Ok(request)
    }

    /// A refusal with where the key came from, where that may be why.
    pub(super) fn refused(&self, failure: Failure) -> Failure {
        let hint = format!("the master key came from {}", self.source);
        NOT_TAKEN.iter().fold(failure, |failure, reason| failure.hint_where(reason, &hint))
    }
}

/// Runs a verb that shows the master key where there is one, else the caller's credential.
pub(super) fn run(
    client: &Client,
    key: Option<&MasterKey>,
    verb: impl AsyncFnOnce(&Session<'_>) -> Outcome,
) -> Outcome {
    match key {
        Some(key) => client.run_open(verb).map_err(|failure| key.refused(failure)),
        None => client.run(verb),
    }
}

/// A request that shows the master key where there is one, else the caller's credential.
pub(super) fn request<T>(
    session: &Session<'_>,
    key: Option<&MasterKey>,
    message: T,
) -> Result<Request<T>, Failure> {
    match key {
        Some(key) => key.request(session, message),
        None => session.request(message),
    }
}

/// Finds the organization. A master key shows no list of them.
pub(super) async fn aim(
    session: &Session<'_>,
    key: Option<&MasterKey>,
    organization_id: &mut String,
) -> Result<(), Failure> {
    if key.is_none() {
        return session.aim(organization_id).await;
    }
    if !organization_id.starts_with("org_") {
        return Err(Failure::fault("`--org`: must be the identifier of an organization, `org_…`")
            .hint("a master key finds none by the prefix of its keys"));
    }
    Ok(())
}
