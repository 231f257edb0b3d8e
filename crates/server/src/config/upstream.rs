//! What stands behind the server: the settings of `upstream` and its like.

use std::time::Duration;

use leasehold_guard::rules::Rules;
use leasehold_upstreams::proxy::{Origin, TlsFiles};

use super::errors::Mistakes;
use super::section::Section;
use super::units::show;
use super::values::Value;

/// Existing APIs behind the server.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Upstream {
    /// Where everything goes that no rule sends elsewhere; none: nowhere.
    pub origin: Option<Origin>,
    /// How long it may be silent, where no rule says.
    pub timeout: Duration,
    /// How long it may go on with a request after its connection was closed.
    pub drain_time: Duration,
    /// Whom to trust there, and who the gateway is.
    pub tls: TlsFiles,
}

impl Upstream {
    /// Every upstream, those of rules too.
    #[must_use]
    pub fn origins(&self, rules: &Rules) -> Vec<Origin> {
        // What a rule has was read as an address.
        let of_rules = rules.iter().filter_map(|rule| Origin::parse(rule.upstream.as_ref()?).ok());
        self.origin.iter().cloned().chain(of_rules).collect()
    }

    /// The longest that any may be silent.
    #[must_use]
    pub fn longest_timeout(&self, rules: &Rules) -> Duration {
        rules.iter().filter_map(|rule| rule.upstream_timeout).fold(self.timeout, Duration::max)
    }
}

/// Reads an upstream's address.
pub(super) fn origin(value: Value<'_>) -> Result<Origin, String> {
    Origin::parse(value.text("a URL, such as \"http://127.0.0.1:8080\"")?)
}

/// Reads how long an upstream may be silent.
pub(super) fn timeout(value: Value<'_>) -> Result<Duration, String> {
    const LEAST: Duration = Duration::from_millis(100);
    match value.duration()? {
        time if LEAST <= time => Ok(time),
        time => Err(format!("`{}` is shorter than {}", show(time), show(LEAST))),
    }
}

pub(super) fn read(root: &Section<'_>, rules: &Rules, mistakes: &mut Mistakes) -> Option<Upstream> {
    let origin = root.read("upstream", mistakes, origin);
    let silence = root.read_or("upstream_timeout", Duration::from_secs(30), mistakes, timeout);
    let drain_time = root.read_or("drain_time", Duration::from_secs(5), mistakes, Value::duration);
    let ca = root.read("upstream_ca", mistakes, Value::file);
    let identity = root.read("upstream_identity", mistakes, Value::file);
    let upstream = Upstream {
        origin: origin.map(|found| found.value),
        timeout: silence.value,
        drain_time: drain_time.value,
        tls: TlsFiles {
            ca: ca.as_ref().map(|found| found.value.clone()),
            identity: identity.as_ref().map(|found| found.value.clone()),
        },
    };
    let origins = upstream.origins(rules);
    for (key, file) in [("upstream_ca", &ca), ("upstream_identity", &identity)] {
        if let Some(file) = file
            && !origins.iter().any(Origin::is_https)
        {
            let message = format!("`{key}`: it is for an `upstream` that begins with https://");
            mistakes.add(&file.place, message);
        }
    }
    (!origins.is_empty()).then_some(upstream)
}
