//! Puts everything together and runs it.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use arc_swap::ArcSwap;
use leasehold_core::event::WriteResult;
use leasehold_core::lock::OpenAdmission;
use leasehold_core::table::TableLimits;
use leasehold_core::time::millis;
use leasehold_engine::start::{Loading, Running};
use leasehold_engine::{Clock, EngineOptions, SystemClock};
use leasehold_faces::json_api::endpoint::is_reserved;
use leasehold_faces::json_api::{JsonApi, Settings as ApiSettings};
use leasehold_faces::request_id::RequestIds;
use leasehold_faces::trail::Readers;
use leasehold_guard::guard::Guard;
use leasehold_guard::memory::Memory;
use leasehold_guard::rules::Rules;
use leasehold_journal::folder::DataFolder;
use leasehold_journal::log::Retention;
use leasehold_upstreams::documents::{Documents, Options as DocumentOptions};
use leasehold_upstreams::proxy::{Options as ProxyOptions, Origin, Proxy};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::app::{App, Service};
use crate::behind::{Behind, Shows};
use crate::browser::Browsers;
use crate::config::{Config, IdentityMode, Upstream as UpstreamConfig};
use crate::handles;
use crate::identity::Identity;
use crate::listener::{Listener, Settings};
use crate::log::LogHandle;
use crate::metrics::Metrics;
use crate::rate::RateLimiter;
use crate::tls::Tls;
use crate::watch::{LatestHead, Underway, Watch};

/// How often the head of the trail goes into the log.
const HEAD_EVERY: Duration = Duration::from_secs(60 * 60);
/// How often documents forget which admissions took effect.
const FORGET_EVERY: Duration = Duration::from_secs(60);

/// Serves until the process is told to stop: SIGTERM or SIGINT. Prints where it listens and how to
/// try it.
///
/// # Errors
/// When the server cannot start.
pub async fn serve(config: Config) -> anyhow::Result<()> {
    let log = crate::log::init(config.log, config.log_format)?;
    let mut stops = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupts = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let mut reloads = signal(SignalKind::hangup()).context("cannot listen for SIGHUP")?;

    let mut settings = Settings::of(&config);
    settings.max_connections = handles::room_for(config.limits.max_connections);
    if settings.max_connections < config.limits.max_connections {
        tracing::warn!(
            max_connections = config.limits.max_connections,
            room = settings.max_connections,
            "the limit of open files leaves room for fewer connections"
        );
    }
    let tls = config.tls.as_ref().map(Tls::open).transpose()?.map(Arc::new);
    let listener = Listener::bind(config.listen, settings.clone())
        .with_context(|| format!("cannot listen on {}", config.listen))?
        .with_tls(tls.clone());
    let admin = match config.admin_listen {
        Some(address) => Some(
            Listener::bind(address, settings)
                .with_context(|| format!("cannot listen on {address}"))?,
        ),
        None => None,
    };

    let stop = CancellationToken::new();
    let Assembled { app, running, documents } = assemble(&config, &listener, stop.clone()).await?;
    let engine = running.engine().clone();
    let settler = tokio::spawn(engine.clone().run());
    tokio::spawn(housekeeping(app.clone(), documents, stop.clone()));
    tokio::spawn(tidying(app.clone(), stop.clone()));
    tokio::spawn({
        let (app, stop) = (app.clone(), stop.clone());
        async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = app.identity.follow() => {}
            }
        }
    });

    greet(&config, listener.local_addr());
    let drained = CancellationToken::new();
    let service = |app: Arc<App>, admin| {
        move |peer: SocketAddr| Service {
            app: Arc::clone(&app),
            admin,
            peer: peer.ip(),
            remote_addr: Arc::from(peer.ip().to_string()),
        }
    };
    let serving = tokio::spawn(listener.serve(service(app.clone(), false), drained.clone()));
    let admin = admin.map(|admin| {
        tracing::info!("the server's own space is also at http://{}", admin.local_addr());
        tokio::spawn(admin.serve(service(app.clone(), true), drained.clone()))
    });

    let mut config = config;
    loop {
        tokio::select! {
            _ = stops.recv() => break,
            _ = interrupts.recv() => break,
            _ = reloads.recv() => {
                config = reload(config, &app, &running, tls.as_deref(), &log);
                let app = app.clone();
                tokio::spawn(async move { app.identity.refresh().await });
            }
        }
    }
    tracing::info!("stopping: no new commands, and what runs may end");
    let began = Instant::now();
    // Waiters are told, writes on their way end, connections are let go.
    engine.refuse_new();
    stop.cancel();
    drained.cancel();
    if let Ok(cut) = serving.await
        && cut.cut > 0
    {
        tracing::warn!(connections = cut.cut, "connections were cut");
    }
    if let Some(admin) = admin {
        let _ = admin.await;
    }
    // All of the stop has one limit: who stops a server kills it when it takes longer.
    let left = config.limits.shutdown_timeout.saturating_sub(began.elapsed());
    if tokio::time::timeout(left, app.guard.drained()).await.is_err() {
        tracing::warn!("writes were still on their way");
    }
    tokio::task::spawn_blocking(move || running.stop()).await.context("the engine panicked")?;
    let _ = settler.await;
    tracing::info!("stopped");
    Ok(())
}

struct Assembled {
    app: Arc<App>,
    running: Running,
    documents: Option<Arc<Documents>>,
}

async fn assemble(
    config: &Config,
    listener: &Listener,
    stop: CancellationToken,
) -> anyhow::Result<Assembled> {
    let folder = DataFolder::open(&config.data)?;
    let options = EngineOptions {
        limits: table_limits(config),
        retention: retention(config),
        recovery_ms: config
            .upstream
            .as_ref()
            .map(|upstream| millis(upstream.longest_timeout(&config.rules) + upstream.drain_time)),
        ..EngineOptions::default()
    };
    let opening = folder.clone();
    // A long log is read here: signals are still taken meanwhile.
    let loading = tokio::task::spawn_blocking(move || Loading::open(opening, options))
        .await
        .context("the start panicked")??;
    let (cause, report) = (loading.cause(), loading.report);
    tracing::info!(?cause, rows = report.rows, events = report.events, "the lock table is loaded");

    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let rules = Arc::new(ArcSwap::new(config.rules.clone()));
    let metrics = Arc::new(Metrics::new());
    let behind = match &config.upstream {
        None => Behind::Documents(Arc::new(open_documents(config, &loading, &clock, &rules)?)),
        Some(upstream) => Behind::Proxy(open_proxy(config, upstream, &metrics, stop.clone())?),
    };
    let documents = behind.documents().cloned();
    let head = Arc::new(LatestHead::default());
    let underway = Arc::new(Underway::default());
    let watch = Watch { metrics: metrics.clone(), head: head.clone(), underway: underway.clone() };
    let watch = Arc::new(watch);
    let asked = documents.clone();
    let classify = Arc::new(move |open: &OpenAdmission| match &asked {
        Some(documents) => classify(documents, open),
        // What became of it only the upstream knows.
        None => WriteResult::Unknown,
    });
    let running = tokio::task::spawn_blocking(move || loading.start(clock, watch, classify))
        .await
        .context("the start panicked")??;
    let engine = running.engine().clone();
    let follower = running.follower().context("the index has no follower")?;

    let identity = Identity::open(config.identity.clone(), &config.data)?;
    identity.refresh().await;
    warn_of_identity(config, &identity);
    let trail = Readers::new(config.data.clone());
    let behind = Arc::new(behind);
    let guard = Guard::new(engine.clone(), behind.clone(), rules.clone(), &config.lock_suffix);
    let api = JsonApi::new(
        engine.clone(),
        rules.clone(),
        ApiSettings {
            lock_suffix: config.lock_suffix.clone(),
            prefix: config.prefix.clone(),
            drain_wait_ms: millis(config.drain_wait),
        },
        Arc::new(trail.clone()),
    )
    .asking(Arc::new(Shows { behind, rules: rules.clone() }));
    let app = Arc::new(App {
        engine,
        guard,
        api,
        rules,
        identity,
        rate: config.limits.rate.map(RateLimiter::new),
        started: Instant::now(),
        browsers: Browsers::new(config.cors_origins.clone(), config.identity.mode()),
        ids: RequestIds::new()
            .map_err(|error| anyhow::anyhow!("the operating system gave no randomness: {error}"))?,
        metrics,
        trail,
        follower,
        connections: listener.connections(),
        underway,
        head,
        prefix: config.prefix.clone(),
        lock_suffix: config.lock_suffix.clone(),
        is_https: config.tls.is_some(),
        body_timeout: config.limits.body_timeout,
        memory: Memory::new(
            usize::try_from(config.limits.max_buffered).unwrap_or(usize::MAX),
            config.limits.answer_timeout,
        ),
        stop,
    });
    Ok(Assembled { app, running, documents })
}

fn open_proxy(
    config: &Config,
    upstream: &UpstreamConfig,
    metrics: &Arc<Metrics>,
    stop: CancellationToken,
) -> anyhow::Result<Proxy> {
    let options = ProxyOptions {
        origin: upstream.origin.clone(),
        timeout: upstream.timeout,
        drain_time: upstream.drain_time,
        dial: None,
        max_tunnels: config.limits.max_connections,
        observer: metrics.clone(),
        stop,
    };
    let proxy = Proxy::new(options);
    know_upstreams(&proxy, upstream, &config.rules)?;
    Ok(proxy)
}

/// Makes every upstream known, with TLS as its files are now.
fn know_upstreams(proxy: &Proxy, upstream: &UpstreamConfig, rules: &Rules) -> anyhow::Result<()> {
    let origins = upstream.origins(rules);
    let tls = match origins.iter().any(Origin::is_https) {
        true => Some(upstream.tls.load().context("TLS with the upstream")?),
        false => None,
    };
    proxy.know(&origins, tls.as_ref()).context("TLS with the upstream")
}

fn open_documents(
    config: &Config,
    loading: &Loading,
    clock: &Arc<dyn Clock>,
    rules: &Arc<ArcSwap<Rules>>,
) -> anyhow::Result<Documents> {
    let wall = clock.clone();
    let mut options =
        DocumentOptions::new(Arc::new(move || wall.wall()), Arc::new(uuid::Uuid::new_v4));
    options.max_document = usize::try_from(config.limits.max_document).unwrap_or(usize::MAX);
    let (rules, suffix) = (rules.clone(), config.lock_suffix.clone());
    let own = config.prefix.trim_end_matches('/').to_owned();
    options.reserved = Arc::new(move |resource| {
        let below_own = resource
            .as_str()
            .strip_prefix(&own)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        below_own || is_reserved(resource, &suffix, &rules.load())
    });
    let incarnation: String = loading.incarnation().chars().take(8).collect();
    Ok(Documents::open(&config.data, &incarnation, options)?)
}

/// How a write under a lock ended that was on its way when the process before this one ended.
fn classify(documents: &Documents, open: &OpenAdmission) -> WriteResult {
    match documents.was_applied(open.admission) {
        Ok(true) => WriteResult::Applied,
        Ok(false) => WriteResult::NotApplied,
        Err(error) => {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "cannot tell whether a write took effect"
            );
            WriteResult::Unknown
        }
    }
}

fn warn_of_identity(config: &Config, identity: &Identity) {
    match config.identity.mode() {
        IdentityMode::Anonymous if !config.listen.ip().is_loopback() => tracing::warn!(
            "everyone who can reach {} is anonymous, with every permission",
            config.listen
        ),
        IdentityMode::Keys if identity.keys().is_some_and(crate::identity::KeyRing::is_empty) => {
            tracing::warn!("there are no keys yet: make one with `leasehold key add`");
        }
        IdentityMode::Anonymous
        | IdentityMode::Keys
        | IdentityMode::Header
        | IdentityMode::Jwt
        | IdentityMode::Digest
        | IdentityMode::Certificate => {}
    }
}

fn table_limits(config: &Config) -> TableLimits {
    let size = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
    TableLimits {
        max_locks: size(config.limits.max_locks),
        max_waiters: size(config.limits.max_waiters),
        max_locks_per_holder: config.limits.max_locks_per_holder,
        max_waiters_per_principal: config.limits.max_waiters_per_principal,
    }
}

fn retention(config: &Config) -> Retention {
    Retention { max_age_ms: Some(millis(config.audit.retain)), max_bytes: config.audit.max_size }
}

/// Reads the configuration again; a broken one is told, and the old one stays.
fn reload(
    config: Config,
    app: &App,
    running: &Running,
    tls: Option<&Tls>,
    log: &LogHandle,
) -> Config {
    let reload = match config.reload() {
        Ok(reload) => reload,
        Err(errors) => {
            for error in &errors.0 {
                tracing::error!("{error}");
            }
            tracing::error!("the configuration is broken; the one before it stays");
            return config;
        }
    };
    let new = reload.config;
    if let (Behind::Proxy(proxy), Some(upstream)) = (app.guard.upstream().as_ref(), &new.upstream)
        && let Err(error) = know_upstreams(proxy, upstream, &new.rules)
    {
        tracing::error!("{error:#}");
        tracing::error!("the configuration is broken; the one before it stays");
        return config;
    }
    app.rules.store(new.rules.clone());
    app.browsers.set_origins(new.cors_origins.clone());
    app.engine.set_limits(table_limits(&new));
    running.set_retention(retention(&new));
    if let Err(error) = running.reload_tokens() {
        tracing::error!(
            error = &error as &dyn std::error::Error,
            "the token secrets stay as they are"
        );
    }
    if let (Some(tls), Some(files)) = (tls, &new.tls)
        && let Err(error) = tls.reload(files)
    {
        tracing::error!(error = &error as &dyn std::error::Error, "the certificate stays as it is");
    }
    log.set_level(new.log);
    if !reload.needs_restart.is_empty() {
        tracing::warn!(
            "these settings change at the next start: {}",
            reload.needs_restart.join(", ")
        );
    }
    tracing::info!("the configuration was read again");
    new
}

async fn tidying(app: Arc<App>, stop: CancellationToken) {
    if let Behind::Proxy(proxy) = app.guard.upstream().as_ref() {
        tokio::select! {
            () = stop.cancelled() => {}
            () = proxy.tidy() => {}
        }
    }
}

async fn housekeeping(app: Arc<App>, documents: Option<Arc<Documents>>, stop: CancellationToken) {
    let mut heads = tokio::time::interval(HEAD_EVERY);
    let mut forgets = tokio::time::interval(FORGET_EVERY);
    // What could be forgotten a round ago, and what has to be durable for that.
    let mut forgettable = None;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = heads.tick() => {
                if let Some((seq, hash)) = app.head.latest() {
                    tracing::info!(seq, hash, "the head of the trail");
                }
            }
            _ = forgets.tick() => {
                let Some(documents) = &documents else { continue };
                let due = forgettable.replace(app.engine.closed_admissions());
                let Some((before, newest)) = due else { continue };
                if app.engine.stats().durable < newest {
                    continue;
                }
                if let Err(error) = documents.forget_admissions(before).await {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "documents keep what they could forget"
                    );
                }
            }
        }
    }
}

/// What the program says to who starts it. Nobody has to listen: a pipe that is closed is no reason
/// not to serve.
fn greet(config: &Config, address: SocketAddr) {
    let text = greeting(config, address);
    let mut out = std::io::stdout().lock();
    if let Err(error) = out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        tracing::debug!(%error, "nobody reads the standard output");
    }
}

fn greeting(config: &Config, address: SocketAddr) -> String {
    let data: &Path = &config.data;
    let scheme = if config.tls.is_some() { "https" } else { "http" };
    let listens = format!(
        "leasehold is listening on {scheme}://{address} and keeps its data in {}\n",
        data.display()
    );
    if let Some(upstream) = &config.upstream {
        let to = match &upstream.origin {
            Some(origin) => origin.to_string(),
            None => "where its rules say".to_owned(),
        };
        return format!(
            "{listens}it passes requests on to {to}, and refuses writes to what is locked\n"
        );
    }
    if config.identity.mode() == IdentityMode::Header {
        return format!("{listens}every request has to come from a proxy that it trusts\n");
    }
    if config.identity.mode() == IdentityMode::Jwt {
        return format!("{listens}every request needs a token of the issuer that it trusts\n");
    }
    if config.identity.mode() == IdentityMode::Keys {
        return format!(
            "{listens}every request needs a key: leasehold key add NAME --role writer\n"
        );
    }
    let at = format!("{scheme}://{address}/v1/flags/feature-x");
    let suffix = &config.lock_suffix;
    format!(
        "{listens}\ntry it:\n  \
         curl -X PUT {at} -H 'Content-Type: application/json' -d '{{\"on\": false}}'\n  \
         curl -X POST {at}{suffix} -d '{{\"ttl_seconds\": 60}}'\n  \
         curl -i -X PUT {at} -H 'Content-Type: application/json' -d '{{\"on\": true}}'\n"
    )
}
