//! Section 9 of the wire contract: what goes through a gateway, on the wire of both sides.

use crate::common::json;
use crate::common::upstream::{Upstream, answer};

#[test]
fn a_request_and_its_answer_go_on_as_they_came() {
    let upstream = Upstream::start();
    let server = upstream.gateway(&[]);
    let long = "v".repeat(9000);
    let mut client = server
        .ask("PATCH", "/v1/a;b=1/~c/%C3%A9?q=%2f&r=a/b?c&&=")
        .field("X-Long", &long)
        .field("Cookie", "a=1")
        .field("Cookie", "b=2")
        .field("!#$%&'*+-.^_`|~9", "odd")
        .field("Authorization", "Bearer mine")
        .body("{\"on\": 1}")
        .start();
    let mut peer = upstream.accept();
    let got = peer.request();
    assert_eq!(got.line, "PATCH /v1/a;b=1/~c/%C3%A9?q=%2f&r=a/b?c&&= HTTP/1.1");
    assert_eq!(got.body, b"{\"on\": 1}");
    assert_eq!(got.field("content-length"), Some("9"));
    assert_eq!(got.field("x-long"), Some(long.as_str()));
    assert_eq!(got.all("cookie"), ["a=1", "b=2"]);
    assert_eq!(got.field("!#$%&'*+-.^_`|~9"), Some("odd"));
    assert_eq!(got.field("authorization"), Some("Bearer mine"));
    let host = server.address().to_string();
    assert_eq!(got.field("host"), Some(host.as_str()));
    assert_eq!(got.field("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(got.field("x-forwarded-host"), Some(host.as_str()));
    assert_eq!(got.field("x-forwarded-proto"), Some("http"));
    let element = format!("for=127.0.0.1;proto=http;host=\"{host}\"");
    assert_eq!(got.field("forwarded"), Some(element.as_str()));
    assert_eq!(got.field("via"), Some("1.1 leasehold"));
    peer.send(
        "HTTP/1.1 412 Own Words\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nETag: W/\"x\"\r\n\
         Cache-Control: max-age=5\r\nContent-Type: application/problem+json\r\n\
         Keep-Alive: timeout=5\r\nX-Odd: \t spaced \r\nContent-Length: 2\r\n\r\nno",
    );
    let reply = client.reply_head();
    assert_eq!(reply.status, 412);
    assert_eq!(reply.all("set-cookie"), ["a=1", "b=2"]);
    assert_eq!(reply.field("etag"), Some("W/\"x\""));
    assert_eq!(reply.field("cache-control"), Some("max-age=5"));
    assert_eq!(reply.field("x-odd"), Some("spaced"));
    assert_eq!(reply.field("keep-alive"), None);
    assert_eq!(reply.field("via"), Some("1.1 leasehold"));
    let metrics = server.get("/-/metrics");
    assert!(metrics.text().contains("leasehold_upstream_answers_total{status=\"412\"} 1\n"));
    assert!(!metrics.text().contains("leasehold_refusals_total{status=\"412\""));
}

#[test]
fn bodies_and_trailers_pass_both_ways_as_they_come() {
    let upstream = Upstream::start();
    let server = upstream.gateway(&[]);
    let mut client = server.connect();
    client.send(
        "POST /stream HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTE: trailers\r\n\
         Trailer: X-Sum, X-Lock-Fence\r\n\r\n3\r\none\r\n",
    );
    let mut peer = upstream.accept();
    let got = peer.head();
    assert_eq!(got.field("transfer-encoding"), Some("chunked"));
    assert_eq!(got.field("te"), Some("trailers"));
    assert_eq!(peer.chunk(), b"one");
    // The answer begins while the request goes on.
    peer.send(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-End\r\n\r\n3\r\nuno\r\n",
    );
    assert_eq!(client.reply_head().status, 200);
    assert_eq!(client.chunk().unwrap(), b"uno");
    client.send("3\r\ntwo\r\n0\r\nX-Sum: 6\r\nX-Lock-Fence: 99\r\n\r\n");
    assert_eq!(peer.chunk(), b"two");
    assert_eq!(peer.chunk(), b"");
    assert_eq!(peer.fields(), [("x-sum".to_owned(), "6".to_owned())]);
    peer.send("3\r\ndos\r\n0\r\nX-End: yes\r\n\r\n");
    assert_eq!(client.chunk().unwrap(), b"dos");
    assert_eq!(client.line(), "0");
    assert_eq!(client.line(), "x-end: yes");
}

#[test]
fn a_body_is_asked_for_only_when_the_write_may_pass() {
    let upstream = Upstream::start();
    let server = upstream.gateway(&[]);
    let head = |path: &str| {
        format!(
            "PUT {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
        )
    };
    server.lock("/locked", json!({}));
    let mut client = server.connect();
    client.send(head("/locked"));
    client.reply(false).problem(423, "locked");
    assert!(upstream.is_quiet());

    let mut client = server.connect();
    client.send(head("/free"));
    let mut peer = upstream.accept();
    assert_eq!(client.reply_head().status, 100);
    client.send("hi");
    let got = peer.request();
    assert_eq!((got.body.as_slice(), got.field("expect")), (&b"hi"[..], None));
    peer.send(answer("201 Created", ""));
    assert_eq!(client.reply(false).status, 201);
}

#[test]
fn answers_without_a_body_keep_what_they_say_of_one() {
    let upstream = Upstream::start();
    let server = upstream.gateway(&[]);
    let mut client = server.ask("HEAD", "/x").start();
    let mut peer = upstream.accept();
    assert_eq!(peer.request().line, "HEAD /x HTTP/1.1");
    peer.send("HTTP/1.1 200 OK\r\nContent-Length: 1234\r\nETag: \"1\"\r\n\r\n");
    let reply = client.reply(true);
    assert_eq!((reply.status, reply.field("content-length")), (200, Some("1234")));

    let mut client = server.ask("GET", "/x").field("If-None-Match", "\"1\"").start();
    // The same connection: the exchange before has ended.
    assert_eq!(peer.request().field("if-none-match"), Some("\"1\""));
    peer.send("HTTP/1.1 304 Not Modified\r\nETag: \"1\"\r\n\r\n");
    assert_eq!(client.reply(false).status, 304);

    let mut client = server.ask("OPTIONS", "*").start();
    assert_eq!(peer.request().line, "OPTIONS * HTTP/1.1");
    peer.send("HTTP/1.1 204 No Content\r\nAllow: GET\r\n\r\n");
    assert_eq!(client.reply(false).field("allow"), Some("GET"));

    // Absolute form: the target's host counts, and the path goes on.
    let mut client = server.connect();
    client.send("GET http://other.example/y?z HTTP/1.1\r\nHost: a\r\n\r\n");
    let got = peer.request();
    assert_eq!(
        (got.line.as_str(), got.field("host")),
        ("GET /y?z HTTP/1.1", Some("other.example"))
    );
    // Until the connection ends, and no longer.
    peer.send("HTTP/1.0 200 OK\r\n\r\nall of it");
    peer.close();
    let reply = client.reply(false);
    assert_eq!((reply.status, reply.text()), (200, "all of it"));
}

#[test]
fn server_sent_events_come_as_they_are_sent() {
    let upstream = Upstream::start();
    let server = upstream.gateway(&[]);
    let mut client = server.ask("GET", "/events").field("Accept", "text/event-stream").start();
    let mut peer = upstream.accept();
    peer.request();
    peer.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n");
    assert_eq!(client.reply_head().status, 200);
    assert_eq!(client.chunk().unwrap(), b"data: 1\n\n");
    peer.send("data: 2\n\n");
    assert_eq!(client.chunk().unwrap(), b"data: 2\n\n");
    // A reader that goes takes its connection along.
    drop(client);
    assert!(peer.is_closed());
}

#[test]
fn a_websocket_passes_and_another_kind_of_http_does_not() {
    let upstream = Upstream::start();
    let server = upstream.gateway(&[]);
    let mut client = server.connect();
    client.send(
        "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\n\
         Upgrade: h2c, websocket\r\nHTTP2-Settings: AAMA\r\nSec-WebSocket-Key: k\r\n\r\n",
    );
    let mut peer = upstream.accept();
    let got = peer.head();
    assert_eq!(got.field("upgrade"), Some("websocket"));
    assert_eq!(got.all("connection"), ["upgrade"]);
    assert_eq!(got.field("http2-settings"), None);
    assert_eq!(got.field("sec-websocket-key"), Some("k"));
    peer.send(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: s\r\n\r\nhello",
    );
    let reply = client.reply_head();
    assert_eq!((reply.status, reply.field("upgrade")), (101, Some("websocket")));
    assert_eq!(reply.field("sec-websocket-accept"), Some("s"));
    assert_eq!(client.bytes(5), b"hello");
    client.send("ping");
    assert_eq!(peer.bytes(4), b"ping");
    peer.close();
    assert!(client.is_closed());

    let mut client = server.connect();
    client.send(
        "GET /h2 HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\
         HTTP2-Settings: AAMA\r\n\r\n",
    );
    let mut peer = upstream.accept();
    let got = peer.request();
    assert_eq!((got.field("upgrade"), got.field("connection")), (None, None));
    // Nor where the upstream changes by itself.
    peer.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n");
    client.reply(false).problem(502, "upstream-unreachable");
}

#[test]
fn an_answer_that_comes_within_the_body_ends_one_connection_and_not_the_other() {
    let upstream = Upstream::start();
    let server = upstream.gateway(&[]);
    let mut client = server.connect();
    client.send("PUT /x HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf");
    let mut peer = upstream.accept();
    peer.head();
    assert_eq!(peer.bytes(4), b"half");
    peer.send(answer("413 Too Large", "no"));
    let reply = client.reply_head();
    assert_eq!((reply.status, client.bytes(2)), (413, b"no".to_vec()));
    // What the upstream would take for the rest of the body is sent to nobody.
    assert!(peer.is_closed());
    client.send("--rest");
    client.send("GET /next HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut peer = upstream.accept();
    assert_eq!(peer.request().line, "GET /next HTTP/1.1");
    peer.send(answer("200 OK", "next"));
    assert_eq!(client.reply(false).text(), "next");
    // And the write has ended.
    server.lock("/x", json!({}));
}

#[test]
fn what_an_upstream_says_unasked_is_told_to_nobody() {
    let upstream = Upstream::start();
    let server = upstream.gateway(&[]);
    let poison = answer("200 OK", "poison");
    let with = |head: &str| format!("HTTP/1.1 {head}\r\n\r\n{poison}");
    // What is asked, how it is answered, and what of that is the answer.
    for (method, answered, status, body) in [
        ("GET", format!("{}{poison}", answer("200 OK", "a")), 200, "a"),
        ("GET", with("200 OK\r\nContent-Length: 0"), 200, ""),
        ("GET", with("200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0"), 200, "a"),
        // None of these has a body, whatever its head says.
        ("GET", with("204 No Content\r\nContent-Length: 9"), 204, ""),
        ("GET", with("304 Not Modified\r\nContent-Length: 9"), 304, ""),
        ("HEAD", with("200 OK\r\nContent-Length: 9"), 200, ""),
        ("HEAD", with("200 OK\r\nTransfer-Encoding: chunked"), 200, ""),
        // Both, and one of them counts; two of one, and neither does.
        (
            "GET",
            format!(
                "HTTP/1.1 200 OK\r\nContent-Length: 99\r\nTransfer-Encoding: chunked\r\n\r\n\
                 1\r\na\r\n0\r\n\r\n{poison}"
            ),
            200,
            "a",
        ),
        ("GET", with("200 OK\r\nContent-Length: 1\r\nContent-Length: 2"), 502, ""),
        ("GET", with("200 OK\r\nContent-Length: x"), 502, ""),
        (
            "GET",
            format!("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n{}", answer("200 OK", "a")),
            200,
            "a",
        ),
    ] {
        let mut client = server.ask(method, "/x").start();
        let mut peer = upstream.accept();
        peer.request();
        peer.send(&answered);
        let reply = client.reply(method == "HEAD");
        assert_eq!(reply.status, status, "{answered:?}: {reply:?}");
        if status != 502 {
            assert_eq!(reply.text(), body, "{answered:?}");
        }
        if answered.ends_with(&poison) {
            assert!(peer.is_closed(), "{answered:?}");
            assert!(upstream.is_quiet(), "{answered:?}");
        } else {
            peer.close();
        }
        // Whoever asks next gets what is said to that.
        let mut client = server.ask("GET", "/next").start();
        let mut peer = upstream.accept();
        assert_eq!(peer.request().line, "GET /next HTTP/1.1");
        peer.send(answer("200 OK", "next"));
        assert_eq!(client.reply(false).text(), "next", "{answered:?}");
        peer.close();
    }
}
