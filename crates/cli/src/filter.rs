//! `where` and list filters: our short form and what people know from OpenZiti.
//!
//! `name~text`, `name=text`, `attribute=x`, `name contains "x"`, `name = "x"`, `anyOf(roleAttributes) = "x"`, `true`,
//! several joined with `and`, and `limit none` or `limit 10` at the end.

use crate::error::CliError;
use crate::interface::Item;

/// Which items are meant.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Filter {
    conditions: Vec<Condition>,
    limit: Option<usize>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Condition {
    field: Field,
    comparison: Comparison,
    value: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Name,
    Attribute,
    Type,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Is,
    IsNot,
    Contains,
}

/// A piece of a filter.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Word(String),
    Quoted(String),
    Sign(&'static str),
}

fn wrong(text: &str, why: &str) -> CliError {
    CliError::usage(format!("`{text}` is not a filter"))
        .because(why)
        .next("write name~part, name=whole or attribute=x, several joined with `and`, or `true` for all")
}

fn pieces(text: &str) -> Result<Vec<Piece>, CliError> {
    let mut found = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let sign = ["!=", "=", "~"].into_iter().find(|sign| rest.starts_with(sign));
        if let Some(sign) = sign {
            found.push(Piece::Sign(sign));
            rest = &rest[sign.len()..];
        } else if matches!(first, '"' | '\'') {
            let (inner, after) =
                rest[1..].split_once(first).ok_or_else(|| wrong(text, "a quote is not closed"))?;
            found.push(Piece::Quoted(inner.to_owned()));
            rest = after;
        } else {
            let end = rest.find(|c: char| c.is_whitespace() || "=~!\"'".contains(c)).unwrap_or(rest.len());
            if end == 0 {
                return Err(wrong(text, "`!` alone means nothing"));
            }
            found.push(Piece::Word(rest[..end].to_owned()));
            rest = &rest[end..];
        }
        rest = rest.trim_start();
    }
    Ok(found)
}

impl Filter {
    /// Reads one.
    ///
    /// # Errors
    /// It is none.
    pub(crate) fn parse(text: &str) -> Result<Self, CliError> {
        let mut filter = Self::default();
        let all = pieces(text)?;
        let mut rest = all.as_slice();
        let is = |piece: Option<&Piece>, word: &str| matches!(piece, Some(Piece::Word(text)) if text.eq_ignore_ascii_case(word));
        while !rest.is_empty() && !is(rest.first(), "limit") {
            if is(rest.first(), "true") {
                rest = &rest[1..];
            } else {
                let [Piece::Word(field), sign, value, ..] = rest else {
                    return Err(wrong(text, "a condition is a field, a comparison and a value"));
                };
                filter.conditions.push(condition(text, field, sign, value)?);
                rest = &rest[3..];
            }
            if is(rest.first(), "and") {
                rest = &rest[1..];
                if rest.is_empty() {
                    return Err(wrong(text, "nothing follows `and`"));
                }
            } else if !rest.is_empty() && !is(rest.first(), "limit") {
                return Err(wrong(text, "conditions are joined with `and`, and nothing else follows them"));
            }
        }
        match rest {
            [] => {}
            [_, Piece::Word(none)] if none.eq_ignore_ascii_case("none") => {}
            [_, Piece::Word(number)] => {
                let limit =
                    number.parse().map_err(|_no_number| wrong(text, "limit takes a number or `none`"))?;
                filter.limit = Some(limit);
            }
            _ => return Err(wrong(text, "limit takes a number or `none`")),
        }
        Ok(filter)
    }

    fn matches(&self, item: &Item) -> bool {
        self.conditions.iter().all(|condition| condition.matches(item))
    }

    /// The items that are meant.
    pub(crate) fn select(&self, items: Vec<Item>) -> Vec<Item> {
        let limit = self.limit.unwrap_or(usize::MAX);
        items.into_iter().filter(|item| self.matches(item)).take(limit).collect()
    }
}

fn condition(text: &str, field: &str, sign: &Piece, value: &Piece) -> Result<Condition, CliError> {
    let field = match field.to_ascii_lowercase().as_str() {
        "name" => Field::Name,
        "type" => Field::Type,
        "attribute" | "attributes" | "anyof(roleattributes)" | "roleattributes" => Field::Attribute,
        _ => return Err(wrong(text, "the fields are name, attribute and type")),
    };
    let comparison = match sign {
        Piece::Sign("=") => Comparison::Is,
        Piece::Sign("!=") => Comparison::IsNot,
        Piece::Sign(_) => Comparison::Contains,
        Piece::Word(word) if word.eq_ignore_ascii_case("contains") => Comparison::Contains,
        Piece::Word(_) | Piece::Quoted(_) => {
            return Err(wrong(text, "the comparisons are =, != and ~ (contains)"));
        }
    };
    let (Piece::Word(value) | Piece::Quoted(value)) = value else {
        return Err(wrong(text, "a value is missing"));
    };
    Ok(Condition { field, comparison, value: value.to_ascii_lowercase() })
}

impl Condition {
    fn matches(&self, item: &Item) -> bool {
        let fits = |text: &str| {
            let text = text.to_ascii_lowercase();
            match self.comparison {
                Comparison::Is | Comparison::IsNot => text == self.value,
                Comparison::Contains => text.contains(&self.value),
            }
        };
        let found = match self.field {
            Field::Name => fits(item.name()),
            Field::Type => fits(item.text("type")),
            Field::Attribute => item.list("attributes").iter().filter_map(|it| it.as_str()).any(fits),
        };
        found != (self.comparison == Comparison::IsNot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selected(filter: &str) -> String {
        let item = |name: &str, attribute: &str| {
            let value = serde_json::json!({ "name": name, "attributes": [attribute], "type": "Dial" });
            Item(value.as_object().unwrap().clone())
        };
        let items = vec![item("kubeA.one", "x"), item("kubea.two", "y"), item("other", "x")];
        let found = Filter::parse(filter).unwrap().select(items);
        found.iter().map(Item::name).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn both_dialects_say_the_same() {
        for filter in ["name~kubeA", "name contains \"kubea\" limit none", "name ~ 'kubeA'"] {
            assert_eq!(selected(filter), "kubeA.one kubea.two", "{filter}");
        }
        for filter in ["attribute=x", "anyOf(roleAttributes) = \"x\""] {
            assert_eq!(selected(filter), "kubeA.one other", "{filter}");
        }
        assert_eq!(selected("name = \"OTHER\" and attribute=x"), "other");
        assert_eq!(selected("name != other"), "kubeA.one kubea.two");
        assert_eq!(selected("true limit 1"), "kubeA.one");
        assert_eq!(selected(""), "kubeA.one kubea.two other");
        assert_eq!(selected("type=dial and name~two"), "kubea.two");
    }

    #[test]
    fn what_is_no_filter_is_refused() {
        for filter in
            ["name", "name=", "colour=red", "name=a or name=b", "name=\"a", "limit x", "name=a and", "!"]
        {
            let error = Filter::parse(filter).unwrap_err().to_string();
            assert!(error.contains("is not a filter") && error.contains("next: write"), "{filter}: {error}");
        }
    }
}
