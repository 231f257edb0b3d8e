//! One key that everybody waits for: each client waits for its turn, releases at once, and waits
//! again. An operation is a hand-over. Whoever has been served goes to the end of the queue, so
//! over any span each client is served as often as another, but for one turn.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::Plan;
use crate::figures::Figures;
use crate::http::Request;
use crate::load::{self, Client, Tally};
use crate::report::{Section, Target as Goal};
use crate::target::{Kind, Target};

/// What is asked for.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Options {
    /// How many clients.
    #[arg(id = "waiting-clients", long = "waiting-clients", default_value_t = 32)]
    pub(crate) clients: usize,
}

const SHARES: &str = "shares apart";

pub(crate) async fn measure(plan: &Plan, options: &Options) -> anyhow::Result<Section> {
    let clients = options.clients.max(1);
    let case = format!("{clients} clients, 1 key");
    let rows = plan
        .in_turn(&plan.pair(), &case, async |target| turns(target, clients, plan.seconds).await)
        .await?;
    let mut section = Section {
        scenario: "handover".to_owned(),
        about: format!(
            "each client waits for the one key, releases it at once and waits again; {}; \
             the floor lets nobody wait",
            plan.told_in_turn()
        ),
        rows,
        targets: Vec::new(),
    };
    let find = |name| section.median("leasehold", &case, name);
    if let (Some(rate), Some(apart)) = (find("hand-overs/s"), find(SHARES)) {
        section.targets = vec![
            Goal::at_least("hand-overs/s", rate, 2500.0),
            Goal::at_most("the greatest share less the least, in turns", apart, 1.0),
        ];
    }
    Ok(section)
}

/// What the clients and the one who counts see.
struct Turns {
    served: Vec<AtomicU64>,
}

async fn turns(target: &Target, clients: usize, seconds: f64) -> anyhow::Result<Figures> {
    let turns = Arc::new(Turns { served: (0..clients).map(|_| AtomicU64::new(0)).collect() });
    let snapshot = |turns: &Turns| -> Vec<u64> {
        turns.served.iter().map(|count| count.load(Ordering::Relaxed)).collect()
    };
    let counted = async {
        // Before everybody has had a turn, some clients are not in the queue yet.
        let limit = Instant::now() + Duration::from_secs(30);
        while snapshot(&turns).contains(&0) {
            anyhow::ensure!(Instant::now() < limit, "a client has had no turn in 30 s");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let (began, before, cpu) = (Instant::now(), snapshot(&turns), target.cpu_seconds()?);
        tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
        let (took, after) = (began.elapsed().as_secs_f64(), snapshot(&turns));
        let shares: Vec<u64> = after.iter().zip(&before).map(|(now, then)| now - then).collect();
        let cpu = target.cpu_seconds()? - cpu;
        Ok((took, shares, cpu, target.memory()?))
    };
    // Longer than anything is measured: who counts says when it is over.
    let until = Instant::now() + Duration::from_secs(3600);
    let load =
        load::run(&target.address, clients, until, |client| take_turns(client, turns.clone()));
    let (took, shares, cpu, memory) = tokio::select! {
        counted = counted => counted?,
        ended = load => anyhow::bail!("the clients ended early: {ended:?}"),
    };
    let served: u64 = shares.iter().sum();
    let tally = Tally { operations: served, ..Tally::default() };
    let mut figures = load::figures(tally, "hand-overs", took, cpu, memory)?;
    if target.kind != Kind::Floor {
        let apart = shares.iter().max().zip(shares.iter().min());
        let apart = apart.map_or(0, |(most, least)| most - least);
        figures.push((SHARES.to_owned(), apart as f64));
    }
    Ok(figures)
}

async fn take_turns(client: Client, turns: Arc<Turns>) -> anyhow::Result<Tally> {
    let mut connection = client.connect().await?;
    while client.goes_on() {
        let acquire = Request {
            method: "POST",
            path: "/v1/turns/one/lock",
            fields: "Prefer: wait=30\r\n",
            body: r#"{"ttl_seconds":30}"#,
        };
        let token = connection.send(acquire).await?.expect(201)?.token()?;
        turns.served[client.number].fetch_add(1, Ordering::Relaxed);
        let fields = format!("X-Lock-Token: {token}\r\n");
        let release =
            Request { method: "DELETE", path: "/v1/turns/one/lock", fields: &fields, body: "" };
        connection.send(release).await?.expect(204)?;
    }
    Ok(Tally::default())
}
