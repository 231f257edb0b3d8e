//! A future that is looked at only when it has something new.
//!
//! A connection is woken for each piece of each request; its timers and its stop, which wait beside
//! it in one task, hardly ever. Asked each time, they cost as much as reading a request's head does.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

/// `F`, which is polled when it has been woken itself, and not when only the task it is part of
/// has.
pub(super) struct Dormant<F> {
    future: F,
    alarm: Arc<Alarm>,
}

/// What the future is given as its waker.
struct Alarm {
    rang: AtomicBool,
    task: Mutex<Waker>,
}

impl<F> Dormant<F> {
    pub(super) fn new(future: F) -> Self {
        let task = Mutex::new(Waker::noop().clone());
        // The first poll has to reach the future, or nothing would ever wake it.
        Self { future, alarm: Arc::new(Alarm { rang: AtomicBool::new(true), task }) }
    }
}

impl<F: Future + Unpin> Future for Dormant<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        // Before it is looked whether it rang: one that rings later wakes this task.
        self.alarm.is_for(context.waker());
        if !self.alarm.rang.swap(false, Ordering::AcqRel) {
            return Poll::Pending;
        }
        let waker = Waker::from(Arc::clone(&self.alarm));
        Pin::new(&mut self.future).poll(&mut Context::from_waker(&waker))
    }
}

impl Alarm {
    fn is_for(&self, waker: &Waker) {
        // Nothing panics while it is held.
        let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        if !task.will_wake(waker) {
            task.clone_from(waker);
        }
    }
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rang.store(true, Ordering::Release);
        self.task.lock().unwrap_or_else(PoisonError::into_inner).wake_by_ref();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use tokio::sync::oneshot;

    use super::*;

    #[derive(Default)]
    struct Counting(AtomicUsize);

    impl Wake for Counting {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts how often it is looked at.
    struct Watched<F>(F, Arc<AtomicUsize>);

    impl<F: Future + Unpin> Future for Watched<F> {
        type Output = F::Output;

        fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
            self.1.fetch_add(1, Ordering::Relaxed);
            Pin::new(&mut self.0).poll(context)
        }
    }

    #[test]
    fn it_is_looked_at_when_it_is_woken_and_wakes_whoever_looked_last() {
        let (send, receive) = oneshot::channel();
        let polls = Arc::new(AtomicUsize::new(0));
        let mut dormant = Dormant::new(Watched(receive, Arc::clone(&polls)));
        let wakers = [Arc::new(Counting::default()), Arc::new(Counting::default())];
        let mut poll = |waker: &Arc<Counting>| {
            let waker = Waker::from(Arc::clone(waker));
            Pin::new(&mut dormant).poll(&mut Context::from_waker(&waker))
        };
        for waker in [&wakers[0], &wakers[0], &wakers[1]] {
            assert_eq!(poll(waker), Poll::Pending);
        }
        assert_eq!(polls.load(Ordering::Relaxed), 1);
        send.send(7).unwrap();
        let woken = wakers.each_ref().map(|waker| waker.0.load(Ordering::Relaxed));
        assert_eq!(woken, [0, 1]);
        assert_eq!(poll(&wakers[1]), Poll::Ready(Ok(7)));
        assert_eq!(polls.load(Ordering::Relaxed), 2);
    }
}
