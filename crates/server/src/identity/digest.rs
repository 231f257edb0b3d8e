//! Callers whom the upstream alone knows: each is named after the credentials that it shows there.
//!
//! A name is a keyed digest, so that who reads it in the trail cannot find the credentials by
//! trying. That a caller has a name says nothing: anybody can make credentials up. So whoever is
//! to do or learn something here is first shown the resource by the upstream
//! ([`leasehold_guard::upstream::Verifier`]).

use std::path::Path;
use std::sync::Arc;

use hmac::{Hmac, KeyInit as _, Mac as _};
use http::header::{AUTHORIZATION, COOKIE, HOST, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use http::request::Parts;
use http::{Request, Uri};
use leasehold_core::caller::{Caller, Permission, Permissions, Role};
use leasehold_core::ids::Principal;
use leasehold_engine::token::{TokenKeyError, principal_secret};
use leasehold_guard::call::Credentials;
use leasehold_problems::{Name, Problem};
use leasehold_upstreams::proxy::Arrival;
use sha2::Sha256;

use super::RoleName;
use super::roles::RoleMap;
use crate::token_key;

/// What every name begins with.
const PREFIX: &str = "digest:";

/// How many bytes of the digest are in it. Who looks for two credentials of one name has to show
/// each of them here.
const BYTES: usize = 12;

/// Where credentials are, and who has more than a stranger.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DigestSettings {
    /// The fields that they are in.
    pub headers: Vec<HeaderName>,
    /// The cookies that they are in.
    pub cookies: Vec<String>,
    /// What callers may do beside what each may, by their names.
    pub map: RoleMap,
}

/// Names callers after their credentials.
pub(super) struct Digest {
    settings: DigestSettings,
    key: Hmac<Sha256>,
}

impl std::fmt::Debug for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Digest").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// Whether a text could be the name of a caller.
pub(crate) fn is_name(text: &str) -> bool {
    let is_hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
    let rest = text.strip_prefix(PREFIX);
    rest.is_some_and(|rest| rest.len() == 2 * BYTES && rest.chars().all(is_hex))
}

impl Digest {
    /// With the secret of the data folder `data`.
    pub(super) fn open(settings: DigestSettings, data: &Path) -> Result<Self, TokenKeyError> {
        let secret = principal_secret(&data.join(token_key::FILE))?;
        let mut key = Hmac::<Sha256>::new_from_slice(&secret).unwrap_or_else(|_| {
            unreachable!("an HMAC takes a key of any length (RFC 2104, section 2)")
        });
        key.update(b"leasehold principal 1\0");
        Ok(Self { settings, key })
    }

    /// Who sends a request with these fields: without credentials somebody who may do what needs
    /// none, for the upstream decides about that.
    pub(super) fn authenticate(&self, headers: &HeaderMap) -> Result<Caller, Box<Problem>> {
        let Some(name) = self.name(headers)? else {
            let role = Role {
                permissions: Permissions::of(&[Permission::Read, Permission::Write]),
                patterns: Vec::new(),
            };
            let principal = Principal::new("anonymous");
            // A token does not prove its holder here, whoever shows it.
            return Ok(Caller { principal, anonymous: false, roles: Arc::from([role]) });
        };
        let mut roles = self.given(&name).to_vec();
        roles.push(Role { permissions: RoleName::Writer.permissions(), patterns: Vec::new() });
        Ok(Caller { principal: Principal::new(&name), anonymous: false, roles: Arc::from(roles) })
    }

    /// What the upstream is asked with about `caller`, who has sent a request with this head.
    pub(super) fn credentials(&self, head: &Parts, caller: &Caller) -> Credentials {
        let (mut asking, ()) = Request::new(()).into_parts();
        asking.version = head.version;
        // The upstream is told that of every request.
        if let Some(arrival) = head.extensions.get::<Arrival>() {
            asking.extensions.insert(arrival.clone());
        }
        let host = host_of(&head.uri).or_else(|| head.headers.get(HOST).cloned());
        let agent = head.headers.get(USER_AGENT).cloned();
        for (name, value) in [(HOST, host), (USER_AGENT, agent)] {
            if let Some(value) = value {
                asking.headers.insert(name, value);
            }
        }
        let shown = self.settings.headers.iter();
        let shown = shown.filter_map(|name| Some((name.clone(), head.headers.get(name)?.clone())));
        for (name, mut value) in shown.chain(self.cookie(&head.headers)) {
            value.set_sensitive(true);
            asking.headers.insert(name, value);
        }
        let is_nobody = caller.principal.as_str() == "anonymous";
        Credentials {
            head: asking,
            roles: Arc::from(self.given(caller.principal.as_str())),
            challenge: if is_nobody { self.challenge() } else { None },
        }
    }

    /// The name of whoever shows the credentials in these fields; none where there are none.
    fn name(&self, headers: &HeaderMap) -> Result<Option<String>, Box<Problem>> {
        let mut key = self.key.clone();
        let mut is_nobody = true;
        let mut add = |name: &str, value: &[u8]| {
            // With their lengths: no two lists of them are the same bytes.
            for part in [name.as_bytes(), value] {
                key.update(&(part.len() as u64).to_be_bytes());
                key.update(part);
            }
            is_nobody = false;
        };
        for name in &self.settings.headers {
            let mut sent = headers.get_all(name).iter();
            let first = sent.next();
            if sent.next().is_some() {
                let name = if *name == AUTHORIZATION { "Authorization" } else { name.as_str() };
                let detail = format!("The request has several `{name}` fields; send one.");
                let problem = Problem::new(Name::MalformedRequest, detail);
                return Err(Box::new(problem.with("field", name)));
            }
            if let Some(value) = first.filter(|value| !value.is_empty()) {
                add(name.as_str(), value.as_bytes());
            }
        }
        for (name, value) in self.cookies(headers) {
            add(&format!("cookie {name}"), value.as_bytes());
        }
        if is_nobody {
            return Ok(None);
        }
        let digest = key.finalize().into_bytes();
        let hex = digest[..BYTES].iter().map(|byte| format!("{byte:02x}"));
        Ok(Some(PREFIX.chars().chain(hex.collect::<String>().chars()).collect()))
    }

    /// The cookies that are credentials, as they came.
    fn cookies<'h>(
        &'h self,
        headers: &'h HeaderMap,
    ) -> impl Iterator<Item = (&'h str, &'h str)> + 'h {
        let pairs = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
        pairs
            .flat_map(|value| value.split(';'))
            .filter_map(|pair| pair.trim().split_once('='))
            .filter(|(name, value)| {
                !value.is_empty() && self.settings.cookies.iter().any(|each| each == name)
            })
    }

    fn cookie(&self, headers: &HeaderMap) -> Option<(HeaderName, HeaderValue)> {
        let pairs: Vec<String> =
            self.cookies(headers).map(|(name, value)| format!("{name}={value}")).collect();
        let value = HeaderValue::try_from(pairs.join("; ")).ok()?;
        (!value.is_empty()).then_some((COOKIE, value))
    }

    /// What the operator has given to the caller of this name.
    fn given(&self, name: &str) -> Vec<Role> {
        let given = self.settings.map.by_value.iter().filter(|(value, _)| value == name);
        given.map(|(_, role)| role.clone()).collect()
    }

    fn challenge(&self) -> Option<HeaderValue> {
        let field = self.settings.headers.first().unwrap_or(&COOKIE);
        super::in_field("Upstream", field)
    }
}

/// The host that a target names itself, as one of HTTP/2 does.
fn host_of(uri: &Uri) -> Option<HeaderValue> {
    let authority = uri.authority()?.as_str();
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    HeaderValue::from_str(host).ok()
}

#[cfg(test)]
mod tests {
    use leasehold_core::caller::Permission::{Break, Lock, Write};

    use super::*;

    fn digest(root: &tempfile::TempDir, headers: &[&'static str], cookies: &[&str]) -> Digest {
        let path = root.path().join(token_key::FILE);
        if !path.exists() {
            std::fs::write(&path, r#"{"keys":[]}"#).unwrap();
        }
        let settings = DigestSettings {
            headers: headers.iter().map(|name| HeaderName::from_static(name)).collect(),
            cookies: cookies.iter().map(|name| (*name).to_owned()).collect(),
            map: RoleMap::default(),
        };
        Digest::open(settings, root.path()).unwrap()
    }

    fn head(fields: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().uri("/a").header("Host", "api.example");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn name(digest: &Digest, fields: &[(&str, &str)]) -> String {
        digest.authenticate(&head(fields).headers).unwrap().principal.to_string()
    }

    #[test]
    fn the_same_credentials_have_the_same_name_and_others_another() {
        let root = tempfile::tempdir().unwrap();
        let one = digest(&root, &["authorization", "x-api-key"], &["session", "csrf"]);
        let alice = name(&one, &[("authorization", "Bearer a")]);
        assert!(is_name(&alice), "{alice}");
        assert_eq!(name(&one, &[("Authorization", "Bearer a"), ("cookie", "theme=dark")]), alice);
        let again = digest(&root, &["authorization", "x-api-key"], &["session", "csrf"]);
        assert_eq!(name(&again, &[("authorization", "Bearer a")]), alice, "after a restart");
        let elsewhere = digest(&tempfile::tempdir().unwrap(), &["authorization"], &[]);
        let mut names = vec![alice, name(&elsewhere, &[("authorization", "Bearer a")])];
        for fields in [
            &[("authorization", "Bearer b")][..],
            &[("x-api-key", "Bearer a")],
            &[("authorization", "Bearer a"), ("x-api-key", "k")],
            &[("cookie", "session=Bearer a")],
            &[("cookie", "csrf=Bearer a")],
            &[("cookie", "session=a; csrf=b")],
            &[("cookie", "session=a; session=b")],
        ] {
            names.push(name(&one, fields));
        }
        // Cookies may come in several fields (RFC 9113, section 8.2.3).
        let apart = name(&one, &[("cookie", "session=a"), ("cookie", "x=1;csrf=b")]);
        assert_eq!(Some(&apart), names.get(7));
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 9, "{names:?}");
    }

    #[test]
    fn without_credentials_nobody_may_lock() {
        let root = tempfile::tempdir().unwrap();
        let digest = digest(&root, &["authorization"], &["session"]);
        for fields in [
            &[][..],
            &[("authorization", "")],
            &[("x-api-key", "k")],
            &[("cookie", "session=; other=1; sessions=2; session")],
        ] {
            let head = head(fields);
            let caller = digest.authenticate(&head.headers).unwrap();
            assert_eq!(caller.principal.as_str(), "anonymous");
            assert!(!caller.anonymous && caller.may_everywhere(Write));
            assert!(!caller.may_everywhere(Lock));
            let challenge = digest.credentials(&head, &caller).challenge.unwrap();
            assert_eq!(challenge, "Upstream realm=\"leasehold\", header=\"authorization\"");
        }
        let twice = head(&[("authorization", "a"), ("authorization", "b")]);
        let problem = digest.authenticate(&twice.headers).unwrap_err();
        assert_eq!(problem.members["field"], "Authorization");
    }

    #[test]
    fn the_upstream_is_asked_with_the_credentials_and_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        let digest = digest(&root, &["authorization", "x-api-key"], &["session"]);
        let head = head(&[
            ("authorization", "Bearer hunter2"),
            ("cookie", "theme=dark; session=s"),
            ("user-agent", "curl"),
            ("x-http-method-override", "DELETE"),
            ("if-none-match", "*"),
            ("x-lock-token", "lock_x"),
        ]);
        let caller = digest.authenticate(&head.headers).unwrap();
        let credentials = digest.credentials(&head, &caller);
        let mut asked: Vec<(&str, &str)> = Vec::new();
        for (name, value) in &credentials.head.headers {
            asked.push((name.as_str(), value.to_str().unwrap()));
        }
        asked.sort_unstable();
        let expected = [
            ("authorization", "Bearer hunter2"),
            ("cookie", "session=s"),
            ("host", "api.example"),
            ("user-agent", "curl"),
        ];
        assert_eq!(asked, expected);
        assert!(credentials.challenge.is_none());
        let (by_target, ()) =
            Request::get("https://other.example/a").body(()).unwrap().into_parts();
        assert_eq!(digest.credentials(&by_target, &caller).head.headers[HOST], "other.example");
        let shown = format!("{credentials:?} {digest:?}");
        assert!(!shown.contains("hunter2") && !shown.contains("session=s"), "{shown}");
    }

    #[test]
    fn more_is_given_by_name() {
        let root = tempfile::tempdir().unwrap();
        let mut digest = digest(&root, &["authorization"], &[]);
        let boss = head(&[("authorization", "boss")]);
        let named = digest.authenticate(&boss.headers).unwrap().principal.to_string();
        let role = Role { permissions: RoleName::Manager.permissions(), patterns: Vec::new() };
        digest.settings.map.by_value = vec![(named, role.clone())];
        let caller = digest.authenticate(&boss.headers).unwrap();
        assert!(caller.may_everywhere(Break));
        assert_eq!(*digest.credentials(&boss, &caller).roles, [role]);
        let other = head(&[("authorization", "other")]);
        let caller = digest.authenticate(&other.headers).unwrap();
        assert!(caller.may_everywhere(Lock) && !caller.may_everywhere(Break));
        assert!(digest.credentials(&other, &caller).roles.is_empty());
    }
}
