//! TLS: whom the client trusts, who it is itself, and what stood in the way of a handshake.

use std::io;
use std::sync::Arc;

use jiff::Timestamp;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{AlertDescription, CertificateError, ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::connect::NoTls;
use crate::error::{Error, TlsFailure};

/// Whom to trust, and who the client is, as PEM.
#[derive(Default)]
pub(crate) struct TlsOptions {
    pub(crate) roots: Vec<Vec<u8>>,
    pub(crate) without_system_roots: bool,
    pub(crate) identity: Option<Vec<u8>>,
}

/// The handshakes with one server.
#[derive(Clone)]
pub(crate) struct Handshake {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl TlsOptions {
    /// The handshakes with the server of this name or IP address.
    pub(crate) fn handshake(&self, host: &str) -> Result<Handshake, Error> {
        // An IPv6 address has brackets in a URL.
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let name = ServerName::try_from(bare.to_owned()).map_err(|_| {
            Error::Invalid("no certificate can be for the host of the server's address".into())
        })?;
        // Named, not installed for the whole process: what else runs there may have its own.
        let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::Invalid(error.to_string()))?
            .with_root_certificates(self.trusted()?);
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some(pem) => {
                let (chain, key) = identity(pem)?;
                builder.with_client_auth_cert(chain, key).map_err(|error| {
                    Error::Invalid(format!("the client's certificate and its key: {error}"))
                })?
            }
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Handshake { connector: TlsConnector::from(Arc::new(config)), name })
    }

    fn trusted(&self) -> Result<RootCertStore, Error> {
        let mut trusted = RootCertStore::empty();
        for pem in &self.roots {
            let certificates = certificates(pem, "a root certificate")?;
            for certificate in certificates {
                trusted.add(certificate).map_err(|error| {
                    Error::Invalid(format!("a root certificate cannot be used: {error}"))
                })?;
            }
        }
        if !self.without_system_roots {
            let found = rustls_native_certs::load_native_certs();
            // A system may have one among many that nobody can use.
            trusted.add_parsable_certificates(found.certs);
        }
        if trusted.is_empty() {
            return Err(Error::Invalid(
                "no authority is trusted to sign a server's certificate: there are no root \
                 certificates on this system, and none were added"
                    .into(),
            ));
        }
        Ok(trusted)
    }
}

/// The certificates of a PEM file: at least one.
fn certificates(pem: &[u8], what: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        // The parser's message can have a piece of what it read, which may be a key.
        _ => Err(Error::Invalid(format!("{what} is not in PEM: `-----BEGIN CERTIFICATE-----`"))),
    }
}

fn identity(pem: &[u8]) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), Error> {
    let chain = certificates(pem, "the client's certificate")?;
    let key = PrivateKeyDer::from_pem_slice(pem).map_err(|_| {
        Error::Invalid(
            "the key of the client's certificate is not in PEM: `-----BEGIN PRIVATE KEY-----`, \
             without a passphrase"
                .into(),
        )
    })?;
    Ok((chain, key))
}

impl Handshake {
    /// Shakes hands over this connection.
    pub(crate) async fn with(&self, tcp: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        use AlertDescription::{InternalError, UserCanceled};

        self.connector.connect(self.name.clone(), tcp).await.map_err(|error| match tls(&error) {
            // A proxy that has no certificate yet, or is about to stop: that passes.
            Some(rustls::Error::AlertReceived(alert @ (InternalError | UserCanceled))) => {
                io::Error::other(format!("the server broke off the TLS handshake: {alert:?}"))
            }
            Some(failed) => io::Error::other(judge(failed)),
            None if error.kind() == io::ErrorKind::UnexpectedEof => {
                let what = "the server closed the connection during the TLS handshake";
                io::Error::new(io::ErrorKind::UnexpectedEof, what)
            }
            None => io::Error::new(error.kind(), format!("the TLS handshake broke off: {error}")),
        })
    }
}

fn tls(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

/// What a failed handshake says, in words that say what to do.
fn judge(error: &rustls::Error) -> NoTls {
    use TlsFailure as Failure;
    use rustls::Error as Tls;

    let (failure, what) = match error {
        Tls::InvalidCertificate(error) => judge_certificate(error),
        Tls::InvalidMessage(_) => {
            (Failure::NotSpoken, "the server does not speak TLS there".to_owned())
        }
        Tls::NoCertificatesPresented => {
            (Failure::Certificate, "the server shows no certificate".to_owned())
        }
        Tls::AlertReceived(alert) => match judge_alert(*alert) {
            Some(what) => (Failure::ClientCertificate, what),
            None if *alert == AlertDescription::ProtocolVersion => {
                (Failure::Handshake, "the server speaks neither TLS 1.3 nor 1.2".to_owned())
            }
            None => (Failure::Handshake, format!("the server ended the TLS handshake: {alert:?}")),
        },
        other => (Failure::Handshake, format!("no TLS with the server: {other}")),
    };
    NoTls { failure, what }
}

fn judge_certificate(error: &CertificateError) -> (TlsFailure, String) {
    use CertificateError as Certificate;
    use TlsFailure as Failure;

    match error {
        Certificate::UnknownIssuer => (
            Failure::UnknownIssuer,
            "the server's certificate was signed by nobody who is trusted here".to_owned(),
        ),
        Certificate::BadSignature => (
            Failure::UnknownIssuer,
            "the server's certificate was signed by a namesake of an authority that is trusted \
             here, with another key"
                .to_owned(),
        ),
        Certificate::ExpiredContext { not_after, .. } => {
            (Failure::Expired, format!("the server's certificate expired on {}", shown(*not_after)))
        }
        Certificate::NotValidYetContext { not_before, .. } => (
            Failure::NotValidYet,
            format!("the server's certificate is not valid before {}", shown(*not_before)),
        ),
        Certificate::NotValidForNameContext { expected, presented } => {
            let expected = expected.to_str();
            let what = match names(presented).as_slice() {
                [] => format!("the server's certificate names no host, and so not {expected}"),
                names => format!(
                    "the server's certificate is for {}, not for {expected}",
                    names.join(", ")
                ),
            };
            (Failure::WrongName, what)
        }
        // What `openssl req -x509` makes, used as the authority and as the server's own.
        other if format!("{other:?}").contains("CaUsedAsEndEntity") => (
            Failure::Certificate,
            "the server's certificate is one of an authority (CA:TRUE); it needs one of its own, \
             signed by that"
                .to_owned(),
        ),
        other => {
            (Failure::Certificate, format!("the server's certificate cannot be trusted: {other}"))
        }
    }
}

/// `DnsName("a.example")` is `a.example`.
fn names(presented: &[String]) -> Vec<&str> {
    let bare =
        |name: &'_ str| -> Option<(usize, usize)> { Some((name.find('(')? + 1, name.rfind(')')?)) };
    presented
        .iter()
        .map(|name| {
            bare(name).map_or(name.as_str(), |(from, to)| &name[from..to]).trim_matches('"')
        })
        .collect()
}

fn shown(time: UnixTime) -> String {
    let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    Timestamp::from_second(seconds).map_or_else(|_| seconds.to_string(), |time| time.to_string())
}

/// What an alert says about the certificate that the client showed or did not show.
fn judge_alert(alert: AlertDescription) -> Option<String> {
    let what = match alert {
        AlertDescription::CertificateRequired => "the server asks for a client certificate",
        AlertDescription::CertificateExpired => "the client certificate has expired",
        AlertDescription::CertificateRevoked => "the client certificate has been revoked",
        AlertDescription::UnknownCA => {
            "the client certificate was signed by nobody whom the server trusts"
        }
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::DecryptError
        | AlertDescription::AccessDenied => {
            return Some(format!("the server refused the client certificate: {alert:?}"));
        }
        _ => return None,
    };
    Some(what.to_owned())
}

/// Whether this ended a connection because of the client's certificate.
pub(crate) fn refused_certificate(error: &io::Error) -> Option<NoTls> {
    match tls(error)? {
        rustls::Error::AlertReceived(alert) => {
            let what = judge_alert(*alert)?;
            Some(NoTls { failure: TlsFailure::ClientCertificate, what })
        }
        _ => None,
    }
}
