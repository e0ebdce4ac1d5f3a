//! The running server: one port, every service, and an orderly end.
//!
//! It listens from the first moment, and answers UNAVAILABLE (health: NOT_SERVING)
//! until history is replayed.

pub(crate) mod calls;
mod connections;
mod direct;
mod metrics_port;
pub(crate) mod stats;
pub mod tls;
mod web;

use std::convert::Infallible;
use std::future::{Future, ready};
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::net::TcpListener;
use tonic::body::Body;
use tonic::codegen::BoxFuture;
use tonic::server::NamedService;
use tonic::service::Routes;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;
use tower::Service;

use self::calls::{Calls, Counting};
use self::connections::incoming;
use self::direct::{Direct, Directed};
use self::metrics_port::MetricsPort;
use self::stats::ConnectionStats;
use self::tls::{Tls, TlsError};
use self::web::WebLayer;
use crate::config::{Collector, Config};
use crate::delivery::Delivery;
use crate::ledger::clock::Clock;
use crate::ledger::contact::{Contact, Loss};
use crate::ledger::sign_in::{SignIn, SignInError};
use crate::metrics::{Metrics, Sources};
use crate::node::{FirstKey, Node, NodeError, Opened};
use crate::proto::audit_service_server::AuditServiceServer;
use crate::proto::break_glass_service_server::BreakGlassServiceServer;
use crate::proto::key_service_server::KeyServiceServer;
use crate::proto::operator_service_server::OperatorServiceServer;
use crate::proto::organization_service_server::OrganizationServiceServer;
use crate::proto::report_service_server::ReportServiceServer;
use crate::proto::role_service_server::RoleServiceServer;
use crate::proto::session_service_server::SessionServiceServer;
use crate::services::Door;
use crate::services::authentication::{shows_emergency, shows_master_key};
use crate::services::break_glass::BY_CUSTODIANS;
use crate::services::organization::HandOver;
use crate::services::verification::server::VerificationServer;
use crate::services::verification::{BATCH_BYTES_MAX, Verification};
use crate::spans::{self, ExportError, SpanStats};

/// Most bytes in one request.
pub const REQUEST_BYTES_MAX: usize = 128 * 1024;
/// Most bytes in one request about sessions: anybody may send some of them.
pub const SIGN_IN_BYTES_MAX: usize = 16 * 1024;
/// Most bytes of headers in one request.
pub const HEADER_BYTES_MAX: u32 = 16 * 1024;
/// Most requests under way at once on one connection.
pub const CONNECTION_REQUESTS_MAX: u32 = 256;
/// Most bytes of one request that wait to be read. Small: HTTP/2 takes half a connection's
/// window, at most, of what many small frames cost beside their bytes, and closes the whole
/// connection for more. A stream of questions whose answers are not taken must not come to
/// that.
pub const STREAM_WINDOW_BYTES: u32 = 64 * 1024;
/// Most bytes of all requests of one connection that wait to be read.
pub const CONNECTION_WINDOW_BYTES: u32 = 1024 * 1024;
/// How long requests under way may take to end after a shutdown began.
pub const SHUTDOWN_MAX: Duration = Duration::from_secs(10);
/// How often an idle connection is asked whether it lives.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// The services that health is told of, by their full names.
pub const SERVICES: &[&str] = &[
    "keyledger.v1.AuditService",
    "keyledger.v1.BreakGlassService",
    "keyledger.v1.KeyService",
    "keyledger.v1.OperatorService",
    "keyledger.v1.OrganizationService",
    "keyledger.v1.ReportService",
    "keyledger.v1.RoleService",
    "keyledger.v1.SessionService",
    "keyledger.v1.VerificationService",
];

/// Why a server ended other than by being told to.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The port cannot be had.
    #[error(
        "cannot listen on {address}; if another server has that port, choose one with `--listen`"
    )]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// The port for metrics cannot be had.
    #[error(
        "cannot answer metrics on {address}; if another program has that port, choose one with `--metrics-listen`"
    )]
    ListenForMetrics {
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// No collector can be told about calls.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// TLS cannot be had from the configured files.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The node did not start.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// Nobody could sign in.
    #[error(transparent)]
    SignIn(#[from] SignInError),
    /// Another node was admitted.
    #[error(
        "another node has registered in this installation's event store, so this one has stopped; run one node at a time"
    )]
    Replaced,
    /// This node's registration is not renewed.
    #[error(
        "this node's registration in the event store is not renewed any more, by a fault of keyledger's that the log tells of; start it again"
    )]
    NotRenewed,
    /// The transport failed.
    #[error("serve")]
    Transport(#[from] tonic::transport::Error),
    /// Reflection could not be set up.
    #[error("reflection")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The server's task ended early.
    #[error("the server's task ended early")]
    Task(#[from] tokio::task::JoinError),
}

/// What whoever started the server is told.
pub trait Announce {
    /// The port is open; history is about to be replayed.
    fn listening(&self, address: SocketAddr);
    /// Metrics are answered here.
    fn metrics(&self, address: SocketAddr) {
        let _ = address;
    }
    /// This collector is told about calls.
    fn exporting(&self, collector: &Collector) {
        let _ = collector;
    }
    /// This start made the operator's key.
    fn first_key(&self, key: &FirstKey);
    /// The server answers.
    fn ready(&self, node: &Node);
    /// The server was told to end.
    fn stopping(&self) {}
}

/// Serves until `stop` is ready, then lets requests under way end and closes the store.
pub async fn serve(
    config: Config,
    announce: &(dyn Announce + Sync),
    stop: impl Future<Output = ()> + Send,
) -> Result<(), ServeError> {
    let tls = config.tls.clone().map(Tls::open).transpose()?.map(Arc::new);
    let address = config.listen;
    let listener = TcpListener::bind(address)
        .await
        .map_err(|source| ServeError::Listen { address, source })?;
    let address = listener.local_addr().unwrap_or(address);
    let metrics_port = match config.metrics_listen {
        Some(address) => Some(MetricsPort::bind(address).await?),
        None => None,
    };
    let span_stats = Arc::new(SpanStats::default());
    let (spans, exporter) = match &config.collector {
        Some(collector) => {
            let (spans, exporter) = spans::start(collector, address, &span_stats)?;
            announce.exporting(collector);
            (Some(spans), Some(exporter))
        }
        None => (None, None),
    };
    // Before anything is answered: a directory that another process holds is no start.
    let opened = Opened::open(config.directories.clone()).await?;

    let _follower = Follower(tokio::spawn(follow(tls.clone())));
    let connections = Arc::new(ConnectionStats::default());
    let calls = Arc::new(Calls::new(&[
        crate::proto::FILE_DESCRIPTOR_SET,
        tonic_health::pb::FILE_DESCRIPTOR_SET,
    ]));
    let door = Door::closed(config.requests_max, config.trusted_proxies);
    let delivery = Arc::new(Delivery::start(config.delivery));
    let _metrics = metrics_port.map(|port| {
        announce.metrics(port.address());
        let sources = Sources {
            door: door.clone(),
            store: opened.store_stats(),
            events: opened.event_store(),
            calls: Arc::clone(&calls),
            connections: Arc::clone(&connections),
            spans: span_stats,
            delivery: delivery.stats().cloned(),
            started_ms: Clock::system().now().as_millis(),
        };
        Follower(tokio::spawn(port.answer(Metrics::new(sources))))
    });
    let contact = opened.contact();
    if let Some(contact) = &contact {
        door.guard(Arc::clone(contact));
    }
    let (health, health_service) = tonic_health::server::health_reporter();
    say(&health, ServingStatus::NotServing).await;
    let routes =
        routes(&door, &delivery, config.hand_over, config.reflection)?.add_service(health_service);
    let (shut, shutting) = tokio::sync::oneshot::channel::<()>();
    let incoming = incoming(listener, tls, config.connections_max, Arc::clone(&connections));
    let server = tonic::transport::Server::builder()
        .layer(Counting { calls, spans })
        .layer(WebLayer::new(&config.cors_origins, door.clone()))
        .accept_http1(true)
        .tcp_nodelay(true)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_max_header_list_size(HEADER_BYTES_MAX)
        .max_concurrent_streams(CONNECTION_REQUESTS_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .timeout(Duration::from_millis(config.request_timeout_ms))
        .layer(Direct(verification(&door)))
        .add_routes(routes)
        .serve_with_incoming_shutdown(incoming, async {
            // A sender that is gone means the same.
            let _ = shutting.await;
        });
    let mut server = tokio::spawn(server);
    announce.listening(address);

    let mut stop = std::pin::pin!(stop);
    let start = async {
        let node = opened.replay().await?;
        let first_key = node.configure(&config.configured_keys).await?;
        Ok::<_, NodeError>((node, first_key))
    };
    let (node, first_key) = tokio::select! {
        started = start => started?,
        () = &mut stop => return Ok(()),
    };
    if let Some(key) = &first_key {
        announce.first_key(key);
    } else if let Some(path) = node.admin_key_beside_data().filter(|_| config.production) {
        tracing::warn!(path = %path.display(), "an operator's key lies beside the data: move it off this machine");
    }
    drop(first_key);
    let checking = tokio::spawn(node.ledger.clone().check_history());
    let snapshots = tokio::spawn(node.ledger.clone().keep_snapshots(config.snapshot_events));
    let indexing = tokio::spawn(node.keep_activity_index());
    let history = tokio::spawn(node.ledger.clone().keep_history());
    // Only where others can write at all. It ends with this function, behind the store.
    let following = || Follower(tokio::spawn(node.ledger.clone().follow_others()));
    let _following = contact.is_some().then(following);
    node.start_recording();
    let sign_in = Arc::new(SignIn::open(&node.ledger, config.sign_in)?);
    sign_in.tend(&node.ledger).await;
    node.ledger.begin_sign_in(Arc::clone(&sign_in));
    let keeping = tokio::spawn(Arc::clone(&sign_in).keep(node.ledger.clone()));
    let finishing = node.ledger.clone();
    // Of as many accounts as there are: nobody waits for it.
    let finishing = tokio::spawn(async move { finishing.finish_personal().await });
    door.open(node.ledger.clone());
    say(&health, ServingStatus::Serving).await;
    let health_follower =
        contact.map(|contact| Follower(tokio::spawn(follow_contact(health.clone(), contact))));
    announce.ready(&node);

    let mut lost = None;
    let ended = tokio::select! {
        ended = &mut server => Some(ended),
        () = &mut stop => None,
        loss = node.lost() => {
            lost = Some(loss);
            None
        }
    };
    drop(health_follower);
    say(&health, ServingStatus::NotServing).await;
    let ended = match ended {
        Some(ended) => ended,
        None => {
            announce.stopping();
            door.close();
            let _ = shut.send(());
            match tokio::time::timeout(SHUTDOWN_MAX, &mut server).await {
                Ok(ended) => ended,
                Err(_) => {
                    tracing::warn!("requests under way were cut off");
                    server.abort();
                    Ok(Ok(()))
                }
            }
        }
    };
    history.abort();
    node.close().await;
    keeping.abort();
    finishing.abort();
    checking.abort();
    snapshots.abort();
    indexing.abort();
    if let Some(exporter) = exporter {
        exporter.flush().await;
    }
    match lost {
        Some(Loss::Replaced) => Err(ServeError::Replaced),
        Some(Loss::Fault) => Err(ServeError::NotRenewed),
        None => Ok(ended??),
    }
}

/// How often health is told whether this node may answer.
const CONTACT_EVERY: Duration = Duration::from_millis(250);

/// Says NOT_SERVING while this node has no leave to answer.
async fn follow_contact(health: HealthReporter, contact: Arc<Contact>) {
    let mut said = true;
    loop {
        tokio::time::sleep(CONTACT_EVERY).await;
        let holds = contact.holds();
        if said != holds {
            said = holds;
            if holds {
                tracing::info!("in contact with the event store again");
            } else {
                tracing::error!("no contact with the event store: every request is refused");
            }
            let status = if holds { ServingStatus::Serving } else { ServingStatus::NotServing };
            say(&health, status).await;
        }
    }
}

/// A task that ends with the server.
struct Follower(tokio::task::JoinHandle<()>);

impl Drop for Follower {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Has the files of TLS read anew when they change, and when SIGHUP says so.
async fn follow(tls: Option<Arc<Tls>>) {
    use tokio::signal::unix::{SignalKind, signal};
    // Taken in any case: untaken it would end the process.
    let hang_up = signal(SignalKind::hangup());
    let hung_up = async {
        let Ok(mut hang_up) = hang_up else { return };
        while hang_up.recv().await.is_some() {
            match &tls {
                Some(tls) => tls.look_now(),
                None => tracing::info!("nothing to read anew: there is no TLS"),
            }
        }
    };
    let looks = async {
        if let Some(tls) = &tls {
            Arc::clone(tls).follow().await;
        }
    };
    tokio::join!(hung_up, looks);
}

async fn say(health: &HealthReporter, status: ServingStatus) {
    for service in SERVICES.iter().chain(&[""]) {
        health.set_service_status(*service, status).await;
    }
}

/// What may be called without a credential; whoever shows one is looked at by the method.
const OPEN: &[&str] = &[
    "/keyledger.v1.SessionService/Login",
    "/keyledger.v1.SessionService/Refresh",
    // It clears cookies that are good for nothing more.
    "/keyledger.v1.SessionService/Logout",
    "/keyledger.v1.SessionService/RequestPasswordReset",
    "/keyledger.v1.SessionService/ResetPassword",
    "/keyledger.v1.SessionService/GetSigningKeys",
    "/keyledger.v1.OrganizationService/AcceptInvitation",
];

/// A service whose callers are looked at before their requests are read: [`Door::knock`].
#[derive(Clone)]
struct Guarded<S> {
    service: S,
    door: Door,
}

fn guarded<S>(service: S, door: &Door) -> Guarded<S> {
    Guarded { service, door: door.clone() }
}

impl<S: NamedService> NamedService for Guarded<S> {
    const NAME: &'static str = S::NAME;
}

impl<S, B> Service<http::Request<B>> for Guarded<S>
where
    B: Send + 'static,
    S: Service<
            http::Request<B>,
            Response = http::Response<Body>,
            Error = Infallible,
            Future = BoxFuture<http::Response<Body>, Infallible>,
        > + Clone
        + Send
        + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<http::Response<Body>, Infallible>;

    fn poll_ready(&mut self, ctx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(ctx)
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let (mut parts, body) = request.into_parts();
        let path = parts.uri.path();
        let by_custodian = BY_CUSTODIANS.contains(&path) && shows_master_key(&parts.headers);
        let is_open = OPEN.contains(&path) || by_custodian;
        if !by_custodian && shows_emergency(&parts.headers) {
            return self.call_in_emergency(parts, body);
        }
        let knocked = if is_open {
            self.door.knock_unknown(&parts.headers, &mut parts.extensions)
        } else {
            self.door.knock(&parts.headers, &mut parts.extensions)
        };
        match knocked {
            Ok(()) => self.service.call(http::Request::from_parts(parts, body)),
            Err(status) => Box::pin(ready(Ok(status.into_http()))),
        }
    }
}

impl<S: Clone> Guarded<S> {
    /// A call under break-glass, which is recorded before it is carried out.
    fn call_in_emergency<B>(
        &mut self,
        mut parts: http::request::Parts,
        body: B,
    ) -> BoxFuture<http::Response<Body>, Infallible>
    where
        B: Send + 'static,
        S: Service<
                http::Request<B>,
                Response = http::Response<Body>,
                Error = Infallible,
                Future = BoxFuture<http::Response<Body>, Infallible>,
            > + Send
            + 'static,
    {
        // The one that is ready carries the call out.
        let next = self.service.clone();
        let mut service = std::mem::replace(&mut self.service, next);
        let door = self.door.clone();
        Box::pin(async move {
            let method = parts.uri.path().to_owned();
            let (headers, extensions) = (&mut parts.headers, &mut parts.extensions);
            let knocked = door.knock_in_emergency(&method, headers, extensions).await;
            match knocked {
                Ok(call) => {
                    let response = service.call(http::Request::from_parts(parts, body)).await?;
                    Ok(call.end(response).await)
                }
                Err(status) => Ok(status.into_http()),
            }
        })
    }
}

/// All services of gRPC: the one that is called most, and the others.
type Inner = Directed<Guarded<VerificationServer>, Routes>;

/// The service that is called most.
fn verification(door: &Door) -> Guarded<VerificationServer> {
    let verification = Verification::new(door.clone());
    guarded(VerificationServer::new(verification, REQUEST_BYTES_MAX), door)
}

/// Every other service but health, behind one door.
fn routes(
    door: &Door,
    delivery: &Arc<Delivery>,
    hand_over: HandOver,
    reflects: bool,
) -> Result<Routes, ServeError> {
    use crate::services::{
        audit::Audit, break_glass::BreakGlass, key::Keys, operator::Operator,
        organization::Organizations, report::Reports, role::Roles, session::Sessions,
    };
    let sessions = SessionServiceServer::new(Sessions::new(door.clone(), Arc::clone(delivery)));
    let keys = KeyServiceServer::new(Keys::new(door.clone()));
    let organizations = OrganizationServiceServer::new(Organizations::new(
        door.clone(),
        Arc::clone(delivery),
        hand_over,
    ));
    let roles = RoleServiceServer::new(Roles::new(door.clone()));
    let operator = OperatorServiceServer::new(Operator::new(door.clone()));
    let audit = AuditServiceServer::new(Audit::new(door.clone()));
    let reports = ReportServiceServer::new(Reports::new(door.clone()));
    let break_glass = BreakGlassServiceServer::new(BreakGlass::new(door.clone()));
    // An import is as long as a batch of questions.
    let routes = Routes::new(guarded(keys.max_decoding_message_size(BATCH_BYTES_MAX), door))
        .add_service(guarded(organizations.max_decoding_message_size(REQUEST_BYTES_MAX), door))
        .add_service(guarded(roles.max_decoding_message_size(REQUEST_BYTES_MAX), door))
        .add_service(guarded(operator.max_decoding_message_size(REQUEST_BYTES_MAX), door))
        .add_service(guarded(sessions.max_decoding_message_size(SIGN_IN_BYTES_MAX), door))
        .add_service(guarded(audit.max_decoding_message_size(REQUEST_BYTES_MAX), door))
        .add_service(guarded(reports.max_decoding_message_size(REQUEST_BYTES_MAX), door))
        .add_service(guarded(break_glass.max_decoding_message_size(REQUEST_BYTES_MAX), door));
    if !reflects {
        return Ok(routes.prepare());
    }
    // With the details of errors among them, so that generic clients can show those too.
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(crate::proto::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
    };
    // Older clients, grpcurl among them, ask for the alpha version.
    let alpha = reflection().build_v1alpha()?;
    let routes = routes.add_service(reflection().build_v1()?).add_service(alpha);
    Ok(routes.prepare())
}
