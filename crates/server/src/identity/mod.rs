//! Identity: who sends a request.
//!
//! In anonymous mode nobody is asked. In keys mode everybody shows an API key, and the principal
//! is the key's name. What a caller may do is in the key's roles; whether that is enough is
//! decided where the request is understood.

mod key;
mod ring;
mod store;

use std::path::Path;
use std::time::Instant;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::header::{AUTHORIZATION, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use leasehold_core::caller::Caller;
use leasehold_problems::{Name, Problem};

pub use self::key::NewKey;
pub use self::ring::KeyRing;
pub use self::store::{KeyEntry, KeyRole, KeyStore, KeyStoreError, RoleName};
use crate::config::IdentityMode;

const BASIC: HeaderValue = HeaderValue::from_static("Basic realm=\"leasehold\", charset=\"UTF-8\"");
const BEARER: HeaderValue = HeaderValue::from_static("Bearer");

/// Base64 with or without its padding: clients differ.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Tells who sends a request.
#[derive(Debug)]
pub struct Identity {
    anonymous: Caller,
    keys: Option<KeyRing>,
    started: Instant,
}

impl Identity {
    /// The identity of this mode, with the keys of the data folder `data` where it has some.
    ///
    /// # Errors
    /// When there are keys and they cannot be read.
    pub fn open(mode: IdentityMode, data: &Path) -> Result<Self, KeyStoreError> {
        let keys = match mode {
            IdentityMode::Anonymous => None,
            IdentityMode::Keys => Some(KeyRing::open(KeyStore::new(data))?),
        };
        Ok(Self { anonymous: Caller::anonymous(), keys, started: Instant::now() })
    }

    /// The keys; none in anonymous mode.
    #[must_use]
    pub fn keys(&self) -> Option<&KeyRing> {
        self.keys.as_ref()
    }

    /// Who sends a request with these fields.
    ///
    /// # Errors
    /// `401 unauthenticated` without a key that is known; `400 malformed-request` with several.
    pub fn authenticate(&self, headers: &HeaderMap) -> Result<Caller, Box<Problem>> {
        let Some(keys) = &self.keys else { return Ok(self.anonymous.clone()) };
        let mut sent = headers.get_all(AUTHORIZATION).iter();
        let Some(authorization) = sent.next() else {
            return Err(unauthenticated("the request has no API key", headers));
        };
        if sent.next().is_some() {
            let problem = Problem::new(
                Name::MalformedRequest,
                "the request has several `Authorization` fields; send one",
            );
            return Err(Box::new(problem.with("field", "Authorization")));
        }
        let Some(presented) = credentials(authorization) else {
            let what = "the request's `Authorization` is neither a Bearer key nor Basic";
            return Err(unauthenticated(what, headers));
        };
        key::split(&presented)
            .and_then(|(id, secret)| keys.find(id, secret, self.started.elapsed()))
            // Not whether the id is known: that would help whoever tries ids.
            .ok_or_else(|| unauthenticated("the request's API key is not known here", headers))
    }
}

/// The key in an `Authorization` field: after `Bearer`, or as the password of `Basic`. The user
/// name says nothing: the key has a name already.
fn credentials(authorization: &HeaderValue) -> Option<String> {
    let (scheme, rest) = authorization.to_str().ok()?.split_once(' ')?;
    let rest = rest.trim_matches(' ');
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(rest.to_owned());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let pair = String::from_utf8(BASE64.decode(rest).ok()?).ok()?;
    pair.split_once(':').map(|(_, password)| password.to_owned())
}

fn unauthenticated(what: &str, headers: &HeaderMap) -> Box<Problem> {
    let detail = format!(
        "{what}; send one as `Authorization: Bearer KEY`, or as the password of Basic. \
         `leasehold key add` makes one."
    );
    let mut problem = Problem::new(Name::Unauthenticated, detail);
    if !is_fetch(headers) {
        problem = problem.header(WWW_AUTHENTICATE, BASIC);
    }
    Box::new(problem.header(WWW_AUTHENTICATE, BEARER))
}

/// Whether a page's script sends the request: told `Basic`, the browser would open a dialog of
/// its own over the page.
fn is_fetch(headers: &HeaderMap) -> bool {
    let mode = headers.get("sec-fetch-mode");
    mode.is_some_and(|mode| mode != "navigate") || headers.contains_key("x-requested-with")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn challenges(problem: &Problem) -> Vec<&str> {
        let fields = problem.headers.iter().filter(|(name, _)| name == WWW_AUTHENTICATE);
        fields.map(|(_, value)| value.to_str().unwrap()).collect()
    }

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    #[test]
    fn without_identity_everyone_is_anonymous_and_credentials_are_not_looked_at() {
        let identity = Identity::open(IdentityMode::Anonymous, Path::new("/nowhere")).unwrap();
        for fields in [vec![], vec![("authorization", "Bearer x"), ("authorization", "y")]] {
            let caller = identity.authenticate(&headers(&fields)).unwrap();
            assert!(caller.anonymous);
            assert_eq!(caller.principal.as_str(), "anonymous");
        }
    }

    #[test]
    fn a_key_comes_as_bearer_or_as_the_password_of_basic() {
        let root = tempfile::tempdir().unwrap();
        let store = KeyStore::new(root.path());
        let roles = [KeyRole { role: RoleName::Reader, paths: Vec::new() }];
        let key = store.add("alice", &roles).unwrap().reveal();
        let identity = Identity::open(IdentityMode::Keys, root.path()).unwrap();
        let basic = |user: &str| BASE64.encode(format!("{user}:{key}"));
        for sent in [
            format!("Bearer {key}"),
            format!("bearer  {key} "),
            format!("Basic {}", basic("")),
            format!("BASIC {}", basic("alice")),
            format!("Basic {}", basic("somebody").trim_end_matches('=')),
        ] {
            let caller = identity.authenticate(&headers(&[("authorization", &sent)])).unwrap();
            assert_eq!(caller.principal.as_str(), "alice", "{sent}");
            assert!(!caller.anonymous);
        }
        let last = if key.ends_with('x') { 'y' } else { 'x' };
        let other = format!("Bearer {}{last}", &key[..key.len() - 1]);
        for sent in [
            "Bearer",
            "Bearer ",
            "Bearer lhk_a_b",
            "Basic !!!",
            "Basic YQ==",
            "Digest a=b",
            &key,
            &other,
        ] {
            let problem = identity.authenticate(&headers(&[("authorization", sent)])).unwrap_err();
            assert_eq!(problem.name, Name::Unauthenticated, "{sent}");
            assert!(!problem.detail.contains("lhk_"), "{}", problem.detail);
        }
        let sent = format!("Bearer {key}");
        let twice = headers(&[("authorization", &sent), ("authorization", &sent)]);
        let problem = identity.authenticate(&twice).unwrap_err();
        assert_eq!(problem.name, Name::MalformedRequest);
        assert_eq!(problem.members["field"], "Authorization");
    }

    #[test]
    fn a_pages_script_is_not_told_basic() {
        let root = tempfile::tempdir().unwrap();
        let identity = Identity::open(IdentityMode::Keys, root.path()).unwrap();
        let both = vec!["Basic realm=\"leasehold\", charset=\"UTF-8\"", "Bearer"];
        for (fields, expected) in [
            (vec![], both.clone()),
            (vec![("sec-fetch-mode", "navigate")], both),
            (vec![("sec-fetch-mode", "cors")], vec!["Bearer"]),
            (vec![("sec-fetch-mode", "same-origin")], vec!["Bearer"]),
            (vec![("x-requested-with", "XMLHttpRequest")], vec!["Bearer"]),
        ] {
            let problem = identity.authenticate(&headers(&fields)).unwrap_err();
            assert_eq!(challenges(&problem), expected, "{fields:?}");
        }
    }
}
