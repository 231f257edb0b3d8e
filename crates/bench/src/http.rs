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
            self.more("the server closed the connection").await?;
            let Some(end) = find(&self.answer, b"\r\n\r\n") else { continue };
            let head = std::str::from_utf8(&self.answer[..end])?;
            let end = end + 4;
            if field(head, "transfer-encoding").is_some() {
                break (end, self.read_chunks(end).await?);
            }
            let length = field(head, "content-length").map_or(Ok(0), str::parse::<usize>)?;
            break (end, length);
        };
        while self.answer.len() < end + length {
            self.more("an answer broke off").await?;
        }
        let head = std::str::from_utf8(&self.answer[..end])?;
        let status = head.get(9..12).context("no status line")?.parse()?;
        Ok(Answer { status, head, body: &self.answer[end..end + length] })
    }

    async fn more(&mut self, otherwise: &'static str) -> anyhow::Result<()> {
        if self.stream.read_buf(&mut self.answer).await? == 0 {
            bail!(otherwise);
        }
        Ok(())
    }

    /// Reads a body that comes in chunks from `begin` on, and joins it there; its length.
    async fn read_chunks(&mut self, begin: usize) -> anyhow::Result<usize> {
        // Up to where the body is joined, and up to where chunks have been taken.
        let (mut joined, mut taken) = (begin, begin);
        loop {
            match chunk(&self.answer[taken..])? {
                None => self.more("an answer broke off").await?,
                Some((_, [])) => return Ok(joined - begin),
                Some((head, whole)) => {
                    let (from, length) = (taken + head, whole.len());
                    taken = from + length + 2;
                    self.answer.copy_within(from..from + length, joined);
                    joined += length;
                }
            }
        }
    }
}

/// The first chunk of these bytes and where it begins, if it is here whole. Trailers there are
/// none.
fn chunk(bytes: &[u8]) -> anyhow::Result<Option<(usize, &[u8])>> {
    let Some(line) = find(bytes, b"\r\n") else { return Ok(None) };
    let size = usize::from_str_radix(std::str::from_utf8(&bytes[..line])?, 16)?;
    let begin = line + 2;
    let whole = bytes.get(begin..begin + size + 2);
    Ok(whole.map(|whole| (begin, &whole[..size])))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_is_taken_when_it_is_whole() {
        let bytes = b"a\r\n0123456789\r\n0\r\n\r\n";
        for end in 0..15 {
            assert_eq!(chunk(&bytes[..end]).unwrap(), None, "{end}");
        }
        assert_eq!(chunk(bytes).unwrap(), Some((3, &b"0123456789"[..])));
        assert_eq!(chunk(&bytes[15..]).unwrap(), Some((3, &b""[..])));
        assert!(chunk(b"x\r\n").is_err());
    }
}
