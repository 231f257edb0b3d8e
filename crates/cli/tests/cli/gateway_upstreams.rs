//! Section 9 of the wire contract: which upstream a request goes to, and TLS on the way.

use std::fs;

use crate::certificates::{self, Authority};
use crate::common::upstream::{Upstream, answer};
use crate::common::{Server, Setup, json, until};

/// An upstream that answers every request with its own name, and where it is.
fn named(name: &'static str) -> String {
    let upstream = Upstream::start();
    let url = upstream.url();
    upstream.answering(move |_| answer("200 OK", name));
    url
}

fn told(server: &Server, method: &str, target: &str) -> String {
    server.ask(method, target).body("").send().text().to_owned()
}

#[test]
fn rules_send_what_they_match_to_an_upstream_of_its_own() {
    let (one, two, all) = (named("one"), named("two"), named("all"));
    let rules = format!(
        "[[rule]]\nmatch = [\"/one/**\"]\nupstream = \"{one}\"\n\
         [[rule]]\nmatch = [\"/two/{{id}}\"]\nupstream = \"{two}\"\nquery = [\"v\"]\n"
    );
    let server = Setup::default().config(&rules).arg("--upstream").arg(&all).start();
    for method in ["GET", "PUT"] {
        assert_eq!(told(&server, method, "/one/x"), "one");
        assert_eq!(told(&server, method, "/two/x?v=1"), "two");
        assert_eq!(told(&server, method, "/three"), "all");
    }
    // Its path has a rule, though nobody can say which resource it is.
    assert_eq!(told(&server, "GET", "/two/x?v=1&v=2"), "two");
    assert_eq!(told(&server, "GET", "/one//x"), "all");
    // One table of locks for all of them.
    let held = server.post("/-/locks", json!({"resources": ["/one/x", "/three"]}));
    assert_eq!(held.status, 201);
    server.ask("PUT", "/one/x").body("").send().problem(423, "locked");
    server.ask("PUT", "/three").body("").send().problem(423, "locked");
}

#[test]
fn without_one_for_everything_only_what_a_rule_names_has_an_upstream() {
    let (one, two) = (named("one"), named("two"));
    let rule = |name: &str, url: &str| {
        format!("[[rule]]\nmatch = [\"/{name}/**\"]\nupstream = \"{url}\"\n")
    };
    let server = Server::with(&rule("one", &one));
    assert_eq!(told(&server, "PUT", "/one/x"), "one");
    for method in ["GET", "PUT"] {
        server.ask(method, "/two/x").body("").send().problem(404, "not-found");
    }
    // Rules change while it runs, and their upstreams with them.
    server.write_config(&format!("{}{}", rule("one", &two), rule("two", &one)));
    server.signal("HUP");
    until("the new rules", || (told(&server, "PUT", "/one/x") == "two").then_some(()));
    assert_eq!(told(&server, "PUT", "/two/x"), "one");
}

#[test]
fn a_rule_says_how_long_its_upstream_may_be_silent() {
    let upstream = Upstream::start();
    let config = "[[rule]]\nmatch = [\"/quick/**\"]\nupstream_timeout = \"200ms\"\n";
    let server = Setup::default().config(config).arg("--upstream").arg(&upstream.url()).start();
    let mut patient = server.ask("PUT", "/slow").body("1").start();
    let mut peer = upstream.accept();
    peer.request();
    server.ask("PUT", "/quick/x").body("1").send().problem(504, "upstream-timeout");
    peer.send(answer("200 OK", "late"));
    assert_eq!(patient.reply(false).text(), "late");
}

#[test]
fn an_upstream_is_spoken_to_over_tls_and_only_if_it_proves_who_it_is() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let upstream = Upstream::start();
    let behind = upstream.address();
    upstream.answering(|got| answer("200 OK", &got.line));
    let front = |authority: &Authority| {
        let setup = certificates::Setup::new(authority.issue(&["127.0.0.1"])).clients_of(&ours);
        setup.before(behind).url()
    };
    let (trusted, stranger) = (front(&ours), front(&theirs));
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| {
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let ca = file("ca.pem", &ours.pem());
    let own = file("own.pem", &theirs.issue(&["gateway"]).pem());
    let rules = format!("[[rule]]\nmatch = [\"/stranger/**\"]\nupstream = \"{stranger}\"\n");
    let args = ["--upstream", &trusted, "--upstream-ca", &ca, "--upstream-identity", &own];
    let setup = Setup::default().config(&rules);
    let server = args.iter().fold(setup, |setup, arg| setup.arg(arg)).start();

    // Its certificate is of an authority that nobody has named.
    for method in ["GET", "PUT"] {
        let refused = server.ask(method, "/stranger/x").body("1").send();
        let problem = refused.problem(502, "upstream-unreachable");
        assert_eq!(problem["outcome"], "not_sent");
        assert!(problem["detail"].as_str().unwrap().contains("no TLS with the upstream"));
    }
    // And it does not take the gateway for who it says it is, until that changes.
    server.ask("GET", "/x").send().problem(502, "upstream-unreachable");
    file("own.pem", &ours.issue(&["gateway"]).pem());
    server.signal("HUP");
    until("the new certificate", || (server.get("/x").status == 200).then_some(()));
    let held = server.lock("/x", json!({}));
    server.ask("PUT", "/x").body("1").send().problem(423, "locked");
    let written = server.ask("PUT", "/x").token(&held).body("1").send();
    assert_eq!(written.text(), "PUT /x HTTP/1.1");
}
