//! A small solar plant and a few vehicles: plausible numbers as functions of time.
//!
//! Knows nothing of messages. All powers in kW or W as named, temperatures in degrees Celsius.

use std::f64::consts::PI;

use super::noise::{Rng, smooth};

const SECONDS_PER_DAY: f64 = 86_400.0;
/// Irradiance of a clear sky with the sun overhead, W/m2.
const CLEAR_SKY_W_M2: f64 = 1_000.0;
/// Nominal DC power of one string under [`CLEAR_SKY_W_M2`], kW.
const STRING_KW: f64 = 6.0;
/// Strings of one inverter.
pub(super) const STRINGS_PER_INVERTER: u32 = 8;
/// Inverters of one site.
const INVERTERS_PER_SITE: u32 = 4;
/// Longitudes of the sites: spread so that the sun always shines on one of them.
const LONGITUDES: [f64; 4] = [10.0, 100.0, -170.0, -80.0];

/// Sky and air over one site.
#[derive(Debug, Clone, Copy)]
pub(super) struct Site {
    seed: u64,
    longitude: f64,
}

impl Site {
    pub(super) fn new(seed: u64, index: usize) -> Site {
        let longitude = LONGITUDES
            .get(index % LONGITUDES.len())
            .copied()
            .unwrap_or(0.0);
        Site {
            seed: Rng::stream(seed, 1_000_000 + index as u64).next(),
            longitude,
        }
    }

    /// Hour of the solar day, 0 to 24, noon at 12.
    fn solar_hour(&self, at_s: f64) -> f64 {
        (at_s / SECONDS_PER_DAY * 24.0 + self.longitude / 15.0).rem_euclid(24.0)
    }

    /// Share of the clear sky's light that reaches the ground: long fronts and quick cumulus.
    fn clouds(&self, at_s: f64) -> f64 {
        let front = smooth(self.seed, at_s, 5_400.0);
        let cumulus = smooth(self.seed ^ 0xC10D, at_s, 45.0);
        (1.0 - 0.55 * front - 0.35 * front * cumulus).clamp(0.05, 1.0)
    }

    pub(super) fn irradiance_w_m2(&self, at_s: f64) -> f64 {
        let elevation = (PI * (self.solar_hour(at_s) - 6.0) / 12.0).sin().max(0.0);
        CLEAR_SKY_W_M2 * elevation.powf(1.15) * self.clouds(at_s)
    }

    pub(super) fn air_c(&self, at_s: f64) -> f64 {
        let day = (PI * (self.solar_hour(at_s) - 9.0) / 12.0).sin();
        16.0 + 7.0 * day + 3.0 * (smooth(self.seed ^ 0xA1, at_s, 7_200.0) - 0.5)
    }

    /// Panels run hotter than the air in proportion to the light (NOCT about 45 C).
    pub(super) fn module_c(&self, at_s: f64) -> f64 {
        self.air_c(at_s) + 0.031 * self.irradiance_w_m2(at_s)
    }

    pub(super) fn wind_m_s(&self, at_s: f64) -> f64 {
        let gusts = smooth(self.seed ^ 0x5717D, at_s, 20.0);
        1.0 + 7.0 * smooth(self.seed ^ 0x317D, at_s, 1_800.0) + 2.5 * gusts * gusts
    }

    pub(super) fn humidity_percent(&self, at_s: f64) -> f64 {
        (95.0 - 1.9 * self.air_c(at_s) + 12.0 * smooth(self.seed ^ 0x4A, at_s, 3_600.0))
            .clamp(15.0, 100.0)
    }

    /// DC power of one string; hot panels give less (0.38 % per degree above 25 C).
    pub(super) fn string_kw(&self, at_s: f64) -> f64 {
        let heat = 1.0 - 0.0038 * (self.module_c(at_s) - 25.0);
        STRING_KW * self.irradiance_w_m2(at_s) / CLEAR_SKY_W_M2 * heat
    }

    /// Energy since the site's midnight, kWh, by the trapezoid rule in five-minute steps.
    pub(super) fn energy_today_kwh(&self, at_s: f64) -> f64 {
        const STEP_S: f64 = 300.0;
        let since_midnight_s = self.solar_hour(at_s) * 3_600.0;
        let steps = (since_midnight_s / STEP_S).floor() as u32;
        let begin = at_s - since_midnight_s;
        (0..steps)
            .map(|n| {
                let left = begin + f64::from(n) * STEP_S;
                (self.ac_kw(left) + self.ac_kw(left + STEP_S)) / 2.0 * STEP_S / 3_600.0
            })
            .sum()
    }

    /// AC power of the whole site.
    pub(super) fn ac_kw(&self, at_s: f64) -> f64 {
        let dc = self.string_kw(at_s) * f64::from(STRINGS_PER_INVERTER);
        dc * efficiency(dc) * f64::from(INVERTERS_PER_SITE)
    }
}

/// Efficiency of an inverter by its DC power in kW: poor at very low load, flat above a tenth.
pub(super) fn efficiency(dc_kw: f64) -> f64 {
    let load = dc_kw / (STRING_KW * f64::from(STRINGS_PER_INVERTER));
    if load <= 0.0 {
        0.0
    } else {
        0.985 * load / (load + 0.012)
    }
}

/// Voltage of a string at its maximum power point, volts; falls a little with heat and low light.
pub(super) fn string_v(site: &Site, at_s: f64) -> f64 {
    let light = site.irradiance_w_m2(at_s);
    if light < 5.0 {
        0.0
    } else {
        760.0 - 2.1 * (site.module_c(at_s) - 25.0) + 12.0 * (light / CLEAR_SKY_W_M2).ln().max(-4.0)
    }
}

/// A mean-reverting walk (Ornstein-Uhlenbeck): grid frequency and voltage.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wander {
    pub(super) mean: f64,
    pub(super) spread: f64,
    pub(super) reversion_s: f64,
    pub(super) value: f64,
}

impl Wander {
    pub(super) fn step(&mut self, rng: &mut Rng, elapsed_s: f64) -> f64 {
        let keep = (-elapsed_s / self.reversion_s).exp();
        // The sum of three uniforms is close enough to a normal for a voltage.
        let push = (0..3).map(|_| rng.between(-1.0, 1.0)).sum::<f64>();
        self.value = self.mean
            + (self.value - self.mean) * keep
            + self.spread * (1.0 - keep * keep).sqrt() * push;
        self.value
    }
}

/// A vehicle that accelerates to a new target speed every now and then.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Vehicle {
    speed_km_h: f64,
    target_km_h: f64,
    until_s: f64,
}

impl Vehicle {
    const TARGETS_KM_H: [f64; 6] = [0.0, 30.0, 50.0, 80.0, 100.0, 130.0];
    const ACCELERATION_KM_H_S: f64 = 7.0;
    const BRAKING_KM_H_S: f64 = 12.0;

    pub(super) fn step(&mut self, rng: &mut Rng, at_s: f64, elapsed_s: f64) -> f64 {
        if at_s >= self.until_s {
            self.target_km_h = Self::TARGETS_KM_H
                .get(rng.below(Self::TARGETS_KM_H.len()))
                .copied()
                .unwrap_or(0.0);
            self.until_s = at_s + rng.between(8.0, 30.0);
        }
        let up = Self::ACCELERATION_KM_H_S * elapsed_s;
        let down = Self::BRAKING_KM_H_S * elapsed_s;
        self.speed_km_h += (self.target_km_h - self.speed_km_h).clamp(-down, up);
        let jitter = if self.speed_km_h > 1.0 {
            rng.between(-0.6, 0.6)
        } else {
            0.0
        };
        (self.speed_km_h + jitter).max(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON_AT_10_EAST_S: f64 = 43_200.0 - 10.0 / 15.0 * 3_600.0;

    #[test]
    fn the_sun_shines_by_day_only_and_always_somewhere() {
        let site = Site::new(1, 0);
        assert_eq!(site.irradiance_w_m2(NOON_AT_10_EAST_S + 43_200.0), 0.0);
        assert!(site.irradiance_w_m2(NOON_AT_10_EAST_S) > 50.0);
        for hour in 0..24 {
            let at_s = f64::from(hour) * 3_600.0;
            assert!(
                (0..4).any(|n| Site::new(1, n).irradiance_w_m2(at_s) > 10.0),
                "dark everywhere at {hour}:00"
            );
        }
    }

    #[test]
    fn energy_rises_over_the_day_and_starts_again_at_midnight() {
        let site = Site::new(1, 0);
        let noon = site.energy_today_kwh(NOON_AT_10_EAST_S);
        let evening = site.energy_today_kwh(NOON_AT_10_EAST_S + 6.0 * 3_600.0);
        assert!(noon > 0.0 && evening > noon);
        assert_eq!(site.energy_today_kwh(NOON_AT_10_EAST_S + 43_260.0), 0.0);
    }

    #[test]
    fn an_inverter_never_gives_more_than_it_takes() {
        for tenth in 0..=600 {
            let efficiency = efficiency(f64::from(tenth) / 10.0);
            assert!((0.0..0.99).contains(&efficiency));
        }
    }

    #[test]
    fn a_vehicle_keeps_to_what_brakes_and_engine_can_do() {
        let mut rng = Rng::stream(5, 0);
        let mut vehicle = Vehicle::default();
        let mut last = 0.0;
        let mut fastest: f64 = 0.0;
        for second in 0..2_000 {
            let speed = vehicle.step(&mut rng, f64::from(second), 1.0);
            assert!((0.0..=131.0).contains(&speed));
            assert!(
                (speed - last).abs() <= Vehicle::BRAKING_KM_H_S + 1.3,
                "{last} -> {speed}"
            );
            last = speed;
            fastest = fastest.max(speed);
        }
        assert!(fastest > 60.0, "it never drove: {fastest}");
    }
}
