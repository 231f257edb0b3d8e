//! Who a caller is: by a key in a field of its own, and by what a proxy in front says.

mod common;

use common::{Ask, Server, Setup, json, until};

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
