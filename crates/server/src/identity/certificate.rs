//! Callers who show a certificate when they connect.
//!
//! What is read here has been proven: an authority in `tls_client_ca` has signed the certificate,
//! and whoever is connected has its key. The operator says which of its names counts. Where it has
//! several of that kind, nobody knows which is meant, and none counts.

use std::sync::Arc;

use http::header::{HeaderValue, WWW_AUTHENTICATE};
use leasehold_core::caller::Caller;
use leasehold_problems::{Name, Problem};
use rustls::pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;
use x509_parser::x509::AttributeTypeAndValue;

use super::roles::{RoleMap, principal};

const CHALLENGE: HeaderValue = HeaderValue::from_static("Certificate realm=\"leasehold\"");

/// Which name of a certificate is its caller's.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NameKind {
    /// The common name of its subject.
    CommonName,
    /// The e-mail address among its alternative names.
    Email,
    /// The URI among them, as SPIFFE has it.
    Uri,
    /// The DNS name among them.
    Dns,
}

/// What is read from certificates.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CertificateSettings {
    /// The caller's name.
    pub name: NameKind,
    /// What callers may do, by the organizational units of the subject.
    pub map: RoleMap,
}

/// What the certificate of a connection says of its client. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct ClientCertificate(Arc<Names>);

#[derive(Debug, Default)]
struct Names {
    common_names: Vec<String>,
    units: Vec<String>,
    emails: Vec<String>,
    uris: Vec<String>,
    dns: Vec<String>,
}

impl ClientCertificate {
    /// Reads a certificate. One that cannot be read has no names.
    #[must_use]
    pub fn read(der: &CertificateDer<'_>) -> Self {
        let Ok((_, certificate)) = X509Certificate::from_der(der) else { return Self::default() };
        let subject = certificate.subject();
        let mut names = Names {
            common_names: texts(subject.iter_common_name()),
            units: texts(subject.iter_organizational_unit()),
            ..Names::default()
        };
        let alternatives = certificate.subject_alternative_name().ok().flatten();
        for name in alternatives.iter().flat_map(|found| &found.value.general_names) {
            match name {
                GeneralName::RFC822Name(text) => names.emails.push((*text).to_owned()),
                GeneralName::URI(text) => names.uris.push((*text).to_owned()),
                GeneralName::DNSName(text) => names.dns.push((*text).to_owned()),
                _ => {}
            }
        }
        Self(Arc::new(names))
    }
}

/// The texts of these attributes. One that is no text is none of them.
fn texts<'c>(attributes: impl Iterator<Item = &'c AttributeTypeAndValue<'c>>) -> Vec<String> {
    attributes.filter_map(|each| each.as_str().ok()).map(str::to_owned).collect()
}

impl CertificateSettings {
    /// Who has connected with this certificate.
    pub(super) fn authenticate(
        &self,
        certificate: Option<&ClientCertificate>,
    ) -> Result<Caller, Box<Problem>> {
        let Some(ClientCertificate(names)) = certificate else {
            return Err(refused("The connection shows no certificate, and one is needed."));
        };
        let (found, what) = match self.name {
            NameKind::CommonName => (&names.common_names, "common name"),
            NameKind::Email => (&names.emails, "e-mail address"),
            NameKind::Uri => (&names.uris, "URI"),
            NameKind::Dns => (&names.dns, "DNS name"),
        };
        let name = match &found[..] {
            [name] => name,
            [] => return Err(refused(&format!("The connection's certificate has no {what}."))),
            [_, _, ..] => {
                let detail = format!("The connection's certificate has more than one {what}.");
                return Err(refused(&detail));
            }
        };
        let Some(principal) = principal(name) else {
            let detail = format!("The {what} of the connection's certificate is no caller's name.");
            return Err(refused(&detail));
        };
        Ok(self.map.caller(principal, names.units.iter().map(String::as_str)))
    }
}

fn refused(detail: &str) -> Box<Problem> {
    // No registered scheme says this, and a 401 needs one (RFC 9110, section 15.5.2).
    Box::new(Problem::new(Name::Unauthenticated, detail).header(WWW_AUTHENTICATE, CHALLENGE))
}

#[cfg(test)]
mod tests {
    use leasehold_core::caller::{Permission, Role};
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;
    use crate::identity::RoleName;

    /// A certificate with these names; an empty one is left out.
    fn certificate(common_name: &str, unit: &str, others: &[SanType]) -> ClientCertificate {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for (kind, text) in
            [(DnType::CommonName, common_name), (DnType::OrganizationalUnitName, unit)]
        {
            if !text.is_empty() {
                params.distinguished_name.push(kind, text);
            }
        }
        params.subject_alt_names = others.to_vec();
        let made = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        ClientCertificate::read(made.der())
    }

    fn ask(name: NameKind, certificate: &ClientCertificate) -> Result<Caller, Box<Problem>> {
        let role = |role: RoleName| Role { permissions: role.permissions(), patterns: Vec::new() };
        let map = RoleMap {
            everyone: Some(role(RoleName::Reader)),
            by_value: vec![("ops".to_owned(), role(RoleName::Manager))],
        };
        CertificateSettings { name, map }.authenticate(Some(certificate))
    }

    #[test]
    fn the_name_is_the_one_that_the_operator_has_chosen() {
        let uri = SanType::URI("spiffe://house/billing".try_into().unwrap());
        let email = SanType::Rfc822Name("alice@house.example".try_into().unwrap());
        let dns = SanType::DnsName("alice.house.example".try_into().unwrap());
        let shown = certificate("alice", "ops", &[uri.clone(), email, dns]);
        for (kind, name) in [
            (NameKind::CommonName, "alice"),
            (NameKind::Uri, "spiffe://house/billing"),
            (NameKind::Email, "alice@house.example"),
            (NameKind::Dns, "alice.house.example"),
        ] {
            let caller = ask(kind, &shown).unwrap();
            assert_eq!((caller.principal.as_str(), caller.anonymous), (name, false));
            assert!(caller.may_everywhere(Permission::Break));
        }
        let other = certificate("bob", "dev", &[]);
        assert!(!ask(NameKind::CommonName, &other).unwrap().may_everywhere(Permission::Break));
    }

    #[test]
    fn no_name_or_several_or_none_that_can_be_one_is_nobody() {
        let uri = |text: &str| SanType::URI(text.try_into().unwrap());
        for (kind, shown, detail) in [
            (NameKind::CommonName, certificate("", "", &[]), "has no common name"),
            (NameKind::CommonName, certificate("anonymous", "", &[]), "is no caller's name"),
            (NameKind::CommonName, certificate("a\nb", "", &[]), "is no caller's name"),
            (NameKind::CommonName, certificate(&"a".repeat(256), "", &[]), "is no caller's"),
            (NameKind::Uri, certificate("alice", "", &[]), "has no URI"),
            (NameKind::Uri, certificate("", "", &[uri("a:b"), uri("a:c")]), "more than one URI"),
            (NameKind::Dns, ClientCertificate::read(&b"\x30\x03".to_vec().into()), "has no DNS"),
        ] {
            let problem = ask(kind, &shown).unwrap_err();
            assert_eq!(problem.name, Name::Unauthenticated);
            assert!(problem.detail.contains(detail), "{}", problem.detail);
            assert_eq!(problem.headers[0].1, CHALLENGE);
        }
    }
}
