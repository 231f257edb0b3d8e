//! How a connection comes about: over TCP, and with TLS where the address says `https://`.
//!
//! All of it, from looking the name up to the end of the handshake, has one span of time. Until
//! then nothing of a request has been sent. And what is heard first on a connection tells of two
//! more cases in which no request was read at the other end: see [`Stream::judge`].

use std::error::Error as StdError;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tower_service::Service;

use crate::error::TlsFailure;
#[cfg(feature = "tls")]
use crate::tls;

type BoxError = Box<dyn StdError + Send + Sync>;

/// Connects to the one server that a client has.
#[derive(Clone)]
pub(crate) struct Connector {
    tcp: HttpConnector,
    #[cfg(feature = "tls")]
    tls: Option<tls::Handshake>,
    timeout: Duration,
}

impl Connector {
    pub(crate) fn new(
        timeout: Duration,
        #[cfg(feature = "tls")] tls: Option<tls::Handshake>,
    ) -> Self {
        let mut tcp = HttpConnector::new();
        // Divided among the addresses of a name; the whole is bounded below.
        tcp.set_connect_timeout(Some(timeout));
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(Duration::from_secs(30)));
        // Else it refuses `https`, which is added on top of it here.
        tcp.enforce_http(false);
        Self {
            tcp,
            #[cfg(feature = "tls")]
            tls,
            timeout,
        }
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Stream>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.tcp.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let tcp = self.tcp.call(uri);
        #[cfg(feature = "tls")]
        let tls = self.tls.clone();
        let timeout = self.timeout;
        let connect = async move {
            let tcp = tcp.await?.into_inner();
            #[cfg(feature = "tls")]
            if let Some(tls) = tls {
                let stream = tls.with(tcp).await?;
                return Ok(TokioIo::new(Stream::new(Layer::Tls(Box::new(stream)))));
            }
            Ok(TokioIo::new(Stream::new(Layer::Plain(tcp))))
        };
        Box::pin(async move {
            match tokio::time::timeout(timeout, connect).await {
                Ok(connected) => connected,
                Err(_) => {
                    let what = format!("no connection within {:.1} s", timeout.as_secs_f32());
                    Err(io::Error::new(io::ErrorKind::TimedOut, what).into())
                }
            }
        })
    }
}

/// TLS did not come about, so no request was read at the other end.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub(crate) struct NoTls {
    pub(crate) failure: TlsFailure,
    pub(crate) what: String,
}

impl NoTls {
    fn expected() -> Self {
        Self {
            failure: TlsFailure::Expected,
            what: "the server speaks TLS there, so its address begins with https://".to_owned(),
        }
    }

    /// What a `400` without TLS means from servers that know the mistake: nginx, Go's and those
    /// made with it, and Apache.
    pub(crate) fn told(body: &[u8]) -> Option<Self> {
        let says = |words: &[u8]| body.windows(words.len()).any(|part| part == words);
        let known: [&[u8]; 3] =
            [b"sent to HTTPS port", b"to an HTTPS server", b"to an SSL-enabled server port"];
        known.into_iter().any(says).then(Self::expected)
    }

    /// The one among an error and its causes.
    pub(crate) fn among<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(found) = error.downcast_ref() {
                return Some(found);
            }
            // An I/O error gives the source of what it carries as its own, and hides that itself.
            let carried = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
            next = carried.map(|carried| carried as &(dyn StdError + 'static)).or(error.source());
        }
        None
    }
}

/// A connection.
pub(crate) struct Stream {
    layer: Layer,
    /// Whether anything has come from the other end.
    has_heard: bool,
}

enum Layer {
    Plain(TcpStream),
    #[cfg(feature = "tls")]
    Tls(Box<tokio_rustls::client::TlsStream<TcpStream>>),
}

/// Calls the same method of whatever the connection runs over.
macro_rules! over {
    ($stream:expr, $layer:ident => $call:expr) => {
        match &mut $stream.get_mut().layer {
            Layer::Plain($layer) => $call,
            #[cfg(feature = "tls")]
            Layer::Tls($layer) => $call,
        }
    };
}

impl Stream {
    fn new(layer: Layer) -> Self {
        Self { layer, has_heard: false }
    }

    /// What the first thing that was read means.
    ///
    /// Without TLS, an alert where an answer is expected: the other end took the request for a
    /// broken handshake. With TLS 1.3, which is agreed upon here before the server has looked at
    /// the client's certificate: an alert that says it does not want that one.
    fn judge(&self, read: Result<&[u8], &io::Error>) -> Option<NoTls> {
        match &self.layer {
            // The content type of an alert, and the major version of every TLS. No answer of
            // HTTP begins with such a byte.
            Layer::Plain(_) => matches!(read, Ok([21] | [21, 3, ..])).then(NoTls::expected),
            #[cfg(feature = "tls")]
            Layer::Tls(_) => tls::refused_certificate(read.err()?),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = std::task::ready!(
            over!(self.as_mut(), layer => Pin::new(layer).poll_read(context, buffer))
        );
        if !self.has_heard {
            self.has_heard = true;
            let heard = read.as_ref().map(|()| &buffer.filled()[before..]);
            if let Some(failure) = self.judge(heard) {
                return Poll::Ready(Err(io::Error::other(failure)));
            }
        }
        Poll::Ready(read)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        over!(self, layer => Pin::new(layer).poll_write(context, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        over!(self, layer => Pin::new(layer).poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        over!(self, layer => Pin::new(layer).poll_shutdown(context))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        over!(self, layer => Pin::new(layer).poll_write_vectored(context, slices))
    }

    fn is_write_vectored(&self) -> bool {
        match &self.layer {
            Layer::Plain(tcp) => tcp.is_write_vectored(),
            #[cfg(feature = "tls")]
            Layer::Tls(tls) => tls.is_write_vectored(),
        }
    }
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        match &self.layer {
            Layer::Plain(tcp) => tcp.connected(),
            #[cfg(feature = "tls")]
            Layer::Tls(tls) => tls.get_ref().0.connected(),
        }
    }
}
