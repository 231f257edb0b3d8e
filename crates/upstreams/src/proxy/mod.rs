//! An existing API behind the guard.
//!
//! What always holds:
//! - A request goes on as it came: method, target and fields byte for byte, body and trailers as
//!   they come. Nothing is kept whole.
//! - A write is sent at most once ([`exchange`] says when that is known).
//! - A write stays pinned until its answer has ended. Where that is never seen, the connection is
//!   closed first, and then the drain time runs: so long the upstream may go on with what it has.
//! - A write goes on to its end without its client, once its body is complete.
//!
//! Modules in reading order: where the upstream is ([`origin`]) and how it is reached ([`tls`],
//! [`connect`], [`pool`], [`site`]), what becomes of header fields ([`fields`]), whom an exchange waits for
//! ([`pace`]), one request ([`exchange`]) and its answer ([`answer`]), what can go wrong
//! ([`fault`]), connections that become something else ([`tunnel`]), and whether the upstream shows
//! something to a caller ([`sight`]).

mod answer;
mod connect;
mod exchange;
mod fault;
mod fields;
mod origin;
mod pace;
mod pool;
mod sight;
mod site;
mod tls;
mod tunnel;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::header::IF_MATCH;
use http::request::Parts;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::upgrade::OnUpgrade;
use leasehold_core::event::WriteResult;
use leasehold_core::ids::Seq;
use leasehold_core::resource::Resource;
use leasehold_core::sabotage::{self, Mistake};
use leasehold_core::target::Target;
use leasehold_guard::body::{Body, empty};
use leasehold_guard::targets::{ByRules, by_head};
use leasehold_guard::upstream::{Admitted, Answer, BoxFuture, Execution, Upstream, Witness};
use leasehold_problems::{Name, Problem};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::answer::{AnswerBody, Ended};
use self::exchange::Begun;
use self::fault::Failure;
use self::sight::Seen;
use self::site::Sites;

pub use self::connect::{Dial, Wire};
pub use self::fault::Fault;
pub use self::fields::{Arrival, outgoing};
pub use self::origin::Origin;
pub use self::site::Route;
pub use self::tls::{TlsError, TlsFiles};

/// Who counts what comes of exchanges with the upstream.
pub trait Observer: Send + Sync + 'static {
    /// The head of an answer came.
    fn answered(&self, status: StatusCode);

    /// None came, or not all of its answer.
    fn failed(&self, fault: Fault);
}

/// An extension of an answer whose body comes from the upstream as it is taken: it is not in
/// memory, however long it is.
#[derive(Clone, Copy, Debug)]
pub struct Streamed;

/// How often connections that have been idle for too long are looked for.
const TIDY_EVERY: Duration = Duration::from_secs(10);

/// How the upstream is spoken to.
pub struct Options {
    /// Where it is; none: only where rules say.
    pub origin: Option<Origin>,
    /// How long it may be silent, where no rule says.
    pub timeout: Duration,
    /// How long it may go on with a request after its connection was closed.
    pub drain_time: Duration,
    /// Who connects; none: the system, by TCP and TLS.
    pub dial: Option<Arc<dyn Dial>>,
    /// The most connections that have become something else than HTTP.
    pub max_tunnels: usize,
    /// Who counts.
    pub observer: Arc<dyn Observer>,
    /// Cancelled when the server stops: what has become something else than HTTP then ends.
    pub stop: CancellationToken,
}

/// The upstream.
pub struct Proxy {
    shared: Arc<Shared>,
    seen: Seen,
}

struct Shared {
    options: Options,
    sites: Sites,
    tunnels: Arc<Semaphore>,
}

/// A write, as it came.
pub struct Plan {
    /// Boxed: each future that the write is handed on to has room for it.
    head: Box<Parts>,
    resource: Resource,
    /// A body can be sent between threads, not shared; nobody asks for it before its turn.
    body: Mutex<Body>,
}

impl Proxy {
    /// The upstream that `options` say, once it is [known](Self::know). Nothing is connected before
    /// the first request.
    #[must_use]
    pub fn new(options: Options) -> Self {
        let most = options.max_tunnels.min(Semaphore::MAX_PERMITS);
        let tunnels = Arc::new(Semaphore::new(most));
        let sites = Sites::new(options.origin.as_ref(), options.timeout, options.dial.clone());
        let shared = Arc::new(Shared { options, sites, tunnels });
        Self { shared, seen: Seen::default() }
    }

    /// Makes upstreams known: the one for everything, and each that a [`Route`] may name. Those
    /// over TLS take `tls` from now on.
    ///
    /// # Errors
    /// When there can be no TLS with a host; then nothing has changed.
    pub fn know(
        &self,
        origins: &[Origin],
        tls: Option<&Arc<rustls::ClientConfig>>,
    ) -> Result<(), TlsError> {
        self.shared.sites.know(origins, tls)
    }

    /// Closes connections that have been idle for too long, from time to time.
    pub async fn tidy(&self) {
        loop {
            tokio::time::sleep(TIDY_EVERY).await;
            self.shared.sites.tidy();
        }
    }

    /// Answers a request that only reads, whatever it names.
    ///
    /// # Errors
    /// Why the upstream has not answered.
    pub async fn pass_on(&self, request: Request<Body>) -> Answer {
        let shared = &self.shared;
        let (head, body) = request.into_parts();
        let mut head = Box::new(head);
        let client = head.extensions.remove::<OnUpgrade>();
        let asked = fields::upgrade(&head.method, &head.headers).filter(|_| client.is_some());
        let way = shared.sites.way(&head)?;
        outgoing(&mut head, &way.site.authority, None, asked.as_ref());
        let timeout = way.timeout;
        let told = |failure: Failure| failure.problem(timeout);
        let begun = shared.send(head, body, way, true).await.map_err(told)?;
        if begun.response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return self.switch(begun, client.zip(asked)).map_err(told)?;
        }
        Ok(answered(shared, begun).map(BodyExt::boxed_unsync))
    }

    fn switch(
        &self,
        mut begun: Begun,
        asked: Option<(OnUpgrade, http::HeaderValue)>,
    ) -> Result<Answer, Failure> {
        let shared = &self.shared;
        let agreed = asked.and_then(|(client, asked)| {
            let agreed = tunnel::agreed(&begun.response, &asked)?;
            Some((client, agreed))
        });
        let Some((client, agreed)) = agreed else {
            shared.options.observer.failed(Fault::BrokenOff);
            let why = "it changed to a protocol that it was not asked for".to_owned();
            let closing = begun.lease.close();
            return Err(Failure { fault: Fault::BrokenOff, why, closing });
        };
        let Ok(place) = shared.tunnels.clone().try_acquire_owned() else {
            let detail = "The gateway has as many upgraded connections as it may have.";
            return Ok(Err(Box::new(Problem::new(Name::Unavailable, detail).retry_after(1))));
        };
        let stop = shared.options.stop.clone();
        tokio::spawn(tunnel::tunnel(client, &mut begun, stop, place));
        let Begun { response, lease, .. } = begun;
        // The connection's task ends by handing it to the tunnel.
        lease.detach();
        let (mut head, _) = response.into_parts();
        fields::incoming(&mut head.headers, head.version);
        tunnel::tell(&mut head.headers, Some(agreed));
        head.extensions.clear();
        Ok(Ok(Response::from_parts(head, empty())))
    }

    async fn write(&self, plan: Plan, admitted: &Admitted) -> Execution<Plan> {
        let shared = &self.shared;
        let Plan { mut head, body, .. } = plan;
        let body = body.into_inner().unwrap_or_else(PoisonError::into_inner);
        head.extensions.remove::<OnUpgrade>();
        let way = match shared.sites.way(&head) {
            Ok(way) => way,
            Err(problem) => return not_sent(problem),
        };
        outgoing(&mut head, &way.site.authority, admitted.lock(), None);
        let (timeout, drain_time) = (way.timeout, shared.options.drain_time);
        match shared.send(head, body, way, false).await {
            Ok(begun) => {
                let mut response = answered(shared, begun);
                let result = WriteResult::Answered(response.status().as_u16());
                let ended = response.body_mut().follow();
                let response = response.map(BodyExt::boxed_unsync);
                let Some(ended) = ended.filter(|_| !sabotage::is(Mistake::EndAtHead)) else {
                    return Execution::Ended(Ok(response));
                };
                let ending = async move {
                    match ended.await {
                        Ok(Ended::Whole) => result,
                        Ok(Ended::Cut(closing)) => landed_or_not(closing, drain_time).await,
                        // Dropped with the connection, which that closes.
                        Err(_) => landed_or_not(None, drain_time).await,
                    }
                };
                Execution::Answered(Ok(response), Box::pin(ending))
            }
            Err(failure) if failure.fault.is_not_sent() => not_sent(failure.problem(timeout)),
            Err(failure) => {
                let problem = failure.problem(timeout);
                let ending = landed_or_not(failure.closing, drain_time);
                Execution::Answered(Err(problem), Box::pin(ending))
            }
        }
    }
}

/// A write that certainly has not reached the upstream.
fn not_sent(problem: Box<Problem>) -> Execution<Plan> {
    Execution::Answered(Err(problem), Box::pin(async { WriteResult::NotSent }))
}

/// The answer as the client gets it.
fn answered(shared: &Arc<Shared>, begun: Begun) -> Response<AnswerBody> {
    let (mut head, body) = AnswerBody::new(shared, begun);
    fields::incoming(&mut head.headers, head.version);
    // hyper's own notes on the connection it came by.
    head.extensions.clear();
    head.extensions.insert(Streamed);
    head.version = http::Version::HTTP_11;
    Response::from_parts(head, body)
}

/// Waits until nothing of a write can land any more whose answer was not seen.
async fn landed_or_not(closing: Option<JoinHandle<()>>, drain_time: Duration) -> WriteResult {
    if let Some(closing) = closing {
        // However the connection's task ended, the connection is closed.
        let _ = closing.await;
    }
    if !sabotage::is(Mistake::SkipDrainTime) {
        tokio::time::sleep(drain_time).await;
    }
    WriteResult::Unknown
}

impl Witness for Proxy {
    fn etag<'a>(&'a self, _: &'a Resource) -> BoxFuture<'a, Result<Option<String>, Box<Problem>>> {
        let detail = "Behind a gateway an If header can name lock tokens, but no entity tags: send \
                      those in If-Match.";
        Box::pin(async move {
            Err(Box::new(Problem::new(Name::MalformedRequest, detail).with("field", "If")))
        })
    }

    fn outcome(&self, _: Option<Seq>) -> BoxFuture<'_, WriteResult> {
        // A panic has dropped the connection, and so closed it.
        Box::pin(landed_or_not(None, self.shared.options.drain_time))
    }
}

impl Upstream for Proxy {
    type Plan = Plan;

    async fn read(&self, request: Request<Body>, _: Resource) -> Answer {
        self.pass_on(request).await
    }

    fn check_syntax(&self, _: &Parts) -> Result<(), Box<Problem>> {
        Ok(())
    }

    fn takes_all_below(&self, _: &Parts) -> bool {
        false
    }

    fn allow(&self, head: &Parts, _: &Resource) -> Result<(), Box<Problem>> {
        self.shared.sites.way(head).map(|_| ())
    }

    fn early_targets(&self, head: &Parts, resource: &Resource) -> Vec<Target> {
        match head.extensions.get::<ByRules>() {
            Some(ByRules(targets)) => targets.clone(),
            None => by_head(&head.method, resource, head.headers.contains_key(IF_MATCH)),
        }
    }

    async fn targets_by_head(&self, head: &Parts, resource: &Resource) -> Option<Vec<Target>> {
        Some(self.early_targets(head, resource))
    }

    fn is_judged_by_head(&self) -> bool {
        true
    }

    async fn plan(
        &self,
        head: Parts,
        resource: Resource,
        body: Body,
    ) -> Result<Plan, Box<Problem>> {
        Ok(Plan { head: Box::new(head), resource, body: Mutex::new(body) })
    }

    async fn targets(&self, plan: &Plan) -> Vec<Target> {
        self.early_targets(&plan.head, &plan.resource)
    }

    async fn execute(&self, plan: Plan, admitted: &Admitted) -> Execution<Plan> {
        self.write(plan, admitted).await
    }
}
