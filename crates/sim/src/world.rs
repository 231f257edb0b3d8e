//! One history: a server, its disk, its clocks, its clients, and the scheduler that says who goes
//! on next.
//!
//! What always holds: one thread, and every choice comes out of the seed, so that the same seed
//! gives the same history, log and disk. What the threads of a server would do is done in steps:
//! the journal's, the index's, and those of the tasks that serve requests. Who commits, the journal's
//! step or the task that settles answers, is the seed's choice, too.

mod answers;
mod gateway;
mod steps;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use fastrand::Rng;
use leasehold_core::event::{Event, WriteResult};
use leasehold_core::ids::{LockId, Seq};
use leasehold_core::sabotage::Mistake;
use leasehold_core::table::TableLimits;
use leasehold_engine::start::{Loading, Observer, Stepped};
use leasehold_engine::{Draws, Engine, EngineOptions};
use leasehold_guard::guard::Guard;
use leasehold_guard::rules::Rules;
use leasehold_journal::folder::DataFolder;
use leasehold_journal::log::sqlite::LogOptions;
use leasehold_journal::log::{Head, Retention, Stored};
use leasehold_journal::query::AuditReader;
use leasehold_journal::verify::verify;
use leasehold_upstreams::proxy::Proxy;

use crate::call::Call;
use crate::client::{Client, LIMITS};
use crate::clock::SimClock;
use crate::disk::{Crash, Disk, Faults};
use crate::gateway::{RECOVERY, Surroundings};
use crate::history::History;
use crate::judge::{Invariant, Judge, Verdict, Violation};
use crate::upstream::SimUpstream;
use crate::vfs::{self, Mount};

/// What stands behind the guard.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Behind {
    /// A store that always learns how a write has ended.
    Store,
    /// The gateway, to an API that does not say.
    Gateway,
}

/// What may happen in a history.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// What everything comes out of.
    pub seed: u64,
    /// Whether the disk fails.
    pub disk_fails: bool,
    /// Whether the process ends without being asked.
    pub crashes: bool,
    /// What stands behind the guard.
    pub behind: Behind,
    /// The mistake that the product makes.
    pub mistake: Option<Mistake>,
}

impl Options {
    /// Everything may happen; every other seed has a gateway.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let behind = if seed.is_multiple_of(2) { Behind::Gateway } else { Behind::Store };
        Self { seed, disk_fails: true, crashes: true, behind, mistake: None }
    }
}

/// Where everything is.
pub struct World {
    rng: Rng,
    options: Options,
    clock: SimClock,
    mount: Mount,
    folder: tempfile::TempDir,
    upstream: Arc<SimUpstream>,
    /// What the gateway has around it, where there is one.
    gateway: Option<Surroundings>,
    clients: Vec<Client>,
    calls: BTreeMap<u64, Call>,
    next_call: u64,
    /// What each write presents, whose client it is, and how often the journal had failed before.
    writes: BTreeMap<u64, (Vec<LockId>, usize, u64)>,
    server: Option<Server>,
    judge: Judge,
    /// How long the trail is kept.
    keeps_ms: Option<u64>,
    /// How often the disk had failed when that was last looked at.
    failures: u64,
    /// Until when nothing is committed: the disk is slow.
    stalled_until: Duration,
    /// Whether the server takes its clients for one.
    is_alone: bool,
    alone: Arc<Alone>,
    /// What has happened, for whoever wants to know.
    pub history: History,
}

/// Tells the engine whether one client is alone.
#[derive(Default)]
struct Alone(AtomicBool);

impl Observer for Alone {
    fn committed(&self, _: &[Event], _: Duration, _: &Head) {}
    fn is_alone(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
    fn recovering(&self, _: bool) {}
}

/// The guard, by what stands behind it.
enum Guarding {
    Store(Guard<SimUpstream>),
    Gateway(Guard<Proxy>),
}

/// A running server, without its threads.
struct Server {
    stepped: Stepped,
    guard: Guarding,
    reader: AuditReader,
    was_serving: bool,
    // Last: the tasks hold parts of everything else.
    runtime: tokio::runtime::Runtime,
}

const CLIENTS: usize = 5;

impl World {
    /// A world with a new data folder and a server on it.
    ///
    /// # Errors
    /// When the real folder cannot be made; and a violation, if the server does not start.
    pub fn new(options: Options) -> anyhow::Result<Self> {
        vfs::reset_randomness();
        let mut rng = Rng::with_seed(options.seed);
        let folder = tempfile::tempdir().context("a folder for the names")?;
        let mount = Mount::new(folder.path(), Arc::new(Disk::new(rng.u64(..))))?;
        // Long enough that nothing goes before it was judged, whoever sets the wall clock.
        let keeps_ms = rng.bool().then_some(300_000);
        // The same secrets in every run.
        let secret = "c2ltdWxhdGlvbiBzaW11bGF0aW9uIHNpbXVsYXRpb24gcw";
        let keys = format!(r#"{{"keys": [{{"id": 1, "secret": "{secret}"}}]}}"#);
        std::fs::write(folder.path().join("token.key"), keys)?;
        let clients = (0..CLIENTS).map(|at| Client::new(&format!("client-{at}"))).collect();
        let clock = SimClock::new();
        let gateway = (options.behind == Behind::Gateway).then(|| Surroundings::new(&clock));
        let mut world = Self {
            rng,
            options,
            clock,
            mount,
            folder,
            upstream: Arc::default(),
            gateway,
            clients,
            calls: BTreeMap::new(),
            next_call: 1,
            writes: BTreeMap::new(),
            server: None,
            judge: Judge::new(LIMITS),
            keeps_ms,
            failures: 0,
            stalled_until: Duration::ZERO,
            is_alone: false,
            alone: Arc::default(),
            history: History::default(),
        };
        world.start()?;
        world.read_log().map_err(|violation| anyhow::anyhow!("{violation}"))?;
        Ok(world)
    }

    /// A digest of everything that has happened: history, log and disk.
    #[must_use]
    pub fn digest(&self) -> String {
        let log = self.judge.trail.hashes.last().copied().unwrap_or_default();
        self.history.digest(&log, &self.mount.disk().digest())
    }

    /// How many events are in the durable log.
    #[must_use]
    pub fn events(&self) -> usize {
        self.judge.trail.hashes.len()
    }

    /// Judges the trail once more, as `leasehold audit verify` does.
    ///
    /// # Errors
    /// When that finds fault with it: then it is wrong, or what judges it is.
    pub fn verify(&self) -> Verdict {
        let Some(server) = &self.server else { return Ok(()) };
        let report = self.unharmed(|_| Ok(verify(&server.reader, None)?)).map_err(unable)?;
        match report.findings.first() {
            None => Ok(()),
            Some(fault) => {
                let what = format!("verifying the trail finds fault with it: {fault}");
                Err((Invariant::TrailIsTruth, what).into())
            }
        }
    }

    fn engine(&self) -> Option<&Engine> {
        self.server.as_ref().map(|server| server.stepped.engine())
    }

    // ---- starting and ending -------------------------------------------------------------------

    /// Starts a server on what is there.
    fn start(&mut self) -> anyhow::Result<()> {
        let data = DataFolder::open(self.folder.path())?;
        let options = EngineOptions {
            limits: TableLimits {
                max_locks: LIMITS.max_locks,
                max_waiters: LIMITS.max_waiters,
                ..Default::default()
            },
            retention: Retention { max_age_ms: self.keeps_ms, max_bytes: None },
            token_key: None,
            log: LogOptions { checkpoint_pages: self.rng.u32(1..24) },
            recovery_ms: self.gateway.as_ref().map(|_| millis(RECOVERY)),
            draws: Some(Draws {
                seed: self.rng.u64(..).to_le_bytes(),
                incarnation: self.rng.u64(..).to_le_bytes(),
            }),
        };
        let upstream = self.upstream.clone();
        let has_gateway = self.gateway.is_some();
        let classify =
            Arc::new(
                move |open: &_| {
                    if has_gateway { WriteResult::Unknown } else { upstream.classify(open) }
                },
            );
        let stepped = Loading::open(data, options)?.start_stepped(
            Arc::new(self.clock.clone()),
            self.alone.clone(),
            classify,
        )?;
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        if has_gateway {
            runtime.enable_time().start_paused(true);
        }
        let runtime = runtime.build()?;
        let engine = stepped.engine().clone();
        runtime.spawn(engine.clone().run());
        let rules = Arc::new(ArcSwap::from_pointee(Rules::default()));
        let guard = match &self.gateway {
            None => Guarding::Store(Guard::new(engine, self.upstream.clone(), rules, "/lock")),
            Some(gateway) => {
                let proxy = Arc::new(gateway.proxy()?);
                Guarding::Gateway(Guard::new(engine, proxy, rules, "/lock"))
            }
        };
        let reader = self.unharmed(|world| Ok(AuditReader::open(world.folder.path())?))?;
        self.server = Some(Server { stepped, guard, reader, was_serving: true, runtime });
        self.failures = self.mount.disk().failures();
        Ok(())
    }

    /// Does something that no fault may hit: the judge's own reading.
    fn unharmed<T>(&self, work: impl FnOnce(&Self) -> anyhow::Result<T>) -> anyhow::Result<T> {
        self.mount.disk().spare(true);
        let result = work(self);
        self.mount.disk().spare(false);
        result
    }

    fn stored(&self, from: Seq) -> anyhow::Result<Vec<Stored>> {
        let Some(server) = &self.server else { return Ok(Vec::new()) };
        self.unharmed(|_| {
            let mut events = Vec::new();
            loop {
                let last = events.last().map_or(from, |stored: &Stored| stored.seq);
                let more = server.reader.read(last.next(), 1000)?;
                if more.is_empty() {
                    return Ok(events);
                }
                events.extend(more);
            }
        })
    }

    /// The newest event that retention has removed.
    fn trimmed(&self) -> anyhow::Result<Seq> {
        let Some(server) = &self.server else { return Ok(Seq(0)) };
        let trimmed = self.unharmed(|_| Ok(server.reader.trimmed()?))?;
        Ok(trimmed.map_or(Seq(0), |trimmed| trimmed.through))
    }

    /// The process ends without being asked, and another starts.
    fn crash(&mut self, crash: Crash) -> Result<(), Violation> {
        self.history.note(format_args!("crash: {crash:?}"));
        self.take_down(Some(crash))?;
        self.start_again()
    }

    /// Ends the process: by a crash, or with everything closed.
    fn take_down(&mut self, crash: Option<Crash>) -> Result<(), Violation> {
        if let Some(crash) = crash {
            self.mount.crash(crash).map_err(unable)?;
        }
        self.look_once_more();
        self.calls.clear();
        self.writes.clear();
        for client in &mut self.clients {
            client.again.clear();
        }
        // Closing has an effect only if nothing has crashed.
        self.server = None;
        if crash.is_none() {
            self.mount.crash(Crash::Kill).map_err(unable)?;
        }
        let rng = &mut self.rng;
        self.upstream.crash(|| rng.bool());
        self.gateway_ended();
        Ok(())
    }

    fn start_again(&mut self) -> Result<(), Violation> {
        // What a process before this one has sent lands soon, if it does.
        let longest = if self.gateway.is_some() && self.rng.bool() { 2_000 } else { 20_000 };
        let down = Duration::from_millis(self.rng.u64(0..longest));
        self.advance(down)?;
        // Now and then the start itself is hit.
        if self.options.crashes && self.rng.u8(0..4) == 0 {
            // Most of what a start does to the disk, it does first.
            let span = if self.rng.bool() { 10 } else { 40 };
            let after = Some(self.rng.u64(0..span));
            let faults = if self.options.disk_fails && self.rng.bool() {
                Faults { fail_after: after, ..Faults::default() }
            } else {
                Faults { die_after: after, ..Faults::default() }
            };
            self.mount.disk().set_faults(faults);
            let started = self.start();
            self.mount.disk().set_faults(Faults::default());
            if started.is_err() || self.mount.disk().is_dead() {
                let crash = if self.rng.bool() { Crash::Kill } else { Crash::PowerLoss };
                self.history.note(format_args!("the start fails, and then: {crash:?}"));
                self.take_down(Some(crash))?;
                self.start().map_err(does_not_start)?;
            }
        } else {
            self.start().map_err(does_not_start)?;
        }
        self.stalled_until = Duration::ZERO;
        self.sample();
        self.judge.stood_still();
        let stored = self.stored(Seq(0)).map_err(does_not_start)?;
        self.history.note(format_args!("started with {} events", stored.len()));
        let trimmed = self.trimmed().map_err(does_not_start)?;
        self.judge.restarted(&stored, trimmed)?;
        self.witness(&stored)?;
        self.sample();
        Ok(())
    }

    fn stop_cleanly(&mut self) -> Result<(), Violation> {
        self.history.note(format_args!("stop"));
        if let Some(server) = &mut self.server {
            server.stepped.stop();
            let mut steps = 0;
            while server.stepped.commit() && steps < 100 {
                steps += 1;
            }
        }
        let crash = self.mount.disk().is_dead().then_some(Crash::Kill);
        self.take_down(crash)?;
        self.start_again()
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

fn does_not_start(error: anyhow::Error) -> Violation {
    let what = format!("the server does not start: {error:#}");
    Violation { invariant: Invariant::FailStop, what }
}

fn unable(error: impl fmt::Display) -> Violation {
    Violation { invariant: Invariant::FailStop, what: format!("the log cannot be read: {error}") }
}
