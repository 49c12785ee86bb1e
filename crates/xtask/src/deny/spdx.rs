//! Licence expressions: `MIT OR (Apache-2.0 AND BSD-3-Clause)`, judged against a list of allowed licences.

use anyhow::{Result, bail};

/// Whether some choice that the expression leaves consists only of allowed licences.
///
/// # Errors
/// When it is not an expression.
pub(super) fn is_allowed(expression: &str, allowed: &[String]) -> Result<bool> {
    // Older packages write `MIT/Apache-2.0` for `MIT OR Apache-2.0`.
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let mut words = spaced.split_whitespace().peekable();
    let verdict = either(&mut words, allowed)?;
    match words.next() {
        None => Ok(verdict),
        Some(word) => bail!("`{word}` is not expected there"),
    }
}

type Words<'a> = std::iter::Peekable<std::str::SplitWhitespace<'a>>;

fn either(words: &mut Words<'_>, allowed: &[String]) -> Result<bool> {
    let mut verdict = both(words, allowed)?;
    while words.next_if_eq(&"OR").is_some() {
        verdict |= both(words, allowed)?;
    }
    Ok(verdict)
}

fn both(words: &mut Words<'_>, allowed: &[String]) -> Result<bool> {
    let mut verdict = one(words, allowed)?;
    while words.next_if_eq(&"AND").is_some() {
        verdict &= one(words, allowed)?;
    }
    Ok(verdict)
}

fn one(words: &mut Words<'_>, allowed: &[String]) -> Result<bool> {
    match words.next() {
        Some("(") => {
            let verdict = either(words, allowed)?;
            if words.next() != Some(")") {
                bail!("a parenthesis is not closed");
            }
            Ok(verdict)
        }
        Some(name) if !matches!(name, ")" | "OR" | "AND" | "WITH") => {
            let mut name = name.to_owned();
            if words.next_if_eq(&"WITH").is_some() {
                name = format!("{name} WITH {}", words.next().unwrap_or_default());
            }
            Ok(allowed.contains(&name))
        }
        word => bail!("a licence is expected instead of `{}`", word.unwrap_or("the end")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(expression: &str) -> Result<bool> {
        is_allowed(expression, &["MIT".to_owned(), "ISC".to_owned()])
    }

    #[test]
    fn one_allowed_alternative_is_enough_and_every_part_of_it_must_be_allowed() {
        for (expression, verdict) in [
            ("MIT", true),
            ("GPL-3.0", false),
            ("GPL-3.0 OR MIT", true),
            ("GPL-3.0/MIT", true),
            ("MIT AND ISC", true),
            ("MIT AND GPL-3.0", false),
            ("ISC AND (GPL-3.0 OR MIT)", true),
            ("MIT AND GPL-3.0 OR ISC", true),
            ("MIT WITH some-exception", false),
        ] {
            assert_eq!(judge(expression).unwrap(), verdict, "{expression}");
        }
    }

    #[test]
    fn what_is_no_expression_is_an_error() {
        for expression in ["", "MIT OR", "(MIT", "MIT ISC", "OR MIT", "MIT)"] {
            assert!(judge(expression).is_err(), "{expression:?}");
        }
    }
}
