//! Identities, services and policies as an operator types them, against a real gateway.

use std::net::SocketAddr;
use std::path::Path;

use crate::support::process::{Finished, Process, run};
use crate::support::secrets;
use crate::support::tools::shell;
use crate::support::upstream::Upstream;
use crate::support::world::{Gateway, GatewayFile, World};

/// A gateway that keeps state, with an admin token in its file.
struct Office {
    world: World,
    gateway: Gateway,
}

impl Office {
    fn open() -> Self {
        let world = World::new();
        let more = "tokens: [{name: default, token: 'file:token', admin: true}]\nstate: {directory: kept}\n";
        let gateway = world.gateway(GatewayFile { http: None, more });
        Self { world, gateway }
    }

    /// The same, logged in.
    fn logged_in() -> Self {
        let office = Self::open();
        let control = office.control();
        let said = office.types(&format!("adit edge login {control} --token-file token -y")).ok();
        assert!(
            said.starts_with(&format!("logged in to wss://{control} as token:default; remembered in ")),
            "{said}"
        );
        office
    }

    fn control(&self) -> SocketAddr {
        self.gateway.control
    }

    /// What an operator types, to its end.
    #[track_caller]
    fn types(&self, line: &str) -> Finished {
        let mut command = self.world.here(shell(line));
        run(command.env("ADIT_CONFIG_DIR", self.world.path("config")))
    }

    /// Exit code and everything that was said of a line that fails.
    #[track_caller]
    fn fails(&self, line: &str, code: i32) -> String {
        let said = self.types(line);
        assert_eq!(said.code, code, "{line}: {said:#?}");
        format!("{}{}", said.out, said.err)
    }

    /// The hosting side of the article comes up; one identity reaches it, and another does not.
    fn dials(&self) {
        let upstream = Upstream::start();
        let file = format!(
            "gateway: {{url: 'wss://{}'}}\nidentity: prometheus/local.prometheus.id.json\nservices:\n  \
             - {{service: local.prometheus.svc, upstream: '{}'}}\n",
            self.control(),
            upstream.url().replace("http:", "tcp:")
        );
        let file = self.world.write("agent.yaml", &file);
        let mut agent = Process::start("agent", self.world.adit(&["agent", "-f"]).arg(file));
        agent.line(&["session opened"]);
        for (name, more) in [("dev.client", ""), ("stranger", "adit identity create stranger -q && ")] {
            let line =
                format!("{more}adit identity enroll-token {name} -o {name}.jwt -q && adit enroll {name}.jwt");
            self.types(&line).ok();
        }
        let dial = |name: &str| {
            format!(
                "printf 'GET /hello HTTP/1.1\\r\\nconnection: close\\r\\n\\r\\n' | \
                 adit dial local.prometheus.svc --identity {name}.json"
            )
        };
        let hello = self.types(&dial("dev.client")).ok();
        assert!(hello.starts_with("HTTP/1.1 200") && hello.ends_with("hello\n"), "{hello}");
        let refused = self.fails(&dial("stranger"), 1);
        assert!(refused.contains("not_permitted") || refused.contains("no Dial policy"), "{refused}");
        let why = self
            .types("adit explain dial --identity stranger --to local.prometheus.svc:80 --detailed-exitcode");
        assert_eq!(why.code, 4, "{why:#?}");
        for part in ["local.prometheus.svc.dial", "#prometheus-clients", "adit edge "] {
            assert!(why.out.contains(part), "{part} is not in {}", why.out);
        }
        let verdict =
            self.types("adit explain dial --identity dev.client --service local.prometheus.svc -q").ok();
        assert!(verdict.contains("may dial service local.prometheus.svc"), "{verdict}");
        let shown = |line: &str| -> serde_json::Value {
            serde_json::from_str(&self.types(&format!("{line} -o json")).ok()).unwrap()
        };
        let service = shown("adit service show local.prometheus.svc");
        assert_eq!(service["endpoints"][0]["identity"], "local.prometheus.id", "{service}");
        assert_eq!(service["dial_policies"][0]["name"], "local.prometheus.svc.dial", "{service}");
        let identity = shown("adit identity show local.prometheus.id");
        assert_eq!(identity["sessions"][0]["offers"][0]["service"], "@local.prometheus.svc", "{identity}");
        let nobody = self.types("adit service create idle -q && adit service show idle").ok();
        assert!(nobody.contains("# nobody offers it now\n"), "{nobody}");
        self.types("adit service delete idle").ok();
        let advice = self.types("adit edge policy-advisor identities dev.client -q").ok();
        assert_eq!(advice, "OKAY : dev.client (0) -> local.prometheus.svc (1) Dial: Y Bind: N\n");
    }

    /// A secret that a command has written, kept out of what failures print.
    #[track_caller]
    fn secret(&self, name: &str) -> String {
        let text = std::fs::read_to_string(self.world.path(name)).unwrap();
        secrets::keep(text.trim());
        text.trim().to_owned()
    }
}

#[cfg(unix)]
fn mode(path: &Path) -> u32 {
    std::os::unix::fs::PermissionsExt::mode(&path.metadata().unwrap().permissions()) & 0o777
}

/// Every line of the article that the model comes from, with `adit` in the place of the other name.
const ARTICLE: &[&str] = &[
    r#"adit edge create identity user dev.client -a "prometheus-clients","reflectz-clients""#,
    r#"adit edge create identity user local.prometheus.id -o prometheus/local.prometheus.id.jwt -a "reflectz-clients","prometheus-clients""#,
    r#"adit edge enroll prometheus/local.prometheus.id.jwt -o prometheus/local.prometheus.id.json"#,
    r#"adit edge create config "local.prometheus.svc-intercept.v1" intercept.v1 '{"protocols":["tcp"],"addresses":["local.prometheus.svc"],"portRanges":[{"low":80, "high":80}], "dialOptions": {"identity":"local.prometheus.id"}}'"#,
    r#"adit edge create service "local.prometheus.svc" --configs "local.prometheus.svc-intercept.v1""#,
    r##"adit edge create service-policy "local.prometheus.svc.dial" Dial --service-roles "@local.prometheus.svc" --identity-roles "#prometheus-clients""##,
    r#"adit edge create service-policy "local.prometheus.svc.bind" Bind --service-roles "@local.prometheus.svc" --identity-roles "@local.prometheus.id""#,
];

#[test]
fn the_commands_of_the_article_do_what_they_say() {
    let office = Office::logged_in();
    std::fs::create_dir(office.world.path("prometheus")).unwrap();
    for line in ARTICLE {
        office.types(line).ok();
    }
    #[cfg(unix)]
    for name in ["prometheus/local.prometheus.id.json", "config/gateways.json"] {
        assert_eq!(mode(&office.world.path(name)), 0o600, "{name}");
    }
    let identities = office.types("adit edge list identities 'name contains \"prometheus\"'").ok();
    assert_eq!(
        identities,
        "\
Name                 Attributes                           Rights  Enrolled  Online
local.prometheus.id  reflectz-clients,prometheus-clients  -       yes       no
"
    );
    let policies = office.types("adit edge list service-policies").ok();
    assert!(policies.contains("local.prometheus.svc.dial  Dial"), "{policies}");
    let shown = office.types("adit service show LOCAL.prometheus.svc. -o json").ok();
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&shown).unwrap()["configs"][0],
        "local.prometheus.svc-intercept.v1"
    );
    office.dials();
    let twice = office.fails(ARTICLE[0], 1);
    assert!(twice.contains("dev.client") && twice.contains("\n next: "), "{twice}");
    let used = office.fails("adit edge delete config local.prometheus.svc-intercept.v1", 1);
    assert!(used.contains("local.prometheus.svc"), "{used}");
    office.types("adit edge delete service-policies where 'name~local.prometheus'").ok();
    let nobody = office.types("adit edge policy-advisor services local.prometheus.svc");
    assert!(nobody.err.contains("no policy lets anybody dial or bind service"), "{nobody:#?}");
    office.types("adit edge delete service local.prometheus.svc").ok();
    assert_eq!(office.types("adit edge list services -q").ok(), "");
}

/// What an operator keeps in a repository.
const REPOSITORY: &str = "\
kind: identity
name: dev.client
attributes: [prometheus-clients]
---
kind: config
name: web-host
type: host.v1
data: {protocol: tcp, address: 127.0.0.1, port: 80}
---
kind: service
name: web
configs: [web-host]
---
kind: service-policy
name: web-dial
type: Dial
service_roles: ['@web']
identity_roles: ['#prometheus-clients']
---
kind: route
name: web
hosts: [app.example.com]
service: web
---
tests:
  - {identity: dev.client, service: web, expect: allowed}
  - {identity: public, service: web, expect: denied}
";

#[test]
fn a_repository_is_planned_applied_exported_and_pruned() {
    let office = Office::logged_in();
    std::fs::create_dir(office.world.path("repository")).unwrap();
    office.world.write("repository/all.yaml", REPOSITORY);
    assert_eq!(office.types("adit policy test -f repository").ok(), "2 passed, 0 failed\n");
    let planned = office.fails("adit plan -f repository --detailed-exitcode", 4);
    assert!(planned.contains("+ identity dev.client: attributes [prometheus-clients]\n"), "{planned}");
    assert!(planned.ends_with("5 to create\n"), "{planned}");
    assert!(office.types("adit apply -f repository").ok().ends_with("5 created\n"));
    assert_eq!(office.types("adit plan -f repository --detailed-exitcode").ok(), "5 as they should be\n");
    for form in ["yaml", "json"] {
        office.types(&format!("adit export -o {form} > exported.{form}")).ok();
        let again = office.types(&format!("adit plan -f exported.{form} --prune --detailed-exitcode")).ok();
        assert_eq!(again, "5 as they should be\n", "{form}");
    }
    let less = REPOSITORY.replace("[prometheus-clients]", "[prometheus-clients, \"no\"]");
    let less = less.split("---\nkind: route").next().unwrap();
    office.world.write("repository/all.yaml", less);
    let planned = office.types("adit plan -f repository --prune").ok();
    assert_eq!(
        planned,
        "~ identity dev.client: attributes +no\n- route web\n1 to change, 1 to delete, 3 as they should be\n"
    );
    // What holds no resource is most likely not what somebody meant to leave.
    for line in ["printf '' | adit apply -f - --prune", "echo 'tests: []' | adit plan -f - --prune"] {
        let refused = office.fails(line, 2);
        assert!(refused.contains("--prune would delete all there are"), "{refused}");
    }
    let emptied = office.types("printf '' | adit plan -f - --prune --force").ok();
    assert!(emptied.ends_with("5 to delete\n"), "{emptied}");
    office.types("adit apply -f repository --prune -q").ok();
    assert_eq!(office.types("adit route list -q").ok(), "");
    // Whoever is logged in does not delete itself.
    office.types("adit token create ops --admin -o ops.token").ok();
    office.secret("ops.token");
    let control = office.control();
    office.types(&format!("adit login wss://{control} --token-file ops.token -n ops -q")).ok();
    let pruned = office.types("adit apply -f repository --prune");
    assert!(
        pruned.err.contains("token ops is in none of the files; it is kept because it asks"),
        "{pruned:#?}"
    );
    assert_eq!(office.types("adit token list -q").ok(), "ops\n");
    // Every mistake is told at once, and nothing is asked.
    office.world.write("repository/b.yaml", "kind: servce\nname: x\n---\nkind: identity\nnam: y\n");
    let wrong = office.fails("adit apply -f repository", 2);
    for part in ["repository/b.yaml:1:7: ", "repository/b.yaml:5:1: ", "3 problems in 1 file"] {
        assert!(wrong.contains(part), "{part} is not in {wrong}");
    }
}

#[test]
fn tokens_are_made_rotated_and_revoked_and_what_was_done_is_on_record() {
    let office = Office::logged_in();
    office.types("adit token create shop --hosts '*.example.com' --ports 5432,8000-8010 -o shop.token").ok();
    let first = office.secret("shop.token");
    let listed = office.types("adit token list").ok();
    assert!(listed.contains("hosts: *.example.com; ports: 5432,8000-8010"), "{listed}");
    office.types("adit token rotate shop --window 24h -o shop.token --force").ok();
    let listed = office.types("adit token list").ok();
    assert!(listed.contains("old one taken for 23 hours more"), "{listed}");
    let shown = office.types("adit token show shop -o json").ok();
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert!(shown["secrets"][0].get("not_after").is_none(), "{shown}");
    assert!(shown["secrets"][1]["not_after"].is_string(), "{shown}");
    assert_ne!(office.secret("shop.token"), first);
    office.types("adit token update shop --disabled").ok();
    assert!(office.types("adit token show shop").ok().contains("disabled: true"));
    let guessed = office.fails("adit token rotate shop -o json", 2);
    assert!(guessed.contains("next: write --output json"), "{guessed}");
    let log = office.types("adit audit list --name shop").ok();
    for part in ["token:default", "create", "rotate-secret", "update", "token shop"] {
        assert!(log.contains(part), "{part} is not in {log}");
    }
    let lines = office.types("adit audit export").ok();
    assert!(lines.lines().count() >= 3 && !lines.contains(&first), "{lines}");
    let who = office.types("adit whoami").ok();
    assert!(who.starts_with("token:default at wss://") && who.ends_with(", may change resources\n"), "{who}");
}

#[test]
fn a_secret_that_was_revoked_is_never_taken_again() {
    let office = Office::logged_in();
    office.types("adit token create ops --admin -o leaked.token").ok();
    let upstream = Upstream::start();
    office.secret("leaked.token");
    let control = office.control();
    let whoami = |file: &str| format!("adit whoami --url wss://{control} --token-file {file}");
    office.types(&whoami("leaked.token")).ok();
    let client = format!(
        "exec adit http client --url wss://{control} --token-file leaked.token --upstream {}",
        upstream.url()
    );
    let mut agent = Process::start("agent", &mut office.world.here(shell(&client)));
    agent.line(&["session opened"]);
    let said = office.types("adit token revoke ops").ok();
    assert!(said.contains("every secret is revoked") && said.contains("adit token rotate ops"), "{said}");
    agent.line(&["revoked"]);
    let refused = |file: &str| {
        let said = office.fails(&whoami(file), 1);
        assert!(said.contains("401 Unauthorized"), "{said}");
    };
    refused("leaked.token");
    // Neither of the ways to let the token in again lets the old secret in.
    let said = office.types("adit token rotate ops -o new.token").ok();
    assert!(said.contains("no other is taken"), "{said}");
    office.secret("new.token");
    office.types("adit token update ops --disabled && adit token update ops --disabled=false").ok();
    refused("leaked.token");
    assert!(office.types(&whoami("new.token")).ok().contains("token:ops"));
    let missing = office.fails("adit token revoke nobody", 1);
    assert_eq!(missing, "error: there is no token `nobody`\n next: list what there is: adit token list\n");
    let late = office.fails("adit identity create late -o late.jwt --ttl 400d", 2);
    assert!(late.contains("between 1s and 30d"), "{late}");
    assert_eq!(office.types("adit identity list -q").ok(), "");
}

#[test]
fn a_file_that_is_there_is_not_overwritten_unless_asked() {
    let office = Office::logged_in();
    office.types("adit identity create web.agent -o web.jwt && adit enroll web.jwt -o web.json").ok();
    let key = office.secret("web.json");
    for line in [
        "adit identity create other -o web.json",
        "adit identity enroll-token web.agent -o web.json",
        "adit token create shop -o web.json",
        "adit token rotate default -o web.json",
        "adit enroll web.jwt -o web.json",
    ] {
        let said = office.fails(line, 2);
        for part in ["web.json is there already", "next: name another file, or say --force"] {
            assert!(said.contains(part), "{line}: {part} is not in {said}");
        }
        assert_eq!(office.secret("web.json"), key, "{line}");
    }
    // Nothing was asked of the gateway.
    assert_eq!(office.types("adit identity list -q").ok(), "web.agent\n");
    assert_eq!(office.types("adit token list -q").ok(), "");
    office.types("adit token create shop -o web.json --force").ok();
    assert_ne!(office.secret("web.json"), key);
    #[cfg(unix)]
    assert_eq!(mode(&office.world.path("web.json")), 0o600);
}

#[test]
fn an_administrator_with_a_certificate_logs_in_and_live_names_are_completed() {
    let office = Office::logged_in();
    office.types("adit identity create alice --admin -o alice.jwt").ok();
    office.types("adit enroll alice.jwt -o alice.json").ok();
    let control = office.control();
    let said = office.types(&format!("adit login wss://{control} --identity alice.json -n alice")).ok();
    assert!(said.contains(" as identity:alice;"), "{said}");
    office.types("adit identity create bob").ok();
    let candidates = office.types(
        "ADIT_COMPLETE=fish adit -- adit identity show b && ADIT_COMPLETE=fish adit -- adit edge use ''",
    );
    let candidates = candidates.ok();
    assert!(candidates.lines().any(|line| line == "bob"), "{candidates}");
    assert!(candidates.lines().any(|line| line == "alice"), "{candidates}");
    // Also what needs no resources knows the gateway logged in to, by certificate or by token.
    let by_token = format!("adit status --gateway {control}");
    for line in ["adit status", "adit status -o wide", &by_token] {
        assert!(office.types(line).ok().contains("Connected clients:"), "{line}");
    }
    office.types("adit use alice && adit logout -q && adit use -o json > uses.json").ok();
    let uses = std::fs::read_to_string(office.world.path("uses.json")).unwrap();
    assert!(!uses.contains("alice"), "{uses}");
    let nobody = office.fails("adit identity list", 2);
    assert!(nobody.contains("nothing says which gateway: nobody is logged in"), "{nobody}");
    let here =
        office.types(&format!("adit identity list -q --url wss://{control} --identity-file alice.json")).ok();
    assert_eq!(here, "alice\nbob\n");
    let stranger = format!("adit identity list --url wss://{control} --ca token --token-file token");
    let stranger = office.fails(&stranger, 1);
    assert!(stranger.contains("cannot prepare TLS"), "{stranger}");
}

#[test]
fn what_a_client_finds_at_a_host_is_explained_with_commands_that_change_it() {
    let office = Office::logged_in();
    let upstream = Upstream::start();
    let _agent = office.world.agent(&office.gateway, &[("shop.example", &upstream.url())], "");
    let line = "adit explain dial --identity public --to shop.example:80 --detailed-exitcode";
    let open = office.types(line).ok();
    assert!(open.starts_with("ALLOWED: everybody may reach shop.example:80, and one endpoint"), "{open}");
    // Every command that is told works as it is told, and leaves nobody outside who was let in.
    let commands: Vec<&str> = open.lines().filter_map(|line| line.strip_prefix("      ")).collect();
    assert_eq!(commands.len(), 4, "{open}");
    for command in commands {
        office.types(command).ok();
    }
    let routed = office.types(line).ok();
    assert!(routed.starts_with("ALLOWED: the public may dial service shop.example, and one"), "{routed}");
    assert!(routed.contains("  A route leads shop.example to service shop.example.\n"), "{routed}");
    office.types("adit service-policy delete shop.example.dial.public").ok();
    let denied = office.fails(line, 4);
    assert!(denied.starts_with("DENIED: no Dial policy lets the public dial"), "{denied}");
    let nowhere = office.fails(&line.replace("shop.example:80", "other.example:80"), 4);
    assert!(nowhere.contains("nothing answers at other.example:80"), "{nowhere}");
}

#[test]
fn names_are_completed_in_bash_where_it_breaks_words() {
    let mut office = Office::logged_in();
    office
        .types(
            "adit identity create dev -a developers -q && adit service create web -a internal -q && \
             adit service create wiki -q && adit token create shop -o shop.token -q",
        )
        .ok();
    // As bash asks: the line, its words broken at `@`, `=` and `:`, and the piece that is typed last.
    let completed = |words: &str, last: &str| {
        let line = format!(
            "source <(adit completion bash); COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); \
             COMP_LINE=$LINE; COMP_POINT=${{#COMP_LINE}}; _adit adit '{last}' ''; echo \"${{COMPREPLY[*]}}\""
        );
        move |office: &Office, typed: &str| {
            let mut command = office.world.here(shell(&format!("bash -c '{}'", line.replace('\'', "'\\''"))));
            let said = run(command.env("ADIT_CONFIG_DIR", office.world.path("config")).env("LINE", typed));
            assert_eq!(said.err, "", "{typed}");
            said.ok().trim().to_owned()
        }
    };
    let policy = "adit service-policy create p Dial --service-roles";
    for (words, last, typed, expected) in [
        ("adit ide", "ide", "adit ide".to_owned(), "identity"),
        ("adit identities show d", "d", "adit identities show d".to_owned(), "dev"),
        ("adit dial w", "w", "adit dial w".to_owned(), "web wiki"),
        ("adit explain dial --service = we", "we", "adit explain dial --service=we".to_owned(), "web"),
        ("adit explain dial --identity s", "s", "adit explain dial --identity s".to_owned(), "shop"),
        (&format!("{policy} @ w"), "w", format!("{policy} @w"), "web wiki"),
        (&format!("{policy} @"), "", format!("{policy} @"), "web wiki"),
        (&format!("{policy} @web,@wi"), "wi", format!("{policy} @web,@wi"), "wiki"),
        (&format!("{policy} \\#i"), "#i", format!("{policy} \"#i"), "#internal"),
        ("adit service-policy create p B", "B", "adit service-policy create p B".to_owned(), "Bind"),
        ("adit service create x -a i", "i", "adit service create x -a i".to_owned(), "internal"),
        ("adit use 127.0.0.1 :", "", "adit use 127.0.0.1:".to_owned(), &office.control().port().to_string()),
    ] {
        assert_eq!(completed(words, last)(&office, &typed), expected, "{typed}");
    }
    // Without a gateway there is nothing to say, and nothing is said.
    office.gateway.process.kill();
    assert_eq!(completed("adit identity show d", "d")(&office, "adit identity show d"), "");
}
