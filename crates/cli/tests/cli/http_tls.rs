//! TLS of the listener: who gets in, by which protocol, and certificates that change.
#![expect(clippy::unwrap_used, reason = "the helpers of a test may panic like the test")]

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tempfile::TempDir;

use crate::certificates::{Authority, Issued};
use crate::common::upstream::{Upstream, answer};
use crate::common::{BOUND, Server, Setup, json, leasehold, until};

const NAMES: [&str; 1] = ["127.0.0.1"];

/// A server with a certificate, and who has signed it.
struct Bench {
    server: Server,
    authority: Authority,
    folder: TempDir,
}

impl Bench {
    fn start(setup: impl FnOnce(Setup, &Path) -> Setup) -> Self {
        let (authority, folder) = (Authority::new("ours"), tempfile::tempdir().unwrap());
        place(folder.path(), &authority.issue(&NAMES));
        fs::write(folder.path().join("ca.pem"), authority.pem()).unwrap();
        let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let args = ["--tls-cert", &file("cert.pem"), "--tls-key", &file("key.pem")];
        let plain = args.iter().fold(Setup::default(), |setup, arg| setup.arg(arg));
        let server = setup(plain, folder.path()).start();
        Self { server, authority, folder }
    }

    fn tcp(&self) -> TcpStream {
        let tcp = TcpStream::connect(self.server.address()).unwrap();
        tcp.set_read_timeout(Some(BOUND)).unwrap();
        tcp
    }

    /// A connection that offers these protocols, and this certificate.
    fn connect(
        &self,
        protocols: &[&str],
        own: Option<&Issued>,
    ) -> StreamOwned<ClientConnection, TcpStream> {
        let mut roots = RootCertStore::empty();
        let authority = CertificateDer::from_pem_slice(self.authority.pem().as_bytes()).unwrap();
        roots.add(authority).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match own {
            None => builder.with_no_client_auth(),
            Some(own) => {
                let chain = CertificateDer::from_pem_slice(own.certificate.as_bytes()).unwrap();
                let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).unwrap();
                builder.with_client_auth_cert(vec![chain], key).unwrap()
            }
        };
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        let name = ServerName::try_from(NAMES[0]).unwrap();
        let connection = ClientConnection::new(Arc::new(config), name).unwrap();
        StreamOwned::new(connection, self.tcp())
    }

    /// The answer to one request of HTTP/1.1, or why there is none.
    fn get(&self, own: Option<&Issued>) -> std::io::Result<String> {
        self.ask(own, "GET /-/health/live", "")
    }

    /// The same to this line and fields.
    fn ask(&self, own: Option<&Issued>, line: &str, fields: &str) -> std::io::Result<String> {
        let mut stream = self.connect(&["http/1.1"], own);
        let request = format!("{line} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{fields}\r\n");
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    /// The certificate that the server shows.
    fn shown(&self) -> CertificateDer<'static> {
        let mut stream = self.connect(&["http/1.1"], None);
        stream.conn.complete_io(&mut stream.sock).unwrap();
        stream.conn.peer_certificates().unwrap()[0].clone().into_owned()
    }

    fn says(&self, words: &str) {
        until(words, || self.server.log().contains(words).then_some(()));
    }
}

fn place(folder: &Path, issued: &Issued) {
    use std::os::unix::fs::PermissionsExt as _;

    fs::write(folder.join("cert.pem"), &issued.certificate).unwrap();
    fs::write(folder.join("key.pem"), &issued.key).unwrap();
    fs::set_permissions(folder.join("key.pem"), fs::Permissions::from_mode(0o600)).unwrap();
}

fn der(issued: &Issued) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(issued.certificate.as_bytes()).unwrap()
}

#[test]
fn requests_are_answered_over_tls_and_over_nothing_else() {
    let bench = Bench::start(|setup, _| setup);
    let answer = bench.get(None).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    let mut plain = bench.tcp();
    plain.write_all(b"GET /-/health/live HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    plain.read_to_end(&mut answer).unwrap();
    // A fatal alert of TLS, and nothing in the clear.
    assert_eq!(answer.first(), Some(&21), "{answer:?}");
    assert!(!bench.server.log().contains("others than its owner"), "{}", bench.server.log());
}

#[test]
fn the_protocol_is_agreed_upon_in_the_handshake() {
    let bench = Bench::start(|setup, _| setup);
    for (offered, agreed) in
        [(&["h2", "http/1.1"][..], Some("h2")), (&["http/1.1"], Some("http/1.1")), (&[], None)]
    {
        let mut stream = bench.connect(offered, None);
        stream.conn.complete_io(&mut stream.sock).unwrap();
        assert_eq!(stream.conn.alpn_protocol(), agreed.map(str::as_bytes), "{offered:?}");
    }
    let mut stream = bench.connect(&["h2"], None);
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
    let mut settings = [0; 9];
    stream.read_exact(&mut settings).unwrap();
    assert_eq!(settings[3], 4, "the server's SETTINGS come first: {settings:?}");
}

#[test]
fn the_commands_use_it() {
    let bench = Bench::start(|setup, _| setup);
    let ca = bench.folder.path().join("ca.pem");
    let url = format!("https://{}", bench.server.address());
    let args = ["lock", "/a", "--json", "--server", &url, "--ca-cert", ca.to_str().unwrap()];
    let out = leasehold(&args).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let lock: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(lock["resources"], json!(["/a"]));
}

#[test]
fn with_an_authority_for_clients_only_those_that_it_has_signed_get_in() {
    let (clients, strangers) = (Authority::new("clients"), Authority::new("strangers"));
    let bench = Bench::start(|setup, folder| {
        let ca = folder.join("clients.pem");
        fs::write(&ca, clients.pem()).unwrap();
        setup.arg("--tls-client-ca").arg(ca.to_str().unwrap())
    });
    let answer = bench.get(Some(&clients.issue(&["alice"]))).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    let refused = bench.get(None).unwrap_err().to_string();
    assert!(refused.contains("CertificateRequired"), "{refused}");
    let refused = bench.get(Some(&strangers.issue(&["alice"]))).unwrap_err().to_string();
    assert!(refused.contains("received fatal alert"), "{refused}");
}

#[test]
fn a_new_certificate_is_taken_at_sighup_and_a_broken_one_is_not() {
    let bench = Bench::start(|setup, _| setup);
    let first = bench.shown();
    let mut open = bench.connect(&["http/1.1"], None);
    open.conn.complete_io(&mut open.sock).unwrap();
    let second = bench.authority.issue(&NAMES);
    place(bench.folder.path(), &second);
    bench.server.signal("HUP");
    until("the new certificate", || (bench.shown() == der(&second)).then_some(()));
    assert_ne!(der(&second), first);
    // Who is connected stays so.
    open.write_all(b"GET /-/health/live HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    open.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    // A certificate without its key.
    let third = bench.authority.issue(&NAMES);
    fs::write(bench.folder.path().join("cert.pem"), &third.certificate).unwrap();
    bench.server.signal("HUP");
    bench.says("it is not the key of the certificate");
    assert_eq!(bench.shown(), der(&second));
}

#[test]
fn a_handshake_has_the_time_of_a_head_and_a_place_among_the_connections() {
    let bench = Bench::start(|setup, _| {
        setup.config("[limits]\nmax_connections = 1\nheader_timeout = \"1500ms\"\n")
    });
    let began = Instant::now();
    let mut silent = bench.tcp();
    // There is no place for another one while it says nothing.
    until("the place to be taken", || bench.get(None).is_err().then_some(()));
    assert_eq!(silent.read(&mut [0]).unwrap(), 0);
    let took = began.elapsed();
    assert!(Duration::from_millis(1400) < took, "{took:?}");
    until("the place", || bench.get(None).ok());
}

#[test]
fn a_server_that_cannot_use_its_certificate_does_not_start() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let issued = Authority::new("ours").issue(&NAMES);
    place(folder.path(), &issued);
    fs::write(folder.path().join("key.pem"), "hunter2").unwrap();
    let data = file("data");
    let serve = ["serve", "--listen", "127.0.0.1:0", "--data", &data];
    let with = |args: &[&str]| {
        let out = leasehold(&[&serve, args].concat()).output().unwrap();
        assert!(!out.status.success());
        String::from_utf8(out.stderr).unwrap()
    };
    let told = with(&["--tls-cert", &file("cert.pem"), "--tls-key", &file("key.pem")]);
    assert!(told.contains("`tls_key`") && told.contains("BEGIN PRIVATE KEY"), "{told}");
    assert!(!told.contains("hunter2"), "{told}");
    let told = with(&["--tls-cert", &file("cert.pem")]);
    assert!(told.contains("--tls-cert (or LEASEHOLD_TLS_CERT)"), "{told}");
    assert!(told.contains("`tls_cert` is set without `tls_key`"), "{told}");
    assert!(!Path::new(&data).exists(), "nothing was begun");
}

#[test]
fn a_key_that_others_can_read_is_warned_of() {
    use std::os::unix::fs::PermissionsExt as _;

    let bench = Bench::start(|setup, folder| {
        fs::set_permissions(folder.join("key.pem"), fs::Permissions::from_mode(0o644)).unwrap();
        setup
    });
    bench.says("others than its owner may read or change `tls_key`");
}

#[test]
fn a_certificate_can_say_who_the_caller_is() {
    let clients = Authority::new("clients");
    let bench = Bench::start(|setup, folder| {
        let ca = folder.join("clients.pem");
        fs::write(&ca, clients.pem()).unwrap();
        setup.arg("--tls-client-ca").arg(ca.to_str().unwrap()).config(
            "[identity]\nmode = \"certificate\"\ncertificate_name = \"dns\"\n\
             default_role = \"writer\"\n",
        )
    });
    let own = |name: &str| clients.issue(&[name]);
    let (alice, bob) = (own("alice"), own("bob"));
    let body = |answer: String| -> serde_json::Value {
        serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
    };
    let held = body(bench.ask(Some(&alice), "POST /a/lock", "").unwrap());
    assert_eq!(held["holder"], "alice");
    let token = format!("X-Lock-Token: {}\r\n", held["lock_token"].as_str().unwrap());
    let stolen = body(bench.ask(Some(&bob), "DELETE /a/lock", &token).unwrap());
    assert_eq!(stolen["type"], "/-/problems/not-the-holder");
    // A certificate of the same name is the same caller, on any connection.
    let released = bench.ask(Some(&own("alice")), "DELETE /a/lock", &token).unwrap();
    assert!(released.starts_with("HTTP/1.1 204 "), "{released}");
    // One with two such names is nobody's, and a page of another site uses the browser's in vain.
    let both = bench.ask(Some(&clients.issue(&["alice", "bob"])), "GET /a/lock", "").unwrap();
    assert!(both.starts_with("HTTP/1.1 401 "), "{both}");
    assert!(both.contains("www-authenticate: Certificate realm=\"leasehold\"\r\n"), "{both}");
    let forged = bench.ask(Some(&alice), "POST /a/lock", "Origin: https://evil.example\r\n");
    assert_eq!(body(forged.unwrap())["type"], "/-/problems/forbidden");
}

#[test]
fn who_has_connected_with_a_certificate_shows_the_upstream_what_it_likes() {
    let (clients, upstream) = (Authority::new("clients"), Upstream::start());
    let bench = Bench::start(|setup, folder| {
        let ca = folder.join("clients.pem");
        fs::write(&ca, clients.pem()).unwrap();
        let config = "[identity]\nmode = \"certificate\"\ncertificate_name = \"dns\"\n\
             default_role = \"writer\"\n";
        let setup = setup.arg("--tls-client-ca").arg(ca.to_str().unwrap()).config(config);
        setup.arg("--upstream").arg(&upstream.url())
    });
    let (tell, told) = std::sync::mpsc::channel();
    upstream.answering(move |got| {
        tell.send((got.line.clone(), got.fields.clone())).unwrap();
        answer("200 OK", "")
    });
    let fields = "Authorization: Basic dGhlaXJz\r\nCookie: a=b\r\nContent-Length: 0\r\n";
    for line in ["GET /a", "PUT /a"] {
        let passed = bench.ask(Some(&clients.issue(&["alice"])), line, fields).unwrap();
        assert!(passed.starts_with("HTTP/1.1 200 OK\r\n"), "{passed}");
        let (got, kept) = told.recv_timeout(BOUND).unwrap();
        assert_eq!(got, format!("{line} HTTP/1.1"));
        for (name, value) in [("authorization", "Basic dGhlaXJz"), ("cookie", "a=b")] {
            assert!(kept.contains(&(name.to_owned(), value.to_owned())), "{kept:?}");
        }
    }
}
