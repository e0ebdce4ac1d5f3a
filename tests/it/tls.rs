//! TLS: whom the server is to clients, whom it lets in, and what happens when its files
//! change while it runs.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use keyledger::proto::{self, DecisionCode};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::support::{Acme, DEADLINE, Home, Launch, POLL, Process, scoped};

/// Whoever signs certificates here.
struct Authority {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key, in PEM.
struct Pair {
    certificate: String,
    key: String,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().pem();
        Self { certificate, issuer: Issuer::new(params, key) }
    }

    fn sign(&self, name: &str) -> Pair {
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        Pair { certificate, key: key.serialize_pem() }
    }
}

fn write(path: &Path, text: &str, mode: u32) {
    // Renamed into place, as whoever renews certificates does it.
    let draft = path.with_extension("new");
    std::fs::write(&draft, text).unwrap();
    std::fs::set_permissions(&draft, PermissionsExt::from_mode(mode)).unwrap();
    std::fs::rename(draft, path).unwrap();
}

/// The files of a server's TLS, beside its data.
struct Files {
    certificate: PathBuf,
    key: PathBuf,
    ca: PathBuf,
}

impl Files {
    fn of(home: &Home, pair: &Pair) -> Self {
        let at = |name: &str| home.path().join(name);
        let files =
            Self { certificate: at("tls.pem"), key: at("tls.key"), ca: at("client-ca.pem") };
        files.put(pair);
        files
    }

    fn put(&self, pair: &Pair) {
        write(&self.certificate, &pair.certificate, 0o644);
        write(&self.key, &pair.key, 0o600);
    }

    fn launch(&self, home: &Home) -> Launch {
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        let (certificate, key) = (text(&self.certificate), text(&self.key));
        home.launch().args(&["--tls-certificate", &certificate, "--tls-key", &key])
    }

    fn launch_with_client_ca(&self, home: &Home, ca: &Authority) -> Launch {
        write(&self.ca, &ca.certificate, 0o644);
        self.launch(home).args(&["--tls-client-ca", self.ca.to_str().unwrap()])
    }
}

fn trusting(authority: &Authority) -> ClientTlsConfig {
    ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&authority.certificate))
}

fn showing(tls: ClientTlsConfig, pair: &Pair) -> ClientTlsConfig {
    tls.identity(Identity::from_pem(&pair.certificate, &pair.key))
}

fn endpoint(address: SocketAddr, tls: ClientTlsConfig) -> Endpoint {
    Endpoint::from_shared(format!("https://localhost:{}", address.port()))
        .unwrap()
        .connect_timeout(DEADLINE)
        .tls_config(tls)
        .unwrap()
}

async fn healthy(channel: Channel) -> bool {
    let answer = HealthClient::new(channel).check(HealthCheckRequest::default()).await;
    answer.is_ok_and(|it| it.into_inner().status() == ServingStatus::Serving)
}

/// Starts a server and waits until it serves this client.
async fn start(launch: Launch, tls: ClientTlsConfig) -> (Process, SocketAddr, Channel) {
    let mut process = launch.spawn();
    let address = process.address();
    let channel = endpoint(address, tls).connect().await.unwrap();
    let until = Instant::now() + DEADLINE;
    while !healthy(channel.clone()).await {
        assert!(Instant::now() < until, "never served; it said: {}", process.said());
        tokio::time::sleep(POLL).await;
    }
    (process, address, channel)
}

/// A handshake of TLS 1.3 ends for the client before the server has looked at the
/// client's certificate: only an answer tells.
async fn is_served(address: SocketAddr, tls: ClientTlsConfig) -> bool {
    match endpoint(address, tls).connect().await {
        Ok(channel) => healthy(channel).await,
        Err(_) => false,
    }
}

fn says(process: &mut Process, what: &str) {
    process.wait_for(|line| line.contains(what).then_some(()));
}

#[tokio::test]
async fn credentials_cross_the_network_encrypted() {
    let authority = Authority::new("ours");
    let home = Home::new();
    let files = Files::of(&home, &authority.sign("localhost"));
    // No word about plaintext is needed for an address that others can reach.
    let launch = files.launch(&home).listen("0.0.0.0:0");
    let (_process, address, channel) = start(launch, trusting(&authority)).await;
    let mut client =
        proto::verification_service_client::VerificationServiceClient::new(channel.clone());
    let mut request = tonic::Request::new(proto::VerifyRequest {
        credential: home.admin_key(),
        ..Default::default()
    });
    let bearer = format!("Bearer {}", home.admin_key()).parse().unwrap();
    request.metadata_mut().insert("authorization", bearer);
    assert_eq!(client.verify(request).await.unwrap().into_inner().code(), DecisionCode::Allowed);

    let stranger = Authority::new("ours");
    assert!(!is_served(address, trusting(&stranger)).await, "another authority's");
    let plain = Endpoint::from_shared(format!("http://127.0.0.1:{}", address.port())).unwrap();
    let plain = match plain.connect().await {
        Ok(channel) => healthy(channel).await,
        Err(_) => false,
    };
    assert!(!plain, "without TLS");
}

#[tokio::test]
async fn where_an_authority_is_named_clients_show_its_certificate() {
    let authority = Authority::new("ours");
    let clients = Authority::new("clients");
    let home = Home::new();
    let files = Files::of(&home, &authority.sign("localhost"));
    let launch = files.launch_with_client_ca(&home, &clients);
    let known = clients.sign("gateway");
    let tls = showing(trusting(&authority), &known);
    let (_process, address, _) = start(launch, tls).await;
    assert!(!is_served(address, trusting(&authority)).await, "shows nothing");
    let other = Authority::new("clients").sign("gateway");
    assert!(!is_served(address, showing(trusting(&authority), &other)).await, "another's");
    let own = showing(trusting(&authority), &authority.sign("gateway"));
    assert!(!is_served(address, own).await, "the server's own authority is not the clients'");
}

#[tokio::test]
async fn files_that_change_are_read_anew_and_open_connections_stay() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let home = Home::new();
    let files = Files::of(&home, &old.sign("localhost"));
    let (mut process, address, channel) = start(files.launch(&home), trusting(&old)).await;
    assert!(!is_served(address, trusting(&new)).await);

    files.put(&new.sign("localhost"));
    process.signal("HUP");
    says(&mut process, "certificates were read anew");
    assert!(is_served(address, trusting(&new)).await);
    assert!(!is_served(address, trusting(&old)).await, "new connections get the new one");
    assert!(healthy(channel.clone()).await, "the open connection goes on");

    // Broken: the certificate of one pair with the key of another. Nobody is told to
    // look; the server looks by itself.
    write(&files.certificate, &old.sign("localhost").certificate, 0o644);
    says(&mut process, "the old ones stay in use");
    let said = process.said();
    let told = said.lines().find(|line| line.contains("the old ones stay in use")).unwrap();
    assert!(told.contains("tls.pem") && told.contains("tls.key"), "{told}");
    assert!(told.contains("\"ERROR\""), "{told}");
    assert!(is_served(address, trusting(&new)).await, "what was read before stays");

    write(&files.key, "nonsense", 0o600);
    process.signal("HUP");
    says(&mut process, "must hold a private key in PEM");
    std::fs::remove_file(&files.key).unwrap();
    process.signal("HUP");
    says(&mut process, "No such file or directory");
    assert!(is_served(address, trusting(&new)).await);

    files.put(&old.sign("localhost"));
    let until = Instant::now() + DEADLINE;
    while !is_served(address, trusting(&old)).await {
        assert!(Instant::now() < until, "{}", process.said());
    }
    assert!(healthy(channel).await, "the first connection is still open");
    assert!(!process.said().contains("PRIVATE KEY"), "no key in the log");
}

#[tokio::test]
async fn the_clients_authority_can_change_too() {
    let authority = Authority::new("ours");
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let home = Home::new();
    let files = Files::of(&home, &authority.sign("localhost"));
    let launch = files.launch_with_client_ca(&home, &old);
    let (before, after) = (old.sign("gateway"), new.sign("gateway"));
    let (mut process, address, _) = start(launch, showing(trusting(&authority), &before)).await;
    write(&files.ca, &new.certificate, 0o644);
    process.signal("HUP");
    says(&mut process, "certificates were read anew");
    assert!(is_served(address, showing(trusting(&authority), &after)).await);
    assert!(!is_served(address, showing(trusting(&authority), &before)).await);
}

#[test]
fn without_tls_there_is_nothing_to_read_and_nothing_ends() {
    let home = Home::new();
    let mut process = home.launch().spawn();
    process.address();
    says(&mut process, "\"ready\"");
    process.signal("HUP");
    says(&mut process, "there is no TLS");
    assert!(!process.ended());
}

#[test]
fn files_that_make_no_tls_are_named_at_start() {
    let authority = Authority::new("ours");
    let home = Home::new();
    let files = Files::of(&home, &authority.sign("localhost"));
    let pair = authority.sign("localhost");
    let refused = |says: &str| {
        let error = files.launch(&home).refused();
        assert!(error.contains(says), "{error}");
    };
    write(&files.key, &pair.key, 0o600);
    refused("tls.key` cannot be used together");
    files.put(&pair);
    for mode in [0o604, 0o644, 0o620, 0o610] {
        std::fs::set_permissions(&files.key, PermissionsExt::from_mode(mode)).unwrap();
        refused(&format!("(mode {mode:o}); run `chmod 600"));
    }
    write(&files.key, &pair.certificate, 0o600);
    refused("tls.key` must hold a private key in PEM");
    files.put(&pair);
    write(&files.certificate, "nothing", 0o644);
    refused("tls.pem` must hold certificates in PEM");
    write(&files.certificate, &"x".repeat(1024 * 1024 + 1), 0o644);
    refused("is longer than");
    std::fs::remove_file(&files.certificate).unwrap();
    refused("tls.pem`");
    files.put(&pair);
    write(&files.ca, &pair.key, 0o600);
    let error = files.launch(&home).args(&["--tls-client-ca", files.ca.to_str().unwrap()]);
    let error = error.refused();
    assert!(error.contains("client-ca.pem` must hold certificates"), "{error}");
    assert!(!home.data().exists(), "nothing was made before the files were looked at");
}

#[tokio::test]
async fn who_is_slow_delays_nobody_and_is_not_waited_for_for_ever() {
    let authority = Authority::new("ours");
    let home = Home::new();
    let files = Files::of(&home, &authority.sign("localhost"));
    let (_process, address, _channel) = start(files.launch(&home), trusting(&authority)).await;
    let mut silent: Vec<TcpStream> =
        (0..8).map(|_| TcpStream::connect(("127.0.0.1", address.port())).unwrap()).collect();
    // Half a handshake is as good as none.
    silent[0].write_all(&[22, 3, 1, 2, 0, 1]).unwrap();
    assert!(is_served(address, trusting(&authority)).await, "others go first");
    for stream in &mut silent {
        assert!(is_open(stream), "they were there all the time");
    }

    // Where no handshake is, the first bytes are waited for as long.
    let plain = Home::new();
    let server = plain.start().await;
    let mut mute = TcpStream::connect(server.address).unwrap();
    mute.write_all(b"PRI * HTTP/2.0").unwrap();
    for mut stream in silent.into_iter().chain([mute]) {
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        // The server may have begun to speak; what counts is that it ends.
        let ended = stream.read_to_end(&mut Vec::new());
        let reset = |error: &std::io::Error| error.kind() == ErrorKind::ConnectionReset;
        assert!(ended.as_ref().map_or_else(reset, |_| true), "{ended:?}");
    }
    assert!(healthy(server.channel()).await, "who has spoken may be silent");
}

fn is_open(stream: &mut TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let read = stream.read_to_end(&mut Vec::new());
    read.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}

/// One more than may be is closed at once; a place that is left is free again.
#[tokio::test]
async fn there_are_only_so_many_connections() {
    let home = Home::new();
    let mut server = home.launch().args(&["--connections-max", "2"]).start().await;
    let second = TcpStream::connect(server.address).unwrap();
    let mut third = TcpStream::connect(server.address).unwrap();
    third.set_read_timeout(Some(DEADLINE)).unwrap();
    assert_eq!(third.read(&mut [0; 64]).unwrap(), 0, "closed at once");
    says(&mut server.process, "`connections_max` are open");
    let mut second = second;
    assert!(is_open(&mut second), "who has a place keeps it");
    drop(second);
    let until = Instant::now() + DEADLINE;
    loop {
        let endpoint = Endpoint::from_shared(format!("http://{}", server.address)).unwrap();
        if let Ok(channel) = endpoint.connect().await
            && healthy(channel).await
        {
            break;
        }
        assert!(Instant::now() < until, "the place never became free");
    }
}

#[tokio::test]
async fn the_command_line_speaks_tls() {
    let authority = Authority::new("ours");
    let clients = Authority::new("clients");
    let home = Home::new();
    let files = Files::of(&home, &authority.sign("localhost"));
    let pair = clients.sign("me");
    let launch = files.launch_with_client_ca(&home, &clients);
    let (mut process, address, _) = start(launch, showing(trusting(&authority), &pair)).await;
    write(&home.path().join("ca.pem"), &authority.certificate, 0o644);
    write(&home.path().join("me.pem"), &pair.certificate, 0o644);
    write(&home.path().join("me.key"), &pair.key, 0o600);
    let server = format!("https://localhost:{}", address.port());
    let run = |flags: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_keyledger"));
        command.current_dir(home.path()).env("KEYLEDGER_SERVER", &server);
        command.args(["operator", "status", "--api-key-file", "data/admin.key"]).args(flags);
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let mine = ["--client-cert", "me.pem", "--client-key", "me.key"];
    let (code, said) = run(&[&["--ca", "ca.pem"], &mine[..]].concat());
    assert_eq!(code, Some(0), "{said}");
    for (flags, told) in [
        (vec!["--ca", "ca.pem"], "asks for a client certificate"),
        (mine.to_vec(), "cannot reach a server"),
        ([&["--ca", "me.pem"], &mine[..]].concat(), "cannot reach a server"),
        ([&["--ca", "none.pem"], &mine[..]].concat(), "cannot read the authority's certificate"),
        (vec!["--ca", "ca.pem", "--client-cert", "me.pem"], "`--client-cert` needs `--client-key`"),
        (vec!["--ca", "ca.pem", "--client-key", "me.key"], "`--client-key` needs `--client-cert`"),
    ] {
        let (code, said) = run(&flags);
        assert!(code == Some(2) && said.contains(told), "{flags:?}: {code:?} {said}");
    }
    // Clear words to TLS, and the other way round.
    let clear = format!("http://localhost:{}", address.port());
    let (code, said) = run(&["--server", &clear]);
    let hint = "it speaks TLS\nhint: name it as `https://…`";
    assert!(code == Some(2) && said.contains(hint), "{code:?} {said}");
    says(&mut process, "a TLS handshake failed");
    let plain = Home::new().start().await;
    let tls = format!("https://localhost:{}", plain.address.port());
    let (code, said) = run(&["--server", &tls, "--ca", "ca.pem"]);
    let hint = "it does not speak TLS\nhint: name it as `http://…`";
    assert!(code == Some(2) && said.contains(hint), "{code:?} {said}");
}

/// Behind a proxy that is trusted, what it says must be an address; from others the
/// header means nothing.
#[tokio::test]
async fn a_trusted_proxy_must_say_who_it_speaks_for() {
    for (trusted, garbled) in [("127.0.0.0/8", true), ("10.0.0.0/8", false)] {
        let acme =
            Acme::on(Home::new(), |launch| launch.args(&["--trusted-proxies", trusted])).await;
        let forwarded = |name: &str, value: &str| {
            let mut request = acme.admin.request(scoped("", name, &["dns:read"]));
            request.metadata_mut().insert("x-forwarded-for", value.parse().unwrap());
            request
        };
        let channel = acme.server.channel();
        let mut keys = proto::key_service_client::KeyServiceClient::new(channel);
        keys.create_key(forwarded("one", "198.51.100.7")).await.unwrap();
        let answer = keys.create_key(forwarded("two", "198.51.100.7, unknown")).await;
        match answer {
            Ok(_) => assert!(!garbled),
            Err(status) => {
                assert!(garbled, "{status:?}");
                assert_eq!(status.code(), tonic::Code::InvalidArgument);
                assert!(status.message().contains("`x-forwarded-for`"), "{status:?}");
            }
        }
    }
    // Under TLS the peer is known as well.
    let authority = Authority::new("ours");
    let home = Home::new();
    let files = Files::of(&home, &authority.sign("localhost"));
    let launch = files.launch(&home).args(&["--trusted-proxies", "10.0.0.0/8,127.0.0.1,::1"]);
    let (_process, _, channel) = start(launch, trusting(&authority)).await;
    let mut request = tonic::Request::new(proto::GetStatusRequest {});
    let bearer = format!("Bearer {}", home.admin_key()).parse().unwrap();
    request.metadata_mut().insert("authorization", bearer);
    request.metadata_mut().insert("x-forwarded-for", "unknown".parse().unwrap());
    let mut operator = proto::operator_service_client::OperatorServiceClient::new(channel);
    let status = operator.get_status(request).await.unwrap_err();
    assert!(status.message().contains("`x-forwarded-for`"), "{status:?}");

    let error = Home::new().launch().args(&["--trusted-proxies", "10.0.0.1/8"]).refused();
    assert!(error.contains("write `10.0.0.0/8`"), "{error}");
}
