//! Secrets that cannot print.

use std::fmt;

use zeroize::Zeroizing;

/// A secret text: a token, a password, a key in text form.
///
/// Prints as `<redacted>`, cannot be serialised, and is overwritten in memory when dropped. It has no `==`: compare
/// what [`Secret::expose`] returns in constant time.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

/// Why a text is no secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SecretError {
    /// Nothing, or nothing but white space: an unset variable or a file that was never filled.
    #[error("the secret is empty")]
    Empty,
}

impl Secret {
    /// Takes the content of a file or variable; one newline at its end (`\n` or `\r\n`) is not part of the secret.
    ///
    /// # Errors
    ///
    /// When nothing but white space is left.
    pub fn new(text: String) -> Result<Self, SecretError> {
        let mut text = Zeroizing::new(text);
        if text.ends_with('\n') {
            text.pop();
            if text.ends_with('\r') {
                text.pop();
            }
        }
        if text.trim().is_empty() {
            return Err(SecretError::Empty);
        }
        Ok(Self(text))
    }

    /// The secret itself. The name is there to be searched for: every use should be one that has to be.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<redacted>")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<redacted>")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_trailing_newline_is_not_part_of_the_secret() {
        for (text, secret) in
            [("a b", "a b"), ("a\n", "a"), ("a\r\n", "a"), ("a\n\n", "a\n"), (" a\r", " a\r")]
        {
            assert_eq!(Secret::new(text.to_owned()).unwrap().expose(), secret);
        }
    }

    #[test]
    fn an_empty_secret_is_refused() {
        for text in ["", "\n", "\r\n", " \t\n"] {
            assert_eq!(Secret::new(text.to_owned()).unwrap_err(), SecretError::Empty);
        }
    }

    #[test]
    fn a_secret_does_not_print() {
        let secret = Secret::new("hunter2".to_owned()).unwrap();
        assert_eq!(
            format!("{secret} {secret:?} {:#?}", Some(&secret)),
            "<redacted> <redacted> Some(\n    <redacted>,\n)"
        );
    }
}
