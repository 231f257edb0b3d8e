//! The server's own log, on standard error: text for people, or a JSON object a line.
//!
//! Never in it: the values of header fields, bodies, queries. Keys and tokens travel there.

use std::io::{IsTerminal, stderr};
use std::time::Duration;

use http::{Method, StatusCode};
use leasehold_core::ids::Principal;
use leasehold_faces::request_id::RequestId;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{Registry, fmt, reload};

use crate::config::{LogFormat, LogLevel};

/// Changes what is logged while the server runs.
#[derive(Clone, Debug)]
pub struct LogHandle(reload::Handle<Targets, Registry>);

impl LogHandle {
    /// From now on, log this much.
    pub fn set_level(&self, level: LogLevel) {
        // It fails only after the subscriber is gone, and then there is no log to tell of it.
        let _ = self.0.reload(targets(level));
    }
}

/// Starts logging, for the whole process.
///
/// # Errors
/// When something has started it already.
pub fn init(level: LogLevel, format: LogFormat) -> Result<LogHandle, TryInitError> {
    let (filter, handle) = reload::Layer::new(targets(level));
    let layer = match format {
        LogFormat::Json => fmt::layer().json().flatten_event(true).with_writer(stderr).boxed(),
        LogFormat::Text => {
            let colours = stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            fmt::layer().with_ansi(colours).with_writer(stderr).boxed()
        }
    };
    tracing_subscriber::registry().with(filter).with(layer).try_init()?;
    Ok(LogHandle(handle))
}

/// Our own words at `level`; those of the libraries only where they warn, unless everything is
/// asked for.
fn targets(level: LogLevel) -> Targets {
    let (ours, theirs) = match level {
        LogLevel::Off => (LevelFilter::OFF, LevelFilter::OFF),
        LogLevel::Error => (LevelFilter::ERROR, LevelFilter::ERROR),
        LogLevel::Warn => (LevelFilter::WARN, LevelFilter::WARN),
        LogLevel::Info => (LevelFilter::INFO, LevelFilter::WARN),
        LogLevel::Debug => (LevelFilter::DEBUG, LevelFilter::WARN),
        LogLevel::Trace => (LevelFilter::TRACE, LevelFilter::TRACE),
    };
    Targets::new().with_default(theirs).with_target("leasehold", ours)
}

/// What is logged of a request that was answered.
#[derive(Clone, Copy, Debug)]
pub struct Access<'a> {
    /// Its method.
    pub method: &'a Method,
    /// Its path, without the query.
    pub path: &'a str,
    /// The answer's status.
    pub status: StatusCode,
    /// From its head to the answer's head.
    pub duration: Duration,
    /// Its name.
    pub request_id: &'a RequestId,
    /// Who sent it; none where that was not asked, or not known.
    pub principal: Option<&'a Principal>,
}

impl Access<'_> {
    /// Logs it: at `info` where the server is at fault, else at `debug`.
    pub fn log(&self) {
        let principal = self.principal.map(Principal::as_str);
        let duration_ms = self.duration.as_secs_f64() * 1000.0;
        let (status, method) = (self.status.as_u16(), self.method.as_str());
        let (path, request_id) = (self.path, self.request_id.as_str());
        // The level of an event is fixed where it is written.
        if self.status.is_server_error() {
            tracing::info!(
                target: "leasehold::access",
                method, path, status, duration_ms, request_id, principal, "request"
            );
        } else {
            tracing::debug!(
                target: "leasehold::access",
                method, path, status, duration_ms, request_id, principal, "request"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use tracing::Level;

    use super::*;

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_level_is_about_our_own_words() {
        let would = |level, target, event| targets(level).would_enable(target, &event);
        assert!(would(LogLevel::Info, "leasehold_engine::run", Level::INFO));
        assert!(!would(LogLevel::Info, "leasehold::access", Level::DEBUG));
        assert!(would(LogLevel::Debug, "leasehold::access", Level::DEBUG));
        assert!(!would(LogLevel::Debug, "hyper", Level::DEBUG));
        assert!(would(LogLevel::Debug, "hyper", Level::WARN));
        assert!(would(LogLevel::Trace, "hyper", Level::TRACE));
        assert!(!would(LogLevel::Off, "leasehold_server", Level::ERROR));
    }

    #[test]
    fn a_request_is_one_line_of_json_and_the_level_can_change() {
        let captured = Captured::default();
        let writer = captured.clone();
        let (filter, handle) = reload::Layer::new(targets(LogLevel::Info));
        let layer = fmt::layer().json().flatten_event(true).with_writer(move || writer.clone());
        let subscriber = tracing_subscriber::registry().with(filter).with(layer);
        let handle = LogHandle(handle);
        tracing::subscriber::with_default(subscriber, || {
            let log = |status: u16| {
                Access {
                    method: &Method::PUT,
                    path: "/a%20b",
                    status: StatusCode::from_u16(status).unwrap(),
                    duration: Duration::from_micros(1500),
                    request_id: &leasehold_faces::request_id::RequestIds::new().unwrap().make(),
                    principal: Some(&Principal::new("alice")),
                }
                .log();
            };
            log(204);
            log(503);
            handle.set_level(LogLevel::Debug);
            log(423);
        });
        let text = String::from_utf8(captured.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let statuses: Vec<_> = lines.iter().map(|line| line["status"].as_u64().unwrap()).collect();
        assert_eq!(statuses, [503, 423]);
        assert_eq!(lines[1]["method"], "PUT");
        assert_eq!(lines[1]["path"], "/a%20b");
        assert_eq!(lines[1]["principal"], "alice");
        assert_eq!(lines[1]["duration_ms"], 1.5);
    }
}
