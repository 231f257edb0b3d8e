//! The command line. What talks to a running server is in [`remote`].

pub(crate) mod remote;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use leasehold_core::ids::{LockId, Principal, Seq};
use leasehold_core::resource::Resource;
use leasehold_core::time::WallTime;
use leasehold_journal::log::{Hash, from_hex};
use leasehold_server::config::{DEFAULT_DATA, units};
use leasehold_server::identity::RoleName;

/// Locks for HTTP resources
#[derive(Debug, Parser)]
#[command(
    name = "leasehold",
    version,
    arg_required_else_help = true,
    after_help = "Exit codes: 0 done, 1 failed or refused, 2 wrong usage or configuration, \
                  3 the trail did not pass `audit verify`, 4 the server cannot be reached, \
                  69 `run` lost the lock, 75 the lock was not had in time."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the server
    Serve(Box<leasehold_server::ServeArgs>),
    /// Make, list and remove API keys
    #[command(subcommand)]
    Key(KeyCommand),
    /// Rotate the secret that lock tokens are made with
    #[command(subcommand)]
    TokenKey(TokenKeyCommand),
    /// Read and verify the audit trail
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Check the rules of a configuration, and what they say of requests
    #[command(subcommand)]
    Rules(RulesCommand),
    /// Copy a data folder into one file, while the server runs or not
    Backup(BackupArgs),
    /// Make a data folder from a backup
    Restore(RestoreArgs),
    /// Say what an answer of the server means, and what to do about it
    Explain {
        /// A status (`423`), the name of a problem (`locked`), or both
        #[arg(required = true)]
        what: Vec<String>,
    },
    /// Acquire a lock, and print its token
    Lock(remote::LockArgs),
    /// Renew a lock
    Renew(remote::RenewArgs),
    /// Release a lock
    Unlock(remote::UnlockArgs),
    /// Run a command under a lock, and stop it before the lock could be another's
    ///
    /// The lock is renewed while the command runs, and released when it has ended. The command has
    /// LEASEHOLD_TOKEN, LEASEHOLD_FENCE, LEASEHOLD_LOCK_ID, LEASEHOLD_RESOURCE and
    /// LEASEHOLD_SERVER, and a process group of its own, which gets the signals that `run` gets.
    /// Where the lock cannot be renewed, the group is sent SIGTERM and then SIGKILL, both before
    /// the lock ends.
    #[command(after_help = "Exit codes: the command's own, 128 and the number of the signal that \
                            ended it, 126 or 127 where it cannot be run; 75 the lock was not had \
                            in time, 69 the lock was lost and the command stopped, 4 the server \
                            cannot be reached, 1 or 2 as everywhere.")]
    Run(remote::RunArgs),
    /// Show who has a resource, who waits, and whether it is frozen; or one lock
    Show(remote::ShowArgs),
    /// List live locks
    Ls(remote::LsArgs),
    /// End a lock for its holder
    Break(remote::BreakArgs),
    /// Hand a lock over to somebody else, and print its new token
    Transfer(remote::TransferArgs),
    /// Ask the holder of a lock to let go
    Request(remote::RequestArgs),
    /// Stop all writes to a resource and everything below it
    Freeze(remote::FreezeArgs),
    /// Allow them again
    Unfreeze(remote::UnfreezeArgs),
    /// Print a document
    Get(remote::GetArgs),
    /// Store a document
    Put(remote::PutArgs),
    /// Change a document, and print it
    Patch(remote::PatchArgs),
    /// Delete a document
    Delete(remote::DeleteArgs),
    /// Print what completes this command line in a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or write those of all commands into a folder
    Man {
        /// The folder; made where there is none
        folder: Option<PathBuf>,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum RulesCommand {
    /// Check the configuration, and tell what requests would get by its rules
    ///
    /// For each request: its rule, the resource that it names, whether it is a read, a write or
    /// about a lock, and the locks whose tokens it would need. No server is asked, and nothing is
    /// known of the fields of the requests.
    #[command(after_help = "Exit codes: 0 the configuration is right, whatever the requests get; \
                            2 it is not, or a request is none.")]
    Check(Box<RulesCheckArgs>),
}

#[derive(Clone, Debug, Args)]
pub(crate) struct RulesCheckArgs {
    /// Requests: a method and a URL each, such as `DELETE /v1/flags/7`
    #[arg(value_name = "METHOD URL")]
    pub(crate) requests: Vec<String>,
    #[command(flatten)]
    pub(crate) serve: leasehold_server::ServeArgs,
    #[command(flatten)]
    pub(crate) output: remote::Output,
}

/// The data folder of a command that works on it directly.
#[derive(Clone, Debug, Args)]
pub(crate) struct Data {
    /// The data folder
    #[arg(
        long = "data",
        value_name = "DIR",
        env = "LEASEHOLD_DATA",
        default_value = DEFAULT_DATA
    )]
    pub(crate) folder: PathBuf,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenKeyCommand {
    /// Make a new secret; tokens made before still work for a while
    ///
    /// A running server takes the new secret on SIGHUP. To revoke every token at once, stop the
    /// server and remove `token.key` from the data folder: the next start makes a new one.
    Rotate {
        /// For how long tokens made with the old secret still work: at least the longest
        /// `max_hold`
        #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = units::duration)]
        keep: std::time::Duration,
        #[command(flatten)]
        data: Data,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Make a key, and print it once
    ///
    /// The key is the last line of standard output, alone; everything else goes to standard
    /// error. It is not kept anywhere. A running server takes it at once.
    Add {
        /// Whom it speaks for: the name that is shown as the holder of its locks
        name: String,
        /// What it may do; more than one may be given
        ///
        /// reader: read. writer: read, write, lock. manager: as writer, and break and freeze.
        /// auditor: read, and the trail. admin: everything.
        #[arg(long = "role", value_name = "ROLE", required = true)]
        roles: Vec<RoleName>,
        /// Where it may: a pattern such as `/flags/{id}/**`; everywhere without
        #[arg(long = "path", value_name = "PATTERN")]
        paths: Vec<String>,
        #[command(flatten)]
        data: Data,
    },
    /// List the keys: never their secrets
    Ls {
        /// Print a JSON array
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        data: Data,
    },
    /// Remove a key; a running server refuses it within a second
    Rm {
        /// Its name
        name: String,
        #[command(flatten)]
        data: Data,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// Print events of the trail
    Query {
        #[command(flatten)]
        filter: Filter,
        /// From this moment on: RFC 3339, or how long ago (`90`, `5m`, `2d`)
        #[arg(long, value_name = "WHEN", value_parser = moment)]
        since: Option<WallTime>,
        /// Before this moment
        #[arg(long, value_name = "WHEN", value_parser = moment)]
        until: Option<WallTime>,
        /// The newest first
        #[arg(long)]
        desc: bool,
        /// The most events to print; 0 for all
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: usize,
    },
    /// Print events as they happen, until it is interrupted
    Follow {
        #[command(flatten)]
        filter: Filter,
        /// Begin with this event instead of the next one
        #[arg(long, value_name = "SEQ")]
        from: Option<u64>,
    },
    /// Print the newest event's number and hash, to keep elsewhere
    Head {
        #[command(flatten)]
        data: Data,
    },
    /// Check the chain of hashes, and replay what the trail promises
    ///
    /// Exclusion, growing fences, every write under a lock that was live. Ends with 3 where
    /// something is wrong.
    Verify {
        /// What `audit head` printed once: the trail must still contain it
        #[arg(long, value_name = "SEQ:HASH", value_parser = head)]
        head: Option<(Seq, Hash)>,
        #[command(flatten)]
        data: Data,
    },
}

/// Which events.
#[derive(Clone, Debug, Args)]
pub(crate) struct Filter {
    /// About this resource, or anything below it
    #[arg(long, value_name = "PATH", value_parser = Resource::parse)]
    pub(crate) resource: Option<Resource>,
    /// About locks of this holder
    #[arg(long, value_name = "NAME", value_parser = principal)]
    pub(crate) holder: Option<Principal>,
    /// Caused by this principal
    #[arg(long, value_name = "NAME", value_parser = principal)]
    pub(crate) actor: Option<Principal>,
    /// Of this type, such as `acquired`
    #[arg(long = "type", value_name = "TYPE")]
    pub(crate) kind: Option<String>,
    /// About this lock
    #[arg(long, value_name = "UUID")]
    pub(crate) lock_id: Option<LockId>,
    /// Print each event as it is stored, one JSON object a line
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) data: Data,
}

#[derive(Debug, Args)]
pub(crate) struct BackupArgs {
    /// The file to write; one that exists is replaced
    pub(crate) file: PathBuf,
    /// Put the secret that tokens are made with into it, too
    ///
    /// A restore does not need it: it begins with tokens of its own, and refuses those from before
    /// in any case. Whoever reads such a backup can make tokens of the server that it is from.
    #[arg(long)]
    pub(crate) include_token_key: bool,
    #[command(flatten)]
    pub(crate) data: Data,
}

#[derive(Debug, Args)]
pub(crate) struct RestoreArgs {
    /// The backup
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) data: Data,
}

fn principal(text: &str) -> Result<Principal, String> {
    if text.is_empty() { Err("a name is not empty".to_owned()) } else { Ok(Principal::new(text)) }
}

fn head(text: &str) -> Result<(Seq, Hash), String> {
    let read = || {
        let (seq, hash) = text.split_once(':')?;
        Some((Seq(seq.parse().ok()?), from_hex(hash)?))
    };
    read().ok_or_else(|| "expected what `leasehold audit head` prints: SEQ:HASH".to_owned())
}

/// A moment: RFC 3339, or how long ago it was, in seconds or with units.
fn moment(text: &str) -> Result<WallTime, String> {
    if let Ok(moment) = text.parse() {
        return Ok(moment);
    }
    let ago = match text.parse::<u32>() {
        Ok(seconds) => u64::from(seconds) * 1000,
        Err(_) => match units::duration(text) {
            Ok(ago) => leasehold_core::time::millis(ago),
            Err(_) => {
                return Err("expected RFC 3339 such as 2026-11-20T12:00:00Z, or how long ago, \
                            such as 90, 5m or 2d"
                    .to_owned());
            }
        },
    };
    Ok(WallTime(jiff::Timestamp::now().as_millisecond()) - ago)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_moment_is_a_time_or_an_age() {
        assert_eq!(moment("1970-01-01T00:00:01Z"), Ok(WallTime(1000)));
        let now = jiff::Timestamp::now().as_millisecond();
        for (text, ago) in [("90", 90_000), ("5m", 300_000), ("2d", 172_800_000)] {
            let found = moment(text).unwrap().0;
            assert!((now - ago..now - ago + 10_000).contains(&found), "{text}");
        }
        assert!(moment("yesterday").is_err());
        assert!(head("1:00").is_err());
        assert_eq!(head(&format!("7:{}", "00".repeat(32))), Ok((Seq(7), [0; 32])));
    }
}
