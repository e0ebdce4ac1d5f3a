//! A bundle: the stored events of one grant, and the keys that open what is sealed in them
//! and nothing else, in one file of JSON lines.
//!
//! The first line says what it is, the last one how many events there are and the SHA-256 of
//! all lines before it; each line between is one event.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use projections::digest::LeafHash;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::super::failure::Failure;
use super::super::view::break_glass::hex;
use super::new_file::NewFile;
use crate::ledger::clock::Clock;
use crate::proto;

/// What a bundle calls itself.
pub(super) const FORMAT: &str = "keyledger-break-glass-bundle";
/// The version of its form.
pub(super) const VERSION: u32 = 1;

/// The first line.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Header {
    pub(super) format: String,
    pub(super) version: u32,
    pub(super) organization_id: String,
    pub(super) grant_id: String,
    pub(super) made_at: String,
}

/// A line between.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EventLine {
    pub(super) revision: u64,
    /// In unpadded base64url.
    pub(super) stored: String,
    pub(super) leaf_hash: LeafHash,
    pub(super) keys: Vec<KeyLine>,
}

/// What opens one sealed piece of an event.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KeyLine {
    pub(super) subject: String,
    /// In unpadded base64url.
    pub(super) key: String,
}

/// The last line.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Trailer {
    /// Whether the grant had ended, so that nothing but a review can follow.
    pub(super) complete: bool,
    pub(super) events: u64,
    /// Of the last event; absent where there is none.
    pub(super) last_revision: Option<u64>,
    /// Of all lines before, in hexadecimal.
    pub(super) sha256: String,
}

/// A bundle that is being written.
pub(super) struct Bundle {
    file: NewFile,
    digest: Sha256,
    begun: bool,
    events: u64,
    last_revision: Option<u64>,
}

impl Bundle {
    /// An empty one.
    pub(super) fn new(file: NewFile) -> Self {
        Self { file, digest: Sha256::new(), begun: false, events: 0, last_revision: None }
    }

    /// Writes the first line, once.
    pub(super) fn begin(&mut self, grant: &proto::BreakGlassGrant) -> Result<(), Failure> {
        if self.begun {
            return Ok(());
        }
        self.begun = true;
        self.line(&Header {
            format: FORMAT.to_owned(),
            version: VERSION,
            organization_id: grant.organization_id.clone(),
            grant_id: grant.id.clone(),
            made_at: Clock::system().now().to_string(),
        })
    }

    /// Writes an event, if it is what its leaf hash says.
    pub(super) fn add(&mut self, replayed: &proto::ReplayEntry) -> Result<(), Failure> {
        let revision = replayed.entry.as_ref().map(|it| it.revision).unwrap_or_default();
        let wrong = |what: &str| Failure::fault(format!("the event at revision {revision} {what}"));
        let Some(stored) = &replayed.stored else {
            return Err(wrong("came without its stored bytes"));
        };
        let leaf_hash = LeafHash::of(&stored.stored);
        if leaf_hash.0.as_slice() != stored.leaf_hash {
            return Err(wrong("is not what its leaf hash says")
                .hint("no bundle was written; look at the server's storage"));
        }
        let key = |it: &proto::EventKey| KeyLine {
            subject: it.subject.clone(),
            key: URL_SAFE_NO_PAD.encode(&it.key),
        };
        self.line(&EventLine {
            revision,
            stored: URL_SAFE_NO_PAD.encode(&stored.stored),
            leaf_hash,
            keys: stored.keys.iter().map(key).collect(),
        })?;
        self.events += 1;
        self.last_revision = Some(revision);
        Ok(())
    }

    /// Writes the last line, and keeps the file.
    pub(super) fn end(mut self, complete: bool) -> Result<(), Failure> {
        if !self.begun {
            return Err(Failure::fault("nothing of the grant was shown, so there is no bundle"));
        }
        let trailer = Trailer {
            complete,
            events: self.events,
            last_revision: self.last_revision,
            sha256: hex(&self.digest.clone().finalize()),
        };
        self.line(&trailer)?;
        self.file.keep()
    }

    fn line(&mut self, line: &impl Serialize) -> Result<(), Failure> {
        let json = serde_json::to_vec(line)
            .map_err(|error| Failure::fault("cannot write the bundle as JSON").because(error))?;
        let mut json = Zeroizing::new(json);
        json.push(b'\n');
        self.digest.update(&*json);
        self.file.write(&json)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a server says of an event is not believed where its own bytes say another thing.
    #[test]
    fn an_event_that_is_not_what_its_leaf_hash_says_ends_the_bundle() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("bundle");
        let mut bundle = Bundle::new(NewFile::make(&path, "the bundle").unwrap());
        bundle.begin(&proto::BreakGlassGrant::default()).unwrap();
        let event = |stored: &[u8], of: &[u8]| proto::ReplayEntry {
            entry: Some(proto::ActivityEntry { revision: 7, ..Default::default() }),
            stored: Some(proto::StoredEvent {
                stored: stored.to_vec(),
                leaf_hash: LeafHash::of(of).0.to_vec(),
                keys: Vec::new(),
            }),
        };
        bundle.add(&event(b"{}", b"{}")).unwrap();
        let refused = bundle.add(&event(b"{}", b"{ }")).unwrap_err();
        assert!(refused.message().contains("revision 7 is not what its leaf hash says"));
        let without = proto::ReplayEntry { stored: None, ..event(b"", b"") };
        assert!(bundle.add(&without).is_err());
        drop(bundle);
        assert!(!path.exists(), "half a bundle is none");
    }
}
