//! Which credential decides: tables of headers, and every pair of kinds over every header.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Copy, Debug)]
enum Header<'a> {
    Authorization(&'a str),
    ApiKey(&'a str),
    AdminApiKey(&'a str),
    MasterKey(&'a str),
}
use Header::{AdminApiKey, ApiKey, Authorization, MasterKey};

const GLOBAL: &str = "the-global-key";

fn decided<'a>(headers: &[Header<'a>]) -> Result<Deciding<'a>, Code> {
    let mut presented = Presented::default();
    for header in headers {
        match *header {
            Authorization(value) => presented.authorization(value),
            ApiKey(value) => presented.api_key(value, |text| text == GLOBAL),
            AdminApiKey(value) => presented.admin_api_key(value),
            MasterKey(value) => presented.master_key(value),
        }
    }
    presented.deciding()
}

/// In words, as [`Deciding`] holds secrets and has no `Debug`.
fn words(decided: Result<Deciding<'_>, Code>) -> String {
    match decided {
        Ok(Deciding::BreakGlass(text)) => format!("break-glass {text}"),
        Ok(Deciding::Session(text)) => format!("session {text}"),
        Ok(Deciding::ApiKey(text)) => format!("api key {text}"),
        Ok(Deciding::GlobalKey(text)) => format!("global key {text}"),
        Err(code) => format!("{code:?}"),
    }
}

#[track_caller]
fn check(headers: &[Header<'_>], expected: Result<Deciding<'_>, Code>) {
    assert_eq!(words(decided(headers)), words(expected), "{headers:?}");
}

#[test]
fn the_first_kind_present_decides() {
    check(&[], Err(Code::NoCredential));
    check(&[ApiKey("k")], Ok(Deciding::ApiKey("k")));
    check(&[Authorization("Bearer k")], Ok(Deciding::ApiKey("k")));
    check(&[Authorization("bearer  k ")], Ok(Deciding::ApiKey("k")));
    check(&[AdminApiKey(" k ")], Ok(Deciding::ApiKey("k")));
    check(&[ApiKey("k"), Authorization("Bearer a.b.c")], Ok(Deciding::Session("a.b.c")));
    check(&[ApiKey("k"), Authorization("Basic xyz")], Ok(Deciding::ApiKey("k")));
    check(&[Authorization("Bearer klbg_x")], Ok(Deciding::BreakGlass("klbg_x")));
    check(&[Authorization("Bearer klbg_a.b.c")], Ok(Deciding::BreakGlass("klbg_a.b.c")));
    check(&[MasterKey("m"), Authorization("Bearer a.b.c")], Ok(Deciding::BreakGlass("m")));
    // A grant's token is one behind `Bearer` alone.
    check(&[ApiKey("klbg_x")], Ok(Deciding::ApiKey("klbg_x")));
}

#[test]
fn the_global_key_is_one_in_its_own_header_and_where_nothing_else_is_shown() {
    check(&[ApiKey(GLOBAL)], Ok(Deciding::GlobalKey(GLOBAL)));
    check(&[ApiKey(" the-global-key ")], Ok(Deciding::GlobalKey(GLOBAL)));
    check(&[AdminApiKey(GLOBAL)], Ok(Deciding::ApiKey(GLOBAL)));
    check(&[Authorization("Bearer the-global-key")], Ok(Deciding::ApiKey(GLOBAL)));
    check(&[ApiKey(GLOBAL), AdminApiKey(GLOBAL)], Ok(Deciding::ApiKey(GLOBAL)));
    check(&[ApiKey(GLOBAL), Authorization("Bearer k")], Ok(Deciding::ApiKey("k")));
    check(&[ApiKey(GLOBAL), ApiKey("k")], Ok(Deciding::ApiKey("k")));
    check(&[ApiKey("k"), ApiKey(GLOBAL), ApiKey("j")], Err(Code::Ambiguous));
    check(&[ApiKey(GLOBAL), ApiKey("")], Err(Code::Malformed));
    check(&[ApiKey(GLOBAL), Authorization("Basic xyz")], Ok(Deciding::GlobalKey(GLOBAL)));
}

#[test]
fn two_of_a_kind_are_one_only_if_they_are_the_same() {
    check(&[ApiKey("k"), Authorization("Bearer k")], Ok(Deciding::ApiKey("k")));
    check(&[ApiKey("k"), Authorization("Bearer j")], Err(Code::Ambiguous));
    check(&[ApiKey("k"), ApiKey("j"), ApiKey("k")], Err(Code::Ambiguous));
    check(&[ApiKey(GLOBAL), ApiKey(GLOBAL)], Ok(Deciding::GlobalKey(GLOBAL)));
    check(
        &[Authorization("Bearer a.b.c"), Authorization("Bearer a.b.d"), ApiKey("k")],
        Err(Code::Ambiguous),
    );
    check(&[MasterKey("m"), Authorization("Bearer klbg_x")], Err(Code::Ambiguous));
    check(
        &[MasterKey("klbg_x"), Authorization("Bearer klbg_x")],
        Ok(Deciding::BreakGlass("klbg_x")),
    );
}

#[test]
fn what_is_no_credential_is_malformed_and_is_not_looked_up() {
    check(&[Authorization("Basic xyz")], Err(Code::Malformed));
    check(&[Authorization("Bearer")], Err(Code::Malformed));
    check(&[MasterKey(""), ApiKey("k")], Err(Code::Malformed));
    let longest = "x".repeat(CREDENTIAL_CHARS_MAX);
    check(&[ApiKey(&longest)], Ok(Deciding::ApiKey(&longest)));
    for text in ["", &"x".repeat(CREDENTIAL_CHARS_MAX + 1)] {
        let mut presented = Presented::default();
        presented.api_key(text, |_| panic!("it is looked up"));
        assert!(presented.deciding().err() == Some(Code::Malformed));
    }
}

/// Every kind, with every header that carries it.
const CARRIERS: &[(&str, &[Carrier])] = &[
    ("break-glass", &[|it| (MasterKey(it), it.into()), |it| bearer("klbg_", it)]),
    ("session", &[|it| bearer("a.b.", it)]),
    (
        "api key",
        &[|it| (ApiKey(it), it.into()), |it| (AdminApiKey(it), it.into()), |it| bearer("", it)],
    ),
    ("global key", &[|_| (ApiKey(GLOBAL), GLOBAL.into())]),
];

/// A header that carries a text, and the credential that it then is.
type Carrier = fn(&'static str) -> (Header<'static>, String);

fn bearer(head: &str, text: &str) -> (Header<'static>, String) {
    let value: &'static str = Box::leak(format!("Bearer {head}{text}").into_boxed_str());
    (Authorization(value), format!("{head}{text}"))
}

#[test]
fn of_every_two_kinds_the_first_decides_over_every_header_and_in_any_order() {
    for (place, (first, carriers)) in CARRIERS.iter().enumerate() {
        for carry in *carriers {
            let (one, text) = carry("one");
            assert_eq!(words(decided(&[one])), format!("{first} {text}"));
            for (_, others) in CARRIERS.iter().skip(place + 1) {
                for other in *others {
                    let (weaker, _) = other("two");
                    for headers in [[one, weaker], [weaker, one]] {
                        assert_eq!(words(decided(&headers)), format!("{first} {text}"));
                    }
                    // What is wrong with the stronger one is no reason to take the weaker.
                    let (another, _) = carry("three");
                    if *first != "global key" {
                        assert_eq!(words(decided(&[one, weaker, another])), "Ambiguous");
                    }
                }
            }
        }
    }
}

fn header() -> impl Strategy<Value = Header<'static>> {
    let values: &[&'static str] = &["", "k", "j", "a.b.c", "a.b.d", "klbg_x", GLOBAL];
    let bearers: &[&'static str] = &[
        "Basic x",
        "Bearer ",
        "Bearer k",
        "Bearer j",
        "Bearer a.b.c",
        "Bearer a.b.d",
        "Bearer klbg_x",
        "Bearer the-global-key",
    ];
    let values = || prop::sample::select(values.to_vec());
    prop_oneof![
        prop::sample::select(bearers.to_vec()).prop_map(Authorization),
        values().prop_map(ApiKey),
        values().prop_map(AdminApiKey),
        values().prop_map(MasterKey),
    ]
}

/// The same, worked out by hand: all credentials by kind, then the first kind that has any.
fn model(headers: &[Header<'_>]) -> String {
    let mut kinds: [Vec<&str>; 4] = Default::default();
    let mut unusable = false;
    for header in headers {
        let (kind, text) = match *header {
            MasterKey(text) => (0, text),
            ApiKey(GLOBAL) => (3, GLOBAL),
            ApiKey(text) | AdminApiKey(text) => (2, text),
            Authorization(value) => match value.strip_prefix("Bearer ").map(str::trim) {
                None => {
                    unusable = true;
                    continue;
                }
                Some("") => {
                    unusable = true;
                    continue;
                }
                Some(text) if text.starts_with("klbg_") => (0, text),
                Some(text) if text.split('.').count() == 3 => (1, text),
                Some(text) => (2, text),
            },
        };
        kinds[kind].push(text);
    }
    for (name, texts) in ["break-glass", "session", "api key", "global key"].iter().zip(kinds) {
        let Some(first) = texts.first() else { continue };
        if texts.iter().any(|text| text != first) {
            return "Ambiguous".into();
        }
        return if first.is_empty() { "Malformed".into() } else { format!("{name} {first}") };
    }
    if unusable { "Malformed".into() } else { "NoCredential".into() }
}

proptest! {
    #[test]
    fn whatever_is_presented_the_first_kind_decides(headers in prop::collection::vec(header(), 0..6)) {
        prop_assert_eq!(words(decided(&headers)), model(&headers), "{:?}", headers);
    }
}
