//! Identity: who sends a request.
//!
//! In anonymous mode nobody is asked. In keys mode everybody shows an API key, and the principal
//! is the key's name. In header mode a proxy in front says who it is, in JWT mode a token that
//! somebody else has signed, in certificate mode the connection's client certificate. In digest mode nobody here knows: callers are named after the
//! credentials that they show to the upstream, and the upstream is asked. What a caller may do is in the key's roles, or follows from what the
//! proxy or the token says of it; whether that is enough is decided where the request is
//! understood.

mod certificate;
mod digest;
mod fetch;
mod header;
mod jwks;
mod jwt;
mod key;
mod ring;
mod roles;
mod store;

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, WWW_AUTHENTICATE};
use http::request::Parts;
use leasehold_core::caller::Caller;
use leasehold_engine::token::TokenKeyError;
use leasehold_guard::call::Credentials;
use leasehold_problems::{Name, Problem};

pub use self::certificate::{CertificateSettings, ClientCertificate, NameKind};
use self::digest::Digest;
pub use self::digest::DigestSettings;
pub(crate) use self::digest::is_name;
pub use self::header::HeaderSettings;
pub use self::jwks::{JwksError, JwksSource};
use self::jwt::Jwt;
pub use self::jwt::JwtSettings;
pub use self::key::NewKey;
pub use self::ring::KeyRing;
pub use self::roles::RoleMap;
pub use self::store::{KeyEntry, KeyRole, KeyStore, KeyStoreError, RoleName};
use crate::config::IdentityMode;

const BASIC: HeaderValue = HeaderValue::from_static("Basic realm=\"leasehold\", charset=\"UTF-8\"");
const BEARER: HeaderValue = HeaderValue::from_static("Bearer");

/// Base64 with or without its padding: clients differ.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// How callers are told apart, as the operator has set it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Settings {
    /// Not at all.
    Anonymous,
    /// By the API key that each presents.
    Keys {
        /// The field that the key is in; none: `Authorization`.
        header: Option<HeaderName>,
    },
    /// By what a proxy says.
    Header(HeaderSettings),
    /// By a signed token.
    Jwt(JwtSettings),
    /// By what they show to the upstream.
    Digest(DigestSettings),
    /// By the certificate that they connect with.
    Certificate(CertificateSettings),
}

/// Who is at the other end of a connection.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its address.
    pub address: IpAddr,
    /// The certificate that it has shown, where one was asked for.
    pub certificate: Option<ClientCertificate>,
}

/// Why callers cannot be told apart.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The API keys cannot be read.
    #[error(transparent)]
    Keys(#[from] KeyStoreError),
    /// The keys that tokens are signed with cannot be read.
    #[error("`identity.jwks` cannot be used")]
    Jwks(#[from] JwksError),
    /// The secret that callers are named with cannot be read or made.
    #[error("callers cannot be named after their credentials")]
    Principals(#[from] TokenKeyError),
}

impl Settings {
    /// The mode that these are of.
    #[must_use]
    pub fn mode(&self) -> IdentityMode {
        match self {
            Self::Anonymous => IdentityMode::Anonymous,
            Self::Keys { .. } => IdentityMode::Keys,
            Self::Header(_) => IdentityMode::Header,
            Self::Jwt(_) => IdentityMode::Jwt,
            Self::Digest(_) => IdentityMode::Digest,
            Self::Certificate(_) => IdentityMode::Certificate,
        }
    }
}

/// Tells who sends a request.
#[derive(Debug)]
pub struct Identity {
    mode: Mode,
    started: Instant,
}

#[derive(Debug)]
enum Mode {
    Anonymous(Caller),
    Keys { ring: KeyRing, header: Option<HeaderName> },
    Header(HeaderSettings),
    Jwt(Jwt),
    Digest(Digest),
    Certificate(CertificateSettings),
}

impl Identity {
    /// The identity of these settings, with the keys and secrets of the data folder `data` where
    /// it has some.
    ///
    /// # Errors
    /// When there are some and they cannot be read.
    pub fn open(settings: Settings, data: &Path) -> Result<Self, IdentityError> {
        let mode = match settings {
            Settings::Anonymous => Mode::Anonymous(Caller::anonymous()),
            Settings::Keys { header } => {
                Mode::Keys { ring: KeyRing::open(KeyStore::new(data))?, header }
            }
            Settings::Header(settings) => Mode::Header(settings),
            Settings::Jwt(settings) => Mode::Jwt(Jwt::open(settings)?),
            Settings::Digest(settings) => Mode::Digest(Digest::open(settings, data)?),
            Settings::Certificate(settings) => Mode::Certificate(settings),
        };
        Ok(Self { mode, started: Instant::now() })
    }

    /// The keys; none where callers are told apart in another way.
    #[must_use]
    pub fn keys(&self) -> Option<&KeyRing> {
        match &self.mode {
            Mode::Keys { ring, .. } => Some(ring),
            _ => None,
        }
    }

    /// Reads again what is kept elsewhere and changes there: the keys that tokens are signed with.
    /// Those known before stay if that fails, and the log says so.
    pub async fn refresh(&self) {
        if let Mode::Jwt(jwt) = &self.mode
            && let Err(error) = jwt.keys.refresh().await
        {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "the keys of tokens stay as they are"
            );
        }
    }

    /// Does so from time to time, so that keys that are gone do not count for ever.
    pub async fn follow(&self) {
        const EVERY: Duration = Duration::from_secs(300);
        loop {
            tokio::time::sleep(EVERY).await;
            self.refresh().await;
        }
    }

    /// Whether the peer at this address is a proxy whose word on who came before it counts.
    pub fn trusts(&self, peer: IpAddr) -> bool {
        match &self.mode {
            Mode::Header(settings) => settings.trusts(peer),
            Mode::Anonymous(_)
            | Mode::Keys { .. }
            | Mode::Jwt(_)
            | Mode::Digest(_)
            | Mode::Certificate(_) => false,
        }
    }

    /// Gets what [`Identity::authenticate`] needs for a request with these fields, where that is
    /// not here yet.
    pub async fn prepare(&self, headers: &HeaderMap) {
        if let Mode::Jwt(jwt) = &self.mode {
            jwt.prepare(headers, self.started.elapsed()).await;
        }
    }

    /// Who sends a request with these fields from this end of a connection.
    ///
    /// # Errors
    /// `401 unauthenticated` without credentials that are known; `400 malformed-request` with
    /// several; `403 forbidden` from an address whose word does not count.
    pub fn authenticate(&self, headers: &HeaderMap, peer: &Peer) -> Result<Caller, Box<Problem>> {
        match &self.mode {
            Mode::Anonymous(caller) => Ok(caller.clone()),
            Mode::Keys { ring, header } => self.by_key(ring, header.as_ref(), headers),
            Mode::Header(settings) => settings.authenticate(headers, peer.address),
            Mode::Jwt(jwt) => jwt.authenticate(headers),
            Mode::Digest(digest) => digest.authenticate(headers),
            Mode::Certificate(settings) => settings.authenticate(peer.certificate.as_ref()),
        }
    }

    /// What the upstream is asked with about `caller`, who has sent a request with this head; none
    /// where it is known here who calls.
    pub fn credentials(&self, head: &Parts, caller: &Caller) -> Option<Arc<Credentials>> {
        match &self.mode {
            Mode::Digest(digest) => Some(Arc::new(digest.credentials(head, caller))),
            Mode::Anonymous(_)
            | Mode::Keys { .. }
            | Mode::Header(_)
            | Mode::Jwt(_)
            | Mode::Certificate(_) => None,
        }
    }

    /// Takes out of a request what was for this server alone: a key of its own must not be shown
    /// to what stands behind it.
    pub fn take_out(&self, headers: &mut HeaderMap) {
        if let Mode::Keys { header, .. } = &self.mode {
            headers.remove(header.as_ref().unwrap_or(&AUTHORIZATION));
        }
    }

    fn by_key(
        &self,
        ring: &KeyRing,
        header: Option<&HeaderName>,
        headers: &HeaderMap,
    ) -> Result<Caller, Box<Problem>> {
        let refused = |what: &str| match header {
            None => unauthenticated(what, headers),
            Some(field) => no_key_in(what, field),
        };
        let field = header.unwrap_or(&AUTHORIZATION);
        let mut sent = headers.get_all(field).iter();
        let Some(first) = sent.next() else { return Err(refused("the request has no API key")) };
        if sent.next().is_some() {
            let name = if header.is_none() { "Authorization" } else { field.as_str() };
            let detail = format!("the request has several `{name}` fields; send one");
            let problem = Problem::new(Name::MalformedRequest, detail);
            return Err(Box::new(problem.with("field", name)));
        }
        let presented = match header {
            None => credentials(first).ok_or_else(|| {
                refused("the request's `Authorization` is neither a Bearer key nor Basic")
            })?,
            Some(_) => first.to_str().unwrap_or_default().to_owned(),
        };
        key::split(&presented)
            .and_then(|(id, secret)| ring.find(id, secret, self.started.elapsed()))
            // Not whether the id is known: that would help whoever tries ids.
            .ok_or_else(|| refused("the request's API key is not known here"))
    }
}

fn no_key_in(what: &str, field: &HeaderName) -> Box<Problem> {
    let detail = format!("{what}; send one as `{field}: KEY`. `leasehold key add` makes one.");
    let problem = Problem::new(Name::Unauthenticated, detail);
    Box::new(match in_field("ApiKey", field) {
        Some(challenge) => problem.header(WWW_AUTHENTICATE, challenge),
        None => problem,
    })
}

/// A challenge for what is expected in a field other than `Authorization`. A 401 needs one (RFC
/// 9110, section 15.5.2), and no registered scheme says this.
fn in_field(scheme: &str, field: &HeaderName) -> Option<HeaderValue> {
    HeaderValue::try_from(format!("{scheme} realm=\"leasehold\", header=\"{field}\"")).ok()
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

    const PEER: &Peer =
        &Peer { address: IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), certificate: None };

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
        let identity = Identity::open(Settings::Anonymous, Path::new("/nowhere")).unwrap();
        for fields in [vec![], vec![("authorization", "Bearer x"), ("authorization", "y")]] {
            let caller = identity.authenticate(&headers(&fields), PEER).unwrap();
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
        let identity = Identity::open(Settings::Keys { header: None }, root.path()).unwrap();
        let basic = |user: &str| BASE64.encode(format!("{user}:{key}"));
        for sent in [
            format!("Bearer {key}"),
            format!("bearer  {key} "),
            format!("Basic {}", basic("")),
            format!("BASIC {}", basic("alice")),
            format!("Basic {}", basic("somebody").trim_end_matches('=')),
        ] {
            let caller =
                identity.authenticate(&headers(&[("authorization", &sent)]), PEER).unwrap();
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
            let problem =
                identity.authenticate(&headers(&[("authorization", sent)]), PEER).unwrap_err();
            assert_eq!(problem.name, Name::Unauthenticated, "{sent}");
            assert!(!problem.detail.contains("lhk_"), "{}", problem.detail);
        }
        let sent = format!("Bearer {key}");
        let twice = headers(&[("authorization", &sent), ("authorization", &sent)]);
        let problem = identity.authenticate(&twice, PEER).unwrap_err();
        assert_eq!(problem.name, Name::MalformedRequest);
        assert_eq!(problem.members["field"], "Authorization");
    }

    #[test]
    fn a_pages_script_is_not_told_basic() {
        let root = tempfile::tempdir().unwrap();
        let identity = Identity::open(Settings::Keys { header: None }, root.path()).unwrap();
        let both = vec!["Basic realm=\"leasehold\", charset=\"UTF-8\"", "Bearer"];
        for (fields, expected) in [
            (vec![], both.clone()),
            (vec![("sec-fetch-mode", "navigate")], both),
            (vec![("sec-fetch-mode", "cors")], vec!["Bearer"]),
            (vec![("sec-fetch-mode", "same-origin")], vec!["Bearer"]),
            (vec![("x-requested-with", "XMLHttpRequest")], vec!["Bearer"]),
        ] {
            let problem = identity.authenticate(&headers(&fields), PEER).unwrap_err();
            assert_eq!(challenges(&problem), expected, "{fields:?}");
        }
    }

    #[test]
    fn a_key_in_a_field_of_its_own_leaves_authorization_alone() {
        let root = tempfile::tempdir().unwrap();
        let roles = [KeyRole { role: RoleName::Reader, paths: Vec::new() }];
        let key = KeyStore::new(root.path()).add("alice", &roles).unwrap().reveal();
        let field = HeaderName::from_static("x-leasehold-key");
        let settings = Settings::Keys { header: Some(field) };
        let identity = Identity::open(settings, root.path()).unwrap();
        let theirs = ("authorization", "Bearer theirs");
        let mut sent = headers(&[theirs, ("x-leasehold-key", &key)]);
        assert_eq!(identity.authenticate(&sent, PEER).unwrap().principal.as_str(), "alice");
        identity.take_out(&mut sent);
        assert_eq!(sent, headers(&[theirs]));
        let bearer = format!("Bearer {key}");
        for fields in [
            vec![("authorization", bearer.as_str())],
            vec![theirs, ("x-leasehold-key", "lhk_a_b")],
            vec![theirs, ("x-leasehold-key", &bearer)],
        ] {
            let problem = identity.authenticate(&headers(&fields), PEER).unwrap_err();
            let challenge = "ApiKey realm=\"leasehold\", header=\"x-leasehold-key\"";
            assert_eq!(challenges(&problem), [challenge], "{fields:?}");
            assert!(!problem.detail.contains("lhk_"), "{}", problem.detail);
        }
        let twice = headers(&[("x-leasehold-key", &key), ("x-leasehold-key", &key)]);
        let problem = identity.authenticate(&twice, PEER).unwrap_err();
        assert_eq!(problem.members["field"], "x-leasehold-key");
    }

    #[test]
    fn a_key_in_authorization_is_not_passed_on() {
        let root = tempfile::tempdir().unwrap();
        let identity = Identity::open(Settings::Keys { header: None }, root.path()).unwrap();
        let mut sent = headers(&[("authorization", "Bearer lhk_a_b"), ("accept", "*/*")]);
        identity.take_out(&mut sent);
        assert_eq!(sent, headers(&[("accept", "*/*")]));
    }
}
