//! `/-/check`: may this request pass? For proxies that ask before they pass it on.

use std::sync::Arc;

use http::header::{HeaderName, HeaderValue};
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
use leasehold_guard::fields::tell_lock;
use leasehold_guard::telling::{Telling, write_refusal_name};
use leasehold_guard::upstream::Answer;
use leasehold_problems::{Name, Problem};

use crate::app::App;

const STATUS: HeaderName = HeaderName::from_static("x-leasehold-status");
const PROBLEM: HeaderName = HeaderName::from_static("x-leasehold-problem");
const HOLDER: HeaderName = HeaderName::from_static("x-leasehold-holder");

impl App {
    pub(crate) async fn check(&self, request: Request<Body>, call: &Call) -> Answer {
        let (head, _) = request.into_parts();
        let deny = match query(&head, "deny").as_deref() {
            None => None,
            Some(text) => Some(
                text.parse::<u16>()
                    .ok()
                    .filter(|status| (400..500).contains(status))
                    .and_then(|status| StatusCode::from_u16(status).ok())
                    .ok_or_else(|| malformed("deny", "`deny` is no status from 400 to 499."))?,
            ),
        };
        self.checked(head, call).await.map_err(|problem| match deny {
            Some(status) => Box::new(denied(*problem, status)),
            None => problem,
        })
    }

    async fn checked(&self, mut head: http::request::Parts, call: &Call) -> Answer {
        let (method, uri) = forwarded(&head)?;
        let rules = self.rules.load_full();
        let setting =
            Setting { rules: &rules, prefix: &self.prefix, lock_suffix: &self.lock_suffix };
        let path = Resource::parse(uri.path());
        let path = path.as_ref().map_err(Clone::clone);
        // What is about a lock, or the server's own, is no write.
        if setting.is_own(path) {
            return Ok(passed());
        }
        match setting.judge(path, &method, &uri, &head.headers)? {
            Judged::Lock(..) => Ok(passed()),
            Judged::Read(located) => {
                match located {
                    Some(located) => call.need(Permission::Read, &located.resource)?,
                    None => call.need_everywhere(Permission::Read)?,
                }
                Ok(passed())
            }
            Judged::Write(located, targets) => {
                let call = &Call { asked: Some(Arc::new(located.asked)), ..call.clone() };
                self.checked_write(&method, located.resource, targets, &mut head, call).await
            }
        }
    }

    async fn checked_write(
        &self,
        method: &Method,
        resource: Resource,
        targets: Vec<Target>,
        head: &mut http::request::Parts,
        call: &Call,
    ) -> Answer {
        call.need(Permission::Write, &resource)?;
        call.need_to_write(&targets)?;
        let claims = self.guard.claims(call, head, &resource).await?;
        let method: Arc<str> = Arc::from(method.as_str());
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
            Err(refused) => Err(self.tell_write(call, &resource, refused)),
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

/// The method and target that the proxy asks about.
fn forwarded(head: &http::request::Parts) -> Result<(Method, Uri), Box<Problem>> {
    let field = |names: [&'static str; 2]| {
        names.into_iter().find_map(|name| Some((name, head.headers.get(name)?)))
    };
    let Some((_, method)) = field(["x-forwarded-method", "x-original-method"]) else {
        return Err(malformed(
            "X-Forwarded-Method",
            "X-Forwarded-Method or X-Original-Method has to say which method is asked for.",
        ));
    };
    let Some((name, uri)) = field(["x-forwarded-uri", "x-original-uri"]) else {
        return Err(malformed(
            "X-Forwarded-Uri",
            "X-Forwarded-Uri or X-Original-URI has to say which target is asked for.",
        ));
    };
    let method = Method::from_bytes(method.as_bytes())
        .map_err(|_| malformed("X-Forwarded-Method", "The method that is asked for is none."))?;
    let uri = uri
        .to_str()
        .ok()
        .and_then(|uri| uri.parse::<Uri>().ok())
        .ok_or_else(|| malformed(name, "The target that is asked for is none."))?;
    Ok((method, uri))
}

/// A refusal under the one status that the proxy understands, with the true one beside it.
fn denied(mut problem: Problem, status: StatusCode) -> Problem {
    let entry = problem.name.entry();
    problem.headers.push((STATUS, HeaderValue::from(problem.status().as_u16())));
    problem.headers.push((PROBLEM, HeaderValue::from_static(entry.name)));
    let holder = problem
        .members
        .get("lock")
        .and_then(|lock| lock.get("holder"))
        .and_then(|holder| HeaderValue::from_str(holder.as_str()?).ok());
    if let Some(holder) = holder {
        problem.headers.push((HOLDER, holder));
    }
    // What does not work here is no refusal: a proxy has to tell the two apart.
    if !matches!(problem.name, Name::Unavailable | Name::StorageFailure) {
        problem.status = Some(status);
    }
    problem
}
