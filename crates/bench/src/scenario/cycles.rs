//! Durable cycles: acquire a key that nobody has used, release it. Two requests, two events, each
//! on the disk before its answer.

use std::time::Instant;

use anyhow::bail;

use super::{CPU_OF_FLOOR, OF_FLOOR, Plan, tell};
use crate::disk;
use crate::figures::Samples;
use crate::http::Request;
use crate::load::{self, Client, Measure, Tally};
use crate::redis::Redis;
use crate::report::{Row, Section, Target as Goal};
use crate::target::{Kind, Target};

/// What is asked for.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Options {
    /// How many clients; one row for each.
    #[arg(long, value_delimiter = ',', default_value = "1,16,64,256")]
    pub(crate) clients: Vec<usize>,
}

pub(crate) async fn measure(plan: &Plan, options: &Options) -> anyhow::Result<Vec<Section>> {
    let mut section = Section {
        scenario: "cycles".to_owned(),
        about: format!(
            "acquire (a new key, TTL 30 s) and release, both durable; {}",
            plan.told_in_turn()
        ),
        rows: Vec::new(),
        targets: Vec::new(),
    };
    let mut disks = vec![disk::measure(&plan.data)?];
    for &clients in &options.clients {
        let how = Measure { clients, seconds: plan.seconds, unit: "cycles" };
        let case = format!("{clients} {}", if clients == 1 { "client" } else { "clients" });
        tell(&format!("cycles, {case}"));
        let rows = plan
            .in_turn(&plan.peers(), &case, async |target: &Target| match target.kind {
                Kind::Redis => load::measure(target, how, redis_cycles).await,
                _ => load::measure(target, how, cycles).await,
            })
            .await?;
        section.rows.extend(rows);
        disks.push(disk::measure(&plan.data)?);
    }
    let disk = Section {
        scenario: "disk".to_owned(),
        about: "one thread writes 4 KiB and waits for fdatasync, before and after each load"
            .to_owned(),
        rows: vec![Row::of_runs("disk", "4 KiB", &disks)],
        targets: Vec::new(),
    };
    judge(&mut section, &disk);
    Ok(vec![disk, section])
}

fn judge(section: &mut Section, disk: &Section) {
    let find = |server, case, name| section.median(server, case, name);
    let mut targets = Vec::new();
    if let (Some(of_floor), Some(cpu)) =
        (find("leasehold", "64 clients", OF_FLOOR), find("leasehold", "64 clients", CPU_OF_FLOOR))
    {
        targets.push(Goal::at_least("64 clients, % of the floor's cycles/s", of_floor, 36.0));
        targets.push(Goal::at_most("64 clients, times the floor's CPU", cpu, 3.3));
    }
    if let (Some(cycle), Some(sync)) =
        (find("leasehold", "1 client", "cycle p50 µs"), disk.median("disk", "4 KiB", disk::APPEND))
    {
        let bound = 2.0 * sync + 250.0;
        targets.push(Goal::at_most("1 client, a cycle's median in µs", cycle, bound));
    }
    for (case, least) in [("1 client", 0.85), ("16 clients", 1.0), ("64 clients", 1.0)] {
        if let (Some(ours), Some(redis)) =
            (find("leasehold", case, "cycles/s"), find("redis", case, "cycles/s"))
        {
            targets.push(Goal::at_least(&format!("{case}, times Redis"), ours / redis, least));
        }
    }
    section.targets = targets;
}

/// One client's cycles.
pub(crate) async fn cycles(client: Client) -> anyhow::Result<Tally> {
    let mut connection = client.connect().await?;
    let (mut acquires, mut cycles) = (Samples::default(), Samples::default());
    let mut number = 0_u64;
    while client.goes_on() {
        number += 1;
        let path = format!("/v1/items/{}-{number}/lock", client.prefix);
        let began = Instant::now();
        let acquire =
            Request { method: "POST", path: &path, fields: "", body: r#"{"ttl_seconds":30}"# };
        let token = connection.send(acquire).await?.expect(201)?.token()?;
        acquires.push(began.elapsed());
        let fields = format!("X-Lock-Token: {token}\r\n");
        let release = Request { method: "DELETE", path: &path, fields: &fields, body: "" };
        connection.send(release).await?.expect(204)?;
        cycles.push(began.elapsed());
    }
    Ok(tally(acquires, cycles))
}

async fn redis_cycles(client: Client) -> anyhow::Result<Tally> {
    let mut connection = Redis::open(&client.address).await?;
    let (mut acquires, mut cycles) = (Samples::default(), Samples::default());
    let mut number = 0_u64;
    while client.goes_on() {
        number += 1;
        let key = format!("/v1/items/{}-{number}/lock", client.prefix);
        // As long as a token of ours.
        let token = format!("{:086}", number);
        let began = Instant::now();
        if !connection.acquire(&key, &token).await? {
            bail!("a new key was taken");
        }
        acquires.push(began.elapsed());
        connection.release(&key, &token).await?;
        cycles.push(began.elapsed());
    }
    Ok(tally(acquires, cycles))
}

fn tally(acquires: Samples, cycles: Samples) -> Tally {
    Tally {
        operations: cycles.len() as u64,
        counts: Vec::new(),
        latencies: vec![("acquire", acquires), ("cycle", cycles)],
    }
}
