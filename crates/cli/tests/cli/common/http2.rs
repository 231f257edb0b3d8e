//! A client that speaks HTTP/2, over TCP or TLS, and frames that are written by hand.
#![allow(unreachable_pub, reason = "nobody but the tests beside it uses it")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a helper of a test panics like the test")]

use std::future::Future;
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body_util::BodyExt as _;
use http_body_util::channel::{Channel, Sender};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::BOUND;

type Error = std::io::Error;
type Out = Channel<Bytes, Error>;

/// One connection.
pub struct Client {
    runtime: Arc<Runtime>,
    sender: SendRequest<Out>,
    origin: String,
}

impl Client {
    /// By prior knowledge.
    pub fn over_tcp(address: SocketAddr) -> Self {
        let runtime = runtime();
        let sender = runtime.block_on(async { begun(connected(address).await).await });
        Self { runtime, sender, origin: format!("http://{address}") }
    }

    /// By what TLS agrees on. `authority`: who signs, in PEM.
    pub fn over_tls(address: SocketAddr, authority: &str) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.as_bytes()).unwrap()).unwrap();
        let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let name = ServerName::IpAddress(address.ip().into());
        let runtime = runtime();
        let sender = runtime.block_on(async {
            let tcp = connected(address).await;
            let connector = TlsConnector::from(Arc::new(config));
            let stream = connector.connect(name, tcp).await.unwrap();
            assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
            begun(stream).await
        });
        Self { runtime, sender, origin: format!("https://{address}") }
    }

    /// Sends the head of a request on a stream of its own.
    pub fn start(&mut self, method: &str, path: &str, fields: &[(&str, &str)]) -> Exchange {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.origin));
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let (body, out) = Channel::new(8);
        let answer = self.sender.send_request(request.body(out).unwrap());
        let head = Some(self.runtime.spawn(answer));
        Exchange { runtime: self.runtime.clone(), body: Some(body), head, answer: None }
    }

    /// A request with a whole body.
    pub fn send(
        &mut self,
        method: &str,
        path: &str,
        fields: &[(&str, &str)],
        body: &str,
    ) -> Exchange {
        let mut exchange = self.start(method, path, fields);
        exchange.data(body);
        exchange.end();
        exchange
    }

    /// Returns when the server has seen everything that was sent before.
    pub fn catch_up(&mut self) {
        let mut exchange = self.start("GET", "/-/health/live", &[]);
        exchange.end();
        assert_eq!(exchange.head().status(), 200);
    }
}

fn runtime() -> Arc<Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    Arc::new(builder.worker_threads(1).enable_all().build().unwrap())
}

async fn connected(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).await.unwrap();
    // A head and its body are two writes, and the second would wait for what acknowledges the first.
    stream.set_nodelay(true).unwrap();
    stream
}

async fn begun<IO>(stream: IO) -> SendRequest<Out>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

/// A stream. Dropped, it is reset.
pub struct Exchange {
    runtime: Arc<Runtime>,
    body: Option<Sender<Bytes, Error>>,
    head: Option<JoinHandle<hyper::Result<Response<Incoming>>>>,
    answer: Option<Incoming>,
}

impl Exchange {
    fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(async { timeout(BOUND, future).await.unwrap() })
    }

    /// Sends a part of the body.
    pub fn data(&mut self, data: &str) {
        let mut body = self.body.take().unwrap();
        self.wait(body.send_data(Bytes::from(data.to_owned()))).unwrap();
        self.body = Some(body);
    }

    /// Ends the body with trailers.
    pub fn trailers(&mut self, fields: &[(&'static str, &'static str)]) {
        let mut trailers = HeaderMap::new();
        for (name, value) in fields {
            trailers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let mut body = self.body.take().unwrap();
        self.wait(body.send_trailers(trailers)).unwrap();
    }

    /// Ends the body.
    pub fn end(&mut self) {
        self.body = None;
    }

    /// Resets the stream within its body.
    pub fn reset(&mut self) {
        self.body.take().unwrap().abort(Error::other("reset"));
    }

    /// The head of the answer.
    pub fn head(&mut self) -> Response<()> {
        let head = self.head.take().unwrap();
        let (head, body) = self.wait(head).unwrap().unwrap().into_parts();
        self.answer = Some(body);
        Response::from_parts(head, ())
    }

    /// The next frame of the answer's body; none at its end.
    pub fn frame(&mut self) -> Option<hyper::Result<Frame<Bytes>>> {
        let mut answer = self.answer.take().unwrap();
        let frame = self.wait(answer.frame());
        self.answer = Some(answer);
        frame
    }

    /// The next frame, which is data.
    pub fn bytes(&mut self) -> Bytes {
        self.frame().unwrap().unwrap().into_data().unwrap()
    }

    /// Whether the answer has ended with its head.
    pub fn ended_with_head(&self) -> bool {
        use hyper::body::Body as _;
        self.answer.as_ref().unwrap().is_end_stream()
    }

    /// The whole answer: its status and its body.
    pub fn reply(&mut self) -> (u16, String) {
        let status = self.head().status().as_u16();
        let answer = self.answer.take().unwrap();
        let body = self.wait(answer.collect()).unwrap().to_bytes();
        (status, String::from_utf8_lossy(&body).into_owned())
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if let Some(head) = &self.head {
            head.abort();
        }
    }
}

/// Sends one request of these fields, as they are and in this order, and returns when it was
/// answered or refused.
pub fn send_raw(address: SocketAddr, fields: &[(&[u8], &[u8])], body: Option<&[u8]>) {
    const HEADERS: u8 = 1;
    const END_STREAM: u8 = 1;
    const END_HEADERS: u8 = 4;
    let mut block = Vec::new();
    for (name, value) in fields {
        // RFC 7541, section 6.2.2: a literal with a name of its own, each without Huffman code.
        block.push(0);
        for text in [name, value] {
            assert!(text.len() < 127, "a longer one has another form");
            block.push(u8::try_from(text.len()).unwrap());
            block.extend_from_slice(text);
        }
    }
    let end = if body.is_none() { END_STREAM } else { 0 };
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(4, 0, 0, &[]));
    bytes.extend(frame(HEADERS, END_HEADERS | end, 1, &block));
    if let Some(body) = body {
        bytes.extend(frame(0, END_STREAM, 1, body));
    }
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(BOUND)).unwrap();
    stream.write_all(&bytes).unwrap();
    loop {
        let mut head = [0; 9];
        if stream.read_exact(&mut head).is_err() {
            return;
        }
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        stream.read_exact(&mut payload).unwrap();
        let (kind, flags, stream) = (head[3], head[4], head[8]);
        // DATA or HEADERS that end the stream, RST_STREAM, GOAWAY.
        if kind == 7 || (stream == 1 && (kind == 3 || (kind < 2 && flags & END_STREAM != 0))) {
            return;
        }
    }
}

fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags, 0, 0, 0, stream]);
    frame.extend_from_slice(payload);
    frame
}
