//! The client library and the program, when one of them stands still.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a helper of a test panics like the test")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use leasehold_client::{Client, Error, How};
use tokio::time::timeout;

use crate::common::{Server, json};

const SECOND: Duration = Duration::from_secs(1);

fn client(url: &str) -> Client {
    Client::builder(url).timeout(2 * SECOND).build().unwrap()
}

fn now_ms() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()
}

/// The child of `a_holder_that_stood_still…`: holds a lock, and says every few milliseconds
/// whether it does, with the time before it looked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "started by another test, as a process of its own"]
async fn child_that_holds() {
    let Ok(url) = std::env::var("TEST_SERVER_URL") else { return };
    let client = client(&url);
    let held = client.lock("/a").ttl(SECOND).hold().await.unwrap();
    let mut out = std::io::stdout();
    loop {
        let at = now_ms();
        match held.check() {
            Ok(()) => writeln!(out, "held {at}").unwrap(),
            Err(lost) => {
                assert!(matches!(lost.how(), How::Expired | How::Ended(_)), "{lost}");
                writeln!(out, "lost {at}").unwrap();
                // Nothing is sent under it, and it stays lost.
                let error = client.put("/a", &"stale").under(&held).await.unwrap_err();
                assert!(matches!(error, Error::Lost(_)), "{error}");
                tokio::time::sleep(SECOND).await;
                assert!(held.check().is_err());
                timeout(SECOND, held.lost()).await.unwrap();
                writeln!(out, "end {at}").unwrap();
                return;
            }
        }
        out.flush().unwrap();
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
}

#[tokio::test]
async fn a_holder_that_stood_still_for_longer_than_the_ttl_reports_the_loss_and_no_stale_hold() {
    let server = Server::start();
    let url = format!("http://{}", server.address());
    for _ in 0..3 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "client_pauses::child_that_holds", "--ignored", "--nocapture"])
            .env("TEST_SERVER_URL", &url)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let pid = child.id().to_string();
        let signal = |name: &str| {
            assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
        };
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut lines = lines.map(Result::unwrap).filter_map(|line| {
            let (word, at) = line.rsplit_once(' ').filter(|(_, at)| at.parse::<u128>().is_ok())?;
            // The harness may have written before it on the same line.
            let word = word.rsplit(' ').next().unwrap_or_default().to_owned();
            Some((word, at.parse::<u128>().unwrap()))
        });
        // Longer than the TTL, so it has been renewed.
        let begun = now_ms();
        let held = lines.find(|(word, at)| word == "held" && begun + 1500 < *at);
        assert!(held.is_some());
        signal("STOP");
        let client = client(&url);
        let other = client.lock("/a").wait(10 * SECOND).hold().await.unwrap();
        let taken = now_ms();
        client.put("/a", &json!("mine")).under(&other).await.unwrap();
        signal("CONT");
        let mut lost = false;
        for (word, at) in lines.by_ref() {
            match word.as_str() {
                // What it saw before, and had not written.
                "held" => assert!(at < taken && !lost, "a stale hold"),
                "lost" => lost = true,
                "end" => break,
                _ => {}
            }
        }
        assert!(lost);
        assert!(child.wait().unwrap().success());
        other.check().unwrap();
        assert_eq!(client.get::<String>("/a").await.unwrap().value, "mine");
        other.release().await.unwrap();
    }
}

#[tokio::test]
async fn a_server_that_stands_still_costs_the_lock_at_its_deadline_and_not_later() {
    let server = Server::start();
    let client = client(&format!("http://{}", server.address()));
    let held = client.lock("/a").ttl(SECOND).hold().await.unwrap();
    server.signal("STOP");
    let stopped = Instant::now();
    let lost = timeout(3 * SECOND, held.lost()).await.unwrap();
    assert!(stopped.elapsed() <= Duration::from_millis(1500), "{:?}", stopped.elapsed());
    assert!(matches!(lost.how(), How::Expired));
    server.signal("CONT");
    // It is let go at the server as well, where its lease stood still.
    let began = Instant::now();
    let next = client.lock("/a").wait(10 * SECOND).hold().await.unwrap();
    assert!(began.elapsed() < 3 * SECOND, "{:?}", began.elapsed());
    assert!(next.fence() > held.fence() && held.check().is_err());
}

#[tokio::test]
async fn a_server_that_stands_still_for_a_moment_costs_nothing() {
    let server = Server::start();
    let client = client(&format!("http://{}", server.address()));
    let held = client.lock("/a").ttl(3 * SECOND).hold().await.unwrap();
    for _ in 0..3 {
        server.signal("STOP");
        tokio::time::sleep(Duration::from_millis(900)).await;
        server.signal("CONT");
        tokio::time::sleep(Duration::from_millis(300)).await;
        held.check().unwrap();
    }
    client.put("/a", &1).under(&held).await.unwrap();
    held.release().await.unwrap();
}
