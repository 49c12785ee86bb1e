//! `--generate`: units that systemd accepts, and never a token in them.

use crate::support::process::run;
use crate::support::tools;
use crate::support::world::World;

/// Commands of both roles, with every way to give a token.
fn commands(world: &World) -> Vec<Vec<String>> {
    let roles = [
        vec!["http", "server", "--port", "80", "--auto-tls-san=edge.example.com"],
        vec![
            "http",
            "server",
            "--port",
            "8000",
            "--allow-ips",
            "10.0.0.0/8",
            "--request-log",
            "requests.log",
        ],
        vec![
            "http",
            "client",
            "--url",
            "wss://edge.example.com",
            "--upstream",
            "http://127.0.0.1:8080",
            "--listen",
            "127.0.0.1:9100",
        ],
    ];
    let tokens = [["--token", world.token.as_str()], ["--token-file", "token"], ["--token-env", "TOKEN"]];
    let with =
        |role: &Vec<&str>, token: &[&str; 2]| role.iter().chain(token).map(|&word| word.to_owned()).collect();
    roles.iter().flat_map(|role| tokens.iter().map(move |token| with(role, token))).collect()
}

#[test]
fn a_generated_unit_restarts_for_ever_keeps_the_token_out_and_passes_systemds_own_check() {
    let world = World::new();
    let commands = commands(&world);
    assert_eq!(commands.len(), 9);
    for words in commands {
        let words: Vec<&str> = words.iter().map(String::as_str).chain(["--generate=systemd"]).collect();
        let unit = run(world.adit(&words).env("TOKEN", &world.token)).ok();
        assert!(!unit.contains(&world.token), "{unit}");
        let binary = tools::adit();
        for line in [
            "[Unit]",
            "[Service]",
            "[Install]",
            "After=network-online.target network.target",
            "StartLimitIntervalSec=0",
            "Type=simple",
            "Restart=always",
            "RestartSec=5",
            "NoNewPrivileges=yes",
            "ProtectSystem=strict",
            "DynamicUser=yes",
            "WantedBy=multi-user.target",
        ] {
            assert!(unit.lines().any(|found| found == line), "{line} is not in\n{unit}");
        }
        let start = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
        let expected = format!("{} {} {}", binary.display(), words[0], words[1]);
        assert!(start.starts_with(&expected), "{start}");
        let source =
            if words.contains(&"--token-env") { "--token-env=TOKEN" } else { "--token-file=%d/token" };
        assert!(start.contains(source), "{start}");

        let path = world.write("adit-generated.service", &unit);
        let Some(systemd) = tools::on_path("systemd-analyze") else {
            eprintln!("systemd-analyze is not there; only the text of the units was looked at");
            continue;
        };
        let checked = run(world.here(tools::command(&systemd)).arg("verify").arg(&path));
        assert!(checked.code == 0 && checked.err.is_empty(), "{checked:#?}\n{unit}");
    }
}

#[test]
fn generated_kubernetes_objects_never_hold_the_token() {
    let world = World::new();
    for words in commands(&world) {
        let words: Vec<&str> = words.iter().map(String::as_str).chain(["--generate=k8s_yaml"]).collect();
        let objects = run(world.adit(&words).env("TOKEN", &world.token)).ok();
        assert!(!objects.contains(&world.token), "{objects}");
        assert!(objects.contains("\nkind: Deployment\n"), "{objects}");
        assert!(objects.contains("secret"), "{objects}");
    }
}
