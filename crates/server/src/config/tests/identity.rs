//! How callers are told apart, as it is written.

use super::*;

#[test]
fn a_proxys_word_needs_its_field_its_address_and_roles() {
    let header = "[identity]\nmode = \"header\"\n";
    let config = from_text(&format!(
        "{header}header = \"X-User\"\ntrusted_proxies = [\"::1\", \"10.0.0.0/8\"]\n\
         default_role = \"reader\"\n[[identity.role]]\nvalue = \"ops\"\nrole = \"manager\"\n\
         paths = [\"/a/**\"]"
    ));
    let Settings::Header(read) = config.unwrap().identity else { panic!("the mode is header") };
    assert_eq!((read.name.as_str(), read.trusted.len()), ("x-user", 2));
    assert!(read.map.everyone.is_some());
    assert_eq!(read.map.by_value[0].0, "ops");
    assert_eq!(read.map.by_value[0].1.patterns.len(), 1);
    let told = mistakes(header);
    for what in ["needs `header`", "needs `trusted_proxies`", "say what callers may do"] {
        assert!(told.contains("leasehold.toml:2:1: ") && told.contains(what), "{told}");
    }
    let whole = format!("{header}default_role = \"reader\"\nheader = \"X-User\"\n");
    for (text, what) in [
        ("trusted_proxies = []", ":5:19: `identity.trusted_proxies`: nobody would be trusted"),
        ("trusted_proxies = [\"10.0.0.0/33\"]", "`10.0.0.0/33` is neither an address nor"),
        ("trusted_proxies = [\"::1\"]\nrole_header = \"Host\"", "`Host` has a meaning already"),
        ("trusted_proxies = [\"::1\"]\nrole_header = \"a b\"", "`a b` is not the name of a header"),
        ("trusted_proxies = [\"::1\"]\nkey_header = \"X-K\"", "is for the mode \"keys\""),
        (
            "trusted_proxies = [\"::1\"]\n[[identity.role]]\nrole = \"boss\"",
            "`boss` is not \"reader\"",
        ),
        ("trusted_proxies = [\"::1\"]\n[[identity.role]]\nrole = \"admin\"", "has no `value`"),
    ] {
        let told = mistakes(&format!("{whole}{text}"));
        assert!(told.contains(what), "{told}");
    }
    let told = mistakes("[identity]\nheader = \"X-User\"");
    assert_eq!(told, "leasehold.toml:2:10: `identity.header` is for the mode \"header\"");
}

#[test]
fn tokens_need_their_keys_their_issuer_and_their_audience() {
    let jwt = "[identity]\nmode = \"jwt\"\n";
    let whole = format!(
        "{jwt}jwks = \"https://id.example/jwks.json\"\nissuer = \"https://id.example/\"\n\
         default_role = \"reader\"\n"
    );
    let config = from_text(&format!("{whole}audience = \"leasehold\"")).unwrap();
    let Settings::Jwt(read) = config.identity else { panic!("the mode is jwt") };
    assert_eq!(read.jwks.to_string(), "https://id.example/jwks.json");
    assert_eq!(read.audience, ["leasehold"]);
    assert_eq!((read.leeway, &*read.principal_claim), (Duration::from_secs(60), "sub"));
    let shared = |algorithm: &jsonwebtoken::Algorithm| format!("{algorithm:?}").starts_with("HS");
    assert!(read.algorithms.len() == 9 && !read.algorithms.iter().any(shared));
    let told = mistakes(jwt);
    for what in ["needs `jwks`", "needs `issuer`", "needs `audience`", "say what callers may do"] {
        assert!(told.contains(what), "{told}");
    }
    for (text, what) in [
        ("audience = 1", ":6:12: `identity.audience`: expected a text or a list of texts"),
        ("audience = []\nalgorithms = []", "no token would count"),
        ("audience = []\nalgorithms = [\"none\"]", "`none` is not \"RS256\", "),
        ("audience = []\nleeway = \"1h\"", ":7:10: `identity.leeway`: expected at most 10m"),
        ("audience = []\nheader = \"X-User\"", "`identity.header` is for the mode \"header\""),
        ("audience = []\nprincipal_claim = \"\"", "expected a text that is not empty"),
        (
            "audience = []\njwks_ca = \"\"",
            ":7:11: `identity.jwks_ca`: the path of the file is empty",
        ),
    ] {
        let told = mistakes(&format!("{whole}{text}"));
        assert!(told.contains(what), "{told}");
    }
    for (jwks, what) in [
        ("ftp://id.example/", "`ftp://id.example/` is not the path of a file, or an address"),
        ("https://a:hunter2@id.example/", "an address with a password in it is not taken"),
        ("", "expected the path of a file"),
    ] {
        let told = mistakes(&whole.replace("https://id.example/jwks.json", jwks));
        assert!(told.contains(what) && !told.contains("hunter2"), "{told}");
    }
    for plain in ["http://id.example/jwks.json", "jwks.json"] {
        let text = whole.replace("https://id.example/jwks.json", plain);
        let told = mistakes(&format!("{text}audience = []\njwks_ca = \"ca.pem\""));
        assert!(told.ends_with("it is for a `jwks` that begins with https://"), "{told}");
        assert!(told.starts_with("leasehold.toml:7:11:"), "{told}");
    }
}

#[test]
fn callers_are_named_after_credentials_only_where_an_upstream_knows_them() {
    let upstream = "upstream = \"http://127.0.0.1:8080\"\n[identity]\nmode = \"digest\"\n";
    let config = from_text(upstream).unwrap();
    let Settings::Digest(read) = config.identity else { panic!("the mode is digest") };
    assert_eq!(read.headers, [http::header::AUTHORIZATION]);
    assert!(read.cookies.is_empty() && read.map == crate::identity::RoleMap::default());
    let config = from_text(&format!(
        "{upstream}credential_headers = [\"X-Api-Key\"]\ncredential_cookies = [\"Session\"]\n\
         [[identity.role]]\nvalue = \"digest:0123456789abcdef01234567\"\nrole = \"manager\""
    ));
    let Settings::Digest(read) = config.unwrap().identity else { panic!("the mode is digest") };
    assert_eq!((read.headers[0].as_str(), &*read.cookies[0]), ("x-api-key", "Session"));
    assert_eq!(read.map.by_value[0].0, "digest:0123456789abcdef01234567");
    let told = mistakes("[identity]\nmode = \"digest\"");
    assert!(told.starts_with("leasehold.toml:2:8: `identity.mode`: \"digest\" needs"), "{told}");
    for (text, what) in [
        ("credential_headers = []", ":4:22: `identity.credential_headers`: nobody could show"),
        ("credential_headers = [\"Cookie\"]", ": name the cookies in `credential_cookies`"),
        ("credential_headers = [\"Host\"]", "`Host` carries no credentials; expected a list"),
        ("credential_headers = [\"X-Forwarded-For\"]", "`X-Forwarded-For` carries no credentials"),
        ("credential_headers = [\"X Key\"]", "`X Key` is no header field"),
        ("credential_headers = \"X-Key\"", "expected a list of header fields such as"),
        (
            "credential_cookies = [\"a=b\"]",
            ":4:22: `identity.credential_cookies`: `a=b` is no name",
        ),
        ("default_role = \"writer\"", "is for the mode \"header\", \"jwt\" or \"certificate\""),
        (
            "[[identity.role]]\nvalue = \"alice\"\nrole = \"admin\"",
            ":5:9: `identity.role.value`: `alice` is not the name of a caller",
        ),
    ] {
        let told = mistakes(&format!("{upstream}{text}"));
        assert!(told.contains(what), "{told}");
    }
    let told = mistakes("[identity]\nmode = \"keys\"\ncredential_cookies = [\"a\"]");
    assert!(told.ends_with("`identity.credential_cookies` is for the mode \"digest\""), "{told}");
}

#[test]
fn certificates_say_who_callers_are_only_where_some_are_asked_for() {
    let tls = "tls_cert = \"c.pem\"\ntls_key = \"k.pem\"\ntls_client_ca = \"ca.pem\"\n";
    let mode = "[identity]\nmode = \"certificate\"\n";
    let whole = format!("{tls}{mode}default_role = \"writer\"\n");
    let name = |text: &str| match from_text(text).unwrap().identity {
        Settings::Certificate(read) => read.name,
        other => panic!("the mode is certificate: {other:?}"),
    };
    assert_eq!(name(&whole), crate::identity::NameKind::CommonName);
    assert_eq!(name(&format!("{whole}certificate_name = \"uri\"")), crate::identity::NameKind::Uri);
    let told = mistakes(&format!("{mode}default_role = \"writer\""));
    assert!(
        told.contains(":2:8: `identity.mode`: \"certificate\" needs `tls_client_ca`"),
        "{told}"
    );
    let told = mistakes(&format!("{tls}{mode}"));
    assert!(told.contains("nobody would be allowed anything"), "{told}");
    let told = mistakes(&format!("{whole}certificate_name = \"cn\""));
    let expected = ":7:20: `identity.certificate_name`: `cn` is not \"common-name\", \"email\", \
                    \"uri\" or \"dns\"";
    assert!(told.contains(expected), "{told}");
}
