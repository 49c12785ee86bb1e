//! Timestamps of log lines and in them: RFC 3339, UTC, milliseconds.

use std::time::{SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;

/// A formatted timestamp such as `2026-01-31T08:15:30.042Z`, held without allocation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timestamp([u8; 24]);

/// A moment as every log line writes one, for the fields of a line.
#[must_use]
pub fn moment(at: SystemTime) -> String {
    Timestamp::new(at).as_str().to_owned()
}

impl Timestamp {
    /// Formats `at`; a time before 1970 or after 9999 becomes 1970.
    pub(crate) fn new(at: SystemTime) -> Self {
        let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let at =
            i64::try_from(since.as_secs()).ok().and_then(|s| OffsetDateTime::from_unix_timestamp(s).ok());
        let at = at.unwrap_or(OffsetDateTime::UNIX_EPOCH);
        let mut out = *b"0000-00-00T00:00:00.000Z";
        put(&mut out[0..4], at.year().unsigned_abs());
        put(&mut out[5..7], u8::from(at.month()).into());
        put(&mut out[8..10], at.day().into());
        put(&mut out[11..13], at.hour().into());
        put(&mut out[14..16], at.minute().into());
        put(&mut out[17..19], at.second().into());
        put(&mut out[20..23], since.subsec_millis());
        Self(out)
    }

    pub(crate) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// Fills `digits` with the decimal digits of `value`, zeros in front.
fn put(digits: &mut [u8], mut value: u32) {
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + u8::try_from(value % 10).unwrap_or_default();
        value /= 10;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn times_are_rfc_3339_in_utc_with_milliseconds() {
        let at = |millis| Timestamp::new(UNIX_EPOCH + Duration::from_millis(millis)).as_str().to_owned();
        assert_eq!(at(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(at(951_782_400_999), "2000-02-29T00:00:00.999Z");
        assert_eq!(at(1_769_847_330_042), "2026-01-31T08:15:30.042Z");
        assert_eq!(at(253_402_300_799_999), "9999-12-31T23:59:59.999Z");
    }

    #[test]
    fn a_time_out_of_range_is_the_epoch() {
        assert_eq!(Timestamp::new(UNIX_EPOCH - Duration::from_secs(1)).as_str(), "1970-01-01T00:00:00.000Z");
        let late = UNIX_EPOCH + Duration::from_secs(253_402_300_800);
        assert_eq!(Timestamp::new(late).as_str(), "1970-01-01T00:00:00.000Z");
    }
}
