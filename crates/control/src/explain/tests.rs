//! What the answers look like on a terminal, word for word.

use serde_json::json;

use super::*;
use crate::model::{Model, Resource};
use crate::snapshot::{Generation, Local};

fn snapshot() -> Snapshot {
    let mut model = Model::default();
    for resource in [
        json!({"kind": "identity", "name": "dev.client", "attributes": ["prometheus-clients"]}),
        json!({"kind": "identity", "name": "other", "attributes": ["reflectz-clients"]}),
        json!({"kind": "identity", "name": "prometheus.agent"}),
        json!({"kind": "config", "name": "prometheus.intercept", "type": "intercept.v1", "data": {
            "protocols": ["tcp"], "addresses": ["prometheus.internal"], "portRanges": [{"low": 80, "high": 80}]}}),
        json!({"kind": "service", "name": "prometheus", "configs": ["prometheus.intercept"]}),
        json!({"kind": "service-policy", "name": "prometheus.dial", "type": "Dial",
            "service_roles": ["@prometheus"], "identity_roles": ["#prometheus-clients"]}),
        json!({"kind": "service-policy", "name": "prometheus.bind", "type": "Bind",
            "service_roles": ["@prometheus"], "identity_roles": ["@prometheus.agent"]}),
    ] {
        model.put(serde_json::from_value::<Resource>(resource).unwrap());
    }
    Snapshot::compile(Generation::FIRST, &model, &Local::default())
}

fn ask(identity: &str, service: Option<&str>, to: Option<(&str, u16)>, endpoints: &[EndpointView]) -> String {
    let question = Question {
        verb: Verb::Dial,
        identity: identity.parse().unwrap(),
        service: service.map(|name| name.parse().unwrap()),
        to: to.map(|(host, port)| (host.to_owned(), port)),
    };
    explain(&snapshot(), &question, endpoints).to_string()
}

fn endpoint() -> EndpointView {
    EndpointView {
        service: "prometheus".parse().unwrap(),
        agent: "rack-7".to_owned(),
        identity: "prometheus.agent".to_owned(),
        upstream: "127.0.0.1:9090".to_owned(),
        since: 1_800_000_000,
        last_probe: Some(ProbeView { age_seconds: 4, ok: true }),
    }
}

#[test]
fn a_yes_names_the_policy_and_who_offers_it() {
    let text = ask("dev.client", None, Some(("prometheus.internal", 80)), &[endpoint()]);
    assert_eq!(
        text,
        r"ALLOWED: identity dev.client may dial service prometheus, and one endpoint offers it.
  prometheus.internal:80 is intercepted by service prometheus.

Policies that allow it:
  prometheus.dial (services @prometheus; identities #prometheus-clients)

Endpoints:
  prometheus.agent to 127.0.0.1:9090 (agent rack-7, since 2027-01-15T08:00:00Z; last probe ok, 4 s
    ago)
"
    );
}

#[test]
fn a_no_names_what_is_missing_and_the_commands_that_change_it() {
    let text = ask("other", Some("prometheus"), None, &[]);
    assert_eq!(
        text,
        r#"DENIED: no Dial policy lets identity other dial service prometheus.

Policies that nearly do:
  prometheus.dial (services @prometheus; identities #prometheus-clients)
      other has no attribute #prometheus-clients; it has #reflectz-clients

To change it:
  give identity other #prometheus-clients, with all that policies give to #prometheus-clients
      adit edge update identity "other" -a "reflectz-clients,prometheus-clients"
  let other dial prometheus
      adit edge create service-policy "prometheus.dial.other" Dial --service-roles "@prometheus" --identity-roles "@other"
  start an agent of prometheus.agent, with `identity: prometheus.agent.json` and `services:
    [{service: prometheus, upstream: …}]` in agent.yaml
      adit agent -f agent.yaml
"#
    );
}

#[test]
fn a_service_that_is_not_there_is_told_with_the_one_that_may_be_meant() {
    let text = ask("dev.client", Some("promtheus"), None, &[]);
    assert_eq!(
        text,
        r#"DENIED: there is no service promtheus.
  did you mean prometheus?

To change it:
  create the service
      adit edge create service "promtheus"
"#
    );
}
