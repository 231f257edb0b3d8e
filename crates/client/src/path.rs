//! Resources as they are written in a request.

use crate::error::Error;

/// What a path may have as it is (RFC 3986, section 3.3), beside letters and digits. `%` is taken
/// as the beginning of an escape that is already there.
const BARE: &[u8] = b"/%-._~!$&'()*+,;=:@";

/// What a value in a query may have as it is.
const BARE_IN_QUERY: &[u8] = b"/-._~:@";

/// The path of a resource: begins with a slash and ends without one; what a path cannot have is
/// percent-encoded.
pub(crate) fn path(resource: &str) -> Result<String, Error> {
    if !resource.starts_with('/') {
        return Err(Error::Invalid(format!("the resource {resource:?} does not begin with `/`")));
    }
    if resource.len() > 8192 {
        return Err(Error::Invalid("the resource is longer than any server takes".into()));
    }
    let mut path = encode(resource, BARE);
    if path.len() > 1 && path.ends_with('/') {
        path.pop();
    }
    Ok(path)
}

/// The path of the resource, without the slash where it is the root: suffixes come behind it.
pub(crate) fn base(resource: &str) -> Result<String, Error> {
    let mut path = path(resource)?;
    if path == "/" {
        path.clear();
    }
    Ok(path)
}

/// One segment of a path: any text, percent-encoded, slashes included.
///
/// ```
/// let resource = format!("/notes/{}", leasehold_client::segment("50% off / today"));
/// assert_eq!(resource, "/notes/50%25%20off%20%2F%20today");
/// ```
#[must_use]
pub fn segment(text: &str) -> String {
    encode(text, &BARE[2..])
}

/// A value in a query.
pub(crate) fn query_value(text: &str) -> String {
    encode(text, BARE_IN_QUERY)
}

fn encode(text: &str, bare: &[u8]) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || bare.contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_is_sent_as_it_is_written_and_what_a_path_cannot_have_is_escaped() {
        for (resource, sent) in [
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("/a/b/", "/a/b"),
            ("/a%2Db", "/a%2Db"),
            ("/a b", "/a%20b"),
            ("/ü", "/%C3%BC"),
            ("/a?b#c", "/a%3Fb%23c"),
            ("/a\r\nX: y", "/a%0D%0AX:%20y"),
        ] {
            assert_eq!(path(resource).unwrap(), sent);
        }
        assert_eq!(base("/").unwrap(), "");
        assert!(path("a").is_err());
        assert!(path("").is_err());
        assert_eq!(query_value("a&b=c+d /x"), "a%26b%3Dc%2Bd%20/x");
    }
}
