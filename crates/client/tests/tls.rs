//! `https://`, with real handshakes.
#![cfg(feature = "tls")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a helper of a test panics like the test")]

mod common;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use common::tls::{Accept, Authority, Front, Issued, Setup};
use common::{Scripted, Step, document, granted, renewed, written};
use leasehold_client::{Client, ClientBuilder, Error, RetryPolicy, TlsFailure};
use rustls::SupportedProtocolVersion;
use rustls::version::{TLS12, TLS13};
use serde_json::json;

/// The names of the test's server.
const HERE: &[&str] = &["127.0.0.1", "localhost"];

/// Each version alone: they tell a client at different moments what became of its certificate.
const VERSIONS: [&[&SupportedProtocolVersion]; 2] = [&[&TLS12], &[&TLS13]];

const INTERNAL_ERROR: u8 = 80;
const PROTOCOL_VERSION: u8 = 70;
const NO_APPLICATION_PROTOCOL: u8 = 120;

/// Where the server behind the front listens.
fn behind(server: &Scripted) -> SocketAddr {
    server.url().strip_prefix("http://").unwrap().parse().unwrap()
}

fn builder(url: &str, authority: &Authority) -> ClientBuilder {
    Client::builder(url)
        .add_root_certificates(authority.pem())
        .without_system_roots()
        .timeout(Duration::from_secs(5))
        .retry(common::quick())
}

/// The failure, which has to be one after which nothing was done and nothing was repeated.
#[track_caller]
fn failed(error: &Error, front: Option<&Front>, server: Option<&Scripted>) -> TlsFailure {
    assert!(error.has_no_side_effects() && error.is_connect(), "{error:?}");
    assert!(!error.is_retryable(), "{error:?}");
    if let Some(front) = front {
        assert_eq!(front.connections(), 1, "{error}");
    }
    if let Some(server) = server {
        assert_eq!(server.lines(), [""; 0], "{error}");
    }
    match error {
        Error::Tls { failure, .. } => *failure,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_server_with_a_certificate_of_a_trusted_authority_is_spoken_to() {
    for versions in VERSIONS {
        let authority = Authority::new("ours");
        let server = Scripted::new([
            Step::Answer(granted(60_000)),
            Step::Answer(renewed(60_000)),
            Step::Answer(document("\"1\"", &json!({ "long": "x".repeat(200_000) }))),
            Step::Answer(written("\"2\"")),
        ]);
        let front = Setup::new(authority.issue(HERE)).versions(versions).before(behind(&server));
        let url = format!("https://localhost:{}", front.address().port());
        let client = builder(&url, &authority).build().unwrap();
        assert_eq!(client.url(), url);
        let mut lease = client.lock("/a").acquire().await.unwrap();
        lease.renew(None).await.unwrap();
        let mut found = client.get::<serde_json::Value>("/a").await.unwrap().value;
        assert_eq!(found["long"].as_str().unwrap().len(), 200_000);
        found["long"] = "y".repeat(100_000).into();
        client.put("/a", &found).await.unwrap();
        assert_eq!(front.connections(), 1, "the connection is kept");
        let asked = server.asked();
        assert_eq!(asked.last().unwrap().json(), found);
        assert_eq!(asked[0].field("host"), Some(&url["https://".len()..]));
    }
}

#[tokio::test]
async fn a_certificate_that_cannot_be_trusted_ends_it_at_once_and_says_why() {
    let (authority, stranger) = (Authority::new("ours"), Authority::new("another"));
    let namesake = Authority::new("ours");
    let cases: [(Issued, TlsFailure, &str); 7] = [
        (namesake.issue(HERE), TlsFailure::UnknownIssuer, "signed by a namesake of an authority"),
        (stranger.issue(HERE), TlsFailure::UnknownIssuer, "signed by nobody who is trusted here"),
        (
            authority.issue_for_years(HERE, 2000, 2020),
            TlsFailure::Expired,
            "expired on 2020-01-01T00:00:00Z",
        ),
        (
            authority.issue_for_years(HERE, 3000, 4000),
            TlsFailure::NotValidYet,
            "not valid before 3000-01-01T00:00:00Z",
        ),
        (
            authority.issue(&["a.example", "10.0.0.1"]),
            TlsFailure::WrongName,
            "is for a.example, 10.0.0.1, not for 127.0.0.1",
        ),
        (authority.issue(&[]), TlsFailure::WrongName, "names no host, and so not 127.0.0.1"),
        (authority.itself(), TlsFailure::Certificate, "is one of an authority (CA:TRUE)"),
    ];
    for (own, expected, says) in cases {
        let server = Scripted::new([]);
        let front = Setup::new(own).before(behind(&server));
        let client = builder(&front.url(), &authority).build().unwrap();
        let error = client.put("/a", &1).await.unwrap_err();
        assert_eq!(failed(&error, Some(&front), Some(&server)), expected, "{error}");
        let text = error.to_string();
        assert!(text.contains(says) && text.contains(&front.address().to_string()), "{text}");
    }
}

#[tokio::test]
async fn a_write_whose_handshake_broke_off_is_sent_again_and_only_once() {
    let authority = Authority::new("ours");
    let server = Scripted::new([Step::Answer(written("\"1\""))]);
    let front = Setup::new(authority.issue(HERE))
        .accepting(behind(&server), [Accept::Close, Accept::Hang, Accept::Alert(INTERNAL_ERROR)]);
    let client = builder(&front.url(), &authority);
    let client = client.connect_timeout(Duration::from_millis(300)).build().unwrap();
    client.put("/a", &1).await.unwrap();
    assert_eq!((front.connections(), server.lines()), (4, vec!["PUT /a".to_owned()]));
}

#[tokio::test]
async fn half_a_handshake_is_told_as_no_connection_and_nothing_done() {
    let authority = Authority::new("ours");
    let server = Scripted::new([]);
    let error = async |accept, builder: fn(ClientBuilder) -> ClientBuilder| {
        let front = Setup::new(authority.issue(HERE)).accepting(behind(&server), [accept]);
        let client = builder(self::builder(&front.url(), &authority).retry(RetryPolicy::none()));
        let began = Instant::now();
        let error = client.build().unwrap().put("/a", &1).await.unwrap_err();
        assert!(began.elapsed() < Duration::from_secs(3));
        assert!(error.has_no_side_effects() && error.is_retryable(), "{error:?}");
        assert_eq!(server.lines(), [""; 0]);
        error
    };
    let closed = error(Accept::Close, |builder| builder).await;
    assert!(closed.is_connect());
    assert!(format!("{closed:?}").contains("closed the connection during the TLS handshake"));
    let bound = |builder: ClientBuilder| builder.connect_timeout(Duration::from_millis(200));
    let hung = error(Accept::Hang, bound).await;
    assert!(hung.is_connect());
    assert!(format!("{hung:?}").contains("no connection within 0.2 s"), "{hung:?}");
    // The request's own time is over first.
    let bound = |builder: ClientBuilder| builder.timeout(Duration::from_millis(200));
    assert!(error(Accept::Hang, bound).await.is_timeout());
}

#[tokio::test]
async fn the_time_of_a_lock_is_counted_from_before_the_handshake() {
    let authority = Authority::new("ours");
    let server = Scripted::new([Step::Answer(granted(60_000))]);
    let late = Accept::Late(Duration::from_millis(500));
    let front = Setup::new(authority.issue(HERE)).accepting(behind(&server), [late]);
    let client = builder(&front.url(), &authority).build().unwrap();
    let lease = client.lock("/a").acquire().await.unwrap();
    assert!(lease.remaining() <= Duration::from_millis(59_500), "{:?}", lease.remaining());
}

#[tokio::test]
async fn a_held_lock_outlives_handshakes_that_fail() {
    let authority = Authority::new("ours");
    let server =
        Scripted::then([Step::Answer(granted(3_000)), Step::Close], Step::Answer(renewed(3_000)));
    // The second connection is that of the first repetition, after the answer that never came.
    let front = Setup::new(authority.issue(HERE))
        .accepting(behind(&server), [Accept::Serve, Accept::Close, Accept::Close]);
    let client = builder(&front.url(), &authority).build().unwrap();
    let held = client.lock("/a").ttl(Duration::from_secs(3)).hold().await.unwrap();
    server.until_asked(3).await;
    held.check().unwrap();
    assert_eq!(front.connections(), 4);
}

#[tokio::test]
async fn a_server_that_asks_for_a_certificate_is_shown_the_clients() {
    for versions in VERSIONS {
        let (authority, clients) = (Authority::new("servers"), Authority::new("clients"));
        let front = |server: &Scripted| {
            let setup = Setup::new(authority.issue(HERE)).clients_of(&clients);
            setup.versions(versions).before(behind(server))
        };
        let server = Scripted::new([Step::Answer(written("\"1\""))]);
        let own = clients.issue(&["alice"]).pem();
        let client = builder(&front(&server).url(), &authority).identity(own).build().unwrap();
        client.put("/a", &1).await.unwrap();

        for (identity, says) in [
            (None, "client certificate"),
            (Some(authority.issue(&["mallory"])), "signed by nobody whom the server trusts"),
            (Some(Authority::new("clients").issue(&["mallory"])), "refused the client certificate"),
            (Some(clients.issue_for_years(&["alice"], 2000, 2020)), "certificate has expired"),
        ] {
            let server = Scripted::new([]);
            let front = front(&server);
            let mut client = builder(&front.url(), &authority);
            if let Some(identity) = identity {
                client = client.identity(identity.pem());
            }
            let error = client.build().unwrap().put("/a", &1).await.unwrap_err();
            let failure = failed(&error, Some(&front), Some(&server));
            assert_eq!(failure, TlsFailure::ClientCertificate, "{error}");
            assert!(error.to_string().contains(says), "{error}");
        }
    }
}

#[tokio::test]
async fn a_server_that_has_nothing_in_common_with_the_client_is_not_asked_again() {
    for (alert, says) in [
        (PROTOCOL_VERSION, "speaks neither TLS 1.3 nor 1.2"),
        (NO_APPLICATION_PROTOCOL, "ended the TLS handshake: NoApplicationProtocol"),
    ] {
        let authority = Authority::new("ours");
        let server = Scripted::new([]);
        let front =
            Setup::new(authority.issue(HERE)).accepting(behind(&server), [Accept::Alert(alert)]);
        let error = builder(&front.url(), &authority).build().unwrap().put("/a", &1).await;
        let error = error.unwrap_err();
        assert_eq!(failed(&error, Some(&front), Some(&server)), TlsFailure::Handshake);
        assert!(error.to_string().contains(says), "{error}");
    }
}

#[tokio::test]
async fn the_wrong_scheme_is_told_from_both_sides() {
    let authority = Authority::new("ours");
    // As servers do that were sent no request that they can read.
    let plain = common::answer(400, &[], "");
    let server = Scripted::new([]);
    let front = Setup::new(authority.issue(HERE)).before(behind(&server));
    let client = Client::builder(&format!("http://{}", front.address()));
    let error = client.retry(common::quick()).build().unwrap().put("/a", &1).await.unwrap_err();
    assert_eq!(failed(&error, Some(&front), Some(&server)), TlsFailure::Expected);
    assert!(error.to_string().contains("begins with https://"), "{error}");

    // Some say it in HTTP. What is no such page is a refusal like any other.
    for (body, is_told) in [
        ("<center>The plain HTTP request was sent to HTTPS port</center>", true),
        ("Client sent an HTTP request to an HTTPS server.\n", true),
        ("<p>Reason: You're speaking plain HTTP to an SSL-enabled server port.<br />", true),
        ("<h1>Bad request</h1>", false),
    ] {
        let page = common::answer(400, &[("Content-Type", "text/html")], body);
        let server = Scripted::then([], Step::Answer(page));
        let error = server.client().put("/a", &1).await.unwrap_err();
        assert_eq!(matches!(error, Error::Tls { .. }), is_told, "{error:?}");
        if is_told {
            assert_eq!(failed(&error, None, None), TlsFailure::Expected);
        }
        assert_eq!(server.lines().len(), 1);
    }

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let answering = tokio::spawn(async move {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let (mut stream, _) = listener.accept().await.unwrap();
        assert_ne!(stream.read(&mut [0; 16 << 10]).await.unwrap(), 0);
        stream.write_all(plain.as_bytes()).await.unwrap();
    });
    let client = builder(&url, &authority).build().unwrap();
    let error = client.put("/a", &1).await.unwrap_err();
    assert_eq!(failed(&error, None, None), TlsFailure::NotSpoken);
    assert!(error.to_string().contains("does not speak TLS"), "{error}");
    answering.await.unwrap();
}

#[test]
fn what_is_no_certificate_is_refused_without_showing_it() {
    let authority = Authority::new("ours");
    let (one, other) = (authority.issue(HERE), authority.issue(HERE));
    let https = || builder("https://localhost", &authority);
    let crossed = format!("{}{}", one.certificate, other.key);
    let sealed_key = one.key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
    for (client, says) in [
        (Client::builder("https://localhost").without_system_roots(), "no authority is trusted"),
        (https().add_root_certificates("hunter2"), "a root certificate is not in PEM"),
        (https().add_root_certificates(one.key.clone()), "a root certificate is not in PEM"),
        (https().identity(one.certificate.clone()), "the key of the client's certificate"),
        (https().identity(one.key.clone()), "the client's certificate is not in PEM"),
        (https().identity(crossed), "the client's certificate and its key"),
        (https().identity(format!("{}{sealed_key}", one.certificate)), "the key of the client's"),
    ] {
        let error = client.build().unwrap_err();
        assert!(matches!(error, Error::Invalid(_)));
        assert!(error.to_string().contains(says), "{error}");
        let secret = one.key.lines().nth(1).unwrap();
        assert!(!format!("{error:?}").contains(secret) && !error.to_string().contains("hunter2"));
    }
    assert!(https().identity(one.pem()).build().is_ok());
    for host in ["locks.example:7423", "10.0.0.1", "[::1]:7423"] {
        let url = format!("https://{host}");
        assert_eq!(builder(&url, &authority).build().unwrap().url(), url);
    }
    let error = builder("https://a..example", &authority).build().unwrap_err();
    assert!(error.to_string().contains("no certificate can be for the host"), "{error}");
}
