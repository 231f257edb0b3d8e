//! The TLS handshake of a connection, before its first request.

use std::io;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// How long a client whose handshake failed has for reading why.
const LINGER: Duration = Duration::from_millis(500);

/// Shakes hands, until `deadline`.
pub(super) async fn shake_hands(
    acceptor: TlsAcceptor,
    stream: TcpStream,
    deadline: Instant,
) -> io::Result<TlsStream<TcpStream>> {
    let shaken = timeout_at(deadline, acceptor.accept(stream).into_fallible()).await;
    match shaken.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))? {
        Ok(stream) => Ok(stream),
        Err((error, mut stream)) => {
            // The client is told by an alert. Closed before what it sent has been read, the system
            // would answer with a reset, and the alert might be lost.
            let mut rest = [0; 1024];
            let gone = async { while !matches!(stream.read(&mut rest).await, Ok(0) | Err(_)) {} };
            // Whether it heard us is its own matter.
            let _ = timeout(LINGER, gone).await;
            Err(error)
        }
    }
}
