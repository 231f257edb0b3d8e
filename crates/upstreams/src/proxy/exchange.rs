//! One request to the upstream, as far as the head of its answer.
//!
//! What always holds: a request goes out at most once, but for two cases. It is sent on another
//! connection where hyper gives it back, which it does only before the first byte of it was
//! written. And a reading request without a body is sent once more where a connection that had
//! been idle for a while turned out to be closed.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use http::header::{HeaderValue, TRANSFER_ENCODING};
use http::request::Parts;
use http::{Request, Response};
use http_body::Body as _;
use hyper::body::Incoming;
use leasehold_core::sabotage::{self, Mistake};
use leasehold_guard::body::{Body, empty};
use tokio::time::Sleep;

use super::Shared;
use super::fault::{Failure, Fault};
use super::pace::{Outgoing, Pace, Stage};
use super::pool::{FOR_READS, FOR_WRITES, Lease};
use super::site::Way;

/// An answer whose body has not been read.
pub(super) struct Begun {
    pub(super) response: Response<Incoming>,
    pub(super) lease: Lease,
    pub(super) pace: Arc<Pace>,
    pub(super) way: Way,
}

impl Shared {
    /// Sends a request. `is_safe`: its method is. The head is boxed because each future on its way
    /// here has room for it.
    pub(super) async fn send(
        &self,
        head: Box<Parts>,
        body: Body,
        way: Way,
        is_safe: bool,
    ) -> Result<Begun, Failure> {
        let begun = sent(head, body, way, is_safe).await;
        match &begun {
            Ok(begun) => self.options.observer.answered(begun.response.status()),
            Err(failure) => {
                self.options.observer.failed(failure.fault);
                let fault = failure.fault.as_str();
                tracing::warn!(fault, why = failure.why, "no answer from the upstream");
            }
        }
        begun
    }
}

async fn sent(mut head: Box<Parts>, body: Body, way: Way, is_safe: bool) -> Result<Begun, Failure> {
    if !body.is_end_stream() && body.size_hint().exact().is_none() {
        // hyper takes a GET or a HEAD to have no body, unless its head says so.
        head.headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    let (mut body, mut pace) = Outgoing::new(body);
    let may_repeat = (is_safe || sabotage::is(Mistake::RepeatWrite)) && pace.stage() == Stage::Done;
    let most_idle = if may_repeat { FOR_READS } else { FOR_WRITES };
    let mut wants_fresh = false;
    loop {
        let pooled = if wants_fresh { None } else { way.site.pool.take(most_idle) };
        let mut lease = match pooled {
            Some(lease) => lease,
            // Boxed: few requests connect, and each has room for what is not.
            None => Box::pin(connect(&way)).await?,
        };
        let copy = (may_repeat && lease.may_be_closing()).then(|| Box::new(copy_of(&head)));
        let sending = lease.sender.try_send_request(Request::from_parts(*head, body));
        let timer = lease.timer(pace.deadline(way.timeout));
        let mut error = match within(way.timeout, &pace, timer, sending).await {
            Some(Ok(response)) => return Ok(Begun { response, lease, pace, way }),
            Some(Err(error)) => error,
            None => {
                let why = "silent for too long".to_owned();
                return Err(Failure { fault: Fault::Silent, why, closing: lease.close() });
            }
        };
        if let Some(unsent) = error.take_message()
            && lease.idle_for.is_some()
        {
            let (parts, same) = unsent.into_parts();
            (head, body) = (Box::new(parts), same);
            continue;
        }
        let error = error.into_error();
        if let Some(copy) = copy
            && !error.is_parse()
        {
            head = copy;
            (body, pace) = Outgoing::new(empty());
            wants_fresh = true;
            continue;
        }
        let fault = match pace.stage() {
            Stage::Failed => Fault::ClientGone,
            _ => Fault::BrokenOff,
        };
        return Err(Failure { fault, why: chain(&error), closing: lease.close() });
    }
}

async fn connect(way: &Way) -> Result<Lease, Failure> {
    let refused = |fault, why| Failure { fault, why, closing: None };
    let stream = way.site.connector.connect(way.timeout).await.map_err(|error| {
        let fault = match error.kind() {
            std::io::ErrorKind::TimedOut => Fault::ConnectTimeout,
            _ => Fault::Connect,
        };
        refused(fault, error.to_string())
    })?;
    Lease::begin(stream).await.map_err(|error| refused(Fault::Connect, chain(&error)))
}

/// A head that is sent like `head`.
fn copy_of(head: &Parts) -> Parts {
    let (mut copy, ()) = Request::new(()).into_parts();
    copy.method = head.method.clone();
    copy.uri = head.uri.clone();
    copy.headers = head.headers.clone();
    copy
}

/// What a future gives, unless the upstream is silent for so long before. `timer` rings when that
/// may be.
async fn within<F: Future>(
    silence: Duration,
    pace: &Pace,
    mut timer: Pin<&mut Sleep>,
    future: F,
) -> Option<F::Output> {
    let mut future = pin!(future);
    loop {
        tokio::select! {
            biased;
            output = &mut future => return Some(output),
            () = &mut timer => {
                let deadline = pace.deadline(silence);
                if deadline <= tokio::time::Instant::now() {
                    return None;
                }
                timer.as_mut().reset(deadline);
            }
        }
    }
}

/// An error and what caused it, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
