//! The OpenAPI 3.1 document of the HTTP API, served at `/-/openapi.json`.
//!
//! What is said here of a request or an answer is meant to be precise enough to generate tests
//! from. Refusals are not written here: each operation lists the names that it can be refused
//! with, and the catalogue of problems says the rest.
//!
//! A resource is a path of any length, which OpenAPI cannot express: `{resource}` stands for one.

mod parts;
mod paths;
mod schemas;

use leasehold_problems::{Name, PROBLEM_JSON, page, schema};
use serde_json::{Map, Value, json};

/// The document, for a server whose own space is at `prefix` (with both slashes) and whose lock
/// endpoints are at `lock_suffix` (with its slash).
#[must_use]
pub fn document(prefix: &str, lock_suffix: &str) -> Value {
    let mut writer = Writer { prefix, suffix: lock_suffix, responses: Map::new() };
    let paths = paths::paths(&mut writer);
    let mut responses = parts::responses();
    responses.append(&mut writer.responses);
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Leasehold",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "A lock server for HTTP resources",
            "description": INTRODUCTION,
            "license": { "name": "Apache-2.0 OR MIT", "identifier": "Apache-2.0 OR MIT" },
        },
        "servers": [{ "url": "/", "description": "This server" }],
        "security": [{}, { "bearer": [] }, { "basic": [] }, { "certificate": [] }],
        "tags": parts::tags(),
        "paths": paths,
        "components": {
            "schemas": schemas::schemas(prefix),
            "parameters": parts::parameters(),
            "headers": parts::headers(),
            "responses": responses,
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "An API key where the server runs with `--identity keys`, the token \
                                    of an identity provider with `--identity jwt`, what the API behind a \
                                    gateway wants with `--identity digest`.",
                },
                "basic": {
                    "type": "http",
                    "scheme": "basic",
                    "description": "An API key as the password; the user name is not looked at.",
                },
                "certificate": {
                    "type": "mutualTLS",
                    "description": "The certificate of the TLS client, where the server runs with \
                                    `--identity certificate`.",
                },
            },
        },
    })
}

const INTRODUCTION: &str = "\
Leasehold gives any HTTP resource a lock that outlives a request: acquire it, get a token, read, \
decide, write with the token, release. Everyone else's writes are refused with 423 until then, or \
until the lock's deadline; reads always pass.

`{resource}` in a path stands for a whole path: `/v1/flags/feature-x/lock` is the lock of \
`/v1/flags/feature-x`. Write its slashes as slashes: an encoded slash (`%2F`) is refused. OpenAPI \
has no word for such a parameter, so its schema describes a path of one segment.

Every refusal is a problem document (RFC 9457), but for those that the HTTP layer gives before a \
request has been read whole (431).";

/// Which problems a request can be refused with, wherever it goes.
const EVERYWHERE: &[Name] = &[Name::MalformedRequest, Name::MethodNotAllowed, Name::UriTooLong];

/// Which problems any request that has to be let in can be refused with.
const LET_IN: &[Name] = &[
    Name::Unauthenticated,
    Name::Forbidden,
    Name::RateLimited,
    Name::Unavailable,
    Name::StorageFailure,
];

/// Writes operations, and keeps the answers that they share.
struct Writer<'a> {
    prefix: &'a str,
    suffix: &'a str,
    responses: Map<String, Value>,
}

/// One operation, before its refusals are written out.
struct Operation {
    id: &'static str,
    tag: &'static str,
    summary: &'static str,
    description: String,
    parameters: Vec<&'static str>,
    body: Option<Value>,
    answers: Vec<(u16, Value)>,
    problems: Vec<Name>,
    /// Whether a rule may answer `locked` with 409 (`locked_status`).
    conflicts: bool,
    /// Whether its answers have no body (HEAD).
    head: bool,
    /// Whether everyone may, without credentials.
    open: bool,
}

impl Operation {
    fn new(id: &'static str, tag: &'static str, summary: &'static str) -> Self {
        Self {
            id,
            tag,
            summary,
            description: String::new(),
            parameters: Vec::new(),
            body: None,
            answers: Vec::new(),
            problems: EVERYWHERE.iter().chain(LET_IN).copied().collect(),
            conflicts: false,
            head: false,
            open: false,
        }
    }

    fn says(mut self, description: impl Into<String>) -> Self {
        self.description = description.into();
        self
    }

    fn takes(mut self, parameters: &[&'static str]) -> Self {
        self.parameters.extend_from_slice(parameters);
        self
    }

    fn body(mut self, body: Value) -> Self {
        self.body = Some(body);
        self
    }

    fn answers(mut self, status: u16, response: Value) -> Self {
        self.answers.push((status, response));
        self
    }

    fn refuses(mut self, problems: &[Name]) -> Self {
        self.problems.extend_from_slice(problems);
        self
    }

    /// It is an acquire: a rule may answer `locked` with 409.
    fn conflicts(mut self) -> Self {
        self.conflicts = true;
        self
    }

    /// It is HEAD: the same as GET, without bodies.
    fn without_bodies(mut self) -> Self {
        self.head = true;
        self
    }

    /// No credentials are asked for, and nothing is looked up that could fail.
    fn open(mut self) -> Self {
        self.open = true;
        self.problems.retain(|name| !LET_IN.contains(name));
        self
    }
}

impl Writer<'_> {
    fn write(&mut self, operation: Operation) -> Value {
        let mut responses = Map::new();
        for (status, mut response) in operation.answers {
            if operation.head {
                strip(&mut response);
            }
            responses.insert(status.to_string(), response);
        }
        let mut statuses: Vec<u16> =
            operation.problems.iter().map(|name| name.entry().status.as_u16()).collect();
        statuses.sort_unstable();
        statuses.dedup();
        for status in statuses {
            let mut names: Vec<Name> =
                Name::by_status(status).filter(|name| operation.problems.contains(name)).collect();
            if operation.conflicts && status == 409 {
                names.push(Name::Locked);
            }
            let response = if operation.head {
                let mut response = self.problem(status, &names);
                strip(&mut response);
                response
            } else {
                self.shared_problem(status, &names)
            };
            let key = status.to_string();
            match responses.get_mut(&key) {
                // An answer that is no problem has this status already: readiness.
                Some(_) => {}
                None => {
                    responses.insert(key, response);
                }
            }
        }
        responses
            .insert("431".into(), json!({ "$ref": "#/components/responses/HeaderFieldsTooLarge" }));
        responses.sort_keys();
        let parameters: Vec<Value> = operation
            .parameters
            .iter()
            .map(|name| json!({ "$ref": format!("#/components/parameters/{name}") }))
            .collect();
        let mut written = json!({
            "operationId": operation.id,
            "tags": [operation.tag],
            "summary": operation.summary,
            "description": operation.description,
            "parameters": parameters,
            "responses": responses,
        });
        if let Some(body) = operation.body {
            written["requestBody"] = body;
        }
        if operation.open {
            written["security"] = json!([]);
        }
        written
    }

    /// The answer that refuses with one of `names`, which have one status; kept once.
    fn shared_problem(&mut self, status: u16, names: &[Name]) -> Value {
        let key = names.iter().map(|name| schemas::camel(*name)).collect::<Vec<_>>().join("Or");
        if !self.responses.contains_key(&key) {
            let response = self.problem(status, names);
            self.responses.insert(key.clone(), response);
        }
        json!({ "$ref": format!("#/components/responses/{key}") })
    }

    fn problem(&self, status: u16, names: &[Name]) -> Value {
        let mut headers = Map::new();
        headers.insert("Cache-Control".into(), parts::header("No-Store"));
        headers.insert("X-Request-Id".into(), parts::header("X-Request-Id"));
        let mut examples = Map::new();
        let mut mapping = Map::new();
        let mut descriptions = Vec::new();
        for name in names {
            let entry = name.entry();
            descriptions.push(format!("`{name}`: {}", entry.meaning));
            for field in entry.headers {
                headers.insert(field.name.to_owned(), parts::problem_header(field));
            }
            let mut example = page::example(entry, self.prefix);
            example["status"] = status.into();
            examples.insert(entry.name.to_owned(), json!({ "value": example }));
            let reference = schemas::problem_reference(*name);
            mapping.insert(format!("{}problems/{name}", self.prefix), reference.into());
        }
        let schema = match names {
            [name] => json!({ "$ref": schemas::problem_reference(*name) }),
            _ => json!({
                "oneOf": names
                    .iter()
                    .map(|name| json!({ "$ref": schemas::problem_reference(*name) }))
                    .collect::<Vec<_>>(),
                "discriminator": { "propertyName": "type", "mapping": mapping },
            }),
        };
        let content = json!({ PROBLEM_JSON: { "schema": schema, "examples": examples } });
        json!({
            "description": descriptions.join("\n\n"),
            "headers": headers,
            "content": content,
        })
    }
}

/// Takes the body out of an answer.
fn strip(response: &mut Value) {
    if let Some(response) = response.as_object_mut() {
        response.remove("content");
    }
}

/// The schemas of all problems.
fn problem_schemas(prefix: &str) -> Map<String, Value> {
    let mut schemas = Map::new();
    schemas.insert("Problem".into(), schema::base());
    for name in Name::ALL {
        // `locked_status = 409` answers acquires that are refused as `locked`.
        let statuses: &[u16] = if *name == Name::Locked { &[409] } else { &[] };
        let one = schema::of(name.entry(), prefix, "#/components/schemas/Problem", statuses);
        schemas.insert(schemas::problem_key(*name), one);
    }
    schemas
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn operations(document: &Value) -> Vec<(String, &Value)> {
        let mut operations = Vec::new();
        for (path, item) in document["paths"].as_object().expect("is an object") {
            for (method, operation) in item.as_object().expect("is an object") {
                if method != "parameters" {
                    operations.push((format!("{method} {path}"), operation));
                }
            }
        }
        operations
    }

    fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
        match value {
            Value::Object(members) => {
                for (key, member) in members {
                    match member.as_str() {
                        Some(reference) if key == "$ref" => found.push(reference),
                        _ => references(member, found),
                    }
                }
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }

    #[test]
    fn every_reference_leads_somewhere_and_every_part_is_used() {
        let document = document("/-/", "/lock");
        let mut found = Vec::new();
        references(&document, &mut found);
        for reference in &found {
            let pointer = reference.strip_prefix('#').expect("is within the document");
            assert!(document.pointer(pointer).is_some(), "{reference}");
        }
        let used: HashSet<&str> = found.into_iter().collect();
        for kind in ["parameters", "headers", "responses", "schemas"] {
            for name in document["components"][kind].as_object().expect("is an object").keys() {
                let reference = format!("#/components/{kind}/{name}");
                assert!(used.contains(&*reference), "{reference} is not used");
            }
        }
    }

    #[test]
    fn every_operation_is_described() {
        let document = document("/-/", "/lock");
        let mut ids = HashSet::new();
        for (operation, value) in operations(&document) {
            for member in ["summary", "description", "operationId"] {
                assert!(value[member].as_str().is_some_and(|text| text.len() > 3), "{operation}");
            }
            assert!(ids.insert(value["operationId"].as_str()), "{operation}");
            let responses = value["responses"].as_object().expect("is an object");
            assert!(responses.keys().any(|status| status.starts_with('2')), "{operation}");
            for status in ["400", "405", "414", "431"] {
                assert!(responses.contains_key(status), "{operation} has no {status}");
            }
        }
    }

    #[test]
    fn every_problem_of_the_catalogue_can_be_met() {
        let text = document("/-/", "/lock").to_string();
        for name in Name::ALL {
            assert!(text.contains(&schemas::problem_reference(*name)), "{name}");
        }
    }

    #[test]
    fn paths_are_where_the_configuration_puts_them() {
        let document = document("/own/", "/reservation");
        for path in document["paths"].as_object().expect("is an object").keys() {
            assert!(path.starts_with("/own/") || path.starts_with("/{resource}"), "{path}");
            assert!(!path.contains("/lock/"), "{path}");
        }
        assert!(document["paths"]["/{resource}/reservation/break"].is_object());
        assert!(document["paths"]["/own/locks/{lock_id}"].is_object());
        let text = document.to_string();
        assert!(text.contains("/own/problems/locked") && !text.contains("\"/-/problems/"));
    }

    #[test]
    fn path_parameters_are_declared_and_no_others() {
        let document = document("/-/", "/lock");
        for (path, item) in document["paths"].as_object().expect("is an object") {
            let declared: Vec<&str> = item["parameters"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|parameter| parameter["$ref"].as_str()?.rsplit('/').next())
                .collect();
            let in_path: Vec<&str> =
                path.split('{').skip(1).filter_map(|part| part.split('}').next()).collect();
            assert_eq!(declared, in_path, "{path}");
        }
    }
}
