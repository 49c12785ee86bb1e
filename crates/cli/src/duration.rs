//! Durations: in words for status, and as written in flags and files.

use std::time::Duration;

/// A duration in words, largest unit only: `49 minutes`, `1 day`.
pub(crate) fn in_words(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let units = [(86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second")];
    let (size, unit) = units.into_iter().find(|&(size, _)| seconds >= size).unwrap_or((1, "second"));
    let count = seconds / size;
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

/// Reads `500ms`, `10s`, `2m`, `1h30m`. A unit is required, so that nobody has to guess it.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let wrong =
        || format!("`{text}` is not a duration; write a number with a unit, such as 500ms, 10s, 2m or 1h30m");
    let mut rest = text;
    let mut total = Duration::ZERO;
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let (number, tail) = rest.split_at(digits);
        let unit_end = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let number: u64 = number.parse().map_err(|_not_a_number| wrong())?;
        let millis = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(wrong()),
        };
        let part = number.checked_mul(millis).map(Duration::from_millis).ok_or_else(wrong)?;
        total = total.checked_add(part).ok_or_else(wrong)?;
        rest = tail;
    }
    Ok(total)
}

/// The longest that a gateway keeps an invitation or an old secret good.
const MONTH: Duration = Duration::from_secs(30 * 86_400);

/// How long a token to enroll with can be used, as the gateway takes it: refused before anything is made for it.
pub(crate) fn ttl(text: &str) -> Result<Duration, String> {
    match parse(text)? {
        ttl if (Duration::from_secs(1)..=MONTH).contains(&ttl) => Ok(ttl),
        _ => Err("it is between 1s and 30d".to_owned()),
    }
}

/// How long an old secret is taken beside a new one.
pub(crate) fn window(text: &str) -> Result<Duration, String> {
    match parse(text)? {
        window if window <= MONTH => Ok(window),
        _ => Err("it is 30d at most".to_owned()),
    }
}

/// A duration as [`parse`] reads it.
pub(crate) fn show(duration: &Duration) -> String {
    let millis = duration.as_millis();
    match millis {
        0 => "0s".to_owned(),
        _ if millis.is_multiple_of(3_600_000) => format!("{}h", millis / 3_600_000),
        _ if millis.is_multiple_of(60_000) => format!("{}m", millis / 60_000),
        _ if millis.is_multiple_of(1_000) => format!("{}s", millis / 1_000),
        _ => format!("{millis}ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_use_the_largest_unit_only() {
        for (seconds, words) in [
            (0, "0 seconds"),
            (1, "1 second"),
            (10, "10 seconds"),
            (60, "1 minute"),
            (15 * 60 + 59, "15 minutes"),
            (49 * 60, "49 minutes"),
            (3_600, "1 hour"),
            (2 * 3_600 + 5, "2 hours"),
            (86_400 + 5_000, "1 day"),
            (400 * 86_400, "400 days"),
        ] {
            assert_eq!(in_words(Duration::from_secs(seconds)), words);
        }
    }

    #[test]
    fn durations_need_a_unit_and_read_back() {
        for (text, millis) in
            [("500ms", 500), ("10s", 10_000), ("2m", 120_000), ("1h30m", 5_400_000), ("0s", 0)]
        {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
            assert_eq!(parse(&show(&Duration::from_millis(millis))), Ok(Duration::from_millis(millis)));
        }
        for text in ["", "10", "s", "1.5s", "-1s", "10 s", "10sec", "99999999999999999999s"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_a_gateway_would_refuse_is_refused_before() {
        assert_eq!(ttl("30d"), Ok(MONTH));
        assert!(ttl("0s").is_err() && ttl("500ms").is_err() && ttl("31d").is_err() && ttl("x").is_err());
        assert_eq!(window("0s"), Ok(Duration::ZERO));
        assert!(window("31d").is_err());
    }
}
