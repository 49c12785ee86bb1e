//! `where` and list filters: our short form and what people know from OpenZiti.
//!
//! `name~text`, `name=text`, `attribute=x`, `name contains "x"`, `name = "x"`, `anyOf(roleAttributes) = "x"`, `true`,
//! several joined with `and`, these with `or`; `sort by name desc`, `skip 10`, `limit 10` or `limit none` at the end.

use crate::error::CliError;
use crate::interface::Item;

/// Which items are meant.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Filter {
    /// One of these has to hold, and of it every condition; empty: everything is meant.
    any: Vec<Vec<Condition>>,
    is_backwards: bool,
    skip: usize,
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
    CliError::usage(format!("`{text}` is not a filter")).because(why).next(
        "write name~part, name=whole or attribute=x, several joined with `and` or `or`, or `true` for all",
    )
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
        let is_tail = |piece: Option<&Piece>| ["sort", "skip", "limit"].iter().any(|word| is(piece, word));
        let mut all_of = Vec::new();
        while !rest.is_empty() && !is_tail(rest.first()) {
            if is(rest.first(), "true") {
                rest = &rest[1..];
            } else {
                let [Piece::Word(field), sign, value, ..] = rest else {
                    return Err(wrong(text, "a condition is a field, a comparison and a value"));
                };
                all_of.push(condition(text, field, sign, value)?);
                rest = &rest[3..];
            }
            let joined = ["and", "or"].into_iter().find(|word| is(rest.first(), word));
            if joined == Some("or") || rest.is_empty() || is_tail(rest.first()) {
                filter.any.push(std::mem::take(&mut all_of));
            }
            match joined {
                Some(word) => {
                    rest = &rest[1..];
                    if rest.is_empty() || is_tail(rest.first()) {
                        return Err(wrong(text, &format!("nothing follows `{word}`")));
                    }
                }
                None if rest.is_empty() || is_tail(rest.first()) => {}
                None => return Err(wrong(text, "conditions are joined with `and` or `or`")),
            }
        }
        filter.tail(text, rest)?;
        Ok(filter)
    }

    /// In which order, and how many.
    fn tail(&mut self, text: &str, mut rest: &[Piece]) -> Result<(), CliError> {
        let word = |piece: &Piece| match piece {
            Piece::Word(word) => word.to_ascii_lowercase(),
            Piece::Quoted(_) | Piece::Sign(_) => String::new(),
        };
        while let Some((first, after)) = rest.split_first() {
            let values: Vec<String> = after.iter().take(3).map(word).collect();
            let values: Vec<&str> = values.iter().map(String::as_str).collect();
            let (first, number) = (word(first), values.first().and_then(|number| number.parse().ok()));
            let taken = match (first.as_str(), number, values.as_slice()) {
                ("limit", Some(limit), _) => {
                    self.limit = Some(limit);
                    1
                }
                ("limit", None, ["none", ..]) => 1,
                ("skip", Some(skip), _) => {
                    self.skip = skip;
                    1
                }
                ("sort", _, ["by", "name", order @ ("asc" | "desc")]) => {
                    self.is_backwards = *order == "desc";
                    3
                }
                ("sort", _, ["by", "name", ..]) => 2,
                ("sort", ..) => return Err(wrong(text, "lists are sorted by name, or by name desc")),
                ("skip", ..) => return Err(wrong(text, "skip takes a number")),
                ("limit", ..) => return Err(wrong(text, "limit takes a number or `none`")),
                _ => return Err(wrong(text, "only sort by, skip and limit follow the conditions")),
            };
            rest = after.get(taken..).unwrap_or_default();
        }
        Ok(())
    }

    fn matches(&self, item: &Item) -> bool {
        let all_of = |conditions: &Vec<Condition>| conditions.iter().all(|condition| condition.matches(item));
        self.any.is_empty() || self.any.iter().any(all_of)
    }

    /// The items that are meant.
    pub(crate) fn select(&self, items: Vec<Item>) -> Vec<Item> {
        let limit = self.limit.unwrap_or(usize::MAX);
        let mut found: Vec<Item> = items.into_iter().filter(|item| self.matches(item)).collect();
        if self.is_backwards {
            found.reverse();
        }
        found.into_iter().skip(self.skip).take(limit).collect()
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
        assert_eq!(selected("name=other or name~two and attribute=y"), "kubea.two other");
        assert_eq!(selected("name~kube or true"), "kubeA.one kubea.two other");
        assert_eq!(selected("sort by name desc skip 1 limit 1"), "kubea.two");
        assert_eq!(selected("name~o sort by name limit none"), "kubeA.one kubea.two other");
    }

    #[test]
    fn what_is_no_filter_is_refused() {
        for filter in [
            "name",
            "name=",
            "colour=red",
            "name=a or",
            "name=\"a",
            "limit x",
            "name=a and",
            "!",
            "skip",
            "sort by id",
            "name=a name=b",
            "limit 1 name=a",
        ] {
            let error = Filter::parse(filter).unwrap_err().to_string();
            assert!(error.contains("is not a filter") && error.contains("next: write"), "{filter}: {error}");
        }
    }
}
