//! Every history of a small scope: two clients, two resources of which one covers the other, a journal
//! that is behind, writes on their way, time, and a crash.
//!
//! The real table decides; around it stand a journal that is nothing but a list and how much of it is
//! durable, and clients that know only what they were told. `stateright` tries every order of what may
//! happen, up to a depth: `LEASEHOLD_DEPTH` sets another.

// These are tests, but their helpers are functions of their own.
#![allow(clippy::expect_used, clippy::unwrap_used)]

use std::fmt::Write as _;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use leasehold_core::acquire::Acquired;
use leasehold_core::caller::Caller;
use leasehold_core::command::{
    Acquire, AcquireLimits, Address, Presented, Release, Renew, Want, Write,
};
use leasehold_core::event::{Event, EventBody, Origin, RecoveryCause, WriteResult};
use leasehold_core::ids::{Fence, LockId, PinId, Principal, Seq, WaiterId};
use leasehold_core::lock::{Depth, Lock, Mode};
use leasehold_core::resource::Resource;
use leasehold_core::state::State;
use leasehold_core::table::{LockTable, TableLimits, Woken};
use leasehold_core::target::Target;
use leasehold_core::time::{LeaseTime, Now, WallTime};
use stateright::{Checker, Model, Property};
use uuid::Uuid;

const NAMES: [&str; 2] = ["alice", "bob"];
const PATHS: [&str; 2] = ["/a", "/a/b"];
/// A lock lives for two steps of time.
const TTL_MS: u64 = 2000;
const PASSES_MS: u64 = 1000;
const SEED: u64 = 5;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Action {
    /// A client asks for a lock; it may wait.
    Acquire {
        client: usize,
        path: usize,
        waits: bool,
    },
    Renew {
        client: usize,
    },
    Release {
        client: usize,
    },
    /// A client writes, with its token if it has one.
    Write {
        client: usize,
        path: usize,
    },
    /// The oldest write that was passed on lands.
    Land,
    /// What is in the journal becomes durable, and whoever waited for it is told.
    Commit,
    Pass,
    /// The process is killed. So many events that were not durable are found all the same.
    Crash {
        found: usize,
    },
}

/// What a client knows.
#[derive(Clone, Debug, PartialEq)]
enum Knows {
    Nothing,
    Waits(WaiterId),
    /// It was granted, and is told when that is durable.
    Untold(Box<Lock>),
    /// It was told, and that it has the lock until then, in real time.
    Holds {
        lock_id: LockId,
        fence: Fence,
        path: Resource,
        until: u64,
    },
    /// It gave the lock back, and is told when that is durable.
    Releases(LockId),
}

struct OnItsWay {
    pin: PinId,
    path: Resource,
    fence: Option<Fence>,
    rests_on: Seq,
}

/// What is broken on purpose, to show that it would be found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Fault {
    None,
    /// An answer leaves before its commit.
    Early,
    /// A crash loses what was durable.
    Forgetful,
    /// The table forgets a write on its way.
    Unpinned,
}

struct World {
    fault: Fault,
    table: LockTable,
    trail: Vec<Event>,
    durable: Seq,
    /// Real time, and the lease clock, which does not run on while nobody leads.
    real: u64,
    lease: u64,
    crashed: bool,
    clients: [Knows; 2],
    writes: Vec<OnItsWay>,
    greatest_told: Fence,
    released: Vec<LockId>,
    next_id: u128,
    broken: Option<&'static str>,
}

fn path(at: usize) -> Resource {
    Resource::parse(PATHS[at]).unwrap()
}

fn meet(one: &Resource, other: &Resource) -> bool {
    one.covers(other) || other.covers(one)
}

fn caller(client: usize) -> Caller {
    Caller { principal: Principal::new(NAMES[client]), anonymous: false, roles: Arc::from([]) }
}

impl World {
    fn new(fault: Fault) -> Self {
        Self {
            fault,
            table: LockTable::new(State::new(SEED), TableLimits::default(), SEED),
            trail: Vec::new(),
            durable: Seq(0),
            real: 0,
            lease: 0,
            crashed: false,
            clients: [Knows::Nothing, Knows::Nothing],
            writes: Vec::new(),
            greatest_told: Fence(0),
            released: Vec::new(),
            next_id: 1,
            broken: None,
        }
    }

    fn after(fault: Fault, history: &[Action]) -> Self {
        let mut world = Self::new(fault);
        for action in history {
            world.step(*action);
        }
        world
    }

    fn now(&self) -> Now {
        let wall = i64::try_from(self.real).unwrap();
        Now { lease: LeaseTime(self.lease), wall: WallTime(wall) }
    }

    /// Notes the first invariant that does not hold.
    fn holds(&mut self, invariant: &'static str, holds: bool) {
        if !holds && self.broken.is_none() {
            self.broken = Some(invariant);
        }
    }

    fn token(&self, client: usize) -> Option<(LockId, Fence)> {
        match &self.clients[client] {
            Knows::Holds { lock_id, fence, .. } => Some((*lock_id, *fence)),
            _ => None,
        }
    }

    fn step(&mut self, action: Action) {
        match action {
            Action::Acquire { client, path, waits } => self.acquire(client, path, waits),
            Action::Renew { client } => self.renew(client),
            Action::Release { client } => self.release(client),
            Action::Write { client, path } => self.write(client, path),
            Action::Land => self.land(),
            Action::Commit => {}
            Action::Pass => {
                self.real += PASSES_MS;
                self.lease += PASSES_MS;
                let now = self.now();
                self.table.tick(now, usize::MAX);
            }
            Action::Crash { found } => self.crash(found),
        }
        self.gather();
        if action == Action::Commit || self.fault == Fault::Early {
            self.durable_now(action == Action::Commit);
        }
        self.table.assert_invariants(self.now());
        self.judge();
    }

    /// Takes over what a command brought about.
    fn gather(&mut self) {
        self.trail.extend(self.table.take_events());
        for (waiter, woken) in self.table.take_wakes() {
            let waits = |knows: &&mut Knows| **knows == Knows::Waits(waiter);
            let Some(client) = self.clients.iter_mut().find(waits) else { continue };
            *client = match woken {
                Woken::Granted(granted) => Knows::Untold(granted.lock),
                _ => Knows::Nothing,
            };
        }
    }

    fn acquire(&mut self, client: usize, at: usize, waits: bool) {
        let command = Acquire {
            caller: caller(client),
            origin: Origin::default(),
            lock_id: LockId(Uuid::from_u128(self.next_id)),
            want: Want::All(Arc::from([path(at)])),
            mode: Mode::Exclusive,
            depth: Depth::Infinity,
            ttl_ms: Some(TTL_MS),
            reason: None,
            metadata: None,
            handle: None,
            idempotency: None,
            holds: Vec::new(),
            wait_ms: if waits { 10 * TTL_MS } else { 0 },
            limits: AcquireLimits {
                default_ttl_ms: TTL_MS,
                max_ttl_ms: TTL_MS,
                max_hold_ms: None,
                max_queue: 9,
                max_locks_per_holder: None,
                drain_wait_ms: PASSES_MS,
            },
        };
        self.next_id += 1;
        let now = self.now();
        self.clients[client] = match self.table.acquire(command, now) {
            Ok(Acquired::Granted(granted)) => Knows::Untold(granted.lock),
            Ok(Acquired::Parked(waiter)) => Knows::Waits(waiter),
            Err(_) => Knows::Nothing,
        };
    }

    fn renew(&mut self, client: usize) {
        let Some((lock_id, fence)) = self.token(client) else { return };
        let command = Renew {
            caller: caller(client),
            origin: Origin::default(),
            address: Address::Id(lock_id),
            tokens: vec![Presented::Token { lock_id, fence }],
            ttl_ms: None,
        };
        let now = self.now();
        // Refused, or not told of it yet, it still has what it was promised before.
        if let Ok(lock) = self.table.renew(&command, now) {
            let path = lock.grant.resources[0].clone();
            let until = self.real + lock.deadline.since(now.lease);
            // The promise is new when the renewal is durable; `Commit` comes first here.
            self.gather();
            self.durable_now(true);
            self.clients[client] = Knows::Holds { lock_id, fence, path, until };
        }
    }

    fn release(&mut self, client: usize) {
        let Some((lock_id, fence)) = self.token(client) else { return };
        let command = Release {
            caller: caller(client),
            origin: Origin::default(),
            address: Address::Id(lock_id),
            tokens: vec![Presented::Token { lock_id, fence }],
        };
        let now = self.now();
        self.clients[client] = match self.table.release(&command, now) {
            Ok(_) => Knows::Releases(lock_id),
            Err(_) => Knows::Nothing,
        };
    }

    fn write(&mut self, client: usize, at: usize) {
        let token = self.token(client);
        let write = Write {
            caller: caller(client),
            origin: Origin::default(),
            method: Arc::from("PUT"),
            resource: path(at),
            targets: vec![Target::Content(path(at))],
            tokens: token
                .map(|(lock_id, fence)| Presented::Token { lock_id, fence })
                .into_iter()
                .collect(),
            conditions: Vec::new(),
            lacks_precondition: false,
        };
        let now = self.now();
        if let Ok(admitted) = self.table.admit(&write, now) {
            let fence = admitted.locks.first().map(|(_, fence)| *fence);
            let (pin, rests_on) = (admitted.pin, admitted.rests_on);
            if self.fault == Fault::Unpinned {
                self.table.complete(pin, WriteResult::Unknown, now);
            }
            self.writes.push(OnItsWay { pin, path: path(at), fence, rests_on });
        }
    }

    /// It may land when all that it rests on is durable.
    fn lands(&self) -> Option<usize> {
        self.writes.iter().position(|write| write.rests_on <= self.durable)
    }

    fn land(&mut self) {
        let Some(at) = self.lands() else { return };
        let write = self.writes.remove(at);
        for client in 0..NAMES.len() {
            if let Knows::Holds { fence, path, until, .. } = &self.clients[client] {
                let met = meet(path, &write.path) && path.covers(&write.path);
                let (is_theirs, promised) = (write.fence == Some(*fence), self.real < *until);
                self.holds("exclusion", !met || is_theirs || !promised);
            }
        }
        let now = self.now();
        self.table.complete(write.pin, WriteResult::Answered(204), now);
    }

    /// Everything so far is durable; whoever waits for it is told.
    fn durable_now(&mut self, commits: bool) {
        let newest = self.table.state().seq();
        if commits {
            self.durable = newest;
            self.table.settled(newest);
        }
        for client in 0..NAMES.len() {
            match self.clients[client].clone() {
                Knows::Untold(lock) => self.tell(client, &lock),
                Knows::Releases(lock_id) => {
                    self.released.push(lock_id);
                    self.clients[client] = Knows::Nothing;
                }
                _ => {}
            }
        }
    }

    fn tell(&mut self, client: usize, lock: &Lock) {
        let now = self.now();
        if !lock.is_live(now.lease) {
            // It has expired, and is told as a failure.
            self.clients[client] = Knows::Nothing;
            return;
        }
        let (fence, path) = (lock.grant.fence, lock.grant.resources[0].clone());
        let promised = |knows: &Knows| match knows {
            Knows::Holds { path: other, until, .. } => self.real < *until && meet(other, &path),
            _ => false,
        };
        let alone = !self.clients.iter().any(promised);
        let strangers =
            self.writes.iter().any(|write| path.covers(&write.path) && write.fence != Some(fence));
        self.holds("exclusion", alone);
        self.holds("clean hand-over", !strangers);
        self.holds("fences grow", self.greatest_told < fence);
        self.greatest_told = fence;
        let until = self.real + lock.deadline.since(now.lease);
        self.clients[client] = Knows::Holds { lock_id: lock.grant.lock_id, fence, path, until };
    }

    fn crash(&mut self, found: usize) {
        let mut kept = usize::try_from(self.durable.0).unwrap() + found;
        if self.fault == Fault::Forgetful {
            kept = kept.saturating_sub(1);
        }
        self.trail.truncate(kept);
        let mut state = State::new(SEED);
        self.trail.iter().for_each(|event| state.apply(event));
        // It goes on from the last reading that is durable: down time takes nothing from a lease.
        self.lease = state.lease().0;
        let open: Vec<_> = state.open_admissions().cloned().collect();
        self.table = LockTable::new(state, TableLimits::default(), SEED);
        let now = self.now();
        let body = EventBody::Recovered {
            cause: RecoveryCause::Crash,
            incarnation: Arc::from("one"),
            fence_floor: self.table.state().fence(),
        };
        self.table.record(body, Origin::default(), now);
        for each in &open {
            self.table.close_open(each, WriteResult::NotApplied, now);
        }
        self.gather();
        self.durable = self.table.state().seq();
        self.table.settled(self.durable);
        self.writes.clear();
        for client in &mut self.clients {
            if !matches!(client, Knows::Holds { .. }) {
                *client = Knows::Nothing;
            }
        }
        self.crashed = true;
    }

    /// What was told is true.
    fn judge(&mut self) {
        let now = self.now();
        let live = |id: LockId| {
            self.table
                .state()
                .live_locks()
                .any(|lock| lock.grant.lock_id == id && lock.is_live(now.lease))
        };
        let promised = self.clients.iter().all(|knows| match knows {
            Knows::Holds { lock_id, until, .. } => *until <= self.real || live(*lock_id),
            _ => true,
        });
        let released = !self.released.iter().any(|id| live(*id));
        let invariant = if self.crashed { "durable before said" } else { "never early" };
        self.holds(invariant, promised);
        self.holds("durable before said", released);
    }

    /// What anybody can see of it: two worlds that look the same go on in the same way.
    fn look(&self) -> String {
        let now = self.now();
        let mut text = format!("{:?} {} ", self.broken, self.crashed);
        for lock in self.table.state().live_locks() {
            let left = lock.deadline.0.saturating_sub(self.lease);
            let grant = &lock.grant;
            let _ = write!(text, "{} {} {left}; ", grant.resources[0], grant.fence);
        }
        for at in 0..PATHS.len() {
            for waiting in self.table.inspect(&path(at), now).queue {
                let left = waiting.until.0.saturating_sub(self.lease);
                let _ = write!(text, "{} {} {left}; ", waiting.holder, waiting.granted);
            }
        }
        for write in &self.writes {
            let passed_on = write.rests_on <= self.durable;
            let _ = write!(text, "{} {:?} {passed_on}; ", write.path, write.fence);
        }
        for client in &self.clients {
            let _ = match client {
                Knows::Nothing => write!(text, "nothing; "),
                Knows::Waits(_) => write!(text, "waits; "),
                Knows::Untold(lock) => write!(text, "untold {}; ", lock.grant.fence),
                Knows::Holds { fence, until, .. } => {
                    write!(text, "holds {fence} {}; ", until.saturating_sub(self.real))
                }
                Knows::Releases(_) => write!(text, "releases; "),
            };
        }
        let pending = self.trail.len() - usize::try_from(self.durable.0).unwrap();
        for event in &self.trail[self.trail.len() - pending..] {
            let _ = write!(text, "{} ", event.body.name());
        }
        let _ = write!(text, "{} {}", self.table.state().fence(), self.greatest_told);
        // Releases that were told, and whose lock a crash could bring back.
        let _ = write!(text, " {}", self.released.len());
        text
    }
}

/// A state: how it was reached, and what it looks like. The table cannot be copied, so it is made
/// again from the history.
#[derive(Clone, Debug)]
struct Reached {
    history: Vec<Action>,
    look: String,
    broken: Option<&'static str>,
}

impl PartialEq for Reached {
    fn eq(&self, other: &Self) -> bool {
        self.look == other.look
    }
}

impl Hash for Reached {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.look.hash(state);
    }
}

impl Reached {
    fn of(fault: Fault, history: Vec<Action>) -> Self {
        let world = World::after(fault, &history);
        Self { history, look: world.look(), broken: world.broken }
    }
}

struct Scope {
    fault: Fault,
    depth: usize,
}

impl Model for Scope {
    type State = Reached;
    type Action = Action;

    fn init_states(&self) -> Vec<Reached> {
        vec![Reached::of(self.fault, Vec::new())]
    }

    fn actions(&self, state: &Reached, actions: &mut Vec<Action>) {
        let world = World::after(self.fault, &state.history);
        for (client, knows) in world.clients.iter().enumerate() {
            match knows {
                Knows::Nothing => {
                    for path in 0..PATHS.len() {
                        actions.push(Action::Acquire { client, path, waits: false });
                        actions.push(Action::Acquire { client, path, waits: true });
                        actions.push(Action::Write { client, path });
                    }
                }
                Knows::Holds { .. } => {
                    actions.push(Action::Renew { client });
                    actions.push(Action::Release { client });
                    actions.push(Action::Write { client, path: 1 });
                }
                Knows::Waits(_) | Knows::Untold(_) | Knows::Releases(_) => {}
            }
        }
        let pending = world.trail.len() - usize::try_from(world.durable.0).unwrap();
        if pending > 0 {
            actions.push(Action::Commit);
        }
        if world.lands().is_some() {
            actions.push(Action::Land);
        }
        actions.push(Action::Pass);
        if !world.crashed {
            actions.extend((0..=pending).map(|found| Action::Crash { found }));
        }
    }

    fn next_state(&self, state: &Reached, action: Action) -> Option<Reached> {
        let mut history = state.history.clone();
        history.push(action);
        Some(Reached::of(self.fault, history))
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("exclusion", |_, state: &Reached| state.broken != Some("exclusion")),
            Property::always("clean hand-over", |_, state: &Reached| {
                state.broken != Some("clean hand-over")
            }),
            Property::always("never early", |_, state: &Reached| {
                state.broken != Some("never early")
            }),
            Property::always("fences grow", |_, state: &Reached| {
                state.broken != Some("fences grow")
            }),
            Property::always("durable before said", |_, state: &Reached| {
                state.broken != Some("durable before said")
            }),
            // That the scope is no empty one.
            Property::sometimes("a lock outlives a crash", |scope: &Self, state: &Reached| {
                let world = World::after(scope.fault, &state.history);
                world.crashed
                    && world.clients.iter().any(|knows| matches!(knows, Knows::Holds { .. }))
            }),
            Property::sometimes("a waiter is served", |_, state: &Reached| {
                state
                    .history
                    .iter()
                    .any(|action| matches!(action, Action::Acquire { waits: true, .. }))
                    && state.look.contains("holds 2")
            }),
        ]
    }

    fn within_boundary(&self, state: &Reached) -> bool {
        state.history.len() <= self.depth
    }
}

fn depth(default: usize) -> usize {
    std::env::var("LEASEHOLD_DEPTH").ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn every_history_of_two_clients_keeps_what_is_promised() {
    let scope = Scope { fault: Fault::None, depth: depth(9) };
    let checker = scope.checker().threads(2).spawn_bfs().join();
    checker.assert_properties();
    // Fewer would be another scope than the one that was meant.
    assert!(checker.unique_state_count() > 10_000, "{} states", checker.unique_state_count());
}

/// Which invariants a scope with this fault breaks.
fn found(fault: Fault) -> Vec<&'static str> {
    let checker = Scope { fault, depth: 6 }.checker().threads(2).spawn_bfs().join();
    let mut found: Vec<_> = checker.discoveries().into_keys().collect();
    found.retain(|name| !["a lock outlives a crash", "a waiter is served"].contains(name));
    found.sort_unstable();
    found
}

#[test]
fn an_answer_that_leaves_before_its_commit_is_found() {
    let found = found(Fault::Early);
    assert!(found.contains(&"durable before said"), "{found:?}");
}

#[test]
fn a_journal_that_forgets_is_found() {
    let found = found(Fault::Forgetful);
    assert!(found.contains(&"durable before said"), "{found:?}");
}

#[test]
fn a_write_that_is_not_pinned_is_found() {
    let found = found(Fault::Unpinned);
    assert!(found.contains(&"clean hand-over"), "{found:?}");
}
