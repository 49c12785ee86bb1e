//! The process log: events of `tracing`, one line each, through a [`LineWriter`].

use std::fmt::{self, Write as _};
use std::io;
use std::time::SystemTime;

use tracing::Subscriber;
use tracing::field::Field;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt as _;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::{Writer, debug_fn};
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::reload;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};

use super::LineWriter;
use crate::escape::{Escaped, escape_json};
use crate::timestamp::Timestamp;

/// Installs the log of this process: events that pass `filter` become lines of `writer`.
///
/// `filter` is a list of directives such as `info,adit_gateway=debug`; empty means `info`. Every event is one line
/// whatever its fields hold, with its time in UTC. `color` adds terminal colours to the text format; whether the
/// sink is a terminal that wants them is the caller's to know.
///
/// # Errors
///
/// When `filter` is not understood, or when this process has a log already.
pub fn init(
    format: LogFormat,
    filter: &str,
    writer: LineWriter,
    color: bool,
) -> Result<FilterHandle, InitError> {
    let (subscriber, handle) = subscriber(format, filter, writer, color)?;
    subscriber.try_init().map_err(InitError::Installed)?;
    Ok(handle)
}

/// Changes how much of what happens is logged.
pub struct FilterHandle(Box<dyn Fn(EnvFilter) -> Result<(), reload::Error> + Send + Sync>);

impl fmt::Debug for FilterHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FilterHandle")
    }
}

impl FilterHandle {
    /// Puts another filter in the place of the one in force.
    ///
    /// # Errors
    /// When it is not understood, or there is no log any more.
    pub fn set(&self, filter: &str) -> Result<(), InitError> {
        (self.0)(parse_filter(filter)?).map_err(InitError::Gone)
    }
}

/// How an event is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// For people: time, level, target, message, `field=value`.
    #[default]
    Text,
    /// For machines: one JSON object, the event's fields at its top level.
    Json,
}

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InitError {
    /// A word that is neither a level nor a directive, most likely a misspelt level.
    #[error("log filter: `{0}` is no level; use off, error, warn, info, debug or trace, or target=level")]
    Level(String),
    /// A directive that cannot be parsed.
    #[error("log filter: `{filter}` is not valid; write it like `info,adit_gateway=debug`")]
    Directive {
        /// The filter as it was given.
        filter: String,
        /// What the parser says.
        source: ParseError,
    },
    /// The log whose filter was to be changed is gone.
    #[error("this process has no log any more")]
    Gone(#[source] reload::Error),
    /// Another log was installed before.
    #[error("this process has a log already")]
    Installed(#[source] TryInitError),
}

fn subscriber(
    format: LogFormat,
    filter: &str,
    writer: LineWriter,
    color: bool,
) -> Result<(Box<dyn Subscriber + Send + Sync>, FilterHandle), InitError> {
    let builder = tracing_subscriber::fmt()
        .with_env_filter(parse_filter(filter)?)
        .with_timer(Utc)
        .with_ansi(color)
        .with_writer(Lines { writer, format });
    // The handle's type holds that of everything it is a part of.
    macro_rules! finish {
        ($builder:expr) => {{
            let builder = $builder.with_filter_reloading();
            let handle = builder.reload_handle();
            (Box::new(builder.finish()), FilterHandle(Box::new(move |filter| handle.reload(filter))))
        }};
    }
    Ok(match format {
        LogFormat::Text => finish!(builder.fmt_fields(debug_fn(write_field).delimited(" "))),
        LogFormat::Json => finish!(builder.json().flatten_event(true).with_span_list(false)),
    })
}

fn parse_filter(filter: &str) -> Result<EnvFilter, InitError> {
    let builder = EnvFilter::builder().with_default_directive(LevelFilter::INFO.into());
    // Span directives have commas and words of their own inside brackets; they are left to the parser.
    let is_plain = !filter.contains('[');
    let parts: Vec<&str> =
        if is_plain { filter.split(',').map(str::trim).collect() } else { vec![filter.trim()] };
    for part in &parts {
        // The parser would take `inof` for the name of a target and log nothing else.
        if is_plain && !part.is_empty() && !part.contains('=') && part.parse::<LevelFilter>().is_err() {
            return Err(InitError::Level((*part).to_owned()));
        }
    }
    builder
        .parse(parts.join(","))
        .map_err(|source| InitError::Directive { filter: filter.to_owned(), source })
}

/// Writes one field of the text format. The subscriber's own way lets control characters of most values through.
fn write_field(writer: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug) -> fmt::Result {
    match field.name() {
        "message" => {}
        name => write!(writer, "{}=", name.strip_prefix("r#").unwrap_or(name))?,
    }
    write!(Escaped(writer), "{value:?}")
}

struct Utc;

impl FormatTime for Utc {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        writer.write_str(Timestamp::new(SystemTime::now()).as_str())
    }
}

struct Lines {
    writer: LineWriter,
    format: LogFormat,
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = EventLine<'a>;

    fn make_writer(&'a self) -> EventLine<'a> {
        EventLine(self)
    }
}

/// Takes one event: the subscriber formats it whole and writes it at once.
struct EventLine<'a>(&'a Lines);

impl io::Write for EventLine<'_> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        match self.0.format {
            LogFormat::Text => self.0.writer.write_line(event),
            LogFormat::Json => {
                let mut line = event.strip_suffix(b"\n").unwrap_or(event).to_vec();
                escape_json(&mut line);
                self.0.writer.write_line(line);
            }
        }
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logs::tests::Memory;

    const HOSTILE: &str = "a\nb\x1b[31m\u{9b}c";

    /// Everything that is logged while `events` runs.
    fn logged(format: LogFormat, filter: &str, color: bool, events: impl FnOnce()) -> String {
        let memory = Memory::default();
        let (writer, guard) = LineWriter::new(Box::new(memory.clone()), 1 << 20).unwrap();
        let (subscriber, _handle) = subscriber(format, filter, writer, color).unwrap();
        tracing::subscriber::with_default(subscriber, events);
        drop(guard);
        memory.text()
    }

    fn hostile_event() {
        let _span = tracing::info_span!("session", agent = %HOSTILE).entered();
        let error = io::Error::other(HOSTILE);
        let error: &dyn std::error::Error = &error;
        tracing::warn!(shown = %HOSTILE, debugged = ?HOSTILE, text = HOSTILE, error, "{HOSTILE}");
    }

    #[test]
    fn a_text_event_is_one_line_of_harmless_characters_whatever_its_fields_hold() {
        let text = logged(LogFormat::Text, "info", false, hostile_event);
        assert_eq!(text.find('\n'), Some(text.len() - 1), "{text:?}");
        assert!(!text.trim_end().contains(char::is_control), "{text:?}");
        assert!(text.contains("shown=a\\nb\\u{1b}[31m\\u{9b}c"), "{text:?}");
        assert_eq!(text.matches("[31m").count(), 6, "{text:?}");
    }

    #[test]
    fn colour_is_the_only_thing_that_brings_escape_sequences() {
        let text = logged(LogFormat::Text, "info", true, hostile_event);
        assert_eq!(text.find('\n'), Some(text.len() - 1), "{text:?}");
        assert!(text.contains('\x1b'), "{text:?}");
        assert!(!text.contains("\x1b[31m") && !text.contains('\u{9b}'), "{text:?}");
    }

    #[test]
    fn a_json_event_is_one_line_and_reads_back_as_it_was() {
        let text = logged(LogFormat::Json, "info", false, hostile_event);
        assert_eq!(text.find('\n'), Some(text.len() - 1), "{text:?}");
        assert!(!text.trim_end().contains(char::is_control), "{text:?}");
        let event: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(event["message"], HOSTILE);
        assert_eq!(event["shown"], HOSTILE);
        assert_eq!(event["level"], "WARN");
        assert_eq!(event["span"]["agent"], HOSTILE);
    }

    #[test]
    fn events_carry_their_time_in_utc() {
        let text = logged(LogFormat::Text, "", false, || tracing::info!("up"));
        let (time, rest) = text.split_once(' ').unwrap();
        assert_eq!((time.len(), time.ends_with('Z')), (24, true), "{text:?}");
        assert_eq!(rest, " INFO adit_telemetry::logs::events::tests: up\n");
    }

    #[test]
    fn the_filter_decides_per_target_and_defaults_to_info() {
        let events = || {
            tracing::info!("one");
            tracing::debug!("two");
            tracing::debug!(target: "other", "three");
        };
        let seen = |filter| {
            let text = logged(LogFormat::Text, filter, false, events);
            ["one", "two", "three"].map(|word| text.contains(word))
        };
        assert_eq!(seen(""), [true, false, false]);
        assert_eq!(seen("warn, other=debug"), [false, false, true]);
        assert_eq!(seen("DEBUG"), [true, true, true]);
        assert_eq!(seen("off"), [false, false, false]);
    }

    #[test]
    fn a_filter_that_is_not_understood_is_named_in_the_error() {
        let fault = |filter| parse_filter(filter).unwrap_err().to_string();
        assert!(fault("inof").contains("`inof`"));
        assert!(fault("info,adit_gateway").contains("`adit_gateway`"));
        assert!(fault("adit_gateway=loud").contains("`adit_gateway=loud`"));
    }
}
