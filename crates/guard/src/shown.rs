//! A lock as people and programs are shown it.
//!
//! It is written as JSON straight from the lock: grants are the server's most frequent answer, and
//! a tree of values in between costs more than the lock table's own work.

use leasehold_core::lock::Lock;
use leasehold_core::resource::Resource;
use leasehold_core::time::WallTime;
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::{Map, Value, json};

use crate::telling::{requested_by, seconds};

/// A lock as somebody is shown it. Made by [`crate::telling::Telling::lock`]: never with a token
/// unless one is put in.
pub struct Shown<'a> {
    pub(crate) lock: &'a Lock,
    pub(crate) disclosed: bool,
    pub(crate) expires_at: WallTime,
    pub(crate) expires_in_ms: u64,
    token: Option<&'a str>,
    history: bool,
    request: bool,
}

impl<'a> Shown<'a> {
    pub(crate) fn new(
        lock: &'a Lock,
        disclosed: bool,
        (expires_at, expires_in_ms): (WallTime, u64),
    ) -> Self {
        Self {
            lock,
            disclosed,
            expires_at,
            expires_in_ms,
            token: None,
            history: false,
            request: false,
        }
    }

    /// With its token, for who has just been granted it.
    #[must_use]
    pub fn with_token(mut self, token: &'a str) -> Self {
        self.token = Some(token);
        self
    }

    /// With its holder, whatever a rule hides.
    #[must_use]
    pub fn with_holder(mut self) -> Self {
        self.disclosed = true;
        self
    }

    /// With who asked the holder to let go.
    #[must_use]
    pub fn with_request(mut self) -> Self {
        self.request = true;
        self
    }

    /// With its renewals, its break and who asked for it, as inspection and lists show it.
    #[must_use]
    pub fn with_history(mut self) -> Self {
        self.history = true;
        self.with_request()
    }
}

impl Serialize for Shown<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let grant = &self.lock.grant;
        let mut members = serializer.serialize_map(None)?;
        members.serialize_entry("lock_id", &grant.lock_id)?;
        if let Some(token) = self.token {
            members.serialize_entry("lock_token", token)?;
        }
        members.serialize_entry("resource", &grant.resources.first().map(Resource::as_str))?;
        members.serialize_entry("resources", &grant.resources[..])?;
        members.serialize_entry("kind", "lock")?;
        members.serialize_entry("dialect", grant.dialect.as_str())?;
        members.serialize_entry("mode", &grant.mode)?;
        members.serialize_entry("depth", &grant.depth)?;
        members.serialize_entry("holder", &self.disclosed.then_some(&grant.holder))?;
        members.serialize_entry("reason", &grant.reason)?;
        match &grant.metadata {
            Some(metadata) => members.serialize_entry("metadata", metadata)?,
            None => members.serialize_entry("metadata", &Map::<String, Value>::new())?,
        }
        members.serialize_entry("fence", &grant.fence)?;
        members.serialize_entry("ttl_seconds", &seconds(self.lock.ttl_ms))?;
        members.serialize_entry("acquired_at", &grant.acquired_at)?;
        members.serialize_entry("expires_at", &self.expires_at)?;
        members.serialize_entry("expires_in_ms", &self.expires_in_ms)?;
        members.serialize_entry("waited_ms", &grant.waited_ms)?;
        if let Some(handle) = &grant.handle {
            members.serialize_entry("handle", handle)?;
        }
        if grant.predecessor_unknown {
            members.serialize_entry("predecessor_writes", "unknown")?;
        }
        if self.history {
            members.serialize_entry("renewals", &self.lock.renewals)?;
            let breaking = self.lock.breaking.as_ref().map(|breaking| {
                json!({
                    "by": breaking.by, "reason": breaking.reason,
                    "ends_at": self.expires_at, "ends_in_ms": self.expires_in_ms,
                })
            });
            members.serialize_entry("breaking", &breaking)?;
        }
        if self.request
            && let Some(requested) = requested_by(self.lock)
        {
            members.serialize_entry("requested_by", &requested)?;
        }
        members.end()
    }
}
