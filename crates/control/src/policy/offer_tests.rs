//! What tokens with limits may offer, what a route makes of an offer, and what a refusal says.

use serde_json::{Value, json};

use super::*;
use crate::model::{Model, Resource};
use crate::snapshot::Local;

fn snapshot(limits: &Value) -> Snapshot {
    let mut model = Model::default();
    for resource in [
        json!({"kind": "token", "name": "shop", "limits": limits}),
        json!({"kind": "service", "name": "Web"}),
        json!({"kind": "service", "name": "db"}),
        json!({"kind": "service", "name": "log"}),
        json!({"kind": "service-policy", "name": "b", "type": "Bind", "service_roles": ["@log"],
            "identity_roles": ["@shop"]}),
        json!({"kind": "route", "name": "r", "hosts": ["web.example"], "ports": [443], "service": "web"}),
        json!({"kind": "route", "name": "nowhere", "hosts": ["lost.example"], "service": "gone"}),
    ] {
        model.put(serde_json::from_value::<Resource>(resource).unwrap());
    }
    Snapshot::compile(Generation::FIRST, &model, &Local::default())
}

/// Which of some offers stand, as what they are served.
fn offers(limits: &Value, offered: &[&str]) -> Vec<String> {
    let snapshot = snapshot(limits);
    let shop = Who::Token("shop".parse().unwrap());
    let offer = |text: &&str| authorize_offer(&snapshot, &shop, &text.parse().unwrap()).ok();
    offered.iter().filter_map(offer).map(|permit| permit.served_as().to_string()).collect()
}

#[test]
fn a_token_without_limits_offers_everything_and_with_limits_what_they_list_or_a_policy_adds() {
    let all = ["a.example", "b.a.example", "*.a.example", "*", "tcp:1", "tcp:8005", "@web", "@db", "@log"];
    let none: [&str; 0] = [];
    for (limits, expected) in [
        (
            json!({}),
            &["a.example", "b.a.example", "*.a.example", "*", "tcp:1", "tcp:8005", "@Web", "@db", "@log"][..],
        ),
        (json!({"hosts": []}), &["@log"]),
        (json!({"hosts": ["a.example"]}), &["a.example", "@log"]),
        (json!({"hosts": ["*.a.example"]}), &["b.a.example", "*.a.example", "@log"]),
        (json!({"hosts": ["*.example"]}), &["a.example", "b.a.example", "*.a.example", "@log"]),
        (json!({"hosts": ["*"]}), &["a.example", "b.a.example", "*.a.example", "*", "@log"]),
        (json!({"ports": [1]}), &["tcp:1", "@log"]),
        (json!({"ports": ["8000-8010"]}), &["tcp:8005", "@log"]),
        (json!({"services": ["WEB."]}), &["@Web", "@log"]),
        (json!({"services": ["db", "nowhere"], "ports": ["1"]}), &["tcp:1", "@db", "@log"]),
    ] {
        assert_eq!(offers(&limits, &all), expected, "{limits}");
        assert_eq!(offers(&limits, &["@nowhere", "lost.example"]), none, "no such service: {limits}");
    }
}

#[test]
fn what_a_route_claims_needs_the_right_to_its_service() {
    let routed = ["web.example", "tcp:443"];
    assert_eq!(offers(&json!({}), &routed), ["@Web", "@Web"]);
    assert_eq!(offers(&json!({"services": ["web"]}), &routed), ["@Web", "@Web"]);
    assert!(offers(&json!({"hosts": ["*"], "ports": ["1-65535"]}), &routed).is_empty());
    // A pattern that no route has is not the service's, also where a route has one of its hosts.
    assert_eq!(offers(&json!({}), &["*.example"]), ["*.example"]);
}

#[test]
fn nobody_offers_where_to_connect_to_and_who_is_not_there_offers_nothing() {
    let snapshot = snapshot(&json!({}));
    let refused =
        |who: Who, what: &ServiceName| authorize_offer(&snapshot, &who, what).unwrap_err().message(&snapshot);
    let token = |name: &str| Who::Token(name.parse().unwrap());
    let dial = ServiceName::Dial("127.0.0.1:80".parse().unwrap());
    assert!(refused(token("shop"), &dial).contains("limits"));
    assert_eq!(refused(token("other"), &"@web".parse().unwrap()), "token other does not exist");
    let identity = Who::Identity("shop".parse().unwrap());
    assert_eq!(refused(identity, &"@web".parse().unwrap()), "identity shop does not exist");
}
