//! Lists, page by page.

use std::collections::VecDeque;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::client::{Ask, Client};
use crate::error::Error;
use crate::path::query_value;

/// The query of a list.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query {
    pairs: Vec<(&'static str, String)>,
}

impl Query {
    pub(crate) fn set(&mut self, name: &'static str, value: &str) {
        self.pairs.retain(|(each, _)| *each != name);
        self.pairs.push((name, query_value(value)));
    }

    pub(crate) fn target(&self, path: &str, cursor: Option<&str>) -> String {
        let cursor = cursor.map(|cursor| ("cursor", query_value(cursor)));
        let mut target = path.to_owned();
        for (at, (name, value)) in self.pairs.iter().chain(&cursor).enumerate() {
            target.push(if at == 0 { '?' } else { '&' });
            target.push_str(name);
            target.push('=');
            target.push_str(value);
        }
        target
    }
}

/// A list that is read page by page.
///
/// ```no_run
/// # async fn example(client: leasehold_client::Client) -> Result<(), leasehold_client::Error> {
/// use leasehold_client::LockFilter;
///
/// let mut locks = client.locks(LockFilter::new().resource("/v1"));
/// while let Some(lock) = locks.next().await? {
///     println!("{} is held by {:?}", lock.resource, lock.holder);
/// }
/// # Ok(()) }
/// ```
#[derive(Debug)]
#[must_use = "nothing is read before it is asked for"]
pub struct Pages<T> {
    client: Client,
    path: String,
    query: Query,
    at: At,
    read: VecDeque<T>,
}

#[derive(Debug)]
enum At {
    Start,
    Behind(String),
    End,
    /// There is no such list to ask for.
    Invalid(String),
}

#[derive(Deserialize)]
struct Page<T> {
    items: Vec<T>,
    next: Option<String>,
}

impl<T: DeserializeOwned> Pages<T> {
    pub(crate) fn new(client: &Client, path: String, query: Query) -> Self {
        Self { client: client.clone(), path, query, at: At::Start, read: VecDeque::new() }
    }

    pub(crate) fn of(client: &Client, path: Result<String, Error>, query: Query) -> Self {
        match path {
            Ok(path) => Self::new(client, path, query),
            Err(error) => {
                let mut pages = Self::new(client, String::new(), query);
                pages.at = At::Invalid(error.to_string());
                pages
            }
        }
    }

    /// The next item; none at the end.
    ///
    /// # Errors
    /// The refusal, or what else went wrong. Asking again goes on where it stopped.
    pub async fn next(&mut self) -> Result<Option<T>, Error> {
        loop {
            if let Some(item) = self.read.pop_front() {
                return Ok(Some(item));
            }
            match self.next_page().await? {
                Some(page) => self.read.extend(page),
                None => return Ok(None),
            }
        }
    }

    /// What is left of this page, or else the next page; none at the end.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub async fn next_page(&mut self) -> Result<Option<Vec<T>>, Error> {
        if !self.read.is_empty() {
            return Ok(Some(self.read.drain(..).collect()));
        }
        let cursor = match &self.at {
            At::Start => None,
            At::Behind(cursor) => Some(cursor.as_str()),
            At::End => return Ok(None),
            At::Invalid(why) => return Err(Error::Invalid(why.clone())),
        };
        let ask = Ask::get(self.query.target(&self.path, cursor));
        let page: Page<T> = self.client.send(&ask).await?.json()?;
        if page.next.is_some() && page.next.as_deref() == cursor {
            return Err(Error::Protocol("the list does not go on".into()));
        }
        self.at = page.next.map_or(At::End, At::Behind);
        Ok(Some(page.items))
    }

    /// All that is left. Mind how long a list can be.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub async fn all(mut self) -> Result<Vec<T>, Error> {
        let mut all = Vec::new();
        while let Some(page) = self.next_page().await? {
            all.extend(page);
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_escaped_and_the_last_word_counts() {
        let mut query = Query::default();
        assert_eq!(query.target("/-/locks", None), "/-/locks");
        query.set("holder", "a");
        query.set("resource", "/x y&z=1");
        query.set("holder", "b");
        assert_eq!(
            query.target("/-/locks", Some("c+")),
            "/-/locks?resource=/x%20y%26z%3D1&holder=b&cursor=c%2B"
        );
    }
}
