//! What the answers look like on a terminal, word for word.

use serde_json::json;

use adit_proto::names::ServiceName;

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
        to: to.map(|(host, port)| Place::new(host.to_owned(), port)),
    };
    explain(&snapshot(), &question, endpoints).to_string()
}

fn endpoint() -> EndpointView {
    EndpointView {
        service: "prometheus".to_owned(),
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

fn routed() -> Snapshot {
    let mut model = Model::default();
    for resource in [
        json!({"kind": "identity", "name": "dev.client"}),
        json!({"kind": "token", "name": "shop", "limits": {"hosts": ["shop.example"]}}),
        json!({"kind": "service", "name": "web"}),
        json!({"kind": "route", "name": "web", "hosts": ["*.example"], "ports": [5432], "service": "web"}),
        json!({"kind": "service-policy", "name": "web.dial", "type": "Dial",
            "service_roles": ["@web"], "identity_roles": ["@dev.client"]}),
    ] {
        model.put(serde_json::from_value::<Resource>(resource).unwrap());
    }
    Snapshot::compile(Generation::FIRST, &model, &Local::default())
}

fn at(
    verb: Verb,
    identity: &str,
    (host, port): (&str, u16),
    door: Option<Door>,
    on: &[EndpointView],
) -> Explanation {
    let place =
        Place { door, http_ports: vec![8080], control_port: Some(8123), ..Place::new(host.to_owned(), port) };
    let question = Question { verb, identity: identity.parse().unwrap(), service: None, to: Some(place) };
    explain(&routed(), &question, on)
}

#[test]
fn a_host_that_a_route_claims_is_explained_as_its_service() {
    let door = Some(Door::Route("*.example".parse().unwrap(), "web".parse().unwrap()));
    let public = at(Verb::Dial, "public", ("a.example", 8080), door.clone(), &[]);
    assert_eq!(public.via, Some(Via { way: Way::Route, claim: Some("*.example".to_owned()) }));
    let text = public.to_string();
    assert!(text.starts_with("DENIED: no Dial policy lets the public dial service web.\n"), "{text}");
    assert!(text.contains("  A route leads *.example to service web.\n"), "{text}");
    assert!(text.contains(r#""web.dial.public" Dial --service-roles "@web" --identity-roles "@public""#));

    let text = at(Verb::Dial, "dev.client", ("a.example", 443), door, &[]).to_string();
    assert!(text.starts_with("ALLOWED, NOT ONLINE: identity dev.client may dial service web"), "{text}");
    let flowed = text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(flowed.contains("dials the service by its name: adit dial web"), "{text}");
    assert!(
        flowed.contains("listens for HTTP on port 8080; something in front of it has to lead port 443 there")
    );

    let door = Some(Door::Route(ServiceName::Tcp(5432), "web".parse().unwrap()));
    let text = at(Verb::Dial, "public", ("gateway", 5432), door, &[]).to_string();
    assert!(text.contains("A route leads port 5432 to service web.") && !text.contains("listens"), "{text}");
}

#[test]
fn what_agents_offer_themselves_is_open_to_everybody_until_a_route_claims_it() {
    let door = Some(Door::Offer("shop.test".parse().unwrap()));
    let offer = EndpointView { service: "shop.test".to_owned(), identity: "shop".to_owned(), ..endpoint() };
    let found = at(Verb::Dial, "public", ("shop.test", 8080), door.clone(), &[offer]);
    assert!(found.allowed && found.works, "{found}");
    assert_eq!(
        found.to_string(),
        r#"ALLOWED: everybody may reach shop.test:8080, and one endpoint offers it.
  Agents offer shop.test themselves, and no route claims it: no policy is asked.

Endpoints:
  shop to 127.0.0.1:9090 (agent rack-7, since 2027-01-15T08:00:00Z; last probe ok, 4 s ago)

To change it:
  to have policies decide, make it a service (one after another)
      adit edge create service "shop.test"
  let shop offer shop.test
      adit edge create service-policy "shop.test.bind.shop" Bind --service-roles "@shop.test" --identity-roles "@shop"
  let public dial shop.test
      adit edge create service-policy "shop.test.dial.public" Dial --service-roles "@shop.test" --identity-roles "@public"
  from here on, whom no policy lets dial it is refused
      adit edge create route "shop.test" --hosts "shop.test" --service "shop.test"
"#
    );
    let away = at(Verb::Dial, "nobody", ("shop.test", 8080), door, &[]);
    assert!(away.allowed && !away.works, "a client there is the public, whoever it is: {away}");
}

#[test]
fn where_nothing_answers_the_route_that_would_is_told() {
    let found = at(Verb::Dial, "public", ("web.exmaple", 8080), None, &[]);
    assert!(!found.allowed, "{found}");
    let text = found.to_string();
    assert!(
        text.contains(r#"adit edge create route "web.exmaple" --hosts "web.exmaple" --service "SERVICE""#)
    );
    let text = at(Verb::Dial, "public", ("gateway", 2222), None, &[]).to_string();
    assert!(text.contains(r#"adit edge create route "tcp-2222" --ports 2222 --service "SERVICE""#), "{text}");
}

#[test]
fn no_route_is_advised_from_the_gateways_own_ports() {
    let text = at(Verb::Dial, "public", ("a.example", 8123), None, &[]).to_string();
    assert!(text.contains("it is the control port") && !text.contains("create route"), "{text}");
    let text = at(Verb::Dial, "public", ("*", 8080), None, &[]).to_string();
    assert!(!text.contains("create route"), "{text}");
}

#[test]
fn a_port_of_a_route_that_nothing_listens_on_is_told() {
    let place = Place {
        door: Some(Door::Route(ServiceName::Tcp(5432), "web".parse().unwrap())),
        unserved: Some("this gateway takes no TCP services".to_owned()),
        ..Place::new("gateway".to_owned(), 5432)
    };
    let question =
        Question { verb: Verb::Dial, identity: "public".parse().unwrap(), service: None, to: Some(place) };
    let text = explain(&routed(), &question, &[]).to_string();
    assert!(text.contains("nothing listens there: this gateway takes no TCP services"), "{text}");
}

#[test]
fn whether_an_agent_may_offer_a_host_that_no_route_claims_is_a_matter_of_its_limits() {
    let may = at(Verb::Bind, "shop", ("shop.example", 443), None, &[]);
    assert!(may.allowed, "{may}");
    assert!(may.verdict.starts_with("token shop may offer shop.example: "), "{may}");
    assert!(!at(Verb::Bind, "shop", ("other.test", 443), None, &[]).allowed);
    assert!(!at(Verb::Bind, "dev.client", ("shop.example", 443), None, &[]).allowed);
}
