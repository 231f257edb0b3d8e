//! How a client is set up: the address, the key, the times, and whom to trust.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::uri::{Authority, Scheme};
use http::{HeaderValue, Uri};
use hyper_util::client::legacy::Client as Hyper;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use crate::client::{Client, Inner};
use crate::connect::Connector;
use crate::error::Error;
use crate::retry::RetryPolicy;
#[cfg(feature = "tls")]
use crate::tls::TlsOptions;

/// How a [`Client`] is set up.
pub struct ClientBuilder {
    url: String,
    key: Option<String>,
    user_agent: String,
    timeout: Duration,
    connect_timeout: Duration,
    max_body: usize,
    retry: RetryPolicy,
    prefix: String,
    lock_suffix: String,
    #[cfg(feature = "tls")]
    tls: TlsOptions,
}

impl ClientBuilder {
    pub(crate) fn new(url: &str) -> Self {
        Self {
            url: url.to_owned(),
            key: None,
            user_agent: concat!("leasehold-client/", env!("CARGO_PKG_VERSION")).to_owned(),
            timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(5),
            max_body: 64 << 20,
            retry: RetryPolicy::default(),
            prefix: "/-/".to_owned(),
            lock_suffix: "/lock".to_owned(),
            #[cfg(feature = "tls")]
            tls: TlsOptions::default(),
        }
    }

    /// The API key to show with every request. None unless set.
    #[must_use]
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// What to send as `User-Agent`.
    #[must_use]
    pub fn user_agent(mut self, user_agent: impl Into<String>) -> Self {
        self.user_agent = user_agent.into();
        self
    }

    /// The longest that one attempt may take, from connecting to the last byte of the answer;
    /// waiting for a lock comes on top. 30 s unless set.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The longest that connecting may take, with the TLS handshake. 5 s unless set.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// The longest answer that is read, in bytes. 64 MiB unless set.
    #[must_use]
    pub fn max_body(mut self, bytes: usize) -> Self {
        self.max_body = bytes;
        self
    }

    /// When and how often a request is repeated that failed in passing.
    #[must_use]
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.retry = policy;
        self
    }

    /// The prefix of the server's own space, where the server is configured to another than
    /// `/-/`.
    #[must_use]
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// The suffix of lock endpoints, where the server is configured to another than `/lock`.
    #[must_use]
    pub fn lock_suffix(mut self, suffix: impl Into<String>) -> Self {
        self.lock_suffix = suffix.into();
        self
    }

    /// Certificates in PEM, of authorities that are trusted to sign a server's certificate, beside
    /// those that the system trusts. For `https://` addresses, as are the next two.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn add_root_certificates(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.tls.roots.push(pem.into());
        self
    }

    /// Trusts only the authorities that were [added](Self::add_root_certificates), not those of
    /// the system.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn without_system_roots(mut self) -> Self {
        self.tls.without_system_roots = true;
        self
    }

    /// The certificate to show to a server that asks for one, with those that lead to its
    /// authority, and its key: all in PEM, one behind the other.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn identity(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.tls.identity = Some(pem.into());
        self
    }

    /// The client. Nothing is sent yet; for `https://`, the system's certificates are read.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an address that is not `http://HOST[:PORT]` or
    /// `https://HOST[:PORT]`, a key or user agent that no header field can carry, or certificates
    /// that are none.
    pub fn build(self) -> Result<Client, Error> {
        let (scheme, authority) = address(&self.url)?;
        let authorization = match &self.key {
            None => None,
            Some(key) => {
                let mut value = HeaderValue::from_str(&format!("Bearer {key}"))
                    .map_err(|_| Error::Invalid("the key has a byte that no key has".into()))?;
                value.set_sensitive(true);
                Some(value)
            }
        };
        let user_agent = HeaderValue::from_str(&self.user_agent)
            .map_err(|_| Error::Invalid("the user agent has a control character".into()))?;
        for (what, text) in [("prefix", &self.prefix), ("lock suffix", &self.lock_suffix)] {
            if !text.starts_with('/') {
                return Err(Error::Invalid(format!("the {what} does not begin with `/`")));
            }
        }
        #[cfg(feature = "tls")]
        let connector = {
            let is_tls = scheme == Scheme::HTTPS;
            let handshake = is_tls.then(|| self.tls.handshake(authority.host())).transpose()?;
            Connector::new(self.connect_timeout, handshake)
        };
        #[cfg(not(feature = "tls"))]
        let connector = Connector::new(self.connect_timeout);
        let hyper = Hyper::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(20))
            .pool_max_idle_per_host(32)
            .build(connector);
        Ok(Client {
            inner: Arc::new(Inner {
                hyper,
                scheme,
                authority,
                authorization,
                user_agent,
                timeout: self.timeout,
                max_body: self.max_body,
                retry: self.retry,
                prefix: self.prefix,
                lock_suffix: self.lock_suffix,
            }),
        })
    }
}

impl fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientBuilder").finish_non_exhaustive()
    }
}

/// The scheme, and the host and port of an address. Its text stays out of messages: it may carry a
/// password.
fn address(url: &str) -> Result<(Scheme, Authority), Error> {
    let invalid = |why: &str| Error::Invalid(format!("the address of the server {why}"));
    let uri: Uri = url.parse().map_err(|_| invalid("is no URL; `http://HOST:PORT` is one"))?;
    let scheme = match uri.scheme() {
        Some(scheme) if *scheme == Scheme::HTTP => Scheme::HTTP,
        Some(scheme) if *scheme == Scheme::HTTPS => Scheme::HTTPS,
        _ => return Err(invalid("does not begin with `http://` or `https://`")),
    };
    if scheme == Scheme::HTTPS && cfg!(not(feature = "tls")) {
        return Err(invalid(
            "begins with `https://`, and this program was built without the feature `tls` of \
             leasehold-client",
        ));
    }
    if uri.path_and_query().is_some_and(|rest| rest.as_str() != "/") {
        return Err(invalid("has a path; resources begin right behind the host"));
    }
    let authority = uri.authority().ok_or_else(|| invalid("has no host"))?;
    if authority.as_str().contains('@') {
        return Err(invalid("has a user or a password; give the key by itself"));
    }
    if authority.host().is_empty() {
        return Err(invalid("has no host"));
    }
    Ok((scheme, authority.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_http_and_a_host_and_no_more() {
        for url in ["http://127.0.0.1:7423", "http://locks.example/", "http://[::1]:80"] {
            assert_eq!(Client::new(url).unwrap().url(), url.trim_end_matches('/'));
        }
        for (url, says) in [
            ("127.0.0.1:7423", "http://"),
            ("", "no URL"),
            ("ftp://a", "http://"),
            ("http://a/b", "path"),
            ("http://a?x=1", "path"),
            ("http://user:hunter2@a", "password"),
        ] {
            let error = Client::new(url).unwrap_err().to_string();
            assert!(error.contains(says), "{url}: {error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn the_key_is_shown_by_nothing() {
        let builder = Client::builder("http://127.0.0.1:1").key("hunter2");
        assert!(!format!("{builder:?}").contains("hunter2"));
        let client = builder.build().unwrap();
        assert!(!format!("{client:?}").contains("hunter2"));
        let error = Client::builder("http://a").key("hunter2\n").build().unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"));
    }
}
