//! Rules of rotation: a new key takes the place of an old one, which stays valid for a
//! while.

use projections::event::{KeyCreated, KeyOrigin, KeyRotated, KeyRotationEnded};
use projections::id::KeyId;
use projections::key::{Key, KeyState};
use projections::organization::Change;
use projections::time::Timestamp;

use super::key::{self, within_policy};
use super::{Decided, Given};
use crate::ledger::command::{Expiry, ROTATION_GRACE_MAX_SECONDS, ROTATION_GRACE_MS, RotateKey};
use crate::ledger::rejection::Rejection;

/// Puts a new key in the place of an old one: like it, but for its secret and its end.
pub(super) fn rotate(given: &Given<'_>, command: &RotateKey) -> Result<Decided, Rejection> {
    // The identifier is fresh and random: if it is there, this very command made it.
    if let Some(made) = given.state.key(command.successor) {
        return Ok(Decided::Done {
            outcome: Change::Key(made.id),
            revision: made.changed_at,
            repeat: false,
        });
    }
    let old = key::active(given, command.key_id)?;
    if old.is_configured() {
        return Err(Rejection::KeyIsConfigured(old.id));
    }
    if let Some(rotation) = old.rotation() {
        return Err(Rejection::KeyAlreadyRotated(old.id, rotation.successor));
    }
    let expires_at = expires_at(given, old, command.expiry);
    let end = expires_at.as_ref().ok().copied().flatten();
    key::may_bring_into_force(given, old, end)?;
    if let Some(owner) = old.owner() {
        // Whoever rotates it is shown the new secret.
        key::for_another(given, owner, old.scopes.as_ref())?;
        key::has_room(given, owner)?;
    }
    within_policy(given, old.allowed_ips())?;
    let ends_at = ends_at(given, command.grace_ms)?;
    let expires_at = expires_at?;
    let extras = old.extras.as_deref().cloned().unwrap_or_default();
    let successor = KeyCreated {
        key_id: command.successor,
        name: old.name.clone(),
        description: extras.description,
        origin: KeyOrigin::Minted,
        prefix: Some(command.prefix.clone()),
        environment: old.environment,
        hint: command.hint,
        digest: command.digest.clone(),
        scopes: old.scopes.clone(),
        roles: extras.roles,
        services: extras.services,
        expires_at,
        metadata: extras.metadata,
        limits: extras.limits,
        owner: extras.owner,
        allowed_ips: extras.allowed_ips,
        rate_limit: extras.rate_limit,
        rotates: Some(old.id),
    };
    let rotated = KeyRotated { key_id: old.id, successor: command.successor, ends_at };
    Ok(Decided::Events(vec![successor.into(), rotated.into()]))
}

/// When the old key ends.
fn ends_at(given: &Given<'_>, grace_ms: Option<i64>) -> Result<Timestamp, Rejection> {
    let policy = given.state.policy().rotation_grace_max_seconds;
    let max_seconds = policy.unwrap_or(u32::MAX).min(ROTATION_GRACE_MAX_SECONDS);
    let max_ms = i64::from(max_seconds) * 1_000;
    let grace_ms = grace_ms.unwrap_or(ROTATION_GRACE_MS.min(max_ms));
    if grace_ms > max_ms {
        return Err(Rejection::GraceAboveMax { max_seconds });
    }
    Ok(given.now.saturating_add_millis(grace_ms))
}

/// When the new key ends: where nothing is said, it lives as long as the old one was to
/// live, or as long as is allowed today.
fn expires_at(
    given: &Given<'_>,
    old: &Key,
    expiry: Option<Expiry>,
) -> Result<Option<Timestamp>, Rejection> {
    if let Some(expiry) = expiry {
        return key::expires_at(given, expiry);
    }
    let latest = key::expires_at(given, Expiry::PlanDefault)?;
    let lifetime = old.expires_at().map(|end| end.as_millis() - old.created_at.as_millis());
    let same = lifetime.map(|millis| given.now.saturating_add_millis(millis));
    Ok(match (same, latest) {
        (Some(same), Some(latest)) => Some(same.min(latest)),
        (same, latest) => same.or(latest),
    })
}

/// Ends the old key of a rotation before its time.
pub(super) fn end(given: &Given<'_>, id: KeyId) -> Result<Decided, Rejection> {
    let old = given.state.key(id).ok_or(Rejection::KeyNotFound(id))?;
    let Some(rotation) = old.rotation() else { return Err(Rejection::KeyNotRotated(id)) };
    if old.state(given.now) == KeyState::Revoked {
        return Err(Rejection::KeyAlreadyRevoked(id));
    }
    key::may_change(given, old)?;
    let event = KeyRotationEnded { key_id: id, before: rotation.ends_at };
    Ok(Decided::Events(vec![event.into()]))
}
