//! What goes wrong with an upstream, and how it is told.

use std::time::Duration;

use leasehold_problems::{Name, Problem, Retryable};
use tokio::task::JoinHandle;

/// Why an exchange with the upstream has no answer, or none that is whole.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Fault {
    /// No connection came about.
    Connect,
    /// No connection came about in time.
    ConnectTimeout,
    /// It was silent for too long.
    Silent,
    /// It closed the connection, or sent what is no HTTP.
    BrokenOff,
    /// The client did not send the rest of its request.
    ClientGone,
}

impl Fault {
    /// Its name in the metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::ConnectTimeout => "connect-timeout",
            Self::Silent => "silent",
            Self::BrokenOff => "broken-off",
            Self::ClientGone => "client-gone",
        }
    }

    /// Whether the upstream has seen nothing of the request.
    #[must_use]
    pub fn is_not_sent(self) -> bool {
        matches!(self, Self::Connect | Self::ConnectTimeout)
    }
}

/// An exchange that has failed.
pub(super) struct Failure {
    pub(super) fault: Fault,
    /// For the log and, of a connection that did not come about, for the client.
    pub(super) why: String,
    /// Ends when the connection has been closed.
    pub(super) closing: Option<JoinHandle<()>>,
}

impl Failure {
    pub(super) fn problem(&self, silence: Duration) -> Box<Problem> {
        let silence = silence.as_secs_f64();
        let unknown = "whether the request took effect is not known";
        let told = match self.fault {
            Fault::Connect => Problem::new(
                Name::UpstreamUnreachable,
                format!("The upstream cannot be reached: {}. Nothing was sent.", self.why),
            ),
            Fault::ConnectTimeout => Problem::new(
                Name::UpstreamUnreachable,
                format!("No connection to the upstream within {silence} s. Nothing was sent."),
            ),
            Fault::Silent => Problem::new(
                Name::UpstreamTimeout,
                format!("The upstream was silent for {silence} s; {unknown}."),
            ),
            Fault::BrokenOff => Problem::new(
                Name::UpstreamUnreachable,
                format!("The upstream ended the connection without an answer; {unknown}."),
            ),
            Fault::ClientGone => {
                let detail = "The request's body ended before all of it had come.";
                return Box::new(
                    Problem::new(Name::MalformedRequest, detail).with("field", "body"),
                );
            }
        };
        Box::new(if self.fault.is_not_sent() {
            told.with("outcome", "not_sent").retry_after(1)
        } else {
            let mut told = told.with("outcome", "unknown");
            told.retryable = Some(Retryable::AfterChange);
            told
        })
    }
}
