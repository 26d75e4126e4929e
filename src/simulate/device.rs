//! What one simulated device says: readings of its kind, and a share of the faults that real
//! fleets show. Pure: the same seed and the same times give the same messages.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::noise::Rng;
use super::physics::{self, STRINGS_PER_INVERTER, Site, Vehicle, Wander};

/// Sites that the devices are spread over.
const SITES: usize = 4;
/// How old a late message may be.
const LATE_S_MAX: f64 = 3_600.0;

/// Shares of messages with a fault, each 0 to 1, drawn in this order.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Flaws {
    /// Cut JSON, text that is no JSON, or arbitrary bytes.
    pub malformed: f64,
    /// One to three expected fields left out.
    pub partial: f64,
    /// Timestamps of up to an hour ago.
    pub late: f64,
    /// The previous message once more, same id.
    pub duplicate: f64,
    /// Timestamps without an offset.
    pub naive: f64,
}

/// The fault a message was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Flaw {
    Malformed,
    Partial,
    Late,
    Duplicate,
    Naive,
}

/// One message to publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub topic: String,
    pub payload: Vec<u8>,
    pub flaw: Option<Flaw>,
}

/// What kinds of devices there are; a fleet takes them in turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    Site,
    Inverter,
    String,
    Weather,
    Grid,
    /// Any sensor that is no part of the plant: here a climate sensor.
    Device,
    Speed,
}

impl Kind {
    pub const ALL: [Kind; 7] = [
        Kind::Site,
        Kind::Inverter,
        Kind::String,
        Kind::Weather,
        Kind::Grid,
        Kind::Device,
        Kind::Speed,
    ];

    /// Prefix of the device ids, and the payload's key for them.
    fn names(self) -> (&'static str, &'static str) {
        match self {
            Kind::Site => ("site", "site_id"),
            Kind::Inverter => ("inv", "inverter_id"),
            Kind::String => ("str", "string_id"),
            Kind::Weather => ("wx", "station_id"),
            Kind::Grid => ("meter", "meter_id"),
            Kind::Device => ("dev", "device_id"),
            Kind::Speed => ("sensor", "sensor_id"),
        }
    }

    /// The MQTT topic that a device of this kind publishes to.
    fn topic(self, id: &str) -> String {
        match self {
            Kind::Site => format!("telemetry/sites/{id}"),
            Kind::Inverter => format!("telemetry/inverters/{id}"),
            Kind::String => format!("telemetry/strings/{id}"),
            Kind::Weather => format!("telemetry/weather/{id}"),
            Kind::Grid => format!("telemetry/grid/{id}"),
            Kind::Device => format!("devices/{id}/telemetry"),
            Kind::Speed => format!("speed/{id}"),
        }
    }
}

/// One device.
#[derive(Debug)]
pub struct Device {
    kind: Kind,
    id: String,
    topic: String,
    site_id: String,
    site: Site,
    flaws: Flaws,
    rng: Rng,
    sequence: u64,
    last_ms: Option<i64>,
    previous: Option<Vec<u8>>,
    vehicle: Vehicle,
    frequency: Wander,
    voltage: Wander,
}

impl Device {
    /// The device with this number in the fleet of this seed.
    pub fn new(seed: u64, index: usize, flaws: Flaws) -> Device {
        let kind = Kind::ALL
            .get(index % Kind::ALL.len())
            .copied()
            .unwrap_or(Kind::Site);
        let number = index / Kind::ALL.len();
        let (prefix, _) = kind.names();
        let id = format!("{prefix}-{}", number + 1);
        Device {
            kind,
            topic: kind.topic(&id),
            id,
            site_id: format!("site-{}", number % SITES + 1),
            site: Site::new(seed, number % SITES),
            flaws,
            rng: Rng::stream(seed, index as u64),
            sequence: 0,
            last_ms: None,
            previous: None,
            vehicle: Vehicle::default(),
            frequency: Wander {
                mean: 50.0,
                spread: 0.012,
                reversion_s: 40.0,
                value: 50.0,
            },
            voltage: Wander {
                mean: 400.0,
                spread: 1.6,
                reversion_s: 120.0,
                value: 400.0,
            },
        }
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The next message; times never run backwards from one call to the next.
    pub fn next(&mut self, now_ms: i64) -> Message {
        let flaw = self.draw_flaw();
        if let (Some(Flaw::Duplicate), Some(previous)) = (flaw, &self.previous) {
            return Message {
                topic: self.topic.clone(),
                payload: previous.clone(),
                flaw,
            };
        }
        let flaw = flaw.filter(|flaw| *flaw != Flaw::Duplicate);
        let mut fields = self.reading(now_ms, flaw);
        if flaw == Some(Flaw::Partial) {
            self.drop_fields(&mut fields);
        }
        let mut payload = Value::Object(fields).to_string().into_bytes();
        if flaw == Some(Flaw::Malformed) {
            self.damage(&mut payload);
        } else {
            self.previous = Some(payload.clone());
        }
        Message {
            topic: self.topic.clone(),
            payload,
            flaw,
        }
    }

    fn draw_flaw(&mut self) -> Option<Flaw> {
        let Flaws {
            malformed,
            partial,
            late,
            duplicate,
            naive,
        } = self.flaws;
        let mut draw = self.rng.unit();
        let shares = [
            (malformed, Flaw::Malformed),
            (partial, Flaw::Partial),
            (late, Flaw::Late),
            (duplicate, Flaw::Duplicate),
            (naive, Flaw::Naive),
        ];
        for (share, flaw) in shares {
            if draw < share {
                return Some(flaw);
            }
            draw -= share;
        }
        None
    }

    /// A whole reading at `now_ms`; late and naive ones differ in their timestamps only.
    fn reading(&mut self, now_ms: i64, flaw: Option<Flaw>) -> Map<String, Value> {
        let elapsed_s = self
            .last_ms
            .map_or(1.0, |last| (now_ms - last) as f64 / 1_000.0)
            .clamp(0.0, 60.0);
        self.last_ms = Some(now_ms);
        let at_s = now_ms as f64 / 1_000.0;
        let late_ms = if flaw == Some(Flaw::Late) {
            (self.rng.between(60.0, LATE_S_MAX) * 1_000.0) as i64
        } else {
            0
        };
        let event_ms = now_ms - late_ms;
        if self.kind == Kind::Speed {
            let speed = self.vehicle.step(&mut self.rng, at_s, elapsed_s);
            return object(
                json!({ "sensor_id": self.id, "speed": round(speed, 1), "ts": event_ms / 1_000 }),
            );
        }
        self.sequence += 1;
        let (_, id_key) = self.kind.names();
        let ts_key = if self.kind == Kind::Device {
            "device_ts"
        } else {
            "ts"
        };
        let mut fields = object(json!({
            "id": format!("{}-{event_ms}-{}", self.id, self.sequence),
            id_key: self.id,
            ts_key: written(event_ms, flaw == Some(Flaw::Naive)),
        }));
        if self.kind != Kind::Site {
            fields.insert("site_id".to_owned(), json!(self.site_id));
        }
        fields.append(&mut self.measured(at_s, elapsed_s));
        fields
    }

    fn measured(&mut self, at_s: f64, elapsed_s: f64) -> Map<String, Value> {
        let site = self.site;
        let string_kw = site.string_kw(at_s);
        let dc_kw = string_kw * f64::from(STRINGS_PER_INVERTER) * self.rng.between(0.985, 1.015);
        object(match self.kind {
            Kind::Site => json!({
                "power_kw": round(site.ac_kw(at_s), 2),
                "energy_kwh": round(site.energy_today_kwh(at_s), 1),
                "status": "ok",
            }),
            Kind::Inverter => json!({
                "power_kw": round(dc_kw * physics::efficiency(dc_kw), 3),
                "dc_power_kw": round(dc_kw, 3),
                "temperature_c": round(site.air_c(at_s) + 0.55 * dc_kw + 4.0, 1),
                "status": if dc_kw > 0.05 { "running" } else { "standby" },
            }),
            Kind::String => {
                let voltage = physics::string_v(&site, at_s);
                let current = if voltage > 0.0 {
                    string_kw * 1_000.0 / voltage
                } else {
                    0.0
                };
                json!({ "voltage_v": round(voltage, 1), "current_a": round(current * self.rng.between(0.98, 1.02), 2) })
            }
            Kind::Weather => json!({
                "temperature_c": round(site.air_c(at_s), 1),
                "irradiance_w_m2": round(site.irradiance_w_m2(at_s), 1),
                "wind_speed_m_s": round(site.wind_m_s(at_s), 1),
                "humidity_percent": round(site.humidity_percent(at_s), 0),
            }),
            Kind::Grid => json!({
                "voltage_v": round(self.voltage.step(&mut self.rng, elapsed_s), 1),
                "frequency_hz": round(self.frequency.step(&mut self.rng, elapsed_s), 3),
                "power_kw": round(site.ac_kw(at_s) - 12.0, 2),
            }),
            Kind::Device => json!({
                "temperature_c": round(site.air_c(at_s) + self.rng.between(-0.2, 0.2), 2),
                "humidity_percent": round(site.humidity_percent(at_s), 0),
                "battery_v": round(3.6 - 0.2 * self.rng.unit(), 2),
            }),
            Kind::Speed => json!({}),
        })
    }

    /// Leaves out one to three fields, never who it was nor the message's id.
    fn drop_fields(&mut self, fields: &mut Map<String, Value>) {
        let (_, id_key) = self.kind.names();
        for _ in 0..=self.rng.below(3) {
            let names: Vec<String> = fields
                .keys()
                .filter(|key| !["id", id_key, "ts"].contains(&key.as_str()))
                .cloned()
                .collect();
            if let Some(name) = names.get(self.rng.below(names.len())) {
                fields.remove(name);
            }
        }
    }

    fn damage(&mut self, payload: &mut Vec<u8>) {
        match self.rng.below(3) {
            // Cut in transmission: never the whole, so never valid JSON.
            0 => payload.truncate(1 + self.rng.below(payload.len().saturating_sub(2))),
            1 => *payload = format!("{} reading unavailable, retry later", self.id).into_bytes(),
            _ => {
                *payload = (0..24).map(|_| self.rng.below(256) as u8).collect();
                payload.insert(0, 0xFF);
            }
        }
    }
}

/// RFC 3339 in UTC with milliseconds, or the same without its `Z`.
fn written(ms: i64, naive: bool) -> String {
    let text = Timestamp::from_millisecond(ms)
        .map(|at| format!("{at:.3}"))
        .unwrap_or_default();
    if naive {
        text.trim_end_matches('Z').to_owned()
    } else {
        text
    }
}

fn round(value: f64, digits: i32) -> f64 {
    let factor = 10f64.powi(digits);
    (value * factor).round() / factor
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::*;

    const NONE: Flaws = Flaws {
        malformed: 0.0,
        partial: 0.0,
        late: 0.0,
        duplicate: 0.0,
        naive: 0.0,
    };
    const MANY: Flaws = Flaws {
        malformed: 0.1,
        partial: 0.1,
        late: 0.1,
        duplicate: 0.1,
        naive: 0.1,
    };
    const START_MS: i64 = 1_700_000_000_000;

    fn messages(seed: u64, index: usize, flaws: Flaws, count: i64) -> Vec<Message> {
        let mut device = Device::new(seed, index, flaws);
        (0..count)
            .map(|n| device.next(START_MS + n * 1_000))
            .collect()
    }

    fn parsed(message: &Message) -> Option<Map<String, Value>> {
        serde_json::from_slice(&message.payload).ok()
    }

    #[test]
    fn a_seed_repeats_itself_byte_for_byte() {
        assert_eq!(messages(9, 3, MANY, 500), messages(9, 3, MANY, 500));
        assert_ne!(messages(9, 3, MANY, 500), messages(10, 3, MANY, 500));
    }

    #[test]
    fn every_kind_speaks_json_with_its_identity_on_its_own_topic() {
        for (index, kind) in Kind::ALL.into_iter().enumerate() {
            let (_, id_key) = kind.names();
            for message in messages(1, index, NONE, 50) {
                let fields = parsed(&message).unwrap();
                let id = fields.get(id_key).and_then(Value::as_str).unwrap();
                assert_eq!(message.topic, kind.topic(id));
                assert_eq!(message.flaw, None);
            }
        }
    }

    #[test]
    fn faults_come_in_the_shares_asked_for_and_are_what_they_say() {
        let sent = messages(2, 1, MANY, 20_000);
        let mut counts: HashMap<Flaw, usize> = HashMap::new();
        for pair in sent.windows(2) {
            let [before, message] = pair else { continue };
            let Some(flaw) = message.flaw else {
                assert!(parsed(message).is_some());
                continue;
            };
            *counts.entry(flaw).or_default() += 1;
            match flaw {
                Flaw::Malformed => assert!(parsed(message).is_none(), "{:?}", message.payload),
                Flaw::Duplicate if before.flaw != Some(Flaw::Malformed) => {
                    assert_eq!(before.payload, message.payload)
                }
                Flaw::Duplicate => {}
                Flaw::Naive => {
                    let ts = parsed(message)
                        .unwrap()
                        .get("ts")
                        .unwrap()
                        .as_str()
                        .unwrap()
                        .to_owned();
                    assert!(
                        ts.parse::<jiff::civil::DateTime>().is_ok() && !ts.ends_with('Z'),
                        "{ts}"
                    );
                }
                Flaw::Late => {
                    let at: Timestamp = parsed(message)
                        .unwrap()
                        .get("ts")
                        .unwrap()
                        .as_str()
                        .unwrap()
                        .parse()
                        .unwrap();
                    assert!(at.as_millisecond() < START_MS + 20_000_000 - 60_000);
                }
                Flaw::Partial => {
                    let whole = messages(2, 1, NONE, 1)
                        .first()
                        .and_then(parsed)
                        .unwrap()
                        .len();
                    assert!(parsed(message).unwrap().len() < whole);
                }
            }
        }
        for (flaw, count) in counts {
            assert!(
                (1_700..=2_300).contains(&count),
                "{flaw:?}: {count} of 20000"
            );
        }
    }

    #[test]
    fn ids_are_unique_except_in_duplicates() {
        let mut seen = HashSet::new();
        for message in messages(4, 2, MANY, 5_000) {
            let Some(fields) = parsed(&message) else {
                continue;
            };
            let id = fields.get("id").unwrap().as_str().unwrap().to_owned();
            assert_eq!(!seen.insert(id), message.flaw == Some(Flaw::Duplicate));
        }
    }
}
