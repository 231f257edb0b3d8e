//! A lock that is kept: renewed by itself, watched, and released in the end.
//!
//! What always holds:
//! - the deadline is counted from the moment of *sending* the request that gave it, on a clock
//!   that goes on while the process or the machine stands still;
//! - once a lock is lost it stays lost, whatever arrives later;
//! - from the deadline on, nobody is told that the lock is held, whether or not the task that
//!   renews it has had its turn.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use uuid::Uuid;

use crate::client::Client;
use crate::clock::{Moment, pause, until};
use crate::error::Error;
use crate::lock::{Granted, Lease, LetGo, LockInfo, ending};
use crate::lost::{How, Lost};
use crate::retry::RetryPolicy;
use crate::secret::Token;

/// A lock that is held until it is released, dropped or lost.
///
/// A task renews it at about a third of its TTL. Ask [`check`](Self::check) before each thing
/// that is done under the lock, or let [`lost`](Self::lost) interrupt what takes long:
///
/// ```no_run
/// # async fn example(client: leasehold_client::Client) -> Result<(), Box<dyn std::error::Error>> {
/// # async fn work() {}
/// let held = client.lock("/jobs/nightly").hold().await?;
/// tokio::select! {
///     () = work() => held.release().await?,
///     lost = held.lost() => return Err(lost.into()),
/// }
/// # Ok(()) }
/// ```
///
/// Dropping it releases the lock as well, in the background and without a word: the task that
/// renewed it does that, if its runtime goes on for long enough. Where the process ends, or where
/// it matters, call [`release`](Self::release).
pub struct Held {
    pub(crate) shared: Arc<Shared>,
}

/// What the handle, its task, and writes under the lock have in common.
pub(crate) struct Shared {
    client: Client,
    endpoint: String,
    token: Token,
    lock_id: Uuid,
    fence: u64,
    resource: String,
    state: watch::Sender<State>,
}

#[derive(Clone, Debug)]
struct State {
    info: LockInfo,
    sent_at: Moment,
    deadline: Moment,
    lost: Option<Lost>,
    requested_by: Option<LetGo>,
    /// Why it cannot be renewed any more, while it lives on: a break whose grace runs, or the
    /// longest life of its rule.
    last: Option<Arc<Error>>,
    /// What the last attempt to renew it ended with.
    trouble: Option<Arc<Error>>,
    release: Release,
}

/// Who tells the server that the lock is let go.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Release {
    /// The handle, if anybody.
    ByHandle,
    /// The task: the handle is gone.
    ByTask,
    /// It has been told, or there is nobody who could still be.
    Done,
}

impl Held {
    pub(crate) fn keep(lease: Lease) -> Self {
        let requested_by = lease.info.requested_by.clone();
        let shared = Arc::new(Shared {
            client: lease.client,
            endpoint: lease.endpoint,
            token: lease.token,
            lock_id: lease.info.lock_id,
            fence: lease.info.fence,
            resource: lease.info.resource.clone(),
            state: watch::Sender::new(State {
                info: lease.info,
                sent_at: lease.sent_at,
                deadline: lease.deadline,
                lost: None,
                requested_by,
                last: None,
                trouble: None,
                release: Release::ByHandle,
            }),
        });
        tokio::spawn(keep(shared.clone()));
        Self { shared }
    }

    /// Whether the lock is held at this moment.
    ///
    /// It costs no request. Between this and what is done next, time passes: what must not be
    /// done without the lock carries its token ([`under`](crate::Write::under)) or its
    /// [`fence`](Self::fence).
    ///
    /// # Errors
    /// How it was lost.
    pub fn check(&self) -> Result<(), Lost> {
        self.shared.check()
    }

    /// Resolves when the lock is lost (or released by a drop), with how; at once if it is
    /// already. It can be kept and awaited apart from the handle.
    pub fn lost(&self) -> impl Future<Output = Lost> + Send + use<> {
        let shared = self.shared.clone();
        async move { shared.lost().await }
    }

    /// Resolves as soon as the lock lives no longer than `left` from then, because it could not
    /// be renewed for some time, or is lost: the moment to stop what must not outlive it.
    ///
    /// With a `left` of more than two thirds of the TTL it resolves in ordinary operation.
    pub fn lives_no_longer_than(&self, left: Duration) -> impl Future<Output = ()> + Send + use<> {
        let shared = self.shared.clone();
        async move {
            let mut seen = shared.state.subscribe();
            loop {
                if shared.check().is_err() {
                    return;
                }
                let deadline = seen.borrow_and_update().deadline;
                let rest = deadline.left().saturating_sub(left);
                if rest.is_zero() {
                    return;
                }
                tokio::select! {
                    () = pause(rest) => {}
                    changed = seen.changed() => if changed.is_err() { return },
                }
            }
        }
    }

    /// How much longer the lock lives at least, if nothing renews it. Zero when it is lost.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        match self.shared.check() {
            Ok(()) => self.shared.state.borrow().deadline.left(),
            Err(_) => Duration::ZERO,
        }
    }

    /// The token: the secret that proves that the lock is yours.
    #[must_use]
    pub fn token(&self) -> &Token {
        &self.shared.token
    }

    /// The fencing number, for systems that can refuse a number smaller than one they have seen.
    #[must_use]
    pub fn fence(&self) -> u64 {
        self.shared.fence
    }

    /// The id of the lock.
    #[must_use]
    pub fn lock_id(&self) -> Uuid {
        self.shared.lock_id
    }

    /// What is locked; of several the first.
    #[must_use]
    pub fn resource(&self) -> &str {
        &self.shared.resource
    }

    /// The lock as it was at its grant or last renewal.
    #[must_use]
    pub fn info(&self) -> LockInfo {
        self.shared.state.borrow().info.clone()
    }

    /// Who has asked for the lock to be let go, if somebody has.
    #[must_use]
    pub fn requested_by(&self) -> Option<LetGo> {
        self.shared.state.borrow().requested_by.clone()
    }

    /// Resolves when somebody asks for the lock to be let go; at once if somebody has. Never if
    /// the lock is lost before.
    pub fn requested(&self) -> impl Future<Output = LetGo> + Send + use<> {
        let shared = self.shared.clone();
        async move {
            let mut seen = shared.state.subscribe();
            loop {
                if let Some(let_go) = &seen.borrow_and_update().requested_by {
                    return let_go.clone();
                }
                if seen.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        }
    }

    /// Renews now, once, without waiting for the next turn. What is known when this comes back
    /// without an error is that the lock was held without a break until it was sent.
    ///
    /// # Errors
    /// The refusal, or [`Error::Lost`].
    pub async fn renew(&self) -> Result<(), Error> {
        let shared = &self.shared;
        shared.check()?;
        let outcome = shared
            .client
            .renew_at(&shared.endpoint, &shared.token, None, None)
            .await
            .and_then(|granted| shared.renewed(granted));
        if let Err(error) = &outcome
            && let Some(lost) = ending(error)
        {
            shared.lose(lost.how().clone());
        }
        outcome?;
        Ok(shared.check()?)
    }

    /// Why the last attempt to renew failed; none while all is well. The lock is still held, and
    /// the attempts go on.
    #[must_use]
    pub fn trouble(&self) -> Option<Arc<Error>> {
        self.shared.state.borrow().trouble.clone()
    }

    /// Why the lock cannot be renewed any more, while it lives on: somebody breaks it and its
    /// grace runs (`lock-changed`), or it has been held as long as its rule allows
    /// (`ttl-out-of-range`). It will be lost at its deadline.
    #[must_use]
    pub fn last_term(&self) -> Option<Arc<Error>> {
        self.shared.state.borrow().last.clone()
    }

    /// Releases the lock.
    ///
    /// # Errors
    /// [`Error::Lost`] where it was lost before: what was done under it was not safe to the end.
    /// Another where the server could not be told; then the lock ends at its deadline.
    pub async fn release(self) -> Result<(), Error> {
        self.shared.lose(How::Released);
        let lost = self.shared.lost().await;
        if !lost.is_released() {
            return Err(lost.into());
        }
        let deadline = self.shared.state.borrow().deadline;
        let backoff = self.shared.client.retry_policy().begin().not_after(deadline);
        let released =
            self.shared.client.release_at(&self.shared.endpoint, &self.shared.token, backoff).await;
        self.shared.state.send_modify(|state| state.release = Release::Done);
        match released {
            Err(error) => match ending(&error) {
                Some(lost) => Err(lost.into()),
                // It has ended by itself.
                None if deadline.has_come() => Err(Lost::new(How::Expired).into()),
                None => Err(error),
            },
            Ok(()) => Ok(()),
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.shared.lose(How::Released);
        // Also where `release` was given up half way.
        self.shared.state.send_if_modified(|state| {
            let owed = state.release == Release::ByHandle;
            if owed {
                state.release = Release::ByTask;
            }
            owed
        });
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held")
            .field("resource", &self.resource())
            .field("lock_id", &self.lock_id())
            .field("fence", &self.fence())
            .field("remaining", &self.remaining())
            .finish_non_exhaustive()
    }
}

impl From<&Held> for Token {
    fn from(held: &Held) -> Self {
        held.token().clone()
    }
}

impl Shared {
    /// As [`Held::check`].
    pub(crate) fn check(&self) -> Result<(), Lost> {
        let state = self.state.borrow();
        if let Some(lost) = &state.lost {
            return Err(lost.clone());
        }
        if !state.deadline.has_come() {
            return Ok(());
        }
        drop(state);
        self.expire();
        self.state.borrow().lost.clone().map_or(Ok(()), Err)
    }

    pub(crate) fn token(&self) -> &Token {
        &self.token
    }

    async fn lost(&self) -> Lost {
        let mut seen = self.state.subscribe();
        loop {
            if let Err(lost) = self.check() {
                return lost;
            }
            let deadline = seen.borrow_and_update().deadline;
            // The task may be gone with its runtime: the clock is looked at here as well.
            tokio::select! {
                () = until(deadline) => {}
                _ = seen.changed() => {}
            }
        }
    }

    /// Loses the lock, unless it is lost already.
    fn lose(&self, how: How) {
        self.state.send_if_modified(|state| {
            if state.lost.is_some() {
                return false;
            }
            // Released too late is not released.
            let too_late = matches!(how, How::Released) && state.deadline.has_come();
            let how = if too_late { How::Expired } else { how };
            state.lost = Some(Lost::new(how));
            true
        });
    }

    fn expire(&self) {
        self.state.send_if_modified(|state| {
            let expires = state.lost.is_none() && state.deadline.has_come();
            if expires {
                state.lost = Some(Lost::new(How::Expired));
            }
            expires
        });
    }

    /// What an answer to a write under this lock tells of it.
    pub(crate) fn learn(&self, error: &Error) {
        let about_this = error
            .problem()
            .and_then(|problem| problem.member("lock_id")?.as_str()?.parse().ok())
            .is_some_and(|id: Uuid| id == self.lock_id);
        if let Some(lost) = ending(error)
            && about_this
        {
            self.lose(lost.how().clone());
        }
    }

    /// Somebody asks for the lock to be let go, as the answer to a write says.
    pub(crate) fn asked_to_let_go(&self, by: &str) {
        self.state.send_if_modified(|state| {
            let news = state.requested_by.as_ref().is_none_or(|let_go| let_go.by != by);
            if news {
                let let_go = LetGo { by: by.to_owned(), ..LetGo::default() };
                state.requested_by = Some(let_go);
            }
            news
        });
    }

    /// Takes a renewal in. One that comes after the lock was lost changes nothing.
    fn renewed(&self, granted: Granted) -> Result<(), Error> {
        let (info, sent_at, deadline) = granted.of(self.lock_id)?;
        self.state.send_modify(|state| {
            // The task comes too late to speak for the time in which nothing was known.
            if state.lost.is_some() || state.deadline.has_come() {
                return;
            }
            if info.requested_by.is_some() {
                state.requested_by.clone_from(&info.requested_by);
            }
            state.info = info;
            state.sent_at = sent_at;
            // A renewal never brings the deadline forward.
            state.deadline = state.deadline.max(deadline);
            state.trouble = None;
        });
        Ok(())
    }

    async fn release(&self) {
        // What cannot be told soon is told by the deadline.
        let policy = RetryPolicy::default().attempts(3).total(Duration::from_secs(10));
        let told = self.client.release_at(&self.endpoint, &self.token, policy.begin()).await;
        drop(told);
    }
}

/// Renews the lock until it is lost or let go.
async fn keep(shared: Arc<Shared>) {
    let lost = tokio::select! {
        lost = shared.lost() => lost,
        never = renew(&shared) => match never {},
    };
    let owed = match lost.how() {
        // The server may think that it lives.
        How::Expired => true,
        How::Ended(_) | How::Refused(_) => false,
        How::Released => {
            let mut seen = shared.state.subscribe();
            let settled = seen.wait_for(|state| state.release != Release::ByHandle).await;
            settled.is_ok_and(|state| state.release == Release::ByTask)
        }
    };
    if owed {
        shared.release().await;
    }
}

async fn renew(shared: &Shared) -> std::convert::Infallible {
    loop {
        let (sent_at, deadline, last) = {
            let state = shared.state.borrow();
            (state.sent_at, state.deadline, state.last.is_some() || state.lost.is_some())
        };
        if last {
            // It only remains to wait for the end, which `lost` does.
            std::future::pending::<()>().await;
        }
        let term = deadline.since(sent_at).max(MIN_TERM);
        // A third of the term, and not at the same moment as everybody else's.
        let at = sent_at.after((term / 3).mul_f64(fastrand::f64().mul_add(-0.2, 1.0)));
        until(at).await;
        renew_once(shared, term).await;
    }
}

/// The shortest term that the pace of renewals is taken from: at the end of the longest life of a
/// lock the terms grow shorter and shorter.
const MIN_TERM: Duration = Duration::from_millis(300);

/// Renews once, however many attempts that takes.
async fn renew_once(shared: &Shared, term: Duration) {
    // Several attempts have to fit into what remains, even if each hangs.
    let timeout = (term / 4).clamp(Duration::from_millis(250), Duration::from_secs(10));
    let mut bound = (term / 60).clamp(Duration::from_millis(20), Duration::from_secs(1));
    loop {
        let sent_at = Moment::now();
        let asked = shared.client.renew_at(&shared.endpoint, &shared.token, None, Some(timeout));
        let error = match asked.await.and_then(|granted| shared.renewed(granted)) {
            Ok(()) => return,
            Err(error) => error,
        };
        if let Some(lost) = ending(&error) {
            shared.lose(lost.how().clone());
            return;
        }
        let is_last = is_last(&error);
        let error = Arc::new(error);
        shared.state.send_modify(|state| {
            if is_last {
                state.last = Some(error.clone());
                if let Some(left) = error.problem().and_then(crate::Problem::ends_in) {
                    state.deadline = state.deadline.min(sent_at.after(left));
                }
            }
            state.trouble = Some(error.clone());
        });
        if is_last {
            return;
        }
        let left = shared.state.borrow().deadline.left();
        let asked_for = error.retry_after().unwrap_or_default().min(left / 4);
        pause(asked_for.saturating_add(bound.mul_f64(fastrand::f64()))).await;
        bound = bound.saturating_mul(2).min((term / 10).max(Duration::from_millis(50)));
    }
}

/// Whether the lock lives on and cannot be renewed any more.
fn is_last(error: &Error) -> bool {
    use leasehold_problems::Name;
    error.is(Name::LockChanged)
        || error
            .problem()
            .is_some_and(|problem| problem.is(Name::TtlOutOfRange) && problem.max_hold().is_some())
}
