//! An upstream that does exactly what a test tells it to.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::thread::spawn;

use super::{BOUND, Server, Setup};

/// A server that accepts, and leaves everything else to the test.
pub struct Upstream {
    address: SocketAddr,
    accepted: Receiver<TcpStream>,
}

impl Upstream {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (send, accepted) = channel();
        spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if send.send(stream).is_err() {
                    return;
                }
            }
        });
        Self { address, accepted }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A gateway before it, with these arguments.
    pub fn gateway(&self, args: &[&str]) -> Server {
        let setup = Setup::default().arg("--upstream").arg(&self.url());
        args.iter().fold(setup, |setup, arg| setup.arg(arg)).start()
    }

    /// The next connection.
    pub fn accept(&self) -> Peer {
        let stream = self.accepted.recv_timeout(BOUND).unwrap();
        stream.set_read_timeout(Some(BOUND)).unwrap();
        stream.set_nodelay(true).unwrap();
        Peer { stream: BufReader::new(stream) }
    }

    /// Whether nobody has connected since.
    pub fn is_quiet(&self) -> bool {
        self.accepted.try_recv().is_err()
    }

    /// Answers every request on every connection with what `answer` makes of it.
    pub fn answering(self, answer: impl Fn(&Got) -> String + Clone + Send + 'static) {
        spawn(move || {
            while let Ok(stream) = self.accepted.recv() {
                let answer = answer.clone();
                spawn(move || {
                    let mut peer = Peer { stream: BufReader::new(stream) };
                    while !peer.is_closed() {
                        let got = peer.request();
                        peer.send(answer(&got));
                    }
                });
            }
        });
    }
}

/// The gateway's end of a connection, as the upstream sees it.
pub struct Peer {
    stream: BufReader<TcpStream>,
}

/// A request as it came over the wire.
#[derive(Debug)]
pub struct Got {
    pub line: String,
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
}

impl Got {
    /// Every field of this name.
    pub fn all(&self, name: &str) -> Vec<&str> {
        let same = |each: &&(String, String)| each.0.eq_ignore_ascii_case(name);
        self.fields.iter().filter(same).map(|(_, content)| content.as_str()).collect()
    }

    /// The one field of this name.
    pub fn field(&self, name: &str) -> Option<&str> {
        let all = self.all(name);
        assert!(all.len() < 2, "{name} twice: {self:?}");
        all.first().copied()
    }
}

impl Peer {
    fn line(&mut self) -> String {
        let mut line = Vec::new();
        self.stream.read_until(b'\n', &mut line).unwrap();
        assert!(line.ends_with(b"\r\n"), "{:?}", String::from_utf8_lossy(&line));
        String::from_utf8_lossy(&line[..line.len() - 2]).into_owned()
    }

    /// Header fields, or trailers, up to the empty line.
    pub fn fields(&mut self) -> Vec<(String, String)> {
        let mut fields = Vec::new();
        loop {
            let line = self.line();
            if line.is_empty() {
                return fields;
            }
            let (name, content) = line.split_once(':').unwrap();
            fields.push((name.to_owned(), content.trim().to_owned()));
        }
    }

    /// The head of the next request.
    pub fn head(&mut self) -> Got {
        let (line, fields) = (self.line(), self.fields());
        Got { line, fields, body: Vec::new(), trailers: Vec::new() }
    }

    /// The next chunk of a chunked body; empty at its end, before the trailers.
    pub fn chunk(&mut self) -> Vec<u8> {
        let length = usize::from_str_radix(&self.line(), 16).unwrap();
        let mut chunk = vec![0; length];
        self.stream.read_exact(&mut chunk).unwrap();
        if length > 0 {
            assert_eq!(self.line(), "");
        }
        chunk
    }

    /// The next request, with its body.
    pub fn request(&mut self) -> Got {
        let mut got = self.head();
        if got.field("transfer-encoding") == Some("chunked") {
            assert_eq!(got.field("content-length"), None, "{got:?}");
            loop {
                let chunk = self.chunk();
                if chunk.is_empty() {
                    break;
                }
                got.body.extend(chunk);
            }
            got.trailers = self.fields();
        } else if let Some(length) = got.field("content-length") {
            got.body = vec![0; length.parse().unwrap()];
            self.stream.read_exact(&mut got.body).unwrap();
        }
        got
    }

    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.stream.read_exact(&mut bytes).unwrap();
        bytes
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.get_mut().write_all(bytes.as_ref()).unwrap();
    }

    /// Ends the connection in both directions.
    pub fn close(self) {
        let _ = self.stream.get_ref().shutdown(Shutdown::Both);
    }

    /// Whether the gateway closes the connection without another byte.
    pub fn is_closed(&mut self) -> bool {
        !matches!(self.stream.fill_buf(), Ok([_, ..]))
    }
}

/// A whole answer of this status and body.
pub fn answer(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}
