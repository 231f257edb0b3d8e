//! Reading: a document, or the children of a resource, page by page.
//!
//! A page is in the order of the bytes of names, and the cursor is the last name that was shown:
//! what comes or goes meanwhile neither repeats nor hides another child.

use bytes::Bytes;
use http::Response;
use leasehold_core::resource::Resource;
use leasehold_core::time::WallTime;
use leasehold_problems::Problem;
use rusqlite::Connection;
use serde::Serialize;

use super::Settings;
use super::answer;
use super::cursor;
use super::key::Key;
use super::preconditions::{Access, Conditions, Current, Verdict};
use super::query::Query;
use super::store::{self, Child};

const DEFAULT_LIMIT: usize = 100;

/// A request to read.
pub(super) struct Question {
    pub(super) resource: Resource,
    pub(super) head: bool,
    pub(super) query: Query,
    pub(super) conditions: Conditions,
    pub(super) now: WallTime,
}

/// The answer to a GET or HEAD.
pub(super) fn read(
    connection: &Connection,
    settings: &Settings,
    question: &Question,
) -> rusqlite::Result<Result<Response<Bytes>, Box<Problem>>> {
    let key = Key::of(&question.resource);
    match store::meta(connection, &key)? {
        Some(meta) if question.query.list != Some(true) => {
            let shown = settings.shown(&meta, question.now);
            let current = Current { etag: Some(&shown.etag), modified: Some(shown.modified) };
            match question.conditions.judge(Access::Read, Some(current)) {
                Verdict::NotModified => return Ok(Ok(answer::not_modified(Some(&shown)))),
                Verdict::Fails => {
                    let etag = Some(shown.etag.as_str());
                    return Ok(Err(answer::precondition_failed(&question.resource, etag)));
                }
                Verdict::Holds => {}
            }
            let body = if question.head {
                None
            } else {
                Some(Bytes::from(store::body(connection, &key)?.unwrap_or_default()))
            };
            Ok(Ok(answer::document(&shown, &meta.media_type, meta.length, body)))
        }
        document => {
            if document.is_none() && !store::has_children(connection, &key)? {
                return Ok(Err(answer::not_found(&question.resource)));
            }
            list(connection, settings, question, &key)
        }
    }
}

#[derive(Serialize)]
struct Page {
    items: Vec<Item>,
    next: Option<String>,
}

#[derive(Serialize)]
struct Item {
    resource: Option<Resource>,
    id: String,
    etag: Option<String>,
    last_modified: Option<WallTime>,
    media_type: Option<String>,
    has_children: bool,
}

fn list(
    connection: &Connection,
    settings: &Settings,
    question: &Question,
    key: &Key,
) -> rusqlite::Result<Result<Response<Bytes>, Box<Problem>>> {
    let Question { resource, query, .. } = question;
    let mut after = match query.cursor.as_deref().map(|cursor| cursor::decode(resource, cursor)) {
        Some(None) => return Ok(Err(answer::bad_cursor())),
        Some(Some(name)) => Some(name),
        None => None,
    };
    let current = Current { etag: None, modified: None };
    match question.conditions.judge(Access::Read, Some(current)) {
        Verdict::NotModified => return Ok(Ok(answer::not_modified(None))),
        Verdict::Fails => return Ok(Err(answer::precondition_failed(resource, None))),
        Verdict::Holds => {}
    }
    let limit = query.limit.unwrap_or(DEFAULT_LIMIT);
    let mut page = Page { items: Vec::new(), next: None };
    while let Some(child) = store::next_child(connection, key, after.as_deref())? {
        if page.items.len() == limit {
            page.next = after.map(|name| cursor::encode(resource, &name));
            break;
        }
        after = Some(child.name.clone());
        page.items.push(item(connection, settings, resource, child)?);
    }
    let body = serde_json::to_vec(&page)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
    Ok(Ok(answer::list(body, question.head)))
}

fn item(
    connection: &Connection,
    settings: &Settings,
    parent: &Resource,
    child: Child,
) -> rusqlite::Result<Item> {
    let resource = parent.child(&child.name).ok();
    let has_children = match (&child.meta, &resource) {
        (Some(_), Some(resource)) => store::has_children(connection, &Key::of(resource))?,
        _ => true,
    };
    let (etag, last_modified, media_type) = match child.meta {
        Some(meta) => {
            (Some(settings.etag(meta.version)), Some(meta.modified), Some(meta.media_type))
        }
        None => (None, None, None),
    };
    Ok(Item { resource, id: child.name, etag, last_modified, media_type, has_children })
}
