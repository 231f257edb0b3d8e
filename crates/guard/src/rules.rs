//! Rules: what holds for which resources. The first rule that matches wins.

use std::time::Duration;

use leasehold_core::pattern::Pattern;
use leasehold_core::resource::Resource;

/// What holds for the resources that a rule's patterns match.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Which resources. Empty for the rule that has the defaults.
    pub patterns: Vec<Pattern>,
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

/// All rules, in order.
#[derive(Clone, Debug)]
pub struct Rules {
    rules: Vec<Rule>,
    default: Rule,
    root_default: Rule,
}

impl Rules {
    /// These rules, in order; what none matches has the defaults.
    #[must_use]
    pub fn new(rules: Vec<Rule>) -> Self {
        let default = Rule::default();
        // `/` can be locked only where a rule says so.
        let root_default = Rule { lockable: false, ..Rule::default() };
        Self { rules, default, root_default }
    }

    /// The rule for `resource`, and its number in the file, from 1; 0 for the defaults.
    #[must_use]
    pub fn find(&self, resource: &Resource) -> (usize, &Rule) {
        let matched = self
            .rules
            .iter()
            .position(|rule| rule.patterns.iter().any(|pattern| pattern.matches(resource)));
        match matched {
            Some(at) => (at + 1, &self.rules[at]),
            None if resource.is_root() => (0, &self.root_default),
            None => (0, &self.default),
        }
    }
}

impl Default for Rules {
    fn default() -> Self {
        Self::new(Vec::new())
    }
}
