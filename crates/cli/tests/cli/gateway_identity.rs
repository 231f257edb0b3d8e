//! Who calls a gateway: what each identity mode sends on to the upstream, and the mode in which the
//! upstream alone knows.
#![expect(clippy::unwrap_used, reason = "the helpers of a test may panic like the test")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode, get_current_timestamp};

use crate::common::upstream::{Upstream, answer};
use crate::common::{Ask, Held, Server, Setup, json};

/// What the API got: the request line, and these of its fields.
type Asked = Arc<Mutex<Vec<(String, Vec<(String, String)>)>>>;

/// An API that knows alice and bob by their tokens, and which of them may see what.
struct Api {
    asked: Asked,
    is_down: Arc<AtomicBool>,
    url: String,
}

impl Api {
    fn start() -> Self {
        let upstream = Upstream::start();
        let (asked, is_down) = (Asked::default(), Arc::new(AtomicBool::new(false)));
        let api = Self { asked: asked.clone(), is_down: is_down.clone(), url: upstream.url() };
        upstream.answering(move |got| {
            asked.lock().unwrap().push((got.line.clone(), got.fields.clone()));
            let (method, target) = got.line.split_once(' ').unwrap();
            let path = target.split([' ', '?']).next().unwrap();
            let token = got.field("authorization").unwrap_or_default().to_owned();
            let cookie = got.field("cookie").unwrap_or_default().to_owned();
            let who = ["alice", "bob"].into_iter().find(|who| {
                token == format!("Bearer {who}") || cookie.contains(&format!("session={who}"))
            });
            let more = |status: &str, field: &str| {
                format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n{field}\r\n\r\n")
            };
            if is_down.load(Ordering::SeqCst) {
                return more("503 Service Unavailable", "Retry-After: 7");
            }
            match (method, path, who) {
                ("PUT" | "DELETE", ..) | (_, "/public", _) => answer("200 OK", ""),
                (_, "/moved", _) => more("302 Found", "Location: /login"),
                (_, _, None) => more("401 Unauthorized", "WWW-Authenticate: Bearer realm=\"api\""),
                ("HEAD", "/get", _) => answer("405 Method Not Allowed", ""),
                (_, "/slash", _) => more("301 Moved Permanently", "Location: /slash/"),
                (_, "/secret" | "/other/secret", Some("bob")) => answer("403 Forbidden", ""),
                (
                    _,
                    "/shared" | "/other" | "/secret" | "/get" | "/slash/" | "/v1/flags/7"
                    | "/other/secret",
                    _,
                ) => answer("200 OK", ""),
                _ => answer("404 Not Found", ""),
            }
        });
        api
    }

    /// A gateway before it that names callers after their credentials.
    fn gateway(&self, config: &str) -> Server {
        let identity = format!("[identity]\nmode = \"digest\"\n{config}");
        Setup::default().arg("--upstream").arg(&self.url).config(&identity).start()
    }

    /// The lines of what it was asked, less the version.
    fn lines(&self) -> Vec<String> {
        let asked = self.asked.lock().unwrap();
        asked.iter().map(|(line, _)| line.trim_end_matches(" HTTP/1.1").to_owned()).collect()
    }
}

/// A request with the token of `who`, if that is somebody.
fn by(server: &Server, who: &str, method: &str, target: &str) -> Ask {
    let ask = server.ask(method, target);
    if who.is_empty() { ask } else { ask.field("Authorization", &format!("Bearer {who}")) }
}

fn lock(server: &Server, who: &str, resource: &str) -> Held {
    Held::of(by(server, who, "POST", &format!("{resource}/lock")).send())
}

#[test]
fn what_was_made_up_locks_nothing() {
    let api = Api::start();
    let server = api.gateway("");
    for (who, resource, status, name) in [
        ("mallory", "/shared", 401, "unauthenticated"),
        ("", "/shared", 401, "unauthenticated"),
        ("", "/public", 401, "unauthenticated"),
        ("bob", "/secret", 403, "forbidden"),
        ("alice", "/absent", 404, "not-found"),
        // To a login, where it also sends those whom it does not know.
        ("mallory", "/moved", 403, "forbidden"),
    ] {
        let refused = by(&server, who, "POST", &format!("{resource}/lock?wait=5")).send();
        refused.problem(status, name);
        let challenge = refused.field("www-authenticate");
        let expected = match (who, resource) {
            ("", "/public") => Some("Upstream realm=\"leasehold\", header=\"authorization\""),
            _ => (status == 401).then_some("Bearer realm=\"api\""),
        };
        assert_eq!(challenge, expected, "{who} {resource}");
    }
    assert_eq!(server.get("/public/lock").ok(200).json()["locked"], false);
    // Those whom it knows are known here as the same from one request to the next.
    let held = lock(&server, "alice", "/shared");
    let name = held.body["holder"].as_str().unwrap();
    assert!(name.starts_with("digest:") && !name.contains("alice"), "{name}");
    by(&server, "alice", "PATCH", "/shared/lock").token(&held).send().ok(200);
    let locked = by(&server, "bob", "POST", "/shared/lock").send();
    assert_eq!(locked.problem(423, "locked")["lock"]["holder"], name);
    let stolen = by(&server, "bob", "DELETE", "/shared/lock").token(&held).send();
    stolen.problem(403, "not-the-holder");
    by(&server, "", "DELETE", "/shared/lock").token(&held).send().problem(401, "unauthenticated");
    by(&server, "alice", "DELETE", "/shared/lock").token(&held).send().ok(204);
}

#[test]
fn a_set_needs_each_of_its_members_to_be_shown() {
    let api = Api::start();
    let server = api.gateway("");
    let set = |who: &str| {
        let body = json!({"resources": ["/shared", "/secret"]});
        by(&server, who, "POST", "/-/locks").json(body).send()
    };
    set("bob").problem(403, "forbidden");
    set("").problem(401, "unauthenticated");
    assert_eq!(by(&server, "bob", "GET", "/shared/lock").send().ok(200).json()["locked"], false);
    let held = Held::of(set("alice"));
    // Its holder may look it up by its id; to whom it is not shown, nobody says whether it is.
    let by_id = format!("/-/locks/{}", held.id);
    by(&server, "alice", "GET", &by_id).send().ok(200);
    by(&server, "bob", "GET", &by_id).send().problem(403, "forbidden");
    by(&server, "", "GET", &by_id).send().problem(401, "unauthenticated");
    by(&server, "alice", "DELETE", &by_id).token(&held).send().ok(204);
}

#[test]
fn whom_a_resource_is_not_shown_learns_nothing_of_its_locks() {
    let api = Api::start();
    let server = api.gateway("");
    let body = json!({"reason": "the merger"});
    let held = Held::of(by(&server, "alice", "POST", "/secret/lock").json(body).send());
    let shown = by(&server, "alice", "GET", "/secret/lock").send().ok(200).json();
    assert_eq!(shown["locks"][0]["reason"], "the merger");
    for (who, status) in [("bob", 403), ("mallory", 401), ("", 401)] {
        for (method, endpoint) in [
            ("GET", ""),
            ("HEAD", ""),
            ("POST", ""),
            ("POST", "/request"),
            ("POST", "/break"),
            ("PUT", "/freeze"),
            ("DELETE", "/freeze"),
        ] {
            let asked = by(&server, who, method, &format!("/secret/lock{endpoint}"));
            assert_eq!(asked.send().status, status, "{who} {method} {endpoint}");
        }
        for stolen in [None, Some(&held)] {
            let write = by(&server, who, "PUT", "/secret").body("x");
            let write = stolen.into_iter().fold(write, |write, held| write.token(held)).send();
            let problem = write.problem(423, "locked");
            assert!(problem["lock"].is_null(), "{problem}");
            for hidden in [held.body["holder"].as_str().unwrap(), "merger"] {
                assert!(!problem.to_string().contains(hidden), "{problem}");
            }
        }
        let check = by(&server, who, "GET", "/-/check?deny=403").field("X-Forwarded-Method", "PUT");
        let denied = check.field("X-Forwarded-Uri", "/secret").send();
        assert!(denied.problem(403, "locked")["lock"].is_null());
        assert_eq!(denied.field("x-leasehold-holder"), None);
    }
    let refused = by(&server, "bob", "PUT", "/secret").body("x").send();
    assert_eq!(refused.problem(423, "locked")["detail"], "/secret is locked at the moment.");
    // A lock below stands in the way of one above; which one it is is told to whom it is shown.
    let below = lock(&server, "alice", "/other/secret");
    for (who, resource) in [("alice", json!("/other/secret")), ("bob", json!(null))] {
        let above = by(&server, who, "POST", "/other/lock").send().problem(423, "locked");
        assert_eq!(above["lock"]["resource"], resource);
    }
    let set = json!({"resources": ["/shared", "/other"]});
    let set = by(&server, "bob", "POST", "/-/locks").json(set).send().problem(423, "locked");
    assert!(set["lock"].is_null() && !set.to_string().contains("secret"), "{set}");
    by(&server, "alice", "DELETE", "/other/secret/lock").token(&below).send().ok(204);
    // What is about everything needs more than to be known to the upstream.
    for list in ["/-/locks", "/-/locks?resource=/secret"] {
        let items = |who| by(&server, who, "GET", list).send().ok(200).json()["items"].clone();
        assert_eq!(items("alice")[0]["lock_id"], held.id, "its own");
        assert_eq!(items("bob"), json!([]));
        by(&server, "", "GET", list).send().problem(401, "unauthenticated");
    }
    for list in ["/-/audit", "/-/events", "/-/metrics"] {
        by(&server, "alice", "GET", list).send().problem(403, "forbidden");
        by(&server, "", "GET", list).send().problem(401, "unauthenticated");
    }
    let reason = json!({"reason": "mine"});
    let broken = by(&server, "alice", "POST", "/secret/lock/break").json(reason).send();
    assert_eq!(broken.problem(403, "forbidden")["permission"], "break");
}

#[test]
fn what_is_given_by_name_holds_after_a_restart() {
    let api = Api::start();
    let mut server = api.gateway("");
    let held = lock(&server, "alice", "/shared");
    let name = held.body["holder"].as_str().unwrap();
    server.write_config(&format!(
        "[identity]\nmode = \"digest\"\n[[identity.role]]\nvalue = \"{name}\"\nrole = \"admin\"\n"
    ));
    server.restart();
    by(&server, "alice", "PATCH", "/shared/lock").token(&held).send().ok(200);
    let listed = by(&server, "alice", "GET", "/-/locks").send().ok(200).json();
    assert_eq!(listed["items"][0]["holder"], name);
    by(&server, "alice", "GET", "/-/audit").send().ok(200);
    let other = lock(&server, "bob", "/other");
    let listed = by(&server, "alice", "GET", "/-/locks").send().ok(200).json();
    assert_eq!(listed["items"][1]["lock_id"], other.id);
    by(&server, "bob", "GET", "/-/audit").send().problem(403, "forbidden");
    let reason = json!({"reason": "gone"});
    by(&server, "alice", "POST", "/other/lock/break").json(reason).send().ok(200);
    by(&server, "bob", "PATCH", "/other/lock").token(&other).send().problem(410, "lock-gone");
    // Who has frozen what, and why, is told to whom it is shown.
    let freeze = json!({"reason": "the merger", "until": other.body["expires_at"]});
    by(&server, "alice", "PUT", "/secret/lock/freeze").json(freeze).send().ok(200);
    let frozen = |who| {
        let write = by(&server, who, "PUT", "/secret").body("x").send();
        write.problem(423, "frozen")["freeze"]["by"].clone()
    };
    assert_eq!((frozen("alice"), frozen("bob")), (json!(name), json!(null)));
}

#[test]
fn the_upstream_is_asked_for_what_was_asked_for_and_with_nothing_else() {
    let api = Api::start();
    let rule = "[[rule]]\nmatch = [\"/v1/flags/{id}\"]\nresource = \"/flags/{id}\"\n";
    let server = api.gateway(rule);
    let ask = by(&server, "alice", "POST", "/v1/flags/7/lock?wait=0")
        .field("X-HTTP-Method-Override", "DELETE")
        .field("If-None-Match", "*")
        .field("Cookie", "session=bob")
        .field("X-Forwarded-For", "6.6.6.6");
    assert_eq!(Held::of(ask.json(json!({})).send()).body["resource"], "/flags/7");
    {
        let asked = api.asked.lock().unwrap();
        let [(line, fields)] = &asked[..] else { unreachable!("{asked:?}") };
        assert_eq!(line, "HEAD /v1/flags/7 HTTP/1.1");
        let mut names: Vec<String> =
            fields.iter().map(|(name, _)| name.to_ascii_lowercase()).collect();
        names.sort_unstable();
        let expected = [
            "accept",
            "authorization",
            "forwarded",
            "host",
            "via",
            "x-forwarded-for",
            "x-forwarded-host",
            "x-forwarded-proto",
        ];
        assert_eq!(names, expected);
        let host = ("host".to_owned(), server.address().to_string());
        assert!(fields.contains(&host), "{fields:?}");
    }
    // By the name that the rule gives, the API knows nothing.
    by(&server, "alice", "POST", "/flags/7/lock").send().problem(404, "not-found");
    // HEAD is not for everything, and the URL of a lock has no slash at its end.
    lock(&server, "alice", "/get");
    lock(&server, "alice", "/slash");
    let expected = [
        "HEAD /v1/flags/7",
        "HEAD /flags/7",
        "HEAD /get",
        "GET /get",
        "HEAD /slash",
        "HEAD /slash/",
    ];
    assert_eq!(api.lines(), expected);
}

#[test]
fn only_a_yes_is_remembered() {
    let api = Api::start();
    let server = api.gateway("");
    let asked = |expected: usize| {
        let lines = api.lines();
        assert_eq!(lines.len(), expected, "{lines:?}");
    };
    lock(&server, "alice", "/shared");
    by(&server, "alice", "POST", "/shared/lock").send().problem(423, "locked");
    by(&server, "alice", "GET", "/shared/lock").send().ok(200);
    asked(1);
    by(&server, "bob", "GET", "/shared/lock").send().ok(200);
    asked(2);
    for more in 1..4 {
        by(&server, "mallory", "GET", "/shared/lock").send().problem(401, "unauthenticated");
        asked(2 + more);
    }
    by(&server, "alice", "GET", "/other/lock").send().ok(200);
    asked(6);
}

#[test]
fn an_upstream_that_does_not_answer_takes_no_lock_away_and_gives_none() {
    let api = Api::start();
    let server = api.gateway("");
    let held = lock(&server, "alice", "/shared");
    api.is_down.store(true, Ordering::SeqCst);
    let refused = by(&server, "alice", "POST", "/other/lock").send();
    let problem = refused.problem(502, "upstream-unreachable");
    assert_eq!((&problem["outcome"], &problem["retryable"]), (&json!("not_sent"), &json!("same")));
    assert_eq!(refused.field("retry-after"), Some("7"));
    by(&server, "alice", "PATCH", "/shared/lock").token(&held).send().ok(200);
    by(&server, "alice", "DELETE", "/shared/lock").token(&held).send().ok(204);

    let silent = Upstream::start();
    let setup = Setup::default().arg("--upstream").arg(&silent.url()).arg("--identity");
    let server = setup.arg("digest").arg("--upstream-timeout").arg("200ms").start();
    let problem = by(&server, "alice", "POST", "/a/lock").send().problem(504, "upstream-timeout");
    assert_eq!((&problem["outcome"], &problem["retryable"]), (&json!("not_sent"), &json!("same")));
    assert!(problem["detail"].as_str().unwrap().contains("may see /a."), "{problem}");
}

#[test]
fn a_cookie_can_be_what_a_caller_is_known_by() {
    let api = Api::start();
    let server = api.gateway("credential_cookies = [\"session\"]\n");
    let ask = |cookies: &str, method, target| server.ask(method, target).field("Cookie", cookies);
    let held = Held::of(ask("theme=dark; session=alice", "POST", "/shared/lock").send());
    ask("session=alice", "PATCH", "/shared/lock").token(&held).send().ok(200);
    let stolen = ask("session=bob", "DELETE", "/shared/lock").token(&held).send();
    stolen.problem(403, "not-the-holder");
    ask("session=mallory", "POST", "/shared/lock").send().problem(401, "unauthenticated");
    // A page of another site makes the browser send the cookie: no lock comes of that, and what
    // such a page may write the upstream says.
    let evil = "https://evil.example";
    let forged = ask("session=alice", "POST", "/other/lock").field("Origin", evil);
    forged.send().problem(403, "forbidden");
    ask("session=alice", "PUT", "/other").field("Origin", evil).body("x").send().ok(200);
}

/// What the upstream gets of these fields, under each of their names, by a gateway set up so.
fn sent_on(setup: Setup, fields: impl Fn(&Server) -> Vec<(String, String)>) -> Vec<String> {
    let upstream = Upstream::start();
    let server = setup.arg("--upstream").arg(&upstream.url()).start();
    let got = Asked::default();
    let keep = got.clone();
    upstream.answering(move |request| {
        keep.lock().unwrap().push((request.line.clone(), request.fields.clone()));
        answer("200 OK", "")
    });
    let fields = fields(&server);
    for (method, target) in [("GET", "/a"), ("PUT", "/b")] {
        let ask = server.ask(method, target).body("");
        fields.iter().fold(ask, |ask, (name, value)| ask.field(name, value)).send().ok(200);
    }
    let got = got.lock().unwrap();
    let [(_, read), (_, write)] = &got[..] else { unreachable!("{got:?}") };
    let of = |all: &[(String, String)]| -> Vec<String> {
        let asked = |name: &str| fields.iter().any(|(each, _)| each.eq_ignore_ascii_case(name));
        let kept = all.iter().filter(|(name, _)| asked(name));
        kept.map(|(name, value)| format!("{name}: {value}")).collect()
    };
    assert_eq!(of(read), of(write));
    of(read)
}

fn field(name: &str, value: &str) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

#[test]
fn what_shows_who_calls_here_stays_here_and_the_rest_goes_on() {
    let theirs = || field("authorization", "Basic dGhlaXJzOm93bg==");
    let as_it_came = |fields: &[(String, String)]| -> Vec<String> {
        fields.iter().map(|(name, value)| format!("{name}: {value}")).collect()
    };
    let all = |fields: Vec<(String, String)>| move |_: &Server| fields.clone();

    // Nobody is asked: it is the upstream's.
    assert_eq!(sent_on(Setup::default(), all(vec![theirs()])), as_it_came(&[theirs()]));

    // A key of this server is none of the upstream's business, wherever it came.
    let keys = |config: &str| Setup::default().config(config).key("alice", "writer", None);
    let bearer =
        |server: &Server| vec![field("authorization", &format!("Bearer {}", server.key("alice")))];
    assert!(sent_on(keys(""), bearer).is_empty());
    let apart = |server: &Server| vec![theirs(), field("x-leasehold-key", server.key("alice"))];
    let config = "[identity]\nkey_header = \"X-Leasehold-Key\"\n";
    assert_eq!(sent_on(keys(config), apart), as_it_came(&[theirs()]));

    // What the proxy in front says is for everyone behind it.
    let config = "[identity]\nmode = \"header\"\nheader = \"X-User\"\nrole_header = \"X-Groups\"\n\
         trusted_proxies = [\"127.0.0.1\"]\ndefault_role = \"writer\"\n";
    let said = vec![theirs(), field("x-user", "alice"), field("x-groups", "dev, ops")];
    let setup = Setup::default().config(config);
    assert_eq!(sent_on(setup, all(said.clone())), as_it_came(&said));

    // A token of the identity provider may be what the upstream wants, too.
    let key = EncodingKey::from_secret(b"0123456789abcdef0123456789abcdef");
    let folder = tempfile::tempdir().unwrap();
    let jwks = folder.path().join("jwks.json");
    let public = Jwk::from_encoding_key(&key, Algorithm::HS256).unwrap();
    std::fs::write(&jwks, json!({ "keys": [public] }).to_string()).unwrap();
    let config = format!(
        "[identity]\nmode = \"jwt\"\njwks = {jwks:?}\nalgorithms = [\"HS256\"]\n\
         issuer = \"https://id.example/\"\naudience = []\ndefault_role = \"writer\"\n"
    );
    let claims = json!({"iss": "https://id.example/", "sub": "alice",
        "exp": get_current_timestamp() + 300});
    let token = encode(&Header::default(), &claims, &key).unwrap();
    let shown = vec![field("authorization", &format!("Bearer {token}")), field("cookie", "a=b")];
    let setup = Setup::default().config(&config);
    assert_eq!(sent_on(setup, all(shown.clone())), as_it_came(&shown));

    // Where the upstream alone knows, everything is its own.
    let config = "[identity]\nmode = \"digest\"\ncredential_headers = [\"X-Api-Key\"]\n\
        credential_cookies = [\"session\"]\n";
    let shown = vec![theirs(), field("x-api-key", "k"), field("cookie", "session=s; theme=dark")];
    let setup = Setup::default().config(config);
    assert_eq!(sent_on(setup, all(shown.clone())), as_it_came(&shown));
}

#[test]
fn the_upstream_of_a_rule_is_asked_about_what_is_there() {
    let (api, other) = (Api::start(), Upstream::start());
    let url = other.url();
    other.answering(|_| answer("404 Not Found", ""));
    let server =
        api.gateway(&format!("[[rule]]\nmatch = [\"/shared/**\"]\nupstream = \"{url}\"\n"));
    by(&server, "alice", "POST", "/shared/lock").send().problem(404, "not-found");
    lock(&server, "alice", "/secret");
    assert_eq!(api.lines(), ["HEAD /secret"]);
}
