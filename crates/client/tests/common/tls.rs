//! Certificates made for one test, and a front that ends TLS before a server that speaks none.
#![allow(dead_code, unreachable_pub, reason = "each file of tests uses its own part of this")]
#![allow(clippy::unwrap_used, reason = "a helper of a test panics like the test")]

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, IsCa, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// Who signs certificates.
pub struct Authority {
    certificate: Certificate,
    key: KeyPair,
}

/// A certificate and its key.
pub struct Issued {
    pub certificate: String,
    pub key: String,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        Self { certificate: params.self_signed(&key).unwrap(), key }
    }

    pub fn pem(&self) -> String {
        self.certificate.pem()
    }

    /// A certificate for these names and addresses.
    pub fn issue(&self, names: &[&str]) -> Issued {
        self.issue_for_years(names, 2000, 4000)
    }

    /// The same from the first day of one year to that of another.
    pub fn issue_for_years(&self, names: &[&str], from: i32, to: i32) -> Issued {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.not_before = date_time_ymd(from, 1, 1);
        params.not_after = date_time_ymd(to, 1, 1);
        let certificate = params.signed_by(&key, &self.certificate, &self.key).unwrap();
        Issued { certificate: certificate.pem(), key: key.serialize_pem() }
    }

    /// The authority's own certificate and key, as if they were a server's.
    pub fn itself(&self) -> Issued {
        Issued { certificate: self.pem(), key: self.key.serialize_pem() }
    }
}

impl Issued {
    /// Certificate and key, one behind the other.
    pub fn pem(&self) -> String {
        format!("{}{}", self.certificate, self.key)
    }
}

/// What the front does with one connection.
#[derive(Clone, Copy, Debug)]
pub enum Accept {
    /// Shakes hands, and passes on.
    Serve,
    /// Shakes hands after a while, and passes on.
    Late(Duration),
    /// Shakes hands and passes on, and cuts the connection after a while.
    ServeUntil(Duration),
    /// Closes in the middle of the handshake.
    Close,
    /// Sends this alert in the middle of the handshake, and closes.
    Alert(u8),
    /// Says nothing in the middle of the handshake.
    Hang,
}

/// How the front shakes hands.
pub struct Setup {
    own: Issued,
    clients: Option<String>,
    versions: &'static [&'static SupportedProtocolVersion],
}

impl Setup {
    pub fn new(own: Issued) -> Self {
        Self { own, clients: None, versions: rustls::ALL_VERSIONS }
    }

    /// Clients need a certificate that this authority has signed.
    #[must_use]
    pub fn clients_of(mut self, authority: &Authority) -> Self {
        self.clients = Some(authority.pem());
        self
    }

    #[must_use]
    pub fn versions(mut self, versions: &'static [&'static SupportedProtocolVersion]) -> Self {
        self.versions = versions;
        self
    }

    fn config(&self) -> ServerConfig {
        let provider = Arc::new(default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(self.versions)
            .unwrap();
        let builder = match &self.clients {
            None => builder.with_no_client_auth(),
            Some(pem) => {
                let mut roots = RootCertStore::empty();
                roots.add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()).unwrap();
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        let chain = vec![CertificateDer::from_pem_slice(self.own.certificate.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(self.own.key.as_bytes()).unwrap();
        let mut config = builder.with_single_cert(chain, key).unwrap();
        // A server that would rather speak another protocol.
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config
    }

    /// Starts the front, on a thread of its own, before the server at this address.
    pub fn before(self, server: SocketAddr) -> Front {
        self.accepting(server, [])
    }

    /// The same; this is done with the first connections.
    pub fn accepting(self, server: SocketAddr, first: impl IntoIterator<Item = Accept>) -> Front {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        listener.set_nonblocking(true).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(self.config()));
        let connections = Arc::new(AtomicUsize::new(0));
        let front = Front { address, connections: connections.clone() };
        let steps: Mutex<VecDeque<Accept>> = Mutex::new(first.into_iter().collect());
        let serve = async move {
            let listener = TcpListener::from_std(listener).unwrap();
            loop {
                let (client, _) = listener.accept().await.unwrap();
                connections.fetch_add(1, Ordering::SeqCst);
                let step = steps.lock().unwrap().pop_front().unwrap_or(Accept::Serve);
                tokio::spawn(pass_on(step, client, acceptor.clone(), server));
            }
        };
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(serve);
        });
        front
    }
}

async fn pass_on(
    step: Accept,
    mut client: TcpStream,
    acceptor: TlsAcceptor,
    server: SocketAddr,
) -> Option<()> {
    match step {
        Accept::Serve | Accept::ServeUntil(_) => {}
        Accept::Late(rest) => tokio::time::sleep(rest).await,
        Accept::Close | Accept::Alert(_) | Accept::Hang => {
            // The whole of the client's first message: what is left unread would make a reset of
            // the close.
            assert_ne!(client.read(&mut [0; 16 << 10]).await.ok()?, 0);
            match step {
                // Fatal, as every one is.
                Accept::Alert(alert) => client.write_all(&[21, 3, 3, 0, 2, 2, alert]).await.ok()?,
                Accept::Hang => {
                    assert_eq!(client.read(&mut [0]).await.ok()?, 0, "the client goes");
                }
                _ => {}
            }
            return None;
        }
    }
    match acceptor.accept(client).into_fallible().await {
        Ok(mut client) => {
            assert_eq!(client.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
            let mut server = TcpStream::connect(server).await.ok()?;
            let passing = copy_bidirectional(&mut client, &mut server);
            if let Accept::ServeUntil(end) = step {
                let _ = tokio::time::timeout(end, passing).await;
            } else {
                passing.await.ok()?;
            }
        }
        Err((_, mut client)) => {
            // Until the client has closed: it reads the alert before that.
            while client.read(&mut [0; 1024]).await.ok()? != 0 {}
        }
    }
    Some(())
}

/// A running front.
pub struct Front {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
}

impl Front {
    /// Where it listens: a port of 127.0.0.1.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// How many connections there have been.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}
