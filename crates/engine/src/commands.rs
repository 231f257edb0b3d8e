//! The commands of the engine: decide, wait until durable, answer.

use std::sync::Arc;

use leasehold_core::acquire::Acquired;
use leasehold_core::command::{
    Acquire, BreakLock, Release, Renew, Request, SetFreeze, Transfer, Write,
};
use leasehold_core::event::{EventBody, Origin, Subject};
use leasehold_core::holder::{BreakPreview, Broken, Transferring};
use leasehold_core::ids::{Fence, LockId, WaiterId};
use leasehold_core::inspect::Inspection;
use leasehold_core::lock::{Freeze, Lock};
use leasehold_core::refusal::{AcquireRefusal, BreakRefusal, HolderRefusal, WriteRefusal};
use leasehold_core::resource::Resource;
use leasehold_core::table::{Granted, LockTable, Woken};
use leasehold_core::time::Now;
use tokio::sync::oneshot;

use crate::engine::{Engine, EngineError};
use crate::permit::Permit;
use crate::shared::{ParkedAnswer, Rest, Serving};

/// Why a command was not carried out: refused by the table, or the engine gave no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Refused<R: std::fmt::Debug + std::fmt::Display> {
    /// The table refused it.
    #[error("{0}")]
    By(R),
    /// The engine gave no answer.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// A grant, and the duty to deliver it.
#[derive(Debug)]
pub struct Grant {
    /// The lock.
    pub granted: Granted,
    /// Drop it undelivered, and the grant is given back.
    pub delivery: Delivery,
}

/// The duty to deliver a grant: dropped before [`Delivery::delivered`], the grant is given back.
///
/// Of several answers that tell of one grant, to retries with one key, the last that is lost
/// gives it back, if none has arrived.
#[must_use]
pub struct Delivery {
    engine: Option<Engine>,
    lock_id: LockId,
    has_key: bool,
}

impl std::fmt::Debug for Delivery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Delivery").field("lock_id", &self.lock_id).finish_non_exhaustive()
    }
}

impl Delivery {
    /// The answer was handed to the network.
    pub fn delivered(mut self) {
        if let Some(engine) = self.engine.take()
            && self.has_key
        {
            engine.shared.lock().told(self.lock_id);
        }
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        if let Some(engine) = self.engine.take() {
            engine.lost_answer(self.lock_id);
        }
    }
}

/// A parked command: dropped before it is answered, it leaves the queue.
struct Parked {
    engine: Engine,
    waiter: WaiterId,
    answer: oneshot::Receiver<ParkedAnswer>,
    answered: bool,
}

impl Parked {
    async fn wait(&mut self) -> ParkedAnswer {
        let answer = (&mut self.answer).await.unwrap_or(Err(EngineError::StorageFailure));
        self.answered = true;
        answer
    }
}

impl Drop for Parked {
    fn drop(&mut self) {
        if self.answered {
            return;
        }
        let shared = &self.engine.shared;
        let mut core = shared.lock();
        core.parked.remove(&self.waiter);
        // Granted just now, and nobody to tell.
        if let Ok(Ok((Woken::Granted(granted), _))) = self.answer.try_recv() {
            drop(core);
            self.engine.lost_answer(granted.lock.grant.lock_id);
        } else if core.serving == Serving::Yes {
            // Else its queue has gone.
            shared.decide_in(&mut core, |core, now| core.table.leave(self.waiter, now));
        }
    }
}

impl Engine {
    fn delivery(&self, granted: &Granted, gives_back: bool) -> Delivery {
        let grant = &granted.lock.grant;
        let engine = gives_back.then(|| self.clone());
        Delivery { engine, lock_id: grant.lock_id, has_key: grant.idempotency.is_some() }
    }

    /// Decides, and waits until everything in the table then is durable.
    async fn ask<T, R: std::fmt::Debug + std::fmt::Display>(
        &self,
        decide: impl FnOnce(&mut LockTable, Now) -> Result<T, R>,
    ) -> Result<T, Refused<R>> {
        let (answer, rests_on) = self.shared.decide(|core, now| {
            let answer = decide(&mut core.table, now);
            (answer, core.rest())
        })?;
        self.shared.settled(rests_on).await?;
        answer.map_err(Refused::By)
    }

    fn park(&self, waiter: WaiterId, answer: oneshot::Receiver<ParkedAnswer>) -> Parked {
        Parked { engine: self.clone(), waiter, answer, answered: false }
    }

    /// Acquires, waiting as long as the command says. Dropped while it waits, it leaves the queue.
    ///
    /// # Errors
    /// The refusal, or no answer.
    pub async fn acquire(&self, command: Acquire) -> Result<Grant, Refused<AcquireRefusal>> {
        enum First {
            Granted(Granted, Rest, bool),
            Parked(WaiterId, oneshot::Receiver<ParkedAnswer>),
            Refused(AcquireRefusal, Rest),
        }
        let first = self.shared.decide(|core, now| {
            let key = command.idempotency.as_ref().map(|each| each.key.clone());
            let waits =
                key.is_some_and(|key| core.table.waits_for_retry(&command.caller.principal, &key));
            let outcome = core.table.acquire(command, now);
            let rest = core.rest();
            match outcome {
                Ok(Acquired::Granted(granted)) => {
                    let gives_back = core.telling(&granted, waits);
                    First::Granted(granted, rest, gives_back)
                }
                Ok(Acquired::Parked(waiter)) => {
                    let (tell, answer) = oneshot::channel();
                    core.parked.insert(waiter, tell);
                    First::Parked(waiter, answer)
                }
                Err(refusal) => First::Refused(refusal, rest),
            }
        })?;
        let (granted, rests_on, gives_back) = match first {
            First::Granted(granted, rest, gives_back) => (granted, rest, gives_back),
            First::Refused(refusal, rest) => {
                self.shared.settled(rest).await?;
                return Err(Refused::By(refusal));
            }
            First::Parked(waiter, answer) => {
                let mut parked = self.park(waiter, answer);
                match parked.wait().await? {
                    (Woken::Granted(granted), rest) => (granted, rest, true),
                    (Woken::Refused(refusal), rest) => {
                        self.shared.settled(rest).await?;
                        return Err(Refused::By(*refusal));
                    }
                    _ => return Err(Refused::Engine(EngineError::Unavailable)),
                }
            }
        };
        let delivery = self.delivery(&granted, gives_back);
        if let Err(error) = self.shared.settled(rests_on).await {
            // It may be there when the log works again. Who has a key asks again, and gets it;
            // without one nobody ever can, and the delivery gives it back.
            if delivery.has_key {
                delivery.delivered();
            }
            return Err(Refused::Engine(error));
        }
        if self.remaining_ms(granted.lock.deadline) == 0 {
            return Err(Refused::Engine(EngineError::ExpiredBeforeTold));
        }
        Ok(Grant { granted, delivery })
    }

    /// Renews.
    ///
    /// # Errors
    /// The refusal, or no answer.
    pub async fn renew(&self, command: Renew) -> Result<Box<Lock>, Refused<HolderRefusal>> {
        let lock = self.ask(|table, now| table.renew(&command, now)).await?;
        if self.remaining_ms(lock.deadline) == 0 {
            return Err(Refused::Engine(EngineError::ExpiredBeforeTold));
        }
        Ok(lock)
    }

    /// Releases.
    ///
    /// # Errors
    /// The refusal, or no answer.
    pub async fn release(&self, command: Release) -> Result<LockId, Refused<HolderRefusal>> {
        self.ask(|table, now| table.release(&command, now)).await
    }

    /// Hands a lock over, when the holder's writes under way have ended.
    ///
    /// # Errors
    /// The refusal, or no answer.
    pub async fn transfer(&self, command: Transfer) -> Result<Granted, Refused<HolderRefusal>> {
        let (first, rests_on) = self.shared.decide(|core, now| {
            let outcome =
                core.table.transfer(command, now).map(|transferring| match transferring {
                    Transferring::Done(granted) => Ok(granted),
                    Transferring::Parked(waiter) => {
                        let (tell, answer) = oneshot::channel();
                        core.parked.insert(waiter, tell);
                        Err((waiter, answer))
                    }
                });
            (outcome, core.rest())
        })?;
        let (outcome, rests_on) = match first {
            Ok(Ok(granted)) => (Ok(granted), rests_on),
            Err(refusal) => (Err(refusal), rests_on),
            Ok(Err((waiter, answer))) => match self.park(waiter, answer).wait().await? {
                (Woken::Transferred(granted), seq) => (Ok(granted), seq),
                (Woken::NotTransferred(refusal), seq) => (Err(*refusal), seq),
                _ => return Err(Refused::Engine(EngineError::Unavailable)),
            },
        };
        self.shared.settled(rests_on).await?;
        let granted = outcome.map_err(Refused::By)?;
        if self.remaining_ms(granted.lock.deadline) == 0 {
            return Err(Refused::Engine(EngineError::ExpiredBeforeTold));
        }
        Ok(granted)
    }

    /// Asks the holders to let go.
    ///
    /// # Errors
    /// The refusal, or no answer.
    pub async fn request(&self, command: Request) -> Result<Vec<LockId>, Refused<BreakRefusal>> {
        self.ask(|table, now| table.request(&command, now)).await
    }

    /// Breaks a lock.
    ///
    /// # Errors
    /// The refusal, or no answer.
    pub async fn break_lock(&self, command: BreakLock) -> Result<Broken, Refused<BreakRefusal>> {
        self.ask(|table, now| table.break_lock(&command, now)).await
    }

    /// What a break would end.
    ///
    /// # Errors
    /// The refusal, or no answer.
    pub async fn preview_break(
        &self,
        command: BreakLock,
    ) -> Result<BreakPreview, Refused<BreakRefusal>> {
        self.ask(|table, now| table.preview_break(&command, now)).await
    }

    /// Freezes; answers when the writes under way have ended, or the wait is over: how many are
    /// still on their way then.
    ///
    /// # Errors
    /// No answer.
    pub async fn freeze(&self, command: SetFreeze) -> Result<(Freeze, usize), EngineError> {
        let (freeze, waits, rests_on) = self.shared.decide(|core, now| {
            let (freeze, waiter) = core.table.freeze(&command, now);
            let waits = waiter.map(|waiter| {
                let (tell, answer) = oneshot::channel();
                core.parked.insert(waiter, tell);
                (waiter, answer)
            });
            (freeze, waits, core.rest())
        })?;
        // Made before the wait: dropped while waiting, it leaves.
        let parked = waits.map(|(waiter, answer)| self.park(waiter, answer));
        self.shared.settled(rests_on).await?;
        let Some(mut parked) = parked else { return Ok((freeze, 0)) };
        match parked.wait().await? {
            (Woken::Frozen { writes_in_flight }, seq) => {
                self.shared.settled(seq).await?;
                Ok((freeze, writes_in_flight))
            }
            _ => Err(EngineError::Unavailable),
        }
    }

    /// Lifts a freeze. Whether there was one.
    ///
    /// # Errors
    /// No answer.
    pub async fn unfreeze(&self, resource: Resource, origin: Origin) -> Result<bool, EngineError> {
        let (lifted, rests_on) = self.shared.decide(|core, now| {
            let lifted = core.table.unfreeze(&resource, origin, now);
            (lifted, core.rest())
        })?;
        self.shared.settled(rests_on).await?;
        Ok(lifted)
    }

    /// What is known of the lock of a resource.
    ///
    /// # Errors
    /// No answer.
    pub async fn inspect(&self, resource: &Resource) -> Result<(Inspection, Now), EngineError> {
        let (inspection, now, rests_on) = self
            .shared
            .decide(|core, now| (core.table.inspect(resource, now), now, core.rest()))?;
        self.shared.settled(rests_on).await?;
        Ok((inspection, now))
    }

    /// One live lock.
    ///
    /// # Errors
    /// No answer.
    pub async fn lock(&self, lock_id: LockId) -> Result<Option<Lock>, EngineError> {
        let (lock, rests_on) =
            self.shared.decide(|core, now| (core.table.lock(lock_id, now), core.rest()))?;
        self.shared.settled(rests_on).await?;
        Ok(lock)
    }

    /// Live locks that `matches` lets through, in the order of their fences, after `after`: at
    /// most `limit`; and where to go on, if there are more.
    ///
    /// # Errors
    /// No answer.
    pub async fn list(
        &self,
        mut after: Option<Fence>,
        limit: usize,
        matches: impl Fn(&Lock) -> bool,
    ) -> Result<(Vec<Lock>, Option<Fence>), EngineError> {
        let mut found = Vec::new();
        loop {
            // The lock is let go between chunks: a long list must not hold others up.
            let (mut locks, more, rests_on) = self.shared.decide(|core, now| {
                let left = limit - found.len();
                let (locks, more) = core.table.list(after, left, LIST_CHUNK, now, &matches);
                (locks, more, core.rest())
            })?;
            self.shared.settled(rests_on).await?;
            found.append(&mut locks);
            after = more;
            if found.len() == limit || after.is_none() {
                return Ok((found, after));
            }
            tokio::task::yield_now().await;
        }
    }

    /// Whether a write may pass as things are. Nothing is pinned, and nothing is told by a yes:
    /// what it rests on need not be durable, because the write is judged again.
    ///
    /// # Errors
    /// The refusal, or no answer.
    pub async fn check(&self, write: &Write) -> Result<(), Refused<WriteRefusal>> {
        let (answer, rests_on) =
            self.shared.decide(|core, now| (core.table.check(write, now), core.rest()))?;
        let Err(refusal) = answer else { return Ok(()) };
        self.shared.settled(rests_on).await?;
        Err(Refused::By(refusal))
    }

    /// The same for a proxy that asks: it leaves `write_checked` in the trail, durable before the
    /// answer. The lock it was judged under.
    ///
    /// # Errors
    /// The refusal, or no answer.
    pub async fn check_for_proxy(
        &self,
        write: &Write,
        name: impl FnOnce(&WriteRefusal) -> &'static str,
    ) -> Result<Option<Subject>, Refused<WriteRefusal>> {
        self.ask(|table, now| {
            let answer = table.check_with_lock(write, now);
            let body = EventBody::WriteChecked {
                lock: answer.as_ref().ok().cloned().flatten(),
                method: write.method.clone(),
                resource: write.resource.clone(),
                problem: answer.as_ref().err().map(|refusal| Arc::from(name(refusal))),
            };
            table.record(body, write.origin.clone(), now);
            answer
        })
        .await
    }

    /// Lets a write through, pinned until its permit says that it has ended.
    ///
    /// A write without a lock rests only on the absence of one; under a lock its `write_admitted`
    /// is durable before this answers.
    ///
    /// # Errors
    /// The refusal, or no answer.
    pub async fn admit(&self, write: &Write) -> Result<Permit, Refused<WriteRefusal>> {
        let (outcome, newest) = self.shared.decide(|core, now| {
            let outcome = core.table.admit(write, now);
            (outcome, core.rest())
        })?;
        match outcome {
            Ok(admitted) => {
                let rests_on = Rest { epoch: newest.epoch, seq: admitted.rests_on };
                // Made before the wait: dropped while waiting, it unpins.
                let permit = Permit::new(self.clone(), admitted);
                self.shared.settled(rests_on).await?;
                Ok(permit)
            }
            Err(refusal) => {
                self.shared.settled(newest).await?;
                Err(Refused::By(refusal))
            }
        }
    }
}

/// How many locks a list looks at before it lets others have a turn.
const LIST_CHUNK: usize = 4096;
