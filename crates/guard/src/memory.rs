//! How much memory bodies may take: those of requests while they are read and worked on, and those
//! of large answers until they are on their way.
//!
//! What always holds: all of them together take at most what they may. A quarter of it is kept for
//! bodies that are small, so that a few hundred large ones, or slow ones, do not keep everybody else
//! out. One that finds no room is refused, and may be sent again.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt as _;
use leasehold_problems::{Name, Problem};

use crate::body::{Body, BoxError};

/// Up to this size a body is small.
pub const SMALL: usize = 64 << 10;

/// The memory that bodies share.
#[derive(Debug)]
pub struct Memory {
    most: usize,
    patience: Duration,
    used: AtomicUsize,
}

/// What one body has taken. Dropped, it is given back.
#[derive(Debug)]
pub struct Share {
    memory: Arc<Memory>,
    taken: AtomicUsize,
}

/// There is no room for more of a body.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("bodies have as much memory as they may have")]
pub struct NoRoom;

impl Memory {
    /// So many bytes, and how long an answer may keep its own while nobody takes any of it.
    #[must_use]
    pub fn new(most: usize, patience: Duration) -> Arc<Self> {
        Arc::new(Self { most, patience, used: AtomicUsize::new(0) })
    }

    /// How many bytes are taken.
    #[must_use]
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// A share that has nothing yet.
    #[must_use]
    pub fn share(self: &Arc<Self>) -> Arc<Share> {
        Arc::new(Share { memory: self.clone(), taken: AtomicUsize::new(0) })
    }
}

impl Share {
    pub(crate) fn patience(&self) -> Duration {
        self.memory.patience
    }

    /// Takes so many bytes more.
    ///
    /// # Errors
    /// When there is no room for them.
    pub fn grow(&self, bytes: usize) -> Result<(), NoRoom> {
        let is_small = self.taken.load(Ordering::Relaxed).saturating_add(bytes) <= SMALL;
        let most = self.memory.most;
        let limit = if is_small { most } else { most - most / 4 };
        let more = |used: usize| used.checked_add(bytes).filter(|used| *used <= limit);
        self.memory
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .map_err(|_| NoRoom)?;
        self.taken.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.memory.used.fetch_sub(*self.taken.get_mut(), Ordering::Relaxed);
    }
}

/// `body`, which takes from `share` what it brings, and fails with [`NoRoom`] where that is too
/// much.
#[must_use]
pub fn counted<B>(body: B, share: Arc<Share>) -> Body
where
    B: HttpBody<Data = Bytes, Error = BoxError> + Send + Unpin + 'static,
{
    Counted { body, share }.boxed_unsync()
}

struct Counted<B> {
    body: B,
    share: Arc<Share>,
}

impl<B: HttpBody<Data = Bytes, Error = BoxError> + Unpin> HttpBody for Counted<B> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
            && let Err(no_room) = self.share.grow(data.len())
        {
            return Poll::Ready(Some(Err(Box::new(no_room))));
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The refusal of a request whose body could not be read to its end.
#[must_use]
pub fn broke_off(error: &BoxError) -> Box<Problem> {
    if error.is::<NoRoom>() {
        return no_room();
    }
    tracing::debug!(error = &**error as &dyn std::error::Error, "a body broke off");
    Box::new(Problem::new(Name::MalformedRequest, "The body broke off.").with("field", "body"))
}

/// The refusal where there is no room for a body.
#[must_use]
pub fn no_room() -> Box<Problem> {
    let detail = "The server has as many large requests and answers at a time as it may have; \
                  nothing was changed. Try again in a moment.";
    Box::new(Problem::new(Name::Unavailable, detail).retry_after(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::body::full;

    #[test]
    fn a_quarter_is_kept_for_small_bodies_and_all_is_given_back() {
        let memory = Memory::new(16 * SMALL, Duration::MAX);
        let large = memory.share();
        assert_eq!(large.grow(12 * SMALL + 1), Err(NoRoom));
        large.grow(12 * SMALL).unwrap();
        assert_eq!(memory.share().grow(SMALL + 1), Err(NoRoom));
        let small: Vec<_> = (0..4).map(|_| memory.share()).collect();
        for each in &small {
            each.grow(SMALL).unwrap();
            // Another byte, and it is none of the small ones.
            assert_eq!(each.grow(1), Err(NoRoom));
        }
        assert_eq!(memory.share().grow(1), Err(NoRoom));
        drop(small);
        assert_eq!(memory.used(), 12 * SMALL);
        drop(large);
        assert_eq!(memory.used(), 0);
    }

    #[tokio::test]
    async fn a_body_fails_where_there_is_no_room() {
        let memory = Memory::new(4 * SMALL, Duration::MAX);
        let share = memory.share();
        let read = counted(full(vec![0; 3 * SMALL]), share.clone()).collect().await;
        assert_eq!(read.unwrap().to_bytes().len(), 3 * SMALL);
        let error = counted(full(vec![0; SMALL + 1]), memory.share()).collect().await.unwrap_err();
        assert_eq!(broke_off(&error).name, Name::Unavailable);
        drop(share);
        assert_eq!(memory.used(), 0);
    }
}
