//! Rules: which resource a URL names, and what holds there. The first rule that matches wins.
//!
//! A rule may know its resources under one name, whatever URLs they have (`resource`, `fold`,
//! `query`). That name is itself one of their URLs: wherever a URL is read, the name of a resource
//! can stand for it, and [`Rules::locate`] maps it to itself. `conflicts` refuses rules for which
//! that would not hold.
//!
//! Modules: how the spelling of a URL is made one ([`spelling`]), which rules contradict each other
//! ([`conflicts`]).

pub mod conflicts;
pub mod spelling;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use leasehold_core::pattern::Pattern;
use leasehold_core::resource::{PathError, Resource};

use self::spelling::{Fold, Parameters, parameters};

/// What holds for the resources that a rule's patterns match.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Which URLs. Empty for the rule that has the defaults.
    pub patterns: Vec<Pattern>,
    /// Which resource they name, filled with what the pattern captured; none: the path itself.
    pub resource: Option<Pattern>,
    /// The query parameters that are part of the resource.
    pub query: Vec<String>,
    /// Which spellings the upstream takes for the same.
    pub fold: Fold,
    /// The requests that count as reads, beside those whose method is safe.
    pub reads: Vec<Read>,
    /// The query parameter that the upstream takes a method from.
    pub method_parameter: Option<String>,
    /// Which upstream the URLs are at, by its address; none: the one for everything.
    pub upstream: Option<Arc<str>>,
    /// How long that may be silent; none: as long as it may for everything.
    pub upstream_timeout: Option<Duration>,
    /// Whether they can be locked.
    pub lockable: bool,
    /// The TTL of an acquire that names none.
    pub default_ttl: Duration,
    /// The longest TTL.
    pub max_ttl: Duration,
    /// The longest life of a lock, renewals included.
    pub max_hold: Duration,
    /// The longest bounded wait.
    pub max_wait: Duration,
    /// The most waiters on one resource.
    pub max_queue: usize,
    /// The most locks of one holder; none: no limit.
    pub max_locks_per_holder: Option<u64>,
    /// Whether a write needs a token or a precondition (428).
    pub require_precondition: bool,
    /// Whether others are told who holds a lock.
    pub disclose_holder: bool,
    /// The status of a refused acquire: 423, or 409.
    pub locked_status: u16,
    /// Whether a write asks for the locks below as well.
    pub covers_below: bool,
}

impl Default for Rule {
    fn default() -> Self {
        Self {
            patterns: Vec::new(),
            resource: None,
            query: Vec::new(),
            fold: Fold::default(),
            reads: Vec::new(),
            method_parameter: None,
            upstream: None,
            upstream_timeout: None,
            lockable: true,
            default_ttl: Duration::from_secs(300),
            max_ttl: Duration::from_secs(1800),
            max_hold: Duration::from_secs(24 * 60 * 60),
            max_wait: Duration::from_secs(30),
            max_queue: 1000,
            max_locks_per_holder: None,
            require_precondition: false,
            disclose_holder: true,
            locked_status: 423,
            covers_below: false,
        }
    }
}

impl Rule {
    /// What the name of its resources is made of and one of its patterns does not capture: the
    /// pattern, and that part of the name.
    pub fn uncaptured(&self) -> impl Iterator<Item = (&Pattern, String)> {
        self.resource.iter().flat_map(|name| {
            self.patterns.iter().filter_map(|pattern| {
                let missing = name.names().find(|name| pattern.names().all(|each| each != *name));
                let missing = missing.map(|name| format!("{{{name}}}"));
                let any = || (name.has_any() && !pattern.has_any()).then(|| "**".to_owned());
                Some((pattern, missing.or_else(any)?))
            })
        })
    }
}

/// Requests that count as reads: all with a method, or those of a custom action (`:search` at the
/// end of the path).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Read {
    /// The method.
    pub method: Method,
    /// The action, without its colon.
    pub action: Option<String>,
}

impl Read {
    /// Whether it is about requests with this method and path. The path is as it was sent: an
    /// encoded colon is an action for some upstreams and a part of the name for others.
    #[must_use]
    pub fn matches(&self, method: &Method, path: &str) -> bool {
        let acts = |action: &str| {
            let last = path.rsplit('/').next().unwrap_or_default();
            last.strip_suffix(action).is_some_and(|rest| rest.ends_with(':'))
        };
        self.method == *method && self.action.as_deref().is_none_or(acts)
    }
}

/// The URL shape that a resource was asked for by: links in answers keep to it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Asked {
    path: Resource,
    /// The parameters that are part of the resource.
    query: Option<Arc<str>>,
}

impl Asked {
    /// The shape that a resource's own name is.
    #[must_use]
    pub fn by_name(resource: &Resource) -> Self {
        let (path, query) = resource.path_and_query();
        Self { path, query: query.map(Arc::from) }
    }

    /// The URL of a lock endpoint; `ending` is the suffix, and an action behind it.
    #[must_use]
    pub fn endpoint(&self, ending: &str) -> String {
        let (path, mark, query) = self.around();
        [path, ending, mark, query].concat()
    }

    /// What is before and behind the ending of a lock endpoint: the path, the mark of a query, and
    /// the query.
    pub(crate) fn around(&self) -> (&str, &str, &str) {
        let path = if self.path.is_root() { "" } else { self.path.as_str() };
        match &self.query {
            None => (path, "", ""),
            Some(query) => (path, "?", query),
        }
    }

    /// The path.
    #[must_use]
    pub fn path(&self) -> &Resource {
        &self.path
    }
}

/// What a URL is about.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Located {
    /// The resource that it names.
    pub resource: Resource,
    /// The URL it was named by.
    pub asked: Asked,
    /// The number of its rule in the file, from 1; 0 for the defaults.
    pub rule: usize,
    /// Whether it has some of the parameters that are part of a resource and lacks others: then it
    /// is about any of those below the path.
    pub is_partial: bool,
}

/// Why a URL names no resource.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NoResource {
    /// Its path is none, or is none as the rule spells it.
    #[error("{0}")]
    Path(#[from] PathError),
    /// A parameter that is part of the resource can be read in more than one way.
    #[error(
        "the query parameter `{0}` is part of the resource, and has to be there once, as \
         `{0}=VALUE` between `&`s"
    )]
    Ambiguous(String),
    /// A parameter that is part of the resource cannot be read.
    #[error(
        "the query parameter `{name}`, which is part of the resource, cannot be read: {source}"
    )]
    Unreadable {
        /// The parameter.
        name: String,
        /// What is wrong with it.
        source: PathError,
    },
}

/// All rules, in order.
#[derive(Clone, Debug)]
pub struct Rules {
    rules: Vec<Compiled>,
    default: Rule,
    root_default: Rule,
    odd_paths: Vec<Resource>,
}

/// A rule, and its patterns as the spelling that it folds to.
#[derive(Clone, Debug)]
struct Compiled {
    rule: Rule,
    /// The name of its resources, where that is not the path.
    name: Option<Pattern>,
    patterns: Vec<Pattern>,
}

impl Compiled {
    fn new(rule: Rule) -> Self {
        // A pattern that cannot be folded matches nothing that is.
        let folded = |pattern: &Pattern| rule.fold.pattern(pattern).ok();
        Self {
            name: rule.resource.as_ref().and_then(folded),
            patterns: rule.patterns.iter().filter_map(folded).collect(),
            rule,
        }
    }

    fn matches(&self, path: &Resource) -> bool {
        let Ok(path) = self.rule.fold.path(path) else { return false };
        self.name.iter().chain(&self.patterns).any(|pattern| pattern.matches(&path))
    }

    /// The path of the resource that `path`, which this matches, names.
    fn name_of(&self, path: &Resource) -> Result<Resource, PathError> {
        let path = self.rule.fold.path(path)?;
        let Some(name) = &self.name else { return Ok(path) };
        if name.matches(&path) {
            return Ok(path);
        }
        match self.patterns.iter().find_map(|pattern| pattern.bind(&path)) {
            Some(captures) => name.fill(&captures),
            None => Ok(path.clone()),
        }
    }

    /// What the paths below `path` are known by: all of them lie below these, or are these.
    fn names_below(&self, path: &Resource) -> Vec<Resource> {
        let Ok(path) = self.rule.fold.path(path) else { return Vec::new() };
        let below = |pattern: &Pattern| {
            let captures = pattern.bind_below(&path)?;
            match &self.name {
                Some(name) => name.fill_certain(&captures).ok(),
                None => Some(path.clone()),
            }
        };
        self.name.iter().chain(&self.patterns).filter_map(below).collect()
    }
}

impl Rules {
    /// These rules, in order; what none matches has the defaults.
    #[must_use]
    pub fn new(rules: Vec<Rule>) -> Self {
        let default = Rule::default();
        // `/` can be locked only where a rule says so.
        let root_default = Rule { lockable: false, ..Rule::default() };
        let rules = rules.into_iter().map(Compiled::new).collect();
        Self { rules, default, root_default, odd_paths: Vec::new() }
    }

    /// Lets writes to odd paths below these pass.
    #[must_use]
    pub fn accepting_odd_paths(mut self, prefixes: Vec<Resource>) -> Self {
        self.odd_paths = prefixes;
        self
    }

    /// Below which paths writes to odd ones pass.
    #[must_use]
    pub fn odd_paths(&self) -> &[Resource] {
        &self.odd_paths
    }

    /// The prefix that lets a write to this odd path pass.
    #[must_use]
    pub fn accepts_odd_path(&self, path: &str) -> Option<&Resource> {
        self.odd_paths.iter().find(|prefix| spelling::is_below(path, prefix))
    }

    /// The rule with this number in the file, from 1; the defaults for 0.
    #[must_use]
    pub fn rule(&self, number: usize) -> &Rule {
        number.checked_sub(1).and_then(|at| self.rules.get(at)).map_or(&self.default, |it| &it.rule)
    }

    /// Every rule, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Rule> {
        self.rules.iter().map(|each| &each.rule)
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.rules.len()
    }

    /// The rule for a resource or for the path of a URL, and its number in the file, from 1; 0 for
    /// the defaults.
    #[must_use]
    pub fn find(&self, resource: &Resource) -> (usize, &Rule) {
        let matched = if resource.has_parameters() {
            let (path, _) = resource.path_and_query();
            self.rules.iter().position(|rule| rule.matches(&path))
        } else {
            self.rules.iter().position(|rule| rule.matches(resource))
        };
        match matched {
            Some(at) => (at + 1, &self.rules[at].rule),
            None if resource.is_root() => (0, &self.root_default),
            None => (0, &self.default),
        }
    }

    /// What a URL is about: the resource that its path, and what the rule takes of its query, name.
    ///
    /// # Errors
    /// When it names none: a write to it could be one to anything.
    pub fn locate(&self, path: &Resource, query: Option<&str>) -> Result<Located, NoResource> {
        // A segment that a spelling leaves nothing of could be left out by the upstream: then the
        // path would be another's.
        if let Some(error) = self.rules.iter().find_map(|each| each.rule.fold.path(path).err()) {
            return Err(error.into());
        }
        let (number, rule) = self.find(path);
        let Some(compiled) = number.checked_sub(1).and_then(|at| self.rules.get(at)) else {
            let asked = Asked { path: path.clone(), query: None };
            return Ok(Located { resource: path.clone(), asked, rule: 0, is_partial: false });
        };
        let name = compiled.name_of(path)?;
        let Parameters { pairs, missing } = parameters(rule, query)?;
        let is_partial = missing > 0 && !pairs.is_empty();
        let resource = if missing > 0 { name } else { name.with_parameters(&pairs)? };
        let asked = Asked { path: path.clone(), query: resource.path_and_query().1.map(Arc::from) };
        Ok(Located { resource, asked, rule: number, is_partial })
    }

    /// What a text that names a resource is about: its name, or one of its URLs.
    ///
    /// # Errors
    /// When it names none.
    pub fn locate_text(&self, text: &str) -> Result<Located, NoResource> {
        match text.split_once('?') {
            None => self.locate(&Resource::parse(text)?, None),
            Some((path, query)) => {
                let path = Resource::parse(path)?;
                if self.find(&path).1.query.is_empty() {
                    return Err(PathError::Delimiter.into());
                }
                self.locate(&path, Some(query))
            }
        }
    }

    /// The resource that a filter names. A name with parameters is one whatever the rules say now:
    /// the trail is older than they are.
    ///
    /// # Errors
    /// When it names none.
    pub fn filter(&self, text: &str) -> Result<Resource, NoResource> {
        match self.locate_text(text) {
            Ok(located) => Ok(located.resource),
            Err(error) => Resource::read(text).map_err(|_| error),
        }
    }

    /// Whether `resource` is the name of one, and not only one of its URLs.
    #[must_use]
    pub fn is_name(&self, resource: &Resource) -> bool {
        let (path, query) = resource.path_and_query();
        self.locate(&path, query).is_ok_and(|located| located.resource == *resource)
    }

    /// What is known of the URLs below `path` under names that are not below the resource of `path`:
    /// each name, and everything below it. Resources that cannot be locked are not told.
    #[must_use]
    pub fn names_elsewhere(&self, path: &Resource) -> Vec<Resource> {
        if self.rules.iter().all(|each| each.name.is_none() && each.rule.fold.is_none()) {
            return Vec::new();
        }
        let own = self.locate(path, None).map(|located| located.resource);
        let mut names: Vec<Resource> = Vec::new();
        for each in self.rules.iter().filter(|each| each.rule.lockable) {
            for name in each.names_below(path) {
                let is_own = own.as_ref().is_ok_and(|own| own.covers(&name));
                if !is_own && !names.iter().any(|known| known.covers(&name)) {
                    names.retain(|known| !name.covers(known));
                    names.push(name);
                }
            }
        }
        names
    }
}

impl Default for Rules {
    fn default() -> Self {
        Self::new(Vec::new())
    }
}

impl fmt::Display for Read {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.action {
            None => write!(f, "{}", self.method),
            Some(action) => write!(f, "{}:{action}", self.method),
        }
    }
}

#[cfg(test)]
mod tests;
