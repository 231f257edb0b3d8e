//! A connection whose client has to take what it is sent.
//!
//! hyper has no timer for that: an answer that nobody reads would stay in memory for as long as its
//! client answers keep-alive probes, which any client does that is merely hostile or hung.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// `stream`, on which a write fails when the peer has taken nothing for so long.
pub(super) struct Progress<S> {
    stream: S,
    silence: Duration,
    /// Set while a write waits. Made at the first wait: most answers are taken at once.
    timer: Option<Timer>,
}

struct Timer {
    sleep: Pin<Box<Sleep>>,
    runs: bool,
}

impl<S> Progress<S> {
    pub(super) fn new(stream: S, silence: Duration) -> Self {
        Self { stream, silence, timer: None }
    }

    /// The result of a write, or the failure of one that has waited for too long.
    fn watched<T>(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            if let Some(timer) = &mut self.timer {
                timer.runs = false;
            }
            return written;
        }
        let silence = self.silence;
        let timer =
            self.timer.get_or_insert_with(|| Timer { sleep: Box::pin(sleep(silence)), runs: true });
        if !timer.runs {
            timer.sleep.as_mut().reset(Instant::now() + silence);
            timer.runs = true;
        }
        ready!(timer.sleep.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!(
                "the client took nothing of an answer for {}",
                crate::config::units::show(silence)
            ),
        )))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Progress<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Progress<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watched(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.watched(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.watched(context, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(context);
        self.watched(context, shut)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    const SILENCE: Duration = Duration::from_secs(2);

    #[tokio::test(start_paused = true)]
    async fn a_write_that_nobody_takes_fails_and_one_that_is_taken_slowly_does_not() {
        let (ours, mut theirs) = duplex(4);
        let mut ours = Progress::new(ours, SILENCE);
        let reading = tokio::spawn(async move {
            let mut byte = [0];
            for _ in 0..8 {
                sleep(SILENCE - Duration::from_millis(1)).await;
                theirs.read_exact(&mut byte).await.unwrap();
            }
            theirs
        });
        ours.write_all(&[0; 12]).await.unwrap();
        let theirs = reading.await.unwrap();
        let start = Instant::now();
        let error = ours.write_all(&[0; 1]).await.unwrap_err();
        assert_eq!((error.kind(), start.elapsed()), (io::ErrorKind::TimedOut, SILENCE));
        assert_eq!(error.to_string(), "the client took nothing of an answer for 2s");
        drop(theirs);
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_between_two_answers_does_not_count() {
        let (ours, mut theirs) = duplex(4);
        let mut ours = Progress::new(ours, SILENCE);
        for _ in 0..3 {
            ours.write_all(&[0; 4]).await.unwrap();
            sleep(SILENCE * 10).await;
            // One has to wait, so that there is a timer.
            let (written, _) = tokio::join!(ours.write_all(&[0; 4]), async {
                sleep(SILENCE / 2).await;
                theirs.read_exact(&mut [0; 8]).await.unwrap();
            });
            written.unwrap();
        }
    }
}
