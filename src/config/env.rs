//! Overrides from the environment: `HOLDFAST_<SECTION>__<KEY>=value`, two underscores between levels.
//!
//! `HOLDFAST_MQTT__LISTEN=127.0.0.1:2883` is `listen` in `[mqtt]`. Lists and tables are written as
//! TOML values. A variable with two underscores that names nothing is refused; one with a section's
//! name and a single underscore is refused too, because it is a slip that would otherwise do nothing.
//! Other variables that happen to begin with `HOLDFAST_` belong to somebody else.

use std::ffi::OsString;
use std::sync::Arc;

use super::ConfigError;
use super::tree::{Origin, Table};

const PREFIX: &str = "HOLDFAST_";
const LEVEL: &str = "__";

/// The variable that sets a dotted path.
pub(super) fn variable(path: &str) -> String {
    format!("{PREFIX}{}", path.replace('.', LEVEL).to_uppercase())
}

/// A variable with another name at one of its levels.
pub(super) fn with_level(variable: &str, level: usize, name: &str) -> String {
    let rest = variable.strip_prefix(PREFIX).unwrap_or(variable);
    let name = name.to_uppercase();
    let levels: Vec<&str> = rest
        .split(LEVEL)
        .enumerate()
        .map(|(at, part)| if at == level { name.as_str() } else { part })
        .collect();
    format!("{PREFIX}{}", levels.join(LEVEL))
}

/// Reads the overrides among `variables`; `sections` are the names that exist.
pub(super) fn read(
    variables: impl Iterator<Item = (OsString, OsString)>,
    sections: &[&str],
) -> Result<Table, ConfigError> {
    let mut found = Vec::new();
    for (name, value) in variables {
        let Some(name) = name.to_str() else { continue };
        let Some(rest) = name.strip_prefix(PREFIX) else {
            continue;
        };
        let origin = Origin::Env(Arc::from(name));
        if !rest.contains(LEVEL) {
            single_underscore(rest, sections).map_err(|e| e.at(&origin, ""))?;
            continue;
        }
        let Ok(value) = value.into_string() else {
            return Err(ConfigError::value("the value is not valid UTF-8").at(&origin, ""));
        };
        found.push((rest.to_lowercase(), value, origin));
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    let mut table = Table::default();
    for (name, value, origin) in found {
        let path: Vec<&str> = name.split(LEVEL).collect();
        table.set(&path, &value, &origin).map_err(|other| {
            ConfigError::value(format!("contradicts the {other}")).at(&origin, "")
        })?;
    }
    Ok(table)
}

fn single_underscore(rest: &str, sections: &[&str]) -> Result<(), ConfigError> {
    let rest = rest.to_lowercase();
    let slip = sections.iter().find_map(|section| {
        let key = rest.strip_prefix(section)?.strip_prefix('_')?;
        (!key.is_empty()).then(|| variable(&format!("{section}.{key}")))
    });
    match slip {
        Some(right) => Err(ConfigError::value(format!(
            "two underscores stand between section and key; did you mean {right}?"
        ))),
        None => Ok(()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::super::tree::Value;
    use super::*;

    fn read_all(pairs: &[(&str, &str)]) -> Result<Table, ConfigError> {
        read(
            pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())),
            &["mqtt", "log"],
        )
    }

    #[test]
    fn two_underscores_are_a_level_and_case_is_folded() {
        let table = read_all(&[
            ("HOLDFAST_MQTT__LISTEN", "a"),
            ("PATH", "b"),
            ("HOLDFAST_BIN", "c"),
        ])
        .unwrap();
        let Value::Table(mqtt) = &table.get("mqtt").unwrap().value else {
            panic!("no table")
        };
        assert_eq!(mqtt.get("listen").unwrap().value, Value::Text("a".into()));
        assert_eq!(table.entries().len(), 1);
    }

    #[test]
    fn a_single_underscore_after_a_section_is_refused_with_the_right_name() {
        let error = read_all(&[("HOLDFAST_MQTT_LISTEN", "a")])
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("did you mean HOLDFAST_MQTT__LISTEN"),
            "{error}"
        );
    }

    #[test]
    fn a_value_and_a_table_at_one_path_contradict_each_other() {
        let error = read_all(&[("HOLDFAST_MQTT__A", "1"), ("HOLDFAST_MQTT__A__B", "2")])
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("HOLDFAST_MQTT__A__B") && error.contains("contradicts"),
            "{error}"
        );
    }
}
