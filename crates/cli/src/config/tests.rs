//! Files as people get them wrong, and what they are told.

use std::path::Path;
use std::time::Duration;

use adit_agent::config::{Transport, Upstream, Verify};
use adit_gateway::config::{Limits, Tls};
use adit_proto::proxy_header::Version;

use super::reader::Setting;
use super::values::LogTarget;
use super::{agent, gateway, parse};

/// A directory with a token and two PEM-like files in it.
fn directory() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in [
        ("token", "s3cret-token\n"),
        ("other", "another\n"),
        ("empty", "\n"),
        ("cert.pem", "x"),
        ("key.pem", "x"),
    ] {
        std::fs::write(directory.path().join(name), text).unwrap();
    }
    std::fs::create_dir(directory.path().join("www")).unwrap();
    directory
}

fn gateway_problems(text: &str) -> Vec<String> {
    let directory = directory();
    let error = parse("gateway.yaml", directory.path(), text, gateway::read).unwrap_err().to_string();
    lines(&error, directory.path())
}

fn agent_problems(text: &str) -> Vec<String> {
    let directory = directory();
    let error = parse("agent.yaml", directory.path(), text, agent::read).unwrap_err().to_string();
    lines(&error, directory.path())
}

#[test]
fn a_file_of_the_other_role_is_one_problem_with_the_command_that_takes_it() {
    let agents = "gateway:\n  url: wss://a\n  token: {file: token}\nservices: []\nlog: {level: info}\n";
    assert_eq!(
        gateway_problems(agents),
        [
            "gateway.yaml:1:1: these are the keys of agent.yaml, not of gateway.yaml; adit agent -f takes such a file",
            "error: gateway.yaml has 1 problem",
        ]
    );
    let gateways = "http:\n- listen: 0.0.0.0:80\ntokens: []\n";
    assert_eq!(
        agent_problems(gateways)[0],
        "agent.yaml:1:1: these are the keys of gateway.yaml, not of agent.yaml; adit gateway -f takes such a file"
    );
    // One key that is this role's, or none of either: then each key is told of.
    let both = gateway_problems("tokens: []\nservices: []\n");
    assert!(both.iter().any(|it| it.contains("services is not a key")), "{both:?}");
    assert!(agent_problems("lisen: a\nlog: {}\n")[0].contains("did you mean listen?"));
}

fn lines(error: &str, directory: &Path) -> Vec<String> {
    error.replace(&directory.display().to_string(), "DIR").lines().map(str::to_owned).collect()
}

fn shown(settings: &[Setting], path: &str) -> (String, bool) {
    let found = settings.iter().find(|setting| setting.path == path);
    let found = found.unwrap_or_else(|| panic!("{path} is not shown in {settings:#?}"));
    (found.value.clone(), found.is_default)
}

#[test]
fn every_problem_of_a_gateway_file_is_told_at_once_with_its_place() {
    let text = "\
control:
  lisen: 0.0.0.0:8123
  tls: {cert: cert.pem}
http:
  - listen: 0.0.0.0
  - listen: 127.0.0.1:8000
    tls: {auto: {}, cert: cert.pem, key: key.pem}
  - listen: 127.0.0.1:8000
tokens:
  - name: default
    token: hunter2
  - name: default
    token: file:empty
  - token: env:ADIT_TEST_NEVER_SET
access:
  allow: [10.0.0.0/33]
  trusted_proxies: 10.0.0.1
limits:
  idle_timeout: 75
  max_header_bytes: 64K
  max_sessions: 0
  max_headers:
request_log: stdot
log: {level: loud, format: [json]}
drain_timeout: 0s
";
    assert_eq!(
        gateway_problems(text),
        [
            "gateway.yaml:2:3: control.lisen is not a key; did you mean listen?",
            "gateway.yaml:3:9: control.tls.cert is given without key; add key with the PEM file that belongs to it",
            "gateway.yaml:5:13: http[0].listen: `0.0.0.0` is not an address; add the port, as in 0.0.0.0:8123",
            "gateway.yaml:7:21: http[1].tls has both auto and files; keep either auto, or cert and key",
            "gateway.yaml:8:13: http[2].listen is 127.0.0.1:8000 again; give each listener an address of its own",
            "gateway.yaml:11:12: tokens[0].token: a secret does not belong in this file; put it into a file of its own \
             and write file:/path, or env:NAME for an environment variable",
            "gateway.yaml:13:12: tokens[1].token: file DIR/empty is empty: an empty secret would let everybody in; \
             check that it is set and readable",
            "gateway.yaml:14:5: tokens[2].name is missing; add `name:` with a name of letters, digits, `-`, `_` and `.`",
            "gateway.yaml:14:12: tokens[2].token: variable ADIT_TEST_NEVER_SET is not set: no environment variable \
             has this name, or its value is not UTF-8; check that it is set and readable",
            "gateway.yaml:16:11: access.allow[0]: `10.0.0.0/33` is neither an address nor a network; write an IP \
             address or a CIDR such as 203.0.113.7 or 10.0.0.0/8",
            "gateway.yaml:17:20: access.trusted_proxies is text, not a list; put `- ` in front of each item",
            "gateway.yaml:19:17: limits.idle_timeout: `75` is not a duration; write the unit as well: 75s",
            "gateway.yaml:20:21: limits.max_header_bytes: `64K` is not a size; write a size such as 64KiB, 1MiB or a \
             number of bytes, from 1KiB to 16MiB",
            "gateway.yaml:21:17: limits.max_sessions: `0` is not a number of at least 1; write a whole number from 1 on",
            "gateway.yaml:22:14: limits.max_headers has no value; write a whole number from 1 to 10000",
            "gateway.yaml:23:14: request_log: `stdot` is not a place for a log; write off, stdout, stderr or the path \
             of a file",
            "gateway.yaml:24:14: log.level: `loud` is not one of the choices; write off, error, warn, info, debug or \
             trace",
            "gateway.yaml:24:28: log.format is a list; write text or json",
            "error: gateway.yaml has 18 problems",
        ]
    );
}

#[test]
fn bounds_that_would_let_one_request_take_all_memory_are_refused() {
    let text = |limits: &str| format!("tokens: [{{name: a, token: file:token}}]\nlimits: {{{limits}}}\n");
    for (key, good, bad, told) in [
        ("max_headers", "10000", "10001", "`10001` is more than 10000; write a whole number from 1 to 10000"),
        (
            "max_headers",
            "1",
            "18446744073709551615",
            "`18446744073709551615` is more than 10000; write a whole number from 1 to 10000",
        ),
        (
            "max_header_bytes",
            "16MiB",
            "18446744073709551615",
            "`18446744073709551615` is more than 16MiB; write a size such as 64KiB, 1MiB or a number of bytes, from \
             1KiB to 16MiB",
        ),
        (
            "idle_timeout",
            "3650d",
            "3651d",
            "`3651d` is more than 3650d; write a duration such as 500ms, 10s or 2m",
        ),
    ] {
        let problems = gateway_problems(&text(&format!("{key}: {bad}")));
        assert!(problems[0].ends_with(&format!("limits.{key}: {told}")), "{problems:?}");
        let directory = directory();
        parse("gateway.yaml", directory.path(), &text(&format!("{key}: {good}")), gateway::read).unwrap();
    }
}

#[test]
fn every_problem_of_an_agent_file_is_told_at_once_with_its_place() {
    let text = "\
gateway:
  url: ws://example.com
  verify: token
  ca: missing.pem
token: file:token
services:
  - host: a..b
    upstream: http://127.0.0.1:8080/path
  - upstream: http://127.0.0.1:8080
    browsing: true
  - upstream: file:www
    insecure_skip_verify: true
    browsing: yes
listen: nowhere
extra: 1
token: file:other
";
    assert_eq!(
        agent_problems(text),
        [
            "agent.yaml:2:8: gateway.url: `ws://` would carry the session unencrypted; use wss://example.com; write \
             wss://host:8123",
            "agent.yaml:4:7: gateway.ca: cannot read DIR/missing.pem: No such file or directory (os error 2); check \
             that it exists and that this user may read it",
            "agent.yaml:7:11: services[0].host: each part between dots must have 1 to 63 characters; write \
             example.com, *.example.com or \"*\"",
            "agent.yaml:8:15: services[0].upstream: an upstream has no path: requests keep the path they came with; \
             write http://host:port, https://host:port, tcp://host:port, unix:/path, file:/path or http_status:404",
            "agent.yaml:10:5: services[1].browsing has no meaning for http://127.0.0.1:8080; remove it; it belongs to \
             file: upstreams",
            "agent.yaml:12:5: services[2].insecure_skip_verify has no meaning for file:DIR/www; remove it; it belongs \
             to https: upstreams",
            "agent.yaml:13:15: services[2].browsing: `yes` is neither true nor false; write true or false",
            "agent.yaml:14:9: listen: `nowhere` is not an address; write an IP address and a port such as \
             0.0.0.0:8123 or [::]:8123",
            "agent.yaml:15:1: extra is not a key; the keys here are gateway, token, identity, services, forwards, \
             listen, log, drain_timeout",
            "agent.yaml:16:1: token is given twice; the first is in line 5; keep one",
            "error: agent.yaml has 10 problems",
        ]
    );
}

#[test]
fn the_smallest_gateway_file_has_every_default_and_shows_it() {
    let directory = directory();
    let text = "tokens: [{name: default, token: file:token}]";
    let loaded = parse("gateway.yaml", directory.path(), text, gateway::read).unwrap();
    let config = &loaded.config.config;
    assert_eq!(config.control.listen.to_string(), "0.0.0.0:8123");
    assert_eq!(config.http[0].listen.to_string(), "0.0.0.0:8000");
    assert!(matches!(config.control.tls, Tls::Auto { .. }) && config.http[0].tls.is_none());
    assert_eq!(config.tokens[0].secret.expose(), "s3cret-token");
    assert_eq!(format!("{:?}", config.limits), format!("{:?}", Limits::default()));
    assert_eq!(
        (config.drain_timeout, &loaded.config.request_log),
        (Duration::from_secs(30), &LogTarget::Off)
    );
    assert_eq!(shown(&loaded.settings, "control.listen"), ("0.0.0.0:8123".into(), true));
    assert_eq!(shown(&loaded.settings, "access.allow"), ("<everyone>".into(), true));
    assert_eq!(shown(&loaded.settings, "limits.response_timeout"), ("5m".into(), true));
    let redacted = format!("<redacted, from file:{}>", directory.path().join("token").display());
    assert_eq!(shown(&loaded.settings, "tokens[0].token"), (redacted, false));
    assert!(!format!("{loaded:?}").contains("s3cret"));
    for row in
        gateway::SECTIONS.iter().filter(|section| section.title == "limits").flat_map(|section| section.rows)
    {
        shown(&loaded.settings, &format!("limits.{}", row.name));
    }
}

#[test]
fn a_full_gateway_file_says_what_it_says() {
    let directory = directory();
    let text = "\
control: {listen: '127.0.0.1:1', tls: {cert: cert.pem, key: key.pem}}
http:
  - {listen: 127.0.0.1:2, tls: {auto: {names: [example.com], directory: state}}}
tokens: [{name: a, token: file:token}, {name: b, token: file:other}]
access: {allow: [10.0.0.0/8, 192.0.2.1], trusted_proxies: []}
limits: {max_header_bytes: 1MiB, idle_timeout: 1h30m}
request_log: ./requests.log
log: {level: debug, format: json}
drain_timeout: 500ms
";
    let loaded = parse("gateway.yaml", directory.path(), text, gateway::read).unwrap();
    let config = &loaded.config.config;
    assert!(
        matches!(&config.control.tls, Tls::Files { cert, .. } if *cert == directory.path().join("cert.pem"))
    );
    let state = directory.path().join("state");
    assert!(
        matches!(&config.http[0].tls, Some(Tls::Auto { names, directory: Some(kept) }) if *kept == state && names == &["example.com"])
    );
    assert_eq!(config.allow[1].to_string(), "192.0.2.1/32");
    assert_eq!((config.limits.max_header_bytes, config.limits.idle_timeout.as_secs()), (1 << 20, 5_400));
    assert_eq!(loaded.config.request_log, LogTarget::File(directory.path().join("./requests.log")));
    assert_eq!(shown(&loaded.settings, "limits.max_header_bytes"), ("1MiB".into(), false));
}

#[test]
fn directories_that_a_start_would_miss_are_told_by_a_check() {
    let text = "tokens: [{name: a, token: file:token}]\nrequest_log: no/requests.log\n";
    assert_eq!(
        gateway_problems(text)[0],
        "gateway.yaml:2:14: request_log: DIR/no is not a directory; make it, and let this user write there"
    );
    let text = "gateway: {url: wss://h}\ntoken: file:token\nservices: [{upstream: 'file:missing'}]\n";
    assert_eq!(
        agent_problems(text)[0],
        "agent.yaml:3:23: services[0].upstream: DIR/missing is not a directory; name one that exists and that this \
         user may read"
    );
}

#[test]
fn one_address_and_one_token_are_not_used_twice() {
    let text = "\
control: {listen: 127.0.0.1:1}
http: [{listen: 127.0.0.1:1}]
tokens: [{name: a, token: file:token}, {name: b, token: file:token}]
";
    assert_eq!(
        gateway_problems(text),
        [
            "gateway.yaml:2:7: control and http both listen on 127.0.0.1:1; give one of them another port",
            "gateway.yaml:3:57: tokens[1].token is the same as one above; make a token of its own for each name",
            "error: gateway.yaml has 2 problems",
        ]
    );
}

#[test]
fn an_agent_file_becomes_an_agents_configuration() {
    let directory = directory();
    let text = "\
gateway: {url: 'tls://gateway.example', ca: cert.pem}
token: file:token
services:
  - {host: a.example, upstream: https://h, insecure_skip_verify: true}
  - {upstream: 'file:www', browsing: true}
listen: localhost:9090
";
    let loaded = parse("agent.yaml", directory.path(), text, agent::read).unwrap();
    let config = &loaded.config.config;
    let gateway = &config.gateways[0];
    assert_eq!((gateway.port, gateway.transport, config.each_address), (8123, Transport::Tls, false));
    assert_eq!(config.verify, Verify::Ca(directory.path().join("cert.pem")));
    assert_eq!(config.services[0].upstream, Upstream::Https { host: "h".into(), port: 443, verify: false });
    assert_eq!(
        config.services[1].upstream,
        Upstream::Files { root: directory.path().join("www"), browsing: true }
    );
    assert_eq!(config.services[1].name.to_string(), "*");
    assert_eq!(config.listen.unwrap().to_string(), "127.0.0.1:9090");
}

#[test]
fn an_agent_file_names_several_gateways_once_each() {
    let directory = directory();
    let rest = "token: file:token\nservices: [{upstream: http://h}]\n";
    let read = |gateway: &str| {
        let text = format!("gateway: {gateway}\n{rest}");
        parse("agent.yaml", directory.path(), &text, agent::read)
    };
    let loaded = read("{urls: [wss://a, tls://b:1], transport: tls, each_address: true}").unwrap();
    let config = &loaded.config.config;
    let shown: Vec<_> = config.gateways.iter().map(ToString::to_string).collect();
    assert_eq!((shown.join(" ").as_str(), config.each_address), ("tls://a:8123 tls://b:1", true));
    for (gateway, hint) in [
        ("{urls: [wss://a, wss://a:8123]}", "names wss://a:8123 twice"),
        ("{urls: [wss://a], url: wss://b}", "both url and urls"),
        ("{urls: []}", "names no gateway"),
        ("{}", "gateway.url is missing"),
    ] {
        let told = read(gateway).unwrap_err().to_string();
        assert!(told.contains(hint), "{gateway}: {told}");
    }
}

#[test]
fn what_contradicts_itself_in_an_agent_file_is_refused() {
    let text = "\
gateway: {url: tls://h, transport: websocket, verify: token, ca: cert.pem}
token: file:token
services: []
";
    assert_eq!(
        agent_problems(text),
        [
            "agent.yaml:1:36: gateway.transport is websocket, but the url says tls://; write wss:// in the url, or \
             leave transport out",
            "agent.yaml:1:62: gateway.ca is used by no check; write `verify: system`, or leave ca out",
            "agent.yaml:3:11: services is empty; at least one item is needed",
            "error: agent.yaml has 3 problems",
        ]
    );
}

#[test]
fn an_empty_file_is_told_what_it_needs() {
    let problems = agent_problems("");
    for needed in ["gateway is missing", "token is missing", "services is missing"] {
        assert!(problems.iter().any(|line| line.contains(needed)), "{problems:?}");
    }
    assert!(gateway_problems("- a\n")[0].starts_with("gateway.yaml:1:1: the file is a list, not a map"));
}

#[test]
fn a_proxy_is_read_with_its_password_and_shown_without_it() {
    let directory = directory();
    let text = "\
gateway: {url: wss://127.0.0.1, proxy: 'http://me@proxy:3128', proxy_password: file:token}
token: file:other
services: [{upstream: 'http_status:204'}]
";
    let loaded = parse("agent.yaml", directory.path(), text, agent::read).unwrap();
    assert!(loaded.config.config.egress.proxy_for("127.0.0.1", 8123).unwrap().has_password());
    assert_eq!(shown(&loaded.settings, "gateway.proxy"), ("http://me@proxy:3128".into(), false));
    assert!(!format!("{loaded:?}").contains("s3cret"));
}

#[test]
fn a_proxy_that_cannot_be_and_a_password_in_the_file_are_refused() {
    let problem = |gateway: &str| {
        let text = format!(
            "gateway: {{url: wss://h, {gateway}}}\ntoken: file:token\nservices: [{{upstream: 'http://x'}}]\n"
        );
        agent_problems(&text).swap_remove(0)
    };
    assert_eq!(
        problem("proxy: ftp://proxy"),
        "agent.yaml:1:32: gateway.proxy: a proxy is http://, socks5:// or socks5h://; write http://HOST:PORT, \
         socks5://HOST:PORT, or direct"
    );
    let with_password = problem("proxy: 'http://me:s3cret@proxy'");
    assert!(
        with_password.ends_with("`proxy_password: file:/path` or env:NAME")
            && !with_password.contains("s3cret")
    );
    assert!(
        problem("proxy: 'http://proxy', proxy_password: file:token").contains("write the user in `proxy`")
    );
    assert!(problem("proxy_password: file:token").contains("gateway.proxy_password belongs to no proxy"));
}

#[test]
fn tcp_services_are_read_on_both_sides() {
    let directory = directory();
    let text = "\
control: {listen: 127.0.0.1:8123}
tokens: [{name: a, token: 'file:token'}]
access: {trusted_proxies: [10.0.0.0/8]}
tcp: {listen: 127.0.0.1, ports: [5432, 8000-8010], proxy_protocol: v2, lb_proxy_protocol: true}
";
    let config = parse("gateway.yaml", directory.path(), text, gateway::read).unwrap().config.config;
    assert!(config.http.is_empty(), "for TCP alone");
    let tcp = config.tcp.unwrap();
    assert_eq!((tcp.listen.to_string().as_str(), tcp.ports), ("127.0.0.1", vec![5432..=5432, 8000..=8010]));
    assert_eq!((tcp.proxy_protocol, tcp.lb_proxy_protocol), (Some(Version::V2), true));

    let text = "\
gateway: {url: wss://h}
token: file:token
services:
  - {port: 5432, upstream: 'unix:/run/pg.sock'}
  - {ports: [8000-8001, 9000], upstream: 'tcp://h:7000'}
  - {host: a.example, upstream: 'http://h:1'}
";
    let config = parse("agent.yaml", directory.path(), text, agent::read).unwrap().config.config;
    let shown: Vec<_> =
        config.services.iter().map(|service| format!("{}={}", service.name, service.upstream)).collect();
    assert_eq!(
        shown,
        [
            "tcp:5432=unix:/run/pg.sock",
            "tcp:8000=tcp://h:7000",
            "tcp:8001=tcp://h:7001",
            "tcp:9000=tcp://h:7002",
            "a.example=http://h:1"
        ]
    );
}

#[test]
fn tcp_services_that_cannot_work_are_told() {
    let text = "\
tokens: [{name: a, token: 'file:token'}]
tcp: {listen: '127.0.0.1:5432', ports: [8010-8000], proxy_protocol: v3, lb_proxy_protocol: true}
";
    assert_eq!(
        gateway_problems(text),
        [
            "gateway.yaml:2:15: tcp.listen: `127.0.0.1:5432` is not an IP address; leave the port out; agents name the \
             ports",
            "gateway.yaml:2:41: tcp.ports[0]: the range ends before it begins; write 8000-8010; write a port such as \
             5432, or a range such as 8000-8010",
            "gateway.yaml:2:69: tcp.proxy_protocol: `v3` is not a version; write v1 or v2",
            "error: gateway.yaml has 3 problems",
        ]
    );
    let text = "tokens: [{name: a, token: 'file:token'}]\ntcp: {lb_proxy_protocol: true}\n";
    assert!(gateway_problems(text)[0].contains("access.trusted_proxies names nobody"));

    let text = "\
gateway: {url: wss://h}
token: file:token
services:
  - {port: 1, host: a.example, upstream: 'tcp://h:1'}
  - {port: 1, ports: [2], upstream: 'tcp://h:1'}
  - {port: 5432, upstream: 'http://h:1'}
  - {upstream: 'tcp://h:1'}
  - {ports: [7, 7], upstream: 'tcp://h:1'}
  - {ports: [1-3], upstream: 'tcp://h:65534'}
";
    let problems = agent_problems(text);
    for (line, told) in [
        (4, "services[0] has host and port"),
        (5, "services[1] has port and ports"),
        (6, "connections to a port need tcp://host:port"),
        (7, "requests need an upstream that speaks HTTP"),
        (8, "tcp:7 again"),
        (9, "beyond 65535"),
    ] {
        let place = format!("agent.yaml:{line}:");
        assert!(problems.iter().any(|p| p.starts_with(&place) && p.contains(told)), "{told}: {problems:#?}");
    }
}

#[test]
fn forwards_are_read_and_stand_in_for_services() {
    let directory = directory();
    let text = "\
gateway: {url: wss://h}
token: file:token
forwards: [{listen: 'localhost:3000', to: '10.0.0.5:5432'}]
";
    let config = parse("agent.yaml", directory.path(), text, agent::read).unwrap().config.config;
    assert!(config.services.is_empty());
    let forward = &config.forwards[0];
    assert_eq!(
        (forward.listen.to_string(), forward.to.to_string()),
        ("127.0.0.1:3000".into(), "10.0.0.5:5432".into())
    );

    let text = "\
gateway: {url: wss://h}
token: file:token
forwards: [{listen: '127.0.0.1:3000', to: nowhere}, {listen: '127.0.0.1:1', to: 'h:1'}, {listen: '127.0.0.1:1', to: 'h:2'}]
";
    let problems = agent_problems(text);
    assert!(problems[0].contains("forwards[0].to: `nowhere` is not a host and a port"), "{problems:#?}");
    assert!(problems[1].contains("forwards[2].listen is 127.0.0.1:1 again"), "{problems:#?}");

    let text = "\
gateway: {url: wss://h}
token: file:token
services: [{service: KubeA.db, upstream: 'tcp://h:1'}]
forwards: [{listen: 'localhost:1', service: db}]
";
    let config = parse("agent.yaml", directory.path(), text, agent::read).unwrap().config.config;
    let names = (config.services[0].name.to_string(), config.forwards[0].to.to_string());
    assert_eq!(names, ("@KubeA.db".into(), "@db".into()));

    let text = "\
gateway: {url: wss://h, verify: system}
token: file:token
identity: nothing.json
forwards: [{listen: '127.0.0.1:1'}, {listen: '127.0.0.1:2', to: 'h:1', service: '@db'}, {listen: '127.0.0.1:3', service: '@db'}]
";
    let problems = agent_problems(text);
    for (problem, told) in
        problems.iter().zip(["both given", "nothing.json", "[0] leads nowhere", "[1] has both", "`@db`"])
    {
        assert!(problem.contains(told), "{told}: {problems:#?}");
    }

    let text = "tokens: [{name: a, token: 'file:token'}]\ntcp: {client_forwarding: true}\n";
    let config = parse("gateway.yaml", directory.path(), text, gateway::read).unwrap().config.config;
    assert!(config.client_forwarding && config.tcp.is_some());
}

#[test]
fn one_source_is_not_given_more_connections_than_there_are() {
    let text = "tokens: [{name: a, token: file:token}]\nlimits: {max_connections: 10, max_connections_per_source: 11}\n";
    let directory = directory();
    let error = parse("gateway.yaml", directory.path(), text, gateway::read).unwrap_err().to_string();
    assert!(
        error.contains("max_connections_per_source is 11, and limits.max_connections only 10"),
        "{error}"
    );
    let text = text.replace("11", "10");
    let limits = parse("gateway.yaml", directory.path(), &text, gateway::read).unwrap().config.config.limits;
    assert_eq!(limits.max_connections_per_source, Some(10));
}
