//! The audit trail: its events, and questions to it.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::client::Client;
use crate::pages::{Pages, Query};

/// One event of the trail.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[non_exhaustive]
pub struct AuditEvent {
    /// Its position: 1 for the first, without gaps.
    pub seq: u64,
    /// When, by the server's wall clock.
    #[serde(serialize_with = "crate::lock::in_milliseconds")]
    pub at: Timestamp,
    /// When, by the lease clock, in milliseconds.
    #[serde(default)]
    pub lease_ms: u64,
    /// What happened.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// The lock it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock_id: Option<Uuid>,
    /// What the lock locks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<String>,
    /// The resource it is about, where it is not about a lock alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<String>,
    /// Who holds the lock; none where a rule hides that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<String>,
    /// Who acted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    /// Through which protocol.
    #[serde(default)]
    pub dialect: String,
    /// The fencing number of the lock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fence: Option<u64>,
    /// The id of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// Where the request came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remote_addr: Option<String>,
    /// Why, where it was said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The hash of the event before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prev: Option<String>,
    /// What is particular to its type: `ttl_ms`, `method`, `problem`, and so on.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

macro_rules! kinds {
    ($($variant:ident $text:literal $meaning:literal;)*) => {
        /// What happened.
        #[derive(Clone, Debug, Eq, Hash, PartialEq)]
        #[non_exhaustive]
        pub enum Kind {
            $(#[doc = $meaning] $variant,)*
            /// What this client does not know.
            Other(String),
        }

        impl Kind {
            /// The word on the wire.
            #[must_use]
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$variant => $text,)*
                    Self::Other(text) => text,
                }
            }
        }

        impl From<String> for Kind {
            fn from(text: String) -> Self {
                match text.as_str() {
                    $($text => Self::$variant,)*
                    _ => Self::Other(text),
                }
            }
        }
    };
}

kinds! {
    Acquired "acquired" "A lock was granted.";
    Renewed "renewed" "A lock was renewed.";
    Released "released" "Its holder released it.";
    Expired "expired" "Its deadline passed.";
    Broken "broken" "Somebody ended it.";
    Transferred "transferred" "Its holder handed it over.";
    Requested "requested" "Somebody asked the holder to let go.";
    Frozen "frozen" "Writes were stopped.";
    Unfrozen "unfrozen" "Writes are allowed again.";
    WriteAdmitted "write_admitted" "A write under a lock was let through.";
    WriteCompleted "write_completed" "It ended.";
    WriteChecked "write_checked" "A proxy asked whether a write may pass.";
    Refused "refused" "Requests were refused.";
    Recovered "recovered" "The log was opened.";
    Trimmed "trimmed" "The oldest part of the trail was removed.";
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::from)
    }
}

impl Serialize for Kind {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// Which events of the trail a question is about. All, unless something is set.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct EventFilter {
    pub(crate) query: Query,
}

impl EventFilter {
    /// All events.
    pub fn new() -> Self {
        Self::default()
    }

    /// Those about this resource and everything below it.
    pub fn resource(mut self, resource: &str) -> Self {
        self.query.set("resource", resource);
        self
    }

    /// Those about locks of this holder.
    pub fn holder(mut self, holder: &str) -> Self {
        self.query.set("holder", holder);
        self
    }

    /// What this principal did.
    pub fn actor(mut self, actor: &str) -> Self {
        self.query.set("actor", actor);
        self
    }

    /// Those of this type.
    pub fn kind(mut self, kind: &Kind) -> Self {
        self.query.set("type", kind.as_str());
        self
    }

    /// Those about this lock.
    pub fn lock_id(mut self, lock_id: Uuid) -> Self {
        self.query.set("lock_id", &lock_id.to_string());
        self
    }
}

/// A question to the trail.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct AuditQuery {
    query: Query,
}

impl From<EventFilter> for AuditQuery {
    fn from(filter: EventFilter) -> Self {
        Self { query: filter.query }
    }
}

impl AuditQuery {
    /// The whole trail, oldest first.
    pub fn new() -> Self {
        Self::default()
    }

    /// What happened from this time on.
    pub fn since(mut self, time: Timestamp) -> Self {
        self.query.set("since", &time.to_string());
        self
    }

    /// What happened before this time.
    pub fn until(mut self, time: Timestamp) -> Self {
        self.query.set("until", &time.to_string());
        self
    }

    /// Newest first.
    pub fn newest_first(mut self) -> Self {
        self.query.set("order", "desc");
        self
    }

    /// So many a page: 1 to 1,000, 100 unless set.
    pub fn limit(mut self, limit: u16) -> Self {
        self.query.set("limit", &limit.to_string());
        self
    }
}

impl Client {
    /// The events of the trail that the question is about, page by page.
    ///
    /// ```no_run
    /// # async fn example(client: leasehold_client::Client) -> Result<(), leasehold_client::Error> {
    /// use leasehold_client::{AuditQuery, EventFilter, Kind};
    ///
    /// let broken = EventFilter::new().resource("/v1").kind(&Kind::Broken);
    /// let mut events = client.audit(AuditQuery::from(broken).newest_first());
    /// while let Some(event) = events.next().await? {
    ///     println!("{} {:?} {:?}", event.at, event.actor, event.reason);
    /// }
    /// # Ok(()) }
    /// ```
    pub fn audit(&self, query: AuditQuery) -> Pages<AuditEvent> {
        Pages::new(self, self.own("audit"), query.query)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_read_whole_and_written_again_as_it_was() {
        let text = r#"{"seq":7,"at":"2026-11-20T12:00:00.000Z","lease_ms":5,"type":"write_admitted","resource":"/a","dialect":"http","method":"PUT","admission":6}"#;
        let event: AuditEvent = serde_json::from_str(text).unwrap();
        assert_eq!((event.seq, &event.kind), (7, &Kind::WriteAdmitted));
        assert_eq!(event.more["method"], "PUT");
        let again: Value = serde_json::to_value(&event).unwrap();
        assert_eq!(again, serde_json::from_str::<Value>(text).unwrap());
        assert_eq!(Kind::from("later".to_owned()).as_str(), "later");
    }
}
