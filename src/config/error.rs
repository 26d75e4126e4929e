//! What is wrong with a configuration, where, and the nearest right name.
//!
//! One error is one sentence that an operator can act on: place, key, complaint, proposal.

use std::fmt;
use std::path::Path;

use serde::de::{Expected, Unexpected};

use super::tree::{Origin, join};

/// Names further away than this (Damerau-Levenshtein, relative) are not proposed.
const SIMILARITY_MIN: f64 = 0.5;

/// A longer list of possible names is shown only where nothing can be proposed.
const LISTED_BESIDE_PROPOSAL_MAX: usize = 12;

/// Why a configuration was refused.
#[derive(Debug, Clone, PartialEq)]
pub struct ConfigError {
    /// `None` until the decoder knows where it was.
    origin: Option<Origin>,
    /// Dotted path of the key, empty where the whole file is meant.
    path: Option<String>,
    complaint: Complaint,
}

#[derive(Debug, Clone, PartialEq)]
enum Complaint {
    Unreadable {
        path: String,
        reason: String,
    },
    Syntax(String),
    UnknownKey {
        key: String,
        known: &'static [&'static str],
    },
    UnknownName {
        name: String,
        known: &'static [&'static str],
    },
    MissingKey(&'static str),
    Value(String),
}

impl ConfigError {
    pub(super) fn unreadable(path: &Path, reason: &str) -> ConfigError {
        let complaint = Complaint::Unreadable {
            path: path.display().to_string(),
            reason: reason.to_owned(),
        };
        ConfigError {
            origin: None,
            path: None,
            complaint,
        }
    }

    pub(super) fn syntax(origin: Origin, message: &str) -> ConfigError {
        ConfigError {
            origin: Some(origin),
            path: None,
            complaint: Complaint::Syntax(message.to_owned()),
        }
    }

    /// A value that has the right type and still cannot be.
    pub(super) fn value(message: impl Into<String>) -> ConfigError {
        ConfigError {
            origin: None,
            path: None,
            complaint: Complaint::Value(message.into()),
        }
    }

    /// Says where it happened, unless something further in already did.
    pub(super) fn at(mut self, origin: &Origin, path: &str) -> ConfigError {
        if self.origin.is_none() {
            self.origin = Some(origin.clone());
            self.path = Some(path.to_owned());
        }
        self
    }

    /// The place is a key that `table` does not have.
    pub(super) fn at_key(self, origin: &Origin, table: &str, key: &str) -> ConfigError {
        let path = if matches!(self.complaint, Complaint::UnknownKey { .. }) {
            table.to_owned()
        } else {
            join(table, key)
        };
        self.at(origin, &path)
    }

    fn proposal(&self) -> Option<String> {
        let (name, known) = match &self.complaint {
            Complaint::UnknownKey { key, known } => (key, known),
            Complaint::UnknownName { name, known } => (name, known),
            _ => return None,
        };
        let nearest = nearest(name, known)?;
        Some(match (&self.origin, &self.complaint) {
            (Some(Origin::Env(variable)), Complaint::UnknownKey { .. }) => {
                let level = self
                    .path
                    .as_deref()
                    .filter(|path| !path.is_empty())
                    .map_or(0, |path| path.split('.').count());
                super::env::with_level(variable, level, nearest)
            }
            _ => format!("{nearest:?}"),
        })
    }
}

/// The known name most like the one given, if any is alike at all.
pub(crate) fn nearest<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    let name = name.to_lowercase();
    known
        .iter()
        .map(|candidate| (likeness(&name, candidate), *candidate))
        .filter(|(likeness, _)| *likeness >= SIMILARITY_MIN)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

/// A part of the right name (`port` for `port_max`) is nearly right, however much is missing.
fn likeness(name: &str, candidate: &str) -> f64 {
    let whole = strsim::normalized_damerau_levenshtein(name, candidate);
    let part = name.len() >= 3 && (candidate.contains(name) || name.contains(candidate));
    if part { whole.max(0.75) } else { whole }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(origin) = self
            .origin
            .as_ref()
            .filter(|origin| **origin != Origin::Default)
        {
            write!(f, "{origin}: ")?;
        }
        let path = self.path.as_deref().unwrap_or("");
        match &self.complaint {
            Complaint::Unreadable { path, reason } => write!(f, "cannot read {path}: {reason}")?,
            Complaint::Syntax(message) => write!(f, "not valid TOML: {message}")?,
            Complaint::UnknownKey { key, .. } if path.is_empty() => {
                write!(f, "there is no section {key:?}")?
            }
            Complaint::UnknownKey { key, .. } => write!(f, "there is no key {key:?} in [{path}]")?,
            Complaint::UnknownName { name, .. } => write!(f, "{path}: {name:?} is not possible")?,
            Complaint::MissingKey(key) => write!(f, "the key {key:?} is missing in [{path}]")?,
            Complaint::Value(message) if path.is_empty() => f.write_str(message)?,
            Complaint::Value(message) => write!(f, "{path}: {message}")?,
        }
        let proposal = self.proposal();
        if let Some(proposal) = &proposal {
            write!(f, "; did you mean {proposal}?")?;
        }
        match &self.complaint {
            Complaint::UnknownKey { known, .. } | Complaint::UnknownName { known, .. }
                if proposal.is_none() || known.len() <= LISTED_BESIDE_PROPOSAL_MAX =>
            {
                write!(f, " (possible: {})", known.join(", "))
            }
            _ => Ok(()),
        }
    }
}

impl std::error::Error for ConfigError {}

impl serde::de::Error for ConfigError {
    fn custom<T: fmt::Display>(message: T) -> ConfigError {
        ConfigError::value(message.to_string())
    }

    fn invalid_type(got: Unexpected<'_>, expected: &dyn Expected) -> ConfigError {
        ConfigError::value(format!("expected {}, got {}", wanted(expected), shown(got)))
    }

    fn invalid_value(got: Unexpected<'_>, expected: &dyn Expected) -> ConfigError {
        ConfigError::invalid_type(got, expected)
    }

    fn unknown_variant(name: &str, known: &'static [&'static str]) -> ConfigError {
        let complaint = Complaint::UnknownName {
            name: name.to_owned(),
            known,
        };
        ConfigError {
            origin: None,
            path: None,
            complaint,
        }
    }

    fn unknown_field(key: &str, known: &'static [&'static str]) -> ConfigError {
        let complaint = Complaint::UnknownKey {
            key: key.to_owned(),
            known,
        };
        ConfigError {
            origin: None,
            path: None,
            complaint,
        }
    }

    fn missing_field(key: &'static str) -> ConfigError {
        ConfigError {
            origin: None,
            path: None,
            complaint: Complaint::MissingKey(key),
        }
    }
}

/// An operator does not read Rust's type names.
fn wanted(expected: &dyn Expected) -> String {
    let name = expected.to_string();
    let number = |max: u128| format!("a whole number from 0 to {max}");
    match name.as_str() {
        "u8" => number(u8::MAX.into()),
        "u16" => number(u16::MAX.into()),
        "u32" => number(u32::MAX.into()),
        "u64" | "usize" => number(u64::MAX.into()),
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number".to_owned(),
        "f32" | "f64" => "a number".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a sequence" => "a list".to_owned(),
        _ if name.starts_with("struct ") => "a section".to_owned(),
        _ => name,
    }
}

fn shown(got: Unexpected<'_>) -> String {
    match got {
        Unexpected::Str(text) => format!("{text:?}"),
        Unexpected::Unsigned(number) => number.to_string(),
        Unexpected::Signed(number) => number.to_string(),
        Unexpected::Float(number) => number.to_string(),
        Unexpected::Bool(value) => value.to_string(),
        Unexpected::Seq => "a list".to_owned(),
        Unexpected::Map => "a section".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn the_nearest_name_is_proposed_and_a_far_one_is_not() {
        let known = ["listen", "max_connections", "keep_alive_s_max"];
        assert_eq!(nearest("lsiten", &known), Some("listen"));
        assert_eq!(nearest("connections", &known), Some("max_connections"));
        assert_eq!(nearest("LISTEN", &known), Some("listen"));
        assert_eq!(nearest("zzz", &known), None);
    }
}
