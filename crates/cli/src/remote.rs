//! The commands that talk to a running server.
//!
//! Modules in reading order: which server, and with which key ([`settings`]) and certificates
//! ([`certificates`]), what people are shown ([`tables`], [`progress`]), and the commands
//! ([`locks`], [`documents`]).

pub(crate) mod certificates;
pub(crate) mod documents;
pub(crate) mod locks;
pub(crate) mod progress;
pub(crate) mod settings;
pub(crate) mod tables;

use std::future::Future;
use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

use leasehold_client::{Client, Error, Name, RawReply, RetryPolicy, TlsFailure, Token};
use serde_json::Value;
use tokio::runtime::Builder;

use crate::args::remote::{Output, Remote, Tokens};
use crate::outcome::{Failure, with_causes};
use crate::output::{plain, stdout};
use settings::Target;
use tables::Paint;

/// The lock was not had in time, or for now: EX_TEMPFAIL of sysexits.h.
pub(crate) const NOT_NOW: u8 = 75;

/// For how long failures that pass are tried again. Somebody may be looking on.
const PATIENCE: Duration = Duration::from_secs(2);

/// A server, and how its answers are printed.
pub(crate) struct Session {
    pub(crate) client: Client,
    pub(crate) target: Target,
    output: Output,
}

impl Session {
    pub(crate) fn open(remote: &Remote, output: Output) -> Result<Self, Failure> {
        let target = settings::target(remote)?;
        let client = target
            .builder()
            .timeout(remote.timeout)
            .connect_timeout(remote.timeout.min(Duration::from_secs(5)))
            .retry(RetryPolicy::default().total(PATIENCE))
            .build()
            .map_err(|error| usage("--server", &error))?;
        Ok(Self { client, target, output })
    }

    /// Whether people are shown the result, and not programs.
    pub(crate) fn is_human(&self) -> bool {
        self.output.human || (!self.output.json && io::stdout().is_terminal())
    }

    /// Prints an answer: as it came, or as `shown` shows it to people.
    pub(crate) fn print(
        &self,
        json: &Value,
        shown: impl FnOnce(&Value, Paint) -> String,
    ) -> Result<(), Failure> {
        let mut out = stdout();
        if self.is_human() {
            write!(out, "{}", shown(json, Paint::for_stdout()))?;
        } else {
            writeln!(out, "{json}")?;
        }
        Ok(out.flush()?)
    }

    /// A success that has no body: a line for people, nothing for programs.
    pub(crate) fn done(&self, line: &str) -> Result<(), Failure> {
        if self.is_human() {
            let mut out = stdout();
            writeln!(out, "{line}")?;
            out.flush()?;
        }
        Ok(())
    }

    /// How a request that failed ends the command.
    pub(crate) fn failure(&self, error: &Error) -> Failure {
        if let Some(problem) = error.problem().filter(|_| self.output.json) {
            return Failure::as_json(1, Value::Object(problem.members().clone()).to_string());
        }
        failure(error, &self.target)
    }

    /// How an acquire that failed ends the command.
    pub(crate) fn not_had(&self, error: &Error) -> Failure {
        let failure = self.failure(error);
        if is_busy(error) || error.is_lost() { failure.coded(NOT_NOW) } else { failure }
    }
}

/// Whether the lock was not had because of others, and may be had later.
pub(crate) fn is_busy(error: &Error) -> bool {
    [Name::Locked, Name::Frozen, Name::RateLimited, Name::QueueFull, Name::TooManyLocks]
        .iter()
        .any(|name| error.is(*name))
}

/// What failed, in a sentence, and what to do about it.
pub(crate) fn failure(error: &Error, target: &Target) -> Failure {
    let line = plain(&with_causes(error));
    match error {
        Error::Refused(problem) => {
            let said = plain(problem.detail().trim_end_matches('.'));
            let line = match problem.name() {
                Some(name) => format!("{said} ({} {name})", problem.status().as_u16()),
                None => line,
            };
            let hint = match problem.name() {
                Some(Name::Locked) => {
                    "ask the holder with `leasehold request`, or wait: `lock` and `run` have --wait"
                        .to_owned()
                }
                Some(Name::Unauthenticated) => match &target.key_from {
                    Some(from) => format!("the key from {from} is not one of its keys"),
                    None => "it asks for an API key: give --key-file, or LEASEHOLD_KEY".to_owned(),
                },
                Some(Name::LockTokenRequired) => {
                    "give the lock's token: --token, or LEASEHOLD_TOKEN".to_owned()
                }
                Some(name) => format!("`leasehold explain {name}` says what to do"),
                None => "is that a Leasehold server?".to_owned(),
            };
            Failure::failed(format!("{line}; {hint}"))
        }
        Error::Transport { .. } | Error::Timeout { .. } => {
            let caution = if error.has_no_side_effects() {
                ""
            } else {
                "it may have done what it was asked to all the same; "
            };
            Failure::unreachable(format!(
                "{line}; {caution}is the server running at {}? --server names another",
                target.url
            ))
        }
        Error::Tls { failure, .. } => {
            Failure::unreachable(line + &what_to_do(*failure, &target.url))
        }
        Error::Invalid(_) => Failure::usage(vec![line]),
        Error::Protocol(_) => {
            Failure::failed(format!("{line}; is there a Leasehold server at {}?", target.url))
        }
        _ => Failure::failed(line),
    }
}

/// What to do about TLS that did not come about, where that can be told.
fn what_to_do(failure: TlsFailure, url: &str) -> String {
    let hint = match failure {
        TlsFailure::UnknownIssuer => "; --ca-cert FILE names the authority to trust",
        TlsFailure::Expired | TlsFailure::NotValidYet => {
            "; the server needs another, unless the clock of this machine is wrong"
        }
        TlsFailure::WrongName => "; --server names the server as its certificate does",
        TlsFailure::ClientCertificate => "; --client-cert and --client-key name the one to show",
        TlsFailure::NotSpoken => {
            return format!("; is it {}?", url.replacen("https://", "http://", 1));
        }
        TlsFailure::Expected => {
            return format!("; use --server {}", url.replacen("http://", "https://", 1));
        }
        _ => "",
    };
    hint.to_owned()
}

/// A wrong argument, by its name.
pub(crate) fn usage(argument: &str, error: &Error) -> Failure {
    Failure::usage(vec![format!("{argument}: {}", plain(&with_causes(error)))])
}

/// The tokens that were given. A wrong one is not shown: it may be half a secret.
pub(crate) fn tokens(tokens: &Tokens) -> Result<Vec<Token>, Failure> {
    let filled = tokens.tokens.iter().map(|text| text.trim()).filter(|text| !text.is_empty());
    filled
        .map(|text| {
            text.parse::<Token>().map_err(|error| usage("--token (or LEASEHOLD_TOKEN)", &error))
        })
        .collect()
}

/// Runs a command's requests.
pub(crate) fn wait_for<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Failure::because(&error, ""))?.block_on(work)
}

/// The body as JSON; of an answer without a body, null.
pub(crate) fn body(reply: &RawReply) -> Result<Value, Error> {
    if reply.body.is_empty() { Ok(Value::Null) } else { reply.json() }
}
