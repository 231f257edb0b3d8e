//! What a request is by the rules: about a lock, a read, or a write and to what.
//!
//! Of a request that something else carries out (what stands behind a gateway, behind a proxy that
//! asks `/-/check`, or behind the tower layer) counts every method that it may be taken for, and its
//! head alone. Of one to the server's own documents, its method.

use http::request::Parts;
use http::{HeaderMap, Method, Uri};
use leasehold_core::resource::{PathError, Resource};
use leasehold_core::target::Target;
use leasehold_guard::method::{is_read, is_safe, methods};
use leasehold_guard::rules::{Located, Rules};
use leasehold_guard::targets::by_rules;
use leasehold_problems::Problem;

use crate::json_api::endpoint::{self, Action, Endpoint, is_reserved};

/// What the judgement rests on.
#[derive(Clone, Copy)]
pub struct Setting<'a> {
    /// The rules.
    pub rules: &'a Rules,
    /// The prefix of the server's own space, `/-/`.
    pub prefix: &'a str,
    /// The suffix of lock endpoints, `/lock`.
    pub lock_suffix: &'a str,
}

/// What a request is.
pub enum Judged {
    /// One about the lock of this: what is done with it.
    Lock(Located, Action),
    /// A read; of nothing that has a name where its URL can be read in several ways.
    Read(Option<Located>),
    /// A write, and everything that it changes; nothing where the documents know that.
    Write(Located, Vec<Target>),
}

impl Judged {
    /// What it names.
    #[must_use]
    pub fn located(&self) -> Option<&Located> {
        match self {
            Self::Lock(located, _) | Self::Read(Some(located)) | Self::Write(located, _) => {
                Some(located)
            }
            Self::Read(None) => None,
        }
    }
}

/// What follows the prefix, where the path is in the server's own space.
#[must_use]
pub fn own<'p>(prefix: &str, path: &'p Resource) -> Option<&'p str> {
    let rest = path.as_str().strip_prefix(prefix.trim_end_matches('/'))?;
    if rest.is_empty() { Some("") } else { rest.strip_prefix('/') }
}

impl Setting<'_> {
    /// What a request is that goes to the server's own documents.
    ///
    /// # Errors
    /// The refusal of a URL that names none of them.
    pub fn by_method(self, path: &Resource, head: &Parts) -> Result<Judged, Box<Problem>> {
        let found = endpoint::find(path, head.uri.query(), self.lock_suffix, self.rules)?;
        Ok(match found {
            Endpoint::Lock(located, action) => Judged::Lock(located, action),
            Endpoint::Resource(located) if is_safe(&head.method) => Judged::Read(Some(located)),
            Endpoint::Resource(located) => Judged::Write(located, Vec::new()),
        })
    }

    /// Whether this path is in the server's own space.
    #[must_use]
    pub fn is_own(self, path: Result<&Resource, PathError>) -> bool {
        path.is_ok_and(|path| own(self.prefix, path).is_some())
    }

    /// What a request with this head is that something else carries out. `path` is that of `uri`,
    /// and not in the server's own space.
    ///
    /// # Errors
    /// The refusal of a head that cannot be read in one way only.
    pub fn judge(
        self,
        path: Result<&Resource, PathError>,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Result<Judged, Box<Problem>> {
        let rules = self.rules;
        let path = match path {
            Ok(path) => path,
            Err(error) => return self.judge_odd(error, method, uri, headers),
        };
        let rule = rules.find(path).1;
        let methods = methods(method, uri, headers, rule)?;
        let writes: Vec<Method> =
            methods.into_iter().filter(|method| !is_read(method, uri.path(), rule)).collect();
        match endpoint::find(path, uri.query(), self.lock_suffix, rules) {
            Ok(Endpoint::Lock(located, action)) => Ok(Judged::Lock(located, action)),
            Ok(Endpoint::Resource(located)) if writes.is_empty() => Ok(Judged::Read(Some(located))),
            Ok(Endpoint::Resource(located)) => {
                let targets = by_rules(rules, &located, &writes, headers, uri.query())?;
                Ok(Judged::Write(located, targets))
            }
            // Reads pass, whatever they name; but what is about a lock nobody else answers.
            Err(_) if writes.is_empty() && !is_reserved(path, self.lock_suffix, rules) => {
                Ok(Judged::Read(None))
            }
            Err(problem) => Err(problem),
        }
    }

    /// A path that is no resource: a read passes, and a write only below a prefix that the
    /// configuration names, and then it may be to anything there.
    fn judge_odd(
        self,
        error: PathError,
        method: &Method,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Result<Judged, Box<Problem>> {
        // Which rule it is under cannot be told, so none makes it a read.
        let methods = methods(method, uri, headers, self.rules.rule(0))?;
        if methods.iter().all(is_safe) {
            return Ok(Judged::Read(None));
        }
        let no_resource = |error| endpoint::no_resource(&error);
        let Some(prefix) = self.rules.accepts_odd_path(uri.path()) else {
            return Err(no_resource(error.into()));
        };
        let located = self.rules.locate(prefix, None).map_err(no_resource)?;
        let targets = by_rules(self.rules, &located, &[Method::DELETE], headers, None)?;
        Ok(Judged::Write(located, targets))
    }
}
