//! One keep-alive connection of a client, as thin as it can be: the load generator shares the
//! machine with the server, so what it spends the server does not have.

use anyhow::{Context, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A connection that has one request under way at a time.
pub(crate) struct Connection {
    stream: TcpStream,
    request: Vec<u8>,
    answer: Vec<u8>,
}

/// One answer, read whole.
pub(crate) struct Answer<'a> {
    pub(crate) status: u16,
    head: &'a str,
    pub(crate) body: &'a [u8],
}

/// One request: the method, the path with its query, further header lines (each ends with CRLF),
/// and the body.
#[derive(Clone, Copy)]
pub(crate) struct Request<'a> {
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    pub(crate) fields: &'a str,
    pub(crate) body: &'a str,
}

impl Connection {
    pub(crate) async fn open(address: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, request: Vec::with_capacity(512), answer: Vec::with_capacity(4096) })
    }

    /// Sends one request and reads its answer whole.
    pub(crate) async fn send(&mut self, request: Request<'_>) -> anyhow::Result<Answer<'_>> {
        use std::io::Write;
        self.request.clear();
        let Request { method, path, fields, body } = request;
        write!(self.request, "{method} {path} HTTP/1.1\r\nHost: b\r\n{fields}")?;
        if body.is_empty() {
            self.request.extend_from_slice(b"\r\n");
        } else {
            write!(self.request, "Content-Length: {}\r\n\r\n{body}", body.len())?;
        }
        self.stream.write_all(&self.request).await?;
        self.read().await
    }

    async fn read(&mut self) -> anyhow::Result<Answer<'_>> {
        self.answer.clear();
        let (end, length) = loop {
            if self.stream.read_buf(&mut self.answer).await? == 0 {
                bail!("the server closed the connection");
            }
            let Some(end) = find(&self.answer, b"\r\n\r\n") else { continue };
            let head = std::str::from_utf8(&self.answer[..end])?;
            if field(head, "transfer-encoding").is_some() {
                bail!("an answer came in chunks, which this client does not read");
            }
            let length = field(head, "content-length").map_or(Ok(0), str::parse::<usize>)?;
            break (end + 4, length);
        };
        while self.answer.len() < end + length {
            if self.stream.read_buf(&mut self.answer).await? == 0 {
                bail!("an answer broke off");
            }
        }
        let head = std::str::from_utf8(&self.answer[..end])?;
        let status = head.get(9..12).context("no status line")?.parse()?;
        Ok(Answer { status, head, body: &self.answer[end..end + length] })
    }
}

impl Answer<'_> {
    /// The value of a field, if the answer has it.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        field(self.head, name)
    }

    /// Fails unless the answer has this status.
    pub(crate) fn expect(&self, status: u16) -> anyhow::Result<&Self> {
        if self.status == status {
            return Ok(self);
        }
        let body = String::from_utf8_lossy(self.body);
        bail!("answered {}, not {status}: {body}", self.status)
    }

    /// The token of a grant.
    pub(crate) fn token(&self) -> anyhow::Result<String> {
        let text = std::str::from_utf8(self.body)?;
        const NAME: &str = "\"lock_token\":\"";
        let at = text.find(NAME).context("the grant has no token")? + NAME.len();
        Ok(text[at..].split('"').next().unwrap_or_default().to_owned())
    }
}

fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}
