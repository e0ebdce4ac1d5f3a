//! Changes of one key: `keyledger key end-rotation`, `disable`, `enable` and `relabel`.

use clap::Args;
use tonic::{Request, Response, Status};

use super::super::client::{Client, Repeat, Session, Target};
use super::super::failure::{Failure, Outcome};
use super::super::output::{safe, talk};
use super::super::view::key::{Got, Key};
use super::rotate::{ADDRESSES_HINT, ADDRESSES_MISSING};
use super::service;
use crate::proto;

// No doc comment: clap would take it for the verb's own.
#[derive(Args)]
struct OneKey {
    /// The key
    #[arg(value_name = "ID")]
    key_id: String,

    /// Refuse if the organization's stream does not end at this revision
    #[arg(long, value_name = "REVISION")]
    expected_revision: Option<u64>,

    #[command(flatten)]
    repeat: Repeat,

    #[command(flatten)]
    target: Target,

    #[command(flatten)]
    client: Client,
}

/// A change that was asked for, as requests name it.
struct Asked {
    organization_id: String,
    key_id: String,
    expected_revision: Option<u64>,
    idempotency_key: String,
}

impl OneKey {
    /// Asks for a change of the key, prints the key as it is then, and says what was done:
    /// `told` is given the key and the flag that names its organization once more.
    fn change<Q, A: Into<Got>>(
        self,
        request: impl FnOnce(Asked) -> Q,
        call: impl AsyncFnOnce(&Session<'_>, Request<Q>) -> Result<Response<A>, Status>,
        told: impl FnOnce(&Key, &str) -> String,
    ) -> Outcome {
        let again = self.target.again();
        let mut asked = Asked {
            organization_id: self.target.organization_id(),
            key_id: self.key_id,
            expected_revision: self.expected_revision,
            idempotency_key: self.repeat.idempotency_key(),
        };
        self.client.run(async |session| {
            session.aim(&mut asked.organization_id).await?;
            let request = session.request(request(asked))?;
            let answer = session.answer(call(session, request)).await;
            let got: Got =
                answer.map_err(|it| it.hint_where(ADDRESSES_MISSING, ADDRESSES_HINT))?.into();
            let code = session.print(&got, || got.to_text())?;
            if let Some(key) = got.key.as_ref().filter(|_| !session.json()) {
                talk(&safe_line(&told(key, &again)));
            }
            got.warn();
            Ok(code)
        })
    }
}

fn safe_line(text: &str) -> String {
    format!("{}\n", safe(text))
}

/// End the old key of a rotation now.
///
/// When this returns, the old key is refused everywhere; its successor goes on.
#[derive(Args)]
pub(in crate::cli) struct EndRotation {
    #[command(flatten)]
    key: OneKey,
}

impl EndRotation {
    pub(in crate::cli) fn run(self) -> Outcome {
        self.key.change(
            |asked| proto::EndRotationRequest {
                organization_id: asked.organization_id,
                key_id: asked.key_id,
                expected_revision: asked.expected_revision,
                idempotency_key: asked.idempotency_key,
            },
            async |session, request| service(session).end_rotation(request).await,
            |key, _| {
                let successor = key.rotation.as_ref().map(|it| it.successor_id.as_str());
                let successor = successor.unwrap_or_default();
                format!("done: it is refused everywhere from now on; {successor} has its place")
            },
        )
    }
}

/// Put a key out of force until it is enabled.
///
/// When this returns, the key is refused everywhere.
#[derive(Args)]
pub(in crate::cli) struct Disable {
    #[command(flatten)]
    key: OneKey,

    /// Why, in your own words, at most 500 characters; rests sealed
    #[arg(long, value_name = "TEXT")]
    comment: Option<String>,
}

impl Disable {
    pub(in crate::cli) fn run(self) -> Outcome {
        let comment = self.comment.unwrap_or_default();
        self.key.change(
            |asked| proto::DisableKeyRequest {
                organization_id: asked.organization_id,
                key_id: asked.key_id,
                comment,
                expected_revision: asked.expected_revision,
                idempotency_key: asked.idempotency_key,
            },
            async |session, request| service(session).disable_key(request).await,
            |key, again| {
                let id = &key.id;
                format!("done: it is refused everywhere until `keyledger key enable {id}{again}`")
            },
        )
    }
}

/// Bring a disabled key into force again.
///
/// You must hold every permission of the key, and the rules of plan and policy as they are
/// now must allow it.
#[derive(Args)]
pub(in crate::cli) struct Enable {
    #[command(flatten)]
    key: OneKey,

    /// Why, in your own words, at most 500 characters; rests sealed
    #[arg(long, value_name = "TEXT")]
    comment: Option<String>,
}

impl Enable {
    pub(in crate::cli) fn run(self) -> Outcome {
        let comment = self.comment.unwrap_or_default();
        self.key.change(
            |asked| proto::EnableKeyRequest {
                organization_id: asked.organization_id,
                key_id: asked.key_id,
                comment,
                expected_revision: asked.expected_revision,
                idempotency_key: asked.idempotency_key,
            },
            async |session, request| service(session).enable_key(request).await,
            |_, _| "done: it is accepted again".to_owned(),
        )
    }
}

/// Call a key otherwise: its name, its description, or both.
///
/// What a key may do is fixed; to change that, make another.
#[derive(Args)]
pub(in crate::cli) struct Relabel {
    #[command(flatten)]
    key: OneKey,

    /// What it is called from here on: 1 to 100 characters, no other active key's name
    #[arg(long, value_name = "NAME", value_parser = super::super::flags::not_empty)]
    name: Option<String>,

    /// What it is for, in at most 500 characters; no place for personal data
    #[arg(long, value_name = "TEXT", conflicts_with = "no_description")]
    description: Option<String>,

    /// Take the description away
    #[arg(long)]
    no_description: bool,
}

impl Relabel {
    pub(in crate::cli) fn run(self) -> Outcome {
        let (name, description) = (self.name.unwrap_or_default(), self.description);
        let description = if self.no_description { Some(String::new()) } else { description };
        if name.is_empty() && description.is_none() {
            return Err(Failure::fault("nothing to change").hint(
                "say how it is called with `--name`, `--description` or `--no-description`",
            ));
        }
        self.key.change(
            |asked| proto::UpdateKeyLabelRequest {
                organization_id: asked.organization_id,
                key_id: asked.key_id,
                name,
                description,
                expected_revision: asked.expected_revision,
                idempotency_key: asked.idempotency_key,
            },
            async |session, request| service(session).update_key_label(request).await,
            |key, _| format!("done: {} is called so from now on; it may do what it could", key.id),
        )
    }
}
