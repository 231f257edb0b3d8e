//! Acquiring: what is asked for, the wait, and the retries.

use std::fmt;
use std::time::Duration;

use http::header::HeaderName;
use http::{HeaderValue, Method, StatusCode};
use leasehold_problems::Name;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::client::{Ask, Client, Reply};
use crate::clock::{Moment, pause};
use crate::error::Error;
use crate::held::Held;
use crate::lock::{Depth, Granted, Lease, Mode};
use crate::lost::{How, Lost};
use crate::retry::{Repeat, passes};
use crate::secret::Token;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
const PREFER: HeaderName = HeaderName::from_static("prefer");

/// How long one request of a long wait waits. The server keeps the place between two.
const STEP: Duration = Duration::from_secs(10);

/// How much later than the wait the answer to a waiting request may come.
const LATENESS: Duration = Duration::from_secs(10);

/// The longest pause after a failure between two requests of one wait: the server keeps the place
/// for 5 s.
const PLACE_KEPT: Duration = Duration::from_secs(3);

/// An answer that took longer came after a wait. One that came sooner is not asked for again
/// without a pause.
const WAITED: Duration = Duration::from_millis(200);

/// The shortest time that a renewal is given.
const MIN_RENEWAL: Duration = Duration::from_secs(1);

/// The longest pause between two requests that the server does not let wait.
const PACE: Duration = Duration::from_secs(1);

enum Want {
    One(String),
    All(Vec<String>),
    AnyOf(Vec<String>),
}

/// An acquire that is being made. See [`Client::lock`].
#[must_use = "nothing is sent before `acquire` or `hold`"]
pub struct LockRequest {
    client: Client,
    want: Want,
    body: Map<String, Value>,
    ttl: Option<Duration>,
    wait: Duration,
    holding: Vec<Token>,
    key: Option<String>,
}

impl Client {
    /// An acquire of the lock of a resource, which may not exist yet.
    ///
    /// ```no_run
    /// # async fn example(client: leasehold_client::Client) -> Result<(), leasehold_client::Error> {
    /// use std::time::Duration;
    ///
    /// let held = client
    ///     .lock("/v1/flags/x")
    ///     .ttl(Duration::from_secs(30))
    ///     .reason("Rolling out")
    ///     .wait(Duration::from_secs(60))
    ///     .hold()
    ///     .await?;
    /// # Ok(()) }
    /// ```
    pub fn lock(&self, resource: impl Into<String>) -> LockRequest {
        LockRequest::new(self, Want::One(resource.into()))
    }

    /// An acquire of several in one step: all or none, one lock and one token for all.
    pub fn lock_all<R: Into<String>>(&self, resources: impl IntoIterator<Item = R>) -> LockRequest {
        LockRequest::new(self, Want::All(resources.into_iter().map(Into::into).collect()))
    }

    /// An acquire of the first of these that is free.
    pub fn lock_any_of<R: Into<String>>(
        &self,
        resources: impl IntoIterator<Item = R>,
    ) -> LockRequest {
        LockRequest::new(self, Want::AnyOf(resources.into_iter().map(Into::into).collect()))
    }
}

impl LockRequest {
    fn new(client: &Client, want: Want) -> Self {
        Self {
            client: client.clone(),
            want,
            body: Map::new(),
            ttl: None,
            wait: Duration::ZERO,
            holding: Vec::new(),
            key: None,
        }
    }

    /// How long the lock lasts unless renewed. What the server's rule says unless set.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// Together with other sharers. Exclusive unless set.
    pub fn shared(mut self) -> Self {
        self.body.insert("mode".into(), json!(Mode::Shared));
        self
    }

    /// The resource and its list of children, not what is below. Everything below unless set.
    pub fn depth_zero(mut self) -> Self {
        self.body.insert("depth".into(), json!(Depth::Zero));
        self
    }

    /// Why: shown to whoever meets the lock.
    pub fn reason(mut self, reason: impl Into<String>) -> Self {
        self.body.insert("reason".into(), Value::String(reason.into()));
        self
    }

    /// Anything to keep with the lock: a JSON object.
    pub fn metadata(mut self, metadata: Map<String, Value>) -> Self {
        self.body.insert("metadata".into(), Value::Object(metadata));
        self
    }

    /// Waits so long for its turn, first come, first served. Fails at once unless set.
    ///
    /// However long it is, it is made of short requests, between which the server keeps the
    /// place: a connection that dies costs neither the place nor the wait.
    pub fn wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    /// Tells the server that this lock is held while waiting, so that it can refuse a wait that
    /// would never end ([`deadlock`](leasehold_problems::Name::Deadlock)).
    pub fn holding(mut self, held: &Held) -> Self {
        self.holding.push(held.token().clone());
        self
    }

    /// The same of a lock whose token is known.
    pub fn holding_token(mut self, token: impl Into<Token>) -> Self {
        self.holding.push(token.into());
        self
    }

    /// Makes this the same acquire as another with this key: of both together there is one lock.
    /// A random one unless set, so that one call makes one lock however often it has to be sent.
    pub fn idempotency_key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Acquires, and keeps the lock: it is renewed from then on, and released when dropped.
    ///
    /// # Errors
    /// As [`acquire`](Self::acquire).
    pub async fn hold(self) -> Result<Held, Error> {
        Ok(self.acquire().await?.hold())
    }

    /// Acquires.
    ///
    /// Failures that pass (a lost connection, a server that starts again) are repeated as the
    /// client's [`RetryPolicy`](crate::RetryPolicy) says, and while there is time to wait.
    ///
    /// # Errors
    /// [`Error::Refused`], with the name `locked` where somebody else holds it and the wait, if
    /// any, is over; and whatever did not pass.
    pub async fn acquire(self) -> Result<Lease, Error> {
        let started = Moment::now();
        let until = started.after(self.wait);
        let ask = self.ask()?;
        let own_key = self.key.is_none();
        let mut key = self.key.clone().unwrap_or_else(|| Uuid::new_v4().to_string());
        // Failures are borne for as long as it is waited anyway.
        let policy = self.client.retry_policy().for_at_least(self.wait, PLACE_KEPT);
        let mut backoff = policy.begin();
        // Whether an attempt may have made a lock whose answer was lost.
        let mut may_be_granted = false;
        loop {
            let step = Step::of(until.left().min(self.longest_step()));
            let asked_at = Moment::now();
            let error = match self.client.once(&step.apply(&ask, &key, &self.client)?).await {
                Ok(reply) => match self.granted(reply).await {
                    Ok(lease) => return Ok(lease),
                    Err(error) => error,
                },
                Err(error) => error,
            };
            may_be_granted |= !error.has_no_side_effects();
            let left = until.left();
            let rest = if waits_on(&error) && !left.is_zero() {
                backoff = policy.begin().not_after(until.max(backoff.until()));
                let took = asked_at.elapsed();
                if WAITED < took || step.span() < took {
                    // It waited for as long as the server lets it: back to its place.
                    Duration::ZERO
                } else {
                    // The server lets nobody wait, or not now.
                    let pace = error.retry_after().unwrap_or_default().min(PACE).max(WAITED);
                    pace.mul_f64(fastrand::f64().mul_add(0.5, 0.5)).min(left)
                }
            } else if own_key && may_be_granted && error.is(Name::LockGone) {
                // A grant of an earlier attempt never arrived and has ended: this is a new one.
                key = Uuid::new_v4().to_string();
                may_be_granted = false;
                match backoff.next(None) {
                    Some(rest) => rest,
                    None => return Err(error),
                }
            } else if passes(&error, Repeat::Safe) {
                match backoff.next(error.retry_after()) {
                    Some(rest) => rest,
                    None => return Err(error),
                }
            } else {
                return Err(error);
            };
            pause(rest).await;
        }
    }

    /// The lock's time is counted from the moment of sending: a request that waited for longer than
    /// the lock is to live would bring one that has ended.
    fn longest_step(&self) -> Duration {
        self.ttl.map_or(STEP, |ttl| STEP.min(ttl / 4))
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// The one resource, where it is one.
    pub(crate) fn single(&self) -> Option<&str> {
        match &self.want {
            Want::One(resource) => Some(resource),
            Want::All(_) | Want::AnyOf(_) => None,
        }
    }

    pub(crate) fn is_shared(&self) -> bool {
        self.body.contains_key("mode")
    }

    async fn granted(&self, reply: Reply) -> Result<Lease, Error> {
        let replayed = reply.headers.contains_key(IDEMPOTENCY_REPLAYED);
        let reply = reply.expect(StatusCode::CREATED)?;
        let granted = Granted::read(&reply)?;
        let endpoint = match &self.want {
            Want::One(resource) => self.client.lock_of(resource)?,
            Want::All(_) | Want::AnyOf(_) => {
                self.client.own(&format!("locks/{}", granted.info.lock_id))
            }
        };
        let mut lease = granted.into_lease(self.client.clone(), endpoint, replayed)?;
        let term = lease.deadline.since(lease.sent_at);
        if term / 2 < lease.sent_at.elapsed() {
            // Much of what was granted went by on the way: in a wait whose TTL the server chose, or
            // on a slow connection. Whether the lock lives, and for how long, a renewal says.
            let timeout = Some((term / 2).max(MIN_RENEWAL).min(self.client.timeout()));
            let renewed = self.client.renew_at(&lease.endpoint, &lease.token, None, timeout).await;
            if let Ok((info, sent_at, deadline)) =
                renewed.and_then(|renewed| renewed.of(lease.info.lock_id))
            {
                (lease.info, lease.sent_at, lease.deadline) = (info, sent_at, deadline);
            }
        }
        if lease.deadline.has_come() {
            // The server may still think otherwise.
            let _ = lease.release().await;
            return Err(Lost::new(How::Expired).into());
        }
        Ok(lease)
    }

    fn ask(&self) -> Result<Ask, Error> {
        let mut body = self.body.clone();
        if let Some(ttl) = self.ttl {
            body.insert("ttl_seconds".into(), seconds(ttl));
        }
        let paths = |resources: &[String]| {
            resources
                .iter()
                .map(|resource| crate::path::path(resource).map(Value::String))
                .collect::<Result<Vec<_>, _>>()
        };
        let target = match &self.want {
            Want::One(resource) => self.client.lock_of(resource)?,
            Want::All(resources) => {
                body.insert("resources".into(), paths(resources)?.into());
                self.client.own("locks")
            }
            Want::AnyOf(resources) => {
                body.insert("any_of".into(), paths(resources)?.into());
                self.client.own("locks")
            }
        };
        let mut ask = Ask::new(Method::POST, target, Repeat::Safe).json(&Value::Object(body));
        for token in &self.holding {
            ask = ask.token(token)?;
        }
        Ok(ask)
    }
}

impl fmt::Debug for LockRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let resources = match &self.want {
            Want::One(resource) => std::slice::from_ref(resource),
            Want::All(resources) | Want::AnyOf(resources) => resources,
        };
        f.debug_struct("LockRequest")
            .field("resources", &resources)
            .field("body", &self.body)
            .field("wait", &self.wait)
            .finish_non_exhaustive()
    }
}

/// Whether a wait goes on after this refusal.
fn waits_on(error: &Error) -> bool {
    error.is(Name::Locked) || error.is(Name::QueueFull)
}

/// How long one request waits.
#[derive(Clone, Copy)]
enum Step {
    /// Not at all.
    None,
    /// So many whole seconds, which the server may cut.
    Preferred(u64),
    /// Less than a second.
    Exactly(Duration),
}

impl Step {
    fn of(left: Duration) -> Self {
        match left.min(STEP).as_secs() {
            0 if left < Duration::from_millis(1) => Self::None,
            0 => Self::Exactly(left),
            seconds => Self::Preferred(seconds),
        }
    }

    fn span(self) -> Duration {
        match self {
            Self::None => Duration::ZERO,
            Self::Preferred(seconds) => Duration::from_secs(seconds),
            Self::Exactly(span) => span,
        }
    }

    fn apply(self, ask: &Ask, key: &str, client: &Client) -> Result<Ask, Error> {
        let key = HeaderValue::from_str(key)
            .map_err(|_| Error::Invalid("the idempotency key is not visible ASCII".into()))?;
        let mut ask = ask.clone().header(IDEMPOTENCY_KEY, key);
        match self {
            Self::None => {}
            Self::Preferred(seconds) => {
                let wait = HeaderValue::from_str(&format!("wait={seconds}"))
                    .map_err(|error| Error::Invalid(error.to_string()))?;
                ask = ask.header(PREFER, wait);
            }
            Self::Exactly(span) => {
                ask.target = format!("{}?wait={:.3}", ask.target, span.as_secs_f64());
            }
        }
        // A server that is there answers soon after the wait it was given.
        Ok(ask.within(client.timeout().min(LATENESS).saturating_add(self.span())))
    }
}

/// Seconds as JSON: a whole number where it is one.
pub(crate) fn seconds(span: Duration) -> Value {
    if span.subsec_nanos() == 0 { span.as_secs().into() } else { span.as_secs_f64().into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_cut_into_whole_seconds_and_a_rest() {
        let span = |ms| Step::of(Duration::from_millis(ms)).span().as_millis();
        assert_eq!(span(0), 0);
        assert_eq!(span(400), 400);
        assert_eq!(span(2500), 2000);
        assert_eq!(span(3_600_000), 10_000);
        assert!(matches!(Step::of(Duration::from_millis(999)), Step::Exactly(_)));
    }

    #[test]
    fn an_acquire_shows_no_token() {
        let client = Client::new("http://127.0.0.1:1").unwrap();
        let token: Token = "lock_hunter2".parse().unwrap();
        let request = client.lock("/a").holding_token(&token).reason("Why");
        let shown = format!("{request:?}");
        assert!(shown.contains("Why") && !shown.contains("hunter2"), "{shown}");
        assert!(!format!("{:?}", request.ask().unwrap()).contains("hunter2"));
    }
}
