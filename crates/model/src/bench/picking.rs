//! What the numbers of a step stand for: names, paths, and locks that were granted.

use std::sync::Arc;

use leasehold_core::caller::Caller;
use leasehold_core::command::Presented;
use leasehold_core::event::Origin;
use leasehold_core::ids::{Fence, LockId, Principal};
use leasehold_core::resource::Resource;
use uuid::Uuid;

use super::Bench;
use crate::steps::Pick;

const PATHS: [&str; 8] = ["/", "/a", "/a/b", "/a/b/c", "/a/d", "/e", "/e/f", "/g"];
const NAMES: [&str; 3] = ["alice", "bob", "carol"];

pub(super) fn resource(at: usize) -> Resource {
    Resource::parse(PATHS[at]).unwrap()
}

pub(super) fn principal(at: usize) -> Principal {
    Principal::new(NAMES[at])
}

pub(super) fn caller(principal: &Principal) -> Caller {
    Caller { principal: principal.clone(), anonymous: false, roles: Arc::from([]) }
}

pub(super) fn origin(principal: &Principal) -> Origin {
    Origin { actor: Some(principal.clone()), ..Origin::default() }
}

impl Bench {
    pub(super) fn fresh_id(&mut self) -> LockId {
        self.next_id += 1;
        LockId(Uuid::from_u128(self.next_id))
    }

    /// All grants: those that live first, the newest first.
    pub(super) fn in_order(&self, whose: Option<&Principal>) -> Vec<(LockId, Fence)> {
        let lives = |id: LockId| {
            self.naive.lock(id).is_some_and(|lock| whose.is_none_or(|whose| lock.holder == *whose))
        };
        let (live, ended): (Vec<_>, Vec<_>) =
            self.grants.iter().rev().copied().partition(|(id, _)| lives(*id));
        if whose.is_some() { live } else { live.into_iter().chain(ended).collect() }
    }

    pub(super) fn token(&self, pick: Pick) -> Presented {
        let all = self.in_order(None);
        match pick {
            Pick::Forged => Presented::Forged,
            Pick::Newest(at) | Pick::WrongFence(at) => match all.get(at % all.len().max(1)) {
                None => Presented::Forged,
                Some(&(lock_id, fence)) => {
                    let is_wrong = matches!(pick, Pick::WrongFence(_));
                    let fence = if is_wrong { Fence(fence.0 + 1000) } else { fence };
                    Presented::Token { lock_id, fence }
                }
            },
        }
    }

    /// A token of the caller's own, if there is one.
    pub(super) fn own_token(&self, who: &Principal, pick: Pick) -> Option<Presented> {
        match pick {
            Pick::Newest(at) if at < 5 => {
                let (lock_id, fence) = *self.in_order(Some(who)).get(at)?;
                Some(Presented::Token { lock_id, fence })
            }
            pick => Some(self.token(pick)),
        }
    }

    pub(super) fn holder_of(&self, token: Presented) -> Option<&Principal> {
        let Presented::Token { lock_id, .. } = token else { return None };
        let live = self.naive.lock(lock_id).map(|lock| &lock.holder);
        live.or_else(|| self.naive.end_of(lock_id).map(|ended| &ended.lock.holder))
    }

    pub(super) fn resource_of(&self, token: Presented) -> Option<Resource> {
        let Presented::Token { lock_id, .. } = token else { return None };
        let live = self.naive.lock(lock_id).map(|lock| &lock.claim);
        let claim = live.or_else(|| self.naive.end_of(lock_id).map(|ended| &ended.lock.claim))?;
        Some(claim.resources[0].clone())
    }

    pub(super) fn who(&self, who: Option<usize>, token: Option<Presented>) -> Principal {
        match (who, token.and_then(|token| self.holder_of(token))) {
            (Some(who), _) => principal(who),
            (None, Some(holder)) => holder.clone(),
            (None, None) => principal(0),
        }
    }
}
