//! Steps 7 and 8, and the write itself, in the writer's transaction.
//!
//! Preconditions come before the state, with one exception: a request that would fail anyway,
//! whatever its body says, ignores them (RFC 9110, section 13.2.1). That is a PATCH or DELETE of
//! nothing, and a DELETE of what has children. Nothing is changed before everything has been
//! judged, so a refusal leaves nothing behind.

use bytes::Bytes;
use http::Response;
use leasehold_core::ids::Seq;
use leasehold_core::resource::Resource;
use leasehold_problems::Problem;

use super::Settings;
use super::answer::{self, Shown};
use super::key::Key;
use super::media::MediaType;
use super::patch::Patch;
use super::patching::{self, Ahead};
use super::plan::{Below, Change, Content, Plan};
use super::preconditions::{Access, Current, Verdict};
use super::store::{self, Meta, NewVersion};
use super::writer::Txn;

/// The most children that are counted for a refusal.
const MAX_COUNTED: usize = 10_000;

/// The step of wire.md section 3 that a refusal belongs to. Of several, the earliest answers.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Step {
    Body,
    Preconditions,
    State,
}

/// What came of a write.
pub(super) enum Applied {
    Done(Response<Bytes>),
    Refused(Step, Box<Problem>),
    /// The id that we gave the child is taken. This plan has another.
    Redrawn(Plan),
}

/// Judges and carries out a write that is admitted for all that it needs.
pub(super) fn apply(
    txn: &mut Txn<'_>,
    settings: &Settings,
    plan: &Plan,
    admission: Option<Seq>,
) -> rusqlite::Result<Applied> {
    let mut write = Write { txn, settings, plan, admission };
    let applied = match &plan.change {
        Change::Put(content) => write.put(content),
        Change::Post { child, content, .. } => write.post(child, content),
        Change::Patch { patch, ahead, .. } => write.patch(patch, ahead.as_ref()),
        Change::Delete { below } => write.delete(*below),
    }?;
    if matches!(applied, Applied::Done(_)) {
        txn.note_applied(admission)?;
    }
    Ok(applied)
}

struct Write<'a, 'b> {
    txn: &'a mut Txn<'b>,
    settings: &'a Settings,
    plan: &'a Plan,
    admission: Option<Seq>,
}

impl Write<'_, '_> {
    fn put(&mut self, content: &Content) -> rusqlite::Result<Applied> {
        let resource = &self.plan.resource;
        let key = Key::of(resource);
        let before = store::meta(self.txn.connection, &key)?;
        if let Err(problem) = self.judge(before.as_ref(), Children::DoNotCount) {
            return Ok(Applied::Refused(Step::Preconditions, problem));
        }
        let shown = self.store(&key, &content.media_type, &content.body)?;
        Ok(Applied::Done(match before {
            Some(_) => answer::replaced(&shown),
            None => answer::created(&shown, resource),
        }))
    }

    fn post(&mut self, child: &Resource, content: &Content) -> rusqlite::Result<Applied> {
        let connection = self.txn.connection;
        let key = Key::of(child);
        let collection = Key::of(&self.plan.resource);
        let meta = store::meta(connection, &collection)?;
        let children = match store::has_children(connection, &collection)? {
            true => Children::Count,
            false => Children::DoNotCount,
        };
        if let Err(problem) = self.judge(meta.as_ref(), children) {
            return Ok(Applied::Refused(Step::Preconditions, problem));
        }
        // Children without a document of their own leave the name free.
        if store::meta(connection, &key)?.is_some() {
            return Ok(match self.plan.redrawn(self.settings) {
                Some(plan) => Applied::Redrawn(plan),
                None => Applied::Refused(Step::State, answer::already_exists(child)),
            });
        }
        let shown = self.store(&key, &content.media_type, &content.body)?;
        Ok(Applied::Done(answer::created(&shown, child)))
    }

    fn patch(&mut self, patch: &Patch, ahead: Option<&Ahead>) -> rusqlite::Result<Applied> {
        let resource = &self.plan.resource;
        let connection = self.txn.connection;
        let key = Key::of(resource);
        let Some(before) = store::meta(connection, &key)? else {
            return Ok(Applied::Refused(Step::State, answer::not_found(resource)));
        };
        let outcome =
            patching::outcome(connection, self.settings, resource, &before, patch, ahead)?;
        if let Err((Step::Body, problem)) = outcome {
            return Ok(Applied::Refused(Step::Body, problem));
        }
        if let Err(problem) = self.judge(Some(&before), Children::DoNotCount) {
            return Ok(Applied::Refused(Step::Preconditions, problem));
        }
        let body = match outcome {
            Ok(body) => body,
            Err((step, problem)) => return Ok(Applied::Refused(step, problem)),
        };
        let media_type = MediaType::stored(&before.media_type);
        let shown = self.store(&key, &media_type, &body)?;
        Ok(Applied::Done(answer::patched(&shown, media_type.as_str(), resource, body)))
    }

    fn delete(&mut self, below: Below) -> rusqlite::Result<Applied> {
        let resource = &self.plan.resource;
        let connection = self.txn.connection;
        let key = Key::of(resource);
        let before = store::meta(connection, &key)?;
        let first = store::next_child(connection, &key, None)?;
        match (&before, first, below) {
            (None, None, _) => {
                return Ok(Applied::Refused(Step::State, answer::not_found(resource)));
            }
            (_, Some(first), Below::Keep) => {
                let count = self.count_children(&key, &first.name)?;
                let shown = resource.child(&first.name).map_or(first.name, |r| r.to_string());
                let exact = count < MAX_COUNTED;
                let problem = answer::has_children(resource, count, exact, &shown);
                return Ok(Applied::Refused(Step::State, problem));
            }
            (Some(_), None, _) | (_, Some(_), Below::Delete) => {}
        }
        if let Err(problem) = self.judge(before.as_ref(), Children::DoNotCount) {
            return Ok(Applied::Refused(Step::Preconditions, problem));
        }
        store::delete_subtree(connection, &key)?;
        Ok(Applied::Done(answer::deleted()))
    }

    fn count_children(&self, parent: &Key, first: &str) -> rusqlite::Result<usize> {
        let mut count = 1;
        let mut last = first.to_owned();
        while count < MAX_COUNTED
            && let Some(child) = store::next_child(self.txn.connection, parent, Some(&last))?
        {
            count += 1;
            last = child.name;
        }
        Ok(count)
    }

    /// Step 7.
    fn judge(&self, meta: Option<&Meta>, children: Children) -> Result<(), Box<Problem>> {
        let shown = meta.map(|meta| self.settings.shown(meta, (self.settings.clock)()));
        let current = match (&shown, children) {
            (Some(shown), _) => {
                Some(Current { etag: Some(&shown.etag), modified: Some(shown.modified) })
            }
            (None, Children::Count) => Some(Current { etag: None, modified: None }),
            (None, Children::DoNotCount) => None,
        };
        match self.plan.conditions.judge(Access::Write, current) {
            Verdict::Holds | Verdict::NotModified => Ok(()),
            Verdict::Fails => {
                let etag = shown.as_ref().map(|shown| shown.etag.as_str());
                Err(answer::precondition_failed(&self.plan.resource, etag))
            }
        }
    }

    fn store(&mut self, key: &Key, media_type: &MediaType, body: &[u8]) -> rusqlite::Result<Shown> {
        let now = (self.settings.clock)();
        let (version, modified) = self.txn.stamp(now);
        let media_type = media_type.as_str();
        let admission = self.admission;
        let new = NewVersion { version, modified, admission, media_type, body };
        store::put(self.txn.connection, key, &new)?;
        Ok(self.settings.shown_version(version, modified, now))
    }
}

/// Whether a list of children counts as something that is there. It does for a POST, whose target
/// is the collection; the other writes are about the document.
#[derive(Clone, Copy)]
enum Children {
    Count,
    DoNotCount,
}
