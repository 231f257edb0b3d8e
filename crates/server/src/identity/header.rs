//! Callers whom a proxy in front has made sure of: it says who they are in a header field.
//!
//! The field counts only from the proxy, told by its address. From anybody else the request is
//! refused, so that nobody behind this server ever sees a field that a stranger has made up.

use std::net::IpAddr;

use http::header::{HeaderMap, HeaderName, HeaderValue, WWW_AUTHENTICATE};
use ipnet::IpNet;
use leasehold_core::caller::Caller;
use leasehold_problems::{Name, Problem};

use super::roles::{RoleMap, principal};

/// Whose word counts, and where it stands.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HeaderSettings {
    /// The field with the caller's name.
    pub name: HeaderName,
    /// The field with what else is said of the caller, separated by commas.
    pub roles: Option<HeaderName>,
    /// The addresses of the proxy.
    pub trusted: Vec<IpNet>,
    /// What callers may do.
    pub map: RoleMap,
}

impl HeaderSettings {
    /// Whether what comes from this address comes from one of the proxies.
    pub(super) fn trusts(&self, peer: IpAddr) -> bool {
        // A socket of IPv6 shows addresses of IPv4 as its own.
        let peer = peer.to_canonical();
        self.trusted.iter().any(|net| net.contains(&peer))
    }

    /// Who sends a request with these fields from this address.
    pub(super) fn authenticate(
        &self,
        headers: &HeaderMap,
        peer: IpAddr,
    ) -> Result<Caller, Box<Problem>> {
        if !self.trusts(peer) {
            return Err(Box::new(Problem::new(
                Name::Forbidden,
                "This server learns who its callers are from a proxy in front of it, and the \
                 request did not come from there.",
            )));
        }
        let Some(name) = only(headers, &self.name)? else {
            let detail = format!(
                "The proxy in front of this server did not say who the caller is: the request has \
                 no `{}`.",
                self.name
            );
            return Err(self.unauthenticated(detail));
        };
        let Some(principal) = std::str::from_utf8(name.as_bytes()).ok().and_then(principal) else {
            let detail = format!("What the request has as `{}` is no caller's name.", self.name);
            return Err(self.unauthenticated(detail));
        };
        let said = match &self.roles {
            None => None,
            Some(field) => only(headers, field)?,
        };
        let said = said.and_then(|said| std::str::from_utf8(said.as_bytes()).ok()).unwrap_or("");
        Ok(self.map.caller(principal, said.split(',').map(str::trim)))
    }

    fn unauthenticated(&self, detail: String) -> Box<Problem> {
        let problem = Problem::new(Name::Unauthenticated, detail);
        Box::new(match super::in_field("Proxied", &self.name) {
            Some(challenge) => problem.header(WWW_AUTHENTICATE, challenge),
            None => problem,
        })
    }
}

/// The one field of this name. Of several nobody knows which the proxy has set.
fn only<'h>(
    headers: &'h HeaderMap,
    name: &HeaderName,
) -> Result<Option<&'h HeaderValue>, Box<Problem>> {
    let mut sent = headers.get_all(name).iter();
    match (sent.next(), sent.next()) {
        (_, Some(_)) => {
            let detail = format!("The request has several `{name}` fields; send one.");
            Err(Box::new(Problem::new(Name::MalformedRequest, detail).with("field", name.as_str())))
        }
        (one, None) => Ok(one),
    }
}

#[cfg(test)]
mod tests {
    use leasehold_core::caller::{Permission, Role};

    use super::*;
    use crate::identity::RoleName;

    fn settings() -> HeaderSettings {
        let role = |role: RoleName| Role { permissions: role.permissions(), patterns: Vec::new() };
        HeaderSettings {
            name: HeaderName::from_static("x-user"),
            roles: Some(HeaderName::from_static("x-groups")),
            trusted: vec!["10.1.0.0/16".parse().unwrap(), "::1/128".parse().unwrap()],
            map: RoleMap {
                everyone: Some(role(RoleName::Reader)),
                by_value: vec![("ops".to_owned(), role(RoleName::Manager))],
            },
        }
    }

    fn ask(peer: &str, fields: &[(&'static str, &str)]) -> Result<Caller, Box<Problem>> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        settings().authenticate(&headers, peer.parse().unwrap())
    }

    #[test]
    fn the_field_counts_from_the_proxy_and_from_nobody_else() {
        for peer in ["10.1.2.3", "::1", "::ffff:10.1.255.255"] {
            let caller = ask(peer, &[("x-user", "alice")]).unwrap();
            assert_eq!(caller.principal.as_str(), "alice");
            assert!(!caller.anonymous);
        }
        for peer in ["10.2.0.1", "127.0.0.1", "::2", "::ffff:10.2.0.0"] {
            let problem = ask(peer, &[("x-user", "alice")]).unwrap_err();
            assert_eq!(problem.name, Name::Forbidden, "{peer}");
        }
    }

    #[test]
    fn what_is_no_name_is_nobody() {
        for name in ["", "anonymous", &"a".repeat(256)] {
            let problem = ask("::1", &[("x-user", name)]).unwrap_err();
            assert_eq!(problem.name, Name::Unauthenticated, "{name}");
            assert_eq!(problem.headers[0].1, "Proxied realm=\"leasehold\", header=\"x-user\"");
        }
        assert_eq!(ask("::1", &[]).unwrap_err().name, Name::Unauthenticated);
        let twice = ask("::1", &[("x-user", "alice"), ("x-user", "bob")]).unwrap_err();
        assert_eq!(
            (twice.name, &twice.members["field"]),
            (Name::MalformedRequest, &"x-user".into())
        );
    }

    #[test]
    fn roles_follow_from_what_is_said() {
        let may = |said: &str| {
            let caller = ask("::1", &[("x-user", "alice"), ("x-groups", said)]).unwrap();
            [Permission::Read, Permission::Break].map(|each| caller.may_everywhere(each))
        };
        assert_eq!(may("dev, ops"), [true, true]);
        assert_eq!(may("ops"), [true, true]);
        assert_eq!(may("dev,opsx,Ops"), [true, false]);
        assert_eq!(may(""), [true, false]);
    }
}
