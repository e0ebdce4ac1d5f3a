//! What the tests share: a data directory, a server on it, and clients of that server.
//!
//! Waiting is always for something that can be seen (a line of the log, a status, an
//! exit), and never longer than [`DEADLINE`].

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use keyledger::proto::audit_service_client::AuditServiceClient;
use keyledger::proto::break_glass_service_client::BreakGlassServiceClient;
use keyledger::proto::key_service_client::KeyServiceClient;
use keyledger::proto::operator_service_client::OperatorServiceClient;
use keyledger::proto::organization_service_client::OrganizationServiceClient;
use keyledger::proto::report_service_client::ReportServiceClient;
use keyledger::proto::role_service_client::RoleServiceClient;
use keyledger::proto::session_service_client::SessionServiceClient;
use keyledger::proto::verification_service_client::VerificationServiceClient;
use keyledger::proto::{self, DecisionCode, Environment};
use rusqlite::{Connection, OpenFlags};
use tempfile::TempDir;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

/// Longest wait for anything: what comes at all comes long before, on a busy machine, too.
pub(crate) const DEADLINE: Duration = Duration::from_secs(180);
/// How often something is looked at that does not announce itself.
pub(crate) const POLL: Duration = Duration::from_millis(2);
/// A role that every installation has, by its number.
pub(crate) const OPERATOR_ADMIN: &str = "rol_00000000000000000000000001";
/// The tenants' `admin` role.
pub(crate) const ADMIN: &str = "rol_00000000000000000000000002";
/// The tenants' `read-only-admin` role.
pub(crate) const READ_ONLY_ADMIN: &str = "rol_00000000000000000000000003";
/// The tenants' `dns-manager` role.
pub(crate) const DNS_MANAGER: &str = "rol_00000000000000000000000006";

/// A directory of its own for one test: the data directory, and the place to start in.
pub(crate) struct Home(TempDir);

impl Home {
    pub(crate) fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    /// One on a file system of the test's own.
    pub(crate) fn inside(directory: &Path) -> Self {
        Self(TempDir::new_in(directory).unwrap())
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.path().join("data")
    }

    pub(crate) fn secret_file(&self, name: &str) -> PathBuf {
        self.data().join("secrets").join(name)
    }

    pub(crate) fn admin_key(&self) -> String {
        std::fs::read_to_string(self.data().join("admin.key")).unwrap().trim().to_owned()
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.data().join("ledger.db")
    }

    /// How to start the server here, configured by nothing but what is added.
    pub(crate) fn launch(&self) -> Launch {
        let mut command = Command::new(env!("CARGO_BIN_EXE_keyledger"));
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            if name.starts_with("KEYLEDGER_") || name == "ADMIN_API_TOKEN" {
                command.env_remove(name);
            }
        }
        command.current_dir(self.path()).arg("serve");
        command.args(["--log-format", "json"]).arg("--data-dir").arg(self.data());
        Launch { command, listen: "127.0.0.1:0".to_owned() }
    }

    /// Starts a server here and waits until it serves.
    pub(crate) async fn start(&self) -> Server {
        self.launch().start().await
    }

    /// Every event in the database, in the store's order.
    pub(crate) fn events(&self) -> Vec<StoredEvent> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let database = Connection::open_with_flags(self.database(), flags).unwrap();
        database.busy_timeout(DEADLINE).unwrap();
        let mut statement = database
            .prepare(
                "SELECT e.position, s.name, e.revision, e.stored, e.leaf_hash
                 FROM events e LEFT JOIN streams s ON s.stream = e.stream ORDER BY e.position",
            )
            .unwrap();
        let rows = statement.query_map([], |row| {
            Ok(StoredEvent {
                position: row.get(0)?,
                stream: row.get(1)?,
                revision: row.get::<_, i64>(2)?.try_into().unwrap(),
                stored: row.get(3)?,
                leaf_hash: row.get(4)?,
            })
        });
        rows.unwrap().collect::<Result<_, _>>().unwrap()
    }

    /// How many events there are, those aside by which the ledger notes by itself what was
    /// used and denied: they come when they come.
    pub(crate) fn facts(&self) -> usize {
        let notes = |event: &StoredEvent| {
            event.stream.starts_with("usage-") || event.json()["type"] == "DenialsSummarized"
        };
        self.events().iter().filter(|event| !notes(event)).count()
    }
}

/// A row of the events, as any SQLite tool shows it.
pub(crate) struct StoredEvent {
    pub(crate) position: i64,
    pub(crate) stream: String,
    pub(crate) revision: u64,
    pub(crate) stored: Vec<u8>,
    pub(crate) leaf_hash: Vec<u8>,
}

impl StoredEvent {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.stored).unwrap()
    }
}

/// The RFC 6962 leaf hash, worked out here and not by the server's code.
pub(crate) fn leaf_hash(stored: &[u8]) -> Vec<u8> {
    use sha2::{Digest as _, Sha256};
    Sha256::new().chain_update([0]).chain_update(stored).finalize().to_vec()
}

/// CRC-32 as zip has it, worked out here.
pub(crate) fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 }
        })
    })
}

/// A server that is about to be started.
pub(crate) struct Launch {
    command: Command,
    listen: String,
}

impl Launch {
    pub(crate) fn env(mut self, name: &str, value: impl AsRef<std::ffi::OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    pub(crate) fn args(mut self, args: &[&str]) -> Self {
        self.command.args(args);
        self
    }

    pub(crate) fn listen(mut self, address: &str) -> Self {
        address.clone_into(&mut self.listen);
        self
    }

    /// The same, with no more than this many files and sockets open at once.
    pub(crate) fn with_files_max(mut self, files_max: u32) -> Self {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("ulimit -n {files_max}; exec \"$0\" \"$@\"")]);
        shell.arg(self.command.get_program()).args(self.command.get_args());
        for (name, value) in self.command.get_envs() {
            match value {
                Some(value) => shell.env(name, value),
                None => shell.env_remove(name),
            };
        }
        if let Some(directory) = self.command.get_current_dir() {
            shell.current_dir(directory);
        }
        self.command = shell;
        self
    }

    /// Starts the process and waits for nothing.
    pub(crate) fn spawn(mut self) -> Process {
        self.command.args(["--listen", &self.listen]);
        self.command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.command.spawn().unwrap();
        let log = Arc::new(Log::default());
        let (stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let reader = |stream: Box<dyn std::io::Read + Send>, log: Arc<Log>| {
            std::thread::spawn(move || {
                let mut stream = BufReader::new(stream);
                let mut line = Vec::new();
                while stream.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
                    log.push(&String::from_utf8_lossy(&line));
                    line.clear();
                }
            })
        };
        let readers = vec![
            reader(Box::new(stdout), Arc::clone(&log)),
            reader(Box::new(stderr), Arc::clone(&log)),
        ];
        Process { child, log, readers }
    }

    /// Starts the server and waits until its health says that it serves.
    pub(crate) async fn start(self) -> Server {
        let server = self.listening().await;
        server.wait_until_serving().await;
        server
    }

    /// Starts the server and waits until its port is open, no more.
    pub(crate) async fn listening(self) -> Server {
        let mut process = self.spawn();
        let address = process.address();
        let channel = Endpoint::from_shared(format!("http://{address}"))
            .unwrap()
            .connect_timeout(DEADLINE)
            .connect()
            .await
            .unwrap();
        Server { process, address, channel }
    }

    /// Runs a server that must refuse to start: its exit code, and what it said.
    #[track_caller]
    pub(crate) fn refused(self) -> String {
        let mut process = self.spawn();
        let status = process.wait();
        let said = process.said();
        assert_eq!(status.code(), Some(2), "{said}");
        let error = said.split_once("error: ").map(|(_, error)| error.to_owned());
        let error = error.unwrap_or_else(|| panic!("no error was reported: {said}"));
        for clumsy in ["panicked", "RUST_BACKTRACE", "Os {", "Error {"] {
            assert!(!said.contains(clumsy), "{said}");
        }
        error
    }
}

/// What a process has written so far.
#[derive(Default)]
struct Log {
    text: Mutex<String>,
    grown: Condvar,
}

impl Log {
    fn push(&self, line: &str) {
        self.text.lock().unwrap().push_str(line);
        self.grown.notify_all();
    }

    fn text(&self) -> String {
        self.text.lock().unwrap().clone()
    }
}

/// A running process of ours; killed when it is dropped.
pub(crate) struct Process {
    child: Child,
    log: Arc<Log>,
    readers: Vec<std::thread::JoinHandle<()>>,
}

impl Process {
    /// All that it wrote, stderr and stdout.
    pub(crate) fn said(&self) -> String {
        self.log.text()
    }

    /// Waits for a log line that `wanted` makes something of.
    #[track_caller]
    pub(crate) fn wait_for<T>(&mut self, wanted: impl Fn(&str) -> Option<T>) -> T {
        let until = Instant::now() + DEADLINE;
        loop {
            let ended = self.child.try_wait().unwrap().is_some();
            let text = self.log.text.lock().unwrap();
            if let Some(found) = text.lines().find_map(&wanted) {
                return found;
            }
            assert!(!ended && Instant::now() < until, "waited in vain; it said: {text}");
            drop(self.log.grown.wait_timeout(text, Duration::from_millis(20)).unwrap());
        }
    }

    /// Where it listens, by its own words.
    #[track_caller]
    pub(crate) fn address(&mut self) -> SocketAddr {
        self.wait_for(|line| {
            let line: serde_json::Value = serde_json::from_str(line).ok()?;
            let fields = line.get("fields")?;
            let listening = fields.get("message")?.as_str()?.starts_with("listening");
            listening.then(|| fields.get("address")?.as_str()?.parse().ok()).flatten()
        })
    }

    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &pid]).status().unwrap().success());
    }

    /// kill -9, and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        // One that has ended by itself is as good.
        let _ = self.child.kill();
        let status = self.wait();
        assert!(status.signal() == Some(9) || status.code().is_some(), "{status}");
    }

    pub(crate) fn ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits for its end and for all that it wrote.
    #[track_caller]
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let until = Instant::now() + DEADLINE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                for reader in self.readers.drain(..) {
                    reader.join().unwrap();
                }
                return status;
            }
            assert!(Instant::now() < until, "it does not end; it said: {}", self.said());
            std::thread::sleep(POLL);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A running server; killed when it is dropped.
pub(crate) struct Server {
    pub(crate) process: Process,
    pub(crate) address: SocketAddr,
    channel: Channel,
}

impl Server {
    /// A client that shows this key.
    pub(crate) fn client(&self, key: &str) -> Client {
        Client {
            channel: self.channel.clone(),
            key: Some(key.to_owned()),
            page: None,
            headers: Vec::new(),
            from: None,
        }
    }

    /// A client that shows nothing.
    pub(crate) fn anonymous(&self) -> Client {
        Client {
            channel: self.channel.clone(),
            key: None,
            page: None,
            headers: Vec::new(),
            from: None,
        }
    }

    /// The connection itself.
    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// A connection of its own.
    pub(crate) async fn connect(&self) -> Channel {
        Endpoint::from_shared(format!("http://{}", self.address)).unwrap().connect().await.unwrap()
    }

    /// What health says about the server as a whole.
    pub(crate) async fn health(&self) -> Result<ServingStatus, Status> {
        let mut client = HealthClient::new(self.channel.clone());
        let answer = client.check(HealthCheckRequest { service: String::new() }).await?;
        Ok(answer.into_inner().status())
    }

    async fn wait_until_serving(&self) {
        let until = Instant::now() + DEADLINE;
        while !matches!(self.health().await, Ok(ServingStatus::Serving)) {
            assert!(Instant::now() < until, "never served; it said: {}", self.process.said());
            tokio::time::sleep(POLL).await;
        }
    }

    /// kill -9; gives all that it wrote.
    pub(crate) fn kill(mut self) -> String {
        self.process.kill();
        self.process.said()
    }

    /// SIGTERM, and the orderly end that must follow; gives all that it wrote.
    pub(crate) async fn stop(self) -> String {
        let Self { mut process, channel, .. } = self;
        process.signal("TERM");
        drop(channel);
        // Our own connection must be free to say goodbye meanwhile.
        let until = Instant::now() + DEADLINE;
        while !process.ended() {
            assert!(Instant::now() < until, "it does not end; it said: {}", process.said());
            tokio::time::sleep(POLL).await;
        }
        let status = process.wait();
        let said = process.said();
        assert!(status.success(), "{status}: {said}");
        said
    }
}

/// A caller with one key.
#[derive(Clone)]
pub(crate) struct Client {
    channel: Channel,
    key: Option<String>,
    /// What a page of a browser sends: its cookies, and the token that goes with them.
    page: Option<(String, String)>,
    /// What else is sent beside each request.
    headers: Vec<(&'static str, String)>,
    /// The address that a proxy says it is.
    from: Option<String>,
}

macro_rules! methods {
    ($($method:ident($client:ident, $request:ident) -> $response:ident;)+) => {
        impl Client {
            $(pub(crate) async fn $method(
                &self,
                message: proto::$request,
            ) -> Result<proto::$response, Status> {
                let mut client = $client::new(self.channel.clone());
                client.$method(self.request(message)).await.map(tonic::Response::into_inner)
            })+
        }
    };
}

methods! {
    create_key(KeyServiceClient, CreateKeyRequest) -> CreateKeyResponse;
    get_key(KeyServiceClient, GetKeyRequest) -> GetKeyResponse;
    list_keys(KeyServiceClient, ListKeysRequest) -> ListKeysResponse;
    revoke_key(KeyServiceClient, RevokeKeyRequest) -> RevokeKeyResponse;
    revoke_keys(KeyServiceClient, RevokeKeysRequest) -> RevokeKeysResponse;
    rotate_key(KeyServiceClient, RotateKeyRequest) -> RotateKeyResponse;
    end_rotation(KeyServiceClient, EndRotationRequest) -> EndRotationResponse;
    disable_key(KeyServiceClient, DisableKeyRequest) -> DisableKeyResponse;
    enable_key(KeyServiceClient, EnableKeyRequest) -> EnableKeyResponse;
    update_key_label(KeyServiceClient, UpdateKeyLabelRequest) -> UpdateKeyLabelResponse;
    import_keys(KeyServiceClient, ImportKeysRequest) -> ImportKeysResponse;
    update_policy(OrganizationServiceClient, UpdatePolicyRequest) -> UpdatePolicyResponse;
    create_service_account(OrganizationServiceClient, CreateServiceAccountRequest) -> CreateServiceAccountResponse;
    create_role(RoleServiceClient, CreateRoleRequest) -> CreateRoleResponse;
    update_role(RoleServiceClient, UpdateRoleRequest) -> UpdateRoleResponse;
    retire_role(RoleServiceClient, RetireRoleRequest) -> RetireRoleResponse;
    get_role(RoleServiceClient, GetRoleRequest) -> GetRoleResponse;
    list_roles(RoleServiceClient, ListRolesRequest) -> ListRolesResponse;
    grant_role(RoleServiceClient, GrantRoleRequest) -> GrantRoleResponse;
    revoke_grant(RoleServiceClient, RevokeGrantRequest) -> RevokeGrantResponse;
    list_grants(RoleServiceClient, ListGrantsRequest) -> ListGrantsResponse;
    effective_permissions(RoleServiceClient, EffectivePermissionsRequest) -> EffectivePermissionsResponse;
    who_holds(RoleServiceClient, WhoHoldsRequest) -> WhoHoldsResponse;
    invite_user(OrganizationServiceClient, InviteUserRequest) -> InviteUserResponse;
    renew_invitation(OrganizationServiceClient, RenewInvitationRequest) -> RenewInvitationResponse;
    get_user(OrganizationServiceClient, GetUserRequest) -> GetUserResponse;
    list_users(OrganizationServiceClient, ListUsersRequest) -> ListUsersResponse;
    accept_invitation(OrganizationServiceClient, AcceptInvitationRequest) -> AcceptInvitationResponse;
    login(SessionServiceClient, LoginRequest) -> LoginResponse;
    refresh(SessionServiceClient, RefreshRequest) -> RefreshResponse;
    logout(SessionServiceClient, LogoutRequest) -> LogoutResponse;
    who_am_i(SessionServiceClient, WhoAmIRequest) -> WhoAmIResponse;
    step_up(SessionServiceClient, StepUpRequest) -> StepUpResponse;
    list_sessions(SessionServiceClient, ListSessionsRequest) -> ListSessionsResponse;
    revoke_sessions(SessionServiceClient, RevokeSessionsRequest) -> RevokeSessionsResponse;
    enroll_totp(SessionServiceClient, EnrollTotpRequest) -> EnrollTotpResponse;
    confirm_totp(SessionServiceClient, ConfirmTotpRequest) -> ConfirmTotpResponse;
    remove_totp(SessionServiceClient, RemoveTotpRequest) -> RemoveTotpResponse;
    change_password(SessionServiceClient, ChangePasswordRequest) -> ChangePasswordResponse;
    request_password_reset(SessionServiceClient, RequestPasswordResetRequest) -> RequestPasswordResetResponse;
    reset_password(SessionServiceClient, ResetPasswordRequest) -> ResetPasswordResponse;
    get_signing_keys(SessionServiceClient, GetSigningKeysRequest) -> GetSigningKeysResponse;
    update_user(OrganizationServiceClient, UpdateUserRequest) -> UpdateUserResponse;
    suspend_user(OrganizationServiceClient, SuspendUserRequest) -> SuspendUserResponse;
    restore_user(OrganizationServiceClient, RestoreUserRequest) -> RestoreUserResponse;
    remove_user(OrganizationServiceClient, RemoveUserRequest) -> RemoveUserResponse;
    list_service_accounts(OrganizationServiceClient, ListServiceAccountsRequest) -> ListServiceAccountsResponse;
    create_organization(OrganizationServiceClient, CreateOrganizationRequest) -> CreateOrganizationResponse;
    get_organization(OrganizationServiceClient, GetOrganizationRequest) -> GetOrganizationResponse;
    list_organizations(OrganizationServiceClient, ListOrganizationsRequest) -> ListOrganizationsResponse;
    get_status(OperatorServiceClient, GetStatusRequest) -> GetStatusResponse;
    rebuild_activity_index(OperatorServiceClient, RebuildActivityIndexRequest) -> RebuildActivityIndexResponse;
    open_grant(BreakGlassServiceClient, OpenGrantRequest) -> OpenGrantResponse;
    approve_grant(BreakGlassServiceClient, ApproveGrantRequest) -> ApproveGrantResponse;
    close_grant(BreakGlassServiceClient, CloseGrantRequest) -> CloseGrantResponse;
    review_grant(BreakGlassServiceClient, ReviewGrantRequest) -> ReviewGrantResponse;
    list_break_glass_grants(BreakGlassServiceClient, ListBreakGlassGrantsRequest) -> ListBreakGlassGrantsResponse;
    query_activity(AuditServiceClient, QueryActivityRequest) -> QueryActivityResponse;
    list_unused_keys(ReportServiceClient, ListUnusedKeysRequest) -> ListUnusedKeysResponse;
    list_keys_without_expiry(ReportServiceClient, ListKeysWithoutExpiryRequest) -> ListKeysWithoutExpiryResponse;
    list_permission_holders(ReportServiceClient, ListPermissionHoldersRequest) -> ListPermissionHoldersResponse;
    list_role_holders(ReportServiceClient, ListRoleHoldersRequest) -> ListRoleHoldersResponse;
    summarize_break_glass(ReportServiceClient, SummarizeBreakGlassRequest) -> SummarizeBreakGlassResponse;
    state_at(AuditServiceClient, StateAtRequest) -> StateAtResponse;
    explain_decision(AuditServiceClient, ExplainDecisionRequest) -> ExplainDecisionResponse;
    verify(VerificationServiceClient, VerifyRequest) -> VerifyResponse;
    verify_batch(VerificationServiceClient, VerifyBatchRequest) -> VerifyBatchResponse;
}

impl Client {
    /// The same connection, another key.
    pub(crate) fn with_key(&self, key: &str) -> Self {
        Self { key: Some(key.to_owned()), ..self.clone() }
    }

    /// The same connection and key, with this beside each request.
    pub(crate) fn with_header(&self, name: &'static str, value: &str) -> Self {
        let mut client = self.clone();
        client.headers.push((name, value.to_owned()));
        client
    }

    /// The same, through a proxy that says it is this address.
    pub(crate) fn from(&self, address: &str) -> Self {
        Self { from: Some(address.to_owned()), ..self.clone() }
    }

    pub(crate) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        for (name, value) in &self.headers {
            request.metadata_mut().append(*name, value.parse().unwrap());
        }
        if let Some(key) = &self.key {
            let value = format!("Bearer {key}").parse().unwrap();
            request.metadata_mut().insert("authorization", value);
        }
        if let Some(from) = &self.from {
            request.metadata_mut().insert("x-forwarded-for", from.parse().unwrap());
        }
        if let Some((cookies, csrf)) = &self.page {
            request.metadata_mut().insert("cookie", cookies.parse().unwrap());
            request.metadata_mut().insert("x-csrf-token", csrf.parse().unwrap());
        }
        request
    }

    /// The same connection, as a page of a browser that shows nothing but these.
    pub(crate) fn page(&self, cookies: &str, csrf: &str) -> Self {
        let page = Some((cookies.to_owned(), csrf.to_owned()));
        Self { key: None, page, ..self.clone() }
    }

    /// Logs in for cookies: the answer, and what it has a browser keep.
    pub(crate) async fn login_for_cookies(
        &self,
        message: proto::LoginRequest,
    ) -> (proto::LoginResponse, Vec<String>) {
        let mut client = SessionServiceClient::new(self.channel.clone());
        let answer = client.login(self.request(message)).await.unwrap();
        let cookies = answer.metadata().get_all("set-cookie").iter();
        let cookies = cookies.map(|it| it.to_str().unwrap().to_owned()).collect();
        (answer.into_inner(), cookies)
    }

    /// Logs out as a page does: how that went, and what it has a browser do with its cookies.
    pub(crate) async fn logout_of_cookies(&self) -> (Result<(), Status>, Vec<String>) {
        let mut client = SessionServiceClient::new(self.channel.clone());
        let answer = client.logout(self.request(proto::LogoutRequest {})).await;
        let metadata = match &answer {
            Ok(answer) => answer.metadata().clone(),
            Err(status) => status.metadata().clone(),
        };
        let cookies = metadata.get_all("set-cookie").iter();
        let cookies = cookies.map(|it| it.to_str().unwrap().to_owned()).collect();
        (answer.map(|_| ()), cookies)
    }

    /// An operator makes an organization; gives its identifier.
    pub(crate) async fn organization(&self, name: &str, prefix: &str, plan: &str) -> String {
        let request = proto::CreateOrganizationRequest {
            name: name.into(),
            key_prefix: prefix.into(),
            plan: plan.into(),
            ..Default::default()
        };
        self.create_organization(request).await.unwrap().organization.unwrap().id
    }

    /// What may this credential do?
    pub(crate) async fn ask(
        &self,
        credential: &str,
        permissions: &[&str],
    ) -> proto::VerifyResponse {
        self.verify(about(credential, permissions)).await.unwrap()
    }

    /// Opens a stream of questions.
    pub(crate) async fn verify_stream(&self) -> Result<VerifyStream, Status> {
        let (ask, questions) = tokio::sync::mpsc::channel(64);
        let questions = tokio_stream::wrappers::ReceiverStream::new(questions);
        let mut client = VerificationServiceClient::new(self.channel.clone());
        let answers = client.verify_stream(self.request(questions)).await?.into_inner();
        Ok(VerifyStream { ask, answers })
    }

    /// The answer in one word.
    pub(crate) async fn code(&self, request: proto::VerifyRequest) -> DecisionCode {
        let answer = self.verify(request).await.unwrap();
        assert_eq!(answer.allowed, answer.code() == DecisionCode::Allowed);
        answer.code()
    }

    pub(crate) async fn revoke(&self, organization_id: &str, key_id: &str) -> Result<u64, Status> {
        let request = proto::RevokeKeyRequest {
            organization_id: organization_id.into(),
            key_id: key_id.into(),
            ..Default::default()
        };
        Ok(self.revoke_key(request).await?.revision.unwrap().revision)
    }

    /// The place where an organization's stream ends.
    pub(crate) async fn revision(&self, organization_id: &str) -> u64 {
        let request = proto::GetOrganizationRequest { organization_id: organization_id.into() };
        self.get_organization(request).await.unwrap().revision.unwrap().revision
    }
}

/// A stream of questions, and its answers.
pub(crate) struct VerifyStream {
    pub(crate) ask: tokio::sync::mpsc::Sender<proto::VerifyStreamRequest>,
    pub(crate) answers: tonic::Streaming<proto::VerifyStreamResponse>,
}

impl VerifyStream {
    /// Sends a question, and does not wait.
    pub(crate) async fn send(&self, id: u64, question: proto::VerifyRequest) {
        let message = proto::VerifyStreamRequest { id, question: Some(question) };
        // A stream that has ended says so in its answers.
        let _ = self.ask.send(message).await;
    }

    /// The next answer. A stream that ends well is a failure here.
    pub(crate) async fn answer(&mut self) -> Result<proto::VerifyStreamResponse, Status> {
        let answer = tokio::time::timeout(DEADLINE, self.answers.message());
        Ok(answer.await.expect("an answer in time")?.expect("an answer, not the end"))
    }

    /// The decision about a question.
    pub(crate) async fn decide(
        &mut self,
        id: u64,
        question: proto::VerifyRequest,
    ) -> Result<proto::VerifyResponse, Status> {
        self.send(id, question).await;
        let answer = self.answer().await?;
        assert_eq!(answer.id, id);
        match answer.answer {
            Some(proto::verify_stream_response::Answer::Decision(decision)) => Ok(decision),
            other => panic!("no decision: {other:?}"),
        }
    }
}

/// A question about a credential.
pub(crate) fn about(credential: &str, permissions: &[&str]) -> proto::VerifyRequest {
    proto::VerifyRequest {
        credential: credential.into(),
        permissions: texts(permissions),
        ..Default::default()
    }
}

pub(crate) fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

/// A request for a key with these scopes.
pub(crate) fn scoped(
    organization_id: &str,
    name: &str,
    scopes: &[&str],
) -> proto::CreateKeyRequest {
    proto::CreateKeyRequest {
        organization_id: organization_id.into(),
        name: name.into(),
        scopes: Some(proto::Scopes { permissions: texts(scopes) }),
        environment: Environment::Live.into(),
        ..Default::default()
    }
}

/// A request for a key with these roles.
pub(crate) fn with_roles(
    organization_id: &str,
    name: &str,
    roles: &[&str],
) -> proto::CreateKeyRequest {
    proto::CreateKeyRequest {
        organization_id: organization_id.into(),
        name: name.into(),
        role_ids: texts(roles),
        environment: Environment::Live.into(),
        ..Default::default()
    }
}

/// The refusal that an answer must be.
#[track_caller]
pub(crate) fn refused<T>(answer: Result<T, Status>, code: Code, says: &str) -> Status {
    let Err(status) = answer else { panic!("was accepted; expected {code:?}: {says}") };
    assert_eq!(status.code(), code, "{status:?}");
    assert!(status.message().contains(says), "`{}` does not say `{says}`", status.message());
    status
}

/// The refusal that an answer must be, by its reason; it says what it says in plain text.
#[track_caller]
pub(crate) fn rejected<T>(answer: Result<T, Status>, expected: &str) -> Status {
    let Err(status) = answer else { panic!("was accepted; expected {expected}") };
    assert_eq!(reason(&status), expected, "{status:?}");
    assert!(!status.message().is_empty());
    status
}

/// The reason in `google.rpc.ErrorInfo`.
#[track_caller]
pub(crate) fn reason(status: &Status) -> String {
    use tonic_types::StatusExt as _;
    let details = status.get_error_details();
    details.error_info().map(|info| info.reason.clone()).unwrap_or_default()
}

/// An operator's view of a fresh installation with one organization.
pub(crate) struct Acme {
    pub(crate) home: Home,
    pub(crate) server: Server,
    pub(crate) operator: Client,
    pub(crate) id: String,
    /// Holds `org:admin` in the organization.
    pub(crate) admin: Client,
    pub(crate) admin_secret: String,
}

impl Acme {
    pub(crate) async fn new() -> Self {
        Self::on(Home::new(), |launch| launch).await
    }

    pub(crate) async fn on(home: Home, configure: impl FnOnce(Launch) -> Launch) -> Self {
        let server = configure(home.launch()).start().await;
        let operator = server.client(&home.admin_key());
        let id = operator.organization("acme", "vtx", "").await;
        let created = operator.create_key(scoped(&id, "admin", &["org:admin"])).await.unwrap();
        let admin = operator.with_key(&created.secret);
        Self { home, server, operator, id, admin, admin_secret: created.secret }
    }

    /// Somebody who shows nothing.
    pub(crate) fn nobody(&self) -> Client {
        self.server.anonymous()
    }

    /// The administrator of another organization, whose keys begin with this.
    pub(crate) async fn another(&self, prefix: &str) -> Client {
        let id = self.operator.organization("another", prefix, "").await;
        let key = scoped(&id, "admin", &["org:admin"]);
        self.operator.with_key(&self.operator.create_key(key).await.unwrap().secret)
    }

    /// The same installation, after a restart.
    pub(crate) async fn restarted(self) -> Self {
        self.restarted_after(|_| ()).await
    }

    /// The same installation, after a restart, with this done to its files in between.
    pub(crate) async fn restarted_after(self, done: impl FnOnce(&Home)) -> Self {
        let Self { home, server, id, admin_secret, .. } = self;
        server.stop().await;
        done(&home);
        let server = home.launch().start().await;
        let operator = server.client(&home.admin_key());
        let admin = operator.with_key(&admin_secret);
        Self { home, server, operator, id, admin, admin_secret }
    }

    /// A key of the organization with these scopes: its identifier and secret.
    pub(crate) async fn key(&self, name: &str, scopes: &[&str]) -> (String, String) {
        let created = self.admin.create_key(scoped("", name, scopes)).await.unwrap();
        (created.key.unwrap().id, created.secret)
    }

    pub(crate) async fn revision(&self) -> u64 {
        self.operator.revision(&self.id).await
    }

    /// The answer about a credential, in one word.
    pub(crate) async fn code(&self, secret: &str) -> DecisionCode {
        self.operator.ask(secret, &[]).await.code()
    }

    /// How many events the organization's stream holds, without summaries of denials, which
    /// come when they come.
    pub(crate) fn writes(&self) -> usize {
        let stream = format!("org-{}", self.id);
        let own = self.home.events().into_iter().filter(|it| it.stream == stream);
        own.filter(|it| it.json()["type"] != "DenialsSummarized").count()
    }

    /// The key as it is now.
    pub(crate) async fn get(&self, key_id: &str) -> proto::Key {
        let key_id = key_id.to_owned();
        let request = proto::GetKeyRequest { organization_id: self.id.clone(), key_id };
        self.operator.get_key(request).await.unwrap().key.unwrap()
    }

    /// Asks until the answer about a credential is this one.
    pub(crate) async fn wait_for(&self, secret: &str, code: DecisionCode) {
        let until = Instant::now() + DEADLINE;
        while self.code(secret).await != code {
            assert!(Instant::now() < until, "never {code:?}");
            tokio::time::sleep(POLL).await;
        }
    }
}

/// A key, whenever it was used last: looking at it is a use of another one.
pub(crate) fn unused(mut key: proto::Key) -> proto::Key {
    key.last_used_at = None;
    key
}

/// Many who ask about one credential, each on a connection of its own, until its end.
pub(crate) struct Verifiers {
    over: Arc<std::sync::atomic::AtomicBool>,
    tasks: Vec<tokio::task::JoinHandle<u64>>,
}

impl Verifiers {
    /// They ask from now on. Nobody who begins to ask once it is over may be told anything
    /// but `after`.
    pub(crate) async fn of(acme: &Acme, secret: &str, after: DecisionCode) -> Self {
        let over = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let mut tasks = Vec::new();
        for _ in 0..4 {
            let channel = acme.server.connect().await;
            let client = Client { channel, ..acme.operator.clone() };
            let (over, secret) = (Arc::clone(&over), secret.to_owned());
            tasks.push(tokio::spawn(async move {
                let (mut before, mut ended) = (0, 0);
                while ended < 20 {
                    let is_over = over.load(std::sync::atomic::Ordering::SeqCst);
                    let code = client.ask(&secret, &[]).await.code();
                    if is_over {
                        assert_eq!(code, after, "after its end was acknowledged");
                        ended += 1;
                    } else {
                        before += u64::from(code == DecisionCode::Allowed);
                    }
                }
                before
            }));
        }
        Self { over, tasks }
    }

    /// The end was acknowledged.
    pub(crate) async fn over(self) {
        self.over.store(true, std::sync::atomic::Ordering::SeqCst);
        let mut before = 0;
        for task in self.tasks {
            before += task.await.unwrap();
        }
        assert!(before > 0, "nobody saw it in force");
    }
}

/// Bytes as they are, both ways.
#[derive(Clone, Copy, Default)]
pub(crate) struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;
    fn encoder(&mut self) -> Self {
        *self
    }
    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;
    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        prost::bytes::BufMut::put_slice(buffer, &item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;
    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        use prost::bytes::Buf as _;
        Ok(Some(buffer.copy_to_bytes(buffer.remaining()).to_vec()))
    }
}

/// Calls a method (`keyledger.v1.KeyService/GetKey`) with bytes made by hand.
pub(crate) async fn call_raw(
    channel: Channel,
    method: &str,
    request: Request<Vec<u8>>,
) -> Result<Vec<u8>, Status> {
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let path = format!("/{method}").parse().unwrap();
    // They say at once that they stand, and end late, or never by themselves.
    let streams = ["/WatchBreakGlass", "/TailActivity", "/ExportActivity"];
    if streams.iter().any(|it| method.ends_with(it)) {
        let mut pieces = client.server_streaming(request, path, Raw).await?.into_inner();
        return pieces.message().await?.ok_or_else(|| Status::cancelled("it ended"));
    }
    client.unary(request, path, Raw).await.map(tonic::Response::into_inner)
}

/// Calls a method with a request whose body never comes.
pub(crate) async fn call_without_body(
    channel: Channel,
    method: &str,
    request: Request<()>,
) -> Result<Vec<u8>, Status> {
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let path = format!("/{method}").parse().unwrap();
    let request = request.map(|()| tokio_stream::pending::<Vec<u8>>());
    client.client_streaming(request, path, Raw).await.map(tonic::Response::into_inner)
}
