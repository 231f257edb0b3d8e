//! Clients: what each believes to hold, and what it asks for next.

use std::sync::Arc;

use fastrand::Rng;
use http::Method;
use leasehold_core::caller::{Caller, Permissions, Role};
use leasehold_core::command::{
    Acquire, AcquireLimits, Address, BreakLock, Presented, Release, Renew, Request, SetFreeze,
    Transfer, Want,
};
use leasehold_core::event::Origin;
use leasehold_core::ids::{Fence, LockId, Principal};
use leasehold_core::lock::{Depth, Dialect, Idempotency, Mode};
use leasehold_core::resource::Resource;
use leasehold_core::time::WallTime;

use crate::call::Asked;
use crate::judge::Limits;

/// A lock that a client was told it has. It may have ended since: clients present dead tokens too.
#[derive(Clone, Debug)]
pub struct Held {
    /// The grant.
    pub lock_id: LockId,
    /// Its fence.
    pub fence: Fence,
    /// What it locks.
    pub resources: Arc<[Resource]>,
}

/// An acquire whose answer was lost, or said that nobody knows.
#[derive(Clone, Debug)]
pub struct Again {
    /// The call it was.
    pub call: u64,
    /// The command.
    pub command: Acquire,
}

/// One client.
#[derive(Clone, Debug)]
pub struct Client {
    caller: Caller,
    /// The locks it was told of, the newest last.
    pub held: Vec<Held>,
    /// Requests with a key that it may send again.
    pub again: Vec<Again>,
}

/// What a client knows when it decides what to send.
pub struct Scene {
    /// The number of the call that it is going to send.
    pub call: u64,
    /// Locks of other clients.
    pub others: Vec<Held>,
    /// Somebody to hand a lock over to.
    pub to: Principal,
    /// The wall clock.
    pub wall: WallTime,
}

/// The id of the request that a call is, as the log has it.
#[must_use]
pub fn request_id(call: u64) -> Arc<str> {
    format!("call-{call}").into()
}

/// What a client sends.
pub struct Intent {
    /// What it asks for.
    pub asked: Asked,
    /// The call that it repeats, if it does.
    pub repeats: Option<u64>,
}

/// The paths that clients fight over.
const PATHS: [&str; 8] = ["/a", "/a/x", "/a/x/1", "/a/x/2", "/a/y", "/b", "/b/z", "/c"];

/// The limits of the simulated server.
pub const LIMITS: Limits =
    Limits { max_locks: 7, max_locks_per_holder: 3, max_waiters: 6, max_queue: 3 };

fn limits() -> AcquireLimits {
    AcquireLimits {
        default_ttl_ms: 5_000,
        max_ttl_ms: 30_000,
        max_hold_ms: Some(60_000),
        max_queue: LIMITS.max_queue,
        max_locks_per_holder: Some(LIMITS.max_locks_per_holder as u64),
        drain_wait_ms: 5_000,
    }
}

fn resource(rng: &mut Rng) -> Resource {
    let path = PATHS[rng.usize(..PATHS.len())];
    match Resource::parse(path) {
        Ok(resource) => resource,
        Err(error) => unreachable!("{path}: {error}"),
    }
}

fn lock_id(rng: &mut Rng) -> LockId {
    LockId(uuid::Uuid::from_u128(rng.u128(..)))
}

impl Client {
    /// A client that may do everything.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let role = Role { permissions: Permissions::ALL, patterns: Vec::new() };
        let caller =
            Caller { principal: Principal::new(name), anonymous: false, roles: Arc::from([role]) };
        Self { caller, held: Vec::new(), again: Vec::new() }
    }

    /// Its name.
    #[must_use]
    pub fn principal(&self) -> &Principal {
        &self.caller.principal
    }

    fn origin(&self, call: u64) -> Origin {
        Origin {
            actor: Some(self.caller.principal.clone()),
            dialect: Dialect::Http,
            request_id: Some(request_id(call)),
            remote_addr: None,
        }
    }

    /// What it sends next.
    pub fn next(&mut self, rng: &mut Rng, scene: &Scene) -> Intent {
        let origin = self.origin(scene.call);
        if !self.again.is_empty() && rng.u8(0..3) == 0 {
            return self.repeat(rng, origin);
        }
        let Scene { others, to, wall, .. } = scene;
        let held = (!self.held.is_empty()).then(|| self.held[rng.usize(..self.held.len())].clone());
        let asked = match (rng.u8(0..32), held) {
            (0..5, Some(held)) => self.renew(rng, origin, &held),
            (5..10, Some(held)) => self.release(origin, &held),
            (10, Some(held)) => self.transfer(rng, origin, &held, to),
            (11..18, held) => self.write(rng, held, others),
            (18, _) if !others.is_empty() => {
                let other = &others[rng.usize(..others.len())];
                self.break_lock(rng, origin, other)
            }
            (19, _) => self.freeze(rng, origin, *wall),
            (20, _) => Asked::Unfreeze(resource(rng)),
            (21, _) => Asked::LetGo(Request {
                caller: self.caller.clone(),
                origin,
                resource: resource(rng),
                message: None,
            }),
            (22, _) => Asked::Inspect(resource(rng)),
            _ => self.acquire(rng, origin),
        };
        Intent { asked, repeats: None }
    }

    fn repeat(&mut self, rng: &mut Rng, origin: Origin) -> Intent {
        let Again { call, command } = self.again.swap_remove(rng.usize(..self.again.len()));
        let command = Acquire { lock_id: lock_id(rng), origin, ..command };
        Intent { asked: Asked::Acquire(Box::new(command)), repeats: Some(call) }
    }

    fn acquire(&self, rng: &mut Rng, origin: Origin) -> Asked {
        let count = if rng.u8(0..5) == 0 { rng.usize(2..=3) } else { 1 };
        let mut resources: Vec<Resource> = Vec::new();
        for _ in 0..count {
            let next = resource(rng);
            if !resources.contains(&next) {
                resources.push(next);
            }
        }
        let depth = if rng.u8(0..3) == 0 { Depth::Zero } else { Depth::Infinity };
        let want = if rng.bool() {
            Want::All(leasehold_core::acquire::fold_set(&resources, depth))
        } else {
            Want::AnyOf(resources.into())
        };
        let holds = match self.held.last() {
            Some(held) if rng.u8(0..4) == 0 => vec![presented(held)],
            _ => Vec::new(),
        };
        let key = rng.u8(0..5) < 2;
        let idempotency = key.then(|| Idempotency {
            key: format!("key-{}", rng.u64(..)).into(),
            digest: "digest".into(),
        });
        Asked::Acquire(Box::new(Acquire {
            caller: self.caller.clone(),
            origin,
            lock_id: lock_id(rng),
            want,
            mode: if rng.u8(0..3) == 0 { Mode::Shared } else { Mode::Exclusive },
            depth,
            ttl_ms: (rng.u8(0..4) > 0).then(|| rng.u64(1_000..12_000)),
            reason: None,
            metadata: None,
            handle: None,
            idempotency,
            holds,
            wait_ms: if rng.u8(0..5) < 3 { rng.u64(100..8_000) } else { 0 },
            limits: limits(),
        }))
    }

    fn renew(&self, rng: &mut Rng, origin: Origin, held: &Held) -> Asked {
        let command = Renew {
            caller: self.caller.clone(),
            origin,
            address: Address::Id(held.lock_id),
            tokens: vec![presented(held)],
            ttl_ms: rng.bool().then(|| rng.u64(1_000..12_000)),
        };
        Asked::Renew(command, held.lock_id)
    }

    fn release(&self, origin: Origin, held: &Held) -> Asked {
        let command = Release {
            caller: self.caller.clone(),
            origin,
            address: Address::Id(held.lock_id),
            tokens: vec![presented(held)],
        };
        Asked::Release(command, held.lock_id)
    }

    fn transfer(&self, rng: &mut Rng, origin: Origin, held: &Held, to: &Principal) -> Asked {
        let command = Transfer {
            caller: self.caller.clone(),
            origin,
            address: Address::Id(held.lock_id),
            tokens: vec![presented(held)],
            lock_id: lock_id(rng),
            to: to.clone(),
            drain_wait_ms: rng.u64(0..3_000),
        };
        Asked::Transfer(command, held.lock_id)
    }

    fn break_lock(&self, rng: &mut Rng, origin: Origin, other: &Held) -> Asked {
        let command = BreakLock {
            caller: self.caller.clone(),
            origin,
            address: Address::Id(other.lock_id),
            lock_id: None,
            reason: "no longer needed".into(),
            grace_ms: if rng.bool() { 0 } else { rng.u64(1..3_000) },
        };
        Asked::Break(command, other.lock_id)
    }

    fn freeze(&self, rng: &mut Rng, origin: Origin, wall: WallTime) -> Asked {
        Asked::Freeze(SetFreeze {
            caller: self.caller.clone(),
            origin,
            resource: resource(rng),
            reason: "a migration".into(),
            until: wall + rng.u64(1..3_000),
            drain_wait_ms: rng.u64(0..1_000),
        })
    }

    fn write(&self, rng: &mut Rng, held: Option<Held>, others: &[Held]) -> Asked {
        let method = match rng.u8(0..6) {
            0 => Method::DELETE,
            1 => Method::POST,
            _ => Method::PUT,
        };
        // Most often where it has a lock, with its token; and now and then with what is not its.
        let (resource, mut tokens) = match held {
            Some(held) if rng.u8(0..4) > 0 => {
                let at = held.resources[rng.usize(..held.resources.len())].clone();
                (at, vec![held])
            }
            _ => (resource(rng), Vec::new()),
        };
        if !others.is_empty() && rng.u8(0..12) == 0 {
            tokens.push(others[rng.usize(..others.len())].clone());
        }
        let tokens = tokens.iter().map(|held| (held.lock_id, held.fence)).collect();
        Asked::Write { method, resource, tokens, caller: self.caller.clone() }
    }
}

fn presented(held: &Held) -> Presented {
    Presented::Token { lock_id: held.lock_id, fence: held.fence }
}
