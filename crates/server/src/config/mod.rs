//! The configuration: one TOML file, flags, environment variables, defaults.
//!
//! Everything is read and checked once, here: whoever has a [`Config`] has a legal one. A mistake
//! is told with the place it was made at and the values that are accepted, and all of them at
//! once. Keys that this release does not know are mistakes.
//!
//! Deliberately absent: what the settings do.

mod args;
mod conflicts;
mod errors;
mod identity;
mod reload;
mod rules;
mod section;
pub mod units;
mod upstream;
mod values;

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use leasehold_guard::rules::Rules;
use toml::de::DeTable;

pub use self::args::ServeArgs;
pub use self::errors::{ConfigError, ConfigErrors, Place};
use self::errors::{Mistakes, Source};
pub use self::reload::Reload;
use self::section::{Found, Section};
pub use self::upstream::Upstream;
use self::values::Value;
use crate::browser::Origin;
use crate::identity::Settings;
use crate::rate::Rate;
use crate::tls;

/// Where the data is when nothing says otherwise.
pub const DEFAULT_DATA: &str = "./leasehold-data";

/// How callers are told apart.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum IdentityMode {
    /// Not at all: everyone is `anonymous`, with every permission.
    Anonymous,
    /// By the API key that each presents.
    Keys,
    /// By what a trusted proxy says.
    Header,
    /// By a token that somebody else has signed.
    Jwt,
}

/// How much is logged.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LogLevel {
    /// Nothing.
    Off,
    /// What needs somebody's attention.
    Error,
    /// And what may come to need it.
    Warn,
    /// And what the server does.
    Info,
    /// And each request.
    Debug,
    /// Everything, the libraries' own words included.
    Trace,
}

/// How it is logged.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// What bounds the server.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Limits {
    /// The most live locks.
    pub max_locks: u64,
    /// The most parked acquires.
    pub max_waiters: u64,
    /// The most live locks of one holder; none: no limit but those of rules.
    pub max_locks_per_holder: Option<u64>,
    /// The most parked acquires of one principal; none: no limit.
    pub max_waiters_per_principal: Option<u64>,
    /// How many requests one principal may send; none: no limit.
    pub rate: Option<Rate>,
    /// The most connections.
    pub max_connections: usize,
    /// The largest document, in bytes.
    pub max_document: u64,
    /// The most memory that bodies of requests and answers may take, in bytes.
    pub max_buffered: u64,
    /// The largest head of a request (line and fields), in bytes.
    pub max_header: usize,
    /// The longest a request's head may take; also how long an idle HTTP/1.1 connection is kept.
    pub header_timeout: Duration,
    /// The longest silence within a request's body.
    pub body_timeout: Duration,
    /// The longest a client may take nothing of an answer.
    pub answer_timeout: Duration,
    /// How long a server that was told to stop lets running requests go on.
    pub shutdown_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_locks: 10_000_000,
            max_waiters: 100_000,
            max_locks_per_holder: None,
            max_waiters_per_principal: None,
            rate: None,
            max_connections: 20_000,
            max_document: 16 << 20,
            max_buffered: 1 << 30,
            max_header: 64 << 10,
            header_timeout: Duration::from_secs(30),
            body_timeout: Duration::from_secs(30),
            answer_timeout: Duration::from_secs(30),
            shutdown_timeout: Duration::from_secs(10),
        }
    }
}

/// How much of the trail is kept.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Retention {
    /// Events older than this are removed.
    pub retain: Duration,
    /// The oldest events are removed while the trail is larger than this many bytes; none: no
    /// bound.
    pub max_size: Option<u64>,
}

/// A legal configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Where the server's own space is served too, with metrics for everyone.
    pub admin_listen: Option<SocketAddr>,
    /// What TLS on `listen` is made from; none: plain HTTP.
    pub tls: Option<tls::Files>,
    /// The folder that everything is kept in.
    pub data: PathBuf,
    /// The prefix of the server's own space: one legal segment between two slashes.
    pub prefix: String,
    /// The suffix of the lock endpoints: a slash and one legal segment.
    pub lock_suffix: String,
    /// The origins whose pages may call the server.
    pub cors_origins: Vec<Origin>,
    /// How callers are told apart.
    pub identity: Settings,
    /// What is logged.
    pub log: LogLevel,
    /// How it is logged.
    pub log_format: LogFormat,
    /// How long an acquire waits for writes on their way.
    pub drain_wait: Duration,
    /// The API behind it; none: it keeps documents itself.
    pub upstream: Option<Upstream>,
    /// What bounds the server.
    pub limits: Limits,
    /// How much of the trail is kept.
    pub audit: Retention,
    /// What holds for which resources.
    pub rules: Arc<Rules>,
    /// What it was read from, to read it again.
    args: ServeArgs,
}

const KEYS: [&str; 22] = [
    "listen",
    "admin_listen",
    "tls_cert",
    "tls_key",
    "tls_client_ca",
    "data",
    "prefix",
    "lock_suffix",
    "cors_origins",
    "accept_odd_paths",
    "log",
    "log_format",
    "drain_wait",
    "upstream",
    "upstream_timeout",
    "drain_time",
    "upstream_ca",
    "upstream_identity",
    "identity",
    "limits",
    "audit",
    "rule",
];

impl Config {
    /// Reads and checks everything: the flags and variables in `args`, and the file they name.
    ///
    /// # Errors
    /// Every mistake that was found.
    pub fn load(args: &ServeArgs) -> Result<Self, ConfigErrors> {
        let mut mistakes = Mistakes::default();
        let text = match &args.config {
            None => String::new(),
            Some(path) => match std::fs::read_to_string(path) {
                Ok(text) => text,
                Err(error) => {
                    let place = Place::WholeFile(path.clone());
                    mistakes.add(&place, format!("cannot read the configuration file: {error}"));
                    return Err(mistakes.into_errors());
                }
            },
        };
        Self::parse(args, args.config.as_deref(), &text)
    }

    /// Reads `text` as the file `path`; a mistake in the syntax hides all others.
    fn parse(args: &ServeArgs, path: Option<&Path>, text: &str) -> Result<Self, ConfigErrors> {
        let mut mistakes = Mistakes::default();
        let source = Source { path: path.unwrap_or(Path::new("")), text };
        let (table, broken) = DeTable::parse_recoverable(text);
        for error in &broken {
            let place = source.place(&error.span().unwrap_or_default());
            mistakes.add(&place, format!("this is not TOML: {}", error.message()));
        }
        if !mistakes.is_empty() {
            return Err(mistakes.into_errors());
        }
        let root = Section {
            source: Some(source),
            name: "",
            table: Some(table.get_ref()),
            args: Some(args),
        };
        let config = Self::read(args, &root, &mut mistakes);
        if mistakes.is_empty() { Ok(config) } else { Err(mistakes.into_errors()) }
    }

    /// Reads every setting. What is mistaken has its default, and is not for use.
    fn read(args: &ServeArgs, root: &Section<'_>, mistakes: &mut Mistakes) -> Self {
        root.check_keys(&KEYS, mistakes);
        let listen = root.read_or(
            "listen",
            SocketAddr::from(([127, 0, 0, 1], 7423)),
            mistakes,
            Value::address,
        );
        let admin_listen = root.read("admin_listen", mistakes, Value::address);
        let prefix = root.read_or("prefix", "/-/".to_owned(), mistakes, Value::prefix);
        let lock_suffix = root.read_or("lock_suffix", "/lock".to_owned(), mistakes, Value::suffix);
        let identity = identity::read(root, &listen, admin_listen.as_ref(), mistakes);
        check_addresses(&listen, admin_listen.as_ref(), mistakes);
        check_names(&prefix, &lock_suffix, mistakes);
        let data = root.read_or("data", DEFAULT_DATA.into(), mistakes, Value::folder);
        let five_seconds = Duration::from_secs(5);
        let rules = rules::read(root, &prefix.value, &lock_suffix.value, mistakes);
        Self {
            listen: listen.value,
            admin_listen: admin_listen.map(|found| found.value),
            tls: tls_files(root, mistakes),
            data: data.value,
            prefix: prefix.value,
            lock_suffix: lock_suffix.value,
            cors_origins: root.read_or("cors_origins", Vec::new(), mistakes, Value::origins).value,
            identity,
            log: root.read_or("log", LogLevel::Info, mistakes, log_level).value,
            log_format: root.read_or("log_format", LogFormat::Text, mistakes, log_format).value,
            drain_wait: root.read_or("drain_wait", five_seconds, mistakes, Value::duration).value,
            upstream: upstream::read(root, &rules, mistakes),
            limits: limits(root, mistakes),
            audit: audit(root, mistakes),
            rules: Arc::new(rules),
            args: args.clone(),
        }
    }
}

fn check_addresses(
    listen: &Found<SocketAddr>,
    admin_listen: Option<&Found<SocketAddr>>,
    mistakes: &mut Mistakes,
) {
    let Some(admin) = admin_listen else { return };
    if admin.value == listen.value && admin.value.port() != 0 {
        let message = format!("`admin_listen`: {} is the address of `listen`", admin.value);
        mistakes.add(&admin.place, message);
    }
}

/// A certificate is nothing without its key, nor the other way round.
fn tls_files(root: &Section<'_>, mistakes: &mut Mistakes) -> Option<tls::Files> {
    let [cert, key, client_ca] =
        ["tls_cert", "tls_key", "tls_client_ca"].map(|name| root.read(name, mistakes, Value::file));
    match (cert, key) {
        (Some(cert), Some(key)) => Some(tls::Files {
            cert: cert.value,
            key: key.value,
            client_ca: client_ca.map(|found| found.value),
        }),
        (Some(cert), None) => {
            let message = "`tls_cert` is set without `tls_key`; name the file with its private key";
            mistakes.add(&cert.place, message);
            None
        }
        (None, Some(key)) => {
            let message = "`tls_key` is set without `tls_cert`; name the file with its certificate";
            mistakes.add(&key.place, message);
            None
        }
        (None, None) => {
            if let Some(client_ca) = client_ca {
                let message = "`tls_client_ca` needs TLS; set `tls_cert` and `tls_key` as well";
                mistakes.add(&client_ca.place, message);
            }
            None
        }
    }
}

/// `/lock` would be the lock of `/` and the server's own space at once.
fn check_names(prefix: &Found<String>, suffix: &Found<String>, mistakes: &mut Mistakes) {
    if prefix.value.trim_end_matches('/') == suffix.value {
        let set = if suffix.place == Place::Settings { prefix } else { suffix };
        let message = "`prefix` and `lock_suffix` are the same segment; make them differ";
        mistakes.add(&set.place, message);
    }
}

fn log_level(value: Value<'_>) -> Result<LogLevel, String> {
    value.choice(&[
        ("off", LogLevel::Off),
        ("error", LogLevel::Error),
        ("warn", LogLevel::Warn),
        ("info", LogLevel::Info),
        ("debug", LogLevel::Debug),
        ("trace", LogLevel::Trace),
    ])
}

fn log_format(value: Value<'_>) -> Result<LogFormat, String> {
    value.choice(&[("text", LogFormat::Text), ("json", LogFormat::Json)])
}

fn limits(root: &Section<'_>, mistakes: &mut Mistakes) -> Limits {
    let section = root.table("limits", "limits.", mistakes);
    let keys = [
        "max_locks",
        "max_waiters",
        "max_locks_per_holder",
        "max_waiters_per_principal",
        "requests_per_second",
        "request_burst",
        "max_connections",
        "max_document",
        "max_buffered",
        "max_header",
        "header_timeout",
        "body_timeout",
        "answer_timeout",
        "shutdown_timeout",
    ];
    section.check_keys(&keys, mistakes);
    let default = Limits::default();
    let mut whole = |key, default, range: std::ops::RangeInclusive<u64>| {
        section.read_or(key, default, mistakes, |value| value.whole(range.clone())).value
    };
    let max_locks = whole("max_locks", default.max_locks, 1..=1_000_000_000);
    let max_waiters = whole("max_waiters", default.max_waiters, 0..=100_000_000);
    let max_connections = whole("max_connections", default.max_connections as u64, 1..=1_000_000);
    let mut quota = |key| {
        section.read(key, mistakes, |value| value.whole(1..=1_000_000_000)).map(|found| found.value)
    };
    let max_locks_per_holder = quota("max_locks_per_holder");
    let max_waiters_per_principal = quota("max_waiters_per_principal");
    let rate = rate(&section, mistakes);
    let mut size = |key, default, least: u64, most: u64| {
        let read = |value: Value<'_>| match value.size()? {
            bytes if (least..=most).contains(&bytes) => Ok(bytes),
            bytes => Err(format!("{bytes} bytes is not from {least} to {most} bytes")),
        };
        section.read_or(key, default, mistakes, read).value
    };
    // The journal cannot keep a document of a gigabyte; hyper wants 8 KiB for a head.
    let max_document = size("max_document", default.max_document, 1, 512 << 20);
    let max_header = size("max_header", default.max_header as u64, 8 << 10, 1 << 20);
    // A document or a batch has to find room beside its answer.
    let room = (4 * max_document).max(64 << 20);
    let max_buffered = size("max_buffered", default.max_buffered.max(room), room, 1 << 40);
    let mut timeout = |key, default| {
        let read = |value: Value<'_>| match value.duration()? {
            timeout if timeout >= Duration::from_millis(100) => Ok(timeout),
            timeout => Err(format!("`{}` is shorter than 100ms", units::show(timeout))),
        };
        section.read_or(key, default, mistakes, read).value
    };
    Limits {
        max_locks,
        max_waiters,
        max_locks_per_holder,
        max_waiters_per_principal,
        rate,
        max_connections: max_connections as usize,
        max_document,
        max_buffered,
        max_header: max_header as usize,
        header_timeout: timeout("header_timeout", default.header_timeout),
        body_timeout: timeout("body_timeout", default.body_timeout),
        answer_timeout: timeout("answer_timeout", default.answer_timeout),
        shutdown_timeout: section
            .read_or("shutdown_timeout", default.shutdown_timeout, mistakes, Value::duration)
            .value,
    }
}

/// How many requests one principal may send. The burst is a second's worth unless set.
fn rate(section: &Section<'_>, mistakes: &mut Mistakes) -> Option<Rate> {
    let read = |value: Value<'_>, most: u32| {
        let number = value.whole(1..=u64::from(most))?;
        u32::try_from(number).ok().and_then(NonZeroU32::new).ok_or_else(|| "too large".to_owned())
    };
    let most = Rate::MAX_PER_SECOND;
    let per_second = section.read("requests_per_second", mistakes, |value| read(value, most));
    let burst = section.read("request_burst", mistakes, |value| read(value, most));
    if per_second.is_none()
        && let Some(burst) = &burst
    {
        let message = "`limits.request_burst` is set without `requests_per_second`; set both";
        mistakes.add(&burst.place, message);
    }
    let per_second = per_second?.value;
    Some(Rate { per_second, burst: burst.map_or(per_second, |found| found.value) })
}

fn audit(root: &Section<'_>, mistakes: &mut Mistakes) -> Retention {
    let section = root.table("audit", "audit.", mistakes);
    section.check_keys(&["retain", "max_size"], mistakes);
    let retain = |value: Value<'_>| match value.duration()? {
        // How a lock ended is known for at least 24 h.
        retain if retain >= Duration::from_secs(86_400) => Ok(retain),
        retain => Err(format!("`{}` is shorter than 1d, the least", units::show(retain))),
    };
    let max_size = |value: Value<'_>| match value.size()? {
        bytes if bytes >= 1 << 20 => Ok(bytes),
        bytes => Err(format!("{bytes} bytes is less than 1MiB, the least")),
    };
    Retention {
        retain: section
            .read_or("retain", Duration::from_secs(400 * 86_400), mistakes, retain)
            .value,
        max_size: section.read("max_size", mistakes, max_size).map(|found| found.value),
    }
}

/// Reads a configuration from this text, for tests elsewhere in the crate.
#[cfg(test)]
pub(crate) fn from_text(text: &str) -> Result<Config, ConfigErrors> {
    Config::parse(&ServeArgs::default(), Some(Path::new("leasehold.toml")), text)
}

#[cfg(test)]
mod tests;
