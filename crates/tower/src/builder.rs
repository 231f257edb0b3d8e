//! How a lock table inside a service is set up, and opened.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::request::Parts;
use leasehold_core::caller::Caller;
use leasehold_core::event::WriteResult;
use leasehold_core::lock::OpenAdmission;
use leasehold_core::resource::{PathError, Resource};
use leasehold_core::table::TableLimits;
use leasehold_core::time::millis;
use leasehold_engine::start::Loading;
use leasehold_engine::{EngineOptions, StartError, SystemClock};
use leasehold_faces::json_api::endpoint::{is_prefix, is_suffix};
use leasehold_guard::rules::{Rule, Rules};
use leasehold_journal::folder::{DataFolder, FolderError};
use leasehold_journal::log::Retention;
use leasehold_problems::Problem;

use crate::answer::Patience;
use crate::embedded::Leasehold;
use crate::gate::{Gate, Parts as GateParts};
use crate::rules::{BadRule, check};

type Identify = Box<dyn Fn(&Parts) -> Result<Caller, Box<Problem>> + Send + Sync>;
type RemoteAddr = Box<dyn Fn(&Parts) -> Option<IpAddr> + Send + Sync>;

/// How a lock table inside a service is set up. See [`Leasehold::builder`].
#[must_use = "nothing is opened before `open`"]
pub struct Builder {
    data: PathBuf,
    identify: Option<Identify>,
    remote_addr: RemoteAddr,
    rules: Vec<Rule>,
    odd_paths: Vec<String>,
    lock_suffix: String,
    prefix: String,
    drain_wait: Duration,
    patience: Patience,
    limits: TableLimits,
    retention: Retention,
}

/// Why a lock table could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// It was not said who callers are.
    #[error("nobody says who callers are: call `identity`, or `anonymous`")]
    NoIdentity,
    /// The prefix of the own space is none.
    #[error("the prefix `{0}` is not one path segment between two slashes such as `/-/`")]
    Prefix(String),
    /// The suffix of lock endpoints is none.
    #[error(
        "the lock suffix `{0}` is not a slash and one path segment such as `/lock`, other than the \
         prefix and the names of actions on locks"
    )]
    LockSuffix(String),
    /// A prefix below which odd paths are accepted is no path.
    #[error("`{path}`, below which odd paths are accepted, is no path")]
    OddPath {
        /// What was given.
        path: String,
        /// What is wrong with it.
        #[source]
        source: PathError,
    },
    /// A rule is wrong.
    #[error(transparent)]
    Rule(#[from] BadRule),
    /// The data folder cannot be had: another process has it, or the file system failed.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The lock table cannot be read from it.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The operating system gave no random numbers.
    #[error("the operating system gave no random numbers: {0}")]
    Randomness(String),
    /// A thread has panicked.
    #[error("opening the lock table panicked")]
    Panicked,
}

impl Builder {
    pub(crate) fn new(data: PathBuf) -> Self {
        let EngineOptions { limits, retention, .. } = EngineOptions::default();
        Self {
            data,
            identify: None,
            remote_addr: Box::new(|_| None),
            rules: Vec::new(),
            odd_paths: Vec::new(),
            lock_suffix: "/lock".to_owned(),
            prefix: "/-/".to_owned(),
            drain_wait: Duration::from_secs(5),
            patience: Patience {
                answer_timeout: Duration::from_secs(30),
                drain_time: Duration::from_secs(5),
            },
            limits,
            retention,
        }
    }

    /// Who sends a request: what a token's holder is compared with, and what they may do.
    ///
    /// It is asked for writes, for lock endpoints and for reads. Its refusal refuses the first two;
    /// a read goes on without a [`Caller`]. What takes time (a session, a token's signature) belongs
    /// into a layer outside of this one, which leaves an extension:
    ///
    /// ```
    /// use http::request::Parts;
    /// use leasehold_tower::{Caller, Leasehold, Name, Permission, Permissions, Problem};
    ///
    /// #[derive(Clone)]
    /// struct User(String);
    ///
    /// let builder = Leasehold::builder("./locks").identity(|head: &Parts| {
    ///     let Some(User(name)) = head.extensions.get() else {
    ///         return Err(Box::new(Problem::new(Name::Unauthenticated, "Sign in first.")));
    ///     };
    ///     let may = [Permission::Read, Permission::Write, Permission::Lock];
    ///     Ok(Caller::named(name, Permissions::of(&may)))
    /// });
    /// # drop(builder);
    /// ```
    pub fn identity(
        mut self,
        identify: impl Fn(&Parts) -> Result<Caller, Box<Problem>> + Send + Sync + 'static,
    ) -> Self {
        self.identify = Some(Box::new(identify));
        self
    }

    /// Everyone is `anonymous`, with every permission: whoever shows a token is its holder, and
    /// whoever reaches the service may break locks.
    pub fn anonymous(self) -> Self {
        self.identity(|_| Ok(Caller::anonymous()))
    }

    /// Where a request comes from, for the trail. With axum it is in `ConnectInfo`. Not known unless
    /// set.
    pub fn remote_addr(
        mut self,
        remote_addr: impl Fn(&Parts) -> Option<IpAddr> + Send + Sync + 'static,
    ) -> Self {
        self.remote_addr = Box::new(remote_addr);
        self
    }

    /// One more rule; the first that matches a path counts. What none matches has the defaults.
    pub fn rule(mut self, rule: Rule) -> Self {
        self.rules.push(rule);
        self
    }

    /// Lets writes pass to paths below `prefix` that can be read in several ways (`//`, an encoded
    /// slash): each counts for everything below the prefix. Elsewhere they are refused.
    pub fn accept_odd_paths(mut self, prefix: impl Into<String>) -> Self {
        self.odd_paths.push(prefix.into());
        self
    }

    /// What lock endpoints end in. `/lock` unless set.
    pub fn lock_suffix(mut self, suffix: impl Into<String>) -> Self {
        self.lock_suffix = suffix.into();
        self
    }

    /// Where the layer has paths of its own (`/-/locks`, `/-/problems/…`). `/-/` unless set.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// How long an acquire that meets only writes under way is held, if it does not say that it
    /// waits. 5 s unless set.
    pub fn drain_wait(mut self, drain_wait: Duration) -> Self {
        self.drain_wait = drain_wait;
        self
    }

    /// How long a write may still land after its handler has panicked or failed, or its answer
    /// broke off, or the process ended: so long nobody else gets the lock. 5 s unless set.
    pub fn drain_time(mut self, drain_time: Duration) -> Self {
        self.patience.drain_time = drain_time;
        self
    }

    /// How long the rest of a write's answer is taken whose client has gone; after that it is
    /// dropped, and counts as broken off. 30 s unless set.
    pub fn answer_timeout(mut self, answer_timeout: Duration) -> Self {
        self.patience.answer_timeout = answer_timeout;
        self
    }

    /// How many locks and waiters there may be.
    pub fn limits(mut self, limits: TableLimits) -> Self {
        self.limits = limits;
        self
    }

    /// For how long the trail is kept. 400 days unless set.
    pub fn retain(mut self, retain: Duration) -> Self {
        self.retention.max_age_ms = Some(millis(retain));
        self
    }

    /// Opens the data folder, made if it is missing, and loads the lock table. It needs a tokio
    /// runtime with time; what reads and writes files has threads of its own.
    ///
    /// # Errors
    /// When something that was set cannot be used, or the folder cannot be had or read.
    pub async fn open(self) -> Result<Leasehold, OpenError> {
        let identify = self.identify.ok_or(OpenError::NoIdentity)?;
        if !is_prefix(&self.prefix) {
            return Err(OpenError::Prefix(self.prefix));
        }
        if !is_suffix(&self.lock_suffix) || self.prefix.trim_end_matches('/') == self.lock_suffix {
            return Err(OpenError::LockSuffix(self.lock_suffix));
        }
        check(&self.rules, &self.prefix, &self.lock_suffix)?;
        let odd_paths = self.odd_paths.iter().map(|path| {
            Resource::parse(path)
                .map_err(|source| OpenError::OddPath { path: path.clone(), source })
        });
        let rules =
            Rules::new(self.rules).accepting_odd_paths(odd_paths.collect::<Result<_, _>>()?);

        let options = EngineOptions {
            limits: self.limits,
            retention: self.retention,
            // What a handler has sent elsewhere may still land after its process has ended.
            recovery_ms: Some(millis(self.patience.drain_time)),
            ..EngineOptions::default()
        };
        let running = tokio::task::spawn_blocking(move || {
            let folder = DataFolder::open(&self.data)?;
            let data = folder.path().to_owned();
            let loading = Loading::open(folder, options)?;
            let (cause, report) = (loading.cause(), loading.report);
            let (rows, events) = (report.rows, report.events);
            tracing::info!(?cause, rows, events, "the lock table is loaded");
            let unknown = Arc::new(|_: &OpenAdmission| WriteResult::Unknown);
            let running = loading.start(Arc::new(SystemClock::new()), Arc::new(()), unknown)?;
            Ok::<_, OpenError>((running, data))
        });
        let (running, data) = running.await.map_err(|_| OpenError::Panicked)??;
        let gate = Gate::new(GateParts {
            engine: running.engine().clone(),
            rules: Arc::new(ArcSwap::from_pointee(rules)),
            identify,
            remote_addr: self.remote_addr,
            data,
            prefix: self.prefix,
            lock_suffix: self.lock_suffix,
            drain_wait: self.drain_wait,
            patience: self.patience,
        })
        .map_err(|error| OpenError::Randomness(error.to_string()))?;
        Ok(Leasehold::new(running, Arc::new(gate)))
    }
}

impl std::fmt::Debug for Builder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Builder")
            .field("data", &self.data)
            .field("rules", &self.rules)
            .field("lock_suffix", &self.lock_suffix)
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}
