//! What a patch makes of a document that is there.
//!
//! A large one is worked out ahead, on a reader's thread, so that it does not hold the writer,
//! and with it all other writes, up. The writer takes it over when the document is still at the
//! version that it was worked out for, and works it out itself otherwise.

use bytes::Bytes;
use leasehold_core::resource::Resource;
use leasehold_problems::Problem;
use rusqlite::Connection;
use serde_json::Value;

use super::Settings;
use super::answer;
use super::apply::Step;
use super::key::Key;
use super::media::MediaType;
use super::patch::{Patch, PatchError};
use super::plan::{Change, Plan};
use super::store::{self, Meta};

/// From how many bytes on, of the document or of the patch, it is worth another read.
const LARGE: usize = 64 << 10;

/// The new body, or the refusal and the step that it belongs to.
pub(super) type Outcome = Result<Bytes, (Step, Box<Problem>)>;

/// What was worked out ahead, and for which version.
#[derive(Clone, Debug)]
pub(super) struct Ahead {
    version: i64,
    outcome: Outcome,
}

/// The plan, with what a large patch makes of the document as it is now.
pub(super) fn ahead(
    connection: &Connection,
    settings: &Settings,
    mut plan: Plan,
) -> rusqlite::Result<Plan> {
    let Change::Patch { patch, length, ahead } = &mut plan.change else { return Ok(plan) };
    let key = Key::of(&plan.resource);
    let Some(meta) = store::meta(connection, &key)? else { return Ok(plan) };
    let stored = usize::try_from(meta.length).unwrap_or(usize::MAX);
    if LARGE <= stored.max(*length) {
        let outcome = work_out(connection, settings, &plan.resource, &meta, patch)?;
        *ahead = Some(Ahead { version: meta.version, outcome });
    }
    Ok(plan)
}

/// What the patch makes of the document at `resource`, which is at `meta`.
pub(super) fn outcome(
    connection: &Connection,
    settings: &Settings,
    resource: &Resource,
    meta: &Meta,
    patch: &Patch,
    ahead: Option<&Ahead>,
) -> rusqlite::Result<Outcome> {
    match ahead {
        Some(ahead) if ahead.version == meta.version => Ok(ahead.outcome.clone()),
        _ => work_out(connection, settings, resource, meta, patch),
    }
}

fn work_out(
    connection: &Connection,
    settings: &Settings,
    resource: &Resource,
    meta: &Meta,
    patch: &Patch,
) -> rusqlite::Result<Outcome> {
    let not_json = || {
        let detail = format!("{resource} is no JSON document that can be patched.");
        Ok(Err((Step::Body, answer::unsupported_patch(detail))))
    };
    if !MediaType::stored(&meta.media_type).is_json() {
        return not_json();
    }
    let body = store::body(connection, &Key::of(resource))?.unwrap_or_default();
    // A JSON text can be valid and still have no value here: a number beyond the range.
    let Ok(mut value) = serde_json::from_slice::<Value>(&body) else { return not_json() };
    drop(body);
    let limit = settings.max_document;
    match patch.apply(&mut value, limit) {
        Ok(()) => {}
        Err(PatchError::Conflict { operation, pointer, reason }) => {
            let problem = answer::patch_conflict(operation, &pointer, reason);
            return Ok(Err((Step::State, problem)));
        }
        Err(PatchError::TooLarge) => {
            let problem = answer::too_large("What the patch makes of the document", limit);
            return Ok(Err((Step::Body, problem)));
        }
    }
    let body = serde_json::to_vec(&value)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))?;
    if limit < body.len() {
        return Ok(Err((Step::Body, answer::too_large("The patched document", limit))));
    }
    Ok(Ok(body.into()))
}
