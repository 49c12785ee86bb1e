//! Moments: seconds since 1970 in here, RFC 3339 wherever somebody reads them.

use serde::{Deserialize, Deserializer, Serializer};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Seconds since 1970 (UTC), as the store keeps times.
pub type Timestamp = u64;

/// A moment in UTC, as the interface, the audit log and logs write it: `2026-11-21T08:00:00Z`.
#[must_use]
pub fn rfc3339(at: Timestamp) -> String {
    let seconds = i64::try_from(at).unwrap_or(i64::MAX);
    let time = OffsetDateTime::from_unix_timestamp(seconds).ok();
    time.and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_default()
}

/// Written as [`rfc3339`] writes it; the seconds that stores of before hold are read as well.
pub(crate) mod as_text {
    use super::{Deserialize as _, Deserializer, OffsetDateTime, Rfc3339, Serializer, Timestamp};

    #[derive(super::Deserialize)]
    #[serde(untagged)]
    enum Written {
        Seconds(Timestamp),
        Text(String),
    }

    pub(crate) fn serialize<S: Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&super::rfc3339(*at))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        let text = match Written::deserialize(deserializer)? {
            Written::Seconds(at) => return Ok(at),
            Written::Text(text) => text,
        };
        let time = OffsetDateTime::parse(&text, &Rfc3339).map_err(serde::de::Error::custom)?;
        Timestamp::try_from(time.unix_timestamp()).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_for_people_and_read_back_as_numbers_too() {
        #[derive(serde::Serialize, Deserialize)]
        struct Written(#[serde(with = "as_text")] Timestamp);

        let text = serde_json::to_string(&Written(1_795_248_000)).unwrap();
        assert_eq!(text, "\"2026-11-21T08:00:00Z\"");
        for text in [text.as_str(), "1795248000"] {
            assert_eq!(serde_json::from_str::<Written>(text).unwrap().0, 1_795_248_000);
        }
        assert!(serde_json::from_str::<Written>("\"yesterday\"").is_err());
        assert_eq!(rfc3339(u64::MAX), "");
    }
}
