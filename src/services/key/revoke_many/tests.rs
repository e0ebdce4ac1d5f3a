//! A list of keys, and who has them.

use std::collections::BTreeMap;

use projections::digest::SecretDigest;
use projections::envelope::Envelope;
use projections::event::{
    DigestForm, Event, KeyCreated, KeyOrigin, KeyedDigest, OrganizationCreated,
};
use projections::id::EventId;
use projections::organization::Organization;
use projections::permission::Scopes;
use projections::principal::Principal;
use projections::time::Timestamp;
use proptest::prelude::*;

use super::*;

fn key_id(number: u16) -> KeyId {
    let mut bytes = [0; 16];
    bytes[..2].copy_from_slice(&number.to_be_bytes());
    KeyId::from_bytes(bytes)
}

fn key(number: u16) -> Event {
    let mut digest = [0; 32];
    digest[..2].copy_from_slice(&number.to_be_bytes());
    KeyCreated {
        key_id: key_id(number),
        name: format!("key {number}").parse().unwrap(),
        description: None,
        origin: KeyOrigin::Imported,
        prefix: None,
        environment: None,
        hint: None,
        digest: KeyedDigest { form: DigestForm::Text, pepper: 1, blake3: SecretDigest(digest) },
        scopes: Some(Scopes::new(&["a:b"]).unwrap()),
        roles: Vec::new(),
        services: None,
        expires_at: None,
        metadata: BTreeMap::new(),
        limits: BTreeMap::new(),
        owner: None,
        allowed_ips: None,
        rate_limit: None,
        rotates: None,
    }
    .into()
}

/// An organization that has these keys.
fn organization(number: u16, keys: impl IntoIterator<Item = u16>) -> Arc<Published> {
    let mut id = [7; 16];
    id[..2].copy_from_slice(&number.to_be_bytes());
    let organization_id = OrganizationId::from_bytes(id);
    let created = OrganizationCreated {
        organization_id,
        name: "Acme".parse().unwrap(),
        key_prefix: format!("a{number}").parse().unwrap(),
        plan: "paid".parse().unwrap(),
        personal_of: None,
    };
    let mut tables = Organization::new(organization_id);
    for event in std::iter::once(created.into()).chain(keys.into_iter().map(key)) {
        let envelope = Envelope {
            id: EventId::from_bytes([1; 16]),
            at: Timestamp::default(),
            actor: Principal::Ledger,
            credential: None,
            request: None,
            correlation_id: "c".parse().unwrap(),
            causation_id: None,
            event,
            sealed: Vec::new(),
        };
        let (_, leaf_hash) = envelope.encode().unwrap();
        tables.apply_next(&envelope, leaf_hash).unwrap();
    }
    Arc::new(Published::new(tables))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// One pass finds what a look into every organization for every key finds.
    #[test]
    fn every_holder_is_found_and_no_other(
        owners in prop::collection::btree_map(0_u16..60, 0_u16..6, 0..40),
        ids in prop::collection::btree_set(0_u16..60, 0..40),
    ) {
        let organizations: Vec<_> = (0..6)
            .map(|number| {
                let own = owners.iter().filter(|(_, owner)| **owner == number);
                organization(number, own.map(|(key, _)| *key))
            })
            .collect();
        let ids: BTreeSet<KeyId> = ids.into_iter().map(key_id).collect();
        let expected: BTreeMap<_, _> = ids
            .iter()
            .filter_map(|id| {
                let holder = organizations.iter().find(|it| it.tables().key(*id).is_some())?;
                Some((*id, holder.id))
            })
            .collect();
        prop_assert_eq!(holders(&organizations, &ids), expected);
    }
}
