//! The tokens that come with a request: `X-Lock-Token`, `Lock-Token` and `If`.

use http::{HeaderMap, HeaderName};
use leasehold_core::command::Presented;
use leasehold_engine::Engine;
use leasehold_problems::{Name, Problem};

/// The field that carries lock tokens.
pub const X_LOCK_TOKEN: HeaderName = HeaderName::from_static("x-lock-token");
/// The field of RFC 4918, section 10.5.
pub const LOCK_TOKEN: HeaderName = HeaderName::from_static("lock-token");
/// The field of RFC 4918, section 10.4.
pub const IF: HeaderName = HeaderName::from_static("if");

/// The most tokens of one request.
pub const MAX_TOKENS: usize = 256;

/// A refusal for a header field that cannot be read.
#[must_use]
pub fn malformed(field: &str, detail: impl Into<String>) -> Box<Problem> {
    Box::new(Problem::new(Name::MalformedRequest, detail).with("field", field))
}

/// What a token in its plain form or its URI form claims. The URI form has to name the lock that
/// the token is of.
#[must_use]
pub fn read(engine: &Engine, text: &str) -> Presented {
    let Some(uri) = text.strip_prefix("opaquelocktoken:") else { return engine.read_token(text) };
    let Some((id, token)) = uri.split_once('/') else { return Presented::Forged };
    match engine.read_token(token) {
        Presented::Token { lock_id, fence } if lock_id.to_string().eq_ignore_ascii_case(id) => {
            Presented::Token { lock_id, fence }
        }
        _ => Presented::Forged,
    }
}

/// The tokens of `X-Lock-Token` and `Lock-Token`: each once, in order.
///
/// # Errors
/// `400 malformed-request` for more than [`MAX_TOKENS`], bytes that are no visible ASCII, or a
/// `Lock-Token` that is not `<…>`.
pub fn presented(engine: &Engine, headers: &HeaderMap) -> Result<Vec<Presented>, Box<Problem>> {
    let mut texts: Vec<&str> = Vec::new();
    for value in headers.get_all(&X_LOCK_TOKEN) {
        let value = value
            .to_str()
            .map_err(|_| malformed("X-Lock-Token", "X-Lock-Token has bytes that no token has."))?;
        for text in value.split(',').map(str::trim).filter(|text| !text.is_empty()) {
            if !texts.contains(&text) {
                texts.push(text);
            }
            if texts.len() > MAX_TOKENS {
                return Err(malformed("X-Lock-Token", "More than 256 lock tokens were sent."));
            }
        }
    }
    for value in headers.get_all(&LOCK_TOKEN) {
        let text = value
            .to_str()
            .ok()
            .map(str::trim)
            .and_then(|text| text.strip_prefix('<')?.strip_suffix('>'))
            .ok_or_else(|| {
                malformed("Lock-Token", "Lock-Token is not a URI between `<` and `>`.")
            })?;
        if !texts.contains(&text) {
            texts.push(text);
        }
        if texts.len() > MAX_TOKENS {
            return Err(malformed("Lock-Token", "More than 256 lock tokens were sent."));
        }
    }
    let mut tokens: Vec<Presented> = Vec::with_capacity(texts.len());
    for text in texts {
        let token = read(engine, text);
        // The same token in its two forms is one.
        if token == Presented::Forged || !tokens.contains(&token) {
            tokens.push(token);
        }
    }
    Ok(tokens)
}
