//! Which server is talked to, and with which key: from flags, the environment and a file.

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use leasehold_client::{Client, ClientBuilder};
use serde::Deserialize;

use super::certificates::{Certificates, Source, Sources};
use crate::args::remote::Remote;
use crate::outcome::Failure;

/// Where a server listens that was told nothing else.
const DEFAULT_URL: &str = "http://127.0.0.1:7423";

/// A server, and what it is to be shown.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) url: String,
    key: Option<String>,
    /// Where the key comes from, to be told.
    pub(crate) key_from: Option<String>,
    /// The file it was read from, for commands that are run.
    pub(crate) key_file: Option<PathBuf>,
    pub(crate) certificates: Certificates,
    prefix: Option<String>,
    lock_suffix: Option<String>,
}

impl Target {
    pub(crate) fn builder(&self) -> ClientBuilder {
        let mut builder =
            Client::builder(&self.url).user_agent(concat!("leasehold/", env!("CARGO_PKG_VERSION")));
        if let Some(key) = &self.key {
            builder = builder.key(key);
        }
        if let Some(prefix) = &self.prefix {
            builder = builder.prefix(prefix);
        }
        if let Some(suffix) = &self.lock_suffix {
            builder = builder.lock_suffix(suffix);
        }
        self.certificates.add_to(builder)
    }
}

/// The configuration file.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    default: Option<String>,
    #[serde(default)]
    server: BTreeMap<String, Named>,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    url: String,
    key: Option<String>,
    key_file: Option<PathBuf>,
    ca_cert: Option<PathBuf>,
    client_cert: Option<PathBuf>,
    client_key: Option<PathBuf>,
    prefix: Option<String>,
    lock_suffix: Option<String>,
}

/// Who is talked to: what the flags say, else the environment, else the file.
pub(crate) fn target(remote: &Remote) -> Result<Target, Failure> {
    let path = remote.config.clone().or_else(usual_file);
    let file = match &path {
        Some(path) => read(path, remote.config.is_some())?,
        None => File::default(),
    };
    let asked = remote.server.clone().or(file.default.clone());
    let (named, url) = find(&file, path.as_deref(), asked.as_deref())?;
    let certificates = if url.starts_with("https://") {
        Certificates::read(places(remote, named.as_ref().zip(path.as_deref())))?
    } else {
        Certificates::default()
    };
    let mut target = Target {
        url,
        key: None,
        key_from: None,
        key_file: None,
        certificates,
        prefix: named.as_ref().and_then(|named| named.prefix.clone()),
        lock_suffix: named.as_ref().and_then(|named| named.lock_suffix.clone()),
    };
    let from_file = |target: &mut Target, file: PathBuf, from: String| -> Result<(), Failure> {
        target.key = Some(first_line(&file, &from)?);
        (target.key_file, target.key_from) = (Some(file), Some(from));
        Ok(())
    };
    if let Some(key) = &remote.key {
        (target.key, target.key_from) = (Some(key.clone()), Some("--key".to_owned()));
    } else if let Some(file) = &remote.key_file {
        from_file(&mut target, file.clone(), "--key-file".to_owned())?;
    } else if let Some(key) = given("LEASEHOLD_KEY") {
        let key = key.into_string().map_err(|_| {
            Failure::usage(vec!["LEASEHOLD_KEY has a byte that no key has".to_owned()])
        })?;
        (target.key, target.key_from) = (Some(key), Some("LEASEHOLD_KEY".to_owned()));
    } else if let Some(file) = given("LEASEHOLD_KEY_FILE") {
        from_file(&mut target, file.into(), "LEASEHOLD_KEY_FILE".to_owned())?;
    } else if let (Some(named), Some(path)) = (named, &path) {
        if let Some(key) = named.key {
            (target.key, target.key_from) = (Some(key), Some(path.display().to_string()));
        } else if let Some(file) = named.key_file {
            let from = format!("`key_file` in {}", path.display());
            from_file(&mut target, beside(path, &file), from)?;
        }
    }
    Ok(target)
}

/// A variable of the environment that says something.
fn given(name: &str) -> Option<OsString> {
    env::var_os(name).filter(|content| !content.is_empty())
}

/// Where files with certificates are named: what comes first counts.
fn places(remote: &Remote, named: Option<(&Named, &Path)>) -> [Sources; 3] {
    let flag = |file: &Option<PathBuf>, name: &str| {
        file.clone().map(|file| Source { file, from: name.to_owned() })
    };
    let variable =
        |name: &str| given(name).map(|file| Source { file: file.into(), from: name.to_owned() });
    let written = |name: &str, file: fn(&Named) -> &Option<PathBuf>| {
        let (named, config) = named?;
        let file = beside(config, file(named).as_ref()?);
        Some(Source { file, from: format!("`{name}` in {}", config.display()) })
    };
    [
        Sources {
            ca_cert: flag(&remote.ca_cert, "--ca-cert"),
            client_cert: flag(&remote.client_cert, "--client-cert"),
            client_key: flag(&remote.client_key, "--client-key"),
        },
        Sources {
            ca_cert: variable("LEASEHOLD_CA_CERT"),
            client_cert: variable("LEASEHOLD_CLIENT_CERT"),
            client_key: variable("LEASEHOLD_CLIENT_KEY"),
        },
        Sources {
            ca_cert: written("ca_cert", |named| &named.ca_cert),
            client_cert: written("client_cert", |named| &named.client_cert),
            client_key: written("client_key", |named| &named.client_key),
        },
    ]
}

/// `~/.config/leasehold/config.toml`.
fn usual_file() -> Option<PathBuf> {
    let filled = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let folder = filled("XDG_CONFIG_HOME").or_else(|| Some(filled("HOME")?.join(".config")))?;
    Some(folder.join("leasehold/config.toml"))
}

/// Reads the file. One that nobody has named need not be there.
fn read(path: &Path, is_named: bool) -> Result<File, Failure> {
    let shown = path.display();
    let cannot = |error: &io::Error| {
        Failure::usage(vec![format!("cannot read the configuration file {shown}: {error}")])
    };
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound && !is_named => {
            return Ok(File::default());
        }
        Err(error) => return Err(cannot(&error)),
    };
    let file: File = toml::from_str(&text).map_err(|error| {
        let line = error.span().map_or(1, |span| text[..span.start].matches('\n').count() + 1);
        // The message alone: the whole error shows the line, which may have a key in it.
        Failure::usage(vec![format!("{shown}:{line}: {}", error.message())])
    })?;
    if file.server.values().any(|named| named.key.is_some()) {
        let mode = fs::metadata(path).map_err(|error| cannot(&error))?.mode();
        if mode & 0o077 != 0 {
            return Err(Failure::usage(vec![format!(
                "{shown} has a key in it, and others than its owner may read or change it; \
                 `chmod 600 {shown}`, and make a new key if they may have read it"
            )]));
        }
    }
    if let Some((name, _)) =
        file.server.iter().find(|(_, n)| n.key.is_some() && n.key_file.is_some())
    {
        return Err(Failure::usage(vec![format!(
            "{shown}: [server.{name}] has both `key` and `key_file`; one is enough"
        )]));
    }
    Ok(file)
}

/// What the file says of the server that was asked for, and its address.
fn find(
    file: &File,
    path: Option<&Path>,
    asked: Option<&str>,
) -> Result<(Option<Named>, String), Failure> {
    let asked = asked.unwrap_or(DEFAULT_URL);
    if let Some(named) = file.server.get(asked) {
        return Ok((Some(named.clone()), whole(&named.url)));
    }
    if !asked.contains([':', '/', '.']) && asked != "localhost" {
        let names: Vec<&str> = file.server.keys().map(String::as_str).collect();
        let known = match (names.as_slice(), path) {
            ([], Some(path)) => format!("{} names none", path.display()),
            ([], None) => "there is no configuration file".to_owned(),
            (names, _) => format!("there is: {}", names.join(", ")),
        };
        return Err(Failure::usage(vec![format!(
            "there is no server named `{asked}`; {known}. A URL works as well: http://HOST:PORT or \
             https://HOST"
        )]));
    }
    // Programs that `run` starts are told the URL alone; the key is the same.
    let url = whole(asked);
    let named = file.server.values().find(|named| whole(&named.url) == url);
    Ok((named.cloned(), url))
}

/// With its scheme, and without the slash at its end.
fn whole(url: &str) -> String {
    let url = url.trim_end_matches('/');
    if url.contains("://") { url.to_owned() } else { format!("http://{url}") }
}

/// A path in the configuration file: from its folder on, or from `~`.
fn beside(config: &Path, file: &Path) -> PathBuf {
    if let (Ok(rest), Some(home)) = (file.strip_prefix("~"), env::var_os("HOME")) {
        return PathBuf::from(home).join(rest);
    }
    config.parent().map_or_else(|| file.to_owned(), |folder| folder.join(file))
}

fn first_line(file: &Path, from: &str) -> Result<String, Failure> {
    let shown = file.display();
    let text = fs::read_to_string(file).map_err(|error| {
        Failure::usage(vec![format!("{from}: cannot read the key file {shown}: {error}")])
    })?;
    match text.lines().next().map(str::trim).filter(|line| !line.is_empty()) {
        Some(key) => Ok(key.to_owned()),
        None => Err(Failure::usage(vec![format!("{from}: the first line of {shown} is empty")])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> File {
        toml::from_str(
            "default = \"home\"\n[server.home]\nurl = \"http://127.0.0.1:1/\"\n[server.prod]\nurl = \
             \"locks.example:80\"\nkey_file = \"prod.key\"\n",
        )
        .unwrap()
    }

    #[test]
    fn a_server_is_found_by_its_name_or_its_address() {
        let file = file();
        let url = |asked| find(&file, None, Some(asked)).map(|(_, url)| url).unwrap();
        assert_eq!(url("prod"), "http://locks.example:80");
        assert_eq!(url("home"), "http://127.0.0.1:1");
        assert_eq!(url("localhost:9"), "http://localhost:9");
        assert_eq!(find(&file, None, None).unwrap().1, DEFAULT_URL);
        let (named, _) = find(&file, None, Some("http://locks.example:80/")).unwrap();
        assert!(named.unwrap().key_file.is_some());
        assert!(find(&file, None, Some("tset")).is_err());
    }

    #[test]
    fn a_key_file_is_looked_for_beside_the_configuration() {
        let config = Path::new("/etc/leasehold/config.toml");
        assert_eq!(beside(config, Path::new("a.key")), Path::new("/etc/leasehold/a.key"));
        assert_eq!(beside(config, Path::new("/b.key")), Path::new("/b.key"));
    }
}
