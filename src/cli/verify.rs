//! `keyledger verify`

mod batch;

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use zeroize::Zeroizing;

use super::client::{Client, Session};
use super::failure::{Failure, NO, Outcome};
use super::flags::{self, Environment, environment};
use super::secret_text;
use super::view::verification::Decision;
use crate::proto;
use crate::proto::verification_service_client::VerificationServiceClient;

/// The variable that holds the credential to ask about.
const VARIABLE: &str = "KEYLEDGER_CREDENTIAL";
const SOURCES: &str = "write `-` to read it from standard input, name its file with \
                       `--credential-file`, or put it into `KEYLEDGER_CREDENTIAL`";

const EXAMPLES: &str = "\
Examples:
  echo $KEY | keyledger verify - --permission dns:read
  keyledger verify --credential-file key --service dns --client-ip 192.0.2.7
  keyledger verify --batch keys --permission dns:read --json";

/// Ask whether a credential may do something, now.
///
/// The credential is read from standard input (`-`), from a file, or from the variable
/// KEYLEDGER_CREDENTIAL; never from an argument, which others could see.
///
/// Many at once come from a file (`--batch`), one to a line. A line that begins with `{` is a
/// question of its own, as a JSON object: `credential`, and where they differ from the flags
/// `permissions` (a list), `service`, `domain`, `environment`, `tenant_id` and `client_ip`. Lines are
/// named by their numbers; what is in them is never repeated.
///
/// Exit codes: 0 allowed (of a batch, all), 1 denied, 2 no decision was made.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Verify {
    /// `-`: read the credential from standard input
    #[arg(value_name = "-", conflicts_with = "credential_file")]
    stdin: Option<OsString>,

    // A secret in the wrong place is refused here, because clap would repeat it.
    #[arg(hide = true)]
    misplaced: Vec<OsString>,

    /// The file that holds the credential
    #[arg(long, value_name = "FILE")]
    credential_file: Option<PathBuf>,

    /// A file of credentials to ask about, one to a line; `-` for standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["stdin", "credential_file"])]
    batch: Option<PathBuf>,

    /// A permission that is wanted, such as dns:read; repeat, or separate by commas [default: none,
    /// only whether the credential is in force]
    #[arg(long = "permission", value_name = "PERMISSION", value_delimiter = ',')]
    permissions: Vec<String>,

    /// The service that is wanted
    #[arg(long, value_name = "NAME", value_parser = flags::not_empty)]
    service: Option<String>,

    /// The domain that the request is about, such as example.com; what is held for some domains
    /// alone needs it
    #[arg(long, value_name = "DOMAIN", value_parser = flags::not_empty)]
    domain: Option<String>,

    /// The environment that asks [default: either]
    #[arg(long, value_enum)]
    environment: Option<Environment>,

    /// The organization that the request claims to be for
    #[arg(long, value_name = "ID", value_parser = flags::not_empty)]
    tenant: Option<String>,

    /// The address that the request comes from; a key for certain addresses needs it
    #[arg(long, value_name = "ADDRESS")]
    client_ip: Option<IpAddr>,

    /// Decide by this revision of a stream or a later one, such as org-operator=7; repeat for more
    /// streams
    #[arg(long, value_name = "STREAM=REVISION", value_parser = flags::stream_revision)]
    at_least: Vec<proto::StreamRevision>,

    #[command(flatten)]
    client: Client,
}

impl Verify {
    pub(super) fn run(self: Box<Self>) -> Outcome {
        // A denial is 1, so nothing else may be.
        self.decide().map_err(Failure::into_fault)
    }

    fn decide(self: Box<Self>) -> Outcome {
        let credential = match &self.batch {
            Some(_) => Zeroizing::default(),
            None => credential(self.stdin, &self.misplaced, self.credential_file.as_deref())?,
        };
        let request = proto::VerifyRequest {
            credential: String::clone(&credential),
            tenant_id: self.tenant.unwrap_or_default(),
            client_ip: self.client_ip.map(|it| it.to_string()).unwrap_or_default(),
            permissions: self.permissions,
            service: self.service.unwrap_or_default(),
            domain: self.domain.unwrap_or_default(),
            environment: environment(self.environment),
            correlation_id: self.client.correlation_id().to_owned(),
            at_least_revision: self.at_least,
            ..proto::VerifyRequest::default()
        };
        if let Some(file) = &self.batch {
            return batch::decide(&self.client, file, request);
        }
        self.client.run(async |session| {
            let decision = ask(session, request).await?;
            session.print(&decision, || decision.to_text())?;
            Ok(if decision.allowed { ExitCode::SUCCESS } else { ExitCode::from(NO) })
        })
    }
}

async fn ask(session: &Session<'_>, request: proto::VerifyRequest) -> Result<Decision, Failure> {
    let asked = proto::VerifyRequest { credential: String::new(), ..request.clone() };
    let request = session.request(request)?;
    let mut service = VerificationServiceClient::new(session.channel());
    session.answer(service.verify(request)).await.map(|it| Decision::from(it).explain(&asked))
}

fn credential(
    stdin: Option<OsString>,
    misplaced: &[OsString],
    file: Option<&Path>,
) -> Result<Zeroizing<String>, Failure> {
    if let Some(argument) = stdin {
        // Not repeated in the message: it is most likely a secret.
        if argument != "-" || !misplaced.is_empty() {
            return Err(Failure::fault("a credential is never an argument: others could see it")
                .hint(SOURCES));
        }
        return secret_text::read(std::io::stdin().lock()).map_err(|error| {
            Failure::fault("cannot read the credential from standard input").because(error)
        });
    }
    if let Some(path) = file {
        return secret_text::read_file(path).map_err(|error| {
            Failure::fault(format!("cannot read the credential in `{}`", path.display()))
                .because(error)
        });
    }
    match std::env::var_os(VARIABLE).filter(|text| !text.is_empty()) {
        None => Err(Failure::fault("no credential to ask about").hint(SOURCES)),
        Some(text) => {
            let text = text.into_string().map(Zeroizing::new).map_err(|_| {
                Failure::fault(format!("environment variable `{VARIABLE}` is not text"))
            })?;
            Ok(Zeroizing::new(text.trim().to_owned()))
        }
    }
}
