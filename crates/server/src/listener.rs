//! Connections: accepted, bounded, timed, and let go.
//!
//! The loop is our own because the ready-made ones do not let their timers be set. What holds:
//! - A connection that does not bring a whole request head within `header_timeout` is closed, at
//!   its start and between requests. hyper does that once it knows the version; a client that
//!   does not even get that far is closed here.
//! - A TLS handshake and the first request head have that time together. A connection counts from
//!   its first byte, so one that shakes hands has a place already.
//! - At `max_connections`, one more is told `503` and closed at once; where TLS is spoken it is
//!   just closed, for a handshake is what costs most. It is not left in the backlog: there its
//!   client would count a lock's time without knowing whether anyone listens, and whoever balances
//!   load would see nothing wrong here.
//! - A client that takes nothing of an answer for `answer_timeout` is closed.
//! - The loop outlives every error of `accept`. Without free descriptors it waits, longer each
//!   time, up to a second.
//! - A client that closes its half is gone (hyper's `half_close(false)`): its request's future is
//!   dropped. One that vanishes without a word is found by TCP keep-alive, or by HTTP/2 pings.
//!
//! Deliberately absent: what the requests mean.

mod around;
mod dormant;
mod handshake;
mod progress;

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use leasehold_guard::body::Body;
use leasehold_problems::{Context, Name, PROBLEM_JSON, Problem};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower_service::Service;

use crate::config::Config;
use crate::identity::ClientCertificate;
use crate::tls::Tls;

use self::around::{Around, Happened};
use self::dormant::Dormant;
use self::handshake::shake_hands;
use self::progress::Progress;

/// How many connections the system keeps ready for us to accept.
const BACKLOG: u32 = 1024;

/// The most requests at once on one HTTP/2 connection.
const MAX_STREAMS: u32 = 250;

/// How much of the bodies on one HTTP/2 connection is taken before anybody reads it: 1 MiB.
const CONNECTION_WINDOW: u32 = 1 << 20;

/// The same of one of them, so that one that nobody reads leaves room for others: 256 KiB.
const STREAM_WINDOW: u32 = CONNECTION_WINDOW / 4;

/// How many connections over the limit are told so at the same time; more are just closed.
const MAX_TURNED_AWAY: usize = 64;

/// How connections are bounded and timed.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The most connections.
    pub max_connections: usize,
    /// The largest request head, in bytes.
    pub max_header: usize,
    /// The longest a request head may take.
    pub header_timeout: Duration,
    /// The longest a client may take nothing of an answer.
    pub answer_timeout: Duration,
    /// How long running requests may go on after the stop.
    pub shutdown_timeout: Duration,
    /// The whole answer to a connection that is one too many.
    pub busy: Bytes,
}

impl Settings {
    /// Those of this configuration.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        Self {
            max_connections: config.limits.max_connections,
            max_header: config.limits.max_header,
            header_timeout: config.limits.header_timeout,
            answer_timeout: config.limits.answer_timeout,
            // The last tenth is for what comes after: writes whose client has gone, and the mark
            // of a clean stop.
            shutdown_timeout: config.limits.shutdown_timeout.mul_f64(0.9),
            busy: busy(&config.prefix),
        }
    }
}

/// The answer to a connection that is one too many. Its request has not been read, so the problem
/// has neither `instance` nor `request_id`.
fn busy(prefix: &str) -> Bytes {
    let problem = Problem::new(
        Name::Unavailable,
        "The server has as many connections as it may have; try again in a moment.",
    );
    let context = Context { instance: "", request_id: "", prefix };
    let body = problem.document(&context);
    let length = body.len();
    let head = format!(
        "HTTP/1.1 503 Service Unavailable\r\nContent-Type: {PROBLEM_JSON}\r\n\
         Content-Length: {length}\r\nCache-Control: no-store\r\nRetry-After: 1\r\n\
         Connection: close\r\n\r\n"
    );
    Bytes::from([head.into_bytes(), body].concat())
}

/// How many connections are open.
#[derive(Clone, Debug, Default)]
pub struct Connections(Arc<AtomicUsize>);

impl Connections {
    /// How many.
    #[must_use]
    pub fn open(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    fn enter(&self) -> Counted {
        self.0.fetch_add(1, Ordering::Relaxed);
        Counted(Arc::clone(&self.0))
    }
}

/// One that is counted, until it is dropped.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How a listener ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Drained {
    /// How many connections still had a request running when the time was up, and were cut.
    pub cut: usize,
}

/// A bound socket that has not begun to accept.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    settings: Settings,
    tls: Option<Arc<Tls>>,
    connections: Connections,
}

impl Listener {
    /// Binds `address`; port 0 takes a free one. Within a tokio runtime.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub fn bind(address: SocketAddr, settings: Settings) -> io::Result<Self> {
        let socket = if address.is_ipv6() { TcpSocket::new_v6() } else { TcpSocket::new_v4() }?;
        // Else a restart would have to wait for the old connections' TIME_WAIT.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        let socket = socket.listen(BACKLOG)?;
        let address = socket.local_addr()?;
        Ok(Self { socket, address, settings, tls: None, connections: Connections::default() })
    }

    /// The same, speaking TLS.
    #[must_use]
    pub fn with_tls(self, tls: Option<Arc<Tls>>) -> Self {
        Self { tls, ..self }
    }

    /// The address that was bound, with the real port.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// The count of its open connections.
    #[must_use]
    pub fn connections(&self) -> Connections {
        self.connections.clone()
    }

    /// Serves each connection with what `service` makes for its peer, which is always ready, until
    /// `stop` is cancelled; then accepts no more, lets running requests go on for
    /// `shutdown_timeout` at most, and closes what is left.
    pub async fn serve<S>(
        self,
        service: impl Fn(SocketAddr) -> S,
        stop: CancellationToken,
    ) -> Drained
    where
        S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible>,
        S: Clone + Send + 'static,
        S::Future: Send + 'static,
    {
        let Self { mut socket, settings, tls, connections, .. } = self;
        let shutdown_timeout = settings.shutdown_timeout;
        let cut = CancellationToken::new();
        let keeper = Keeper {
            slots: Arc::new(Semaphore::new(settings.max_connections)),
            turned_away: Arc::new(Semaphore::new(MAX_TURNED_AWAY)),
            http: Arc::new(http(&settings)),
            settings: Arc::new(settings),
            tls,
            connections,
            tasks: TaskTracker::new(),
            stop: stop.clone(),
            cut: cut.clone(),
        };
        accept(&mut socket, &stop, |stream, peer| keeper.take(stream, peer, || service(peer)))
            .await;
        // From here on the system refuses connections.
        drop(socket);
        keeper.tasks.close();
        let drained = timeout(shutdown_timeout, keeper.tasks.wait()).await;
        let left = if drained.is_ok() { 0 } else { keeper.connections.open() };
        cut.cancel();
        keeper.tasks.wait().await;
        Drained { cut: left }
    }
}

/// Where connections come from: a socket, or a test.
trait Accept: Send {
    fn accept(&mut self) -> impl Future<Output = io::Result<(TcpStream, SocketAddr)>> + Send;
}

impl Accept for TcpListener {
    async fn accept(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        Self::accept(self).await
    }
}

/// Hands each accepted connection on, until `stop`.
async fn accept(
    from: &mut impl Accept,
    stop: &CancellationToken,
    mut take: impl FnMut(TcpStream, SocketAddr),
) {
    const FIRST_PAUSE: Duration = Duration::from_millis(10);
    const LONGEST_PAUSE: Duration = Duration::from_secs(1);
    let mut pause = FIRST_PAUSE;
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            accepted = from.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                pause = FIRST_PAUSE;
                take(stream, peer);
            }
            // That one client gave up; the next is not concerned.
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections, trying again in {pause:?}");
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = sleep(pause) => {}
                }
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// HTTP/1.1 and HTTP/2, each with its timers: hyper enforces none that has no timer.
fn http(settings: &Settings) -> auto::Builder<TokioExecutor> {
    let mut http = auto::Builder::new(TokioExecutor::new());
    http.http1()
        .timer(TokioTimer::new())
        .header_read_timeout(settings.header_timeout)
        .max_buf_size(settings.max_header.max(8192))
        .half_close(false);
    http.http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(20))
        .max_concurrent_streams(MAX_STREAMS)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .initial_stream_window_size(STREAM_WINDOW)
        .max_header_list_size(u32::try_from(settings.max_header).unwrap_or(u32::MAX));
    http
}

/// What every connection needs.
struct Keeper {
    slots: Arc<Semaphore>,
    turned_away: Arc<Semaphore>,
    http: Arc<auto::Builder<TokioExecutor>>,
    settings: Arc<Settings>,
    tls: Option<Arc<Tls>>,
    connections: Connections,
    tasks: TaskTracker,
    stop: CancellationToken,
    cut: CancellationToken,
}

impl Keeper {
    fn take<S>(&self, stream: TcpStream, peer: SocketAddr, service: impl FnOnce() -> S)
    where
        S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible>,
        S: Clone + Send + 'static,
        S::Future: Send + 'static,
    {
        prepare(&stream);
        let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() else {
            tracing::debug!(%peer, "turned away: too many connections");
            if self.tls.is_none()
                && let Ok(turn) = Arc::clone(&self.turned_away).try_acquire_owned()
            {
                self.tasks.spawn(turn_away(stream, self.settings.busy.clone(), turn));
            }
            return;
        };
        let connection = Connection {
            peer,
            http: Arc::clone(&self.http),
            tls: self.tls.clone(),
            header_timeout: self.settings.header_timeout,
            answer_timeout: self.settings.answer_timeout,
            stop: self.stop.clone(),
            cut: self.cut.clone(),
            _counted: self.connections.enter(),
            _slot: slot,
        };
        self.tasks.spawn(connection.run(stream, service()));
    }
}

/// Settings of the socket. Where one fails the connection is as good without it.
fn prepare(stream: &TcpStream) {
    let keep_alive = TcpKeepalive::new()
        .with_time(Duration::from_secs(15))
        .with_interval(Duration::from_secs(5));
    let set = stream
        .set_nodelay(true)
        .and_then(|()| SockRef::from(stream).set_tcp_keepalive(&keep_alive));
    if let Err(error) = set {
        tracing::debug!(%error, "cannot set up the socket");
    }
}

/// Tells a connection that there is no place for it. What it sent is read for a moment: closed
/// before, the system would answer it with a reset, and the answer might be lost.
async fn turn_away(mut stream: TcpStream, busy: Bytes, _turn: OwnedSemaphorePermit) {
    let told = async {
        stream.write_all(&busy).await?;
        stream.shutdown().await?;
        let mut rest = [0; 1024];
        while stream.read(&mut rest).await? > 0 {}
        io::Result::Ok(())
    };
    // Whether it heard us is its own matter.
    let _ = timeout(Duration::from_millis(500), told).await;
}

/// One connection, from its first byte to its last.
struct Connection {
    peer: SocketAddr,
    http: Arc<auto::Builder<TokioExecutor>>,
    tls: Option<Arc<Tls>>,
    header_timeout: Duration,
    answer_timeout: Duration,
    stop: CancellationToken,
    cut: CancellationToken,
    _counted: Counted,
    _slot: OwnedSemaphorePermit,
}

/// What has happened on a connection.
#[derive(Debug, Default)]
struct Activity {
    /// How many requests have begun.
    begun: AtomicU64,
    /// How many of them have no answer yet.
    running: Arc<AtomicUsize>,
}

impl Connection {
    async fn run<S>(self, stream: TcpStream, service: S)
    where
        S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible>,
        S: Clone + Send + 'static,
        S::Future: Send + 'static,
    {
        let deadline = Instant::now() + self.header_timeout;
        let Some(tls) = &self.tls else { return self.serve(stream, None, service, deadline).await };
        let shaken = tokio::select! {
            shaken = shake_hands(tls.acceptor(), stream, deadline) => shaken,
            () = self.stop.cancelled() => return,
        };
        match shaken {
            // Boxed: a connection without TLS should not take the memory of one with it.
            Ok(stream) => {
                let chain = stream.get_ref().1.peer_certificates();
                let shown = chain.and_then(|chain| chain.first()).map(ClientCertificate::read);
                Box::pin(self.serve(stream, shown, service, deadline)).await;
            }
            Err(error) => tracing::debug!(peer = %self.peer, %error, "no TLS handshake"),
        }
    }

    /// Answers what comes on `stream`; the first head has to be whole at `deadline`.
    async fn serve<IO, S>(
        &self,
        stream: IO,
        certificate: Option<ClientCertificate>,
        service: S,
        deadline: Instant,
    ) where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible>,
        S: Clone + Send + 'static,
        S::Future: Send + 'static,
    {
        let activity = Arc::new(Activity::default());
        let service = watched(service, certificate, Arc::clone(&activity));
        let stream = TokioIo::new(Progress::new(stream, self.answer_timeout));
        let connection = self.http.serve_connection_with_upgrades(stream, service);
        let mut connection = pin!(connection);
        let mut around = Around::new(self.stop.clone(), self.cut.clone(), deadline);
        let mut begun = 0;
        loop {
            let happened = {
                let next = pin!(around.next());
                let mut happens = Dormant::new(next);
                tokio::select! {
                    biased;
                    ended = connection.as_mut() => {
                        if let Err(error) = ended {
                            tracing::debug!(peer = %self.peer, error, "connection ended");
                        }
                        return;
                    }
                    happened = &mut happens => happened,
                }
            };
            match happened {
                Happened::Cut => return,
                Happened::Stop => {
                    around.stopping = true;
                    connection.as_mut().graceful_shutdown();
                }
                Happened::FirstRequestIsDue => {
                    around.first_request = None;
                    if activity.begun.load(Ordering::Relaxed) == 0 {
                        tracing::debug!(peer = %self.peer, "no request in time");
                        return;
                    }
                }
                Happened::IdleTick => {
                    let now = activity.begun.load(Ordering::Relaxed);
                    if now == begun && activity.running.load(Ordering::Relaxed) == 0 {
                        // An answer that is still being streamed goes on to its end.
                        around.stopping = true;
                        connection.as_mut().graceful_shutdown();
                    }
                    begun = now;
                }
            }
        }
    }
}

/// The service of one connection, whose requests are counted, and bring the certificate that it was
/// made with.
fn watched<S>(
    service: S,
    certificate: Option<ClientCertificate>,
    activity: Arc<Activity>,
) -> impl hyper::service::Service<
    Request<Incoming>,
    Response = Response<Body>,
    Error = Infallible,
    Future = impl Future<Output = Result<Response<Body>, Infallible>> + Send + 'static,
>
where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send + 'static,
{
    hyper::service::service_fn(move |mut request: Request<Incoming>| {
        if let Some(certificate) = &certificate {
            request.extensions_mut().insert(certificate.clone());
        }
        activity.begun.fetch_add(1, Ordering::Relaxed);
        activity.running.fetch_add(1, Ordering::Relaxed);
        let running = Counted(Arc::clone(&activity.running));
        let answer = service.clone().call(request);
        async move {
            let _running = running;
            answer.await
        }
    })
}

#[cfg(test)]
mod tests;
