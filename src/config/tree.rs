//! Settings as a tree in which every value remembers where it was written.
//!
//! Owns: the tree, reading it from TOML text, laying one tree over another. Knows no section and no
//! key: which of them exist is the business of the structs it is decoded into (`decode`).
//!
//! Limits: a configuration file of at most [`FILE_BYTES_MAX`] bytes.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::ConfigError;

/// Larger files are refused: no configuration of a node comes near it.
pub(super) const FILE_BYTES_MAX: u64 = 1 << 20;

/// Where a value was written; errors and `config show` name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Origin {
    /// The value that the code takes when nobody says anything.
    Default,
    /// A place in a file, both numbers counted from 1.
    File {
        path: Arc<Path>,
        line: usize,
        column: usize,
    },
    /// An environment variable.
    Env(Arc<str>),
    /// A command line option.
    Flag(Arc<str>),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File { path, line, column } => write!(f, "{}:{line}:{column}", path.display()),
            Origin::Env(name) => write!(f, "environment variable {name}"),
            Origin::Flag(name) => write!(f, "option {name}"),
        }
    }
}

/// One value and where it came from.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Item {
    pub value: Value,
    pub origin: Origin,
}

/// A value as TOML knows it, and [`Value::Text`] whose type the decoder decides.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    String(String),
    Integer(i128),
    Float(f64),
    Boolean(bool),
    Datetime(String),
    Array(Vec<Item>),
    Table(Table),
    /// From the environment or a command line option: a number, a word or TOML, as the key wants it.
    Text(String),
}

/// Keys in the order in which they were written.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Table(Vec<Entry>);

/// One key of a table.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub key: String,
    pub key_origin: Origin,
    pub item: Item,
}

impl Table {
    pub(super) fn entries(&self) -> &[Entry] {
        &self.0
    }

    pub(super) fn get(&self, key: &str) -> Option<&Item> {
        self.0
            .iter()
            .find(|entry| entry.key == key)
            .map(|entry| &entry.item)
    }

    /// The value at a dotted path of plain keys; `key[0]` is the first of a list.
    pub(super) fn find(&self, path: &str) -> Option<&Item> {
        let (key, rest) = match path.split_once('.') {
            Some((key, rest)) => (key, Some(rest)),
            None => (path, None),
        };
        let found = match key.strip_suffix(']').and_then(|key| key.split_once('[')) {
            None => self.get(key)?,
            Some((key, place)) => match &self.get(key)?.value {
                Value::Array(items) => items.get(place.parse::<usize>().ok()?)?,
                _ => return None,
            },
        };
        match (rest, &found.value) {
            (None, _) => Some(found),
            (Some(rest), Value::Table(table)) => table.find(rest),
            _ => None,
        }
    }

    /// A sentence that begins with a dotted key, as an error at the place where that key was set.
    pub(super) fn located(&self, sentence: &str) -> ConfigError {
        let place = sentence.split([' ', ':']).next().unwrap_or("");
        let key = sentence.split([' ', ':', '[']).next().unwrap_or("");
        let error = ConfigError::value(sentence);
        match self.find(place).or_else(|| self.find(key)) {
            Some(item) => error.at(&item.origin, ""),
            None => error,
        }
    }

    /// Lays `upper` over this table: tables are joined key by key, everything else is replaced.
    ///
    /// `whole` says at which dotted paths a table is one value (a map that the code takes whole).
    pub(super) fn lay_over(&mut self, upper: Table, whole: &dyn Fn(&str) -> bool) {
        self.lay_over_at("", upper, whole);
    }

    fn lay_over_at(&mut self, path: &str, upper: Table, whole: &dyn Fn(&str) -> bool) {
        for entry in upper.0 {
            let Some(lower) = self.0.iter_mut().find(|lower| lower.key == entry.key) else {
                self.0.push(entry);
                continue;
            };
            let path = join(path, &entry.key);
            match (&mut lower.item.value, entry.item.value) {
                (Value::Table(below), Value::Table(above)) if !whole(&path) => {
                    below.lay_over_at(&path, above, whole);
                }
                (_, value) => {
                    lower.key_origin = entry.key_origin;
                    lower.item = Item {
                        value,
                        origin: entry.item.origin,
                    };
                }
            }
        }
    }

    /// Makes every value a default.
    pub(super) fn forget_origins(&mut self) {
        for entry in &mut self.0 {
            entry.key_origin = Origin::Default;
            set_origin(&mut entry.item, &Origin::Default);
        }
    }

    /// Puts one value at a path of keys, making the tables on the way.
    ///
    /// Fails with the origin of what stands in the way if a part of the path is no table.
    pub(super) fn set(&mut self, path: &[&str], text: &str, origin: &Origin) -> Result<(), Origin> {
        let Some((key, rest)) = path.split_first() else {
            return Ok(());
        };
        let found = self.0.iter().position(|entry| entry.key == *key);
        if rest.is_empty() {
            if let Some(other) = found.and_then(|at| self.0.get(at)) {
                return Err(other.item.origin.clone());
            }
            let item = Item {
                value: Value::Text(text.to_owned()),
                origin: origin.clone(),
            };
            self.0.push(Entry {
                key: (*key).to_owned(),
                key_origin: origin.clone(),
                item,
            });
            return Ok(());
        }
        let at = found.unwrap_or_else(|| {
            let item = Item {
                value: Value::Table(Table::default()),
                origin: origin.clone(),
            };
            self.0.push(Entry {
                key: (*key).to_owned(),
                key_origin: origin.clone(),
                item,
            });
            self.0.len() - 1
        });
        match self.0.get_mut(at) {
            Some(Entry {
                item:
                    Item {
                        value: Value::Table(table),
                        ..
                    },
                ..
            }) => table.set(rest, text, origin),
            Some(entry) => Err(entry.item.origin.clone()),
            None => Ok(()),
        }
    }
}

/// `a.b` from `a` and `b`; keys that TOML would quote are quoted.
pub(super) fn join(path: &str, key: &str) -> String {
    let bare = !key.is_empty()
        && key
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    let key = if bare {
        key.to_owned()
    } else {
        format!("{key:?}")
    };
    if path.is_empty() {
        key
    } else {
        format!("{path}.{key}")
    }
}

/// Reads a file of settings.
pub(super) fn read_file(path: &Path) -> Result<Table, ConfigError> {
    let unreadable = |reason: String| ConfigError::unreadable(path, &reason);
    let size = std::fs::metadata(path)
        .map_err(|e| unreadable(e.to_string()))?
        .len();
    if size > FILE_BYTES_MAX {
        return Err(unreadable(format!(
            "{size} bytes exceed the limit of {FILE_BYTES_MAX}"
        )));
    }
    let bytes = std::fs::read(path).map_err(|e| unreadable(e.to_string()))?;
    let text = String::from_utf8(bytes).map_err(|e| unreadable(e.to_string()))?;
    parse(&text, path)
}

/// Reads TOML text; `path` is what errors call it.
pub(super) fn parse(text: &str, path: &Path) -> Result<Table, ConfigError> {
    let places = Places {
        text,
        path: path.into(),
    };
    let table = DeTable::parse(text).map_err(|e| {
        let origin = places.origin(e.span().map_or(0, |span| span.start));
        ConfigError::syntax(origin, e.message())
    })?;
    places.table(table.into_inner())
}

/// Reads one TOML value given outside a file; everything in it has the origin given.
pub(super) fn parse_value(text: &str, origin: &Origin) -> Result<Item, String> {
    let value = DeValue::parse(text).map_err(|e| e.message().to_owned())?;
    let places = Places {
        text,
        path: Path::new("").into(),
    };
    let mut item = places.item(value).map_err(|e| e.to_string())?;
    set_origin(&mut item, origin);
    Ok(item)
}

fn set_origin(item: &mut Item, origin: &Origin) {
    item.origin = origin.clone();
    match &mut item.value {
        Value::Array(items) => items.iter_mut().for_each(|item| set_origin(item, origin)),
        Value::Table(table) => {
            for entry in &mut table.0 {
                entry.key_origin = origin.clone();
                set_origin(&mut entry.item, origin);
            }
        }
        _ => {}
    }
}

/// The text that is being read, to turn byte positions into lines and columns.
struct Places<'t> {
    text: &'t str,
    path: Arc<Path>,
}

impl Places<'_> {
    fn origin(&self, at: usize) -> Origin {
        let before = self.text.get(..at).unwrap_or(self.text);
        let line = before.matches('\n').count() + 1;
        let column = before
            .rsplit('\n')
            .next()
            .map_or(0, |tail| tail.chars().count())
            + 1;
        Origin::File {
            path: Arc::clone(&self.path),
            line,
            column,
        }
    }

    fn table(&self, table: DeTable<'_>) -> Result<Table, ConfigError> {
        let mut entries: Vec<_> = table.into_iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        let mut out = Vec::with_capacity(entries.len());
        for (key, value) in entries {
            let key_origin = self.origin(key.span().start);
            out.push(Entry {
                key: key.into_inner().into_owned(),
                key_origin,
                item: self.item(value)?,
            });
        }
        Ok(Table(out))
    }

    fn item(&self, value: Spanned<DeValue<'_>>) -> Result<Item, ConfigError> {
        let origin = self.origin(value.span().start);
        let value = match value.into_inner() {
            DeValue::String(s) => Value::String(s.into_owned()),
            DeValue::Integer(i) => match i128::from_str_radix(i.as_str(), i.radix()) {
                Ok(number) => Value::Integer(number),
                Err(_) => return Err(ConfigError::syntax(origin, "the number is too large")),
            },
            DeValue::Float(f) => match f.as_str().parse() {
                Ok(number) => Value::Float(number),
                Err(_) => return Err(ConfigError::syntax(origin, "not a number")),
            },
            DeValue::Boolean(b) => Value::Boolean(b),
            DeValue::Datetime(d) => Value::Datetime(d.to_string()),
            DeValue::Array(items) => Value::Array(
                items
                    .into_iter()
                    .map(|item| self.item(item))
                    .collect::<Result<_, _>>()?,
            ),
            DeValue::Table(table) => Value::Table(self.table(table)?),
        };
        Ok(Item { value, origin })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;

    fn file(line: usize, column: usize) -> Origin {
        Origin::File {
            path: Path::new("t.toml").into(),
            line,
            column,
        }
    }

    #[test]
    fn values_remember_line_and_column() {
        let table = parse("[mqtt]\n\n  listen = \"x\"\n", Path::new("t.toml")).unwrap();
        let Some(Item {
            value: Value::Table(mqtt),
            ..
        }) = table.get("mqtt")
        else {
            panic!("no table")
        };
        let entry = mqtt.entries().first().unwrap();
        assert_eq!(entry.key_origin, file(3, 3));
        assert_eq!(entry.item.origin, file(3, 12));
    }

    #[test]
    fn columns_count_characters_not_bytes() {
        let table = parse("a = { \"äö\" = 1, b = 2 }", Path::new("t.toml")).unwrap();
        let Some(Item {
            value: Value::Table(a),
            ..
        }) = table.get("a")
        else {
            panic!("no table")
        };
        assert_eq!(a.get("b").unwrap().origin, file(1, 21));
    }

    #[test]
    fn an_upper_tree_replaces_values_and_joins_tables() {
        let mut lower = parse("[a]\nx = 1\ny = [1, 2]\n[b]\nk = 1", Path::new("l")).unwrap();
        let upper = parse("[a]\ny = [3]\n[b]\nm = 2", Path::new("u")).unwrap();
        lower.lay_over(upper, &|path| path == "b");
        let Some(Item {
            value: Value::Table(a),
            ..
        }) = lower.get("a")
        else {
            panic!("no table")
        };
        assert_eq!(a.get("x").unwrap().value, Value::Integer(1));
        let Value::Array(y) = &a.get("y").unwrap().value else {
            panic!("no array")
        };
        assert_eq!(y.len(), 1);
        let Some(Item {
            value: Value::Table(b),
            ..
        }) = lower.get("b")
        else {
            panic!("no table")
        };
        assert!(
            b.get("k").is_none(),
            "a map that is taken whole is replaced whole"
        );
    }

    #[test]
    fn a_syntax_error_names_its_place() {
        let error = parse("[mqtt]\nlisten = \"a", Path::new("t.toml")).unwrap_err();
        assert!(error.to_string().starts_with("t.toml:2:"), "{error}");
    }
}
