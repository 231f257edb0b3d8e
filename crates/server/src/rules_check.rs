//! `leasehold rules check`: what a request would get, without a server.

use http::{HeaderMap, Method, Uri};
use leasehold_core::resource::Resource;
use leasehold_core::target::Target;
use leasehold_faces::judge::{Judged, Setting};
use leasehold_guard::rules::Located;
use serde::Serialize;

use crate::config::Config;

/// What a request would get.
#[derive(Clone, Debug, Serialize)]
pub struct Verdict {
    /// Its method.
    pub method: String,
    /// Its URL.
    pub url: String,
    /// `own`, `lock`, `read`, `write` or `refused`.
    pub decision: &'static str,
    /// The number of its rule in the file, from 1; 0: the defaults.
    pub rule: usize,
    /// The resource that it names.
    pub resource: Option<String>,
    /// Whether the resource can be locked.
    pub lockable: Option<bool>,
    /// Whether a write needs a token or a precondition.
    pub precondition_required: bool,
    /// What a write changes: it needs the token of each lock that covers one of these.
    pub tokens_of: Vec<Covered>,
    /// The status and name of the refusal, and why.
    pub refusal: Option<Refusal>,
}

/// A part of what a write changes.
#[derive(Clone, Debug, Serialize)]
pub struct Covered {
    /// `content`, `members` (the list of children) or `subtree` (it and everything below).
    pub what: &'static str,
    /// The resource.
    pub resource: String,
}

/// Why a request is refused whoever sends it.
#[derive(Clone, Debug, Serialize)]
pub struct Refusal {
    /// The status.
    pub status: u16,
    /// The name of the problem.
    pub name: &'static str,
    /// Why.
    pub detail: String,
}

/// What a request would get, by this configuration, as a gateway or `/-/check` judges it.
///
/// # Errors
/// A line that says what is no method or no URL.
pub fn check(config: &Config, method: &str, url: &str) -> Result<Verdict, String> {
    let read =
        Method::from_bytes(method.as_bytes()).map_err(|_| format!("`{method}` is no method"))?;
    let uri: Uri = url.parse().map_err(|_| format!("`{url}` is no URL"))?;
    if !uri.path().starts_with('/') {
        return Err(format!("`{url}` has no path: expected a URL such as /flags/7"));
    }
    let rules = &config.rules;
    let setting = Setting { rules, prefix: &config.prefix, lock_suffix: &config.lock_suffix };
    let mut verdict = Verdict {
        method: method.to_owned(),
        url: url.to_owned(),
        decision: "refused",
        rule: 0,
        resource: None,
        lockable: None,
        precondition_required: false,
        tokens_of: Vec::new(),
        refusal: None,
    };
    let mut about = |located: &Located| {
        verdict.rule = located.rule;
        verdict.resource = Some(located.resource.to_string());
        verdict.lockable =
            Some(leasehold_faces::json_api::endpoint::check_lockable(located, rules).is_ok());
    };
    let path = Resource::parse(uri.path());
    let path = path.as_ref().map_err(Clone::clone);
    if setting.is_own(path) {
        verdict.decision = "own";
        return Ok(verdict);
    }
    match setting.judge(path, &read, &uri, &HeaderMap::new()) {
        Ok(Judged::Lock(located, _)) => {
            about(&located);
            verdict.decision = "lock";
        }
        Ok(Judged::Read(located)) => {
            located.iter().for_each(about);
            verdict.decision = "read";
        }
        Ok(Judged::Write(located, targets)) => {
            about(&located);
            verdict.decision = "write";
            verdict.precondition_required = rules.find(located.asked.path()).1.require_precondition;
            verdict.tokens_of = targets.iter().map(covered).collect();
        }
        Err(problem) => {
            verdict.refusal = Some(Refusal {
                status: problem.status().as_u16(),
                name: problem.name.entry().name,
                detail: problem.detail.clone(),
            });
        }
    }
    Ok(verdict)
}

fn covered(target: &Target) -> Covered {
    let what = match target {
        Target::Content(_) => "content",
        Target::Members(_) => "members",
        Target::Subtree(_) => "subtree",
    };
    Covered { what, resource: target.resource().to_string() }
}
