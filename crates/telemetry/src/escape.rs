//! Keeps one log event one line, and a terminal that shows it unharmed, whatever a client sent.

use std::fmt::{self, Write};

/// Passes text on with every character escaped that could end a line or steer a terminal.
pub(crate) struct Escaped<'a>(pub(crate) &'a mut dyn Write);

impl Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some(at) = rest.find(is_unsafe) {
            let (clean, tail) = rest.split_at(at);
            self.0.write_str(clean)?;
            let mut chars = tail.chars();
            if let Some(c) = chars.next() {
                write!(self.0, "{}", c.escape_default())?;
            }
            rest = chars.as_str();
        }
        self.0.write_str(rest)
    }
}

/// Escapes in place what a JSON serialiser lets through: DEL, C1 controls, line separators, direction marks.
///
/// `json` is one JSON value on one line: such characters can then only be inside its strings, where `\u` is allowed.
pub(crate) fn escape_json(json: &mut Vec<u8>) {
    // Every such character but DEL is encoded with one of these two lead bytes; most lines hold neither.
    if !json.iter().any(|byte| matches!(byte, 0x7f | 0xc2 | 0xe2)) {
        return;
    }
    let mut escaped = String::with_capacity(json.len() + 64);
    for c in String::from_utf8_lossy(json).chars() {
        if is_unsafe(c) {
            // All of them are in the basic plane, so four digits do; writing to a string cannot fail.
            write!(escaped, "\\u{:04x}", u32::from(c)).unwrap_or_default();
        } else {
            escaped.push(c);
        }
    }
    *json = escaped.into_bytes();
}

fn is_unsafe(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTILE: &str = "a\nb\r\t\x1b[31m\0\x7f\u{9b}\u{2028}\u{202e}é\\";

    #[test]
    fn text_keeps_what_can_be_read_and_escapes_the_rest() {
        let mut out = String::new();
        Escaped(&mut out).write_str(HOSTILE).unwrap();
        assert_eq!(out, "a\\nb\\r\\t\\u{1b}[31m\\u{0}\\u{7f}\\u{9b}\\u{2028}\\u{202e}é\\");
    }

    #[test]
    fn json_reads_back_the_same_and_holds_nothing_unsafe() {
        let mut json = serde_json::to_vec(HOSTILE).unwrap();
        escape_json(&mut json);
        assert!(!std::str::from_utf8(&json).unwrap().contains(is_unsafe));
        assert_eq!(serde_json::from_slice::<String>(&json).unwrap(), HOSTILE);
    }
}
