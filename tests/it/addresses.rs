//! Keys that are for certain addresses: asked about, and shown by callers themselves.

use keyledger::proto;
use keyledger::proto::{CreateKeyRequest, DecisionCode, VerifyRequest};
use tonic::Code;

use super::support::{Acme, Home, about, reason, scoped, texts};

/// A key's secret, limited to these networks.
async fn limited(acme: &Acme, name: &str, scopes: &[&str], networks: &[&str]) -> String {
    let request =
        CreateKeyRequest { allowed_ips: texts(networks), ..scoped(&acme.id, name, scopes) };
    acme.operator.create_key(request).await.unwrap().secret
}

fn from(credential: &str, client_ip: &str, forwarded_for: &[&str]) -> VerifyRequest {
    VerifyRequest {
        client_ip: client_ip.into(),
        forwarded_for: texts(forwarded_for),
        ..about(credential, &["dns:read"])
    }
}

#[tokio::test]
async fn a_key_is_accepted_from_its_addresses_alone() {
    let trusts = |trusted: &'static str| {
        Acme::on(Home::new(), move |launch| launch.args(&["--trusted-proxies", trusted]))
    };
    let acme = trusts("10.0.0.0/8").await;
    let key = limited(&acme, "k", &["dns:read"], &["192.0.2.0/24", "2001:db8::/32"]).await;
    use DecisionCode::{Allowed, IpNotAllowed};
    for (client_ip, forwarded, code) in [
        ("192.0.2.7", &[][..], Allowed),
        ("::ffff:192.0.2.7", &[], Allowed),
        ("2001:db8::7", &[], Allowed),
        ("198.51.100.7", &[], IpNotAllowed),
        ("", &[], IpNotAllowed),
        // Only a trusted proxy is believed, and only what it saw itself.
        ("198.51.100.7", &["192.0.2.7"], IpNotAllowed),
        ("10.0.0.1", &["192.0.2.7"], Allowed),
        ("10.0.0.1", &["192.0.2.7, 198.51.100.7"], IpNotAllowed),
        ("10.0.0.1", &["198.51.100.7, 192.0.2.7", "10.0.0.2"], Allowed),
        ("10.0.0.1", &[], IpNotAllowed),
    ] {
        let answer = acme.operator.code(from(&key, client_ip, forwarded)).await;
        assert_eq!(answer, code, "{client_ip} {forwarded:?}");
    }
    for (client_ip, forwarded, field) in [
        ("192.0.2", &[][..], "client_ip"),
        ("192.0.2.7:80", &[], "client_ip"),
        ("", &["192.0.2.7"], "client_ip"),
        ("10.0.0.1", &["unknown"], "forwarded_for"),
        ("10.0.0.1", &["192.0.2.7"; 9], "forwarded_for"),
    ] {
        let status = acme.operator.verify(from(&key, client_ip, forwarded)).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        assert!(status.message().contains(&format!("`{field}`")), "{status:?}");
    }
    // A key for anywhere is for nowhere in particular, too.
    let (_, anywhere) = acme.key("anywhere", &["dns:read"]).await;
    for client_ip in ["198.51.100.7", ""] {
        assert_eq!(acme.operator.code(from(&anywhere, client_ip, &[])).await, Allowed);
    }
}

/// The ledger's own callers are held to the addresses of their keys.
#[tokio::test]
async fn callers_come_from_their_keys_addresses() {
    let acme =
        Acme::on(Home::new(), |launch| launch.args(&["--trusted-proxies", "127.0.0.1"])).await;
    let reader = &["api-keys:read"];
    let here = limited(&acme, "here", reader, &["127.0.0.0/8"]).await;
    let elsewhere = limited(&acme, "elsewhere", reader, &["192.0.2.0/24"]).await;
    acme.operator.with_key(&here).list_keys(Default::default()).await.unwrap();
    let refused = acme.operator.with_key(&elsewhere).list_keys(Default::default()).await;
    let status = refused.unwrap_err();
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::Unauthenticated, "IP_NOT_ALLOWED")
    );
    // Through a proxy that is trusted, the client's address counts.
    let mut keys = proto::key_service_client::KeyServiceClient::new(acme.server.channel());
    let mut through = async |key: &str, client: &str| {
        let mut request = acme.operator.with_key(key).request(proto::ListKeysRequest::default());
        request.metadata_mut().insert("x-forwarded-for", client.parse().unwrap());
        keys.list_keys(request).await.map(|_| ())
    };
    through(&elsewhere, "192.0.2.7").await.unwrap();
    through(&elsewhere, "198.51.100.7").await.unwrap_err();
    through(&here, "192.0.2.7").await.unwrap_err();
}
