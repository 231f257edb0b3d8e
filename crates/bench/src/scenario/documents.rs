//! Documents: reads, conditional writes, and writes under a lock. Each client has a document of
//! its own, 200 bytes of JSON.

use std::time::Instant;

use anyhow::Context;

use super::Plan;
use crate::figures::Samples;
use crate::http::{Connection, Request};
use crate::load::{self, Client, Measure, Tally};
use crate::report::Section;

/// What is asked for.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Options {
    /// How many clients.
    #[arg(id = "document-clients", long = "document-clients", default_value_t = 64)]
    pub(crate) clients: usize,
}

#[derive(Clone, Copy)]
enum Access {
    Read,
    IfMatch,
    UnderLock,
}

const JSON: &str = "Content-Type: application/json\r\n";

pub(crate) async fn measure(plan: &Plan, options: &Options) -> anyhow::Result<Section> {
    let mut rows = Vec::new();
    for (access, case, unit) in [
        (Access::Read, "GET", "requests"),
        (Access::IfMatch, "PUT with If-Match", "requests"),
        (Access::UnderLock, "PUT under a lock", "requests"),
    ] {
        let how = Measure { clients: options.clients, seconds: plan.seconds, unit };
        rows.extend(
            plan.in_turn(&plan.pair(), case, async |target| {
                load::measure(target, how, |client| accesses(client, access)).await
            })
            .await?,
        );
    }
    Ok(Section {
        scenario: "documents".to_owned(),
        about: format!(
            "{} clients, each with a document of 200 bytes of JSON; writes are durable; {}",
            options.clients,
            plan.told_in_turn()
        ),
        rows,
        targets: Vec::new(),
    })
}

fn document(number: u64) -> String {
    format!(r#"{{"name":"feature","on":true,"revision":{number:10},"text":"{:140}"}}"#, "")
}

async fn accesses(client: Client, access: Access) -> anyhow::Result<Tally> {
    let mut connection = client.connect().await?;
    let path = format!("/v1/docs/{}", client.prefix);
    let mut etag = put(&mut connection, &path, JSON, 0).await?;
    let lock = format!("{path}/lock");
    let mut token = None;
    if matches!(access, Access::UnderLock) {
        let acquire = Request { method: "POST", path: &lock, fields: "", body: "" };
        token = Some(connection.send(acquire).await?.expect(201)?.token()?);
    }
    let mut samples = Samples::default();
    for number in 1.. {
        if !client.goes_on() {
            break;
        }
        let began = Instant::now();
        if matches!(access, Access::Read) {
            let read = Request { method: "GET", path: &path, fields: "", body: "" };
            connection.send(read).await?.expect(200)?;
        } else {
            let fields = match &token {
                Some(token) => format!("{JSON}X-Lock-Token: {token}\r\n"),
                None => format!("{JSON}If-Match: {etag}\r\n"),
            };
            etag = put(&mut connection, &path, &fields, number).await?;
        }
        samples.push(began.elapsed());
    }
    Ok(Tally {
        operations: samples.len() as u64,
        counts: Vec::new(),
        latencies: vec![("request", samples)],
    })
}

/// Writes a document and gives its new entity tag.
async fn put(
    connection: &mut Connection,
    path: &str,
    fields: &str,
    number: u64,
) -> anyhow::Result<String> {
    let body = document(number);
    let answer = connection.send(Request { method: "PUT", path, fields, body: &body }).await?;
    if answer.status != 201 {
        answer.expect(204)?;
    }
    Ok(answer.field("etag").context("a write was answered without an entity tag")?.to_owned())
}
