//! How much memory an event takes, for whoever keeps many of them.

use std::mem::size_of;

use super::{Event, EventBody, Origin, Subject};
use crate::ids::Principal;
use crate::lock::{Freeze, Grant, Idempotency};
use crate::resource::Resource;

/// What stands before the contents of an `Arc`: two counts.
const COUNTS: usize = 2 * size_of::<usize>();

impl Event {
    /// How many bytes it keeps in memory, about. What it shares with other events or with the lock
    /// table counts in full: it may be the last to have it.
    #[must_use]
    pub fn size(&self) -> usize {
        size_of::<Self>() + self.origin.size() + self.body.size()
    }
}

impl Origin {
    fn size(&self) -> usize {
        let Self { actor, dialect: _, request_id, remote_addr } = self;
        actor.as_ref().map_or(0, principal) + maybe(request_id) + maybe(remote_addr)
    }
}

impl EventBody {
    /// What is beside the body itself.
    fn size(&self) -> usize {
        match self {
            Self::Acquired(to) => grant(to),
            Self::Transferred { lock, to } => subject(lock) + grant(to),
            Self::Renewed { lock, .. }
            | Self::Released { lock, .. }
            | Self::Expired { lock, .. } => subject(lock),
            Self::BreakAnnounced { lock, by, reason, .. } | Self::Broken { lock, by, reason } => {
                subject(lock) + principal(by) + text(reason)
            }
            Self::Requested { lock, by, message } => subject(lock) + principal(by) + maybe(message),
            Self::Frozen(Freeze { resource, by, reason, .. }) => {
                path(resource) + principal(by) + text(reason)
            }
            Self::Unfrozen { resource, .. } => path(resource),
            Self::WriteAdmitted { lock, method, resource, .. }
            | Self::WriteCompleted { lock, method, resource, .. } => {
                subject(lock) + text(method) + path(resource)
            }
            Self::WriteChecked { lock, method, resource, problem } => {
                let lock = lock.as_ref().map_or(0, subject);
                lock + text(method) + path(resource) + maybe(problem)
            }
            Self::Refused { resource, holder, problem, .. } => {
                let resource = resource.as_ref().map_or(0, path);
                resource + holder.as_ref().map_or(0, principal) + text(problem)
            }
            Self::Recovered { incarnation, .. } => text(incarnation),
            Self::Trimmed { hash, .. } => text(hash),
        }
    }
}

fn subject(lock: &Subject) -> usize {
    paths(&lock.resources) + principal(&lock.holder)
}

fn grant(grant: &Grant) -> usize {
    let metadata = grant.metadata.as_ref().map_or(0, |json| text(json.as_str()));
    let key = grant
        .idempotency
        .as_ref()
        .map_or(0, |key| size_of::<Idempotency>() + text(&key.key) + text(&key.digest));
    size_of::<Grant>()
        + paths(&grant.resources)
        + principal(&grant.holder)
        + maybe(&grant.reason)
        + metadata
        + maybe(&grant.handle)
        + key
}

fn paths(resources: &[Resource]) -> usize {
    let each = resources.iter().map(|each| size_of::<Resource>() + path(each));
    COUNTS + each.sum::<usize>()
}

fn path(resource: &Resource) -> usize {
    text(resource.as_str())
}

fn principal(principal: &Principal) -> usize {
    text(principal.as_str())
}

fn maybe(optional: &Option<std::sync::Arc<str>>) -> usize {
    optional.as_deref().map_or(0, text)
}

fn text(text: &str) -> usize {
    COUNTS + text.len()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::event::{RecoveryCause, WriteResult};
    use crate::ids::{Fence, LockId, Seq};
    use crate::lock::{Depth, Dialect, Json, Mode};
    use crate::time::{LeaseTime, WallTime};

    /// Each kind of event with the same text wherever it can have one, and at how many places that is.
    fn events(text: &str) -> Vec<(Event, usize)> {
        let long: Arc<str> = text.into();
        let resource = Resource::parse(&format!("/{text}")).unwrap();
        let holder = Principal::new(text);
        let lock = Subject {
            lock_id: LockId(uuid::Uuid::nil()),
            fence: Fence(1),
            resources: Arc::from([resource.clone(), resource.clone()]),
            holder: holder.clone(),
            dialect: Dialect::Http,
        };
        let grant = Box::new(Grant {
            lock_id: lock.lock_id,
            fence: lock.fence,
            resources: lock.resources.clone(),
            dialect: Dialect::Http,
            mode: Mode::Exclusive,
            depth: Depth::Infinity,
            holder: holder.clone(),
            reason: Some(long.clone()),
            metadata: Some(serde_json::from_str::<Json>(&format!(r#"{{"a":"{text}"}}"#)).unwrap()),
            handle: Some(long.clone()),
            ttl_ms: 1,
            deadline: LeaseTime(1),
            granted: LeaseTime(1),
            acquired_at: WallTime(1),
            max_deadline: None,
            max_ttl_ms: 1,
            waited_ms: 0,
            idempotency: Some(Box::new(Idempotency { key: long.clone(), digest: long.clone() })),
            predecessor_unknown: false,
        });
        let (by, reason, deadline) = (holder.clone(), long.clone(), LeaseTime(1));
        let freeze = Freeze {
            resource: resource.clone(),
            by: by.clone(),
            reason: reason.clone(),
            since: WallTime(1),
            until: WallTime(2),
        };
        // A lock has three of them, and a grant eight.
        let bodies = [
            (EventBody::Acquired(grant.clone()), 8),
            (EventBody::Renewed { lock: lock.clone(), ttl_ms: 1, deadline }, 3),
            (EventBody::Released { lock: lock.clone(), undelivered: false }, 3),
            (EventBody::Expired { lock: lock.clone(), deadline }, 3),
            (
                EventBody::BreakAnnounced {
                    lock: lock.clone(),
                    by: by.clone(),
                    reason: reason.clone(),
                    deadline,
                },
                5,
            ),
            (EventBody::Broken { lock: lock.clone(), by: by.clone(), reason }, 5),
            (EventBody::Transferred { lock: lock.clone(), to: grant }, 11),
            (EventBody::Requested { lock: lock.clone(), by, message: Some(long.clone()) }, 5),
            (EventBody::Frozen(freeze), 3),
            (EventBody::Unfrozen { resource: resource.clone(), passed: true }, 1),
            (
                EventBody::WriteAdmitted {
                    lock: lock.clone(),
                    method: long.clone(),
                    resource: resource.clone(),
                    admission: Seq(1),
                },
                5,
            ),
            (
                EventBody::WriteCompleted {
                    lock: lock.clone(),
                    method: long.clone(),
                    resource: resource.clone(),
                    admitted: Seq(1),
                    result: WriteResult::Unknown,
                },
                5,
            ),
            (
                EventBody::WriteChecked {
                    lock: Some(lock),
                    method: long.clone(),
                    resource: resource.clone(),
                    problem: Some(long.clone()),
                },
                6,
            ),
            (
                EventBody::Refused {
                    resource: Some(resource),
                    holder: Some(holder.clone()),
                    problem: long.clone(),
                    count: 1,
                    minute: WallTime(1),
                },
                3,
            ),
            (
                EventBody::Recovered {
                    cause: RecoveryCause::Crash,
                    incarnation: long.clone(),
                    fence_floor: Fence(1),
                },
                1,
            ),
            (EventBody::Trimmed { through: Seq(1), hash: long.clone() }, 1),
        ];
        let origin = Origin {
            actor: Some(holder),
            dialect: Dialect::Http,
            request_id: Some(long.clone()),
            remote_addr: Some(long),
        };
        let whole = |(body, places): (EventBody, usize)| {
            let (seq, at, lease) = (Seq(1), WallTime(1), LeaseTime(1));
            (Event { seq, at, lease, origin: origin.clone(), body }, places + 3)
        };
        bodies.into_iter().map(whole).collect()
    }

    #[test]
    fn every_text_of_an_event_counts() {
        for ((short, places), (long, _)) in events("x").iter().zip(events(&"x".repeat(101))) {
            assert_eq!(long.size() - short.size(), places * 100, "{}", short.body.name());
            // Of an ordinary one, the texts are the smaller part.
            assert!((200..1500).contains(&short.size()), "{short:?} takes {}", short.size());
        }
    }
}
