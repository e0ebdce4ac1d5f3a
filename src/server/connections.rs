//! Connections: how many there may be, their handshakes, and how long they may be silent.
//!
//! A connection has a place from the moment it is accepted until it ends. Handshakes go
//! on beside each other, each for a bounded time, so that a slow caller delays nobody.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, Sleep};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::{Connected, TcpConnectInfo};

use super::stats::ConnectionStats;
use super::tls::Tls;

/// Longest time for a TLS handshake, and for the first bytes of a request behind it.
pub(super) const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// How long to wait before the next connection is accepted where one could not be.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);
/// How often at most it is told that there are too many connections.
const TELL_AGAIN: Duration = Duration::from_secs(60);
/// How often at most a failed handshake is told of.
const TELL_FAILURE_AGAIN: Duration = Duration::from_secs(10);
/// Connections that are ready and wait to be served.
const READY_MAX: usize = 64;
/// As many bytes tell which protocol is spoken: HTTP/2 begins with these.
const PREFACE_BYTES: usize = 24;

/// Accepts connections until nobody takes them any more.
pub(super) fn incoming(
    listener: TcpListener,
    tls: Option<Arc<Tls>>,
    connections_max: usize,
    stats: Arc<ConnectionStats>,
) -> ReceiverStream<io::Result<Connection>> {
    let (ready, incoming) = mpsc::channel(READY_MAX);
    let places = Arc::new(Semaphore::new(connections_max));
    tokio::spawn(Acceptor { listener, tls, places, stats, ready }.run());
    ReceiverStream::new(incoming)
}

struct Acceptor {
    listener: TcpListener,
    tls: Option<Arc<Tls>>,
    places: Arc<Semaphore>,
    stats: Arc<ConnectionStats>,
    ready: mpsc::Sender<io::Result<Connection>>,
}

impl Acceptor {
    async fn run(self) {
        let mut told: Option<Instant> = None;
        let failures = Arc::new(Failures::default());
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = self.ready.closed() => return,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                // Out of file descriptors, say: at once it would be the same again.
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_AGAIN).await;
                    continue;
                }
            };
            let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
                self.stats.refused.count();
                if told.is_none_or(|told| told.elapsed() >= TELL_AGAIN) {
                    told = Some(Instant::now());
                    tracing::warn!("a connection was closed at once: `connections_max` are open");
                }
                continue;
            };
            let place = Place::taken(place, Arc::clone(&self.stats));
            // Answers are small: waiting to fill a packet only delays them.
            let _ = stream.set_nodelay(true);
            match &self.tls {
                None => {
                    let connection = Connection::new(Stream::Plain(stream), place);
                    if self.ready.send(Ok(connection)).await.is_err() {
                        return;
                    }
                }
                Some(tls) => {
                    let handshake = TlsAcceptor::from(tls.current()).accept(stream);
                    let (ready, failures) = (self.ready.clone(), Arc::clone(&failures));
                    tokio::spawn(async move {
                        match tokio::time::timeout(HANDSHAKE_MAX, handshake).await {
                            Ok(Ok(stream)) => {
                                let stream = Stream::Tls(Box::new(stream));
                                // The server may be ending.
                                let _ = ready.send(Ok(Connection::new(stream, place))).await;
                            }
                            Ok(Err(error)) => {
                                place.stats.handshakes_failed.count();
                                failures.tell(&error);
                            }
                            Err(_) => {
                                place.stats.handshakes_failed.count();
                                failures.tell(&"it took too long");
                            }
                        }
                    });
                }
            }
        }
    }
}

/// Handshakes that failed: the log tells of one every now and then, and of how many there
/// were besides.
#[derive(Default)]
struct Failures(Mutex<Untold>);

#[derive(Default)]
struct Untold {
    told: Option<Instant>,
    since: u64,
}

impl Failures {
    fn tell(&self, error: &dyn std::fmt::Display) {
        let mut untold = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if untold.told.is_some_and(|told| told.elapsed() < TELL_FAILURE_AGAIN) {
            untold.since += 1;
            return;
        }
        let others = std::mem::take(&mut untold.since);
        untold.told = Some(Instant::now());
        drop(untold);
        tracing::info!(%error, others, "a TLS handshake failed");
    }
}

/// One of the places that connections have. It is free again when this is dropped.
struct Place {
    stats: Arc<ConnectionStats>,
    _permit: OwnedSemaphorePermit,
}

impl Place {
    fn taken(permit: OwnedSemaphorePermit, stats: Arc<ConnectionStats>) -> Self {
        stats.accepted.count();
        stats.open.up(1);
        Self { stats, _permit: permit }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.stats.open.down(1);
    }
}

/// A connection that is ready to be served.
pub(super) struct Connection {
    stream: Stream,
    info: TcpConnectInfo,
    silence: Option<Silence>,
    _place: Place,
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// The time until the first bytes must have come.
struct Silence {
    until: Pin<Box<Sleep>>,
    missing: usize,
}

impl Connection {
    fn new(stream: Stream, place: Place) -> Self {
        let tcp = match &stream {
            Stream::Plain(tcp) => tcp,
            Stream::Tls(tls) => tls.get_ref().0,
        };
        let info = tcp.connect_info();
        let until = Box::pin(tokio::time::sleep(HANDSHAKE_MAX));
        let silence = Some(Silence { until, missing: PREFACE_BYTES });
        Self { stream, info, silence, _place: place }
    }
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.info.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        ctx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let this = &mut *self;
        let polled = match &mut this.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_read(ctx, buffer),
            Stream::Tls(stream) => Pin::new(stream).poll_read(ctx, buffer),
        };
        let Some(silence) = &mut this.silence else { return polled };
        match polled {
            Poll::Ready(done) => {
                let came = buffer.filled().len().saturating_sub(before);
                silence.missing = silence.missing.saturating_sub(came);
                if silence.missing == 0 {
                    this.silence = None;
                }
                Poll::Ready(done)
            }
            Poll::Pending => {
                silence.until.as_mut().poll(ctx).map(|()| Err(io::ErrorKind::TimedOut.into()))
            }
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        ctx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write(ctx, bytes),
            Stream::Tls(stream) => Pin::new(stream).poll_write(ctx, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        ctx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write_vectored(ctx, parts),
            Stream::Tls(stream) => Pin::new(stream).poll_write_vectored(ctx, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Plain(stream) => stream.is_write_vectored(),
            Stream::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, ctx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(ctx),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(ctx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, ctx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(ctx),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(ctx),
        }
    }
}
