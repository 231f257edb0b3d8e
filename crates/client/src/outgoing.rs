//! The body of a request.
//!
//! A large one waits for the server to ask for it (`Expect: 100-continue`, RFC 9110, section
//! 10.1.1). Sent at once, a refused one would break the connection, and with it the answer that
//! says why: a write that was refused would look like one whose outcome is not known.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::EXPECT;
use http::{HeaderValue, Request, StatusCode};
use http_body::{Body, Frame, SizeHint};
use tokio::sync::Notify;

/// Larger bodies wait. What is smaller fits into the buffers of a connection.
const WAITS: usize = 64 << 10;

/// How long a server is waited for that knows nothing of waiting.
const PATIENCE: Duration = Duration::from_secs(1);

/// The body of a request.
pub(crate) struct Outgoing {
    bytes: Bytes,
    gate: Option<Pin<Box<dyn Future<Output = ()> + Send + Sync>>>,
}

impl Outgoing {
    /// A request with this body.
    pub(crate) fn request(bytes: Bytes) -> Request<Self> {
        if bytes.len() <= WAITS {
            return Request::new(Self { bytes, gate: None });
        }
        let asked_for = Arc::new(Notify::new());
        let gate = {
            let asked_for = asked_for.clone();
            async move {
                let _ = tokio::time::timeout(PATIENCE, asked_for.notified()).await;
            }
        };
        let mut request = Request::new(Self { bytes, gate: Some(Box::pin(gate)) });
        request.headers_mut().insert(EXPECT, HeaderValue::from_static("100-continue"));
        hyper::ext::on_informational(&mut request, move |response| {
            if response.status() == StatusCode::CONTINUE {
                asked_for.notify_one();
            }
        });
        request
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.bytes.is_empty() {
            return Poll::Ready(None);
        }
        if let Some(gate) = &mut self.gate {
            std::task::ready!(gate.as_mut().poll(context));
            self.gate = None;
        }
        Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.bytes)))))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes.len() as u64)
    }
}
