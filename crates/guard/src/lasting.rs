//! A future that goes on without whoever waits for it.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// `future`, which is carried on to its end even when this is dropped: in a task of its own then,
/// one of `tasks`. While somebody waits there is no task, and so nothing to hand over to it.
pub(crate) fn lasting<F>(tasks: &TaskTracker, future: F) -> Lasting<F::Output>
where
    F: Future + Send + 'static,
{
    let runtime = Handle::try_current().ok();
    Lasting { future: Some(Box::pin(future)), token: tasks.token(), runtime }
}

/// See [`lasting`].
pub(crate) struct Lasting<T: 'static> {
    /// None once it has ended.
    future: Option<Pin<Box<dyn Future<Output = T> + Send>>>,
    token: TaskTrackerToken,
    /// Where it goes on; nowhere without one.
    runtime: Option<Handle>,
}

impl<T> Future for Lasting<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        // Taken out: one that panics does not go on.
        let Some(mut future) = self.future.take() else { return Poll::Pending };
        let polled = future.as_mut().poll(context);
        if polled.is_pending() {
            self.future = Some(future);
        }
        polled
    }
}

impl<T> Drop for Lasting<T> {
    fn drop(&mut self) {
        if let (Some(future), Some(runtime)) = (self.future.take(), &self.runtime) {
            let token = self.token.clone();
            runtime.spawn(async move {
                let _token = token;
                future.await;
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn it_ends_with_who_waits_and_without() {
        let tasks = TaskTracker::new();
        assert_eq!(lasting(&tasks, async { 7 }).await, 7);

        let (ask, asked) = oneshot::channel();
        let (told, tell) = oneshot::channel();
        let mut waiting = lasting(&tasks, async move {
            let _ = told.send(asked.await);
        });
        let begun = std::future::poll_fn(|context| {
            Poll::Ready(Pin::new(&mut waiting).poll(context).is_pending())
        });
        assert!(begun.await);
        drop(waiting);
        tasks.close();
        assert_eq!(tasks.len(), 1, "a stop waits for it");
        ask.send("on").unwrap();
        assert_eq!(tell.await.unwrap(), Ok("on"));
        tasks.wait().await;

        // Not even begun, it goes on as well.
        let (told, tell) = oneshot::channel();
        drop(lasting(&tasks, async move { told.send(1) }));
        assert_eq!(tell.await, Ok(1));
    }
}
