//! TLS to the upstream: whom the gateway trusts, and who it is itself.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

/// The files that TLS to the upstream takes, as PEM.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct TlsFiles {
    /// The authorities that sign its certificate, in place of the system's.
    pub ca: Option<PathBuf>,
    /// The certificate that the gateway shows, and then its key, in one file.
    pub identity: Option<PathBuf>,
}

/// Why there can be no TLS to the upstream. Nothing of what a file holds is repeated: it may be a
/// key.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file has no certificate.
    #[error("{0} has no certificate in PEM (`-----BEGIN CERTIFICATE-----`)")]
    NoCertificate(PathBuf),
    /// A file has no key.
    #[error("{0} has no key in PEM without a passphrase (`-----BEGIN PRIVATE KEY-----`)")]
    NoKey(PathBuf),
    /// A certificate or key cannot be used.
    #[error("{0}: {1}")]
    Unusable(PathBuf, rustls::Error),
    /// Nobody is trusted.
    #[error(
        "no authority is trusted to sign the upstream's certificate: this system has no root \
         certificates, and none were given"
    )]
    NoRoots,
    /// No certificate can be for the host.
    #[error("no certificate can be for the host `{0}`")]
    Name(String),
    /// The library refuses its own defaults.
    #[error("TLS cannot be set up: {0}")]
    Setup(rustls::Error),
}

impl TlsFiles {
    /// What connections are made with.
    ///
    /// # Errors
    /// What is wrong with which file.
    pub fn load(&self) -> Result<Arc<ClientConfig>, TlsError> {
        // Named, not installed for the process: what else runs there may have its own.
        let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Setup)?
            .with_root_certificates(self.roots()?);
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let pem = read(path)?;
                let chain = certificates(path, &pem)?;
                let key = PrivateKeyDer::from_pem_slice(&pem)
                    .map_err(|_| TlsError::NoKey(path.clone()))?;
                builder
                    .with_client_auth_cert(chain, key)
                    .map_err(|error| TlsError::Unusable(path.clone(), error))?
            }
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    fn roots(&self) -> Result<RootCertStore, TlsError> {
        let mut roots = RootCertStore::empty();
        match &self.ca {
            Some(path) => {
                for certificate in certificates(path, &read(path)?)? {
                    roots
                        .add(certificate)
                        .map_err(|error| TlsError::Unusable(path.clone(), error))?;
                }
            }
            None => {
                // A system may have one among many that nobody can use.
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            }
        }
        if roots.is_empty() { Err(TlsError::NoRoots) } else { Ok(roots) }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Read { path: path.to_owned(), source })
}

fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        _ => Err(TlsError::NoCertificate(path.to_owned())),
    }
}
