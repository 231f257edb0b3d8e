//! Very many live locks: what each costs in memory, how long a restart with them takes, and
//! whether cycles are slower beside them than on an empty table.
//!
//! A restart is timed twice: after a kill right behind the last acquire, when the index is
//! furthest behind, and after a clean stop, when it has caught up.

use std::time::{Duration, Instant};

use super::{Plan, cycles, tell};
use crate::figures::Figures;
use crate::http::{Connection, Request};
use crate::load::{self, Client, Measure, Tally};
use crate::report::{Row, Section, Target as Goal, number};
use crate::target::{Kind, Scratch, Target};

/// What is asked for.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Options {
    /// How many live locks.
    #[arg(id = "live-locks", long = "live-locks", default_value_t = 1_000_000)]
    pub(crate) locks: usize,
}

/// How many connections make the locks.
const MAKERS: usize = 256;
/// How many clients do cycles beside them.
const CYCLERS: usize = 64;

const BYTES: &str = "RSS bytes each";
const BYTES_AFTER: &str = "RSS bytes each, restarted";
const AFTER_KILL: &str = "ready after kill s";
const AFTER_STOP: &str = "ready after stop s";
const OF_EMPTY: &str = "of an empty table %";

pub(crate) async fn measure(plan: &Plan, options: &Options) -> anyhow::Result<Section> {
    let locks = options.locks;
    let scratch = Scratch::new(&plan.data, "many")?;
    let start = || Target::leasehold(&plan.server, scratch.path());
    let target = start()?;
    let empty = target.memory()?;
    tell(&format!("many: acquires {locks} locks"));
    let began = Instant::now();
    let until = began + Duration::from_secs(600);
    let tally = load::run(&target.address, MAKERS, until, |client| {
        make(client, locks.div_ceil(MAKERS), locks)
    })
    .await?;
    let made = began.elapsed().as_secs_f64();
    anyhow::ensure!(tally.operations == locks as u64, "{} locks were made", tally.operations);
    let each = |target: &Target| Ok::<_, anyhow::Error>((target.memory()? - empty) / locks as f64);
    let bytes = each(&target)?;

    tell("many: restarts");
    drop(target);
    let (target, after_kill) = ready(start).await?;
    anyhow::ensure!(live(&target).await? == locks, "locks were lost");
    caught_up(&target).await?;
    target.stop()?;
    let (target, after_stop) = ready(start).await?;
    anyhow::ensure!(live(&target).await? == locks, "locks were lost");
    let bytes_after = each(&target)?;
    let mut figures: Figures = [
        ("acquires/s", locks as f64 / made),
        (BYTES, bytes),
        (BYTES_AFTER, bytes_after),
        (AFTER_KILL, after_kill),
        (AFTER_STOP, after_stop),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .to_vec();

    let (mut beside, mut alone) = (Vec::new(), Vec::new());
    let how = Measure { clients: CYCLERS, seconds: plan.seconds, unit: "cycles" };
    for run in 1..=plan.runs.max(1) {
        tell(&format!("many: cycles, run {run}"));
        let (_scratch, other) = plan.start(Kind::Leasehold)?;
        let empty = load::measure(&other, how, cycles::cycles).await?;
        other.stop()?;
        let mut full = load::measure(&target, how, cycles::cycles).await?;
        let ratio = full.first().zip(empty.first()).map(|((_, full), (_, empty))| full / empty);
        full.extend(ratio.map(|ratio| (OF_EMPTY.to_owned(), 100.0 * ratio)));
        beside.push(full);
        alone.push(empty);
    }
    target.stop()?;
    let case = format!("{} live locks", number(locks as f64));
    figures.append(&mut beside[0]);
    beside[0] = figures;
    let mut section = Section {
        scenario: "many".to_owned(),
        about: format!(
            "{MAKERS} connections acquire {} locks; then restarts; then {CYCLERS} clients do \
             cycles beside them and, in turn, on an empty table; {}",
            number(locks as f64),
            plan.told()
        ),
        rows: vec![
            Row::of_runs("leasehold", "empty table", &alone),
            Row::of_runs("leasehold", &case, &beside),
        ],
        targets: Vec::new(),
    };
    let find = |name| section.median("leasehold", &case, name).unwrap_or_default();
    section.targets = vec![
        Goal::at_most("bytes of RSS for each lock", find(BYTES), 450.0),
        Goal::at_most("seconds until ready after a kill", find(AFTER_KILL), 4.0),
        Goal::at_most("seconds until ready after a stop", find(AFTER_STOP), 4.0),
        Goal::at_least("cycles/s, % of those on an empty table", find(OF_EMPTY), 90.0),
    ];
    Ok(section)
}

/// Acquires this client's part of the locks, and keeps them.
async fn make(client: Client, part: usize, locks: usize) -> anyhow::Result<Tally> {
    let mut connection = client.connect().await?;
    let numbers = client.number * part..locks.min((client.number + 1) * part);
    let operations = numbers.len() as u64;
    for number in numbers {
        anyhow::ensure!(client.goes_on(), "making the locks took too long");
        let path = format!("/v1/held/{:03}/item-{number}/lock", number % 1000);
        let acquire =
            Request { method: "POST", path: &path, fields: "", body: r#"{"ttl_seconds":1800}"# };
        connection.send(acquire).await?.expect(201)?;
    }
    Ok(Tally { operations, ..Tally::default() })
}

/// Starts the server and gives the seconds until it says that it is ready.
pub(crate) async fn ready(
    start: impl Fn() -> anyhow::Result<Target>,
) -> anyhow::Result<(Target, f64)> {
    let began = Instant::now();
    let target = start()?;
    let mut connection = Connection::open(&target.address).await?;
    let ask = Request { method: "GET", path: "/-/health/ready", fields: "", body: "" };
    while connection.send(ask).await?.status != 200 {
        anyhow::ensure!(began.elapsed() < Duration::from_secs(600), "the server is never ready");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let took = began.elapsed().as_secs_f64();
    Ok((target, took))
}

async fn live(target: &Target) -> anyhow::Result<usize> {
    Ok(metric(target, "leasehold_locks").await? as usize)
}

/// Waits until the index has every event.
pub(crate) async fn caught_up(target: &Target) -> anyhow::Result<()> {
    let limit = Instant::now() + Duration::from_secs(600);
    while metric(target, "leasehold_follower_lag_events").await? > 0.0 {
        anyhow::ensure!(Instant::now() < limit, "the index never catches up");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// One number of the server's metrics.
async fn metric(target: &Target, name: &str) -> anyhow::Result<f64> {
    let mut connection = Connection::open(&target.address).await?;
    let ask = Request { method: "GET", path: "/-/metrics", fields: "", body: "" };
    let answer = connection.send(ask).await?;
    let text = std::str::from_utf8(answer.expect(200)?.body)?;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    Ok(value.ok_or_else(|| anyhow::anyhow!("there is no metric {name}"))?.trim().parse()?)
}
