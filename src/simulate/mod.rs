//! A fleet of simulated devices that publish over MQTT as real ones would, faults included.
//!
//! Owns: what the devices measure (`physics`), what they say (`device`) and their connections
//! (`client`). They reach the node over its MQTT door only and know nothing else of it.

mod client;
mod device;
mod noise;
mod physics;

use serde::Deserialize;

pub use client::{DEVICES_MAX, Plan, Progress, run};
pub use device::{Device, Flaw, Flaws, Kind, Message};

/// `[simulate]`: the devices of `holdfast demo`, and the defaults of `holdfast simulate`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SimulateConfig {
    /// Devices, spread over the kinds in turns. Default 30, at most [`DEVICES_MAX`].
    pub devices: usize,
    /// Messages a second, over all devices. Default 20.
    pub rate_per_s: f64,
    /// The same seed makes the same fleet. Default 1.
    pub seed: u64,
    /// Share of messages that are no JSON object, 0 to 1. Default 0.01.
    pub malformed_share: f64,
    /// Share of messages that lack expected fields, 0 to 1. Default 0.03.
    pub partial_share: f64,
    /// Share of messages with timestamps of up to an hour ago, 0 to 1. Default 0.02.
    pub late_share: f64,
    /// Share of messages sent a second time, 0 to 1. Default 0.02.
    pub duplicate_share: f64,
    /// Share of messages with a timestamp without offset, 0 to 1. Default 0.05.
    pub naive_timestamp_share: f64,
}

impl Default for SimulateConfig {
    fn default() -> SimulateConfig {
        SimulateConfig {
            devices: 30,
            rate_per_s: 20.0,
            seed: 1,
            malformed_share: 0.01,
            partial_share: 0.03,
            late_share: 0.02,
            duplicate_share: 0.02,
            naive_timestamp_share: 0.05,
        }
    }
}

impl SimulateConfig {
    /// The sentence begins with the key.
    pub(crate) fn validate(&self) -> Result<(), String> {
        if !(1..=DEVICES_MAX).contains(&self.devices) {
            return Err(format!(
                "simulate.devices is {}: 1 to {DEVICES_MAX} are possible",
                self.devices
            ));
        }
        if !(self.rate_per_s.is_finite() && self.rate_per_s > 0.0) {
            return Err(format!(
                "simulate.rate_per_s is {}: a positive number is needed",
                self.rate_per_s
            ));
        }
        let shares = [
            ("malformed_share", self.malformed_share),
            ("partial_share", self.partial_share),
            ("late_share", self.late_share),
            ("duplicate_share", self.duplicate_share),
            ("naive_timestamp_share", self.naive_timestamp_share),
        ];
        match shares
            .iter()
            .find(|(_, share)| !(0.0..=1.0).contains(share))
        {
            Some((key, share)) => Err(format!("simulate.{key} is {share}: 0 to 1 is possible")),
            None => Ok(()),
        }
    }

    pub fn flaws(&self) -> Flaws {
        Flaws {
            malformed: self.malformed_share,
            partial: self.partial_share,
            late: self.late_share,
            duplicate: self.duplicate_share,
            naive: self.naive_timestamp_share,
        }
    }
}
