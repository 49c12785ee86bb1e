//! The request log: one JSON line per request or connection.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use serde::{Serialize, Serializer};

use crate::escape::escape_json;
use crate::logs::LineWriter;
use crate::timestamp::Timestamp;

/// What is known of one flow at its end. Fields that are `None` are left out of the line.
///
/// Texts may hold anything a client sent: they are cut at [`MAX_TEXT`] bytes and escaped, and the line stays one.
#[derive(Debug, Clone, Serialize)]
pub struct RequestLine<'a> {
    /// When the flow began; written in UTC with milliseconds.
    #[serde(serialize_with = "timestamp")]
    pub time: SystemTime,
    /// The identity the access decision was about.
    #[serde(serialize_with = "cut_option", skip_serializing_if = "Option::is_none")]
    pub identity: Option<&'a str>,
    /// The service it was for.
    #[serde(serialize_with = "cut_option", skip_serializing_if = "Option::is_none")]
    pub service: Option<&'a str>,
    /// The route that matched.
    #[serde(serialize_with = "cut_option", skip_serializing_if = "Option::is_none")]
    pub route: Option<&'a str>,
    /// The client's address.
    pub client: IpAddr,
    /// The method as the client wrote it.
    #[serde(serialize_with = "cut")]
    pub method: &'a str,
    /// The host as the client wrote it.
    #[serde(serialize_with = "cut")]
    pub host: &'a str,
    /// The request target. Only what is before the first `?` is written: queries often hold secrets.
    #[serde(serialize_with = "without_query")]
    pub target: &'a str,
    /// `HTTP/1.1`, `HTTP/2`, ...
    #[serde(serialize_with = "cut")]
    pub protocol: &'a str,
    /// The status the client was sent; `None` when it was sent none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Why the flow was refused or ended early.
    #[serde(serialize_with = "cut_option", skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'a str>,
    /// Body bytes from the client.
    pub bytes_in: u64,
    /// Body bytes to the client.
    pub bytes_out: u64,
    /// From the first byte of the request to the last of the response.
    #[serde(rename = "duration_ms", serialize_with = "millis")]
    pub duration: Duration,
    /// Until there was a stream to an agent.
    #[serde(rename = "wait_ms", serialize_with = "millis_option", skip_serializing_if = "Option::is_none")]
    pub wait: Option<Duration>,
    /// From there until the head of the upstream's response.
    #[serde(
        rename = "upstream_ms",
        serialize_with = "millis_option",
        skip_serializing_if = "Option::is_none"
    )]
    pub upstream_wait: Option<Duration>,
    /// The agent that carried it.
    #[serde(serialize_with = "cut_option", skip_serializing_if = "Option::is_none")]
    pub agent: Option<&'a str>,
    /// The upstream the agent connected to.
    #[serde(serialize_with = "cut_option", skip_serializing_if = "Option::is_none")]
    pub upstream: Option<&'a str>,
    /// The client's `User-Agent`.
    #[serde(serialize_with = "cut_option", skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<&'a str>,
}

/// Bytes of a text field that are written; the rest is cut, at the end of a character.
pub const MAX_TEXT: usize = 1024;

impl RequestLine<'_> {
    /// Queues this as one line. Never blocks; see [`LineWriter::write_line`].
    pub fn write(&self, log: &LineWriter) {
        match self.to_json() {
            Ok(line) => log.write_line(line),
            // No field can fail to serialise; should one ever, the loss is at least counted.
            Err(_) => log.count_dropped(1),
        }
    }

    fn to_json(&self) -> serde_json::Result<Vec<u8>> {
        let texts = [self.method, self.host, self.target, self.protocol];
        let options = [
            self.identity,
            self.service,
            self.route,
            self.reason,
            self.agent,
            self.upstream,
            self.user_agent,
        ];
        let texts = texts.into_iter().chain(options.into_iter().flatten());
        let length: usize = texts.map(|text| text.len().min(MAX_TEXT)).sum();
        // The keys and numbers take less than 512 bytes, so only escapes can make this grow.
        let mut line = Vec::with_capacity(length + 512);
        serde_json::to_writer(&mut line, self)?;
        escape_json(&mut line);
        Ok(line)
    }
}

fn timestamp<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(Timestamp::new(*time).as_str())
}

fn cut<S: Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(text.get(..text.floor_char_boundary(MAX_TEXT)).unwrap_or(text))
}

fn cut_option<S: Serializer>(text: &Option<&str>, serializer: S) -> Result<S::Ok, S::Error> {
    cut(text.unwrap_or_default(), serializer)
}

fn without_query<S: Serializer>(target: &str, serializer: S) -> Result<S::Ok, S::Error> {
    cut(target.split_once('?').map_or(target, |(path, _)| path), serializer)
}

/// Milliseconds, to the microsecond.
#[expect(clippy::cast_precision_loss, reason = "microseconds stay exact in a float for 285 years")]
fn millis<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    serializer.serialize_f64(micros as f64 / 1000.0)
}

fn millis_option<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    millis(&duration.unwrap_or_default(), serializer)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::UNIX_EPOCH;

    use serde_json::{Value, json};

    use super::*;

    fn line() -> RequestLine<'static> {
        RequestLine {
            time: UNIX_EPOCH + Duration::from_millis(1_769_847_330_042),
            identity: Some("alice"),
            service: Some("web"),
            route: Some("web.example.com/"),
            client: Ipv4Addr::new(192, 0, 2, 7).into(),
            method: "GET",
            host: "web.example.com",
            target: "/login?token=secret",
            protocol: "HTTP/1.1",
            status: Some(502),
            reason: Some("upstream_refused"),
            bytes_in: 0,
            bytes_out: 120,
            duration: Duration::from_nanos(12_345_678),
            wait: Some(Duration::from_micros(250)),
            upstream_wait: None,
            agent: Some("edge-1"),
            upstream: Some("127.0.0.1:3000"),
            user_agent: Some("curl/8"),
        }
    }

    fn parsed(line: &RequestLine<'_>) -> Value {
        serde_json::from_slice(&line.to_json().unwrap()).unwrap()
    }

    #[test]
    fn a_line_is_json_without_the_query_and_without_what_is_not_known() {
        let expected = json!({
            "time": "2026-01-31T08:15:30.042Z", "identity": "alice", "service": "web", "route": "web.example.com/",
            "client": "192.0.2.7", "method": "GET", "host": "web.example.com", "target": "/login",
            "protocol": "HTTP/1.1", "status": 502, "reason": "upstream_refused", "bytes_in": 0, "bytes_out": 120,
            "duration_ms": 12.345, "wait_ms": 0.25, "agent": "edge-1", "upstream": "127.0.0.1:3000",
            "user_agent": "curl/8",
        });
        assert_eq!(parsed(&line()), expected);
    }

    #[test]
    fn hostile_text_stays_on_one_line_and_reads_back() {
        let hostile = "a\r\n{\"status\":200}\x1b[2J\0\x7f\u{9b}\u{2028}\u{202e}";
        let line = RequestLine { host: hostile, user_agent: Some(hostile), ..line() };
        let json = String::from_utf8(line.to_json().unwrap()).unwrap();
        assert!(!json.contains(|c: char| c.is_control() || c == '\u{2028}'), "{json}");
        assert_eq!(parsed(&line)["host"], hostile);
        assert_eq!(parsed(&line)["user_agent"], hostile);
        assert_eq!(parsed(&line)["status"], 502);
    }

    #[test]
    fn long_text_is_cut_between_characters() {
        let long = format!("{}é?query", "a".repeat(MAX_TEXT - 1));
        let line = RequestLine { target: &long, user_agent: Some(&long), method: "", ..line() };
        assert_eq!(parsed(&line)["target"], "a".repeat(MAX_TEXT - 1));
        assert_eq!(parsed(&line)["user_agent"], "a".repeat(MAX_TEXT - 1));
        assert_eq!(parsed(&line)["method"], "");
    }

    #[test]
    fn the_longest_line_without_escapes_needs_one_allocation() {
        let long = "a".repeat(MAX_TEXT * 2);
        let text = long.as_str();
        let line = RequestLine {
            identity: Some(text),
            service: Some(text),
            route: Some(text),
            client: IpAddr::from([0xffff_u16; 8]),
            method: text,
            host: text,
            target: text,
            protocol: text,
            reason: Some(text),
            bytes_in: u64::MAX,
            bytes_out: u64::MAX,
            duration: Duration::MAX,
            wait: Some(Duration::MAX),
            upstream_wait: Some(Duration::MAX),
            agent: Some(text),
            upstream: Some(text),
            user_agent: Some(text),
            ..line()
        };
        // A vector that had to grow would have doubled.
        let json = line.to_json().unwrap();
        assert_eq!(json.capacity(), 11 * MAX_TEXT + 512);
    }

    #[test]
    fn a_written_line_is_one_line_of_the_log() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("requests");
        let (log, guard) = LineWriter::file(&path).unwrap();
        line().write(&log);
        line().write(&log);
        drop(guard);
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines, [parsed(&line()), parsed(&line())]);
    }
}
