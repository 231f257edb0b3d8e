//! Many clients on a few hot keys, failing fast: each tries one key after the other, and releases
//! at once what it gets. An operation is an attempt, granted or refused; releases are not counted,
//! but are sent.

use std::time::Instant;

use super::Plan;
use crate::figures::Samples;
use crate::http::Request;
use crate::load::{self, Client, Measure, Tally};
use crate::report::{Section, Target as Goal};

/// What is asked for.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Options {
    /// How many clients.
    #[arg(id = "contending-clients", long = "contending-clients", default_value_t = 64)]
    pub(crate) clients: usize,
    /// On how many keys.
    #[arg(id = "hot-keys", long = "hot-keys", default_value_t = 8)]
    pub(crate) keys: usize,
}

pub(crate) async fn measure(plan: &Plan, options: &Options) -> anyhow::Result<Section> {
    let (clients, keys) = (options.clients, options.keys.max(1));
    let how = Measure { clients, seconds: plan.seconds, unit: "attempts" };
    let case = format!("{clients} clients, {keys} keys");
    let rows = plan
        .in_turn(&plan.pair(), &case, async |target| {
            load::measure(target, how, |client| attempts(client, keys)).await
        })
        .await?;
    let mut section = Section {
        scenario: "contended".to_owned(),
        about: format!(
            "fail-fast acquires of a few hot keys, released at once; {}; \
             the floor grants one attempt in {}",
            plan.told_in_turn(),
            crate::floor::HOT
        ),
        rows,
        targets: Vec::new(),
    };
    let attempts = section.median("leasehold", &case, "attempts/s");
    section.targets =
        attempts.map(|found| Goal::at_least("attempts/s", found, 60_000.0)).into_iter().collect();
    Ok(section)
}

pub(crate) async fn attempts(client: Client, keys: usize) -> anyhow::Result<Tally> {
    let mut connection = client.connect().await?;
    let (mut grants, mut refusals) = (Samples::default(), Samples::default());
    let paths: Vec<String> = (0..keys).map(|key| format!("/v1/hot/{key}/lock")).collect();
    for path in paths.iter().cycle().skip(client.number % keys) {
        if !client.goes_on() {
            break;
        }
        let began = Instant::now();
        let acquire = Request { method: "POST", path, fields: "", body: r#"{"ttl_seconds":30}"# };
        let answer = connection.send(acquire).await?;
        if answer.status == 423 {
            refusals.push(began.elapsed());
            continue;
        }
        let token = answer.expect(201)?.token()?;
        grants.push(began.elapsed());
        let fields = format!("X-Lock-Token: {token}\r\n");
        let release = Request { method: "DELETE", path, fields: &fields, body: "" };
        connection.send(release).await?.expect(204)?;
    }
    let (granted, refused) = (grants.len() as u64, refusals.len() as u64);
    Ok(Tally {
        operations: granted + refused,
        counts: vec![("grants", granted), ("refusals", refused)],
        latencies: vec![("grant", grants), ("refusal", refusals)],
    })
}
