//! One document from an HTTP server: the keys of whoever issues tokens.
//!
//! Deliberately absent: redirections. Keys come from the address that the operator has named.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, HOST};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::tls;

/// The longest that it may take.
const TIME: Duration = Duration::from_secs(5);
/// The most bytes that it may have.
const MAX_BYTES: usize = 1 << 20;

/// Why there is no document.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Gets one document.
#[derive(Clone)]
pub(super) struct Fetch {
    uri: Uri,
    tls: Option<TlsConnector>,
}

impl Fetch {
    /// From this address, which is `http` or `https` and has a host. With `https` the authorities
    /// in the file `ca` count, or those that the system trusts.
    pub(super) fn new(uri: Uri, ca: Option<&Path>) -> Result<Self, Failure> {
        let tls = match uri.scheme_str() {
            Some("https") => Some(connector(ca)?),
            _ => None,
        };
        Ok(Self { uri, tls })
    }

    /// Gets it.
    pub(super) async fn get(&self) -> Result<Bytes, Failure> {
        match timeout(TIME, self.attempt()).await {
            Ok(got) => got,
            Err(_) => Err(format!("no answer within {} s", TIME.as_secs()).into()),
        }
    }

    async fn attempt(&self) -> Result<Bytes, Failure> {
        let host = self.uri.host().ok_or("the address has no host")?;
        // An IPv6 address has brackets in a URL.
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let port = self.uri.port_u16().unwrap_or(if self.tls.is_some() { 443 } else { 80 });
        let stream = TcpStream::connect((bare, port)).await?;
        match &self.tls {
            None => self.ask(stream).await,
            Some(tls) => {
                let name = ServerName::try_from(bare.to_owned())?;
                self.ask(tls.connect(name, stream).await?).await
            }
        }
    }

    async fn ask(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) -> Result<Bytes, Failure> {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let authority = self.uri.authority().ok_or("the address has no host")?;
        let path = self.uri.path_and_query().map_or("/", |path| path.as_str());
        let request = Request::get(path)
            .header(HOST, authority.as_str())
            .header(ACCEPT, "application/jwk-set+json, application/json")
            .body(Empty::<Bytes>::new())?;
        let exchange = async {
            let answer = sender.send_request(request).await?;
            if answer.status() != StatusCode::OK {
                return Err(Failure::from(format!("the answer is {}", answer.status())));
            }
            Ok(Limited::new(answer.into_body(), MAX_BYTES).collect().await?.to_bytes())
        };
        // The connection is driven here, so that nothing of it outlives the attempt.
        tokio::pin!(exchange, connection);
        tokio::select! {
            biased;
            got = &mut exchange => got,
            ended = &mut connection => match ended {
                // All has been read; what is left is to look at it.
                Ok(()) => exchange.await,
                Err(error) => Err(error.into()),
            },
        }
    }
}

fn connector(ca: Option<&Path>) -> Result<TlsConnector, Failure> {
    let trusted = match ca {
        Some(path) => tls::authorities("identity.jwks_ca", path)?,
        None => {
            let mut trusted = RootCertStore::empty();
            // A system may have one among many that nobody can use.
            trusted.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if trusted.is_empty() {
                let what = "no authority is trusted: there are no root certificates on this system";
                return Err(what.into());
            }
            trusted
        }
    };
    let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(trusted)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}
