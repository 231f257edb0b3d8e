//! Reading a JSON body field by field, so that a mistake is named.

use bytes::Bytes;
use http_body::Body as _;
use http_body_util::BodyExt;
use leasehold_guard::body::Body;
use leasehold_guard::memory::broke_off;
use leasehold_guard::rules::{Located, Rules};
use leasehold_problems::{Name, Problem};
use serde_json::{Map, Value};

/// The longest body of a lock endpoint, in bytes.
pub const MAX_BODY: usize = 64 * 1024;

/// The fields of a body that have not been taken yet.
#[derive(Debug)]
pub struct Fields {
    members: Map<String, Value>,
}

/// `400 malformed-request` that names a field.
#[must_use]
pub fn malformed(field: &str, detail: impl Into<String>) -> Box<Problem> {
    Box::new(Problem::new(Name::MalformedRequest, detail).with("field", field))
}

/// `422 validation-failed` about one field.
#[must_use]
pub fn invalid(field: &str, reason: &str) -> Box<Problem> {
    let error = serde_json::json!({ "pointer": format!("/{field}"), "reason": reason });
    Box::new(
        Problem::new(Name::ValidationFailed, format!("`{field}` {reason}."))
            .with("errors", vec![error]),
    )
}

/// Reads a body of at most `limit` bytes.
///
/// # Errors
/// `413 payload-too-large`, or `400` where it broke off.
pub async fn bytes(mut body: Body, limit: usize) -> Result<Bytes, Box<Problem>> {
    let mut read = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| broke_off(&error))?;
        let Ok(data) = frame.into_data() else { continue };
        if read.is_empty() && data.len() <= limit && body.is_end_stream() {
            // Most bodies come in one piece.
            return Ok(data);
        }
        if limit - read.len() < data.len() {
            return Err(Box::new(
                Problem::new(
                    Name::PayloadTooLarge,
                    format!("The body is longer than {limit} bytes."),
                )
                .with("limit_bytes", limit),
            ));
        }
        read.extend_from_slice(&data);
    }
    Ok(read.into())
}

/// Reads a JSON object; an absent body is an empty one. Its media type is not looked at.
///
/// # Errors
/// `413`, or `400 malformed-request` for what is no JSON object.
pub async fn object(body: Body, limit: usize) -> Result<Map<String, Value>, Box<Problem>> {
    let bytes = bytes(body, limit).await?;
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(Map::new());
    }
    match serde_json::from_slice(&bytes) {
        Ok(Value::Object(members)) => Ok(members),
        Ok(_) => Err(malformed("body", "The body is no JSON object.")),
        Err(error) => Err(malformed("body", format!("The body is no JSON: {error}."))),
    }
}

impl Fields {
    /// The fields of this object. Null means absent, but for `ttl_seconds`.
    #[must_use]
    pub fn new(mut members: Map<String, Value>) -> Self {
        members.retain(|name, value| !value.is_null() || name == "ttl_seconds");
        Self { members }
    }

    /// A string of at most `max` bytes.
    ///
    /// # Errors
    /// `400` for another type, `422` for a longer one.
    pub fn text(&mut self, name: &str, max: usize) -> Result<Option<String>, Box<Problem>> {
        match self.members.remove(name) {
            None => Ok(None),
            Some(Value::String(text)) if text.len() <= max => Ok(Some(text)),
            Some(Value::String(_)) => Err(invalid(name, &format!("is longer than {max} bytes"))),
            Some(_) => Err(malformed(name, format!("`{name}` is no string."))),
        }
    }

    /// One of these words.
    ///
    /// # Errors
    /// `400` for anything else.
    pub fn word<T: Copy>(
        &mut self,
        name: &str,
        words: &[(&str, T)],
    ) -> Result<Option<T>, Box<Problem>> {
        let Some(value) = self.members.remove(name) else { return Ok(None) };
        let known = value.as_str().and_then(|text| {
            words.iter().find(|(word, _)| *word == text).map(|(_, meaning)| *meaning)
        });
        known.map(Some).ok_or_else(|| {
            let words: Vec<String> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
            malformed(name, format!("`{name}` is not one of {}.", words.join(", ")))
        })
    }

    /// An object.
    ///
    /// # Errors
    /// `400` for another type.
    pub fn object(&mut self, name: &str) -> Result<Option<Map<String, Value>>, Box<Problem>> {
        match self.members.remove(name) {
            None => Ok(None),
            Some(Value::Object(object)) => Ok(Some(object)),
            Some(_) => Err(malformed(name, format!("`{name}` is no object."))),
        }
    }

    /// A number of seconds, fractions allowed, as milliseconds rounded up; what does not fit is
    /// told by a value that no bound lets through.
    ///
    /// # Errors
    /// `400` for another type, null included.
    pub fn seconds(&mut self, name: &str) -> Result<Option<u64>, Box<Problem>> {
        Ok(self.number(name)?.map(to_ms))
    }

    /// A number, fractions allowed.
    ///
    /// # Errors
    /// `400` for another type, null included.
    pub fn number(&mut self, name: &str) -> Result<Option<f64>, Box<Problem>> {
        let Some(value) = self.members.remove(name) else { return Ok(None) };
        let number = value.as_f64();
        number.map(Some).ok_or_else(|| malformed(name, format!("`{name}` is no number.")))
    }

    /// A list of resources, each by its name or by one of its URLs.
    ///
    /// # Errors
    /// `400` for another type, a path that is none, fewer than one or more than `max`.
    pub fn resources(
        &mut self,
        name: &str,
        max: usize,
        rules: &Rules,
    ) -> Result<Option<Vec<Located>>, Box<Problem>> {
        let Some(value) = self.members.remove(name) else { return Ok(None) };
        let Value::Array(items) = value else {
            return Err(malformed(name, format!("`{name}` is no list of paths.")));
        };
        if items.is_empty() || max < items.len() {
            return Err(malformed(name, format!("`{name}` has to name 1 to {max} resources.")));
        }
        let mut resources = Vec::with_capacity(items.len());
        for (at, item) in items.iter().enumerate() {
            let field = format!("{name}/{at}");
            let Some(path) = item.as_str() else {
                return Err(malformed(&field, format!("`{field}` is no path.")));
            };
            let resource = rules
                .locate_text(path)
                .map_err(|error| malformed(&field, format!("`{field}`: {error}.")))?;
            resources.push(resource);
        }
        Ok(Some(resources))
    }

    /// Nothing else may be there.
    ///
    /// # Errors
    /// `400` that names a field that is not known.
    pub fn end(self) -> Result<(), Box<Problem>> {
        match self.members.keys().next() {
            None => Ok(()),
            Some(name) => Err(malformed(name, format!("`{name}` is no field of this request."))),
        }
    }
}

/// Seconds as milliseconds, rounded up; less than a second is rounded down, so that it stays less.
/// What is negative, or no number, is 0.
#[must_use]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a float cast saturates, and negative or missing numbers become 0"
)]
pub fn to_ms(seconds: f64) -> u64 {
    let ms = seconds * 1000.0;
    if seconds < 1.0 { ms as u64 } else { ms.ceil() as u64 }
}
