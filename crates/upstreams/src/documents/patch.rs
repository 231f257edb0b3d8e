//! Patches: JSON Merge Patch (RFC 7396) and JSON Patch (RFC 6902), applied to a value.
//!
//! Operations are read by the `json-patch` crate and applied here, for three reasons: the order
//! of members stays, numbers are equal when their values are (RFC 6902, section 4.6), and what a
//! patch may cost is bounded. `copy` doubles a document with each operation, and each removal
//! from a long array moves what follows it; a patch that asks for too much is refused with 413.
//!
//! A patch that fails leaves the value half changed: whoever applies one throws it away then.

use json_patch::PatchOperation;
use json_patch::jsonptr::Pointer;
use json_patch::jsonptr::index::Index;
use leasehold_problems::Problem;
use serde_json::{Map, Value};

use super::answer;
use super::media::{self, MAX_DEPTH, MediaType};

/// How many members and elements one patch may move about.
const MAX_MOVED: usize = 1 << 26;

/// A patch that was read.
#[derive(Clone, Debug)]
pub(super) enum Patch {
    Merge(Value),
    Operations(Vec<PatchOperation>),
}

/// The two kinds of patches.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    Merge,
    Operations,
}

impl Kind {
    /// The kind that a media type says. None at all is refused: a JSON Patch that is taken for a
    /// merge patch would replace the document.
    pub(super) fn of(media_type: Option<&MediaType>) -> Result<Self, Box<Problem>> {
        match media_type.map(MediaType::essence).as_deref() {
            Some("application/merge-patch+json" | "application/json") => Ok(Self::Merge),
            Some("application/json-patch+json") => Ok(Self::Operations),
            Some(other) => Err(answer::unsupported_patch(format!("{other} is no kind of patch."))),
            None => Err(answer::unsupported_patch("A patch needs a Content-Type.")),
        }
    }
}

/// Why a patch does not change a value.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum PatchError {
    /// An operation does not apply.
    Conflict { operation: usize, pointer: String, reason: &'static str },
    /// It would make too much of the document.
    TooLarge,
}

impl Patch {
    /// Reads a patch of this kind.
    pub(super) fn parse(kind: Kind, body: &[u8]) -> Result<Self, Box<Problem>> {
        let text = media::json_text(body)?;
        let value: Value = serde_json::from_str(text).map_err(|error| media::not_json(&error))?;
        let operations = match (kind, value) {
            (Kind::Merge, value) => return Ok(Self::Merge(value)),
            (Kind::Operations, Value::Array(operations)) => operations,
            (Kind::Operations, _) => {
                return Err(answer::malformed("body", "A JSON Patch is an array of operations."));
            }
        };
        let read = operations.into_iter().enumerate().map(|(index, operation)| {
            serde_json::from_value(operation).map_err(|error| {
                answer::malformed(
                    &format!("/{index}"),
                    format!("Operation {index} of the patch is malformed: {error}."),
                )
            })
        });
        read.collect::<Result<_, _>>().map(Self::Operations)
    }

    /// Applies it. At most `limit` bytes are copied within the document.
    pub(super) fn apply(&self, document: &mut Value, limit: usize) -> Result<(), PatchError> {
        match self {
            Self::Merge(patch) => {
                merge(document, patch);
                Ok(())
            }
            Self::Operations(operations) => {
                let mut budget = Budget { copied: limit, moved: MAX_MOVED };
                for (index, operation) in operations.iter().enumerate() {
                    apply(document, operation, &mut budget).map_err(|fault| fault.of(index))?;
                }
                Ok(())
            }
        }
    }
}

/// RFC 7396, section 2. Recursion is bounded by the depth that both were read with.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(target) = target else { return };
    // In one pass: each removal by itself would move all members that follow.
    if patch.values().any(Value::is_null) {
        target.retain(|name, _| !patch.get(name).is_some_and(Value::is_null));
    }
    for (name, value) in patch.iter().filter(|(_, value)| !value.is_null()) {
        merge(target.entry(name.as_str()).or_insert(Value::Null), value);
    }
}

struct Budget {
    copied: usize,
    moved: usize,
}

impl Budget {
    fn copy(&mut self, value: &Value) -> Result<(), Fault> {
        self.copied = self.copied.checked_sub(weight(value)).ok_or(Fault::TooLarge)?;
        Ok(())
    }

    fn shift(&mut self, elements: usize) -> Result<(), Fault> {
        self.moved = self.moved.checked_sub(elements).ok_or(Fault::TooLarge)?;
        Ok(())
    }
}

/// About the length of a value as JSON, never less than half of it.
fn weight(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 8,
        Value::String(text) => text.len() + 8,
        Value::Array(elements) => 8 + elements.iter().map(weight).sum::<usize>(),
        Value::Object(members) => {
            8 + members.iter().map(|(name, value)| name.len() + 8 + weight(value)).sum::<usize>()
        }
    }
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(elements) => 1 + elements.iter().map(depth).max().unwrap_or(0),
        Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

enum Fault {
    At(String, &'static str),
    TooLarge,
}

impl Fault {
    fn at(pointer: &Pointer, reason: &'static str) -> Self {
        Self::At(pointer.as_str().to_owned(), reason)
    }

    fn of(self, operation: usize) -> PatchError {
        match self {
            Self::At(pointer, reason) => PatchError::Conflict { operation, pointer, reason },
            Self::TooLarge => PatchError::TooLarge,
        }
    }
}

fn apply(
    document: &mut Value,
    operation: &PatchOperation,
    budget: &mut Budget,
) -> Result<(), Fault> {
    match operation {
        PatchOperation::Add(add) => insert(document, &add.path, add.value.clone(), budget),
        PatchOperation::Remove(gone) => remove(document, &gone.path, budget).map(drop),
        PatchOperation::Replace(new) => {
            check_depth(&new.path, &new.value)?;
            let place = document
                .pointer_mut(new.path.as_str())
                .ok_or_else(|| Fault::at(&new.path, "there is no such value"))?;
            *place = new.value.clone();
            Ok(())
        }
        PatchOperation::Move(moved) => {
            if moved.from == moved.path {
                return find(document, &moved.from).map(drop);
            }
            // RFC 6902, section 4.4.
            let below = moved.path.as_str().strip_prefix(moved.from.as_str());
            if below.is_some_and(|rest| rest.starts_with('/')) {
                return Err(Fault::at(&moved.path, "a value cannot be moved into itself"));
            }
            let value = remove(document, &moved.from, budget)?;
            insert(document, &moved.path, value, budget)
        }
        PatchOperation::Copy(copied) => {
            let value = find(document, &copied.from)?;
            budget.copy(value)?;
            let value = value.clone();
            insert(document, &copied.path, value, budget)
        }
        PatchOperation::Test(test) => {
            if equal(find(document, &test.path)?, &test.value) {
                Ok(())
            } else {
                Err(Fault::at(&test.path, "the value is another"))
            }
        }
    }
}

fn find<'a>(document: &'a Value, pointer: &Pointer) -> Result<&'a Value, Fault> {
    document.pointer(pointer.as_str()).ok_or_else(|| Fault::at(pointer, "there is no such value"))
}

/// Nothing is put together that could not be read back.
fn check_depth(path: &Pointer, value: &Value) -> Result<(), Fault> {
    if path.count() + depth(value) > MAX_DEPTH {
        return Err(Fault::at(path, "the document would nest too deep"));
    }
    Ok(())
}

fn insert(
    document: &mut Value,
    path: &Pointer,
    value: Value,
    budget: &mut Budget,
) -> Result<(), Fault> {
    check_depth(path, &value)?;
    let Some((parent, last)) = path.split_back() else {
        *document = value;
        return Ok(());
    };
    match document.pointer_mut(parent.as_str()) {
        Some(Value::Object(members)) => {
            members.insert(last.decoded().into_owned(), value);
            Ok(())
        }
        Some(Value::Array(elements)) => {
            let index =
                last.to_index().ok().and_then(|index| index.for_len_incl(elements.len()).ok());
            let index =
                index.ok_or_else(|| Fault::at(path, "there is no such place in the array"))?;
            budget.shift(elements.len() - index)?;
            elements.insert(index, value);
            Ok(())
        }
        _ => Err(Fault::at(path, "there is no object or array to add to")),
    }
}

fn remove(document: &mut Value, path: &Pointer, budget: &mut Budget) -> Result<Value, Fault> {
    let Some((parent, last)) = path.split_back() else {
        return Err(Fault::at(path, "the whole document cannot be taken away"));
    };
    let missing = || Fault::at(path, "there is no such value");
    match document.pointer_mut(parent.as_str()) {
        Some(Value::Object(members)) => {
            budget.shift(members.len())?;
            members.shift_remove(last.decoded().as_ref()).ok_or_else(missing)
        }
        Some(Value::Array(elements)) => match last.to_index() {
            Ok(Index::Num(index)) if index < elements.len() => {
                budget.shift(elements.len() - index)?;
                Ok(elements.remove(index))
            }
            _ => Err(missing()),
        },
        _ => Err(missing()),
    }
}

/// RFC 6902, section 4.6.
fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => {
            x == y || (x.is_f64() || y.is_f64()) && x.as_f64() == y.as_f64()
        }
        (Value::Array(x), Value::Array(y)) => {
            x.len() == y.len() && x.iter().zip(y).all(|(x, y)| equal(x, y))
        }
        (Value::Object(x), Value::Object(y)) => {
            x.len() == y.len() && x.iter().all(|(name, x)| y.get(name).is_some_and(|y| equal(x, y)))
        }
        _ => a == b,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MERGE: Kind = Kind::Merge;
    const JSON_PATCH: Kind = Kind::Operations;

    fn patched(kind: Kind, document: &str, patch: &str) -> Result<String, PatchError> {
        let patch = Patch::parse(kind, patch.as_bytes()).unwrap();
        let mut value = serde_json::from_str(document).unwrap();
        patch.apply(&mut value, 1 << 20).map(|()| value.to_string())
    }

    #[test]
    fn merge_patch_gives_what_the_rfc_lists() {
        // RFC 7396, appendix A; and the order of members.
        for (document, patch, result) in [
            (r#"{"a":"b"}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
            (r#"{"a":"b"}"#, r#"{"b":"c"}"#, r#"{"a":"b","b":"c"}"#),
            (r#"{"a":"b"}"#, r#"{"a":null}"#, r#"{}"#),
            (r#"{"a":"b","b":"c"}"#, r#"{"a":null}"#, r#"{"b":"c"}"#),
            (r#"{"a":["b"]}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
            (r#"{"a":"c"}"#, r#"{"a":["b"]}"#, r#"{"a":["b"]}"#),
            (r#"{"a":{"b":"c"}}"#, r#"{"a":{"b":"d","c":null}}"#, r#"{"a":{"b":"d"}}"#),
            (r#"{"a":[{"b":"c"}]}"#, r#"{"a":[1]}"#, r#"{"a":[1]}"#),
            (r#"["a","b"]"#, r#"["c","d"]"#, r#"["c","d"]"#),
            (r#"{"a":"b"}"#, r#"["c"]"#, r#"["c"]"#),
            (r#"{"a":"foo"}"#, "null", "null"),
            (r#"{"a":"foo"}"#, r#""bar""#, r#""bar""#),
            (r#"{"e":null}"#, r#"{"a":1}"#, r#"{"e":null,"a":1}"#),
            ("[1,2]", r#"{"a":"b","c":null}"#, r#"{"a":"b"}"#),
            ("{}", r#"{"a":{"bb":{"ccc":null}}}"#, r#"{"a":{"bb":{}}}"#),
            (r#"{"z":1,"y":2,"x":3,"w":4}"#, r#"{"z":null,"x":5}"#, r#"{"y":2,"x":5,"w":4}"#),
        ] {
            assert_eq!(
                patched(MERGE, document, patch).as_deref(),
                Ok(result),
                "{document} {patch}"
            );
        }
    }

    #[test]
    fn json_patch_gives_what_the_rfc_lists() {
        for (document, patch, result) in [
            (
                r#"{"foo":"bar"}"#,
                r#"[{"op":"add","path":"/baz","value":"qux"}]"#,
                r#"{"foo":"bar","baz":"qux"}"#,
            ),
            (
                r#"{"foo":["bar","baz"]}"#,
                r#"[{"op":"add","path":"/foo/1","value":"qux"}]"#,
                r#"{"foo":["bar","qux","baz"]}"#,
            ),
            (r#"{"a":1,"b":2,"c":3}"#, r#"[{"op":"remove","path":"/a"}]"#, r#"{"b":2,"c":3}"#),
            (r#"[1,2,3]"#, r#"[{"op":"remove","path":"/1"}]"#, "[1,3]"),
            (
                r#"{"a":1,"b":2}"#,
                r#"[{"op":"replace","path":"/a","value":[3]}]"#,
                r#"{"a":[3],"b":2}"#,
            ),
            (
                r#"{"a":{"b":1},"c":{}}"#,
                r#"[{"op":"move","from":"/a/b","path":"/c/d"}]"#,
                r#"{"a":{},"c":{"d":1}}"#,
            ),
            (r#"[1,2,3]"#, r#"[{"op":"move","from":"/0","path":"/2"}]"#, "[2,3,1]"),
            (r#"{"a":1,"b":2}"#, r#"[{"op":"move","from":"/a","path":"/a"}]"#, r#"{"a":1,"b":2}"#),
            (r#"{"a":[1]}"#, r#"[{"op":"copy","from":"/a","path":"/a/-"}]"#, r#"{"a":[1,[1]]}"#),
            (
                r#"{"a~b":1,"c/d":2}"#,
                r#"[{"op":"test","path":"/a~0b","value":1.0},{"op":"test","path":"/c~1d","value":2}]"#,
                r#"{"a~b":1,"c/d":2}"#,
            ),
            (
                r#"{"a":{"x":1,"y":[2]}}"#,
                r#"[{"op":"test","path":"/a","value":{"y":[2],"x":1}}]"#,
                r#"{"a":{"x":1,"y":[2]}}"#,
            ),
            (r#"{"":1}"#, r#"[{"op":"replace","path":"/","value":2}]"#, r#"{"":2}"#),
            (r#"{"a":1}"#, r#"[{"op":"replace","path":"","value":2}]"#, "2"),
            (
                r#"{"a":1}"#,
                r#"[{"op":"add","path":"","value":[]},{"op":"add","path":"/-","value":1}]"#,
                "[1]",
            ),
            (
                r#"{"a":1}"#,
                r#"[{"op":"add","path":"/b","value":1,"unknown":true}]"#,
                r#"{"a":1,"b":1}"#,
            ),
            (r#"{"a":1}"#, "[]", r#"{"a":1}"#),
        ] {
            assert_eq!(
                patched(JSON_PATCH, document, patch).as_deref(),
                Ok(result),
                "{document} {patch}"
            );
        }
    }

    #[test]
    fn an_operation_that_does_not_apply_is_named() {
        for (document, patch, operation, pointer) in [
            (r#"{"a":1}"#, r#"[{"op":"remove","path":"/b"}]"#, 0, "/b"),
            (r#"{"a":1}"#, r#"[{"op":"remove","path":""}]"#, 0, ""),
            (
                r#"{"a":1}"#,
                r#"[{"op":"test","path":"/a","value":1},{"op":"test","path":"/a","value":"1"}]"#,
                1,
                "/a",
            ),
            (r#"{"a":1}"#, r#"[{"op":"add","path":"/b/c","value":1}]"#, 0, "/b/c"),
            (r#"{"a":1}"#, r#"[{"op":"add","path":"/a/c","value":1}]"#, 0, "/a/c"),
            (r#"{"a":1}"#, r#"[{"op":"replace","path":"/b","value":1}]"#, 0, "/b"),
            (r#"[1]"#, r#"[{"op":"add","path":"/2","value":1}]"#, 0, "/2"),
            (r#"[1]"#, r#"[{"op":"add","path":"/01","value":1}]"#, 0, "/01"),
            (r#"[1]"#, r#"[{"op":"remove","path":"/-"}]"#, 0, "/-"),
            (r#"[1]"#, r#"[{"op":"replace","path":"/00","value":1}]"#, 0, "/00"),
            (
                r#"[1]"#,
                r#"[{"op":"remove","path":"/99999999999999999999999"}]"#,
                0,
                "/99999999999999999999999",
            ),
            (r#"{"a":{"b":1}}"#, r#"[{"op":"move","from":"/a","path":"/a/b"}]"#, 0, "/a/b"),
            (r#"{"a":1}"#, r#"[{"op":"move","from":"","path":"/b"}]"#, 0, "/b"),
            (r#"{"a":1}"#, r#"[{"op":"move","from":"/b","path":"/b"}]"#, 0, "/b"),
            (r#"{"a":1}"#, r#"[{"op":"copy","from":"/x","path":"/b"}]"#, 0, "/x"),
        ] {
            match patched(JSON_PATCH, document, patch) {
                Err(PatchError::Conflict { operation: o, pointer: p, .. }) => {
                    assert_eq!((o, p.as_str()), (operation, pointer), "{document} {patch}");
                }
                other => panic!("{document} {patch}: {other:?}"),
            }
        }
    }

    #[test]
    fn a_malformed_patch_is_told_from_one_that_does_not_apply() {
        for (patch, field) in [
            ("{}", "body"),
            ("[", "body"),
            ("[1]", "/0"),
            (r#"[{"op":"test","path":"","value":1},{"op":"grow","path":""}]"#, "/1"),
            (r#"[{"op":"add","path":"/a"}]"#, "/0"),
            (r#"[{"op":"add","path":"a","value":1}]"#, "/0"),
            (r#"[{"op":"add","path":"/a~2","value":1}]"#, "/0"),
            (r#"[{"op":"move","path":"/a"}]"#, "/0"),
        ] {
            let problem = Patch::parse(JSON_PATCH, patch.as_bytes()).unwrap_err();
            assert_eq!(problem.members["field"], field, "{patch}");
        }
    }

    #[test]
    fn a_small_patch_cannot_make_a_huge_or_bottomless_document() {
        let grow = |path: &str, times: usize| {
            let copy = format!(r#"{{"op":"copy","from":"","path":"{path}"}}"#);
            format!("[{}]", vec![copy; times].join(","))
        };
        // Twice as long with each operation.
        assert_eq!(patched(JSON_PATCH, "[1]", &grow("/-", 60)), Err(PatchError::TooLarge));
        // One level deeper with each operation.
        let deep = patched(JSON_PATCH, "{}", &grow("/b", MAX_DEPTH));
        assert!(
            matches!(deep, Err(PatchError::Conflict { operation, .. }) if operation == MAX_DEPTH - 1)
        );
        let deepest = patched(JSON_PATCH, "{}", &grow("/b", MAX_DEPTH - 1)).unwrap();
        assert!(serde_json::from_str::<Value>(&deepest).is_ok());
        let elements = format!("[{}0]", "0,".repeat(100_000));
        let shift = format!("[{}]", vec![r#"{"op":"add","path":"/0","value":0}"#; 2_000].join(","));
        assert_eq!(patched(JSON_PATCH, &elements, &shift), Err(PatchError::TooLarge));
    }
}
