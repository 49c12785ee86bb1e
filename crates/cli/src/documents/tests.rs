//! What is read of files, and how their mistakes are told.

use adit_control::expectation::Verdict;

use super::*;

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    folder
}

fn read(files: &[(&str, &str)]) -> Result<Documents, String> {
    let folder = folder(files);
    load(&[folder.path().to_owned()])
        .map_err(|error| error.to_string().replace(&format!("{}/", folder.path().display()), ""))
}

/// One of each kind, in every way of writing.
const WHOLE: &str = r##"
kind: identity
name: dev.client
attributes: [prometheus-clients, "reflectz-clients"]
---
kind: token
name: shop
limits:
  hosts: ["*.example.com"]
  ports: [5432, 8000-8010]
admin: true
---
resources:
  - kind: config
    name: web-host
    type: host.v1
    data: {protocol: tcp, address: 127.0.0.1, port: 80}
  - {kind: service, name: web, attributes: [x], configs: [web-host]}
tests:
  - {identity: dev.client, service: web, expect: allowed}
  - {name: nobody binds, identity: dev.client, service: web, verb: bind, expect: denied}
---
- kind: service-policy
  name: web-dial
  type: Dial
  semantic: AllOf
  service_roles: ["@web"]
  identity_roles: ["#prometheus-clients", "#all", "@public", "@shop"]
- kind: route
  name: web
  hosts: [app.example.com]
  ports: [443]
  service: web
"##;

#[test]
fn every_kind_is_read_in_every_way_of_writing() {
    let documents = read(&[("all.yaml", WHOLE)]).unwrap();
    let resources = documents.resources();
    let kinds: Vec<Kind> = resources.iter().map(Resource::kind).collect();
    assert_eq!(
        kinds,
        [Kind::Identity, Kind::Token, Kind::Config, Kind::Service, Kind::ServicePolicy, Kind::Route]
    );
    let as_json = serde_json::to_value(&resources).unwrap();
    assert_eq!(
        as_json[1]["limits"],
        serde_json::json!({"hosts": ["*.example.com"], "ports": [5432, "8000-8010"]})
    );
    assert_eq!(as_json[2]["data"]["port"], 80);
    // What we write is what we read.
    let again: String = as_json
        .as_array()
        .unwrap()
        .iter()
        .map(|resource| format!("---\n{}", crate::yaml::document(resource)))
        .collect();
    assert_eq!(read(&[("again.yaml", &again)]).unwrap().resources(), resources);
    let json = serde_json::json!({ "resources": as_json }).to_string();
    assert_eq!(read(&[("again.json", &json)]).unwrap().resources(), resources);
    let tests: Vec<&Expectation> = documents.tests.iter().map(|placed| &placed.it).collect();
    assert_eq!((tests.len(), tests[0].expect, tests[1].expect), (2, Verdict::Allowed, Verdict::Denied));
    assert_eq!(documents.model().unwrap().policies.len(), 1);
}

#[test]
fn directories_are_read_whole_in_the_order_of_names() {
    let one = |name: &str| format!("kind: identity\nname: {name}\n");
    let documents = read(&[
        ("b/x.yml", &one("second")),
        ("a.yaml", &one("first")),
        ("c.json", r#"{"kind":"identity","name":"third"}"#),
        ("README.md", "no resource"),
        (".git/x.yaml", "not: read"),
    ])
    .unwrap();
    let names: Vec<String> = documents.resources().iter().map(|it| it.name().to_string()).collect();
    assert_eq!(names, ["first", "second", "third"]);
    assert!(read(&[("x.txt", "")]).unwrap_err().contains("files end in .yaml, .yml or .json"));
}

#[test]
fn every_mistake_of_every_file_is_told_with_its_place() {
    let said = read(&[
        ("a.yaml", "kind: identity\nname: a b\natributes: [x]\n---\nkind: servce\nname: x\n---\nname: y\n"),
        (
            "b.yaml",
            "kind: service-policy\nname: p\ntype: Dail\nservice_roles: [web]\nidentity_roles: '#all'\n---\n\
             kind: config\nname: c\ntype: host.v1\ndata: {port: 80, prot: 1}\n---\nkind: identity\nname: x\nid: 7\n",
        ),
        ("c.yaml", "kind: identity\n  name: x\n"),
        ("d.yaml", "tests:\n- {identity: x, expect: maybe}\n---\nkind: identity\nname: X\n---\nkind: identity\nname: x.\n"),
    ])
    .unwrap_err();
    let lines: Vec<&str> = said.lines().collect();
    for (line, parts) in [
        ("a.yaml:2:7", &["name `a b`", "` ` is not allowed"][..]),
        ("a.yaml:3:1", &["atributes is not a key; did you mean attributes?"]),
        ("a.yaml:5:7", &["`servce` is no kind of resource"]),
        ("a.yaml:8:1", &["kind is missing"]),
        ("b.yaml:3:7", &["service-policy p: type `Dail`", "write Dial or Bind"]),
        ("b.yaml:4:17", &["service_roles `web`", "#attribute, @name or #all"]),
        ("b.yaml:5:17", &["identity_roles is not a list"]),
        ("b.yaml:10:7", &["config c: host.v1", "prot"]),
        ("b.yaml:14:1", &["id is not a key; only the gateway writes it"]),
        ("c.yaml:2:7", &["not YAML"]),
        ("d.yaml:2:3", &["service is missing"]),
        ("d.yaml:2:25", &["neither allowed nor denied"]),
        ("d.yaml:7:1", &["identity x is written twice", "d.yaml:4; keep one"]),
    ] {
        let found = lines.iter().find(|said| said.starts_with(&format!("{line}: ")));
        let found = found.unwrap_or_else(|| panic!("{line} is not in\n{said}"));
        assert!(parts.iter().all(|part| found.contains(part)), "{found}");
    }
    assert_eq!(lines.len(), 14, "{said}");
    assert!(said.ends_with("error: 13 problems in 4 files"), "{said}");
}

#[test]
fn what_refers_to_nothing_is_told_where_no_gateway_is_asked() {
    let text = "kind: service\nname: web\nconfigs: [gone]\n---\nkind: service-policy\nname: p\ntype: Dial\n\
                service_roles: ['@web']\nidentity_roles: ['@nobody', '@public', '#x']\n";
    let documents = read(&[("a.yaml", text)]).unwrap();
    let error = documents.model().unwrap_err().to_string();
    assert!(error.contains("a.yaml:1:1: service web refers to config gone"), "{error}");
    assert!(
        !error.contains("nobody") && !error.contains("public"),
        "a gateway's own file may have it: {error}"
    );
    let strangers: Vec<&str> =
        documents.strangers(&Model::default()).into_iter().map(|name| name.as_str()).collect();
    assert_eq!(strangers, ["nobody"]);
}
