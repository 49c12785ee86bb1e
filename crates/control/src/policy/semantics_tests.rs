//! Policies mean what OpenZiti's mean, and what is explained agrees with what is decided.

use crate::explain::{EndpointView, Place, Question, explain};
use crate::model::{Model, Resource, Verb};
use crate::policy::{Subject, Who, authorize, authorize_offer};
use crate::snapshot::{Generation, Local, Snapshot};

fn snapshot(resources: &[serde_json::Value]) -> Snapshot {
    let mut model = Model::default();
    for resource in resources {
        model.put(serde_json::from_value::<Resource>(resource.clone()).unwrap());
    }
    Snapshot::compile(Generation::FIRST, &model, &Local::default())
}

fn sample() -> Snapshot {
    use serde_json::json;
    snapshot(&[
        json!({"kind": "identity", "name": "Dev.Client", "attributes": ["prometheus-clients"]}),
        json!({"kind": "identity", "name": "other", "attributes": ["reflectz-clients"]}),
        json!({"kind": "identity", "name": "gone", "attributes": ["prometheus-clients"], "disabled": true}),
        json!({"kind": "identity", "name": "local.prometheus.id"}),
        json!({"kind": "config", "name": "i", "type": "intercept.v1", "data": {"protocols": ["tcp"],
            "addresses": ["local.prometheus.svc"], "portRanges": [{"low": 80, "high": 80}]}}),
        json!({"kind": "service", "name": "local.prometheus.svc", "configs": ["i"]}),
        json!({"kind": "service", "name": "web"}),
        json!({"kind": "service-policy", "name": "d", "type": "Dial",
            "service_roles": ["@local.prometheus.svc"], "identity_roles": ["#prometheus-clients"]}),
        json!({"kind": "service-policy", "name": "both", "type": "Dial", "semantic": "AllOf",
            "service_roles": ["@web"], "identity_roles": ["#prometheus-clients", "#x", "@other"]}),
        json!({"kind": "service-policy", "name": "b", "type": "Bind",
            "service_roles": ["@local.prometheus.svc"], "identity_roles": ["@local.prometheus.id"]}),
        json!({"kind": "route", "name": "r", "hosts": ["app.example.com"], "service": "local.prometheus.svc"}),
    ])
}

fn identity(name: &str) -> Who {
    Who::Identity(name.parse().unwrap())
}

#[test]
fn attributes_names_and_semantics_select_as_in_openziti() {
    let snapshot = sample();
    let dial = |who: Who, service: &str| {
        authorize(&snapshot, &Subject { who, address: None }, &service.parse().unwrap()).is_ok()
    };
    assert!(dial(identity("dev.client."), "@LOCAL.prometheus.svc."));
    assert!(!dial(identity("other"), "@local.prometheus.svc"));
    assert!(!dial(identity("gone"), "@local.prometheus.svc"));
    assert!(!dial(Who::Token("dev.client".parse().unwrap()), "@local.prometheus.svc"));
    // One that is named is meant whatever attributes the semantic asks for; having some of them is not enough.
    assert!(dial(identity("other"), "@web") && !dial(identity("dev.client"), "@web"));
    // The public reaches what a route claims only by a policy that names it, and other hosts as ever.
    assert!(!dial(Who::Public, "app.example.com") && dial(Who::Public, "b.example.com"));
    let offer = |who: &str, what: &str| authorize_offer(&snapshot, &identity(who), &what.parse().unwrap());
    assert_eq!(
        offer("local.prometheus.id", "app.example.com").unwrap().served_as().to_string(),
        "@local.prometheus.svc"
    );
    assert!(offer("local.prometheus.id", "b.example.com").is_err());
    let refused = offer("other", "@local.prometheus.svc").unwrap_err().message(&snapshot);
    assert!(refused.contains("adit edge create service-policy"), "{refused}");
}

#[test]
fn what_is_explained_agrees_with_what_is_decided_and_names_the_command() {
    let snapshot = sample();
    let ask = |who: &str, service: &str| {
        let service = Some(service.parse().unwrap());
        explain(
            &snapshot,
            &Question { verb: Verb::Dial, identity: who.parse().unwrap(), service, to: None },
            &[],
        )
    };
    for who in ["dev.client", "other", "gone", "local.prometheus.id", "public"] {
        for service in ["local.prometheus.svc", "web"] {
            let subject = if who == "public" { Who::Public } else { identity(who) };
            let named = format!("@{service}").parse().unwrap();
            let decided = authorize(&snapshot, &Subject { who: subject, address: None }, &named).is_ok();
            let said = ask(who, service);
            assert_eq!(said.allowed, decided, "{said}");
            assert!(!said.fixes.is_empty(), "{said}");
        }
    }
    let text = ask("other", "local.prometheus.svc").to_string();
    assert!(text.contains("other has no attribute #prometheus-clients; it has #reflectz-clients"), "{text}");
    assert!(
        text.contains("adit edge update identity \"other\" -a \"reflectz-clients,prometheus-clients\""),
        "{text}"
    );
    assert!(ask("dev.clent", "web").to_string().contains("did you mean Dev.Client?"));
    let to = Some(Place::new("local.prometheus.svc".to_owned(), 80));
    let found = explain(
        &snapshot,
        &Question { verb: Verb::Dial, identity: "dev.client".parse().unwrap(), service: None, to },
        &[EndpointView {
            service: "local.prometheus.svc".to_owned(),
            agent: "a".to_owned(),
            identity: "local.prometheus.id".to_owned(),
            upstream: "127.0.0.1:9090".to_owned(),
            since: 0,
            last_probe: None,
        }],
    );
    assert!(found.works && found.fixes.is_empty(), "{found}");
    assert!(found.short().to_string().len() < 100 && found.short().matched.is_empty());
}
