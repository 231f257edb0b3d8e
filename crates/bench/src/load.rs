//! Load: clients that each send one request at a time, and what they bring back.

use std::time::{Duration, Instant};

use anyhow::bail;
use tokio::task::JoinSet;

use crate::figures::{Figures, Samples};
use crate::http::Connection;
use crate::target::Target;

/// One client of a load.
pub(crate) struct Client {
    /// From 0 on.
    pub(crate) number: usize,
    /// Begins the names of whatever this client makes: no other client's of any load does.
    pub(crate) prefix: String,
    /// Where the server is.
    pub(crate) address: String,
    /// When to stop.
    pub(crate) until: Instant,
}

impl Client {
    pub(crate) async fn connect(&self) -> anyhow::Result<Connection> {
        Connection::open(&self.address).await
    }

    pub(crate) fn goes_on(&self) -> bool {
        Instant::now() < self.until
    }
}

/// What clients have done.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// How many operations: what is meant by one, the scenario says.
    pub(crate) operations: u64,
    /// Numbers beside it, shown per second.
    pub(crate) counts: Vec<(&'static str, u64)>,
    /// How long things took.
    pub(crate) latencies: Vec<(&'static str, Samples)>,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.operations += other.operations;
        for (name, count) in other.counts {
            match self.counts.iter_mut().find(|(found, _)| *found == name) {
                Some((_, sum)) => *sum += count,
                None => self.counts.push((name, count)),
            }
        }
        for (name, mut samples) in other.latencies {
            match self.latencies.iter_mut().find(|(found, _)| *found == name) {
                Some((_, all)) => all.append(&mut samples),
                None => self.latencies.push((name, samples)),
            }
        }
    }
}

/// Runs clients at the same time until each has ended.
pub(crate) async fn run<Work>(
    address: &str,
    clients: usize,
    until: Instant,
    each: impl Fn(Client) -> Work,
) -> anyhow::Result<Tally>
where
    Work: Future<Output = anyhow::Result<Tally>> + Send + 'static,
{
    // Nanoseconds since 1970: no load before this one had the same.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    let mut tasks = JoinSet::new();
    for number in 0..clients {
        tasks.spawn(each(Client {
            number,
            prefix: format!("{:x}-{number}", now.as_nanos()),
            address: address.to_owned(),
            until,
        }));
    }
    let mut tally = Tally::default();
    while let Some(done) = tasks.join_next().await {
        tally.add(done??);
    }
    Ok(tally)
}

/// What of a measured load is not in its [`Tally`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measure {
    pub(crate) clients: usize,
    pub(crate) seconds: f64,
    /// The name of the operation, in the plural.
    pub(crate) unit: &'static str,
}

/// Warms a server up, loads it, and makes figures of it. The first is the rate.
pub(crate) async fn measure<Work>(
    target: &Target,
    how: Measure,
    each: impl Fn(Client) -> Work,
) -> anyhow::Result<Figures>
where
    Work: Future<Output = anyhow::Result<Tally>> + Send + 'static,
{
    let warm_up = Duration::from_secs_f64(how.seconds.min(3.0) / 10.0);
    run(&target.address, how.clients, Instant::now() + warm_up, &each).await?;
    let cpu = target.cpu_seconds()?;
    let began = Instant::now();
    let until = began + Duration::from_secs_f64(how.seconds);
    let tally = run(&target.address, how.clients, until, &each).await?;
    let took = began.elapsed().as_secs_f64();
    let cpu = target.cpu_seconds()? - cpu;
    figures(tally, how.unit, took, cpu, target.memory()?)
}

/// Makes figures of a load that took so many seconds, and of its server's CPU and memory.
pub(crate) fn figures(
    tally: Tally,
    unit: &str,
    took: f64,
    cpu: f64,
    memory: f64,
) -> anyhow::Result<Figures> {
    if tally.operations == 0 {
        bail!("the clients did nothing");
    }
    let operations = tally.operations as f64;
    let mut figures = vec![(format!("{unit}/s"), operations / took)];
    for (name, count) in tally.counts {
        figures.push((format!("{name}/s"), count as f64 / took));
    }
    figures.push((CPU.to_owned(), cpu * 100_000.0 / operations));
    for (name, samples) in tally.latencies {
        let [p50, p99] = samples.at([0.5, 0.99]);
        figures.push((format!("{name} p50 µs"), p50));
        figures.push((format!("{name} p99 µs"), p99));
    }
    figures.push(("RSS MiB".to_owned(), memory / f64::from(1 << 20)));
    Ok(figures)
}

/// The name of the figure for the server's CPU seconds per 100,000 operations.
pub(crate) const CPU: &str = "CPU s/100k";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clients_bring_back_is_added_up() {
        let one = |operations, micros| {
            let mut samples = Samples::default();
            samples.push(Duration::from_micros(micros));
            Tally {
                operations,
                counts: vec![("grants", operations)],
                latencies: vec![("acquire", samples)],
            }
        };
        let mut tally = one(3, 10);
        tally.add(one(5, 20));
        let figures = figures(tally, "attempts", 2.0, 0.5, f64::from(3 << 20)).unwrap();
        let expected = [
            ("attempts/s", 4.0),
            ("grants/s", 4.0),
            ("CPU s/100k", 6250.0),
            ("acquire p50 µs", 10.0),
            ("acquire p99 µs", 20.0),
            ("RSS MiB", 3.0),
        ];
        assert_eq!(figures, expected.map(|(name, value)| (name.to_owned(), value)));
        assert!(super::figures(Tally::default(), "attempts", 1.0, 1.0, 1.0).is_err());
    }
}
