//! Read, change, write: until nobody came between, or under a lock.

use serde::Serialize;
use serde::de::DeserializeOwned;

use leasehold_problems::Name;

use crate::acquire::LockRequest;
use crate::client::Client;
use crate::clock::pause;
use crate::documents::Document;
use crate::error::Error;
use crate::held::Held;

/// What a change of a document says about writing it: `()` always, a `bool` whether.
pub trait Verdict {
    /// Whether the changed document is to be written.
    fn wants_writing(self) -> bool;
}

impl Verdict for () {
    fn wants_writing(self) -> bool {
        true
    }
}

impl Verdict for bool {
    fn wants_writing(self) -> bool {
        self
    }
}

impl Client {
    /// Changes a JSON document: reads it, lets `change` change it, and writes it if nobody has
    /// written in between (`If-Match`). If somebody has, it begins anew after a short random
    /// pause, as often and for as long as the client's [`RetryPolicy`](crate::RetryPolicy) says:
    /// `change` may be called several times.
    ///
    /// A `change` that gives back `false` leaves the document as it is.
    ///
    /// What a `T` does not know is lost in the writing; use [`serde_json::Value`], or a
    /// `#[serde(flatten)]`, where the document may have more.
    ///
    /// ```no_run
    /// # async fn example(client: leasehold_client::Client) -> Result<(), leasehold_client::Error> {
    /// let counter = client.update("/counters/visits", |count: &mut u64| *count += 1).await?;
    /// println!("{}", counter.value);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// The refusal: `not-found` where there is nothing to change, `locked` where somebody holds a
    /// lock, `precondition-failed` where others came between to the end. A lost answer whose
    /// outcome could not be found out is [`Error::Transport`] or [`Error::Timeout`]: the change
    /// is made at most once, and in this case it is not known whether.
    pub async fn update<T, F, V>(&self, resource: &str, mut change: F) -> Result<Document<T>, Error>
    where
        T: Serialize + DeserializeOwned,
        F: FnMut(&mut T) -> V,
        V: Verdict,
    {
        let mut backoff = self.retry_policy().begin();
        loop {
            let mut document = self.get::<T>(resource).await?;
            if !change(&mut document.value).wants_writing() {
                return Ok(document);
            }
            match self.put(resource, &document.value).if_match(&document.etag).await {
                Ok(written) => return Ok(document.at(written.etag)),
                Err(error) if error.is(Name::PreconditionFailed) => {
                    let Some(rest) = backoff.next(None) else { return Err(error) };
                    pause(rest).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Changes a JSON document under its lock: waits for the lock as long as the client's
    /// [`RetryPolicy`](crate::RetryPolicy) goes on, reads, changes, writes with the token, and
    /// releases. `change` is called once, and nobody comes between.
    ///
    /// [`LockRequest::update`] is the same with a lock of your choice.
    ///
    /// # Errors
    /// As [`LockRequest::update`].
    pub async fn update_locked<T, F, V>(
        &self,
        resource: &str,
        change: F,
    ) -> Result<Document<T>, Error>
    where
        T: Serialize + DeserializeOwned,
        F: FnOnce(&mut T) -> V,
        V: Verdict,
    {
        self.lock(resource).wait(self.retry_policy().span()).update(change).await
    }
}

impl LockRequest {
    /// Acquires this lock, changes the JSON document that it locks, and releases it.
    ///
    /// A `change` that gives back `false` leaves the document as it is.
    ///
    /// ```no_run
    /// # async fn example(client: leasehold_client::Client) -> Result<(), leasehold_client::Error> {
    /// use std::time::Duration;
    ///
    /// client
    ///     .lock("/counters/visits")
    ///     .wait(Duration::from_secs(20))
    ///     .update(|count: &mut u64| *count += 1)
    ///     .await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Whatever acquiring, reading or writing can end with; [`Error::Invalid`] for a lock of
    /// several resources. A lost answer to the write is looked into while the lock is held: it
    /// is an error only where that stays without an end.
    pub async fn update<T, F, V>(self, change: F) -> Result<Document<T>, Error>
    where
        T: Serialize + DeserializeOwned,
        F: FnOnce(&mut T) -> V,
        V: Verdict,
    {
        let Some(resource) = self.single().map(str::to_owned) else {
            return Err(Error::Invalid("a lock of several is no lock of one document".into()));
        };
        let (client, is_shared) = (self.client().clone(), self.is_shared());
        let held = self.hold().await?;
        let changed = change_under(&client, &resource, &held, is_shared, change).await;
        // A write that was carried out was so under a live lock, whatever becomes of it now.
        let released = held.release().await;
        drop(released);
        changed
    }
}

async fn change_under<T, F, V>(
    client: &Client,
    resource: &str,
    held: &Held,
    is_shared: bool,
    change: F,
) -> Result<Document<T>, Error>
where
    T: Serialize + DeserializeOwned,
    F: FnOnce(&mut T) -> V,
    V: Verdict,
{
    let mut document = client.get::<T>(resource).await?;
    if !change(&mut document.value).wants_writing() {
        return Ok(document);
    }
    let write = client.put(resource, &document.value).if_match(&document.etag).under(held);
    match write.await {
        Ok(written) => Ok(document.at(written.etag)),
        Err(error) if is_shared || error.has_no_side_effects() => Err(error),
        Err(error) => {
            // Nobody else can have written while the lock was held. Whether it was held to this
            // point, the server says: a renewal after the reading.
            let now = client.get_bytes(resource).await.ok().and_then(|raw| raw.etag);
            match now {
                Some(now) if now != document.etag && held.renew().await.is_ok() => {
                    Ok(document.at(Some(now)))
                }
                _ => Err(error),
            }
        }
    }
}

impl<T> Document<T> {
    fn at(mut self, etag: Option<String>) -> Self {
        if let Some(etag) = etag {
            self.etag = etag;
        }
        self
    }
}
