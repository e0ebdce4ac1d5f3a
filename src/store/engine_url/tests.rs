use super::*;

#[test]
fn a_connection_string_says_where_and_how() {
    let url: EngineUrl =
        "esdb://ad%40min:s%3Ae%2Fc@db.example:1234,other?tls=true&streamPrefix=a_b&lease=700"
            .parse()
            .unwrap();
    assert_eq!(url.user(), Some(("ad@min", "s:e/c")));
    assert_eq!(url.hosts(), "db.example:1234,other:2113");
    assert_eq!((url.stream_prefix(), url.lease()), ("a_b_", Duration::from_millis(700)));
    assert!(url.is_secure() && !url.is_loopback());
    assert_eq!(
        url.for_client(),
        "esdb://db.example:1234,other:2113?tls=true&tlsVerifyCert=true&nodePreference=leader&discoveryInterval=20&maxDiscoverAttempts=5"
    );
    for text in ["esdb://127.0.0.1", "kurrentdb://[::1]:7/", "kdb://localhost?tls=false"] {
        assert!(text.parse::<EngineUrl>().unwrap().is_loopback(), "{text}");
    }
    assert!(!"esdb+discover://localhost".parse::<EngineUrl>().unwrap().is_loopback());
}

#[test]
fn what_is_wrong_is_said_and_nothing_is_repeated() {
    use EngineUrlError as E;
    let value = |name| move |error: E| matches!(error, E::Value { name: it, .. } if it == name);
    let is = |wanted: E| move |error: E| error == wanted;
    type Check = Box<dyn Fn(E) -> bool>;
    let cases: Vec<(&str, Check)> = vec![
        ("", Box::new(is(E::Scheme))),
        ("hunter2", Box::new(is(E::Scheme))),
        ("http://hunter2@a", Box::new(is(E::Scheme))),
        ("esdb+srv://a", Box::new(is(E::Scheme))),
        ("esdb://", Box::new(is(E::Hosts))),
        ("esdb://u:hunter2@", Box::new(is(E::Hosts))),
        ("esdb://u:hunt/er2@a", Box::new(is(E::Hosts))),
        ("esdb://a:0", Box::new(is(E::Hosts))),
        ("esdb://a:", Box::new(is(E::Hosts))),
        ("esdb://a b", Box::new(is(E::Hosts))),
        ("esdb+discover://a,b", Box::new(is(E::Discover))),
        ("esdb://hunter2@a", Box::new(is(E::User))),
        ("esdb://u:%zzhunter2@a", Box::new(is(E::User))),
        ("esdb://a/hunter2", Box::new(is(E::Path))),
        ("esdb://a?hunter2=1", Box::new(is(E::Parameter))),
        ("esdb://a?tls", Box::new(is(E::Parameter))),
        ("esdb://a?tls=true&TLS=true", Box::new(is(E::Twice("tls")))),
        ("esdb://a?tls=hunter2", Box::new(value("tls"))),
        ("esdb://a?nodePreference=follower", Box::new(value("nodePreference"))),
        ("esdb://a?lease=499", Box::new(value("lease"))),
        ("esdb://a?lease=900&defaultDeadline=301", Box::new(is(E::DeadlineAboveLease(900)))),
        ("esdb://a?defaultDeadline=5001", Box::new(is(E::DeadlineAboveLease(15_000)))),
        ("esdb://a?keepAliveInterval=-1", Box::new(value("keepAliveInterval"))),
        ("esdb://a?streamPrefix=a-b", Box::new(value("streamPrefix"))),
        ("esdb://a?userCertFile=/a", Box::new(is(E::ClientCertificate))),
        ("esdb://a?tls=false&tlsCaFile=/a", Box::new(is(E::CaWithoutTls))),
    ];
    for (text, check) in cases {
        let error = text.parse::<EngineUrl>().unwrap_err();
        assert!(check(error), "{text}: {error:?}");
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}

#[test]
fn a_lease_has_room_for_three_calls() {
    let deadline = |text: &str| text.parse::<EngineUrl>().unwrap().deadline().as_millis();
    assert_eq!(deadline("esdb://a"), 5_000);
    assert_eq!(deadline("esdb://a?lease=900"), 300, "where nothing is said, it is what fits");
    assert_eq!(deadline("esdb://a?lease=60000"), 5_000);
    assert_eq!(deadline("esdb://a?defaultDeadline=300&lease=900"), 300);
    assert_eq!(deadline("esdb://a?defaultDeadline=20000&lease=60000"), 20_000);
}

#[test]
fn a_password_is_not_shown() {
    let url: EngineUrl = "esdb://admin:hunter2@a".parse().unwrap();
    assert_eq!(format!("{url:?}"), "EngineUrl(a:2113)");
    assert!(!url.for_client().contains("hunter2"));
}

#[test]
fn files_are_looked_at() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ca file.pem");
    let url = |path: &std::path::Path| {
        let path = encoded(&path.to_string_lossy());
        format!("esdb://a?tlsCaFile={path}").parse::<EngineUrl>().unwrap()
    };
    let problem = || url(&path).check_files().unwrap_err().problem;
    assert_eq!(problem(), "cannot be read");
    std::fs::write(&path, "nothing").unwrap();
    assert_eq!(problem(), "holds no certificate");
    let certificate = rcgen::generate_simple_self_signed(["a".to_owned()]).unwrap();
    std::fs::write(&path, certificate.cert.pem()).unwrap();
    url(&path).check_files().unwrap();
    assert!(url(&path).for_client().ends_with("ca%20file.pem"));
}
