use super::super::signing_key::tests::key;
use super::*;
use projections::event::AuthenticationMethod as Method;

const LIFETIME_S: u32 = 600;

fn terms() -> AccessTerms {
    AccessTerms {
        issuer: "https://ledger.example".to_owned(),
        audience: "services".to_owned(),
        lifetime_s: LIFETIME_S,
    }
}

/// Where the key of this number alone signs.
fn tokens(number: u8) -> AccessTokens {
    let tokens = AccessTokens::new(terms()).unwrap();
    let key = key(number);
    tokens.set_keys([(key.id(), key.public_key())].into_iter());
    tokens
}

fn bearer(number: u128) -> Bearer {
    let at_ms = 1_700_000_000_000;
    Bearer {
        organization_id: OrganizationId::from_parts(at_ms, 1),
        user_id: UserId::from_parts(at_ms, 2),
        session_id: SessionId::from_parts(at_ms, number),
        methods: Methods::of(&[Method::Password, Method::Totp]),
    }
}

fn now() -> Timestamp {
    "2026-11-22T10:00:00.500Z".parse().unwrap()
}

fn token(number: u128) -> String {
    tokens(1).issue(&key(1), bearer(number), now()).unwrap().expose().to_owned()
}

/// A token of these parts, signed with the key of this number.
fn signed(header: &str, payload: &str, number: u8) -> String {
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let text = format!("{}.{}", part(header), part(payload));
    let signature = URL_SAFE_NO_PAD.encode(key(number).sign(text.as_bytes()));
    format!("{text}.{signature}")
}

fn header() -> String {
    format!(r#"{{"alg":"EdDSA","typ":"at+jwt","kid":"{}"}}"#, key(1).id())
}

fn payload() -> String {
    let token = token(3);
    let part = token.split('.').nth(1).unwrap();
    String::from_utf8(URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

#[track_caller]
fn check(token: &str, expected: AccessTokenError) {
    let tokens = tokens(1);
    // Neither is a refusal remembered as anything else.
    for _ in 0..2 {
        assert_eq!(tokens.verify(token, now()), Err(expected), "{token}");
    }
}

#[test]
fn a_token_says_what_was_written_and_nothing_personal() {
    let token = token(3);
    let claims = tokens(1).verify(&token, now()).unwrap();
    let b = bearer(3);
    let expected = Claims {
        organization_id: b.organization_id,
        user_id: b.user_id,
        session_id: b.session_id,
        methods: b.methods,
        issued_at_s: 1_795_341_600,
        expires_at_s: 1_795_342_200,
        key: key(1).id(),
    };
    assert_eq!(claims, expected);
    assert_eq!(signed(&header(), &payload(), 1), token);
    let payload: serde_json::Value = serde_json::from_str(&payload()).unwrap();
    let expected = serde_json::json!({
        "iss": "https://ledger.example", "aud": "services", "sub": b.user_id,
        "tenant_id": b.organization_id, "sid": b.session_id,
        "iat": 1_795_341_600, "nbf": 1_795_341_600, "exp": 1_795_342_200,
        "amr": ["pwd", "otp"],
    });
    assert_eq!(payload, expected);
}

#[test]
fn the_longest_names_of_parties_fit() {
    let name = "\u{1}".repeat(PARTY_CHARS_MAX / 2);
    let terms =
        AccessTerms { issuer: name.clone(), audience: "x".repeat(PARTY_CHARS_MAX), ..terms() };
    let tokens = AccessTokens::new(terms).unwrap();
    tokens.set_keys([(key(1).id(), key(1).public_key())].into_iter());
    let token = tokens.issue(&key(1), bearer(1), now()).unwrap();
    assert!(tokens.verify(token.expose(), now()).is_ok(), "{}", token.expose().len());
}

#[test]
fn one_algorithm_one_type_and_nothing_critical() {
    let h = |text: &str| signed(&header().replace(r#""alg":"EdDSA""#, text), &payload(), 1);
    for other in [
        r#""alg":"none""#,
        r#""alg":"None""#,
        r#""alg":"HS256""#,
        r#""alg":"eddsa""#,
        r#""alg":"Ed25519""#,
        r#""alg":"ES256""#,
        r#""alg":"""#,
        r#""alg":null"#,
    ] {
        check(&h(other), AccessTokenError::Algorithm);
    }
    let none = format!("{}..", URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#));
    check(&none, AccessTokenError::Malformed);
    for other in ["JWT", "jwt", "application/at+jwt", "AT+JWT", ""] {
        check(&signed(&header().replace("at+jwt", other), &payload(), 1), AccessTokenError::Type);
    }
    check(
        &signed(&header().replace(r#""typ":"at+jwt","#, ""), &payload(), 1),
        AccessTokenError::Type,
    );
    for crit in [r#""crit":["b64"]"#, r#""crit":[]"#, r#""crit":"exp""#] {
        let critical = header().replace('}', &format!(",{crit}}}"));
        check(&signed(&critical, &payload(), 1), AccessTokenError::Critical);
    }
}

/// HS256 with the public key as the secret, in every form in which it goes about: the
/// confusion of libraries that let the token choose.
#[test]
fn a_public_key_is_no_shared_secret() {
    let public_key = key(1).public_key();
    let pem_like = URL_SAFE_NO_PAD.encode(public_key.0);
    for secret in [&public_key.0[..], pem_like.as_bytes(), public_key.to_string().as_bytes()] {
        for alg in ["HS256", "EdDSA"] {
            let head = header().replace("EdDSA", alg);
            let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
            let text = format!("{}.{}", part(&head), part(&payload()));
            let hmac_key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, secret);
            let tag = aws_lc_rs::hmac::sign(&hmac_key, text.as_bytes());
            let short = format!("{text}.{}", URL_SAFE_NO_PAD.encode(tag.as_ref()));
            check(&short, AccessTokenError::Malformed);
            let long = [tag.as_ref(), tag.as_ref()].concat();
            let long = format!("{text}.{}", URL_SAFE_NO_PAD.encode(long));
            let expected = match alg {
                "EdDSA" => AccessTokenError::Signature,
                _ => AccessTokenError::Algorithm,
            };
            check(&long, expected);
        }
    }
}

#[test]
fn a_head_is_json_as_it_is_written_here() {
    let kid = key(1).id();
    for bad in [
        String::new(),
        "{}x".to_owned(),
        "null".to_owned(),
        format!(" {}", header()),
        format!("{}{}", header(), header()),
        format!("{} x", header()),
        format!(r#"["EdDSA","at+jwt","{kid}"]"#),
        header().replace('}', r#","alg":"EdDSA"}"#),
        header().replace('}', r#","alg":"none"}"#),
        header().replace('}', &format!(r#","kid":"{kid}"}}"#)),
        header().replace('}', r#","jku":"https://evil.example/jwks"}"#),
        header().replace('}', r#","jwk":{}}"#),
        header().replace('}', r#","cty":"JWT"}"#),
        header().replace(r#""EdDSA""#, "1"),
    ] {
        check(&signed(&bad, &payload(), 1), AccessTokenError::Malformed);
    }
    for other in ["", "x", &kid.to_string().to_uppercase(), &"0".repeat(32), "../../etc/passwd"] {
        let head = header().replace(&kid.to_string(), other);
        check(&signed(&head, &payload(), 1), AccessTokenError::UnknownKey);
    }
    check(
        &signed(&header().replace(r#","kid":"#, r#","kid":null,"x":"#), &payload(), 1),
        AccessTokenError::Malformed,
    );
}

#[test]
fn a_token_is_three_parts_of_strict_base64() {
    let good = token(3);
    let parts: Vec<&str> = good.split('.').collect();
    let [head, body, signature] = parts[..] else { panic!("three parts") };
    for bad in [
        String::new(),
        ".".to_owned(),
        "..".to_owned(),
        head.to_owned(),
        format!("{head}.{body}"),
        format!("{head}.{body}."),
        format!("{head}.{body}.{signature}."),
        format!("{head}.{body}.{signature}.{signature}"),
        format!(".{head}.{body}.{signature}"),
        format!("{head}.{body}.{signature}="),
        format!("{head}.{body}.{signature}=="),
        format!("{head}=.{body}.{signature}"),
        format!("{head}.{body}==.{signature}"),
        format!("{head}.{body}.{signature}\n"),
        format!(" {head}.{body}.{signature}"),
        format!("{head}.{body}.{}", &signature[..85]),
        format!("{head}.{body}.{signature}AA"),
        good.replace(['-', '_'], "+"),
    ]
    .into_iter()
    .filter(|bad| *bad != good)
    {
        check(&bad, AccessTokenError::Malformed);
    }
    // The last character of a signature carries four bits that mean nothing: one spelling alone counts.
    let last = signature.chars().last().unwrap();
    for other in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_".chars() {
        let text = format!("{head}.{body}.{}{other}", &signature[..85]);
        let verified = tokens(1).verify(&text, now());
        assert_eq!(verified.is_ok(), other == last, "{other}");
    }
    check(&"x".repeat(TOKEN_BYTES_MAX), AccessTokenError::Malformed);
    check(&"x".repeat(TOKEN_BYTES_MAX + 1), AccessTokenError::TooLong);
}

/// Every bit of what is signed and of the signature counts.
#[test]
fn every_flipped_bit_is_noticed() {
    let good = token(3);
    let tokens = tokens(1);
    assert!(tokens.verify(&good, now()).is_ok());
    for at in 0..good.len() {
        for bit in 0..7 {
            let mut bytes = good.clone().into_bytes();
            bytes[at] ^= 1 << bit;
            let flipped = String::from_utf8(bytes).unwrap();
            assert!(tokens.verify(&flipped, now()).is_err(), "{at} {bit}");
        }
    }
}

#[test]
fn the_claims_are_ours() {
    let p = |from: &str, to: &str| {
        let payload = payload();
        assert!(payload.contains(from), "{payload}");
        signed(&header(), &payload.replace(from, to), 1)
    };
    check(&p("https://ledger.example", "https://evil.example"), AccessTokenError::Issuer);
    check(&p("https://ledger.example", "https://ledger.example/"), AccessTokenError::Issuer);
    check(&p(r#""services""#, r#""others""#), AccessTokenError::Audience);
    check(&p(r#""services""#, r#"["services"]"#), AccessTokenError::Malformed);
    check(&p(r#""amr""#, r#""admin":true,"amr""#), AccessTokenError::Malformed);
    check(&p(r#""amr""#, r#""exp":9999999999,"amr""#), AccessTokenError::Malformed);
    check(&p("usr_", "acc_"), AccessTokenError::Malformed);
    check(&signed(&header(), &format!("{}{{}}", payload()), 1), AccessTokenError::Malformed);
    // Another's signature, and another's token.
    check(&signed(&header(), &payload(), 2), AccessTokenError::Signature);
    let other = header().replace(&key(1).id().to_string(), &key(2).id().to_string());
    check(&signed(&other, &payload(), 2), AccessTokenError::UnknownKey);
    check(&signed(&other, &payload(), 1), AccessTokenError::UnknownKey);
}

/// The times are looked at on every call, of remembered tokens too.
#[test]
fn a_token_is_good_from_its_second_to_its_last() {
    let tokens = tokens(1);
    let token = token(3);
    let at = |ms: i64| {
        let whole_second: Timestamp = "2026-11-22T10:00:00.000Z".parse().unwrap();
        tokens.verify(&token, whole_second.saturating_add_millis(ms)).map(|_| ())
    };
    let end = i64::from(LIFETIME_S) * 1_000;
    for _ in 0..2 {
        assert_eq!(at(-1), Err(AccessTokenError::NotYetValid));
        assert_eq!(at(0), Ok(()));
        assert_eq!(at(end - 1), Ok(()));
        assert_eq!(at(end), Err(AccessTokenError::Expired));
    }
    assert_eq!(tokens.verify(&token, Timestamp::MAX), Err(AccessTokenError::Expired));
    assert_eq!(tokens.verify(&token, Timestamp::MIN), Err(AccessTokenError::NotYetValid));
}

/// A key that is taken away takes with it what it signed, remembered or not.
#[test]
fn a_key_that_is_retired_signs_no_more() {
    let tokens = tokens(1);
    let (seen, unseen) = (token(1), token(2));
    assert!(tokens.verify(&seen, now()).is_ok());
    tokens.set_keys([(key(2).id(), key(2).public_key())].into_iter());
    for token in [&seen, &unseen] {
        assert_eq!(tokens.verify(token, now()), Err(AccessTokenError::UnknownKey));
    }
    let both = [key(1), key(2)].map(|key| (key.id(), key.public_key()));
    tokens.set_keys(both.into_iter());
    let second = tokens.issue(&key(2), bearer(3), now()).unwrap();
    for token in [&seen, &unseen, second.expose()] {
        assert!(tokens.verify(token, now()).is_ok());
    }
}

#[test]
fn what_is_remembered_is_bounded_and_only_what_was_good() {
    let tokens = tokens(1);
    let count = || {
        let generations = tokens.generations.load();
        generations.newer.len() + generations.older.len()
    };
    for number in 0..REMEMBERED_MAX as u128 * 5 {
        let token = tokens.issue(&key(1), bearer(number), now()).unwrap();
        for _ in 0..2 {
            assert_eq!(
                tokens.verify(token.expose(), now()).map(|claims| claims.session_id),
                Ok(bearer(number).session_id)
            );
        }
        assert!(count() <= REMEMBERED_MAX * 2);
    }
    assert!(count() > REMEMBERED_MAX);
    let before = count();
    for bad in ["x", "a.b.c", &signed(&header(), &payload(), 2)] {
        assert!(tokens.verify(bad, now()).is_err());
    }
    assert_eq!(count(), before);
}

#[test]
fn a_token_that_is_remembered_allocates_nothing() {
    let tokens = tokens(1);
    let token = token(3);
    let first = allocation_counter::measure(|| assert!(tokens.verify(&token, now()).is_ok()));
    assert!(first.count_total > 0, "what is counted is counted");
    let info = allocation_counter::measure(|| {
        for _ in 0..100 {
            assert!(tokens.verify(&token, now()).is_ok());
        }
    });
    assert_eq!(info.count_total, 0);
}

#[test]
fn each_refusal_has_its_word() {
    use AccessTokenError as E;
    for (error, refusal) in [
        (E::TooLong, Refusal::Malformed),
        (E::Malformed, Refusal::Malformed),
        (E::Critical, Refusal::Malformed),
        (E::Algorithm, Refusal::Malformed),
        (E::Type, Refusal::Malformed),
        (E::UnknownKey, Refusal::Unknown),
        (E::Signature, Refusal::Unknown),
        (E::Issuer, Refusal::Unknown),
        (E::Audience, Refusal::Unknown),
        (E::NotYetValid, Refusal::Unknown),
        (E::Expired, Refusal::Expired),
    ] {
        assert_eq!(error.refusal(), refusal, "{error}");
    }
}
