//! An upstream that takes requests by the letter of RFC 9112, answers each, and keeps what it saw.
//!
//! What it cannot read it does not guess at: the connection has then been cut, and that is kept.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::spawn;

use super::BOUND;

/// What came over a connection.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Seen {
    /// A whole request. Its body is without the framing.
    Whole { line: String, fields: Vec<(String, String)>, body: String },
    /// The beginning of a request, after which the connection ended or made no sense. Empty where
    /// nothing at all came over a connection.
    Cut(String),
}

impl Seen {
    /// The request line; of a request that was cut, what came of it.
    pub fn line(&self) -> &str {
        match self {
            Self::Whole { line, .. } => line,
            Self::Cut(raw) => raw.split("\r\n").next().unwrap_or(raw),
        }
    }

    /// Every field of this name, trailers among them.
    pub fn all(&self, name: &str) -> Vec<&str> {
        let Self::Whole { fields, .. } = self else { return Vec::new() };
        let same = |each: &&(String, String)| each.0.eq_ignore_ascii_case(name);
        fields.iter().filter(same).map(|(_, content)| content.as_str()).collect()
    }
}

/// The upstream.
pub struct Recorder {
    address: SocketAddr,
    seen: Receiver<Seen>,
}

impl Recorder {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (send, seen) = channel();
        spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let send = send.clone();
                spawn(move || take(stream, &send));
            }
        });
        Self { address, seen }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The next that was seen.
    pub fn next(&self) -> Seen {
        self.seen.recv_timeout(BOUND).unwrap()
    }

    /// What was seen since, without waiting for more.
    pub fn rest(&self) -> Vec<Seen> {
        self.seen.try_iter().collect()
    }
}

/// Answers with the request line what comes on `stream`, until it ends.
fn take(stream: TcpStream, seen: &Sender<Seen>) {
    let mut reader = Reader { stream: BufReader::new(stream), raw: Vec::new() };
    for number in 0.. {
        reader.raw.clear();
        let Some(request) = reader.request() else {
            // One that was idle may end at any time.
            if number == 0 || !reader.raw.is_empty() {
                let _ = seen.send(Seen::Cut(String::from_utf8_lossy(&reader.raw).into_owned()));
            }
            return;
        };
        let line = request.line().to_owned();
        // Kept before it is answered: who has an answer finds it here.
        let _ = seen.send(request);
        let answer = super::upstream::answer("200 OK", &line);
        if reader.stream.get_mut().write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

struct Reader {
    stream: BufReader<TcpStream>,
    raw: Vec<u8>,
}

impl Reader {
    fn request(&mut self) -> Option<Seen> {
        let line = self.line()?;
        let mut fields = self.fields()?;
        let one = |name: &str| {
            let mut found = fields.iter().filter(|(each, _)| each.eq_ignore_ascii_case(name));
            let first = found.next().map(|(_, content)| content.clone());
            if found.next().is_some() { Err(()) } else { Ok(first) }
        };
        let body = match (one("transfer-encoding").ok()?, one("content-length").ok()?) {
            (None, None) => Vec::new(),
            (Some(coding), None) if coding == "chunked" => {
                let body = self.chunks()?;
                fields.extend(self.fields()?);
                body
            }
            (None, Some(length)) if is_all(&length, |byte| byte.is_ascii_digit()) => {
                self.bytes(length.parse().ok()?)?
            }
            _ => return None,
        };
        let body = String::from_utf8_lossy(&body).into_owned();
        Some(Seen::Whole { line, fields, body })
    }

    fn chunks(&mut self) -> Option<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let size = self.line()?;
            if !is_all(&size, |byte| byte.is_ascii_hexdigit()) {
                return None;
            }
            let size = usize::from_str_radix(&size, 16).ok()?;
            if size == 0 {
                return Some(body);
            }
            body.extend(self.bytes(size)?);
            if !self.line()?.is_empty() {
                return None;
            }
        }
    }

    fn fields(&mut self) -> Option<Vec<(String, String)>> {
        let mut fields = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Some(fields);
            }
            let (name, content) = line.split_once(':')?;
            if !is_all(name, |byte| !byte.is_ascii_whitespace()) {
                return None;
            }
            fields.push((name.to_owned(), content.trim().to_owned()));
        }
    }

    fn line(&mut self) -> Option<String> {
        let begin = self.raw.len();
        self.stream.read_until(b'\n', &mut self.raw).ok()?;
        let line = self.raw[begin..].strip_suffix(b"\r\n")?;
        if line.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)) {
            return None;
        }
        Some(String::from_utf8_lossy(line).into_owned())
    }

    fn bytes(&mut self, count: usize) -> Option<Vec<u8>> {
        let begin = self.raw.len();
        let count_u64 = u64::try_from(count).ok()?;
        (&mut self.stream).take(count_u64).read_to_end(&mut self.raw).ok()?;
        let bytes = &self.raw[begin..];
        (bytes.len() == count).then(|| bytes.to_vec())
    }
}

fn is_all(text: &str, what: impl Fn(u8) -> bool) -> bool {
    !text.is_empty() && text.bytes().all(what)
}
