//! The effective configuration as TOML, each value with where it came from, secrets masked.

use std::fmt::Write as _;

use super::tree::{Entry, Item, Origin, Table, Value, join};

/// Column at which the origins begin, where the line is shorter.
const ORIGIN_COLUMN: usize = 48;

/// Renders a tree; a default carries no remark.
pub(super) fn render(tree: &Table) -> String {
    let mut out = String::new();
    section(&mut out, "", tree);
    out
}

fn section(out: &mut String, path: &str, table: &Table) {
    let is_section = |entry: &&Entry| section_of(&entry.item).is_some();
    for entry in table.entries().iter().filter(|entry| !is_section(entry)) {
        let line = format!(
            "{} = {}",
            join("", &entry.key),
            value(&entry.key, &entry.item.value)
        );
        match &entry.item.origin {
            Origin::Default => out.push_str(&line),
            origin => {
                let _ = write!(out, "{line:<ORIGIN_COLUMN$} # {origin}");
            }
        }
        out.push('\n');
    }
    for entry in table.entries().iter().filter(is_section) {
        let path = join(path, &entry.key);
        match section_of(&entry.item) {
            Some(Section::One(table)) => {
                let _ = writeln!(out, "{}[{path}]", if out.is_empty() { "" } else { "\n" });
                section(out, &path, table);
            }
            Some(Section::Many(tables)) => {
                for table in tables {
                    let _ = writeln!(out, "\n[[{path}]]");
                    section(out, &path, table);
                }
            }
            None => {}
        }
    }
}

enum Section<'a> {
    One(&'a Table),
    Many(Vec<&'a Table>),
}

fn section_of(item: &Item) -> Option<Section<'_>> {
    match &item.value {
        Value::Table(table) => Some(Section::One(table)),
        Value::Array(items) if !items.is_empty() => items
            .iter()
            .map(|item| match &item.value {
                Value::Table(table) => Some(table),
                _ => None,
            })
            .collect::<Option<Vec<_>>>()
            .map(Section::Many),
        _ => None,
    }
}

fn value(key: &str, value: &Value) -> String {
    if is_secret(key) {
        return "\"********\"".to_owned();
    }
    plain(value)
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => quoted(text),
        Value::Integer(number) => number.to_string(),
        Value::Float(number) if number.fract() == 0.0 => format!("{number:.1}"),
        Value::Float(number) => number.to_string(),
        Value::Boolean(value) => value.to_string(),
        Value::Datetime(text) => text.clone(),
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(|item| plain(&item.value)).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Table(table) => {
            let pairs: Vec<String> = table
                .entries()
                .iter()
                .map(|e| {
                    format!(
                        "{} = {}",
                        join("", &e.key),
                        self::value(&e.key, &e.item.value)
                    )
                })
                .collect();
            format!("{{ {} }}", pairs.join(", "))
        }
        Value::Text(text) if is_bare(text) => text.clone(),
        Value::Text(text) => quoted(text),
    }
}

/// Text from the environment that TOML reads as it stands: a number, true, false, a list or a table.
fn is_bare(text: &str) -> bool {
    toml::de::DeValue::parse(text).is_ok()
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// By name, so that a key added later is masked without anybody thinking of it.
fn is_secret(key: &str) -> bool {
    let key = key.to_lowercase();
    let names = ["secret", "password", "passwd", "private_key", "api_key"];
    let harmless = ["_file", "_bytes", "_at_once"];
    !harmless.iter().any(|end| key.ends_with(end))
        && (names.iter().any(|name| key.contains(name)) || key.ends_with("token"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::Path;

    use super::super::tree;
    use super::*;

    #[test]
    fn what_is_shown_reads_back_the_same() {
        let text = "[a]\nx = 1\nf = 2.0\ns = \"q\\\"q\"\nl = [1, 2]\n\n[[a.r]]\nk = \"v\"\n\n[[a.r]]\nk = \"w\"\n\n[b]\ny = false\n";
        let tree = tree::parse(text, Path::new("t")).unwrap();
        let shown = render(&tree);
        let again: toml::Table = shown.parse().unwrap();
        assert_eq!(again, text.parse::<toml::Table>().unwrap(), "{shown}");
        assert!(shown.contains("# t:2:5"), "{shown}");
    }

    #[test]
    fn secrets_are_masked_by_name_and_their_files_and_sizes_are_not() {
        let tree = tree::parse(
            "client_secret = \"hush\"\nsecret_file = \"/run/x\"\ntoken_ttl_s = 5\npassword_hash_memory_bytes = 77",
            Path::new("t"),
        )
        .unwrap();
        let shown = render(&tree);
        assert!(
            !shown.contains("hush")
                && ["/run/x", "= 5", "= 77"]
                    .iter()
                    .all(|part| shown.contains(part)),
            "{shown}"
        );
    }
}
