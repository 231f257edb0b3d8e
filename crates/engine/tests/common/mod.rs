//! An engine for tests: a clock that the test moves, and a log whose appends the test holds up or
//! lets fail. Below that everything is real, so that what a failed commit has left can be read.

#![allow(dead_code, unreachable_pub, reason = "each test program uses a part of it")]

use std::collections::VecDeque;
use std::future::Future;
use std::path::Path;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use leasehold_core::caller::{Caller, Permissions, Role};
use leasehold_core::command::{
    Acquire, AcquireLimits, Address, Presented, Release, Renew, SetFreeze, Transfer, Want, Write,
};
use leasehold_core::event::{Event, EventBody, Origin, WriteResult};
use leasehold_core::ids::{LockId, Principal, Seq};
use leasehold_core::lock::{Depth, Idempotency, Lock, Mode, OpenAdmission};
use leasehold_core::resource::Resource;
use leasehold_core::target::Target;
use leasehold_core::time::{LeaseTime, WallTime};
use leasehold_engine::start::{Loading, Running};
use leasehold_engine::{Clock, Engine, EngineOptions, Observer};
use leasehold_journal::folder::DataFolder;
use leasehold_journal::log::sqlite::{LogOptions, SqliteLog};
use leasehold_journal::log::{
    BaseRow, Group, Head, Log, LogError, Retention, Stored, TrimStep, Trimmed,
};
use leasehold_journal::query::AuditReader;
use leasehold_journal::verify;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How long anything may take before a test says that it never comes.
const NEVER: Duration = Duration::from_secs(60);

// ---- time --------------------------------------------------------------------------------------

/// A clock that stands until the test moves it. Who sleeps by it wakes when it has moved.
pub struct ManualClock {
    monotonic: watch::Sender<Duration>,
    wall: Mutex<i64>,
}

impl ManualClock {
    fn new() -> Self {
        Self { monotonic: watch::Sender::new(Duration::ZERO), wall: Mutex::new(1_795_176_000_000) }
    }

    /// Both clocks go on by this much.
    pub fn advance(&self, span: Duration) {
        *self.wall.lock().unwrap() += i64::try_from(span.as_millis()).unwrap();
        self.monotonic.send_modify(|now| *now += span);
    }

    /// Somebody sets the wall clock.
    pub fn set_wall(&self, wall: WallTime) {
        *self.wall.lock().unwrap() = wall.0;
    }
}

impl Clock for ManualClock {
    fn monotonic(&self) -> Duration {
        *self.monotonic.borrow()
    }

    fn wall(&self) -> WallTime {
        WallTime(*self.wall.lock().unwrap())
    }

    fn sleep(&self, span: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let mut moves = self.monotonic.subscribe();
        let until = self.monotonic() + span;
        Box::pin(async move {
            if moves.wait_for(|now| until <= *now).await.is_err() {
                std::future::pending().await
            }
        })
    }
}

// ---- the log -----------------------------------------------------------------------------------

/// How an append fails.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fault {
    /// The group is not in the log.
    NotWritten,
    /// The group is in the log all the same.
    Written,
}

#[derive(Default)]
struct Script {
    held: bool,
    faults: VecDeque<Fault>,
    reopen_failures: usize,
    reopen_held: bool,
    /// By how much the clock goes on during each append.
    slowness: Duration,
    /// Which thread made the newest append of events.
    appender: Option<std::thread::ThreadId>,
    /// A checkpoint is due; and whether it fails.
    checkpoint: Option<bool>,
    /// Which thread did the newest checkpoint.
    mover: Option<std::thread::ThreadId>,
}

/// What a test does to the log.
#[derive(Clone)]
pub struct Gate {
    script: Arc<(Mutex<Script>, Condvar)>,
    begun: Arc<watch::Sender<u64>>,
    reopened: Arc<watch::Sender<u64>>,
    checkpoints: Arc<watch::Sender<u64>>,
}

impl Gate {
    fn new() -> Self {
        Self {
            script: Arc::default(),
            begun: Arc::new(watch::Sender::new(0)),
            reopened: Arc::new(watch::Sender::new(0)),
            checkpoints: Arc::new(watch::Sender::new(0)),
        }
    }

    fn change(&self, change: impl FnOnce(&mut Script)) {
        change(&mut self.script.0.lock().unwrap());
        self.script.1.notify_all();
    }

    /// From now on appends wait.
    pub fn hold(&self) {
        self.change(|script| script.held = true);
    }

    /// Appends go on.
    pub fn release(&self) {
        self.change(|script| script.held = false);
    }

    /// The next append that is not held up any more fails.
    pub fn fail_next(&self, fault: Fault) {
        self.change(|script| script.faults.push_back(fault));
    }

    /// Whether an append is to fail.
    pub fn has_faults(&self) -> bool {
        !self.script.0.lock().unwrap().faults.is_empty()
    }

    /// So many times the log cannot be opened again.
    pub fn fail_reopens(&self, times: usize) {
        self.change(|script| script.reopen_failures = times);
    }

    /// Opening the log again waits until `let_reopen`.
    pub fn hold_reopen(&self) {
        self.change(|script| script.reopen_held = true);
    }

    pub fn let_reopen(&self) {
        self.change(|script| script.reopen_held = false);
    }

    /// From now on each append takes so long.
    pub fn slow_down(&self, to: Duration) {
        self.change(|script| script.slowness = to);
    }

    /// From now on a checkpoint is due, until one has been done.
    pub fn checkpoint_next(&self, fails: bool) {
        self.change(|script| script.checkpoint = Some(fails));
    }

    /// Waits until so many checkpoints were done. Whether the last was by the thread that asks.
    pub async fn until_checkpoints(&self, times: u64) -> bool {
        let mut checkpoints = self.checkpoints.subscribe();
        soon(checkpoints.wait_for(|done| times <= *done)).await.unwrap();
        self.script.0.lock().unwrap().mover == Some(std::thread::current().id())
    }

    /// Whether the newest append of events was made by the thread that asks.
    pub fn was_appended_here(&self) -> bool {
        self.script.0.lock().unwrap().appender == Some(std::thread::current().id())
    }

    /// How many appends of events have begun.
    pub fn begun(&self) -> u64 {
        *self.begun.borrow()
    }

    /// Waits until so many appends of events have begun.
    pub async fn until_begun(&self, appends: u64) {
        let mut begun = self.begun.subscribe();
        soon(begun.wait_for(|begun| appends <= *begun)).await.unwrap();
    }

    /// Waits until so many times somebody has tried to open the log again.
    pub async fn until_reopened(&self, times: u64) {
        let mut reopened = self.reopened.subscribe();
        soon(reopened.wait_for(|reopened| times <= *reopened)).await.unwrap();
    }
}

struct ScriptedLog {
    inner: SqliteLog,
    gate: Gate,
    clock: Arc<ManualClock>,
    broken: bool,
}

impl Log for ScriptedLog {
    fn head(&self) -> Head {
        self.inner.head()
    }

    fn append(&mut self, group: &Group<'_>) -> Result<(), LogError> {
        if self.broken {
            return Err(LogError::NeedsReopen);
        }
        if group.events.is_empty() {
            return self.inner.append(group);
        }
        self.gate.begun.send_modify(|begun| *begun += 1);
        let (script, changed) = &*self.gate.script;
        let mut script = changed.wait_while(script.lock().unwrap(), |script| script.held).unwrap();
        let fault = script.faults.pop_front();
        script.appender = Some(std::thread::current().id());
        let slowness = script.slowness;
        drop(script);
        self.clock.advance(slowness);
        if fault != Some(Fault::NotWritten) {
            self.inner.append(group)?;
        }
        if fault.is_none() {
            return Ok(());
        }
        self.broken = true;
        Err(LogError::Damaged { seq: Seq(0), what: "the test says so".to_owned() })
    }

    fn is_checkpoint_due(&self) -> bool {
        self.gate.script.0.lock().unwrap().checkpoint.is_some()
    }

    fn checkpoint(&mut self) -> Result<(), LogError> {
        let mut script = self.gate.script.0.lock().unwrap();
        let Some(fails) = script.checkpoint.take() else { return Ok(()) };
        script.mover = Some(std::thread::current().id());
        drop(script);
        self.gate.checkpoints.send_modify(|done| *done += 1);
        if !fails {
            return Ok(());
        }
        self.broken = true;
        Err(LogError::Damaged { seq: Seq(0), what: "the test says so".to_owned() })
    }

    fn read(&mut self, from: Seq, limit: usize) -> Result<Vec<Stored>, LogError> {
        self.inner.read(from, limit)
    }

    fn reopen(&mut self) -> Result<Head, LogError> {
        self.gate.reopened.send_modify(|reopened| *reopened += 1);
        let (script, changed) = &*self.gate.script;
        let mut script =
            changed.wait_while(script.lock().unwrap(), |script| script.reopen_held).unwrap();
        if let Some(left) = script.reopen_failures.checked_sub(1) {
            script.reopen_failures = left;
            return Err(LogError::NeedsReopen);
        }
        drop(script);
        let head = self.inner.reopen()?;
        self.broken = false;
        Ok(head)
    }

    fn trimmed(&self) -> Option<Trimmed> {
        self.inner.trimmed()
    }

    fn owed_trim_record(&self) -> Option<Trimmed> {
        self.inner.owed_trim_record()
    }

    fn base(&mut self, after: &str, limit: usize) -> Result<Vec<BaseRow>, LogError> {
        self.inner.base(after, limit)
    }

    fn trim(&mut self, retention: &Retention, now: WallTime) -> Result<TrimStep, LogError> {
        self.inner.trim(retention, now)
    }

    fn close_cleanly(&mut self, lease: LeaseTime) -> Result<(), LogError> {
        if self.broken {
            return Err(LogError::NeedsReopen);
        }
        self.inner.close_cleanly(lease)
    }
}

// ---- the engine --------------------------------------------------------------------------------

/// Whether the engine is told that only one client has anything under way.
#[derive(Default)]
pub struct Alone(pub AtomicBool);

impl Observer for Alone {
    fn committed(&self, _: &[Event], _: Duration, _: &Head) {}

    fn is_alone(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn recovering(&self, _: bool) {}
}

/// What `classify` was asked about.
pub type Asked = Arc<Mutex<Vec<OpenAdmission>>>;

/// An engine over a data folder that goes with the test.
pub struct World {
    pub folder: Arc<tempfile::TempDir>,
    pub clock: Arc<ManualClock>,
    pub gate: Gate,
    pub engine: Engine,
    pub asked: Asked,
    pub alone: Arc<Alone>,
    threads: Mutex<Option<(Running, JoinHandle<()>)>>,
}

impl World {
    pub fn new() -> Self {
        Self::over(Arc::new(tempfile::tempdir().unwrap()), EngineOptions::default())
    }

    pub fn over(folder: Arc<tempfile::TempDir>, options: EngineOptions) -> Self {
        let clock = Arc::new(ManualClock::new());
        let gate = Gate::new();
        let data = DataFolder::open(folder.path()).unwrap();
        let (inner, opened) = SqliteLog::open(&data, LogOptions::default()).unwrap();
        let (log_gate, log_clock) = (gate.clone(), clock.clone());
        let log = ScriptedLog { inner, gate: log_gate, clock: log_clock, broken: false };
        let asked = Asked::default();
        let notes = asked.clone();
        let classify = move |open: &OpenAdmission| {
            notes.lock().unwrap().push(open.clone());
            WriteResult::Applied
        };
        let alone = Arc::new(Alone::default());
        let running = Loading::over(Box::new(log), opened, data, options)
            .unwrap()
            .start(clock.clone(), alone.clone(), Arc::new(classify))
            .unwrap();
        // Only what comes after the start counts.
        gate.begun.send_replace(0);
        let engine = running.engine().clone();
        let settler = tokio::spawn(engine.clone().run());
        let threads = Mutex::new(Some((running, settler)));
        Self { folder, clock, gate, engine, asked, alone, threads }
    }

    /// Stops the engine as a server does, and gives the folder back.
    pub async fn stop(&self) -> Arc<tempfile::TempDir> {
        self.gate.release();
        self.gate.let_reopen();
        let (running, settler) = self.threads.lock().unwrap().take().unwrap();
        soon(tokio::task::spawn_blocking(move || running.stop())).await.unwrap();
        soon(settler).await.unwrap();
        self.folder.clone()
    }

    /// Stops it, looks whether the trail keeps its promises, and shows it.
    pub async fn end(&self) -> Vec<Event> {
        let folder = self.stop().await;
        trail(folder.path())
    }

    pub async fn until_serving(&self) {
        self.until(|engine| engine.is_serving()).await;
    }

    /// Waits until this is so.
    pub async fn until(&self, holds: impl Fn(&Engine) -> bool) {
        soon(async {
            while !holds(&self.engine) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
    }

    /// A lock, acquired and delivered.
    pub async fn locked(&self, who: &str, path: &str) -> Lock {
        self.granted(acquire(who, path)).await
    }

    pub async fn granted(&self, command: Acquire) -> Lock {
        let grant = soon(self.engine.acquire(command)).await.unwrap();
        grant.delivery.delivered();
        *grant.granted.lock
    }
}

/// The whole trail, once it was judged to be right.
pub fn trail(folder: &Path) -> Vec<Event> {
    let reader = AuditReader::open(folder).unwrap();
    let report = verify::verify(&reader, None).unwrap();
    assert!(report.is_clean(), "{:#?}", report.findings);
    let mut events: Vec<Event> = Vec::new();
    loop {
        let from = events.last().map_or(Seq(1), |event| event.seq.next());
        let stored = reader.read(from, 1000).unwrap();
        if stored.is_empty() {
            return events;
        }
        events.extend(stored.iter().map(|stored| stored.event().unwrap()));
    }
}

/// The names of the events, without what a start writes.
pub fn names(events: &[Event]) -> Vec<&'static str> {
    events.iter().map(|event| event.body.name()).filter(|name| *name != "recovered").collect()
}

/// How each write under a lock ended.
pub fn results(events: &[Event]) -> Vec<WriteResult> {
    events
        .iter()
        .filter_map(|event| match &event.body {
            EventBody::WriteCompleted { result, .. } => Some(*result),
            _ => None,
        })
        .collect()
}

// ---- futures -----------------------------------------------------------------------------------

/// Waits for something that has to come, and not forever.
pub async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(NEVER, future).await.expect("it never comes")
}

/// One step of a future; what it waits for does not wake it.
pub fn step<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// Lets every other task have its turn, and looks whether the future is still waiting.
pub async fn still_waits<F: Future>(mut future: Pin<&mut F>) -> bool {
    for _ in 0..20 {
        if step(future.as_mut()).is_ready() {
            return false;
        }
        tokio::task::yield_now().await;
    }
    true
}

/// Makes steps until it waits for good, and drops it there.
pub async fn begin_and_drop<F: Future>(future: F) {
    let future = pin!(future);
    assert!(still_waits(future).await, "it ended before it could be dropped");
}

// ---- commands ----------------------------------------------------------------------------------

pub fn resource(path: &str) -> Resource {
    Resource::parse(path).unwrap()
}

pub fn caller(who: &str) -> Caller {
    let role = Role { permissions: Permissions::ALL, patterns: Vec::new() };
    Caller { principal: Principal::new(who), anonymous: false, roles: Arc::from([role]) }
}

/// A lock id that was not used before.
pub fn fresh_id() -> LockId {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    LockId(uuid::Uuid::from_u128(u128::from(NEXT.fetch_add(1, Ordering::Relaxed))))
}

/// An exclusive acquire for 60 s that does not wait.
pub fn acquire(who: &str, path: &str) -> Acquire {
    Acquire {
        caller: caller(who),
        origin: Origin::default(),
        lock_id: fresh_id(),
        want: Want::All(Arc::from([resource(path)])),
        mode: Mode::Exclusive,
        depth: Depth::Infinity,
        ttl_ms: Some(60_000),
        reason: None,
        metadata: None,
        handle: None,
        idempotency: None,
        holds: Vec::new(),
        wait_ms: 0,
        limits: AcquireLimits {
            default_ttl_ms: 60_000,
            max_ttl_ms: 600_000,
            max_hold_ms: None,
            max_queue: 1000,
            max_locks_per_holder: None,
            drain_wait_ms: 5000,
        },
    }
}

pub trait AcquireExt {
    fn waiting(self, wait_ms: u64) -> Acquire;
    fn keyed(self, key: &str) -> Acquire;
    fn ttl(self, ttl_ms: u64) -> Acquire;
}

impl AcquireExt for Acquire {
    fn waiting(self, wait_ms: u64) -> Acquire {
        Acquire { wait_ms, ..self }
    }

    fn keyed(self, key: &str) -> Acquire {
        let idempotency = Idempotency { key: key.into(), digest: "digest".into() };
        Acquire { idempotency: Some(idempotency), ..self }
    }

    fn ttl(self, ttl_ms: u64) -> Acquire {
        Acquire { ttl_ms: Some(ttl_ms), ..self }
    }
}

pub fn token(lock: &Lock) -> Presented {
    Presented::Token { lock_id: lock.grant.lock_id, fence: lock.grant.fence }
}

pub fn release(lock: &Lock) -> Release {
    Release {
        caller: caller(lock.grant.holder.as_str()),
        origin: Origin::default(),
        address: Address::Id(lock.grant.lock_id),
        tokens: vec![token(lock)],
    }
}

pub fn renew(lock: &Lock, ttl_ms: u64) -> Renew {
    Renew {
        caller: caller(lock.grant.holder.as_str()),
        origin: Origin::default(),
        address: Address::Id(lock.grant.lock_id),
        tokens: vec![token(lock)],
        ttl_ms: Some(ttl_ms),
    }
}

pub fn transfer(lock: &Lock, to: &str, drain_wait_ms: u64) -> Transfer {
    Transfer {
        caller: caller(lock.grant.holder.as_str()),
        origin: Origin::default(),
        address: Address::Id(lock.grant.lock_id),
        tokens: vec![token(lock)],
        lock_id: fresh_id(),
        to: Principal::new(to),
        drain_wait_ms,
    }
}

pub fn freeze(path: &str, until: WallTime, drain_wait_ms: u64) -> SetFreeze {
    SetFreeze {
        caller: caller("admin"),
        origin: Origin::default(),
        resource: resource(path),
        reason: "a test".into(),
        until,
        drain_wait_ms,
    }
}

/// A write to the content of one resource.
pub fn write(who: &str, path: &str, locks: &[&Lock]) -> Write {
    Write {
        caller: caller(who),
        origin: Origin::default(),
        method: "PUT".into(),
        resource: resource(path),
        targets: vec![Target::Content(resource(path))],
        tokens: locks.iter().map(|lock| token(lock)).collect(),
        conditions: Vec::new(),
        lacks_precondition: false,
    }
}
