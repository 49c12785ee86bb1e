//! Resources as tables for people.

use adit_control::model::Kind;
use serde_json::Value;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::duration;
use crate::interface::Item;
use crate::output::fitted_table;

/// The table of some items of a kind.
pub(crate) fn of(kind: Kind, items: &[Item], width: Option<usize>) -> String {
    let head: &[&str] = match kind {
        Kind::Identity => &["Name", "Attributes", "Rights", "Enrolled", "Online"],
        Kind::Config => &["Name", "Type", "Data"],
        Kind::Service => &["Name", "Attributes", "Configs"],
        Kind::ServicePolicy => &["Name", "Type", "Semantic", "Service roles", "Identity roles"],
        Kind::Route => &["Name", "Hosts", "Ports", "Service"],
        Kind::Token => &["Name", "Attributes", "Rights", "Secret", "Online", "May offer"],
    };
    let rows = items.iter().map(|item| row(kind, item)).collect();
    fitted_table(head, rows, width)
}

fn row(kind: Kind, item: &Item) -> Vec<String> {
    let name = item.name().to_owned();
    let list = |field: &str| words(item.list(field));
    let text = |field: &str| item.text(field).to_owned();
    match kind {
        Kind::Identity => {
            vec![name, list("attributes"), rights(item), yes(item.is("enrolled")), yes(item.is("online"))]
        }
        Kind::Config => {
            vec![name, text("type"), item.0.get("data").map(ToString::to_string).unwrap_or_default()]
        }
        Kind::Service => vec![name, list("attributes"), list("configs")],
        Kind::ServicePolicy => {
            vec![name, text("type"), text("semantic"), list("service_roles"), list("identity_roles")]
        }
        Kind::Route => vec![name, list("hosts"), list("ports"), text("service")],
        Kind::Token => {
            let online = yes(item.is("online"));
            let secret = secret(item, OffsetDateTime::now_utc());
            vec![name, list("attributes"), rights(item), secret, online, limits(item.0.get("limits"))]
        }
    }
}

/// What there is to say of a token's secrets. A gateway that tells nothing of them leaves nothing to say.
pub(crate) fn secret(item: &Item, now: OffsetDateTime) -> String {
    if !item.0.contains_key("secrets") {
        return String::new();
    }
    let secrets = item.list("secrets");
    let ends = secrets.iter().find_map(|secret| secret.get("not_after"));
    match (secrets.len(), ends) {
        (0, _) => "revoked".to_owned(),
        (_, None) => "one".to_owned(),
        (_, Some(end)) => match left(end, now) {
            Some(left) => format!("old one taken for {left} more"),
            None => "old one taken no more".to_owned(),
        },
    }
}

/// What people want to know of one resource beside its fields.
pub(crate) fn remarks(kind: Kind, item: &Item, now: OffsetDateTime) -> Vec<String> {
    match kind {
        Kind::Token => match secret(item, now).as_str() {
            "" | "one" => Vec::new(),
            "revoked" => {
                vec![format!("no secret is taken; adit token rotate {} makes a new one", item.name())]
            }
            rotated => vec![format!("secret: {rotated}")],
        },
        Kind::Identity => {
            let certificate = |it: &Value| {
                let ends = left(it.get("not_after")?, now);
                let ends = ends.map_or_else(|| "has ended".to_owned(), |left| format!("ends in {left}"));
                Some(format!("certificate {} {ends}", it.get("serial")?.as_str()?))
            };
            let found: Vec<String> = item.list("credentials").iter().filter_map(certificate).collect();
            if found.is_empty() {
                vec![format!("to enroll it: adit identity enroll-token {0} -o {0}.jwt", item.name())]
            } else {
                found
            }
        }
        Kind::Service => lacking(item),
        Kind::Config | Kind::ServicePolicy | Kind::Route => Vec::new(),
    }
}

/// What keeps a service from being of use. A gateway that tells nothing of it leaves nothing to say.
fn lacking(item: &Item) -> Vec<String> {
    let name = item.name();
    let remarks = [
        (
            "dial_policies",
            format!("no policy lets anybody reach it: adit explain dial --identity WHO --service {name}"),
        ),
        (
            "bind_policies",
            format!("no policy lets anybody offer it: adit explain bind --identity WHO --service {name}"),
        ),
        ("endpoints", "nobody offers it now".to_owned()),
    ];
    let is_empty = |field: &str| item.0.contains_key(field) && item.list(field).is_empty();
    remarks.into_iter().filter(|(field, _)| is_empty(field)).map(|(_, remark)| remark).collect()
}

/// How long it is until a moment, in words; `None` when it has passed.
pub(crate) fn left(moment: &Value, now: OffsetDateTime) -> Option<String> {
    let at = OffsetDateTime::parse(moment.as_str()?, &Rfc3339).ok()?;
    let left = std::time::Duration::try_from(at - now).ok()?;
    Some(duration::in_words(left))
}

fn words(items: &[Value]) -> String {
    let word = |item: &Value| item.as_str().map_or_else(|| item.to_string(), str::to_owned);
    items.iter().map(word).collect::<Vec<_>>().join(",")
}

fn yes(is: bool) -> String {
    if is { "yes" } else { "no" }.to_owned()
}

fn rights(item: &Item) -> String {
    let marks = ["admin", "metrics", "disabled"].map(|mark| (mark, item.is(mark)));
    marks.into_iter().filter(|(_, is)| *is).map(|(mark, _)| mark).collect::<Vec<_>>().join(",")
}

fn limits(limits: Option<&Value>) -> String {
    let Some(Value::Object(limits)) = limits.filter(|limits| !limits.is_null()) else {
        return "everything".to_owned();
    };
    let part = |(name, list): (&String, &Value)| {
        let list = words(list.as_array().map(Vec::as_slice).unwrap_or_default());
        format!("{name}: {}", if list.is_empty() { "none" } else { &list })
    };
    limits.iter().map(part).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(json: &str) -> Vec<Item> {
        serde_json::from_str::<Vec<_>>(json).unwrap().into_iter().map(Item).collect()
    }

    #[test]
    fn what_keeps_a_service_from_being_of_use_is_told() {
        let remarks = |json: &str| remarks(Kind::Service, &items(json)[0], OffsetDateTime::now_utc());
        assert_eq!(
            remarks(r#"[{"name":"s","dial_policies":[{"name":"p"}],"bind_policies":[],"endpoints":[]}]"#),
            [
                "no policy lets anybody offer it: adit explain bind --identity WHO --service s",
                "nobody offers it now",
            ]
        );
        assert!(remarks(r#"[{"name":"s"}]"#).is_empty(), "an older gateway does not say");
    }

    #[test]
    fn every_kind_has_its_columns() {
        let identities = items(
            r#"[{"name":"dev.client","attributes":["prometheus-clients","reflectz-clients"],"enrolled":true,"online":true},
                {"name":"ops","admin":true,"disabled":true},
                {"name":"prometheus","metrics":true}]"#,
        );
        assert_eq!(
            of(Kind::Identity, &identities, None),
            "\
Name        Attributes                           Rights          Enrolled  Online
dev.client  prometheus-clients,reflectz-clients  -               yes       yes
ops         -                                    admin,disabled  no        no
prometheus  -                                    metrics         no        no
"
        );
        let policies = items(
            r##"[{"name":"p","type":"Dial","semantic":"AnyOf","service_roles":["@s"],"identity_roles":["#all"]}]"##,
        );
        assert_eq!(
            of(Kind::ServicePolicy, &policies, None),
            "Name  Type  Semantic  Service roles  Identity roles\np     Dial  AnyOf     @s             #all\n"
        );
        let tokens = items(
            r#"[{"name":"t","limits":{"ports":[80,"90-99"],"hosts":[]},"secrets":[{}]},{"name":"u","secrets":[]}]"#,
        );
        assert_eq!(
            of(Kind::Token, &tokens, None),
            "\
Name  Attributes  Rights  Secret   Online  May offer
t     -           -       one      no      hosts: none; ports: 80,90-99
u     -           -       revoked  no      everything
"
        );
        let rotated = items(
            r#"[{"name":"v","secrets":[{"not_after":"2026-11-21T10:00:00Z"},{"issued_at":"2026-11-21T09:00:00Z"}]}]"#,
        );
        let at = |text: &str| OffsetDateTime::parse(text, &Rfc3339).unwrap();
        assert_eq!(secret(&rotated[0], at("2026-11-21T09:11:00Z")), "old one taken for 49 minutes more");
        let routes = items(r#"[{"name":"r","hosts":["a.example"],"service":"s"}]"#);
        assert_eq!(
            of(Kind::Route, &routes, None),
            "Name  Hosts      Ports  Service\nr     a.example  -      s\n"
        );
    }
}
