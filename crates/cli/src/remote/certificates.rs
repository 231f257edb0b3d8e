//! Whom to trust and what to show where the address is `https://`: from flags, the environment and
//! the configuration file.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use leasehold_client::ClientBuilder;

use crate::outcome::Failure;

/// A file, and where it was named, to be told.
pub(crate) struct Source {
    pub(crate) file: PathBuf,
    pub(crate) from: String,
}

/// The files of one place: a flag and its fellows, the environment, or one server of the
/// configuration file.
#[derive(Default)]
pub(crate) struct Sources {
    pub(crate) ca_cert: Option<Source>,
    pub(crate) client_cert: Option<Source>,
    pub(crate) client_key: Option<Source>,
}

/// What was in the files.
#[derive(Clone, Default)]
pub(crate) struct Certificates {
    authorities: Option<Pem>,
    own: Option<Own>,
}

#[derive(Clone)]
struct Pem {
    file: PathBuf,
    text: Vec<u8>,
}

#[derive(Clone)]
struct Own {
    certificate: Pem,
    key: Pem,
}

impl Certificates {
    /// Reads what the first place says that says anything. A certificate and its key come from one
    /// place.
    pub(crate) fn read(places: impl IntoIterator<Item = Sources>) -> Result<Self, Failure> {
        let mut found = Self::default();
        for place in places {
            if let (None, Some(source)) = (&found.authorities, &place.ca_cert) {
                found.authorities = Some(Pem::certificates(source)?);
            }
            match (&found.own, &place.client_cert, &place.client_key) {
                (None, Some(certificate), key) => {
                    // Without a file of its own, the key is behind the certificate.
                    let key = Pem::key(key.as_ref().unwrap_or(certificate))?;
                    found.own = Some(Own { certificate: Pem::certificates(certificate)?, key });
                }
                (None, None, Some(key)) => {
                    let from = &key.from;
                    return Err(Failure::usage(vec![format!(
                        "{from}: there is a key, and no client certificate that it is of"
                    )]));
                }
                _ => {}
            }
        }
        Ok(found)
    }

    pub(crate) fn add_to(&self, mut builder: ClientBuilder) -> ClientBuilder {
        if let Some(authorities) = &self.authorities {
            builder =
                builder.add_root_certificates(authorities.text.clone()).without_system_roots();
        }
        if let Some(Own { certificate, key }) = &self.own {
            let mut pem = certificate.text.clone();
            if key.file != certificate.file {
                pem.push(b'\n');
                pem.extend_from_slice(&key.text);
            }
            builder = builder.identity(pem);
        }
        builder
    }

    /// The same for commands that are run, which may be run in another folder.
    pub(crate) fn environment(&self) -> Vec<(&'static str, String)> {
        let own = self.own.as_ref();
        let files = [
            ("LEASEHOLD_CA_CERT", self.authorities.as_ref()),
            ("LEASEHOLD_CLIENT_CERT", own.map(|own| &own.certificate)),
            ("LEASEHOLD_CLIENT_KEY", own.map(|own| &own.key)),
        ];
        let named = files.into_iter().filter_map(|(name, pem)| Some((name, &pem?.file)));
        named.map(|(name, file)| (name, absolute(file).display().to_string())).collect()
    }
}

/// Where the file is from every folder.
pub(crate) fn absolute(file: &Path) -> PathBuf {
    fs::canonicalize(file).unwrap_or_else(|_| file.to_owned())
}

impl Pem {
    fn certificates(source: &Source) -> Result<Self, Failure> {
        Self::with(source, "BEGIN CERTIFICATE-----", |_| Ok(()))
    }

    fn key(source: &Source) -> Result<Self, Failure> {
        Self::with(source, "PRIVATE KEY-----", |file| {
            if file.metadata()?.mode() & 0o077 == 0 {
                return Ok(());
            }
            let shown = source.file.display();
            Err(io::Error::other(format!(
                "others than its owner may read or change it; `chmod 600 {shown}`, and make a new \
                 key if they may have read it"
            )))
        })
    }

    fn with(
        Source { file, from }: &Source,
        mark: &str,
        check: impl FnOnce(&File) -> io::Result<()>,
    ) -> Result<Self, Failure> {
        let wrong = |why: &str| {
            Failure::usage(vec![format!("{from}: cannot use {}: {why}", file.display())])
        };
        let read = || {
            let mut opened = File::open(file)?;
            check(&opened)?;
            let mut text = Vec::new();
            opened.read_to_end(&mut text)?;
            Ok(text)
        };
        let text: Vec<u8> = read().map_err(|error: io::Error| wrong(&error.to_string()))?;
        if !text.windows(mark.len()).any(|part| part == mark.as_bytes()) {
            return Err(wrong(&format!("it is not in PEM: no line has `{mark}`")));
        }
        Ok(Self { file: file.clone(), text })
    }
}
