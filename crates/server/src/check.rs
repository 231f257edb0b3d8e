//! `/-/check`: may this request pass? For proxies that ask before they pass it on.
//!
//! The proxy says which request it means in one of two ways: in fields, beside those of the request,
//! or (`/-/check/v1/flags/7`) with the request's own method and its path after that of the check.
//! Clients can send the same fields, so where the proxy's word cannot be told from theirs, nothing
//! passes.
//!
//! Deliberately absent: a pin. Nothing says when the write has ended that was let through.

use std::sync::Arc;

use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode, Uri};
use leasehold_core::caller::Permission;
use leasehold_core::resource::Resource;
use leasehold_core::target::Target;
use leasehold_engine::Refused;
use leasehold_faces::json_api::asking::query;
use leasehold_faces::json_api::fields::malformed;
use leasehold_faces::judge::{Judged, Setting};
use leasehold_guard::body::{Body, empty};
use leasehold_guard::call::Call;
use leasehold_guard::fields::{encoded, tell_lock};
use leasehold_guard::telling::{Telling, write_refusal_name};
use leasehold_guard::upstream::Answer;
use leasehold_problems::{Context, Name, Problem};

use crate::app::App;

const STATUS: HeaderName = HeaderName::from_static("x-leasehold-status");
const PROBLEM: HeaderName = HeaderName::from_static("x-leasehold-problem");
const HOLDER: HeaderName = HeaderName::from_static("x-leasehold-holder");
const DOCUMENT: HeaderName = HeaderName::from_static("x-leasehold-document");

/// The longest problem document that is told in a field. nginx reads heads of 4 KiB, unless it is
/// told to read longer ones.
const MAX_DOCUMENT: usize = 3072;

/// What follows the prefix in the path of a check that has the path it asks about in its own, as
/// Envoy sends it. That one may be no resource, so nothing here is decoded.
pub(crate) fn by_path<'p>(prefix: &str, path: &'p str) -> Option<&'p str> {
    path.strip_prefix(prefix).filter(|rest| rest.starts_with("check/"))
}

/// How a check is told that it may not pass, whoever refuses it: its caller may not be known, or
/// send too much.
#[derive(Debug)]
pub(crate) struct Refusing {
    /// The path of the request that is asked about.
    pub(crate) instance: Option<String>,
    deny: Option<StatusCode>,
}

impl Refusing {
    /// What the head of a check says of that.
    pub(crate) fn of(prefix: &str, head: &Parts) -> Self {
        let question = Question::of(prefix, head);
        let deny = match by_path(prefix, head.uri.path()) {
            Some(_) => None,
            None => deny(head).ok().flatten(),
        };
        let instance = question.ok().map(|question| question.uri.path().to_owned());
        Self { instance, deny }
    }

    /// The refusal as the proxy is told.
    pub(crate) fn tell(&self, problem: Problem, context: &Context<'_>) -> Problem {
        match self.deny {
            Some(status) => denied(problem, status, context),
            None => problem,
        }
    }
}

/// A request that a proxy asks about.
struct Question {
    method: Method,
    uri: Uri,
    /// Whether the proxy knows by itself what is about a lock or the server's own, so that nothing
    /// of that goes to the API.
    is_own_denied: bool,
}

impl Question {
    /// The one that this is the head of a check for.
    fn of(prefix: &str, head: &Parts) -> Result<Self, Box<Problem>> {
        match by_path(prefix, head.uri.path()) {
            Some(_) => Self::by_path(prefix, head),
            None => Self::by_fields(head),
        }
    }

    /// One whose target follows the path of the check, and whose method is that of the check.
    fn by_path(prefix: &str, head: &Parts) -> Result<Self, Box<Problem>> {
        let uri = head
            .uri
            .path_and_query()
            .and_then(|target| target.as_str().strip_prefix(prefix)?.strip_prefix("check"))
            .and_then(|target| target.parse().ok())
            .ok_or_else(|| malformed("path", "The target that is asked for is none."))?;
        Ok(Self { method: head.method.clone(), uri, is_own_denied: true })
    }

    /// One that is told in fields.
    fn by_fields(head: &Parts) -> Result<Self, Box<Problem>> {
        let (by, method) = field(&head.headers, ["X-Forwarded-Method", "X-Original-Method"])?;
        let (name, target) = field(&head.headers, ["X-Forwarded-Uri", "X-Original-URI"])?;
        deny(head)?;
        let method = Method::from_bytes(method.as_bytes())
            .map_err(|_| malformed(by, "The method that is asked for is none."))?;
        // RFC 9112, section 3.2: no target has a fragment. Who reads one as a part of the path
        // could be led on by it to another.
        let uri = Some(target.as_bytes())
            .filter(|target| !target.contains(&b'#'))
            .and_then(|target| Uri::try_from(target).ok())
            .ok_or_else(|| malformed(name, "The target that is asked for is none."))?;
        let is_own_denied = match query(head, "own").as_deref() {
            None => false,
            Some("deny") => true,
            Some(_) => return Err(malformed("own", "`own` can only be `deny`.")),
        };
        Ok(Self { method, uri, is_own_denied })
    }
}

/// What one of two fields says, and which. The proxy sends one of them; the other one could be its
/// client's, so what does not agree counts for nothing.
fn field<'h>(
    headers: &'h HeaderMap,
    names: [&'static str; 2],
) -> Result<(&'static str, &'h HeaderValue), Box<Problem>> {
    let all = |name| headers.get_all(name).iter().map(move |value| (name, value));
    let mut found = names.into_iter().flat_map(all);
    let [first, second] = names;
    let Some((name, value)) = found.next() else {
        let detail = format!("{first} or {second} has to say which request is asked for.");
        return Err(malformed(first, detail));
    };
    if let Some((other, _)) = found.find(|(_, other)| *other != value) {
        let detail = format!(
            "{name} and {other} say different things: the proxy has to set one of {first} and \
             {second}, once, and remove the other."
        );
        return Err(malformed(other, detail));
    }
    Ok((name, value))
}

fn deny(head: &Parts) -> Result<Option<StatusCode>, Box<Problem>> {
    let Some(text) = query(head, "deny") else { return Ok(None) };
    text.parse::<u16>()
        .ok()
        .filter(|status| (400..500).contains(status))
        .and_then(|status| StatusCode::from_u16(status).ok())
        .map(Some)
        .ok_or_else(|| malformed("deny", "`deny` is no status from 400 to 499."))
}

impl App {
    pub(crate) async fn check(&self, request: Request<Body>, call: &Call) -> Answer {
        let (mut head, _) = request.into_parts();
        let question = Question::of(&self.prefix, &head)?;
        self.checked(&question, &mut head, call).await
    }

    async fn checked(&self, question: &Question, head: &mut Parts, call: &Call) -> Answer {
        let Question { method, uri, .. } = question;
        let rules = self.rules.load_full();
        let setting =
            Setting { rules: &rules, prefix: &self.prefix, lock_suffix: &self.lock_suffix };
        let path = Resource::parse(uri.path());
        let path = path.as_ref().map_err(Clone::clone);
        // What is about a lock, or the server's own, is no write.
        if setting.is_own(path) {
            return own(question);
        }
        match setting.judge(path, method, uri, &head.headers)? {
            Judged::Lock(..) => own(question),
            Judged::Read(located) => {
                match located {
                    Some(located) => call.need(Permission::Read, &located.resource)?,
                    None => call.need_everywhere(Permission::Read)?,
                }
                Ok(passed())
            }
            Judged::Write(located, targets) => {
                let call = &Call { asked: Some(Arc::new(located.asked)), ..call.clone() };
                self.checked_write(question, located.resource, targets, head, call).await
            }
        }
    }

    async fn checked_write(
        &self,
        question: &Question,
        resource: Resource,
        targets: Vec<Target>,
        head: &mut Parts,
        call: &Call,
    ) -> Answer {
        call.need(Permission::Write, &resource)?;
        call.need_to_write(&targets)?;
        let claims = self.guard.claims(call, head, &resource).await?;
        let method: Arc<str> = Arc::from(question.method.as_str());
        let write = self.guard.judged(call, method, resource.clone(), targets, &claims)?;
        let name = |refusal: &_| write_refusal_name(refusal).entry().name;
        match self.engine.check_for_proxy(&write, name).await {
            Ok(lock) => {
                let mut response = passed();
                if let Some(lock) = lock {
                    tell_lock(response.headers_mut(), &lock);
                }
                Ok(response)
            }
            Err(refused) => {
                let problem = self.tell_write(call, &resource, refused);
                Err(self.api.withheld(problem, &resource, call).await)
            }
        }
    }

    fn tell_write(
        &self,
        call: &Call,
        resource: &Resource,
        refused: Refused<leasehold_core::refusal::WriteRefusal>,
    ) -> Box<Problem> {
        let rules = self.rules.load();
        Telling {
            engine: &self.engine,
            rules: &rules,
            caller: &call.caller,
            asked: call.asked.as_deref(),
            lock_suffix: &self.lock_suffix,
        }
        .write(resource, refused)
    }
}

fn passed() -> Response<Body> {
    Response::new(empty())
}

/// The answer for what is about a lock, or the server's own.
fn own(question: &Question) -> Answer {
    if !question.is_own_denied {
        return Ok(passed());
    }
    let path = question.uri.path();
    let detail = format!("{path} is not the API's: the proxy has to send it to Leasehold.");
    Err(malformed("path", detail))
}

/// A refusal under the one status that the proxy understands, with the true one beside it, and what
/// the proxy can tell its client: it may keep nothing of the body.
fn denied(mut problem: Problem, status: StatusCode, context: &Context<'_>) -> Problem {
    let document = String::from_utf8(problem.document(context));
    let document = document.ok().map(|document| ascii(&document));
    let entry = problem.name.entry();
    problem.headers.push((STATUS, HeaderValue::from(problem.status().as_u16())));
    problem.headers.push((PROBLEM, HeaderValue::from_static(entry.name)));
    let holder = problem.lock.as_ref().and_then(|lock| lock.holder.as_ref());
    let holder = holder.and_then(|holder| HeaderValue::from_str(&encoded(holder)).ok());
    if let Some(holder) = holder {
        problem.headers.push((HOLDER, holder));
    }
    let document = document.filter(|document| document.len() <= MAX_DOCUMENT);
    if let Some(document) = document.and_then(|document| HeaderValue::try_from(document).ok()) {
        problem.headers.push((DOCUMENT, document));
    }
    // Every proxy knows 401, and passes its challenge on. And what does not work here is no
    // refusal: a proxy has to tell the two apart.
    let is_kept =
        matches!(problem.name, Name::Unauthenticated | Name::Unavailable | Name::StorageFailure);
    if !is_kept {
        problem.status = Some(status);
    }
    problem
}

/// The same JSON, without a character that a header field could not carry.
fn ascii(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for character in json.chars() {
        if character.is_ascii() {
            out.push(character);
        } else {
            // Only within strings, where JSON has an escape for it.
            for unit in character.encode_utf16(&mut [0; 2]) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    out
}
