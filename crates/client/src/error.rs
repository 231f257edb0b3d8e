//! What can go wrong.

use std::time::Duration;

use http::StatusCode;
use leasehold_problems::Name;

use crate::lost::Lost;
use crate::problem::Problem;

/// Why a request was not carried out, or is not known to have been.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The server refused. This is a normal answer: somebody else holds the lock, the document
    /// has changed.
    #[error("{0}")]
    Refused(Box<Problem>),
    /// The connection failed.
    #[error("{what}")]
    Transport {
        /// What was attempted.
        what: String,
        /// Whether the server may have had the request.
        sent: bool,
        /// What failed.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// TLS did not come about: one end does not speak it, or one is not who it should be. Nothing
    /// was done, and the same will not work before somebody has changed something.
    #[error("no connection to {authority}: {what}")]
    Tls {
        /// What stood in the way.
        failure: TlsFailure,
        /// The host and port.
        authority: String,
        /// The same in words.
        what: String,
    },
    /// No whole answer in time.
    #[error("no answer within {:.1} s", after.as_secs_f32())]
    Timeout {
        /// How long it was waited for.
        after: Duration,
        /// Whether the server may have had the request.
        sent: bool,
    },
    /// The answer is not one that a Leasehold server gives.
    #[error("the answer cannot be understood: {0}")]
    Protocol(String),
    /// The lock that this was to be done under is lost.
    #[error("{0}")]
    Lost(#[from] Lost),
    /// What was asked for cannot be sent.
    #[error("cannot be sent: {0}")]
    Invalid(String),
}

/// What stands in the way of TLS.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum TlsFailure {
    /// Nobody who is trusted here has signed the server's certificate.
    UnknownIssuer,
    /// The server's certificate is not valid any more.
    Expired,
    /// The server's certificate is not valid yet.
    NotValidYet,
    /// The server's certificate is for other names.
    WrongName,
    /// Something else is wrong with the server's certificate.
    Certificate,
    /// The server asks for a client certificate, or for another one.
    ClientCertificate,
    /// The address is `https://`, and the server does not speak TLS there.
    NotSpoken,
    /// The address is `http://`, and the server speaks TLS there.
    Expected,
    /// The two ends have nothing in common, or one does not keep to the protocol.
    Handshake,
}

impl Error {
    /// Whether the same call may work later.
    ///
    /// For a refusal, what the server says. A failed connection and a timeout are such; an answer
    /// that cannot be understood, a certificate that cannot be trusted and a lost lock are not.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Refused(problem) => problem.is_retryable(),
            Self::Transport { .. } | Self::Timeout { .. } => true,
            Self::Tls { .. } | Self::Protocol(_) | Self::Lost(_) | Self::Invalid(_) => false,
        }
    }

    /// Whether it is certain that nothing was changed. If not, the call may have worked: look
    /// before doing it again.
    #[must_use]
    pub fn has_no_side_effects(&self) -> bool {
        match self {
            Self::Refused(problem) => problem.has_no_side_effects(),
            Self::Transport { sent, .. } | Self::Timeout { sent, .. } => !sent,
            // The answer said that something was done, or came from somebody else.
            Self::Protocol(_) => false,
            Self::Tls { .. } | Self::Lost(_) | Self::Invalid(_) => true,
        }
    }

    /// When to ask again, where the server said so.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.problem()?.retry_after()
    }

    /// The refusal.
    #[must_use]
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Refused(problem) => Some(problem),
            _ => None,
        }
    }

    /// Whether it is this refusal.
    #[must_use]
    pub fn is(&self, name: Name) -> bool {
        self.problem().is_some_and(|problem| problem.is(name))
    }

    /// The status of the refusal.
    #[must_use]
    pub fn status(&self) -> Option<StatusCode> {
        self.problem().map(Problem::status)
    }

    /// Whether somebody else holds what was asked for: `locked`.
    #[must_use]
    pub fn is_locked(&self) -> bool {
        self.is(Name::Locked)
    }

    /// Whether there is nothing there: `not-found`.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.is(Name::NotFound)
    }

    /// Whether no connection came about.
    #[must_use]
    pub fn is_connect(&self) -> bool {
        matches!(self, Self::Transport { sent: false, .. } | Self::Tls { .. })
    }

    /// Whether there was no answer in time.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::Timeout { .. })
    }

    /// Whether the lock is lost: by the client's own count, or as the server says
    /// (`lock-gone`, `lock-lost`).
    #[must_use]
    pub fn is_lost(&self) -> bool {
        matches!(self, Self::Lost(_)) || self.is(Name::LockGone) || self.is(Name::LockLost)
    }
}
