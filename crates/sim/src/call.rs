//! One call of one client: what it asks, the future that is under way, and what it is told.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use http::{Method, Request};
use http_body_util::BodyExt as _;
use leasehold_core::command::{
    Acquire, BreakLock, Release, Renew, Request as LetGo, SetFreeze, Transfer, Want,
};
use leasehold_core::event::Origin;
use leasehold_core::ids::{Fence, LockId};
use leasehold_core::lock::Lock;
use leasehold_core::refusal::{AcquireRefusal, HolderRefusal};
use leasehold_core::resource::Resource;
use leasehold_core::table::Granted;
use leasehold_engine::{Engine, EngineError, Grant, Refused};
use leasehold_guard::body::Body;
use leasehold_guard::guard::Guard;
use leasehold_guard::tokens::X_LOCK_TOKEN;
use leasehold_guard::upstream::Upstream;
use leasehold_problems::Name;

use crate::client::request_id;
use crate::upstream::CALL;

/// What a client asks for.
#[derive(Clone, Debug)]
pub enum Asked {
    /// A lock.
    Acquire(Box<Acquire>),
    /// More time.
    Renew(Renew, LockId),
    /// An end.
    Release(Release, LockId),
    /// Another holder.
    Transfer(Transfer, LockId),
    /// Somebody else's end.
    Break(BreakLock, LockId),
    /// That others let go.
    LetGo(LetGo),
    /// That nobody writes.
    Freeze(SetFreeze),
    /// That they may again.
    Unfreeze(Resource),
    /// Who has it.
    Inspect(Resource),
    /// A write, with the tokens of these locks.
    Write {
        /// The method.
        method: Method,
        /// The target.
        resource: Resource,
        /// The locks whose tokens it presents.
        tokens: Vec<(LockId, Fence)>,
        /// Who writes.
        caller: leasehold_core::caller::Caller,
    },
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Acquire(command) => {
                let (what, paths) = match &command.want {
                    Want::All(all) => ("acquire", all),
                    Want::AnyOf(any) => ("acquire any of", any),
                };
                let paths: Vec<&str> = paths.iter().map(|path| path.as_str()).collect();
                write!(
                    f,
                    "{what} {paths:?} {:?} {:?} ttl {:?} wait {} holds {} key {} as {}",
                    command.mode,
                    command.depth,
                    command.ttl_ms,
                    command.wait_ms,
                    command.holds.len(),
                    command.idempotency.is_some(),
                    command.lock_id
                )
            }
            Self::Renew(command, lock) => write!(f, "renew {lock} for {:?}", command.ttl_ms),
            Self::Release(_, lock) => write!(f, "release {lock}"),
            Self::Transfer(command, lock) => write!(f, "transfer {lock} to {}", command.to),
            Self::Break(command, lock) => write!(f, "break {lock} in {}", command.grace_ms),
            Self::LetGo(command) => write!(f, "ask for {}", command.resource),
            Self::Freeze(command) => write!(f, "freeze {}", command.resource),
            Self::Unfreeze(resource) => write!(f, "unfreeze {resource}"),
            Self::Inspect(resource) => write!(f, "inspect {resource}"),
            Self::Write { method, resource, tokens, .. } => {
                write!(f, "{method} {resource} with {tokens:?}")
            }
        }
    }
}

/// What a client is told.
#[derive(Debug)]
pub enum Told {
    /// It has a lock, for so many milliseconds.
    Granted(Grant, u64),
    /// It has none.
    NotGranted(AcquireRefusal),
    /// It has it for so many milliseconds more.
    Renewed(Box<Lock>, u64),
    /// This lock has ended.
    Released(LockId),
    /// Somebody else has it now, for so many milliseconds.
    Transferred(Granted, u64),
    /// This lock was broken, or will be.
    Broken(LockId),
    /// Nothing that there is anything to compare with.
    Done,
    /// Who holds it.
    Seen(Option<Box<Lock>>),
    /// The holder is refused.
    HolderRefused(HolderRefusal),
    /// The upstream has answered with this status.
    Wrote(u16),
    /// The guard has refused.
    NotWritten(Name),
    /// There is no answer.
    Failed(EngineError),
}

impl Told {
    /// A word or two for the history.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Granted(grant, left) => {
                let grant = &grant.granted.lock.grant;
                format!("granted {} fence {} for {left}", grant.lock_id, grant.fence)
            }
            Self::NotGranted(refusal) => {
                let text = format!("{refusal:?}");
                let end = text.find(['(', ' ', '{']).unwrap_or(text.len());
                text[..end].to_owned()
            }
            Self::Renewed(lock, left) => format!("renewed {} for {left}", lock.grant.lock_id),
            Self::Released(id) => format!("released {id}"),
            Self::Transferred(granted, left) => {
                format!("transferred {} for {left}", granted.lock.grant.lock_id)
            }
            Self::Broken(id) => format!("broken {id}"),
            Self::Done => "done".to_owned(),
            Self::Seen(lock) => format!("seen {:?}", lock.as_ref().map(|lock| lock.grant.lock_id)),
            Self::HolderRefused(refusal) => refusal.to_string(),
            Self::Wrote(status) => format!("wrote {status}"),
            Self::NotWritten(name) => format!("not written: {name:?}"),
            Self::Failed(error) => format!("{error:?}"),
        }
    }
}

/// A call that is under way.
pub struct Call {
    /// Whose.
    pub client: usize,
    /// What it asks for.
    pub asked: Asked,
    /// How often the journal had failed when it was sent.
    pub failures: u64,
    future: Pin<Box<dyn Future<Output = Told>>>,
    ready: Arc<Ready>,
}

/// Whether a call has been woken.
struct Ready(AtomicBool);

impl Wake for Ready {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Release);
    }
}

impl Call {
    /// Makes a call; nothing of it has happened yet. A write has this body.
    #[must_use]
    pub fn new<U: Upstream>(
        id: u64,
        client: usize,
        asked: Asked,
        failures: u64,
        guard: &Guard<U>,
        body: Body,
    ) -> Self
    where
        U::Plan: Sync,
    {
        let future = Box::pin(carry_out(id, asked.clone(), guard.clone(), body));
        let ready = Arc::new(Ready(AtomicBool::new(true)));
        Self { client, asked, failures, future, ready }
    }

    /// Whether something has happened that it waits for.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.ready.0.load(Ordering::Acquire)
    }

    /// Lets it go on; what it is told, if it is over.
    pub fn poll(&mut self) -> Option<Told> {
        self.ready.0.store(false, Ordering::Release);
        let waker = Waker::from(self.ready.clone());
        match self.future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(told) => Some(told),
            Poll::Pending => None,
        }
    }
}

fn holder_refused(refused: Refused<HolderRefusal>) -> Told {
    match refused {
        Refused::By(refusal) => Told::HolderRefused(refusal),
        Refused::Engine(error) => Told::Failed(error),
    }
}

fn no_matter<R: fmt::Debug + fmt::Display>(refused: Refused<R>) -> Told {
    match refused {
        Refused::By(_) => Told::Done,
        Refused::Engine(error) => Told::Failed(error),
    }
}

async fn carry_out<U: Upstream>(id: u64, asked: Asked, guard: Guard<U>, body: Body) -> Told
where
    U::Plan: Sync,
{
    let engine: &Engine = guard.engine();
    match asked {
        Asked::Acquire(command) => match engine.acquire(*command).await {
            Ok(grant) => {
                let left = engine.remaining_ms(grant.granted.lock.deadline);
                Told::Granted(grant, left)
            }
            Err(Refused::By(refusal)) => Told::NotGranted(refusal),
            Err(Refused::Engine(error)) => Told::Failed(error),
        },
        Asked::Renew(command, _) => match engine.renew(command).await {
            Ok(lock) => {
                let left = engine.remaining_ms(lock.deadline);
                Told::Renewed(lock, left)
            }
            Err(refused) => holder_refused(refused),
        },
        Asked::Release(command, _) => {
            engine.release(command).await.map_or_else(holder_refused, Told::Released)
        }
        Asked::Transfer(command, _) => match engine.transfer(command).await {
            Ok(granted) => {
                let left = engine.remaining_ms(granted.lock.deadline);
                Told::Transferred(granted, left)
            }
            Err(refused) => holder_refused(refused),
        },
        Asked::Break(command, _) => match engine.break_lock(command).await {
            Ok(broken) => Told::Broken(broken.lock.grant.lock_id),
            Err(refused) => no_matter(refused),
        },
        Asked::LetGo(command) => {
            engine.request(command).await.map_or_else(no_matter, |_| Told::Done)
        }
        Asked::Freeze(command) => {
            engine.freeze(command).await.map_or_else(Told::Failed, |_| Told::Done)
        }
        Asked::Unfreeze(resource) => engine
            .unfreeze(resource, Origin::default())
            .await
            .map_or_else(Told::Failed, |_| Told::Done),
        Asked::Inspect(resource) => match engine.inspect(&resource).await {
            Ok((inspection, _)) => Told::Seen(inspection.locks.first().cloned().map(Box::new)),
            Err(error) => Told::Failed(error),
        },
        Asked::Write { method, resource, tokens, caller } => {
            write(id, &guard, method, resource, &tokens, caller, body).await
        }
    }
}

async fn write<U: Upstream>(
    id: u64,
    guard: &Guard<U>,
    method: Method,
    resource: Resource,
    tokens: &[(LockId, Fence)],
    caller: leasehold_core::caller::Caller,
    body: Body,
) -> Told
where
    U::Plan: Sync,
{
    let mut request =
        Request::builder().method(method).uri(resource.as_str()).header(CALL, id.to_string());
    for (lock, fence) in tokens {
        request = request.header(X_LOCK_TOKEN, guard.engine().token(*lock, *fence));
    }
    let Ok(request) = request.body(body) else { return Told::Done };
    let request_id = request_id(id);
    let call = leasehold_guard::call::Call {
        caller,
        request_id,
        remote_addr: None,
        asked: None,
        memory: None,
        credentials: None,
    };
    match guard.handle(request, resource, &call).await {
        Ok(response) => {
            let status = response.status().as_u16();
            // Every other client does not care for what comes after the head.
            if id.is_multiple_of(2) {
                let mut body = response.into_body();
                while let Some(Ok(_)) = body.frame().await {}
            }
            Told::Wrote(status)
        }
        Err(problem) => Told::NotWritten(problem.name),
    }
}
