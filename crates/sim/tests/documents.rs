//! The documents on the simulated disk: a write that fails, a kill before the file could be opened
//! again, and a start that the power interrupts at every operation.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests may fail them")]

use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use http::{Method, Request};
use http_body_util::BodyExt as _;
use leasehold_core::caller::{Caller, Permissions, Role};
use leasehold_core::ids::Principal;
use leasehold_core::resource::Resource;
use leasehold_core::table::TableLimits;
use leasehold_core::time::WallTime;
use leasehold_engine::start::{Loading, Stepped};
use leasehold_engine::{Draws, EngineOptions};
use leasehold_guard::body::{empty, full};
use leasehold_guard::call::Call;
use leasehold_guard::guard::Guard;
use leasehold_guard::rules::Rules;
use leasehold_journal::folder::DataFolder;
use leasehold_journal::log::Retention;
use leasehold_journal::log::sqlite::LogOptions;
use leasehold_sim::clock::SimClock;
use leasehold_sim::disk::{Crash, Disk, Faults};
use leasehold_sim::vfs::Mount;
use leasehold_upstreams::documents::{Documents, OpenError, Options};

/// What is there before anything fails, and what is written when it does.
const BEFORE: [(&str, usize); 3] = [("/a", 100), ("/b", 9_000), ("/c", 30_000)];
const UNKNOWN: (&str, usize) = ("/d", 20_000);

fn body(length: usize) -> String {
    (0..length).map(|at| char::from(b'a' + (at % 26) as u8)).collect()
}

/// An engine that has nothing to do: nobody locks anything, and its disk never fails.
struct Lockless {
    stepped: Stepped,
    _mount: Mount,
    _folder: tempfile::TempDir,
}

impl Lockless {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mount = Mount::new(folder.path(), Arc::new(Disk::new(1))).unwrap();
        let options = EngineOptions {
            limits: TableLimits { max_locks: 10, max_waiters: 10, ..Default::default() },
            retention: Retention { max_age_ms: None, max_bytes: None },
            token_key: None,
            log: LogOptions::default(),
            recovery_ms: None,
            draws: Some(Draws { seed: [1; 8], incarnation: [2; 8] }),
        };
        let data = DataFolder::open(folder.path()).unwrap();
        let stepped = Loading::open(data, options)
            .unwrap()
            .start_stepped(
                Arc::new(SimClock::new()),
                Arc::new(()),
                Arc::new(|_: &_| unreachable!("nothing was locked")),
            )
            .unwrap();
        Self { stepped, _mount: mount, _folder: folder }
    }

    fn serve(&self, documents: Documents) -> Server {
        let rules = Arc::new(ArcSwap::from_pointee(Rules::default()));
        let engine = self.stepped.engine().clone();
        let guard = Guard::new(engine, Arc::new(documents), rules, "/lock");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        Server { runtime, guard }
    }
}

/// What serves documents. With the runtime, which goes first, the tasks end that ask how a write
/// ended; then the documents' own thread does.
struct Server {
    runtime: tokio::runtime::Runtime,
    guard: Guard<Documents>,
}

impl Server {
    fn ask(&self, method: Method, path: &str, bytes: Option<String>) -> Seen {
        self.runtime.block_on(ask(&self.guard, method, path, bytes))
    }

    fn put(&self, (path, length): (&str, usize)) -> u16 {
        self.ask(Method::PUT, path, Some(body(length))).status
    }

    fn get(&self, path: &str) -> Seen {
        self.ask(Method::GET, path, None)
    }
}

fn open(folder: &Path) -> Result<Documents, OpenError> {
    let clock = Arc::new(|| WallTime(1_795_176_000_000));
    Documents::open(folder, "0a0b0c0d", Options::new(clock, Arc::new(uuid::Uuid::nil)))
}

/// What a request is answered with: the status, and the body where it is a success.
async fn ask(guard: &Guard<Documents>, method: Method, path: &str, bytes: Option<String>) -> Seen {
    let role = Role { permissions: Permissions::ALL, patterns: Vec::new() };
    let principal = Principal::new("alice");
    let caller = Caller { principal, anonymous: false, roles: Arc::from([role]) };
    let call = Call {
        caller,
        request_id: "request".into(),
        remote_addr: None,
        asked: None,
        memory: None,
        credentials: None,
    };
    let request = Request::builder().method(method).uri(path).header("content-type", "text/plain");
    let request = request.body(bytes.map_or_else(empty, full)).unwrap();
    match guard.handle(request, Resource::parse(path).unwrap(), &call).await {
        Ok(response) => {
            let status = response.status().as_u16();
            let bytes = response.into_body().collect().await.unwrap().to_bytes();
            Seen { status, body: String::from_utf8(bytes.to_vec()).unwrap() }
        }
        Err(problem) => Seen { status: problem.name.entry().status.as_u16(), body: String::new() },
    }
}

#[derive(Debug, Eq, PartialEq)]
struct Seen {
    status: u16,
    body: String,
}

#[test]
fn a_start_after_a_failed_write_and_a_kill_survives_the_power_at_every_operation() {
    let lockless = Lockless::new();
    let mut tried = 0;
    for number in 0.. {
        for second in 0.. {
            let folder = tempfile::tempdir().unwrap();
            let disk = Arc::new(Disk::new(number * 1000 + second));
            let mount = Mount::new(folder.path(), disk.clone()).unwrap();
            let server = lockless.serve(open(folder.path()).unwrap());
            for document in BEFORE {
                assert_eq!(server.put(document), 201);
            }
            drop(server);
            let server = lockless.serve(open(folder.path()).unwrap());
            // Killed before it can open the file again.
            let (fails, dies) = (Some(number), Some(number + 1));
            disk.set_faults(Faults { fail_after: fails, die_after: dies, ..Faults::default() });
            let told = server.put(UNKNOWN);
            if disk.failures() == 0 {
                assert_eq!(told, 201);
                assert!(tried > 20, "only {tried} starts were tried");
                return;
            }
            // Whatever it still does to the disk, it dies in.
            drop(server);
            mount.crash(Crash::Kill).unwrap();
            disk.set_faults(Faults { die_after: Some(second), ..Faults::default() });
            let started = open(folder.path());
            let died = disk.is_dead();
            let what = format!("operations {number} and {second}: {:?}", started.as_ref().err());
            mount.crash(Crash::PowerLoss).unwrap();
            drop(started);
            let documents = open(folder.path()).unwrap_or_else(|error| panic!("{what}: {error}"));
            let server = lockless.serve(documents);
            for (path, length) in BEFORE {
                let expected = Seen { status: 200, body: body(length) };
                assert!(server.get(path) == expected, "{what}: {path}");
            }
            let found = server.get(UNKNOWN.0);
            let whole = Seen { status: 200, body: body(UNKNOWN.1) };
            assert!(found.status == 404 || found == whole, "{what}: {}", found.status);
            assert!(matches!(server.put(UNKNOWN), 201 | 204), "{what}");
            tried += 1;
            if !died {
                break;
            }
        }
    }
}
