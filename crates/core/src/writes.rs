//! Writes: let through or refused, and pinned until they have ended.

use std::sync::Arc;

use crate::caller::Caller;
use crate::command::{Check, IfList, Presented, Write};
use crate::event::{EventBody, Origin, Subject, WriteResult};
use crate::ids::{LockId, PinId, Seq, WaiterId};
use crate::lock::{Depth, Freeze, LetGo, Mode, OpenAdmission};
use crate::obstacles::{Obstacle, Place, Reach};
use crate::queue::Phase;
use crate::refusal::{COUNT_LIMIT, InTheWay, TokenIs, WriteRefusal};
use crate::resource::Resource;
use crate::sabotage::{self, Mistake};
use crate::slot::LockSlot;
use crate::state::State;
use crate::table::{DueBelow, LockTable};
use crate::target::Target;
use crate::time::Now;
use crate::tree::{LockIdx, NodeId, PinAt, PinKind};

/// A write on its way.
#[derive(Debug)]
pub(crate) struct Pin {
    pub(crate) method: Arc<str>,
    pub(crate) resource: Resource,
    pub(crate) origin: Origin,
    pub(crate) targets: Vec<Target>,
    pub(crate) nodes: Vec<NodeId>,
    /// The newest event that letting it through rests on.
    pub(crate) rests_on: Seq,
    /// The locks it was let through under, with the position of each `write_admitted`.
    pub(crate) locks: Vec<(Subject, Seq)>,
    /// Who waits for its end.
    pub(crate) awaited_by: Vec<WaiterId>,
}

impl Pin {
    pub(crate) fn is_under(&self, lock_id: LockId) -> bool {
        self.locks.iter().any(|(lock, _)| lock.lock_id == lock_id)
    }
}

/// A write that was let through.
#[derive(Clone, Debug)]
pub struct AdmittedWrite {
    /// Its pin: [`LockTable::complete`] takes it back.
    pub pin: PinId,
    /// The position of its (first) `write_admitted`; none for a write without a lock.
    pub admission: Option<Seq>,
    /// The newest event that letting it through rests on, its own included.
    pub rests_on: Seq,
    /// The newest request to let go of a lock it was let through under.
    pub requested: Option<LetGo>,
    /// The locks it was let through under.
    pub locks: Vec<(LockId, crate::ids::Fence)>,
    /// The one of them that is nearest to the resource, with the fence to be passed on.
    pub nearest: Option<Subject>,
}

struct Judged {
    locks: Vec<LockIdx>,
    rests_on: Seq,
    /// Where its targets are.
    places: Vec<Place>,
}

fn kind_of(target: &Target) -> PinKind {
    match target {
        Target::Content(_) => PinKind::Content,
        Target::Members(_) => PinKind::Members,
        Target::Subtree(_) => PinKind::Subtree,
    }
}

impl LockTable {
    /// Whether a write may pass as things are. Nothing is pinned and nothing changes.
    ///
    /// # Errors
    /// The refusal that the write would get.
    pub fn check(&mut self, write: &Write, now: Now) -> Result<(), WriteRefusal> {
        self.judge_write(write, now).map(|_| ())
    }

    /// The same, and the lock nearest to the resource that it was judged under: for `/-/check`.
    ///
    /// # Errors
    /// The refusal that the write would get.
    pub fn check_with_lock(
        &mut self,
        write: &Write,
        now: Now,
    ) -> Result<Option<Subject>, WriteRefusal> {
        let judged = self.judge_write(write, now)?;
        Ok(self.nearest(&write.resource, &judged.locks, now))
    }

    /// The lock nearest to `resource` among those that a write was let through under. Of locks
    /// that share it the smallest fence is told: whoever keeps the greatest fence that it has seen
    /// would else refuse the earlier sharers.
    fn nearest(&self, resource: &Resource, matched: &[LockIdx], now: Now) -> Option<Subject> {
        let distance = |lock: &LockSlot| {
            let above = lock.resources().iter().filter(|each| each.covers(resource));
            above.map(|each| each.as_str().len()).max()
        };
        let nearest = matched
            .iter()
            .map(|&idx| self.state.slot(idx))
            .max_by_key(|lock| (distance(lock), std::cmp::Reverse(lock.fence)))?;
        let mut subject = nearest.subject();
        if nearest.mode == Mode::Shared {
            let place = self.place(resource);
            self.visit_locks(&place, Mode::Exclusive, Depth::Zero, now, &mut |obstacle| {
                if let Obstacle::Lock(idx) = obstacle {
                    subject.fence = subject.fence.min(self.state.slot(idx).fence);
                }
                true
            });
        }
        Some(subject)
    }

    /// Lets a write through and pins what it changes, or refuses it.
    ///
    /// # Errors
    /// The refusal; nothing has changed.
    pub fn admit(&mut self, write: &Write, now: Now) -> Result<AdmittedWrite, WriteRefusal> {
        let judged = self.judge_write(write, now)?;
        let nearest = self.nearest(&write.resource, &judged.locks, now);
        let pin_id = PinId(self.fresh_id());
        let nodes = if judged.locks.is_empty() && sabotage::is(Mistake::LeaveUnpinned) {
            Vec::new()
        } else {
            self.attach_pins_at(pin_id, &write.targets, &judged.places)
        };
        let mut rests_on = judged.rests_on;
        let mut requested = None;
        let mut locks = Vec::with_capacity(judged.locks.len());
        let mut admission = None;
        let mut names = Vec::with_capacity(judged.locks.len());
        for idx in judged.locks {
            let lock = self.state.slot(idx);
            if let Some(let_go) = lock.requested() {
                requested = Some(let_go.clone());
            }
            names.push((lock.lock_id, lock.fence));
            let subject = lock.subject();
            let first = admission.unwrap_or(self.state.seq.next());
            let body = EventBody::WriteAdmitted {
                lock: subject.clone(),
                method: write.method.clone(),
                resource: write.resource.clone(),
                admission: first,
            };
            rests_on = self.emit(body, write.origin.clone(), now);
            admission = Some(first);
            locks.push((subject, rests_on));
        }
        self.pins.insert(
            pin_id,
            Pin {
                method: write.method.clone(),
                resource: write.resource.clone(),
                origin: write.origin.clone(),
                targets: write.targets.clone(),
                nodes,
                rests_on,
                locks,
                awaited_by: Vec::new(),
            },
        );
        Ok(AdmittedWrite { pin: pin_id, admission, rests_on, requested, locks: names, nearest })
    }

    pub(crate) fn attach_pins(&mut self, pin: PinId, targets: &[Target]) -> Vec<NodeId> {
        let places = self.places(targets.iter().map(Target::resource));
        self.attach_pins_at(pin, targets, &places)
    }

    fn attach_pins_at(&mut self, pin: PinId, targets: &[Target], places: &[Place]) -> Vec<NodeId> {
        let mut nodes = Vec::with_capacity(targets.len());
        for (at, (target, place)) in targets.iter().zip(places).enumerate() {
            let node = self.state.tree.make_from(&place.path, target.resource());
            self.state.tree.attach_pin(node, PinAt { pin, kind: kind_of(target), target: at });
            nodes.push(node);
        }
        nodes
    }

    /// Whether a pinned target was let through by the token of a shared lock that covers it and
    /// lives: then it conflicts with no other shared lock. Once that lock has ended, its writes on
    /// their way are a stranger's.
    pub(crate) fn is_of_sharer(&self, at: &PinAt, now: Now) -> bool {
        let Some(pin) = self.pins.get(&at.pin) else { return false };
        let Some(target) = pin.targets.get(at.target) else { return false };
        pin.locks.iter().any(|(subject, _)| {
            self.state.idx(subject.lock_id).is_some_and(|idx| {
                let lock = self.state.slot(idx);
                lock.mode == Mode::Shared && lock.is_live(now.lease) && covers_all_of(lock, target)
            })
        })
    }

    /// A write that was let through has ended: it is unpinned, and whoever waited for it is served.
    pub fn complete(&mut self, pin_id: PinId, result: WriteResult, now: Now) {
        let Some(pin) = self.pins.remove(&pin_id) else { return };
        for &node in &pin.nodes {
            self.state.tree.detach_pin(node, pin_id);
        }
        if result == WriteResult::Unknown {
            self.remember_unknown(&pin.targets);
        }
        for (lock, admitted) in pin.locks {
            let body = EventBody::WriteCompleted {
                lock,
                method: pin.method.clone(),
                resource: pin.resource.clone(),
                admitted,
                result,
            };
            self.emit(body, pin.origin.clone(), now);
        }
        for waiter in pin.awaited_by {
            self.pin_left(waiter, pin_id, now);
            self.drain_pin_left(waiter, pin_id, now);
        }
    }

    /// The table over a state that was loaded anew, with the writes of this one that are on their
    /// way: those whose admission was told, because everything up to `durable` was. Whatever is
    /// parked is gone.
    #[must_use]
    pub fn reloaded(mut self, state: State, durable: Seq, seed: u64) -> Self {
        let mut table = Self::new(state, self.limits, seed);
        table.next_id = self.next_id;
        table.unknown = std::mem::take(&mut self.unknown);
        table.unknown.lost_after(durable);
        let mut pins: Vec<(PinId, Pin)> =
            self.pins.into_iter().filter(|(_, pin)| pin.rests_on <= durable).collect();
        if sabotage::is(Mistake::ForgetPins) {
            pins.clear();
        }
        pins.sort_unstable_by_key(|(id, _)| *id);
        for (id, mut pin) in pins {
            pin.awaited_by.clear();
            pin.nodes = table.attach_pins(id, &pin.targets);
            table.pins.insert(id, pin);
        }
        table
    }

    /// Open admissions whose write is not on its way any more: their end was never written down.
    #[must_use]
    pub fn orphaned_admissions(&self) -> Vec<OpenAdmission> {
        let on_their_way: std::collections::BTreeSet<Seq> =
            self.pins.values().flat_map(|pin| pin.locks.iter().map(|(_, seq)| *seq)).collect();
        self.state
            .open_admissions()
            .filter(|open| !on_their_way.contains(&open.seq))
            .cloned()
            .collect()
    }

    /// Closes an admission that was open when the engine started.
    pub fn close_open(&mut self, open: &OpenAdmission, result: WriteResult, now: Now) {
        let body = EventBody::WriteCompleted {
            lock: Subject {
                lock_id: open.lock_id,
                fence: open.fence,
                resources: open.resources.clone(),
                holder: open.holder.clone(),
                dialect: open.dialect,
            },
            method: open.method.clone(),
            resource: open.resource.clone(),
            admitted: open.seq,
            result,
        };
        self.emit(body, Origin::default(), now);
    }

    // ---- the decision ------------------------------------------------------------------------

    fn judge_write(&mut self, write: &Write, now: Now) -> Result<Judged, WriteRefusal> {
        let wanted = write.targets.iter().map(|target| match target {
            Target::Subtree(resource) => (resource, DueBelow::All),
            Target::Content(resource) | Target::Members(resource) => (resource, DueBelow::None),
        });
        self.expire_due(wanted, now);
        // Judging a token may end a lock, and that may make and remove nodes: places come after.
        let tokens = self.judge_tokens(write, now);
        let places = self.places(write.targets.iter().map(Target::resource));
        if let Some(freeze) = self.frozen(&write.targets, &places, now) {
            return Err(WriteRefusal::Frozen(Box::new(freeze)));
        }
        let live: Vec<LockIdx> =
            tokens.iter().filter_map(|(_, judged)| judged.as_ref().ok().copied()).collect();
        if !write.conditions.is_empty() && !self.conditions_hold(write, now) {
            return Err(WriteRefusal::ConditionFailed);
        }
        let mut judged = Judged { locks: Vec::new(), rests_on: Seq(0), places: Vec::new() };
        let mut missing: Vec<LockIdx> = Vec::new();
        let mut pending = None;
        for (target, place) in write.targets.iter().zip(&places) {
            self.match_locks(target, place, &live, now, &mut judged, &mut missing);
            pending = pending.or_else(|| self.pending_at(target, place, &live, now));
        }
        if !missing.is_empty() || pending.is_some() {
            let held: Vec<LockId> = live.iter().map(|&idx| self.state.slot(idx).lock_id).collect();
            let mut found = InTheWay { pending, ..InTheWay::default() };
            self.tell_locks(&write.caller, &mut missing, &held, &mut found);
            found.presented = self.tell_tokens(&tokens, &judged.locks);
            return Err(WriteRefusal::Locked(Box::new(found)));
        }
        self.judge_fit(&tokens, &judged.locks)?;
        if write.lacks_precondition && judged.locks.is_empty() && write.conditions.is_empty() {
            return Err(WriteRefusal::PreconditionRequired);
        }
        for (target, place) in write.targets.iter().zip(&places) {
            judged.rests_on = judged.rests_on.max(self.absence(target, place));
        }
        judged.places = places;
        Ok(judged)
    }

    fn frozen(&self, targets: &[Target], places: &[Place], now: Now) -> Option<Freeze> {
        for (target, place) in targets.iter().zip(places) {
            let above = place
                .path
                .iter()
                .filter_map(|&node| self.state.tree.freeze(node))
                .find(|freeze| now.wall < freeze.until);
            if let Some(freeze) = above {
                return Some(freeze.clone());
            }
            if matches!(target, Target::Subtree(_))
                && place.exact
                && let Some(&node) = place.path.last()
                && let Some(freeze) = self.frozen_below(node, now)
            {
                return Some(freeze);
            }
        }
        None
    }

    fn frozen_below(&self, node: NodeId, now: Now) -> Option<Freeze> {
        if self.state.tree.below(node).freezes == 0 {
            return None;
        }
        self.state.tree.busy(node).find_map(|child| {
            self.state
                .tree
                .freeze(child)
                .filter(|freeze| now.wall < freeze.until)
                .cloned()
                .or_else(|| self.frozen_below(child, now))
        })
    }

    /// What each token that came with the write is, those of its `If` header marked.
    fn judge_tokens(
        &mut self,
        write: &Write,
        now: Now,
    ) -> Vec<(Origins, Result<LockIdx, TokenIs>)> {
        let mut seen: Vec<Presented> = Vec::new();
        let mut judged = Vec::new();
        for &token in &write.tokens {
            if !seen.contains(&token) || token == Presented::Forged {
                seen.push(token);
                judged.push((Origins::Field, self.judge(&write.caller, token, now)));
            }
        }
        for list in &write.conditions {
            for (_, check) in &list.checks {
                if let Check::Token(token) = check
                    && !seen.contains(token)
                {
                    seen.push(*token);
                    judged.push((Origins::If, self.judge(&write.caller, *token, now)));
                }
            }
        }
        judged
    }

    fn conditions_hold(&mut self, write: &Write, now: Now) -> bool {
        write.conditions.iter().any(|list| self.list_holds(&write.caller, list, now))
    }

    fn list_holds(&mut self, caller: &Caller, list: &IfList, now: Now) -> bool {
        list.checks.iter().all(|(negated, check)| {
            let holds = match check {
                Check::Known(known) => *known,
                Check::Token(token) => match self.judge(caller, *token, now) {
                    Ok(idx) => covers(self.state.slot(idx), &list.resource),
                    Err(_) => false,
                },
            };
            holds != *negated
        })
    }

    /// Adds the locks that cover a target: to `judged` those that are matched, to `missing` those
    /// that are not.
    fn match_locks(
        &self,
        target: &Target,
        place: &Place,
        live: &[LockIdx],
        now: Now,
        judged: &mut Judged,
        missing: &mut Vec<LockIdx>,
    ) {
        let depth = match target {
            Target::Subtree(_) => Depth::Infinity,
            Target::Content(_) | Target::Members(_) => Depth::Zero,
        };
        self.visit_locks(place, Mode::Exclusive, depth, now, &mut |obstacle| {
            let Obstacle::Lock(idx) = obstacle else { return true };
            let lock = self.state.slot(idx);
            if live.contains(&idx) {
                if !judged.locks.contains(&idx) {
                    judged.locks.push(idx);
                }
            } else if !(lock.mode == Mode::Shared && self.shared_is_matched(lock, target, live)
                || sabotage::is(Mistake::IgnoreMissingToken))
            {
                missing.push(idx);
            }
            // Counted are only those that refuse: one of them may come after many that do not.
            missing.len() < COUNT_LIMIT
        });
    }

    /// Whether another shared lock's token serves for this shared lock: it covers the same target.
    fn shared_is_matched(&self, lock: &LockSlot, target: &Target, live: &[LockIdx]) -> bool {
        // A lock above the target, or on it, is asked for at the target; one below (a subtree) at
        // each place of its own that lies below.
        let is_subtree = matches!(target, Target::Subtree(_));
        let mut points: Vec<&Resource> = Vec::new();
        if covers(lock, target.resource()) {
            points.push(target.resource());
        }
        if is_subtree {
            points.extend(lock.resources().iter().filter(|each| target.resource().covers(each)));
        }
        // What goes with everything below is asked for all the way down.
        let deep = is_subtree && lock.depth == Depth::Infinity;
        points.iter().all(|point| {
            live.iter().any(|&idx| {
                let other = self.state.slot(idx);
                other.mode == Mode::Shared
                    && (!deep || other.depth == Depth::Infinity)
                    && covers(other, point)
            })
        })
    }

    /// An acquire that has its place already and covers the target: no token matches it, but that
    /// of another sharer one that will share.
    fn pending_at(
        &self,
        target: &Target,
        place: &Place,
        live: &[LockIdx],
        now: Now,
    ) -> Option<crate::refusal::Pending> {
        if self.claimed == 0 {
            return None;
        }
        let is_sharer = live.iter().any(|&idx| {
            let lock = self.state.slot(idx);
            lock.mode == Mode::Shared && covers_all_of(lock, target)
        });
        let depth = match target {
            Target::Subtree(_) => Depth::Infinity,
            Target::Content(_) | Target::Members(_) => Depth::Zero,
        };
        // With the first place of all, only claimed acquires stand before it.
        let reach = Reach { mode: Mode::Exclusive, depth, ticket: Some(WaiterId(0)), holds: &[] };
        let mut found = None;
        self.visit_parked(place, reach, now, &mut |obstacle| {
            if let Obstacle::Parked(waiter) = obstacle
                && let Some(parked) = self.parked.get(&waiter)
                && let Phase::Claimed { alternative, .. } = parked.phase
                && !(is_sharer && parked.command.mode == Mode::Shared)
            {
                found = self.pending(parked, alternative);
            }
            found.is_none()
        });
        found
    }

    /// Step 4: a token that was presented and does not fit refuses the write.
    fn judge_fit(
        &self,
        tokens: &[(Origins, Result<LockIdx, TokenIs>)],
        used: &[LockIdx],
    ) -> Result<(), WriteRefusal> {
        let (mut lost, mut mismatch, mut not_yours, mut unknown) = (None, None, false, false);
        for (origin, judged) in tokens {
            // A dead token beside a true alternative of an `If` header is no belief.
            if *origin == Origins::If {
                continue;
            }
            match judged {
                Ok(idx) if used.contains(idx) => {}
                Ok(idx) => mismatch = mismatch.or(Some(*idx)),
                Err(TokenIs::Ended(id, ended)) => lost = lost.or(Some((*id, ended.clone()))),
                Err(TokenIs::NotYours) => not_yours = true,
                Err(TokenIs::Unknown | TokenIs::Fits(_) | TokenIs::LiveElsewhere(_)) => {
                    unknown = true;
                }
            }
        }
        if let Some((id, ended)) = lost {
            return Err(WriteRefusal::LockLost(id, ended));
        }
        if let Some(idx) = mismatch {
            return Err(WriteRefusal::LockMismatch(Box::new(self.state.slot(idx).lock())));
        }
        if not_yours {
            return Err(WriteRefusal::NotTheHolder);
        }
        if unknown {
            return Err(WriteRefusal::InvalidToken);
        }
        Ok(())
    }

    fn tell_tokens(
        &self,
        tokens: &[(Origins, Result<LockIdx, TokenIs>)],
        used: &[LockIdx],
    ) -> Vec<TokenIs> {
        tokens
            .iter()
            .map(|(_, judged)| match judged {
                Ok(idx) => {
                    let lock_id = self.state.slot(*idx).lock_id;
                    if used.contains(idx) {
                        TokenIs::Fits(lock_id)
                    } else {
                        TokenIs::LiveElsewhere(lock_id)
                    }
                }
                Err(what) => what.clone(),
            })
            .collect()
    }

    /// The newest event that the absence of other locks over a target rests on.
    fn absence(&self, target: &Target, place: &Place) -> Seq {
        let mut newest = Seq(0);
        if sabotage::is(Mistake::IgnoreAbsence) {
            return newest;
        }
        for &node in &place.path {
            newest = newest.max(self.state.tree.mark(node));
        }
        if matches!(target, Target::Subtree(_))
            && place.exact
            && let Some(&node) = place.path.last()
        {
            newest = newest.max(self.state.tree.mark_below(node));
        }
        newest
    }
}

/// Whether a lock covers a resource.
fn covers(lock: &LockSlot, resource: &Resource) -> bool {
    lock.resources().iter().any(|locked| match lock.depth {
        Depth::Infinity => locked.covers(resource),
        Depth::Zero => locked == resource,
    })
}

/// Whether a lock covers a target and, where the target has more below, that as well.
fn covers_all_of(lock: &LockSlot, target: &Target) -> bool {
    let deep_enough = lock.depth == Depth::Infinity || !matches!(target, Target::Subtree(_));
    deep_enough && covers(lock, target.resource())
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Origins {
    Field,
    If,
}
