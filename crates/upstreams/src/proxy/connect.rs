//! A connection to the upstream: TCP, with TLS where its address says `https://`; or whatever
//! somebody else connects.
//!
//! Looking the name up, connecting and the handshake have one span of time together. Until then
//! nothing of a request has been sent.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use leasehold_guard::upstream::BoxFuture;

use super::origin::Origin;
use super::tls::TlsError;

/// Connects in place of the system: a simulation does, with a network of its own.
pub trait Dial: Send + Sync + 'static {
    /// A connection to an upstream, as a whole: TLS, where the address asks for it, included.
    fn dial<'a>(&'a self, origin: &'a Origin) -> BoxFuture<'a, io::Result<Box<dyn Wire>>>;
}

/// What bytes can be sent over, and received.
pub trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// Connects to one upstream.
pub(super) struct Connector {
    origin: Origin,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    dial: Option<Arc<dyn Dial>>,
}

impl Connector {
    pub(super) fn new(
        origin: &Origin,
        tls: Option<Arc<ClientConfig>>,
        dial: Option<Arc<dyn Dial>>,
    ) -> Result<Self, TlsError> {
        let tls = match tls {
            Some(config) if origin.is_https() => {
                let name = ServerName::try_from(origin.host().to_owned())
                    .map_err(|_| TlsError::Name(origin.host().to_owned()))?;
                Some((TlsConnector::from(config), name))
            }
            _ => None,
        };
        Ok(Self { origin: origin.clone(), tls, dial })
    }

    /// A connection, if one comes about within `timeout`.
    pub(super) async fn connect(&self, timeout: Duration) -> io::Result<Stream> {
        let connecting = async {
            if let Some(dial) = &self.dial {
                return Ok(Stream::Dialled(dial.dial(&self.origin).await?));
            }
            let tcp = TcpStream::connect((self.origin.host(), self.origin.port())).await?;
            tcp.set_nodelay(true)?;
            match &self.tls {
                None => Ok(Stream::Plain(tcp)),
                Some((connector, name)) => {
                    let stream = connector.connect(name.clone(), tcp).await.map_err(|error| {
                        io::Error::new(error.kind(), format!("no TLS with the upstream: {error}"))
                    })?;
                    Ok(Stream::Tls(Box::new(stream)))
                }
            }
        };
        match tokio::time::timeout(timeout, connecting).await {
            Ok(connected) => connected,
            Err(_) => {
                Err(io::Error::new(io::ErrorKind::TimedOut, "no connection came about in time"))
            }
        }
    }
}

/// A connection.
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    Dialled(Box<dyn Wire>),
}

/// Calls the same method of whatever the connection runs over.
macro_rules! over {
    ($stream:expr, $layer:ident => $call:expr) => {
        match $stream.get_mut() {
            Stream::Plain($layer) => $call,
            Stream::Tls($layer) => $call,
            Stream::Dialled($layer) => $call,
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        over!(self, layer => Pin::new(layer).poll_read(context, buffer))
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
        match self {
            Self::Plain(tcp) => tcp.is_write_vectored(),
            Self::Tls(tls) => tls.is_write_vectored(),
            Self::Dialled(wire) => wire.is_write_vectored(),
        }
    }
}
