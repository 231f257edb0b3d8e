//! Redis as a lock server: `SET key token NX PX` and a script that deletes the key if it still
//! has this token. As much of its protocol as that needs.

use anyhow::{Context, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const RELEASE: &str = "if redis.call('get', KEYS[1]) == ARGV[1] then \
                       return redis.call('del', KEYS[1]) else return 0 end";

/// One client's connection.
pub(crate) struct Redis {
    stream: TcpStream,
    request: Vec<u8>,
    answer: Vec<u8>,
    /// The name that Redis gave the script.
    script: String,
}

impl Redis {
    pub(crate) async fn open(address: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let mut redis =
            Self { stream, request: Vec::new(), answer: Vec::new(), script: String::new() };
        redis.script = redis.call(&["SCRIPT", "LOAD", RELEASE]).await?.context("no script")?;
        Ok(redis)
    }

    /// Whether the lock was free and is now this token's, for 30 s.
    pub(crate) async fn acquire(&mut self, key: &str, token: &str) -> anyhow::Result<bool> {
        let answer = self.call(&["SET", key, token, "NX", "PX", "30000"]).await?;
        Ok(answer.as_deref() == Some("OK"))
    }

    /// Fails unless the lock was this token's.
    pub(crate) async fn release(&mut self, key: &str, token: &str) -> anyhow::Result<()> {
        let script = std::mem::take(&mut self.script);
        let answer = self.call(&["EVALSHA", &script, "1", key, token]).await;
        self.script = script;
        match answer?.as_deref() {
            Some("1") => Ok(()),
            other => bail!("a release was answered {other:?}"),
        }
    }

    /// One command, and its answer as text; none for what is not there.
    async fn call(&mut self, words: &[&str]) -> anyhow::Result<Option<String>> {
        use std::io::Write;
        self.request.clear();
        write!(self.request, "*{}\r\n", words.len())?;
        for word in words {
            write!(self.request, "${}\r\n{word}\r\n", word.len())?;
        }
        self.stream.write_all(&self.request).await?;
        self.answer.clear();
        loop {
            if self.stream.read_buf(&mut self.answer).await? == 0 {
                bail!("redis closed the connection");
            }
            if let Some(answer) = parse(&self.answer)? {
                return Ok(answer);
            }
        }
    }
}

/// A whole answer, or none while some of it is missing.
fn parse(bytes: &[u8]) -> anyhow::Result<Option<Option<String>>> {
    let text = std::str::from_utf8(bytes)?;
    let Some((line, rest)) = text.split_once("\r\n") else { return Ok(None) };
    let (kind, value) = line.split_at_checked(1).context("an empty answer")?;
    match kind {
        "+" | ":" => Ok(Some(Some(value.to_owned()))),
        "$" if value == "-1" => Ok(Some(None)),
        "$" => {
            let length: usize = value.parse()?;
            Ok(rest.get(..length + 2).map(|body| Some(body[..length].to_owned())))
        }
        _ => bail!("redis answered {line}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_when_it_is_whole() {
        let text = |text: &str| Some(Some(text.to_owned()));
        assert_eq!(parse(b"+OK\r\n").unwrap(), text("OK"));
        assert_eq!(parse(b":1\r\n").unwrap(), text("1"));
        assert_eq!(parse(b"$-1\r\n").unwrap(), Some(None));
        assert_eq!(parse(b"$3\r\nabc\r\n").unwrap(), text("abc"));
        for part in [&b""[..], b"+O", b"+OK\r", b"$3\r\nab", b"$3\r\nabc\r"] {
            assert_eq!(parse(part).unwrap(), None, "{part:?}");
        }
        assert!(parse(b"-ERR no\r\n").is_err());
    }
}
