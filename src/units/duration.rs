//! Durations as text: `60s`, `1m30s`, `250ms`. GEP-2257 (Kubernetes Gateway API) is the core of it; Go's fractions
//! (`1.5s`) and its smaller units `us` and `ns` are read too, so that whatever Go prints below a year is understood.

use std::{fmt::Write, time::Duration};

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a duration: expected a form like 60s, 1m30s or 250ms")]
pub(crate) struct Error(String);

/// GEP-2257's limits: at most four parts (six here, with Go's small units), each of at most five digits.
const MAX_PARTS: usize = 6;
const MAX_DIGITS: usize = 5;
/// The finest fraction that still means something.
const MAX_FRACTION_DIGITS: usize = 9;

/// Unit and nanoseconds, largest first: the order in which [`format`] prints them.
const UNITS: [(&str, u64); 6] = [
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

/// Reads a duration. A bare `0` is one; any other number needs its unit.
///
/// # Errors
/// What is not of this form, or beyond its limits.
pub(crate) fn parse(text: &str) -> Result<Duration, Error> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    parse_parts(text).ok_or_else(|| Error(text.chars().take(64).collect()))
}

fn parse_parts(text: &str) -> Option<Duration> {
    let (mut rest, mut nanos, mut parts) = (text, 0_u64, 0);
    while !rest.is_empty() {
        let (number, after) = split_while(rest, |c| c.is_ascii_digit() || c == '.');
        let (unit, after) = split_while(after, |c| c.is_alphabetic());
        let unit = if unit == "µs" { "us" } else { unit };
        let scale = UNITS.iter().find(|(name, _)| *name == unit)?.1;
        nanos = nanos.checked_add(scaled(number, scale)?)?;
        (rest, parts) = (after, parts + 1);
    }
    (1..=MAX_PARTS).contains(&parts).then(|| Duration::from_nanos(nanos))
}

fn split_while(text: &str, belongs: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|c| !belongs(c)).unwrap_or(text.len()))
}

/// `number` (`90`, `1.5`) times `scale`, digits beyond a nanosecond dropped.
fn scaled(number: &str, scale: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let sized = |digits: &str, max: usize| (1..=max).contains(&digits.len());
    if !sized(whole, MAX_DIGITS) || !sized(fraction, MAX_FRACTION_DIGITS) {
        return None;
    }
    let denominator = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    let part = u128::from(fraction.parse::<u64>().ok()?) * u128::from(scale) / denominator;
    whole.parse::<u64>().ok()?.checked_mul(scale)?.checked_add(u64::try_from(part).ok()?)
}

/// Prints a duration in the shortest form that [`parse`] reads back: `1m30s`, `250ms`, `0s`.
pub(crate) fn format(duration: Duration) -> String {
    let mut nanos = duration.as_nanos();
    let mut text = String::new();
    for (unit, scale) in UNITS {
        let count = nanos / u128::from(scale);
        nanos %= u128::from(scale);
        if count > 0 {
            // Writing to a String cannot fail.
            let _ = write!(text, "{count}{unit}");
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_printed_is_read_back(nanos in 0_u64..300_000_000_000_000_000) {
            let duration = Duration::from_nanos(nanos);
            prop_assert_eq!(parse(&format(duration)), Ok(duration));
        }

        #[test]
        fn hostile_text_never_panics(text in ".*", likely in "[0-9.hmsun]{0,24}") {
            let _ = parse(&text);
            let _ = parse(&likely);
        }
    }

    #[test]
    fn reads_what_people_write() {
        for (text, millis) in [
            ("60s", 60_000),
            ("1m30s", 90_000),
            ("1m", 60_000),
            ("250ms", 250),
            ("1.5s", 1_500),
            ("0", 0),
            ("1h", 3_600_000),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        assert_eq!(parse("1.5µs"), Ok(Duration::from_nanos(1500)));
    }

    #[test]
    fn refuses_what_has_no_unit_or_no_end() {
        for text in ["", "60", "s", "-1s", "1 s", "1..5s", ".5s", "100000s", "1d", "1s1s1s1s1s1s1s", "1.s"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn prints_the_shortest_form() {
        assert_eq!(format(Duration::from_secs(60)), "1m");
        assert_eq!(format(Duration::from_millis(90_250)), "1m30s250ms");
        assert_eq!(format(Duration::ZERO), "0s");
    }
}
