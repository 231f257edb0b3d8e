//! `leasehold get`, `put`, `patch`, `delete`.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::path::Path;

use http::header::{CONTENT_TYPE, ETAG, HeaderName, IF_MATCH, IF_NONE_MATCH};
use http::{HeaderValue, Method};
use leasehold_client::{RawReply, RawRequest};
use serde_json::{Value, json};

use super::locks::with;
use super::{Session, tables, tokens, wait_for};
use crate::args::remote::{Content, DeleteArgs, GetArgs, PatchArgs, PutArgs};
use crate::outcome::Failure;
use crate::output::{say, stdout};

pub(crate) fn get(args: &GetArgs) -> Result<(), Failure> {
    let session = Session::open(&args.remote, args.output)?;
    if args.list {
        return list(&session, &args.resource);
    }
    let method = if args.etag { Method::HEAD } else { Method::GET };
    let reply = session.exchange(&session.document(method, &args.resource, "")?)?;
    let mut out = stdout();
    if args.etag {
        let Some(etag) = reply.header(ETAG.as_str()) else {
            return Err(Failure::failed(format!("{} has no ETag", args.resource)));
        };
        writeln!(out, "{etag}")?;
        return Ok(out.flush()?);
    }
    if !session.is_human() {
        // As it is stored, to the byte.
        out.write_all(&reply.body)?;
        return Ok(out.flush()?);
    }
    let json = reply.header(CONTENT_TYPE.as_str()).is_some_and(|media| media.contains("json"));
    match serde_json::from_slice::<Value>(&reply.body) {
        Ok(page) if reply.header(ETAG.as_str()).is_none() && page["items"].is_array() => {
            drop(out);
            return session.print(&page, tables::children);
        }
        // What would command the terminal is escaped in JSON.
        Ok(document) if json => writeln!(out, "{document:#}")?,
        _ => {
            out.write_all(&reply.body)?;
            if !reply.body.ends_with(b"\n") {
                writeln!(out)?;
            }
        }
    }
    out.flush()?;
    if let Some(etag) = reply.header(ETAG.as_str()) {
        say(&format!("ETag: {etag}"));
    }
    Ok(())
}

fn list(session: &Session, resource: &str) -> Result<(), Failure> {
    let (mut items, mut cursor) = (Vec::new(), String::new());
    loop {
        let query = format!("?list=true&limit=1000{cursor}");
        let reply = session.exchange(&session.document(Method::GET, resource, &query)?)?;
        let page = reply.json().map_err(|error| session.failure(&error))?;
        items.extend(page["items"].as_array().cloned().unwrap_or_default());
        let Some(next) = page["next"].as_str() else { break };
        cursor = format!("&cursor={}", leasehold_client::segment(next));
    }
    session.print(&json!({ "items": items, "next": null }), tables::children)
}

pub(crate) fn put(args: &PutArgs) -> Result<(), Failure> {
    let session = Session::open(&args.remote, args.output)?;
    let bytes = read(&args.content)?;
    let media = match &args.content_type {
        Some(media) => field("--content-type", media)?,
        None if serde_json::from_slice::<serde::de::IgnoredAny>(&bytes).is_ok() => {
            HeaderValue::from_static("application/json")
        }
        None => HeaderValue::from_static("application/octet-stream"),
    };
    let mut request = session.document(Method::PUT, &args.resource, "")?.body(media, bytes);
    if args.create {
        request = request.header(IF_NONE_MATCH, HeaderValue::from_static("*"));
    }
    let request = only_if(request, args.if_match.as_deref())?;
    let reply = session.exchange(&with(request, &tokens(&args.tokens)?)?)?;
    let etag = reply.header(ETAG.as_str());
    let verb = if reply.status == http::StatusCode::CREATED { "Created" } else { "Replaced" };
    // The server has no body for this: what it says in its head.
    let told = json!({ "resource": args.resource, "created": verb == "Created", "etag": etag });
    session
        .print(&told, |_, _| format!("{verb} {}, ETag {}\n", args.resource, etag.unwrap_or("none")))
}

pub(crate) fn patch(args: &PatchArgs) -> Result<(), Failure> {
    let session = Session::open(&args.remote, args.output)?;
    let bytes = read(&args.content)?;
    let patch: Value = serde_json::from_slice(&bytes)
        .map_err(|error| Failure::usage(vec![format!("the patch is not JSON: {error}")]))?;
    let media = HeaderValue::from_static(if patch.is_array() {
        "application/json-patch+json"
    } else {
        "application/merge-patch+json"
    });
    let request = session.document(Method::PATCH, &args.resource, "")?.body(media, bytes);
    let request = only_if(request, args.if_match.as_deref())?;
    let reply = session.exchange(&with(request, &tokens(&args.tokens)?)?)?;
    let document = reply.json().map_err(|error| session.failure(&error))?;
    session.print(&document, |document, _| format!("{document:#}\n"))
}

pub(crate) fn delete(args: &DeleteArgs) -> Result<(), Failure> {
    let session = Session::open(&args.remote, args.output)?;
    let query = if args.recursive { "?recursive=true" } else { "" };
    let request = session.document(Method::DELETE, &args.resource, query)?;
    let request = only_if(request, args.if_match.as_deref())?;
    session.exchange(&with(request, &tokens(&args.tokens)?)?)?;
    session.done(&format!("Deleted {}", args.resource))
}

impl Session {
    fn document(&self, method: Method, path: &str, query: &str) -> Result<RawRequest, Failure> {
        let path = self.client.path_of(path).map_err(|error| self.failure(&error))?;
        Ok(self.client.request(method, format!("{path}{query}")))
    }

    fn exchange(&self, request: &RawRequest) -> Result<RawReply, Failure> {
        wait_for(async { request.send().await.map_err(|error| self.failure(&error)) })
    }
}

fn only_if(request: RawRequest, etag: Option<&str>) -> Result<RawRequest, Failure> {
    match etag {
        None => Ok(request),
        // A shell takes the quotes off easily.
        Some(etag) if etag == "*" || etag.contains('"') => with_field(request, IF_MATCH, etag),
        Some(etag) => with_field(request, IF_MATCH, &format!("\"{etag}\"")),
    }
}

fn with_field(request: RawRequest, name: HeaderName, text: &str) -> Result<RawRequest, Failure> {
    Ok(request.header(name, field("--if-match", text)?))
}

fn field(argument: &str, text: &str) -> Result<HeaderValue, Failure> {
    HeaderValue::from_str(text).map_err(|_| {
        Failure::usage(vec![format!("{argument} has a character that no header field can carry")])
    })
}

/// What is to be sent.
fn read(content: &Content) -> Result<Vec<u8>, Failure> {
    let file = match (&content.data, &content.file) {
        (Some(text), _) => return Ok(text.clone().into_bytes()),
        (None, Some(file)) => file,
        (None, None) => return Err(Failure::usage(vec!["name a file, or give --data".to_owned()])),
    };
    let read = if file == Path::new("-") {
        let mut bytes = Vec::new();
        io::stdin().lock().read_to_end(&mut bytes).map(|_| bytes)
    } else {
        fs::read(file)
    };
    read.map_err(|error| Failure::failed(format!("cannot read {}: {error}", file.display())))
}
