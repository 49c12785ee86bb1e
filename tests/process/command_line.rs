//! What the command line says: mistakes by name with what to do next, old spellings that still work.

use std::time::Duration;

use rustix::process::Signal;

use crate::support::http;
use crate::support::process::{Finished, Process, run};
use crate::support::tools;
use crate::support::wait::{SOON, until};
use crate::support::world::{GatewayFile, World};

/// Exit code 2, nothing on standard output, and an error with all these parts.
#[track_caller]
fn refused(said: &Finished, parts: &[&str]) {
    assert_eq!((said.code, said.out.as_str()), (2, ""), "{said:#?}");
    assert!(said.err.contains("error: "), "{said:#?}");
    for part in parts {
        assert!(said.err.contains(part), "`{part}` is not in {said:#?}");
    }
}

#[test]
fn a_mistake_in_the_flags_is_told_with_the_flag_the_reason_and_what_to_do_next() {
    let world = World::new();
    // What failed, on which thing, why, and what to do next.
    let cases: &[(&[&str], [&str; 3])] = &[
        (
            &["http", "server"],
            ["no token", "prove to each other", "next: give it with --token-file FILE or --token-env NAME"],
        ),
        (
            &["http", "client", "--token-file", "token", "--upstream", "http://u"],
            ["no gateway", "to connect to", "next: name it with --url wss://HOST:8123"],
        ),
        (
            &["http", "client", "--token-file", "token", "--url", "wss://h"],
            ["no upstream", "nothing to expose", "next: give --upstream http://127.0.0.1:8080"],
        ),
        (
            &["http", "client", "--token-file", "token", "--url", "ws://h", "--upstream", "http://u"],
            ["--url ws://h cannot be used", "unencrypted", "next: write wss://HOST:8123"],
        ),
        (
            &["http", "server", "--token-file", "token", "--letsencrypt-domain", "a.com"],
            ["--letsencrypt-domain cannot be used", "does not fetch certificates", "next: give files:"],
        ),
        (
            &["http", "server", "--token-file", "token", "--port", "8123"],
            ["--control-port and --port are both 8123", "cannot serve both", "next: choose two ports"],
        ),
        (
            &["http", "server", "--token-file", "token", "--token-env", "T"],
            ["the token is given 2 times", "--token-file, --token-env", "next: keep one of them"],
        ),
        (
            &["http", "server", "--token-file", "token", "--admin-token-file", "token"],
            [
                "token and the administrator's token are the same",
                "could use the admin interface",
                "next: make one",
            ],
        ),
        (
            &["http", "client", "--token-file", "token", "--url", "wss://h", "--upstream", "a=http://u/path"],
            ["--upstream a=http://u/path is not an upstream", "no path", "next: write domain=url or url"],
        ),
        (
            &["gateway", "-f", "nowhere.yaml"],
            ["cannot read nowhere.yaml", "No such file", "next: check the path"],
        ),
        (
            &["status", "--url", "ftp://h", "--token-file", "token"],
            ["--url ftp://h cannot be used", ": ", "next: write wss://HOST:8123"],
        ),
    ];
    for (words, parts) in cases {
        refused(&world.run(words), parts);
    }
    // Mistakes that the parser of the command line finds by itself.
    for (words, part) in [
        (&["http", "server", "--prot", "1"][..], "--prot"),
        (&["http", "server", "--port", "x"], "'x' for '--port <PORT>'"),
        (&["http", "server", "--auto-tls=maybe"], "write true or false"),
        (&["gateway"], "--file <FILE>"),
        (&["burrow"], "'burrow'"),
    ] {
        refused(&world.run(words), &[part, "For more information, try '--help'."]);
    }
}

#[test]
fn a_gateway_that_keeps_nothing_of_what_an_administrator_makes_says_so() {
    let world = World::new();
    world.write("admin.token", "the-secret-of-an-administrator");
    let server = |args: &[&str]| {
        let mut command =
            world.adit(&["http", "server", "--token-file", "token", "--control-port", "0", "--port", "0"]);
        let mut server = Process::start("server", command.args(args));
        server.line(&["listening", "purpose=\"http\""]);
        server
    };
    let kept = "--state-dir";
    let admin = ["--admin-token-file", "admin.token"];
    let forgets = server(&admin);
    assert!(forgets.stderr().contains("kept in memory, and gone when this process ends; name a directory"));
    assert!(!server(&[admin.as_slice(), &[kept, "kept"]].concat()).stderr().contains("kept in memory"));
    assert!(!server(&[]).stderr().contains("kept in memory"), "nobody can make anything here");
}

#[test]
fn an_empty_or_missing_token_is_refused_by_the_name_of_where_it_should_be() {
    let world = World::new();
    world.write("empty", "");
    world.write("blank", " \n\n");
    let server = |args: &[&str]| run(world.adit(&["http", "server"]).args(args).env("EMPTY", ""));
    let empty = "is empty: an empty secret would let everybody in";
    let next = "next: check that it is set and readable";
    refused(
        &server(&["--token", ""]),
        &["--token <TOKEN>", "the secret is empty", "check that the variable"],
    );
    refused(&server(&["--token-file", "empty"]), &["--token-file empty", empty, next]);
    refused(&server(&["--token-file", "blank"]), &["--token-file blank", empty, next]);
    refused(&server(&["--token-file", "nowhere"]), &["cannot read --token-file nowhere: No such file", next]);
    refused(&server(&["--token-env", "EMPTY"]), &["--token-env EMPTY", empty, next]);
    refused(&server(&["--token-env", "ADIT_NEVER_SET"]), &["--token-env ADIT_NEVER_SET is not set", next]);
}

const BAD_GATEWAY: &str = "\
control:
  lisen: 0.0.0.0:8123
http:
  - listen: 0.0.0.0
tokens:
  - name: default
    token: written-here-by-mistake
limits: {idle_timeout: 75}
";

const BAD_AGENT: &str = "\
gateway: {url: 'ws://h'}
token: file:nowhere
services:
  - upstream: http://127.0.0.1:8080/path
extra: 1
";

#[test]
fn every_problem_of_a_file_is_listed_with_its_place_by_a_start_and_by_a_check() {
    let world = World::new();
    world.write("gateway.yaml", BAD_GATEWAY);
    world.write("agent.yaml", BAD_AGENT);
    let cases = [
        (
            "gateway",
            &[
                "2:3: control.lisen",
                "4:13: http[0].listen",
                "7:12: tokens[0].token",
                "8:24: limits.idle_timeout",
            ][..],
        ),
        ("agent", &["1:16: gateway.url", "2:8: token", "4:15: services[0].upstream", "5:1: extra"]),
    ];
    for (role, places) in cases {
        let file = format!("{role}.yaml");
        for (words, code) in [(vec![role, "-f", &file], 2), (vec![role, "check", "-f", &file], 1)] {
            let said = world.run(&words);
            assert_eq!((said.code, said.out.as_str()), (code, ""), "{said:#?}");
            let lines: Vec<&str> = said.err.lines().collect();
            assert_eq!(lines.len(), places.len() + 1, "{said:#?}");
            for (line, place) in lines.iter().zip(places) {
                assert!(line.starts_with(&format!("{file}:{place}")), "{place}: {said:#?}");
                assert!(line.contains("; ") || line.ends_with('?'), "no way out: {line}");
            }
            assert_eq!(lines[places.len()], format!("error: {file} has {} problems", places.len()));
            assert!(!said.err.contains("written-here-by-mistake"), "{said:#?}");
        }
    }
}

#[test]
fn a_check_of_a_good_file_prints_every_value_that_would_be_used_and_no_secret() {
    let world = World::new();
    world.write("gateway.yaml", "tokens: [{name: default, token: 'file:token'}]\n");
    world.write(
        "agent.yaml",
        "gateway: {url: 'wss://h'}\ntoken: 'env:TOKEN'\nservices: [{upstream: 'http_status:204'}]\n",
    );
    for (role, lines) in [
        (
            "gateway",
            [
                "control.listen: 0.0.0.0:8123  # default",
                "http[0].listen: 0.0.0.0:8000  # default",
                "tokens[0].name: default",
            ],
        ),
        (
            "agent",
            [
                "gateway.url: wss://h:8123",
                "services[0].host: *  # default",
                "token: <redacted, from env:TOKEN>",
            ],
        ),
    ] {
        let file = format!("{role}.yaml");
        let check = |more: &[&str]| {
            run(world.adit(&[role, "check", "-f", &file]).args(more).env("TOKEN", &world.token))
        };
        let text = check(&[]).ok();
        for line in lines {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
        let json: serde_json::Value = serde_json::from_str(&check(&["-o", "json"]).ok()).unwrap();
        assert_eq!(json.as_array().unwrap().len(), text.lines().count());
        assert!(!text.contains(&world.token) && !json.to_string().contains(&world.token));
    }
}

#[test]
fn old_spellings_and_licence_flags_warn_and_work() {
    let world = World::new();
    let gateway = world.gateway(GatewayFile::default());
    let url = format!("wss://{}/connect", gateway.control);
    let mut command = world.adit(&["http", "client", "--connect", &url, "--token-from", "token"]);
    command.args([
        "--license",
        "x",
        "--license-file",
        "none",
        "--license-env",
        "NONE",
        "--demux",
        "--insecure",
    ]);
    let mut client =
        Process::start("client", command.args(["--strict-forwarding=true", "--upstream", "http_status:204"]));
    client.line(&["session opened"]);
    let said = client.stderr();
    for line in [
        "warning: --connect is deprecated; use --url, which is the same",
        "warning: --token-from is deprecated and goes away; use --token-file, which is the same",
        "note: no license is needed; the flag is ignored",
        "note: --demux is not needed: one session always carries every upstream",
        "note: --insecure changes nothing: a session always runs over TLS",
    ] {
        assert_eq!(said.lines().filter(|found| *found == line).count(), 1, "{line} in {said}");
    }
    until("the tunnel works", SOON, || {
        let request = http::Request::get("x", "/");
        let response = http::once(gateway.public(), &request).map_err(|error| error.to_string())?;
        if response.status == 204 { Ok(()) } else { Err(format!("{response:?}")) }
    });
    let status = run(&mut world.adit(&["status", "--url", &url, "--token-from", "token"]));
    assert!(status.err.contains("--token-from is deprecated"), "{status:#?}");
    assert!(status.ok().contains("*=http_status:204"));
    client.signal(Signal::TERM);
    assert_eq!(client.exit_code(Duration::from_secs(60)), 0);
}

#[test]
fn a_wrong_token_is_told_on_both_sides_and_never_said() {
    // Each has a folder and a token of its own: a gateway takes a token whose file changes.
    let (world, stranger) = (World::new(), World::new());
    let mut gateway = world.gateway(GatewayFile::default());
    let mut agent = stranger.lone_agent(gateway.control, &[("*", "http_status:204")], "");
    let refused = agent.process.line(&["the gateway refuses this agent", "still trying"]);
    assert!(refused.contains("unauthorized") || refused.contains("token is wrong"), "{refused}");
    gateway.process.line(&["refused a session", "reason=unauthorized"]);
    let unready = http::once(agent.listen, &http::Request::get("agent", "/ready")).unwrap();
    assert_eq!(unready.status, 503);
    let scrape = agent.scrape();
    assert!(scrape.sum("adit_agent_connects_total", &["result=\"unauthorized\""]) > 0.5, "{scrape}");
}

#[test]
fn a_port_in_use_is_told_with_the_address_and_what_to_do() {
    let world = World::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap();
    let text = format!(
        "control: {{listen: '127.0.0.1:0'}}\nhttp: [{{listen: '{addr}'}}]\ntokens: [{{name: default, token: 'file:token'}}]\n"
    );
    world.write("gateway.yaml", &text);
    let said = world.run(&["gateway", "-f", "gateway.yaml"]);
    assert_eq!(said.code, 1, "{said:#?}");
    assert!(
        said.err.contains(&format!("the gateway did not start: cannot listen on {addr} (public HTTP)")),
        "{said:#?}"
    );
    assert!(said.err.contains("\n next: stop what uses this port, or choose another one"), "{said:#?}");
    let port = addr.port().to_string();
    let said = run(world.adit(&["fileserver", "--port"]).arg(&port));
    assert_eq!(said.code, 1, "{said:#?}");
    assert!(said.err.contains(&format!("error: cannot listen on {addr}")), "{said:#?}");
}

#[test]
fn help_and_version_go_to_standard_output() {
    let world = World::new();
    for words in [
        &["--help"][..],
        &["http", "server", "--help"],
        &["http", "client", "-h"],
        &["gateway", "check", "--help"],
    ] {
        let help = world.run(words).ok();
        assert!(help.contains("Usage: adit"), "{help}");
    }
    let version = world.run(&["version"]).ok();
    let (number, commit) = version.trim().strip_prefix("Adit version: ").unwrap().split_once(" - ").unwrap();
    assert_eq!(world.run(&["--version"]).ok(), format!("adit {number} - {commit}\n"));
    let json: serde_json::Value = serde_json::from_str(&world.run(&["version", "-o", "json"]).ok()).unwrap();
    assert_eq!(json, serde_json::json!({ "version": number, "sha": commit }));
    // A reader that stops reading early is not an error.
    let head = run(&mut tools::shell("adit --help | head -1"));
    assert!(head.err.is_empty(), "{head:#?}");
}
