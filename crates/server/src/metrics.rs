//! What the server counts, and the text that a scraper reads.
//!
//! Labels are from closed sets (methods, statuses, names of the catalogue, numbers of rules,
//! types of events): nobody can make series by making up paths or names.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwapOption;
use http::{HeaderValue, Method, StatusCode};
use leasehold_upstreams::proxy::Fault;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

/// The media type of [`Metrics::encode`].
pub const OPENMETRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct RequestLabels {
    method: &'static str,
    status: u16,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct RefusalLabels {
    status: u16,
    name: &'static str,
    rule: u64,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct AnswerLabels {
    status: u16,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct FaultLabels {
    fault: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct EventLabels {
    r#type: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
struct HeadLabels {
    seq: u64,
    hash: Arc<str>,
}

/// Everything that is counted. Each function can be called from anywhere, at any time.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    refusals: Family<RefusalLabels, Counter>,
    upstream_answers: Family<AnswerLabels, Counter>,
    upstream_faults: Family<FaultLabels, Counter>,
    request_durations: Histogram,
    commit_durations: Histogram,
    events: Family<EventLabels, Counter>,
    locks: Gauge,
    waiters: Gauge,
    writes_in_flight: Gauge,
    follower_lag: Gauge,
    connections: Gauge,
    head: Arc<ArcSwapOption<HeadLabels>>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Nothing counted so far; the process started now.
    #[must_use]
    pub fn new() -> Self {
        let metrics = Self {
            registry: Registry::default(),
            requests: Family::default(),
            refusals: Family::default(),
            upstream_answers: Family::default(),
            upstream_faults: Family::default(),
            // Half a millisecond to half a minute: waiting is part of a request.
            request_durations: Histogram::new([
                0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
                10.0, 30.0,
            ]),
            commit_durations: Histogram::new([
                0.000_1, 0.000_25, 0.000_5, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5,
            ]),
            events: Family::default(),
            locks: Gauge::default(),
            waiters: Gauge::default(),
            writes_in_flight: Gauge::default(),
            follower_lag: Gauge::default(),
            connections: Gauge::default(),
            head: Arc::default(),
        };
        metrics.registered()
    }

    fn registered(mut self) -> Self {
        let r = &mut self.registry;
        // The encoder appends `_total` to counters, and `_info` to infos.
        r.register("leasehold_requests", "Requests answered", self.requests.clone());
        r.register(
            "leasehold_refusals",
            "Requests refused, by name of the refusal and number of the rule (0: the defaults)",
            self.refusals.clone(),
        );
        r.register(
            "leasehold_upstream_answers",
            "Answers of the upstream, by the upstream's own status",
            self.upstream_answers.clone(),
        );
        r.register(
            "leasehold_upstream_faults",
            "Requests that the upstream gave no whole answer to, by what went wrong",
            self.upstream_faults.clone(),
        );
        r.register(
            "leasehold_request_duration_seconds",
            "From a request's head to its answer's head, waiting included",
            self.request_durations.clone(),
        );
        r.register(
            "leasehold_commit_duration_seconds",
            "How long the journal takes to make a group of events durable",
            self.commit_durations.clone(),
        );
        r.register("leasehold_events", "Events written to the trail", self.events.clone());
        r.register("leasehold_locks", "Live locks", self.locks.clone());
        r.register("leasehold_waiters", "Acquires that are waiting", self.waiters.clone());
        r.register(
            "leasehold_writes_in_flight",
            "Writes that were let through and have not ended",
            self.writes_in_flight.clone(),
        );
        r.register(
            "leasehold_follower_lag_events",
            "Events in the log that the indexes do not have yet",
            self.follower_lag.clone(),
        );
        r.register("leasehold_connections", "Open connections", self.connections.clone());
        r.register(
            "leasehold_build",
            "Which release this is",
            Info::new([("version", env!("CARGO_PKG_VERSION"))]),
        );
        let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let start_time = Gauge::<f64, AtomicU64>::default();
        start_time.set(started.as_secs_f64());
        r.register(
            "process_start_time_seconds",
            "When the process started, in seconds since 1970",
            start_time,
        );
        r.register_collector(Box::new(Head(Arc::clone(&self.head))));
        self
    }

    /// A request was answered.
    pub fn request(&self, method: &Method, status: StatusCode, duration: Duration) {
        let labels = RequestLabels { method: known(method), status: status.as_u16() };
        self.requests.get_or_create(&labels).inc();
        self.request_durations.observe(duration.as_secs_f64());
    }

    /// A request was refused under the rule with this number; 0 for the defaults.
    pub fn refusal(&self, status: StatusCode, name: leasehold_problems::Name, rule: usize) {
        let labels =
            RefusalLabels { status: status.as_u16(), name: name.entry().name, rule: rule as u64 };
        self.refusals.get_or_create(&labels).inc();
    }

    /// A group of events became durable.
    pub fn commit(&self, duration: Duration) {
        self.commit_durations.observe(duration.as_secs_f64());
    }

    /// `count` events of this type were written.
    pub fn events(&self, kind: &'static str, count: u64) {
        self.events.get_or_create(&EventLabels { r#type: kind }).inc_by(count);
    }

    /// So many locks live.
    pub fn set_locks(&self, locks: u64) {
        set(&self.locks, locks);
    }

    /// So many acquires wait.
    pub fn set_waiters(&self, waiters: u64) {
        set(&self.waiters, waiters);
    }

    /// So many writes are on their way.
    pub fn set_writes_in_flight(&self, writes: u64) {
        set(&self.writes_in_flight, writes);
    }

    /// The indexes are so many events behind the log.
    pub fn set_follower_lag(&self, events: u64) {
        set(&self.follower_lag, events);
    }

    /// So many connections are open.
    pub fn set_connections(&self, connections: u64) {
        set(&self.connections, connections);
    }

    /// The newest durable event, and its hash in hexadecimal.
    pub fn set_audit_head(&self, seq: u64, hash: &str) {
        self.head.store(Some(Arc::new(HeadLabels { seq, hash: Arc::from(hash) })));
    }

    /// The text for a scraper; its media type is [`OPENMETRICS`].
    ///
    /// # Errors
    /// Writing into a string does not fail; the encoder's signature allows it to.
    pub fn encode(&self) -> Result<String, fmt::Error> {
        let mut out = String::new();
        text::encode(&mut out, &self.registry)?;
        Ok(out)
    }
}

impl leasehold_upstreams::proxy::Observer for Metrics {
    fn answered(&self, status: StatusCode) {
        self.upstream_answers.get_or_create(&AnswerLabels { status: status.as_u16() }).inc();
    }

    fn failed(&self, fault: Fault) {
        self.upstream_faults.get_or_create(&FaultLabels { fault: fault.as_str() }).inc();
    }
}

/// The newest event of the trail, as a number and as an info with its hash.
#[derive(Debug)]
struct Head(Arc<ArcSwapOption<HeadLabels>>);

impl Collector for Head {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Some(head) = self.0.load_full() else { return Ok(()) };
        let help = "The newest durable event of the trail";
        encoder
            .encode_descriptor("leasehold_audit_head_seq", help, None, MetricType::Gauge)?
            .encode_gauge(&i64::try_from(head.seq).unwrap_or(i64::MAX))?;
        let help = "The newest durable event of the trail and its hash, for `audit verify --head`";
        encoder
            .encode_descriptor("leasehold_audit_head", help, None, MetricType::Info)?
            .encode_info(&*head)
    }
}

fn set(gauge: &Gauge, value: u64) {
    gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
}

/// The method as a label.
fn known(method: &Method) -> &'static str {
    const KNOWN: [&str; 16] = [
        "GET",
        "HEAD",
        "OPTIONS",
        "POST",
        "PUT",
        "PATCH",
        "DELETE",
        "LOCK",
        "UNLOCK",
        "PROPFIND",
        "PROPPATCH",
        "MKCOL",
        "COPY",
        "MOVE",
        "REPORT",
        "SEARCH",
    ];
    KNOWN.into_iter().find(|known| *known == method.as_str()).unwrap_or("other")
}

#[cfg(test)]
mod tests {
    use leasehold_problems::Name;
    use leasehold_upstreams::proxy::Observer;

    use super::*;

    #[test]
    fn everything_that_is_counted_is_told() {
        let metrics = Metrics::new();
        assert!(!metrics.encode().unwrap().contains("audit_head"), "there is no head yet");
        metrics.request(&Method::PUT, StatusCode::LOCKED, Duration::from_millis(2));
        metrics.request(&Method::from_bytes(b"BREW").unwrap(), StatusCode::OK, Duration::ZERO);
        metrics.refusal(StatusCode::CONFLICT, Name::Locked, 3);
        Observer::answered(&metrics, StatusCode::PRECONDITION_FAILED);
        Observer::failed(&metrics, Fault::Silent);
        metrics.commit(Duration::from_micros(300));
        metrics.events("acquired", 2);
        metrics.set_locks(7);
        metrics.set_waiters(1);
        metrics.set_writes_in_flight(2);
        metrics.set_follower_lag(9);
        metrics.set_connections(4);
        metrics.set_audit_head(41, "00ff");
        metrics.set_audit_head(42, "ff00");
        let text = metrics.encode().unwrap();
        for line in [
            "leasehold_requests_total{method=\"PUT\",status=\"423\"} 1",
            "leasehold_requests_total{method=\"other\",status=\"200\"} 1",
            "leasehold_refusals_total{status=\"409\",name=\"locked\",rule=\"3\"} 1",
            "leasehold_upstream_answers_total{status=\"412\"} 1",
            "leasehold_upstream_faults_total{fault=\"silent\"} 1",
            "leasehold_request_duration_seconds_count 2",
            "leasehold_request_duration_seconds_bucket{le=\"0.0025\"} 2",
            "leasehold_commit_duration_seconds_bucket{le=\"0.0005\"} 1",
            "leasehold_events_total{type=\"acquired\"} 2",
            "leasehold_locks 7",
            "leasehold_waiters 1",
            "leasehold_writes_in_flight 2",
            "leasehold_follower_lag_events 9",
            "leasehold_connections 4",
            "leasehold_audit_head_seq 42",
            "leasehold_audit_head_info{seq=\"42\",hash=\"ff00\"} 1",
            "# TYPE process_start_time_seconds gauge",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
        assert!(!text.contains("00ff"), "only the newest head is told");
    }
}
