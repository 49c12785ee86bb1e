//! Resources as tables for people.

use adit_control::model::Kind;
use serde_json::Value;

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
        Kind::Token => &["Name", "Attributes", "Rights", "Online", "May offer"],
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
            vec![name, list("attributes"), rights(item), online, limits(item.0.get("limits"))]
        }
    }
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
        let tokens = items(r#"[{"name":"t","limits":{"ports":[80,"90-99"],"hosts":[]}},{"name":"u"}]"#);
        assert_eq!(
            of(Kind::Token, &tokens, None),
            "Name  Attributes  Rights  Online  May offer\nt     -           -       no      hosts: none; ports: 80,90-99\n\
             u     -           -       no      everything\n"
        );
        let routes = items(r#"[{"name":"r","hosts":["a.example"],"service":"s"}]"#);
        assert_eq!(
            of(Kind::Route, &routes, None),
            "Name  Hosts      Ports  Service\nr     a.example  -      s\n"
        );
    }
}
