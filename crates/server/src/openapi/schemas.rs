//! The schemas of bodies.

use leasehold_problems::Name;
use serde_json::{Map, Value, json};

use super::parts::event_type;

/// A lock token.
pub(super) const TOKEN: &str = "^lock_[A-Za-z0-9_-]{1,120}$";
/// A resource in its canonical form.
pub(super) const RESOURCE: &str = concat!(
    // Each segment, but `.` and `..`: bare characters, or escapes of the others in ASCII,
    r"^(/|(/(?!\.{1,2}(/|$))([A-Za-z0-9._~!$&'()*+,;=:@-]|%(2[0235]|3[CEF]|5[BDE]|60|7[BCD])|",
    // and of characters beyond it in UTF-8: of two bytes, three and four.
    "%C2%[AB][0-9A-F]|%(C[3-9A-F]|D[0-9A-F])%[89AB][0-9A-F]|",
    "%(E0%[AB]|E[1-9A-CEF]%[89AB]|ED%[89])[0-9A-F]%[89AB][0-9A-F]|",
    "%(F0%[9AB]|F[1-3]%[89AB]|F4%8)[0-9A-F]%[89AB][0-9A-F]%[89AB][0-9A-F])+)+)$",
);
/// A lock id, for examples.
pub(super) const LOCK_ID: &str = "0193b0a5-2f6e-7c3a-9d41-5b8f3c2e7a10";
/// A time, for examples.
pub(super) const TIME: &str = "2026-11-20T12:00:00.000Z";

/// `lock-lost` as `LockLost`.
pub(super) fn camel(name: Name) -> String {
    name.as_str()
        .split('-')
        .map(|word| {
            let (first, rest) = word.split_at(1);
            format!("{}{rest}", first.to_uppercase())
        })
        .collect()
}

/// The key of the schema of one problem.
pub(super) fn problem_key(name: Name) -> String {
    format!("Problem{}", camel(name))
}

/// A reference to the schema of one problem.
pub(super) fn problem_reference(name: Name) -> String {
    reference(&problem_key(name))
}

fn reference(key: &str) -> String {
    format!("#/components/schemas/{key}")
}

/// A reference to a schema.
pub(super) fn of(key: &str) -> Value {
    json!({ "$ref": reference(key) })
}

/// All schemas.
pub(super) fn schemas(prefix: &str) -> Map<String, Value> {
    let mut schemas = Map::new();
    let mut add = |key: &str, schema: Value| {
        schemas.insert(key.into(), schema);
    };
    add("Resource", resource());
    add("Time", time());
    add("Principal", json!({ "type": "string", "minLength": 1, "maxLength": 255 }));
    add("Acquire", acquire());
    add("AcquireSeveral", acquire_several());
    add("Renew", renew());
    add("Transfer", transfer());
    add("LetGo", let_go());
    add("Break", break_lock());
    add("BreakResult", break_result());
    add("Asked", asked());
    add("SetFreeze", set_freeze());
    add("Freeze", freeze());
    add("Lock", lock());
    add("LockGrant", lock_grant());
    add("Waiter", waiter());
    add("Inspect", inspect());
    add("LockList", list("LockItem", "Live locks."));
    add("LockItem", of("Lock"));
    add("Document", json!({ "description": "A JSON document: any value." }));
    add("DocumentItem", document_item());
    add("DocumentList", list("DocumentItem", "The children of a resource."));
    add("JsonPatch", json_patch());
    add("Batch", batch());
    add("BatchOperation", batch_operation());
    add("BatchResult", json!({ "type": "object", "description": "What came of each operation." }));
    add("AuditEvent", audit_event());
    add("AuditList", list("AuditEvent", "Events of the trail."));
    add("Health", health());
    add("ProblemPage", problem_page());
    schemas.append(&mut super::problem_schemas(prefix));
    schemas
}

fn resource() -> Value {
    json!({
        "type": "string",
        "maxLength": 2048,
        "pattern": RESOURCE,
        "description": "A path in canonical form: letters, digits and `-._~!$&'()*+,;=:@` bare, \
                        every other byte as `%XX` in upper case.",
        "examples": ["/v1/flags/feature-x"],
    })
}

fn time() -> Value {
    json!({
        "type": "string",
        "format": "date-time",
        "description": "A time by the wall clock, in UTC. For people; programs count milliseconds.",
        "examples": [TIME],
    })
}

fn list(item: &str, description: &str) -> Value {
    json!({
        "type": "object",
        "description": description,
        "required": ["items", "next"],
        "properties": {
            "items": { "type": "array", "maxItems": 1000, "items": of(item) },
            "next": {
                "type": ["string", "null"],
                "description": "The `cursor` of the next page; null: this is the last.",
            },
        },
    })
}

/// The fields that every acquire has.
fn acquire_fields() -> Map<String, Value> {
    let fields = json!({
        "ttl_seconds": {
            "type": "number",
            "minimum": 1,
            "maximum": 1800,
            "description": "How long the lock lasts unless renewed. Absent: the rule's default, \
                            300 unless configured. The maximum is the rule's, 1,800 unless \
                            configured. Not null.",
        },
        "mode": {
            "enum": ["exclusive", "shared", null],
            "default": "exclusive",
            "description": "Shared locks coexist with one another.",
        },
        "depth": {
            "enum": ["infinity", "0", null],
            "default": "infinity",
            "description": "`infinity`: the resource and everything below. `0`: the resource and \
                            its list of children.",
        },
        "reason": {
            "type": ["string", "null"],
            "maxLength": 1024,
            "description": "Why, for people who meet the lock; at most 1,024 bytes.",
        },
        "metadata": {
            "type": ["object", "null"],
            "description": "Anything of the holder's own; at most 4,096 bytes as JSON.",
        },
    });
    match fields {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

fn acquire() -> Value {
    json!({
        "type": "object",
        "additionalProperties": false,
        "properties": acquire_fields(),
        "examples": [{ "ttl_seconds": 60, "reason": "Rolling out" }, {}],
    })
}

fn acquire_several() -> Value {
    let mut properties = acquire_fields();
    for (name, description) in [
        ("resources", "Acquire all of these, or none. Those below another are folded into it."),
        ("any_of", "Acquire the first of these that is free."),
    ] {
        properties.insert(
            name.into(),
            json!({ "type": "array", "minItems": 1, "maxItems": 256, "items": of("Resource"),
                    "description": description }),
        );
    }
    json!({
        "type": "object",
        "additionalProperties": false,
        "properties": properties,
        "oneOf": [{ "required": ["resources"] }, { "required": ["any_of"] }],
        "examples": [{ "resources": ["/v1/flags/a", "/v1/flags/b"], "ttl_seconds": 60 }],
    })
}

fn renew() -> Value {
    json!({
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "ttl_seconds": {
                "type": "number",
                "minimum": 1,
                "maximum": 1800,
                "description": "The new TTL, counted from now. Absent: the one last asked for, \
                                and then the deadline is never brought forward.",
            },
        },
        "examples": [{ "ttl_seconds": 60 }, {}],
    })
}

fn transfer() -> Value {
    json!({
        "type": "object",
        "additionalProperties": false,
        "required": ["to"],
        "properties": {
            "to": {
                "type": "string",
                "minLength": 1,
                "maxLength": 255,
                "description": "The principal that becomes the holder; at most 255 bytes. In \
                                anonymous mode any label.",
            },
        },
        "examples": [{ "to": "bob" }],
    })
}

fn let_go() -> Value {
    json!({
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "message": {
                "type": ["string", "null"],
                "maxLength": 1024,
                "description": "What to tell the holder; at most 1,024 bytes.",
            },
        },
        "examples": [{ "message": "I need two minutes for a hotfix." }],
    })
}

fn break_lock() -> Value {
    json!({
        "type": "object",
        "additionalProperties": false,
        "required": ["reason"],
        "properties": {
            "reason": {
                "type": "string",
                "minLength": 1,
                "maxLength": 1024,
                "description": "Why. The holder is told, and it stays in the trail.",
            },
            "grace_seconds": {
                "type": ["number", "null"],
                "minimum": 0,
                "default": 0,
                "description": "How long the holder may still write. The lock ends at the earlier \
                                of its deadline and now plus this.",
            },
            "lock_id": {
                "type": ["string", "null"],
                "format": "uuid",
                "description": "This lock or none. Needed where several cover the resource.",
            },
        },
        "examples": [{ "reason": "The holder's machine is gone", "grace_seconds": 30 }],
    })
}

fn break_result() -> Value {
    json!({
        "type": "object",
        "description": "The lock that has ended, or will at the end of the grace. For a dry run, \
                        what would end: its holder, its age, the writes under way and who waits \
                        next.",
    })
}

fn asked() -> Value {
    json!({
        "type": "object",
        "required": ["asked"],
        "properties": {
            "asked": {
                "type": "array",
                "minItems": 1,
                "items": { "type": "string", "format": "uuid" },
                "description": "The locks whose holders were asked.",
            },
        },
        "examples": [{ "asked": [LOCK_ID] }],
    })
}

fn set_freeze() -> Value {
    json!({
        "type": "object",
        "additionalProperties": false,
        "required": ["reason", "until"],
        "properties": {
            "reason": {
                "type": "string",
                "minLength": 1,
                "maxLength": 1024,
                "description": "Why; whoever is refused is told.",
            },
            "until": {
                "type": "string",
                "format": "date-time",
                "description": "When it ends by itself: in the future, at most 366 days away.",
            },
        },
        "examples": [{ "reason": "Release freeze", "until": "2026-11-20T18:00:00Z" }],
    })
}

fn freeze() -> Value {
    json!({
        "type": "object",
        "required": ["resource", "by", "reason", "since", "until"],
        "properties": {
            "resource": of("Resource"),
            "by": of("Principal"),
            "reason": { "type": "string" },
            "since": of("Time"),
            "until": of("Time"),
            "writes_in_flight": { "type": "integer", "minimum": 0,
                "description": "In the answer that freezes: how many writes were still under way \
                                when the wait for them was over." },
        },
        "examples": [{
            "resource": "/v1/flags", "by": "carol", "reason": "Release freeze", "since": TIME,
            "until": "2026-11-20T18:00:00.000Z",
        }],
    })
}

fn lock_example() -> Map<String, Value> {
    let example = json!({
        "lock_id": LOCK_ID, "resource": "/v1/flags/feature-x",
        "resources": ["/v1/flags/feature-x"], "kind": "lock", "dialect": "http",
        "mode": "exclusive", "depth": "infinity", "holder": "alice", "reason": null,
        "metadata": {}, "fence": 42, "ttl_seconds": 60, "acquired_at": TIME,
        "expires_at": "2026-11-20T12:01:00.000Z", "expires_in_ms": 60000, "waited_ms": 0,
    });
    match example {
        Value::Object(example) => example,
        _ => Map::new(),
    }
}

fn lock() -> Value {
    json!({
        "type": "object",
        "description": "A lock, without its token.",
        "required": [
            "lock_id", "resource", "resources", "kind", "dialect", "mode", "depth", "reason",
            "metadata", "fence", "ttl_seconds", "acquired_at", "expires_at", "expires_in_ms",
            "waited_ms",
        ],
        "properties": lock_properties(),
        "examples": [lock_example()],
    })
}

fn lock_properties() -> Map<String, Value> {
    let mut properties = Map::new();
    let mut add = |name: &str, schema: Value| {
        properties.insert(name.into(), schema);
    };
    add("lock_id", json!({ "type": "string", "format": "uuid" }));
    add("resource", of("Resource"));
    add(
        "resources",
        json!({ "type": "array", "minItems": 1, "items": of("Resource"),
        "description": "Everything it locks; `resource` is the first." }),
    );
    add("kind", json!({ "enum": ["lock"] }));
    add(
        "dialect",
        json!({ "enum": ["http"],
        "description": "The protocol it was taken through." }),
    );
    add("mode", json!({ "enum": ["exclusive", "shared"] }));
    add("depth", json!({ "enum": ["infinity", "0"] }));
    add(
        "holder",
        json!({ "type": ["string", "null"],
        "description": "Who acquired it; a rule may hide it from others." }),
    );
    add("reason", json!({ "type": ["string", "null"] }));
    add("metadata", json!({ "type": "object" }));
    add(
        "fence",
        json!({ "type": "integer", "minimum": 1, "maximum": 9_007_199_254_740_991_u64,
        "description": "The fencing number: greater than that of every grant before. No secret." }),
    );
    add(
        "ttl_seconds",
        json!({ "type": "number", "minimum": 1,
        "description": "The TTL last asked for." }),
    );
    add("acquired_at", of("Time"));
    add("expires_at", of("Time"));
    add(
        "expires_in_ms",
        json!({ "type": "integer", "minimum": 0,
        "description": "How long it lasts, counted from when the request was sent." }),
    );
    add(
        "waited_ms",
        json!({ "type": "integer", "minimum": 0,
        "description": "How long the acquire waited." }),
    );
    add(
        "renewals",
        json!({ "type": "integer", "minimum": 0,
        "description": "How often it was renewed." }),
    );
    add(
        "breaking",
        json!({ "type": ["object", "null"],
        "description": "The break whose grace is running: who, why and when it ends." }),
    );
    add(
        "requested_by",
        json!({
        "description": "Who asked the holder to let go, and what they said; shown to the holder." }),
    );
    properties
}

fn lock_grant() -> Value {
    let mut example = lock_example();
    let token = "lock_k1_AZOwpS9ufDqdQVuPPC56EAAAAAAAAAAqeYw3Jd0mVb5r7Qz1c9Xn4tKe";
    example.insert("lock_token".into(), token.into());
    json!({
        "description": "A lock and its token, as its holder gets it.",
        "allOf": [of("Lock"), {
            "type": "object",
            "required": ["lock_token", "holder"],
            "properties": {
                "lock_token": { "type": "string", "pattern": TOKEN,
                    "description": "The secret that proves the holder. Shown once." },
                "predecessor_writes": { "const": "unknown",
                    "description": "There may be writes from before the lock that still land." },
            },
        }],
        "examples": [example],
    })
}

fn waiter() -> Value {
    json!({
        "type": "object",
        "required": ["waiting_since", "deadline", "granted"],
        "properties": {
            "holder": { "type": ["string", "null"] },
            "waiting_since": of("Time"),
            "deadline": of("Time"),
            "granted": { "type": "boolean",
                "description": "It has its place and waits for writes under way only." },
        },
    })
}

fn inspect() -> Value {
    json!({
        "type": "object",
        "required": ["resource", "locked", "locks", "queue", "freeze"],
        "properties": {
            "resource": of("Resource"),
            "locked": { "type": "boolean" },
            "locks": { "type": "array", "items": of("Lock"),
                "description": "Every lock that covers the resource; never with a token." },
            "queue": { "type": "array", "items": of("Waiter"),
                "description": "Everyone who waits for something that meets the resource, in \
                                order." },
            "freeze": { "anyOf": [of("Freeze"), { "type": "null" }] },
        },
        "examples": [{
            "resource": "/v1/flags/feature-x", "locked": false, "locks": [], "queue": [],
            "freeze": null,
        }],
    })
}

fn document_item() -> Value {
    json!({
        "type": "object",
        "required": ["resource", "id", "etag", "last_modified", "media_type", "has_children"],
        "properties": {
            "resource": { "anyOf": [of("Resource"), { "type": "null" }] },
            "id": { "type": "string", "description": "The last segment, decoded." },
            "etag": { "type": ["string", "null"],
                "description": "Null, like `last_modified` and `media_type`, where there is no \
                                document but something below." },
            "last_modified": { "anyOf": [of("Time"), { "type": "null" }] },
            "media_type": { "type": ["string", "null"] },
            "has_children": { "type": "boolean" },
        },
    })
}

fn json_patch() -> Value {
    json!({
        "type": "array",
        "description": "A JSON Patch (RFC 6902).",
        "items": {
            "type": "object",
            "required": ["op", "path"],
            "properties": {
                "op": { "enum": ["add", "remove", "replace", "move", "copy", "test"] },
                "path": { "type": "string", "pattern": "^(/([^~]|~[01])*)?$" },
                "from": { "type": "string", "pattern": "^(/([^~]|~[01])*)?$" },
                "value": {},
            },
            "oneOf": [
                { "properties": { "op": { "enum": ["add", "replace", "test"] } },
                  "required": ["value"] },
                { "properties": { "op": { "enum": ["move", "copy"] } }, "required": ["from"] },
                { "properties": { "op": { "const": "remove" } } },
            ],
        },
        "examples": [[{ "op": "replace", "path": "/enabled", "value": true }]],
    })
}

fn batch() -> Value {
    json!({
        "type": "object",
        "additionalProperties": false,
        "required": ["operations"],
        "properties": {
            "operations": { "type": "array", "maxItems": 256, "items": of("BatchOperation") },
        },
        "examples": [{ "operations": [
            { "method": "PUT", "resource": "/v1/flags/a", "body": { "enabled": true } },
            { "method": "DELETE", "resource": "/v1/flags/b",
              "headers": { "If-Match": "\"1f-9c2e\"" } },
        ] }],
    })
}

fn batch_operation() -> Value {
    json!({
        "type": "object",
        "additionalProperties": false,
        "required": ["method", "resource"],
        "properties": {
            "method": { "enum": ["PUT", "POST", "PATCH", "DELETE"] },
            "resource": { "type": "string", "minLength": 1, "maxLength": 2048,
                "description": "The path of the document or collection." },
            "headers": { "type": "object", "additionalProperties": { "type": "string" },
                "description": "Header fields of this operation, such as `If-Match` and \
                                `X-Lock-Token`." },
            "body": { "description": "The JSON value to write." },
        },
    })
}

fn audit_event() -> Value {
    json!({
        "type": "object",
        "description": "One event of the trail. Members that do not apply to its type are left \
                        out.",
        "required": ["seq", "at", "lease_ms", "type", "dialect"],
        "properties": audit_properties(),
        "examples": [{
            "seq": 1041, "at": TIME, "lease_ms": 86_400_000, "type": "acquired",
            "lock_id": LOCK_ID, "resources": ["/v1/flags/feature-x"], "holder": "alice",
            "actor": "alice", "dialect": "http", "fence": 42, "mode": "exclusive",
            "depth": "infinity", "ttl_ms": 60000, "deadline_ms": 86_460_000,
            "max_ttl_ms": 1_800_000, "waited_ms": 0,
            "prev": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        }],
    })
}

fn audit_properties() -> Map<String, Value> {
    let mut properties = Map::new();
    let mut add = |name: &str, mut schema: Value, description: &str| {
        schema["description"] = description.into();
        properties.insert(name.into(), schema);
    };
    let text = || json!({ "type": "string" });
    let number = || json!({ "type": "integer", "minimum": 0 });
    add("seq", json!({ "type": "integer", "minimum": 1 }), "Its position; there are no gaps.");
    add("at", of("Time"), "When, by the wall clock.");
    add("lease_ms", number(), "When, by the lease clock.");
    add("type", event_type(), "What happened.");
    add("lock_id", json!({ "type": "string", "format": "uuid" }), "The lock it is about.");
    add("resources", json!({ "type": "array", "items": of("Resource") }), "What that lock locks.");
    add("holder", text(), "Who holds that lock.");
    add("actor", text(), "Who acted; absent for what the server does by itself.");
    add("dialect", json!({ "enum": ["http"] }), "The protocol.");
    add("fence", number(), "The fencing number of the lock.");
    add("request_id", text(), "The id of the request.");
    add("remote_addr", text(), "The address of the peer.");
    add("mode", json!({ "enum": ["exclusive", "shared"] }), "The mode of the grant.");
    add("depth", json!({ "enum": ["infinity", "0"] }), "The depth of the grant.");
    add("reason", text(), "Why: of the grant, the break or the freeze.");
    add("metadata", json!({ "type": "object" }), "The holder's own data.");
    add("handle", text(), "An id that the client chose.");
    add("ttl_ms", number(), "The TTL asked for.");
    add("deadline_ms", number(), "The deadline, by the lease clock.");
    add("granted_ms", number(), "When it was granted, where that is not `lease_ms`.");
    add("acquired_at", of("Time"), "When it was granted, where that is not `at`.");
    add("max_deadline_ms", number(), "The latest deadline that renewals can reach.");
    add("max_ttl_ms", number(), "The longest TTL of a renewal.");
    add("waited_ms", number(), "How long the acquire waited.");
    add(
        "idempotency",
        json!({ "type": "object", "required": ["key", "digest"],
                "properties": { "key": text(), "digest": text() } }),
        "The acquire's idempotency key, and a digest of the request.",
    );
    add("predecessor_writes", json!({ "const": "unknown" }), "Earlier writes may still land.");
    add("undelivered", json!({ "const": true }), "The grant could not be delivered.");
    add("phase", json!({ "enum": ["announced", "ended"] }), "Of a break.");
    add("by", text(), "Who broke, asked or froze.");
    add("message", text(), "What the one who asks says.");
    add("transferred_to", json!({ "type": "object" }), "The grant that follows.");
    add("resource", of("Resource"), "The resource of a freeze, a write or a refusal.");
    add("since", of("Time"), "When a freeze began.");
    add("until", of("Time"), "When a freeze ends.");
    add("how", json!({ "enum": ["passed", "lifted"] }), "How a freeze ended.");
    add("method", text(), "The method of a write.");
    add("admission", number(), "The first `write_admitted` of the same write.");
    add("admitted", number(), "The `write_admitted` that this completes.");
    add(
        "result",
        json!({ "enum": ["answered", "not_sent", "applied", "not_applied", "unknown"] }),
        "How a write ended.",
    );
    add("status", json!({ "type": "integer", "minimum": 100, "maximum": 599 }), "Of the answer.");
    add("problem", text(), "The name of the refusal.");
    add("count", number(), "How many were refused.");
    add("minute", of("Time"), "In which minute.");
    add(
        "cause",
        json!({ "enum": ["created", "clean-start", "crash", "failed-commit", "restored"] }),
        "Why the log was opened.",
    );
    add("incarnation", text(), "What tokens and entity tags are bound to.");
    add("fence_floor", number(), "Fences from here on are greater.");
    add("through", number(), "The newest event that was removed.");
    add("hash", text(), "The hash of that event.");
    add(
        "prev",
        json!({ "type": "string", "pattern": "^[0-9a-f]{64}$" }),
        "SHA-256 of the event before.",
    );
    properties
}

fn health() -> Value {
    json!({
        "type": "object",
        "required": ["status"],
        "properties": { "status": { "type": "string" } },
    })
}

fn problem_page() -> Value {
    json!({
        "type": "object",
        "description": "What the catalogue says of one problem.",
        "required": [
            "type", "name", "title", "status", "retryable", "retryable_means", "meaning",
            "sent_when", "caller", "operator", "confused_with", "members", "headers", "follows",
            "example",
        ],
        "properties": {
            "type": { "type": "string", "format": "uri-reference" },
            "name": { "type": "string" },
            "title": { "type": "string" },
            "status": { "type": "integer", "minimum": 400, "maximum": 599 },
            "retryable": { "enum": ["no", "same", "after-change"] },
            "retryable_means": { "type": "string" },
            "meaning": { "type": "string" },
            "sent_when": { "type": "array", "items": { "type": "string" } },
            "caller": { "type": "string", "description": "How the caller fixes it." },
            "operator": { "type": "string", "description": "How the operator fixes it." },
            "confused_with": { "type": "array", "items": { "type": "object" } },
            "members": { "type": "array", "items": { "type": "object" } },
            "headers": { "type": "array", "items": { "type": "object" } },
            "follows": { "type": "array", "items": { "type": "object" } },
            "example": of("Problem"),
        },
    })
}
