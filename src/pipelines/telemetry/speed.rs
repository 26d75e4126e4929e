//! What makes a speed event acceptable (system 2). Pure; shared by the HTTP door and the pipeline.

use std::collections::BTreeMap;

use holdfast_storage::telemetry::SpeedReading;
use serde_json::Value;

use super::timestamps;

/// Longest sensor id.
pub const SENSOR_ID_BYTES_MAX: usize = 128;
/// Largest speed, in the sensor's own unit.
pub const SPEED_MAX: f64 = 1_000_000.0;

/// Why a speed event is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SpeedError {
    /// Not a JSON object at all.
    NotAnObject(String),
    /// By field, one sentence each.
    Fields(BTreeMap<&'static str, String>),
}

/// Judges `{"sensor_id":"sensor-1","speed":42,"ts":1700000000}`; other keys are ignored.
pub fn judge(payload: &[u8], received_ms: i64) -> Result<SpeedReading, SpeedError> {
    let value: Value = serde_json::from_slice(payload)
        .map_err(|cause| SpeedError::NotAnObject(cause.to_string()))?;
    let Value::Object(fields) = value else {
        return Err(SpeedError::NotAnObject(
            "a JSON object is expected".to_owned(),
        ));
    };
    let mut errors = BTreeMap::new();
    let mut field = |name: &'static str, verdict: Result<f64, String>| {
        verdict
            .map_err(|message| errors.insert(name, message))
            .unwrap_or_default()
    };
    let speed = field("speed", speed_of(fields.get("speed")));
    let ts = field("ts", ts_of(fields.get("ts"), received_ms));
    let sensor_id = match fields.get("sensor_id") {
        Some(Value::String(id)) if (1..=SENSOR_ID_BYTES_MAX).contains(&id.len()) => id.clone(),
        None => {
            errors.insert("sensor_id", "sensor_id is required".to_owned());
            String::new()
        }
        Some(_) => {
            errors.insert(
                "sensor_id",
                format!("sensor_id must be a text of 1 to {SENSOR_ID_BYTES_MAX} bytes"),
            );
            String::new()
        }
    };
    if errors.is_empty() {
        Ok(SpeedReading {
            sensor_id,
            speed,
            ts,
        })
    } else {
        Err(SpeedError::Fields(errors))
    }
}

fn speed_of(value: Option<&Value>) -> Result<f64, String> {
    match value.map(Value::as_f64) {
        None => Err("speed is required".to_owned()),
        Some(Some(speed)) if (0.0..=SPEED_MAX).contains(&speed) => Ok(speed),
        Some(_) => Err(format!("speed must be a number from 0 to {SPEED_MAX}")),
    }
}

fn ts_of(value: Option<&Value>, received_ms: i64) -> Result<f64, String> {
    let Some(value) = value else {
        return Err("ts is required".to_owned());
    };
    let seconds = value.as_f64().filter(|seconds| seconds.is_finite());
    let ms = seconds.map(|seconds| (seconds * 1_000.0) as i64);
    match (
        seconds,
        ms.and_then(|ms| timestamps::believable(ms, received_ms)),
    ) {
        (Some(seconds), Some(_)) => Ok(seconds),
        _ => {
            Err("ts must be epoch seconds, after the year 2000 and at most a day ahead".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing
    )]
    use proptest::prelude::*;

    use super::*;

    const NOW: i64 = 1_795_348_800_000;

    fn fields(payload: &str) -> Vec<&'static str> {
        match judge(payload.as_bytes(), NOW) {
            Err(SpeedError::Fields(fields)) => fields.into_keys().collect(),
            other => panic!("{payload}: {other:?}"),
        }
    }

    #[test]
    fn the_contract_example_is_accepted() {
        let reading = judge(
            br#"{"sensor_id":"sensor-1","speed":42,"ts":1700000000}"#,
            NOW,
        )
        .unwrap();
        assert_eq!(
            reading,
            SpeedReading {
                sensor_id: "sensor-1".into(),
                speed: 42.0,
                ts: 1_700_000_000.0
            }
        );
        assert!(
            judge(
                br#"{"sensor_id":"s","speed":0,"ts":1700000000.5,"unit":"km/h"}"#,
                NOW
            )
            .is_ok()
        );
    }

    #[test]
    fn every_bad_field_is_named() {
        assert_eq!(fields("{}"), ["sensor_id", "speed", "ts"]);
        assert_eq!(
            fields(r#"{"sensor_id":"","speed":-1,"ts":0}"#),
            ["sensor_id", "speed", "ts"]
        );
        assert_eq!(
            fields(r#"{"sensor_id":"s","speed":"42","ts":1700000000}"#),
            ["speed"]
        );
        assert_eq!(
            fields(r#"{"sensor_id":"s","speed":true,"ts":1700000000}"#),
            ["speed"]
        );
        assert_eq!(
            fields(r#"{"sensor_id":"s","speed":1e9,"ts":1700000000}"#),
            ["speed"]
        );
        assert_eq!(
            fields(r#"{"sensor_id":"s","speed":1,"ts":1700000000000}"#),
            ["ts"]
        );
        assert_eq!(
            fields(r#"{"sensor_id":7,"speed":1,"ts":"now"}"#),
            ["sensor_id", "ts"]
        );
    }

    #[test]
    fn what_is_no_object_says_so() {
        for payload in ["", "42", "[]", "null", "\"x\"", "{", "{\"speed\":}"] {
            assert!(
                matches!(
                    judge(payload.as_bytes(), NOW),
                    Err(SpeedError::NotAnObject(_))
                ),
                "{payload}"
            );
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = judge(&bytes, NOW);
        }
    }
}
