//! Requests whose end could be found in two places: the gateway and the upstream never disagree.
//!
//! Each is followed by another on the same connection. Either it is refused and the connection
//! ends, or the upstream sees it framed in one way only, and then what follows as it was sent.
#![expect(clippy::panic, reason = "the helpers of a test may panic like the test")]

use crate::common::recorder::{Recorder, Seen};
use crate::common::{Server, Setup, json};

/// What follows on the same connection.
const NEXT: &str = "GET /next HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
/// What is to pass for a request of its own.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";

/// What becomes of a request.
enum Becomes {
    /// Refused with this status; the upstream sees nothing, and the connection ends.
    Refused(u16),
    /// Passed on with this body, and so is what follows.
    Passed(&'static str),
    /// Passed on with this body, as the last of its connection that is.
    Last(&'static str),
    /// Broken off within its body, on both sides.
    Cut,
}

use Becomes::{Cut, Last, Passed, Refused};

struct Bench {
    upstream: Recorder,
    server: Server,
}

impl Bench {
    fn start() -> Self {
        let upstream = Recorder::start();
        let server = Setup::default().arg("--upstream").arg(&upstream.url()).start();
        Self { upstream, server }
    }

    /// Everything that is answered to these bytes, up to the end of the connection.
    fn answers(&self, bytes: &[u8]) -> (Vec<u16>, String) {
        let mut client = self.server.connect();
        // A server that has refused the beginning may have closed before the end.
        let _ = client.try_send(bytes);
        let text = client.rest();
        let mut statuses = Vec::new();
        for line in text.split("HTTP/1.1 ").skip(1) {
            // The upstream's answers repeat the request line.
            if let Some(Ok(status)) = line.get(..3).map(str::parse) {
                statuses.push(status);
            }
        }
        (statuses, text)
    }

    fn check(&self, sent: &str, becomes: &Becomes) {
        let (statuses, text) = self.answers(format!("{sent}{NEXT}").as_bytes());
        let told = format!("{sent:?} was answered {text:?}");
        match becomes {
            Refused(status) => {
                assert_eq!(statuses, [*status], "{told}");
                assert_eq!(self.upstream.rest(), [], "{told}");
            }
            Passed(body) => {
                assert_eq!(statuses, [200, 200], "{told}");
                self.saw("/x", body, &told);
                self.saw("/next", "", &told);
            }
            Last(body) => {
                assert!(matches!(statuses[..], [200] | [200, 400]), "{told}");
                self.saw("/x", body, &told);
            }
            Cut => {
                assert!(matches!(statuses[..], [] | [400]), "{told}");
                let seen = self.upstream.next();
                assert!(matches!(seen, Seen::Cut(_)), "{told}: {seen:?}");
                assert!(matches!(seen.line(), "" | "POST /x HTTP/1.1"), "{told}: {seen:?}");
            }
        }
        let more = self.upstream.rest();
        assert!(more.is_empty(), "{told}; the upstream saw {more:?}");
    }

    fn saw(&self, path: &str, expected: &str, told: &str) -> Seen {
        let seen = self.upstream.next();
        let Seen::Whole { line, body, .. } = &seen else { panic!("{told}: {seen:?}") };
        assert_eq!(line.split(' ').nth(1), Some(path), "{told}: {seen:?}");
        assert_eq!(body, expected, "{told}: {seen:?}");
        seen
    }

    fn check_all(&self, cases: &[(String, Becomes)]) {
        for (sent, becomes) in cases {
            self.check(sent, becomes);
        }
    }
}

/// A `POST /x` with these fields and this body.
fn post(fields: &str, body: &str) -> String {
    format!("POST /x HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n{body}")
}

#[test]
fn a_transfer_coding_is_chunked_or_the_request_is_refused() {
    let bench = Bench::start();
    let chunks = format!("2\r\nab\r\n0\r\n\r\n{SMUGGLED}");
    let mut cases = Vec::new();
    for fields in [
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: identity",
        "Transfer-Encoding:",
        "Transfer-Encoding: ,",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: identity, chunked",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: chunked, ",
        "Transfer-Encoding: chunked;q=1",
        "Transfer-Encoding: \"chunked\"",
        "Transfer-Encoding: 'chunked'",
        "Transfer-Encoding: chun ked",
        "Transfer-Encoding: chunk",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: cow",
        "Transfer-Encoding: cow\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding : chunked",
        "Transfer-Encoding\t: chunked",
        " Transfer-Encoding: chunked",
        "Transfer-Encoding:\x0bchunked",
        "Transfer-Encoding: \x00chunked",
        "Transfer-Encoding: chunked\x0c",
        "Transfer-Encoding:\r\n chunked",
        "Transfer-Encoding: chunked\r\n ",
        "Transfer-Encoding: chunked\r\n\t, identity",
        "Transfer\rEncoding: chunked",
        "X-A: b\r\n Transfer-Encoding: chunked",
        "X-A: b\rTransfer-Encoding: chunked",
    ] {
        cases.push((post(fields, &chunks), Refused(400)));
        // The classic pairs: each side goes by the other of the two.
        let both = format!("Content-Length: 4\r\n{fields}");
        cases.push((post(&both, &chunks), Refused(400)));
    }
    // RFC 9112, section 6.1: it is of HTTP/1.1.
    let old = "POST /x HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    cases.push((format!("{old}{chunks}"), Refused(400)));
    bench.check_all(&cases);
}

#[test]
fn chunked_is_read_as_it_may_be_written() {
    let bench = Bench::start();
    let mut cases = Vec::new();
    for fields in [
        "Transfer-Encoding: chunked",
        "Transfer-Encoding:chunked",
        "Transfer-Encoding: CHUNKED",
        "transfer-encoding: chUnked",
        "Transfer-Encoding: \t chunked\t ",
        // Not the field that it looks like.
        "Transfer-Encoding: chunked\r\nTransfer_Encoding: identity",
        "Transfer-Encoding: chunked\r\nTransfer-Encodin: identity",
        "Transfer-Encoding: chunked\r\nContent_Length: 2",
    ] {
        cases.push((post(fields, "2\r\nab\r\n0\r\n\r\n"), Passed("ab")));
    }
    // With both, the length is dropped, and nothing comes after it.
    for fields in [
        "Content-Length: 4\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 4",
        "Transfer-Encoding: chunked\r\nContent-Length: 12\r\nContent-Length: 13",
        "Content-Length: 999\r\nTransfer-Encoding: \tchunked",
    ] {
        cases.push((post(fields, "2\r\nab\r\n0\r\n\r\n"), Last("ab")));
    }
    bench.check_all(&cases);
}

#[test]
fn a_length_is_a_plain_number_or_the_request_is_refused() {
    let bench = Bench::start();
    let mut cases = Vec::new();
    for length in [
        "",
        "+5",
        "-1",
        "-0",
        "5 5",
        "5,5",
        "5, 5",
        "5, 6",
        "5;",
        "5.0",
        "5e0",
        "0x5",
        "05x",
        "\"5\"",
        "\u{ff15}",
        "5\x0b",
        "\x0c5",
        "five",
        // One more than fits, and what would come around to 5.
        "18446744073709551616",
        "18446744073709551621",
    ] {
        let sent = post(&format!("Content-Length: {length}"), &format!("hello{SMUGGLED}"));
        cases.push((sent, Refused(400)));
    }
    // A number, and too large for any body.
    for length in ["18446744073709551615", "18446744073709551614"] {
        cases.push((post(&format!("Content-Length: {length}"), SMUGGLED), Refused(431)));
    }
    for fields in [
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: 0\r\nContent-Length: 5",
        "Content-Length: 5\r\nContent-Length: 05x",
        "Content-Length : 5",
        "Content-Length\t: 5",
        " Content-Length: 5",
        "Content-Length:\r\n 5",
        "Content-Length: 5\r\n 6",
        "X-A: b\rContent-Length: 5",
        "Content\0-Length: 5",
    ] {
        cases.push((post(fields, &format!("hello{SMUGGLED}")), Refused(400)));
    }
    for fields in [
        "Content-Length: 5",
        "Content-Length:5",
        "Content-Length: \t5 \t",
        "Content-Length: 0005",
        // RFC 9112, section 6.3: the same value twice may be taken for one.
        "Content-Length: 5\r\nContent-Length: 5",
        // Meant for this connection alone, and still the length of this body.
        "Content-Length: 5\r\nConnection: content-length",
        "Connection: content-length, host\r\nContent-Length: 5",
        "Content-Length: 5\r\nConnection: transfer-encoding",
        "Content-Length: 5\r\nContent_Length: 6\r\nContent.Length: 7",
    ] {
        cases.push((post(fields, "hello"), Passed("hello")));
    }
    bench.check_all(&cases);
}

#[test]
fn chunks_are_read_to_the_letter_or_the_request_is_broken_off() {
    let bench = Bench::start();
    let mut cases = Vec::new();
    let chunked = |body: &str| post("Transfer-Encoding: chunked", body);
    for body in [
        // No size, and sizes that are none.
        "\r\nab\r\n0\r\n\r\n",
        ";x\r\nab\r\n0\r\n\r\n",
        "g\r\nab\r\n0\r\n\r\n",
        "0x2\r\nab\r\n0\r\n\r\n",
        "+2\r\nab\r\n0\r\n\r\n",
        "-2\r\nab\r\n0\r\n\r\n",
        " 2\r\nab\r\n0\r\n\r\n",
        "2,\r\nab\r\n0\r\n\r\n",
        "2_0\r\nab\r\n0\r\n\r\n",
        "\"2\"\r\nab\r\n0\r\n\r\n",
        "2 2\r\nab\r\n0\r\n\r\n",
        "2\0\r\nab\r\n0\r\n\r\n",
        // More than fits, which could come around to a small size.
        "10000000000000002\r\nab\r\n0\r\n\r\n",
        "fffffffffffffffff\r\nab\r\n0\r\n\r\n",
        // Longer or shorter than its size.
        "2\r\nabX\r\n0\r\n\r\n",
        "2\r\nab0\r\n\r\n",
        "2\r\nab\r0\r\n\r\n",
        "2\r\nab\n0\r\n\r\n",
        "2\r\nab\r\n\r\n0\r\n\r\n",
        // Lines that end in another way.
        "2\nab\r\n0\r\n\r\n",
        "2\rab\r\n0\r\n\r\n",
        "2;a\nb\r\nab\r\n0\r\n\r\n",
        "2;a\rb\r\nab\r\n0\r\n\r\n",
        "2\r\rab\r\n0\r\n\r\n",
        // What should be trailers.
        "2\r\nab\r\n0\r\nGARBAGE\r\n\r\n",
        "2\r\nab\r\n0\r\nX Y: z\r\n\r\n",
        "2\r\nab\r\n0\r\n: z\r\n\r\n",
        "2\r\nab\r\n0\r\nX: y\0z\r\n\r\n",
        "2\r\nab\r\n0\rX\r\n\r\n",
    ] {
        cases.push((chunked(&format!("{body}{SMUGGLED}")), Cut));
    }
    bench.check_all(&cases);
}

#[test]
fn chunks_are_read_as_they_may_be_written() {
    let bench = Bench::start();
    let mut cases = Vec::new();
    let chunked = |body: &str| post("Transfer-Encoding: chunked", body);
    for body in [
        "2\r\nab\r\n0\r\n\r\n",
        "1\r\na\r\n1\r\nb\r\n000\r\n\r\n",
        "2;name=value\r\nab\r\n0;last\r\n\r\n",
        "2;name=\"quoted; \\\" 5\"\r\nab\r\n0\r\n\r\n",
        "0000000000000002\r\nab\r\n0\r\n\r\n",
        "2 \t\r\nab\r\n0\r\n\r\n",
        "2\r\nab\r\n0\r\nX-Sum: 1\r\n\r\n",
    ] {
        cases.push((chunked(body), Passed("ab")));
    }
    // It has ended, and what comes then is no request.
    cases.push((chunked("2\r\nab\r\n0\r\n\r\nX\r\n\r\n"), Last("ab")));
    bench.check_all(&cases);
}

#[test]
fn a_head_that_two_could_read_differently_is_refused() {
    let bench = Bench::start();
    let mut cases = Vec::new();
    let rest = "Content-Length: 5\r\n\r\nhello";
    for head in [
        // One host, and a field's name right before its colon.
        "POST /x HTTP/1.1\r\n",
        "POST /x HTTP/1.1\r\nHost: a\r\nHost: b\r\n",
        "POST /x HTTP/1.1\r\nHost: a\r\nHost: a\r\n",
        "POST /x HTTP/1.1\r\nHost : a\r\n",
        "POST /x HTTP/1.1\r\n Host: a\r\n",
        "POST http://b/x HTTP/1.1\r\nHost: a\r\nHost: b\r\n",
        "POST /x HTTP/1.1\r\nHost: a\r\n: nameless\r\n",
        "POST /x HTTP/1.1\r\nHost: a\r\nno colon\r\n",
        "POST /x HTTP/1.1\r\nHost: a\r\nX\0: b\r\n",
        "POST /x HTTP/1.1\r\nHost: a\r\nX: b\0c\r\n",
        "POST /x HTTP/1.1\r\nHost: a\r\nX: b\rY: c\r\n",
        "POST /x HTTP/1.1\r\nHost: a\r\nX: b\r\r\n",
        "POST /x HTTP/1.1\r\nHost: a\r\nX: b\r\n folded\r\n",
        // The request line.
        "POST  /x HTTP/1.1\r\nHost: a\r\n",
        "POST /x  HTTP/1.1\r\nHost: a\r\n",
        "POST\t/x\tHTTP/1.1\r\nHost: a\r\n",
        "POST /x y HTTP/1.1\r\nHost: a\r\n",
        "POST /x\0 HTTP/1.1\r\nHost: a\r\n",
        "POST /x\r HTTP/1.1\r\nHost: a\r\n",
        "POST /x HTTP/1.1 \r\nHost: a\r\n",
        "POST /x HTTP/1.1 HTTP/1.1\r\nHost: a\r\n",
        "PO ST /x HTTP/1.1\r\nHost: a\r\n",
        "(POST) /x HTTP/1.1\r\nHost: a\r\n",
        " POST /x HTTP/1.1\r\nHost: a\r\n",
        "POST x HTTP/1.1\r\nHost: a\r\n",
        "GET x HTTP/1.1\r\nHost: a\r\n",
        "GET x:80 HTTP/1.1\r\nHost: x:80\r\n",
        "POST /x#fragment y HTTP/1.1\r\nHost: a\r\n",
        // Versions that are none, or none for this connection.
        "POST /x HTTP/1.2\r\nHost: a\r\n",
        "POST /x HTTP/0.9\r\nHost: a\r\n",
        "POST /x HTTP/2.0\r\nHost: a\r\n",
        "POST /x HTTP/11\r\nHost: a\r\n",
        "POST /x HTTP/1.10\r\nHost: a\r\n",
        "POST /x http/1.1\r\nHost: a\r\n",
        "POST /x HTTPS/1.1\r\nHost: a\r\n",
        // HTTP/0.9 has no head at all.
        "POST /x\r\n\r\n",
        "GET /x\r\n\r\n",
    ] {
        cases.push((format!("{head}{rest}"), Refused(400)));
    }
    // A connection of HTTP/1.1 stays one.
    let preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    cases.push((format!("GET /x HTTP/1.1\r\nHost: a\r\n\r\n{preface}"), Last("")));
    bench.check_all(&cases);
}

#[test]
fn an_odd_head_is_passed_on_as_everybody_reads_it() {
    let bench = Bench::start();
    for (sent, line, host) in [
        // An empty line before a request (RFC 9112, section 2.2), and lines that end in LF alone.
        (
            "\r\n\r\nPOST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab",
            "POST /x HTTP/1.1",
            "a",
        ),
        ("POST /x HTTP/1.1\nHost: a\nContent-Length: 2\n\nab", "POST /x HTTP/1.1", "a"),
        ("POST /x HTTP/1.1\r\nHost: a\nContent-Length: 2\r\n\nab", "POST /x HTTP/1.1", "a"),
        // The host of the target counts.
        (
            "POST http://b/x HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab",
            "POST /x HTTP/1.1",
            "b",
        ),
        // A body where few expect one.
        ("GET /x HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab", "GET /x HTTP/1.1", "a"),
        (
            "GET /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
            "GET /x HTTP/1.1",
            "a",
        ),
        (
            "OPTIONS /x HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab",
            "OPTIONS /x HTTP/1.1",
            "a",
        ),
        ("DELETE /x HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab", "DELETE /x HTTP/1.1", "a"),
        ("BREW /x HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab", "BREW /x HTTP/1.1", "a"),
        (
            "GET /x HTTP/1.1\r\nHost: a\r\nConnection: content-length\r\nContent-Length: 2\r\n\r\nab",
            "GET /x HTTP/1.1",
            "a",
        ),
        // Whoever upgrades does so after the body, and not to another kind of HTTP.
        (
            "GET /x HTTP/1.1\r\nHost: a\r\nConnection: upgrade, http2-settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMA\r\nContent-Length: 2\r\n\r\nab",
            "GET /x HTTP/1.1",
            "a",
        ),
        (
            "GET /x HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 2\r\n\r\nab",
            "GET /x HTTP/1.1",
            "a",
        ),
        (
            "POST /x HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\nab",
            "POST /x HTTP/1.1",
            "a",
        ),
    ] {
        let (statuses, text) = bench.answers(format!("{sent}{NEXT}").as_bytes());
        let told = format!("{sent:?} was answered {text:?}");
        assert_eq!(statuses, [200, 200], "{told}");
        let seen = bench.saw("/x", "ab", &told);
        assert_eq!((seen.line(), seen.all("host")), (line, vec![host]), "{told}");
        assert_eq!(seen.all("http2-settings"), Vec::<&str>::new(), "{told}");
        bench.saw("/next", "", &told);
        assert_eq!(bench.upstream.rest(), [], "{told}");
    }
}

#[test]
fn what_follows_a_request_that_is_refused_is_read_as_what_it_is() {
    let bench = Bench::start();
    bench.server.lock("/locked", json!({}));
    let length = SMUGGLED.len();
    for (fields, body, ends) in [
        // A body that is a request: it is the body.
        (format!("Content-Length: {length}"), SMUGGLED.to_owned(), false),
        (
            "Transfer-Encoding: chunked".to_owned(),
            format!("{length:x}\r\n{SMUGGLED}\r\n0\r\n\r\n"),
            false,
        ),
        // Refused, its client may send the body or not: it is read as one, or nothing is.
        (format!("Expect: 100-continue\r\nContent-Length: {length}"), SMUGGLED.to_owned(), true),
    ] {
        let head = format!("PUT /locked HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n");
        let (statuses, text) = bench.answers(format!("{head}{body}{NEXT}").as_bytes());
        match statuses[..] {
            [423, 200] => drop(bench.saw("/next", "", &text)),
            [423] if ends => {}
            _ => panic!("{fields:?}: {text:?}"),
        }
        assert_eq!(bench.upstream.rest(), [], "{fields:?}: {text:?}");
    }
    for method in ["CONNECT", "TRACE"] {
        let target = if method == "CONNECT" { "a:443" } else { "/x" };
        let sent = format!("{method} {target} HTTP/1.1\r\nHost: a\r\n\r\n{SMUGGLED}{NEXT}");
        let (found, text) = bench.answers(sent.as_bytes());
        assert_eq!(found[0], 405, "{text:?}");
        for seen in bench.upstream.rest() {
            // Where the connection goes on, these are requests of their own, and judged as such.
            assert!(
                matches!(seen.line(), "GET /smuggled HTTP/1.1" | "GET /next HTTP/1.1"),
                "{seen:?}"
            );
        }
    }
}

#[test]
fn trailers_say_nothing_that_only_a_head_may_say() {
    let bench = Bench::start();
    let sent = "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\
        Trailer: X-Sum, Content-Length, Transfer-Encoding, Host, X-Lock-Fence, Connection\r\n\r\n\
        2\r\nab\r\n0\r\nContent-Length: 99\r\nTransfer-Encoding: identity\r\nHost: b\r\n\
        X-Lock-Fence: 99\r\nConnection: close\r\nX-Sum: 6\r\n\r\n";
    let (statuses, text) = bench.answers(format!("{sent}{NEXT}").as_bytes());
    assert_eq!(statuses, [200, 200], "{text:?}");
    let seen = bench.saw("/x", "ab", &text);
    assert_eq!(seen.all("x-sum"), ["6"]);
    assert_eq!((seen.all("host"), seen.all("transfer-encoding")), (vec!["a"], vec!["chunked"]));
    for dropped in ["content-length", "x-lock-fence", "connection"] {
        assert_eq!(seen.all(dropped), Vec::<&str>::new(), "{dropped}");
    }
    bench.saw("/next", "", &text);
}
