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
        for event in events {
            if matches!(event.body, EventBody::Acquired(_)) {
                // One that has taken its place on one of several has left the others.
                self.observe(false);
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
        self.follow(&events[..own]);
        if own > 0 {
            self.observe(false);
        }
        &events[own..]
    }

    pub(super) fn finish_step(&mut self, events: &[Event], wakes: &[(WaiterId, Woken)]) {
        self.follow(events);
        self.woken(wakes);
        self.observe(true);
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

    /// Sees who has its place meanwhile, whether it may, and (at the end) whether somebody is
    /// missing.
    pub(super) fn observe(&mut self, is_end: bool) {
        loop {
            let table = &self.tables[0];
            let naive = &self.naive;
            let claims = |waiter: &Waiter| {
                alternatives(&waiter.command).into_iter().find(|claim| {
                    let queue = table.inspect(&claim.resources[0], naive.now).queue;
                    queue.iter().any(|it| it.waiter == waiter.ticket && it.granted)
                })
            };
            let next = naive.waiters.iter().enumerate().find_map(|(at, waiter)| {
                let claim = if waiter.claimed.is_none() { claims(waiter)? } else { return None };
                naive.in_the_way(&claim, &naive.asks(waiter)).is_nothing().then_some((at, claim))
            });
            match next {
                Some((at, claim)) => self.naive.waiters[at].claimed = Some(claim.resources),
                None => {
                    if is_end {
                        let unknown = naive
                            .waiters
                            .iter()
                            .find(|waiter| waiter.claimed.is_none() && claims(waiter).is_some());
                        assert!(unknown.is_none(), "it has its place too early: {unknown:?}");
                    }
                    break;
                }
            }
        }
        if is_end {
            self.nobody_is_missing();
        }
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
