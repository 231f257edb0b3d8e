//! What must not be shown: tokens and keys.

use std::fmt;

use http::HeaderValue;

use crate::error::Error;

/// A lock token: the secret that proves who holds a lock.
///
/// `Debug` hides it and there is no `Display`; [`Token::reveal`] gives the text, for whoever has
/// to pass it on.
///
/// ```
/// let token: leasehold_client::Token = "lock_s3cret".parse()?;
/// assert_eq!(format!("{token:?}"), "Token(…)");
/// assert_eq!(token.reveal(), "lock_s3cret");
/// # Ok::<(), leasehold_client::Error>(())
/// ```
#[derive(Clone, Eq, PartialEq)]
pub struct Token(String);

impl Token {
    const PREFIX: &str = "lock_";
    const MAX: usize = Self::PREFIX.len() + 120;

    /// The text of the token.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    pub(crate) fn header(&self) -> Result<HeaderValue, Error> {
        let mut value =
            HeaderValue::from_str(&self.0).map_err(|_| Error::Invalid("a lock token".into()))?;
        value.set_sensitive(true);
        Ok(value)
    }
}

impl std::str::FromStr for Token {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let legal = text.strip_prefix(Self::PREFIX).is_some_and(|rest| {
            !rest.is_empty()
                && rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
        });
        if !legal || Self::MAX < text.len() {
            // The text stays out of the message: it may be half a secret.
            return Err(Error::Invalid(
                "a lock token is `lock_` and letters, digits, `_`, `-`".into(),
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

impl From<&Token> for Token {
    fn from(token: &Token) -> Self {
        token.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_contract_calls_a_token_is_one() {
        for text in ["lock_a", "lock_A-z_09", &format!("lock_{}", "x".repeat(120))] {
            assert!(text.parse::<Token>().is_ok(), "{text}");
        }
        for text in ["", "lock_", "lock_a b", "lock_a,lock_b", "LOCK_a", "lock_\r\nX: y"] {
            assert!(text.parse::<Token>().is_err(), "{text:?}");
        }
        assert!(format!("lock_{}", "x".repeat(121)).parse::<Token>().is_err());
    }
}
