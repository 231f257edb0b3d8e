//! A feature flag, and whom it is on for.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A feature flag.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Flag {
    /// Off, it is off for everyone.
    pub(crate) enabled: bool,
    /// How many of a hundred users it is on for, where no rule says otherwise.
    #[serde(default)]
    pub(crate) rollout_percentage: u8,
    /// The first that is about a user decides.
    #[serde(default)]
    pub(crate) rules: Vec<TargetingRule>,
}

/// For whom a flag is on, or off, whatever its rollout is.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TargetingRule {
    /// What of the user it looks at: `country`.
    pub(crate) attribute: String,
    /// The values that it is about.
    pub(crate) values: Vec<String>,
    /// What the flag is for them.
    pub(crate) on: bool,
}

impl Flag {
    /// What is wrong with it.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        if self.rollout_percentage > 100 { Err("rollout_percentage is over 100") } else { Ok(()) }
    }

    /// Whether the flag `id` is on for the user with these attributes, `user` among them.
    pub(crate) fn is_on(&self, id: &str, attributes: &BTreeMap<String, String>) -> bool {
        if !self.enabled {
            return false;
        }
        let is_about = |rule: &&TargetingRule| {
            attributes.get(&rule.attribute).is_some_and(|value| rule.values.contains(value))
        };
        match self.rules.iter().find(is_about) {
            Some(rule) => rule.on,
            None => {
                let user = attributes.get("user").map(String::as_str).unwrap_or_default();
                bucket(id, user) < u64::from(self.rollout_percentage)
            }
        }
    }
}

/// Which hundredth of all users one is in: the same each time, and another for each flag. Growing a
/// rollout takes it from nobody. (FNV-1a.)
fn bucket(id: &str, user: &str) -> u64 {
    let bytes = id.bytes().chain([0]).chain(user.bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    (hash >> 32) % 100
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flag(rollout_percentage: u8) -> Flag {
        let rule = |value: &str, on| TargetingRule {
            attribute: "country".to_owned(),
            values: vec![value.to_owned()],
            on,
        };
        Flag { enabled: true, rollout_percentage, rules: vec![rule("de", true), rule("fr", false)] }
    }

    fn user(name: &str, country: &str) -> BTreeMap<String, String> {
        [("user", name), ("country", country)].map(|(k, v)| (k.to_owned(), v.to_owned())).into()
    }

    #[test]
    fn a_rule_comes_before_the_rollout_and_off_before_both() {
        assert!(flag(0).is_on("x", &user("kim", "de")));
        assert!(!flag(100).is_on("x", &user("kim", "fr")));
        assert!(flag(100).is_on("x", &user("kim", "it")));
        assert!(!Flag { enabled: false, ..flag(100) }.is_on("x", &user("kim", "de")));
    }

    #[test]
    fn a_rollout_is_on_for_so_many_and_growing_it_takes_it_from_nobody() {
        let users: Vec<_> = (0..2000).map(|n| user(&format!("user-{n}"), "it")).collect();
        let on = |percentage| {
            users.iter().map(|user| flag(percentage).is_on("x", user)).collect::<Vec<bool>>()
        };
        let (ten, thirty) = (on(10), on(30));
        assert!(ten.iter().zip(&thirty).all(|(before, after)| !before || *after));
        let count = thirty.iter().filter(|on| **on).count();
        assert!((500..700).contains(&count), "{count}");
    }
}
