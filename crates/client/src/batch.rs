//! Several writes in one step: all or none.

use std::fmt;
use std::sync::Arc;

use http::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::client::{Ask, Client};
use crate::error::Error;
use crate::held::{Held, Shared};
use crate::retry::Repeat;
use crate::secret::Token;

impl Client {
    /// Several writes in one step: all are done, in this order, or none. At most 256.
    ///
    /// ```no_run
    /// # async fn example(client: leasehold_client::Client) -> Result<(), leasehold_client::Error> {
    /// use serde_json::json;
    ///
    /// client
    ///     .batch()
    ///     .merge_patch("/v1/flags/a", &json!({ "enabled": true }))
    ///     .delete("/v1/flags/b")
    ///     .send()
    ///     .await?;
    /// # Ok(()) }
    /// ```
    pub fn batch(&self) -> Batch {
        Batch {
            client: self.clone(),
            operations: Vec::new(),
            helds: Vec::new(),
            tokens: Vec::new(),
            invalid: None,
        }
    }
}

/// A batch that is being made. See [`Client::batch`].
#[must_use = "nothing is sent before `send`"]
pub struct Batch {
    client: Client,
    operations: Vec<Value>,
    helds: Vec<Arc<Shared>>,
    tokens: Vec<Token>,
    invalid: Option<Error>,
}

/// What became of one operation of a batch.
#[derive(Clone, Debug, Deserialize)]
#[non_exhaustive]
pub struct Done {
    /// The status: 201 for something new.
    pub status: u16,
    /// The header fields of its answer, with names in lower case.
    #[serde(default)]
    pub headers: Map<String, Value>,
    /// What it was answered; of a patch, the new document.
    #[serde(default)]
    pub body: Value,
}

impl Done {
    /// The new version; none of what was deleted.
    #[must_use]
    pub fn etag(&self) -> Option<&str> {
        self.headers.get("etag")?.as_str()
    }

    /// Where the new document is.
    #[must_use]
    pub fn location(&self) -> Option<&str> {
        self.headers.get("location")?.as_str()
    }
}

impl Batch {
    /// Writes a JSON document.
    pub fn put<T: Serialize + ?Sized>(self, resource: &str, value: &T) -> Self {
        self.with("PUT", resource, json!({}), Some(value))
    }

    /// Writes a JSON document, if it is still at this version.
    pub fn put_if_match<T: Serialize + ?Sized>(
        self,
        resource: &str,
        value: &T,
        etag: &str,
    ) -> Self {
        self.with("PUT", resource, json!({ "if-match": etag }), Some(value))
    }

    /// Writes a JSON document that is not there yet.
    pub fn create<T: Serialize + ?Sized>(self, resource: &str, value: &T) -> Self {
        self.with("PUT", resource, json!({ "if-none-match": "*" }), Some(value))
    }

    /// Makes a new document in a collection.
    pub fn post<T: Serialize + ?Sized>(self, collection: &str, value: &T) -> Self {
        self.with("POST", collection, json!({}), Some(value))
    }

    /// Changes a JSON document by a merge patch.
    pub fn merge_patch<T: Serialize + ?Sized>(self, resource: &str, patch: &T) -> Self {
        let media = json!({ "content-type": "application/merge-patch+json" });
        self.with("PATCH", resource, media, Some(patch))
    }

    /// Changes a JSON document by a list of operations.
    pub fn json_patch<T: Serialize + ?Sized>(self, resource: &str, patch: &T) -> Self {
        let media = json!({ "content-type": "application/json-patch+json" });
        self.with("PATCH", resource, media, Some(patch))
    }

    /// Deletes a document.
    pub fn delete(self, resource: &str) -> Self {
        self.with("DELETE", resource, json!({}), None::<&()>)
    }

    /// Deletes a document, if it is still at this version.
    pub fn delete_if_match(self, resource: &str, etag: &str) -> Self {
        self.with("DELETE", resource, json!({ "if-match": etag }), None::<&()>)
    }

    /// Under a lock: with its token, which serves all operations, and only while it is held.
    pub fn under(mut self, held: &Held) -> Self {
        self.helds.push(held.shared.clone());
        self
    }

    /// With the token of a lock that is kept elsewhere.
    pub fn token(mut self, token: impl Into<Token>) -> Self {
        self.tokens.push(token.into());
        self
    }

    fn with<T: Serialize + ?Sized>(
        mut self,
        method: &str,
        resource: &str,
        headers: Value,
        body: Option<&T>,
    ) -> Self {
        let operation = crate::path::path(resource).and_then(|resource| {
            let mut operation =
                json!({ "method": method, "resource": resource, "headers": headers });
            if let Some(body) = body {
                operation["body"] = serde_json::to_value(body)
                    .map_err(|error| Error::Invalid(format!("no JSON: {error}")))?;
            }
            Ok(operation)
        });
        match operation {
            Ok(operation) => self.operations.push(operation),
            Err(error) => self.invalid = Some(error),
        }
        self
    }

    /// Sends it, and gives what became of each operation, in order.
    ///
    /// # Errors
    /// The refusal of the first operation that is refused
    /// ([`Problem::index`](crate::Problem::index)); then none was done. [`Error::Lost`] where a
    /// lock it was to be done under is lost.
    pub async fn send(self) -> Result<Vec<Done>, Error> {
        #[derive(Deserialize)]
        struct Results {
            results: Vec<Done>,
        }
        if let Some(error) = self.invalid {
            return Err(error);
        }
        let target = self.client.own("batch");
        let mut ask = Ask::new(Method::POST, target, Repeat::OnlyIfNothingWasDone)
            .json(&json!({ "operations": self.operations }));
        for token in self.tokens.iter().chain(self.helds.iter().map(|held| held.token())) {
            ask = ask.token(token)?;
        }
        let may_go = || self.helds.iter().try_for_each(|held| held.check()).map_err(Error::Lost);
        let reply = match self.client.send_once_in_effect(&ask, may_go).await {
            Ok(reply) => reply.expect(StatusCode::OK)?,
            Err(error) => {
                self.helds.iter().for_each(|held| held.learn(&error));
                return Err(error);
            }
        };
        let results = reply.json::<Results>()?.results;
        if results.len() != self.operations.len() {
            return Err(Error::Protocol("not every operation was answered".into()));
        }
        Ok(results)
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch").field("operations", &self.operations.len()).finish_non_exhaustive()
    }
}
