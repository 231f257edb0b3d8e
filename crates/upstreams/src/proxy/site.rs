//! The upstreams: the one for everything, and those that rules name.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::request::Parts;
use leasehold_problems::{Name, Problem};
use rustls::ClientConfig;

use super::connect::{Connector, Dial};
use super::origin::Origin;
use super::pool::Pool;
use super::tls::TlsError;

/// An extension of the head of a request: where a rule sends it.
#[derive(Clone, Debug, Default)]
pub struct Route {
    /// The upstream, as [`Origin`] is shown; none: the one for everything.
    pub upstream: Option<Arc<str>>,
    /// How long it may be silent; none: as long as it may for everything.
    pub timeout: Option<Duration>,
}

/// An upstream.
pub(super) struct Site {
    pub(super) authority: String,
    pub(super) connector: Connector,
    pub(super) pool: Pool,
}

/// Where a request goes, and how long it may be silent there.
pub(super) struct Way {
    pub(super) site: Arc<Site>,
    pub(super) timeout: Duration,
}

/// Every upstream that is known, by how its address is shown. None is ever forgotten: a request
/// that a rule sent there may be on its way still, and one that nobody uses holds nothing.
pub(super) struct Sites {
    default: Option<Arc<str>>,
    timeout: Duration,
    dial: Option<Arc<dyn Dial>>,
    known: ArcSwap<Known>,
}

#[derive(Clone, Default)]
struct Known {
    by_name: HashMap<Arc<str>, Arc<Site>>,
    /// The one for everything.
    default: Option<Arc<Site>>,
}

impl Sites {
    pub(super) fn new(
        default: Option<&Origin>,
        timeout: Duration,
        dial: Option<Arc<dyn Dial>>,
    ) -> Self {
        let default = default.map(|origin| Arc::from(origin.to_string()));
        Self { default, timeout, dial, known: ArcSwap::default() }
    }

    /// Makes these known. Those over TLS are made anew: their files may have changed.
    pub(super) fn know(
        &self,
        origins: &[Origin],
        tls: Option<&Arc<ClientConfig>>,
    ) -> Result<(), TlsError> {
        let mut known = Known::clone(&self.known.load());
        for origin in origins {
            let name: Arc<str> = Arc::from(origin.to_string());
            if origin.is_https() || !known.by_name.contains_key(&name) {
                let site = Site {
                    authority: origin.authority().to_owned(),
                    connector: Connector::new(origin, tls.cloned(), self.dial.clone())?,
                    pool: Pool::default(),
                };
                known.by_name.insert(name, Arc::new(site));
            }
        }
        let default = self.default.as_ref().and_then(|name| known.by_name.get(name));
        known.default = default.cloned();
        self.known.store(Arc::new(known));
        Ok(())
    }

    /// Where the request with this head goes.
    pub(super) fn way(&self, head: &Parts) -> Result<Way, Box<Problem>> {
        let route = head.extensions.get::<Route>();
        let timeout = route.and_then(|route| route.timeout).unwrap_or(self.timeout);
        let known = self.known.load();
        let site = match route.and_then(|route| route.upstream.as_ref()) {
            Some(name) => known.by_name.get(name),
            None => known.default.as_ref(),
        };
        match site.cloned() {
            Some(site) => Ok(Way { site, timeout }),
            None => Err(Box::new(Problem::new(
                Name::NotFound,
                "No rule says which upstream this is at, and there is none for everything.",
            ))),
        }
    }

    /// Closes what has been idle for too long.
    pub(super) fn tidy(&self) {
        self.known.load().by_name.values().for_each(|site| site.pool.tidy());
    }
}
