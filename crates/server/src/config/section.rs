//! A table of the file: its known keys, and what each is set to.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::args::ServeArgs;
use super::errors::{Mistakes, Place, Source};
use super::values::{Value, one_of};

/// One table, and the flags that go before it.
pub(super) struct Section<'a> {
    pub(super) source: Option<Source<'a>>,
    /// Its name as the prefix of its keys: empty, `limits.`, `rule.`.
    pub(super) name: &'static str,
    pub(super) table: Option<&'a DeTable<'a>>,
    /// The flags, where the keys of this table have some.
    pub(super) args: Option<&'a ServeArgs>,
}

/// A value, and where it was set. What was not set is at [`Place::Settings`].
#[derive(Clone, Debug)]
pub(super) struct Found<T> {
    pub(super) value: T,
    pub(super) place: Place,
}

impl<'a> Section<'a> {
    /// Names every key that is not one of `known`, and the known one that was probably meant.
    pub(super) fn check_keys(&self, known: &[&str], mistakes: &mut Mistakes) {
        let (Some(source), Some(table)) = (self.source, self.table) else { return };
        for key in table.keys() {
            let name: &str = key.get_ref();
            if known.contains(&name) {
                continue;
            }
            let meant = nearest(name, known).map(|known| format!("; did you mean `{known}`?"));
            let meant = meant.unwrap_or_else(|| {
                let words: Vec<String> = known.iter().map(|known| format!("`{known}`")).collect();
                format!("; the keys here are {}", one_of(&words).replace(" or ", " and "))
            });
            let message = format!("unknown key `{}{name}`{meant}", self.name);
            mistakes.add(&source.place(&key.span()), message);
        }
    }

    /// Whether `key` is set, in the file or by a flag.
    pub(super) fn is_set(&self, key: &str) -> bool {
        let name = format!("{}{key}", self.name);
        self.in_file(key).is_some() || self.args.is_some_and(|args| args.setting(&name).is_some())
    }

    /// The value in the file, and its place.
    pub(super) fn in_file(&self, key: &str) -> Option<(Place, &'a Spanned<DeValue<'a>>)> {
        let (source, table) = (self.source?, self.table?);
        let (_, value) = table.iter().find(|(name, _)| name.get_ref() == key)?;
        Some((source.place(&value.span()), value))
    }

    /// Where the table was begun: what it lacks is told there.
    pub(super) fn place(&self) -> Place {
        let first = self
            .table
            .and_then(|table| table.keys().map(|key| key.span()).min_by_key(|span| span.start));
        match (self.source, first) {
            (Some(source), Some(span)) => source.place(&span),
            _ => Place::Settings,
        }
    }

    /// What `key` is set to: by a flag, else by the file. Both are read, so that a mistake in the
    /// file is told even while a flag goes before it.
    pub(super) fn read<T>(
        &self,
        key: &str,
        mistakes: &mut Mistakes,
        read: impl Fn(Value<'a>) -> Result<T, String>,
    ) -> Option<Found<T>> {
        let name = format!("{}{key}", self.name);
        let mut one = |place: Place, value: Value<'a>| match read(value) {
            Ok(value) => Some(Found { value, place }),
            Err(message) => {
                mistakes.add(&place, format!("`{name}`: {message}"));
                None
            }
        };
        let in_file =
            self.in_file(key).and_then(|(place, value)| one(place, Value::Toml(value.get_ref())));
        let by_flag = self
            .args
            .and_then(|args| args.setting(&name))
            .and_then(|(place, text)| one(place, Value::Text(text)));
        by_flag.or(in_file)
    }

    /// As [`Section::read`], with a default.
    pub(super) fn read_or<T>(
        &self,
        key: &str,
        default: T,
        mistakes: &mut Mistakes,
        read: impl Fn(Value<'a>) -> Result<T, String>,
    ) -> Found<T> {
        let found = self.read(key, mistakes, read);
        found.unwrap_or(Found { value: default, place: Place::Settings })
    }

    /// The table `key` of this one, as a section whose keys are named `name` and their own.
    pub(super) fn table(
        &self,
        key: &str,
        name: &'static str,
        mistakes: &mut Mistakes,
    ) -> Section<'a> {
        let mut table = None;
        if let Some((place, value)) = self.in_file(key) {
            match value.get_ref() {
                DeValue::Table(found) => table = Some(found),
                _ => mistakes.add(&place, format!("`{key}` is a table: write [{key}] above it")),
            }
        }
        Section { source: self.source, name, table, args: self.args }
    }

    /// The tables of the list `key`, each with its place.
    pub(super) fn tables(
        &self,
        key: &str,
        name: &'static str,
        mistakes: &mut Mistakes,
    ) -> Vec<(Place, Section<'a>)> {
        let (Some(source), Some((place, value))) = (self.source, self.in_file(key)) else {
            return Vec::new();
        };
        let DeValue::Array(items) = value.get_ref() else {
            mistakes
                .add(&place, format!("`{key}` is a list of tables: write [[{key}]] above each"));
            return Vec::new();
        };
        let mut sections = Vec::new();
        for item in items {
            let place = source.place(&item.span());
            match item.get_ref() {
                DeValue::Table(table) => {
                    let section =
                        Section { source: self.source, name, table: Some(table), args: None };
                    sections.push((place, section));
                }
                _ => mistakes.add(&place, format!("each `{key}` is a table: write [[{key}]]")),
            }
        }
        sections
    }
}

/// The known key that `name` is probably a slip of.
fn nearest<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    let distance = |known: &str| strsim::damerau_levenshtein(name, known);
    let best = known.iter().min_by_key(|known| distance(known))?;
    // A third of the letters may differ: `max_lock` is `max_locks`, `fold` is nothing.
    (distance(best) <= best.len().max(name.len()) / 3).then_some(*best)
}
