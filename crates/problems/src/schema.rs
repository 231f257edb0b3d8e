//! Problem documents as JSON Schema (draft 2020-12), for the OpenAPI document.

use serde_json::{Map, Value, json};

use crate::catalogue::{Entry, Member, Retryable, Type};
use crate::page;

/// The schema of what every problem document has.
///
/// It allows further members: each name has its own, and RFC 9457, section 3.2 asks clients to
/// ignore those that they do not know.
#[must_use]
pub fn base() -> Value {
    let words: Vec<_> = Retryable::ALL.iter().map(|word| word.as_str()).collect();
    json!({
        "type": "object",
        "description": "A problem document (RFC 9457). Decide by `type`.",
        "required": ["type", "title", "status", "detail", "instance", "request_id", "retryable"],
        "properties": {
            "type": {
                "type": "string",
                "format": "uri-reference",
                "description": "Which problem it is, and where its page is served.",
            },
            "title": { "type": "string", "description": "A short title, the same every time." },
            "status": {
                "type": "integer",
                "minimum": 400,
                "maximum": 599,
                "description": "The HTTP status of the answer.",
            },
            "detail": { "type": "string", "description": "A sentence about this very refusal." },
            "instance": {
                "type": "string",
                "description": "The path that was asked for.",
            },
            "request_id": { "type": "string", "description": "The id of the request." },
            "retryable": {
                "type": "string",
                "enum": words,
                "description": "`no`: the same request will be refused again; `same`: the same \
                                request, unchanged, may work later; `after-change`: read again, \
                                then send a changed request.",
            },
            "index": {
                "type": "integer",
                "minimum": 0,
                "description": "In the answer to a batch: which operation was refused, from 0.",
            },
        },
    })
}

/// The schema of the problem documents of one name, with `base` as a reference to the schema of
/// [`base`] and `statuses` as the statuses it can have beside the catalogue's.
#[must_use]
pub fn of(entry: &Entry, prefix: &str, base: &str, statuses: &[u16]) -> Value {
    let mut properties = Map::new();
    properties
        .insert("type".into(), json!({ "const": format!("{prefix}problems/{}", entry.name) }));
    properties.insert("title".into(), json!({ "const": entry.title }));
    let mut codes = vec![entry.status.as_u16()];
    codes.extend_from_slice(statuses);
    properties.insert("status".into(), json!({ "enum": codes }));
    for member in entry.members {
        properties.insert(member.name.to_owned(), member_schema(member));
    }
    let required: Vec<_> =
        entry.members.iter().filter(|member| member.always).map(|member| member.name).collect();
    let mut own = json!({ "type": "object", "properties": properties });
    if !required.is_empty() {
        own["required"] = json!(required);
    }
    json!({
        "description": entry.meaning,
        "allOf": [{ "$ref": base }, own],
        "examples": [page::example(entry, prefix)],
    })
}

fn member_schema(member: &Member) -> Value {
    let mut schema = match member.kind {
        Type::Text => json!({ "type": "string" }),
        Type::TextOrNull => json!({ "type": ["string", "null"] }),
        Type::Integer => json!({ "type": "integer", "minimum": 0 }),
        Type::Number => json!({ "type": "number", "minimum": 0 }),
        Type::Boolean => json!({ "type": "boolean" }),
        Type::Time => json!({ "type": "string", "format": "date-time" }),
        Type::Object => json!({ "type": "object" }),
        Type::ObjectOrNull => json!({ "type": ["object", "null"] }),
        Type::Texts => json!({ "type": "array", "items": { "type": "string" } }),
        Type::Objects => json!({ "type": "array", "items": { "type": "object" } }),
    };
    schema["description"] = member.meaning.into();
    schema
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::Name;

    #[test]
    fn a_schema_says_what_its_example_shows() {
        for name in Name::ALL {
            let entry = name.entry();
            let schema = of(entry, "/-/", "#/components/schemas/Problem", &[]);
            let properties = &schema["allOf"][1]["properties"];
            let example = &schema["examples"][0];
            assert_eq!(properties["type"]["const"], example["type"], "{name}");
            assert_eq!(properties["status"]["enum"][0], example["status"], "{name}");
            for member in entry.members {
                let value = &example[member.name];
                let fits = match member.kind {
                    Type::Text | Type::TextOrNull | Type::Time => value.is_string(),
                    Type::Integer => value.is_u64(),
                    Type::Number => value.is_number(),
                    Type::Boolean => value.is_boolean(),
                    Type::Object | Type::ObjectOrNull => value.is_object(),
                    Type::Texts | Type::Objects => value.is_array(),
                };
                assert!(fits, "{name}: {}", member.name);
            }
        }
    }

    #[test]
    fn every_problem_document_has_what_the_base_requires() {
        let required = base();
        for name in Name::ALL {
            let example = page::example(name.entry(), "/-/");
            for member in required["required"].as_array().expect("is an array") {
                assert!(example.get(member.as_str().expect("is a string")).is_some(), "{name}");
            }
        }
    }
}
