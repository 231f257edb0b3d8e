//! Very many deadlines at once: how late each lock ends, and how long others wait meanwhile.
//!
//! The deadlines are spread evenly over one second. What ends is observed twice. The trail says of
//! each lock when its end was written, by the same clock as its deadline. And some keys are tried
//! again and again from before their deadline on, as a client would: a key is free when somebody
//! gets it, seen from the end that its first holder was promised.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::Value;
use tokio::task::JoinSet;

use super::{Plan, cycles, tell};
use crate::figures::{Figures, Samples};
use crate::http::{Connection, Request};
use crate::load::{self, Client, Tally};
use crate::report::{Row, Section, Target as Goal, number};
use crate::target::{Kind, Target};

/// What is asked for.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Options {
    /// How many locks end.
    #[arg(id = "expiring-locks", long = "expiring-locks", default_value_t = 100_000)]
    pub(crate) locks: usize,
    /// How many seconds to take for making them: as many more before the first ends.
    #[arg(id = "expiring-lead", long = "expiring-lead", default_value_t = 12.0)]
    pub(crate) lead: f64,
}

/// How many connections make the locks.
const MAKERS: usize = 64;
/// How many clients do cycles meanwhile.
const CYCLERS: usize = 16;
/// How many keys are tried until they are free.
const PROBES: usize = 64;
/// How long before its deadline a key is tried first.
const EARLY: Duration = Duration::from_millis(20);
/// How long after the last deadline cycles go on.
const AFTER: Duration = Duration::from_millis(1500);

const FREE: &str = "free after deadline max ms";
const WRITTEN: &str = "end written after deadline max ms";
const OTHERS: &str = "cycle p99 ms meanwhile";

pub(crate) async fn measure(plan: &Plan, options: &Options) -> anyhow::Result<Section> {
    let mut runs = Vec::new();
    for run in 1..=plan.runs.max(1) {
        tell(&format!("expiry: run {run}"));
        let (_scratch, target) = plan.start(Kind::Leasehold)?;
        runs.push(expire(&target, plan, options).await?);
        target.stop()?;
    }
    let locks = number(options.locks as f64);
    let case = format!("{locks} locks");
    let mut section = Section {
        scenario: "expiry".to_owned(),
        about: format!(
            "{locks} deadlines spread over one second; {CYCLERS} clients do cycles before and \
             meanwhile; {} {}",
            plan.runs,
            if plan.runs == 1 { "run" } else { "runs" }
        ),
        rows: vec![Row::of_runs("leasehold", &case, &runs)],
        targets: Vec::new(),
    };
    let find = |name| section.median("leasehold", &case, name).unwrap_or_default();
    section.targets = vec![
        Goal::at_most("the last key is free, ms after its deadline", find(FREE), 1000.0),
        Goal::at_most("the last end is written, ms after its deadline", find(WRITTEN), 1000.0),
        Goal::at_most("p99 of unrelated cycles meanwhile, ms", find(OTHERS), 100.0),
    ];
    Ok(section)
}

async fn expire(target: &Target, plan: &Plan, options: &Options) -> anyhow::Result<Figures> {
    let locks = options.locks.max(PROBES);
    let first = Instant::now() + Duration::from_secs_f64(options.lead);
    load::run(&target.address, MAKERS, first, |client| {
        make(client, locks.div_ceil(MAKERS), locks, first)
    })
    .await?;
    let quiet = first - EARLY - Duration::from_millis(200);
    let until = quiet.min(Instant::now() + Duration::from_secs_f64(plan.seconds));
    let before = load::run(&target.address, CYCLERS, until, cycles::cycles).await?;
    let mut probes = JoinSet::new();
    for number in 0..PROBES {
        // The last of all is among them.
        let lock = (number + 1) * locks / PROBES - 1;
        let deadline = first + at(lock, locks);
        probes.spawn(probe(target.address.clone(), lock, deadline));
    }
    tokio::time::sleep_until(first.into()).await;
    let cpu = target.cpu_seconds()?;
    let until = first + Duration::from_secs(1) + AFTER;
    let meanwhile = load::run(&target.address, CYCLERS, until, cycles::cycles).await?;
    let cpu = target.cpu_seconds()? - cpu;
    let mut free = Samples::default();
    while let Some(probed) = probes.join_next().await {
        free.push(probed??);
    }
    let written = written(target, locks).await?;
    let ms = |micros: f64| micros / 1000.0;
    let [free_p50, free_max] = free.at([0.5, 1.0]);
    let [written_p50, written_p99, written_max] = written.at([0.5, 0.99, 1.0]);
    let quiet_p99 = cycle_p99(before);
    let others = meanwhile.operations as f64 / (until - first).as_secs_f64();
    let others_p99 = cycle_p99(meanwhile);
    let figures = [
        ("free after deadline p50 ms", ms(free_p50)),
        (FREE, ms(free_max)),
        ("end written after deadline p50 ms", ms(written_p50)),
        ("end written after deadline p99 ms", ms(written_p99)),
        (WRITTEN, ms(written_max)),
        ("cycle p99 ms before", ms(quiet_p99)),
        (OTHERS, ms(others_p99)),
        ("cycles/s meanwhile", others),
        ("CPU s", cpu),
    ];
    Ok(figures.map(|(name, value)| (name.to_owned(), value)).to_vec())
}

/// When a lock ends, after the first.
fn at(lock: usize, locks: usize) -> Duration {
    Duration::from_secs_f64(lock as f64 / locks as f64)
}

fn path(lock: usize) -> String {
    format!("/v1/due/{:03}/item-{lock}/lock", lock % 1000)
}

fn cycle_p99(tally: Tally) -> f64 {
    let cycles = tally.latencies.into_iter().find(|(name, _)| *name == "cycle");
    cycles.map_or(0.0, |(_, samples)| {
        let [p99] = samples.at([0.99]);
        p99
    })
}

/// Acquires this client's part of the locks, each with the TTL that is left until it shall end.
async fn make(client: Client, part: usize, locks: usize, first: Instant) -> anyhow::Result<Tally> {
    let mut connection = client.connect().await?;
    for lock in client.number * part..locks.min((client.number + 1) * part) {
        let left = (first + at(lock, locks)).saturating_duration_since(Instant::now());
        ensure!(Duration::from_millis(1500) < left, "a longer --expiring-lead is needed");
        let body = format!(r#"{{"ttl_seconds":{:.3}}}"#, left.as_secs_f64());
        let path = path(lock);
        let acquire = Request { method: "POST", path: &path, fields: "", body: &body };
        connection.send(acquire).await?.expect(201)?;
    }
    Ok(Tally::default())
}

/// Tries a key until it is free; how long after its deadline that was.
async fn probe(address: String, lock: usize, deadline: Instant) -> anyhow::Result<Duration> {
    let mut connection = Connection::open(&address).await?;
    let path = path(lock);
    tokio::time::sleep_until((deadline - EARLY).into()).await;
    loop {
        let acquire =
            Request { method: "POST", path: &path, fields: "", body: r#"{"ttl_seconds":60}"# };
        let answer = connection.send(acquire).await?;
        if answer.status == 201 {
            return Ok(deadline.elapsed());
        }
        answer.expect(423)?;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// What the trail says: how long after its deadline the end of each lock was written.
async fn written(target: &Target, locks: usize) -> anyhow::Result<Samples> {
    let mut connection = Connection::open(&target.address).await?;
    let mut samples = Samples::default();
    let mut cursor = String::new();
    loop {
        let path = format!("/-/audit?type=expired&resource=/v1/due&limit=1000{cursor}");
        let ask = Request { method: "GET", path: &path, fields: "", body: "" };
        let page: Value = serde_json::from_slice(connection.send(ask).await?.expect(200)?.body)?;
        for event in page["items"].as_array().context("a page without items")? {
            let reading = |name: &str| event[name].as_u64().context("an event without clocks");
            let late = reading("lease_ms")?.saturating_sub(reading("deadline_ms")?);
            samples.push(Duration::from_millis(late));
        }
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    ensure!(samples.len() == locks, "{} of {locks} locks have ended", samples.len());
    Ok(samples)
}
