//! Keys that were made elsewhere come in by their digests, and leaked ones go by their texts.

use keyledger::proto::revoke_keys_request::Which;
use keyledger::proto::{
    DecisionCode, ImportKeysRequest, ImportKeysResponse, ImportedKey, KeyList, KeyOrigin,
    KeyRevocationOutcome, RevocationReason, RevokeKeysRequest, RevokeKeysResponse, Scopes,
    ServiceAccess,
};
use prost::Message as _;
use sha2::{Digest as _, Sha256};
use tonic::Code;

use super::support::{Acme, Client, DNS_MANAGER, refused, rejected, scoped, texts, unused};

fn foreign(number: usize) -> String {
    format!("legacy-{number:04}-0123456789abcdef")
}

fn imported(text: &str, name: &str) -> ImportedKey {
    ImportedKey {
        sha256: Sha256::digest(text.as_bytes()).to_vec(),
        name: name.into(),
        scopes: Some(Scopes { permissions: texts(&["a:b"]) }),
        ..Default::default()
    }
}

fn import(keys: Vec<ImportedKey>) -> ImportKeysRequest {
    ImportKeysRequest { keys, ..Default::default() }
}

fn list(key_ids: &[&str], leaked: &[&str]) -> RevokeKeysRequest {
    let list = KeyList { key_ids: texts(key_ids), leaked: texts(leaked) };
    RevokeKeysRequest { which: Some(Which::List(list)), ..Default::default() }
}

fn outcomes(answer: &RevokeKeysResponse) -> Vec<KeyRevocationOutcome> {
    answer.keys.iter().map(|it| it.outcome()).collect()
}

const REVOKED: KeyRevocationOutcome = KeyRevocationOutcome::Revoked;
const ALREADY: KeyRevocationOutcome = KeyRevocationOutcome::AlreadyRevoked;
const UNKNOWN: KeyRevocationOutcome = KeyRevocationOutcome::Unknown;

#[tokio::test]
async fn a_thousand_keys_come_in_at_once_and_verify_by_their_texts() {
    let acme = Acme::new().await;
    assert_eq!(acme.code(&foreign(1)).await, DecisionCode::Malformed);
    let keys = (0..1_000).map(|n| imported(&foreign(n), &format!("legacy {n}"))).collect();
    let request = ImportKeysRequest { idempotency_key: "i".into(), ..import(keys) };
    let before = acme.revision().await;
    let made = acme.admin.import_keys(request.clone()).await.unwrap();
    assert_eq!(made.revision.as_ref().unwrap().revision, before + 1_000);
    for (place, key) in made.keys.iter().enumerate() {
        assert_eq!(key.name, format!("legacy {place}"), "in the order of the request");
        assert_eq!((key.origin(), key.masked.as_str()), (KeyOrigin::Imported, "…"));
    }
    for number in [0, 1, 499, 999] {
        let answer = acme.operator.ask(&foreign(number), &["a:b"]).await;
        assert!(answer.allowed, "{answer:?}");
        assert_eq!(answer.credential_id, made.keys[number].id);
    }
    assert_eq!(acme.code(&foreign(1_000)).await, DecisionCode::Malformed);
    // A repeat gives the same keys in the same order; after a kill as well.
    let told = |it: ImportKeysResponse| -> (Vec<_>, _) {
        (it.keys.into_iter().map(unused).collect(), it.revision)
    };
    let made = told(made);
    assert_eq!(told(acme.admin.import_keys(request.clone()).await.unwrap()), made);
    acme.server.kill();
    let server = acme.home.start().await;
    let admin = server.client(&acme.admin_secret);
    assert_eq!(told(admin.import_keys(request.clone()).await.unwrap()), made);
    let operator = server.client(&acme.home.admin_key());
    assert!(operator.ask(&foreign(7), &["a:b"]).await.allowed);
    // Without its idempotency key it is another request, for secrets that are in use. The
    // name comes first.
    let plain = ImportKeysRequest { idempotency_key: String::new(), ..request };
    let status = rejected(admin.import_keys(plain).await, "KEY_NAME_TAKEN");
    assert!(status.message().starts_with("`keys[0]`: "), "{status:?}");
    server.stop().await;
}

#[tokio::test]
async fn an_import_is_all_or_nothing_and_names_what_is_wrong() {
    let acme = Acme::new().await;
    acme.key("taken", &["a:b"]).await;
    let check = async |client: &Client, keys: Vec<ImportedKey>, reason: &str, place: usize| {
        let before = acme.writes();
        let status = rejected(client.import_keys(import(keys)).await, reason);
        assert!(status.message().starts_with(&format!("`keys[{place}]`: ")), "{status:?}");
        assert_eq!(acme.writes(), before);
    };
    let good = || imported(&foreign(1), "good");
    let admin = &acme.admin;
    check(admin, vec![good(), imported(&foreign(2), "taken")], "KEY_NAME_TAKEN", 1).await;
    check(admin, vec![good(), imported(&foreign(2), "good")], "KEY_NAME_TAKEN", 1).await;
    check(admin, vec![good(), imported(&foreign(1), "other")], "SECRET_IN_USE", 1).await;
    let wide = Some(Scopes { permissions: texts(&["c:d"]) });
    let (_, limited) = acme.key("limited", &["api-keys:write", "a:b"]).await;
    let limited = admin.with_key(&limited);
    let wide = ImportedKey { scopes: wide, ..imported(&foreign(2), "wide") };
    check(&limited, vec![good(), wide], "PERMISSION_NOT_HELD", 1).await;
    let nothing = ImportedKey { scopes: None, ..good() };
    check(admin, vec![nothing], "KEY_WITHOUT_PERMISSIONS", 0).await;
    let nobody = "sva_00000000000000000000000009";
    let nobody = ImportedKey { service_account_id: nobody.into(), ..good() };
    check(admin, vec![nobody], "SERVICE_ACCOUNT_NOT_FOUND", 0).await;
    let role = ImportedKey { role_ids: texts(&["rol_0000000000000000000000000Z"]), ..good() };
    check(admin, vec![role], "ROLE_NOT_FOUND", 0).await;
    let wrong = ImportKeysRequest { expected_revision: Some(0), ..import(vec![good()]) };
    rejected(admin.import_keys(wrong).await, "WRONG_EXPECTED_REVISION");
    // Nobody took the secret meanwhile.
    admin.import_keys(import(vec![good()])).await.unwrap();
    // A revoked one does not come back by being imported once more.
    admin.revoke_keys(list(&[], &[&foreign(1)])).await.unwrap();
    check(admin, vec![imported(&foreign(1), "once more")], "SECRET_IN_USE", 0).await;
    assert_eq!(acme.code(&foreign(1)).await, DecisionCode::Revoked);
}

#[tokio::test]
async fn a_secret_is_one_key_in_the_whole_installation() {
    let acme = Acme::new().await;
    let other = acme.operator.organization("globex", "glx", "").await;
    let request = |organization: &str, text: &str| ImportKeysRequest {
        organization_id: organization.into(),
        ..import(vec![imported(text, &format!("of {text}"))])
    };
    for round in 0..10 {
        let text = foreign(round);
        let racers: Vec<_> = (0..6)
            .map(|racer| {
                let organization = if racer % 2 == 0 { &acme.id } else { &other };
                let (operator, request) = (acme.operator.clone(), request(organization, &text));
                tokio::spawn(async move { operator.import_keys(request).await })
            })
            .collect();
        let mut won = 0;
        for racer in racers {
            match racer.await.unwrap() {
                Ok(_) => won += 1,
                Err(status) => {
                    let reason = super::support::reason(&status);
                    let known = ["CONTENDED", "SECRET_IN_USE", "KEY_NAME_TAKEN"];
                    assert!(known.contains(&reason.as_str()), "{status:?}");
                }
            }
        }
        assert_eq!(won, 1, "round {round}");
        let owner = acme.operator.ask(&text, &[]).await.organization_id;
        // Whoever tries again is told why not, without being told whose it is.
        let loser = if owner == acme.id { &other } else { &acme.id };
        let status =
            rejected(acme.operator.import_keys(request(loser, &text)).await, "SECRET_IN_USE");
        assert!(!status.message().contains(&owner), "{status:?}");
    }
}

/// An import that is done must not end in an answer that its client does not take.
#[tokio::test]
async fn the_answer_to_the_largest_import_is_one_that_clients_take() {
    let acme = Acme::new().await;
    // Short to say, and each name of a permission or a service is worth a warning.
    let role_ids = texts(&[DNS_MANAGER]);
    let permissions: Vec<_> = (0..100).map(|n| format!("a:b{n}")).collect();
    let services: Vec<_> = (0..50).map(|n| format!("s{n}")).collect();
    let keys = (0..900).map(|n| ImportedKey {
        role_ids: role_ids.clone(),
        scopes: Some(Scopes { permissions: permissions.clone() }),
        services: Some(ServiceAccess { services: services.clone() }),
        ..imported(&foreign(n), &format!("legacy {n}"))
    });
    let request = import(keys.collect());
    assert!(request.encoded_len() > 900_000, "{}", request.encoded_len());
    let made = acme.admin.import_keys(request).await.unwrap().keys;
    assert_eq!(made.len(), 900);
    assert!(made[0].warnings.len() >= 100 && made[899].warnings.is_empty());
    assert_eq!(acme.get(&made[899].id).await.warnings, made[0].warnings);
}

#[tokio::test]
async fn leaked_keys_are_revoked_wherever_they_are() {
    let acme = Acme::new().await;
    let other = acme.operator.organization("globex", "glx", "").await;
    let theirs = acme.operator.create_key(scoped(&other, "t", &["a:b"])).await.unwrap();
    let theirs_id = theirs.key.unwrap().id;
    let (own_id, own) = acme.key("own", &["a:b"]).await;
    let (_, second) = acme.key("second", &["a:b"]).await;
    acme.admin.import_keys(import(vec![imported(&foreign(1), "legacy")])).await.unwrap();
    // A tenant ends its own; others are unknown to it, as what never was.
    let request = list(&[&own_id, &theirs_id], &[&theirs.secret, &own, "vtx_live_nonsense"]);
    let answer = acme.admin.revoke_keys(request.clone()).await.unwrap();
    assert_eq!(outcomes(&answer), [REVOKED, UNKNOWN, UNKNOWN, REVOKED, UNKNOWN]);
    assert_eq!(answer.keys[1].key_id, "");
    assert_eq!((&answer.keys[0].key_id, &answer.keys[3].key_id), (&own_id, &own_id));
    assert_eq!(acme.code(&theirs.secret).await, DecisionCode::Allowed);
    assert_eq!(acme.code(&own).await, DecisionCode::Revoked);
    // Once more changes nothing: that is why it takes no idempotency key.
    let before = acme.writes();
    let again = acme.admin.revoke_keys(request).await.unwrap();
    assert_eq!(outcomes(&again), [ALREADY, UNKNOWN, UNKNOWN, ALREADY, UNKNOWN]);
    assert_eq!(acme.writes(), before);
    // An operator's list spans organizations, an append for each.
    // Found at the end of a line.
    let found = format!(" {}\r\n", foreign(1));
    let leaked = [theirs.secret.as_str(), &second, &own, &found, &foreign(9)];
    let request = RevokeKeysRequest {
        reason: RevocationReason::KeyCompromise.into(),
        comment: "on a public page".into(),
        ..list(&[], &leaked)
    };
    let answer = acme.operator.revoke_keys(request).await.unwrap();
    assert_eq!(outcomes(&answer), [REVOKED, REVOKED, ALREADY, REVOKED, UNKNOWN]);
    assert_eq!(answer.revisions.len(), 2);
    for secret in leaked[..4].iter().map(|leaked| leaked.trim()) {
        assert_eq!(acme.code(secret).await, DecisionCode::Revoked);
    }
    let key = acme.get(&answer.keys[1].key_id).await.revocation.unwrap();
    assert_eq!(key.reason(), RevocationReason::KeyCompromise);
    assert_eq!(key.comment, "on a public page");
    // Named, an organization is the only one that is looked at.
    let (_, third) = acme.key("third", &["a:b"]).await;
    let elsewhere = RevokeKeysRequest { organization_id: other.clone(), ..list(&[], &[&third]) };
    assert_eq!(outcomes(&acme.operator.revoke_keys(elsewhere).await.unwrap()), [UNKNOWN]);
    let stranger = RevokeKeysRequest { organization_id: other, ..list(&[], &[&third]) };
    rejected(acme.admin.revoke_keys(stranger).await, "OTHER_ORGANIZATION");
    // All or none of an organization: a test key ends no live one.
    let test = keyledger::proto::CreateKeyRequest {
        environment: keyledger::proto::Environment::Test.into(),
        ..scoped("", "tester", &["org:admin"])
    };
    let tester = acme.admin.create_key(test).await.unwrap();
    let request = list(&[], &[&tester.secret, &third]);
    let tester_client = acme.admin.with_key(&tester.secret);
    rejected(tester_client.revoke_keys(request).await, "ENVIRONMENT_NOT_HELD");
    assert_eq!(acme.code(&tester.secret).await, DecisionCode::Allowed);
    // Lists have bounds.
    for request in [list(&[], &[]), list(&["x"; 501], &["y"; 500])] {
        refused(acme.admin.revoke_keys(request).await, Code::InvalidArgument, "`list`");
    }
    refused(
        acme.admin.revoke_keys(RevokeKeysRequest::default()).await,
        Code::InvalidArgument,
        "`which`",
    );
    acme.server.kill();
    let server = acme.home.start().await;
    let operator = server.client(&acme.home.admin_key());
    assert_eq!(operator.ask(&foreign(1), &[]).await.code(), DecisionCode::Revoked);
    assert_eq!(operator.ask(&third, &[]).await.code(), DecisionCode::Allowed);
    server.stop().await;
}

/// Of many who revoke one list at once, each key is one caller's.
#[tokio::test]
async fn what_others_revoked_is_reported_as_theirs() {
    let acme = Acme::new().await;
    let mut keys = Vec::new();
    for number in 0..20 {
        keys.push(acme.key(&format!("key {number}"), &["a:b"]).await.0);
    }
    let racers: Vec<_> = (0..8)
        .map(|_| {
            let ids: Vec<&str> = keys.iter().map(String::as_str).collect();
            let (admin, request) = (acme.admin.clone(), list(&ids, &[]));
            tokio::spawn(async move { admin.revoke_keys(request).await.unwrap() })
        })
        .collect();
    let mut revoked = 0;
    for racer in racers {
        let answer = racer.await.unwrap();
        let own = outcomes(&answer).iter().filter(|it| **it == REVOKED).count();
        assert!(own == 0 || own == keys.len(), "{own}");
        revoked += own;
    }
    assert_eq!(revoked, keys.len());
}
