//! The mix of a service whose holders keep their locks: each client acquires a lock, renews it
//! eighteen times, and releases it. Nine requests in ten are renewals.

use std::time::Instant;

use super::Plan;
use crate::figures::Samples;
use crate::http::Request;
use crate::load::{self, Client, Measure, Tally};
use crate::report::Section;

/// How often a lock is renewed between its acquire and its release.
const RENEWALS: usize = 18;

/// What is asked for.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Options {
    /// How many clients.
    #[arg(id = "mix-clients", long = "mix-clients", default_value_t = 64)]
    pub(crate) clients: usize,
}

pub(crate) async fn measure(plan: &Plan, options: &Options) -> anyhow::Result<Section> {
    let how = Measure { clients: options.clients, seconds: plan.seconds, unit: "requests" };
    let case = format!("{} clients", options.clients);
    let rows = plan
        .in_turn(&plan.pair(), &case, async |target| load::measure(target, how, renewals).await)
        .await?;
    Ok(Section {
        scenario: "mix".to_owned(),
        about: format!(
            "acquire, {RENEWALS} renewals, release, all durable; {}; an operation is one request",
            plan.told_in_turn()
        ),
        rows,
        targets: Vec::new(),
    })
}

async fn renewals(client: Client) -> anyhow::Result<Tally> {
    let mut connection = client.connect().await?;
    let (mut acquires, mut renewals) = (Samples::default(), Samples::default());
    let mut operations = 0;
    let body = r#"{"ttl_seconds":30}"#;
    for number in 0_u64.. {
        if !client.goes_on() {
            break;
        }
        let path = format!("/v1/jobs/{}-{number}/lock", client.prefix);
        let began = Instant::now();
        let acquire = Request { method: "POST", path: &path, fields: "", body };
        let token = connection.send(acquire).await?.expect(201)?.token()?;
        acquires.push(began.elapsed());
        let fields = format!("X-Lock-Token: {token}\r\n");
        for _ in 0..RENEWALS {
            let began = Instant::now();
            let renew = Request { method: "PATCH", path: &path, fields: &fields, body };
            connection.send(renew).await?.expect(200)?;
            renewals.push(began.elapsed());
        }
        let release = Request { method: "DELETE", path: &path, fields: &fields, body: "" };
        connection.send(release).await?.expect(204)?;
        operations += RENEWALS as u64 + 2;
    }
    Ok(Tally {
        operations,
        counts: Vec::new(),
        latencies: vec![("acquire", acquires), ("renew", renewals)],
    })
}
