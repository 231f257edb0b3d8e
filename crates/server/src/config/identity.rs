//! The `[identity]` table: how callers are told apart, and what those may do who are known from
//! elsewhere.

use std::net::{IpAddr, SocketAddr};

use http::HeaderName;
use ipnet::IpNet;
use leasehold_core::caller::Role;
use toml::de::DeValue;

use super::IdentityMode;
use super::errors::{Mistakes, Place};
use super::section::{Found, Section};
use super::values::Value;
use crate::identity::{HeaderSettings, RoleMap, RoleName, Settings};

/// The keys that each mode has beside `mode` itself.
const KEYS: [(&str, &[IdentityMode]); 7] = [
    ("allow_remote_anonymous", &[IdentityMode::Anonymous]),
    ("key_header", &[IdentityMode::Keys]),
    ("header", &[IdentityMode::Header]),
    ("role_header", &[IdentityMode::Header]),
    ("trusted_proxies", &[IdentityMode::Header]),
    ("default_role", &[IdentityMode::Header]),
    ("role", &[IdentityMode::Header]),
];

const MODES: [(&str, IdentityMode); 3] = [
    ("anonymous", IdentityMode::Anonymous),
    ("keys", IdentityMode::Keys),
    ("header", IdentityMode::Header),
];

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
    let mode = section
        .read_or("mode", IdentityMode::Anonymous, mistakes, |value| value.choice(&MODES))
        .value;
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
    if name.is_none() && section.in_file("header").is_none() {
        let message = "the mode \"header\" needs `header`: the field in which the proxy says who \
                       the caller is, such as \"X-Forwarded-User\"";
        mistakes.add(&table, message);
    }
    if trusted.is_none() && section.in_file("trusted_proxies").is_none() {
        let message = "the mode \"header\" needs `trusted_proxies`: the addresses that the proxy \
                       connects from, such as [\"10.0.0.7\", \"10.1.0.0/16\"]";
        mistakes.add(&table, message);
    }
    Settings::Header(HeaderSettings {
        name: name.map_or(http::header::FROM, |found| found.value),
        roles: section.read("role_header", mistakes, own_header).map(|found| found.value),
        trusted: trusted.map(|found| found.value).unwrap_or_default(),
        map: roles(section, &table, mistakes),
    })
}

/// What callers may do who are known from elsewhere.
fn roles(section: &Section<'_>, table: &Place, mistakes: &mut Mistakes) -> RoleMap {
    let everyone = section.read("default_role", mistakes, role_name);
    let everyone =
        everyone.map(|found| Role { permissions: found.value.permissions(), patterns: Vec::new() });
    let mut by_value = Vec::new();
    for (place, given) in section.tables("role", "identity.role.", mistakes) {
        given.check_keys(&["value", "role", "paths"], mistakes);
        let value = given.read("value", mistakes, |value| value.text("a text").map(str::to_owned));
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
