//! A write that was read and understood, and what it changes.
//!
//! A document that comes or goes changes its parent's list of children; where its parent is there
//! only because of it, the parent comes or goes as well, and the list above changes too. So the
//! targets of a write depend on what is there, and are looked up twice: for the admission, and
//! again by the writer, in the transaction that applies it.

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, CONTENT_RANGE};
use http::request::Parts;
use http::{HeaderMap, Method};
use http_body_util::BodyExt;
use leasehold_core::resource::Resource;
use leasehold_core::target::Target;
use leasehold_guard::body::Body;
use leasehold_guard::memory::broke_off;
use leasehold_problems::Problem;
use rusqlite::Connection;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::Settings;
use super::answer;
use super::key::Key;
use super::media::{self, MediaType};
use super::patch::{Kind, Patch};
use super::patching::Ahead;
use super::preconditions::Conditions;
use super::query::Query;
use super::store;

/// How often a fresh id is drawn again when it is taken.
const REDRAWS: u8 = 3;

/// A write that has been read and understood.
#[derive(Clone, Debug)]
pub struct Plan {
    pub(super) resource: Resource,
    pub(super) conditions: Conditions,
    pub(super) change: Change,
}

/// What a write does.
#[derive(Clone, Debug)]
pub(super) enum Change {
    Put(Content),
    Post { child: Resource, naming: Naming, content: Content },
    Patch { patch: Patch, length: usize, ahead: Option<Ahead> },
    Delete { below: Below },
}

/// What a document consists of.
#[derive(Clone, Debug)]
pub(super) struct Content {
    pub(super) media_type: MediaType,
    pub(super) body: Bytes,
}

/// Who named a child.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Naming {
    /// The body's `id`.
    Asked,
    /// We did; how often we may try again.
    Fresh { redraws: u8 },
}

/// What a DELETE does with the children.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Below {
    /// Refuses if there are any.
    Keep,
    /// Deletes them too.
    Delete,
}

/// Whether a method is one of the four writes.
pub(super) fn is_write(method: &Method) -> bool {
    matches!(*method, Method::PUT | Method::POST | Method::PATCH | Method::DELETE)
}

/// What can be refused by the head alone: the method, and the syntax of fields and query.
pub(super) fn check_head(head: &Parts) -> Result<(), Box<Problem>> {
    if !is_write(&head.method) {
        return Err(answer::method_not_allowed(&head.method));
    }
    check_syntax(head)
}

/// Step 0.
pub(super) fn check_syntax(head: &Parts) -> Result<(), Box<Problem>> {
    Conditions::parse(&head.headers)?;
    Query::parse(head.uri.query())?;
    Ok(())
}

/// The targets that the head alone names.
pub(super) fn early_targets(method: &Method, resource: &Resource) -> Vec<Target> {
    match *method {
        Method::POST => vec![Target::Content(resource.clone()), Target::Members(resource.clone())],
        Method::DELETE => {
            let mut targets = vec![Target::Subtree(resource.clone())];
            targets.extend(resource.parent().map(Target::Members));
            targets
        }
        _ => vec![Target::Content(resource.clone())],
    }
}

/// Everything that a write changes, as things stand, before its body is read; none where the body
/// names a part of it.
pub(super) fn needed_by_head(
    connection: &Connection,
    method: &Method,
    resource: &Resource,
) -> rusqlite::Result<Option<Vec<Target>>> {
    Ok(match *method {
        Method::POST => None,
        Method::PUT => Some(put_needs(connection, resource)?),
        Method::DELETE => Some(delete_needs(connection, resource)?),
        _ => Some(vec![Target::Content(resource.clone())]),
    })
}

fn put_needs(connection: &Connection, resource: &Resource) -> rusqlite::Result<Vec<Target>> {
    let mut targets = vec![Target::Content(resource.clone())];
    if store::meta(connection, &Key::of(resource))?.is_none() {
        appearing(connection, resource, &mut targets)?;
    }
    Ok(targets)
}

fn delete_needs(connection: &Connection, resource: &Resource) -> rusqlite::Result<Vec<Target>> {
    let mut targets = vec![Target::Subtree(resource.clone())];
    vanishing(connection, resource, &mut targets)?;
    Ok(targets)
}

/// Refuses a body by what the head says of it: 413, 415, then 400.
pub(super) fn check_body_head(
    settings: &Settings,
    method: &Method,
    headers: &HeaderMap,
) -> Result<(), Box<Problem>> {
    if *method == Method::DELETE {
        return Ok(());
    }
    let announced: Option<u64> =
        headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let fits = |length: u64| usize::try_from(length).is_ok_and(|l| l <= settings.max_document);
    if announced.is_some_and(|length| !fits(length)) {
        return Err(answer::too_large("The body", settings.max_document));
    }
    media::refuse_encoded(headers)?;
    let media_type = MediaType::of(headers)?;
    if *method == Method::PATCH {
        Kind::of(media_type.as_ref())?;
    }
    // RFC 9110, section 14.5: a part must not be taken for the whole.
    if headers.contains_key(CONTENT_RANGE) {
        return Err(answer::malformed("Content-Range", "A document is written as a whole."));
    }
    Ok(())
}

/// Reads a body up to the limit, and no further.
pub(super) async fn read_body(settings: &Settings, mut body: Body) -> Result<Bytes, Box<Problem>> {
    let mut read = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| broke_off(&error))?;
        if let Ok(data) = frame.into_data() {
            if settings.max_document.saturating_sub(read.len()) < data.len() {
                return Err(answer::too_large("The body", settings.max_document));
            }
            read.extend_from_slice(&data);
        }
    }
    Ok(read.freeze())
}

impl Plan {
    /// Step 6: understands a request whose body has been read.
    pub(super) fn read(
        settings: &Settings,
        head: &Parts,
        resource: Resource,
        body: Bytes,
    ) -> Result<Self, Box<Problem>> {
        check_body_head(settings, &head.method, &head.headers)?;
        if head.method != Method::DELETE && settings.max_document < body.len() {
            return Err(answer::too_large("The body", settings.max_document));
        }
        let conditions = Conditions::parse(&head.headers)?;
        let query = Query::parse(head.uri.query())?;
        let change = match head.method {
            Method::PUT => {
                if (settings.reserved)(&resource) {
                    return Err(answer::malformed("path", format!("{resource} is reserved.")));
                }
                Change::Put(Content::read(&head.headers, body)?)
            }
            Method::POST => post(settings, &resource, Content::read(&head.headers, body)?)?,
            Method::PATCH => {
                let kind = Kind::of(MediaType::of(&head.headers)?.as_ref())?;
                let patch = Patch::parse(kind, &body)?;
                Change::Patch { patch, length: body.len(), ahead: None }
            }
            Method::DELETE => {
                let below = match query.recursive {
                    Some(true) => Below::Delete,
                    _ => Below::Keep,
                };
                Change::Delete { below }
            }
            _ => return Err(answer::method_not_allowed(&head.method)),
        };
        Ok(Self { resource, conditions, change })
    }

    /// Everything that the write changes, as things stand on `connection`.
    pub(super) fn needed(&self, connection: &Connection) -> rusqlite::Result<Vec<Target>> {
        let resource = &self.resource;
        match &self.change {
            Change::Put(_) => put_needs(connection, resource),
            Change::Post { child, .. } => {
                let mut targets =
                    vec![Target::Content(resource.clone()), Target::Content(child.clone())];
                appearing(connection, child, &mut targets)?;
                Ok(targets)
            }
            Change::Patch { .. } => Ok(vec![Target::Content(resource.clone())]),
            Change::Delete { .. } => delete_needs(connection, resource),
        }
    }

    /// Every target that [`Plan::needed`] could name, whatever is there.
    pub(super) fn possible(&self) -> Vec<Target> {
        let lists_above = |resource: &Resource| {
            std::iter::successors(resource.parent(), Resource::parent).map(Target::Members)
        };
        let resource = &self.resource;
        match &self.change {
            Change::Put(_) => std::iter::once(Target::Content(resource.clone()))
                .chain(lists_above(resource))
                .collect(),
            Change::Post { child, .. } => {
                let contents = [Target::Content(resource.clone()), Target::Content(child.clone())];
                contents.into_iter().chain(lists_above(child)).collect()
            }
            Change::Patch { .. } => vec![Target::Content(resource.clone())],
            Change::Delete { .. } => std::iter::once(Target::Subtree(resource.clone()))
                .chain(lists_above(resource))
                .collect(),
        }
    }

    /// This plan with another id for its child, whose fresh one is taken. None when it had been
    /// tried often enough.
    pub(super) fn redrawn(&self, settings: &Settings) -> Option<Self> {
        let Change::Post { naming: Naming::Fresh { redraws }, content, .. } = &self.change else {
            return None;
        };
        let naming = Naming::Fresh { redraws: redraws.checked_sub(1)? };
        let child = self.resource.child(&(settings.fresh_id)().to_string()).ok()?;
        let change = Change::Post { child, naming, content: content.clone() };
        Some(Self { change, ..self.clone() })
    }
}

/// The lists that change when `resource` appears: the one it is in, and those of the resources
/// above that are there from then on.
fn appearing(
    connection: &Connection,
    resource: &Resource,
    targets: &mut Vec<Target>,
) -> rusqlite::Result<()> {
    let mut above = resource.parent();
    while let Some(parent) = above {
        let key = Key::of(&parent);
        targets.push(Target::Members(parent.clone()));
        if store::meta(connection, &key)?.is_some() || store::has_children(connection, &key)? {
            break;
        }
        above = parent.parent();
    }
    Ok(())
}

/// The lists that change when `resource` and all below it goes.
fn vanishing(
    connection: &Connection,
    resource: &Resource,
    targets: &mut Vec<Target>,
) -> rusqlite::Result<()> {
    let mut going = resource.clone();
    while let Some(parent) = going.parent() {
        let key = Key::of(&parent);
        targets.push(Target::Members(parent.clone()));
        if store::meta(connection, &key)?.is_some() {
            break;
        }
        let name = going.name();
        let first = store::next_child(connection, &key, None)?;
        let alone = first.is_some_and(|first| first.name == name)
            && store::next_child(connection, &key, Some(&name))?.is_none();
        if !alone {
            break;
        }
        going = parent;
    }
    Ok(())
}

impl Content {
    fn read(headers: &HeaderMap, body: Bytes) -> Result<Self, Box<Problem>> {
        let media_type = MediaType::of(headers)?.unwrap_or_else(MediaType::json);
        if media_type.is_json() {
            media::json_text(&body)?;
        }
        Ok(Self { media_type, body })
    }
}

fn post(
    settings: &Settings,
    collection: &Resource,
    content: Content,
) -> Result<Change, Box<Problem>> {
    let asked = if content.media_type.is_json() { asked_id(&content.body)? } else { None };
    let (child, naming) = match asked {
        Some(id) => {
            let child = collection.child(&id).map_err(|error| {
                // The error speaks of a path; here the path is one name.
                answer::invalid("/id", format!("it is no legal segment: {error}"))
            })?;
            (child, Naming::Asked)
        }
        None => {
            let child = collection.child(&(settings.fresh_id)().to_string()).map_err(|error| {
                answer::malformed("path", format!("There is no room for a child: {error}."))
            })?;
            (child, Naming::Fresh { redraws: REDRAWS })
        }
    };
    if (settings.reserved)(&child) {
        return Err(match naming {
            Naming::Asked => answer::invalid("/id", format!("{child} is reserved")),
            Naming::Fresh { .. } => answer::malformed("path", format!("{child} is reserved.")),
        });
    }
    Ok(Change::Post { child, naming, content })
}

/// The `id` of a JSON body that [`media::json_text`] let through.
fn asked_id(body: &[u8]) -> Result<Option<String>, Box<Problem>> {
    #[derive(Deserialize)]
    struct WithId {
        #[serde(default, deserialize_with = "present")]
        id: Option<Value>,
    }
    /// A null is there, and is no string.
    fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
        Value::deserialize(deserializer).map(Some)
    }
    if !body.trim_ascii_start().starts_with(b"{") {
        return Err(answer::invalid("", "it is not an object"));
    }
    let WithId { id } = serde_json::from_slice(body).map_err(|error| media::not_json(&error))?;
    match id {
        None => Ok(None),
        Some(Value::String(id)) => Ok(Some(id)),
        Some(_) => Err(answer::invalid("/id", "it is not a string")),
    }
}
