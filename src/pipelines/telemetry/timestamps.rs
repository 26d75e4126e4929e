//! Reading instants that devices and gateways send. Pure.
//!
//! Accepted: RFC 3339 with `Z` or an offset; the same without either, which is UTC; epoch seconds
//! or milliseconds as a number or as its text. An instant outside the window below is as good as
//! malformed: it is an unset or a broken clock.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// Earliest believable event, 2000-01-01T00:00:00Z: an unset clock reads 1970 or 1980.
pub const EVENT_MS_MIN: i64 = 946_684_800_000;
/// How far an event may lie after it was received: clocks drift, and naive local times run up to
/// 14 hours ahead of UTC.
pub const FUTURE_MS_MAX: i64 = 24 * 60 * 60 * 1_000;
/// Longer texts are no instants.
const TEXT_BYTES_MAX: usize = 64;

/// Milliseconds since the Unix epoch, or `None` where the text is no believable instant.
pub fn parse(text: &str, received_ms: i64) -> Option<i64> {
    let text = text.trim();
    if text.is_empty() || text.len() > TEXT_BYTES_MAX {
        return None;
    }
    match text.parse::<f64>() {
        Ok(number) => epoch(number, received_ms),
        Err(_) => believable(calendar(text)?, received_ms),
    }
}

/// `None` outside the window.
pub fn believable(ms: i64, received_ms: i64) -> Option<i64> {
    (EVENT_MS_MIN..=received_ms.saturating_add(FUTURE_MS_MAX))
        .contains(&ms)
        .then_some(ms)
}

/// RFC 3339 UTC with milliseconds; `None` outside the years that format has.
pub fn rfc3339(ms: i64) -> Option<String> {
    let instant = Timestamp::from_millisecond(ms).ok()?;
    Some(instant.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string())
}

/// Within the window no number is believable both as seconds and as milliseconds.
fn epoch(number: f64, received_ms: i64) -> Option<i64> {
    let whole = |ms: f64| (ms.is_finite() && ms.abs() < 1e15).then_some(ms.round() as i64);
    [number * 1_000.0, number]
        .into_iter()
        .filter_map(whole)
        .find_map(|ms| believable(ms, received_ms))
}

fn calendar(text: &str) -> Option<i64> {
    if let Ok(instant) = text.parse::<Timestamp>() {
        return Some(instant.as_millisecond());
    }
    // A bare date is not an event time, and a text that has an offset but is not a Timestamp is
    // malformed: reading it as naive would silently drop the offset.
    let time = text.get(11..)?;
    if time.contains(['+', '-', 'Z', 'z', '[']) {
        return None;
    }
    let naive: DateTime = text.parse().ok()?;
    Some(TimeZone::UTC.to_timestamp(naive).ok()?.as_millisecond())
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

    /// 2026-11-22T12:00:00Z
    const NOW: i64 = 1_795_348_800_000;

    #[test]
    fn every_accepted_shape_means_the_same_instant() {
        let table = [
            "2023-11-14T22:13:20Z",
            "2023-11-14T22:13:20.000Z",
            "2023-11-14t22:13:20z",
            "2023-11-14 22:13:20Z",
            "2023-11-14T23:13:20+01:00",
            "2023-11-14T16:43:20-05:30",
            "2023-11-14T22:13:20",
            "2023-11-14 22:13:20",
            "2023-11-14T22:13:20.000",
            "  2023-11-14T22:13:20 ",
            "1700000000",
            "1700000000.0",
            "1.7e9",
            "1700000000000",
        ];
        for text in table {
            assert_eq!(parse(text, NOW), Some(1_700_000_000_000), "{text}");
        }
        assert_eq!(parse("1700000000.25", NOW), Some(1_700_000_000_250));
    }

    #[test]
    fn malformed_and_absurd_instants_fall_through() {
        let table = [
            "",
            " ",
            "yesterday",
            "2023-11-14",
            "2023-13-01T00:00:00Z",
            "2023-11-14T25:00:00",
            "NaN",
            "inf",
            "-inf",
            "0",
            "1",
            "-1700000000",
            "1e300",
            "1700000000000000",
            "1970-01-01T00:00:00Z",
            "1999-12-31T23:59:59Z",
            "9999-12-31T23:59:59Z",
            "2026-11-23T12:00:00.001Z",
            "2023-11-14T22:13:20+99:00",
            "true",
            "{}",
        ];
        for text in table {
            assert_eq!(parse(text, NOW), None, "{text}");
        }
        assert_eq!(parse(&"1".repeat(65), NOW), None);
        assert_eq!(parse("2000-01-01T00:00:00Z", NOW), Some(EVENT_MS_MIN));
        assert_eq!(
            parse("2026-11-23T12:00:00Z", NOW),
            Some(NOW + FUTURE_MS_MAX)
        );
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(ms in EVENT_MS_MIN..=NOW) {
            prop_assert_eq!(parse(&rfc3339(ms).unwrap(), NOW), Some(ms));
            prop_assert_eq!(parse(&ms.to_string(), NOW), Some(ms));
        }

        #[test]
        fn any_text_is_read_without_panic_and_only_into_the_window(text in ".{0,80}", received in any::<i64>()) {
            if let Some(ms) = parse(&text, received) {
                prop_assert!(believable(ms, received).is_some());
            }
        }

        #[test]
        fn any_number_is_read_without_panic(number in any::<f64>()) {
            if let Some(ms) = parse(&number.to_string(), NOW) {
                prop_assert!((EVENT_MS_MIN..=NOW + FUTURE_MS_MAX).contains(&ms));
            }
        }
    }
}
