//! The body of a request that nobody has taken yet.

use bytes::Bytes;
use http_body::Body as HttpBody;
use http_body_util::BodyExt as _;
use leasehold_guard::body::{Body, BoxError};
use leasehold_guard::discard::discarding;

/// A body that is not looked at before it is taken. One that never is, because its request was
/// refused, is read and thrown away within bounds, so that its client sees the answer.
pub(crate) struct Unread<B>
where
    B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    body: Option<B>,
    /// Whether the client waits to be asked for it.
    expects: bool,
}

impl<B> Unread<B>
where
    B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    pub(crate) fn new(body: B, expects: bool) -> Self {
        Self { body: Some(body), expects }
    }

    /// The body, for whoever is to have it. None if somebody has it already.
    pub(crate) fn take(&mut self) -> Option<B> {
        self.body.take()
    }

    /// The body, for the layer itself: whatever of it is left unread is thrown away.
    pub(crate) fn boxed(mut self) -> Body {
        match self.body.take() {
            Some(body) => discarding(boxed(body), self.expects).boxed_unsync(),
            None => leasehold_guard::body::empty(),
        }
    }
}

impl<B> Drop for Unread<B>
where
    B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    fn drop(&mut self) {
        if let Some(body) = self.body.take() {
            drop(discarding(boxed(body), self.expects));
        }
    }
}

/// A body of any type, as everything here has it.
pub(crate) fn boxed<B>(body: B) -> Body
where
    B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    body.map_err(Into::into).boxed_unsync()
}
