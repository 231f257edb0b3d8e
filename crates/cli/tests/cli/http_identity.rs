//! Who a caller is: by a key in a field of its own, by what a proxy in front says, and by a token
//! that somebody else has signed.
#![expect(clippy::unwrap_used, reason = "the helpers of a test may panic like the test")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode, get_current_timestamp};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};

use crate::certificates;
use crate::common::{Ask, Server, Setup, json, until};

const PROXIED: &str = "[identity]\nmode = \"header\"\nheader = \"X-User\"\n\
    role_header = \"X-Groups\"\ntrusted_proxies = [\"127.0.0.0/8\"]\ndefault_role = \"writer\"\n\
    [[identity.role]]\nvalue = \"ops\"\nrole = \"manager\"\npaths = [\"/v1/**\"]\n\
    [[identity.role]]\nvalue = \"audit\"\nrole = \"auditor\"\n";

fn as_user(server: &Server, name: &str, groups: &str, method: &str, target: &str) -> Ask {
    server.ask(method, target).field("X-User", name).field("X-Groups", groups)
}

#[test]
fn a_proxy_says_who_the_caller_is_and_what_it_may_do() {
    let server = Server::with(PROXIED);
    let held = as_user(&server, "alice", "", "POST", "/v1/a/lock").send().ok(201).json();
    assert_eq!(held["holder"], "alice");
    let locked = as_user(&server, "bob", "dev", "PUT", "/v1/a").json(json!(1)).send();
    assert_eq!(locked.problem(423, "locked")["lock"]["holder"], "alice");
    // The token of alice does not make bob alice.
    let token = held["lock_token"].as_str().unwrap();
    let stolen = as_user(&server, "bob", "", "DELETE", "/v1/a/lock");
    stolen.field("X-Lock-Token", token).send().problem(403, "not-the-holder");
    let reason = json!({"reason": "gone"});
    let forbidden = as_user(&server, "bob", "dev", "POST", "/v1/a/lock/break");
    let forbidden = forbidden.json(reason.clone()).send();
    assert_eq!(forbidden.problem(403, "forbidden")["permission"], "break");
    as_user(&server, "carol", "dev, ops", "POST", "/v1/a/lock/break").json(reason).send().ok(200);
    let trail = || {
        let page = as_user(&server, "dave", "audit", "GET", "/-/audit?type=broken").send().ok(200);
        page.json()["items"].as_array().unwrap().first().cloned()
    };
    let broken = until("the event", trail);
    assert_eq!((&broken["actor"], &broken["holder"]), (&json!("carol"), &json!("alice")));
}

#[test]
fn without_the_proxys_word_nobody_is_let_in() {
    let server = Server::with(PROXIED);
    let nobody = server.get("/a");
    nobody.problem(401, "unauthenticated");
    let challenge = Some("Proxied realm=\"leasehold\", header=\"x-user\"");
    assert_eq!(nobody.field("www-authenticate"), challenge);
    let twice = server.ask("GET", "/a").field("X-User", "alice").field("x-user", "bob").send();
    assert_eq!(twice.problem(400, "malformed-request")["field"], "x-user");
    server.get("/-/health/live").ok(200);
    // A page of another site makes the browser send what proves its user to the proxy.
    let page = as_user(&server, "alice", "", "PUT", "/a").field("Origin", "https://evil.example");
    page.json(json!(1)).send().problem(403, "forbidden");
}

#[test]
fn a_stranger_cannot_say_who_he_is() {
    let server = Server::with(&PROXIED.replace("127.0.0.0/8", "10.0.0.0/8"));
    for method in ["GET", "PUT"] {
        as_user(&server, "alice", "ops", method, "/a").send().problem(403, "forbidden");
    }
    server.get("/-/health/live").ok(200);
}

#[test]
fn a_key_in_a_field_of_its_own_leaves_authorization_to_others() {
    let config = "[identity]\nkey_header = \"X-Leasehold-Key\"\n";
    let server = Setup::default().config(config).key("alice", "writer", None).start();
    let key = server.key("alice").to_owned();
    let ask = |method, target| server.ask(method, target).field("Authorization", "Bearer theirs");
    let put = ask("PUT", "/a").field("X-Leasehold-Key", &key).json(json!(1));
    put.send().ok(201);
    let refused = ask("GET", "/a").send();
    refused.problem(401, "unauthenticated");
    let challenge = Some("ApiKey realm=\"leasehold\", header=\"x-leasehold-key\"");
    assert_eq!(refused.field("www-authenticate"), challenge);
    server.by("alice", "GET", "/a").send().problem(401, "unauthenticated");
}

/// Whoever issues tokens: signs them, and serves the keys over HTTP.
struct Issuer {
    keys: Arc<Mutex<Vec<(String, EncodingKey)>>>,
    asked: Arc<AtomicUsize>,
    address: SocketAddr,
}

impl Issuer {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let issuer = Self { keys: Arc::default(), asked: Arc::default(), address };
        issuer.rotate("1");
        let (keys, asked) = (issuer.keys.clone(), issuer.asked.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut request = BufReader::new(&stream);
                let mut line = String::from("-");
                while !line.trim().is_empty() {
                    line.clear();
                    request.read_line(&mut line).unwrap();
                }
                asked.fetch_add(1, Ordering::SeqCst);
                let set: Vec<_> = keys.lock().unwrap().iter().map(public).collect();
                let body = json!({ "keys": set }).to_string();
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
                let _ = stream.write_all((head + &body).as_bytes());
            }
        });
        issuer
    }

    /// From now on there is this key and no other.
    fn rotate(&self, id: &str) {
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let key = EncodingKey::from_ec_der(pair.serialized_der());
        *self.keys.lock().unwrap() = vec![(id.to_owned(), key)];
    }

    fn bearer(&self, name: &str, groups: &[&str]) -> String {
        let keys = self.keys.lock().unwrap();
        let (id, key) = &keys[0];
        let header = Header { kid: Some(id.clone()), ..Header::new(Algorithm::ES256) };
        let claims = json!({"iss": "https://id.example/", "aud": "leasehold", "sub": name,
            "groups": groups, "exp": get_current_timestamp() + 300});
        format!("Bearer {}", encode(&header, &claims, key).unwrap())
    }
}

/// A server that takes this issuer's tokens, with its keys from `jwks` and these lines besides.
fn taking(jwks: &str, lines: &str) -> Server {
    Server::with(&format!(
        "[identity]\nmode = \"jwt\"\njwks = \"{jwks}/jwks.json\"\n{lines}\
         issuer = \"https://id.example/\"\naudience = \"leasehold\"\nrole_claim = \"groups\"\n\
         default_role = \"writer\"\n[[identity.role]]\nvalue = \"ops\"\nrole = \"manager\"\n"
    ))
}

fn public((id, key): &(String, EncodingKey)) -> serde_json::Value {
    let mut jwk = Jwk::from_encoding_key(key, Algorithm::ES256).unwrap();
    jwk.common.key_id = Some(id.clone());
    serde_json::to_value(jwk).unwrap()
}

#[test]
fn a_token_that_somebody_else_has_signed_says_who_the_caller_is() {
    let issuer = Issuer::start();
    let server = taking(&format!("http://{}", issuer.address), "");
    let ask =
        |bearer: &str, method, target| server.ask(method, target).field("Authorization", bearer);
    let alice = issuer.bearer("alice", &[]);
    let held = ask(&alice, "POST", "/a/lock").send().ok(201).json();
    assert_eq!(held["holder"], "alice");
    let reason = json!({"reason": "gone"});
    let forbidden = ask(&alice, "POST", "/a/lock/break").json(reason.clone()).send();
    assert_eq!(forbidden.problem(403, "forbidden")["permission"], "break");
    let carol = issuer.bearer("carol", &["ops"]);
    ask(&carol, "POST", "/a/lock/break").json(reason).send().ok(200);
    // Without one, and with one that does not count.
    let nobody = server.get("/a");
    nobody.problem(401, "unauthenticated");
    assert_eq!(nobody.field("www-authenticate"), Some("Bearer realm=\"leasehold\""));
    let refused = ask("Bearer a.b.c", "GET", "/a").send();
    refused.problem(401, "unauthenticated");
    let challenge = refused.field("www-authenticate").unwrap();
    assert!(challenge.contains("error=\"invalid_token\""), "{challenge}");
    // A new key is taken without a restart, and asked for once, whoever makes ids up.
    let before = issuer.asked.load(Ordering::SeqCst);
    issuer.rotate("2");
    let bob = issuer.bearer("bob", &[]);
    ask(&bob, "GET", "/a").send().problem(404, "not-found");
    ask(&alice, "GET", "/a").send().problem(401, "unauthenticated");
    issuer.rotate("3");
    ask(&issuer.bearer("bob", &[]), "GET", "/a").send().problem(401, "unauthenticated");
    assert_eq!(issuer.asked.load(Ordering::SeqCst), before + 1);
    server.signal("HUP");
    until("the third key", || {
        let reply = ask(&issuer.bearer("bob", &[]), "GET", "/a").send();
        (reply.status == 404).then_some(())
    });
    assert!(!server.log().contains("eyJ"), "no token is in the log");
}

#[test]
fn without_the_keys_of_tokens_it_is_said_that_they_cannot_be_had() {
    let nowhere = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let issuer = Issuer::start();
    let server = Server::with(&format!(
        "[identity]\nmode = \"jwt\"\njwks = \"http://{nowhere}/\"\naudience = \"leasehold\"\n\
         issuer = \"https://id.example/\"\ndefault_role = \"writer\"\n"
    ));
    let asked = server.ask("GET", "/a").field("Authorization", &issuer.bearer("alice", &[])).send();
    asked.problem(503, "unavailable");
    assert_eq!(asked.field("retry-after"), Some("10"));
    server.get("/-/health/live").ok(200);
}

#[test]
fn the_keys_of_tokens_can_come_from_behind_a_private_authority() {
    let (issuer, authority) = (Issuer::start(), certificates::Authority::new("ours"));
    let front = certificates::Setup::new(authority.issue(&["127.0.0.1"])).before(issuer.address);
    let folder = tempfile::tempdir().unwrap();
    for (trusted, status) in [(&authority, 404), (&certificates::Authority::new("theirs"), 503)] {
        let ca = folder.path().join("ca.pem");
        std::fs::write(&ca, trusted.pem()).unwrap();
        let server = taking(&front.url(), &format!("jwks_ca = {ca:?}\n"));
        let asked = server.ask("GET", "/a").field("Authorization", &issuer.bearer("alice", &[]));
        assert_eq!(asked.send().status, status);
    }
}
