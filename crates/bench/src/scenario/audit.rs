//! Questions to a long trail: how long each takes, how long the index takes to be built, and how
//! long a start takes without it and with it.
//!
//! The trail is made up in a data folder before the server starts (see [`crate::trail`]): three
//! events for each lock, ten locks for each resource, a hundred for each holder.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use leasehold_core::time::WallTime;
use serde_json::Value;

use super::many::{caught_up, ready};
use super::{Plan, tell};
use crate::figures::{Figures, Samples};
use crate::http::{Connection, Request};
use crate::report::{Row, Section, number};
use crate::target::{Scratch, Target};
use crate::trail::Trail;

/// What is asked for.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Options {
    /// How many events the trail has.
    #[arg(id = "events", long = "events", default_value_t = 1_000_000)]
    pub(crate) events: u64,
}

/// How often each question is asked, each time about something else.
const QUESTIONS: u64 = 20;

/// What is asked, and how much of the trail has to be in the answer.
struct Question {
    case: &'static str,
    query: fn(&Trail, u64) -> String,
    least: usize,
}

const ASKED: [Question; 7] = [
    Question {
        case: "by lock_id",
        query: |trail, lock| format!("lock_id={}", trail.lock_id(lock)),
        least: 3,
    },
    Question {
        case: "by resource",
        query: |trail, lock| format!("resource={}", trail.path(lock)),
        least: 3,
    },
    Question {
        case: "by resource, newest first",
        query: |trail, lock| format!("resource={}&order=desc", trail.path(lock)),
        least: 3,
    },
    Question {
        case: "by holder, newest first",
        query: |trail, lock| format!("holder={}&order=desc", trail.holder(lock)),
        least: 3,
    },
    Question {
        case: "by time: a minute of it",
        query: |trail, lock| {
            let begin = trail.at(3 * lock);
            format!("since={begin}&until={}&limit=1000", begin + 60_000)
        },
        least: 1,
    },
    Question { case: "the newest 100", query: |_, _| "order=desc".to_owned(), least: 1 },
    Question {
        case: "by a holder who never was",
        query: |_, lock| format!("holder=nobody-{lock}"),
        least: 0,
    },
];

pub(crate) async fn measure(plan: &Plan, options: &Options) -> anyhow::Result<Section> {
    let events = options.events;
    ensure!(events > 3, "a trail needs some events");
    let scratch = Scratch::new(&plan.data, "audit")?;
    let start = || Target::leasehold(&plan.server, scratch.path());
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis();
    let trail = Trail::new(events, WallTime(i64::try_from(now)?));
    tell(&format!("audit: writes {events} events"));
    let began = Instant::now();
    trail.write(scratch.path())?;
    let wrote = began.elapsed().as_secs_f64();

    tell("audit: starts without an index");
    let (target, folded) = ready(start).await?;
    let (began, cpu) = (Instant::now(), target.cpu_seconds()?);
    caught_up(&target).await?;
    let indexed = began.elapsed().as_secs_f64();
    let cpu = target.cpu_seconds()? - cpu;
    target.stop()?;
    let (target, loaded) = ready(start).await?;
    let size = |name: &str| -> anyhow::Result<f64> {
        Ok(std::fs::metadata(scratch.path().join(name))?.len() as f64 / events as f64)
    };
    let (log, index) = (size("log.db")?, size("index.db")?);
    let mut rows = Vec::new();
    for question in &ASKED {
        tell(&format!("audit: {}", question.case));
        let figures = ask(&target, &trail, question).await?;
        rows.push(Row::of_runs("leasehold", question.case, &[figures]));
    }
    let figures: Figures = [
        ("events written/s", events as f64 / wrote),
        ("ready without index s", folded),
        ("index built s", indexed),
        ("CPU s of the index", cpu),
        ("ready with index s", loaded),
        ("bytes of log each", log),
        ("bytes of index each", index),
        ("RSS MiB", target.memory()? / f64::from(1 << 20)),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .to_vec();
    target.stop()?;
    rows.insert(
        0,
        Row::of_runs("leasehold", &format!("{} events", number(events as f64)), &[figures]),
    );
    Ok(Section {
        scenario: "audit".to_owned(),
        about: format!(
            "a trail of {} events, three a lock, {} resources, {} holders; each question \
             {QUESTIONS} times, about something else each time; pages of 100, a minute in one page",
            number(events as f64),
            number(trail.resources as f64),
            number(trail.holders as f64)
        ),
        rows,
        targets: Vec::new(),
    })
}

async fn ask(target: &Target, trail: &Trail, question: &Question) -> anyhow::Result<Figures> {
    let mut connection = Connection::open(&target.address).await?;
    let (mut samples, mut found) = (Samples::default(), 0);
    for number in 0..QUESTIONS {
        // Over the whole trail, but for locks that it may end before.
        let lock = trail.locks().saturating_sub(1) * number / QUESTIONS;
        let path = format!("/-/audit?{}", (question.query)(trail, lock));
        let request = Request { method: "GET", path: &path, fields: "", body: "" };
        let began = Instant::now();
        let answer = connection.send(request).await?;
        let body = answer.expect(200)?.body;
        samples.push(began.elapsed());
        let page: Value = serde_json::from_slice(body)?;
        let items = page["items"].as_array().context("a page without items")?.len();
        ensure!(question.least <= items, "{path} found {items} events");
        found += items;
    }
    let [p50, max] = samples.at([0.5, 1.0]);
    Ok([
        ("p50 ms", p50 / 1000.0),
        ("max ms", max / 1000.0),
        ("events found", found as f64 / QUESTIONS as f64),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .to_vec())
}
