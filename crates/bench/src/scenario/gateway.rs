//! The gateway beside reverse proxies that check nothing, before the same API: the floor, which
//! answers 200 bytes of JSON. A `PUT` is judged and pinned by the gateway; under a lock it is in the
//! trail as well, twice.

use std::time::Instant;

use anyhow::bail;

use super::{Plan, tell};
use crate::figures::{Figures, Samples};
use crate::floor::RESOURCE;
use crate::http::Request;
use crate::load::{self, CPU, Client, Measure, Tally};
use crate::report::{Row, Section, Target as Goal};
use crate::target::{Kind, Proxy, Scratch, Target};

/// What is asked for.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Options {
    /// How many connections.
    #[arg(id = "gateway-connections", long = "gateway-connections", default_value_t = 64)]
    pub(crate) connections: usize,
}

/// The name of the figure for the rate beside nginx's.
const OF_NGINX: &str = "of nginx %";
/// The name of the figure for how many times nginx's CPU a request costs.
const CPU_OF_NGINX: &str = "CPU × nginx";

#[derive(Clone, Copy, Eq, PartialEq)]
enum Access {
    Read,
    Write,
    UnderLock,
}

pub(crate) async fn measure(plan: &Plan, options: &Options) -> anyhow::Result<Section> {
    let proxies = [Proxy::Nginx, Proxy::Haproxy, Proxy::Caddy];
    let found: Vec<Proxy> = proxies.into_iter().filter(|proxy| is_here(*proxy)).collect();
    let mut rows = Vec::new();
    let mut targets = Vec::new();
    for (access, case) in
        [(Access::Read, "GET"), (Access::Write, "PUT"), (Access::UnderLock, "PUT under a lock")]
    {
        let mut kinds = vec![Kind::Gateway];
        if access != Access::UnderLock {
            // nginx first: the others are compared with it.
            kinds.splice(0..0, found.iter().map(|proxy| Kind::Proxy(*proxy)));
            kinds.insert(0, Kind::Floor);
        }
        let how = Measure { clients: options.connections, seconds: plan.seconds, unit: "requests" };
        let made = beside_nginx(plan, &kinds, case, how, access).await?;
        if let Some(ours) = made.iter().find(|row| row.server == Kind::Gateway.name()) {
            let of = |figure, what: &str| Some((format!("{case}, {what}"), ours.median(figure)?));
            targets.extend(
                of(OF_NGINX, "requests/s, % of nginx's")
                    .map(|(what, measured)| Goal::at_least(&what, measured, 60.0)),
            );
            targets.extend(
                of(CPU_OF_NGINX, "times nginx's CPU")
                    .map(|(what, measured)| Goal::at_most(&what, measured, 1.8)),
            );
        }
        rows.extend(made);
    }
    let missing: Vec<&str> =
        proxies.iter().filter(|proxy| !found.contains(proxy)).map(|proxy| proxy.name()).collect();
    let missing = match missing.is_empty() {
        true => String::new(),
        false => format!("; not here: {}", missing.join(", ")),
    };
    Ok(Section {
        scenario: "gateway".to_owned(),
        about: format!(
            "{} connections through a gateway to an API that answers 200 bytes of JSON, a PUT has \
             as many; the floor is that API itself; {}{missing}",
            options.connections,
            plan.told()
        ),
        rows,
        targets,
    })
}

fn is_here(proxy: Proxy) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(proxy.name()).is_file())
}

async fn beside_nginx(
    plan: &Plan,
    kinds: &[Kind],
    case: &str,
    how: Measure,
    access: Access,
) -> anyhow::Result<Vec<Row>> {
    let mut runs = vec![Vec::new(); kinds.len()];
    for number in 1..=plan.runs.max(1) {
        tell(&format!("{case}: run {number}"));
        let mut nginx: Option<Figures> = None;
        for (kind, runs) in kinds.iter().zip(&mut runs) {
            let api = Target::floor()?;
            let scratch = Scratch::new(&plan.data, kind.name())?;
            let gateway = match kind {
                Kind::Proxy(proxy) => Some(Target::proxy(*proxy, scratch.path(), &api.address)?),
                Kind::Gateway => Some(Target::gateway(&plan.server, scratch.path(), &api.address)?),
                Kind::Floor | Kind::Leasehold | Kind::Redis => None,
            };
            let target = gateway.as_ref().unwrap_or(&api);
            let mut figures = load::measure(target, how, |client| accesses(client, access)).await?;
            if let Some(gateway) = gateway {
                gateway.stop()?;
            }
            if *kind == Kind::Proxy(Proxy::Nginx) {
                nginx = Some(figures.clone());
            } else if let Some(nginx) = &nginx {
                compare(&mut figures, nginx);
            }
            runs.push(figures);
        }
    }
    Ok(kinds.iter().zip(&runs).map(|(kind, runs)| Row::of_runs(kind.name(), case, runs)).collect())
}

fn compare(figures: &mut Figures, nginx: &Figures) {
    let ratio = |name: &str| {
        let of = |figures: &Figures| figures.iter().find(|(each, _)| each == name).map(|it| it.1);
        of(figures).zip(of(nginx)).map(|(ours, its)| ours / its).filter(|ratio| ratio.is_finite())
    };
    let (rate, cpu) = (ratio("requests/s"), ratio(CPU));
    figures.extend(rate.map(|ratio| (OF_NGINX.to_owned(), 100.0 * ratio)));
    figures.extend(cpu.map(|ratio| (CPU_OF_NGINX.to_owned(), ratio)));
}

async fn accesses(client: Client, access: Access) -> anyhow::Result<Tally> {
    let mut connection = client.connect().await?;
    let path = format!("/v1/api/{}", client.prefix);
    let mut fields = "Content-Type: application/json\r\n".to_owned();
    if access == Access::UnderLock {
        let lock = format!("{path}/lock");
        let acquire = Request { method: "POST", path: &lock, fields: "", body: "" };
        let token = connection.send(acquire).await?.expect(201)?.token()?;
        fields.push_str(&format!("X-Lock-Token: {token}\r\n"));
    }
    let request = match access {
        Access::Read => Request { method: "GET", path: &path, fields: "", body: "" },
        Access::Write | Access::UnderLock => {
            Request { method: "PUT", path: &path, fields: &fields, body: RESOURCE }
        }
    };
    let mut samples = Samples::default();
    while client.goes_on() {
        let began = Instant::now();
        let answer = connection.send(request).await?;
        if answer.expect(200)?.body.len() != RESOURCE.len() {
            bail!("that was not the answer of the API");
        }
        samples.push(began.elapsed());
    }
    Ok(Tally {
        operations: samples.len() as u64,
        counts: Vec::new(),
        latencies: vec![("request", samples)],
    })
}
