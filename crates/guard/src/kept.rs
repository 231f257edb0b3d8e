//! A large answer, which keeps its share of the memory until it has been taken, or has been waited for
//! for too long.
//!
//! A client of HTTP/1.1 that reads nothing is found by its connection. One of HTTP/2 can keep the
//! window of a stream closed, and go on with the others; then nobody asks for more of the body, and
//! what nobody polls cannot have a timer of its own. So a task looks whether something was taken.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt as _;
use tokio::task::AbortHandle;
use tokio::time::sleep;

use crate::body::{Body, BoxError};
use crate::memory::Share;

/// How much is handed on at a time. It is a copy: a part of the whole would keep all of it.
const CHUNK: usize = 64 << 10;

/// `body`, which is given up when nothing of it was taken for as long as the memory's patience.
///
/// It is a body that need not be waited for; and this has to be called within a tokio runtime.
#[must_use]
pub fn kept(body: Body, share: Arc<Share>) -> Body {
    let patience = share.patience();
    let held = Held { body, rest: Bytes::new(), _share: share };
    let slot = Arc::new(Slot { held: Mutex::new(Some(held)), taken: AtomicU64::new(0) });
    let watched = Arc::clone(&slot);
    let watch = tokio::spawn(async move {
        let mut before = None;
        loop {
            let taken = watched.taken.load(Ordering::Relaxed);
            if before.replace(taken) == Some(taken) {
                drop(watched.lock().take());
                return;
            }
            sleep(patience).await;
        }
    });
    Kept { slot, watch: watch.abort_handle() }.boxed_unsync()
}

/// The client took nothing of an answer for too long.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the client took nothing of an answer for too long")]
pub struct GivenUp;

struct Kept {
    slot: Arc<Slot>,
    watch: AbortHandle,
}

struct Slot {
    /// None when it has ended or was given up.
    held: Mutex<Option<Held>>,
    /// How often something was taken.
    taken: AtomicU64,
}

struct Held {
    body: Body,
    rest: Bytes,
    _share: Arc<Share>,
}

impl Slot {
    fn lock(&self) -> MutexGuard<'_, Option<Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HttpBody for Kept {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut slot = self.slot.lock();
        let Some(held) = &mut *slot else { return Poll::Ready(Some(Err(Box::new(GivenUp)))) };
        self.slot.taken.fetch_add(1, Ordering::Relaxed);
        if held.rest.is_empty() {
            match ready!(Pin::new(&mut held.body).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => held.rest = data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                end => return Poll::Ready(end),
            }
        }
        let chunk = held.rest.split_to(CHUNK.min(held.rest.len()));
        Poll::Ready(Some(Ok(Frame::data(Bytes::copy_from_slice(&chunk)))))
    }

    fn is_end_stream(&self) -> bool {
        match &*self.slot.lock() {
            Some(held) => held.rest.is_empty() && held.body.is_end_stream(),
            // What was given up has not ended: its client must not take a part for the whole.
            None => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &*self.slot.lock() {
            Some(held) => {
                let rest = held.rest.len() as u64;
                let body = held.body.size_hint();
                let mut hint = SizeHint::new();
                hint.set_lower(body.lower() + rest);
                if let Some(upper) = body.upper() {
                    hint.set_upper(upper + rest);
                }
                hint
            }
            None => SizeHint::default(),
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.watch.abort();
        // The task may still have the slot for a moment.
        drop(self.slot.lock().take());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::body::full;
    use crate::memory::{Memory, SMALL};

    const PATIENCE: Duration = Duration::from_secs(2);

    fn large(memory: &Arc<Memory>) -> Body {
        let share = memory.share();
        share.grow(3 * SMALL).unwrap();
        kept(full(vec![7; 3 * SMALL]), share)
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_arrives_whole_however_slowly_it_is_taken_and_gives_back_its_share() {
        let memory = Memory::new(4 * SMALL, PATIENCE);
        let mut body = large(&memory);
        let mut left = 3 * SMALL;
        while !body.is_end_stream() {
            assert_eq!(body.size_hint().exact(), Some(left as u64));
            sleep(PATIENCE - Duration::from_millis(1)).await;
            let Some(frame) = body.frame().await else { break };
            let bytes = frame.unwrap().into_data().unwrap();
            assert!(bytes.iter().all(|byte| *byte == 7));
            left -= bytes.len();
            assert_eq!(memory.used(), 3 * SMALL);
        }
        assert_eq!(left, 0);
        drop(body);
        assert_eq!(memory.used(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_nobody_takes_is_given_up_and_is_no_whole_answer() {
        let memory = Memory::new(8 * SMALL, PATIENCE);
        let never = large(&memory);
        let mut begun = large(&memory);
        let part = begun.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(memory.used(), 6 * SMALL);
        sleep(PATIENCE * 3).await;
        assert_eq!(memory.used(), 0);
        assert!(!never.is_end_stream() && !begun.is_end_stream());
        let error = begun.frame().await.unwrap().unwrap_err();
        assert!(error.is::<GivenUp>());
        drop(part);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_is_dropped_gives_back_its_share_at_once() {
        let memory = Memory::new(4 * SMALL, PATIENCE);
        drop(large(&memory));
        assert_eq!(memory.used(), 0);
    }
}
