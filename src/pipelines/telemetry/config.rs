//! The `[telemetry]` section.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

/// How telemetry is judged and stored.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TelemetryConfig {
    /// Off where an outside service reads `telemetry.raw` instead. Default true.
    pub enabled: bool,
    /// Partitions of the topics that the pipeline makes if they are absent. Default 6.
    pub partitions: u32,
    /// Kind of a record that names none (a Kafka client's own records). Default `devices`.
    pub default_kind: String,
    /// Records after which a batch is committed to the store. Default 5000.
    pub commit_records: usize,
    /// Milliseconds after which a smaller batch is committed. A larger value wears flash less and
    /// shows records later. Default 200.
    pub commit_age_ms: u64,
    /// Bytes of record batches read from one partition at a time. Default 512 KiB.
    pub poll_bytes: usize,
    /// Accepted records whose redelivery is recognised; about 50 bytes of memory each. Default 200000.
    pub duplicate_window_records: usize,
    /// Seconds after which a redelivery is taken for a new record. Default 86400.
    pub duplicate_window_s: u32,
    /// Declared kinds. Those given here are added to the built-in ones or replace them by name.
    #[serde(deserialize_with = "with_built_in")]
    pub schemas: BTreeMap<String, Schema>,
}

/// What a payload of one kind must and should hold.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Schema {
    /// False takes a built-in kind away. Default true.
    pub enabled: bool,
    /// Keys without which a record is rejected. Default none.
    pub required: Vec<String>,
    /// Keys that are filled with null and listed where they are absent. Default none.
    pub expected: Vec<String>,
    /// The key that names the device; `device_id` and the record's key stand in for it. Default `device_id`.
    pub device: String,
    /// Keys that hold the event time, tried in this order. Default `ts`.
    pub timestamps: Vec<String>,
}

impl Default for Schema {
    fn default() -> Schema {
        Schema {
            enabled: true,
            required: Vec::new(),
            expected: Vec::new(),
            device: "device_id".to_owned(),
            timestamps: vec!["ts".to_owned()],
        }
    }
}

impl Default for TelemetryConfig {
    fn default() -> TelemetryConfig {
        TelemetryConfig {
            enabled: true,
            partitions: 6,
            default_kind: "devices".to_owned(),
            commit_records: 5_000,
            commit_age_ms: 200,
            poll_bytes: 512 * 1024,
            duplicate_window_records: 200_000,
            duplicate_window_s: 86_400,
            schemas: built_in(),
        }
    }
}

impl TelemetryConfig {
    /// The first thing that cannot work, as a sentence.
    pub fn check(&self) -> Result<(), String> {
        if self.partitions == 0 {
            return Err("telemetry.partitions must be at least 1".to_owned());
        }
        if self.commit_records == 0 || self.poll_bytes == 0 {
            return Err(
                "telemetry.commit_records and telemetry.poll_bytes must be at least 1".to_owned(),
            );
        }
        if !self
            .schemas
            .get(&self.default_kind)
            .is_some_and(|schema| schema.enabled)
        {
            return Err(format!(
                "telemetry.default_kind {:?} has no schema",
                self.default_kind
            ));
        }
        match self
            .schemas
            .iter()
            .find(|(_, schema)| schema.device.is_empty())
        {
            Some((kind, _)) => Err(format!("telemetry.schemas.{kind}.device must not be empty")),
            None => Ok(()),
        }
    }
}

fn built_in() -> BTreeMap<String, Schema> {
    let keys = |names: &[&str]| {
        names
            .iter()
            .map(|name| (*name).to_owned())
            .collect::<Vec<_>>()
    };
    let kind = |name: &str, device: &str, expected: &[&str]| {
        (
            name.to_owned(),
            Schema {
                device: device.to_owned(),
                expected: keys(expected),
                ..Schema::default()
            },
        )
    };
    let mut schemas = BTreeMap::from([
        kind(
            "sites",
            "site_id",
            &["site_id", "power_kw", "energy_kwh", "status"],
        ),
        kind(
            "inverters",
            "inverter_id",
            &["inverter_id", "power_kw", "temperature_c", "status"],
        ),
        kind(
            "strings",
            "string_id",
            &["string_id", "voltage_v", "current_a"],
        ),
        kind(
            "weather",
            "station_id",
            &["temperature_c", "irradiance_w_m2", "wind_speed_m_s"],
        ),
        kind(
            "grid",
            "meter_id",
            &["voltage_v", "frequency_hz", "power_kw"],
        ),
    ]);
    let devices = Schema {
        required: keys(&["device_id", "device_ts"]),
        timestamps: keys(&["ts", "device_ts"]),
        ..Schema::default()
    };
    schemas.insert("devices".to_owned(), devices);
    schemas
}

fn with_built_in<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, Schema>, D::Error> {
    let mut schemas = built_in();
    schemas.extend(BTreeMap::<String, Schema>::deserialize(deserializer)?);
    Ok(schemas)
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing
    )]
    use super::*;

    #[test]
    fn a_declared_schema_joins_the_built_in_ones() {
        let config: TelemetryConfig = toml::from_str(
            "[schemas.pumps]\nrequired = [\"pump_id\"]\n[schemas.grid]\nenabled = false",
        )
        .unwrap();
        assert_eq!(config.schemas["pumps"].required, ["pump_id"]);
        assert_eq!(
            config.schemas["devices"].required,
            ["device_id", "device_ts"]
        );
        assert!(!config.schemas["grid"].enabled);
        assert_eq!(config.check(), Ok(()));
    }

    #[test]
    fn an_unknown_key_and_a_kind_without_schema_are_refused() {
        assert!(toml::from_str::<TelemetryConfig>("[schemas.pumps]\nrequierd = []").is_err());
        let config: TelemetryConfig = toml::from_str("default_kind = \"pumps\"").unwrap();
        assert_eq!(
            config.check().unwrap_err(),
            "telemetry.default_kind \"pumps\" has no schema"
        );
    }
}
