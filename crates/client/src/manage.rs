//! What is done to locks by whoever has a token, and to those of others: inspect, renew, release,
//! hand over, ask for, break, freeze, list.

use std::time::Duration;

use http::{Method, StatusCode};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::acquire::seconds;
use crate::client::{Ask, Client};
use crate::error::Error;
use crate::lock::{Freeze, Granted, Inspection, Lease, LockInfo, Waiter};
use crate::pages::{Pages, Query};
use crate::retry::{Backoff, Repeat};
use crate::secret::Token;

impl Client {
    /// What there is to see at the lock of a resource: who holds it, who waits.
    ///
    /// # Errors
    /// The refusal.
    pub async fn inspect(&self, resource: &str) -> Result<Inspection, Error> {
        self.send(&Ask::get(self.lock_of(resource)?)).await?.json()
    }

    /// One lock by its id.
    ///
    /// # Errors
    /// The refusal; `not-found` where no such lock lives.
    pub async fn show(&self, lock_id: Uuid) -> Result<LockInfo, Error> {
        self.send(&Ask::get(self.own(&format!("locks/{lock_id}")))).await?.json()
    }

    /// Every live lock that the filter lets through, page by page.
    pub fn locks(&self, filter: LockFilter) -> Pages<LockInfo> {
        Pages::new(self, self.own("locks"), filter.query)
    }

    /// A lock whose token is known from elsewhere, as a [`Lease`]. Renews it.
    ///
    /// # Errors
    /// The refusal; `lock-gone` where the lock has ended.
    pub async fn adopt(&self, resource: &str, token: impl Into<Token>) -> Result<Lease, Error> {
        let (token, endpoint) = (token.into(), self.lock_of(resource)?);
        let mut granted = self.renew_at(&endpoint, &token, None, None).await?;
        granted.token = Some(token);
        granted.into_lease(self.clone(), endpoint, false)
    }

    /// Renews the lock of a resource. Without a TTL the one last asked for is used, and the
    /// deadline never comes earlier.
    ///
    /// # Errors
    /// The refusal; `lock-gone` where the lock has ended.
    pub async fn renew(
        &self,
        resource: &str,
        token: impl Into<Token>,
        ttl: Option<Duration>,
    ) -> Result<LockInfo, Error> {
        let endpoint = self.lock_of(resource)?;
        Ok(self.renew_at(&endpoint, &token.into(), ttl, None).await?.info)
    }

    /// Releases the lock of a resource. It may be repeated.
    ///
    /// # Errors
    /// The refusal; `lock-gone` where the lock ended by itself before.
    pub async fn release(&self, resource: &str, token: impl Into<Token>) -> Result<(), Error> {
        let endpoint = self.lock_of(resource)?;
        self.release_at(&endpoint, &token.into(), self.retry_policy().begin()).await
    }

    /// Hands a lock over to another principal. What comes back is the new lock with its new
    /// token, to be passed on to them; the old token has ended.
    ///
    /// # Errors
    /// The refusal.
    pub async fn transfer(
        &self,
        resource: &str,
        token: impl Into<Token>,
        to: &str,
    ) -> Result<Lease, Error> {
        let endpoint = self.lock_of(resource)?;
        let ask = Ask::new(Method::POST, format!("{endpoint}/transfer"), Repeat::Safe)
            .json(&json!({ "to": to }))
            .token(&token.into())?;
        let reply = self.send(&ask).await?.expect(StatusCode::OK)?;
        Granted::read(&reply)?.into_lease(self.clone(), endpoint, false)
    }

    /// Asks whoever holds a lock here to let go, and gives the ids of their locks.
    ///
    /// # Errors
    /// The refusal; `lock-changed` where nothing is locked.
    pub async fn request_let_go(
        &self,
        resource: &str,
        message: Option<&str>,
    ) -> Result<Vec<Uuid>, Error> {
        #[derive(Deserialize)]
        struct Asked {
            asked: Vec<Uuid>,
        }
        let body = message.map_or_else(|| json!({}), |message| json!({ "message": message }));
        let target = format!("{}/request", self.lock_of(resource)?);
        let ask = Ask::new(Method::POST, target, Repeat::Safe).json(&body);
        Ok(self.send(&ask).await?.expect(StatusCode::ACCEPTED)?.json::<Asked>()?.asked)
    }

    /// A break of the lock that covers a resource.
    ///
    /// ```no_run
    /// # async fn example(client: leasehold_client::Client) -> Result<(), leasehold_client::Error> {
    /// use std::time::Duration;
    ///
    /// let broken = client
    ///     .break_lock("/v1/flags/x")
    ///     .reason("The machine of its holder is gone")
    ///     .grace(Duration::from_secs(10))
    ///     .send()
    ///     .await?;
    /// # Ok(()) }
    /// ```
    pub fn break_lock(&self, resource: impl Into<String>) -> BreakRequest {
        let (client, resource) = (self.clone(), resource.into());
        BreakRequest { client, resource, body: Map::new(), named: false }
    }

    /// Stops all writes to a resource and everything below it until a time, by the server's wall
    /// clock. It is answered when the writes under way have ended.
    ///
    /// # Errors
    /// The refusal.
    pub async fn freeze(
        &self,
        resource: &str,
        reason: &str,
        until: Timestamp,
    ) -> Result<Freeze, Error> {
        let target = format!("{}/freeze", self.lock_of(resource)?);
        let body = json!({ "reason": reason, "until": until });
        let ask = Ask::new(Method::PUT, target, Repeat::Safe).json(&body);
        self.send(&ask).await?.expect(StatusCode::OK)?.json()
    }

    /// Lifts a freeze. Where there is none, that is fine.
    ///
    /// # Errors
    /// The refusal.
    pub async fn unfreeze(&self, resource: &str) -> Result<(), Error> {
        let target = format!("{}/freeze", self.lock_of(resource)?);
        let ask = Ask::new(Method::DELETE, target, Repeat::Safe);
        self.send(&ask).await?.expect(StatusCode::NO_CONTENT).map(drop)
    }

    pub(crate) async fn renew_at(
        &self,
        endpoint: &str,
        token: &Token,
        ttl: Option<Duration>,
        once_within: Option<Duration>,
    ) -> Result<Granted, Error> {
        let body = ttl.map_or_else(|| json!({}), |ttl| json!({ "ttl_seconds": seconds(ttl) }));
        let mut ask =
            Ask::new(Method::PATCH, endpoint.to_owned(), Repeat::Safe).json(&body).token(token)?;
        let reply = match once_within {
            Some(timeout) => {
                ask = ask.within(timeout);
                self.once(&ask).await?
            }
            None => self.send(&ask).await?,
        };
        Granted::read(&reply.expect(StatusCode::OK)?)
    }

    pub(crate) async fn release_at(
        &self,
        endpoint: &str,
        token: &Token,
        backoff: Backoff,
    ) -> Result<(), Error> {
        let ask = Ask::new(Method::DELETE, endpoint.to_owned(), Repeat::Safe).token(token)?;
        self.send_within(&ask, backoff).await?.expect(StatusCode::NO_CONTENT).map(drop)
    }
}

/// A break that is being made. See [`Client::break_lock`].
#[derive(Debug)]
#[must_use = "nothing is sent before `send` or `dry_run`"]
pub struct BreakRequest {
    client: Client,
    resource: String,
    body: Map<String, Value>,
    named: bool,
}

impl BreakRequest {
    /// Why; needed. The holder is told, and it stays in the trail.
    pub fn reason(mut self, reason: impl Into<String>) -> Self {
        self.body.insert("reason".into(), Value::String(reason.into()));
        self
    }

    /// How long the holder may still write. Not at all unless set.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.body.insert("grace_seconds".into(), seconds(grace));
        self
    }

    /// This lock or none; needed where several cover the resource. Only with it is the break
    /// repeated when its answer got lost: without it, a repetition could break the next lock.
    pub fn lock_id(mut self, lock_id: Uuid) -> Self {
        self.body.insert("lock_id".into(), lock_id.to_string().into());
        self.named = true;
        self
    }

    /// Breaks the lock.
    ///
    /// # Errors
    /// The refusal; `lock-changed` where there is no such lock.
    pub async fn send(self) -> Result<Broken, Error> {
        let repeat = if self.named { Repeat::Safe } else { Repeat::OnlyIfNothingWasDone };
        self.ask("", repeat).await
    }

    /// Tells what would end, and changes nothing.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub async fn dry_run(self) -> Result<WouldBreak, Error> {
        self.ask("?dry_run=true", Repeat::Safe).await
    }

    async fn ask<T: serde::de::DeserializeOwned>(
        self,
        query: &str,
        repeat: Repeat,
    ) -> Result<T, Error> {
        let target = format!("{}/break{query}", self.client.lock_of(&self.resource)?);
        let ask = Ask::new(Method::POST, target, repeat).json(&Value::Object(self.body));
        // `lock-changed` to a repetition can mean that the break worked.
        let reply = self.client.send_once_in_effect(&ask, || Ok(())).await?;
        reply.expect(StatusCode::OK)?.json()
    }
}

/// A lock that was broken.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[non_exhaustive]
pub struct Broken {
    /// Its id.
    pub lock_id: Uuid,
    /// What it locks; of several the first.
    pub resource: String,
    /// All that it locks.
    #[serde(default)]
    pub resources: Vec<String>,
    /// Who holds it; none where a rule hides that.
    #[serde(default)]
    pub holder: Option<String>,
    /// When it ends, by the server's wall clock.
    #[serde(serialize_with = "crate::lock::in_milliseconds")]
    pub ends_at: Timestamp,
    /// How much longer it lives, in milliseconds.
    #[serde(default)]
    pub ends_in_ms: u64,
}

/// What a break would end.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[non_exhaustive]
pub struct WouldBreak {
    /// The lock.
    pub lock: LockInfo,
    /// How long it has been held, in milliseconds.
    pub age_ms: u64,
    /// How many writes under it are under way.
    #[serde(default)]
    pub writes_in_flight: u64,
    /// Who waits.
    #[serde(default)]
    pub queue: Vec<Waiter>,
}

/// Which locks a list has. All, unless something is set.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct LockFilter {
    query: Query,
}

impl LockFilter {
    /// All locks.
    pub fn new() -> Self {
        Self::default()
    }

    /// Those of this resource and everything below it.
    pub fn resource(mut self, resource: &str) -> Self {
        self.query.set("resource", resource);
        self
    }

    /// Those of this holder.
    pub fn holder(mut self, holder: &str) -> Self {
        self.query.set("holder", holder);
        self
    }

    /// Those that were taken through this protocol.
    pub fn dialect(mut self, dialect: &str) -> Self {
        self.query.set("dialect", dialect);
        self
    }

    /// Those of this kind.
    pub fn kind(mut self, kind: &str) -> Self {
        self.query.set("kind", kind);
        self
    }

    /// Those that end before this time, unless renewed.
    pub fn expires_before(mut self, time: Timestamp) -> Self {
        self.query.set("expires_before", &time.to_string());
        self
    }

    /// So many a page: 1 to 1,000, 100 unless set.
    pub fn limit(mut self, limit: u16) -> Self {
        self.query.set("limit", &limit.to_string());
        self
    }
}
