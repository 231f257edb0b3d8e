//! Header fields: what says how to wait, what proves a lock, and what a write depends on.

use std::cell::RefCell;
use std::sync::Arc;

use http::header::{IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_UNMODIFIED_SINCE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode};
use leasehold_core::command::Presented;
use leasehold_core::time::WallTime;
use leasehold_engine::token::TokenKeys;
use leasehold_faces::json_api::asking::{idempotency, wait};
use leasehold_guard::if_header::{self, MAX_CONDITIONS};
use leasehold_guard::upstream::Upstream as _;
use leasehold_upstreams::documents::{Documents, Options};
use serde_json::Value;

/// The longest wait that is allowed here.
const MAX_WAIT_MS: u64 = 30_000;

fn names() -> [HeaderName; 7] {
    [
        HeaderName::from_static("prefer"),
        HeaderName::from_static("idempotency-key"),
        HeaderName::from_static("if"),
        IF_MATCH,
        IF_NONE_MATCH,
        IF_MODIFIED_SINCE,
        IF_UNMODIFIED_SINCE,
    ]
}

thread_local! {
    static DOCUMENTS: RefCell<Option<(tempfile::TempDir, Documents)>> = const { RefCell::new(None) };
}

/// Fields are taken or refused with a 400, and what is taken is within its bounds. The first byte of a
/// line says which field it is, the rest is its value; the first line is the query.
pub fn headers(data: &[u8]) {
    let mut lines = data.split(|byte| *byte == b'\n');
    let query = lines.next().and_then(|line| std::str::from_utf8(line).ok()).unwrap_or_default();
    let Ok(request) = Request::builder().uri(format!("/a?{query}")).method(Method::PUT).body(())
    else {
        return;
    };
    let mut head = request.into_parts().0;
    for line in lines {
        let Some((first, rest)) = line.split_first() else { continue };
        let name = names()[usize::from(*first) % names().len()].clone();
        if let Ok(value) = HeaderValue::from_bytes(rest) {
            head.headers.append(name, value);
        }
        token(rest);
    }
    waiting(&head);
    key(&head.headers);
    conditions(&head.headers);
    DOCUMENTS.with_borrow_mut(|documents| {
        let (_, documents) = documents.get_or_insert_with(open);
        if let Err(problem) = documents.check_syntax(&head) {
            assert_eq!(problem.name.entry().status, StatusCode::BAD_REQUEST);
        }
    });
}

fn open() -> (tempfile::TempDir, Documents) {
    let folder = tempfile::tempdir().unwrap();
    let options = Options::new(Arc::new(|| WallTime(0)), Arc::new(uuid::Uuid::nil));
    let documents = Documents::open(folder.path(), "0123abcd", options).unwrap();
    (folder, documents)
}

fn waiting(head: &http::request::Parts) {
    match wait(head, MAX_WAIT_MS) {
        Ok(wait) => {
            assert!(wait.ms <= MAX_WAIT_MS);
            assert!(wait.applied.is_none_or(|seconds| seconds * 1000 <= wait.ms));
        }
        Err(problem) => {
            let status = problem.name.entry().status;
            assert!(
                status == StatusCode::BAD_REQUEST || status == StatusCode::UNPROCESSABLE_ENTITY
            );
        }
    }
}

fn key(headers: &HeaderMap) {
    match idempotency(headers, "/a", &Value::Null) {
        Ok(None) => assert!(!headers.contains_key("idempotency-key")),
        Ok(Some(idempotency)) => {
            let key = &idempotency.key;
            assert!((1..=255).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_graphic()));
            // Quoted, it is the same key.
            if !key.contains('"') {
                let quoted = HeaderValue::from_str(&format!("\"{key}\"")).unwrap();
                let headers = HeaderMap::from_iter([(names()[1].clone(), quoted)]);
                let again = idempotency_of(&headers);
                assert_eq!(again, Some(idempotency));
            }
        }
        Err(problem) => assert_eq!(problem.name.entry().status, StatusCode::BAD_REQUEST),
    }
}

fn idempotency_of(headers: &HeaderMap) -> Option<leasehold_core::lock::Idempotency> {
    idempotency(headers, "/a", &Value::Null).unwrap()
}

fn conditions(headers: &HeaderMap) {
    match if_header::parse(headers) {
        Ok(lists) => {
            assert_eq!(lists.is_empty(), !headers.contains_key("if"));
            let count: usize = lists.iter().map(|list| list.conditions.len()).sum();
            assert!(count <= MAX_CONDITIONS);
            assert!(lists.iter().all(|list| !list.conditions.is_empty()));
            // Either all lists are about the target, or each is about a resource of its own.
            let tagged = lists.iter().filter(|list| list.tag.is_some()).count();
            assert!(tagged == 0 || tagged == lists.len());
        }
        Err(problem) => assert_eq!(problem.name.entry().status, StatusCode::BAD_REQUEST),
    }
}

fn token(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let keys = TokenKeys::for_tests(7, "one");
    // There is one text for a token, and without the secret nobody finds it.
    if let Presented::Token { lock_id, fence } = keys.read(text) {
        assert_eq!(keys.mint(lock_id, fence), text);
    }
}
