//! The configuration of a node: one section per room, from file, environment and command line.
//!
//! Owns: where settings come from and who wins (command line > environment > file > default), and
//! errors that name the place and the nearest right name. The rooms own their sections; to add one,
//! add its struct as a field of [`Config`] and its keys to `packaging/holdfast.toml`, which a test
//! holds against the code.
//!
//! Knows no room's rules: a section says of itself what it can be.

mod decode;
mod env;
mod error;
mod machine;
mod sections;
mod show;
mod tree;

use std::cell::RefCell;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use holdfast_storage::log::{LogOptions, Retention};
use serde::Deserialize;

pub use error::ConfigError;
pub(crate) use error::nearest as nearest_name;
pub use sections::{Durability, LogConfig, LogFormat, LogLevel, LoggingConfig, NodeConfig};

use decode::{Shape, decode};
use tree::{Origin, Table};

/// Read where no other file is named; absent is not an error.
pub const SYSTEM_FILE: &str = "/etc/holdfast/holdfast.toml";

/// The documented default file; its commented values are the code's (a test says so).
pub const DEFAULT_FILE: &str = include_str!("../../packaging/holdfast.toml");

/// Everything a node can be told.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    pub node: NodeConfig,
    pub log: LogConfig,
    pub logging: LoggingConfig,
    pub auth: crate::auth::AuthConfig,
    pub mqtt: crate::mqtt::MqttConfig,
    pub kafka: crate::kafka::KafkaConfig,
    pub http: crate::http::HttpConfig,
    pub speed: crate::http::SpeedConfig,
    pub telemetry: crate::pipelines::telemetry::TelemetryConfig,
    pub live: crate::live::LiveConfig,
    pub simulate: crate::simulate::SimulateConfig,
}

/// Where settings are taken from.
#[derive(Debug, Default)]
pub struct Sources {
    /// A file that must exist.
    pub file: Option<PathBuf>,
    /// Overrides and everything else in the environment.
    pub env: Vec<(OsString, OsString)>,
    /// Command line options: option, dotted key, value.
    pub flags: Vec<Flag>,
}

/// A setting given as a command line option.
#[derive(Debug, Clone)]
pub struct Flag {
    /// As the operator typed it, for errors (`--mqtt`).
    pub option: &'static str,
    /// Section and key (`mqtt.listen`).
    pub key: &'static str,
    pub value: String,
}

/// A configuration and where each of its values came from.
#[derive(Debug)]
pub struct Loaded {
    pub config: Config,
    tree: Table,
    shape: Shape,
}

impl Config {
    /// Reads and decodes all sources.
    pub fn load(sources: &Sources) -> Result<Loaded, ConfigError> {
        let mut tree = match &sources.file {
            Some(path) => tree::read_file(path)?,
            None => Table::default(),
        };
        let joined = |_: &str| false;
        tree.lay_over(
            env::read(sources.env.iter().cloned(), &section_names()?)?,
            &joined,
        );
        for flag in &sources.flags {
            let mut table = Table::default();
            let path: Vec<&str> = flag.key.split('.').collect();
            let origin = Origin::Flag(Arc::from(flag.option));
            if table.set(&path, &flag.value, &origin).is_ok() {
                tree.lay_over(table, &joined);
            }
        }
        let shape = RefCell::new(Shape::default());
        let config: Config = decode(&tree, &shape)?;
        config
            .validate()
            .map_err(|sentence| tree.located(&sentence))?;
        Ok(Loaded {
            config,
            tree,
            shape: shape.into_inner(),
        })
    }

    /// What no type can say; the sentence begins with the dotted key it is about.
    fn validate(&self) -> Result<(), String> {
        self.log.validate()?;
        self.simulate.validate()?;
        self.auth.validate()?;
        self.mqtt.validate()?;
        self.telemetry.check()
    }

    /// How the log of this node is opened.
    pub fn log_options(&self) -> LogOptions {
        LogOptions {
            in_flight_bytes_max: self.log.in_flight_bytes_max,
            segment_bytes: self.log.segment_bytes,
            batch_bytes_max: self.log.batch_bytes_max,
            retention: Retention {
                // -1 is without bound.
                ms: u64::try_from(self.log.retention_ms).ok(),
                bytes: u64::try_from(self.log.retention_bytes).ok(),
            },
            cleaner_interval: Duration::from_millis(self.log.retention_check_interval_ms),
            segment_age_max: Duration::from_millis(self.log.segment_age_max_ms),
            producer_expiry: Duration::from_millis(self.log.producer_id_expiration_ms),
            cleaner_bytes_per_second: self.log.cleaner_bytes_per_second,
            memory_bytes: self.log.memory_bytes(),
            scrub_interval: Duration::from_millis(self.log.scrub_interval_ms),
            disk_reserve_bytes: self.log.disk_reserve_bytes,
            disk_bytes_max: (self.log.disk_bytes_max > 0).then_some(self.log.disk_bytes_max),
            ..LogOptions::new(&self.node.data_dir)
        }
    }
}

impl Loaded {
    /// Whether anybody set this dotted key.
    pub fn is_set(&self, key: &str) -> bool {
        self.tree.find(key).is_some()
    }

    /// Effective settings as TOML, secrets masked, each value that is not a default with its origin.
    pub fn show(&self) -> Result<String, ConfigError> {
        let mut effective = defaults()?;
        // An entry of a table with free keys stands beside the built-in ones and replaces one whole.
        let is_map = |path: &str| self.shape.maps.iter().any(|map| map == path);
        effective.lay_over(self.tree.clone(), &|path| {
            path.rsplit_once('.')
                .is_some_and(|(parent, _)| is_map(parent))
        });
        Ok(show::render(&effective))
    }
}

/// The file a node reads: the one named, else the system's if there is one.
pub fn file_or_system(named: Option<&Path>) -> Option<PathBuf> {
    match named {
        Some(path) => Some(path.to_owned()),
        None => Some(PathBuf::from(SYSTEM_FILE)).filter(|path| path.exists()),
    }
}

fn section_names() -> Result<Vec<&'static str>, ConfigError> {
    let shape = RefCell::new(Shape::default());
    decode::<Config>(&Table::default(), &shape)?;
    Ok(shape
        .into_inner()
        .structs
        .get("")
        .map(|names| names.to_vec())
        .unwrap_or_default())
}

/// A commented setting of the default file that has no default value, only an example.
const UNSET: &str = "# unset by default";

/// The default file's settings, without those that are unset by default.
fn defaults() -> Result<Table, ConfigError> {
    let mut table = tree::parse(&uncommented(false), Path::new("holdfast.toml"))?;
    table.forget_origins();
    Ok(table)
}

/// The default file with its commented settings in force. `#key = value` and `#[[table]]` are
/// settings, prose has a space behind the `#`.
fn uncommented(with_unset: bool) -> String {
    let setting = |line: &str| -> String {
        let body = line
            .strip_prefix('#')
            .filter(|rest| !rest.is_empty() && !rest.starts_with([' ', '#']));
        match body {
            Some(body) if with_unset || !body.contains(UNSET) => body.to_owned(),
            Some(_) => String::new(),
            None => line.to_owned(),
        }
    };
    DEFAULT_FILE
        .lines()
        .map(|line| setting(line) + "\n")
        .collect()
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]
mod tests;
