//! The service itself: it keeps flags, and knows nothing of tokens.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::extract::{Path, Query, State};
use axum::http::header::{ETAG, IF_MATCH, IF_NONE_MATCH};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Json, Router};
use leasehold_tower::MatchedLock;
use serde::Serialize;

use crate::flag::Flag;

type Attributes = BTreeMap<String, String>;

/// The flags, in memory: what would be a database.
#[derive(Clone, Default)]
struct Store {
    flags: Arc<Mutex<BTreeMap<String, Kept>>>,
}

struct Kept {
    flag: Flag,
    version: u64,
    /// The greatest fence that it was written under.
    fence: u64,
}

impl Kept {
    fn etag(&self) -> String {
        format!("\"{}\"", self.version)
    }
}

impl Store {
    fn flags(&self) -> MutexGuard<'_, BTreeMap<String, Kept>> {
        self.flags.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Serialize)]
struct Evaluation {
    on: bool,
}

pub(crate) fn routes() -> Router {
    Router::new()
        .route("/flags", get(list))
        .route("/flags/{id}", get(show).put(put).delete(delete))
        .route("/flags/{id}/evaluation", get(evaluate))
        .with_state(Store::default())
}

async fn list(State(store): State<Store>) -> Json<BTreeMap<String, Flag>> {
    let flags = store.flags();
    Json(flags.iter().map(|(id, kept)| (id.clone(), kept.flag.clone())).collect())
}

async fn show(State(store): State<Store>, Path(id): Path<String>) -> Response {
    match store.flags().get(&id) {
        Some(kept) => ([(ETAG, kept.etag())], Json(&kept.flag)).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn evaluate(
    State(store): State<Store>,
    Path(id): Path<String>,
    Query(attributes): Query<Attributes>,
) -> Response {
    match store.flags().get(&id) {
        Some(kept) => Json(Evaluation { on: kept.flag.is_on(&id, &attributes) }).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn put(
    State(store): State<Store>,
    Path(id): Path<String>,
    lock: Option<Extension<MatchedLock>>,
    headers: HeaderMap,
    Json(flag): Json<Flag>,
) -> Response {
    if let Err(what) = flag.check() {
        return (StatusCode::UNPROCESSABLE_ENTITY, what).into_response();
    }
    let fence = lock.map_or(0, |Extension(lock)| lock.fence);
    match store.flags().entry(id) {
        Entry::Vacant(_) if headers.contains_key(IF_MATCH) => {
            StatusCode::PRECONDITION_FAILED.into_response()
        }
        Entry::Vacant(place) => {
            let kept = place.insert(Kept { flag, version: 1, fence });
            (StatusCode::CREATED, [(ETAG, kept.etag())]).into_response()
        }
        Entry::Occupied(mut place) => {
            let kept = place.get_mut();
            if !is_met(&headers, &kept.etag()) {
                return StatusCode::PRECONDITION_FAILED.into_response();
            }
            // Where a lock server is asked, a write can come after its lock has gone to another.
            if fence > 0 && fence < kept.fence {
                return (StatusCode::CONFLICT, "a later lock has written this").into_response();
            }
            *kept = Kept { flag, version: kept.version + 1, fence: fence.max(kept.fence) };
            (StatusCode::NO_CONTENT, [(ETAG, kept.etag())]).into_response()
        }
    }
}

async fn delete(
    State(store): State<Store>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> StatusCode {
    match store.flags().entry(id) {
        Entry::Vacant(_) => StatusCode::NOT_FOUND,
        Entry::Occupied(place) if !is_met(&headers, &place.get().etag()) => {
            StatusCode::PRECONDITION_FAILED
        }
        Entry::Occupied(place) => {
            place.remove();
            StatusCode::NO_CONTENT
        }
    }
}

/// Whether what a request says of the version of an existing flag is true.
fn is_met(headers: &HeaderMap, etag: &str) -> bool {
    let names = |name| {
        let mut values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        values.any(|value| {
            value.split(',').any(|tag| matches!(tag.trim(), "*") || tag.trim() == etag)
        })
    };
    (!headers.contains_key(IF_MATCH) || names(IF_MATCH)) && !names(IF_NONE_MATCH)
}
