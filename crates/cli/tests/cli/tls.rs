//! `https://` on the command line: against the program, with a front before it that ends TLS.
#![expect(clippy::unwrap_used, reason = "the helpers of a test may panic like the test")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::certificates::{Accept, Authority, Front, Setup};
use crate::common::{Server, json, leasehold, until};

/// A server, a front before it, and files.
struct Bench {
    server: Server,
    authority: Authority,
    front: Front,
    folder: TempDir,
}

impl Bench {
    fn new(setup: impl FnOnce(&Authority) -> Setup) -> Self {
        let server = Server::start();
        let authority = Authority::new("ours");
        let front = setup(&authority).before(server.address());
        let folder = tempfile::tempdir().unwrap();
        let bench = Self { server, authority, front, folder };
        bench.file("ca.pem", &bench.authority.pem(), 0o644);
        bench
    }

    fn start() -> Self {
        Self::new(|authority| Setup::new(authority.issue(&["127.0.0.1"])))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn file(&self, name: &str, text: &str, mode: u32) -> String {
        write(&self.path(name), text, mode)
    }

    /// The program, told of the front alone.
    fn program(&self, args: &[&str]) -> Command {
        let mut command = leasehold(args);
        command.env("XDG_CONFIG_HOME", "/nonexistent").env("LEASEHOLD_SERVER", self.front.url());
        command.current_dir(&self.folder);
        command
    }
}

fn write(path: &Path, text: &str, mode: u32) -> String {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Its code, and what it wrote on both streams.
fn end(command: &mut Command) -> (i32, String, String) {
    let out = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (out.status.code().unwrap(), text(out.stdout), text(out.stderr))
}

#[track_caller]
fn ok(command: &mut Command) -> String {
    let (code, out, err) = end(command);
    assert_eq!(code, 0, "{err}");
    out
}

#[track_caller]
fn refused(command: &mut Command, code: i32, says: &str) {
    let (ended, out, err) = end(command);
    assert_eq!((ended, &*out), (code, ""), "{err}");
    assert!(err.contains(says), "{err}");
    assert_eq!(err.lines().count(), 1, "{err}");
}

#[test]
fn the_authority_comes_from_the_system_a_flag_the_environment_or_the_file() {
    let bench = Bench::start();
    let ca = bench.path("ca.pem");
    ok(&mut bench.program(&["put", "/a", "-d", "1", "--ca-cert", "ca.pem"]));
    assert_eq!(ok(bench.program(&["get", "/a"]).env("LEASEHOLD_CA_CERT", &ca)), "1");
    ok(bench.program(&["ls"]).env("SSL_CERT_FILE", &ca));

    fs::create_dir(bench.path("settings")).unwrap();
    let text = format!("[server.here]\nurl = \"{}\"\nca_cert = \"../ca.pem\"\n", bench.front.url());
    let file = bench.file("settings/config.toml", &text, 0o644);
    let configured = |args: &[&str]| {
        let mut command = bench.program(args);
        command.env("LEASEHOLD_CLIENT_CONFIG", &file);
        command
    };
    ok(&mut configured(&["ls", "--server", "here"]));
    ok(configured(&["ls"]).env("LEASEHOLD_CA_CERT", ""));

    // What comes first counts, and alone: neither the file nor the system are asked then.
    let other = bench.file("other.pem", &Authority::new("another").pem(), 0o644);
    let says = "signed by nobody who is trusted here; --ca-cert FILE names the authority to trust";
    refused(configured(&["ls"]).env("LEASEHOLD_CA_CERT", &other), 4, says);
    refused(
        bench.program(&["ls", "--ca-cert", "other.pem"]).env("LEASEHOLD_CA_CERT", &ca),
        4,
        says,
    );
    refused(
        bench.program(&["ls"]).env("LEASEHOLD_CA_CERT", &other).env("SSL_CERT_FILE", &ca),
        4,
        says,
    );
}

#[test]
fn what_is_wrong_is_told_with_what_to_do() {
    for (names, from, to, says) in [
        ("127.0.0.1", 2000, 2020, "expired on 2020-01-01T00:00:00Z; the server needs another"),
        ("127.0.0.1", 3000, 4000, "not valid before 3000-01-01T00:00:00Z; the server needs"),
        ("a.example", 2000, 4000, "is for a.example, not for 127.0.0.1; --server names the server"),
    ] {
        let bench =
            Bench::new(|authority| Setup::new(authority.issue_for_years(&[names], from, to)));
        refused(&mut bench.program(&["put", "/a", "-d", "1", "--ca-cert", "ca.pem"]), 4, says);
    }

    let bench = Bench::start();
    let http = format!("http://{}", bench.front.address());
    let use_https = format!("use --server {}", bench.front.url());
    refused(&mut bench.program(&["put", "/a", "-d", "1", "--server", &http]), 4, &use_https);
    let https = format!("https://{}", bench.server.address());
    let args = ["put", "/a", "-d", "1", "--ca-cert", "ca.pem", "--server", &https];
    let is_it_http =
        format!("the server does not speak TLS there; is it http://{}?", bench.server.address());
    refused(&mut bench.program(&args), 4, &is_it_http);

    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let nobody = format!("https://{free}");
    let args = ["ls", "--ca-cert", "ca.pem", "--server", &nobody];
    refused(&mut bench.program(&args), 4, &format!("is the server running at {nobody}?"));
    assert_eq!(bench.server.get("/a").status, 404, "nothing of this was written");
}

#[test]
fn a_client_certificate_is_shown_and_its_key_kept_from_others() {
    let clients = Authority::new("clients");
    let bench =
        Bench::new(|authority| Setup::new(authority.issue(&["127.0.0.1"])).clients_of(&clients));
    let own = clients.issue(&["alice"]);
    bench.file("own.pem", &own.certificate, 0o644);
    bench.file("own.key", &own.key, 0o600);
    bench.file("both.pem", &own.pem(), 0o600);
    bench.file("open.key", &own.key, 0o640);
    let program = |args: &[&str]| bench.program(&[args, &["--ca-cert", "ca.pem"]].concat());

    ok(&mut program(&["ls", "--client-cert", "own.pem", "--client-key", "own.key"]));
    ok(&mut program(&["ls", "--client-cert", "both.pem"]));
    let mut command = program(&["ls"]);
    ok(command.env("LEASEHOLD_CLIENT_CERT", "own.pem").env("LEASEHOLD_CLIENT_KEY", "own.key"));
    let url = bench.front.url();
    let text = format!(
        "[server.here]\nurl = \"{url}\"\nca_cert = \"ca.pem\"\nclient_cert = \"own.pem\"\n\
         client_key = \"own.key\"\n"
    );
    let file = bench.file("config.toml", &text, 0o644);
    ok(&mut bench.program(&["ls", "--config", &file]));

    refused(&mut program(&["ls"]), 4, "--client-cert and --client-key name the one to show");
    for (args, says) in [
        (&["--client-cert", "own.pem", "--client-key", "open.key"][..], "`chmod 600 open.key`"),
        (&["--client-cert", "own.pem"], "--client-cert: cannot use own.pem: others than its owner"),
        (&["--client-cert", "gone.pem", "--client-key", "own.key"], "cannot use gone.pem: No such"),
        (&["--client-cert", "own.key", "--client-key", "own.key"], "own.key: it is not in PEM"),
        (&["--client-cert", "own.pem", "--client-key", "key.toml"], "key.toml: it is not in PEM"),
        (&["--client-cert", "ca.pem", "--client-key", "own.key"], "certificate and its key: "),
    ] {
        bench.file("key.toml", "hunter2", 0o600);
        let mut command = program(&[&["ls"], args].concat());
        refused(&mut command, 2, says);
    }
    refused(program(&["ls"]).env("LEASEHOLD_CLIENT_KEY", "own.key"), 2, "LEASEHOLD_CLIENT_KEY: ");
    let (code, _, err) = end(&mut program(&["ls", "--client-key", "own.key"]));
    assert_eq!(code, 2);
    assert!(err.contains("--client-cert <FILE>"), "{err}");

    // What `run` starts has it as well, from whatever folder.
    let this = env!("CARGO_BIN_EXE_leasehold");
    let script = format!("cd / && exec {this} put /a -d 1");
    let mut args = vec!["run", "/a", "--client-cert", "own.pem", "--client-key", "own.key"];
    args.extend(["--ca-cert", "ca.pem", "--", "sh", "-c", &script]);
    ok(&mut bench.program(&args));
    assert_eq!(bench.server.get("/a").json(), json!(1));
}

#[test]
fn run_keeps_its_lock_and_its_command_writes_over_tls() {
    let bench = Bench::start();
    let this = env!("CARGO_BIN_EXE_leasehold");
    // In another folder, and told of nothing but what `run` tells it.
    let script = format!(
        "cd / && {this} put /jobs/a -d 1 >/dev/null && {this} get /jobs/a && echo $LEASEHOLD_SERVER && \
         touch {go} && while test ! -e {stop}; do sleep 0.02; done",
        go = bench.path("go").display(),
        stop = bench.path("stop").display(),
    );
    let args = ["run", "/jobs/a", "--ttl", "2", "--ca-cert", "ca.pem", "--", "sh", "-c", &script];
    let child = bench.program(&args).stdout(std::process::Stdio::piped()).spawn().unwrap();
    until("the command", || bench.path("go").exists().then_some(()));
    until("two renewals", || {
        let shown = bench.server.get("/jobs/a/lock").json();
        (shown["locks"][0]["renewals"].as_u64()? >= 2).then_some(())
    });
    fs::write(bench.path("stop"), "").unwrap();
    let out = child.wait_with_output().unwrap();
    assert!(out.status.success());
    assert_eq!(String::from_utf8(out.stdout).unwrap(), format!("1{}\n", bench.front.url()));
    assert_eq!(bench.server.get("/jobs/a/lock").json()["locked"], false, "it is released");
}

#[test]
fn a_command_whose_server_hangs_in_handshakes_is_stopped_before_its_lock_ends() {
    let server = Server::start();
    let authority = Authority::new("ours");
    // The renewals come over new connections, for those that are kept are cut.
    let first = [Accept::ServeUntil(Duration::from_secs(1))];
    let front = Setup::new(authority.issue(&["127.0.0.1"]))
        .accepting(server.address(), first.into_iter().chain([Accept::Hang; 50]));
    let folder = tempfile::tempdir().unwrap();
    let ca = write(&folder.path().join("ca.pem"), &authority.pem(), 0o644);
    let mut command = leasehold(&["run", "/a", "--ttl", "3", "--grace", "0", "--ca-cert", &ca]);
    let pid = folder.path().join("pid");
    let script = format!("echo $$ >{}; exec sleep 60", pid.display());
    command.args(["--server", &front.url(), "--", "sh", "-c", &script]);
    command.env("XDG_CONFIG_HOME", "/nonexistent");
    let mut child = command.spawn().unwrap();
    let is_locked = || server.get("/a/lock").json()["locked"] == true;
    until("the lock", || is_locked().then_some(()));
    let pid = until("the command", || {
        let text = fs::read_to_string(&pid).ok()?;
        text.ends_with('\n').then(|| text.trim_end().to_owned())
    });
    // Of one that has ended and that nobody has asked about there is a line no more.
    let runs = || fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty());
    let status = until("the end", || {
        assert!(is_locked() || !runs(), "the command outlived the lock");
        child.try_wait().unwrap()
    });
    assert_eq!(status.code(), Some(69));
    assert!(1 < front.connections());
}
