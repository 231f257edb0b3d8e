//! A lock as people and programs are shown it.
//!
//! It is written as JSON straight from the lock: grants are the server's most frequent answer, and
//! a tree of values in between costs more than the lock table's own work.

use std::time::Duration;

use leasehold_core::json;
use leasehold_core::lock::{Json, Lock};
use leasehold_core::resource::Resource;
use leasehold_core::time::WallTime;
use serde::ser::{Error as _, Serialize, Serializer};
use serde_json::value::RawValue;
use serde_json::{Value, json};

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

impl Shown<'_> {
    /// Appends it as JSON.
    ///
    /// # Errors
    /// When it cannot be written as JSON, which no lock of this version is.
    pub fn write_json(&self, out: &mut Vec<u8>) -> Result<(), serde_json::Error> {
        let grant = &self.lock.grant;
        out.extend_from_slice(b"{\"lock_id\":");
        json::id(out, grant.lock_id.0);
        if let Some(token) = self.token {
            out.extend_from_slice(b",\"lock_token\":");
            json::text(out, token);
        }
        out.extend_from_slice(b",\"resource\":");
        json::text_or_null(out, grant.resources.first().map(Resource::as_str));
        out.extend_from_slice(b",\"resources\":");
        json::list(out, &grant.resources, |out, resource| json::text(out, resource.as_str()));
        out.extend_from_slice(b",\"kind\":\"lock\",\"dialect\":");
        json::text(out, grant.dialect.as_str());
        out.extend_from_slice(b",\"mode\":");
        json::text(out, grant.mode.as_str());
        out.extend_from_slice(b",\"depth\":");
        json::text(out, grant.depth.as_str());
        out.extend_from_slice(b",\"holder\":");
        json::text_or_null(out, self.disclosed.then_some(grant.holder.as_str()));
        out.extend_from_slice(b",\"reason\":");
        json::text_or_null(out, grant.reason.as_deref());
        out.extend_from_slice(b",\"metadata\":");
        let metadata = grant.metadata.as_ref().map_or("{}", Json::as_str);
        out.extend_from_slice(metadata.as_bytes());
        out.extend_from_slice(b",\"fence\":");
        json::number(out, grant.fence.0);
        out.extend_from_slice(b",\"ttl_seconds\":");
        serde_json::to_writer(&mut *out, &seconds(self.lock.ttl_ms))?;
        out.extend_from_slice(b",\"acquired_at\":");
        json::time(out, grant.acquired_at);
        out.extend_from_slice(b",\"expires_at\":");
        json::time(out, self.expires_at);
        out.extend_from_slice(b",\"expires_in_ms\":");
        json::number(out, self.expires_in_ms);
        out.extend_from_slice(b",\"waited_ms\":");
        json::number(out, grant.waited_ms);
        if let Some(handle) = &grant.handle {
            out.extend_from_slice(b",\"handle\":");
            json::text(out, handle);
        }
        if grant.predecessor_unknown {
            out.extend_from_slice(b",\"predecessor_writes\":\"unknown\"");
        }
        self.write_past(out)?;
        out.push(b'}');
        Ok(())
    }

    /// What has happened to the lock since it was granted, as far as it is to be shown.
    fn write_past(&self, out: &mut Vec<u8>) -> Result<(), serde_json::Error> {
        if self.history {
            out.extend_from_slice(b",\"renewals\":");
            json::number(out, self.lock.renewals.into());
            let breaking = self.lock.breaking.as_ref().map(|breaking| {
                json!({
                    "by": breaking.by, "reason": breaking.reason,
                    "ends_at": self.expires_at, "ends_in_ms": self.expires_in_ms,
                })
            });
            out.extend_from_slice(b",\"breaking\":");
            serde_json::to_writer(&mut *out, &breaking)?;
        }
        if self.request
            && let Some(requested) = requested_by(self.lock)
        {
            out.extend_from_slice(b",\"requested_by\":");
            serde_json::to_writer(&mut *out, &requested)?;
        }
        Ok(())
    }
}

/// For what has locks in it, which is asked for less often.
impl Serialize for Shown<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut text = Vec::new();
        self.write_json(&mut text).map_err(S::Error::custom)?;
        let text: &RawValue = serde_json::from_slice(&text).map_err(S::Error::custom)?;
        text.serialize(serializer)
    }
}

/// Who asked the holder to let go, if somebody did.
fn requested_by(lock: &Lock) -> Option<Value> {
    lock.requested
        .as_ref()
        .map(|let_go| json!({ "by": let_go.by, "message": let_go.message, "at": let_go.at }))
}

/// Milliseconds as seconds: a whole number where it is one.
#[must_use]
pub fn seconds(ms: u64) -> Value {
    if ms.is_multiple_of(1000) {
        (ms / 1000).into()
    } else {
        Duration::from_millis(ms).as_secs_f64().into()
    }
}
