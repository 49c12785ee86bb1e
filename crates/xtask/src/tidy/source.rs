//! One Rust file, taken apart just enough for tidy: code without literals, comments without code, and which
//! lines are tests. Not a parser: it knows comments, literals, identifiers and braces.

use std::ops::Range;

/// A Rust file and its parts, line by line.
#[derive(Debug)]
pub(crate) struct Source {
    /// Where it lies, from the workspace's folder.
    pub(crate) path: String,
    /// As written.
    pub(crate) text: String,
    /// The code: comments and the insides of literals are spaces.
    pub(crate) code: Vec<String>,
    /// The comments: everything else is spaces.
    pub(crate) comments: Vec<String>,
    /// For each line, whether it is test code.
    pub(crate) is_test: Vec<bool>,
}

impl Source {
    pub(crate) fn new(path: &str, text: &str) -> Self {
        let (code, comments) = split(text);
        let mut is_test = vec![is_test_file(path); text.lines().count()];
        for range in test_ranges(&code) {
            let first = line_of(&code, range.start);
            let last = line_of(&code, range.end.saturating_sub(1));
            is_test.iter_mut().take(last + 1).skip(first).for_each(|line| *line = true);
        }
        let lines = |text: &str| text.lines().map(str::to_owned).collect();
        Self {
            path: path.to_owned(),
            text: text.to_owned(),
            code: lines(&code),
            comments: lines(&comments),
            is_test,
        }
    }

    /// The reason given for an exception to a rule on this line (counted from 0): `tidy: allow(rule): reason`
    /// in a comment on the line itself or on the one above.
    pub(crate) fn allows(&self, rule: &str, line: usize) -> bool {
        let above = line.checked_sub(1);
        [Some(line), above].into_iter().flatten().filter_map(|line| self.comments.get(line)).any(|comment| {
            allowed_rule(comment).is_some_and(|(name, reason)| name == rule && !reason.is_empty())
        })
    }
}

/// The rule and the reason of a `tidy: allow(rule): reason` in a line.
pub(crate) fn allowed_rule(line: &str) -> Option<(&str, &str)> {
    let (_, rest) = line.split_once("tidy: allow(")?;
    let (rule, reason) = rest.split_once(')')?;
    Some((rule, reason.trim_start_matches(':').trim_end_matches("-->").trim()))
}

/// Whether a whole file is test code by its place.
pub(crate) fn is_test_file(path: &str) -> bool {
    ["tests/", "crates/testkit/", "fuzz/"].iter().any(|folder| path.starts_with(folder))
        || path.contains("/tests/")
        || path.ends_with("/tests.rs")
}

/// Each identifier of a line of code, keywords included, and what stands between it and the one before.
pub(crate) fn identifiers(code: &str) -> Vec<(&str, &str)> {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    let mut found = Vec::new();
    let mut rest = code;
    while let Some(start) = rest.find(is_part) {
        let (gap, word) = rest.split_at(start);
        let (word, after) = word.split_at(word.find(|c| !is_part(c)).unwrap_or(word.len()));
        if !word.starts_with(|c: char| c.is_ascii_digit()) {
            found.push((gap, word));
        }
        rest = after;
    }
    found
}

/// The words of an identifier in snake or camel case, in lower case.
pub(crate) fn words(identifier: &str) -> Vec<String> {
    let mut words = Vec::new();
    for part in identifier.split('_').filter(|part| !part.is_empty()) {
        let chars: Vec<char> = part.chars().collect();
        let mut start = 0;
        for at in 1..chars.len() {
            let after_lower = !chars[at - 1].is_uppercase() && chars[at].is_uppercase();
            let ends_acronym = chars[at - 1].is_uppercase()
                && chars[at].is_uppercase()
                && chars.get(at + 1).is_some_and(|next| next.is_lowercase());
            if after_lower || ends_acronym {
                words.push(chars[start..at].iter().collect::<String>().to_lowercase());
                start = at;
            }
        }
        words.push(chars[start..].iter().collect::<String>().to_lowercase());
    }
    words
}

fn line_of(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|byte| *byte == b'\n').count()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Code,
    Comment,
    Literal,
}

/// The same text twice, once with only the code and once with only the comments; line breaks stay.
fn split(text: &str) -> (String, String) {
    let chars: Vec<char> = text.chars().collect();
    let (mut code, mut comments) = (String::with_capacity(text.len()), String::with_capacity(text.len()));
    let mut at = 0;
    while at < chars.len() {
        let (part, end) = token(&chars, at);
        for c in &chars[at..end] {
            let keep = |wanted: Part| if *c == '\n' || part == wanted { *c } else { ' ' };
            code.push(keep(Part::Code));
            comments.push(keep(Part::Comment));
        }
        at = end;
    }
    (code, comments)
}

/// What starts here, and where it ends.
fn token(chars: &[char], at: usize) -> (Part, usize) {
    let next = chars.get(at + 1).copied();
    match chars[at] {
        '/' if next == Some('/') => (Part::Comment, find(chars, at, |c| c == '\n')),
        '/' if next == Some('*') => (Part::Comment, block_comment(chars, at)),
        '"' => (Part::Literal, quoted(chars, at + 1, '"')),
        '\'' if next == Some('\\') => (Part::Literal, quoted(chars, at + 1, '\'')),
        '\'' if chars.get(at + 2) == Some(&'\'') => (Part::Literal, at + 3),
        c if c.is_alphanumeric() || c == '_' => word(chars, at),
        _ => (Part::Code, at + 1),
    }
}

/// An identifier, a number, or a literal with a prefix such as `br#"`.
fn word(chars: &[char], at: usize) -> (Part, usize) {
    let end = find(chars, at, |c| !(c.is_alphanumeric() || c == '_'));
    let prefix: String = chars[at..end].iter().collect();
    let next = chars.get(end).copied();
    match prefix.as_str() {
        "b" | "c" if next == Some('"') => (Part::Literal, quoted(chars, end + 1, '"')),
        "b" if next == Some('\'') => (Part::Literal, quoted(chars, end + 1, '\'')),
        "r" | "br" | "cr" if matches!(next, Some('"' | '#')) => {
            let quote = find(chars, end, |c| c != '#');
            if chars.get(quote) == Some(&'"') {
                (Part::Literal, raw_string(chars, quote, quote - end))
            } else {
                (Part::Code, end)
            }
        }
        _ => (Part::Code, end),
    }
}

fn find(chars: &[char], from: usize, stops: impl Fn(char) -> bool) -> usize {
    chars[from..].iter().position(|c| stops(*c)).map_or(chars.len(), |offset| from + offset)
}

fn quoted(chars: &[char], mut at: usize, quote: char) -> usize {
    while at < chars.len() {
        match chars[at] {
            '\\' => at += 2,
            c if c == quote => return at + 1,
            _ => at += 1,
        }
    }
    chars.len()
}

fn raw_string(chars: &[char], quote: usize, hashes: usize) -> usize {
    let mut at = quote + 1;
    while at < chars.len() {
        if chars[at] == '"' && chars[at + 1..].iter().take_while(|c| **c == '#').count() >= hashes {
            return at + 1 + hashes;
        }
        at += 1;
    }
    chars.len()
}

fn block_comment(chars: &[char], at: usize) -> usize {
    let (mut depth, mut at) = (0_usize, at);
    while at + 1 < chars.len() {
        match (chars[at], chars[at + 1]) {
            ('/', '*') => (depth, at) = (depth + 1, at + 2),
            ('*', '/') => {
                (depth, at) = (depth - 1, at + 2);
                if depth == 0 {
                    return at;
                }
            }
            _ => at += 1,
        }
    }
    chars.len()
}

/// The byte ranges of items under `#[cfg(test)]`, attribute included.
fn test_ranges(code: &str) -> Vec<Range<usize>> {
    const ATTRIBUTE: &str = "#[cfg(test)]";
    let mut ranges = Vec::new();
    let mut from = 0;
    while let Some(offset) = code[from..].find(ATTRIBUTE) {
        let start = from + offset;
        let end = item_end(code, start + ATTRIBUTE.len());
        ranges.push(start..end);
        from = end;
    }
    ranges
}

/// Where the item that starts here ends: behind its `;`, or behind the brace that closes its body.
fn item_end(code: &str, from: usize) -> usize {
    let mut braces = 0_usize;
    let mut brackets = 0_usize;
    for (offset, byte) in code.bytes().enumerate().skip(from) {
        match byte {
            b'(' | b'[' => brackets += 1,
            b')' | b']' => brackets = brackets.saturating_sub(1),
            b'{' => braces += 1,
            b'}' => {
                braces = braces.saturating_sub(1);
                if braces == 0 {
                    return offset + 1;
                }
            }
            b';' if braces == 0 && brackets == 0 => return offset + 1,
            _ => {}
        }
    }
    code.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_told_from_code() {
        let text = concat!(
            "let a = \"code // no\\\" still\"; // comment \"x\"\n",
            "let r = r#\"raw \" // no\"#; /* block /* nested */ end */ let l: &'static str = x;\n",
            "let c = ['/', '\\'', b'\"', '\"']; let r#type = br\"x\";\n",
        );
        let source = Source::new("crates/a/src/b.rs", text);
        assert_eq!(source.code.len(), 3);
        assert_eq!(source.code[0].split_whitespace().collect::<Vec<_>>(), ["let", "a", "=", ";"]);
        assert_eq!(source.code[0].find(';'), text.find(';'));
        assert_eq!(source.comments[0].trim(), "// comment \"x\"");
        assert!(source.code[1].contains("let l: &'static str = x;"), "{:?}", source.code[1]);
        assert_eq!(source.comments[1].trim(), "/* block /* nested */ end */");
        assert!(source.code[2].contains("let r#type ="), "{:?}", source.code[2]);
        assert!(!source.code[2].contains('"'), "{:?}", source.code[2]);
    }

    #[test]
    fn test_items_are_found_with_their_braces() {
        let text = "fn a() {}\n#[cfg(test)]\nmod tests {\n  fn b() { \"}\"; }\n}\nfn c() {}\n#[cfg(test)]\nuse x;\nfn d() {}\n";
        assert_eq!(
            Source::new("crates/a/src/b.rs", text).is_test,
            [false, true, true, true, true, false, true, true, false]
        );
        assert!(Source::new("tests/drain.rs", text).is_test.iter().all(|test| *test));
        assert!(is_test_file("crates/proto/tests/corpus.rs") && is_test_file("crates/a/src/b/tests.rs"));
        assert!(!is_test_file("crates/a/src/contests.rs"));
    }

    #[test]
    fn identifiers_fall_into_words() {
        assert_eq!(words("HTTPServerName"), ["http", "server", "name"]);
        assert_eq!(words("_two_wordsHere"), ["two", "words", "here"]);
        assert_eq!(words("MAX_NAME"), ["max", "name"]);
        assert_eq!(
            identifiers("let a_b = 0x1f + C2::d;"),
            [("", "let"), (" ", "a_b"), (" + ", "C2"), ("::", "d")]
        );
    }

    #[test]
    fn an_exception_needs_its_own_rule_and_a_reason_and_reaches_one_line() {
        let text = "// tidy: allow(sleep): the peer has no signal\na();\nb();\nc(); // tidy: allow(sleep)\n";
        let source = Source::new("tests/a.rs", text);
        assert!(source.allows("sleep", 1));
        assert!(!source.allows("word", 1));
        assert!(!source.allows("sleep", 2));
        assert!(!source.allows("sleep", 3));
    }
}
