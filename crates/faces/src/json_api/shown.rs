//! Looking at locks: of one resource, one by its id, and all.

use http::{Method, StatusCode};
use leasehold_core::caller::Permission;
use leasehold_core::holder::BreakPreview;
use leasehold_core::ids::{Fence, LockId};
use leasehold_core::lock::Lock;
use leasehold_core::refusal::Waiting;
use leasehold_core::resource::Resource;
use leasehold_core::time::{Now, WallTime};
use leasehold_guard::body::empty;
use leasehold_guard::call::Call;
use leasehold_guard::rules::Rules;
use leasehold_guard::shown::Shown;
use leasehold_guard::telling::{Telling, engine_error};
use leasehold_guard::upstream::Answer;
use leasehold_problems::{Name, Problem};
use serde_json::{Value, json};

use super::asking::form_pairs;
use super::cursor;
use super::fields::malformed;
use super::{JsonApi, json as answer};

/// No fence reaches this.
const MAX_FENCE: u64 = 1 << 53;
/// The letter of this list in its cursors.
const LIST: char = 'l';
/// The most items of one page, and how many without a word.
pub const MAX_LIMIT: usize = 1000;
/// How many items a page has where nothing is asked.
pub const DEFAULT_LIMIT: usize = 100;

impl JsonApi {
    pub(super) async fn inspect(&self, method: Method, resource: &Resource, call: &Call) -> Answer {
        call.need(Permission::Read, resource)?;
        let inspected = self.engine.inspect(resource).await;
        let (inspection, now) = inspected.map_err(|error| Box::new(engine_error(error)))?;
        let rules = self.rules.load_full();
        let telling = self.telling(&rules, call);
        let locks: Vec<Shown<'_>> =
            inspection.locks.iter().map(|lock| telling.lock_shown(lock)).collect();
        let body = json!({
            "resource": resource,
            "locked": !locks.is_empty(),
            "locks": locks,
            "queue": self.queue_shown_at(&telling, &inspection.queue, resource, now),
            "freeze": inspection.freeze.as_ref().map(|freeze| telling.freeze(freeze)),
        });
        let response = answer(StatusCode::OK, &body);
        Ok(if method == Method::HEAD { response.map(|_| empty()) } else { response })
    }

    fn queue_shown_at(
        &self,
        telling: &Telling<'_>,
        queue: &[Waiting],
        resource: &Resource,
        now: Now,
    ) -> Value {
        let hidden = !telling.rules.find(resource).1.disclose_holder;
        queue
            .iter()
            .map(|waiting| {
                let own = !telling.caller.anonymous && waiting.holder == telling.caller.principal;
                let holder = (!hidden || own).then_some(&waiting.holder);
                self.waiting_shown(waiting, json!(holder), now)
            })
            .collect()
    }

    /// Who waits for a lock that is to be broken.
    pub(super) fn queue_shown(&self, telling: &Telling<'_>, of: &BreakPreview, now: Now) -> Value {
        let root = Resource::root();
        let resource = of.lock.grant.resources.first().unwrap_or(&root);
        self.queue_shown_at(telling, &of.queue, resource, now)
    }

    fn waiting_shown(&self, waiting: &Waiting, holder: Value, now: Now) -> Value {
        let since = now.wall - now.lease.since(waiting.since);
        let until = now.wall + waiting.until.since(now.lease);
        json!({
            "holder": holder, "waiting_since": since, "deadline": until,
            "granted": waiting.granted,
        })
    }

    /// `GET /-/locks/{lock_id}`.
    ///
    /// # Errors
    /// The refusal.
    pub async fn show_lock(&self, lock_id: LockId, call: &Call) -> Answer {
        self.need_of_lock(call, Permission::Read, lock_id).await?;
        let lock = self.engine.lock(lock_id).await;
        let lock = lock.map_err(|error| Box::new(engine_error(error)))?;
        let Some(lock) = lock else {
            let detail = format!("No lock {lock_id} lives.");
            return Err(Box::new(Problem::new(Name::NotFound, detail)));
        };
        let rules = self.rules.load_full();
        Ok(answer(StatusCode::OK, &self.telling(&rules, call).lock_shown(&lock)))
    }

    /// `GET /-/locks`.
    ///
    /// # Errors
    /// The refusal.
    pub async fn list_locks(&self, query: Option<&str>, call: &Call) -> Answer {
        let asked = Asked::read(query.unwrap_or_default(), &self.rules.load())?;
        match (&call.credentials, &asked.resource) {
            // What the caller may not read is left out, but for its own.
            (None, None) => {}
            (None, Some(resource)) => call.need(Permission::Read, resource)?,
            (Some(shown), _) if shown.challenge.is_none() => {}
            (Some(_), _) => call.need_everywhere(Permission::Read)?,
        }
        let rules = self.rules.load_full();
        let telling = self.telling(&rules, call);
        let now = self.engine.now();
        let listed = self
            .engine
            .list(asked.after, asked.limit, |lock| asked.matches(lock, call, &telling, now))
            .await;
        let (locks, next) = listed.map_err(|error| Box::new(engine_error(error)))?;
        let items: Vec<Shown<'_>> = locks.iter().map(|lock| telling.lock_shown(lock)).collect();
        let body =
            json!({ "items": items, "next": next.map(|fence| cursor::encode(LIST, fence.0)) });
        Ok(answer(StatusCode::OK, &body))
    }
}

/// What a list of locks is asked for.
struct Asked {
    resource: Option<Resource>,
    holder: Option<String>,
    kind: Option<String>,
    dialect: Option<String>,
    expires_before: Option<WallTime>,
    limit: usize,
    after: Option<Fence>,
}

impl Asked {
    fn read(query: &str, rules: &Rules) -> Result<Self, Box<Problem>> {
        let mut asked = Self {
            resource: None,
            holder: None,
            kind: None,
            dialect: None,
            expires_before: None,
            limit: DEFAULT_LIMIT,
            after: None,
        };
        for (name, value) in form_pairs(query) {
            match name.as_str() {
                "resource" => {
                    let resource = rules
                        .filter(&value)
                        .map_err(|error| malformed("resource", format!("`resource`: {error}.")))?;
                    asked.resource = Some(resource);
                }
                "holder" => asked.holder = Some(value),
                "kind" => asked.kind = Some(value),
                "dialect" => asked.dialect = Some(value),
                "expires_before" => {
                    let time = value.parse().map_err(|_| {
                        malformed("expires_before", "`expires_before` is no time of RFC 3339.")
                    })?;
                    asked.expires_before = Some(time);
                }
                "limit" => asked.limit = limit(&value)?,
                "cursor" => asked.after = Some(read_cursor(&value)?),
                _ => return Err(malformed(&name, format!("`{name}` is no filter of this list."))),
            }
        }
        Ok(asked)
    }

    fn matches(&self, lock: &Lock, call: &Call, telling: &Telling<'_>, now: Now) -> bool {
        let resources = &lock.grant.resources;
        let holds =
            |holder: &String| telling.discloses(lock) && lock.grant.holder.as_str() == holder;
        let ends_before = |time: &WallTime| now.wall + lock.deadline.since(now.lease) < *time;
        let may_read = || resources.iter().all(|each| call.caller.may(Permission::Read, each));
        (call.holds(lock) || may_read())
            && self.resource.as_ref().is_none_or(|above| resources.iter().any(|r| above.covers(r)))
            && self.holder.as_ref().is_none_or(holds)
            && self.kind.as_ref().is_none_or(|kind| kind == "lock")
            && self.dialect.as_ref().is_none_or(|d| d == lock.grant.dialect.as_str())
            && self.expires_before.as_ref().is_none_or(ends_before)
    }
}

/// A page's `limit`.
///
/// # Errors
/// `400` where it is not 1 to 1,000.
pub fn limit(text: &str) -> Result<usize, Box<Problem>> {
    text.parse()
        .ok()
        .filter(|limit| (1..=MAX_LIMIT).contains(limit))
        .ok_or_else(|| malformed("limit", "`limit` has to be from 1 to 1000."))
}

fn read_cursor(text: &str) -> Result<Fence, Box<Problem>> {
    cursor::decode(text)
        .filter(|(list, fence)| *list == LIST && *fence < MAX_FENCE)
        .map(|(_, fence)| Fence(fence))
        .ok_or_else(|| malformed("cursor", "`cursor` is none that this list gave."))
}
