//! Every token of the suite, and the check that none of them is ever said aloud.
//!
//! Each owned process is checked when it goes, and so is each response the plain client reads.

use std::io::Read as _;

use parking_lot::Mutex;

static TOKENS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// A new token of 40 hexadecimal digits, known to the check.
pub(crate) fn token() -> String {
    let mut bytes = [0; 20];
    std::fs::File::open("/dev/urandom").unwrap().read_exact(&mut bytes).unwrap();
    let token: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    keep(&token);
    token
}

/// Makes a token known to the check.
pub(crate) fn keep(token: &str) {
    assert!(token.len() > 8, "`{token}` is too short to be looked for");
    TOKENS.lock().push(token.to_owned());
}

/// The first line that says a token.
pub(crate) fn leak(text: &[u8]) -> Option<String> {
    let tokens = TOKENS.lock();
    let text = String::from_utf8_lossy(text);
    text.lines().find(|line| tokens.iter().any(|token| line.contains(token.as_str()))).map(str::to_owned)
}

#[test]
fn a_token_that_is_said_aloud_is_noticed() {
    let token = token();
    assert_eq!(leak(b"nothing\nto see\n"), None);
    let line = format!("it is {token}.");
    assert_eq!(leak(format!("first\n{line}\nlast\n").as_bytes()), Some(line));
}
