//! What holders ask for: renewals, releases, transfers.

use leasehold_core::command::{Address, Presented, Release, Renew, Transfer};
use leasehold_core::event::EventBody;
use leasehold_core::holder::Transferring;
use leasehold_core::ids::{LockId, Principal};
use leasehold_core::refusal::HolderRefusal;
use leasehold_core::resource::Resource;

use super::Bench;
use super::DRAIN_WAIT_MS;
use super::picking::{caller, origin, resource};
use crate::naive::{Drain, Draining, How, Token};

/// Why a holder's command is refused.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Refused {
    InvalidToken,
    NotTheHolder,
    Gone(LockId, How),
    Closing,
    TtlOutOfRange,
    MaxHold,
}

pub(super) fn refused(refusal: &HolderRefusal) -> Refused {
    match refusal {
        HolderRefusal::InvalidToken => Refused::InvalidToken,
        HolderRefusal::NotTheHolder => Refused::NotTheHolder,
        HolderRefusal::Gone(id, ended) => Refused::Gone(*id, how(ended.as_ref().unwrap())),
        HolderRefusal::Closing(_) => Refused::Closing,
        HolderRefusal::TtlOutOfRange { .. } => Refused::TtlOutOfRange,
        HolderRefusal::MaxHoldReached { .. } => Refused::MaxHold,
        other => panic!("not expected: {other:?}"),
    }
}

pub(super) fn how(ended: &leasehold_core::lock::Ended) -> How {
    match ended.ending.as_str() {
        "expired" => How::Expired,
        "released" => How::Released,
        "broken" => How::Broken,
        _ => How::Transferred,
    }
}

impl Bench {
    pub(super) fn addressed(
        &self,
        who: &Principal,
        token: Presented,
        address: &Resource,
    ) -> Result<LockId, Refused> {
        let fits = |id: LockId| {
            let live = self.naive.lock(id).map(|lock| &lock.claim);
            let claim = live.or_else(|| self.naive.end_of(id).map(|ended| &ended.lock.claim));
            claim.is_some_and(|claim| claim.resources.contains(address))
        };
        match self.naive.judge(who, token) {
            Token::Live(id) if fits(id) => Ok(id),
            Token::Ended(id, how) if fits(id) => Err(Refused::Gone(id, how)),
            Token::NotYours => Err(Refused::NotTheHolder),
            _ => Err(Refused::InvalidToken),
        }
    }

    pub(super) fn renew(
        &mut self,
        who: &Principal,
        token: Presented,
        ttl_ms: Option<u64>,
        elsewhere: Option<Resource>,
    ) {
        let at = elsewhere.or_else(|| self.resource_of(token)).unwrap_or_else(|| resource(1));
        let command = Renew {
            caller: caller(who),
            origin: origin(who),
            address: Address::Resource(at.clone()),
            tokens: vec![token],
            ttl_ms,
        };
        let done = self.both(|table, now| table.renew(&command, now));
        let rest =
            self.follow_until(&done.events, |body| matches!(body, EventBody::Renewed { .. }));
        let now = self.naive.now;
        let expected = self.addressed(who, token, &at).and_then(|id| {
            let lock = self.naive.lock(id).unwrap();
            if lock.breaking {
                return Err(Refused::Closing);
            }
            let asked = ttl_ms.unwrap_or(lock.ttl_ms);
            if ttl_ms.is_some() && !(1000..=lock.max_ttl_ms).contains(&asked) {
                return Err(Refused::TtlOutOfRange);
            }
            let mut deadline = now.lease + asked;
            if ttl_ms.is_none() {
                deadline = deadline.max(lock.deadline);
            }
            match lock.max_deadline {
                Some(max) if max < deadline && lock.deadline == max => Err(Refused::MaxHold),
                Some(max) => Ok((id, deadline.min(max))),
                None => Ok((id, deadline)),
            }
        });
        match (&done.outcome, expected) {
            (Ok(lock), Ok((id, deadline))) => {
                assert_eq!((lock.grant.lock_id, lock.deadline), (id, deadline));
            }
            (Err(found), Err(expected)) => assert_eq!(refused(found), expected),
            (found, expected) => panic!("expected {expected:?}, found {found:?}"),
        }
        self.finish_step(rest, &done.wakes);
    }

    pub(super) fn release(&mut self, who: &Principal, token: Presented) {
        let at = self.resource_of(token).unwrap_or_else(|| resource(1));
        let command = Release {
            caller: caller(who),
            origin: origin(who),
            address: Address::Resource(at.clone()),
            tokens: vec![token],
        };
        let done = self.both(|table, now| table.release(&command, now));
        let rest =
            self.follow_until(&done.events, |body| matches!(body, EventBody::Released { .. }));
        let expected = match self.addressed(who, token, &at) {
            Err(Refused::Gone(id, How::Released)) => Ok(id),
            other => other,
        };
        match (&done.outcome, expected) {
            (Ok(found), Ok(id)) => assert_eq!(*found, id),
            (Err(found), Err(expected)) => assert_eq!(refused(found), expected),
            (found, expected) => panic!("expected {expected:?}, found {found:?}"),
        }
        self.finish_step(rest, &done.wakes);
    }

    pub(super) fn transfer(&mut self, who: &Principal, token: Presented, to: &Principal) {
        let at = self.resource_of(token).unwrap_or_else(|| resource(1));
        let command = Transfer {
            caller: caller(who),
            origin: origin(who),
            address: Address::Resource(at.clone()),
            tokens: vec![token],
            lock_id: self.fresh_id(),
            to: to.clone(),
            drain_wait_ms: DRAIN_WAIT_MS,
        };
        let done = self.both(|table, now| table.transfer(command.clone(), now));
        let rest =
            self.follow_until(&done.events, |body| matches!(body, EventBody::Transferred { .. }));
        let expected = match self.addressed(who, token, &at) {
            Ok(id) if self.naive.lock(id).unwrap().breaking => Err(Refused::Closing),
            other => other,
        };
        match (&done.outcome, expected) {
            (Ok(Transferring::Done(granted)), Ok(_)) => {
                assert_eq!(granted.lock.grant.lock_id, command.lock_id);
                assert!(!granted.replayed);
                assert_eq!(rest.first().map(|event| event.body.name()), Some("transferred"));
            }
            (Ok(Transferring::Parked(waiter)), Ok(lock)) => {
                let pins = self.naive.pins_under(lock);
                assert!(!pins.is_empty());
                let until = self.naive.now.lease + DRAIN_WAIT_MS;
                let what = Draining::Transfer { lock };
                self.naive.drains.push(Drain { waiter: *waiter, pins, until, what });
            }
            (Ok(Transferring::Done(granted)), Err(Refused::Gone(id, How::Transferred))) => {
                assert!(granted.replayed);
                let went = self.naive.end_of(id).and_then(|ended| ended.successor.clone());
                let (successor, went_to) = went.unwrap();
                assert_eq!((granted.lock.grant.lock_id, to), (successor, &went_to));
                let lock = self.naive.lock(successor).expect("it lives");
                assert!(self.naive.is_live(lock) && !lock.used);
            }
            (Err(found), Err(expected)) => {
                assert_eq!(refused(found), expected);
                if let Refused::Gone(id, How::Transferred) = expected {
                    let went = self.naive.end_of(id).and_then(|ended| ended.successor.clone());
                    let (successor, went_to) = went.unwrap();
                    let repeats = self
                        .naive
                        .lock(successor)
                        .is_some_and(|lock| self.naive.is_live(lock) && !lock.used);
                    assert!(!repeats || went_to != *to, "the same answer again");
                }
            }
            (found, expected) => panic!("expected {expected:?}, found {found:?}"),
        }
        self.finish_step(rest, &done.wakes);
    }
}
