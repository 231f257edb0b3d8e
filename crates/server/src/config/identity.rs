//! The `[identity]` table: how callers are told apart, and what those may do who are known from
//! elsewhere.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use http::{HeaderName, Uri};
use ipnet::IpNet;
use jsonwebtoken::Algorithm;
use leasehold_core::caller::Role;
use toml::de::DeValue;

use super::IdentityMode;
use super::errors::{Mistakes, Place};
use super::section::{Found, Section};
use super::values::Value;
use crate::identity::{
    self, CertificateSettings, DigestSettings, HeaderSettings, JwksSource, JwtSettings, NameKind,
    RoleMap, RoleName, Settings,
};

/// The keys that each mode has beside `mode` itself.
const KEYS: [(&str, &[IdentityMode]); 18] = [
    ("allow_remote_anonymous", &[IdentityMode::Anonymous]),
    ("key_header", &[IdentityMode::Keys]),
    ("header", &[IdentityMode::Header]),
    ("role_header", &[IdentityMode::Header]),
    ("trusted_proxies", &[IdentityMode::Header]),
    ("jwks", &[IdentityMode::Jwt]),
    ("jwks_ca", &[IdentityMode::Jwt]),
    ("algorithms", &[IdentityMode::Jwt]),
    ("issuer", &[IdentityMode::Jwt]),
    ("audience", &[IdentityMode::Jwt]),
    ("leeway", &[IdentityMode::Jwt]),
    ("principal_claim", &[IdentityMode::Jwt]),
    ("role_claim", &[IdentityMode::Jwt]),
    ("certificate_name", &[IdentityMode::Certificate]),
    ("default_role", &[IdentityMode::Header, IdentityMode::Jwt, IdentityMode::Certificate]),
    (
        "role",
        &[IdentityMode::Header, IdentityMode::Jwt, IdentityMode::Digest, IdentityMode::Certificate],
    ),
    ("credential_headers", &[IdentityMode::Digest]),
    ("credential_cookies", &[IdentityMode::Digest]),
];

const MODES: [(&str, IdentityMode); 6] = [
    ("anonymous", IdentityMode::Anonymous),
    ("keys", IdentityMode::Keys),
    ("header", IdentityMode::Header),
    ("jwt", IdentityMode::Jwt),
    ("digest", IdentityMode::Digest),
    ("certificate", IdentityMode::Certificate),
];

/// The algorithms that may be allowed, by the names that tokens have for them.
const ALGORITHMS: [(&str, Algorithm); 12] = [
    ("RS256", Algorithm::RS256),
    ("RS384", Algorithm::RS384),
    ("RS512", Algorithm::RS512),
    ("PS256", Algorithm::PS256),
    ("PS384", Algorithm::PS384),
    ("PS512", Algorithm::PS512),
    ("ES256", Algorithm::ES256),
    ("ES384", Algorithm::ES384),
    ("EdDSA", Algorithm::EdDSA),
    ("HS256", Algorithm::HS256),
    ("HS384", Algorithm::HS384),
    ("HS512", Algorithm::HS512),
];

/// How many of those are allowed unless the operator says otherwise: not the ones with a shared
/// secret, with which whoever can check a token can make one.
const ASYMMETRIC: usize = 9;

/// Reads the table. `listen` and `admin_listen` have to be loopback where nobody is asked.
pub(super) fn read(
    root: &Section<'_>,
    listen: &Found<SocketAddr>,
    admin_listen: Option<&Found<SocketAddr>>,
    mistakes: &mut Mistakes,
) -> Settings {
    let section = root.table("identity", "identity.", mistakes);
    let known: Vec<&str> =
        std::iter::once("mode").chain(KEYS.iter().map(|(name, _)| *name)).collect();
    section.check_keys(&known, mistakes);
    let found =
        section.read_or("mode", IdentityMode::Anonymous, mistakes, |value| value.choice(&MODES));
    let mode = found.value;
    if mode == IdentityMode::Digest && !root.is_set("upstream") {
        let message = "`identity.mode`: \"digest\" needs an `upstream`, which knows the callers; \
                       set one, or use \"keys\"";
        mistakes.add(&found.place, message);
    }
    if mode == IdentityMode::Certificate && !root.is_set("tls_client_ca") {
        let message = "`identity.mode`: \"certificate\" needs `tls_client_ca`: who signs the \
                       certificates of callers";
        mistakes.add(&found.place, message);
    }
    check_mode(&section, mode, mistakes);
    let allowed = section.read_or("allow_remote_anonymous", false, mistakes, Value::boolean).value;
    match mode {
        IdentityMode::Anonymous => {
            if !allowed {
                check_loopback(listen, admin_listen, mistakes);
            }
            Settings::Anonymous
        }
        IdentityMode::Keys => {
            let header = section.read("key_header", mistakes, own_header);
            Settings::Keys { header: header.map(|found| found.value) }
        }
        IdentityMode::Header => header(&section, mistakes),
        IdentityMode::Jwt => jwt(&section, mistakes),
        IdentityMode::Digest => digest(&section, mistakes),
        IdentityMode::Certificate => Settings::Certificate(CertificateSettings {
            name: section
                .read_or("certificate_name", NameKind::CommonName, mistakes, name_kind)
                .value,
            map: roles(&section, &section.place(), mistakes),
        }),
    }
}

/// A key of another mode would be without effect, and somebody relies on it.
fn check_mode(section: &Section<'_>, mode: IdentityMode, mistakes: &mut Mistakes) {
    // `allow_remote_anonymous` may stay when identity is added: it is without effect then, and
    // nobody is let in by it.
    for (key, modes) in KEYS.iter().filter(|(key, _)| *key != "allow_remote_anonymous") {
        let Some((place, _)) = section.in_file(key).filter(|_| !modes.contains(&mode)) else {
            continue;
        };
        let its = MODES.iter().filter(|(_, each)| modes.contains(each)).map(|(word, _)| *word);
        let its: Vec<String> = its.map(|word| format!("\"{word}\"")).collect();
        let message = format!("`identity.{key}` is for the mode {}", super::values::one_of(&its));
        mistakes.add(&place, message);
    }
}

fn check_loopback(
    listen: &Found<SocketAddr>,
    admin_listen: Option<&Found<SocketAddr>>,
    mistakes: &mut Mistakes,
) {
    for (key, found) in [("listen", Some(listen)), ("admin_listen", admin_listen)] {
        let Some(found) = found.filter(|found| !found.value.ip().is_loopback()) else {
            continue;
        };
        let message = format!(
            "`{key}`: {} can be reached from other machines, and without identity everyone \
             who reaches the server may do everything; use identity mode \"keys\" \
             (--identity keys), listen on 127.0.0.1, or allow it with \
             `allow_remote_anonymous = true` in [identity] (--allow-remote-anonymous)",
            found.value
        );
        mistakes.add(&found.place, message);
    }
}

fn header(section: &Section<'_>, mistakes: &mut Mistakes) -> Settings {
    let name = section.read("header", mistakes, own_header);
    let trusted = section.read("trusted_proxies", mistakes, networks);
    let table = section.place();
    for (key, what) in [
        ("header", "the field in which the proxy says who the caller is, \"X-Forwarded-User\" say"),
        (
            "trusted_proxies",
            "the addresses that the proxy connects from, such as [\"10.0.0.7\", \"10.1.0.0/16\"]",
        ),
    ] {
        need(section, "header", key, what, mistakes);
    }
    Settings::Header(HeaderSettings {
        name: name.map_or(http::header::FROM, |found| found.value),
        roles: section.read("role_header", mistakes, own_header).map(|found| found.value),
        trusted: trusted.map(|found| found.value).unwrap_or_default(),
        map: roles(section, &table, mistakes),
    })
}

fn jwt(section: &Section<'_>, mistakes: &mut Mistakes) -> Settings {
    for (key, what) in [
        ("jwks", "the file or the address of the keys, such as \"https://id.example/jwks.json\""),
        ("issuer", "the `iss` of the tokens, such as \"https://id.example/\""),
        ("audience", "the `aud` that names this server, such as [\"leasehold\"]; [] for any"),
    ] {
        need(section, "jwt", key, what, mistakes);
    }
    let text = |value: Value<'_>| match value.text("a text")? {
        "" => Err("expected a text that is not empty".to_owned()),
        text => Ok(text.to_owned()),
    };
    let asymmetric = ALGORITHMS[..ASYMMETRIC].iter().map(|(_, algorithm)| *algorithm).collect();
    let nowhere = JwksSource::File(std::path::PathBuf::new());
    let jwks = section.read_or("jwks", nowhere, mistakes, jwks);
    let jwks_ca = section.read("jwks_ca", mistakes, Value::file);
    if let Some(file) = &jwks_ca
        && !jwks.value.is_https()
        && jwks.place != Place::Settings
    {
        let message = "`identity.jwks_ca`: it is for a `jwks` that begins with https://";
        mistakes.add(&file.place, message);
    }
    Settings::Jwt(JwtSettings {
        jwks: jwks.value,
        jwks_ca: jwks_ca.map(|found| found.value),
        algorithms: section.read_or("algorithms", asymmetric, mistakes, algorithms).value,
        issuer: section.read_or("issuer", String::new(), mistakes, text).value,
        audience: section.read_or("audience", Vec::new(), mistakes, audience).value,
        leeway: section.read_or("leeway", Duration::from_secs(60), mistakes, leeway).value,
        principal_claim: section.read_or("principal_claim", "sub".to_owned(), mistakes, text).value,
        role_claim: section.read("role_claim", mistakes, text).map(|found| found.value),
        map: roles(section, &section.place(), mistakes),
    })
}

fn digest(section: &Section<'_>, mistakes: &mut Mistakes) -> Settings {
    let headers = section.read_or(
        "credential_headers",
        vec![http::header::AUTHORIZATION],
        mistakes,
        credential_headers,
    );
    let cookies = section.read_or("credential_cookies", Vec::new(), mistakes, cookie_names);
    if headers.value.is_empty() && cookies.value.is_empty() {
        let message = "`identity.credential_headers`: nobody could show credentials; name a field \
                       here, or a cookie in `credential_cookies`";
        mistakes.add(&headers.place, message);
    }
    let by_value = roles_by_value(section, principal_name, mistakes);
    Settings::Digest(DigestSettings {
        headers: headers.value,
        cookies: cookies.value,
        map: RoleMap { everyone: None, by_value },
    })
}

/// Tells that a mode needs a key that is not there.
fn need(section: &Section<'_>, mode: &str, key: &str, what: &str, mistakes: &mut Mistakes) {
    if section.in_file(key).is_none() {
        let message = format!("the mode \"{mode}\" needs `{key}`: {what}");
        mistakes.add(&section.place(), message);
    }
}

/// What callers may do who are known from elsewhere.
fn roles(section: &Section<'_>, table: &Place, mistakes: &mut Mistakes) -> RoleMap {
    let everyone = section.read("default_role", mistakes, role_name);
    let everyone =
        everyone.map(|found| Role { permissions: found.value.permissions(), patterns: Vec::new() });
    let by_value = roles_by_value(section, |text| Ok(text.to_owned()), mistakes);
    if everyone.is_none()
        && section.in_file("default_role").is_none()
        && section.in_file("role").is_none()
    {
        let message = "nobody would be allowed anything; say what callers may do, with \
                       `default_role` or with [[identity.role]]";
        mistakes.add(table, message);
    }
    RoleMap { everyone, by_value }
}

/// The roles of those of whom a value is said that `read` takes.
fn roles_by_value(
    section: &Section<'_>,
    read: impl Fn(&str) -> Result<String, String>,
    mistakes: &mut Mistakes,
) -> Vec<(String, Role)> {
    let mut by_value = Vec::new();
    for (place, given) in section.tables("role", "identity.role.", mistakes) {
        given.check_keys(&["value", "role", "paths"], mistakes);
        let value = given.read("value", mistakes, |value| read(value.text("a text")?));
        let role = given.read("role", mistakes, role_name);
        let paths = given.read("paths", mistakes, Value::patterns);
        for key in ["value", "role"] {
            if given.in_file(key).is_none() {
                mistakes.add(&place, format!("the [[identity.role]] has no `{key}`"));
            }
        }
        if let (Some(value), Some(role)) = (value, role) {
            let patterns = paths.map(|found| found.value).unwrap_or_default();
            by_value.push((value.value, Role { permissions: role.value.permissions(), patterns }));
        }
    }
    by_value
}

fn principal_name(text: &str) -> Result<String, String> {
    if identity::is_name(text) {
        return Ok(text.to_owned());
    }
    Err(format!(
        "`{text}` is not the name of a caller as `holder` tells it, such as \
         \"digest:0123456789abcdef01234567\""
    ))
}

fn name_kind(value: Value<'_>) -> Result<NameKind, String> {
    value.choice(&[
        ("common-name", NameKind::CommonName),
        ("email", NameKind::Email),
        ("uri", NameKind::Uri),
        ("dns", NameKind::Dns),
    ])
}

fn role_name(value: Value<'_>) -> Result<RoleName, String> {
    value.choice(&RoleName::ALL.map(|role| (role.as_str(), role)))
}

/// A header field that is free for this. Those that HTTP itself needs are not.
fn own_header(value: Value<'_>) -> Result<HeaderName, String> {
    const EXPECTED: &str = "the name of a header field such as \"X-Leasehold-Key\"";
    const TAKEN: [&str; 9] = [
        "authorization",
        "connection",
        "content-length",
        "content-type",
        "cookie",
        "host",
        "if-match",
        "transfer-encoding",
        "x-lock-token",
    ];
    let text = value.text(EXPECTED)?;
    let name = HeaderName::try_from(text).map_err(|_| format!("`{text}` is not {EXPECTED}"))?;
    if TAKEN.contains(&name.as_str()) {
        return Err(format!("`{text}` has a meaning already; expected {EXPECTED}"));
    }
    Ok(name)
}

/// The fields that the upstream reads credentials from, and gets as they came.
fn credential_headers(value: Value<'_>) -> Result<Vec<HeaderName>, String> {
    const EXPECTED: &str = "a list of header fields such as [\"Authorization\", \"X-Api-Key\"]";
    let read = |text: &str| {
        let name = HeaderName::try_from(text);
        let name = name.map_err(|_| format!("`{text}` is no header field; expected {EXPECTED}"))?;
        if name == http::header::COOKIE {
            return Err("name the cookies in `credential_cookies`".to_owned());
        }
        let is_replaced = ["x-lock-", "x-forwarded-", "proxy-"];
        if name != http::header::AUTHORIZATION && own_header(Value::Text(text)).is_err()
            || is_replaced.iter().any(|begin| name.as_str().starts_with(begin))
        {
            return Err(format!("`{text}` carries no credentials; expected {EXPECTED}"));
        }
        Ok(name)
    };
    texts(value, EXPECTED)?.into_iter().map(read).collect()
}

fn cookie_names(value: Value<'_>) -> Result<Vec<String>, String> {
    const EXPECTED: &str = "a list of cookies such as [\"session\"]";
    let read = |text: &str| {
        // A token, as the name of a field is (RFC 6265, section 4.1.1), and case counts.
        HeaderName::try_from(text)
            .map(|_| text.to_owned())
            .map_err(|_| format!("`{text}` is no name of a cookie; expected {EXPECTED}"))
    };
    texts(value, EXPECTED)?.into_iter().map(read).collect()
}

fn networks(value: Value<'_>) -> Result<Vec<IpNet>, String> {
    const EXPECTED: &str = "a list of addresses such as [\"10.0.0.7\", \"10.1.0.0/16\"]";
    let Value::Toml(DeValue::Array(items)) = value else {
        return Err(format!("expected {EXPECTED}"));
    };
    if items.is_empty() {
        return Err(format!("nobody would be trusted; expected {EXPECTED}"));
    }
    let read = |text: &str| {
        let alone = text.parse::<IpAddr>().map(IpNet::from);
        alone.or_else(|_| text.parse::<IpNet>()).map_err(|_| {
            format!("`{text}` is neither an address nor a network; expected {EXPECTED}")
        })
    };
    items.iter().map(|item| read(Value::Toml(item.get_ref()).text(EXPECTED)?)).collect()
}

fn jwks(value: Value<'_>) -> Result<JwksSource, String> {
    const EXPECTED: &str = "the path of a file, or an address with http:// or https://";
    let text = value.text(EXPECTED)?;
    if text.is_empty() {
        return Err(format!("expected {EXPECTED}"));
    }
    if !text.contains("://") {
        return Ok(JwksSource::File(text.into()));
    }
    match text.parse::<Uri>() {
        Ok(uri) if matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some() => {
            // It would be in the log, and is not sent.
            if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
                return Err("an address with a password in it is not taken".to_owned());
            }
            Ok(JwksSource::Url(uri))
        }
        _ => Err(format!("`{text}` is not {EXPECTED}")),
    }
}

fn algorithms(value: Value<'_>) -> Result<Vec<Algorithm>, String> {
    let texts = texts(value, "a list of algorithms such as [\"RS256\", \"ES256\"]")?;
    if texts.is_empty() {
        return Err("no token would count; name at least one algorithm".to_owned());
    }
    texts.into_iter().map(|text| Value::Text(text).choice(&ALGORITHMS)).collect()
}

fn audience(value: Value<'_>) -> Result<Vec<String>, String> {
    if let Value::Toml(DeValue::String(one)) = value {
        return Ok(vec![one.to_string()]);
    }
    let texts = texts(value, "a text or a list of texts such as [\"leasehold\"]")?;
    Ok(texts.into_iter().map(str::to_owned).collect())
}

fn leeway(value: Value<'_>) -> Result<Duration, String> {
    match value.duration()? {
        leeway if leeway <= Duration::from_secs(600) => Ok(leeway),
        _ => Err("expected at most 10m".to_owned()),
    }
}

fn texts<'a>(value: Value<'a>, expected: &str) -> Result<Vec<&'a str>, String> {
    let Value::Toml(DeValue::Array(items)) = value else {
        return Err(format!("expected {expected}"));
    };
    items.iter().map(|item| Value::Toml(item.get_ref()).text(expected)).collect()
}
