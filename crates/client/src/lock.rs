//! Locks as the server shows them.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::client::{Client, Reply};
use crate::clock::Moment;
use crate::error::Error;
use crate::held::Held;
use crate::lost::{How, Lost};
use crate::secret::Token;

/// Whether others may hold the same at the same time.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Nobody else.
    #[default]
    Exclusive,
    /// Other sharers.
    Shared,
}

/// What a lock covers.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub enum Depth {
    /// The resource, and its list of children.
    #[serde(rename = "0")]
    Zero,
    /// The resource and everything below it.
    #[default]
    #[serde(rename = "infinity")]
    Infinity,
}

/// A lock, without its token.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[non_exhaustive]
pub struct LockInfo {
    /// Its id.
    pub lock_id: Uuid,
    /// What it locks; of several the first.
    pub resource: String,
    /// All that it locks.
    #[serde(default)]
    pub resources: Vec<String>,
    /// `lock`.
    #[serde(default)]
    pub kind: String,
    /// Through which protocol it was taken.
    #[serde(default)]
    pub dialect: String,
    /// Whether it is shared.
    #[serde(default)]
    pub mode: Mode,
    /// Whether it covers what is below.
    #[serde(default)]
    pub depth: Depth,
    /// Who holds it; none where a rule hides that.
    #[serde(default)]
    pub holder: Option<String>,
    /// Why.
    #[serde(default)]
    pub reason: Option<String>,
    /// What the holder says of it.
    #[serde(default)]
    pub metadata: Map<String, Value>,
    /// Its fencing number: greater than that of every lock before it.
    pub fence: u64,
    /// How long it lasts from each renewal, in seconds.
    pub ttl_seconds: f64,
    /// Since when.
    #[serde(serialize_with = "in_milliseconds")]
    pub acquired_at: Timestamp,
    /// Until when, by the server's wall clock: for people.
    #[serde(serialize_with = "in_milliseconds")]
    pub expires_at: Timestamp,
    /// For how much longer, in milliseconds, when the answer was written.
    pub expires_in_ms: u64,
    /// How long its acquire waited, in milliseconds.
    #[serde(default)]
    pub waited_ms: u64,
    /// `unknown` where writes that set off before the grant may still land.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub predecessor_writes: Option<String>,
    /// How often it was renewed. Shown by inspection and lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renewals: Option<u64>,
    /// Its break, while the grace of one runs. Shown by inspection and lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub breaking: Option<Breaking>,
    /// Who asked the holder to let go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested_by: Option<LetGo>,
}

/// A break whose grace runs.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[non_exhaustive]
pub struct Breaking {
    /// Who breaks the lock.
    #[serde(default)]
    pub by: String,
    /// Why.
    #[serde(default)]
    pub reason: String,
    /// When it ends, by the server's wall clock.
    #[serde(default)]
    #[serde(serialize_with = "option_in_milliseconds")]
    pub ends_at: Option<Timestamp>,
    /// How much longer, in milliseconds.
    #[serde(default)]
    pub ends_in_ms: Option<u64>,
}

/// Somebody's wish that the holder lets go.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[non_exhaustive]
pub struct LetGo {
    /// Who asked.
    #[serde(default)]
    pub by: String,
    /// What they said.
    #[serde(default)]
    pub message: Option<String>,
    /// When.
    #[serde(default)]
    #[serde(serialize_with = "option_in_milliseconds")]
    pub at: Option<Timestamp>,
}

/// A stop to all writes.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[non_exhaustive]
pub struct Freeze {
    /// To this and everything below it.
    pub resource: String,
    /// Who set it.
    #[serde(default)]
    pub by: String,
    /// Why.
    #[serde(default)]
    pub reason: String,
    /// Since when.
    #[serde(default)]
    #[serde(serialize_with = "option_in_milliseconds")]
    pub since: Option<Timestamp>,
    /// Until when.
    #[serde(serialize_with = "in_milliseconds")]
    pub until: Timestamp,
    /// How many writes had not ended when it was answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub writes_in_flight: Option<u64>,
}

/// Somebody who waits for a lock.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[non_exhaustive]
pub struct Waiter {
    /// Who; none where a rule hides that.
    #[serde(default)]
    pub holder: Option<String>,
    /// Since when.
    #[serde(serialize_with = "in_milliseconds")]
    pub waiting_since: Timestamp,
    /// Until when.
    #[serde(serialize_with = "in_milliseconds")]
    pub deadline: Timestamp,
    /// Whether its place is granted, and it only waits for writes under way.
    #[serde(default)]
    pub granted: bool,
}

/// What there is to see at the lock of a resource.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[non_exhaustive]
pub struct Inspection {
    /// The resource.
    pub resource: String,
    /// Whether a lock covers it.
    pub locked: bool,
    /// Every lock that covers it, also from above.
    pub locks: Vec<LockInfo>,
    /// Everybody who waits for it, in order.
    pub queue: Vec<Waiter>,
    /// The freeze in force.
    #[serde(default)]
    pub freeze: Option<Freeze>,
}

/// A lock that was granted: what is known of it, its token, and until when it is safe to count on
/// it.
///
/// A lease is a value: nothing renews it, and dropping it releases nothing. [`hold`](Self::hold)
/// makes a [`Held`] of it, which does both.
///
/// `Debug` does not show the token.
#[derive(Clone)]
pub struct Lease {
    pub(crate) client: Client,
    pub(crate) endpoint: String,
    pub(crate) info: LockInfo,
    pub(crate) token: Token,
    pub(crate) sent_at: Moment,
    pub(crate) deadline: Moment,
    pub(crate) replayed: bool,
}

impl Lease {
    /// Everything about the lock but its token, as it was when it was granted or renewed.
    #[must_use]
    pub fn info(&self) -> &LockInfo {
        &self.info
    }

    /// The token: the secret that proves that the lock is yours.
    #[must_use]
    pub fn token(&self) -> &Token {
        &self.token
    }

    /// The fencing number: no secret, and greater than that of every lock before.
    #[must_use]
    pub fn fence(&self) -> u64 {
        self.info.fence
    }

    /// The id of the lock.
    #[must_use]
    pub fn lock_id(&self) -> Uuid {
        self.info.lock_id
    }

    /// What is locked; of several the first.
    #[must_use]
    pub fn resource(&self) -> &str {
        &self.info.resource
    }

    /// How much longer the lock lives at least, counted here from the moment the request was
    /// sent that gave it. Zero when that time has passed.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        self.deadline.left()
    }

    /// Whether an earlier request had made the lock already, and this one was its repetition.
    #[must_use]
    pub fn is_replay(&self) -> bool {
        self.replayed
    }

    /// Keeps the lock: renews it from now on by itself, and releases it when dropped.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[must_use]
    pub fn hold(self) -> Held {
        Held::keep(self)
    }

    /// Renews, once. Without a TTL the one last asked for is used.
    ///
    /// # Errors
    /// The refusal; `lock-gone` where the lock has ended.
    pub async fn renew(&mut self, ttl: Option<Duration>) -> Result<(), Error> {
        let renewed = self.client.renew_at(&self.endpoint, &self.token, ttl, None).await?;
        let (info, sent_at, deadline) = renewed.of(self.info.lock_id)?;
        (self.info, self.sent_at, self.deadline) = (info, sent_at, deadline);
        Ok(())
    }

    /// Releases.
    ///
    /// # Errors
    /// The refusal; `lock-gone` where the lock ended by itself before.
    pub async fn release(self) -> Result<(), Error> {
        let backoff = self.client.retry_policy().begin();
        self.client.release_at(&self.endpoint, &self.token, backoff).await
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("info", &self.info)
            .field("token", &self.token)
            .field("remaining", &self.remaining())
            .finish_non_exhaustive()
    }
}

/// The answer to an acquire or a renewal, counted from when it was asked for.
#[derive(Debug)]
pub(crate) struct Granted {
    pub(crate) info: LockInfo,
    pub(crate) token: Option<Token>,
    pub(crate) sent_at: Moment,
    pub(crate) deadline: Moment,
}

impl Granted {
    pub(crate) fn read(reply: &Reply) -> Result<Self, Error> {
        #[derive(Deserialize)]
        struct Shown {
            #[serde(flatten)]
            info: LockInfo,
            #[serde(default)]
            lock_token: Option<String>,
        }
        let shown: Shown = reply.json()?;
        let token = match shown.lock_token {
            None => None,
            // The text stays out of the message.
            Some(text) => Some(text.parse().map_err(|_| {
                Error::Protocol("`lock_token` is not what a token looks like".into())
            })?),
        };
        let info = shown.info;
        let ttl = Duration::try_from_secs_f64(info.ttl_seconds)
            .map_err(|_| Error::Protocol("`ttl_seconds` is no time".into()))?;
        // A lock never lives longer than its TTL from now, whatever an answer says.
        let lives = Duration::from_millis(info.expires_in_ms).min(ttl);
        let (sent_at, deadline) = (reply.sent_at, reply.sent_at.after(lives));
        Ok(Self { info, token, sent_at, deadline })
    }

    /// The renewal of this lock and no other.
    pub(crate) fn of(self, lock_id: Uuid) -> Result<(LockInfo, Moment, Moment), Error> {
        if self.info.lock_id != lock_id {
            return Err(Error::Protocol("it is about another lock".into()));
        }
        Ok((self.info, self.sent_at, self.deadline))
    }

    pub(crate) fn into_lease(
        self,
        client: Client,
        endpoint: String,
        replayed: bool,
    ) -> Result<Lease, Error> {
        let token =
            self.token.ok_or_else(|| Error::Protocol("the grant has no `lock_token`".into()))?;
        let (info, sent_at, deadline) = (self.info, self.sent_at, self.deadline);
        Ok(Lease { client, endpoint, info, token, sent_at, deadline, replayed })
    }
}

/// How a refusal ends a lock; none if it does not.
pub(crate) fn ending(error: &Error) -> Option<Lost> {
    use leasehold_problems::Name;
    let problem = error.problem()?;
    match problem.name()? {
        Name::LockGone | Name::LockLost => {
            Some(Lost::new(How::Ended(problem.ended().unwrap_or_default())))
        }
        Name::InvalidLockToken | Name::NotTheHolder => {
            Some(Lost::new(How::Refused(Box::new(problem.clone()))))
        }
        _ => None,
    }
}

/// A time as the server writes it: always with three digits after the second.
pub(crate) fn in_milliseconds<S: Serializer>(
    time: &Timestamp,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{time:.3}"))
}

fn option_in_milliseconds<S: Serializer>(
    time: &Option<Timestamp>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => in_milliseconds(time, serializer),
        None => serializer.serialize_none(),
    }
}
