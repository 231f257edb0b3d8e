use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{EncodingKey, Header, encode, get_current_timestamp};
use leasehold_core::caller::{Permission, Role};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::identity::RoleName;

/// Who issues tokens: a key of ES256, and its public part with this id.
struct Issuer {
    key: EncodingKey,
    id: String,
    public: Value,
}

impl Issuer {
    fn new(id: &str) -> Self {
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let key = EncodingKey::from_ec_der(pair.serialized_der());
        let mut jwk = Jwk::from_encoding_key(&key, Algorithm::ES256).unwrap();
        jwk.common.key_id = Some(id.to_owned());
        Self { key, id: id.to_owned(), public: serde_json::to_value(jwk).unwrap() }
    }

    fn token(&self, changes: Value) -> String {
        let header = Header { kid: Some(self.id.clone()), ..Header::new(Algorithm::ES256) };
        encode(&header, &claims(changes), &self.key).unwrap()
    }
}

/// The claims of a good token, with these changes; null takes one away.
fn claims(changes: Value) -> Value {
    let mut claims = json!({
        "iss": "https://id.example/", "aud": "leasehold", "sub": "alice",
        "exp": get_current_timestamp() + 300,
    });
    for (name, value) in changes.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    claims
}

fn write(root: &TempDir, keys: &[&Value]) {
    std::fs::write(root.path().join("jwks.json"), json!({ "keys": keys }).to_string()).unwrap();
}

fn settings(root: &TempDir) -> JwtSettings {
    let role = |role: RoleName| Role { permissions: role.permissions(), patterns: Vec::new() };
    JwtSettings {
        jwks: JwksSource::File(root.path().join("jwks.json")),
        jwks_ca: None,
        algorithms: vec![Algorithm::ES256, Algorithm::RS256],
        issuer: "https://id.example/".to_owned(),
        audience: vec!["leasehold".to_owned()],
        leeway: Duration::from_secs(60),
        principal_claim: "sub".to_owned(),
        role_claim: Some("realm.roles".to_owned()),
        map: RoleMap {
            everyone: Some(role(RoleName::Reader)),
            by_value: vec![("ops".to_owned(), role(RoleName::Manager))],
        },
    }
}

fn bearer(token: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(AUTHORIZATION, HeaderValue::try_from(format!("Bearer {token}")).unwrap());
    headers
}

fn refusal(jwt: &Jwt, token: &str) -> String {
    let problem = jwt.authenticate(&bearer(token)).unwrap_err();
    assert_eq!(problem.name, Name::Unauthenticated);
    assert!(token.len() < 6 || !problem.detail.contains(token), "{}", problem.detail);
    let challenge = problem.headers[0].1.to_str().unwrap().to_owned();
    assert!(challenge.starts_with("Bearer realm=\"leasehold\", error=\"invalid_token\""));
    problem.detail
}

#[test]
fn a_token_says_whose_it_is_and_what_he_may_do() {
    let (root, issuer) = (tempfile::tempdir().unwrap(), Issuer::new("1"));
    write(&root, &[&json!({"kty": "future"}), &issuer.public]);
    let jwt = Jwt::open(settings(&root)).unwrap();
    for (changes, may_break) in [
        (json!({}), false),
        (json!({"realm": {"roles": ["dev", "ops"]}}), true),
        (json!({"realm": {"roles": "dev ops"}}), true),
        (json!({"realm.roles": ["ops"]}), true),
        (json!({"realm": {"roles": [1, {"a": "ops"}]}}), false),
        (json!({"aud": ["other", "leasehold"], "nbf": get_current_timestamp()}), false),
    ] {
        let caller = jwt.authenticate(&bearer(&issuer.token(changes.clone()))).unwrap();
        assert_eq!(caller.principal.as_str(), "alice");
        assert!(caller.may_everywhere(Permission::Read) && !caller.anonymous);
        assert_eq!(caller.may_everywhere(Permission::Break), may_break, "{changes}");
    }
}

#[test]
fn a_token_that_does_not_fit_is_refused_and_told_why() {
    let (root, issuer) = (tempfile::tempdir().unwrap(), Issuer::new("1"));
    write(&root, &[&issuer.public]);
    let jwt = Jwt::open(settings(&root)).unwrap();
    let now = get_current_timestamp();
    for (changes, says) in [
        (json!({"exp": now - 120}), "has expired"),
        (json!({"exp": null}), "has no `exp`"),
        (json!({"nbf": now + 120}), "is not valid yet"),
        (json!({"iss": "https://other.example/"}), "is from another issuer"),
        (json!({"iss": null}), "has no `iss`"),
        (json!({"aud": "other"}), "is for somebody else"),
        (json!({"aud": null}), "has no `aud`"),
        (json!({"sub": null}), "does not say whose it is"),
        (json!({"sub": 7}), "does not say whose it is"),
        (json!({"sub": "anonymous"}), "does not say whose it is"),
    ] {
        let told = refusal(&jwt, &issuer.token(changes));
        assert!(told.contains(says), "{told}");
    }
    let good = issuer.token(json!({}));
    let forged = Issuer::new("1").token(json!({"sub": "mallory"}));
    let parts: Vec<&str> = good.split('.').collect();
    let altered = format!("{}.{}.{}", parts[0], forged.split('.').nth(1).unwrap(), parts[2]);
    for token in [&forged, &altered, &Issuer::new("2").token(json!({}))] {
        assert!(refusal(&jwt, token).contains("not signed with a key that is known"));
    }
    for token in ["", "a", "a.b.c", &good[..good.len() - 1], &format!("{good}.x")] {
        refusal(&jwt, token);
    }
}

#[test]
fn only_algorithms_that_are_allowed_count() {
    let (root, issuer) = (tempfile::tempdir().unwrap(), Issuer::new("1"));
    let secret = b"a secret that both sides know of!";
    let shared = EncodingKey::from_secret(secret);
    let mut jwk = Jwk::from_encoding_key(&shared, Algorithm::HS256).unwrap();
    jwk.common.key_id = Some("shared".to_owned());
    write(&root, &[&issuer.public, &serde_json::to_value(jwk).unwrap()]);
    let header = |id: &str| Header { kid: Some(id.to_owned()), ..Header::new(Algorithm::HS256) };
    let token = |header, key| encode(&header, &claims(json!({})), key).unwrap();
    let jwt = Jwt::open(settings(&root)).unwrap();
    let with_shared = token(header("shared"), &shared);
    assert!(refusal(&jwt, &with_shared).contains("an algorithm that does not count here"));
    let asked =
        JwtSettings { algorithms: vec![Algorithm::ES256, Algorithm::HS256], ..settings(&root) };
    let jwt = Jwt::open(asked).unwrap();
    jwt.authenticate(&bearer(&with_shared)).unwrap();
    // The public key of the other algorithm, taken as a secret.
    let public = EncodingKey::from_secret(issuer.public.to_string().as_bytes());
    assert!(refusal(&jwt, &token(header("1"), &public)).contains("not signed with a key"));
    // {"alg":"none"} and {"alg":"ES256","crit":["b64"],"b64":false}
    let good = issuer.token(json!({}));
    let claims = good.split('.').nth(1).unwrap();
    refusal(&jwt, &format!("eyJhbGciOiJub25lIn0.{claims}."));
    let crit = Header { crit: Some(vec!["b64".to_owned()]), ..Header::new(Algorithm::ES256) };
    let crit = encode(&crit, &self::claims(json!({})), &issuer.key).unwrap();
    assert!(refusal(&jwt, &crit).contains("extensions that are not known"));
}

#[tokio::test]
async fn a_new_key_is_looked_for_and_not_too_often() {
    let (root, first, second) = (tempfile::tempdir().unwrap(), Issuer::new("1"), Issuer::new("2"));
    write(&root, &[&first.public]);
    let jwt = Jwt::open(settings(&root)).unwrap();
    let at = Duration::from_secs;
    let (old, new) = (bearer(&first.token(json!({}))), bearer(&second.token(json!({}))));
    jwt.prepare(&new, at(100)).await;
    jwt.authenticate(&new).unwrap_err();
    write(&root, &[&second.public]);
    jwt.prepare(&new, at(109)).await;
    jwt.authenticate(&new).unwrap_err();
    jwt.prepare(&old, at(110)).await;
    jwt.authenticate(&old).unwrap();
    jwt.prepare(&new, at(110)).await;
    jwt.authenticate(&new).unwrap();
    jwt.authenticate(&old).unwrap_err();
    // What cannot be read changes nothing.
    std::fs::write(root.path().join("jwks.json"), "{\"keys\": [{\"k\": \"hunter2\"").unwrap();
    let error = jwt.keys.refresh().await.unwrap_err();
    let told = format!("{error} {:?}", std::error::Error::source(&error));
    assert!(told.contains("JSON Web Key Set") && !told.contains("hunter2"), "{told}");
    jwt.authenticate(&new).unwrap();
    assert!(Jwt::open(settings(&root)).is_err());
}

#[test]
fn without_a_token_the_challenge_has_no_error() {
    let (root, issuer) = (tempfile::tempdir().unwrap(), Issuer::new("1"));
    write(&root, &[&issuer.public]);
    let jwt = Jwt::open(settings(&root)).unwrap();
    let mut basic = HeaderMap::new();
    basic.insert(AUTHORIZATION, HeaderValue::from_static("Basic YTpi"));
    for headers in [HeaderMap::new(), basic] {
        let problem = jwt.authenticate(&headers).unwrap_err();
        assert_eq!(problem.headers[0].1, "Bearer realm=\"leasehold\"");
    }
    let mut twice = bearer("a.b.c");
    twice.append(AUTHORIZATION, HeaderValue::from_static("Bearer d.e.f"));
    assert_eq!(jwt.authenticate(&twice).unwrap_err().name, Name::MalformedRequest);
}
