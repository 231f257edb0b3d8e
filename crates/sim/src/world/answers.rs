//! What clients are told: shown to the judge, and what they make of it.

use leasehold_core::ids::{LockId, Principal};
use leasehold_core::lock::Lock;
use leasehold_core::refusal::{AcquireRefusal, HolderRefusal};
use leasehold_engine::EngineError;
use leasehold_problems::Name;

use super::World;
use crate::call::{Asked, Call, Told};
use crate::client::{Again, Held};
use crate::judge::Verdict;

impl World {
    pub(super) fn told(&mut self, id: u64, call: &Call, told: Told) -> Verdict {
        let failures = call.failures;
        match told {
            Told::Granted(grant, left) => {
                let lock = &grant.granted.lock;
                if self.rng.u8(0..8) == 0 {
                    self.history.note(format_args!("the answer of call {id} is lost"));
                    self.judge.end_asked(lock.grant.lock_id);
                    self.judge.left(id);
                    self.lost(id, call);
                    // Dropped, it gives the grant back.
                    drop(grant);
                    return Ok(());
                }
                self.judge.granted(id, failures, lock, left)?;
                self.hold(call.client, lock);
                grant.delivery.delivered();
                Ok(())
            }
            Told::NotGranted(refusal) => self.not_granted(id, call, &refusal),
            Told::Renewed(lock, left) => self.judge.renewed(id, failures, &lock, left),
            Told::Released(lock) => {
                self.forget(call.client, lock);
                self.judge.ended(id, failures, lock)
            }
            Told::Transferred(granted, left) => {
                if let Asked::Transfer(command, before) = &call.asked {
                    self.forget(call.client, *before);
                    let to = self.client(&command.to);
                    self.hold(to, &granted.lock);
                }
                self.judge.granted(id, failures, &granted.lock, left)
            }
            Told::Broken(lock) => self.judge.broke(id, failures, lock),
            Told::Seen(lock) => self.judge.refused_locked(id, failures, lock.as_deref(), 0),
            Told::HolderRefused(refusal) => self.holder_refused(call, &refusal),
            Told::NotWritten(Name::LockLost) => {
                self.not_sent(id);
                if let Asked::Write { tokens, .. } = &call.asked
                    && let [(lock, _)] = tokens[..]
                {
                    self.forget(call.client, lock);
                    return self.judge.lost(lock);
                }
                Ok(())
            }
            Told::NotWritten(Name::Locked | Name::Frozen) => {
                self.not_sent(id);
                self.judge.left(id);
                Ok(())
            }
            Told::Failed(EngineError::ExpiredBeforeTold)
            | Told::Done
            | Told::Wrote(_)
            | Told::NotWritten(_) => {
                self.judge.left(id);
                Ok(())
            }
            Told::Failed(_) => {
                self.judge.left(id);
                self.lost(id, call);
                Ok(())
            }
        }
    }

    fn not_granted(&mut self, id: u64, call: &Call, refusal: &AcquireRefusal) -> Verdict {
        match refusal {
            AcquireRefusal::Locked(found) => {
                let lock = found.lock.as_deref();
                if found.waited_ms > 0
                    && let Asked::Acquire(command) = &call.asked
                    && command.idempotency.is_some()
                {
                    // It comes back for its place.
                    let command = (**command).clone();
                    self.clients[call.client].again.push(Again { call: id, command });
                }
                self.judge.refused_locked(id, call.failures, lock, found.waited_ms)
            }
            AcquireRefusal::Gone(ended) => {
                self.judge.left(id);
                self.judge.lost(ended.lock_id)
            }
            _ => {
                self.judge.left(id);
                Ok(())
            }
        }
    }

    fn holder_refused(&mut self, call: &Call, refusal: &HolderRefusal) -> Verdict {
        let HolderRefusal::Gone(lock, _) = refusal else { return Ok(()) };
        self.forget(call.client, *lock);
        self.judge.lost(*lock)
    }

    fn client(&self, name: &Principal) -> usize {
        self.clients.iter().position(|client| client.principal() == name).unwrap_or(0)
    }

    fn hold(&mut self, client: usize, lock: &Lock) {
        let grant = &lock.grant;
        self.forget(client, grant.lock_id);
        let held =
            Held { lock_id: grant.lock_id, fence: grant.fence, resources: grant.resources.clone() };
        self.clients[client].held.push(held);
    }

    /// A client knows that it has lost a lock; now and then it does not care.
    fn forget(&mut self, client: usize, lock: LockId) {
        self.clients[client].held.retain(|held| held.lock_id != lock);
    }
}
