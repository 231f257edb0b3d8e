//! A live lock as the table keeps it: small, because there may be millions.
//!
//! It says the same as a [`Lock`], which is made of it where somebody is told of the lock. What
//! few locks have is in a box of its own, and what all have is there once.

use std::sync::Arc;

use crate::event::Subject;
use crate::ids::{Fence, LockId, Principal, Seq};
use crate::lock::{
    Break, Depth, Dialect, Ended, Ending, Grant, Idempotency, Json, LetGo, Lock, Mode,
};
use crate::resource::Resource;
use crate::time::{LeaseTime, WallTime};
use crate::tree::{LockIdx, NodeId};

/// A live lock. See the module.
pub(crate) struct LockSlot {
    pub(crate) lock_id: LockId,
    pub(crate) fence: Fence,
    pub(crate) holder: Principal,
    places: Places,
    /// When it ends.
    pub(crate) deadline: LeaseTime,
    /// The TTL last asked for.
    pub(crate) ttl_ms: u64,
    /// The newest event about it.
    pub(crate) seq: Seq,
    /// Where it stands among the timers: at its deadline or, after a renewal, before it.
    pub(crate) timer: LeaseTime,
    pub(crate) granted: LeaseTime,
    acquired_at: WallTime,
    granted_ttl_ms: u64,
    granted_deadline: LeaseTime,
    /// The greatest reading stands for none.
    max_deadline: LeaseTime,
    pub(crate) max_ttl_ms: u64,
    rare: Option<Box<Rare>>,
    renewals: u32,
    pub(crate) mode: Mode,
    pub(crate) depth: Depth,
    dialect: Dialect,
    pub(crate) used: bool,
    predecessor_unknown: bool,
}

/// When a lock comes up, and which: ordered by time. Without the gap that a pair would have.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Timer {
    high: u32,
    low: u32,
    pub(crate) lock: LockIdx,
}

impl Timer {
    pub(crate) fn new(at: LeaseTime, lock: LockIdx) -> Self {
        // Each takes half of the number.
        Self { high: (at.0 >> 32) as u32, low: at.0 as u32, lock }
    }

    pub(crate) fn at(self) -> LeaseTime {
        LeaseTime(u64::from(self.high) << 32 | u64::from(self.low))
    }
}

/// What is locked, and the nodes of the tree that stand for it: nearly always one.
enum Places {
    One(Resource, NodeId),
    Several(Box<(Arc<[Resource]>, Box<[NodeId]>)>),
}

/// What few locks have.
#[derive(Default, PartialEq)]
struct Rare {
    reason: Option<Arc<str>>,
    metadata: Option<Json>,
    handle: Option<Arc<str>>,
    waited_ms: u64,
    idempotency: Option<Box<Idempotency>>,
    breaking: Option<Box<Break>>,
    requested: Option<Box<LetGo>>,
}

const NO_DEADLINE: LeaseTime = LeaseTime(u64::MAX);

impl LockSlot {
    /// A lock whose resources these nodes stand for, in the same order.
    pub(crate) fn new(lock: Lock, nodes: &[NodeId], seq: Seq) -> Self {
        let Lock { grant, ttl_ms, deadline, renewals, used, breaking, requested } = lock;
        let places = match (&*grant.resources, nodes) {
            ([resource], &[node]) => Places::One(resource.clone(), node),
            _ => Places::Several(Box::new((grant.resources, Box::from(nodes)))),
        };
        let rare = Rare {
            reason: grant.reason,
            metadata: grant.metadata,
            handle: grant.handle,
            waited_ms: grant.waited_ms,
            idempotency: grant.idempotency,
            breaking,
            requested,
        };
        Self {
            lock_id: grant.lock_id,
            fence: grant.fence,
            holder: grant.holder,
            places,
            deadline,
            ttl_ms,
            seq,
            timer: deadline,
            granted: grant.granted,
            acquired_at: grant.acquired_at,
            granted_ttl_ms: grant.ttl_ms,
            granted_deadline: grant.deadline,
            max_deadline: grant.max_deadline.unwrap_or(NO_DEADLINE),
            max_ttl_ms: grant.max_ttl_ms,
            rare: (rare != Rare::default()).then(|| Box::new(rare)),
            renewals,
            mode: grant.mode,
            depth: grant.depth,
            dialect: grant.dialect,
            used,
            predecessor_unknown: grant.predecessor_unknown,
        }
    }

    /// The lock, to be told.
    pub(crate) fn lock(&self) -> Lock {
        let rare = self.rare.as_deref();
        Lock {
            grant: Grant {
                lock_id: self.lock_id,
                fence: self.fence,
                resources: self.shared_resources(),
                dialect: self.dialect,
                mode: self.mode,
                depth: self.depth,
                holder: self.holder.clone(),
                reason: rare.and_then(|rare| rare.reason.clone()),
                metadata: rare.and_then(|rare| rare.metadata.clone()),
                handle: rare.and_then(|rare| rare.handle.clone()),
                ttl_ms: self.granted_ttl_ms,
                deadline: self.granted_deadline,
                granted: self.granted,
                acquired_at: self.acquired_at,
                max_deadline: self.max_deadline(),
                max_ttl_ms: self.max_ttl_ms,
                waited_ms: rare.map_or(0, |rare| rare.waited_ms),
                idempotency: rare.and_then(|rare| rare.idempotency.clone()),
                predecessor_unknown: self.predecessor_unknown,
            },
            ttl_ms: self.ttl_ms,
            deadline: self.deadline,
            renewals: self.renewals,
            used: self.used,
            breaking: rare.and_then(|rare| rare.breaking.clone()),
            requested: rare.and_then(|rare| rare.requested.clone()),
        }
    }

    /// Applies what happened to the lock. The fold over rows does the same to the [`Lock`].
    pub(crate) fn edit(&mut self, edit: impl FnOnce(&mut Lock)) {
        let mut lock = self.lock();
        edit(&mut lock);
        let changed = Self::new(lock, self.nodes(), self.seq);
        *self = Self { timer: self.timer, ..changed };
    }

    /// What events say of it.
    pub(crate) fn subject(&self) -> Subject {
        Subject {
            lock_id: self.lock_id,
            fence: self.fence,
            resources: self.shared_resources(),
            holder: self.holder.clone(),
            dialect: self.dialect,
        }
    }

    /// What is remembered of it once it has ended.
    pub(crate) fn ended(self, ending: Ending, lease: LeaseTime, at: WallTime) -> Ended {
        self.lock().ended(ending, lease, at)
    }

    /// Whether it still lives at `now`.
    pub(crate) fn is_live(&self, now: LeaseTime) -> bool {
        now < self.deadline
    }

    pub(crate) fn resources(&self) -> &[Resource] {
        match &self.places {
            Places::One(resource, _) => std::slice::from_ref(resource),
            Places::Several(several) => &several.0,
        }
    }

    /// The nodes of the tree that stand for its resources.
    pub(crate) fn nodes(&self) -> &[NodeId] {
        match &self.places {
            Places::One(_, node) => std::slice::from_ref(node),
            Places::Several(several) => &several.1,
        }
    }

    fn shared_resources(&self) -> Arc<[Resource]> {
        match &self.places {
            Places::One(resource, _) => Arc::from([resource.clone()]),
            Places::Several(several) => Arc::clone(&several.0),
        }
    }

    pub(crate) fn max_deadline(&self) -> Option<LeaseTime> {
        (self.max_deadline != NO_DEADLINE).then_some(self.max_deadline)
    }

    pub(crate) fn idempotency(&self) -> Option<&Idempotency> {
        self.rare.as_ref()?.idempotency.as_deref()
    }

    pub(crate) fn breaking(&self) -> Option<&Break> {
        self.rare.as_ref()?.breaking.as_deref()
    }

    pub(crate) fn requested(&self) -> Option<&LetGo> {
        self.rare.as_ref()?.requested.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::*;

    fn plain(resources: &[&str]) -> Lock {
        Lock::new(Grant {
            lock_id: LockId(uuid::Uuid::from_u128(7)),
            fence: Fence(8),
            resources: resources.iter().map(|path| Resource::parse(path).unwrap()).collect(),
            dialect: Dialect::Http,
            mode: Mode::Shared,
            depth: Depth::Zero,
            holder: Principal::new("alice"),
            reason: None,
            metadata: None,
            handle: None,
            ttl_ms: 9,
            deadline: LeaseTime(10),
            granted: LeaseTime(1),
            acquired_at: WallTime(2),
            max_deadline: None,
            max_ttl_ms: 3,
            waited_ms: 0,
            idempotency: None,
            predecessor_unknown: false,
        })
    }

    fn full() -> Lock {
        let text = |text: &str| Some(Arc::from(text));
        let by = Principal::new("bob");
        let mut lock = plain(&["/a", "/b"]);
        let grant = &mut lock.grant;
        grant.reason = text("why");
        grant.metadata = RawValue::from_string("{}".to_owned()).ok().map(Json::new);
        grant.handle = text("id");
        grant.waited_ms = 4;
        grant.max_deadline = Some(LeaseTime(90));
        grant.predecessor_unknown = true;
        let idempotency = Idempotency { key: Arc::from("k"), digest: Arc::from("d") };
        grant.idempotency = Some(Box::new(idempotency));
        lock.renew(11, LeaseTime(12));
        lock.announce_break(Break { by: by.clone(), reason: Arc::from("now") }, LeaseTime(11));
        lock.requested = Some(Box::new(LetGo { by, message: None, at: WallTime(5) }));
        lock
    }

    #[test]
    fn a_slot_says_what_its_lock_said() {
        for lock in [plain(&["/a"]), plain(&["/a", "/b"]), full()] {
            let nodes: Vec<NodeId> = (1..).take(lock.grant.resources.len()).collect();
            let mut slot = LockSlot::new(lock.clone(), &nodes, Seq(6));
            assert_eq!(slot.lock(), lock);
            assert_eq!((slot.nodes(), slot.resources()), (&*nodes, &*lock.grant.resources));
            assert_eq!(slot.breaking(), lock.breaking.as_deref());
            assert_eq!(slot.requested(), lock.requested.as_deref());
            assert_eq!(slot.idempotency(), lock.grant.idempotency.as_deref());

            let mut changed = lock.clone();
            changed.renew(20, LeaseTime(30));
            slot.edit(|lock| lock.renew(20, LeaseTime(30)));
            assert_eq!(slot.lock(), changed);
            assert_eq!((slot.timer, slot.seq), (lock.deadline, Seq(6)), "the owner sets them");
            let ended = changed.ended(Ending::Expired, LeaseTime(30), WallTime(40));
            assert_eq!(slot.ended(Ending::Expired, LeaseTime(30), WallTime(40)), ended);
        }
    }

    #[test]
    fn timers_are_ordered_by_time() {
        let times = [0, 1, u64::from(u32::MAX), 1 << 32, (1 << 32) + 1, u64::MAX].map(LeaseTime);
        let timers: Vec<Timer> =
            times.iter().flat_map(|&at| [Timer::new(at, 3), Timer::new(at, 9)]).collect();
        assert!(timers.is_sorted());
        assert!(timers.iter().step_by(2).map(|timer| timer.at()).eq(times));
        assert_eq!(size_of::<Timer>(), 12);
    }

    #[test]
    fn a_million_locks_fit_in_little_memory() {
        assert!(size_of::<LockSlot>() <= 168, "{}", size_of::<LockSlot>());
    }
}
