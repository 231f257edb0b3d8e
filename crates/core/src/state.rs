//! The part of the table that is the fold of the log: locks, endings, freezes, fences.
//!
//! [`State::apply`] is the only way it changes. Replaying the log through it, or loading rows and
//! replaying the tail, gives the same state.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::HashTable;

use crate::arena::Arena;
use crate::event::{Event, EventBody, Subject};
use crate::ids::{Fence, LockId, Principal, Seq};
use crate::lock::{Break, Ended, Ending, Freeze, LetGo, Lock, OpenAdmission};
use crate::resource::Resource;
use crate::rows::{ENDED_KEPT_MS, Row};
use crate::sabotage::{self, Mistake};
use crate::slot::{LockSlot, Timer};
use crate::time::{LeaseTime, WallTime};
use crate::tree::{LockAt, LockIdx, NodeId, Tree};

/// How long the key of an acquire is remembered after its lock has ended: 10 minutes.
pub const KEY_KEPT_MS: u64 = 10 * 60 * 1000;

/// How many endings are kept in memory at most. Older ones are still in the trail.
pub const MAX_ENDED: usize = 200_000;

/// How many endings of locks that were acquired with a key are kept in memory at most: 10 minutes
/// of 3,000 a second.
pub const MAX_KEYED: usize = 2_000_000;

/// The fold of the log.
pub struct State {
    pub(crate) locks: Arena<LockSlot>,
    /// The places of the locks, by the hash of their ids.
    by_id: HashTable<LockIdx>,
    pub(crate) by_fence: BTreeMap<Fence, LockIdx>,
    pub(crate) tree: Tree,
    pub(crate) timers: BTreeSet<Timer>,
    pub(crate) per_holder: HashMap<Principal, u64, foldhash::quality::FixedState>,
    pub(crate) keys: HashMap<(Principal, Arc<str>), LockId, foldhash::quality::FixedState>,
    ended: HashMap<LockId, Ended, foldhash::quality::FixedState>,
    /// The endings that are remembered, the oldest first: by time, not by arrival, so that rows
    /// and events give the same.
    ended_order: BTreeSet<(LeaseTime, LockId)>,
    /// Those whose idempotency key is remembered as well.
    keyed_order: BTreeSet<(LeaseTime, LockId)>,
    pub(crate) thaw: BTreeSet<(WallTime, Resource)>,
    pub(crate) open: BTreeMap<Seq, OpenAdmission>,
    pub(crate) fence: Fence,
    pub(crate) seq: Seq,
    pub(crate) lease: LeaseTime,
    incarnation: Arc<str>,
    hasher: foldhash::quality::FixedState,
}

impl State {
    /// The state before the first event. `seed` goes into the hashes of path segments, so that
    /// nobody can choose paths that collide; the same seed gives the same order of everything.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let hasher = foldhash::quality::FixedState::with_seed(seed);
        Self {
            locks: Arena::new(),
            by_id: HashTable::new(),
            by_fence: BTreeMap::new(),
            tree: Tree::new(seed),
            timers: BTreeSet::new(),
            per_holder: HashMap::with_hasher(hasher.clone()),
            keys: HashMap::with_hasher(hasher.clone()),
            ended: HashMap::with_hasher(hasher.clone()),
            ended_order: BTreeSet::new(),
            keyed_order: BTreeSet::new(),
            thaw: BTreeSet::new(),
            open: BTreeMap::new(),
            fence: Fence(0),
            seq: Seq(0),
            lease: LeaseTime(0),
            incarnation: Arc::from(""),
            hasher,
        }
    }

    /// The newest event that is folded in.
    #[must_use]
    pub fn seq(&self) -> Seq {
        self.seq
    }

    /// The greatest fence granted or reserved.
    #[must_use]
    pub fn fence(&self) -> Fence {
        self.fence
    }

    /// The newest lease clock reading among the events.
    #[must_use]
    pub fn lease(&self) -> LeaseTime {
        self.lease
    }

    /// The incarnation, in hexadecimal; empty before the first event.
    #[must_use]
    pub fn incarnation(&self) -> &Arc<str> {
        &self.incarnation
    }

    /// Writes under locks whose end is not in the trail, oldest first.
    pub fn open_admissions(&self) -> impl Iterator<Item = &OpenAdmission> {
        self.open.values()
    }

    /// Every live lock, in the order of the grants.
    pub fn live_locks(&self) -> impl Iterator<Item = Lock> + '_ {
        self.by_fence.values().map(|&idx| self.locks[idx].lock())
    }

    /// Every freeze, in the order of their ends.
    pub fn freezes(&self) -> impl Iterator<Item = &Freeze> {
        self.thaw.iter().filter_map(|(_, resource)| self.freeze_of(resource))
    }

    /// Puts one row of a fold in. All rows first, then [`State::apply`] for the events after them.
    pub fn load(&mut self, row: Row) {
        match row {
            Row::Meta(meta) => {
                self.seq = meta.seq;
                self.lease = meta.lease_ms;
                self.fence = meta.fence;
                self.incarnation = Arc::from(meta.incarnation);
            }
            Row::Lock(lock) => self.insert(*lock, Seq(0)),
            Row::Ended(ended) => self.remember(*ended),
            Row::Freeze(freeze) => self.freeze(freeze, Seq(0)),
            Row::Open(open) => {
                self.open.insert(open.seq, *open);
            }
        }
    }

    /// Folds one event in.
    pub fn apply(&mut self, event: &Event) {
        self.seq = event.seq;
        self.lease = self.lease.max(event.lease);
        match &event.body {
            EventBody::Acquired(grant) => self.insert(Lock::new((**grant).clone()), event.seq),
            EventBody::Renewed { .. } if sabotage::is(Mistake::EventWithoutEffect) => {}
            EventBody::Renewed { lock, ttl_ms, deadline } => {
                self.change(lock, event.seq, |lock| lock.renew(*ttl_ms, *deadline));
            }
            EventBody::Released { lock, .. } => {
                self.end(lock, Ending::Released, event.lease, event);
            }
            EventBody::Expired { lock, deadline } => {
                self.end(lock, Ending::Expired, *deadline, event);
            }
            EventBody::BreakAnnounced { lock, by, reason, deadline } => {
                self.change(lock, event.seq, |lock| {
                    lock.announce_break(
                        Break { by: by.clone(), reason: reason.clone() },
                        *deadline,
                    );
                });
            }
            EventBody::Broken { lock, by, reason } => {
                let ending = Ending::Broken(Break { by: by.clone(), reason: reason.clone() });
                self.end(lock, ending, event.lease, event);
            }
            EventBody::Transferred { lock, to } => {
                let ending = Ending::Transferred { successor: to.lock_id, to: to.holder.clone() };
                self.end(lock, ending, event.lease, event);
                self.insert(Lock::new((**to).clone()), event.seq);
            }
            EventBody::Requested { lock, by, message } => {
                self.change(lock, event.seq, |lock| {
                    lock.requested = Some(Box::new(LetGo {
                        by: by.clone(),
                        message: message.clone(),
                        at: event.at,
                    }));
                });
            }
            EventBody::Frozen(freeze) => self.freeze(freeze.clone(), event.seq),
            EventBody::Unfrozen { resource, .. } => self.unfreeze(resource, event.seq),
            EventBody::WriteAdmitted { lock, method, resource, admission } => {
                self.change(lock, event.seq, |lock| lock.used = true);
                self.open.insert(
                    event.seq,
                    OpenAdmission {
                        seq: event.seq,
                        admission: *admission,
                        lock_id: lock.lock_id,
                        fence: lock.fence,
                        holder: lock.holder.clone(),
                        resources: lock.resources.clone(),
                        dialect: lock.dialect,
                        method: method.clone(),
                        resource: resource.clone(),
                    },
                );
            }
            EventBody::WriteCompleted { admitted, .. } => {
                self.open.remove(admitted);
            }
            EventBody::Recovered { incarnation, fence_floor, .. } => {
                self.incarnation = incarnation.clone();
                self.fence = self.fence.max(*fence_floor);
            }
            EventBody::WriteChecked { .. }
            | EventBody::Refused { .. }
            | EventBody::Trimmed { .. } => {}
        }
        self.forget();
    }

    pub(crate) fn idx(&self, id: LockId) -> Option<LockIdx> {
        let hash = self.hasher.hash_one(id);
        self.by_id.find(hash, |&idx| self.locks[idx].lock_id == id).copied()
    }

    pub(crate) fn slot(&self, idx: LockIdx) -> &LockSlot {
        &self.locks[idx]
    }

    /// How a lock ended, while that is kept in memory.
    #[must_use]
    pub fn ended(&self, id: LockId) -> Option<&Ended> {
        self.ended.get(&id)
    }

    /// The newest lock that this key of a principal got, while the key is remembered.
    #[must_use]
    pub fn got_by(&self, principal: &Principal, key: &str) -> Option<LockId> {
        self.keys.get(&(principal.clone(), Arc::from(key))).copied()
    }

    pub(crate) fn freeze_of(&self, resource: &Resource) -> Option<&Freeze> {
        let mut path = Vec::new();
        if !self.tree.path(resource, &mut path) {
            return None;
        }
        path.last().and_then(|&node| self.tree.freeze(node))
    }

    fn insert(&mut self, mut lock: Lock, seq: Seq) {
        let grant = &mut lock.grant;
        self.fence = self.fence.max(grant.fence);
        let nodes: Vec<NodeId> =
            grant.resources.iter().map(|resource| self.tree.make(resource)).collect();
        let idx = self.locks.next_place();
        for &node in &nodes {
            let at = LockAt { lock: idx, mode: grant.mode, depth: grant.depth };
            self.tree.attach_lock(node, at, seq);
        }
        let hash = self.hasher.hash_one(grant.lock_id);
        self.by_id
            .insert_unique(hash, idx, |&other| self.hasher.hash_one(self.locks[other].lock_id));
        self.by_fence.insert(grant.fence, idx);
        self.timers.insert(Timer::new(lock.deadline, idx));
        // All locks of a holder share the name: a start reads it with each.
        if let Some((name, _)) = self.per_holder.get_key_value(&grant.holder) {
            grant.holder = name.clone();
        }
        *self.per_holder.entry(grant.holder.clone()).or_default() += 1;
        if let Some(idempotency) = &grant.idempotency {
            self.keys.insert((grant.holder.clone(), idempotency.key.clone()), grant.lock_id);
        }
        self.locks.insert(LockSlot::new(lock, &nodes, seq));
    }

    fn change(&mut self, subject: &Subject, seq: Seq, edit: impl FnOnce(&mut Lock)) {
        let Some(idx) = self.idx(subject.lock_id) else { return };
        let slot = &mut self.locks[idx];
        slot.edit(edit);
        slot.seq = seq;
        // A later deadline leaves the timer where it is: it is set anew when it comes up.
        if slot.deadline < slot.timer {
            self.timers.remove(&Timer::new(slot.timer, idx));
            slot.timer = slot.deadline;
            self.timers.insert(Timer::new(slot.timer, idx));
        }
    }

    fn end(&mut self, subject: &Subject, ending: Ending, lease: LeaseTime, event: &Event) {
        let hash = self.hasher.hash_one(subject.lock_id);
        let found = self.by_id.find_entry(hash, |&idx| self.locks[idx].lock_id == subject.lock_id);
        let Ok(entry) = found else { return };
        let (idx, _) = entry.remove();
        let Some(slot) = self.locks.remove(idx) else { return };
        for &node in slot.nodes() {
            self.tree.detach_lock(node, idx, event.seq);
        }
        self.timers.remove(&Timer::new(slot.timer, idx));
        self.by_fence.remove(&slot.fence);
        if let Some(count) = self.per_holder.get_mut(&slot.holder) {
            *count -= 1;
            if *count == 0 {
                self.per_holder.remove(&slot.holder);
            }
        }
        self.remember(slot.ended(ending, lease, event.at));
    }

    fn remember(&mut self, ended: Ended) {
        if let Some(idempotency) = &ended.idempotency {
            // The key is that of the newest grant: rows come in the order of the endings.
            let key = (ended.holder.clone(), idempotency.key.clone());
            let newer = self.keys.get(&key).is_some_and(|&other| {
                self.idx(other).is_some()
                    || self.ended.get(&other).is_some_and(|other| ended.fence < other.fence)
            });
            if !newer {
                self.keys.insert(key, ended.lock_id);
            }
            self.keyed_order.insert((ended.lease, ended.lock_id));
        }
        self.ended_order.insert((ended.lease, ended.lock_id));
        self.ended.insert(ended.lock_id, ended);
    }

    fn forget(&mut self) {
        while let Some(&(lease, id)) = self.keyed_order.first() {
            if self.keyed_order.len() <= MAX_KEYED && self.lease.since(lease) <= KEY_KEPT_MS {
                break;
            }
            self.keyed_order.pop_first();
            if let Some(ended) = self.ended.get(&id)
                && let Some(idempotency) = &ended.idempotency
            {
                let key = (ended.holder.clone(), idempotency.key.clone());
                if self.keys.get(&key) == Some(&id) {
                    self.keys.remove(&key);
                }
            }
            if !self.ended_order.contains(&(lease, id)) {
                self.ended.remove(&id);
            }
        }
        while let Some(&(lease, id)) = self.ended_order.first() {
            if self.ended_order.len() <= MAX_ENDED && self.lease.since(lease) <= ENDED_KEPT_MS {
                break;
            }
            self.ended_order.pop_first();
            if !self.keyed_order.contains(&(lease, id)) {
                self.ended.remove(&id);
            }
        }
    }

    fn freeze(&mut self, freeze: Freeze, seq: Seq) {
        self.unfreeze(&freeze.resource.clone(), seq);
        self.thaw.insert((freeze.until, freeze.resource.clone()));
        let node = self.tree.make(&freeze.resource);
        self.tree.set_freeze(node, Some(freeze), seq);
    }

    fn unfreeze(&mut self, resource: &Resource, seq: Seq) {
        let mut path = Vec::new();
        if !self.tree.path(resource, &mut path) {
            return;
        }
        let Some(&node) = path.last() else { return };
        if let Some(freeze) = self.tree.freeze(node) {
            self.thaw.remove(&(freeze.until, resource.clone()));
            self.tree.set_freeze(node, None, seq);
        }
    }

    /// Checks that the indexes agree with the locks; for tests.
    pub(crate) fn assert_consistent(&self) {
        for (idx, slot) in self.locks.iter() {
            assert!(slot.fence <= self.fence, "fences grow");
            assert_eq!(self.idx(slot.lock_id), Some(idx));
            assert_eq!(self.by_fence.get(&slot.fence), Some(&idx));
            let timer = Timer::new(slot.timer, idx);
            assert!(self.timers.contains(&timer), "{} would never end", slot.lock_id);
            assert!(slot.timer <= slot.deadline, "a timer stands after its deadline");
        }
        let count = self.locks.len();
        assert_eq!(
            (self.by_id.len(), self.by_fence.len(), self.timers.len()),
            (count, count, count)
        );
        let held: u64 = self.per_holder.values().sum();
        assert_eq!(usize::try_from(held).ok(), Some(count));
        for id in self.keys.values() {
            let is_known = self.idx(*id).is_some() || self.ended.contains_key(id);
            assert!(is_known, "a key outlives what is known of its lock");
        }
    }
}
