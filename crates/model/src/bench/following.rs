//! What the naive table makes of what has happened, and who should have been served.

use leasehold_core::event::{Event, EventBody};
use leasehold_core::ids::WaiterId;
use leasehold_core::refusal::{AcquireRefusal, HolderRefusal};
use leasehold_core::table::Woken;

use super::Bench;
use super::holders::{Refused, refused};
use crate::naive::{Away, Claim, Drain, Draining, Waiter, alternatives};

impl Bench {
    pub(super) fn follow(&mut self, events: &[Event]) {
        self.follow_first(events.len(), events);
    }

    /// Follows so many of these events.
    fn follow_first(&mut self, count: usize, events: &[Event]) {
        for (at, event) in events[..count].iter().enumerate() {
            if matches!(event.body, EventBody::Acquired(_)) {
                // One that has taken its place on one of several has left the others.
                self.observe(&events[at + 1..]);
            }
            self.naive.follow(event);
        }
    }

    /// Follows what was settled before the command itself was decided, and splits off the rest.
    pub(super) fn follow_until<'e>(
        &mut self,
        events: &'e [Event],
        is_own: impl Fn(&EventBody) -> bool,
    ) -> &'e [Event] {
        let own = events.iter().position(|event| is_own(&event.body)).unwrap_or(events.len());
        self.follow_first(own, events);
        if own > 0 {
            self.observe(&[]);
        }
        &events[own..]
    }

    pub(super) fn finish_step(&mut self, events: &[Event], wakes: &[(WaiterId, Woken)]) {
        self.follow(events);
        self.woken(wakes);
        self.observe_end();
    }

    /// Follows what has come of parked commands.
    pub(super) fn woken(&mut self, wakes: &[(WaiterId, Woken)]) {
        let now = self.naive.now;
        for (waiter, woken) in wakes {
            match woken {
                Woken::Granted(granted) => {
                    assert!(!granted.replayed);
                    let lock = self.naive.lock(granted.lock.grant.lock_id);
                    assert_eq!(lock.expect("it was granted").fence, granted.lock.grant.fence);
                    assert!(self.naive.waiters.iter().all(|other| other.ticket != *waiter));
                }
                Woken::Refused(refusal) => self.time_up(*waiter, refusal),
                Woken::Transferred(granted) => {
                    let drain = self.take_drain(*waiter);
                    assert!(matches!(drain.what, Draining::Transfer { .. }));
                    let lock = self.naive.lock(granted.lock.grant.lock_id).expect("it lives");
                    assert!(!lock.used);
                }
                Woken::NotTransferred(refusal) => {
                    let drain = self.take_drain(*waiter);
                    let Draining::Transfer { lock } = drain.what else { panic!("no transfer") };
                    match &**refusal {
                        HolderRefusal::WritesInFlight { writes } => {
                            assert!(drain.until <= now.lease, "never early");
                            assert_eq!(*writes, drain.pins.len());
                        }
                        HolderRefusal::Closing(_) => {
                            assert!(self.naive.lock(lock).expect("it lives").breaking);
                        }
                        other => {
                            assert!(matches!(refused(other), Refused::Gone(id, _) if id == lock))
                        }
                    }
                }
                Woken::Frozen { writes_in_flight } => {
                    let drain = self.take_drain(*waiter);
                    assert!(matches!(drain.what, Draining::Freeze));
                    assert_eq!(*writes_in_flight, drain.pins.len());
                    assert!(*writes_in_flight == 0 || drain.until <= now.lease, "never early");
                }
            }
        }
    }

    pub(super) fn time_up(&mut self, ticket: WaiterId, refusal: &AcquireRefusal) {
        let now = self.naive.now;
        let at = self.naive.waiters.iter().position(|waiter| waiter.ticket == ticket);
        let waiter = self.naive.waiters.remove(at.expect("it waited"));
        assert!(waiter.until <= now.lease, "a waiter is refused when its time is up");
        match refusal {
            AcquireRefusal::Locked(found) => {
                assert_eq!(found.waited_ms, now.lease.since(waiter.since));
                if let Some(resources) = waiter.claimed.clone() {
                    let (mode, depth) = (waiter.command.mode, waiter.command.depth);
                    let claim = Claim { resources, mode, depth };
                    let pins = self.naive.pins_against(&claim);
                    assert!(!pins.is_empty(), "it goes ahead of writes that nobody can see");
                }
            }
            AcquireRefusal::Frozen(_) => {}
            other => panic!("{other:?}"),
        }
        if waiter.command.wait_ms > 0
            && let Some(key) = waiter.command.idempotency
        {
            self.naive.away.push(Away {
                ticket,
                until: now.lease + 5000_u64,
                principal: waiter.command.caller.principal,
                key,
                resources: waiter.command.want.resources().to_vec(),
            });
        }
    }

    pub(super) fn take_drain(&mut self, waiter: WaiterId) -> Drain {
        let at = self.naive.drains.iter().position(|drain| drain.waiter == waiter);
        self.naive.drains.remove(at.expect("it waited for writes"))
    }

    /// Where a waiter has its place: it shows it, or is granted it by an event that is to come.
    fn place(&self, waiter: &Waiter, coming: &[Event]) -> Option<Claim> {
        alternatives(&waiter.command).into_iter().find(|claim| {
            let queue = self.tables[0].inspect(&claim.resources[0], self.naive.now).queue;
            let shows = queue.iter().any(|it| it.waiter == waiter.ticket && it.granted);
            let is_granted = |event: &Event| {
                matches!(&event.body, EventBody::Acquired(grant)
                    if grant.lock_id == waiter.command.lock_id
                        && *grant.resources == *claim.resources)
            };
            shows || coming.iter().any(is_granted)
        })
    }

    /// Sees who has its place meanwhile, where it may have it.
    pub(super) fn observe(&mut self, coming: &[Event]) {
        loop {
            let naive = &self.naive;
            let next = naive.waiters.iter().enumerate().find_map(|(at, waiter)| {
                let claim = match waiter.claimed {
                    None => self.place(waiter, coming)?,
                    Some(_) => return None,
                };
                naive.in_the_way(&claim, &naive.asks(waiter)).is_nothing().then_some((at, claim))
            });
            let Some((at, claim)) = next else { return };
            self.naive.waiters[at].claimed = Some(claim.resources);
        }
    }

    /// The same when a step is over: whether anybody has a place too early, or none too late.
    pub(super) fn observe_end(&mut self) {
        self.observe(&[]);
        let mut unseen = self.naive.waiters.iter().filter(|waiter| waiter.claimed.is_none());
        let early = unseen.find(|waiter| self.place(waiter, &[]).is_some());
        assert!(early.is_none(), "it has its place too early: {early:?}");
        self.nobody_is_missing();
    }

    pub(super) fn nobody_is_missing(&self) {
        let naive = &self.naive;
        let now = naive.now;
        for waiter in &naive.waiters {
            if let Some(resources) = &waiter.claimed {
                let claim = Claim {
                    resources: resources.clone(),
                    mode: waiter.command.mode,
                    depth: waiter.command.depth,
                };
                let has_writes_before = !naive.pins_against(&claim).is_empty()
                    || naive.awaits_recovery(&waiter.command);
                assert!(has_writes_before, "no write before {waiter:?}");
                continue;
            }
            for claim in alternatives(&waiter.command) {
                let is_free = naive.in_the_way(&claim, &naive.asks(waiter)).is_nothing();
                // What is due and not written down yet is served when it is.
                let due = naive
                    .locks
                    .iter()
                    .any(|lock| !naive.is_live(lock) && lock.claim.conflicts(&claim));
                let thawed = naive.freezes.iter().any(|freeze| freeze.until <= now.wall);
                assert!(!is_free || due || thawed, "nobody starves: {waiter:?}");
            }
        }
        for drain in &naive.drains {
            assert!(!drain.pins.is_empty(), "no write before {drain:?}");
        }
        let table = &self.tables[0];
        assert_eq!(table.waiters(), naive.waiters.len());
        assert_eq!(table.writes_in_flight(), naive.pins.len());
        let may_see_writes = !naive.pins.is_empty() || naive.recovery.is_some();
        assert_eq!(table.may_see_writes(), may_see_writes);
        assert_eq!(table.live(), naive.locks.len());
        assert_eq!(table.state().fence(), naive.fence);
    }
}
