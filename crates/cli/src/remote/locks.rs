//! `leasehold lock`, `renew`, `unlock`, `show`, `ls`, `break`, `transfer`, `request`, `freeze`,
//! `unfreeze`.

use std::io::Write as _;
use std::time::Duration;

use leasehold_client::{Client, Error, Lease, LockRequest, RawRequest, Token};
use serde_json::{Map, Value, json};

use super::{Session, body, progress, tables, tokens, usage, wait_for};
use crate::args::remote::{
    BreakArgs, Depth, FreezeArgs, LockArgs, LsArgs, RenewArgs, RequestArgs, ShowArgs, Subject,
    TransferArgs, UnfreezeArgs, UnlockArgs, Wanted,
};
use crate::outcome::Failure;
use crate::output::{say, stdout};

/// How many are asked for at once.
const PAGE: usize = 1000;

pub(crate) fn lock(args: &LockArgs) -> Result<(), Failure> {
    let session = Session::open(&args.remote, args.output)?;
    let mut request = acquire(&session.client, &args.resources, &args.wanted)?.wait(args.wait);
    if let Some(ttl) = args.ttl {
        request = request.ttl(ttl);
    }
    if let Some(key) = &args.idempotency_key {
        request = request.idempotency_key(key);
    }
    wait_for(async {
        let first = args.resources.first().map_or("", String::as_str);
        let lease = progress::told(&session.client, first, args.wait, request.acquire())
            .await
            .map_err(|error| session.not_had(&error))?;
        if args.quiet {
            let mut out = stdout();
            writeln!(out, "{}", lease.token().reveal())?;
            return Ok(out.flush()?);
        }
        session.print(&granted(&lease), tables::lock)
    })
}

/// The acquire that was asked for on a command line.
pub(crate) fn acquire(
    client: &Client,
    resources: &[String],
    wanted: &Wanted,
) -> Result<LockRequest, Failure> {
    let mut request = match resources {
        resources if wanted.any_of => client.lock_any_of(resources),
        [one] => client.lock(one),
        several => client.lock_all(several),
    };
    if wanted.shared {
        request = request.shared();
    }
    if wanted.depth == Depth::Zero {
        request = request.depth_zero();
    }
    if let Some(reason) = &wanted.reason {
        request = request.reason(reason);
    }
    if let Some(metadata) = &wanted.metadata {
        let metadata: Map<String, Value> = serde_json::from_str(metadata).map_err(|error| {
            Failure::usage(vec![format!("--metadata is not a JSON object: {error}")])
        })?;
        request = request.metadata(metadata);
    }
    for token in &wanted.holding {
        let token: Token = token.parse().map_err(|error| usage("--holding", &error))?;
        request = request.holding_token(token);
    }
    Ok(request)
}

/// What the server answered to an acquire.
fn granted(lease: &Lease) -> Value {
    let info = serde_json::to_value(lease.info()).unwrap_or_default();
    let mut shown = Map::new();
    for (name, mut content) in info.as_object().cloned().unwrap_or_default() {
        // A whole number stays one.
        if let Some(whole) = content.as_f64().filter(|n| n.fract() == 0.0 && name == "ttl_seconds")
        {
            content = json!(Duration::from_secs_f64(whole).as_secs());
        }
        let is_id = name == "lock_id";
        shown.insert(name, content);
        if is_id {
            shown.insert("lock_token".to_owned(), lease.token().reveal().into());
        }
    }
    Value::Object(shown)
}

pub(crate) fn renew(args: &RenewArgs) -> Result<(), Failure> {
    let session = Session::open(&args.remote, args.output)?;
    let body = args.ttl.map_or_else(|| json!({}), |ttl| json!({ "ttl_seconds": seconds(ttl) }));
    let request = session.ask("PATCH", &args.subject, "")?.json(&body).repeatable();
    session.send(with(request, &tokens(&args.tokens)?)?, tables::lock)
}

pub(crate) fn unlock(args: &UnlockArgs) -> Result<(), Failure> {
    let session = Session::open(&args.remote, args.output)?;
    let request = session.ask("DELETE", &args.subject, "")?.repeatable();
    let request = with(request, &tokens(&args.tokens)?)?;
    session.send_for_nothing(request, "Released")
}

pub(crate) fn show(args: &ShowArgs) -> Result<(), Failure> {
    let session = Session::open(&args.remote, args.output)?;
    let request = session.ask("GET", &args.subject, "")?;
    match args.subject {
        Subject::Resource(_) => session.send(request, tables::inspection),
        Subject::Lock(_) => session.send(request, tables::lock),
    }
}

pub(crate) fn ls(args: &LsArgs) -> Result<(), Failure> {
    let session = Session::open(&args.remote, args.output)?;
    let before = args.expires_before.map(|moment| moment.to_string());
    let filters = [
        ("resource", args.resource.as_ref()),
        ("holder", args.holder.as_ref()),
        ("kind", args.kind.as_ref()),
        ("dialect", args.dialect.as_ref()),
        ("expires_before", before.as_ref()),
    ];
    let mut query = String::new();
    for (name, content) in filters {
        if let Some(content) = content {
            query.push_str(&format!("&{name}={}", leasehold_client::segment(content)));
        }
    }
    let most = if args.limit == 0 { usize::MAX } else { args.limit };
    let (items, next) = wait_for(async {
        let (mut items, mut cursor) = (Vec::new(), String::new());
        loop {
            let limit = PAGE.min(most - items.len());
            let target = session.client.own_path(&format!("locks?limit={limit}{query}{cursor}"));
            let reply = session.client.request(http::Method::GET, target).send().await;
            let page = reply.and_then(|reply| reply.json()).map_err(|e| session.failure(&e))?;
            items.extend(page["items"].as_array().cloned().unwrap_or_default());
            match page["next"].as_str() {
                Some(next) if items.len() < most => {
                    cursor = format!("&cursor={}", leasehold_client::segment(next));
                }
                _ => return Ok((items, page["next"].clone())),
            }
        }
    })?;
    if session.is_human() && items.is_empty() {
        say("No locks.");
        return Ok(());
    }
    let more = session.is_human() && !next.is_null();
    session.print(&json!({ "items": items, "next": next }), |page, paint| {
        tables::locks(&page["items"], paint)
    })?;
    if more {
        say("There are more; --limit 0 prints all.");
    }
    Ok(())
}

pub(crate) fn end(args: &BreakArgs) -> Result<(), Failure> {
    let session = Session::open(&args.remote, args.output)?;
    let mut body = Map::new();
    if let Some(reason) = &args.reason {
        body.insert("reason".to_owned(), reason.as_str().into());
    }
    if let Some(grace) = args.grace {
        body.insert("grace_seconds".to_owned(), seconds(grace));
    }
    if let Some(id) = &args.lock_id {
        body.insert("lock_id".to_owned(), id.to_string().into());
    }
    let action = if args.dry_run { "/break?dry_run=true" } else { "/break" };
    let request = session.ask("POST", &args.subject, action)?.json(&Value::Object(body));
    session.send(request, tables::broken)
}

pub(crate) fn transfer(args: &TransferArgs) -> Result<(), Failure> {
    let session = Session::open(&args.remote, args.output)?;
    // With the old token to the same principal it gives the same answer.
    let request = session.ask("POST", &args.subject, "/transfer")?.repeatable();
    let request = request.json(&json!({ "to": args.to }));
    session.send(with(request, &tokens(&args.tokens)?)?, tables::lock)
}

pub(crate) fn request(args: &RequestArgs) -> Result<(), Failure> {
    let session = Session::open(&args.remote, args.output)?;
    let subject = Subject::Resource(args.resource.clone());
    let body = match &args.message {
        Some(message) => json!({ "message": message }),
        None => json!({}),
    };
    session.send(session.ask("POST", &subject, "/request")?.json(&body), tables::asked)
}

pub(crate) fn freeze(args: &FreezeArgs) -> Result<(), Failure> {
    let session = Session::open(&args.remote, args.output)?;
    let subject = Subject::Resource(args.resource.clone());
    let body = json!({ "reason": args.reason, "until": args.until.to_string() });
    let request = session.ask("PUT", &subject, "/freeze")?.json(&body).repeatable();
    session.send(request, tables::freeze)
}

pub(crate) fn unfreeze(args: &UnfreezeArgs) -> Result<(), Failure> {
    let session = Session::open(&args.remote, args.output)?;
    let subject = Subject::Resource(args.resource.clone());
    let request = session.ask("DELETE", &subject, "/freeze")?.repeatable();
    session.send_for_nothing(request, "Not frozen any more")
}

impl Session {
    /// A request to the lock of a resource, or to one lock.
    fn ask(&self, method: &str, subject: &Subject, rest: &str) -> Result<RawRequest, Failure> {
        let path = match subject {
            Subject::Resource(resource) => self.client.lock_path_of(resource),
            Subject::Lock(id) => Ok(self.client.own_path(&format!("locks/{id}"))),
        };
        let path = path.map_err(|error| self.failure(&error))?;
        let method = method.parse().map_err(|error| Failure::because(&error, ""))?;
        Ok(self.client.request(method, format!("{path}{rest}")))
    }

    /// Sends it, and prints the answer.
    fn send(
        &self,
        request: RawRequest,
        shown: impl FnOnce(&Value, tables::Paint) -> String,
    ) -> Result<(), Failure> {
        let answer = wait_for(async {
            let reply = request.send().await;
            reply.and_then(|reply| body(&reply)).map_err(|error| self.failure(&error))
        })?;
        self.print(&answer, shown)
    }

    /// Sends it; the answer has no body.
    fn send_for_nothing(&self, request: RawRequest, line: &str) -> Result<(), Failure> {
        wait_for(async { request.send().await.map_err(|error: Error| self.failure(&error)) })?;
        self.done(line)
    }
}

/// With these tokens.
pub(super) fn with(request: RawRequest, tokens: &[Token]) -> Result<RawRequest, Failure> {
    tokens
        .iter()
        .try_fold(request, |request, token| request.token(token))
        .map_err(|error| usage("--token", &error))
}

/// Seconds as JSON: a whole number where it is one.
fn seconds(span: Duration) -> Value {
    if span.subsec_nanos() == 0 { span.as_secs().into() } else { span.as_secs_f64().into() }
}
