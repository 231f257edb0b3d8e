mod identity;

use std::io::Write as _;

use leasehold_core::resource::Resource;

use super::*;

/// The mistakes in `text`, a line each.
fn mistakes(text: &str) -> String {
    from_text(text).expect_err(text).to_string()
}

#[test]
fn nothing_at_all_is_the_documented_defaults() {
    let config = Config::load(&ServeArgs::default()).unwrap();
    assert_eq!(config.listen.to_string(), "127.0.0.1:7423");
    assert_eq!(config.admin_listen, None);
    assert_eq!(config.tls, None);
    assert_eq!(config.data, Path::new("./leasehold-data"));
    assert_eq!((&*config.prefix, &*config.lock_suffix), ("/-/", "/lock"));
    assert_eq!(config.cors_origins, []);
    assert_eq!(config.identity.mode(), IdentityMode::Anonymous);
    assert_eq!((config.log, config.log_format), (LogLevel::Info, LogFormat::Text));
    assert_eq!(config.drain_wait, Duration::from_secs(5));
    assert_eq!(config.limits, Limits::default());
    assert_eq!(config.audit.retain, Duration::from_secs(400 * 86_400));
    assert_eq!(config.audit.max_size, None);
}

#[test]
fn every_key_is_read() {
    let config = from_text(
        r#"
        listen = "0.0.0.0:80"
        admin_listen = "localhost:81"
        tls_cert = "/etc/tls/cert.pem"
        tls_key = "/etc/tls/key.pem"
        tls_client_ca = "/etc/tls/clients.pem"
        data = "/var/lib/leasehold"
        prefix = "/_leasehold/"
        lock_suffix = "/reservation"
        cors_origins = ["https://APP.example:443", "http://localhost:3000"]
        log = "warn"
        log_format = "json"
        drain_wait = "2s"
        [identity]
        mode = "keys"
        [limits]
        max_locks = 1_000
        max_waiters = 0
        max_locks_per_holder = 7
        max_waiters_per_principal = 8
        requests_per_second = 9
        request_burst = 10
        max_connections = 10
        max_document = "1MiB"
        max_buffered = "64MiB"
        max_header = 16384
        header_timeout = "5s"
        body_timeout = "6s"
        answer_timeout = "7s"
        shutdown_timeout = "0s"
        [audit]
        retain = "30d"
        max_size = "2GiB"
        [[rule]]
        match = ["/v1/flags/{id}/**", "/v2/flags/{id}"]
        lockable = true
        default_ttl = "10s"
        max_ttl = "20s"
        max_hold = "30s"
        max_wait = "1s"
        max_queue = 5
        max_locks_per_holder = 100
        require_precondition = true
        disclose_holder = false
        locked_status = 409
        covers_below = true
        [[rule]]
        match = ["/"]
        max_hold = "1m"
        "#,
    )
    .unwrap();
    assert_eq!(config.listen.to_string(), "0.0.0.0:80");
    assert_eq!(config.admin_listen.unwrap().to_string(), "127.0.0.1:81");
    let tls = config.tls.unwrap();
    assert_eq!(
        (&*tls.cert, &*tls.key),
        ("/etc/tls/cert.pem".as_ref(), "/etc/tls/key.pem".as_ref())
    );
    assert_eq!(tls.client_ca.unwrap(), Path::new("/etc/tls/clients.pem"));
    let origins: Vec<_> = config.cors_origins.iter().map(Origin::as_str).collect();
    assert_eq!(origins, ["https://app.example", "http://localhost:3000"]);
    assert_eq!(config.identity.mode(), IdentityMode::Keys);
    assert_eq!(config.limits.max_locks, 1000);
    assert_eq!(config.limits.max_locks_per_holder, Some(7));
    assert_eq!(config.limits.max_waiters_per_principal, Some(8));
    let rate = config.limits.rate.unwrap();
    assert_eq!((rate.per_second.get(), rate.burst.get()), (9, 10));
    assert_eq!((config.limits.max_buffered, config.limits.max_header), (64 << 20, 16384));
    assert_eq!(config.limits.answer_timeout, Duration::from_secs(7));
    assert_eq!(config.limits.shutdown_timeout, Duration::ZERO);
    assert_eq!(config.audit.max_size, Some(2 << 30));
    let (number, rule) = config.rules.find(&Resource::parse("/v1/flags/a/b").unwrap());
    assert_eq!(number, 1);
    assert_eq!(rule.max_ttl, Duration::from_secs(20));
    assert_eq!(rule.max_locks_per_holder, Some(100));
    assert_eq!((rule.locked_status, rule.covers_below), (409, true));
    // A rule about `/` makes it lockable; what it does not set follows a smaller `max_hold`.
    let (number, rule) = config.rules.find(&Resource::root());
    assert_eq!((number, rule.lockable), (2, true));
    assert_eq!((rule.max_ttl, rule.default_ttl), (rule.max_hold, rule.max_hold));
}

#[test]
fn a_mistake_is_named_with_its_place_and_the_accepted_values() {
    for (text, expected) in [
        ("listn = \"\"", "leasehold.toml:1:1: unknown key `listn`; did you mean `listen`?"),
        (
            "workers = 4",
            "leasehold.toml:1:1: unknown key `workers`; the keys here are `listen`, \
             `admin_listen`, `tls_cert`, `tls_key`, `tls_client_ca`, `data`, `prefix`, \
             `lock_suffix`, `cors_origins`, `accept_odd_paths`, `log`, `log_format`, \
             `drain_wait`, `upstream`, `upstream_timeout`, `drain_time`, `upstream_ca`, \
             `upstream_identity`, `identity`, `limits`, `audit` and `rule`",
        ),
        (
            "upstream = \"http://a/base\"",
            "leasehold.toml:1:12: `upstream`: `http://a/base` has a path, a query or a fragment; \
             expected http://HOST[:PORT] or https://HOST[:PORT]",
        ),
        (
            "upstream_timeout = \"1ms\"",
            "leasehold.toml:1:20: `upstream_timeout`: `1ms` is shorter than 100ms",
        ),
        (
            "upstream = \"http://a\"\nupstream_ca = \"ca.pem\"",
            "leasehold.toml:2:15: `upstream_ca`: it is for an `upstream` that begins with https://",
        ),
        (
            "[limits]\nmax_lock = 1",
            "leasehold.toml:2:1: unknown key `limits.max_lock`; did you mean `max_locks`?",
        ),
        (
            "[identity]\nmode = \"oidc\"",
            "leasehold.toml:2:8: `identity.mode`: `oidc` is not \"anonymous\", \"keys\", \"header\", \"jwt\", \"digest\" or \"certificate\"",
        ),
        (
            "[limits]\nmax_buffered = \"64MB\"",
            "leasehold.toml:2:16: `limits.max_buffered`: 64000000 bytes is not from 67108864 to \
             1099511627776 bytes",
        ),
        (
            "listen = 7423",
            "leasehold.toml:1:10: `listen`: expected an IP address and a port such as \
             \"127.0.0.1:7423\" or \"[::]:7423\", found a number",
        ),
        (
            "listen = \"example.com:80\"",
            "leasehold.toml:1:10: `listen`: `example.com:80` is not an IP address and a port such \
             as \"127.0.0.1:7423\" or \"[::]:7423\"",
        ),
        (
            "admin_listen = \"127.0.0.1:7423\"",
            "leasehold.toml:1:16: `admin_listen`: 127.0.0.1:7423 is the address of `listen`",
        ),
        (
            "\n  drain_wait = \"5\"",
            "leasehold.toml:2:16: `drain_wait`: `5` is not a duration such as \"250ms\", \"30s\", \
             \"1h30m\" or \"400d\"",
        ),
        (
            "prefix = \"/-\"",
            "leasehold.toml:1:10: `prefix`: `/-` is not one path segment between two slashes such \
             as \"/-/\"",
        ),
        (
            "lock_suffix = \"/a/b\"",
            "leasehold.toml:1:15: `lock_suffix`: `/a/b` is not a slash and one path segment such \
             as \"/lock\"",
        ),
        (
            "lock_suffix = \"/freeze\"",
            "leasehold.toml:1:15: `lock_suffix`: `/freeze` is the name of an action on a lock; \
             choose another, such as \"/lock\"",
        ),
        (
            "prefix = \"/lock/\"",
            "leasehold.toml:1:10: `prefix` and `lock_suffix` are the same segment; make them \
             differ",
        ),
        (
            "cors_origins = [\"*\"]",
            "leasehold.toml:1:16: `cors_origins`: `*` is not an origin such as \
             \"https://app.example.com\" or \"http://localhost:3000\"; each has to be named",
        ),
        (
            "[limits]\nmax_connections = 0",
            "leasehold.toml:2:19: `limits.max_connections`: `0` is not a whole number from 1 to \
             1000000",
        ),
        (
            "[limits]\nmax_document = \"1GiB\"",
            "leasehold.toml:2:16: `limits.max_document`: 1073741824 bytes is not from 1 to \
             536870912 bytes",
        ),
        (
            "[audit]\nretain = \"1h\"",
            "leasehold.toml:2:10: `audit.retain`: `1h` is shorter than 1d, the least",
        ),
        ("limits = 5", "leasehold.toml:1:10: `limits` is a table: write [limits] above it"),
        (
            "[rule]\nmatch = [\"/a\"]",
            "leasehold.toml:1:1: `rule` is a list of tables: write [[rule]] above each",
        ),
        (
            "[[rule]]\nlockable = false",
            "leasehold.toml:1:1: the rule has no `match`; expected a list of patterns such as \
             [\"/flags/{id}/**\"]",
        ),
        (
            "[[rule]]\nmatch = [\"/a\", \"/b*\"]",
            "leasehold.toml:2:16: `rule.match`: the segment `b*` of the pattern `/b*` is not a \
             name, `{name}` or `**`; expected a pattern such as \"/flags/{id}/**\"",
        ),
        (
            "[[rule]]\nmatch = [\"/a\"]\nbananas = 1",
            "leasehold.toml:3:1: unknown key `rule.bananas`; the keys here are `match`, \
             `resource`, `query`, `fold`, `reads`, `method_parameter`, `upstream`, \
             `upstream_timeout`, `lockable`, `default_ttl`, `max_ttl`, `max_hold`, `max_wait`, \
             `max_queue`, `max_locks_per_holder`, `require_precondition`, `disclose_holder`, \
             `locked_status` and `covers_below`",
        ),
        (
            "[[rule]]\nmatch = [\"/a\"]\ndefault_ttl = \"500ms\"",
            "leasehold.toml:3:15: `rule.default_ttl`: `500ms` is shorter than 1s, the shortest \
             lock",
        ),
        (
            "[[rule]]\nmatch = [\"/a\"]\ndefault_ttl = \"1h\"",
            "leasehold.toml:3:15: `rule.default_ttl` is 1h, longer than `rule.max_ttl`, which is \
             30m, its default; make the one shorter or the other longer",
        ),
        (
            "[[rule]]\nmatch = [\"/a\"]\nmax_ttl = \"2h\"\nmax_hold = \"1h\"",
            "leasehold.toml:3:11: `rule.max_ttl` is 2h, longer than `rule.max_hold`, which is 1h; \
             make the one shorter or the other longer",
        ),
        (
            "[[rule]]\nmatch = [\"/a\"]\nlocked_status = 404",
            "leasehold.toml:3:17: `rule.locked_status`: 404 is neither 423 nor 409",
        ),
        (
            "[[rule]]\nmatch = [\"/a\"]\nlockable = \"no\"",
            "leasehold.toml:3:12: `rule.lockable`: expected true or false, found a string",
        ),
    ] {
        assert_eq!(mistakes(text), expected, "{text}");
    }
}

#[test]
fn a_mistake_in_what_a_rule_is_about_is_named_with_its_place() {
    for (text, expected) in [
        (
            "match = [\"/v1/{id}\", \"/v2/{key}\"]\nresource = \"/n/{id}\"",
            "leasehold.toml:3:12: `rule.resource`: the pattern `/v2/{key}` has no `{id}` to fill \
             `/n/{id}` with; it captures {key}",
        ),
        (
            "match = [\"/v1/x\"]\nresource = \"/n/**\"",
            "leasehold.toml:3:12: `rule.resource`: the pattern `/v1/x` has no `**` to fill \
             `/n/**` with; it captures nothing",
        ),
        (
            "match = [\"/v1/{id}/{id}\"]",
            "leasehold.toml:2:10: `rule.match`: the pattern `/v1/{id}/{id}` has `{id}` twice; \
             expected a pattern such as \"/flags/{id}/**\"",
        ),
        (
            "match = [\"/a/{x}\", \"/b\", \"/a/{y}\"]",
            "leasehold.toml:2:26: `rule.match`: `/a/{y}` is there twice",
        ),
        (
            "match = [\"/a/**\"]\n[[rule]]\nmatch = [\"/a/b\"]",
            "leasehold.toml:4:10: `rule.match`: `/a/b` can never match: the rule at line 1 takes \
             all of it; put this rule before that",
        ),
        (
            "match = [\"/a/{x}\"]\nresource = \"/**\"",
            "leasehold.toml:3:12: `rule.resource`: the pattern `/a/{x}` has no `**` to fill `/**` \
             with; it captures {x}",
        ),
        (
            "match = [\"/api/**\"]\nresource = \"/**\"",
            "leasehold.toml:2:10: `rule.match`: `/api/**` can never match: all it matches are \
             names that `rule.resource` makes, and a name stands for itself",
        ),
        (
            "match = [\"/a/;x\"]\nfold = [\"params\"]",
            "leasehold.toml:2:10: `rule.match`: `/a/;x` has a segment that is none once the rule \
             at line 1 has folded it, and a path with such a segment is refused",
        ),
        (
            "match = [\"/a/{x}\"]\nfold = [\"params\"]\n\
             [[rule]]\nmatch = [\"/**\"]\nresource = \"/..;x\"",
            "leasehold.toml:6:12: `rule.resource`: `/..;x` has a segment that is none once the \
             rule at line 1 has folded it, and a path with such a segment is refused",
        ),
        (
            "match = [\"/n/{x}\"]\nresource = \"/m/{x}\"\n\
             [[rule]]\nmatch = [\"/v1/{x}\"]\nresource = \"/n/{x}\"",
            "leasehold.toml:6:12: `rule.resource`: what it names is a URL of the rule at line 1, \
             which names it otherwise; let both give the same name, or name it so that the other \
             does not match",
        ),
        (
            "match = [\"/v1/{x}\"]\nresource = \"/n/{x}\"\n\
             [[rule]]\nmatch = [\"/v2/{x}\"]\nresource = \"/n/{x}\"\nmax_queue = 5",
            "leasehold.toml:7:13: `rule.max_queue`: the rule at line 1 names the same resources \
             and has another; a resource has one",
        ),
        (
            "match = [\"/a/{x}\"]\nresource = \"/n/{x}/lock\"",
            "leasehold.toml:3:12: `rule.resource`: `/n/{x}/lock` is the server's own: a resource \
             neither begins with `/-/` nor ends in `/lock`",
        ),
        (
            "match = [\"/a/{x}\"]\nresource = \"/-/{x}\"",
            "leasehold.toml:3:12: `rule.resource`: `/-/{x}` is the server's own: a resource \
             neither begins with `/-/` nor ends in `/lock`",
        ),
        (
            "match = [\"/a\"]\nquery = \"id\"",
            "leasehold.toml:3:9: `rule.query`: expected a list of query parameters such as \
             [\"id\"], found a string",
        ),
        (
            "match = [\"/a\"]\nquery = [\"id\", \"id\"]",
            "leasehold.toml:3:9: `rule.query`: `id` is there twice; expected a list of query \
             parameters such as [\"id\"]",
        ),
        (
            "match = [\"/a\"]\nquery = [\"a=b\"]",
            "leasehold.toml:3:9: `rule.query`: `a=b` is not the name of a query parameter: write \
             it decoded and without `&`, `;`, `=`, `[` or `]`",
        ),
        (
            "match = [\"/a\"]\nfold = [\"nfc\"]",
            "leasehold.toml:3:8: `rule.fold`: `nfc` is neither \"case\" nor \"params\"",
        ),
        (
            "match = [\"/a\"]\nreads = [\"GET\"]",
            "leasehold.toml:3:9: `rule.reads`: `GET`: GET always reads; leave it out",
        ),
        (
            "match = [\"/a\"]\nreads = [\"post:search\"]",
            "leasehold.toml:3:9: `rule.reads`: `post:search` is not a method, or a method and an \
             action, such as \"POST:search\" for `POST …:search`",
        ),
        (
            "match = [\"/a\"]\nreads = [\"POST:\"]",
            "leasehold.toml:3:9: `rule.reads`: `POST:` is not a method, or a method and an \
             action, such as \"POST:search\" for `POST …:search`",
        ),
    ] {
        assert_eq!(mistakes(&format!("[[rule]]\n{text}")), expected, "{text}");
    }
    assert_eq!(
        mistakes("accept_odd_paths = [\"files\"]"),
        "leasehold.toml:1:20: `accept_odd_paths`: `files`: the path does not begin with a slash; \
         expected a list of paths such as [\"/files\"]"
    );
}

#[test]
fn several_mistakes_are_told_together_in_the_order_of_the_file() {
    assert_eq!(
        mistakes("lgo = 1\nlog = \"loud\"\n[limits]\nmax_locks = \"many\""),
        "leasehold.toml:1:1: unknown key `lgo`; did you mean `log`?\n\
         leasehold.toml:2:7: `log`: `loud` is not \"off\", \"error\", \"warn\", \"info\", \
         \"debug\" or \"trace\"\n\
         leasehold.toml:4:13: `limits.max_locks`: expected a whole number from 1 to 1000000000, \
         found a string"
    );
}

#[test]
fn what_is_not_toml_is_named_with_its_place() {
    for (text, place) in
        [("listen = ", "leasehold.toml:1:"), ("a = 1\na = 2", "leasehold.toml:2:1")]
    {
        let told = mistakes(text);
        assert!(told.starts_with(place) && told.contains("this is not TOML: "), "{told}");
    }
    let args = ServeArgs { config: Some("/nowhere/at/all.toml".into()), ..ServeArgs::default() };
    let told = Config::load(&args).unwrap_err().to_string();
    assert!(
        told.starts_with("/nowhere/at/all.toml: cannot read the configuration file: "),
        "{told}"
    );
}

#[test]
fn a_flag_goes_before_the_file_and_is_named_in_its_own_mistake() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "listen = \"127.0.0.1:1\"\nlog = \"error\"").unwrap();
    let args = ServeArgs {
        config: Some(file.path().to_owned()),
        listen: Some("127.0.0.1:2".to_owned()),
        data: Some(String::new()),
        cors_origins: Some("https://a.example, https://b.example".to_owned()),
        identity: Some("keys".to_owned()),
        ..ServeArgs::default()
    };
    let config = Config::load(&args).unwrap();
    assert_eq!(config.listen.port(), 2);
    assert_eq!(config.log, LogLevel::Error);
    assert_eq!(config.data, Path::new("./leasehold-data"), "an empty text is no setting");
    assert_eq!(config.cors_origins.len(), 2);
    assert_eq!(config.identity.mode(), IdentityMode::Keys);

    let args = ServeArgs { log: Some("loud".to_owned()), ..ServeArgs::default() };
    assert_eq!(
        Config::load(&args).unwrap_err().to_string(),
        "--log (or LEASEHOLD_LOG): `log`: `loud` is not \"off\", \"error\", \"warn\", \"info\", \
         \"debug\" or \"trace\""
    );
}

#[test]
fn a_server_without_identity_stays_on_loopback_unless_told_otherwise() {
    for listen in ["0.0.0.0:7423", "[::]:7423", "192.0.2.1:7423"] {
        let told = mistakes(&format!("listen = \"{listen}\""));
        assert!(
            told.starts_with(&format!("leasehold.toml:1:10: `listen`: {listen} can be")),
            "{told}"
        );
        let told = mistakes(&format!("admin_listen = \"{listen}\""));
        assert!(told.contains("`admin_listen`"), "{told}");
        let allowed = format!("listen = \"{listen}\"\n[identity]\nallow_remote_anonymous = true");
        assert!(from_text(&allowed).is_ok());
        assert!(from_text(&format!("listen = \"{listen}\"\n[identity]\nmode = \"keys\"")).is_ok());
    }
    for listen in ["127.0.0.9:1", "[::1]:1", "localhost:1"] {
        assert!(from_text(&format!("listen = \"{listen}\"")).is_ok(), "{listen}");
    }
}

#[test]
fn a_certificate_needs_its_key_and_an_authority_needs_both() {
    for (text, told) in [
        ("tls_cert = \"a\"", "leasehold.toml:1:12: `tls_cert` is set without `tls_key`"),
        ("tls_key = \"a\"", "leasehold.toml:1:11: `tls_key` is set without `tls_cert`"),
        ("tls_client_ca = \"a\"", "leasehold.toml:1:17: `tls_client_ca` needs TLS"),
        ("tls_cert = 1", "leasehold.toml:1:12: `tls_cert`: expected the path of a file"),
    ] {
        assert!(mistakes(text).starts_with(told), "{}", mistakes(text));
    }
}

#[test]
fn a_burst_is_a_seconds_worth_and_nothing_without_a_rate() {
    let config = from_text("[limits]\nrequests_per_second = 50").unwrap();
    assert_eq!(config.limits.rate.unwrap().burst.get(), 50);
    for (text, told) in [
        ("request_burst = 5", "leasehold.toml:2:17: `limits.request_burst` is set without"),
        (
            "requests_per_second = 0",
            "leasehold.toml:2:23: `limits.requests_per_second`: `0` is not",
        ),
        ("max_locks_per_holder = 0", "leasehold.toml:2:24: `limits.max_locks_per_holder`: `0` is"),
    ] {
        let said = mistakes(&format!("[limits]\n{text}"));
        assert!(said.starts_with(told), "{said}");
    }
}
