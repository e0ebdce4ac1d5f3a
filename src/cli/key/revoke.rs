//! `keyledger key revoke`

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueEnum};

use super::super::client::{Client, Repeat, Session, Target};
use super::super::failure::{Failure, NO, Outcome};
use super::super::output::{counted, talk, warn};
use super::super::secret_text;
use super::super::view::key::Got;
use super::super::view::key_change::RevokedMany;
use super::import::REQUEST_BYTES_MAX;
use super::service;
use crate::ledger::command::KEYS_AT_ONCE_MAX;
use crate::proto;
use crate::proto::revoke_keys_request::Which;

/// Revoke keys, for good.
///
/// When this returns, they are refused everywhere. Names keys by their identifiers, or all of
/// a service account or a user, or as they leaked. Of several keys those of one organization are revoked
/// all or none; exit code 1 says that some are not known.
#[derive(Args)]
pub(in crate::cli) struct Revoke {
    /// The keys
    #[arg(value_name = "ID", required_unless_present_any = ["leaked", "service_account", "user"])]
    key_ids: Vec<String>,

    /// A file of whole keys as they leaked, one to a line; `-` for standard input
    #[arg(long, value_name = "FILE", conflicts_with_all = ["service_account", "user"])]
    leaked: Option<PathBuf>,

    /// All keys of this service account
    #[arg(long, value_name = "SERVICE_ACCOUNT", conflicts_with = "key_ids")]
    service_account: Option<String>,

    /// All keys of this user
    #[arg(long, value_name = "USER", conflicts_with_all = ["key_ids", "service_account"])]
    user: Option<String>,

    /// Why, by the names of RFC 5280
    #[arg(long, value_enum, default_value_t = Reason::Unspecified, hide_default_value = true)]
    reason: Reason,

    /// Why, in your own words, at most 500 characters; rests sealed
    #[arg(long, value_name = "TEXT")]
    comment: Option<String>,

    /// Refuse if the organization's stream does not end at this revision (one key only)
    #[arg(long, value_name = "REVISION")]
    expected_revision: Option<u64>,

    #[command(flatten)]
    repeat: Repeat,

    #[command(flatten)]
    target: Target,

    #[command(flatten)]
    client: Client,
}

#[derive(Clone, Copy, ValueEnum)]
enum Reason {
    /// No reason is given (the default).
    Unspecified,
    /// Somebody else has the key, or may have it.
    #[value(alias = "key_compromise")]
    KeyCompromise,
    /// Whoever used it belongs elsewhere now.
    #[value(alias = "affiliation_changed")]
    AffiliationChanged,
    /// Another key has taken its place.
    Superseded,
    /// What it was for has ended.
    #[value(alias = "cessation_of_operation")]
    CessationOfOperation,
    /// What it permitted is no longer permitted.
    #[value(alias = "privilege_withdrawn")]
    PrivilegeWithdrawn,
}

impl Revoke {
    pub(in crate::cli) fn run(self: Box<Self>) -> Outcome {
        match (&self.leaked, self.owner(), self.key_ids.as_slice()) {
            (None, None, [_]) => self.one(),
            _ => self.many(),
        }
    }

    /// Whose keys are meant, where it is all of somebody's.
    fn owner(&self) -> Option<Which> {
        let account = self.service_account.clone().map(Which::ServiceAccountId);
        account.or(self.user.clone().map(Which::UserId))
    }

    fn one(self) -> Outcome {
        let mut request = proto::RevokeKeyRequest {
            organization_id: self.target.organization_id(),
            key_id: self.key_ids.into_iter().next().unwrap_or_default(),
            reason: reason(self.reason).into(),
            comment: self.comment.unwrap_or_default(),
            expected_revision: self.expected_revision,
            idempotency_key: self.repeat.idempotency_key(),
        };
        self.client.run(async |session| {
            session.aim(&mut request.organization_id).await?;
            let request = session.request(request)?;
            let got = Got::from(session.answer(service(session).revoke_key(request)).await?);
            let code = session.print(&got, || got.to_text())?;
            if !session.json() {
                talk("done: it is refused everywhere from now on\n");
            }
            got.warn();
            Ok(code)
        })
    }

    fn many(self) -> Outcome {
        let owner = self.owner();
        let idempotency_key = self.repeat.idempotency_key();
        if self.expected_revision.is_some() || !idempotency_key.is_empty() {
            return Err(Failure::fault(
                "`--expected-revision` and `--idempotency-key` are for one key",
            )
            .hint("leave them out: to revoke several keys once more changes nothing"));
        }
        let mut lines = Vec::new();
        let which = match owner {
            Some(which) => vec![which],
            None => lists(self.key_ids, self.leaked.as_deref(), &mut lines)?,
        };
        let mut request = proto::RevokeKeysRequest {
            organization_id: self.target.organization_id(),
            which: None,
            reason: reason(self.reason).into(),
            comment: self.comment.unwrap_or_default(),
        };
        self.client.run(async |session| {
            session.aim(&mut request.organization_id).await?;
            let mut revoked = RevokedMany::of(lines);
            for which in which {
                let request = proto::RevokeKeysRequest { which: Some(which), ..request.clone() };
                let request = session.request(request)?;
                let answer = session.answer(service(session).revoke_keys(request)).await;
                revoked.join(answer.map_err(|failure| explained(failure, &revoked))?);
            }
            show(session, &revoked)
        })
    }
}

fn explained(failure: Failure, revoked: &RevokedMany) -> Failure {
    match revoked.len() {
        0 => failure,
        more => failure.because(format!("the first {more} keys were dealt with before")),
    }
}

/// The keys of as many requests as it takes; `lines` gets the line of the file that each of
/// them stands on, if it stands on one.
fn lists(
    key_ids: Vec<String>,
    leaked: Option<&Path>,
    lines: &mut Vec<Option<usize>>,
) -> Result<Vec<Which>, Failure> {
    let mut lists: Vec<proto::KeyList> = Vec::new();
    let mut bytes = 0;
    let mut place = |size: usize, lists: &mut Vec<proto::KeyList>| {
        let keys = lists.last().map_or(0, |it| it.key_ids.len() + it.leaked.len());
        bytes += size + 8;
        if lists.is_empty() || keys == KEYS_AT_ONCE_MAX || bytes > REQUEST_BYTES_MAX {
            bytes = size + 8;
            lists.push(proto::KeyList::default());
        }
    };
    for id in key_ids {
        place(id.len(), &mut lists);
        lines.push(None);
        lists.last_mut().into_iter().for_each(|list| list.key_ids.push(id.clone()));
    }
    if let Some(path) = leaked {
        let text = secret_text::read_many(path).map_err(|error| {
            let file = secret_text::name_of(path);
            Failure::fault(format!("cannot read the leaked keys in {file}")).because(error)
        })?;
        for (key, line) in text.lines().map(str::trim).zip(1..) {
            if key.is_empty() {
                continue;
            }
            place(key.len(), &mut lists);
            lines.push(Some(line));
            lists.last_mut().into_iter().for_each(|list| list.leaked.push(key.to_owned()));
        }
    }
    if lists.is_empty() {
        return Err(Failure::fault("there are no keys to revoke"));
    }
    Ok(lists.into_iter().map(Which::List).collect())
}

fn show(session: &Session<'_>, revoked: &RevokedMany) -> Outcome {
    session.print(revoked, || revoked.to_text())?;
    let (now, before) = (revoked.count("revoked"), revoked.count("already_revoked"));
    let unknown = revoked.len() - now - before;
    if !session.json() {
        let (keys, are) = counted(now);
        let more = if before == 0 { String::new() } else { format!("; {before} had been before") };
        talk(&format!("done: {keys} {are} revoked{more}\n"));
    }
    revoked.warn();
    if unknown == 0 {
        return Ok(ExitCode::SUCCESS);
    }
    let (keys, are) = counted(unknown);
    warn(&format!("{keys} {are} not known here, or not yours to revoke"));
    Ok(ExitCode::from(NO))
}

fn reason(reason: Reason) -> proto::RevocationReason {
    use proto::RevocationReason as Wire;
    match reason {
        Reason::Unspecified => Wire::Unspecified,
        Reason::KeyCompromise => Wire::KeyCompromise,
        Reason::AffiliationChanged => Wire::AffiliationChanged,
        Reason::Superseded => Wire::Superseded,
        Reason::CessationOfOperation => Wire::CessationOfOperation,
        Reason::PrivilegeWithdrawn => Wire::PrivilegeWithdrawn,
    }
}
