//! Section 8 of the wire contract: keys, roles, browsers; and that nothing tells a secret.
#![expect(clippy::unwrap_used, reason = "the helpers of a test may panic like the test")]

use serde_json::Value;

use crate::common::{Server, Setup, add_key, json, leasehold, until};

#[test]
fn without_a_key_that_is_known_everything_but_the_public_paths_is_401() {
    let server = Server::with_keys(&[("alice", "admin")]);
    for (method, at) in [
        ("GET", "/a"),
        ("PUT", "/a"),
        ("OPTIONS", "/a"),
        ("GET", "/a/lock"),
        ("POST", "/a/lock"),
        ("GET", "/-/locks"),
        ("GET", "/-/audit"),
        ("GET", "/-/events"),
        ("GET", "/-/metrics"),
        ("POST", "/-/batch"),
        ("GET", "/-/check"),
        ("GET", "/-/nothing"),
        ("PUT", "/a/lock/freeze"),
    ] {
        let reply = server.ask(method, at).send();
        reply.problem(401, "unauthenticated");
        assert_eq!(
            reply.all("www-authenticate"),
            ["Basic realm=\"leasehold\", charset=\"UTF-8\"", "Bearer"],
            "{at}"
        );
        // No Basic to a browser's fetch: it would ask its user.
        let fetch = server.ask(method, at).field("Sec-Fetch-Mode", "cors").send();
        assert_eq!(fetch.all("www-authenticate"), ["Bearer"]);
    }
    for at in [
        "/-/health/live",
        "/-/health/ready",
        "/-/problems/locked",
        "/-/problems",
        "/-/openapi.json",
    ] {
        server.get(at).ok(200);
        // A wrong key does not matter there.
        server.ask("GET", at).field("Authorization", "Bearer nonsense").send().ok(200);
    }
    let key = server.key("alice").to_owned();
    for sent in [
        "Bearer nonsense",
        "Bearer",
        "Basic nonsense",
        &key,
        &format!("Bearer {key}x"),
        "Digest a=b",
    ] {
        let reply = server.ask("GET", "/a").field("Authorization", sent).send();
        reply.problem(401, "unauthenticated");
        assert!(!reply.text().contains(&key));
    }
    let twice =
        server.by("alice", "GET", "/a").field("Authorization", &format!("Bearer {key}")).send();
    twice.problem(400, "malformed-request");
    server.by("alice", "GET", "/a").send().problem(404, "not-found");
}

#[test]
fn each_role_may_what_it_may_and_no_more() {
    let roles = ["reader", "writer", "manager", "auditor", "admin"];
    let server = Server::with_keys(&roles.map(|role| (role, role)));
    server.by("admin", "PUT", "/a").json(json!(1)).send().ok(201);
    let id = "00000000-0000-4000-8000-000000000000";
    let (by_id, break_id) = (format!("/-/locks/{id}"), format!("/-/locks/{id}/break"));
    for (method, at, permission, allowed) in [
        ("GET", "/a", "read", &roles[..]),
        ("OPTIONS", "/a", "read", &roles),
        ("GET", "/a/lock", "read", &roles),
        ("PUT", "/a", "write", &["writer", "manager", "admin"]),
        ("DELETE", "/none", "write", &["writer", "manager", "admin"]),
        ("POST", "/-/check", "write", &["writer", "manager", "admin"]),
        ("POST", "/b/lock", "lock", &["writer", "manager", "admin"]),
        ("PATCH", "/b/lock", "lock", &["writer", "manager", "admin"]),
        ("DELETE", "/b/lock", "lock", &["writer", "manager", "admin"]),
        ("POST", "/b/lock/transfer", "lock", &["writer", "manager", "admin"]),
        ("POST", "/b/lock/request", "lock", &["writer", "manager", "admin"]),
        ("POST", "/b/lock/break", "break", &["manager", "admin"]),
        ("POST", &break_id, "break", &["manager", "admin"]),
        ("PUT", "/b/lock/freeze", "freeze", &["manager", "admin"]),
        ("DELETE", "/b/lock/freeze", "freeze", &["manager", "admin"]),
        ("GET", &by_id, "read", &roles),
        ("GET", "/-/audit", "audit", &["auditor", "admin"]),
        ("HEAD", "/-/events", "audit", &["auditor", "admin"]),
        ("GET", "/-/metrics", "admin", &["admin"]),
    ] {
        for role in roles {
            let ask = server
                .by(role, method, at)
                .field("X-Forwarded-Method", "PUT")
                .field("X-Forwarded-Uri", "/a");
            let reply = ask.send();
            if allowed.contains(&role) {
                assert!(!matches!(reply.status, 401 | 403), "{role} {method} {at}: {reply:?}");
            } else if method == "HEAD" {
                assert_eq!(reply.status, 403);
            } else {
                let problem = reply.problem(403, "forbidden");
                assert_eq!(problem["permission"], permission, "{role} {method} {at}");
            }
        }
    }
    let batch = json!({"operations": [{"method": "PUT", "resource": "/a", "body": 2}]});
    let reply = server.by("reader", "POST", "/-/batch").json(batch).send();
    assert_eq!(reply.problem(403, "forbidden")["permission"], "write");
    let set = server.by("reader", "POST", "/-/locks").json(json!({"resources": ["/a"]})).send();
    assert_eq!(set.problem(403, "forbidden")["permission"], "lock");
}

#[test]
fn a_role_that_is_narrowed_ends_where_its_pattern_does() {
    let server = Setup::default()
        .key("team", "manager", Some("/team/**"))
        .key("ears", "auditor", Some("/team/**"))
        .key("root", "admin", None)
        .start();
    server.by("team", "PUT", "/team/a").json(json!(1)).send().ok(201);
    server.lock_by("team", "/team/a", json!({}));
    let elsewhere = server.lock_by("root", "/elsewhere", json!({}));
    for (method, at) in [
        ("GET", "/elsewhere"),
        ("PUT", "/elsewhere"),
        ("GET", "/elsewhere/lock"),
        ("POST", "/teams/lock"),
        ("POST", "/elsewhere/lock/break"),
    ] {
        server.by("team", method, at).json(json!({"reason": "x"})).send().problem(403, "forbidden");
    }
    // A set with one resource outside, a batch with one operation outside.
    let set = json!({"resources": ["/team/b", "/elsewhere2"]});
    server.by("team", "POST", "/-/locks").json(set).send().problem(403, "forbidden");
    let batch = json!({"operations": [
        {"method": "PUT", "resource": "/team/c", "body": 1}, {"method": "PUT", "resource": "/elsewhere2", "body": 1},
    ]});
    let refused =
        server.by("team", "POST", "/-/batch").json(batch).send().problem(403, "forbidden");
    assert_eq!(refused["index"], 1);
    // By its id it is the same lock.
    let at = format!("/-/locks/{}", elsewhere.id);
    server.by("team", "GET", &at).send().problem(403, "forbidden");
    server
        .by("team", "POST", &format!("{at}/break"))
        .json(json!({"reason": "x"}))
        .send()
        .problem(403, "forbidden");
    server.by("team", "PATCH", &at).token(&elsewhere).send().problem(403, "not-the-holder");
    // Lists leave out what it may not see.
    let listed = server.by("team", "GET", "/-/locks").send().ok(200).json();
    assert_eq!(listed["items"].as_array().unwrap().len(), 1);
    server.by("team", "GET", "/-/locks?resource=/elsewhere").send().problem(403, "forbidden");
    let trail = server.by("ears", "GET", "/-/audit?resource=/team").send().ok(200);
    assert!(!trail.json()["items"].as_array().unwrap().is_empty());
    assert!(!trail.text().contains("elsewhere"), "{trail:?}");
    server.by("ears", "GET", "/-/audit").send().problem(403, "forbidden");
    server.by("ears", "GET", "/-/audit?resource=/").send().problem(403, "forbidden");
    // An event about both is not shown to who may see one.
    server.lock_by("root", "/x", json!({}));
    let both = json!({"resources": ["/team/both", "/secret"]});
    server.by("root", "POST", "/-/locks").json(both).send().ok(201);
    let trail = server.by("ears", "GET", "/-/audit?resource=/team").send().ok(200);
    assert!(!trail.text().contains("secret"), "{trail:?}");
    let inspected = server.by("team", "GET", "/team/both/lock").send().ok(200);
    assert_eq!(inspected.json()["locked"], true);
}

#[test]
fn an_etag_of_what_one_may_not_read_is_not_told_by_a_condition() {
    let server =
        Setup::default().key("team", "writer", Some("/team/**")).key("root", "admin", None).start();
    let etag = server.by("root", "PUT", "/secret").json(json!(1)).send().ok(201).etag();
    for condition in [etag.as_str(), "\"x\""] {
        let content = format!("</secret> ([{condition}])");
        let reply = server.by("team", "PUT", "/team/a").field("If", &content).json(json!(1)).send();
        reply.problem(403, "forbidden");
    }
}

#[test]
fn a_key_is_taken_and_dropped_without_a_restart() {
    let server = Server::with_keys(&[("alice", "admin")]);
    let key = add_key(server.data(), "late", "reader", None);
    let ask =
        || server.ask("GET", "/a").field("Authorization", &format!("Bearer {key}")).send().status;
    until("the key to be known", || (ask() == 404).then_some(()));
    let data = server.data().to_str().unwrap();
    let removed = leasehold(&["key", "rm", "late", "--data", data]).output().unwrap();
    assert!(removed.status.success());
    until("the key to be forgotten", || (ask() == 401).then_some(()));
}

#[test]
fn pages_of_other_sites_cannot_use_the_browser_in_anonymous_mode() {
    let server = Server::with("cors_origins = [\"https://app.example\"]\n");
    let send = |method: &str, fields: &[(&str, &str)]| {
        let ask = fields
            .iter()
            .fold(server.ask(method, "/a"), |ask, (name, content)| ask.field(name, content));
        ask.json(json!(1)).send()
    };
    send("PUT", &[("Sec-Fetch-Site", "cross-site")]).problem(403, "forbidden");
    send("PUT", &[("Origin", "https://evil.example")]).problem(403, "forbidden");
    send("GET", &[("Origin", "https://evil.example")]).problem(403, "forbidden");
    send("PUT", &[("Origin", "null")]).problem(403, "forbidden");
    send("PUT", &[("Sec-Fetch-Site", "same-origin")]).ok(201);
    send("GET", &[("Sec-Fetch-Site", "cross-site")]).ok(200);
    let own = format!("http://{}", server.address());
    send("PUT", &[("Origin", &own)]).ok(204);
    let lock = server.ask("POST", "/a/lock").field("Origin", "https://evil.example").send();
    lock.problem(403, "forbidden");
    let batch =
        server.ask("POST", "/-/batch").field("Sec-Fetch-Site", "cross-site").json(json!({})).send();
    batch.problem(403, "forbidden");
}

#[test]
fn every_answer_to_a_listed_origin_has_the_cors_fields() {
    let server = Server::with("cors_origins = [\"https://app.example\"]\n");
    let from =
        |method: &str, at: &str| server.ask(method, at).field("Origin", "https://app.example");
    let replies = [
        from("PUT", "/a").json(json!(1)).send(),
        from("GET", "/a").send(),
        from("GET", "/none").send(),
        from("POST", "/a/lock").send(),
        from("PUT", "/a").json(json!(1)).send(),
        from("GET", "/a//b").send(),
        from("GET", "/-/locks").send(),
        from("OPTIONS", "/a").send(),
    ];
    assert_eq!(
        replies.each_ref().map(|reply| reply.status),
        [201, 200, 404, 201, 423, 400, 200, 204]
    );
    for reply in replies {
        assert_eq!(
            reply.field("access-control-allow-origin"),
            Some("https://app.example"),
            "{reply:?}"
        );
        let exposed = reply.field("access-control-expose-headers").unwrap();
        for name in [
            "ETag",
            "Location",
            "Retry-After",
            "Link",
            "Lock-Token",
            "Preference-Applied",
            "Idempotency-Replayed",
            "X-Lock-Requested-By",
            "RateLimit",
            "RateLimit-Policy",
        ] {
            assert!(exposed.contains(name), "{exposed}");
        }
        assert!(reply.all("vary").iter().any(|vary| vary.contains("Origin")));
    }
    let preflight = from("OPTIONS", "/a")
        .field("Access-Control-Request-Method", "PUT")
        .field("Access-Control-Request-Headers", "x-lock-token, content-type")
        .send()
        .ok(204);
    assert_eq!(preflight.field("access-control-allow-headers"), Some("x-lock-token, content-type"));
    assert!(preflight.field("access-control-allow-methods").unwrap().contains("PUT"));
    let other = server
        .ask("OPTIONS", "/a")
        .field("Origin", "https://evil.example")
        .field("Access-Control-Request-Method", "PUT")
        .send();
    assert!(other.field("access-control-allow-origin").is_none());
}

#[test]
fn anonymous_mode_binds_to_loopback_only() {
    let root = tempfile::tempdir().unwrap();
    let out =
        leasehold(&["serve", "--listen", "0.0.0.0:0", "--data"]).arg(root.path()).output().unwrap();
    assert_eq!(out.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&out.stderr).contains("--identity keys"));
}

/// Every file below `folder`, as bytes.
fn files(folder: &std::path::Path, all: &mut Vec<(std::path::PathBuf, Vec<u8>)>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, all);
        } else if let Ok(bytes) = std::fs::read(&path) {
            all.push((path, bytes));
        }
    }
}

#[test]
fn no_secret_is_told_anywhere_but_in_the_grant() {
    let mut server = Setup::default()
        .arg("--log")
        .arg("trace")
        .key("alice", "admin", None)
        .key("bob", "admin", None)
        .start();
    let held = server.lock_by("alice", "/a", json!({"reason": "r"}));
    let mut told = Vec::new();
    let mut ask = |name: &str, method: &str, at: &str, body: Value| {
        let reply = server.by(name, method, at).token(&held).json(body).send();
        told.push((format!("{method} {at}"), format!("{reply:?}")));
        reply.status
    };
    assert_eq!(ask("alice", "PUT", "/a", json!(1)), 201);
    assert_eq!(ask("alice", "PATCH", "/a/lock", json!({})), 200);
    for (name, method, at, body) in [
        ("bob", "PUT", "/a", json!(1)),
        ("bob", "PATCH", "/a/lock", json!({})),
        ("alice", "PUT", "/b", json!(1)),
        ("alice", "PATCH", "/a/lock", json!({"ttl_seconds": 0})),
        ("alice", "GET", "/a/lock", json!(null)),
        ("alice", "GET", "/-/locks", json!(null)),
        ("bob", "POST", "/a/lock", json!({})),
        ("bob", "POST", "/a/lock/request", json!({})),
        ("bob", "POST", "/a/lock/break?dry_run=true", json!({"reason": "x"})),
        ("alice", "GET", "/-/audit?limit=1000", json!(null)),
        ("alice", "GET", "/-/metrics", json!(null)),
        ("bob", "POST", "/a/lock/break", json!({"reason": "x"})),
        ("alice", "PUT", "/a", json!(1)),
        ("alice", "DELETE", "/a/lock", json!({})),
        (
            "alice",
            "POST",
            "/-/batch",
            json!({"operations": [{"method": "PUT", "resource": "/a", "body": 1}]}),
        ),
    ] {
        ask(name, method, at, body);
    }
    let uri = format!("/a?token={}", held.token);
    server.by("alice", "GET", &uri).send();
    let malformed =
        server.by("alice", "PUT", "/a").field("Lock-Token", &held.token).json(json!(1)).send();
    told.push(("malformed".to_owned(), format!("{malformed:?}")));
    let keys = [server.key("alice").to_owned(), server.key("bob").to_owned()];
    let secrets: Vec<String> = keys
        .iter()
        .map(|key| key.rsplit('_').next().unwrap().to_owned())
        .chain([held.token.clone(), held.token["lock_".len()..].to_owned()])
        .collect();
    for (what, answer) in &told {
        for secret in &secrets {
            assert!(!answer.contains(secret.as_str()), "{what} tells a secret:\n{answer}");
        }
    }
    server.signal("TERM");
    assert!(server.ended().success());
    let mut all = vec![("the log".into(), server.log().into_bytes())];
    assert!(all[0].1.len() > 1000, "the log is at trace");
    files(server.data(), &mut all);
    assert!(all.len() > 3);
    for (path, bytes) in &all {
        for secret in &secrets {
            let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "{} has a secret", path.display());
        }
    }
}

#[test]
fn a_role_for_one_resource_does_not_delete_what_is_below_it() {
    let server = Setup::default()
        .key("one", "writer", Some("/a"))
        .key("tree", "writer", Some("/a/**"))
        .key("root", "admin", None)
        .start();
    server.by("root", "PUT", "/a").json(json!(1)).send().ok(201);
    server.by("root", "PUT", "/a/b").json(json!(1)).send().ok(201);
    server.by("one", "DELETE", "/a?recursive=true").send().problem(403, "forbidden");
    let batch = json!({"operations": [{"method": "DELETE", "resource": "/a?recursive=true"}]});
    let refused = server.by("one", "POST", "/-/batch").json(batch).send();
    assert_eq!(refused.problem(403, "forbidden")["index"], 0);
    server.by("one", "DELETE", "/a").send().problem(409, "has-children");
    server.by("tree", "DELETE", "/a?recursive=true").send().ok(204);
    server.by("root", "PUT", "/a").json(json!(1)).send().ok(201);
    server.by("one", "DELETE", "/a").send().ok(204);
}
