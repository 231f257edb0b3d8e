//! Starting and stopping an engine.

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use leasehold_core::event::{Event, EventBody, Origin, RecoveryCause, WriteResult};
use leasehold_core::ids::{Fence, Seq, WaiterId};
use leasehold_core::lock::OpenAdmission;
use leasehold_core::state::State;
use leasehold_core::table::{LockTable, TableLimits};
use leasehold_core::time::Now;
use leasehold_journal::StoreError;
use leasehold_journal::folder::DataFolder;
use leasehold_journal::follower::{
    self, Follower, FollowerHandle, LoadError, LoadReport, Loaded, SteppedFollower,
};
use leasehold_journal::log::sqlite::{LogOptions, OpenError, Opened, SqliteLog};
use leasehold_journal::log::{Group, Head, Log, LogError, Retention};

use crate::clock::{Clock, LeaseClock};
use crate::committer::{Committer, FAST_IN_A_ROW, Step};
use crate::engine::{Engine, EngineError};
use crate::shared::{Core, Serving, Shared};
use crate::token::{TokenKeyError, TokenKeys};

/// Learns what the journal does; for metrics.
pub trait Observer: Send + Sync + 'static {
    /// A group was committed.
    fn committed(&self, events: &[Event], took: Duration, head: &Head);
    /// Whether nobody but one client has anything under way. Then a commit may be made by the task
    /// that settles answers, which holds up whatever else runs on its thread until the disk
    /// answers: as a rule for a millisecond. Asked at each change; `false` where it is not known.
    fn is_alone(&self) -> bool {
        false
    }
    /// The log stopped (`true`) or began again (`false`) to work.
    fn recovering(&self, recovering: bool);
}

impl Observer for () {
    fn committed(&self, _: &[Event], _: Duration, _: &Head) {}
    fn recovering(&self, _: bool) {}
}

/// How an engine is set up.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// Limits of the table.
    pub limits: TableLimits,
    /// How much of the trail is kept.
    pub retention: Retention,
    /// Where the token secrets are; none: `token.key` in the data folder.
    pub token_key: Option<PathBuf>,
    /// How the log is opened.
    pub log: LogOptions,
    /// For how long writes of a process before this one may still land, in milliseconds, where
    /// what they are sent to does not say what became of them; none: it does.
    pub recovery_ms: Option<u64>,
    /// What a start draws; none: from the operating system. Given where a start has to be
    /// repeatable, and never by a server.
    pub draws: Option<Draws>,
}

/// What a start draws at random.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Draws {
    /// What makes collisions in the table's maps hard to choose.
    pub seed: [u8; 8],
    /// The incarnation, where the start begins a new one.
    pub incarnation: [u8; 8],
}

impl Draws {
    fn of_the_system() -> Result<Self, TokenKeyError> {
        Ok(Self { seed: random()?, incarnation: random()? })
    }
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            limits: TableLimits::default(),
            retention: Retention { max_age_ms: Some(400 * 24 * 60 * 60 * 1000), max_bytes: None },
            token_key: None,
            log: LogOptions::default(),
            recovery_ms: None,
            draws: None,
        }
    }
}

/// Why an engine did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The log could not be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The lock table could not be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The log failed.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The follower could not be started.
    #[error(transparent)]
    Follower(#[from] StoreError),
    /// The token secrets could not be read or made.
    #[error(transparent)]
    Tokens(#[from] TokenKeyError),
    /// The journal's thread could not be started.
    #[error("cannot start the journal's thread")]
    Thread(#[source] std::io::Error),
}

/// An engine that has its table and does not take commands yet.
pub struct Loading {
    log: Box<dyn Log>,
    folder: DataFolder,
    state: State,
    cause: RecoveryCause,
    incarnation: Arc<str>,
    fence_floor: Fence,
    options: EngineOptions,
    seed: u64,
    /// What the start was made of.
    pub report: LoadReport,
}

/// An engine without threads of its own: whoever has it says when the journal and the index go on.
///
/// The same code as that of the threads, in an order that can be repeated. Dropped, it stops
/// nothing and writes nothing: as if its process had been killed.
///
/// Its commits count as fast from the beginning, so that [`Observer::is_alone`] alone says which of
/// them [`Engine::run`] makes, and which are left to [`Stepped::commit`].
pub struct Stepped {
    engine: Engine,
    follower: SteppedFollower,
}

/// A [`Stepped`] engine between two steps, for whoever judges it.
pub struct Look<'a> {
    /// The lock table, with everything that was decided.
    pub table: &'a LockTable,
    /// What was decided and has not been given to the log yet.
    pub gathered: &'a [Event],
    /// The newest event that counts as durable.
    pub durable: Seq,
    /// What the clocks show.
    pub now: Now,
    /// Whether commands are taken.
    pub is_serving: bool,
}

/// A running engine's threads: what stops it.
pub struct Running {
    engine: Engine,
    journal: Option<JoinHandle<()>>,
    follower: Option<Follower>,
    retention: Arc<Mutex<Retention>>,
    token_key: PathBuf,
}

/// By how much a restore raises the fences: more than were granted after the backup was made.
pub const RESTORE_FENCES: u64 = 1 << 32;

impl Loading {
    /// Opens the log of a data folder and loads the lock table.
    ///
    /// # Errors
    /// When the log cannot be opened or read.
    pub fn open(folder: DataFolder, options: EngineOptions) -> Result<Self, StartError> {
        let (log, opened) = SqliteLog::open(&folder, options.log)?;
        Self::over(Box::new(log), opened, folder, options)
    }

    /// The same over a log that is open already: `log.db` of `folder`, whoever reads and writes it.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn over(
        mut log: Box<dyn Log>,
        opened: Opened,
        folder: DataFolder,
        options: EngineOptions,
    ) -> Result<Self, StartError> {
        let draws = options.draws.map_or_else(Draws::of_the_system, Ok)?;
        let seed = u64::from_le_bytes(draws.seed);
        let mut state = State::new(seed);
        let report = follower::load(&folder, log.as_mut(), &mut |loaded| match loaded {
            Loaded::Row(row) => state.load(row),
            Loaded::Event(event) => state.apply(&event),
            Loaded::Void => state = State::new(seed),
        })?;
        let mut fence_floor = state.fence();
        let mut incarnation = state.incarnation().clone();
        let cause = if opened.restored {
            fence_floor = Fence(fence_floor.0 + RESTORE_FENCES);
            RecoveryCause::Restored
        } else if opened.created || incarnation.is_empty() {
            RecoveryCause::Created
        } else if opened.clean {
            RecoveryCause::CleanStart
        } else {
            RecoveryCause::Crash
        };
        if matches!(cause, RecoveryCause::Restored | RecoveryCause::Created) {
            incarnation = Arc::from(hex_of(&draws.incarnation));
        }
        Ok(Self { log, folder, state, cause, incarnation, fence_floor, options, seed, report })
    }

    /// The incarnation that tokens and entity tags are bound to, in hexadecimal.
    #[must_use]
    pub fn incarnation(&self) -> &str {
        &self.incarnation
    }

    /// Why this start writes `recovered`.
    #[must_use]
    pub fn cause(&self) -> RecoveryCause {
        self.cause
    }

    /// Starts to take commands. `classify` learns how a write under a lock ended that was on its
    /// way when the process before this one ended.
    ///
    /// Everything that the start itself has to say is durable when this returns.
    ///
    /// # Errors
    /// When the log fails, or a thread cannot be started.
    pub fn start(
        self,
        clock: Arc<dyn Clock>,
        observer: Arc<dyn Observer>,
        classify: Arc<dyn Fn(&OpenAdmission) -> WriteResult + Send + Sync>,
    ) -> Result<Running, StartError> {
        let folder = self.folder.clone();
        let follow = |durable| Follower::spawn(&folder, durable);
        let (engine, follower, committer, token_key) =
            self.begin(clock, observer, classify, follow, Follower::handle)?;
        let retention = Arc::clone(&committer.retention);
        let shared = Arc::clone(&engine.shared);
        *shared.lock_committer() = Some(committer);
        let journal = std::thread::Builder::new()
            .name("leasehold-journal".to_owned())
            .spawn(move || {
                let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                    Committer::run(&shared)
                }));
                if outcome.is_err() {
                    tracing::error!("a panic in the journal: the process ends");
                    std::process::abort();
                }
            })
            .map_err(StartError::Thread)?;
        Ok(Running {
            engine,
            journal: Some(journal),
            follower: Some(follower),
            retention,
            token_key,
        })
    }

    /// As [`Self::start`], without threads.
    ///
    /// # Errors
    /// When the log fails.
    pub fn start_stepped(
        self,
        clock: Arc<dyn Clock>,
        observer: Arc<dyn Observer>,
        classify: Arc<dyn Fn(&OpenAdmission) -> WriteResult + Send + Sync>,
    ) -> Result<Stepped, StartError> {
        let folder = self.folder.clone();
        let follow = |durable| Ok(SteppedFollower::new(&folder, durable));
        let (engine, follower, mut committer, _) =
            self.begin(clock, observer, classify, follow, SteppedFollower::handle)?;
        committer.fast_commits = FAST_IN_A_ROW;
        engine.shared.is_fast.store(true, Ordering::Relaxed);
        *engine.shared.lock_committer() = Some(committer);
        Ok(Stepped { engine, follower })
    }

    /// What the threads are made of.
    fn begin<F>(
        mut self,
        clock: Arc<dyn Clock>,
        observer: Arc<dyn Observer>,
        classify: Arc<dyn Fn(&OpenAdmission) -> WriteResult + Send + Sync>,
        follow: impl FnOnce(Seq) -> Result<F, StoreError>,
        handle: impl FnOnce(&F) -> FollowerHandle,
    ) -> Result<(Engine, F, Committer, PathBuf), StartError> {
        let token_key =
            self.options.token_key.clone().unwrap_or_else(|| self.folder.path().join("token.key"));
        let tokens = TokenKeys::open(&token_key, &self.incarnation, clock.wall())?;
        let head = self.log.head();
        let mut lease = LeaseClock::standing_at(head.lease.max(self.state.lease()));
        lease.run(clock.monotonic());
        let mut table = LockTable::new(self.state, self.options.limits, self.seed);
        let now = Now { lease: lease.read(clock.monotonic()), wall: clock.wall() };
        let body = EventBody::Recovered {
            cause: self.cause,
            incarnation: self.incarnation.clone(),
            fence_floor: self.fence_floor,
        };
        table.record(body, Origin::default(), now);
        for open in table.orphaned_admissions() {
            let result = classify(&open);
            table.close_open(&open, result, now);
        }
        // Writes without a lock have left nothing behind that would tell of them.
        if let Some(recovery_ms) = self.options.recovery_ms
            && matches!(self.cause, RecoveryCause::Crash | RecoveryCause::Restored)
        {
            table.await_recovery(recovery_ms, now);
        }
        let events = table.take_events();
        self.log.append(&Group { events: &events, lease: now.lease })?;
        let head = self.log.head();
        let follower = follow(head.seq)?;
        let core = Core::new(table, lease, self.options.limits);
        let shared =
            Arc::new(Shared::new(core, head.seq, tokens, clock, self.incarnation, observer));
        let started = shared.clock.monotonic();
        let committer = Committer {
            shared: Arc::clone(&shared),
            log: self.log,
            folder: self.folder,
            follower: handle(&follower),
            retention: Arc::new(Mutex::new(self.options.retention)),
            classify,
            learns_outcomes: self.options.recovery_ms.is_none(),
            seed: self.seed,
            limits: self.options.limits,
            trim_at: started,
            trims_on: false,
            reading_at: started,
            fast_commits: 0,
            is_broken: false,
        };
        Ok((Engine { shared }, follower, committer, token_key))
    }
}

impl Stepped {
    /// The engine.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// One step of the journal's thread: commits what has gathered, or tries to bring a log back
    /// that has failed. `false` once the engine was told to stop and everything is committed.
    pub fn commit(&mut self) -> bool {
        let mut committer = self.engine.shared.lock_committer();
        committer.as_mut().is_some_and(|committer| committer.step() != Step::Ended)
    }

    /// One step of the index's thread: folds a batch, if there is one.
    pub fn follow(&mut self) {
        self.follower.step();
    }

    /// Looks at what the last step has left behind.
    pub fn look<T>(&self, look: impl FnOnce(Look<'_>) -> T) -> T {
        let shared = &self.engine.shared;
        let core = shared.lock();
        look(Look {
            table: &core.table,
            gathered: &core.group,
            durable: shared.durable(),
            now: shared.now(&core),
            is_serving: core.serving == Serving::Yes,
        })
    }

    /// Tells the engine to stop: commands are refused from now on, and when what has gathered is
    /// committed, the shutdown is marked as clean.
    pub fn stop(&self) {
        self.engine.begin_stop();
    }
}

impl Drop for Stepped {
    fn drop(&mut self) {
        // What commits has the engine, and the engine it: neither would ever go.
        *self.engine.shared.lock_committer() = None;
    }
}

impl Running {
    /// The engine.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// How far the index has come; for metrics.
    #[must_use]
    pub fn follower(&self) -> Option<FollowerHandle> {
        self.follower.as_ref().map(Follower::handle)
    }

    /// Reads the token secrets again, after a rotation.
    ///
    /// # Errors
    /// When the file cannot be read or understood; the secrets stay as they are.
    pub fn reload_tokens(&self) -> Result<(), TokenKeyError> {
        let shared = &self.engine.shared;
        let tokens = TokenKeys::open(&self.token_key, &shared.incarnation, shared.clock.wall())?;
        shared.tokens.store(Arc::new(tokens));
        Ok(())
    }

    /// Changes how much of the trail is kept.
    pub fn set_retention(&self, retention: Retention) {
        *self.retention.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = retention;
    }

    /// Stops: commands are refused from now on, what has gathered is committed, and the shutdown
    /// is marked as clean. Blocks until the threads have ended.
    pub fn stop(mut self) {
        self.join();
    }

    fn join(&mut self) {
        let Some(journal) = self.journal.take() else { return };
        self.engine.begin_stop();
        if journal.join().is_err() {
            tracing::error!("the journal's thread has panicked");
        }
        if let Some(follower) = self.follower.take() {
            follower.stop();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.join();
    }
}

impl Engine {
    /// Refuses new commands, and has the journal commit what has gathered and end.
    fn begin_stop(&self) {
        self.refuse_new();
        let shared = &self.shared;
        let mut core = shared.lock();
        if core.serving != Serving::Recovering {
            let finished = core.refusals.flush();
            shared.decide_in(&mut core, |core, now| {
                for body in finished {
                    core.table.record(body, Origin::default(), now);
                }
            });
        }
        shared.stop.store(true, Ordering::Release);
        shared.work.notify_one();
    }

    /// Refuses new commands and answers whatever is parked with
    /// [`EngineError::ShuttingDown`]; writes on their way may still end.
    pub fn refuse_new(&self) {
        let parked = {
            let mut core = self.shared.lock();
            core.stopping = true;
            let parked = std::mem::take(&mut core.parked);
            if core.serving == Serving::Yes {
                core.serving = Serving::Stopping;
                let mut waiters: Vec<WaiterId> = parked.keys().copied().collect();
                // The last first, so that nobody's turn comes because another leaves.
                waiters.sort_unstable_by(|a, b| b.cmp(a));
                self.shared.decide_in(&mut core, |core, now| {
                    for waiter in waiters {
                        core.table.leave(waiter, now);
                    }
                });
            }
            parked
        };
        for (_, parked) in parked {
            let _ = parked.send(Err(EngineError::ShuttingDown));
        }
    }
}

fn random<const N: usize>() -> Result<[u8; N], TokenKeyError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|_| TokenKeyError::Randomness)?;
    Ok(bytes)
}

fn hex_of(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
