//! Whether a request is a read or a write, where something else than its method has a say: a rule
//! (`reads`), or a field or parameter that an upstream takes a method from.

use http::{HeaderMap, Method, Uri};
use leasehold_problems::Problem;

use crate::rules::{Rule, spelling};
use crate::tokens::malformed;

/// The fields that frameworks take a method from, in place of that of the request line.
const OVERRIDES: [&str; 3] = ["x-http-method-override", "x-http-method", "x-method-override"];

/// Whether a method is safe: such requests always pass (RFC 9110, section 9.2.1, and the reading
/// methods of WebDAV).
#[must_use]
pub fn is_safe(method: &Method) -> bool {
    matches!(method.as_str(), "GET" | "HEAD" | "OPTIONS" | "PROPFIND" | "REPORT" | "SEARCH")
}

/// Every method that the upstream may take a request for: that of its line, those of the override
/// fields, and those of the rule's parameter.
///
/// # Errors
/// `400` for one that is no method.
pub fn methods(
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
    rule: &Rule,
) -> Result<Vec<Method>, Box<Problem>> {
    let mut methods = vec![method.clone()];
    let mut add = |field: &str, text: &str| {
        let text = text.trim();
        if text.is_empty() {
            return Ok(());
        }
        let read = Method::from_bytes(text.to_ascii_uppercase().as_bytes());
        let method = read.map_err(|_| malformed(field, format!("`{field}` names no method.")))?;
        if !methods.contains(&method) {
            methods.push(method);
        }
        Ok::<(), Box<Problem>>(())
    };
    for (name, value) in headers {
        // Where fields become variables, as with CGI, `_` and `-` are the same.
        let name = name.as_str();
        let Some(field) = OVERRIDES.into_iter().find(|field| {
            field.len() == name.len()
                && field.bytes().zip(name.bytes()).all(|(a, b)| a == b || (a == b'-' && b == b'_'))
        }) else {
            continue;
        };
        let value =
            value.to_str().map_err(|_| malformed(field, format!("`{field}` names no method.")))?;
        for text in value.split(',') {
            add(field, text)?;
        }
    }
    if let Some(parameter) = &rule.method_parameter {
        for pair in uri.query().unwrap_or_default().split(['&', ';']) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            if spelling::decode(name).is_ok_and(|name| name == *parameter) {
                let value = spelling::decode(value).map_err(|error| {
                    malformed(parameter, format!("`{parameter}` cannot be read: {error}."))
                })?;
                add(parameter, &value)?;
            }
        }
    }
    Ok(methods)
}

/// Whether a request with this method only reads. `path` is as it was sent.
#[must_use]
pub fn is_read(method: &Method, path: &str, rule: &Rule) -> bool {
    is_safe(method) || rule.reads.iter().any(|read| read.matches(method, path))
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn of(uri: &str, fields: &[(&'static str, &'static str)]) -> Result<Vec<String>, String> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let rule = Rule { method_parameter: Some("_method".to_owned()), ..Rule::default() };
        let methods = methods(&Method::POST, &uri.parse().unwrap(), &headers, &rule);
        let texts = |methods: Vec<Method>| methods.iter().map(ToString::to_string).collect();
        methods.map(texts).map_err(|problem| problem.members["field"].as_str().unwrap().to_owned())
    }

    #[test]
    fn a_request_is_judged_as_every_method_that_it_names() {
        for (uri, fields, expected) in [
            ("/a", &[][..], Ok(vec!["POST"])),
            ("/a", &[("x-http-method-override", "delete")], Ok(vec!["POST", "DELETE"])),
            ("/a", &[("x_http_method", "PUT")], Ok(vec!["POST", "PUT"])),
            ("/a", &[("x-method-override", "GET, PATCH")], Ok(vec!["POST", "GET", "PATCH"])),
            ("/a", &[("x-http-methods", "PUT")], Ok(vec!["POST"])),
            ("/a", &[("x-http-method", "POST")], Ok(vec!["POST"])),
            ("/a", &[("x-http-method", "")], Ok(vec!["POST"])),
            ("/a?_method=put", &[], Ok(vec!["POST", "PUT"])),
            ("/a?x=1&%5fmethod=%44ELETE;_method=PUT", &[], Ok(vec!["POST", "DELETE", "PUT"])),
            ("/a?method=put", &[], Ok(vec!["POST"])),
            ("/a", &[("x-http-method", "D E")], Err("x-http-method".to_owned())),
            ("/a?_method=%00", &[], Err("_method".to_owned())),
        ] {
            let expected = expected.map(|texts| texts.iter().map(ToString::to_string).collect());
            assert_eq!(of(uri, fields), expected, "{uri} {fields:?}");
        }
    }
}
