//! Documents: reading them, and writing them, with conditions and under locks.

use std::fmt;
use std::future::IntoFuture;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{
    ACCEPT, CONTENT_TYPE, ETAG, HeaderName, IF_MATCH, IF_NONE_MATCH, LAST_MODIFIED, LOCATION,
};
use http::{HeaderValue, Method, StatusCode};
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::client::{Ask, Client, Reply, is_json};
use crate::error::Error;
use crate::held::{Held, Shared};
use crate::pages::{Pages, Query};
use crate::retry::Repeat;
use crate::secret::Token;

const X_LOCK_REQUESTED_BY: HeaderName = HeaderName::from_static("x-lock-requested-by");

/// A document as it was when it was read.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Document<T> {
    /// What is in it.
    pub value: T,
    /// Its version: no two have the same, ever.
    pub etag: String,
}

/// A document as bytes.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Raw {
    /// What is in it.
    pub bytes: Bytes,
    /// Its version. What stands behind a gateway may have none.
    pub etag: Option<String>,
    /// What kind of content it is.
    pub media_type: Option<String>,
    /// When it was last changed, as HTTP writes it.
    pub last_modified: Option<String>,
}

impl Raw {
    /// The content as JSON, if it says that it is.
    ///
    /// # Errors
    /// [`Error::Protocol`] if it is not.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Error> {
        if !is_json(self.media_type.as_deref()) {
            return Err(Error::Protocol("the document is not JSON".into()));
        }
        serde_json::from_slice(&self.bytes).map_err(|error| Error::Protocol(error.to_string()))
    }
}

/// A child, as a list shows it.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[non_exhaustive]
pub struct Child {
    /// Its path.
    pub resource: String,
    /// The last segment of its path, decoded.
    pub id: String,
    /// Its version; none where there is no document but something below.
    #[serde(default)]
    pub etag: Option<String>,
    /// When it was last changed.
    #[serde(default)]
    pub last_modified: Option<Timestamp>,
    /// What kind of content it is.
    #[serde(default)]
    pub media_type: Option<String>,
    /// Whether there is something below it.
    #[serde(default)]
    pub has_children: bool,
}

impl Client {
    /// Reads a JSON document.
    ///
    /// ```no_run
    /// # async fn example(client: leasehold_client::Client) -> Result<(), leasehold_client::Error> {
    /// #[derive(serde::Deserialize)]
    /// struct Flag {
    ///     enabled: bool,
    /// }
    ///
    /// let flag = client.get::<Flag>("/v1/flags/x").await?;
    /// println!("{} at {}", flag.value.enabled, flag.etag);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// The refusal; `not-found` where there is none. [`Error::Protocol`] for what is no JSON, or
    /// not a `T`.
    pub async fn get<T: DeserializeOwned>(&self, resource: &str) -> Result<Document<T>, Error> {
        let reply = self.send(&Ask::get(crate::path::path(resource)?)).await?;
        let etag = etag_of(&reply)?;
        Ok(Document { value: reply.json()?, etag })
    }

    /// The same, or none where there is no document.
    ///
    /// # Errors
    /// As [`get`](Self::get), but for `not-found`.
    pub async fn find<T: DeserializeOwned>(
        &self,
        resource: &str,
    ) -> Result<Option<Document<T>>, Error> {
        match self.get(resource).await {
            Ok(document) => Ok(Some(document)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads a document of any media type.
    ///
    /// # Errors
    /// The refusal; `not-found` where there is none.
    pub async fn get_bytes(&self, resource: &str) -> Result<Raw, Error> {
        let ask =
            Ask::get(crate::path::path(resource)?).header(ACCEPT, HeaderValue::from_static("*/*"));
        let reply = self.send(&ask).await?;
        let text = |name| reply.text(name).map(str::to_owned);
        let (etag, media_type) = (text(ETAG), text(CONTENT_TYPE));
        let last_modified = text(LAST_MODIFIED);
        Ok(Raw { bytes: reply.body, etag, media_type, last_modified })
    }

    /// What is right below a resource, page by page.
    pub fn list(&self, collection: &str) -> Pages<Child> {
        let mut query = Query::default();
        query.set("list", "true");
        Pages::of(self, crate::path::path(collection), query)
    }

    /// A write of a JSON document, whatever is there now.
    ///
    /// ```no_run
    /// # async fn example(client: leasehold_client::Client) -> Result<(), leasehold_client::Error> {
    /// let written = client.put("/v1/flags/x", &serde_json::json!({ "enabled": true })).await?;
    /// println!("{:?}", written.etag);
    /// # Ok(()) }
    /// ```
    pub fn put<T: Serialize + ?Sized>(&self, resource: &str, value: &T) -> Write {
        Write::new(self, Method::PUT, resource).json_body(value, "application/json")
    }

    /// A write of a JSON document, if it is still at this version; else `precondition-failed`.
    pub fn put_if_match<T: Serialize + ?Sized>(
        &self,
        resource: &str,
        value: &T,
        etag: &str,
    ) -> Write {
        self.put(resource, value).if_match(etag)
    }

    /// A write of a JSON document that is not there yet; else `precondition-failed`.
    pub fn create<T: Serialize + ?Sized>(&self, resource: &str, value: &T) -> Write {
        self.put(resource, value).if_absent()
    }

    /// A write of bytes of any media type.
    pub fn put_bytes(&self, resource: &str, media_type: &str, bytes: impl Into<Bytes>) -> Write {
        Write::new(self, Method::PUT, resource).body(bytes.into(), media_type)
    }

    /// A new document in a collection. Its `id` names it; without one the server chooses
    /// ([`Written::location`]).
    pub fn post<T: Serialize + ?Sized>(&self, collection: &str, value: &T) -> Write {
        Write::new(self, Method::POST, collection).json_body(value, "application/json")
    }

    /// A change of a JSON document by a merge patch (RFC 7396): members are set, and null removes
    /// them.
    pub fn merge_patch<T: Serialize + ?Sized>(&self, resource: &str, patch: &T) -> Write {
        Write::new(self, Method::PATCH, resource).json_body(patch, "application/merge-patch+json")
    }

    /// A change of a JSON document by a list of operations (RFC 6902).
    pub fn json_patch<T: Serialize + ?Sized>(&self, resource: &str, patch: &T) -> Write {
        Write::new(self, Method::PATCH, resource).json_body(patch, "application/json-patch+json")
    }

    /// A delete of a document. With something below it, `has-children`.
    pub fn delete(&self, resource: &str) -> Write {
        Write::new(self, Method::DELETE, resource)
    }

    /// A delete of a document, if there is one, and everything below it.
    pub fn delete_all(&self, resource: &str) -> Write {
        let mut write = self.delete(resource);
        write.query = "?recursive=true";
        write
    }
}

/// A write that is being made. It is sent by [`send`](Self::send), or by awaiting it.
///
/// A write with a condition is repeated when its answer got lost, since it can take effect only
/// once. If then the outcome stays open, the error is that of the attempt whose outcome is not
/// known, and [`Error::has_no_side_effects`] says so. One without a condition is repeated only
/// where the failed attempt certainly did nothing.
#[must_use = "nothing is sent before `send` or `.await`"]
pub struct Write {
    client: Client,
    method: Method,
    resource: String,
    query: &'static str,
    headers: Vec<(HeaderName, HeaderValue)>,
    body: Bytes,
    helds: Vec<Arc<Shared>>,
    tokens: Vec<Token>,
    invalid: Option<Error>,
}

impl Write {
    fn new(client: &Client, method: Method, resource: &str) -> Self {
        Self {
            client: client.clone(),
            method,
            resource: resource.to_owned(),
            query: "",
            headers: Vec::new(),
            body: Bytes::new(),
            helds: Vec::new(),
            tokens: Vec::new(),
            invalid: None,
        }
    }

    /// Under a lock: with its token, and only while it is held. If it is lost, nothing is sent.
    pub fn under(mut self, held: &Held) -> Self {
        self.helds.push(held.shared.clone());
        self
    }

    /// With the token of a lock that is kept elsewhere.
    pub fn token(mut self, token: impl Into<Token>) -> Self {
        self.tokens.push(token.into());
        self
    }

    /// Only if the document is still at this version.
    pub fn if_match(self, etag: &str) -> Self {
        self.condition(IF_MATCH, etag)
    }

    /// Only if there is no document.
    pub fn if_absent(self) -> Self {
        self.condition(IF_NONE_MATCH, "*")
    }

    fn condition(mut self, name: HeaderName, value: &str) -> Self {
        match HeaderValue::from_str(value) {
            Ok(value) => self.headers.push((name, value)),
            Err(_) => self.invalid = Some(Error::Invalid(format!("{value:?} is no ETag"))),
        }
        self
    }

    fn json_body<T: Serialize + ?Sized>(mut self, value: &T, media_type: &'static str) -> Self {
        match serde_json::to_vec(value) {
            Ok(body) => self.body = body.into(),
            Err(error) => self.invalid = Some(Error::Invalid(format!("no JSON: {error}"))),
        }
        self.headers.push((CONTENT_TYPE, HeaderValue::from_static(media_type)));
        self
    }

    fn body(mut self, bytes: Bytes, media_type: &str) -> Self {
        self.body = bytes;
        match HeaderValue::from_str(media_type) {
            Ok(value) => self.headers.push((CONTENT_TYPE, value)),
            Err(_) => {
                self.invalid = Some(Error::Invalid(format!("{media_type:?} is no media type")));
            }
        }
        self
    }

    fn ask(&self) -> Result<Ask, Error> {
        let target = format!("{}{}", crate::path::path(&self.resource)?, self.query);
        let conditional =
            self.headers.iter().any(|(name, _)| *name == IF_MATCH || *name == IF_NONE_MATCH);
        let repeat = if conditional { Repeat::Safe } else { Repeat::OnlyIfNothingWasDone };
        let mut ask = Ask::new(self.method.clone(), target, repeat);
        for (name, value) in &self.headers {
            ask = ask.header(name.clone(), value.clone());
        }
        for token in self.tokens.iter().chain(self.helds.iter().map(|held| held.token())) {
            ask = ask.token(token)?;
        }
        ask.body = self.body.clone();
        Ok(ask)
    }

    /// Sends it.
    ///
    /// # Errors
    /// The refusal: `locked` and `frozen` where writes are stopped, `precondition-failed` where
    /// the document has changed. [`Error::Lost`] where a lock it was to be done under is lost.
    pub async fn send(mut self) -> Result<Written, Error> {
        if let Some(error) = self.invalid.take() {
            return Err(error);
        }
        let ask = self.ask()?;
        let may_go = || self.helds.iter().try_for_each(|held| held.check()).map_err(Error::Lost);
        match self.client.send_once_in_effect(&ask, may_go).await {
            Ok(reply) => {
                let written = Written::of(reply);
                if let Some(by) = &written.requested_by {
                    self.helds.iter().for_each(|held| held.asked_to_let_go(by));
                }
                Ok(written)
            }
            Err(error) => {
                self.helds.iter().for_each(|held| held.learn(&error));
                Err(error)
            }
        }
    }
}

impl IntoFuture for Write {
    type Output = Result<Written, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.send())
    }
}

impl fmt::Debug for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Write")
            .field("method", &self.method)
            .field("resource", &self.resource)
            .finish_non_exhaustive()
    }
}

/// A write that was carried out.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Written {
    /// The status: 201 for something new.
    pub status: StatusCode,
    /// The new version; none of what was deleted.
    pub etag: Option<String>,
    /// Where the new document is.
    pub location: Option<String>,
    /// Who asks the holder of a lock that this was done under to let go.
    pub requested_by: Option<String>,
    /// What was answered; of a patch, the new document.
    pub body: Bytes,
}

impl Written {
    fn of(reply: Reply) -> Self {
        let text = |name| reply.text(name).map(str::to_owned);
        Self {
            status: reply.status,
            etag: text(ETAG),
            location: text(LOCATION),
            requested_by: text(X_LOCK_REQUESTED_BY),
            body: reply.body.clone(),
        }
    }

    /// Whether the document is new.
    #[must_use]
    pub fn is_created(&self) -> bool {
        self.status == StatusCode::CREATED
    }

    /// The document that a patch made.
    ///
    /// # Errors
    /// [`Error::Protocol`] where none was answered.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Error> {
        serde_json::from_slice(&self.body).map_err(|error| Error::Protocol(error.to_string()))
    }
}

fn etag_of(reply: &Reply) -> Result<String, Error> {
    let etag = reply.text(ETAG).map(str::to_owned);
    etag.ok_or_else(|| Error::Protocol("the document has no `ETag`".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_shows_no_token_and_what_cannot_be_sent_is_told_when_it_is() {
        let client = Client::new("http://127.0.0.1:1").unwrap();
        let token: Token = "lock_hunter2".parse().unwrap();
        let write = client.put("/a", &1).token(&token);
        assert!(!format!("{write:?}{:?}", write.ask().unwrap()).contains("hunter2"));
        let write = client.put("/a", &1).if_match("\"\n");
        assert!(matches!(write.invalid, Some(Error::Invalid(_))));
        let keys_are_no_text = std::collections::HashMap::from([((1, 2), 3)]);
        assert!(client.put("/a", &keys_are_no_text).invalid.is_some());
    }

    #[test]
    fn only_a_write_with_a_condition_can_be_repeated() {
        let client = Client::new("http://127.0.0.1:1").unwrap();
        let repeat = |write: Write| write.ask().unwrap().repeat;
        for write in [client.put("/a", &1), client.post("/a", &1), client.delete("/a")] {
            assert_eq!(repeat(write), Repeat::OnlyIfNothingWasDone);
        }
        assert_eq!(repeat(client.create("/a", &1)), Repeat::Safe);
        assert_eq!(repeat(client.delete("/a").if_match("\"1\"")), Repeat::Safe);
    }
}
