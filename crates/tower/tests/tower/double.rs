//! The service behind the layer, a lock table in a folder of its own, and requests.

#![allow(unreachable_pub, reason = "a module of a test program")]

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::BodyExt as _;
use leasehold_tower::{Body, BoxError, Builder, Caller, Leasehold, LeaseholdLayer, MatchedLock};
use serde_json::Value;
use tokio::sync::{Mutex, mpsc, oneshot};
use tower::limit::ConcurrencyLimit;
use tower::util::BoxCloneSyncService;
use tower::{Layer as _, Service, ServiceExt as _};

/// The longest that anything here is waited for.
pub const BOUND: Duration = Duration::from_secs(20);

pub async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(BOUND, future).await.expect("waited in vain")
}

/// Waits until something is so.
pub async fn until(mut is_so: impl FnMut() -> bool) {
    let turns = async {
        while !is_so() {
            tokio::task::yield_now().await;
        }
    };
    soon(turns).await;
}

/// A body that comes when the test sends it, fails when the test says so, and notes whether anybody
/// has asked for it.
pub struct TestBody {
    frames: mpsc::UnboundedReceiver<Result<Bytes, BoxError>>,
    asked_for: Arc<AtomicBool>,
}

/// The other end of a [`TestBody`].
pub struct Sender {
    frames: mpsc::UnboundedSender<Result<Bytes, BoxError>>,
    asked_for: Arc<AtomicBool>,
}

pub fn body() -> (Sender, Body) {
    let (send, frames) = mpsc::unbounded_channel();
    let asked_for = Arc::<AtomicBool>::default();
    let body = TestBody { frames, asked_for: asked_for.clone() };
    (Sender { frames: send, asked_for }, body.boxed_unsync())
}

impl Sender {
    pub fn send(&self, text: &'static str) {
        self.frames.send(Ok(Bytes::from_static(text.as_bytes()))).unwrap();
    }

    pub fn fail(self) {
        self.frames.send(Err("a test".into())).unwrap();
    }

    pub fn is_asked_for(&self) -> bool {
        self.asked_for.load(Ordering::SeqCst)
    }

    /// Waits until nobody has the body any more.
    pub async fn dropped(&self) {
        soon(self.frames.closed()).await;
    }
}

impl http_body::Body for TestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.asked_for.store(true, Ordering::SeqCst);
        self.frames.poll_recv(context).map(|frame| frame.map(|frame| frame.map(Frame::data)))
    }
}

/// What the service does with a request.
pub enum Act {
    Answer(Response<Body>),
    Fail,
    Panic,
}

/// A request that has reached the service.
pub struct Reached {
    pub request: Request<Body>,
    /// What the service is called within.
    pub span: tracing::Span,
    act: oneshot::Sender<Act>,
}

impl Reached {
    pub fn act(self, act: Act) {
        // Who does not listen any more has been dropped, which some tests are about.
        let _ = self.act.send(act);
    }

    pub fn answer(self, status: u16) {
        self.act(Act::Answer(response(status, text(""))));
    }

    /// Whether the service's future is gone.
    pub async fn is_dropped(&mut self) {
        soon(self.act.closed()).await;
    }

    pub fn lock(&self) -> Option<&MatchedLock> {
        self.request.extensions().get()
    }

    pub fn caller(&self) -> Option<&str> {
        self.request.extensions().get().map(|caller: &Caller| caller.principal.as_str())
    }
}

pub fn response(status: u16, body: Body) -> Response<Body> {
    Response::builder().status(status).body(body).unwrap()
}

pub fn text(text: &'static str) -> Body {
    http_body_util::Full::from(text).map_err(|never: Infallible| match never {}).boxed_unsync()
}

/// The service's own error.
#[derive(Debug, thiserror::Error)]
#[error("the service failed")]
pub struct ServiceError;

/// The service. It may be called only after it was ready.
pub struct Double {
    reached: mpsc::UnboundedSender<Reached>,
    is_ready: bool,
}

impl Clone for Double {
    fn clone(&self) -> Self {
        Self { reached: self.reached.clone(), is_ready: false }
    }
}

impl Service<Request<Body>> for Double {
    type Response = Response<Body>;
    type Error = ServiceError;
    type Future = Answering;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ServiceError>> {
        self.is_ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        assert!(self.is_ready, "called before it was ready");
        let (act, acts) = oneshot::channel();
        let span = tracing::Span::current();
        self.reached.send(Reached { request, span, act }).unwrap();
        Box::pin(async move {
            match acts.await {
                Ok(Act::Answer(response)) => Ok(response),
                Ok(Act::Fail) => Err(ServiceError),
                Ok(Act::Panic) => panic!("a test"),
                Err(_) => std::future::pending().await,
            }
        })
    }
}

type Answering = Pin<Box<dyn Future<Output = Result<Response<Body>, ServiceError>> + Send>>;

/// A layer before the double.
#[derive(Clone)]
pub struct Guarded {
    service: BoxCloneSyncService<Request<Body>, Response<Body>, ServiceError>,
    reached: Arc<Mutex<mpsc::UnboundedReceiver<Reached>>>,
}

/// A lock table, and a service behind it.
pub struct World {
    pub root: tempfile::TempDir,
    pub locks: Leasehold,
    pub app: Guarded,
}

impl World {
    pub async fn new() -> Self {
        Self::with(|builder| builder).await
    }

    /// In anonymous mode, set up further. An acquire that meets only writes under way is not held.
    pub async fn with(set: impl FnOnce(Builder) -> Builder) -> Self {
        Self::over(tempfile::tempdir().unwrap(), set).await
    }

    /// The same over a folder that may have a lock table already.
    pub async fn over(root: tempfile::TempDir, set: impl FnOnce(Builder) -> Builder) -> Self {
        let builder = Leasehold::builder(root.path().join("data")).anonymous();
        let locks = set(builder.drain_wait(Duration::ZERO)).open().await.unwrap();
        let app = Guarded::by(&locks.layer());
        Self { root, locks, app }
    }
}

/// An answer, whole.
#[derive(Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The refusal of this status and name.
    pub fn problem(&self, status: u16, name: &str) -> Value {
        let problem = self.json();
        assert_eq!(self.status, status, "{problem}");
        assert_eq!(self.headers["content-type"], "application/problem+json");
        let kind = problem["type"].as_str().unwrap();
        assert!(kind.ends_with(&format!("problems/{name}")), "{problem}");
        problem
    }
}

pub async fn whole(response: Response<Body>) -> Reply {
    let (head, body) = response.into_parts();
    let body = soon(body.collect()).await.unwrap().to_bytes();
    Reply { status: head.status, headers: head.headers, body }
}

pub fn request(method: &str, uri: &str, fields: &[(&str, &str)], body: Body) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(uri);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(body).unwrap()
}

impl Guarded {
    pub fn by(layer: &LeaseholdLayer) -> Self {
        let (reached, received) = mpsc::unbounded_channel();
        Self::of(layer.layer(Double { reached, is_ready: false }), received)
    }

    /// The same before a service that takes one request at a time.
    pub fn by_one_at_a_time(layer: &LeaseholdLayer) -> Self {
        let (reached, received) = mpsc::unbounded_channel();
        let double = Double { reached, is_ready: false };
        Self::of(layer.layer(ConcurrencyLimit::new(double, 1)), received)
    }

    fn of<S>(service: S, received: mpsc::UnboundedReceiver<Reached>) -> Self
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = ServiceError>,
        S: Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
    {
        let service = BoxCloneSyncService::new(service);
        Self { service, reached: Arc::new(Mutex::new(received)) }
    }

    /// Sends a request, and waits for the head of its answer.
    pub fn call(&self, request: Request<Body>) -> Answering {
        let answering: Answering = Box::pin(self.service.clone().oneshot(request));
        Box::pin(soon(answering))
    }

    pub async fn send(&self, method: &str, uri: &str, fields: &[(&str, &str)]) -> Reply {
        whole(self.call(request(method, uri, fields, text(""))).await.unwrap()).await
    }

    pub async fn post(&self, uri: &str, json: Value) -> Reply {
        let json = http_body_util::Full::from(json.to_string());
        let json = json.map_err(|never: Infallible| match never {}).boxed_unsync();
        whole(self.call(request("POST", uri, &[], json)).await.unwrap()).await
    }

    /// Sends a request in a task of its own.
    pub fn spawn(
        &self,
        request: Request<Body>,
    ) -> tokio::task::JoinHandle<Result<Response<Body>, ServiceError>> {
        tokio::spawn(self.call(request))
    }

    /// The next request that has reached the service.
    pub async fn reached(&self) -> Reached {
        soon(self.reached.lock().await.recv()).await.unwrap()
    }

    /// Whether no other request has.
    pub async fn is_quiet(&self) -> bool {
        self.reached.lock().await.try_recv().is_err()
    }

    /// The lock of a resource: the answer to its acquire.
    pub async fn lock(&self, resource: &str) -> Value {
        let reply = self.post(&format!("{resource}/lock"), serde_json::json!({})).await;
        assert_eq!(reply.status, 201, "{:?}", reply.json());
        reply.json()
    }

    /// The lock of a resource, once the writes under way have ended.
    pub async fn lock_in_time(&self, resource: &str) -> Value {
        let reply = self.post(&format!("{resource}/lock?wait=10"), serde_json::json!({})).await;
        assert_eq!(reply.status, 201, "{:?}", reply.json());
        reply.json()
    }

    /// How many writes keep the resource from being locked.
    pub async fn writes_in_flight(&self, resource: &str) -> u64 {
        let reply = self.post(&format!("{resource}/lock"), serde_json::json!({})).await;
        reply.problem(423, "locked")["writes_in_flight"].as_u64().unwrap()
    }
}

pub fn token(lock: &Value) -> &str {
    lock["lock_token"].as_str().unwrap()
}
