//! The trail as it grows: server-sent events, resumed without a gap.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderName};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::Deserialize;

use crate::audit::{AuditEvent, AuditQuery, EventFilter};
use crate::client::{Ask, Client};
use crate::clock::pause;
use crate::error::Error;
use crate::retry::{Backoff, Repeat, passes};

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// The longest event that is taken, in bytes.
const MAX_EVENT: usize = 1 << 20;

/// The longest silence: the server says something every 15 s.
const SILENCE: Duration = Duration::from_secs(45);

/// What comes when the trail is followed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// Something happened.
    Audit(Box<AuditEvent>),
    /// What happened between the last event and this one is not kept any more: what was derived
    /// from the events has to be built anew.
    Reset {
        /// The oldest event that is kept, and the next that comes.
        oldest: u64,
    },
}

/// The trail as it grows. See [`Client::events`].
#[must_use = "nothing is read before it is asked for"]
pub struct Events {
    client: Client,
    filter: EventFilter,
    /// The last event that was given on, once it is known where to begin.
    last: Option<u64>,
    body: Option<Incoming>,
    parser: Parser,
    backoff: Option<Backoff>,
}

impl Client {
    /// Follows the trail: every event from now on that the filter lets through, without a gap
    /// and none twice, however often the connection breaks.
    ///
    /// "Now" is when [`next`](Events::next) is first called; [`Events::after`] begins elsewhere.
    ///
    /// ```no_run
    /// # async fn example(client: leasehold_client::Client) -> Result<(), leasehold_client::Error> {
    /// use leasehold_client::{Event, EventFilter};
    ///
    /// let mut events = client.events(EventFilter::new().resource("/v1/flags"));
    /// loop {
    ///     match events.next().await? {
    ///         Event::Audit(event) => println!("{} {} {:?}", event.seq, event.kind, event.resources),
    ///         Event::Reset { oldest } => println!("everything before {oldest} is gone"),
    ///         _ => {}
    ///     }
    /// }
    /// # }
    /// ```
    pub fn events(&self, filter: EventFilter) -> Events {
        Events {
            client: self.clone(),
            filter,
            last: None,
            body: None,
            parser: Parser::default(),
            backoff: None,
        }
    }
}

impl Events {
    /// Begins right behind this event: with what [`position`](Self::position) said in an earlier
    /// run, no event is missed. 0 begins with the oldest.
    pub fn after(mut self, seq: u64) -> Self {
        self.last = Some(seq);
        self
    }

    /// The `seq` of the last event that was given; where to go on another time.
    #[must_use]
    pub fn position(&self) -> Option<u64> {
        self.last
    }

    /// The next event, as soon as there is one. A broken connection is made anew as the client's
    /// [`RetryPolicy`](crate::RetryPolicy) says.
    ///
    /// It may be dropped (as a branch of `select!`) without losing an event.
    ///
    /// # Errors
    /// The refusal, or why no connection came about for so long. Asking again goes on where it
    /// stopped.
    pub async fn next(&mut self) -> Result<Event, Error> {
        loop {
            match self.attempt().await {
                Ok(Some(event)) => {
                    self.backoff = None;
                    return Ok(event);
                }
                // It ended without an error, as it does when the server stops.
                Ok(None) => self.hang_up(),
                Err(error) => {
                    self.hang_up();
                    if !passes(&error, Repeat::Safe) {
                        self.backoff = None;
                        return Err(error);
                    }
                    let policy = self.client.retry_policy();
                    let backoff = self.backoff.get_or_insert_with(|| policy.begin());
                    let Some(rest) = backoff.next(error.retry_after()) else {
                        self.backoff = None;
                        return Err(error);
                    };
                    pause(rest).await;
                }
            }
        }
    }

    fn hang_up(&mut self) {
        self.body = None;
        self.parser = Parser::default();
    }

    /// The next event of this connection; none at its end.
    async fn attempt(&mut self) -> Result<Option<Event>, Error> {
        loop {
            while let Some(frame) = self.parser.next()? {
                if let Some(event) = self.read(frame)? {
                    return Ok(Some(event));
                }
            }
            let body = match &mut self.body {
                Some(body) => body,
                None => {
                    let last = match self.last {
                        Some(last) => last,
                        None => self.newest().await?,
                    };
                    self.last = Some(last);
                    self.body.insert(self.connect(last).await?)
                }
            };
            let frame = tokio::time::timeout(SILENCE, body.frame())
                .await
                .map_err(|_| Error::Timeout { after: SILENCE, sent: true })?;
            match frame {
                None => {
                    // A server that ends every answer at once is not asked without a pause.
                    pause(Duration::from_millis(50 + fastrand::u64(..200))).await;
                    return Ok(None);
                }
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.parser.push(data);
                    }
                }
                Some(Err(error)) => {
                    let what = "the events broke off".to_owned();
                    return Err(Error::Transport { what, sent: true, source: Box::new(error) });
                }
            }
        }
    }

    /// Where the trail ends now. Without it, what happens before the first event of the first
    /// connection could be missed when that one breaks.
    async fn newest(&self) -> Result<u64, Error> {
        let mut trail = self.client.audit(AuditQuery::new().newest_first().limit(1));
        Ok(trail.next().await?.map_or(0, |event| event.seq))
    }

    async fn connect(&self, last: u64) -> Result<Incoming, Error> {
        let target = self.filter.query.target(&self.client.own("events"), None);
        let ask = Ask::get(target)
            .header(ACCEPT, HeaderValue::from_static("text/event-stream"))
            .header(LAST_EVENT_ID, HeaderValue::from(last));
        let response = self.client.open(&ask).await?;
        let media = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        if !media.is_some_and(|media| media.starts_with("text/event-stream")) {
            return Err(Error::Protocol("server-sent events were expected".into()));
        }
        Ok(response.into_body())
    }

    /// What a frame says; none for what was given on before.
    fn read(&mut self, frame: Frame) -> Result<Option<Event>, Error> {
        #[derive(Deserialize)]
        struct Oldest {
            oldest: u64,
        }
        let broken = |error: serde_json::Error| Error::Protocol(format!("an event: {error}"));
        if frame.event == "reset" {
            let Oldest { oldest } = serde_json::from_str(&frame.data).map_err(broken)?;
            self.last = Some(oldest.saturating_sub(1));
            return Ok(Some(Event::Reset { oldest }));
        }
        let event: AuditEvent = serde_json::from_str(&frame.data).map_err(broken)?;
        if self.last.is_some_and(|last| event.seq <= last) {
            return Ok(None);
        }
        self.last = Some(event.seq);
        Ok(Some(Event::Audit(Box::new(event))))
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events")
            .field("filter", &self.filter)
            .field("position", &self.last)
            .field("connected", &self.body.is_some())
            .finish_non_exhaustive()
    }
}

/// Server-sent events as bytes come in, in pieces of any size.
#[derive(Debug, Default)]
struct Parser {
    bytes: Vec<u8>,
    /// How much of `bytes` has been read.
    read: usize,
    frame: Frame,
}

#[derive(Debug, Default, Eq, PartialEq)]
struct Frame {
    event: String,
    data: String,
}

impl Parser {
    fn push(&mut self, bytes: Bytes) {
        self.bytes.drain(..self.read);
        self.read = 0;
        self.bytes.extend_from_slice(&bytes);
    }

    /// The next whole event with data.
    fn next(&mut self) -> Result<Option<Frame>, Error> {
        let too_long = || Err(Error::Protocol(format!("an event of more than {MAX_EVENT} bytes")));
        loop {
            let rest = &self.bytes[self.read..];
            let Some(end) = rest.iter().position(|byte| *byte == b'\n') else {
                return if MAX_EVENT < rest.len() { too_long() } else { Ok(None) };
            };
            let line = &rest[..end];
            let line = String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(line));
            if line.is_empty() {
                let frame = std::mem::take(&mut self.frame);
                self.read += end + 1;
                if frame.data.is_empty() {
                    continue;
                }
                return Ok(Some(frame));
            }
            let (name, value) = line.split_once(':').unwrap_or((&line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match name {
                "event" => self.frame.event = value.to_owned(),
                "data" => {
                    if !self.frame.data.is_empty() {
                        self.frame.data.push('\n');
                    }
                    self.frame.data.push_str(value);
                }
                // A comment, an `id` (the data has it), `retry`, or what is not known.
                _ => {}
            }
            if MAX_EVENT < self.frame.data.len() + self.frame.event.len() {
                return too_long();
            }
            self.read += end + 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(text: &str, piece: usize) -> Vec<(String, String)> {
        let mut parser = Parser::default();
        let mut found = Vec::new();
        for piece in text.as_bytes().chunks(piece) {
            parser.push(Bytes::copy_from_slice(piece));
            while let Some(frame) = parser.next().unwrap() {
                found.push((frame.event, frame.data));
            }
        }
        found
    }

    #[test]
    fn events_are_the_same_in_pieces_of_any_size() {
        let text = "retry: 1000\n\n: still here\n\nid: 1\nevent: a\ndata: {\"x\":1}\n\n\
                    event: b\r\ndata:one\r\ndata: two\r\n\r\nevent: nothing\n\ndata: ü\n\ndata: half";
        let whole = frames(text, text.len());
        let expected = [("a", "{\"x\":1}"), ("b", "one\ntwo"), ("", "ü")];
        assert_eq!(whole, expected.map(|(event, data)| (event.to_owned(), data.to_owned())));
        for piece in 1..20 {
            assert_eq!(frames(text, piece), whole, "{piece}");
        }
    }

    #[test]
    fn an_event_without_an_end_is_not_gathered_for_ever() {
        let mut parser = Parser::default();
        parser.push(vec![b'x'; MAX_EVENT + 1].into());
        assert!(parser.next().is_err());
        let mut parser = Parser::default();
        let line = format!("data: {}\n", "x".repeat(MAX_EVENT / 4));
        for _ in 0..4 {
            parser.push(line.clone().into());
            if parser.next().is_err() {
                return;
            }
        }
        assert!(parser.next().is_err());
    }
}
