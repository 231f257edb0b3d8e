//! Callers who show a token that somebody else has signed: a JSON Web Token (RFC 7519), as
//! `Authorization: Bearer`.
//!
//! Only algorithms that are allowed by name count, whatever a token says of itself; a token
//! without a signature never does. The token goes on to what stands behind the server, which may
//! want it too.

use std::path::PathBuf;
use std::time::Duration;

use http::header::{AUTHORIZATION, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, Validation, decode, decode_header};
use leasehold_core::caller::Caller;
use leasehold_problems::{Name, Problem};
use serde_json::{Map, Value};

use super::jwks::{JwksError, JwksSource, KeySet};
use super::roles::{RoleMap, principal};

/// Which tokens count, and what is read from them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct JwtSettings {
    /// Where the keys come from.
    pub jwks: JwksSource,
    /// The authorities that sign the certificate of whoever serves them; none: the system's.
    pub jwks_ca: Option<PathBuf>,
    /// The algorithms that count. Never empty.
    pub algorithms: Vec<Algorithm>,
    /// Who issues the tokens.
    pub issuer: String,
    /// Whom the tokens are for: one of these. Empty: that is not looked at.
    pub audience: Vec<String>,
    /// How far clocks may differ.
    pub leeway: Duration,
    /// The claim with the caller's name.
    pub principal_claim: String,
    /// The claim with what else is said of the caller.
    pub role_claim: Option<String>,
    /// What callers may do.
    pub map: RoleMap,
}

/// Tells callers by their tokens.
#[derive(Debug)]
pub(super) struct Jwt {
    settings: JwtSettings,
    pub(super) keys: KeySet,
}

impl Jwt {
    pub(super) fn open(settings: JwtSettings) -> Result<Self, JwksError> {
        let keys = KeySet::open(settings.jwks.clone(), settings.jwks_ca.as_deref())?;
        Ok(Self { settings, keys })
    }

    /// Looks for the key of the request's token, where it is not known.
    pub(super) async fn prepare(&self, headers: &HeaderMap, now: Duration) {
        let Ok(Some(token)) = token(headers) else { return };
        let Ok(header) = decode_header(token) else { return };
        // Who shows a token that could never count does not make this server ask.
        if self.settings.algorithms.contains(&header.alg) {
            self.keys.look_for(header.kid.as_deref(), now).await;
        }
    }

    /// Who sends a request with these fields.
    pub(super) fn authenticate(&self, headers: &HeaderMap) -> Result<Caller, Box<Problem>> {
        let Some(token) = token(headers)? else {
            let detail = "The request has no token; send one as `Authorization: Bearer TOKEN`.";
            let problem = Problem::new(Name::Unauthenticated, detail);
            let challenge = HeaderValue::from_static("Bearer realm=\"leasehold\"");
            return Err(Box::new(problem.header(WWW_AUTHENTICATE, challenge)));
        };
        if self.keys.is_empty() {
            let detail = "The keys that tokens are signed with cannot be had at the moment.";
            return Err(Box::new(Problem::new(Name::Unavailable, detail).retry_after(10)));
        }
        self.caller(token).map_err(invalid)
    }

    /// The caller that the token is of, or what is wrong with it.
    fn caller(&self, token: &str) -> Result<Caller, &'static str> {
        let claims = self.verify(token)?;
        let settings = &self.settings;
        let name = claim(&claims, &settings.principal_claim).and_then(Value::as_str);
        let principal =
            name.and_then(principal).ok_or("the token does not say whose it is, in a name")?;
        let said = settings.role_claim.as_ref().and_then(|name| claim(&claims, name));
        let said: Vec<&str> = match said {
            // As in `scope` (RFC 6749, section 3.3).
            Some(Value::String(words)) => words.split(' ').collect(),
            Some(Value::Array(values)) => values.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        Ok(settings.map.caller(principal, said.into_iter()))
    }

    fn verify(&self, token: &str) -> Result<Map<String, Value>, &'static str> {
        let settings = &self.settings;
        let header = decode_header(token)
            .map_err(|_| "it is no JSON Web Token, or signed in a way that is not known here")?;
        if header.crit.is_some() {
            return Err("the token asks for extensions that are not known here");
        }
        if !settings.algorithms.contains(&header.alg) {
            return Err("the token is signed with an algorithm that does not count here");
        }
        let mut validation = Validation::new(header.alg);
        validation.leeway = settings.leeway.as_secs();
        validation.validate_nbf = true;
        validation.set_issuer(&[&settings.issuer]);
        validation.set_required_spec_claims(&["exp", "iss"]);
        if settings.audience.is_empty() {
            validation.validate_aud = false;
        } else {
            validation.set_audience(&settings.audience);
            validation.required_spec_claims.insert("aud".to_owned());
        }
        for key in self.keys.candidates(header.kid.as_deref(), header.alg) {
            match decode(token, &key, &validation) {
                Ok(decoded) => return Ok(decoded.claims),
                Err(error) => {
                    if let Some(what) = wrong(error.kind()) {
                        return Err(what);
                    }
                }
            }
        }
        Err("the token was not signed with a key that is known here")
    }
}

/// What is wrong with a token; nothing that another key could not change. Never what is in it.
fn wrong(kind: &ErrorKind) -> Option<&'static str> {
    Some(match kind {
        // The key may be for another curve: its kind alone was looked at.
        ErrorKind::InvalidSignature
        | ErrorKind::InvalidKeyFormat
        | ErrorKind::InvalidEcdsaKey
        | ErrorKind::InvalidEddsaKey
        | ErrorKind::InvalidRsaKey(_)
        | ErrorKind::UnsupportedAlgorithm
        | ErrorKind::Provider(_) => return None,
        ErrorKind::ExpiredSignature => "the token has expired",
        ErrorKind::ImmatureSignature => "the token is not valid yet",
        ErrorKind::InvalidIssuer => "the token is from another issuer",
        ErrorKind::InvalidAudience => "the token is for somebody else",
        ErrorKind::MissingRequiredClaim(claim) if claim == "exp" => "the token has no `exp`",
        ErrorKind::MissingRequiredClaim(claim) if claim == "iss" => "the token has no `iss`",
        ErrorKind::MissingRequiredClaim(_) => "the token has no `aud`",
        _ => "the token cannot be read",
    })
}

fn invalid(what: &'static str) -> Box<Problem> {
    let detail = format!("The request's token does not count: {what}.");
    let problem = Problem::new(Name::Unauthenticated, detail);
    // RFC 6750, section 3. A quotation mark would end the string.
    let told = what.replace('`', "");
    let challenge = format!(
        "Bearer realm=\"leasehold\", error=\"invalid_token\", error_description=\"{told}\""
    );
    Box::new(match HeaderValue::try_from(challenge) {
        Ok(challenge) => problem.header(WWW_AUTHENTICATE, challenge),
        Err(_) => problem,
    })
}

/// The token of a request; none where it has no credentials of this kind.
fn token(headers: &HeaderMap) -> Result<Option<&str>, Box<Problem>> {
    let mut sent = headers.get_all(AUTHORIZATION).iter();
    let (Some(first), next) = (sent.next(), sent.next()) else { return Ok(None) };
    if next.is_some() {
        let detail = "The request has several `Authorization` fields; send one.";
        let problem = Problem::new(Name::MalformedRequest, detail);
        return Err(Box::new(problem.with("field", "Authorization")));
    }
    let bearer = first.to_str().ok().and_then(|text| text.split_once(' '));
    let token = bearer.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    Ok(token.map(|(_, token)| token.trim_matches(' ')))
}

/// A claim by its name, or by a path of names with dots between them (`realm_access.roles`).
fn claim<'c>(claims: &'c Map<String, Value>, name: &str) -> Option<&'c Value> {
    if let Some(found) = claims.get(name) {
        return Some(found);
    }
    let (first, rest) = name.split_once('.')?;
    rest.split('.').try_fold(claims.get(first)?, |value, name| value.get(name))
}

#[cfg(test)]
mod tests;
