//! TLS of the listener: made from files, and made anew from them while the server runs.
//!
//! Whoever has a [`Tls`] has a certificate and the key that belongs to it. A pair that cannot be
//! used is told with its file, and changes nothing in a running server. Connections keep what they
//! were made with.
//!
//! Deliberately absent: who a client certificate is for. Here it decides who may connect; whether
//! it also says who calls is a matter of `identity`.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;

/// The files that TLS is made from, in PEM.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Files {
    /// The server's certificate, and those that lead to its authority.
    pub cert: PathBuf,
    /// The key of the certificate.
    pub key: PathBuf,
    /// The authorities that sign the certificates of clients; none: clients show no certificate.
    pub client_ca: Option<PathBuf>,
}

/// Why the files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read `{setting}`, {}", path.display())]
    Io {
        /// The setting that names it.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is not what it should be.
    #[error("`{setting}`, {}: {what}", path.display())]
    Unusable {
        /// The setting that names it.
        setting: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong, and what was expected. Never a part of the file, which may be a key.
        what: String,
    },
}

/// How connections to one listener are encrypted.
#[derive(Debug)]
pub struct Tls(ArcSwap<ServerConfig>);

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// When one cannot be read or used.
    pub fn open(files: &Files) -> Result<Self, TlsError> {
        Ok(Self(ArcSwap::new(load(files)?)))
    }

    /// Reads the files again, for the connections from now on.
    ///
    /// # Errors
    /// As [`Tls::open`]; then everything stays as it was.
    pub fn reload(&self, files: &Files) -> Result<(), TlsError> {
        self.0.store(load(files)?);
        Ok(())
    }

    /// What the next connection is accepted with.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.0.load_full())
    }
}

fn load(files: &Files) -> Result<Arc<ServerConfig>, TlsError> {
    let unusable = |setting, path: &Path, what: String| TlsError::Unusable {
        setting,
        path: path.to_owned(),
        what,
    };
    let chain = certificates("tls_cert", &files.cert)?;
    let key = PrivateKeyDer::from_pem_slice(&read("tls_key", &files.key)?).map_err(|_| {
        let what = "there is no private key in it; expected `-----BEGIN PRIVATE KEY-----`, in PEM \
                    and without a passphrase";
        unusable("tls_key", &files.key, what.to_owned())
    })?;
    warn_of_readers(&files.key);
    // Named, not installed for the whole process: what else runs there may have its own.
    let provider = Arc::new(default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable("tls_cert", &files.cert, error.to_string()))?;
    let builder = match &files.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let authorities = authorities("tls_client_ca", path)?;
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(authorities), provider)
                    .build()
                    .map_err(|error| unusable("tls_client_ca", path, error.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_single_cert(chain, key).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => {
            let what = format!("it is not the key of the certificate in {}", files.cert.display());
            unusable("tls_key", &files.key, what)
        }
        rustls::Error::InvalidCertificate(error) => {
            let what = format!("the first certificate cannot be used: {error}");
            unusable("tls_cert", &files.cert, what)
        }
        other => unusable("tls_key", &files.key, format!("the key cannot be used: {other}")),
    })?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// The authorities of a file: all of them, for one that is left out would be missed later.
pub(crate) fn authorities(setting: &'static str, path: &Path) -> Result<RootCertStore, TlsError> {
    let mut authorities = RootCertStore::empty();
    for certificate in certificates(setting, path)? {
        authorities.add(certificate).map_err(|error| TlsError::Unusable {
            setting,
            path: path.to_owned(),
            what: format!("an authority's certificate cannot be used: {error}"),
        })?;
    }
    Ok(authorities)
}

fn read(setting: &'static str, path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|source| TlsError::Io { setting, path: path.to_owned(), source })
}

/// The certificates of a file: at least one.
fn certificates(
    setting: &'static str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = read(setting, path)?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        // The parser's message can have a piece of what it read.
        _ => Err(TlsError::Unusable {
            setting,
            path: path.to_owned(),
            what: "there is no certificate in it; expected `-----BEGIN CERTIFICATE-----`, in PEM"
                .to_owned(),
        }),
    }
}

/// A key that others can read is not refused: where certificates are made for several services, a
/// group of theirs reads the keys.
fn warn_of_readers(key: &Path) {
    let Ok(file) = fs::metadata(key) else { return };
    if file.permissions().mode() & 0o077 != 0 {
        tracing::warn!(
            "others than its owner may read or change `tls_key`, {}; `chmod 600` it, and make a \
             new key if they may have read it",
            key.display()
        );
    }
}

#[cfg(test)]
mod tests;
