//! The paths and their operations.

use leasehold_problems::Name;
use serde_json::{Map, Value, json};

use super::parts::header;
use super::schemas::of;
use super::{Operation, Writer};

/// What a lock endpoint that a holder calls is refused with: the token is not the right one.
const TOKEN: &[Name] =
    &[Name::LockTokenRequired, Name::InvalidLockToken, Name::NotTheHolder, Name::LockGone];

/// What any write to a resource is refused with before its body is looked at.
const GUARDED: &[Name] = &[
    Name::Locked,
    Name::Frozen,
    Name::InvalidLockToken,
    Name::NotTheHolder,
    Name::LockLost,
    Name::LockMismatch,
    Name::PreconditionFailed,
    Name::PreconditionRequired,
];

/// Header fields in which tokens travel.
const TOKENS: &[&str] = &["X-Lock-Token", "Lock-Token", "If"];

/// Conditions on the document that is written.
const CONDITIONS: &[&str] = &["If-Match", "If-None-Match", "If-Unmodified-Since"];

/// What a gateway answers for an upstream that does not.
const UPSTREAM: &[Name] = &[Name::UpstreamUnreachable, Name::UpstreamTimeout];

pub(super) fn paths(writer: &mut Writer<'_>) -> Map<String, Value> {
    let mut paths = Map::new();
    documents(writer, &mut paths);
    lock(writer, &mut paths);
    lock_actions(writer, &mut paths);
    freeze(writer, &mut paths);
    locks(writer, &mut paths);
    lock_by_id(writer, &mut paths);
    batch_and_check(writer, &mut paths);
    trail(writer, &mut paths);
    operations(writer, &mut paths);
    paths
}

/// One path and its operations.
fn item(
    writer: &mut Writer<'_>,
    parameter: Option<&str>,
    operations: Vec<(&str, Operation)>,
) -> Value {
    let mut item = Map::new();
    if let Some(parameter) = parameter {
        let reference = format!("#/components/parameters/{parameter}");
        item.insert("parameters".into(), json!([{ "$ref": reference }]));
    }
    for (method, operation) in operations {
        item.insert(method.into(), writer.write(operation.takes(&["X-Request-Id"])));
    }
    Value::Object(item)
}

/// An answer without a body.
fn empty(description: &str, cache: &str, fields: &[&str]) -> Value {
    json!({ "description": description, "headers": header_fields(cache, fields) })
}

/// An answer with a JSON body.
fn answer(description: &str, cache: &str, fields: &[&str], schema: &str) -> Value {
    json!({
        "description": description,
        "headers": header_fields(cache, fields),
        "content": { "application/json": { "schema": of(schema) } },
    })
}

fn header_fields(cache: &str, fields: &[&str]) -> Map<String, Value> {
    let mut headers = Map::new();
    if !cache.is_empty() {
        headers.insert("Cache-Control".into(), header(cache));
    }
    headers.insert("X-Request-Id".into(), header("X-Request-Id"));
    for field in fields {
        headers.insert((*field).to_owned(), header(field));
    }
    headers
}

fn json_body(schema: &str, required: bool, description: &str) -> Value {
    json!({
        "description": description,
        "required": required,
        "content": { "application/json": { "schema": of(schema) } },
    })
}

fn options(id: &'static str, tag: &'static str, what: &str) -> Operation {
    Operation::new(id, tag, "Ask which methods there are")
        .says(format!("The methods of {what}."))
        .answers(204, empty("`Allow` lists the methods.", "", &["Allow"]))
}

fn documents(writer: &mut Writer<'_>, paths: &mut Map<String, Value>) {
    let reading =
        |id, summary| {
            Operation::new(id, "documents", summary)
            .says(
                "Permission: read. Reads always pass, locked or not. Where there is no document \
                 but something below, or with `list=true`, the answer is the list of the \
                 children, page by page.",
            )
            .takes(&["If-None-Match", "If-Modified-Since", "If-Match", "If-Unmodified-Since"])
            .takes(&["list", "limit", "cursor"])
            .answers(200, json!({
                "description": "The document as it was stored, or the list of its children.",
                "headers": header_fields("No-Cache", &["ETag", "Last-Modified"]),
                "content": {
                    "application/json": {
                        "schema": { "anyOf": [of("DocumentList"), of("Document")] },
                    },
                    "*/*": { "schema": {} },
                },
            }))
            .answers(304, empty(
                "The version that the conditions name is still the current one.",
                "No-Cache",
                &["ETag", "Last-Modified"],
            ))
            .refuses(&[Name::NotFound, Name::PreconditionFailed])
            .refuses(UPSTREAM)
        };
    let writing = |id, summary| {
        Operation::new(id, "documents", summary)
            .takes(TOKENS)
            .takes(CONDITIONS)
            .refuses(GUARDED)
            .refuses(UPSTREAM)
    };
    let any_body = json!({
        "description": "JSON, or with another `Content-Type` any bytes; at most 16 MiB unless \
                        configured. Not compressed.",
        "required": true,
        "content": {
            "application/json": { "schema": of("Document") },
            "application/octet-stream": { "schema": {} },
        },
    });
    let patch_body = json!({
        "description": "The patch.",
        "required": true,
        "content": {
            "application/merge-patch+json": { "schema": of("Document") },
            "application/json-patch+json": { "schema": of("JsonPatch") },
            "application/json": { "schema": of("Document") },
        },
    });
    let body_problems = [Name::PayloadTooLarge, Name::UnsupportedMediaType, Name::ValidationFailed];
    let fields = ["ETag", "Last-Modified", "X-Lock-Requested-By"];
    let operations =
        vec![
        ("get", reading("readDocument", "Read a document or list children")),
        ("head", reading("headDocument", "Read a document's header").without_bodies()),
        (
            "put",
            writing("putDocument", "Create or replace a document")
                .says(
                    "Permission: write. `If-None-Match: *` creates only, `If-Match` replaces only. \
                     A lock on the document, or one above it, asks for its token.",
                )
                .body(any_body.clone())
                .answers(201, empty("Created.", "No-Cache", &[
                    "Location", "ETag", "Last-Modified", "X-Lock-Requested-By",
                ]))
                .answers(204, empty("Replaced.", "No-Cache", &fields))
                .refuses(&body_problems),
        ),
        (
            "post",
            writing("postDocument", "Create a document in a collection")
                .says(
                    "Permission: write. The `id` in the body, a string of one legal segment, names \
                     the new document; without it the server chooses one.",
                )
                .body(any_body)
                .answers(201, empty("Created.", "No-Cache", &[
                    "Location", "ETag", "Last-Modified", "X-Lock-Requested-By",
                ]))
                .refuses(&body_problems)
                .refuses(&[Name::AlreadyExists]),
        ),
        (
            "patch",
            writing("patchDocument", "Change a document")
                .says(
                    "Permission: write. A merge patch (RFC 7396; plain `application/json` means \
                     the same) or a JSON Patch (RFC 6902), applied whole or not at all.",
                )
                .body(patch_body)
                .answers(200, answer("The new document.", "No-Cache", &[
                    "ETag", "Last-Modified", "Content-Location", "X-Lock-Requested-By",
                ], "Document"))
                .answers(204, empty(
                    "Changed. The server has no memory left to send the document.",
                    "No-Cache",
                    &fields,
                ))
                .refuses(&body_problems)
                .refuses(&[Name::NotFound, Name::PatchConflict]),
        ),
        (
            "delete",
            writing("deleteDocument", "Delete a document")
                .says(
                    "Permission: write. Locks on the document, above it and below it ask for their \
                     tokens. The lock of a deleted document stays.",
                )
                .takes(&["recursive"])
                .answers(204, empty("Deleted.", "No-Cache", &["X-Lock-Requested-By"]))
                .refuses(&[Name::NotFound, Name::HasChildren]),
        ),
        (
            "options",
            Operation::new("optionsDocument", "documents", "Ask which methods there are")
                .says("The methods of a document, and the patches that it takes.")
                .answers(204, empty("The methods.", "No-Cache", &["Allow", "Accept-Patch"])),
        ),
    ];
    paths.insert("/{resource}".into(), item(writer, Some("resource"), operations));
}

fn acquire(id: &'static str, tag: &'static str, summary: &'static str) -> Operation {
    Operation::new(id, tag, summary)
        .conflicts()
        .takes(&["Prefer", "wait", "Idempotency-Key", "X-Lock-Token"])
        .answers(
            201,
            answer(
                "Granted.",
                "No-Store",
                &["Location", "Lock-Token", "Preference-Applied", "Idempotency-Replayed"],
                "LockGrant",
            ),
        )
        .refuses(&[
            Name::InvalidLockToken,
            Name::NotTheHolder,
            Name::NotLockable,
            Name::Deadlock,
            Name::IdempotencyInProgress,
            Name::LockGone,
            Name::PayloadTooLarge,
            Name::ValidationFailed,
            Name::TtlOutOfRange,
            Name::WaitOutOfRange,
            Name::IdempotencyKeyReused,
            Name::Locked,
            Name::Frozen,
            Name::QueueFull,
            Name::TooManyLocks,
        ])
}

const ACQUIRE: &str = "Permission: lock. Without a wait, a lock in the way is told at once \
    (fail fast). With `Prefer: wait=SECONDS` or `?wait=SECONDS` the acquire stands in a queue, \
    first come, first served. With `Idempotency-Key` a repetition of the same request gets the \
    same lock. A waiter may name the locks it holds in `X-Lock-Token`, so that a deadlock is \
    found. The media type of the body is not looked at. A rule may answer `locked` with 409.";

fn renew(id: &'static str, tag: &'static str) -> Operation {
    Operation::new(id, tag, "Renew a lock")
        .says(
            "Permission: lock. Sets the deadline anew. A rule caps the whole life of a lock \
             (`max_hold`, 24 h unless configured): a renewal past it is cut to it.",
        )
        .takes(TOKENS)
        .body(json_body("Renew", false, "At most 64 KiB."))
        .answers(200, answer("The lock as it is now.", "No-Store", &[], "Lock"))
        .refuses(TOKEN)
        .refuses(&[Name::LockChanged, Name::PayloadTooLarge, Name::TtlOutOfRange])
}

fn release(id: &'static str, tag: &'static str) -> Operation {
    Operation::new(id, tag, "Release a lock")
        .says("Permission: lock. The same token again, after its own release, is 204 as well.")
        .takes(TOKENS)
        .answers(204, empty("Released.", "No-Store", &[]))
        .refuses(TOKEN)
}

fn lock(writer: &mut Writer<'_>, paths: &mut Map<String, Value>) {
    let inspect = |id, summary| {
        Operation::new(id, "locks", summary)
            .says(
                "Permission: read. Needs no token, never blocks, and never shows a token. A lock \
                 needs no document: any path that can be locked can be inspected.",
            )
            .answers(200, answer("What covers the resource.", "No-Store", &[], "Inspect"))
            .refuses(&[Name::NotLockable])
    };
    let operations = vec![
        (
            "post",
            acquire("acquireLock", "locks", "Acquire a lock").says(ACQUIRE).body(json_body(
                "Acquire",
                false,
                "May be empty or absent; at most 64 KiB.",
            )),
        ),
        ("get", inspect("inspectLock", "Inspect the locks of a resource")),
        ("head", inspect("headLock", "Inspect, without a body").without_bodies()),
        ("patch", renew("renewLock", "locks").refuses(&[Name::NotLockable])),
        ("put", renew("renewLockByPut", "locks").refuses(&[Name::NotLockable])),
        ("delete", release("releaseLock", "locks").refuses(&[Name::NotLockable])),
        ("options", options("optionsLock", "locks", "a lock endpoint")),
    ];
    let path = format!("/{{resource}}{}", writer.suffix);
    paths.insert(path, item(writer, Some("resource"), operations));
}

fn transfer(id: &'static str, tag: &'static str) -> Operation {
    Operation::new(id, tag, "Hand a lock over")
        .says(
            "Permission: lock. Makes another principal the holder: new token, greater fence, same \
             deadline. It waits for the holder's writes under way. The new token is returned to \
             the caller, to pass on; the old one ends. Repeated with the old token to the same \
             principal it gives the same answer, until the new token is first used.",
        )
        .takes(TOKENS)
        .body(json_body("Transfer", true, "At most 64 KiB."))
        .answers(200, answer("Handed over.", "No-Store", &["Lock-Token"], "LockGrant"))
        .refuses(TOKEN)
        .refuses(&[Name::LockChanged, Name::Locked, Name::PayloadTooLarge, Name::ValidationFailed])
}

fn break_lock(id: &'static str, tag: &'static str) -> Operation {
    Operation::new(id, tag, "Break a lock")
        .says(
            "Permission: break. Ends a lock for its holder: one that covers the resource, also one \
             taken above, never one below. With a grace it cannot be renewed any more, writes \
             still pass, and it ends when the grace is over.",
        )
        .takes(&["dry_run"])
        .body(json_body("Break", true, "At most 64 KiB."))
        .answers(200, answer("What has ended, or would.", "No-Store", &[], "BreakResult"))
        .refuses(&[Name::LockChanged, Name::PayloadTooLarge, Name::ValidationFailed])
}

fn lock_actions(writer: &mut Writer<'_>, paths: &mut Map<String, Value>) {
    let actions = [
        ("transfer", transfer("transferLock", "locks"), "optionsTransfer"),
        (
            "request",
            Operation::new("requestLock", "locks", "Ask the holder to let go")
                .says(
                    "Permission: lock. Shown to the holder at its next renewal, in the answer to \
                     its next write (`X-Lock-Requested-By`), and in the events.",
                )
                .body(json_body("LetGo", false, "At most 64 KiB."))
                .answers(202, answer("The holders were asked.", "No-Store", &[], "Asked"))
                .refuses(&[Name::LockChanged, Name::PayloadTooLarge, Name::ValidationFailed]),
            "optionsRequest",
        ),
        ("break", break_lock("breakLock", "locks"), "optionsBreak"),
    ];
    for (action, operation, options_id) in actions {
        let operations = vec![
            ("post", operation.refuses(&[Name::NotLockable])),
            ("options", options(options_id, "locks", "this endpoint")),
        ];
        let path = format!("/{{resource}}{}/{action}", writer.suffix);
        paths.insert(path, item(writer, Some("resource"), operations));
    }
}

fn freeze(writer: &mut Writer<'_>, paths: &mut Map<String, Value>) {
    let operations = vec![
        (
            "put",
            Operation::new("freeze", "freezes", "Freeze a resource")
                .says(
                    "Permission: freeze. Nobody writes to the resource or below it, whatever token \
                     they hold, until it is lifted or `until` has passed. Answered when the writes \
                     under way have ended. A second one replaces it. Renewing, releasing, handing \
                     over and breaking go on; waiters keep their place.",
                )
                .body(json_body("SetFreeze", true, "At most 64 KiB."))
                .answers(200, answer("Frozen.", "No-Store", &[], "Freeze"))
                .refuses(&[
                    Name::NotLockable,
                    Name::PayloadTooLarge,
                    Name::ValidationFailed,
                    Name::TtlOutOfRange,
                ]),
        ),
        (
            "delete",
            Operation::new("unfreeze", "freezes", "Lift a freeze")
                .says("Permission: freeze.")
                .answers(204, empty("Not frozen any more.", "No-Store", &[]))
                .refuses(&[Name::NotLockable, Name::NotFound]),
        ),
        ("options", options("optionsFreeze", "freezes", "this endpoint")),
    ];
    let path = format!("/{{resource}}{}/freeze", writer.suffix);
    paths.insert(path, item(writer, Some("resource"), operations));
}

fn locks(writer: &mut Writer<'_>, paths: &mut Map<String, Value>) {
    let operations = vec![
        (
            "post",
            acquire("acquireLocks", "server", "Acquire several in one step")
                .says(format!(
                    "With `resources`: all or none, one token for all. With `any_of`: the first \
                     that is free. `resource` is the first, `Location` the lock by its id. \
                     {ACQUIRE}"
                ))
                .body(json_body("AcquireSeveral", true, "At most 64 KiB.")),
        ),
        (
            "get",
            Operation::new("listLocks", "server", "List live locks")
                .says("Permission: read. Every live lock, never with its token.")
                .takes(&["limit", "cursor", "filter-resource", "filter-holder", "filter-kind"])
                .takes(&["filter-dialect", "filter-expires-before"])
                .answers(200, answer("A page of locks.", "No-Store", &[], "LockList")),
        ),
    ];
    paths.insert(format!("{}locks", writer.prefix), item(writer, None, operations));
}

fn lock_by_id(writer: &mut Writer<'_>, paths: &mut Map<String, Value>) {
    let operations = vec![
        (
            "get",
            Operation::new("readLock", "server", "Read one lock")
                .says("Permission: read. The lock, without its token.")
                .answers(200, answer("The lock.", "No-Store", &[], "Lock"))
                .refuses(&[Name::NotFound]),
        ),
        ("patch", renew("renewLockById", "server").refuses(&[Name::NotFound])),
        ("put", renew("renewLockByIdByPut", "server").refuses(&[Name::NotFound])),
        ("delete", release("releaseLockById", "server").refuses(&[Name::NotFound])),
    ];
    let path = format!("{}locks/{{lock_id}}", writer.prefix);
    paths.insert(path.clone(), item(writer, Some("lock_id"), operations));
    for (action, operation) in [
        ("break", break_lock("breakLockById", "server")),
        ("transfer", transfer("transferLockById", "server")),
    ] {
        let operations = vec![("post", operation.refuses(&[Name::NotFound]))];
        paths.insert(format!("{path}/{action}"), item(writer, Some("lock_id"), operations));
    }
}

fn batch_and_check(writer: &mut Writer<'_>, paths: &mut Map<String, Value>) {
    let batch = Operation::new("batch", "server", "Write several documents in one step")
        .says(
            "Permission: write. All operations or none. The batch's tokens and the operations' \
             serve all; each step of judging a write is taken for all before the next. The first \
             refusal is the answer, with `index`.",
        )
        .takes(&["X-Lock-Token", "Lock-Token"])
        .body(json_body("Batch", true, "At most 256 operations and 16 MiB."))
        .answers(200, answer("All are done.", "No-Store", &[], "BatchResult"))
        .refuses(GUARDED)
        .refuses(&[
            Name::NotFound,
            Name::AlreadyExists,
            Name::HasChildren,
            Name::PatchConflict,
            Name::PayloadTooLarge,
            Name::UnsupportedMediaType,
            Name::ValidationFailed,
        ]);
    let path = format!("{}batch", writer.prefix);
    let operations = vec![("post", batch)];
    paths.insert(path, item(writer, None, operations));

    let check = |id| {
        Operation::new(id, "server", "Ask whether a request may pass")
            .says(
                "Permission: write. For proxies (`forward_auth`, `auth_request`): judges the \
                 request that the header fields describe, by its own `X-Lock-Token`, `If` and \
                 `If-Match`, as if it came here. It cannot pin a write, so a lock may be granted \
                 while the write is still on its way. With `deny=403` every refusal has the status \
                 403, with the true one in `X-Leasehold-Status`, its name in \
                 `X-Leasehold-Problem` and the holder in `X-Leasehold-Holder`; but 401 and 503 \
                 stay. With `own=deny` requests to lock endpoints and to the server's own space \
                 are refused, for proxies that send those here by themselves. The request in question may also follow \
                 the path, with its own method (`PATCH /-/check/v1/flags/feature-x`): then the \
                 fields and parameters above do not count, and `own=deny` holds.",
            )
            .takes(&["X-Forwarded-Method", "X-Forwarded-Uri"])
            .takes(&["X-Original-Method", "X-Original-URI", "deny", "own"])
            .takes(TOKENS)
            .takes(CONDITIONS)
            .answers(200, empty("It may pass.", "No-Store", &[]))
            .answers(403, json!({
                "description": "It may not, for its caller or its token; or, with `deny=403`, for \
                                any reason.",
                "headers": {
                    "X-Leasehold-Status": {
                        "description": "With `deny=403`: the status that it would have had.",
                        "schema": { "type": "integer", "minimum": 400, "maximum": 599 },
                    },
                    "X-Leasehold-Problem": {
                        "description": "With `deny=403`: the name of the problem.",
                        "schema": { "type": "string" },
                    },
                    "X-Leasehold-Document": {
                        "description": "With `deny=403`: the problem document as it would have \
                                        been, in ASCII; not where it is longer than 3,072 bytes.",
                        "schema": { "type": "string" },
                    },
                    "X-Leasehold-Holder": {
                        "description": "With `deny=403`: the holder of the lock in the way.",
                        "schema": { "type": "string" },
                    },
                },
                "content": { "application/problem+json": { "schema": of("Problem") } },
            }))
            .refuses(GUARDED)
    };
    let operations = vec![("get", check("check")), ("post", check("checkByPost"))];
    paths.insert(format!("{}check", writer.prefix), item(writer, None, operations));
}

fn trail(writer: &mut Writer<'_>, paths: &mut Map<String, Value>) {
    let filters =
        ["filter-resource", "filter-holder", "filter-actor", "filter-type", "filter-lock-id"];
    let audit = Operation::new("listEvents", "trail", "Read the audit trail")
        .says(
            "Permission: audit. The events, oldest first. `Accept` chooses JSON, NDJSON (an event \
             a line) or CSV.",
        )
        .takes(&["limit", "cursor", "order", "filter-since", "filter-until"])
        .takes(&filters)
        .answers(
            200,
            json!({
                "description": "A page of events.",
                "headers": header_fields("No-Store", &[]),
                "content": {
                    "application/json": { "schema": of("AuditList") },
                    "application/x-ndjson": { "schema": { "type": "string" } },
                    "text/csv": { "schema": { "type": "string" } },
                },
            }),
        );
    let operations = vec![("get", audit)];
    paths.insert(format!("{}audit", writer.prefix), item(writer, None, operations));
    let events = Operation::new("streamEvents", "trail", "Follow the audit trail")
        .says(
            "Permission: audit. Server-sent events from now on, or from `Last-Event-ID` without a \
             gap. Where that is older than what is kept, an event `reset` tells the oldest `seq`.",
        )
        .takes(&["Last-Event-ID"])
        .takes(&filters)
        .answers(
            200,
            json!({
                "description": "The stream; the `id` of each event is its `seq`, its data an \
                                `AuditEvent`.",
                "headers": header_fields("", &[]),
                "content": { "text/event-stream": { "schema": { "type": "string" } } },
            }),
        );
    let operations = vec![("get", events)];
    paths.insert(format!("{}events", writer.prefix), item(writer, None, operations));
}

fn operations(writer: &mut Writer<'_>, paths: &mut Map<String, Value>) {
    let live = Operation::new("live", "operations", "Is the process alive?")
        .says("200 as long as the process can answer. Needs no credentials.")
        .open()
        .answers(200, answer("It is.", "No-Store", &[], "Health"));
    let ready = Operation::new("ready", "operations", "Can it take requests?")
        .says("503 while the server starts, shuts down, or cannot write. Needs no credentials.")
        .open()
        .answers(200, answer("It can.", "No-Store", &[], "Health"))
        .answers(
            503,
            json!({
                "description": "Not now.",
                "headers": header_fields("No-Store", &[]),
                "content": {
                    "application/json": { "schema": of("Health") },
                    "application/problem+json": { "schema": of("Problem") },
                },
            }),
        );
    let problem = Operation::new("problemPage", "operations", "What a problem means")
        .says("HTML for a browser, JSON otherwise. Needs no credentials.")
        .open()
        .answers(
            200,
            json!({
                "description": "The page.",
                "headers": header_fields("", &[]),
                "content": {
                    "application/json": { "schema": of("ProblemPage") },
                    "text/html": { "schema": { "type": "string" } },
                },
            }),
        )
        .refuses(&[Name::NotFound]);
    let openapi = Operation::new("openapi", "operations", "This document")
        .says("Needs no credentials.")
        .open()
        .answers(
            200,
            json!({
                "description": "The document.",
                "headers": header_fields("", &[]),
                "content": { "application/json": { "schema": { "type": "object" } } },
            }),
        );
    let metrics = Operation::new("metrics", "operations", "Metrics")
        .says("Permission: admin; none on a listener of its own (`admin_listen`).")
        .answers(
            200,
            json!({
                "description": "Metrics in the OpenMetrics text format.",
                "headers": header_fields("", &[]),
                "content": {
                    "application/openmetrics-text": { "schema": { "type": "string" } },
                },
            }),
        );
    let prefix = writer.prefix.to_owned();
    for (path, parameter, operation) in [
        ("health/live", None, live),
        ("health/ready", None, ready),
        ("problems/{name}", Some("name"), problem),
        ("openapi.json", None, openapi),
        ("metrics", None, metrics),
    ] {
        let operations = vec![("get", operation)];
        paths.insert(format!("{prefix}{path}"), item(writer, parameter, operations));
    }
}
