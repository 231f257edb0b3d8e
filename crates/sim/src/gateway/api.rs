//! The API behind the gateway: which writes it has received, and what it does with them.
//!
//! What always holds: a write may land at any time until its answer has been sent; where its
//! connection ended before, for the drain time after that; and where the process of the gateway
//! has ended, for as long as a new one takes care of it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fastrand::Rng;
use http::Method;
use leasehold_core::ids::LockId;
use leasehold_core::resource::Resource;
use leasehold_core::target::Target;
use leasehold_guard::targets::by_head;

use super::network::{Connection, Cut, Network};
use super::{DRAIN_TIME, RECOVERY};
use crate::upstream::CALL;

/// How much of an answer was sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Answered {
    /// Nothing.
    Nothing,
    /// The head, and part of a body that goes on with these bytes.
    InPart(&'static str),
    /// All of it.
    Whole,
}

/// A write whose answer will not be seen.
#[derive(Clone, Copy, Debug)]
pub struct Lost {
    /// Until when it may land.
    pub(super) until: Duration,
    /// When it will, if it does and has not.
    pub(super) lands_at: Option<Duration>,
    /// Whether the process of the gateway that sent it has ended.
    pub has_outlived_its_process: bool,
}

/// A write that the API has received, or part of it.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// The connection it came by.
    pub connection: u64,
    /// The call it is.
    pub call: u64,
    /// What it changes.
    pub targets: Vec<Target>,
    /// The lock that it was let through under, as it says.
    pub lock: Option<LockId>,
    /// The locks whose tokens it presented; who knows them says so.
    pub tokens: Vec<LockId>,
    pub(super) is_whole: bool,
    pub(super) answered: Answered,
    pub(super) has_landed: bool,
    /// Set once its answer will not be seen.
    pub lost: Option<Lost>,
}

/// What was seen on the network.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Seen {
    /// A write has begun to come.
    Begun(u64),
    /// A write was sent that had been sent before: this call.
    Again(u64),
    /// Nobody will see the answer of a write, and it may land.
    Lost(u64),
    /// The answer of a write was seen to its end: this call.
    Answered(u64),
}

/// What happens to a write next.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Act {
    /// It lands.
    Land,
    /// All of its answer is sent, or what was left of it.
    Answer,
    /// The head of its answer is sent, and part of the body.
    AnswerInPart,
    /// Its connection ends.
    Cut(Cut),
}

/// The API.
#[derive(Debug, Default)]
pub struct Api {
    next: u64,
    exchanges: BTreeMap<u64, Exchange>,
    read: BTreeMap<u64, Read>,
    calls: BTreeSet<u64>,
}

/// How far a connection has been read.
#[derive(Clone, Copy, Debug, Default)]
struct Read {
    /// To the end of the newest request that is whole.
    to: usize,
    /// Whether the head of the next one was seen.
    has_head: bool,
}

/// The head of a request, and where what comes after it ends.
struct Head {
    method: Method,
    resource: Resource,
    call: u64,
    lock: Option<LockId>,
    has_if_match: bool,
    ends_at: usize,
    /// None where the end has not come yet.
    request_ends_at: Option<usize>,
}

impl Api {
    /// The writes that are not over.
    #[must_use]
    pub fn exchanges(&self) -> &BTreeMap<u64, Exchange> {
        &self.exchanges
    }

    /// The same, to be told of their tokens.
    pub fn exchange_mut(&mut self, id: u64) -> Option<&mut Exchange> {
        self.exchanges.get_mut(&id)
    }

    /// Writes that something can happen to.
    #[must_use]
    pub fn open(&self) -> Vec<u64> {
        let is_open = |each: &Exchange| each.lost.is_none() && each.answered != Answered::Whole;
        self.exchanges.iter().filter(|(_, each)| is_open(each)).map(|(id, _)| *id).collect()
    }

    /// Whether no write is on its way on a connection.
    #[must_use]
    pub fn is_idle(&self, connection: u64) -> bool {
        self.exchanges.values().all(|each| each.connection != connection)
    }

    /// When something happens by itself, or has to have happened.
    pub fn moments(&self) -> impl Iterator<Item = Duration> + '_ {
        let lost = self.exchanges.values().filter_map(|each| each.lost);
        lost.flat_map(|lost| {
            let just_before = lost.until.saturating_sub(Duration::from_millis(1));
            lost.lands_at.into_iter().chain([just_before, lost.until])
        })
    }

    /// Looks at what has come since it was asked last, and at what has ended.
    pub fn look(&mut self, network: &Network, rng: &mut Rng) -> Vec<Seen> {
        let mut seen = Vec::new();
        network.each(|id, connection| {
            self.read_requests(id, connection, &mut seen);
            self.look_at_ends(id, connection, rng, &mut seen);
        });
        network.forget_closed();
        seen
    }

    fn read_requests(&mut self, id: u64, connection: &Connection, seen: &mut Vec<Seen>) {
        loop {
            let Read { to, has_head } = self.read.get(&id).copied().unwrap_or_default();
            let Some(head) = read_head(&connection.sent, to) else { return };
            let is_whole =
                head.request_ends_at.is_some_and(|ends_at| ends_at <= connection.received);
            if has_head {
                let of_this =
                    |each: &&mut Exchange| each.connection == id && each.call == head.call;
                if let Some(exchange) = self.exchanges.values_mut().find(of_this) {
                    exchange.is_whole = is_whole;
                }
            } else if self.calls.insert(head.call) {
                if head.ends_at <= connection.received {
                    self.next += 1;
                    self.exchanges.insert(
                        self.next,
                        Exchange {
                            connection: id,
                            call: head.call,
                            targets: by_head(&head.method, &head.resource, head.has_if_match),
                            lock: head.lock,
                            tokens: Vec::new(),
                            is_whole,
                            answered: Answered::Nothing,
                            has_landed: false,
                            lost: None,
                        },
                    );
                    seen.push(Seen::Begun(self.next));
                }
            } else {
                seen.push(Seen::Again(head.call));
            }
            let Some(ends_at) = head.request_ends_at else {
                self.read.insert(id, Read { to, has_head: true });
                return;
            };
            self.read.insert(id, Read { to: ends_at, has_head: false });
        }
    }

    fn look_at_ends(
        &mut self,
        id: u64,
        connection: &Connection,
        rng: &mut Rng,
        seen: &mut Vec<Seen>,
    ) {
        let ended_at = match (connection.cut, connection.closed_at) {
            (None | Some((Cut::Partition, _)), closed_at) => closed_at,
            (Some((Cut::Closed | Cut::Reset, at)), _) => Some(at),
        };
        let of_this = self.exchanges.iter_mut().filter(|(_, each)| each.connection == id);
        let mut over = Vec::new();
        for (exchange, each) in of_this {
            if each.lost.is_some() {
                continue;
            }
            if each.answered == Answered::Whole {
                if connection.unread.is_empty() || connection.closed_at.is_some() {
                    over.push(*exchange);
                }
            } else if let Some(ended_at) = ended_at {
                each.lose(ended_at, DRAIN_TIME, rng);
                seen.push(Seen::Lost(*exchange));
            }
        }
        for exchange in over {
            let disturbed = connection.cut.is_some() || !connection.unread.is_empty();
            if let Some(each) = self.exchanges.remove(&exchange)
                && each.is_whole
                && !disturbed
            {
                seen.push(Seen::Answered(each.call));
            }
        }
    }

    /// Something happens to a write. Whether it has landed just now.
    pub fn act(&mut self, id: u64, act: Act, network: &Network) -> bool {
        let Some(each) = self.exchanges.get_mut(&id) else { return false };
        match act {
            Act::Land => return !std::mem::replace(&mut each.has_landed, true),
            Act::Answer => {
                let bytes = match each.answered {
                    Answered::Nothing => "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone",
                    Answered::InPart(rest) => rest,
                    Answered::Whole => return false,
                };
                each.answered = Answered::Whole;
                network.answer(each.connection, bytes.as_bytes());
            }
            Act::AnswerInPart => {
                if each.answered == Answered::Nothing {
                    let (head, rest) = if id.is_multiple_of(2) {
                        ("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndo", "ne")
                    } else {
                        let head =
                            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\ndo\r\n";
                        (head, "2\r\nne\r\n0\r\nx-end: here\r\n\r\n")
                    };
                    each.answered = Answered::InPart(rest);
                    network.answer(each.connection, head.as_bytes());
                }
            }
            Act::Cut(how) => network.cut(each.connection, how),
        }
        false
    }

    /// Whether nothing of a write can land any more.
    #[must_use]
    pub fn is_over(&self, id: u64) -> bool {
        self.exchanges.get(&id).is_none_or(|each| each.answered == Answered::Whole)
    }

    /// Forgets a write.
    pub fn forget(&mut self, id: u64) {
        self.exchanges.remove(&id);
    }

    /// Writes that land by now, in order, and then those that cannot any more.
    pub fn due(&mut self, now: Duration) -> (Vec<u64>, Vec<u64>) {
        let (mut landing, mut over) = (Vec::new(), Vec::new());
        for (id, each) in &mut self.exchanges {
            let Some(lost) = &mut each.lost else { continue };
            if lost.lands_at.is_some_and(|at| at <= now) {
                lost.lands_at = None;
                each.has_landed = true;
                landing.push(*id);
            }
            if lost.until <= now {
                over.push(*id);
            }
        }
        (landing, over)
    }

    /// The process of the gateway has ended.
    pub fn process_ended(&mut self, now: Duration, rng: &mut Rng) {
        self.exchanges.retain(|_, each| each.answered != Answered::Whole);
        for each in self.exchanges.values_mut() {
            if each.lost.is_none() {
                each.lose(now, RECOVERY, rng);
            }
            if let Some(lost) = &mut each.lost {
                lost.has_outlived_its_process = true;
            }
        }
        self.read.clear();
    }
}

impl Exchange {
    fn lose(&mut self, ended_at: Duration, span: Duration, rng: &mut Rng) {
        let until = ended_at + span;
        // At the last moment, or at any, or never.
        let lands_at = match rng.u8(0..4) {
            0 => Some(until),
            1 | 2 => {
                let span = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
                Some(ended_at + Duration::from_millis(rng.u64(..span)))
            }
            _ => None,
        };
        let lands_at = lands_at.filter(|_| !self.has_landed);
        self.lost = Some(Lost { until, lands_at, has_outlived_its_process: false });
    }
}

/// Reads the request that begins at `from`; none while its head is not whole.
fn read_head(sent: &[u8], from: usize) -> Option<Head> {
    let text = String::from_utf8_lossy(sent.get(from..)?);
    let (head, after) = text.split_once("\r\n\r\n")?;
    let mut lines = head.split("\r\n");
    let mut first = lines.next()?.split(' ');
    let method = first.next()?.parse().ok()?;
    let resource = Resource::parse(first.next()?).ok()?;
    let field = |name: &str| {
        lines.clone().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    };
    let ends_at = from + head.len() + 4;
    let length = field("content-length").and_then(|length| length.parse().ok());
    let body_len = if field("transfer-encoding").is_some() {
        after.find("0\r\n\r\n").map(|at| at + 5)
    } else {
        let length: usize = length.unwrap_or(0);
        (length <= after.len()).then_some(length)
    };
    Some(Head {
        method,
        resource,
        call: field(CALL)?.parse().ok()?,
        lock: field("x-lock-id").and_then(|id| id.parse().ok()).map(LockId),
        has_if_match: field("if-match").is_some(),
        ends_at,
        request_ends_at: body_len.map(|len| ends_at + len),
    })
}
