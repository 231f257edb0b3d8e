//! A gateway whose clients speak HTTP/2, before an upstream that speaks HTTP/1.1.
#![expect(clippy::unwrap_used, reason = "helpers of a test panic like the test")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Instant;

use crate::certificates::Authority;
use crate::common::http2::{Client, send_raw};
use crate::common::recorder::{Recorder, Seen};
use crate::common::upstream::{Got, Peer, Upstream, answer};
use crate::common::{Held, Server, Setup, json, until};

fn completed(server: &Server) -> serde_json::Value {
    until("the end of the write", || server.audit("type=write_completed").into_iter().next())
}

/// The head of the next request, and the connection that it came by.
fn taken(upstream: &Upstream) -> (Got, Peer) {
    let mut peer = upstream.accept();
    let got = peer.head();
    (got, peer)
}

/// Bodies and trailers, while both go on.
fn streams_both_ways(upstream: &Upstream, client: &mut Client, scheme: &str) {
    let fields =
        [("te", "trailers"), ("trailer", "x-sum, x-lock-fence"), ("x-long", &"v".repeat(9000))];
    let mut exchange = client.start("POST", "/v1/a;b=1/%C3%A9?q=%2f&&=", &fields);
    exchange.data("one");
    let (got, mut peer) = taken(upstream);
    assert_eq!(got.line, "POST /v1/a;b=1/%C3%A9?q=%2f&&= HTTP/1.1");
    assert_eq!(got.field("transfer-encoding"), Some("chunked"));
    assert_eq!((got.field("te"), got.field("via")), (Some("trailers"), Some("2.0 leasehold")));
    assert_eq!(got.field("x-forwarded-proto"), Some(scheme));
    assert_eq!(got.field("host"), got.field("x-forwarded-host"));
    assert_eq!(got.field("x-long").map(str::len), Some(9000));
    assert_eq!(peer.chunk(), b"one");
    peer.send(
        "HTTP/1.1 201 Made\r\nTransfer-Encoding: chunked\r\nTrailer: X-End\r\nKeep-Alive: 5\r\n\
         Set-Cookie: a\r\nSet-Cookie: b\r\n\r\n3\r\nuno\r\n",
    );
    let head = exchange.head();
    assert_eq!(head.status(), 201);
    assert_eq!(head.headers().get_all("set-cookie").iter().count(), 2);
    for dropped in ["keep-alive", "connection", "transfer-encoding"] {
        assert!(!head.headers().contains_key(dropped), "{dropped}");
    }
    assert_eq!(exchange.bytes(), "uno");
    exchange.data("two");
    assert_eq!(peer.chunk(), b"two");
    exchange.trailers(&[("x-sum", "6"), ("x-lock-fence", "99")]);
    assert_eq!(peer.chunk(), b"");
    assert_eq!(peer.fields(), [("x-sum".to_owned(), "6".to_owned())]);
    peer.send("3\r\ndos\r\n0\r\nX-End: yes\r\n\r\n");
    assert_eq!(exchange.bytes(), "dos");
    let trailers = exchange.frame().unwrap().unwrap().into_trailers().unwrap();
    assert_eq!(trailers["x-end"], "yes");
    assert!(exchange.frame().is_none());
}

#[test]
fn bodies_and_trailers_pass_both_ways_as_they_come() {
    let upstream = Upstream::start();
    let server = upstream.gateway(&[]);
    streams_both_ways(&upstream, &mut Client::over_tcp(server.address()), "http");
}

#[test]
fn the_same_by_what_tls_agrees_on() {
    let upstream = Upstream::start();
    let (authority, folder) = (Authority::new("ours"), tempfile::tempdir().unwrap());
    let issued = authority.issue(&["127.0.0.1"]);
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (cert, key) = (file("cert.pem", &issued.certificate), file("key.pem", &issued.key));
    let server = upstream.gateway(&["--tls-cert", &cert, "--tls-key", &key]);
    let mut client = Client::over_tls(server.address(), &authority.pem());
    streams_both_ways(&upstream, &mut client, "https");
}

#[test]
fn writes_of_one_connection_are_pinned_each_by_itself() {
    let upstream = Upstream::start();
    let server = upstream.gateway(&[]);
    let mut client = Client::over_tcp(server.address());
    let held = server.lock("/a", json!({}));
    let mut streams = Vec::new();
    for path in ["/a", "/b", "/c"] {
        let token = [("x-lock-token", held.token.as_str())];
        let fields = if path == "/a" { &token[..] } else { &[] };
        let stream = client.send("PUT", path, fields, path);
        let mut peer = upstream.accept();
        let got = peer.request();
        assert_eq!(
            (got.line, got.body),
            (format!("PUT {path} HTTP/1.1"), path.as_bytes().to_vec())
        );
        streams.push((stream, peer));
    }
    server.ask("DELETE", "/a/lock").token(&held).send().ok(204);
    let acquires: Vec<_> = ["/a", "/b", "/c"]
        .map(|path| {
            let acquire =
                server.ask("POST", &format!("{path}/lock?wait=15")).json(json!({})).spawn();
            server.queued(path, 1);
            acquire
        })
        .into();
    // A refusal among them is one of its own stream.
    let (status, problem) = client.send("PUT", "/b", &[], "2").reply();
    assert!(status == 423 && problem.contains("/-/problems/locked"), "{status} {problem}");
    // Answered the other way around, each is granted with its own.
    let waiting = streams.into_iter().zip(acquires).rev();
    let mut granted = Vec::new();
    for ((mut stream, mut peer), acquire) in waiting {
        assert!(!acquire.is_finished());
        peer.send(answer("200 OK", "done"));
        assert_eq!(stream.reply(), (200, "done".to_owned()));
        granted.push(Held::of(acquire.join().unwrap()).fence);
    }
    assert!(granted.is_sorted(), "{granted:?}");
}

#[test]
fn a_stream_that_is_reset_within_its_body_ends_the_write_and_the_drain_time_runs() {
    let upstream = Upstream::start();
    let server = upstream.gateway(&["--drain-time", "700ms"]);
    let mut client = Client::over_tcp(server.address());
    let held = server.lock("/x", json!({}));
    let mut other = client.start("PUT", "/other", &[]);
    other.data("ha");
    let (_, mut others) = taken(&upstream);
    let mut writer = client.start("PUT", "/x", &[("x-lock-token", &held.token)]);
    writer.data("half");
    let (_, mut peer) = taken(&upstream);
    assert_eq!(peer.chunk(), b"half");
    let began = Instant::now();
    writer.reset();
    assert!(peer.is_closed(), "without the end of the body");
    assert_eq!(completed(&server)["result"], "unknown");
    assert!(began.elapsed().as_millis() >= 700, "{:?}", began.elapsed());
    // The other streams go on.
    other.data("lf");
    other.end();
    for part in [&b"ha"[..], b"lf", b""] {
        assert_eq!(others.chunk(), part);
    }
    assert!(others.fields().is_empty());
    others.send(answer("200 OK", ""));
    assert_eq!(other.reply().0, 200);
}

#[test]
fn a_body_that_the_upstream_does_not_take_holds_up_no_other_stream() {
    let upstream = Upstream::start();
    let server = upstream.gateway(&[]);
    let mut client = Client::over_tcp(server.address());
    let mut stalled = client.start("PUT", "/stalled", &[]);
    // More than all buffers on the way hold.
    for _ in 0..8 {
        stalled.data(&"x".repeat(4 << 20));
    }
    let (_, _unread) = taken(&upstream);
    upstream.answering(|_| answer("200 OK", ""));
    for round in 0..200 {
        let mut other = client.send("PUT", &format!("/other/{round}"), &[], "1");
        assert_eq!(other.reply().0, 200, "{round}");
    }
}

#[test]
fn a_write_goes_on_to_its_end_without_its_stream() {
    let upstream = Upstream::start();
    let server = upstream.gateway(&[]);
    let mut client = Client::over_tcp(server.address());
    let held = server.lock("/x", json!({}));
    let writer = client.send("PUT", "/x", &[("x-lock-token", &held.token)], "1");
    let mut peer = upstream.accept();
    assert_eq!(peer.request().body, b"1");
    drop(writer);
    client.catch_up();
    peer.send("HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nh");
    assert!(server.audit("type=write_completed").is_empty());
    peer.send("i");
    assert_eq!(completed(&server)["status"], 201);
}

#[test]
fn a_read_ends_with_its_stream() {
    let upstream = Upstream::start();
    let server = upstream.gateway(&[]);
    let mut client = Client::over_tcp(server.address());
    let mut reader = client.start("GET", "/events", &[]);
    reader.end();
    let mut peer = upstream.accept();
    peer.request();
    peer.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n");
    assert_eq!(reader.head().status(), 200);
    assert_eq!(reader.bytes(), "data: 1\n\n");
    drop(reader);
    assert!(peer.is_closed());
    client.catch_up();
}

#[test]
fn an_answer_that_breaks_off_is_no_whole_one() {
    let upstream = Upstream::start();
    let server = upstream.gateway(&["--drain-time", "0s"]);
    let mut client = Client::over_tcp(server.address());
    let mut reader = client.send("GET", "/x", &[], "");
    let mut peer = upstream.accept();
    peer.request();
    peer.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf");
    assert_eq!(reader.head().status(), 200);
    assert_eq!(reader.bytes(), "half");
    peer.close();
    assert!(reader.frame().unwrap().is_err());
    client.catch_up();
}

#[test]
fn answers_that_are_trailers_alone_pass() {
    let upstream = Upstream::start();
    let server = upstream.gateway(&[]);
    let mut client = Client::over_tcp(server.address());
    let fields = [("content-type", "application/grpc"), ("te", "trailers"), ("grpc-timeout", "1S")];
    // What gRPC has for a refusal: the status in the head, which is also the end.
    let mut call = client.send("POST", "/a.B/C", &fields, "\0\0\0\0\0");
    let mut peer = upstream.accept();
    let got = peer.request();
    assert_eq!((got.field("te"), got.field("grpc-timeout")), (Some("trailers"), Some("1S")));
    assert_eq!(got.body, b"\0\0\0\0\0");
    peer.send(
        "HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\ngrpc-status: 7\r\n\
         Content-Length: 0\r\n\r\n",
    );
    let head = call.head();
    assert_eq!(
        (head.status().as_u16(), &head.headers()["grpc-status"]),
        (200, &"7".parse().unwrap())
    );
    assert!(call.ended_with_head());
    // And one in real trailers, with no data before them.
    let mut call = client.send("POST", "/a.B/C", &fields, "\0\0\0\0\0");
    peer.request();
    peer.send(
        "HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\nTransfer-Encoding: chunked\r\n\
         Trailer: grpc-status, grpc-message\r\n\r\n0\r\ngrpc-status: 0\r\ngrpc-message: ok\r\n\r\n",
    );
    assert!(!call.head().headers().contains_key("grpc-status"));
    let trailers = call.frame().unwrap().unwrap().into_trailers().unwrap();
    assert_eq!(
        (&trailers["grpc-status"], &trailers["grpc-message"]),
        (&"0".parse().unwrap(), &"ok".parse().unwrap())
    );
    assert!(call.frame().is_none());
}

/// A request as its fields stand in the frame, and its body.
type Raw<'a> = (&'a [(&'a str, &'a str)], Option<&'a str>);

fn sent_raw(server: &Server, (fields, body): Raw<'_>) {
    let pseudo = [(":method", "POST"), (":scheme", "http"), (":path", "/x"), (":authority", "a")];
    // A field that is given takes the place of the one that is usual.
    let given = |name: &str| fields.iter().any(|(each, _)| *each == name);
    let usual = pseudo.iter().filter(|(name, _)| !given(name));
    let (first, then): (Vec<_>, Vec<_>) =
        usual.chain(fields).partition(|(name, _)| name.starts_with(':'));
    let all: Vec<(&[u8], &[u8])> = first
        .into_iter()
        .chain(then)
        .filter(|(_, value)| *value != ABSENT)
        .map(|(name, value)| (name.as_bytes(), value.as_bytes()))
        .collect();
    send_raw(server.address(), &all, body.map(str::as_bytes));
}

const ABSENT: &str = "(absent)";

const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";

fn recorded() -> (Recorder, Server) {
    let upstream = Recorder::start();
    let server = Setup::default().arg("--upstream").arg(&upstream.url()).start();
    (upstream, server)
}

#[test]
fn a_length_that_is_not_that_of_the_body_makes_no_request() {
    let (upstream, server) = recorded();
    // RFC 9113, section 8.1.1: the request is malformed.
    let refused: &[Raw<'_>] = &[
        (&[("content-length", "2")], Some(SMUGGLED)),
        (&[("content-length", "9")], Some("ab")),
        (&[("content-length", "+2")], Some("ab")),
        (&[("content-length", "2, 2")], Some("ab")),
        (&[("content-length", "2"), ("content-length", "3")], Some("ab")),
        (&[("content-length", "9")], None),
    ];
    for raw in refused {
        sent_raw(&server, *raw);
    }
    // Where that shows in the end alone, the beginning was passed on, and then cut.
    sent_raw(&server, (&[(":path", "/end")], None));
    loop {
        match upstream.next() {
            Seen::Cut(raw) => assert!(!raw.contains("smuggled"), "{raw}"),
            seen @ Seen::Whole { .. } => {
                assert_eq!(seen.line(), "POST /end HTTP/1.1");
                break;
            }
        }
    }
    assert!(upstream.rest().iter().all(|seen| matches!(seen, Seen::Cut(_))));
}

#[test]
fn what_would_be_two_requests_in_another_version_is_refused() {
    let (upstream, server) = recorded();
    let refused: &[Raw<'_>] = &[
        // What is for one connection of HTTP/1.1 (8.2.2).
        (&[("transfer-encoding", "chunked")], Some(SMUGGLED)),
        (&[("transfer-encoding", "identity")], Some("ab")),
        (&[("connection", "close")], Some("ab")),
        (&[("keep-alive", "5")], Some("ab")),
        (&[("upgrade", "h2c")], Some("ab")),
        (&[("te", "gzip")], Some("ab")),
        // Lines within a field (8.2.1).
        (&[("x-a", "b\r\ntransfer-encoding: chunked")], Some("ab")),
        (&[("x-a", "b\nx-c: d")], Some("ab")),
        (&[("x-a", "b\rc")], Some("ab")),
        (&[("x-a", "b\0c")], Some("ab")),
        (&[("x-a\r\nx-c", "d")], Some("ab")),
        (&[("x-a: b", "c")], Some("ab")),
        (&[("x a", "b")], Some("ab")),
        (&[("X-A", "b")], Some("ab")),
        (&[("", "b")], Some("ab")),
        // And within the request line.
        (&[(":method", "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\nPOST")], Some("ab")),
        (&[(":method", "GET /y")], Some("ab")),
        (&[(":method", "")], Some("ab")),
        (&[(":path", "/x HTTP/1.1\r\nHost: a\r\n\r\nGET /smuggled")], Some("ab")),
        (&[(":path", "/x HTTP/1.1")], Some("ab")),
        (&[(":path", "/x\ny")], Some("ab")),
        (&[(":path", "")], Some("ab")),
        (&[(":path", ABSENT)], Some("ab")),
        (&[(":path", "/x"), (":path", "/y")], Some("ab")),
        (&[(":authority", "a\r\nx-c: d")], Some("ab")),
        (&[(":authority", "a/b")], Some("ab")),
        (&[(":scheme", "http\r\nx-c: d")], Some("ab")),
        (&[(":odd", "b")], Some("ab")),
        (&[(":status", "200")], Some("ab")),
    ];
    for raw in refused {
        sent_raw(&server, *raw);
        assert_eq!(upstream.rest(), [], "{raw:?}");
    }
    let passed: &[(Raw<'_>, &str)] = &[
        ((&[], Some(SMUGGLED)), SMUGGLED),
        ((&[("content-length", "2")], Some("ab")), "ab"),
        ((&[("content-length", "0")], None), ""),
        // Nothing is what it was to have; what comes then is nobody's.
        ((&[("content-length", "0")], Some(SMUGGLED)), ""),
        ((&[("host", "b")], Some("ab")), "ab"),
        ((&[("te", "trailers")], Some("ab")), "ab"),
    ];
    for (raw, expected) in passed {
        sent_raw(&server, *raw);
        let seen = upstream.next();
        let Seen::Whole { line, body, .. } = &seen else { panic!("{raw:?}: {seen:?}") };
        assert_eq!((line.as_str(), body.as_str()), ("POST /x HTTP/1.1", *expected), "{raw:?}");
        assert_eq!(seen.all("host"), ["a"], "{raw:?}");
        assert_eq!(upstream.rest(), [], "{raw:?}");
    }
}
