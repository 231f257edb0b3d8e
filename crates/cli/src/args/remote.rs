//! The command line of what talks to a running server.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use jiff::Timestamp;
use leasehold_core::ids::LockId;
use leasehold_server::config::units;

/// What every command has that talks to a server.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Server")]
pub(crate) struct Remote {
    /// Which server: a URL, or a name of the configuration file
    #[arg(long, value_name = "NAME|URL", env = "LEASEHOLD_SERVER")]
    pub(crate) server: Option<String>,
    /// The API key. Others on this machine can see it here: prefer LEASEHOLD_KEY, or a file
    ///
    /// Or LEASEHOLD_KEY. A flag goes before the environment, and that before the file.
    #[arg(long, value_name = "KEY", conflicts_with = "key_file")]
    pub(crate) key: Option<String>,
    /// A file with the API key in its first line
    ///
    /// Or LEASEHOLD_KEY_FILE.
    #[arg(long, value_name = "FILE")]
    pub(crate) key_file: Option<PathBuf>,
    /// Certificates in PEM: trust a server that one of these authorities has signed, and no other
    ///
    /// For https://. Or LEASEHOLD_CA_CERT. Without it, those that the system trusts.
    #[arg(long, value_name = "FILE")]
    pub(crate) ca_cert: Option<PathBuf>,
    /// The certificate in PEM to show to a server that asks for one
    ///
    /// Or LEASEHOLD_CLIENT_CERT.
    #[arg(long, value_name = "FILE")]
    pub(crate) client_cert: Option<PathBuf>,
    /// Its key in PEM, where that is not in the same file
    ///
    /// Or LEASEHOLD_CLIENT_KEY. Nobody but its owner may read it.
    #[arg(long, value_name = "FILE", requires = "client_cert")]
    pub(crate) client_key: Option<PathBuf>,
    /// The configuration file with named servers
    ///
    /// `~/.config/leasehold/config.toml` unless given, or under XDG_CONFIG_HOME.
    #[arg(long, value_name = "FILE", env = "LEASEHOLD_CLIENT_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// The longest that one request may take, waiting for a lock not counted
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = positive)]
    pub(crate) timeout: Duration,
}

/// How results are printed.
#[derive(Clone, Copy, Debug, Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct Output {
    /// Print the server's JSON; a refusal as well, on standard error
    ///
    /// The default where standard output is no terminal.
    #[arg(long, conflicts_with = "human")]
    pub(crate) json: bool,
    /// Print tables for people
    ///
    /// The default on a terminal. Colours only there, and not with NO_COLOR.
    #[arg(long)]
    pub(crate) human: bool,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Tokens {
    /// A lock token; more than one may be given, also with commas between them
    #[arg(
        long = "token",
        value_name = "TOKEN",
        env = "LEASEHOLD_TOKEN",
        hide_env_values = true,
        value_delimiter = ','
    )]
    pub(crate) tokens: Vec<String>,
}

/// A resource, or one lock by its id.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Subject {
    Resource(String),
    Lock(LockId),
}

/// What is to be locked, and how.
#[derive(Clone, Debug, Args)]
pub(crate) struct Wanted {
    /// The first of several resources that is free, instead of all of them
    #[arg(long)]
    pub(crate) any_of: bool,
    /// Together with other sharers
    #[arg(long)]
    pub(crate) shared: bool,
    /// How deep it covers: everything below, or only the resource and its list of children
    #[arg(long, value_name = "DEPTH", value_enum, default_value_t = Depth::Infinity)]
    pub(crate) depth: Depth,
    /// Why: shown to everyone who meets the lock
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
    /// A JSON object to keep with the lock
    #[arg(long, value_name = "JSON")]
    pub(crate) metadata: Option<String>,
    /// The token of a lock that is already held: a wait that would be a deadlock is refused
    #[arg(long, value_name = "TOKEN")]
    pub(crate) holding: Vec<String>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Depth {
    Infinity,
    #[value(name = "0")]
    Zero,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct LockArgs {
    /// What to lock; several are locked in one step, all or none
    #[arg(required = true, value_name = "RESOURCE", value_parser = resource)]
    pub(crate) resources: Vec<String>,
    /// The lock lasts so long unless renewed [default: as the server's rule says]
    #[arg(long, value_name = "DURATION", value_parser = positive)]
    pub(crate) ttl: Option<Duration>,
    #[command(flatten)]
    pub(crate) wanted: Wanted,
    /// Wait so long for a turn, first come, first served [default: not at all]
    #[arg(long, value_name = "DURATION", value_parser = span, default_value = "0", hide_default_value = true)]
    pub(crate) wait: Duration,
    /// The same lock for every command with this key: makes it safe to repeat
    #[arg(long, value_name = "KEY")]
    pub(crate) idempotency_key: Option<String>,
    /// Print the token alone
    #[arg(long, short, conflicts_with_all = ["json", "human"])]
    pub(crate) quiet: bool,
    #[command(flatten)]
    pub(crate) output: Output,
    #[command(flatten)]
    pub(crate) remote: Remote,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct RenewArgs {
    /// A resource of the lock, or the lock's id
    #[arg(value_name = "RESOURCE|LOCK_ID", value_parser = subject)]
    pub(crate) subject: Subject,
    #[command(flatten)]
    pub(crate) tokens: Tokens,
    /// From now on for so long [default: what was last asked for]
    #[arg(long, value_name = "DURATION", value_parser = positive)]
    pub(crate) ttl: Option<Duration>,
    #[command(flatten)]
    pub(crate) output: Output,
    #[command(flatten)]
    pub(crate) remote: Remote,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct UnlockArgs {
    /// A resource of the lock, or the lock's id
    #[arg(value_name = "RESOURCE|LOCK_ID", value_parser = subject)]
    pub(crate) subject: Subject,
    #[command(flatten)]
    pub(crate) tokens: Tokens,
    #[command(flatten)]
    pub(crate) output: Output,
    #[command(flatten)]
    pub(crate) remote: Remote,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ShowArgs {
    /// A resource, or the id of a lock
    #[arg(value_name = "RESOURCE|LOCK_ID", value_parser = subject)]
    pub(crate) subject: Subject,
    #[command(flatten)]
    pub(crate) output: Output,
    #[command(flatten)]
    pub(crate) remote: Remote,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct LsArgs {
    /// Of this resource, or anything below it
    #[arg(long, value_name = "RESOURCE", value_parser = resource)]
    pub(crate) resource: Option<String>,
    /// Of this holder
    #[arg(long, value_name = "NAME")]
    pub(crate) holder: Option<String>,
    /// Of this kind, such as `lock`
    #[arg(long, value_name = "KIND")]
    pub(crate) kind: Option<String>,
    /// Taken through this protocol, such as `http`
    #[arg(long, value_name = "DIALECT")]
    pub(crate) dialect: Option<String>,
    /// That end before this moment: RFC 3339, or how long from now (`30s`, `5m`)
    #[arg(long, value_name = "WHEN", value_parser = coming)]
    pub(crate) expires_before: Option<Timestamp>,
    /// The most to print; 0 for all
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub(crate) limit: usize,
    #[command(flatten)]
    pub(crate) output: Output,
    #[command(flatten)]
    pub(crate) remote: Remote,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct BreakArgs {
    /// A resource that the lock covers, or the lock's id
    #[arg(value_name = "RESOURCE|LOCK_ID", value_parser = subject)]
    pub(crate) subject: Subject,
    /// Why: the holder is told, and it stays in the trail
    #[arg(long, value_name = "TEXT", required_unless_present = "dry_run")]
    pub(crate) reason: Option<String>,
    /// The holder may still write for so long
    #[arg(long, value_name = "DURATION", value_parser = span)]
    pub(crate) grace: Option<Duration>,
    /// This lock of the resource or none
    #[arg(long, value_name = "UUID")]
    pub(crate) lock_id: Option<LockId>,
    /// Change nothing, and tell what would end
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) output: Output,
    #[command(flatten)]
    pub(crate) remote: Remote,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct FreezeArgs {
    /// Nobody writes to this resource, or below it
    #[arg(value_parser = resource)]
    pub(crate) resource: String,
    /// Why: everyone who is refused is told
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: String,
    /// Until this moment: RFC 3339, or how long from now (`2h`, `3d`)
    #[arg(long, value_name = "WHEN", value_parser = coming)]
    pub(crate) until: Timestamp,
    #[command(flatten)]
    pub(crate) output: Output,
    #[command(flatten)]
    pub(crate) remote: Remote,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct UnfreezeArgs {
    /// What was frozen
    #[arg(value_parser = resource)]
    pub(crate) resource: String,
    #[command(flatten)]
    pub(crate) output: Output,
    #[command(flatten)]
    pub(crate) remote: Remote,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct TransferArgs {
    /// A resource of the lock, or the lock's id
    #[arg(value_name = "RESOURCE|LOCK_ID", value_parser = subject)]
    pub(crate) subject: Subject,
    /// To whom
    #[arg(long, value_name = "NAME")]
    pub(crate) to: String,
    #[command(flatten)]
    pub(crate) tokens: Tokens,
    #[command(flatten)]
    pub(crate) output: Output,
    #[command(flatten)]
    pub(crate) remote: Remote,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct RequestArgs {
    /// The resource that is wanted
    #[arg(value_parser = resource)]
    pub(crate) resource: String,
    /// What to tell the holder
    #[arg(long, value_name = "TEXT")]
    pub(crate) message: Option<String>,
    #[command(flatten)]
    pub(crate) output: Output,
    #[command(flatten)]
    pub(crate) remote: Remote,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct GetArgs {
    /// Which document
    #[arg(value_parser = resource)]
    pub(crate) resource: String,
    /// List what is below it instead
    #[arg(long)]
    pub(crate) list: bool,
    /// Print its ETag alone, for `--if-match`
    #[arg(long, conflicts_with = "list")]
    pub(crate) etag: bool,
    #[command(flatten)]
    pub(crate) output: Output,
    #[command(flatten)]
    pub(crate) remote: Remote,
}

/// What a document is to become, or how it is to change.
#[derive(Clone, Debug, Args)]
pub(crate) struct Content {
    /// A file; `-` for standard input
    #[arg(value_name = "FILE|-", required_unless_present = "data")]
    pub(crate) file: Option<PathBuf>,
    /// This text instead of a file
    #[arg(long, short, value_name = "TEXT", conflicts_with = "file")]
    pub(crate) data: Option<String>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct PutArgs {
    /// Which document
    #[arg(value_parser = resource)]
    pub(crate) resource: String,
    #[command(flatten)]
    pub(crate) content: Content,
    /// Its media type [default: JSON where it is, else application/octet-stream]
    #[arg(long, value_name = "TYPE")]
    pub(crate) content_type: Option<String>,
    /// Only replace the version with this ETag; `*` for any
    #[arg(long, value_name = "ETAG", conflicts_with = "create")]
    pub(crate) if_match: Option<String>,
    /// Only create: refuse where there is one
    #[arg(long)]
    pub(crate) create: bool,
    #[command(flatten)]
    pub(crate) tokens: Tokens,
    #[command(flatten)]
    pub(crate) output: Output,
    #[command(flatten)]
    pub(crate) remote: Remote,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct PatchArgs {
    /// Which document
    #[arg(value_parser = resource)]
    pub(crate) resource: String,
    /// The patch: a JSON array is a JSON Patch (RFC 6902), all else a merge patch (RFC 7396)
    #[command(flatten)]
    pub(crate) content: Content,
    /// Only the version with this ETag; `*` for any
    #[arg(long, value_name = "ETAG")]
    pub(crate) if_match: Option<String>,
    #[command(flatten)]
    pub(crate) tokens: Tokens,
    #[command(flatten)]
    pub(crate) output: Output,
    #[command(flatten)]
    pub(crate) remote: Remote,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct DeleteArgs {
    /// Which document
    #[arg(value_parser = resource)]
    pub(crate) resource: String,
    /// And everything below it
    #[arg(long)]
    pub(crate) recursive: bool,
    /// Only the version with this ETag; `*` for any
    #[arg(long, value_name = "ETAG")]
    pub(crate) if_match: Option<String>,
    #[command(flatten)]
    pub(crate) tokens: Tokens,
    #[command(flatten)]
    pub(crate) output: Output,
    #[command(flatten)]
    pub(crate) remote: Remote,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct RunArgs {
    /// What to lock; several are locked in one step, all or none
    #[arg(required = true, value_name = "RESOURCE", value_parser = resource)]
    pub(crate) resources: Vec<String>,
    /// The command, and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
    /// The lock lasts so long from each renewal; the command is stopped within it at the latest
    #[arg(long, value_name = "DURATION", value_parser = positive, default_value = "60s")]
    pub(crate) ttl: Duration,
    #[command(flatten)]
    pub(crate) wanted: Wanted,
    /// Wait so long for the lock [default: 30s; not at all with `--on-busy skip` or `fail`]
    #[arg(long, value_name = "DURATION", value_parser = span)]
    pub(crate) wait: Option<Duration>,
    /// What to do where somebody else has the lock
    #[arg(long, value_name = "WHAT", value_enum, default_value_t = OnBusy::Wait)]
    pub(crate) on_busy: OnBusy,
    /// How long the command has from SIGTERM to SIGKILL, where it has to be stopped
    ///
    /// At most a third of the lock's time: both fall before its end.
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = span)]
    pub(crate) grace: Duration,
    #[command(flatten)]
    pub(crate) remote: Remote,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum OnBusy {
    /// Wait, and end with 75 when it was not had in time
    Wait,
    /// Do without: end with 0
    Skip,
    /// End with 75
    Fail,
}

/// A resource: what is missing of its escapes is added when it is sent.
fn resource(text: &str) -> Result<String, String> {
    if text.starts_with('/') {
        return Ok(text.to_owned());
    }
    Err("a resource begins with a slash, such as /v1/flags/x".to_owned())
}

fn subject(text: &str) -> Result<Subject, String> {
    if text.starts_with('/') {
        return Ok(Subject::Resource(text.to_owned()));
    }
    text.parse().map(Subject::Lock).map_err(|_| {
        "expected a resource, which begins with a slash, or the id of a lock".to_owned()
    })
}

/// A span of time: `30s`, `1h30m`, or a number of seconds.
fn span(text: &str) -> Result<Duration, String> {
    if let Ok(seconds) = text.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds)
            .map_err(|_| "expected a number of seconds that is not negative".to_owned());
    }
    units::duration(text)
}

fn positive(text: &str) -> Result<Duration, String> {
    let span = span(text)?;
    if span.is_zero() { Err("it has to be longer than nothing".to_owned()) } else { Ok(span) }
}

/// A moment that comes: RFC 3339, or how long from now.
fn coming(text: &str) -> Result<Timestamp, String> {
    if let Ok(moment) = text.parse() {
        return Ok(moment);
    }
    let from_now = span(text).map_err(|_| {
        "expected RFC 3339 such as 2026-11-20T12:00:00Z, or how long from now, such as 2h or 3d"
            .to_owned()
    })?;
    Timestamp::now().checked_add(from_now).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_seconds_or_has_units() {
        for (text, ms) in
            [("0", 0), ("1.5", 1500), ("90", 90_000), ("250ms", 250), ("1h", 3_600_000)]
        {
            assert_eq!(span(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "-1", "soon", "nan", "1e300"] {
            assert!(span(text).is_err(), "{text}");
        }
        assert!(positive("0").is_err());
    }

    #[test]
    fn a_subject_is_a_resource_or_a_lock() {
        assert_eq!(subject("/a"), Ok(Subject::Resource("/a".to_owned())));
        let id = "0193b0a5-2f6e-7c3a-9d41-5b8f3c2e7a10";
        assert!(matches!(subject(id), Ok(Subject::Lock(_))));
        assert!(subject("a").is_err());
    }

    #[test]
    fn a_moment_comes_at_a_time_or_after_a_span() {
        assert_eq!(coming("1970-01-01T00:00:01Z"), Ok(Timestamp::from_second(1).unwrap()));
        let found = coming("2h").unwrap().as_second() - Timestamp::now().as_second();
        assert!((7190..=7200).contains(&found));
        assert!(coming("tomorrow").unwrap_err().contains("RFC 3339"));
    }
}
