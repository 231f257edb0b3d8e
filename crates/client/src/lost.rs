//! How a held lock was lost.

use std::fmt;

use crate::problem::{Ended, Problem};

/// A lock is not held any more. Whatever was read under it may have changed.
#[derive(Clone, Debug, thiserror::Error)]
pub struct Lost {
    how: How,
}

/// How a lock was lost.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum How {
    /// Its time has passed, counted here from the moment of sending: renewals did not get
    /// through, or this process stood still. The server may still think that it lives.
    Expired,
    /// The server says that it has ended.
    Ended(Ended),
    /// The server does not take the token, or says that it is another's.
    Refused(Box<Problem>),
    /// It was released here.
    Released,
}

impl Lost {
    pub(crate) fn new(how: How) -> Self {
        Self { how }
    }

    /// How.
    #[must_use]
    pub fn how(&self) -> &How {
        &self.how
    }

    /// Whether it was let go on purpose.
    #[must_use]
    pub fn is_released(&self) -> bool {
        matches!(self.how, How::Released)
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.how {
            How::Expired => {
                f.write_str("the lock was lost: its time ran out before it was renewed")
            }
            How::Ended(ended) => {
                write!(f, "the lock was lost: {}", ended.how)?;
                if let Some(by) = &ended.by {
                    write!(f, " by {by}")?;
                }
                if let Some(reason) = &ended.reason {
                    write!(f, ": {reason}")?;
                }
                Ok(())
            }
            How::Refused(problem) => write!(f, "the lock was lost: {problem}"),
            How::Released => f.write_str("the lock was released"),
        }
    }
}
