//! `keyledger break-glass open`

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::super::client::Client;
use super::super::failure::{Failure, Outcome};
use super::super::flags;
use super::super::output::{safe, talk};
use super::super::view::break_glass::Opened;
use super::master_key::{MustShow, aim, request, run};
use super::new_file::NewFile;
use super::service;
use crate::proto;

/// Open a grant with a custodian's master key, and show its token, once.
///
/// A grant of yours for the organization that is still open ends with it. What is done by the
/// token, and what is refused to it, is recorded for whoever reviews the grant.
#[derive(Args)]
#[command(after_help = "\
Example:
  keyledger break-glass open --org org_01M3250V000000000000000001 --reason 'the zone is gone' \\
      --permission dns:write --duration 30m --save token --master-key-file alice.key
  keyledger key list --org org_01M3250V000000000000000001 --api-key-file token")]
pub(in crate::cli) struct Open {
    /// The organization that it is for, by identifier
    #[arg(long = "org", env = "KEYLEDGER_ORG", value_name = "ORGANIZATION", value_parser = flags::not_empty)]
    organization_id: String,

    /// Why, for whoever reviews it: 1 to 500 characters in one line
    #[arg(long, value_name = "TEXT", value_parser = flags::not_empty)]
    reason: String,

    /// A permission that it needs, such as dns:write; repeat, or separate by commas [default:
    /// all that the configuration lists]
    #[arg(long = "permission", value_name = "PERMISSION", value_delimiter = ',')]
    permissions: Vec<String>,

    /// How long it lasts, such as 30m [default: as the configuration says]
    #[arg(long, value_name = "DURATION", value_parser = flags::duration)]
    duration: Option<Duration>,

    /// The incident that it is for; the configuration may ask for one
    #[arg(long, value_name = "REFERENCE", default_value = "", hide_default_value = true)]
    incident: String,

    /// Keep the token in this new file of mode 0600, and do not print it
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,

    #[command(flatten)]
    master_key: MustShow,

    #[command(flatten)]
    client: Client,
}

impl Open {
    pub(in crate::cli) fn run(self: Box<Self>) -> Outcome {
        if self.client.names_credential() {
            return Err(Failure::fault("a grant is opened with a master key alone")
                .hint("leave `--api-key-file` out; `--master-key-file` names the master key"));
        }
        let key = self.master_key.obtain()?;
        // Made before anything is opened: a token that nobody has is of no use.
        let file = self.save.as_deref().map(|path| NewFile::make(path, "the token")).transpose()?;
        let mut message = proto::OpenGrantRequest {
            organization_id: self.organization_id,
            reason: self.reason,
            permissions: self.permissions,
            duration: self.duration.map(flags::wire),
            incident: self.incident,
        };
        run(&self.client, Some(&key), async |session| {
            aim(session, Some(&key), &mut message.organization_id).await?;
            let request = request(session, Some(&key), message)?;
            let answer = session.answer(service(session).open_grant(request)).await?;
            let (mut opened, token) = Opened::of(answer);
            match file {
                Some(file) => save(file, &token).map_err(|cause| lost(&opened, &cause))?,
                None => opened.show(token),
            }
            let code = session.print(&opened, || opened.to_text());
            let code = code.map_err(|cause| lost(&opened, &cause))?;
            if !session.json() {
                tell(&opened, self.save.as_deref());
            }
            Ok(code)
        })
    }
}

fn save(mut file: NewFile, token: &str) -> Result<(), Failure> {
    file.write(token.as_bytes())?;
    file.write(b"\n")?;
    file.keep()
}

/// The grant is there, its token went nowhere.
fn lost(opened: &Opened, cause: &Failure) -> Failure {
    let grant = opened.grant_id();
    Failure::fault(format!("the grant `{grant}` is open, but its token could not be written"))
        .because(cause.message())
        .hint("open another: that one ends with it")
}

fn tell(opened: &Opened, saved: Option<&std::path::Path>) {
    match saved {
        Some(path) => {
            let path = safe(&path.display().to_string());
            talk(&format!("saved: `--api-key-file {path}` shows the token to the other verbs\n"));
        }
        None => {
            talk("note: the token is shown this once; keep it now\n");
            talk(
                "next: put it into a file of mode 0600; `--api-key-file FILE` shows it to the other verbs\n",
            );
        }
    }
    let (grant, organization) = (safe(opened.grant_id()), safe(opened.organization_id()));
    if opened.awaits_approval() {
        talk(&format!(
            "next: it permits nothing until somebody else approves it: `keyledger break-glass \
             approve {grant} --org {organization}`\n"
        ));
    }
    talk(&format!(
        "      end it when you are done: `keyledger break-glass close {grant} --org {organization}`\n"
    ));
}
