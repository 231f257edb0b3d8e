//! Parameters, header fields and answers that several operations share.

use leasehold_problems::Field;
use serde_json::{Map, Value, json};

use super::schemas::{LOCK_ID, RESOURCE, TIME, TOKEN};

/// The groups that operations are in.
pub(super) fn tags() -> Value {
    json!([
        { "name": "locks", "description": "The lock of a resource." },
        { "name": "freezes", "description": "Stopping all writes to a resource." },
        { "name": "documents", "description": "The resources that the server keeps itself." },
        { "name": "server", "description": "The server's own space: locks by id, batch, check." },
        { "name": "trail", "description": "The audit trail." },
        { "name": "operations", "description": "Health, metrics and documentation." },
    ])
}

/// A reference to one of [`headers`].
pub(super) fn header(name: &str) -> Value {
    json!({ "$ref": format!("#/components/headers/{name}") })
}

/// A header field as the catalogue of problems tells it.
pub(super) fn problem_header(field: &Field) -> Value {
    let schema = match field.name {
        "Retry-After" => json!({ "type": "integer", "minimum": 1 }),
        _ => json!({ "type": "string" }),
    };
    let example = match field.example.parse::<u64>() {
        Ok(number) => json!(number),
        Err(_) => json!(field.example),
    };
    json!({ "description": field.meaning, "schema": schema, "example": example })
}

/// Header fields of answers.
pub(super) fn headers() -> Map<String, Value> {
    let mut headers = Map::new();
    let mut add = |name: &str, description: &str, schema: Value| {
        headers.insert(name.into(), json!({ "description": description, "schema": schema }));
    };
    add("No-Store", "The answer is not to be kept.", json!({ "const": "no-store" }));
    add("No-Cache", "To be checked again before each use.", json!({ "const": "no-cache" }));
    add(
        "X-Request-Id",
        "The id of the request: the caller's own, where it sent one that can be used.",
        json!({ "type": "string", "pattern": REQUEST_ID }),
    );
    add(
        "ETag",
        "The version of the document: a strong entity tag. It changes at every write and is never \
         used again.",
        json!({ "type": "string", "pattern": r#"^"[^"]+"$"# }),
    );
    add(
        "Last-Modified",
        "When the document was last written.",
        json!({ "type": "string", "pattern": HTTP_DATE }),
    );
    add(
        "Location",
        "The path of what was made.",
        json!({ "type": "string", "format": "uri-reference" }),
    );
    add(
        "Content-Location",
        "The path of the document that is in the body.",
        json!({ "type": "string", "format": "uri-reference" }),
    );
    add(
        "Lock-Token",
        "The token in its URI form, as WebDAV clients use it.",
        json!({ "type": "string", "pattern": LOCK_TOKEN_FIELD }),
    );
    add(
        "Preference-Applied",
        "The wait that was granted, where `Prefer: wait=` was followed.",
        json!({ "type": "string", "pattern": r"^wait=[0-9]+(\.[0-9]+)?$" }),
    );
    add(
        "Idempotency-Replayed",
        "`true`: this is the lock that an earlier request with the same key got.",
        json!({ "const": "true" }),
    );
    add(
        "X-Lock-Requested-By",
        "Who has asked the holder of the lock to let go.",
        json!({ "type": "string" }),
    );
    add("Allow", "The methods that the path takes.", json!({ "type": "string" }));
    add("Accept-Patch", "The media types that `PATCH` takes.", json!({ "type": "string" }));
    headers
}

/// Answers that are no problem documents.
pub(super) fn responses() -> Map<String, Value> {
    let mut responses = Map::new();
    responses.insert(
        "HeaderFieldsTooLarge".into(),
        json!({
            "description": "The header of the request is too large to be read. The HTTP layer \
                            answers this by itself, without a body.",
        }),
    );
    responses
}

const REQUEST_ID: &str = "^[A-Za-z0-9._:/+=@-]{1,128}$";
const LOCK_TOKEN_FIELD: &str =
    "^<opaquelocktoken:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}/lock_[A-Za-z0-9_-]{1,120}>$";
const HTTP_DATE: &str = "^(Mon|Tue|Wed|Thu|Fri|Sat|Sun), (0[1-9]|[12][0-9]|3[01]) \
    (Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) [0-9]{4} ([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9] GMT$";
const ENTITY_TAGS: &str = r#"^(\*|(W/)?"[!#-~]*"( *, *(W/)?"[!#-~]*")*)$"#;
const MOMENT: &str = "^([0-9]{1,10}|[0-9]{4}-[0-9]{2}-[0-9]{2}T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]\
    (\\.[0-9]{1,9})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9]))$";
/// Lists of an `If` field, each a parenthesis of conditions: a state token or an entity tag.
const IF_LISTS: &str = r#"^\((Not )?(<[a-z]+:[A-Za-z0-9:/_-]+>|\[(W/)?"[!#-~]*"\])( (Not )?(<[a-z]+:[A-Za-z0-9:/_-]+>|\[(W/)?"[!#-~]*"\]))*\)$"#;
/// One segment that is legal wherever it stands, and never the server's own space.
const SEGMENT: &str = "^[A-Za-z0-9_~!$&'()*+,;=:@][A-Za-z0-9_~!$&'()*+,;=:@.-]*$";

/// Where a parameter is.
#[derive(Clone, Copy)]
enum In {
    Path,
    Query,
    Header,
}

/// Parameters of requests, by the names that operations list them under.
pub(super) fn parameters() -> Map<String, Value> {
    let mut parameters = Map::new();
    let mut add = |key: &str, name: &str, place: In, description: &str, schema: Value| {
        let (place, required) = match place {
            In::Path => ("path", true),
            In::Query => ("query", false),
            In::Header => ("header", false),
        };
        let parameter = json!({
            "name": name,
            "in": place,
            "required": required,
            "description": description,
            "schema": schema,
        });
        parameters.insert(key.into(), parameter);
    };
    add(
        "resource",
        "resource",
        In::Path,
        "The path of the resource without its first slash, such as `v1/flags/feature-x`. It may \
         contain slashes, written as slashes; at most 2,048 bytes and 64 segments, no empty \
         segment, no `.` or `..`. (The schema describes a path of one segment.)",
        json!({ "type": "string", "minLength": 1, "maxLength": 2047, "pattern": SEGMENT,
                "examples": ["feature-x"] }),
    );
    add(
        "lock_id",
        "lock_id",
        In::Path,
        "The id of a lock.",
        json!({ "type": "string", "format": "uuid", "examples": [LOCK_ID] }),
    );
    add(
        "name",
        "name",
        In::Path,
        "The name of a problem.",
        json!({ "type": "string", "pattern": "^[a-z]+(-[a-z]+)*$", "examples": ["locked"] }),
    );
    add(
        "X-Request-Id",
        "X-Request-Id",
        In::Header,
        "An id for the request, to be found again in the answer, the log and the trail. One that \
         cannot be used is replaced.",
        json!({ "type": "string", "pattern": REQUEST_ID }),
    );
    add(
        "X-Lock-Token",
        "X-Lock-Token",
        In::Header,
        "The tokens of locks that the caller holds: the field repeated, or separated by commas. \
         Empty members are ignored; the same token twice counts once.",
        json!({ "type": "array", "maxItems": 256,
                "items": { "type": "string", "pattern": TOKEN } }),
    );
    add(
        "Lock-Token",
        "Lock-Token",
        In::Header,
        "One token in its URI form (RFC 4918, section 10.5).",
        json!({ "type": "string", "pattern": LOCK_TOKEN_FIELD }),
    );
    add(
        "If",
        "If",
        In::Header,
        "Conditions on tokens and entity tags (RFC 4918, section 10.4). Its tokens count as \
         presented. (The schema describes lists without a resource tag.)",
        json!({ "type": "string", "pattern": IF_LISTS }),
    );
    add(
        "Prefer",
        "Prefer",
        In::Header,
        "`wait=SECONDS`: how long to wait for the lock (RFC 7240, section 4.3). Above the rule's \
         maximum, 30 s unless configured, it is cut to it. Other preferences are ignored.",
        json!({ "type": "string", "pattern": "^wait=[0-9]{1,3}$", "examples": ["wait=10"] }),
    );
    add(
        "wait",
        "wait",
        In::Query,
        "How long to wait for the lock, in seconds; 0 is not to wait. Above the rule's maximum, \
         30 s unless configured, it is refused.",
        json!({ "type": "integer", "minimum": 0, "maximum": 30 }),
    );
    add(
        "Idempotency-Key",
        "Idempotency-Key",
        In::Header,
        "Makes a repetition of the same acquire safe: it gets the same lock. 1 to 255 visible \
         ASCII characters, in quotes or bare.",
        json!({ "type": "string", "pattern": r#"^([!#-~][!-~]{0,254}|"[!#-~]{1,255}")$"#,
                "examples": ["8e03978e-40d5-43dd-bc93-6894a57f9324"] }),
    );
    add(
        "If-Match",
        "If-Match",
        In::Header,
        "Only if the document is one of these versions; `*`: only if there is one.",
        json!({ "type": "string", "pattern": ENTITY_TAGS }),
    );
    add(
        "If-None-Match",
        "If-None-Match",
        In::Header,
        "Only if the document is none of these versions; `*`: only if there is none.",
        json!({ "type": "string", "pattern": ENTITY_TAGS }),
    );
    add(
        "If-Modified-Since",
        "If-Modified-Since",
        In::Header,
        "Only if the document was written after this; ignored beside `If-None-Match`.",
        json!({ "type": "string", "pattern": HTTP_DATE }),
    );
    add(
        "If-Unmodified-Since",
        "If-Unmodified-Since",
        In::Header,
        "Only if the document was not written after this; ignored beside `If-Match`.",
        json!({ "type": "string", "pattern": HTTP_DATE }),
    );
    add(
        "recursive",
        "recursive",
        In::Query,
        "`true`: everything below goes with it.",
        json!({ "type": "boolean", "default": false }),
    );
    add(
        "list",
        "list",
        In::Query,
        "`true`: the children, even where there is a document.",
        json!({ "type": "boolean", "default": false }),
    );
    add(
        "dry_run",
        "dry_run",
        In::Query,
        "`true`: nothing is changed; the answer tells what would end.",
        json!({ "type": "boolean", "default": false }),
    );
    add(
        "limit",
        "limit",
        In::Query,
        "The most items of a page.",
        json!({ "type": "integer", "minimum": 1, "maximum": 1000, "default": 100 }),
    );
    add(
        "cursor",
        "cursor",
        In::Query,
        "The `next` of the page before; good for the same list only.",
        json!({ "type": "string" }),
    );
    add(
        "filter-resource",
        "resource",
        In::Query,
        "Only what is about this resource or one below it.",
        json!({ "type": "string", "maxLength": 2048, "pattern": RESOURCE }),
    );
    add(
        "filter-holder",
        "holder",
        In::Query,
        "Only the locks of this holder.",
        json!({ "type": "string", "minLength": 1, "maxLength": 255 }),
    );
    add("filter-kind", "kind", In::Query, "Only this kind.", json!({ "enum": ["lock"] }));
    add(
        "filter-dialect",
        "dialect",
        In::Query,
        "Only locks taken through this protocol.",
        json!({ "enum": ["http"] }),
    );
    add(
        "filter-expires-before",
        "expires_before",
        In::Query,
        "Only locks whose `expires_at` is before this time.",
        json!({ "type": "string", "format": "date-time" }),
    );
    add(
        "filter-actor",
        "actor",
        In::Query,
        "Only what this principal did.",
        json!({ "type": "string", "minLength": 1, "maxLength": 255 }),
    );
    add("filter-type", "type", In::Query, "Only events of this type.", event_type());
    add(
        "filter-lock-id",
        "lock_id",
        In::Query,
        "Only events about this lock.",
        json!({ "type": "string", "format": "uuid" }),
    );
    add(
        "filter-since",
        "since",
        In::Query,
        "Only events from then on: RFC 3339, or so many seconds ago.",
        json!({ "type": "string", "pattern": MOMENT, "examples": ["3600", TIME] }),
    );
    add(
        "filter-until",
        "until",
        In::Query,
        "Only events before then: RFC 3339, or so many seconds ago.",
        json!({ "type": "string", "pattern": MOMENT, "examples": ["60", TIME] }),
    );
    add(
        "order",
        "order",
        In::Query,
        "`desc`: the newest first.",
        json!({ "enum": ["asc", "desc"], "default": "asc" }),
    );
    add(
        "Last-Event-ID",
        "Last-Event-ID",
        In::Header,
        "Go on after the event with this `seq`.",
        json!({ "type": "string", "pattern": "^[0-9]{1,16}$" }),
    );
    for (name, description) in [
        ("X-Forwarded-Method", "The method of the request that is asked about."),
        ("X-Original-Method", "The same, as other proxies send it."),
    ] {
        add(
            name,
            name,
            In::Header,
            description,
            json!({ "type": "string", "pattern": "^[A-Z]{1,32}$", "examples": ["PUT"] }),
        );
    }
    for (name, description) in [
        ("X-Forwarded-Uri", "The path and query of the request that is asked about."),
        ("X-Original-URI", "The same, as other proxies send it."),
    ] {
        add(
            name,
            name,
            In::Header,
            description,
            json!({ "type": "string", "pattern": "^/", "examples": ["/v1/flags/feature-x"] }),
        );
    }
    add(
        "deny",
        "deny",
        In::Query,
        "`403`: every refusal has this status, for proxies that know no other.",
        json!({ "const": 403 }),
    );
    add(
        "own",
        "own",
        In::Query,
        "`deny`: what is about a lock, or the server's own, does not pass.",
        json!({ "const": "deny" }),
    );
    parameters
}

/// The types of events.
pub(super) fn event_type() -> Value {
    json!({
        "enum": [
            "acquired", "renewed", "released", "expired", "broken", "transferred", "requested",
            "frozen", "unfrozen", "write_admitted", "write_completed", "write_checked", "refused",
            "recovered", "trimmed",
        ],
    })
}
