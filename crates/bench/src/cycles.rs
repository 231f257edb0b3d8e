//! Acquire a key nobody has used, release it: two requests, two durable events.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::target::Target;

/// What one run measured.
#[derive(Clone, Debug)]
struct Run {
    cycles_per_second: f64,
    cpu_per_100k: f64,
    acquire_us: Percentiles,
    cycle_us: Percentiles,
}

#[derive(Clone, Copy, Debug)]
struct Percentiles {
    p50: u64,
    p99: u64,
}

/// Runs the floor and the server in turn and prints a table.
pub(crate) async fn compare(
    server: &Path,
    clients: &[usize],
    seconds: u64,
    runs: usize,
) -> anyhow::Result<()> {
    println!(
        "{:<10} {:>7} {:>10} {:>12} {:>22} {:>20} {:>9}",
        "",
        "clients",
        "cycles/s",
        "CPU s/100k",
        "acquire p50/p99 µs",
        "cycle p50/p99 µs",
        "of floor"
    );
    for &clients in clients {
        let (mut floors, mut servers) = (Vec::new(), Vec::new());
        for _ in 0..runs.max(1) {
            floors.push(measure(Target::floor()?, clients, seconds).await?);
            servers.push(measure(Target::server(server)?, clients, seconds).await?);
        }
        let floor = median(floors);
        print("floor", clients, &floor, &floor);
        print("leasehold", clients, &median(servers), &floor);
    }
    Ok(())
}

/// Loads a server that runs already.
pub(crate) async fn alone(address: &str, clients: usize, seconds: u64) -> anyhow::Result<()> {
    let until = Instant::now() + Duration::from_secs(seconds);
    let samples = load(address, clients, until).await?;
    println!("{:.0} cycles/s", samples.len() as f64 / seconds as f64);
    Ok(())
}

fn median(mut runs: Vec<Run>) -> Run {
    runs.sort_by(|a, b| a.cycles_per_second.total_cmp(&b.cycles_per_second));
    runs.swap_remove(runs.len() / 2)
}

fn print(name: &str, clients: usize, run: &Run, floor: &Run) {
    println!(
        "{:<10} {:>7} {:>10.0} {:>12.2} {:>22} {:>20} {:>8.0}%  CPU ×{:.2}",
        name,
        clients,
        run.cycles_per_second,
        run.cpu_per_100k,
        format!("{}/{}", run.acquire_us.p50, run.acquire_us.p99),
        format!("{}/{}", run.cycle_us.p50, run.cycle_us.p99),
        100.0 * run.cycles_per_second / floor.cycles_per_second,
        run.cpu_per_100k / floor.cpu_per_100k,
    );
}

async fn measure(target: Target, clients: usize, seconds: u64) -> anyhow::Result<Run> {
    let warm_up = Instant::now() + Duration::from_millis(300);
    load(&target.address, clients, warm_up).await?;
    let cpu = target.cpu_seconds()?;
    let began = Instant::now();
    let until = began + Duration::from_secs(seconds);
    let mut samples = load(&target.address, clients, until).await?;
    let took = began.elapsed().as_secs_f64();
    let cpu = target.cpu_seconds()? - cpu;
    let cycles = samples.len() as f64;
    if samples.is_empty() {
        bail!("no cycle was done");
    }
    let percentiles = |of: fn(&(u64, u64)) -> u64, samples: &mut Vec<(u64, u64)>| {
        samples.sort_unstable_by_key(of);
        let at = |part: usize| of(&samples[(samples.len() * part / 100).min(samples.len() - 1)]);
        Percentiles { p50: at(50), p99: at(99) }
    };
    Ok(Run {
        cycles_per_second: cycles / took,
        cpu_per_100k: cpu * 100_000.0 / cycles,
        acquire_us: percentiles(|sample| sample.0, &mut samples),
        cycle_us: percentiles(|sample| sample.1, &mut samples),
    })
}

/// Each client on a connection of its own, until `until`: for each cycle the microseconds of the
/// acquire and of the whole.
async fn load(address: &str, clients: usize, until: Instant) -> anyhow::Result<Vec<(u64, u64)>> {
    let mut tasks = JoinSet::new();
    for client in 0..clients {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        tasks.spawn(cycle_until(stream, client, until));
    }
    let mut samples = Vec::new();
    while let Some(done) = tasks.join_next().await {
        samples.extend(done??);
    }
    Ok(samples)
}

async fn cycle_until(
    mut stream: TcpStream,
    client: usize,
    until: Instant,
) -> anyhow::Result<Vec<(u64, u64)>> {
    let mut samples = Vec::new();
    let mut answer = Vec::with_capacity(4096);
    let mut number = 0_u64;
    let run = std::process::id();
    let salt = until.elapsed().subsec_nanos();
    while Instant::now() < until {
        number += 1;
        let path = format!("/v1/items/{run}-{salt}-{client}-{number}/lock");
        let began = Instant::now();
        let body = r#"{"ttl_seconds":30}"#;
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: b\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let status = exchange(&mut stream, request.as_bytes(), &mut answer).await?;
        if status != 201 {
            bail!("an acquire was answered {status}");
        }
        let acquired = began.elapsed();
        let token = token_of(&answer).context("the grant has no token")?;
        let request = format!("DELETE {path} HTTP/1.1\r\nHost: b\r\nX-Lock-Token: {token}\r\n\r\n");
        let status = exchange(&mut stream, request.as_bytes(), &mut answer).await?;
        if status != 204 {
            bail!("a release was answered {status}");
        }
        let micros = |span: Duration| u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
        samples.push((micros(acquired), micros(began.elapsed())));
    }
    Ok(samples)
}

fn token_of(answer: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(answer).ok()?;
    let at = text.find("\"lock_token\":\"")? + 14;
    text[at..].split('"').next()
}

/// Sends one request and reads its answer whole.
async fn exchange(
    stream: &mut TcpStream,
    request: &[u8],
    answer: &mut Vec<u8>,
) -> anyhow::Result<u16> {
    stream.write_all(request).await?;
    answer.clear();
    loop {
        if stream.read_buf(answer).await? == 0 {
            bail!("the server closed the connection");
        }
        let Some(end) = find(answer, b"\r\n\r\n") else { continue };
        let head = std::str::from_utf8(&answer[..end])?;
        let length: usize = head
            .lines()
            .find_map(|line| {
                let (name, length) = line.split_once(':')?;
                name.eq_ignore_ascii_case("content-length").then(|| length.trim().parse().ok())?
            })
            .unwrap_or(0);
        let status = head.get(9..12).context("no status line")?.parse()?;
        while answer.len() < end + 4 + length {
            if stream.read_buf(answer).await? == 0 {
                bail!("an answer broke off");
            }
        }
        return Ok(status);
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}
