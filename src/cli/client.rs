//! Asking a server: the flags that all such verbs share, and the session they give.

mod credential;
mod organization;
mod server;
mod tls;

use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};
use zeroize::Zeroizing;

use super::failure::{Failure, Outcome};
use super::{flags, output};
use crate::config::LISTEN_DEFAULT;
use credential::Credential;
use server::Server;

/// Most bytes of an answer: a page of a thousand keys with all that a key can carry.
pub(super) const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// How long to wait for an answer unless told otherwise.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);

// No doc comment: clap would take it for the verb's own.
#[derive(Args)]
#[command(next_help_heading = "Server and output")]
pub(super) struct Client {
    /// The server to ask [default: http://127.0.0.1:50051]
    #[arg(long, env = "KEYLEDGER_SERVER", value_name = "URL", value_parser = flags::not_empty)]
    server: Option<String>,

    /// The file that holds your API key, or your session [env: KEYLEDGER_API_KEY_FILE]
    ///
    /// A session is saved by `session login --save FILE`. Without it: the key in the variable KEYLEDGER_API_KEY, else the file that
    /// KEYLEDGER_API_KEY_FILE names, else, for a server on this machine,
    /// ./keyledger-data/admin.key.
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,

    /// Certificates in PEM, one of which must have signed the server's [default: the system's]
    #[arg(long, env = "KEYLEDGER_CA", value_name = "FILE")]
    ca: Option<PathBuf>,

    /// Your own certificate in PEM, for a server that asks for one
    #[arg(long, env = "KEYLEDGER_CLIENT_CERT", value_name = "FILE")]
    client_cert: Option<PathBuf>,

    /// The private key of your own certificate, in PEM
    #[arg(long, env = "KEYLEDGER_CLIENT_KEY", value_name = "FILE")]
    client_key: Option<PathBuf>,

    /// Send credentials without TLS to a server on another machine
    #[arg(
        long,
        env = "KEYLEDGER_ALLOW_PLAINTEXT",
        num_args = 0..=1,
        default_missing_value = "true",
        value_name = "BOOL"
    )]
    allow_plaintext: Option<bool>,

    /// The longest time to wait for an answer [default: 10s]
    #[arg(
        long,
        env = "KEYLEDGER_TIMEOUT",
        value_name = "DURATION",
        value_parser = flags::timeout
    )]
    timeout: Option<Duration>,

    /// An identifier of your own that is recorded with what happens
    #[arg(long, value_name = "ID", value_parser = flags::token)]
    correlation_id: Option<String>,

    /// Print one JSON object, with the field names of the protocol
    #[arg(long)]
    json: bool,
}

/// The organization that a verb is about.
#[derive(Args)]
pub(super) struct Target {
    /// The organization, by identifier or by what its keys begin with [default: your key's own;
    /// an operator must name one]
    #[arg(
        long = "org",
        env = "KEYLEDGER_ORG",
        value_name = "ORGANIZATION",
        value_parser = flags::not_empty
    )]
    organization_id: Option<String>,
}

impl Target {
    /// The flag once more, for a command that follows from this one.
    pub(super) fn again(&self) -> String {
        self.organization_id.as_ref().map(|id| format!(" --org {id}")).unwrap_or_default()
    }

    /// As requests name it.
    pub(super) fn organization_id(self) -> String {
        self.organization_id.unwrap_or_default()
    }
}

/// Makes a repeat of a request harmless.
#[derive(Args)]
pub(super) struct Repeat {
    /// A text of your choice: the same request with the same text within 24 hours is done once
    #[arg(long, value_name = "TEXT", value_parser = flags::token)]
    idempotency_key: Option<String>,
}

impl Repeat {
    /// As requests hold it.
    pub(super) fn idempotency_key(self) -> String {
        self.idempotency_key.unwrap_or_default()
    }
}

impl Client {
    /// Runs a verb against the server.
    pub(super) fn run(&self, verb: impl AsyncFnOnce(&Session<'_>) -> Outcome) -> Outcome {
        let file = self.api_key_file.as_deref();
        self.run_with(|server| Credential::obtain(file, server).map(Some), verb)
    }

    /// Runs a verb that needs no credential: none is shown but one whose file is named.
    pub(super) fn run_open(&self, verb: impl AsyncFnOnce(&Session<'_>) -> Outcome) -> Outcome {
        let file = self.api_key_file.as_deref();
        self.run_with(|_| file.map(Credential::read).transpose(), verb)
    }

    /// Whether a credential is named by the flag.
    pub(super) fn names_credential(&self) -> bool {
        self.api_key_file.is_some()
    }

    fn run_with(
        &self,
        credential: impl FnOnce(&Server) -> Result<Option<Credential>, Failure>,
        verb: impl AsyncFnOnce(&Session<'_>) -> Outcome,
    ) -> Outcome {
        let server =
            Server::parse(self.server.as_deref().unwrap_or(&format!("http://{LISTEN_DEFAULT}")))?;
        server.refuse_plaintext_unless(self.allow_plaintext == Some(true))?;
        let files = tls::Files {
            ca: self.ca.as_deref(),
            certificate: self.client_cert.as_deref(),
            key: self.client_key.as_deref(),
        };
        let tls = server.is_tls().then(|| files.read()).transpose()?;
        let credential = credential(&server)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::fault("cannot start").because(error))?;
        runtime.block_on(async {
            let channel = server.connect(tls, self.timeout()).await?;
            verb(&Session { client: self, server, channel, credential }).await
        })
    }

    fn timeout(&self) -> Duration {
        self.timeout.unwrap_or(TIMEOUT_DEFAULT)
    }

    /// Whether JSON is wanted.
    pub(super) fn json(&self) -> bool {
        self.json
    }

    /// The correlation id that was given; empty if none was.
    pub(super) fn correlation_id(&self) -> &str {
        self.correlation_id.as_deref().unwrap_or_default()
    }
}

/// A connection to a server, with the caller's credential, where one is shown.
pub(super) struct Session<'a> {
    client: &'a Client,
    server: Server,
    channel: Channel,
    credential: Option<Credential>,
}

impl Session<'_> {
    /// The connection.
    pub(super) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// Whether JSON is wanted.
    pub(super) fn json(&self) -> bool {
        self.client.json
    }

    /// The file of the saved session that is shown.
    pub(super) fn saved_session(&self) -> Option<&Path> {
        self.credential.as_ref().and_then(Credential::saved_session)
    }

    /// A request that shows the caller's credential.
    pub(super) fn request<T>(&self, message: T) -> Result<Request<T>, Failure> {
        let mut request = Request::new(message);
        request.set_timeout(self.client.timeout());
        if let Some(credential) = &self.credential {
            let value = Zeroizing::new(format!("Bearer {}", credential.expose()));
            let mut authorization = AsciiMetadataValue::try_from(value.as_bytes())
                .map_err(|_| credential.unsendable())?;
            authorization.set_sensitive(true);
            request.metadata_mut().insert("authorization", authorization);
        }
        if let Some(id) = &self.client.correlation_id {
            let id = id.parse().map_err(|_| Failure::fault("`--correlation-id` cannot be sent"))?;
            request.metadata_mut().insert("x-correlation-id", id);
        }
        Ok(request)
    }

    /// The same for a call that answers with a stream, which lasts for as long as it is wanted.
    pub(super) fn stream_request<T>(&self, message: T) -> Result<Request<T>, Failure> {
        let mut request = self.request(message)?;
        request.metadata_mut().remove("grpc-timeout");
        Ok(request)
    }

    /// Waits for the answer to a call.
    pub(super) async fn answer<T>(
        &self,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Failure> {
        match tokio::time::timeout(self.client.timeout(), call).await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) if is_late(&status) => Err(self.late()),
            Ok(Err(status)) => match self.server.not_understood(&status).await {
                Some(failure) => Err(failure),
                None => Err(self.refused(&status)),
            },
            Err(_) => Err(self.late()),
        }
    }

    /// What a server's refusal comes to.
    pub(super) fn refused(&self, status: &Status) -> Failure {
        let Some(credential) = &self.credential else {
            return Failure::of_status(status, "nowhere");
        };
        let failure = Failure::of_status(status, &credential.source());
        match credential.renewed_by() {
            Some(command) => failure.hint_where("EXPIRED", &command),
            None => failure,
        }
    }

    fn late(&self) -> Failure {
        Failure::fault(format!("no answer within {:?}", self.client.timeout())).hint(
            "what was asked may have been done all the same; `--timeout` waits longer, and \
             `--idempotency-key` makes a repeat harmless",
        )
    }

    /// Prints an answer: as JSON if that is wanted, else for people.
    pub(super) fn print(
        &self,
        message: &impl serde::Serialize,
        text: impl FnOnce() -> String,
    ) -> Outcome {
        if self.client.json {
            output::print_json(message)?;
        } else {
            output::print(&Zeroizing::new(text()))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// tonic's own clock, on either side, may ring before ours.
fn is_late(status: &Status) -> bool {
    status.code() == tonic::Code::DeadlineExceeded
        || (status.code() == tonic::Code::Cancelled && status.message() == "Timeout expired")
}
