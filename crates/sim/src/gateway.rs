//! The gateway in the simulation: the proxy that ships, over a network of the simulation's own, to
//! an API that takes its time, breaks off and falls silent.
//!
//! Modules in reading order: connections ([`network`]), what the API has received and what it does
//! with it ([`api`]), bodies that clients send piece by piece ([`body`]), and who watches that what
//! lands may land ([`witness`]).
//!
//! Deliberately absent: TLS, upgrades and reading requests; the gateway's own tests have them.

pub mod api;
pub mod body;
pub mod network;
pub mod witness;

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use leasehold_upstreams::proxy::{Fault, Observer, Options, Origin, Proxy};

use crate::clock::SimClock;
use api::Api;
use network::Network;
use witness::Witness;

/// How long the API may be silent.
pub const TIMEOUT: Duration = Duration::from_secs(3);

/// How long it may go on with a request after its connection was closed.
pub const DRAIN_TIME: Duration = Duration::from_secs(2);

/// For how long after a crash a write may still land.
pub const RECOVERY: Duration = Duration::from_secs(5);

/// What stands behind the gateway, and who watches it.
pub struct Surroundings {
    /// The connections to the API.
    pub network: Network,
    /// The API.
    pub api: Api,
    /// Who watches.
    pub witness: Witness,
    /// The bodies that have not ended, each with its call.
    pub bodies: Vec<(u64, body::Flow)>,
}

struct Nobody;

impl Observer for Nobody {
    fn answered(&self, _: StatusCode) {}
    fn failed(&self, _: Fault) {}
}

impl Surroundings {
    /// An API that has seen nothing.
    #[must_use]
    pub fn new(clock: &SimClock) -> Self {
        Self {
            network: Network::new(clock.clone()),
            api: Api::default(),
            witness: Witness::new(RECOVERY),
            bodies: Vec::new(),
        }
    }

    /// A gateway to the API.
    ///
    /// # Errors
    /// What is wrong with the API's address.
    pub fn proxy(&self) -> anyhow::Result<Proxy> {
        let origin = Origin::parse("http://api").map_err(anyhow::Error::msg)?;
        let proxy = Proxy::new(Options {
            origin: Some(origin.clone()),
            timeout: TIMEOUT,
            drain_time: DRAIN_TIME,
            dial: Some(Arc::new(self.network.clone())),
            max_tunnels: 0,
            observer: Arc::new(Nobody),
            stop: tokio_util::sync::CancellationToken::new(),
        });
        proxy.know(&[origin], None)?;
        Ok(proxy)
    }

    /// When something happens next by itself: time must not jump over it.
    #[must_use]
    pub fn next_moment(&self, now: Duration) -> Option<Duration> {
        self.api.moments().filter(|at| now < *at).min()
    }
}
