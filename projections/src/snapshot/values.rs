//! The canonical bytes of identifiers, texts, instants and other single values.

use super::{Canonical, Malformed, Reader, row, variants, write_count, write_text};
use crate::api_key::Environment;
use crate::digest::{
    EmailDigest, LeafHash, ReasonDigest, RequestContent, RequestId, SecretDigest, SigningKeyId,
    SigningPublicKey,
};
use crate::event::{
    ActivatedSchema, AuthenticationMethod, BreakGlassEndReason, BreakGlassRules, Custodian,
    DigestForm, KeyOrigin, KeyedDigest, MfaRule, PermissionRule, PlanRules, ReviewFinding,
    RevocationReason, RoleDefinition, SessionEndReason,
};
use crate::id::{
    AccountId, BreakGlassGrantId, EventId, GrantId, InstallationId, KeyId, OrganizationId, RoleId,
    ServiceAccountId, SessionId, UserId,
};
use crate::network::{Networks, RateLimit};
use crate::permission::{PermissionPattern, Scopes};
use crate::policy::Policy;
use crate::principal::{Credential, Owner, Principal};
use crate::recorded::Revision;
use crate::sealed::Sealed;
use crate::text::{
    Description, Domain, FeatureName, KeyPrefix, Label, MetadataValue, Name, PlanName, ServiceName,
};
use crate::time::Timestamp;

macro_rules! ids {
    ($($name:ident),+) => {$(
        impl Canonical for $name {
            fn write(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_bytes());
            }
            fn read(from: &mut Reader<'_>) -> Result<Self, Malformed> {
                from.array().map(Self::from_bytes)
            }
        }
    )+};
}
ids!(
    AccountId,
    BreakGlassGrantId,
    EventId,
    GrantId,
    InstallationId,
    KeyId,
    OrganizationId,
    RoleId,
    ServiceAccountId,
    SessionId,
    UserId
);

macro_rules! digests {
    ($($name:ident),+) => {$(
        impl Canonical for $name {
            fn write(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.0);
            }
            fn read(from: &mut Reader<'_>) -> Result<Self, Malformed> {
                from.array().map(Self)
            }
        }
    )+};
}
digests!(
    EmailDigest,
    LeafHash,
    ReasonDigest,
    RequestContent,
    RequestId,
    SecretDigest,
    SigningKeyId,
    SigningPublicKey
);

macro_rules! texts {
    ($($name:ident),+) => {$(
        impl Canonical for $name {
            fn write(&self, out: &mut Vec<u8>) {
                write_text(self.as_str(), out);
            }
            fn read(from: &mut Reader<'_>) -> Result<Self, Malformed> {
                let text = from.text()?;
                let read = text.parse::<Self>().ok().filter(|read| read.as_str() == text);
                read.ok_or(Malformed("a text has not its shape"))
            }
        }
    )+};
}
texts!(
    Description,
    Domain,
    FeatureName,
    KeyPrefix,
    Label,
    MetadataValue,
    Name,
    PermissionPattern,
    PlanName,
    ServiceName
);

impl Canonical for String {
    fn write(&self, out: &mut Vec<u8>) {
        write_text(self, out);
    }
    fn read(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        from.text().map(str::to_owned)
    }
}

impl Canonical for Revision {
    fn write(&self, out: &mut Vec<u8>) {
        self.0.write(out);
    }
    fn read(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        // The greatest number is nobody's: another one follows each revision.
        u64::read(from)
            .and_then(
                |it| if it < u64::MAX { Ok(it) } else { Err(Malformed("a revision is none")) },
            )
            .map(Self)
    }
}

impl Canonical for Timestamp {
    fn write(&self, out: &mut Vec<u8>) {
        self.as_millis().write(out);
    }
    fn read(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Self::from_millis(i64::read(from)?).ok_or(Malformed("an instant is none"))
    }
}

impl Canonical for Principal {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Ledger => out.push(0),
            Self::Organization(id) => {
                out.push(1);
                id.write(out);
            }
            Self::ServiceAccount(id) => {
                out.push(2);
                id.write(out);
            }
            Self::User(id) => {
                out.push(3);
                id.write(out);
            }
            Self::Account(id) => {
                out.push(4);
                id.write(out);
            }
            Self::BreakGlass(id) => {
                out.push(5);
                id.write(out);
            }
        }
    }
    fn read(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        match u8::read(from)? {
            0 => Ok(Self::Ledger),
            1 => Canonical::read(from).map(Self::Organization),
            2 => Canonical::read(from).map(Self::ServiceAccount),
            3 => Canonical::read(from).map(Self::User),
            4 => Canonical::read(from).map(Self::Account),
            5 => Canonical::read(from).map(Self::BreakGlass),
            _ => Err(Malformed("a principal is of an unknown kind")),
        }
    }
}

impl Canonical for Owner {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::ServiceAccount(id) => {
                out.push(1);
                id.write(out);
            }
            Self::User(id) => {
                out.push(2);
                id.write(out);
            }
        }
    }
    fn read(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        match u8::read(from)? {
            1 => Canonical::read(from).map(Self::ServiceAccount),
            2 => Canonical::read(from).map(Self::User),
            _ => Err(Malformed("an owner is of an unknown kind")),
        }
    }
}

impl Canonical for Credential {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Key(id) => {
                out.push(1);
                id.write(out);
            }
            Self::Session(id) => {
                out.push(2);
                id.write(out);
            }
            Self::BreakGlass(id) => {
                out.push(3);
                id.write(out);
            }
        }
    }
    fn read(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        match u8::read(from)? {
            1 => Canonical::read(from).map(Self::Key),
            2 => Canonical::read(from).map(Self::Session),
            3 => Canonical::read(from).map(Self::BreakGlass),
            _ => Err(Malformed("a credential is of an unknown kind")),
        }
    }
}

impl Canonical for Sealed {
    fn write(&self, out: &mut Vec<u8>) {
        write_text(self.subject.as_str(), out);
        write_text(&self.seal, out);
    }
    fn read(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let subject = from.text()?.parse().map_err(|_| Malformed("a subject is none"))?;
        Ok(Self { subject, seal: from.text()?.to_owned() })
    }
}

impl Canonical for Scopes {
    fn write(&self, out: &mut Vec<u8>) {
        write_text(self.joined(), out);
    }
    fn read(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Self::from_joined(from.text()?).ok_or(Malformed("scopes have another spelling"))
    }
}

impl Canonical for Networks {
    fn write(&self, out: &mut Vec<u8>) {
        write_count(self.texts().count(), out);
        self.texts().for_each(|text| write_text(&text, out));
    }
    fn read(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let count = from.count(1)?;
        let texts = (0..count).map(|_| from.text()).collect::<Result<Vec<_>, _>>()?;
        Self::new(&texts)
            .ok()
            .filter(|networks| networks.texts().eq(texts.iter().copied()))
            .ok_or(Malformed("networks have another spelling"))
    }
}

variants!(Environment { 1 => Live, 2 => Test });
variants!(DigestForm { 1 => Text, 2 => Sha256 });
variants!(KeyOrigin { 1 => Minted, 2 => Configured, 3 => Imported, 4 => Global });
variants!(AuthenticationMethod { 1 => Password, 2 => Totp, 3 => RecoveryCode });
variants!(SessionEndReason { 1 => LoggedOut, 2 => Revoked, 3 => RefreshReused });
variants!(RevocationReason {
    1 => Unspecified,
    2 => KeyCompromise,
    3 => AffiliationChanged,
    4 => Superseded,
    5 => CessationOfOperation,
    6 => PrivilegeWithdrawn,
});
variants!(BreakGlassEndReason {
    1 => Closed,
    2 => Expired,
    3 => NotApproved,
    4 => Superseded,
    5 => Withdrawn,
});
variants!(ReviewFinding { 1 => Justified, 2 => Unjustified });
row!(Custodian { name, account_id, digest });
row!(BreakGlassRules {
    custodians,
    permissions,
    duration_seconds,
    duration_max_seconds,
    approval_required,
    approval_seconds,
    review_required,
    review_seconds,
    reason_required,
    incident_required,
    openings_max,
    openings_seconds,
});
row!(KeyedDigest { form, pepper, blake3 });
row!(RateLimit { requests, per_seconds });
row!(Policy { key_lifetime_max_seconds, rotation_grace_max_seconds, allowed_ips_required });
row!(PlanRules { key_lifetime_max_seconds, features });
row!(MfaRule { max_age_seconds, api_keys_satisfy });
row!(PermissionRule { mfa, feature });
row!(ActivatedSchema { event_type, schema });
row!(RoleDefinition { name, description, permissions });
